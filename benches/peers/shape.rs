//! What a run is fed: the same records for every program.

use std::fmt;

use clap::ValueEnum;
use kafka_dedup::partitioner::murmur2_partition;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use crate::kit::kafka::{Client, Kafka, flush, send_record};
use crate::stream::{Id, Random, Repeats, Stream, WINDOW_MS, fingerprint};

/// The input spans this much of the window of 24 hours, so that no program has forgotten anything.
const SPAN_MS: i64 = WINDOW_MS / 24 * 20;
const BATCH: usize = 10_000;
pub const ID_HEADER: &str = "message-id";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    None,
    Lz4,
}

impl Compression {
    /// As Kafka's clients call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Distinct ids; with the duplicates there are more records.
    pub ids: u64,
    pub value_bytes: usize,
    pub duplicates_percent: u64,
    pub partitions: i32,
    pub compression: Compression,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, values of {} B, {} % duplicates, {} partitions, {}",
            crate::results::ids(self.ids),
            self.value_bytes,
            self.duplicates_percent,
            self.partitions,
            match self.compression {
                Compression::None => "not compressed",
                Compression::Lz4 => "lz4",
            }
        )
    }
}

/// What an input holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    pub records: u64,
    pub ids: u64,
    /// All fingerprints of distinct ids, combined.
    pub checksum: u128,
    /// Key, value, name and value of the header, over the distinct ids.
    pub forwarded_bytes: u64,
}

impl Shape {
    /// Makes the topic and writes all of it.
    pub fn write(&self, kafka: &Kafka, topic: &str, now_ms: i64) -> Sent {
        kafka.create_topic(topic, self.partitions, &[("retention.ms", "-1")]);
        self.write_to(kafka, topic, now_ms)
    }

    /// Writes all of it to a topic that is there.
    pub fn write_to(&self, kafka: &Kafka, topic: &str, now_ms: i64) -> Sent {
        let producer = kafka.producer(&[
            ("compression.type", self.compression.name()),
            ("linger.ms", "50"),
            ("enable.idempotence", "true"),
        ]);
        let begins_ms = now_ms - SPAN_MS;
        let mut stream = Stream::new(self.ids * 24 / 20);
        let mut sent = Sent::default();
        while sent.ids < self.ids {
            let left = usize::try_from(self.ids - sent.ids).expect("a count");
            let (records, duplicate) =
                stream.records(left.min(BATCH), self.duplicates_percent * 10, Repeats::Soon);
            for (record, duplicate) in records.iter().zip(duplicate) {
                let value = value(&record.id, self.value_bytes);
                send(
                    &producer,
                    topic,
                    partition_of(&record.id, self.partitions),
                    &record.id,
                    &value,
                    begins_ms + record.time_ms,
                );
                sent.records += 1;
                if !duplicate {
                    sent.ids += 1;
                    sent.checksum ^= fingerprint(&record.id);
                    sent.forwarded_bytes += bytes_of(&record.id, &value);
                }
            }
        }
        flush(&producer);
        sent
    }
}

impl Sent {
    /// Of an input that two have written, ids of which none is the other's.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            ids: self.ids + other.ids,
            checksum: self.checksum ^ other.checksum,
            forwarded_bytes: self.forwarded_bytes + other.forwarded_bytes,
        }
    }
}

/// The partition that the Java client's partitioner chooses by the record's key.
pub fn partition_of(id: &Id, partitions: i32) -> i32 {
    murmur2_partition(key(id), partitions)
}

/// Sends one record.
pub fn send(
    producer: &Client,
    topic: &str,
    partition: i32,
    id: &Id,
    value: &[u8],
    timestamp_ms: i64,
) {
    let header = Header {
        key: ID_HEADER,
        value: Some(id.as_slice()),
    };
    let record = BaseRecord::<[u8], [u8]>::to(topic)
        .partition(partition)
        .key(key(id))
        .payload(value)
        .timestamp(timestamp_ms)
        .headers(OwnedHeaders::new().insert(header));
    send_record(producer, record).unwrap_or_else(|error| panic!("produce to {topic}: {error}"));
}

/// A record with the same id has the same key, so it comes to the same partition.
fn key(id: &Id) -> &[u8] {
    &id[..8]
}

fn bytes_of(id: &Id, value: &[u8]) -> u64 {
    (key(id).len() + ID_HEADER.len() + id.len() + value.len()) as u64
}

/// JSON as a vehicle sends it: half of it names, which compress well, half of it digits, which do not.
pub fn value(id: &Id, bytes: usize) -> Vec<u8> {
    let mut random = Random(fingerprint(id) as u64);
    let mut value = b"{\"points\":[".to_vec();
    while value.len() < bytes {
        let (at, speed) = (random.next(), random.next() % 200);
        let point = format!("{{\"position\":{at:016x},\"speed\":{speed}}},");
        value.extend_from_slice(point.as_bytes());
    }
    value.truncate(bytes);
    value
}
