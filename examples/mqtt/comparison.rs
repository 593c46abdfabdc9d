//! What the trucks reported, held against what arrived in the raw topic, and what came out.
//!
//! Touches nothing. Knows kafka-dedup's promise, and none of its code that keeps it.

use std::collections::{HashMap, HashSet};

use kafka_dedup::demo::Record;

use super::trucks::Position;

/// Differences that are described; further ones are only counted.
const DESCRIBED: usize = 10;

/// How many positions were where, and what is not as it must be.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Positions that the trucks reported.
    pub reported: u64,
    /// Records in the raw topic.
    pub raw: u64,
    /// Repetitions in the raw topic that MQTT did not mark: the truck sent its position again.
    pub sent_again: u64,
    /// Repetitions that MQTT marked: the broker delivered again what the bridge had not acknowledged.
    pub delivered_again: u64,
    /// Records that MQTT marked as delivered again, and that are the first of their id all the same.
    pub marked_first: u64,
    /// Records in the output.
    pub output: u64,
    /// How many differences there are.
    pub differences: u64,
    /// The first of them.
    pub described: Vec<String>,
}

/// Compares the ids of all reports with both topics, given by partition: O(records). Each position must
/// be in the raw topic, and once in the output: unchanged, in its partition, in its truck's order.
pub fn compare(
    reported: impl IntoIterator<Item = String>,
    raw: &[Vec<Record>],
    output: &[Vec<Record>],
) -> Comparison {
    let mut found = Comparison::default();
    // Of each id, where it is first, and that record.
    let mut first: HashMap<&str, (usize, &Record)> = HashMap::new();
    for (partition, record) in by_partition(raw) {
        found.raw += 1;
        let marked = header(record, "mqtt-dup") == Some("true");
        let Some(id) = header(record, "message-id") else {
            found.differs(partition, record, "arrived without an id");
            continue;
        };
        match first.get(id) {
            None => {
                first.insert(id, (partition, record));
                found.marked_first += u64::from(marked);
            }
            Some((other, _)) if *other != partition => {
                found.differs(
                    partition,
                    record,
                    &format!("arrived in partition {other} before"),
                );
            }
            Some(_) if marked => found.delivered_again += 1,
            Some(_) => found.sent_again += 1,
        }
    }
    let mut came_out = HashSet::new();
    // Of each truck, what came out last.
    let mut last: HashMap<u64, u64> = HashMap::new();
    for (partition, record) in by_partition(output) {
        found.output += 1;
        let id = header(record, "message-id").unwrap_or_default();
        match first.get(id) {
            None => found.differs(partition, record, "came out, but never arrived"),
            Some(_) if !came_out.insert(id) => {
                found.differs(partition, record, "came out twice");
            }
            Some((arrived_in, arrived)) => {
                if *arrived_in != partition || !is_unchanged(record, arrived) {
                    found.differs(partition, record, "came out changed");
                }
            }
        }
        if let Some((truck, sequence)) = truck_and_sequence(record) {
            let before = last.insert(truck, sequence);
            if before.is_some_and(|before| before >= sequence) {
                found.differs(
                    partition,
                    record,
                    "came out behind a later one of its truck",
                );
            }
        }
    }
    for id in reported {
        found.reported += 1;
        if !first.contains_key(id.as_str()) {
            found.add(format!("{id} was reported, but never arrived"));
        } else if !came_out.contains(id.as_str()) {
            found.add(format!("{id} arrived, but never came out"));
        }
    }
    if first.len() as u64 > found.reported {
        found.add(format!(
            "{} ids arrived, more than were reported",
            first.len()
        ));
    }
    found
}

impl Comparison {
    /// That duplicates of both kinds were there to be removed.
    pub fn must_have_had_duplicates(&mut self) {
        let nothing = "reached the raw topic: the scene has shown nothing";
        if self.sent_again == 0 {
            self.add(format!("no position that a truck sent again {nothing}"));
        }
        if self.delivered_again == 0 {
            self.add(format!(
                "no position that mosquitto delivered again {nothing}"
            ));
        }
    }

    fn differs(&mut self, partition: usize, record: &Record, what: &str) {
        let id = header(record, "message-id").unwrap_or("a position without an id");
        let offset = record.offset;
        self.add(format!(
            "{id}, partition {partition}, offset {offset}: {what}"
        ));
    }

    fn add(&mut self, difference: String) {
        self.differences += 1;
        if self.described.len() < DESCRIBED {
            self.described.push(difference);
        }
    }
}

fn by_partition(topic: &[Vec<Record>]) -> impl Iterator<Item = (usize, &Record)> {
    let partitions = topic.iter().enumerate();
    partitions
        .flat_map(|(partition, records)| records.iter().map(move |record| (partition, record)))
}

/// All but the offset.
fn is_unchanged(record: &Record, arrived: &Record) -> bool {
    let offset = arrived.offset;
    *arrived
        == Record {
            offset,
            ..record.clone()
        }
}

fn header<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    let (_, value) = record.headers.iter().find(|(key, _)| key == name)?;
    std::str::from_utf8(value.as_deref()?).ok()
}

fn truck_and_sequence(record: &Record) -> Option<(u64, u64)> {
    let position: Position = serde_json::from_slice(record.value.as_deref()?).ok()?;
    Some((position.truck, position.sequence))
}
