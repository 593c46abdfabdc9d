//! Is a partition of the output what it must be? Judged without the service's code.
//!
//! The output must be the first sightings of the input's ids, in order, byte for byte (I1, I3).
//! Touches nothing.

use std::collections::HashMap;
use std::fmt;

/// Differences that are described; further ones are only counted.
const DESCRIBED: usize = 10;

/// A record as a reader of the topic sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp_ms: Option<i64>,
}

impl Record {
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
    pub fn judge(&mut self, partition: i32, input: &[Record], output: &[Record]) {
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
        type Change = fn(&mut Record);
        let changes: [(&'static str, Change); 4] = [
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
