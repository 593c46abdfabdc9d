//! Sink: the transactional producer, and the count of what it still has to deliver.
//!
//! It sends records and knows, for each that was refused or lost, which input record it came from.
//! When a transaction begins and ends is decided in [`crate::commit`].

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::broken::{self, Bug};
use crate::config::Config;
use crate::exit::Stop;
use crate::kafka::bounded::within;
use crate::kafka::clients;
use crate::kafka::context::Logged;
use crate::kafka::describe;
use crate::kafka::produce;
pub use crate::kafka::produce::Outgoing;

/// How long a new producer may take to connect before its first request is made all the same.
const CONNECT: Duration = Duration::from_secs(1);
const CONNECT_LOOK: Duration = Duration::from_millis(5);

/// Which of a scope's topics a record was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Output,
    Duplicates,
    Rejected,
    /// Of a first hop, its only one.
    Repartition,
    Journal,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Output => "output",
            Self::Duplicates => "duplicates",
            Self::Rejected => "rejected",
            Self::Repartition => "repartition",
            Self::Journal => "journal",
        })
    }
}

/// Where a record in flight came from: the scope (its place in the worker's list) and the offset
/// of the input record. For the journal the offset is of no meaning.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub scope: usize,
    pub offset: i64,
    pub target: Target,
}

/// A delivery that failed.
#[derive(Debug)]
pub struct Failure {
    pub origin: Origin,
    pub code: RDKafkaErrorCode,
}

/// What is told of the deliveries of the open transaction.
#[derive(Default)]
struct Notes {
    /// (index of the record in its transaction, why)
    failed: Vec<(usize, RDKafkaErrorCode)>,
    /// (index of the record in its transaction, its offset in the journal)
    journalled: Vec<(usize, i64)>,
    /// Of some record the client does not know whether a broker has written it, or it takes it for written because a later
    /// one was.
    unsure: bool,
}

/// The bit of a record's tag that says it went to the journal; the rest is its index in the
/// transaction. It spares the delivery thread a look-up for every record.
const JOURNAL_TAG: usize = 1 << (usize::BITS - 1);
/// A wait for deliveries, of which there may be several, one after the other.
const STEP: Duration = Duration::from_millis(100);
/// How long a full queue is waited for before the next try.
const QUEUE_FULL: Duration = Duration::from_millis(1);

/// Hears of deliveries: of failures, and of where runs are in the journal. Of all others nothing has to be
/// known but that they are over, which a flush tells.
pub struct SinkContext {
    logged: Logged,
    notes: Mutex<Notes>,
}

impl SinkContext {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Whole after every statement: a panic elsewhere is no reason to stop using it.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for SinkContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.logged.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logged.error(error, reason);
    }
}

impl ProducerContext for SinkContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        match result {
            // No broker has answered for it: the client concludes it from a later batch, which holds for a broker that knew the
            // sequence, and not for one that saw this producer for the first time.
            Ok(record) if record.offset() < 0 => self.notes().unsure = true,
            Ok(record) if tag & JOURNAL_TAG != 0 => {
                let run = (tag & !JOURNAL_TAG, record.offset());
                self.notes().journalled.push(run);
            }
            Ok(_) => {}
            Err((error, record)) => {
                let code = error.rdkafka_error_code();
                let code = code.unwrap_or(RDKafkaErrorCode::Unknown);
                let mut notes = self.notes();
                notes.failed.push((tag & !JOURNAL_TAG, code));
                notes.unsure |= describe::may_be_written(record);
                drop(notes);
                fail::fail_point!("delivery-failed");
            }
        }
    }
}

/// How many topics are kept at hand: output, duplicates, rejected and journal of a few inputs.
const TOPICS: usize = 16;

/// The transactional producer of one worker.
pub struct Sink {
    /// The topics that were sent to last, the last one first. Before the producer: fields are dropped in this order.
    topics: VecDeque<(String, produce::Topic)>,
    /// Shared with the call that is under way, and for good with one that was given up.
    producer: Arc<ThreadedProducer<SinkContext>>,
    transactional_id: String,
    /// The records of the open transaction, by their index in it.
    origins: Vec<Origin>,
}

impl Sink {
    /// Creates the producer; [`Sink::init`] must follow.
    ///
    /// # Errors
    /// A property that librdkafka does not accept: status 64.
    pub fn create(config: &Config, worker: usize) -> Result<Self, Stop> {
        let context = SinkContext {
            logged: Logged::new(),
            notes: Mutex::default(),
        };
        let producer = clients::producer_config(config, worker).create_with_context(context);
        let producer = producer.map_err(|error| {
            Stop::usage(format!(
                "kafka: the producer cannot be created: {}",
                clients::refusal(&error)
            ))
        })?;
        Ok(Self {
            producer: Arc::new(producer),
            transactional_id: clients::transactional_id(config, worker),
            topics: VecDeque::new(),
            origins: Vec::new(),
        })
    }

    /// What the broker knows this producer by.
    pub fn transactional_id(&self) -> &str {
        &self.transactional_id
    }

    /// Takes the transactional id over: what its last user left open is ended first.
    pub fn init(&self, timeout: Duration) -> KafkaResult<()> {
        let begun = Instant::now();
        within(timeout, "init", &self.producer, move |producer| {
            // A client that is not connected yet looks for the coordinator again half a second later; so
            // first any broker answers it, whatever that is. To be woken up for that cannot be relied on.
            let client = producer.client();
            while client.fetch_cluster_id(Duration::ZERO).is_none() && begun.elapsed() < CONNECT {
                std::thread::sleep(CONNECT_LOOK);
            }
            producer.init_transactions(timeout.saturating_sub(begun.elapsed()))
        })
    }

    /// Begins a transaction.
    pub fn begin(&mut self) -> KafkaResult<()> {
        self.origins.clear();
        let mut notes = self.producer.context().notes();
        *notes = Notes::default();
        drop(notes);
        self.producer.begin_transaction()
    }

    /// Hands a record to the producer, in order. While its queue is full, waits for deliveries
    /// until `deadline`.
    pub fn send(
        &mut self,
        mut outgoing: Outgoing<'_>,
        origin: Origin,
        deadline: Instant,
    ) -> KafkaResult<()> {
        let index = self.origins.len();
        let tag = if origin.target == Target::Journal {
            index | JOURNAL_TAG
        } else {
            index
        };
        self.look_up(outgoing.topic)?;
        let (_, topic) = &self.topics[0];
        let (mut looked_again, mut was_empty) = (false, false);
        loop {
            match produce::send(&self.producer, topic, &mut outgoing, tag) {
                Ok(()) => break,
                Err(code) if Instant::now() >= deadline => {
                    return Err(KafkaError::MessageProduction(code));
                }
                Err(RDKafkaErrorCode::QueueFull) if was_empty => {
                    // An empty queue that is full: the record is larger than the queue.
                    let code = RDKafkaErrorCode::MessageSizeTooLarge;
                    return Err(KafkaError::MessageProduction(code));
                }
                Err(RDKafkaErrorCode::QueueFull) => {
                    // The last may have been delivered just now: only the next answer is of an empty queue.
                    was_empty = self.producer.in_flight_count() == 0;
                    if !was_empty {
                        std::thread::sleep(QUEUE_FULL);
                    }
                }
                Err(RDKafkaErrorCode::UnknownPartition) if !looked_again => {
                    // The topic has grown since the producer last looked at it.
                    looked_again = true;
                    self.refresh_metadata(outgoing.topic)?;
                }
                Err(code) => return Err(KafkaError::MessageProduction(code)),
            }
        }
        self.origins.push(origin);
        Ok(())
    }

    /// Sends what waits, and waits until every record is delivered or failed; false when `deadline` passed
    /// first. Afterwards librdkafka has nothing in flight, for which a commit would wait 100 ms. Once one has failed, the
    /// others are not waited for: what was sent behind a record that is refused, the client keeps for an attempt that
    /// does not come.
    pub fn drain(&self, deadline: Instant) -> bool {
        loop {
            let has_failed = !self.producer.context().notes().failed.is_empty();
            let left = deadline.saturating_duration_since(Instant::now());
            if produce::flush(&self.producer, left.min(STEP)) {
                return true;
            }
            if has_failed || left <= STEP {
                return false;
            }
        }
    }

    /// Why the client is of no use any more, if it is not.
    pub fn fatal_error(&self) -> Option<RDKafkaErrorCode> {
        self.producer.client().fatal_error().map(|(code, _)| code)
    }

    /// Whether the client does not know of some record of this transaction if it was written.
    pub fn is_unsure(&self) -> bool {
        self.producer.context().notes().unsure
    }

    /// The deliveries of this transaction that failed so far.
    pub fn failures(&self) -> Vec<Failure> {
        let notes = self.producer.context().notes();
        notes
            .failed
            .iter()
            .filter_map(|&(index, code)| {
                self.origins
                    .get(index)
                    .map(|&origin| Failure { origin, code })
            })
            .collect()
    }

    /// For each run of this transaction: its scope, and its offset in the journal.
    pub fn journalled(&self) -> Vec<(usize, i64)> {
        let notes = self.producer.context().notes();
        notes
            .journalled
            .iter()
            .filter_map(|&(index, offset)| self.origins.get(index).map(|o| (o.scope, offset)))
            .collect()
    }

    /// Adds the input offsets to the transaction.
    pub fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        membership: &Arc<ConsumerGroupMetadata>,
        timeout: Duration,
    ) -> KafkaResult<()> {
        let (offsets, membership) = (offsets.clone(), Arc::clone(membership));
        within(timeout, "offsets", &self.producer, move |producer| {
            fail::fail_point!("offsets-hang");
            producer.send_offsets_to_transaction(&offsets, &membership, timeout)
        })
    }

    /// Commits. Nothing may be in flight.
    pub fn commit(&self, timeout: Duration) -> KafkaResult<()> {
        within(timeout, "commit", &self.producer, move |producer| {
            fail::fail_point!("commit-hang");
            producer.commit_transaction(timeout)
        })
    }

    /// Aborts. What is in flight is ended by librdkafka; never purge before (the next transaction
    /// would fail out of sequence).
    pub fn abort(&self, timeout: Duration) -> KafkaResult<()> {
        if broken::has(Bug::PurgeBeforeAbort) {
            self.producer
                .purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
        }
        let deadline = Instant::now() + timeout;
        within(timeout, "abort", &self.producer, move |producer| {
            fail::fail_point!("abort-hang");
            // It purges once, when it is called, and waits for the rest: what is handed back to the queue meanwhile only the
            // next call purges. Each goes on where the one before it was.
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let outcome = producer.abort_transaction(left.min(STEP));
                let code = outcome
                    .as_ref()
                    .err()
                    .and_then(KafkaError::rdkafka_error_code);
                if code != Some(RDKafkaErrorCode::OperationTimedOut) || left <= STEP {
                    return outcome;
                }
            }
        })
    }

    /// Has this topic be the first of those that were sent to last. O(1) where it was sent to just now.
    fn look_up(&mut self, name: &str) -> KafkaResult<()> {
        let known = self.topics.iter().position(|(known, _)| known == name);
        match known {
            Some(place) => self.topics.swap(0, place),
            None => {
                let topic = produce::Topic::new(&self.producer, &CString::new(name)?);
                let topic = topic.map_err(KafkaError::MessageProduction)?;
                self.topics.truncate(TOPICS - 1);
                self.topics.push_front((name.to_owned(), topic));
            }
        }
        Ok(())
    }

    /// Makes the producer look at a topic again, when its partitions may have grown.
    fn refresh_metadata(&self, topic: &str) -> KafkaResult<()> {
        self.producer
            .client()
            .fetch_metadata(Some(topic), Duration::from_secs(5))
            .map(drop)
    }

    /// The last error that librdkafka reported of this producer, for sentences.
    pub fn last_error(&self) -> Option<String> {
        self.producer.context().logged.last_error()
    }
}
