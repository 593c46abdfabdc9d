//! Whether an output is right: read as consumers read it, with committed records alone.

use std::time::{Duration, Instant};

use hashbrown::HashSet;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::kit::kafka::Kafka;
use crate::kit::unique;
use crate::shape::{ID_HEADER, Sent};
use crate::stream::{Id, fingerprint};

/// Records that are missing are waited for so long.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Findings {
    pub records: u64,
    seen: HashSet<u128, foldhash::fast::RandomState>,
    checksum: u128,
}

impl Findings {
    pub fn add(&mut self, id: &Id) {
        let fingerprint = fingerprint(id);
        self.records += 1;
        if self.seen.insert(fingerprint) {
            self.checksum ^= fingerprint;
        }
    }

    /// Each id is there, and once where `wanted` is their number; else what is wrong.
    pub fn check(&self, wanted: u64, sent: &Sent) -> Result<(), String> {
        let distinct = self.seen.len() as u64;
        if (self.records, distinct, self.checksum) == (wanted, sent.ids, sent.checksum) {
            return Ok(());
        }
        Err(format!(
            "{} records of {distinct} ids, where {wanted} records of {} ids are right",
            self.records, sent.ids
        ))
    }
}

pub fn id_of(message: &BorrowedMessage<'_>) -> Id {
    let headers = message.headers().expect("headers are kept");
    let header = headers.iter().find(|header| header.key == ID_HEADER);
    let id = header
        .and_then(|header| header.value)
        .expect("the id is kept");
    id.try_into().expect("an id of 36 bytes")
}

/// Of all partitions, from their beginning.
pub fn reader(kafka: &Kafka, topic: &str, partitions: i32) -> BaseConsumer {
    let consumer: BaseConsumer = kafka
        .client()
        .set("group.id", unique("audit"))
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("assigned");
    consumer
}

/// Reads a topic that nobody writes to any more, up to its end.
pub fn read(kafka: &Kafka, topic: &str, partitions: i32, wanted: u64) -> Findings {
    let mut findings = Findings::default();
    each(kafka, topic, partitions, wanted, |message| {
        findings.add(&id_of(message));
    });
    findings
}

/// Each record of such a topic, of which there are `wanted` or more.
pub fn each(
    kafka: &Kafka,
    topic: &str,
    partitions: i32,
    wanted: u64,
    mut take: impl FnMut(&BorrowedMessage<'_>),
) {
    let consumer = reader(kafka, topic, partitions);
    let mut records = 0;
    let mut ended = vec![false; usize::try_from(partitions).expect("a count")];
    let mut last = Instant::now();
    while last.elapsed() < PATIENCE {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                last = Instant::now();
                take(&message);
                records += 1;
                ended[usize::try_from(message.partition()).expect("a partition")] = false;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended[usize::try_from(partition).expect("a partition")] = true;
            }
            Some(Err(error)) => println!("reading {topic}: {error}"),
            None => {}
        }
        if records >= wanted && ended.iter().all(|ended| *ended) {
            break;
        }
    }
}
