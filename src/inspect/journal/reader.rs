//! Records of one journal partition at a time, read_committed, by a consumer that is assigned by hand
//! and never commits.

use std::collections::HashSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Config;
use crate::exit::Stop;
use crate::inspect::Asked;
use crate::kafka;
use crate::kafka::clients;
use crate::kafka::context::Logged;

const WAIT: Duration = Duration::from_millis(50);
/// How long a broker may be silent beyond the time that a transaction may stay open.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest silence of a broker that is well, where one partition is as good as another.
const HASTE: Duration = Duration::from_secs(2);

/// A committed record.
pub struct Record<'a> {
    pub offset: i64,
    /// When the broker wrote it, in ms.
    pub written: Option<i64>,
    pub value: &'a [u8],
}

/// How a reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Reached,
    /// Whoever reads has what it wanted.
    Enough,
    /// An open transaction is in the way at this offset.
    Open(i64),
    /// The journal was trimmed beyond where the reading began.
    Trimmed,
}

pub struct Reader<'a> {
    asked: &'a Asked,
    consumer: BaseConsumer<Logged>,
    logged: Logged,
    /// A consumer that goes back in a partition may still remember a later position: partitions
    /// that this one has read already are read by a new one.
    read: HashSet<(String, i32)>,
    /// How long an open transaction is waited for.
    patience: Duration,
}

impl<'a> Reader<'a> {
    /// # Errors
    /// 64 for properties that librdkafka refuses.
    pub fn new(asked: &'a Asked) -> Result<Self, Stop> {
        let logged = Logged::new();
        Ok(Self {
            asked,
            consumer: consumer(&asked.config, &logged)?,
            logged,
            read: HashSet::new(),
            patience: asked.config.transaction.timeout + PATIENCE,
        })
    }

    /// The same, which does not wait for an open transaction to end.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn hasty(asked: &'a Asked) -> Result<Self, Stop> {
        Ok(Self {
            patience: HASTE,
            ..Self::new(asked)?
        })
    }

    /// Hands over the committed records at these offsets, in order, until `each` says no.
    ///
    /// # Errors
    /// 69 where Kafka stops answering, 130 where the reading was stopped.
    pub fn read(
        &mut self,
        journal: &str,
        partition: i32,
        offsets: Range<i64>,
        mut each: impl FnMut(Record<'_>) -> bool,
    ) -> Result<End, Stop> {
        if offsets.is_empty() {
            return Ok(End::Reached);
        }
        if !self.read.insert((journal.to_owned(), partition)) {
            self.consumer = consumer(&self.asked.config, &self.logged)?;
            self.read.clear();
            self.read.insert((journal.to_owned(), partition));
        }
        self.assign(journal, partition, offsets.start)
            .map_err(|error| self.lost(journal, partition, &error.to_string()))?;
        let mut at = offsets.start;
        let mut moved = Instant::now();
        while at < offsets.end {
            self.asked.go_on()?;
            let before = at;
            match self.consumer.poll(WAIT) {
                Some(Ok(message)) if message.offset() < offsets.end => {
                    let record = Record {
                        offset: message.offset(),
                        written: message.timestamp().to_millis(),
                        value: message.payload().unwrap_or_default(),
                    };
                    at = record.offset + 1;
                    if !each(record) {
                        return Ok(End::Enough);
                    }
                }
                Some(Ok(_)) => break,
                Some(Err(error)) if is_out_of_range(&error) => return Ok(End::Trimmed),
                Some(Err(error)) if is_forbidden(&error) => {
                    return Err(Stop::contradiction(format!(
                        "the journal {journal} may not be read: {error}. Grant Read on topic {journal} and on the group"
                    )));
                }
                // librdkafka goes on by itself.
                Some(Err(_)) => {}
                None => at = self.position(journal, partition).unwrap_or(at).max(at),
            }
            if at > before {
                moved = Instant::now();
            } else if moved.elapsed() > self.patience {
                return self.stuck(journal, partition, at);
            }
        }
        Ok(End::Reached)
    }

    fn assign(&self, journal: &str, partition: i32, from: i64) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(journal, partition, Offset::Offset(from))?;
        self.consumer.assign(&list)
    }

    /// It moves over markers and aborted runs, which no record tells of.
    fn position(&self, journal: &str, partition: i32) -> Option<i64> {
        let positions = self.consumer.position().ok()?;
        match positions.find_partition(journal, partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// Nothing came for a long time: an open transaction is in the way, or Kafka is.
    fn stuck(&self, journal: &str, partition: i32, at: i64) -> Result<End, Stop> {
        match kafka::watermarks(&self.consumer, journal, partition, PATIENCE) {
            Ok(_) => Ok(End::Open(at)),
            Err(error) => Err(self.lost(journal, partition, &error.to_string())),
        }
    }

    fn lost(&self, journal: &str, partition: i32, error: &str) -> Stop {
        let last = self.logged.last_error();
        let last = last.map_or_else(String::new, |last| format!(" (last error: {last})"));
        Stop::unreachable(format!(
            "the journal {journal}-{partition} cannot be read: {error}{last}"
        ))
    }
}

fn consumer(config: &Config, logged: &Logged) -> Result<BaseConsumer<Logged>, Stop> {
    clients::journal_reader_config(config)
        .create_with_context(logged.clone())
        .map_err(|error| {
            Stop::usage(format!(
                "kafka: the journal's reader cannot be created: {}",
                clients::refusal(&error)
            ))
        })
}

fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}

fn is_forbidden(error: &KafkaError) -> bool {
    error
        .rdkafka_error_code()
        .is_some_and(crate::topics::admin::is_forbidden)
}
