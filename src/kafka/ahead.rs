//! Reading ahead: records that a consumer has handed out while nobody could use them yet, kept in their order.
//!
//! They are a longer end of librdkafka's own queue: whatever makes it forget what it has fetched of a partition (a
//! pause, a seek, an assignment or its end) must make [`ReadAhead::forget`] forget the same. Partitions that stay in a
//! rebalance are kept here too: librdkafka goes on behind what it has handed out. Touches its consumer and nothing else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Message};

use crate::broken::{self, Bug};
use crate::kafka::describe;
use crate::source::Partition;

/// Bytes of keys, values and headers that are read ahead at most, and one record; beside what the consumer fetches ahead.
pub const READ_AHEAD_BYTES: usize = 4 << 20;
/// Records that are read ahead at most: of small ones, the client's half a kilobyte for each is most of what they take.
pub const READ_AHEAD_RECORDS: usize = 20_000;

/// A consumer, and what was read of it ahead.
pub struct ReadAhead<C: ConsumerContext> {
    /// Before the consumer: fields are dropped in this order, and these lie in its memory.
    records: VecDeque<Read>,
    bytes: usize,
    consumer: BaseConsumer<C>,
}

impl<C: ConsumerContext> ReadAhead<C> {
    /// Nothing was read yet.
    pub fn new(consumer: BaseConsumer<C>) -> Self {
        Self {
            records: VecDeque::new(),
            bytes: 0,
            consumer,
        }
    }

    pub fn consumer(&self) -> &BaseConsumer<C> {
        &self.consumer
    }

    /// The next record: of those read ahead the oldest, or what the consumer has within `timeout`.
    pub fn poll(&mut self, timeout: Duration) -> Option<KafkaResult<BorrowedMessage<'_>>> {
        match self.records.pop_front() {
            Some(Read { record, bytes }) => {
                self.bytes -= bytes;
                Some(record)
            }
            None => self.consumer.poll(timeout),
        }
    }

    /// Both at once: the consumer, to be asked by one thread, and its reader, for another.
    pub fn split(&mut self) -> (&BaseConsumer<C>, Reader<'_, C>) {
        let Self {
            records,
            bytes,
            consumer,
        } = self;
        let reader = Reader {
            records,
            bytes,
            consumer,
        };
        (consumer, reader)
    }

    /// Forgets what was read ahead of these partitions. O(records + partitions).
    pub fn forget(&mut self, partitions: &[Partition]) {
        if self.records.is_empty() || partitions.is_empty() || broken::has(Bug::ReadAheadKept) {
            return;
        }
        let gone: HashSet<(&str, i32)> = partitions
            .iter()
            .map(|(topic, partition)| (topic.as_str(), *partition))
            .collect();
        let bytes = &mut self.bytes;
        self.records.retain(|read| match &read.record {
            Ok(record) if gone.contains(&(record.topic(), record.partition())) => {
                *bytes -= read.bytes;
                false
            }
            _ => true,
        });
    }

    /// The offset of the first record that was read ahead, for each partition that has one. O(records).
    pub fn first_offsets(&self) -> HashMap<Partition, i64> {
        let mut first = HashMap::new();
        for record in self.records.iter().flat_map(|read| &read.record) {
            let partition = (record.topic().to_owned(), record.partition());
            first.entry(partition).or_insert(record.offset());
        }
        first
    }
}

/// What one poll has brought, and the bytes of it.
struct Read {
    record: KafkaResult<BorrowedMessage<'static>>,
    bytes: usize,
}

/// Reads ahead.
pub struct Reader<'a, C: ConsumerContext> {
    records: &'a mut VecDeque<Read>,
    bytes: &'a mut usize,
    consumer: &'a BaseConsumer<C>,
}

impl<C: ConsumerContext> Reader<'_, C> {
    /// Takes one more record from the consumer, which may take `timeout`. False, and nothing is done, where there are
    /// `most` already, or [`READ_AHEAD_RECORDS`] or [`READ_AHEAD_BYTES`], or an error that has to be seen first.
    pub fn read(&mut self, timeout: Duration, most: usize) -> bool {
        let failed = self.records.back().is_some_and(|last| last.record.is_err());
        let most = most.min(READ_AHEAD_RECORDS);
        if failed || self.records.len() >= most || *self.bytes >= READ_AHEAD_BYTES {
            return false;
        }
        if let Some(record) = self.consumer.poll(timeout) {
            let record = record.map(detached);
            let bytes = record.as_ref().map_or(0, size);
            *self.bytes += bytes;
            self.records.push_back(Read { record, bytes });
        }
        true
    }

    /// How many records have been read and not been used.
    pub fn records(&self) -> usize {
        self.records.len()
    }
}

/// As a bound needs it: key, value and headers, not what the client keeps beside them. O(headers).
fn size(record: &BorrowedMessage<'_>) -> usize {
    let mut headers = 0;
    describe::each_header(record, |name, value| {
        headers += name.to_bytes().len() + value.map_or(0, <[u8]>::len);
    });
    record.key_len() + record.payload_len() + headers
}

/// Without the borrow of its consumer.
#[allow(unsafe_code)]
fn detached(record: BorrowedMessage<'_>) -> BorrowedMessage<'static> {
    // SAFETY: the lifetime stands for the consumer and nothing else. [`ReadAhead`] owns both, gives its records out for
    // no longer than it is borrowed, and drops what is left of them before the consumer.
    unsafe { std::mem::transmute::<BorrowedMessage<'_>, BorrowedMessage<'static>>(record) }
}
