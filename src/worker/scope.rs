//! A scope: one input partition of this worker, its seen window, and how far it has been judged.
//!
//! Nothing here touches Kafka. What belongs to the open transaction (the window's overlay,
//! `next_offset`, the tally) is either kept by [`Scope::publish`] or dropped by [`Scope::discard`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::metrics::{PartitionMetrics, TopicMetrics};
use crate::sink::Target;
use crate::source::Partition;
use crate::store::Anchor;
use crate::topics::names::Names;
use crate::window::{Counts, Fingerprint, SeenWindow};
use crate::worker::sentinel::Sentinel;

/// An input topic as this worker needs it.
pub struct Topic {
    pub name: String,
    pub names: Names,
    /// Partitions of the input for which its other topics have been prepared.
    pub partitions: i32,
    pub output_partitions: i32,
    /// Id of the input topic, and of the journal; `None` on brokers before 2.8.
    pub id: Option<String>,
    pub journal_id: Option<String>,
    pub metrics: TopicMetrics,
    pub sentinel: Arc<Sentinel>,
}

/// Why a record was rejected; also what its `dedup-reason` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    MissingId,
    Unparsable,
    TooLarge,
    Timestamp,
    Invalid,
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
            Self::MissingId | Self::Unparsable => "look at the settings of that topic",
        }
    }
}

/// What became of the records of the open transaction: every one of them once (I2).
#[derive(Debug, Default)]
pub struct Tally {
    pub received: u64,
    pub forwarded: u64,
    pub duplicates_window: u64,
    pub duplicates_transaction: u64,
    pub rejected_missing_id: u64,
    pub rejected_unparsable: u64,
    pub rejected_refused: u64,
    pub dropped: u64,
    pub missing_id: u64,
    pub duplicate_ages_ms: Vec<i64>,
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
    /// A position beyond `next_offset`, with no record in between, and since when it has been there.
    pub passed: Option<(i64, Instant)>,
    pub metrics: PartitionMetrics,
}

impl Scope {
    /// The partition, by name and number.
    pub fn partition_key(&self) -> Partition {
        (self.topic.name.clone(), self.partition)
    }

    /// The topic that such records of this scope go to; empty where none is configured.
    pub fn topic_of(&self, target: Target) -> &str {
        let names = &self.topic.names;
        match target {
            Target::Output => names.output.as_deref().unwrap_or_default(),
            Target::Duplicates => names.duplicates.as_deref().unwrap_or_default(),
            Target::Rejected => names.rejected.as_deref().unwrap_or_default(),
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
        } else {
            self.window.discard();
        }
        self.committed_offset = self.next_offset;
        self.touched = false;
        self.refused = self.refused.split_off(&self.next_offset);
        self.suspects = self.suspects.split_off(&self.next_offset);
        self.report();
    }

    /// After abort: as if the transaction had never been.
    pub fn discard(&mut self) {
        self.window.discard();
        self.next_offset = self.committed_offset;
        self.tally = Tally::default();
        self.touched = false;
    }

    fn report(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        let topic = &self.topic.metrics;
        topic.received.inc_by(tally.received);
        topic.forwarded.inc_by(tally.forwarded);
        topic.duplicates_window.inc_by(tally.duplicates_window);
        topic
            .duplicates_transaction
            .inc_by(tally.duplicates_transaction);
        topic.rejected_missing_id.inc_by(tally.rejected_missing_id);
        topic.rejected_unparsable.inc_by(tally.rejected_unparsable);
        topic.rejected_refused.inc_by(tally.rejected_refused);
        topic.dropped.inc_by(tally.dropped);
        topic.missing_id.inc_by(tally.missing_id);
        for age in tally.duplicate_ages_ms {
            topic.duplicate_age_seconds.observe(age as f64 / 1000.0);
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
        if let Some(stream_time) = self.window.stream_time_ms() {
            self.metrics.stream_time.set(stream_time as f64 / 1000.0);
        }
    }
}

/// The scopes that may be judged, and the partitions still in recovery.
#[derive(Default)]
pub struct Scopes {
    /// Active scopes; a freed place is `None`, so that places stay what they are.
    slots: Vec<Option<Scope>>,
    /// topic → place of the scope by partition.
    by_topic: HashMap<String, Vec<Option<usize>>>,
    recovering: HashMap<Partition, Recovering>,
    last_epoch: u64,
}

/// A partition that is in recovery.
pub struct Recovering {
    pub topic: Arc<Topic>,
    pub metrics: PartitionMetrics,
    epoch: u64,
    cancelled: Arc<AtomicBool>,
}

impl Scopes {
    /// The place of the active scope of a partition. O(1).
    pub fn place(&self, topic: &str, partition: i32) -> Option<usize> {
        let places = self.by_topic.get(topic)?;
        *places.get(usize::try_from(partition).ok()?)?
    }

    /// The active scope at a place.
    pub fn at(&mut self, place: usize) -> Option<&mut Scope> {
        self.slots.get_mut(place)?.as_mut()
    }

    /// All active scopes with their places.
    pub fn active(&mut self) -> impl Iterator<Item = (usize, &mut Scope)> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter_map(|(place, slot)| Some((place, slot.as_mut()?)))
    }

    /// Partitions in recovery.
    pub fn recovering(&self) -> &HashMap<Partition, Recovering> {
        &self.recovering
    }

    /// Marks a partition as in recovery; gives the epoch that its answer must carry, and the flag
    /// that withdraws the question.
    pub fn begin_recovery(
        &mut self,
        topic: Arc<Topic>,
        partition: i32,
        metrics: PartitionMetrics,
    ) -> (u64, Arc<AtomicBool>) {
        self.last_epoch += 1;
        let cancelled = Arc::new(AtomicBool::new(false));
        let key = (topic.name.clone(), partition);
        let entry = Recovering {
            topic,
            metrics,
            epoch: self.last_epoch,
            cancelled: Arc::clone(&cancelled),
        };
        if let Some(earlier) = self.recovering.insert(key, entry) {
            earlier.cancelled.store(true, Ordering::Relaxed);
        }
        (self.last_epoch, cancelled)
    }

    /// The partition whose recovery with this epoch has ended, if that is still wanted.
    pub fn end_recovery(&mut self, partition: &Partition, epoch: u64) -> Option<Recovering> {
        if self.recovering.get(partition)?.epoch != epoch {
            return None;
        }
        self.recovering.remove(partition)
    }

    /// Makes a scope active.
    pub fn insert(&mut self, scope: Scope) {
        let place = self
            .slots
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.slots.len());
        let Ok(index) = usize::try_from(scope.partition) else {
            return;
        };
        let places = self.by_topic.entry(scope.topic.name.clone()).or_default();
        if places.len() <= index {
            places.resize(index + 1, None);
        }
        places[index] = Some(place);
        if place == self.slots.len() {
            self.slots.push(Some(scope));
        } else {
            self.slots[place] = Some(scope);
        }
    }

    /// Takes a partition away, active or in recovery; gives the scope if it was active.
    pub fn remove(&mut self, partition: &Partition) -> Option<Scope> {
        if let Some(entry) = self.recovering.remove(partition) {
            entry.cancelled.store(true, Ordering::Relaxed);
        }
        let place = self.place(&partition.0, partition.1)?;
        let places = self.by_topic.get_mut(&partition.0)?;
        *places.get_mut(usize::try_from(partition.1).ok()?)? = None;
        self.slots.get_mut(place)?.take()
    }

    /// Takes all active scopes away.
    pub fn take_active(&mut self) -> Vec<Scope> {
        self.by_topic.clear();
        std::mem::take(&mut self.slots)
            .into_iter()
            .flatten()
            .collect()
    }
}
