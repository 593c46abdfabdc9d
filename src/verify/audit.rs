//! The audit of one group of partitions: input records are judged, what should be there is held
//! against what is there, and both are read side by side, so that little waits for its counterpart.

use std::collections::{BTreeMap, HashMap};

use rdkafka::message::{BorrowedMessage, Message};

use super::feeds::{Feeds, Part};
use super::findings::{Difference, Findings, Kind, Place, Row};
use super::judge::{First, Judge, Verdict};
use super::kin::Kin;
use super::matching::{Event, Expected, Found, Must, Strand};
use super::plan::{Group, Input, Output};
use super::progress::Progress;
use super::record::{self, Aside, Body};
use super::witness::Witness;
use crate::config::{self, Config, Conflicts, Missing, Mode, PartitionBy};
use crate::demo::interrupt::Interrupt;
use crate::exit::Stop;
use crate::identify::payload::PayloadHash;
use crate::identify::{Identifier, Identity, deployment_seed};
use crate::journal::run::NO_OFFSET;
use crate::journal::{self, Run};
use crate::partitioner::murmur2_partition;
use crate::schemas::Schemas;
use crate::topics::survey::Role;
use crate::window::Fingerprint;

/// Records that wait for their counterpart, of one input and in one strand; fewer where there are
/// many lanes.
const AHEAD: usize = 16_384;
const LANES_AT_FULL: usize = 8;
const AHEAD_LEAST: usize = 256;
/// Records between two looks at the memory.
const LOOK_EVERY: u64 = 4096;
/// What a refusal that is kept takes, in bytes, about.
const REFUSAL_BYTES: usize = 64;

/// The words with which the service rejects what the output refuses.
const REFUSALS: [&str; 3] = ["too-large", "timestamp", "invalid-record"];

/// What an audit is done with.
pub struct Room<'a> {
    pub config: &'a Config,
    pub schemas: &'a Schemas,
    pub interrupt: &'a Interrupt,
    pub progress: &'a mut Progress,
    pub findings: &'a mut Findings,
    pub memory_bytes: usize,
    /// The wall clock at the start, in ms.
    pub now_ms: i64,
}

/// Audits one group.
///
/// # Errors
/// 64 where the memory is not enough, else as of [`Feeds::pull`].
pub fn audit(group: Group, room: &mut Room<'_>) -> Result<(), Stop> {
    let refusals = refusals(&group, room)?;
    let mut audit = Audit::open(group, refusals, room)?;
    while audit.step(room)? {}
    audit.finish(room);
    Ok(())
}

/// What the output refused, by input: nothing but the rejected topic tells.
#[derive(Default)]
struct Refusals {
    by_input: HashMap<(Vec<u8>, i32), HashMap<i64, &'static str>>,
    /// The first input offset that the rejected topic knows of, where its beginning is gone.
    known_from: HashMap<(Vec<u8>, i32), i64>,
}

fn refusals(group: &Group, room: &mut Room<'_>) -> Result<Refusals, Stop> {
    let mut refusals = Refusals::default();
    let strands = group.strands.iter();
    let rejected: Vec<Part> = strands
        .filter(|strand| strand.role == Role::Rejected)
        .map(|strand| strand.part.clone())
        .collect();
    if rejected.iter().all(|part| part.offsets() == 0) {
        return Ok(refusals);
    }
    room.progress.at("rejected records");
    let count = rejected.len();
    let mut feeds = Feeds::open(room.config, rejected, room.interrupt)?;
    let mut bytes = 0;
    for feed in 0..count {
        let mut unused = Progress::new(0);
        while let Some(message) = feeds.pull(feed, &mut unused)? {
            let Some((aside, _)) = Aside::of(&message) else {
                continue;
            };
            let input = (aside.topic, aside.partition);
            refusals
                .known_from
                .entry(input.clone())
                .or_insert(aside.offset);
            let reason = REFUSALS
                .into_iter()
                .find(|word| word.as_bytes() == aside.reason);
            if let Some(reason) = reason {
                let of_input = refusals.by_input.entry(input).or_default();
                of_input.insert(aside.offset, reason);
                bytes += REFUSAL_BYTES;
            }
            if bytes > room.memory_bytes / 2 {
                return Err(too_little(room.memory_bytes));
            }
        }
    }
    Ok(refusals)
}

/// One input partition on its way.
struct Scope {
    input: Input,
    feed: usize,
    judge: Judge,
    witness: Witness,
    row: Row,
    refused: HashMap<i64, &'static str>,
    /// Before it, refusals are not known.
    refusals_from: i64,
    gone_from_strand: u64,
    uncounted: u64,
    /// By partition of the output.
    outputs: Vec<Target>,
    /// `None` where they are marked in the output.
    duplicates: Option<Target>,
    rejected: Target,
}

/// A record of an input, as it is judged.
struct Received {
    offset: i64,
    time_ms: Option<i64>,
    /// The broker's clock made it.
    own_time: bool,
    identity: Identity,
    /// Hash of its payload; 0 where payloads are not compared.
    payload: u64,
    /// Its transaction let records through by a bypass.
    bypassed: bool,
    body: Body,
    output_partition: i32,
}

/// Where a kind of record of an input goes.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// Index of the strand.
    Strand(usize),
    /// The configuration names no topic for it.
    Unwanted,
    /// The topic has no such partition.
    Absent,
}

/// The partition of the output that a record of an input goes to.
pub fn output_partition(input: &Input, message: &BorrowedMessage<'_>, config: &Config) -> i32 {
    let count = input.output_partitions;
    match (config.output.partition, message.key()) {
        (PartitionBy::Same, _) => message.partition(),
        (PartitionBy::Key, Some(key)) => murmur2_partition(key, count),
        (PartitionBy::Key, None) => message.partition() % count.max(1),
    }
}

/// A record follows in the output or in a side topic; where nobody knows, in one of them.
type Following = [Option<(Target, Expected)>; 3];

impl Scope {
    /// Judges a record whose timestamp was taken in, counts it where it is in the range, and says
    /// what must follow from it.
    fn judge(&mut self, record: &Received, config: &Config) -> Following {
        let offset = record.offset;
        let must = self.must(offset);
        let counts = u64::from(must == Must::Be);
        self.row.received += counts;
        let id = match record.identity {
            Identity::Id(id) => Some(id),
            Identity::Missing(_) => None,
        };
        let Part {
            topic, partition, ..
        } = &self.input.part;
        let place =
            |reason: &str| record::place(reason.as_bytes(), topic.as_bytes(), *partition, offset);
        let expected = |place: u64, first: Option<First>, must: Must| Expected {
            offset,
            id,
            body: record.body,
            place,
            first,
            must,
        };
        let output = usize::try_from(record.output_partition).ok();
        let output = output.and_then(|at| self.outputs.get(at).copied());
        let output = output.unwrap_or(Target::Absent);
        if let Some(reason) = self.refused.get(&offset) {
            self.row.rejected += counts;
            return [
                Some((self.rejected, expected(place(reason), None, must))),
                None,
                None,
            ];
        }
        let may_be = match must {
            Must::Be => Must::MayBe,
            other => other,
        };
        let id = match record.identity {
            Identity::Id(id) => id,
            Identity::Missing(reason) => {
                return match config.id.missing {
                    missing if missing != Missing::Forward && record.bypassed => {
                        self.row.unknown += counts;
                        let rejected = expected(place(reason.as_str()), None, may_be);
                        let rejects = missing == Missing::Reject;
                        [
                            Some((output, expected(0, None, may_be))),
                            rejects.then_some((self.rejected, rejected)),
                            None,
                        ]
                    }
                    Missing::Forward => {
                        self.row.forwarded += counts;
                        [Some((output, expected(0, None, must))), None, None]
                    }
                    Missing::Reject => {
                        self.row.rejected += counts;
                        let place = place(reason.as_str());
                        [
                            Some((self.rejected, expected(place, None, must))),
                            None,
                            None,
                        ]
                    }
                    Missing::Drop | Missing::Fail => {
                        self.row.dropped += counts;
                        [None, None, None]
                    }
                };
            }
        };
        let verdict = match config.scope {
            config::Scope::Partition => self.judge.judge(id, offset, record.payload),
            config::Scope::Copartition | config::Scope::Topic | config::Scope::Repartition => {
                Verdict::Unsure
            }
        };
        let verdict = match verdict {
            Verdict::Forward => Verdict::Forward,
            _ if record.bypassed => Verdict::Unsure,
            verdict => verdict,
        };
        let duplicates = self.duplicates.unwrap_or(output);
        // The service may not have known the first payload.
        let conflicting = || {
            let conflict = expected(place("conflict"), None, may_be);
            match config.id.conflicts {
                Conflicts::Ignore | Conflicts::Forward => None,
                Conflicts::Count => Some((duplicates, conflict)),
                Conflicts::Reject => Some((self.rejected, conflict)),
            }
        };
        let repeating = |first, must| Some((duplicates, expected(place("duplicate"), first, must)));
        match verdict {
            Verdict::Forward => {
                self.row.forwarded += counts;
                [Some((output, expected(0, None, must))), None, None]
            }
            Verdict::Duplicate(first) => {
                self.row.duplicates += counts;
                [repeating(Some(first), must), None, None]
            }
            Verdict::Conflict(_) => {
                match config.id.conflicts {
                    Conflicts::Reject => self.row.unknown += counts,
                    _ => self.row.duplicates += counts,
                }
                [conflicting(), repeating(None, may_be), None]
            }
            Verdict::Unsure => {
                self.row.unknown += counts;
                [
                    Some((output, expected(0, None, may_be))),
                    repeating(None, may_be),
                    conflicting(),
                ]
            }
        }
    }

    fn must(&self, offset: i64) -> Must {
        match (self.input.from..self.input.to).contains(&offset) {
            true => Must::Be,
            false => Must::Outside,
        }
    }
}

/// What was remembered before the first record, by the runs of a preload.
fn preload(
    judge: &mut Judge,
    part: &Part,
    identity: journal::Identity,
    room: &mut Room<'_>,
) -> Result<(), Stop> {
    let mut feeds = Feeds::open(room.config, vec![part.clone()], room.interrupt)?;
    let mut unused = Progress::new(0);
    while let Some(message) = feeds.pull(0, &mut unused)? {
        let run = Run::decode(message.payload().unwrap_or_default());
        let Some(run) = run.ok().filter(|run| identity.has_written(run)) else {
            continue;
        };
        if !run.preload {
            break;
        }
        if run.begins {
            judge.begin_anew();
        }
        for (id, time_ms) in run.fingerprints.iter().zip(&run.times_ms) {
            judge.preload(*id, *time_ms);
        }
        if let Some(time_ms) = run.stream_time_ms {
            judge.preloaded_to(time_ms);
        }
        if judge.memory_bytes() > room.memory_bytes {
            return Err(too_little(room.memory_bytes));
        }
    }
    Ok(())
}

struct There {
    it: Output,
    feed: usize,
    strand: Strand,
    gone_from_input: u64,
    uncounted: u64,
}

struct Audit {
    feeds: Feeds,
    scopes: Vec<Scope>,
    there: Vec<There>,
    identifier: Identifier,
    payloads: PayloadHash,
    /// `None` where every partition is a scope of its own.
    kin: Option<Kin>,
    ahead: usize,
    steps: u64,
}

impl Audit {
    fn open(group: Group, mut refusals: Refusals, room: &mut Room<'_>) -> Result<Self, Stop> {
        let Group {
            inputs, strands, ..
        } = group;
        let config = room.config;
        let lanes = inputs.len();
        let ahead = AHEAD * LANES_AT_FULL / lanes.max(LANES_AT_FULL);
        let ahead = ahead.max(AHEAD_LEAST);
        let mut parts = Vec::new();
        let mut add = |part: &Part| {
            parts.push(part.clone());
            parts.len() - 1
        };
        let rejected_cut = strands
            .iter()
            .any(|strand| strand.role == Role::Rejected && strand.cut.strand);
        let transaction_ms = i64::try_from(config.transaction.timeout.as_millis());
        let transaction_ms = transaction_ms.unwrap_or(i64::MAX / 2);
        let mut scopes = Vec::with_capacity(lanes);
        for input in inputs {
            let feed = add(&input.part);
            let journal = input.journal.as_ref().map(|(part, _)| add(part));
            let trimmed = input.journal.as_ref().is_some_and(|(_, trimmed)| *trimmed);
            let mut judge = Judge::new(config.window, config.id.conflicts, input.complete);
            if let Some(until) = input.unknown_until {
                judge.unknown_until(until);
            }
            if let (true, Some((part, _))) = (input.preloaded, &input.journal) {
                preload(&mut judge, part, input.identity, room)?;
            }
            let key = (input.part.topic.clone().into_bytes(), input.part.partition);
            let refused = refusals.by_input.remove(&key).unwrap_or_default();
            let refusals_from = match rejected_cut {
                true => refusals.known_from.get(&key).copied().unwrap_or(i64::MAX),
                false => i64::MIN,
            };
            scopes.push(Scope {
                feed,
                judge,
                witness: Witness::new(
                    journal,
                    input.identity,
                    trimmed,
                    transaction_ms,
                    room.now_ms,
                ),
                row: Row {
                    topic: input.part.topic.clone(),
                    partition: input.part.partition,
                    from: input.from,
                    to: input.to,
                    ..Row::default()
                },
                refused,
                refusals_from,
                gone_from_strand: 0,
                uncounted: 0,
                outputs: Vec::new(),
                duplicates: None,
                rejected: Target::Unwanted,
                input,
            });
        }
        let mut index: BTreeMap<(String, i32), usize> = BTreeMap::new();
        let mut there = Vec::with_capacity(strands.len());
        for it in strands {
            index.insert((it.part.topic.clone(), it.part.partition), there.len());
            there.push(There {
                feed: add(&it.part),
                strand: Strand::new(lanes, ahead, it.cut),
                it,
                gone_from_input: 0,
                uncounted: 0,
            });
        }
        let target = |topic: &str, partition: i32| {
            let at = index.get(&(topic.to_owned(), partition));
            at.map_or(Target::Absent, |at| Target::Strand(*at))
        };
        for scope in &mut scopes {
            let (names, partition) = (&scope.input.names, scope.input.part.partition);
            let at = |name: Option<&String>, partition: i32| {
                name.map_or(Target::Unwanted, |name| target(name, partition))
            };
            let outputs = 0..scope.input.output_partitions;
            scope.outputs = outputs
                .map(|partition| at(names.output.as_ref(), partition))
                .collect();
            let side = |name| at(name, partition);
            if config.mode != Mode::Mark {
                scope.duplicates = Some(side(names.duplicates.as_ref()));
            }
            scope.rejected = side(names.rejected.as_ref());
        }
        Ok(Self {
            feeds: Feeds::open(config, parts, room.interrupt)?,
            scopes,
            there,
            identifier: Identifier::new(
                &config.id.from,
                deployment_seed(&config.kafka.group_id),
                room.schemas,
            ),
            payloads: PayloadHash::new(&config.id, deployment_seed(&config.kafka.group_id)),
            kin: (config.scope != config::Scope::Partition)
                .then(|| Kin::new(config.window.time_ms)),
            ahead,
            steps: 0,
        })
    }

    /// Takes one record in, of whichever side lags behind; false when all is read.
    fn step(&mut self, room: &mut Room<'_>) -> Result<bool, Stop> {
        self.steps += 1;
        if self.steps.is_multiple_of(LOOK_EVERY) {
            self.look_at_memory(room)?;
        }
        if let Some(strand) = self.awaited_strand() {
            self.read_strand(strand, room)?;
        } else if let Some(scope) = self.next_input() {
            self.read_input(scope, room)?;
        } else if let Some(strand) = self.next_strand() {
            self.read_strand(strand, room)?;
        } else if !self.give_one_up() {
            return Ok(false);
        }
        self.take_events(room);
        Ok(true)
    }

    /// A strand that should have a record next.
    fn awaited_strand(&self) -> Option<usize> {
        self.there.iter().position(|there| {
            there.strand.strays() == 0
                && there.strand.open() > 0
                && !self.feeds.has_ended(there.feed)
        })
    }

    /// The input with the fewest records that wait. Beyond its range it is read only while there are
    /// records in the strands that may be its.
    fn next_input(&self) -> Option<usize> {
        let strays = self.there.iter().any(|there| there.strand.strays() > 0);
        let open = |index: usize| -> usize {
            let strands = self.there.iter();
            strands.map(|there| there.strand.open_in(index)).sum()
        };
        self.scopes
            .iter()
            .enumerate()
            .filter(|(_, scope)| {
                !self.feeds.has_ended(scope.feed)
                    && (strays || self.feeds.next(scope.feed) < scope.input.to)
            })
            .map(|(index, _)| (open(index), index))
            .filter(|(open, _)| *open < self.ahead)
            .min()
            .map(|(_, index)| index)
    }

    fn next_strand(&self) -> Option<usize> {
        let there = self.there.iter().enumerate();
        there
            .filter(|(_, there)| !self.feeds.has_ended(there.feed))
            .map(|(index, there)| (there.strand.strays(), index))
            .filter(|(strays, _)| *strays < self.ahead)
            .min()
            .map(|(_, index)| index)
    }

    /// Both sides wait for each other: what is older has no counterpart. False where both are read to
    /// their ends.
    fn give_one_up(&mut self) -> bool {
        let unread = |feed: usize| !self.feeds.has_ended(feed);
        let inputs = self
            .scopes
            .iter()
            .any(|scope| unread(scope.feed) && self.feeds.next(scope.feed) < scope.input.to);
        let strays = self.there.iter().any(|there| there.strand.strays() > 0);
        let beyond = strays && self.scopes.iter().any(|scope| unread(scope.feed));
        if !inputs && !beyond && !self.there.iter().any(|there| unread(there.feed)) {
            return false;
        }
        let strand_ahead = (self.there.iter().enumerate())
            .max_by_key(|(_, there)| there.strand.strays())
            .filter(|(_, there)| there.strand.strays() > 0)
            .map(|(index, _)| index);
        let open_ahead = (self.there.iter().enumerate())
            .flat_map(|(at, there)| {
                (0..self.scopes.len()).map(move |lane| (there.strand.open_in(lane), at, lane))
            })
            .max()
            .filter(|(open, ..)| *open > 0);
        match (strand_ahead, open_ahead) {
            (Some(at), None) => self.there[at].strand.give_up_stray(),
            (None, Some((_, at, lane))) => self.there[at].strand.give_up_open(lane),
            (Some(stray), Some((_, at, lane))) => {
                let stray_ms = self.there[stray].strand.oldest_stray_ms();
                if stray_ms < self.there[at].strand.oldest_open_ms(lane) {
                    self.there[stray].strand.give_up_stray();
                } else {
                    self.there[at].strand.give_up_open(lane);
                }
            }
            (None, None) => return false,
        }
        true
    }

    fn read_strand(&mut self, at: usize, room: &mut Room<'_>) -> Result<(), Stop> {
        let there = &mut self.there[at];
        let Some(message) = self.feeds.pull(there.feed, room.progress)? else {
            return Ok(());
        };
        let aside = match there.it.role {
            Role::Duplicates | Role::Rejected => Aside::of(&message),
            Role::Output if room.config.mode == Mode::Mark => {
                Aside::of(&message).filter(|(aside, _)| is_mark(aside, &self.scopes))
            }
            Role::Output | Role::Repartition | Role::Journal => None,
        };
        let (aside, own_headers) = aside.unzip();
        let go_on = || !room.interrupt.is_asked();
        let identity = self
            .identifier
            .identify_in_time(&message, room.schemas, go_on)?;
        let id = match identity {
            Identity::Id(id) => Some(id),
            Identity::Missing(_) => None,
        };
        there.strand.find(Found {
            offset: message.offset(),
            id,
            body: Body::of(&message, own_headers.unwrap_or(0)),
            aside,
        });
        Ok(())
    }

    /// Judges the next record of an input, and lets what must follow from it be expected.
    fn read_input(&mut self, at: usize, room: &mut Room<'_>) -> Result<(), Stop> {
        let scope = &mut self.scopes[at];
        let Some(message) = self.feeds.pull(scope.feed, room.progress)? else {
            return Ok(());
        };
        let go_on = || !room.interrupt.is_asked();
        let identity = self
            .identifier
            .identify_in_time(&message, room.schemas, go_on)?;
        let mut record = Received {
            offset: message.offset(),
            time_ms: message.timestamp().to_millis(),
            own_time: record::is_append_time(&message),
            identity,
            payload: self.payloads.of(&message),
            bypassed: false,
            body: Body::of(&message, 0),
            output_partition: output_partition(&scope.input, &message, room.config),
        };
        drop(message);
        let is_known = record.offset >= scope.input.begins;
        if !is_known && matches!(record.identity, Identity::Id(_)) {
            // The first run would know of it, had it been received.
            return Ok(());
        }
        if is_known {
            let wall = scope
                .witness
                .wall(record.offset, &mut self.feeds, room.progress)?;
            scope.judge.observe(record.time_ms, record.own_time, wall);
            for id in scope.witness.take_forgotten() {
                scope.judge.forget(id);
            }
            record.bypassed = scope.witness.is_bypassed(record.offset);
        }
        for (target, expected) in scope.judge(&record, room.config).into_iter().flatten() {
            match target {
                Target::Strand(to) => self.there[to].strand.expect(at, expected),
                // The topic has fewer partitions than its input.
                Target::Absent => {
                    self.scopes[at].row.missing += u64::from(expected.must == Must::Be);
                }
                Target::Unwanted => {}
            }
        }
        Ok(())
    }

    fn take_events(&mut self, room: &mut Room<'_>) {
        for there in &mut self.there {
            let events: Vec<Event> = there.strand.events().collect();
            for event in events {
                if let (Some(kin), Role::Output) = (&mut self.kin, there.it.role) {
                    note_kin(kin, &event, &self.scopes);
                }
                note(event, there, &mut self.scopes, room.findings);
            }
        }
    }

    /// Marked or not, every record is in the output: one that is not there is missing, whatever its
    /// verdict was, unless the output's beginning is gone.
    fn count_unmarked_unknowns(&mut self) {
        let is_cut = |there: &There| there.it.cut.strand || there.it.compacted;
        if self.there.iter().any(is_cut) {
            return;
        }
        for scope in &mut self.scopes {
            if !scope.input.compacted {
                scope.row.missing += std::mem::take(&mut scope.row.unknown);
            }
        }
    }

    /// What was not found where it may be is a duplicate, if another record with its id is there.
    fn conclude_kin(&mut self, kin: &Kin, findings: &mut Findings) {
        let is_cut = |there: &There| there.it.cut.strand || there.it.compacted;
        let cut = self.there.iter().any(is_cut);
        let is_whole = |scope: &Scope| {
            let input = &scope.input;
            input.complete && !input.preloaded && !input.compacted
        };
        let whole = !cut && self.scopes.iter().all(is_whole);
        let lost = kin.lost();
        for (lane, scope) in self.scopes.iter_mut().enumerate() {
            let of_lane = || lost.iter().filter(|(it, _)| *it == lane);
            let ids = of_lane().count() as u64;
            let nowhere = std::mem::take(&mut scope.row.unknown);
            let has_topic = matches!(scope.duplicates, Some(Target::Strand(_)));
            match (whole, has_topic) {
                // It would be there.
                (true, true) => scope.row.missing += nowhere.max(ids),
                (true, false) => {
                    scope.row.missing += ids;
                    scope.row.duplicates += nowhere.saturating_sub(ids);
                }
                (false, _) => {
                    scope.row.unknown = ids.min(nowhere);
                    scope.row.duplicates += nowhere.saturating_sub(ids);
                }
            }
            for (_, offset) in of_lane().filter(|_| whole) {
                let input = Some(scope.at(*offset));
                let output_topic = scope.input.names.output.clone().unwrap_or_default();
                findings.describe(|| Difference {
                    kind: Kind::Missing,
                    role: Role::Output.name(),
                    input,
                    output: None,
                    output_topic,
                    parts: None,
                    id: None,
                });
            }
        }
        let Some(Scope { input, .. }) = self.scopes.first().filter(|_| kin.near() > 0) else {
            return;
        };
        findings.doubt(
            &input.part.topic,
            input.part.partition,
            format!(
                "{} records of the output have an id that was there before, in any of its partitions, by \
                 less than 7/8 of the window. That is right where a record came late, and nothing else",
                kin.near()
            ),
        );
    }

    fn look_at_memory(&self, room: &Room<'_>) -> Result<(), Stop> {
        let seen = self.scopes.iter().map(|scope| scope.judge.memory_bytes());
        let refused = self.scopes.iter().map(|scope| scope.refused.len());
        let kin = self.kin.as_ref().map_or(0, Kin::memory_bytes);
        let bytes = seen.sum::<usize>() + refused.sum::<usize>() * REFUSAL_BYTES + kin;
        match bytes > room.memory_bytes {
            true => Err(too_little(room.memory_bytes)),
            false => Ok(()),
        }
    }

    fn finish(mut self, room: &mut Room<'_>) {
        for there in &mut self.there {
            there.strand.finish();
        }
        self.take_events(room);
        if room.config.mode == Mode::Mark {
            self.count_unmarked_unknowns();
        }
        if let Some(kin) = self.kin.take() {
            self.conclude_kin(&kin, room.findings);
        }
        for there in &self.there {
            let Output { part, .. } = &there.it;
            if there.gone_from_input > 0 {
                room.findings.doubt(
                    &part.topic,
                    part.partition,
                    format!(
                        "{} records at its beginning come from before the first record that the input \
                         still has",
                        there.gone_from_input
                    ),
                );
            }
            if there.uncounted > 0 {
                room.findings.doubt(
                    &part.topic,
                    part.partition,
                    format!(
                        "{} records have no counterpart in the input, which is compacted",
                        there.uncounted
                    ),
                );
            }
        }
        for scope in self.scopes {
            scope.conclude(room.findings);
        }
    }
}

impl Scope {
    fn conclude(self, findings: &mut Findings) {
        let Part {
            topic, partition, ..
        } = &self.input.part;
        for doubt in self.input.doubts {
            findings.doubt(topic, *partition, doubt);
        }
        if self.witness.set_back {
            findings.doubt(
                topic,
                *partition,
                "the group's offset was set back: records were judged more than once, and appear as \
                 extra where they went to the duplicates or rejected topic again"
                    .to_owned(),
            );
        }
        if self.row.unknown > 0 {
            findings.doubt(
                topic,
                *partition,
                format!(
                    "of {} records that are not in the output it is not known whether they are \
                     duplicates",
                    self.row.unknown
                ),
            );
        }
        if self.gone_from_strand > 0 {
            findings.doubt(
                topic,
                *partition,
                format!(
                    "{} records that should be in the output are not compared: its beginning is gone \
                     (retention)",
                    self.gone_from_strand
                ),
            );
        }
        if self.uncounted > 0 {
            findings.doubt(
                topic,
                *partition,
                format!(
                    "{} records that should be in the output are not there, and are not called missing: \
                     a topic is compacted, or the beginning of the rejected topic is gone",
                    self.uncounted
                ),
            );
        }
        findings.rows.push(self.row);
    }
}

/// The same between partitions, of a record that may be in the output.
fn note_kin(kin: &mut Kin, event: &Event, scopes: &[Scope]) {
    match *event {
        Event::Confirmed {
            id: Some(id),
            time_ms,
            aside: false,
            ..
        } => kin.forwarded(id, time_ms),
        Event::Absent {
            lane,
            offset,
            id: Some(id),
            aside: false,
        } if scopes[lane].must(offset) == Must::Be => kin.absent(id, lane, offset),
        _ => {}
    }
}

/// Counts what happened, and describes it where it is a difference.
fn note(event: Event, there: &mut There, scopes: &mut [Scope], findings: &mut Findings) {
    let Output {
        role,
        part,
        compacted,
        ..
    } = &there.it;
    let found_at = |offset: i64| {
        Some(Place {
            topic: part.topic.clone(),
            partition: part.partition,
            offset,
        })
    };
    let difference = |kind: Kind, input: Option<Place>, output: Option<Place>, parts| Difference {
        kind,
        role: role.name(),
        input,
        output,
        output_topic: part.topic.clone(),
        parts,
        id: None,
    };
    match event {
        Event::Confirmed {
            lane,
            offset,
            id,
            aside,
            ..
        } => {
            let scope = &mut scopes[lane];
            let counts = u64::from(scope.must(offset) == Must::Be).min(scope.row.unknown);
            scope.row.unknown -= counts;
            match (role, aside) {
                (Role::Output, false) => {
                    scope.row.forwarded += counts;
                    if let Some(id) = id {
                        scope.judge.was_forwarded(id, offset);
                    }
                }
                (Role::Output, true) | (Role::Duplicates, _) => scope.row.duplicates += counts,
                (Role::Rejected, _) => scope.row.rejected += counts,
                (Role::Repartition | Role::Journal, _) => {}
            }
        }
        Event::Absent {
            lane,
            offset,
            id,
            aside,
        } => {
            if let (Role::Output, false, Some(id)) = (*role, aside, id) {
                scopes[lane].judge.was_not_forwarded(id, offset);
            }
        }
        Event::Missing { lane, offset } => {
            let scope = &mut scopes[lane];
            let open = *compacted
                || scope.input.compacted
                || (*role == Role::Output && offset < scope.refusals_from);
            if open {
                scope.uncounted += 1;
                return;
            }
            scope.row.missing += 1;
            findings.describe(|| difference(Kind::Missing, Some(scope.at(offset)), None, None));
        }
        Event::Altered {
            lane,
            offset,
            found,
            parts,
        } => {
            let scope = &mut scopes[lane];
            scope.row.altered += 1;
            let input = Some(scope.at(offset));
            findings.describe(|| difference(Kind::Altered, input, found_at(found), Some(parts)));
        }
        Event::Reordered {
            lane,
            offset,
            found,
        } => {
            let scope = &mut scopes[lane];
            if scope.must(offset) != Must::Be {
                return;
            }
            scope.row.reordered += 1;
            let input = Some(scope.at(offset));
            findings.describe(|| difference(Kind::Reordered, input, found_at(found), None));
        }
        Event::Extra { found, id } => {
            if scopes.iter().any(|scope| scope.input.compacted) {
                there.uncounted += 1;
                return;
            }
            let input = id.and_then(|id| first_seen(id, scopes));
            let own = |scope: &&mut Scope| scope.input.part.partition == part.partition;
            let row = match scopes.iter_mut().find(own) {
                Some(scope) => scope,
                None => &mut scopes[0],
            };
            row.row.extra += 1;
            findings.describe(|| difference(Kind::Extra, input, found_at(found), None));
        }
        Event::GoneFromStrand { lane } => scopes[lane].gone_from_strand += 1,
        Event::GoneFromInput => {
            // Read from the middle on purpose: what came before is not asked for.
            let asked = scopes
                .iter()
                .all(|scope| scope.input.complete || scope.input.unknown_until.is_some());
            there.gone_from_input += u64::from(!asked);
        }
    }
}

/// Whether headers are the mark of this service on a duplicate, and not what an earlier stage has put
/// there.
fn is_mark(aside: &Aside, scopes: &[Scope]) -> bool {
    aside.first.is_some()
        && scopes.iter().any(|scope| {
            let input = &scope.input.part;
            input.topic.as_bytes() == aside.topic && input.partition == aside.partition
        })
}

impl Scope {
    fn at(&self, offset: i64) -> Place {
        Place {
            topic: self.input.part.topic.clone(),
            partition: self.input.part.partition,
            offset,
        }
    }
}

fn first_seen(id: Fingerprint, scopes: &[Scope]) -> Option<Place> {
    scopes.iter().find_map(|scope| {
        let first = scope
            .judge
            .first_seen(id)
            .filter(|first| *first != NO_OFFSET)?;
        Some(scope.at(first))
    })
}

pub fn too_little(memory_bytes: usize) -> Stop {
    Stop::usage(format!(
        "the ids of the window take more than the {} of --memory: give more, or audit one partition at a \
         time (--partition)",
        bytesize::ByteSize::b(memory_bytes as u64)
    ))
}
