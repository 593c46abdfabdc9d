//! One input partition of an audit: what must follow from each of its records, and what became of all of them.

use std::collections::HashMap;

use rdkafka::message::{BorrowedMessage, Message};

use super::feeds::Part;
use super::findings::{Findings, Place, Row};
use super::judge::{First, Judge, Verdict};
use super::matching::{Expected, Must};
use super::plan::Input;
use super::record::{self, Body};
use super::witness::Witness;
use crate::config::{self, Config, Conflicts, Missing, PartitionBy};
use crate::identify::Identity;
use crate::partitioner::murmur2_partition;

/// One input partition on its way.
pub struct Scope {
    pub input: Input,
    pub feed: usize,
    pub judge: Judge,
    pub witness: Witness,
    pub row: Row,
    pub refused: HashMap<i64, &'static str>,
    /// Before it, refusals are not known.
    pub refusals_from: i64,
    pub gone_from_strand: u64,
    pub uncounted: u64,
    /// By partition of the output.
    pub outputs: Vec<Target>,
    /// `None` where they are marked in the output.
    pub duplicates: Option<Target>,
    pub rejected: Target,
}

/// A record of an input, as it is judged.
pub struct Received {
    pub offset: i64,
    pub time_ms: Option<i64>,
    /// The broker's clock made it.
    pub own_time: bool,
    pub identity: Identity,
    /// Hash of its payload; 0 where payloads are not compared.
    pub payload: u64,
    /// Its transaction let records through by a bypass.
    pub bypassed: bool,
    pub body: Body,
    pub output_partition: i32,
}

/// Where a kind of record of an input goes.
#[derive(Debug, Clone, Copy)]
pub enum Target {
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
pub type Following = [Option<(Target, Expected)>; 3];

impl Scope {
    /// Judges a record whose timestamp was taken in, counts it where it is in the range, and says
    /// what must follow from it.
    pub fn judge(&mut self, record: &Received, config: &Config) -> Following {
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

    pub fn must(&self, offset: i64) -> Must {
        match (self.input.from..self.input.to).contains(&offset) {
            true => Must::Be,
            false => Must::Outside,
        }
    }

    pub fn at(&self, offset: i64) -> Place {
        Place {
            topic: self.input.part.topic.clone(),
            partition: self.input.part.partition,
            offset,
        }
    }

    pub fn conclude(self, findings: &mut Findings) {
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
