//! The audit of two hops (`scope: repartition`). Which of several partitions was judged first nobody knows
//! afterwards, and records of different ids are in no order. What must hold all the same: every record of the
//! output is, byte for byte and in its partition, one of the input, and no more often than there; every id is
//! there; what is not there is in the side topic that is configured for it, and says truly where it was and
//! which record was the first; and what is nowhere is still between the hops. An id that is there twice too near
//! to each other is told. All of the output is held in memory, about 100 bytes a record.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use rdkafka::message::Message;
use xxhash_rust::xxh3::xxh3_64;

use super::audit::{Room, too_little};
use super::feeds::{Feeds, Part};
use super::findings::{Difference, Kind, Place, Row};
use super::kin::Kin;
use super::plan::{Group, Input};
use super::record::{self, Aside, Body};
use super::scope::output_partition;
use crate::config::{Missing, Mode};
use crate::exit::Stop;
use crate::identify::{Identifier, Identity, deployment_seed};
use crate::journal::run::NO_OFFSET;
use crate::topics::survey::Role;
use crate::window::Fingerprint;

/// Records between two looks at the memory.
const LOOK_EVERY: u64 = 4096;
/// What a record of the output takes, one of a side topic, and one between the hops, in bytes, about.
const RECORD_BYTES: usize = 100;
const ASIDE_BYTES: usize = 250;
const WAITING_BYTES: usize = 40;

/// Index of an input partition, and an offset in it.
type At = (usize, i64);
/// Time of a record of the output, index of its strand, and its offset there.
type Written = (Option<i64>, usize, i64);

/// Audits one group.
///
/// # Errors
/// 64 where the memory is not enough, else as of [`Feeds::pull`].
pub fn audit(group: Group, room: &mut Room<'_>) -> Result<(), Stop> {
    let mut audit = Audit::new(&group, room);
    audit.note_on_the_way(&group);
    audit.read_written(&group, room)?;
    for lane in 0..group.inputs.len() {
        audit.read_input(lane, &group.inputs[lane], room)?;
    }
    audit.conclude(group, room);
    Ok(())
}

/// A record of a side topic, or a marked one.
struct Side {
    aside: Aside,
    body: Body,
    role: Role,
    place: Place,
}

struct Audit {
    lanes: BTreeMap<(Vec<u8>, i32), usize>,
    rows: Vec<Row>,
    /// Passed on, and not known to be judged.
    on_the_way: HashSet<At>,
    /// Records of the output by all but their time: time of each, its strand and its offset there.
    forwarded: HashMap<u64, Vec<Written>, foldhash::fast::RandomState>,
    /// How many records that are.
    forwarded_count: usize,
    sides: HashMap<At, Side>,
    /// Records that are said to be the first of an id; of several, where that is wrong.
    firsts: HashMap<At, Vec<Fingerprint>>,
    kin: Kin,
    identifier: Identifier,
    /// The output's clock made its timestamps.
    own_times: bool,
    /// All that the group has read and written is still there.
    whole: bool,
    strays: u64,
    steps: u64,
}

impl Audit {
    fn new(group: &Group, room: &Room<'_>) -> Self {
        let key = |input: &Input| (input.part.topic.clone().into_bytes(), input.part.partition);
        let lanes = group.inputs.iter().map(key).zip(0..).collect();
        let row = |input: &Input| Row {
            topic: input.part.topic.clone(),
            partition: input.part.partition,
            from: input.from,
            to: input.to,
            ..Row::default()
        };
        let config = room.config;
        let seed = deployment_seed(&config.kafka.group_id);
        let own_times =
            |strand: &super::plan::Output| strand.role == Role::Output && strand.cut.own_times;
        Self {
            lanes,
            rows: group.inputs.iter().map(row).collect(),
            on_the_way: HashSet::new(),
            forwarded: HashMap::default(),
            forwarded_count: 0,
            sides: HashMap::new(),
            firsts: HashMap::new(),
            kin: Kin::new(config.window.time_ms),
            identifier: Identifier::new(&config.id.from, seed, room.schemas),
            own_times: group.strands.iter().any(own_times),
            whole: is_whole(group),
            strays: 0,
            steps: 0,
        }
    }

    /// What was between the hops when it was asked how far the second had come.
    fn note_on_the_way(&mut self, group: &Group) {
        for (input, partition, offset) in &group.on_the_way {
            if let Some(lane) = self.lane(input.as_bytes(), *partition) {
                self.on_the_way.insert((lane, *offset));
            }
        }
    }

    /// All of output, duplicates and rejected topics.
    fn read_written(&mut self, group: &Group, room: &mut Room<'_>) -> Result<(), Stop> {
        let parts: Vec<Part> = group.strands.iter().map(|it| it.part.clone()).collect();
        let mut feeds = Feeds::open(room.config, parts, room.interrupt)?;
        for (feed, strand) in group.strands.iter().enumerate() {
            let (topic, partition) = (&strand.part.topic, strand.part.partition);
            while let Some(message) = feeds.pull(feed, room.progress)? {
                self.look_at_memory(room)?;
                let place = Place {
                    topic: topic.clone(),
                    partition,
                    offset: message.offset(),
                };
                let is_marked = room.config.mode == Mode::Mark && strand.role == Role::Output;
                let aside = match strand.role {
                    Role::Output if !is_marked => None,
                    _ => Aside::of(&message),
                };
                let known = aside.and_then(|(aside, headers)| {
                    let lane = self.lane(&aside.topic, aside.partition)?;
                    let is_mark = !is_marked || aside.first.is_some();
                    is_mark.then_some((lane, aside, headers))
                });
                match (known, strand.role) {
                    (Some((lane, aside, headers)), role) => {
                        let body = Body::of(&message, headers);
                        let go_on = || !room.interrupt.is_asked();
                        let identity =
                            self.identifier
                                .identify_in_time(&message, room.schemas, go_on)?;
                        self.note_first(&aside, identity);
                        let at = (lane, aside.offset);
                        let side = Side {
                            aside,
                            body,
                            role,
                            place,
                        };
                        if let Some(again) = self.sides.insert(at, side) {
                            self.extra(again.place, again.role, room);
                        }
                    }
                    (None, Role::Output) => {
                        let body = Body::of(&message, 0);
                        let key = key_of(&body, topic, partition);
                        let entry = self.forwarded.entry(key);
                        let times = entry.or_insert_with(|| Vec::with_capacity(1));
                        times.push((body.timestamp_ms, feed, place.offset));
                        self.forwarded_count += 1;
                    }
                    (None, role) => self.extra(place, role, room),
                }
            }
        }
        Ok(())
    }

    fn lane(&self, topic: &[u8], partition: i32) -> Option<usize> {
        self.lanes.get(&(topic.to_vec(), partition)).copied()
    }

    fn note_first(&mut self, aside: &Aside, identity: Identity) {
        let Some(first) = aside
            .first
            .as_ref()
            .filter(|first| first.offset != NO_OFFSET)
        else {
            return;
        };
        if let (Some(lane), Identity::Id(id)) = (self.lane(&first.topic, first.partition), identity)
        {
            let said = self.firsts.entry((lane, first.offset)).or_default();
            if !said.contains(&id) {
                said.push(id);
            }
        }
    }

    fn extra(&mut self, place: Place, role: Role, room: &mut Room<'_>) {
        self.strays += 1;
        let own = self
            .rows
            .iter()
            .position(|row| row.partition == place.partition);
        if let Some(row) = self.rows.get_mut(own.unwrap_or(0)) {
            row.extra += 1;
        }
        let output_topic = place.topic.clone();
        room.findings.describe(|| Difference {
            kind: Kind::Extra,
            role: role.name(),
            input: None,
            output: Some(place),
            output_topic,
            parts: None,
            id: None,
        });
    }

    /// One partition of the input, against what was written. Beyond the audited range records are only
    /// looked for, as some may be there already.
    fn read_input(&mut self, lane: usize, input: &Input, room: &mut Room<'_>) -> Result<(), Stop> {
        let mut feeds = Feeds::open(room.config, vec![input.part.clone()], room.interrupt)?;
        while let Some(message) = feeds.pull(0, room.progress)? {
            self.look_at_memory(room)?;
            let offset = message.offset();
            let counts = (input.from..input.to).contains(&offset);
            let go_on = || !room.interrupt.is_asked();
            let identity = self
                .identifier
                .identify_in_time(&message, room.schemas, go_on)?;
            let body = Body::of(&message, 0);
            let to = output_partition(input, &message, room.config);
            drop(message);
            let at = Place {
                topic: input.part.topic.clone(),
                partition: input.part.partition,
                offset,
            };
            let said = self.firsts.remove(&(lane, offset)).unwrap_or_default();
            for _ in said.iter().filter(|id| Identity::Id(**id) != identity) {
                let parts = "header dedup-first-offset of a duplicate that names it";
                self.altered(lane, at.clone(), None, parts.to_owned(), room);
            }
            self.rows[lane].received += u64::from(counts);
            if let Some(side) = self.sides.remove(&(lane, offset)) {
                self.set_aside((lane, counts), at, &side, (&body, identity), room);
            } else if let Some(time_ms) = self.take_forwarded(input, &body, to) {
                self.rows[lane].forwarded += u64::from(counts);
                if let Identity::Id(id) = identity {
                    self.kin.forwarded(id, time_ms);
                }
            } else if counts {
                self.nowhere(lane, input, at, identity, room);
            }
        }
        Ok(())
    }

    /// The timestamp of the record of the output that this one has become.
    fn take_forwarded(&mut self, input: &Input, body: &Body, to: i32) -> Option<Option<i64>> {
        let topic = input.names.output.as_deref().unwrap_or_default();
        let key = key_of(body, topic, to);
        let times = self.forwarded.get_mut(&key)?;
        let times_count = !self.own_times && record::keeps_time(body.timestamp_ms);
        let same = |(time, ..): &Written| !times_count || *time == body.timestamp_ms;
        let place = times.iter().position(same)?;
        times.swap_remove(place);
        self.forwarded_count -= 1;
        if times.is_empty() {
            self.forwarded.remove(&key);
        }
        Some(body.timestamp_ms)
    }

    fn set_aside(
        &mut self,
        (lane, counts): (usize, bool),
        at: Place,
        side: &Side,
        (body, identity): (&Body, Identity),
        room: &mut Room<'_>,
    ) {
        let times_count = !self.own_times && record::keeps_time(body.timestamp_ms);
        let mut parts = body.differs_from(&side.body, times_count);
        let repeats = side.aside.first.is_some();
        let is_conflict = side.aside.reason == b"conflict";
        match (repeats, identity) {
            (true, Identity::Missing(_)) => parts.push("header dedup-reason"),
            (true, Identity::Id(id)) if counts => self.kin.absent(id, lane, at.offset),
            (false, Identity::Id(id)) if counts && is_conflict => {
                self.kin.absent(id, lane, at.offset);
            }
            _ => {}
        }
        let row = &mut self.rows[lane];
        match repeats {
            true => row.duplicates += u64::from(counts),
            false => row.rejected += u64::from(counts),
        }
        if !parts.is_empty() {
            let place = Some(side.place.clone());
            self.altered(lane, at, place, parts.join(", "), room);
        }
    }

    fn altered(
        &mut self,
        lane: usize,
        input: Place,
        output: Option<Place>,
        parts: String,
        room: &mut Room<'_>,
    ) {
        self.rows[lane].altered += 1;
        let output_topic = output.as_ref().map(|place| place.topic.clone());
        room.findings.describe(|| Difference {
            kind: Kind::Altered,
            role: Role::Output.name(),
            input: Some(input),
            output,
            output_topic: output_topic.unwrap_or_default(),
            parts: Some(parts),
            id: None,
        });
    }

    /// It is in none of the topics.
    fn nowhere(
        &mut self,
        lane: usize,
        input: &Input,
        at: Place,
        identity: Identity,
        room: &mut Room<'_>,
    ) {
        let row = &mut self.rows[lane];
        if self.on_the_way.contains(&(lane, at.offset)) {
            row.unknown += 1;
            if let Identity::Id(id) = identity {
                self.kin.is_told(id);
            }
            return;
        }
        let config = room.config;
        let names = &input.names;
        let role = match (identity, config.id.missing) {
            (Identity::Id(id), _) if config.mode == Mode::Filter && names.duplicates.is_none() => {
                row.duplicates += 1;
                return self.kin.absent(id, lane, at.offset);
            }
            (Identity::Id(_), _) if config.mode == Mode::Filter => Role::Duplicates,
            (Identity::Id(_), _) | (Identity::Missing(_), Missing::Forward) => Role::Output,
            (Identity::Missing(_), Missing::Reject) if names.rejected.is_some() => Role::Rejected,
            (Identity::Missing(_), Missing::Reject) => {
                row.rejected += 1;
                return;
            }
            (Identity::Missing(_), Missing::Drop | Missing::Fail) => {
                row.dropped += 1;
                return;
            }
        };
        if !self.whole {
            row.unknown += 1;
            return;
        }
        row.missing += 1;
        if let Identity::Id(id) = identity {
            self.kin.is_told(id);
        }
        room.findings.describe(|| missing(at, input, role));
    }

    fn conclude(mut self, group: Group, room: &mut Room<'_>) {
        for (lane, offset) in self.kin.lost() {
            let row = &mut self.rows[lane];
            row.duplicates = row.duplicates.saturating_sub(1);
            let input = &group.inputs[lane];
            let at = Place {
                topic: row.topic.clone(),
                partition: row.partition,
                offset,
            };
            if !self.whole {
                row.unknown += 1;
                continue;
            }
            row.missing += 1;
            room.findings.describe(|| missing(at, input, Role::Output));
        }
        let left = std::mem::take(&mut self.forwarded).into_values().flatten();
        let left = left.map(|(_, strand, offset)| {
            let part = &group.strands[strand].part;
            let place = Place {
                topic: part.topic.clone(),
                partition: part.partition,
                offset,
            };
            (place, Role::Output)
        });
        let sides = std::mem::take(&mut self.sides).into_values();
        let mut left: Vec<_> = left
            .chain(sides.map(|side| (side.place, side.role)))
            .collect();
        left.sort_by_key(|(place, _)| (place.partition, place.offset));
        let topic = group.inputs.first().map_or("", |input| &input.part.topic);
        if self.whole {
            for (place, role) in left {
                self.extra(place, role, room);
            }
        } else if !left.is_empty() {
            let why = format!(
                "{} records of the output are of none that the inputs still have, which no longer begin \
                 where the group began",
                left.len()
            );
            room.findings.doubt(topic, 0, why);
        }
        let unknown: u64 = self.rows.iter().map(|row| row.unknown).sum();
        if !self.on_the_way.is_empty() && unknown > 0 {
            let why = format!(
                "{unknown} records have been passed on by the first hop, and are not judged yet by the second: run \
                 verify again when its lag is less"
            );
            room.findings.doubt(topic, 0, why);
        }
        if self.kin.near() > 0 {
            let why = format!(
                "{} records of the output have an id that was there before by less than 7/8 of the window. That \
                 is right where a record came late, and nothing else",
                self.kin.near()
            );
            room.findings.doubt(topic, 0, why);
        }
        for input in group.inputs {
            for why in input.doubts {
                room.findings
                    .doubt(&input.part.topic, input.part.partition, why);
            }
        }
        room.findings.rows.append(&mut self.rows);
    }

    fn look_at_memory(&mut self, room: &Room<'_>) -> Result<(), Stop> {
        self.steps += 1;
        if !self.steps.is_multiple_of(LOOK_EVERY) {
            return Ok(());
        }
        let bytes = self.forwarded_count * RECORD_BYTES
            + self.on_the_way.len() * WAITING_BYTES
            + (self.sides.len() + self.firsts.len()) * ASIDE_BYTES
            + self.kin.memory_bytes();
        match bytes > room.memory_bytes {
            true => Err(too_little(room.memory_bytes)),
            false => Ok(()),
        }
    }
}

fn is_whole(group: &Group) -> bool {
    let is_whole = |input: &Input| input.complete && input.part.start == 0 && !input.compacted;
    let is_cut = |strand: &super::plan::Output| strand.part.start > 0 || strand.compacted;
    group.inputs.iter().all(is_whole) && !group.strands.iter().any(is_cut)
}

fn key_of(body: &Body, topic: &str, partition: i32) -> u64 {
    let place = u64::from(partition.cast_unsigned());
    record::mixed(&[body.without_time(), place, xxh3_64(topic.as_bytes())])
}

fn missing(at: Place, input: &Input, role: Role) -> Difference {
    let names = &input.names;
    let topic = match role {
        Role::Duplicates => names.duplicates.clone(),
        Role::Rejected => names.rejected.clone(),
        Role::Output | Role::Repartition | Role::Journal => names.output.clone(),
    };
    Difference {
        kind: Kind::Missing,
        role: role.name(),
        input: Some(at),
        output: None,
        output_topic: topic.unwrap_or_default(),
        parts: None,
        id: None,
    }
}
