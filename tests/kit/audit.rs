//! The judge of a deployment: reads input, output and duplicates on as they grow, and holds them
//! against the reference model, record by record. Shares no code with the program but the config's
//! limits of a window.

use std::collections::VecDeque;

use kafka_dedup::config::Window;

use super::kafka::Reader;
use super::model::{Judged, Model};
use super::{Kafka, Rec, now_ms};

/// What one look at all partitions found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub received: u64,
    pub forwarded: u64,
    pub duplicates: u64,
}

/// Topics of a deployment that are compared.
pub struct Audit {
    kafka: Kafka,
    input: String,
    limits: Window,
    partitions: Vec<Partition>,
}

struct Partition {
    name: String,
    input: Reader,
    output: Reader,
    output_is: (Kafka, String, i32),
    duplicates: Reader,
    model: Model,
    /// Judged by the model, and not seen in the output yet.
    to_forward: VecDeque<(i64, Rec)>,
    to_divert: VecDeque<(i64, Rec)>,
    last_record: Option<i64>,
}

impl Audit {
    /// Ids are taken from the header `message-id`; a record without one is let through.
    pub fn new(kafka: &Kafka, input: &str, limits: Window) -> Self {
        Self {
            kafka: kafka.clone(),
            input: input.to_owned(),
            limits,
            partitions: Vec::new(),
        }
    }

    /// Compares so many partitions from here on. All topics must exist.
    pub fn cover(&mut self, partitions: i32, output: &str, duplicates: &str) {
        let covered = i32::try_from(self.partitions.len()).expect("a count");
        for partition in covered..partitions {
            self.partitions.push(Partition {
                name: format!("{}-{partition}", self.input),
                input: Reader::new(&self.kafka, &self.input, partition),
                output: Reader::new(&self.kafka, output, partition),
                output_is: (self.kafka.clone(), output.to_owned(), partition),
                duplicates: Reader::new(&self.kafka, duplicates, partition),
                model: Model::new(self.limits),
                to_forward: VecDeque::new(),
                to_divert: VecDeque::new(),
                last_record: None,
            });
        }
    }

    /// Takes in what has been added to the input; the last record's offset of each partition.
    pub fn read_input(&mut self) -> (Tally, Vec<Option<i64>>) {
        let mut tally = Tally::default();
        for partition in &mut self.partitions {
            partition.read_input(&mut tally);
        }
        let last = self.partitions.iter().map(|it| it.last_record).collect();
        (tally, last)
    }

    /// Compares what has been added to output and duplicates with what the input asks for. Nothing
    /// may be missing, so the program must have read all of the input that was taken in.
    ///
    /// # Errors
    /// The first difference, with its place.
    pub fn compare(&mut self) -> Result<(), String> {
        for (number, partition) in (0..).zip(&mut self.partitions) {
            if let Err((difference, record)) = partition.compare() {
                let id = record.header("message-id").unwrap_or_default();
                let history = history(&self.kafka, &self.input, number, self.limits, id);
                let fresh = partition.output_read_again();
                return Err(format!(
                    "{difference}\nread again from its beginning, the output {fresh}\nall of this id ({}) in the input:\n{history}",
                    id.escape_ascii()
                ));
            }
        }
        Ok(())
    }
}

impl Partition {
    fn read_input(&mut self, tally: &mut Tally) {
        let wall_ms = now_ms();
        for (offset, record) in self.input.read_to_end() {
            self.last_record = Some(offset);
            tally.received += 1;
            let timestamp = (record.timestamp >= 0).then_some(record.timestamp);
            let id = record.header("message-id").filter(|id| !id.is_empty());
            let judged = match id {
                Some(id) => self.model.judge(id, timestamp, wall_ms, offset),
                None => {
                    self.model.observe(timestamp, wall_ms);
                    Judged::NoId
                }
            };
            if let Judged::Duplicate { .. } = judged {
                tally.duplicates += 1;
                self.to_divert.push_back((offset, record));
            } else {
                tally.forwarded += 1;
                self.to_forward.push_back((offset, record));
            }
        }
    }

    /// Whether the difference is there for a second reader too.
    fn output_read_again(&self) -> String {
        let (kafka, topic, number) = &self.output_is;
        let output = Reader::new(kafka, topic, *number).read_to_end();
        match self.to_forward.front() {
            None => format!("has {} records", output.len()),
            Some((offset, next)) => {
                let place = output.iter().find(|(_, record)| record == next);
                format!(
                    "has {} records; the one after next, of input offset {offset}, is at {:?}",
                    output.len(),
                    place.map(|(place, _)| place)
                )
            }
        }
    }

    fn compare(&mut self) -> Result<(), (String, Rec)> {
        let found = self.output.read_to_end();
        compare(&self.name, "output", found, &mut self.to_forward, Rec::eq)?;
        // Headers that name the first record are added behind the record's own.
        let found = self.duplicates.read_to_end();
        compare(
            &self.name,
            "duplicates",
            found,
            &mut self.to_divert,
            |got, want| {
                let own = got.headers.len().min(want.headers.len());
                let without = Rec {
                    headers: got.headers[..own].to_vec(),
                    ..got.clone()
                };
                without == *want
            },
        )
    }
}

/// What the model makes of every record with this id, for a person who looks for the cause of a
/// difference: offset, timestamp, stream time, ordinals taken so far, and verdict.
fn history(kafka: &Kafka, input: &str, partition: i32, limits: Window, id: &[u8]) -> String {
    let mut model = Model::new(limits);
    let wall_ms = now_ms();
    let mut lines = Vec::new();
    for (offset, record) in Reader::new(kafka, input, partition).read_to_end() {
        let timestamp = (record.timestamp >= 0).then_some(record.timestamp);
        let verdict = match record.header("message-id").filter(|id| !id.is_empty()) {
            Some(id) => format!("{:?}", model.judge(id, timestamp, wall_ms, offset)),
            None => {
                model.observe(timestamp, wall_ms);
                continue;
            }
        };
        if record.header("message-id") == Some(id) {
            lines.push(format!(
                "offset {offset}, timestamp {}, stream time {:?}, {} ordinals: {verdict}",
                record.timestamp, model.stream_time_ms, model.ordinals_taken
            ));
        }
    }
    lines.join("\n")
}

fn compare(
    name: &str,
    what: &str,
    found: Vec<(i64, Rec)>,
    wanted: &mut VecDeque<(i64, Rec)>,
    equal: impl Fn(&Rec, &Rec) -> bool,
) -> Result<(), (String, Rec)> {
    for (place, got) in found {
        match wanted.pop_front() {
            Some((_, want)) if equal(&got, &want) => {}
            Some((offset, want)) => {
                return Err((
                    format!(
                        "{name}, {what} offset {place}: got {got:?}, where input offset {offset} was to come: {want:?}"
                    ),
                    got,
                ));
            }
            None => {
                return Err((
                    format!("{name}, {what} offset {place}: one too many: {got:?}"),
                    got,
                ));
            }
        }
    }
    match wanted.front() {
        None => Ok(()),
        Some((offset, want)) => Err((
            format!(
                "{name}, {what}: {} records are missing, the first of input offset {offset}: {want:?}",
                wanted.len()
            ),
            want.clone(),
        )),
    }
}
