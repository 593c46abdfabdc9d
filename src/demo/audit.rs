//! Is the output what it must be? Judged from the two topics alone, without the service's code.
//!
//! Per partition, the output must be the first sightings of the input's ids, in order, byte for
//! byte (I1, I3). Reads Kafka only. Memory: one partition of both topics at a time.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::exit::Stop;

/// Differences that are described; further ones are only counted.
const DESCRIBED: usize = 10;
/// A topic that shows nothing new for so long will not.
const PATIENCE: Duration = Duration::from_secs(30);
const ASK: Duration = Duration::from_secs(10);

/// A record as a reader of the topic sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp_ms: Option<i64>,
}

impl Record {
    fn read(message: &BorrowedMessage<'_>) -> Self {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), owned(header.value)))
                .collect()
        });
        Self {
            offset: message.offset(),
            key: owned(message.key()),
            value: owned(message.payload()),
            headers,
            timestamp_ms: message.timestamp().to_millis(),
        }
    }

    /// Column 8 of the line; empty when there is none.
    fn id(&self) -> &[u8] {
        let value = self.value.as_deref().unwrap_or_default();
        value.split(|&byte| byte == b',').nth(7).unwrap_or_default()
    }

    /// What differs between a record that was sent and the same one let through.
    fn differs_from(&self, sent: &Self) -> Option<&'static str> {
        [
            ("key", self.key != sent.key),
            ("value", self.value != sent.value),
            ("headers", self.headers != sent.headers),
            ("timestamp", self.timestamp_ms != sent.timestamp_ms),
        ]
        .into_iter()
        .find_map(|(part, differs)| differs.then_some(part))
    }
}

/// One way in which the output is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The first sighting at `input` is not in the output.
    Missing { input: i64 },
    /// The id at `output` was let through before, at `before`.
    Repeated { output: i64, before: i64 },
    /// The id at `output` is nowhere in the input partition.
    Unknown { output: i64 },
    /// The record of `input` stands at `output`, behind one that was sent after it.
    Reordered { output: i64, input: i64 },
    /// The record at `output` is not, in `part`, the first sighting at `input`.
    Altered {
        output: i64,
        input: i64,
        part: &'static str,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { input } => {
                write!(
                    f,
                    "missing: the first record of its id, input offset {input}, never came out"
                )
            }
            Self::Repeated { output, before } => {
                write!(
                    f,
                    "repeated: output offset {output} has the id of output offset {before}"
                )
            }
            Self::Unknown { output } => {
                write!(
                    f,
                    "unknown: output offset {output} has an id that was never sent here"
                )
            }
            Self::Reordered { output, input } => {
                write!(
                    f,
                    "reordered: output offset {output} is input offset {input}, too late"
                )
            }
            Self::Altered {
                output,
                input,
                part,
            } => {
                write!(
                    f,
                    "altered: output offset {output} has another {part} than input offset {input}"
                )
            }
        }
    }
}

/// What an audit found, over all partitions.
#[derive(Debug, Default)]
pub struct Findings {
    /// Records in the input.
    pub received: u64,
    /// Ids in the input.
    pub unique: u64,
    /// Records in the output.
    pub forwarded: u64,
    /// How many differences there are.
    pub differences: u64,
    /// The first of them, with their partitions.
    pub described: Vec<String>,
}

impl Findings {
    /// Judges one partition: O(records).
    fn judge(&mut self, partition: i32, input: &[Record], output: &[Record]) {
        let mut place = HashMap::with_capacity(input.len());
        let mut expected = Vec::with_capacity(input.len());
        for record in input {
            place.entry(record.id()).or_insert_with(|| {
                expected.push(record);
                expected.len() - 1
            });
        }
        self.received += input.len() as u64;
        self.unique += expected.len() as u64;
        self.forwarded += output.len() as u64;

        // Where each expected record came out, and the furthest of them so far.
        let mut came_out: Vec<Option<i64>> = vec![None; expected.len()];
        let mut furthest = 0;
        for record in output {
            let output = record.offset;
            let Some(&at) = place.get(record.id()) else {
                self.differs(partition, &Difference::Unknown { output });
                continue;
            };
            if let Some(before) = came_out[at] {
                self.differs(partition, &Difference::Repeated { output, before });
                continue;
            }
            came_out[at] = Some(output);
            let input = expected[at].offset;
            if at < furthest {
                self.differs(partition, &Difference::Reordered { output, input });
            }
            furthest = furthest.max(at);
            if let Some(part) = record.differs_from(expected[at]) {
                self.differs(
                    partition,
                    &Difference::Altered {
                        output,
                        input,
                        part,
                    },
                );
            }
        }
        for (record, came_out) in expected.iter().zip(&came_out) {
            if came_out.is_none() {
                self.differs(
                    partition,
                    &Difference::Missing {
                        input: record.offset,
                    },
                );
            }
        }
    }

    fn differs(&mut self, partition: i32, difference: &Difference) {
        self.differences += 1;
        if self.described.len() < DESCRIBED {
            self.described
                .push(format!("partition {partition}: {difference}"));
        }
    }
}

/// Compares all partitions of two topics, each up to its end at this moment.
///
/// # Errors
/// Internal (70) when a topic cannot be read to its end; the sentence names topic and partition.
pub fn audit(
    bootstrap: &str,
    input: &str,
    output: &str,
    partitions: i32,
) -> Result<Findings, Stop> {
    let reader = reader(bootstrap, "read_committed")?;
    // Only a client that also sees open transactions is told the true end.
    let surveyor = self::reader(bootstrap, "read_uncommitted")?;
    let mut findings = Findings::default();
    for partition in 0..partitions {
        let sent = read(&reader, &surveyor, input, partition)?;
        let out = read(&reader, &surveyor, output, partition)?;
        findings.judge(partition, &sent, &out);
    }
    Ok(findings)
}

fn reader(bootstrap: &str, isolation: &str) -> Result<BaseConsumer, Stop> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "truck-audit")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", isolation)
        .create()
        .map_err(|error| Stop::internal(format!("no consumer for the audit: {error}")))
}

/// All records of a partition. The position moves over markers and aborted records too, so that
/// reaching the end, not a count, says that all is read.
fn read(
    reader: &BaseConsumer,
    surveyor: &BaseConsumer,
    topic: &str,
    partition: i32,
) -> Result<Vec<Record>, Stop> {
    let failed = |error| {
        Stop::internal(format!(
            "the audit cannot read {topic}, partition {partition}: {error}"
        ))
    };
    let (low, end) = surveyor
        .fetch_watermarks(topic, partition, ASK)
        .map_err(failed)?;
    let mut records = Vec::new();
    if low == end {
        return Ok(records);
    }
    let mut start = TopicPartitionList::new();
    start
        .add_partition_offset(topic, partition, Offset::Offset(low))
        .map_err(failed)?;
    reader.assign(&start).map_err(failed)?;
    let mut deadline = Instant::now() + PATIENCE;
    while position(reader)
        .map_err(failed)?
        .is_none_or(|position| position < end)
    {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                deadline = Instant::now() + PATIENCE;
                if message.offset() < end {
                    records.push(Record::read(&message));
                }
            }
            Some(Err(error)) if Instant::now() >= deadline => return Err(failed(error)),
            None if Instant::now() >= deadline => {
                return Err(Stop::internal(format!(
                    "the audit waited {} s for {topic}, partition {partition}, and did not see its end, \
                     offset {end}: a transaction is left open there",
                    PATIENCE.as_secs()
                )));
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(records)
}

/// The offset after the last record that was read or skipped; `None` before anything was fetched.
fn position(reader: &BaseConsumer) -> KafkaResult<Option<i64>> {
    let positions = reader.position()?;
    Ok(positions
        .elements()
        .first()
        .and_then(|element| element.offset().to_raw())
        .filter(|&raw| raw >= 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, id: &str) -> Record {
        Record {
            offset,
            key: Some(b"101".to_vec()),
            value: Some(format!("1522846456703,101,31,7,Normal,37.31,-94.31,{id}").into_bytes()),
            headers: vec![("gateway".into(), Some(b"gateway-1".to_vec()))],
            timestamp_ms: Some(1_522_846_456_703),
        }
    }

    fn topic(ids: &[&str]) -> Vec<Record> {
        ids.iter()
            .enumerate()
            .map(|(offset, id)| record(offset as i64, id))
            .collect()
    }

    /// Judges an output against the input a, b, a, c, b, d, whose first sightings are 0, 1, 3, 5.
    fn found(output: &[Record]) -> Vec<String> {
        let mut findings = Findings::default();
        findings.judge(3, &topic(&["a", "b", "a", "c", "b", "d"]), output);
        assert_eq!((findings.received, findings.unique), (6, 4));
        assert_eq!(findings.differences as usize, findings.described.len());
        findings.described
    }

    fn told(differences: &[Difference]) -> Vec<String> {
        differences
            .iter()
            .map(|difference| format!("partition 3: {difference}"))
            .collect()
    }

    #[test]
    fn the_first_sightings_in_order_pass() {
        assert_eq!(found(&topic(&["a", "b", "c", "d"])), told(&[]));
    }

    #[test]
    fn a_missing_record_is_found() {
        assert_eq!(
            found(&topic(&["a", "c", "d"])),
            told(&[Difference::Missing { input: 1 }])
        );
    }

    #[test]
    fn a_missing_end_is_found() {
        assert_eq!(
            found(&topic(&["a", "b", "c"])),
            told(&[Difference::Missing { input: 5 }])
        );
    }

    #[test]
    fn a_duplicate_let_through_is_found() {
        let repeated = Difference::Repeated {
            output: 2,
            before: 0,
        };
        assert_eq!(found(&topic(&["a", "b", "a", "c", "d"])), told(&[repeated]));
    }

    #[test]
    fn a_record_that_was_never_sent_is_found() {
        let unknown = Difference::Unknown { output: 2 };
        assert_eq!(found(&topic(&["a", "b", "x", "c", "d"])), told(&[unknown]));
    }

    #[test]
    fn a_change_of_order_is_found() {
        let reordered = Difference::Reordered {
            output: 2,
            input: 1,
        };
        assert_eq!(found(&topic(&["a", "c", "b", "d"])), told(&[reordered]));
    }

    #[test]
    fn a_change_of_any_part_is_found() {
        type Change = (&'static str, fn(&mut Record));
        let changes: [Change; 4] = [
            ("key", |record| record.key = None),
            ("value", |record| record.value = Some(b"0,,,,,,,c".to_vec())),
            ("headers", |record| record.headers[0].1 = None),
            ("timestamp", |record| record.timestamp_ms = Some(1)),
        ];
        for (part, change) in changes {
            let mut output = topic(&["a", "b", "c", "d"]);
            change(&mut output[2]);
            let altered = Difference::Altered {
                output: 2,
                input: 3,
                part,
            };
            assert_eq!(found(&output), told(&[altered]));
        }
    }

    #[test]
    fn of_many_differences_the_first_are_described_and_all_are_counted() {
        let ids: Vec<String> = (0..50).map(|id| id.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut findings = Findings::default();
        findings.judge(0, &topic(&ids), &[]);
        assert_eq!(
            (findings.differences, findings.described.len()),
            (50, DESCRIBED)
        );
    }
}
