//! A scope: one input partition of this worker, its seen window, and how far it has been judged.
//!
//! Nothing here touches Kafka. What belongs to the open transaction (the window's overlay,
//! `next_offset`, the tally) is either kept by [`Scope::publish`] or dropped by [`Scope::discard`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::control::Control;
use crate::journal::Identity;
use crate::metrics::{PartitionMetrics, TopicMetrics};
use crate::repartition::unpacked;
use crate::sink::Target;
use crate::source::Partition;
use crate::store::Anchor;
use crate::topics::names::Names;
use crate::window::{Counts, Fingerprint, SeenWindow, Verdict};
use crate::worker::sentinel::Sentinel;
use crate::worker::wall_clock_ms;

/// What is done with the records of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// They are judged, and written to the topics around it.
    Only,
    /// Of `scope: repartition`, an input: they are passed on to this topic, of so many partitions.
    First { to: String, partitions: i32 },
    /// That topic: they are judged as records of this input, which has this id.
    Second {
        input: String,
        input_id: Option<String>,
    },
}

/// A topic that is read, as this worker needs it.
#[derive(Clone)]
pub struct Topic {
    pub name: String,
    pub hop: Hop,
    pub names: Names,
    /// Partitions of it for which its other topics have been prepared.
    pub partitions: i32,
    pub output_partitions: i32,
    /// Id of the topic, and of the journal; `None` on brokers before 2.8.
    pub id: Option<String>,
    pub journal_id: Option<String>,
    pub metrics: TopicMetrics,
    pub sentinel: Arc<Sentinel>,
}

impl Topic {
    /// The input that its records are of.
    pub fn input(&self) -> &str {
        match &self.hop {
            Hop::Second { input, .. } => input,
            Hop::Only | Hop::First { .. } => &self.name,
        }
    }

    /// Whose runs are those of a partition of it: of two hops, the input's, so that one that is made anew is
    /// noticed, and what was judged is known when the topic between them is.
    pub fn identity(&self, seed: u64, partition: i32) -> Identity {
        let id = match &self.hop {
            Hop::Second { input_id, .. } => input_id,
            Hop::Only | Hop::First { .. } => &self.id,
        };
        Identity::of(seed, &self.name, id.as_deref(), partition)
    }

    /// What a person does to have a group begin anew.
    pub fn to_begin_anew(&self, group: &str) -> String {
        let journal = &self.names.journal;
        let between = self.names.repartition.as_ref();
        let between = between.map_or_else(String::new, |name| format!(",{name}"));
        let input = self.input();
        format!(
            "kafka-topics --delete --topic {journal}{between}, and kafka-consumer-groups --delete-offsets --topic {input} --group {group}, then start again"
        )
    }

    /// Whether an operator has paused what is read here. Of two hops that is the first: what has been passed
    /// on is judged all the same.
    pub fn is_paused(&self, control: &Control) -> bool {
        let is_input = self.input() == self.name;
        is_input && control.is_paused(&self.name)
    }

    /// Whether its records are judged, and so have a window and a journal.
    pub fn is_judged(&self) -> bool {
        !matches!(self.hop, Hop::First { .. })
    }
}

/// Why a record was rejected; also what its `dedup-reason` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    MissingId,
    Unparsable,
    TooLarge,
    Timestamp,
    Invalid,
    Conflict,
}

impl Rejection {
    /// The word for headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingId => "missing-id",
            Self::Unparsable => "unparsable",
            Self::TooLarge => "too-large",
            Self::Timestamp => "timestamp",
            Self::Invalid => "invalid-record",
            Self::Conflict => "conflict",
        }
    }

    /// What a person can do, so that the topic that refused the record takes it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::TooLarge => {
                "if its input is compressed, compress likewise (compression.type in kafka.producer_properties); else raise max.message.bytes of that topic, and message.max.bytes in kafka.producer_properties"
            }
            Self::Timestamp => {
                "change message.timestamp.before.max.ms and message.timestamp.after.max.ms of that topic"
            }
            Self::Invalid => "change cleanup.policy of that topic (a compacted one needs keys)",
            Self::MissingId | Self::Unparsable | Self::Conflict => {
                "look at the settings of that topic"
            }
        }
    }
}

/// What became of the records of the open transaction: every one of them once (I2).
#[derive(Debug, Default)]
pub struct Tally {
    /// Of a first hop, which has none of the others.
    pub passed_on: u64,
    pub received: u64,
    pub forwarded: u64,
    pub duplicates_window: u64,
    pub duplicates_transaction: u64,
    pub rejected_missing_id: u64,
    pub rejected_unparsable: u64,
    pub rejected_refused: u64,
    pub rejected_conflict: u64,
    pub dropped: u64,
    pub missing_id: u64,
    /// Records with an id that was remembered, and another payload; they are also counted above.
    pub conflicts: u64,
    /// Records that were forwarded because of a bypass alone.
    pub bypassed: u64,
    /// Records with an id that was let through before, and of which the window is over.
    pub returned: u64,
    pub duplicate_ages_ms: Vec<i64>,
    /// Timestamp of the first record that was forwarded.
    pub first_forwarded_ms: Option<i64>,
    /// Of the ids that were let through, those that the sentinel wants to know of.
    pub samples: Vec<Fingerprint>,
}

/// One input partition.
pub struct Scope {
    pub topic: Arc<Topic>,
    pub partition: i32,
    /// Whose runs are in the journal, see [`crate::journal::Identity`].
    pub identity: u64,
    pub window: SeenWindow,
    /// The input offset of the next record to judge.
    pub next_offset: i64,
    /// The input offset that was committed last.
    pub committed_offset: i64,
    /// The journal offset up to which the window is complete.
    pub journal_next: i64,
    /// Checksum of the last run that the open transaction writes.
    pub last_run_checksum: u64,
    /// A run was committed since the partition was restored.
    pub has_written_run: bool,
    /// Since when the source has not known where the partition ends.
    pub unseen_since: Option<Instant>,
    /// What the filter has answered since the partition is ours.
    pub filter_counts: Counts,
    /// The open transaction holds something of this scope.
    pub touched: bool,
    /// The next transaction must carry a run of this scope: its first, which pins the start
    /// position and gives the journal a run for as long as there is a committed offset.
    pub must_write_run: bool,
    pub tally: Tally,
    /// Records that the output has refused: rejected when they come again.
    pub refused: BTreeMap<i64, Rejection>,
    /// Records of a batch of which at least one was refused: sent alone when they come again.
    pub suspects: BTreeSet<i64>,
    /// The journal offset below which trimming was asked for last.
    pub trimmed_to: i64,
    /// The same of the repartition topic, where this is a partition of one.
    pub passed_trimmed_to: i64,
    /// Timestamps of the last record that was judged, and of the last one that was committed.
    pub judged_ms: Option<i64>,
    pub committed_ms: Option<i64>,
    /// When, by the wall clock.
    pub last_commit_ms: Option<i64>,
    /// A position beyond `next_offset`, with no record in between, and since when it has been there.
    pub passed: Option<(i64, Instant)>,
    pub metrics: PartitionMetrics,
    pub pace: Pace,
}

/// What the windows say of a record with an id.
pub enum Judgement {
    /// `conflicts`: its id is remembered with another payload, and `id.conflicts` is forward.
    /// `returned`: it was let through before, and its window is over.
    Forward { conflicts: bool, returned: bool },
    Duplicate {
        first: First,
        /// Stream time since the id was let through (or last renewed), in ms.
        age_ms: i64,
        /// The first record is in the transaction that is open now.
        in_overlay: bool,
        /// Its payload is known to be another one than was let through.
        conflicts: bool,
    },
}

/// A record with an id, as the windows see it.
pub struct Judged {
    pub fingerprint: Fingerprint,
    /// Of a second hop, its [position](crate::repartition::Passed::position).
    pub offset: i64,
    /// Hash of its payload; 0 where payloads are not compared.
    pub payload: u64,
}

/// The position of the first record of an id, in an input.
pub struct First {
    pub topic: Arc<Topic>,
    pub partition: i32,
    pub offset: i64,
}

/// How far a partition has come beside its kin, see `super::kin`.
#[derive(Debug)]
pub struct Pace {
    /// Where the input ended when the partition was restored: until there it catches up.
    pub end: i64,
    /// The largest timestamp of it that is known, as it counted; `None` before its first record.
    pub reached_ms: Option<i64>,
    /// The position at which it was seen last, and since when it has been there.
    pub at: (i64, Instant),
    /// Beyond this timestamp it is ahead of its kin, and waits.
    pub bound_ms: i64,
    /// It waits.
    pub held: bool,
}

impl Pace {
    /// Of a partition that was restored up to `next_offset`, of an input that ends at `end`.
    pub fn new(next_offset: i64, end: i64) -> Self {
        Self {
            end,
            reached_ms: None,
            at: (next_offset, Instant::now()),
            bound_ms: i64::MIN,
            held: false,
        }
    }
}

impl Scope {
    /// The partition, by name and number.
    pub fn partition_key(&self) -> Partition {
        (self.topic.name.clone(), self.partition)
    }

    /// A verdict of its window, with the position that belongs to it.
    pub(super) fn judgement(&self, verdict: Verdict) -> Judgement {
        match verdict {
            Verdict::Forward => Judgement::Forward {
                conflicts: false,
                returned: false,
            },
            Verdict::Duplicate {
                first_offset,
                age_ms,
                in_overlay,
                conflicts,
            } => Judgement::Duplicate {
                first: self.first(first_offset),
                age_ms,
                in_overlay,
                conflicts,
            },
        }
    }

    /// Input partition and offset of a first record, by what is remembered of it.
    pub fn first_of(&self, remembered: i64) -> (i32, i64) {
        match self.topic.hop {
            Hop::Second { .. } => unpacked(remembered),
            Hop::Only | Hop::First { .. } => (self.partition, remembered),
        }
    }

    fn first(&self, remembered: i64) -> First {
        let (partition, offset) = self.first_of(remembered);
        First {
            topic: Arc::clone(&self.topic),
            partition,
            offset,
        }
    }

    /// The topic that such records of this scope go to; empty where none is configured.
    pub fn topic_of(&self, target: Target) -> &str {
        let names = &self.topic.names;
        match target {
            Target::Output => names.output.as_deref().unwrap_or_default(),
            Target::Duplicates => names.duplicates.as_deref().unwrap_or_default(),
            Target::Rejected => names.rejected.as_deref().unwrap_or_default(),
            Target::Repartition => names.repartition.as_deref().unwrap_or_default(),
            Target::Journal => &names.journal,
        }
    }

    /// After commit: the overlay becomes part of the window, the tally part of the metrics.
    /// `run` is the journal offsets of the transaction's first and last run, where it wrote one.
    pub fn publish(&mut self, run: Option<(i64, i64)>) {
        if let Some((first, last)) = run {
            let last_run = Anchor {
                offset: last,
                checksum: self.last_run_checksum,
            };
            self.window.merge(first, last_run, self.next_offset);
            self.journal_next = last + 1;
            self.must_write_run = false;
            self.has_written_run = true;
        } else {
            self.window.discard();
        }
        // Nothing of a first hop is journalled.
        self.must_write_run &= self.topic.is_judged();
        self.committed_offset = self.next_offset;
        self.committed_ms = self.judged_ms;
        self.last_commit_ms = Some(wall_clock_ms());
        self.touched = false;
        self.refused = self.refused.split_off(&self.next_offset);
        self.suspects = self.suspects.split_off(&self.next_offset);
        self.report();
    }

    /// After abort: as if the transaction had never been.
    pub fn discard(&mut self) {
        self.window.discard();
        self.next_offset = self.committed_offset;
        self.judged_ms = self.committed_ms;
        self.tally = Tally::default();
        self.touched = false;
    }

    fn report(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        let topic = &self.topic.metrics;
        topic.passed_on.inc_by(tally.passed_on);
        topic.received.inc_by(tally.received);
        topic.forwarded.inc_by(tally.forwarded);
        topic.duplicates_window.inc_by(tally.duplicates_window);
        topic
            .duplicates_transaction
            .inc_by(tally.duplicates_transaction);
        topic.rejected_missing_id.inc_by(tally.rejected_missing_id);
        topic.rejected_unparsable.inc_by(tally.rejected_unparsable);
        topic.rejected_refused.inc_by(tally.rejected_refused);
        topic.rejected_conflict.inc_by(tally.rejected_conflict);
        topic.conflicts.inc_by(tally.conflicts);
        topic.bypassed.inc_by(tally.bypassed);
        topic.returned.inc_by(tally.returned);
        topic.dropped.inc_by(tally.dropped);
        topic.missing_id.inc_by(tally.missing_id);
        for age in tally.duplicate_ages_ms {
            topic.duplicate_age_seconds.observe(age as f64 / 1000.0);
        }
        if let Some(first_ms) = tally.first_forwarded_ms {
            let waited_ms = wall_clock_ms().saturating_sub(first_ms).max(0);
            topic.latency_seconds.observe(waited_ms as f64 / 1000.0);
        }
        let now_ms = self.window.stream_time_ms();
        let sentinel = &self.topic.sentinel;
        sentinel.take(self.partition, now_ms, &tally.samples);
        let counts = self.window.take_filter_counts();
        topic.filter_checks.inc_by(counts.checks);
        topic.filter_positives.inc_by(counts.positives);
        topic.filter_false_positives.inc_by(counts.false_positives);
        self.filter_counts += counts;
        self.report_window();
    }

    /// What the window holds now, for the metrics.
    pub fn report_window(&self) {
        self.metrics
            .ids
            .set(i64::try_from(self.window.ids()).unwrap_or(i64::MAX));
        self.metrics
            .window_bytes
            .set(i64::try_from(self.window.memory_bytes()).unwrap_or(i64::MAX));
        self.metrics.coverage.set(self.window.coverage());
        let committed = self.last_commit_ms.unwrap_or(0) as f64 / 1000.0;
        self.metrics.last_commit.set(committed);
        let oldest = self.window.oldest();
        let oldest = oldest.map_or(0.0, |(time_ms, _)| time_ms as f64 / 1000.0);
        self.metrics.oldest.set(oldest);
        if let Some(stream_time) = self.window.stream_time_ms() {
            self.metrics.stream_time.set(stream_time as f64 / 1000.0);
        }
    }
}
