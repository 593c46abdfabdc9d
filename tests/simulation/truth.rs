//! What must be true, and whether it is: the reference model walks along with every commit, and what
//! the broker then holds is compared with it. It trusts no worker.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use kafka_dedup::config::Window;
use kafka_dedup::window::Verdict;

use crate::broker::{Broker, Bytes, Entry, State, Target, Topic, Value};
use crate::model::{Judged, Model};
use crate::seen::Seen;

/// A record of an input partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Input {
    pub offset: i64,
    pub id: Option<u8>,
    pub timestamp_ms: Option<i64>,
    pub bytes: Bytes,
    /// The output refuses it.
    pub refused: bool,
}

/// Ids that occur.
pub const IDS: std::ops::Range<u8> = 0..5;

pub fn fingerprint(id: u8) -> u128 {
    xxhash_rust::xxh3::xxh3_128(&[id])
}

/// The truth about one partition.
#[derive(Clone)]
pub struct Scope {
    model: Model,
    /// The input position that committed transactions have come to; `None` before the first.
    pub judged_to: Option<i64>,
    /// (input position, seen set) after each of them.
    snapshots: Vec<(i64, Arc<Model>)>,
    verdicts: BTreeMap<i64, Topic>,
    counted: BTreeSet<i64>,
}

#[derive(Clone)]
pub struct Truth {
    pub inputs: Arc<Vec<Vec<Input>>>,
    pub scopes: Vec<Scope>,
    empty: Arc<Model>,
}

impl Hash for Truth {
    /// Snapshots and verdicts follow from the rest of the world and the position.
    fn hash<H: Hasher>(&self, state: &mut H) {
        for scope in &self.scopes {
            (scope.judged_to, &scope.counted).hash(state);
        }
    }
}

impl Truth {
    pub fn new(limits: Window, inputs: Vec<Vec<Input>>) -> Self {
        let scope = Scope {
            model: Model::new(limits),
            judged_to: None,
            snapshots: Vec::new(),
            verdicts: BTreeMap::new(),
            counted: BTreeSet::new(),
        };
        Self {
            scopes: vec![scope; inputs.len()],
            inputs: Arc::new(inputs),
            empty: Arc::new(Model::new(limits)),
        }
    }

    /// A commit of the open transaction of this producer was accepted: what it holds must be what the
    /// model makes of the input since the commit before it (I1, I2, I3).
    pub fn committed(&mut self, broker: &Broker, id: u8) -> Result<(), String> {
        let transaction = &broker.transactions[&id];
        let (epoch, serial) = (transaction.epoch, transaction.serial);
        let empty = BTreeMap::new();
        let pending = match transaction.targets.contains(&Target::Offsets) {
            true => broker.group.pending.get(&id).unwrap_or(&empty),
            false => &empty,
        };
        for partition in 0..self.scopes.len() {
            let mut copies = BTreeMap::new();
            let mut runs = 0;
            for ((topic, at), log) in &broker.logs {
                for entry in log.entries.iter().filter(|_| *at == partition) {
                    let Entry::Record { by, value } = entry else {
                        continue;
                    };
                    if (by.id, by.epoch, by.serial) != (id, epoch, serial) {
                        continue;
                    }
                    match value {
                        Value::Run(_) => runs += 1,
                        Value::Copy { source, .. } => {
                            if copies.insert(*source, (*topic, value.clone())).is_some() {
                                return Err(format!(
                                    "I1: {partition}/{source} twice in one transaction"
                                ));
                            }
                            // Of one topic, in order.
                            let later = copies.range(source + 1..).any(|(_, (t, _))| t == topic);
                            if later {
                                return Err(format!(
                                    "I3: {partition}/{source} after a later record"
                                ));
                            }
                        }
                    }
                }
            }
            let outside = broker.group.committed.get(&partition);
            let offset = pending.get(&partition).or(outside).copied();
            let offset = match offset {
                Some(offset) => offset,
                None if copies.is_empty() && runs == 0 => continue,
                None => {
                    return Err(format!(
                        "I1: records of {partition} without an input offset"
                    ));
                }
            };
            if !pending.contains_key(&partition) && copies.is_empty() && runs == 0 {
                continue;
            }
            self.advance(partition, offset, copies)?;
        }
        Ok(())
    }

    fn advance(
        &mut self,
        partition: usize,
        offset: i64,
        mut copies: BTreeMap<i64, (Topic, Value)>,
    ) -> Result<(), String> {
        let scope = &mut self.scopes[partition];
        let start = copies.keys().next().copied().unwrap_or(offset);
        let from = *scope.judged_to.get_or_insert(start);
        if offset < from {
            return Err(format!(
                "I1: the offset of {partition} goes back from {from} to {offset}"
            ));
        }
        let records = self.inputs[partition].iter();
        for record in records.filter(|record| (from..offset).contains(&record.offset)) {
            let at = format!("{partition}/{}", record.offset);
            let Some((
                topic,
                Value::Copy {
                    bytes,
                    wall_ms,
                    duplicate_of,
                    ..
                },
            )) = copies.remove(&record.offset)
            else {
                return Err(format!("I1, I2: {at} was consumed and is nowhere"));
            };
            let expected = expect(&mut scope.model, record, wall_ms, topic);
            if (topic, duplicate_of) != expected {
                return Err(format!(
                    "I1: {at} is in {topic:?} {duplicate_of:?}, and belongs to {expected:?}"
                ));
            }
            if bytes != record.bytes {
                return Err(format!("I1: {at} was altered"));
            }
            scope.verdicts.insert(record.offset, topic);
        }
        if let Some(extra) = copies.keys().next() {
            return Err(format!(
                "I1: {partition}/{extra} again, or beyond the offset {offset}"
            ));
        }
        scope.judged_to = Some(offset);
        scope
            .snapshots
            .push((offset, Arc::new(scope.model.clone())));
        Ok(())
    }

    /// A seen set without an open transaction: it must be the model's, as of the commit that it says
    /// it has come to. No id that was not committed (I4), and none missing.
    pub fn check_seen<W: Seen>(&self, partition: usize, window: &mut W) -> Result<(), String> {
        let scope = &self.scopes[partition];
        let reached = window.checkpoint().map(|(_, next)| next);
        let model = match reached {
            None => &self.empty,
            Some(next) => match scope.snapshots.iter().rev().find(|(at, _)| *at == next) {
                Some((_, model)) => model,
                None => {
                    return Err(format!(
                        "I4: a seen set of {partition} ends at {next}, where no transaction was committed"
                    ));
                }
            },
        };
        for id in IDS {
            let expected = match model.as_ref().clone().judge(&[id], None, i64::MAX, -1) {
                Judged::Duplicate {
                    first_offset,
                    age_ms,
                } => Some((first_offset, age_ms)),
                _ => None,
            };
            let found = match window.judge(fingerprint(id), -1) {
                Verdict::Duplicate {
                    first_offset,
                    age_ms,
                    ..
                } => Some((first_offset, i128::from(age_ms))),
                Verdict::Forward => None,
            };
            window.discard();
            if found != expected {
                return Err(format!(
                    "I4, I5: the seen set of {partition} at {reached:?} says {found:?} of id {id}, and {expected:?} was committed"
                ));
            }
        }
        Ok(())
    }

    /// A seen set that is about to judge from `input_offset` on covers all that was committed up to
    /// there (I5).
    pub fn check_covers<W: Seen>(
        &self,
        partition: usize,
        window: &W,
        input_offset: i64,
    ) -> Result<(), String> {
        let snapshots = self.scopes[partition].snapshots.iter();
        let Some((_, needed)) = snapshots.rev().find(|(at, _)| *at <= input_offset) else {
            return Ok(());
        };
        let reached = window.checkpoint().map_or(i64::MIN, |(_, next)| next);
        let snapshots = self.scopes[partition].snapshots.iter();
        let held = snapshots
            .rev()
            .find(|(at, _)| *at == reached)
            .map(|(_, model)| model);
        let held = held.unwrap_or(&self.empty);
        let covered = (held.ordinals_taken, held.stream_time_ms)
            >= (needed.ordinals_taken, needed.stream_time_ms);
        if covered {
            Ok(())
        } else {
            Err(format!(
                "I5: {partition} is judged from {input_offset} on with a seen set that ends at {reached}"
            ))
        }
    }

    /// A worker counts its verdicts: each is the committed one, and counted once (I2).
    pub fn counted(&mut self, partition: usize, tally: &[(i64, Topic)]) -> Result<(), String> {
        let scope = &mut self.scopes[partition];
        for (offset, topic) in tally {
            if scope.verdicts.get(offset) != Some(topic) || !scope.counted.insert(*offset) {
                return Err(format!(
                    "I2: {partition}/{offset} is counted as {topic:?}, not committed so, or counted before"
                ));
            }
        }
        Ok(())
    }

    /// After faults have ended and all input was read: what a consumer sees is the whole filter of the
    /// input, in order, and nothing hangs.
    pub fn check_end(&self, broker: &Broker) -> Result<(), String> {
        for (partition, scope) in self.scopes.iter().enumerate() {
            for topic in [Topic::Output, Topic::Duplicates, Topic::Rejected] {
                let Some(log) = broker.logs.get(&(topic, partition)) else {
                    continue;
                };
                let seen: Vec<i64> = log
                    .committed()
                    .filter_map(|value| match value {
                        Value::Copy { source, .. } => Some(*source),
                        Value::Run(_) => None,
                    })
                    .collect();
                let verdicts = scope
                    .verdicts
                    .iter()
                    .filter(|(_, verdict)| **verdict == topic);
                let expected: Vec<i64> = verdicts.map(|(offset, _)| *offset).collect();
                if seen != expected {
                    return Err(format!(
                        "I1, I3: {topic:?} {partition} holds {seen:?}, not {expected:?}"
                    ));
                }
            }
        }
        for ((topic, partition), log) in &broker.logs {
            if log.last_stable() != log.high() {
                return Err(format!("a transaction hangs in {topic:?} {partition}"));
            }
        }
        if broker
            .transactions
            .values()
            .any(|t| matches!(t.state, State::Ongoing | State::Ending { .. }))
        {
            return Err("a transaction hangs at its coordinator".to_owned());
        }
        Ok(())
    }
}

/// What must become of a record, and what the seen set is then. A record that the output has refused
/// stays rejected, even where it is a duplicate when it is judged again by another wall clock.
fn expect(
    model: &mut Model,
    record: &Input,
    wall_ms: i64,
    found: Topic,
) -> (Topic, Option<(i64, i64)>) {
    let Some(id) = record.id else {
        model.observe(record.timestamp_ms, wall_ms);
        return (
            if record.refused {
                Topic::Rejected
            } else {
                Topic::Output
            },
            None,
        );
    };
    let mut after = model.clone();
    match after.judge(&[id], record.timestamp_ms, wall_ms, record.offset) {
        // It does not go out, so its id is not remembered.
        _ if record.refused && found == Topic::Rejected => {
            model.observe(record.timestamp_ms, wall_ms);
            (Topic::Rejected, None)
        }
        Judged::Forward if record.refused => {
            model.observe(record.timestamp_ms, wall_ms);
            (Topic::Rejected, None)
        }
        Judged::Forward => {
            *model = after;
            (Topic::Output, None)
        }
        Judged::Duplicate {
            first_offset,
            age_ms,
        } => {
            *model = after;
            (Topic::Duplicates, Some((first_offset, age_ms as i64)))
        }
        Judged::NoId => (Topic::Output, None),
    }
}
