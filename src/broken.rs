//! Deliberate bugs, for the tests which prove that the checks can fail: with the feature `broken`,
//! `KAFKA_DEDUP_BUG=<name>` switches one of them on. Never in a release: without the feature no
//! question here is more than the constant `false`.

/// Each breaks one rule of the design, named by its invariant where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The overlay becomes part of the window and the store before the commit is certain (I4).
    StoreBeforeCommit,
    /// The overlay outlives the abort of its transaction (I4).
    OverlayKeptAfterAbort,
    /// Input offsets are committed by the consumer, beside the transaction.
    OffsetsOutsideTransaction,
    /// Offsets are sent for the group, without generation and member id (I6).
    NoGeneration,
    /// The journal is read up to its last stable offset only (I5).
    RestoreToStableOffset,
    /// The filter bits of a slice that is over are left where they are.
    RingBitKept,
    /// A slice is dropped when half of the window has passed.
    SliceDroppedEarly,
    /// A stored slice's checkpoint claims a run whose ids it does not hold (I4).
    CheckpointAheadOfIds,
    /// After a commit of unknown outcome the producer goes on, as if it had been aborted (I7).
    ProducerKeptAfterUnknownCommit,
    /// What is in flight is purged before an abort.
    PurgeBeforeAbort,
    /// What was read ahead of a partition outlives a seek in it (I1).
    ReadAheadKept,
}

/// Whether this bug is switched on.
#[cfg(not(feature = "broken"))]
#[inline(always)]
pub const fn has(_: Bug) -> bool {
    false
}

/// Whether this bug is switched on. Panics at a name that there is not: a test would prove nothing.
#[cfg(feature = "broken")]
pub fn has(bug: Bug) -> bool {
    static BUG: std::sync::LazyLock<Option<Bug>> = std::sync::LazyLock::new(|| {
        let name = std::env::var("KAFKA_DEDUP_BUG").ok()?;
        let bug = match name.as_str() {
            "store-before-commit" => Bug::StoreBeforeCommit,
            "overlay-kept-after-abort" => Bug::OverlayKeptAfterAbort,
            "offsets-outside-transaction" => Bug::OffsetsOutsideTransaction,
            "no-generation" => Bug::NoGeneration,
            "restore-to-stable-offset" => Bug::RestoreToStableOffset,
            "ring-bit-kept" => Bug::RingBitKept,
            "slice-dropped-early" => Bug::SliceDroppedEarly,
            "checkpoint-ahead-of-ids" => Bug::CheckpointAheadOfIds,
            "producer-kept-after-unknown-commit" => Bug::ProducerKeptAfterUnknownCommit,
            "purge-before-abort" => Bug::PurgeBeforeAbort,
            "read-ahead-kept" => Bug::ReadAheadKept,
            other => panic!("there is no bug {other}"),
        };
        tracing::error!("this build is broken on purpose: {name}");
        Some(bug)
    });
    *BUG == Some(bug)
}

/// The group's name and nothing else: no generation, no member.
#[cfg(feature = "broken")]
pub fn as_nobody(
    config: &crate::config::Config,
) -> Option<rdkafka::consumer::ConsumerGroupMetadata> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &config.kafka.bootstrap_servers)
        .set("group.id", &config.kafka.group_id)
        .create()
        .ok()?;
    consumer.group_metadata()
}
