//! Every metric the process exports, defined in this one file; touches nothing but its own registry.
//!
//! Names start with `kafka_dedup_`, units are base units and stand in the name. Counters begin at 0
//! with the process. Label values are bounded (I8): topics and partitions are those assigned to
//! this process, every other label is one of a fixed set of words.
//!
//! The verdict counters of [`TopicMetrics`] move only after the transaction that carries the
//! records has committed, all of them together, so at any time (I2)
//! received = forwarded + duplicate + rejected + dropped.

mod define;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::LabelPair;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, TextEncoder,
};

use crate::config::{self, Mode};
use define::{
    counter, counters, gauge, gauges, histogram, histograms, int_gauge, int_gauges, register,
};

/// From 1 ms to the longest transaction time-out.
const STEP_BUCKETS_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// From a producer's retry to a replay of last week's data.
const AGE_BUCKETS_SECONDS: &[f64] = &[
    0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 43200.0, 86400.0, 259200.0, 604800.0,
];
/// From a short transaction to a backlog of a day.
const LATENCY_BUCKETS_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0, 86400.0,
];
/// From a trickle to the largest `transaction.records`.
const RECORDS_BUCKETS: &[f64] = &[
    1.0, 10.0, 100.0, 1000.0, 2500.0, 5000.0, 10000.0, 20000.0, 50000.0, 100000.0, 1000000.0,
];

/// The metrics of the process. One for all workers; every handle in it may be used from any thread.
pub struct Metrics {
    registry: Registry,
    topics: TopicFamilies,
    partitions: PartitionFamilies,
    mode: IntGaugeVec,
    transactions: IntCounterVec,
    /// Transactional producers replaced after an unknown or fatal outcome (I7).
    pub producer_rebuilds: IntCounter,
    /// Label `event`: assigned, revoked or lost.
    pub rebalances: IntCounterVec,
    /// Label `code`: librdkafka's name of the error.
    pub client_errors: IntCounterVec,
    /// Label `step`: drain, offsets, commit or publish. Seconds.
    pub commit_step_seconds: HistogramVec,
    /// Consumed records of each committed transaction.
    pub transaction_records: Histogram,
    /// Unix time of the latest commit, in seconds; 0 before the first.
    pub last_commit_timestamp_seconds: Gauge,
    /// DeleteRecords requests on the journal that failed.
    pub journal_trim_failures: IntCounter,
    /// Journal records that are no run of this deployment and were passed over.
    pub journal_foreign_records: IntCounter,
    /// Label `kind`: warm (from the store) or cold (from the journal alone).
    pub restores: IntCounterVec,
    /// Label `operation`: write or remove.
    pub store_errors: IntCounterVec,
    /// Label `reason`: damaged, foreign, stale or suspect.
    pub store_set_aside: IntCounterVec,
    /// Label `outcome`: answered, unknown, failed or refused.
    pub schema_requests: IntCounterVec,
    /// 1 while the store cannot be used and seen ids are held in memory.
    pub store_degraded: IntGauge,
    /// 1 where /readyz says ready.
    pub ready: IntGauge,
    /// `window.time` in seconds, and `window.ids`; 0 where it is not set.
    pub window_seconds: Gauge,
    pub window_limit_ids: IntGauge,
    pub paused: IntGauge,
    pub bypass: IntGauge,
    pub admin_requests: IntCounterVec,
    /// Estimated memory of the open databases of the store, in bytes.
    pub store_memory_bytes: IntGauge,
}

/// The verdict counters of one input topic, resolved once: an increment is one atomic addition.
/// Increment them only after the commit (I2).
#[derive(Clone)]
pub struct TopicMetrics {
    /// Records that the first hop of `scope: repartition` has passed on.
    pub passed_on: IntCounter,
    /// Records consumed and judged.
    pub received: IntCounter,
    /// Records let through to the output.
    pub forwarded: IntCounter,
    /// Duplicates of an id that an earlier transaction let through.
    pub duplicates_window: IntCounter,
    /// Duplicates of an id that the same transaction let through.
    pub duplicates_transaction: IntCounter,
    /// Rejected because the id is missing and `id.missing` says reject.
    pub rejected_missing_id: IntCounter,
    /// Rejected because no id can be read from the record.
    pub rejected_unparsable: IntCounter,
    /// Rejected because the output topic refuses the record.
    pub rejected_refused: IntCounter,
    /// Rejected because the id is remembered with another payload and `id.conflicts` says reject.
    pub rejected_conflict: IntCounter,
    /// Records with an id that is remembered with another payload, whatever became of them.
    pub conflicts: IntCounter,
    /// Forwarded because of a bypass alone; they are also in `forwarded`.
    pub bypassed: IntCounter,
    /// Forwarded although their id was let through before, as its window is over; also in `forwarded`.
    pub returned: IntCounter,
    /// Dropped because the id is missing and `id.missing` says drop.
    pub dropped: IntCounter,
    /// Records without an id, whatever became of them; they are also in one of the counters above.
    pub missing_id: IntCounter,
    /// Stream time between a duplicate and the letting-through of its id, in seconds.
    pub duplicate_age_seconds: Histogram,
    /// From a record's timestamp to the commit that forwards it, in seconds; one record a transaction.
    pub latency_seconds: Histogram,
    /// Ids that the filter in front of the sealed slices was asked for.
    pub filter_checks: IntCounter,
    /// Answers of the filter that sent a look-up to the store.
    pub filter_positives: IntCounter,
    /// Slices of the store that were looked into in vain.
    pub filter_false_positives: IntCounter,
}

/// What has been committed so far, of one topic or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub received: u64,
    pub duplicates: u64,
    pub missing_id: u64,
    pub rejected: u64,
    pub returned: u64,
    /// Ids that were compared with other partitions, and those found there.
    pub sampled: u64,
    pub crossing: u64,
}

impl Totals {
    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            received: of(self.received, other.received),
            duplicates: of(self.duplicates, other.duplicates),
            missing_id: of(self.missing_id, other.missing_id),
            rejected: of(self.rejected, other.rejected),
            returned: of(self.returned, other.returned),
            sampled: of(self.sampled, other.sampled),
            crossing: of(self.crossing, other.crossing),
        }
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// What came since.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.each(earlier, u64::saturating_sub)
    }
}

/// Duplicates of an age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgeBucket {
    /// Older than the bucket before, and no older than this; `None` is without an end.
    pub up_to: Option<Duration>,
    pub count: u64,
}

/// What the sentinel of an input topic counts.
#[derive(Clone)]
pub struct SentinelMetrics {
    /// Ids that were let through and sampled.
    pub samples: IntCounter,
    /// Of these, ids that had been let through in another partition.
    pub crossings: IntCounter,
}

/// The gauges of one assigned partition, resolved once.
#[derive(Clone)]
pub struct PartitionMetrics {
    /// Records between the committed position and the end of the partition.
    pub lag: IntGauge,
    /// Age of the last record that was committed, where others wait behind it, in seconds; else 0.
    pub lag_seconds: Gauge,
    /// Stream time as Unix time, in seconds.
    pub stream_time: Gauge,
    /// The share of the configured window that the seen set covers.
    pub coverage: Gauge,
    /// When the oldest id that is held was let through or renewed, as Unix time in seconds.
    pub oldest: Gauge,
    /// Unix time of the latest commit of the partition, in seconds.
    pub last_commit: Gauge,
    /// Ids remembered.
    pub ids: IntGauge,
    /// Memory of the seen window, in bytes.
    pub window_bytes: IntGauge,
    /// Slices of the seen window that the store holds.
    pub slices_on_disk: IntGauge,
    /// False positives a look-up of an id that was not seen, as measured since the assignment.
    pub filter_measured: Gauge,
    /// The same, as expected from size and contents of the filter.
    pub filter_expected: Gauge,
    /// Journal offsets still to be read before the partition may be processed (I5).
    pub restore_remaining: IntGauge,
    /// Ids that the latest restore brought back, from store and journal together.
    pub restored_ids: IntGauge,
    /// 0 while the seen set is restored, 1 while records are judged.
    pub state: IntGauge,
}

struct TopicFamilies {
    passed_on: IntCounterVec,
    received: IntCounterVec,
    forwarded: IntCounterVec,
    duplicate: IntCounterVec,
    rejected: IntCounterVec,
    dropped: IntCounterVec,
    missing_id: IntCounterVec,
    conflicts: IntCounterVec,
    bypassed: IntCounterVec,
    returned: IntCounterVec,
    duplicate_age: HistogramVec,
    latency: HistogramVec,
    sentinel_samples: IntCounterVec,
    sentinel_crossings: IntCounterVec,
    filter_checks: IntCounterVec,
    filter_positives: IntCounterVec,
    filter_false_positives: IntCounterVec,
}

struct PartitionFamilies {
    /// How many assignments of a partition are live: within one process a partition may reach its
    /// next worker before the worker that lost it has noticed.
    live: Mutex<HashMap<(String, i32), usize>>,
    lag: IntGaugeVec,
    lag_seconds: GaugeVec,
    stream_time: GaugeVec,
    coverage: GaugeVec,
    oldest: GaugeVec,
    last_commit: GaugeVec,
    ids: IntGaugeVec,
    window_bytes: IntGaugeVec,
    slices_on_disk: IntGaugeVec,
    filter_measured: GaugeVec,
    filter_expected: GaugeVec,
    restore_remaining: IntGaugeVec,
    restored_ids: IntGaugeVec,
    state: IntGaugeVec,
}

impl Metrics {
    /// A registry of its own with every family in it, and the process collector.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let r = &registry;
        register(r, ProcessCollector::for_self());
        int_gauges(
            r,
            "kafka_dedup_build_info",
            "Always 1; the label is the version of the program.",
            &["version"],
        )
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
        let transactions = counters(
            r,
            "kafka_dedup_transactions_total",
            "Transactions ended, by outcome (committed, aborted) and cause: committed ones were full, their interval was over, or they were closed early (a rebalance, an order, the end); aborted ones by what went wrong.",
            &["outcome", "cause"],
        );
        let metrics = Self {
            topics: TopicFamilies::new(r),
            partitions: PartitionFamilies::new(r),
            mode: int_gauges(
                r,
                "kafka_dedup_mode",
                "1 for the mode of this process: filter, mark (all records forwarded, duplicates with headers) or observe (no record written: forwarded counts what filter would forward).",
                &["mode"],
            ),
            transactions,
            producer_rebuilds: counter(
                r,
                "kafka_dedup_producer_rebuilds_total",
                "Transactional producers replaced after an unknown or fatal outcome.",
            ),
            rebalances: counters(
                r,
                "kafka_dedup_rebalances_total",
                "Rebalance events by kind: assigned, revoked, lost (the group went on without us).",
                &["event"],
            ),
            client_errors: counters(
                r,
                "kafka_dedup_client_errors_total",
                "Errors that the Kafka clients reported, by librdkafka's error code; most are retried.",
                &["code"],
            ),
            commit_step_seconds: histograms(
                r,
                "kafka_dedup_commit_step_duration_seconds",
                "Duration of each step of a commit: drain (deliveries), offsets, commit, publish (window and store).",
                &["step"],
                STEP_BUCKETS_SECONDS,
            ),
            transaction_records: histogram(
                r,
                "kafka_dedup_transaction_records",
                "Consumed records of each committed transaction.",
                RECORDS_BUCKETS,
            ),
            last_commit_timestamp_seconds: gauge(
                r,
                "kafka_dedup_last_commit_timestamp_seconds",
                "Unix time of the latest committed transaction; 0 before the first.",
            ),
            journal_trim_failures: counter(
                r,
                "kafka_dedup_journal_trim_failures_total",
                "DeleteRecords requests on the journal that failed; the journal grows meanwhile.",
            ),
            journal_foreign_records: counter(
                r,
                "kafka_dedup_journal_foreign_records_total",
                "Journal records that are no run of this deployment and were passed over; should stay 0.",
            ),
            restores: counters(
                r,
                "kafka_dedup_restores_total",
                "Seen sets restored, by kind: warm (from the store and the journal's tail), cold (from the journal alone).",
                &["kind"],
            ),
            store_errors: counters(
                r,
                "kafka_dedup_store_errors_total",
                "Operations of the store that failed, by kind: write, remove. Seen ids stay in memory and in the journal.",
                &["operation"],
            ),
            store_set_aside: counters(
                r,
                "kafka_dedup_store_set_aside_total",
                "Slices of the store that could not be used and were rebuilt from the journal, by reason: damaged, foreign, stale, suspect.",
                &["reason"],
            ),
            schema_requests: counters(
                r,
                "kafka_dedup_schema_requests_total",
                "Questions to the schema registry, by outcome: answered, unknown (it has no such schema), failed, refused (a schema that is too large).",
                &["outcome"],
            ),
            ready: int_gauge(
                r,
                "kafka_dedup_ready",
                "1 while /readyz says ready, else 0.",
            ),
            window_seconds: gauge(
                r,
                "kafka_dedup_window_configured_seconds",
                "window.time of the config; 0 where the window has none.",
            ),
            window_limit_ids: int_gauge(
                r,
                "kafka_dedup_window_configured_ids",
                "window.ids of the config; 0 where the window has none.",
            ),
            paused: int_gauge(
                r,
                "kafka_dedup_paused",
                "1 while an operator has paused a topic or all, else 0.",
            ),
            bypass: int_gauge(
                r,
                "kafka_dedup_bypass",
                "1 while an operator has everything forwarded, duplicates too, else 0.",
            ),
            admin_requests: counters(
                r,
                "kafka_dedup_admin_requests_total",
                "Requests to the admin interface, by command and outcome: done, refused, failed.",
                &["command", "outcome"],
            ),
            store_degraded: int_gauge(
                r,
                "kafka_dedup_store_degraded",
                "1 while the store cannot be used and seen ids are held in memory, else 0.",
            ),
            store_memory_bytes: int_gauge(
                r,
                "kafka_dedup_store_memory_bytes",
                "Estimated memory of the open databases of the store.",
            ),
            registry,
        };
        // Series with a known set of labels exist from the start, so that a first increase is seen
        // as an increase.
        for event in ["assigned", "revoked", "lost"] {
            metrics.rebalances.with_label_values(&[event]);
        }
        for cause in ["full", "interval", "early"] {
            metrics
                .transactions
                .with_label_values(&["committed", cause]);
        }
        for kind in ["warm", "cold"] {
            metrics.restores.with_label_values(&[kind]);
        }
        for operation in ["write", "remove"] {
            metrics.store_errors.with_label_values(&[operation]);
        }
        for reason in ["damaged", "foreign", "stale", "suspect"] {
            metrics.store_set_aside.with_label_values(&[reason]);
        }
        for outcome in ["answered", "unknown", "failed", "refused"] {
            metrics.schema_requests.with_label_values(&[outcome]);
        }
        for step in ["drain", "offsets", "commit", "publish"] {
            metrics.commit_step_seconds.with_label_values(&[step]);
        }
        Arc::new(metrics)
    }

    /// Everything in the Prometheus text format (`prometheus::TEXT_FORMAT`). Reads `/proc/self`;
    /// linear in the number of series.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be encoded in full");
        }
        text
    }

    /// What has been committed so far, by topic. O(topics).
    #[must_use]
    pub fn totals(&self) -> BTreeMap<String, Totals> {
        let mut all: BTreeMap<String, Totals> = BTreeMap::new();
        let mut add = |family: &IntCounterVec, to: fn(&mut Totals) -> &mut u64| {
            for metric in family.collect().iter().flat_map(|it| it.get_metric()) {
                let is_topic = |it: &&LabelPair| it.name() == "topic";
                if let Some(label) = metric.get_label().iter().find(is_topic) {
                    let totals = all.entry(label.value().to_owned()).or_default();
                    *to(totals) += metric.get_counter().get_value() as u64;
                }
            }
        };
        add(&self.topics.received, |it| &mut it.received);
        add(&self.topics.duplicate, |it| &mut it.duplicates);
        add(&self.topics.missing_id, |it| &mut it.missing_id);
        add(&self.topics.rejected, |it| &mut it.rejected);
        add(&self.topics.returned, |it| &mut it.returned);
        add(&self.topics.sentinel_samples, |it| &mut it.sampled);
        add(&self.topics.sentinel_crossings, |it| &mut it.crossing);
        all
    }

    /// Duplicates of all topics so far, by their age.
    #[must_use]
    pub fn ages(&self) -> Vec<AgeBucket> {
        let limits = AGE_BUCKETS_SECONDS.iter();
        let limits = limits.map(|seconds| Some(Duration::from_secs_f64(*seconds)));
        let mut buckets: Vec<AgeBucket> = limits
            .chain([None])
            .map(|up_to| AgeBucket { up_to, count: 0 })
            .collect();
        let families = self.topics.duplicate_age.collect();
        for metric in families.iter().flat_map(|family| family.get_metric()) {
            let histogram = metric.get_histogram();
            let mut below = 0;
            for (bucket, it) in buckets.iter_mut().zip(histogram.get_bucket()) {
                let so_far = it.cumulative_count();
                bucket.count += so_far.saturating_sub(below);
                below = so_far;
            }
            if let Some(longer) = buckets.last_mut() {
                longer.count += histogram.get_sample_count().saturating_sub(below);
            }
        }
        buckets
    }

    /// Says how much is to be remembered.
    pub fn set_window(&self, window: &config::Window) {
        self.window_seconds
            .set(window.time_ms.unwrap_or(0) as f64 / 1000.0);
        let ids = window.ids.unwrap_or(0);
        self.window_limit_ids
            .set(i64::try_from(ids).unwrap_or(i64::MAX));
    }

    /// Says what is written, and where.
    pub fn set_mode(&self, mode: Mode) {
        for (word, one) in Mode::ALL {
            let is = i64::from(one == mode);
            self.mode.with_label_values(&[word]).set(is);
        }
    }

    /// The counters of the sentinel of one input topic.
    pub fn sentinel(&self, topic: &str) -> SentinelMetrics {
        SentinelMetrics {
            samples: self.topics.sentinel_samples.with_label_values(&[topic]),
            crossings: self.topics.sentinel_crossings.with_label_values(&[topic]),
        }
    }

    /// Counts a transaction that was committed: full, interval or early.
    pub fn transaction_committed(&self, cause: &'static str) {
        self.transactions
            .with_label_values(&["committed", cause])
            .inc();
    }

    /// Counts a transaction that was aborted. `cause` is one of a fixed set of words.
    pub fn transaction_aborted(&self, cause: &'static str) {
        self.transactions
            .with_label_values(&["aborted", cause])
            .inc();
    }

    /// Notes how long a step of a commit took: drain, offsets, commit or publish.
    pub fn observe_step(&self, step: &'static str, took: std::time::Duration) {
        self.commit_step_seconds
            .with_label_values(&[step])
            .observe(took.as_secs_f64());
    }

    /// Counts an error that a Kafka client reported, by librdkafka's name for it.
    pub fn client_error(&self, code: Option<rdkafka::error::RDKafkaErrorCode>) {
        let name = code.map_or_else(|| "unknown".to_owned(), |code| format!("{code:?}"));
        self.client_errors.with_label_values(&[&name]).inc();
    }

    /// The counters of an input topic. Call once an assignment, keep the result.
    #[must_use]
    pub fn topic(&self, topic: &str) -> TopicMetrics {
        self.topics.resolve(topic)
    }

    /// The gauges of a partition, from now on exported. Call once for each assignment, and
    /// [`Self::forget_partition`] once when it ends. The values of an earlier owner in this
    /// process stay until they are set.
    #[must_use]
    pub fn partition(&self, topic: &str, partition: i32) -> PartitionMetrics {
        *self
            .partitions
            .live()
            .entry((topic.to_owned(), partition))
            .or_default() += 1;
        self.partitions.resolve(topic, &partition.to_string())
    }

    /// The assignment has ended: the partition's gauges are exported no longer, unless another
    /// worker of this process has it by now. A partition that is not known is ignored.
    pub fn forget_partition(&self, topic: &str, partition: i32) {
        let mut live = self.partitions.live();
        let key = (topic.to_owned(), partition);
        match live.get_mut(&key) {
            None => {}
            Some(assignments) if *assignments > 1 => *assignments -= 1,
            Some(_) => {
                live.remove(&key);
                self.partitions.remove(topic, &partition.to_string());
            }
        }
    }
}

impl TopicFamilies {
    fn new(r: &Registry) -> Self {
        const SUM: &str =
            "Counted after the commit: received = forwarded + duplicate + rejected + dropped.";
        let verdict =
            |name, help, labels: &[_]| counters(r, name, &format!("{help} {SUM}"), labels);
        let by_topic = |name, help| verdict(name, help, &["topic"]);
        let by_reason = |name, help| verdict(name, help, &["topic", "reason"]);
        Self {
            received: by_topic("kafka_dedup_records_received_total", "Records consumed."),
            passed_on: by_topic(
                "kafka_dedup_records_passed_on_total",
                "Records that the first hop of scope: repartition has passed on to the partition of their id; they are counted as received when they are judged there. 0 with other scopes.",
            ),
            forwarded: by_topic(
                "kafka_dedup_records_forwarded_total",
                "Records let through to the output.",
            ),
            duplicate: by_reason(
                "kafka_dedup_records_duplicate_total",
                "Duplicates, by where their id was seen: an earlier transaction (window) or the same one (transaction).",
            ),
            rejected: by_reason(
                "kafka_dedup_records_rejected_total",
                "Records rejected, by reason: missing_id, unparsable, refused (by the output topic), conflict.",
            ),
            dropped: by_topic(
                "kafka_dedup_records_dropped_total",
                "Records without an id, dropped as id.missing says.",
            ),
            missing_id: counters(
                r,
                "kafka_dedup_records_missing_id_total",
                "Records without an id, whatever became of them; each is also counted as forwarded, rejected or dropped.",
                &["topic"],
            ),
            conflicts: counters(
                r,
                "kafka_dedup_records_conflicting_total",
                "Records whose id was let through with another payload, whatever became of them; 0 with id.conflicts: ignore. Each is also counted as forwarded, duplicate or rejected.",
                &["topic"],
            ),
            returned: counters(
                r,
                "kafka_dedup_records_returned_total",
                "Records forwarded although their id was let through before, as its window is over; each is also counted as forwarded. Known while the id is still held, up to a slice longer than the window: at least so many.",
                &["topic"],
            ),
            bypassed: counters(
                r,
                "kafka_dedup_records_bypassed_total",
                "Records that were forwarded because of a bypass alone; each is also counted as forwarded.",
                &["topic"],
            ),
            duplicate_age: histograms(
                r,
                "kafka_dedup_duplicate_age_seconds",
                "Stream time between a duplicate and the letting-through of its id.",
                &["topic"],
                AGE_BUCKETS_SECONDS,
            ),
            latency: histograms(
                r,
                "kafka_dedup_latency_seconds",
                "From a record's timestamp to the commit that forwards it, by this machine's clock: of the first record that each transaction forwards of a partition.",
                &["topic"],
                LATENCY_BUCKETS_SECONDS,
            ),
            sentinel_samples: counters(
                r,
                "kafka_dedup_scope_sampled_ids_total",
                "Ids let through that were compared with other partitions: one in 64.",
                &["topic"],
            ),
            sentinel_crossings: counters(
                r,
                "kafka_dedup_scope_crossing_ids_total",
                "Sampled ids that another partition of this process had let through before: duplicates that the scope does not see. About one in 100,000 is mistaken.",
                &["topic"],
            ),
            filter_checks: counters(
                r,
                "kafka_dedup_filter_checks_total",
                "Ids that the filter in front of the store was asked for.",
                &["topic"],
            ),
            filter_positives: counters(
                r,
                "kafka_dedup_filter_positives_total",
                "Answers of the filter that sent a look-up to the store.",
                &["topic"],
            ),
            filter_false_positives: counters(
                r,
                "kafka_dedup_filter_false_positives_total",
                "Slices of the store that were looked into in vain. Costs a read each, and never a record.",
                &["topic"],
            ),
        }
    }

    fn resolve(&self, topic: &str) -> TopicMetrics {
        let duplicate = |reason| self.duplicate.with_label_values(&[topic, reason]);
        let rejected = |reason| self.rejected.with_label_values(&[topic, reason]);
        TopicMetrics {
            received: self.received.with_label_values(&[topic]),
            passed_on: self.passed_on.with_label_values(&[topic]),
            forwarded: self.forwarded.with_label_values(&[topic]),
            duplicates_window: duplicate("window"),
            duplicates_transaction: duplicate("transaction"),
            rejected_missing_id: rejected("missing_id"),
            rejected_unparsable: rejected("unparsable"),
            rejected_refused: rejected("refused"),
            rejected_conflict: rejected("conflict"),
            conflicts: self.conflicts.with_label_values(&[topic]),
            bypassed: self.bypassed.with_label_values(&[topic]),
            returned: self.returned.with_label_values(&[topic]),
            dropped: self.dropped.with_label_values(&[topic]),
            missing_id: self.missing_id.with_label_values(&[topic]),
            duplicate_age_seconds: self.duplicate_age.with_label_values(&[topic]),
            latency_seconds: self.latency.with_label_values(&[topic]),
            filter_checks: self.filter_checks.with_label_values(&[topic]),
            filter_positives: self.filter_positives.with_label_values(&[topic]),
            filter_false_positives: self.filter_false_positives.with_label_values(&[topic]),
        }
    }
}

impl PartitionFamilies {
    fn new(r: &Registry) -> Self {
        const LABELS: &[&str] = &["topic", "partition"];
        let gauge = |name, help| int_gauges(r, name, help, LABELS);
        Self {
            live: Mutex::new(HashMap::new()),
            lag: gauge(
                "kafka_dedup_lag_records",
                "Records between the committed position and the end of the partition; 0 until first known.",
            ),
            lag_seconds: gauges(
                r,
                "kafka_dedup_lag_seconds",
                "By this machine's clock, how long ago the last record that was committed had its timestamp, while others wait behind it; 0 where none does, and until first known.",
                LABELS,
            ),
            stream_time: gauges(
                r,
                "kafka_dedup_stream_timestamp_seconds",
                "Stream time (largest record timestamp so far) as Unix time; 0 until first known.",
                LABELS,
            ),
            coverage: gauges(
                r,
                "kafka_dedup_window_coverage_ratio",
                "Share of the configured window of which the seen set remembers all that was let through. Below 1 (it began, was grown or was forgotten less than a window ago) an older id would be let through once more.",
                LABELS,
            ),
            oldest: gauges(
                r,
                "kafka_dedup_window_oldest_timestamp_seconds",
                "When the oldest id that is held was let through or renewed, in stream time as Unix time; 0 where none is.",
                LABELS,
            ),
            last_commit: gauges(
                r,
                "kafka_dedup_partition_last_commit_timestamp_seconds",
                "Unix time of the latest committed transaction with something of this partition; 0 before the first since its assignment.",
                LABELS,
            ),
            ids: gauge("kafka_dedup_window_ids", "Ids remembered."),
            window_bytes: gauge(
                "kafka_dedup_window_bytes",
                "Memory held by the seen window.",
            ),
            slices_on_disk: gauge(
                "kafka_dedup_window_stored_slices",
                "Slices of the seen window that the store holds.",
            ),
            filter_measured: gauges(
                r,
                "kafka_dedup_filter_false_positive_ratio",
                "False positives a look-up of an id that was not seen, as measured since the assignment.",
                LABELS,
            ),
            filter_expected: gauges(
                r,
                "kafka_dedup_filter_expected_false_positive_ratio",
                "False positives a look-up of an id that was not seen, as expected from the filter's size and contents.",
                LABELS,
            ),
            restore_remaining: gauge(
                "kafka_dedup_restore_remaining_offsets",
                "Journal offsets still to be read before the partition may be processed.",
            ),
            restored_ids: gauge(
                "kafka_dedup_restored_ids",
                "Ids that the latest restore brought back, from store and journal together.",
            ),
            state: gauge(
                "kafka_dedup_partition_active",
                "1 while records of the partition are judged, 0 while its seen set is restored.",
            ),
        }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<(String, i32), usize>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolve(&self, topic: &str, partition: &str) -> PartitionMetrics {
        let labels = &[topic, partition];
        PartitionMetrics {
            lag: self.lag.with_label_values(labels),
            lag_seconds: self.lag_seconds.with_label_values(labels),
            stream_time: self.stream_time.with_label_values(labels),
            coverage: self.coverage.with_label_values(labels),
            oldest: self.oldest.with_label_values(labels),
            last_commit: self.last_commit.with_label_values(labels),
            ids: self.ids.with_label_values(labels),
            window_bytes: self.window_bytes.with_label_values(labels),
            slices_on_disk: self.slices_on_disk.with_label_values(labels),
            filter_measured: self.filter_measured.with_label_values(labels),
            filter_expected: self.filter_expected.with_label_values(labels),
            restore_remaining: self.restore_remaining.with_label_values(labels),
            restored_ids: self.restored_ids.with_label_values(labels),
            state: self.state.with_label_values(labels),
        }
    }

    fn remove(&self, topic: &str, partition: &str) {
        let labels = &[topic, partition];
        // An error says that the series is gone already, which is what is wanted.
        for family in [
            &self.lag_seconds,
            &self.stream_time,
            &self.coverage,
            &self.oldest,
            &self.last_commit,
            &self.filter_measured,
            &self.filter_expected,
        ] {
            let _ = family.remove_label_values(labels);
        }
        for family in [
            &self.lag,
            &self.ids,
            &self.window_bytes,
            &self.slices_on_disk,
            &self.restore_remaining,
            &self.restored_ids,
            &self.state,
        ] {
            let _ = family.remove_label_values(labels);
        }
    }
}

#[cfg(test)]
mod tests;
