//! The audit of one group of partitions: input records are judged, what should be there is held
//! against what is there, and both are read side by side, so that little waits for its counterpart.

use std::collections::BTreeMap;

use rdkafka::message::Message;

use super::events::{There, note, note_kin};
use super::feeds::{Feeds, Part};
use super::findings::{Difference, Findings, Kind, Row};
use super::judge::Judge;
use super::kin::Kin;
use super::matching::{Event, Found, Must, Strand};
use super::plan::{Group, Output};
use super::progress::Progress;
use super::record::{self, Aside, Body};
use super::refusals::{REFUSAL_BYTES, Refusals, refusals};
use super::scope::{Received, Scope, Target, output_partition};
use super::witness::Witness;
use crate::config::{self, Config, Mode};
use crate::demo::interrupt::Interrupt;
use crate::exit::Stop;
use crate::identify::payload::PayloadHash;
use crate::identify::{Identifier, Identity, deployment_seed};
use crate::journal::{self, Run};
use crate::schemas::Schemas;
use crate::topics::survey::Role;

/// Records that wait for their counterpart, of one input and in one strand; fewer where there are
/// many lanes.
const AHEAD: usize = 16_384;
const LANES_AT_FULL: usize = 8;
const AHEAD_LEAST: usize = 256;
/// Records between two looks at the memory.
const LOOK_EVERY: u64 = 4096;

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

    /// The input with the fewest records that wait, as long as few enough of them have to come. Beyond its range it is read
    /// only while there are records in the strands that may be its.
    fn next_input(&self) -> Option<usize> {
        let strays = self.there.iter().any(|there| there.strand.strays() > 0);
        let sum = |of: &dyn Fn(&Strand) -> usize| -> usize {
            self.there.iter().map(|there| of(&there.strand)).sum()
        };
        self.scopes
            .iter()
            .enumerate()
            .filter(|(_, scope)| {
                !self.feeds.has_ended(scope.feed)
                    && (strays || self.feeds.next(scope.feed) < scope.input.to)
            })
            .filter(|(index, _)| sum(&|strand| strand.must_be_open_in(*index)) < self.ahead)
            .map(|(index, _)| (sum(&|strand| strand.open_in(index)), index))
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

/// Whether headers are the mark of this service on a duplicate, and not what an earlier stage has put
/// there.
fn is_mark(aside: &Aside, scopes: &[Scope]) -> bool {
    aside.first.is_some()
        && scopes.iter().any(|scope| {
            let input = &scope.input.part;
            input.topic.as_bytes() == aside.topic && input.partition == aside.partition
        })
}

pub fn too_little(memory_bytes: usize) -> Stop {
    Stop::usage(format!(
        "the ids of the window take more than the {} of --memory: give more, or audit one partition at a \
         time (--partition)",
        bytesize::ByteSize::b(memory_bytes as u64)
    ))
}
