//! The partitions that are read together, each pulled record by record in the order that the audit
//! chooses: one consumer, assigned by hand, with a queue of its own for every partition. No group is
//! joined and nothing is committed.
//!
//! Offsets have gaps (markers, aborted records, compaction), so a partition has ended when the
//! consumer's position has reached the end of its range.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::progress::Progress;
use crate::config::Config;
use crate::demo::interrupt::Interrupt;
use crate::exit::Stop;
use crate::kafka::clients::scanner_config;
use crate::kafka::context::Logged;
use crate::topics::admin::{is_absent, is_forbidden};

/// A cluster that brings nothing for so long, beyond the time that a transaction may stay open, will
/// not.
const PATIENCE: Duration = Duration::from_secs(30);
const WAIT: Duration = Duration::from_millis(10);
/// Records between two looks at the consumer's own events.
const SERVE_EVERY: u64 = 1024;
/// Fetched records that wait, in KiB: of all partitions together, and of one.
const QUEUES_KBYTES: usize = 65_536;
const QUEUE_KBYTES: std::ops::RangeInclusive<usize> = 256..=8192;

/// What is read of one partition: `[start, end)`.
#[derive(Debug, Clone)]
pub struct Part {
    pub topic: String,
    pub partition: i32,
    pub start: i64,
    pub end: i64,
}

impl Part {
    pub fn offsets(&self) -> u64 {
        self.end.saturating_sub(self.start).max(0).unsigned_abs()
    }
}

struct Feed {
    part: Part,
    queue: Option<PartitionQueue<Logged>>,
    next: i64,
}

/// All partitions of one audit.
pub struct Feeds {
    consumer: Arc<BaseConsumer<Logged>>,
    feeds: Vec<Feed>,
    interrupt: Interrupt,
    patience: Duration,
    pulled: u64,
}

impl Feeds {
    /// Begins to read all parts.
    ///
    /// # Errors
    /// 64 for properties that librdkafka refuses, 70 where it does not assign.
    pub fn open(config: &Config, parts: Vec<Part>, interrupt: &Interrupt) -> Result<Self, Stop> {
        let read: Vec<&Part> = parts.iter().filter(|part| part.offsets() > 0).collect();
        let each = QUEUES_KBYTES / read.len().max(1);
        let each = each.clamp(*QUEUE_KBYTES.start(), *QUEUE_KBYTES.end());
        let mut client = scanner_config(config);
        client.set("queued.max.messages.kbytes", each.to_string());
        // What is deleted while it is read must not be passed over in silence.
        client.set("auto.offset.reset", "error");
        let consumer: BaseConsumer<Logged> =
            client.create_with_context(Logged::new()).map_err(|error| {
                Stop::usage(format!(
                    "librdkafka refuses the client configuration: {error}. Correct the properties"
                ))
            })?;
        let consumer = Arc::new(consumer);
        let failed = |error: KafkaError| {
            Stop::internal(format!(
                "the topics cannot be assigned for reading: {error}"
            ))
        };
        let mut list = TopicPartitionList::with_capacity(read.len());
        for part in &read {
            let start = Offset::Offset(part.start);
            list.add_partition_offset(&part.topic, part.partition, start)
                .map_err(failed)?;
        }
        consumer.assign(&list).map_err(failed)?;
        let feeds = parts
            .into_iter()
            .map(|part| Feed {
                queue: match part.offsets() {
                    0 => None,
                    _ => consumer.split_partition_queue(&part.topic, part.partition),
                },
                next: part.start,
                part,
            })
            .collect();
        Ok(Self {
            consumer,
            feeds,
            interrupt: interrupt.clone(),
            patience: config.transaction.timeout + PATIENCE,
            pulled: 0,
        })
    }

    /// The offset up to which a partition was read.
    pub fn next(&self, feed: usize) -> i64 {
        self.feeds[feed].next
    }

    pub fn has_ended(&self, feed: usize) -> bool {
        let feed = &self.feeds[feed];
        feed.queue.is_none() || feed.next >= feed.part.end
    }

    /// The next record of a partition, waited for; `None` at the end of its range.
    ///
    /// # Errors
    /// 69 where nothing comes, 75 where records were deleted while they were read, 78 where they may
    /// not be read, 130 where somebody asked to end.
    pub fn pull(
        &mut self,
        feed: usize,
        progress: &mut Progress,
    ) -> Result<Option<BorrowedMessage<'_>>, Stop> {
        if self.has_ended(feed) {
            return Ok(None);
        }
        self.pulled += 1;
        if self.pulled.is_multiple_of(SERVE_EVERY) {
            self.serve()?;
        }
        let Self {
            consumer,
            feeds,
            interrupt,
            patience,
            ..
        } = self;
        let Feed { part, queue, next } = &mut feeds[feed];
        let Some(queue) = queue else { return Ok(None) };
        let mut moved = Instant::now();
        let mut last_error = None;
        loop {
            match queue.poll(WAIT) {
                Some(Ok(message)) if message.offset() < *next => {}
                Some(Ok(message)) => {
                    let offset = message.offset();
                    progress.add((offset + 1).min(part.end) - *next);
                    *next = offset + 1;
                    return Ok((offset < part.end).then_some(message));
                }
                Some(Err(error)) => {
                    if let Some(stop) = hopeless(part, &error) {
                        return Err(stop);
                    }
                    last_error = Some(error.to_string());
                }
                None => {}
            }
            check(interrupt)?;
            if let Some(Err(error)) = consumer.poll(Duration::ZERO) {
                if let Some(stop) = hopeless(part, &error) {
                    return Err(stop);
                }
                last_error = Some(error.to_string());
            }
            if let Some(position) = position(consumer, part).filter(|position| position > next) {
                progress.add(position.min(part.end) - *next);
                *next = position;
                moved = Instant::now();
            }
            if *next >= part.end {
                return Ok(None);
            }
            if moved.elapsed() >= *patience {
                let said = consumer.context().last_error().or(last_error);
                return Err(stuck(part, *next, *patience, said));
            }
        }
    }

    fn serve(&self) -> Result<(), Stop> {
        check(&self.interrupt)?;
        if let Some(Err(error)) = self.consumer.poll(Duration::ZERO)
            && let Some(feed) = self.feeds.iter().find(|feed| feed.next < feed.part.end)
            && let Some(stop) = hopeless(&feed.part, &error)
        {
            return Err(stop);
        }
        Ok(())
    }
}

fn check(interrupt: &Interrupt) -> Result<(), Stop> {
    match interrupt.is_asked() {
        true => Err(Stop::interrupted(
            "the audit was stopped before its end, as asked: nothing is proved",
        )),
        false => Ok(()),
    }
}

/// It moves over markers and aborted records, which no record tells of.
fn position(consumer: &BaseConsumer<Logged>, part: &Part) -> Option<i64> {
    let positions = consumer.position().ok()?;
    match positions
        .find_partition(&part.topic, part.partition)?
        .offset()
    {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// Where asking again cannot help.
fn hopeless(part: &Part, error: &KafkaError) -> Option<Stop> {
    let code = error.rdkafka_error_code()?;
    let Part {
        topic, partition, ..
    } = part;
    if is_forbidden(code) {
        return Some(Stop::contradiction(format!(
            "the records of {topic} may not be read: {error}. Grant Read and Describe on the topic to \
             this user"
        )));
    }
    if is_absent(code) {
        return Some(Stop::contradiction(format!(
            "the records of {topic}-{partition} are gone: {error}. Was the topic deleted meanwhile?"
        )));
    }
    matches!(
        code,
        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange
    )
    .then(|| {
        Stop::restart(format!(
            "records were deleted while they were read (retention; {topic}-{partition} or one read \
             beside it): run verify again, with --from if its beginning goes away faster than it is read"
        ))
    })
}

fn stuck(part: &Part, next: i64, patience: Duration, said: Option<String>) -> Stop {
    let said = said.map_or_else(String::new, |said| format!("; last error: {said}"));
    Stop::unreachable(format!(
        "Kafka brought nothing of {}-{} at offset {next} (of {}) for {} s{said}. Is a transaction left \
         open there, are all brokers up, and does the partition have a leader?",
        part.topic,
        part.partition,
        part.end,
        patience.as_secs()
    ))
}
