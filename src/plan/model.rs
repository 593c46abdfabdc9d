//! The arithmetic of a plan: numbers in, numbers out. docs/sizing.md has the formulas in words;
//! tests/plan.rs holds them against a service that runs.

use serde::Serialize;

use crate::config::{Config, Conflicts, Mode, Scope};
use crate::kafka::ahead::READ_AHEAD_BYTES;
use crate::store::chunk::{ENTRIES_PER_CHUNK, chunks_for};
use crate::topics::settings::JOURNAL_SEGMENT_BYTES;
use crate::window::sizing;

/// A process that remembers nothing, with its Kafka clients (measured: 45 to 56 MiB with two
/// partitions).
const PROCESS_BYTES: f64 = 48.0 * MIB;
/// What a consumer fetches ahead at most, its queue of 2 MiB (see `kafka::clients`), and what is read ahead of that.
const FETCHED_BYTES: f64 = 2.0 * MIB + READ_AHEAD_BYTES as f64;
/// What a restore reads ahead at most.
const RESTORED_BYTES: f64 = 32.0 * MIB;
/// What a producer holds at most.
const QUEUED_BYTES: f64 = 128.0 * MIB;
const MIB: f64 = 1024.0 * 1024.0;

/// What sled adds to what is written into it: names, pages, pointers (measured).
const SLED: f64 = 1.08;
/// Of a chunk, beside its columns: header and checksum.
const CHUNK_BYTES: f64 = 52.0;
/// Of a run, beside its columns: header and checksum, and about 28 for its terms.
const RUN_BYTES: f64 = 82.0;
/// Of an id, where payloads are compared: in the journal as on the disk.
const PAYLOAD_BYTES: f64 = 8.0;
/// Kafka's of a record batch and its one record, beside the value; and of a transaction's marker.
const BATCH_BYTES: f64 = 61.0 + 10.0;
const MARKER_BYTES: f64 = 78.0;
/// What a record is longer by between two hops.
const ENVELOPE_BYTES: f64 = 48.0;
/// Bits of the offset in a position that has a partition before it.
const POSITION_OFFSET_BITS: f64 = 48.0;
/// What a transaction adds to the offsets topic for a partition: key, value and batch.
const OFFSET_BYTES: f64 = 160.0;
/// Room that a limit leaves above the most that is expected.
const HEADROOM: f64 = 1.25;

/// What comes in, and what it is spread over.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Load {
    /// Records a second, of all partitions.
    pub rate: f64,
    /// The share of them that repeats a remembered id, 0 to 1.
    pub duplicates: f64,
    pub partitions: u32,
    pub instances: u32,
    /// Bytes of a record: key, value and headers.
    pub record_bytes: u64,
    /// Replicas of each topic.
    pub replication: u32,
}

/// One partition.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Partition {
    pub new_ids_per_s: f64,
    /// Ids inside the window.
    pub ids_remembered: f64,
    /// The same and those of the oldest slice that are over: a slice goes as a whole.
    pub ids_held: f64,
    pub ids_a_slice: f64,
    pub slices: u32,
    pub filter_bytes: f64,
    /// The active slice, in memory.
    pub active_bytes: f64,
    pub disk_bytes: f64,
    /// What the window has in the journal, one replica.
    pub journal_bytes: f64,
    pub transactions_per_s: f64,
}

/// One instance, with its share of the partitions.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Instance {
    pub partitions: u32,
    pub memory_bytes: f64,
    /// While filters are built anew, slices are sealed and a partition is restored.
    pub memory_peak_bytes: f64,
    pub disk_bytes: f64,
}

/// Bytes a second of the whole deployment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Traffic {
    pub read: f64,
    pub output: f64,
    pub duplicates_topic: f64,
    /// Between the two hops of `scope: repartition`.
    pub repartition: f64,
    pub journal: f64,
    /// Markers, and the offsets topic.
    pub transactions: f64,
    /// All that is written, with every replica of it.
    pub written_with_replicas: f64,
}

/// What Kubernetes is to be told.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Recommended {
    pub memory_request_bytes: f64,
    pub memory_limit_bytes: f64,
    pub volume_bytes: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plan {
    pub load: Load,
    pub partition: Partition,
    pub instance: Instance,
    /// The same when one instance is gone and the others have its partitions.
    pub instance_without_one: Instance,
    /// The journal of all partitions, one replica: the window, and segments that are not full yet.
    pub journal_bytes: f64,
    pub traffic: Traffic,
    pub recommended: Recommended,
}

impl Plan {
    pub fn of(load: Load, config: &Config) -> Self {
        let partition = Partition::of(load, config);
        let all = f64::from(load.partitions);
        // What one member reads as a whole: a partition, or all partitions of a topic.
        let unit = match config.scope {
            Scope::Topic => load.partitions.div_ceil(topics(config)),
            _ => 1,
        };
        let share = |instances: u32| {
            let units = load.partitions.div_ceil(unit);
            (units.div_ceil(instances.max(1)) * unit).min(load.partitions)
        };
        let instance = Instance::of(share(load.instances), load, &partition, config);
        let fewer = share(load.instances.saturating_sub(1));
        let instance_without_one = Instance::of(fewer, load, &partition, config);
        let volume = HEADROOM * instance_without_one.disk_bytes;
        Self {
            load,
            partition,
            instance,
            instance_without_one,
            // It is trimmed by whole segments, and only what is not the newest.
            journal_bytes: all * (partition.journal_bytes + JOURNAL_SEGMENT_BYTES as f64),
            traffic: Traffic::of(load, &partition, config),
            recommended: Recommended {
                memory_request_bytes: up_to(instance.memory_bytes, 32.0 * MIB),
                memory_limit_bytes: up_to(
                    HEADROOM * instance_without_one.memory_peak_bytes,
                    32.0 * MIB,
                ),
                volume_bytes: up_to(volume, 256.0 * MIB),
            },
        }
    }
}

/// How many input topics there are, as far as the config says so: a regular expression is one.
fn topics(config: &Config) -> u32 {
    u32::try_from(config.input.topics.len()).map_or(u32::MAX, |count| count.max(1))
}

impl Partition {
    fn of(load: Load, config: &Config) -> Self {
        let records_per_s = load.rate / f64::from(load.partitions);
        let new_ids_per_s = records_per_s * (1.0 - load.duplicates);
        let window = config.window;
        let entries_per_s = entries_per_s(load, config);
        let by_time = window.time_ms.map(|ms| entries_per_s * ms as f64 / 1e3);
        let by_count = window.ids.map(|ids| ids as f64);
        let ids_remembered = match (by_time, by_count) {
            (Some(time), Some(count)) => time.min(count),
            (time, count) => time.or(count).unwrap_or(0.0),
        };
        let ids_a_slice = sizing::ids_a_slice(ids_remembered, config.store.active_ids);
        let full = (ids_remembered / ids_a_slice).ceil();
        let slices = full as u32 + 1;
        let ids_held = ids_remembered + ids_a_slice;
        let a_second = entries_per_s.max(f64::MIN_POSITIVE);
        // The active slice is not there, and half of the oldest is over.
        let ids_on_disk = ids_remembered + ids_a_slice / 2.0;
        let has_payloads = config.id.conflicts != Conflicts::Ignore;
        let payload = if has_payloads { PAYLOAD_BYTES } else { 0.0 };
        let stored = stored_bytes(ids_a_slice, a_second, load, config) + payload;
        let disk_bytes = SLED * ids_on_disk * stored;
        let transactions_per_s = transactions_per_s(load, config, records_per_s);
        let ids_a_run = (entries_per_s / transactions_per_s).max(1e-9);
        let run = run_bytes(ids_a_run, a_second, load, config) + ids_a_run * payload;
        let journal_bytes = ids_held * run / ids_a_run;
        let active_bytes = sizing::table_bytes(ids_a_slice);
        let payloads = match has_payloads {
            true => sizing::payload_table_bytes(ids_a_slice),
            false => 0.0,
        };
        Self {
            new_ids_per_s,
            ids_remembered,
            ids_held,
            ids_a_slice,
            slices,
            // The active slice is not in it.
            filter_bytes: sizing::filter_bytes(
                slices - 1,
                ids_a_slice,
                config.store.false_positive_rate,
            ),
            active_bytes: active_bytes + payloads,
            disk_bytes,
            journal_bytes,
            transactions_per_s,
        }
    }
}

impl Instance {
    fn of(partitions: u32, load: Load, partition: &Partition, config: &Config) -> Self {
        let count = f64::from(partitions);
        let workers = config.workers as f64;
        let a_transaction = config.transaction.interval.as_secs_f64();
        let bytes_per_s = load.rate / f64::from(load.partitions) * count * load.record_bytes as f64;
        let queues = workers * FETCHED_BYTES.min(bytes_per_s)
            + workers * QUEUED_BYTES.min(2.0 * a_transaction * bytes_per_s);
        let stored = count * f64::from(partition.slices) * MIB;
        let remembered = count * (partition.filter_bytes + partition.active_bytes);
        let memory_bytes =
            PROCESS_BYTES + queues + remembered + stored.min(config.store.memory_bytes as f64);
        Self {
            partitions,
            memory_bytes,
            // A filter may be twice what it need be, and any active slice may be being sealed.
            memory_peak_bytes: memory_bytes
                + count * (partition.filter_bytes + partition.active_bytes)
                + workers * RESTORED_BYTES,
            disk_bytes: count * partition.disk_bytes,
        }
    }
}

impl Traffic {
    fn of(load: Load, partition: &Partition, config: &Config) -> Self {
        let all = f64::from(load.partitions);
        let bytes = load.rate * load.record_bytes as f64;
        let (new, repeated) = (bytes * (1.0 - load.duplicates), bytes * load.duplicates);
        let (output, duplicates_topic) = match config.mode {
            Mode::Filter if config.duplicates.topic.is_some() => (new, repeated),
            Mode::Filter => (new, 0.0),
            Mode::Mark => (bytes, 0.0),
            Mode::Observe => (0.0, 0.0),
        };
        let journal = all * partition.journal_bytes / partition.ids_held.max(1.0)
            * entries_per_s(load, config);
        let two_hops = config.scope == Scope::Repartition;
        let repartition = match two_hops {
            true => bytes + load.rate * ENVELOPE_BYTES,
            false => 0.0,
        };
        // A marker for output, journal and offsets; and of the first hop, for the repartition topic and offsets.
        let markers = if two_hops { 5.0 } else { 3.0 };
        let offsets = if two_hops { 2.0 } else { 1.0 };
        let a_transaction = markers * MARKER_BYTES + offsets * OFFSET_BYTES;
        let transactions = all * partition.transactions_per_s * a_transaction;
        Self {
            read: bytes + repartition,
            output,
            duplicates_topic,
            repartition,
            journal,
            transactions,
            written_with_replicas: f64::from(load.replication)
                * (output + duplicates_topic + repartition + journal + transactions),
        }
    }
}

/// Entries that a partition's window takes: with refresh a duplicate is remembered anew, in a newer slice.
fn entries_per_s(load: Load, config: &Config) -> f64 {
    let records_per_s = load.rate / f64::from(load.partitions);
    if config.window.refresh {
        records_per_s
    } else {
        records_per_s * (1.0 - load.duplicates)
    }
}

/// How often a partition is in a transaction: as often as its worker commits, unless it has fewer
/// records than that.
fn transactions_per_s(load: Load, config: &Config, records_per_s: f64) -> f64 {
    let workers = f64::from(load.instances) * config.workers as f64;
    let by_count = load.rate / workers / config.transaction.records as f64;
    let by_time = 1.0 / config.transaction.interval.as_secs_f64().max(1e-3);
    by_time.max(by_count).min(records_per_s.max(1e-9))
}

/// Bytes of one entry in a chunk: columns as wide as the spans of a slice need.
fn stored_bytes(ids_a_slice: f64, entries_per_s: f64, load: Load, config: &Config) -> f64 {
    let chunks = f64::from(chunks_for(ids_a_slice as u64));
    let high = 64.0 - chunks.log2().floor();
    let time = bits(1e3 * ids_a_slice / entries_per_s);
    let offset = match config.scope {
        Scope::Repartition => POSITION_OFFSET_BITS + bits(f64::from(load.partitions) - 1.0),
        Scope::Partition | Scope::Copartition | Scope::Topic => {
            bits(ids_a_slice / (1.0 - load.duplicates).max(1e-3))
        }
    };
    let ordinal = bits(ids_a_slice);
    8.0 + (high + time + offset + ordinal) / 8.0 + CHUNK_BYTES / ENTRIES_PER_CHUNK as f64
}

/// Bytes of one run in the journal, with what Kafka adds to it.
fn run_bytes(ids: f64, entries_per_s: f64, load: Load, config: &Config) -> f64 {
    let time = varint_bytes(1e3 / entries_per_s);
    let offset = match config.scope {
        // From a position in one partition to one in another.
        Scope::Repartition if load.partitions > 1 => {
            varint_bytes(POSITION_OFFSET_BITS.exp2() * f64::from(load.partitions) / 3.0)
        }
        _ => varint_bytes(1.0 / (1.0 - load.duplicates).max(1e-3)),
    };
    RUN_BYTES + ids * (16.0 + time + offset) + BATCH_BYTES + MARKER_BYTES
}

fn bits(span: f64) -> f64 {
    (span + 1.0).log2().ceil().max(0.0)
}

/// Of a difference that is not negative, in zigzag.
fn varint_bytes(difference: f64) -> f64 {
    (bits(2.0 * difference) / 7.0).ceil().max(1.0)
}

fn up_to(bytes: f64, step: f64) -> f64 {
    (bytes / step).ceil() * step
}
