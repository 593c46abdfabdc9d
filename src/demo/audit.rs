//! Reads input and output as any consumer would, and has each partition judged.
//!
//! Reads Kafka only. Memory: one partition of both topics at a time.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::judgement::{Findings, Record};
use crate::exit::Stop;

/// A topic that shows nothing new for so long will not.
const PATIENCE: Duration = Duration::from_secs(30);
const ASK: Duration = Duration::from_secs(10);

/// Compares all partitions of two topics, each up to its end at this moment.
///
/// # Errors
/// Internal (70) when a topic cannot be read to its end; the sentence names topic and partition.
pub(super) fn audit(
    bootstrap: &str,
    input: &str,
    output: &str,
    partitions: i32,
) -> Result<Findings, Stop> {
    let reader = Reader::new(bootstrap)?;
    let mut findings = Findings::default();
    for partition in 0..partitions {
        let sent = reader.read(input, partition)?;
        let out = reader.read(output, partition)?;
        findings.judge(partition, &sent, &out);
    }
    Ok(findings)
}

/// Reads what is committed, as any consumer would; a member of no group.
pub struct Reader {
    reader: BaseConsumer,
    /// Only a client that also sees open transactions is told the true end.
    surveyor: BaseConsumer,
}

impl Reader {
    /// # Errors
    /// Internal (70) when the clients cannot be made.
    pub fn new(bootstrap: &str) -> Result<Self, Stop> {
        Ok(Self {
            reader: consumer(bootstrap, "read_committed")?,
            surveyor: consumer(bootstrap, "read_uncommitted")?,
        })
    }

    /// All records of a partition, up to its end at this moment. The position moves over markers and
    /// aborted records too, so that reaching the end, not a count, says that all is read.
    ///
    /// # Errors
    /// Internal (70) when it cannot be read to its end; the sentence names topic and partition.
    pub fn read(&self, topic: &str, partition: i32) -> Result<Vec<Record>, Stop> {
        let failed = |error| {
            Stop::internal(format!(
                "the audit cannot read {topic}, partition {partition}: {error}"
            ))
        };
        let (low, end) = self
            .surveyor
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
        self.reader.assign(&start).map_err(failed)?;
        let mut deadline = Instant::now() + PATIENCE;
        while position(&self.reader)
            .map_err(failed)?
            .is_none_or(|position| position < end)
        {
            match self.reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    deadline = Instant::now() + PATIENCE;
                    if message.offset() < end {
                        records.push(record(&message));
                    }
                }
                Some(Err(error)) if Instant::now() >= deadline => return Err(failed(error)),
                None if Instant::now() >= deadline => {
                    return Err(Stop::internal(format!(
                        "the audit waited {} s for {topic}, partition {partition}, and did not see its \
                         end, offset {end}: a transaction is left open there",
                        PATIENCE.as_secs()
                    )));
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(records)
    }
}

fn consumer(bootstrap: &str, isolation: &str) -> Result<BaseConsumer, Stop> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "truck-audit")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", isolation)
        .create()
        .map_err(|error| Stop::internal(format!("no consumer for the audit: {error}")))
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

fn record(message: &BorrowedMessage<'_>) -> Record {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), owned(header.value)))
            .collect()
    });
    Record {
        offset: message.offset(),
        key: owned(message.key()),
        value: owned(message.payload()),
        headers,
        timestamp_ms: message.timestamp().to_millis(),
    }
}
