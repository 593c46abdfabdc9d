//! The topic as a [`Log`]: one plain consumer a read, assigned by hand; no group is joined and
//! nothing is committed.
//!
//! Offsets have gaps (markers, aborted records, compaction), so that a partition is read when the
//! consumer's position has reached the end of its range, not when some count of records has come.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::arguments::Order;
use super::log::{Ended, Log, Purpose, Sighting};
use super::progress::Progress;
use super::ranges::{Range, hopeless, refused};
use crate::config::Config;
use crate::demo::interrupt::Interrupt;
use crate::exit::Stop;
use crate::identify::{Identifier, deployment_seed};
use crate::kafka::clients::scanner_config;
use crate::kafka::context::Logged;
use crate::schemas::Schemas;

/// A cluster that brings nothing for so long will not.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Between two looks at positions that no record has moved.
const LOOK: Duration = Duration::from_millis(500);
/// Records between two updates of the progress.
const UPDATE_EVERY: u64 = 4096;
/// For the ids of a few positions, all together.
const NAMING: Duration = Duration::from_secs(10);

/// The ranges of one topic.
pub struct Topic {
    config: Config,
    name: String,
    ranges: Vec<Range>,
    identifier: Identifier,
    schemas: Schemas,
    /// A record further ahead of the clock than the configuration lets it counts as the clock of
    /// when the scan began.
    wall_ms: i64,
    /// What is left of `--max-records`; the first read that uses it up cuts the ranges.
    max_records: u64,
    /// The ranges end where `--max-records` ended them.
    cut: bool,
    interrupt: Interrupt,
    progress: Progress,
}

impl Topic {
    /// # Errors
    /// Usage (64): a schema registry that cannot be asked.
    pub fn new(
        order: &Order,
        ranges: Vec<Range>,
        wall_ms: i64,
        interrupt: Interrupt,
    ) -> Result<Self, Stop> {
        let config = order.config.clone();
        let seed = deployment_seed(&config.kafka.group_id);
        let schemas = Schemas::start(&config, None)?;
        Ok(Self {
            identifier: Identifier::new(&config.id.from, seed, &schemas),
            schemas,
            config,
            name: order.topic.clone(),
            ranges,
            wall_ms,
            max_records: order.max_records,
            cut: false,
            interrupt,
            progress: Progress::new(),
        })
    }

    /// The ranges as they are read.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    pub fn was_cut(&self) -> bool {
        self.cut
    }

    /// The ids at some positions, given as index of the partition and offset; `None` where they
    /// could not be read any more. Takes at most [`NAMING`].
    pub fn ids(&mut self, positions: &[(usize, i64)]) -> Vec<Option<Vec<u8>>> {
        let deadline = Instant::now() + NAMING;
        let Ok(consumer) = self.consumer() else {
            return vec![None; positions.len()];
        };
        positions
            .iter()
            .map(|(index, offset)| {
                let partition = self.ranges.get(*index)?.partition;
                let start = [(partition, *offset)];
                consumer
                    .assign(&assignment(&self.name, &start).ok()?)
                    .ok()?;
                while Instant::now() < deadline && !self.interrupt.is_asked() {
                    match consumer.poll(POLL) {
                        Some(Ok(message))
                            if message.partition() == partition && message.offset() >= *offset =>
                        {
                            let found = message.offset() == *offset;
                            let id = self.identifier.id(&message).ok().map(<[u8]>::to_vec);
                            return id.filter(|_| found);
                        }
                        _ => {}
                    }
                }
                None
            })
            .collect()
    }

    fn consumer(&self) -> Result<BaseConsumer<Logged>, Stop> {
        scanner_config(&self.config)
            .create_with_context(Logged::new())
            .map_err(|error| refused(&error))
    }

    fn sighting(
        &mut self,
        partition: usize,
        message: &BorrowedMessage<'_>,
    ) -> Result<Sighting, Stop> {
        let interrupt = &self.interrupt;
        let go_on = || !interrupt.is_asked();
        let identity = self
            .identifier
            .identify_in_time(message, &self.schemas, go_on)?;
        let max_ahead_ms = self.config.window.max_ahead_ms;
        let latest_ms = self.wall_ms.saturating_add(max_ahead_ms);
        let time_ms = message.timestamp().to_millis();
        let wall_ms = self.wall_ms;
        Ok(Sighting {
            partition,
            offset: message.offset(),
            time_ms: time_ms.map(|time_ms| {
                if time_ms > latest_ms {
                    wall_ms
                } else {
                    time_ms
                }
            }),
            identity,
        })
    }

    fn failed(&self, error: &KafkaError) -> Stop {
        Stop::internal(format!("the scan of {} cannot go on: {error}", self.name))
    }
}

impl Log for Topic {
    fn partitions(&self) -> usize {
        self.ranges.len()
    }

    fn records_at_most(&self) -> u64 {
        let offsets = self.ranges.iter().map(Range::offsets).sum::<u64>();
        offsets.min(self.max_records)
    }

    fn read(
        &mut self,
        purpose: Purpose,
        see: &mut dyn FnMut(&Sighting) -> ControlFlow<()>,
    ) -> Result<Ended, Stop> {
        self.progress
            .begin(purpose, self.ranges.iter().map(Range::offsets).sum());
        let mut read = Read::new(&self.ranges);
        let ended = self.read_ranges(&mut read, see);
        self.progress.end();
        if self.cut && read.cuts {
            // Whatever comes later sees the same records.
            for (range, next) in self.ranges.iter_mut().zip(&read.next) {
                range.end = (*next).min(range.end);
            }
        }
        ended
    }
}

/// How far one read is.
struct Read {
    /// Partition number → index.
    indices: HashMap<i32, usize>,
    /// By index: the next offset, and where the range ends.
    next: Vec<i64>,
    ends: Vec<i64>,
    unfinished: usize,
    offsets: u64,
    records: u64,
    /// It is this read that `--max-records` ended.
    cuts: bool,
}

impl Read {
    fn new(ranges: &[Range]) -> Self {
        let indices = ranges.iter().enumerate();
        Self {
            indices: indices
                .map(|(index, range)| (range.partition, index))
                .collect(),
            next: ranges.iter().map(|range| range.start).collect(),
            ends: ranges.iter().map(|range| range.end).collect(),
            unfinished: ranges.iter().filter(|range| range.offsets() > 0).count(),
            offsets: 0,
            records: 0,
            cuts: false,
        }
    }

    fn is_finished(&self, index: usize) -> bool {
        self.next[index] >= self.ends[index]
    }

    /// Everything before `next` is behind; whether the partition is finished by that.
    fn advance(&mut self, index: usize, next: i64) -> bool {
        let (before, next) = (self.next[index], next.min(self.ends[index]));
        if next <= before {
            return false;
        }
        self.next[index] = next;
        self.offsets += next.abs_diff(before);
        let finished = self.is_finished(index);
        self.unfinished -= usize::from(finished);
        finished
    }
}

impl Topic {
    fn read_ranges(
        &mut self,
        read: &mut Read,
        see: &mut dyn FnMut(&Sighting) -> ControlFlow<()>,
    ) -> Result<Ended, Stop> {
        if read.unfinished == 0 {
            return Ok(Ended::AtTheEnd);
        }
        // A new one for each read: a used one remembers positions.
        let consumer = self.consumer()?;
        let ranges = self.ranges.iter().filter(|range| range.offsets() > 0);
        let starts: Vec<(i32, i64)> = ranges.map(|range| (range.partition, range.start)).collect();
        assignment(&self.name, &starts)
            .and_then(|list| consumer.assign(&list))
            .map_err(|error| self.failed(&error))?;
        let mut moved = Instant::now();
        let mut looked = Instant::now();
        let mut last_error = None;
        while read.unfinished > 0 {
            if self.interrupt.is_asked() {
                return Ok(Ended::Interrupted);
            }
            let polled = consumer.poll(POLL);
            match &polled {
                Some(Ok(message)) => {
                    let Some(&index) = read.indices.get(&message.partition()) else {
                        continue;
                    };
                    if read.is_finished(index) || message.offset() < read.next[index] {
                        continue;
                    }
                    moved = Instant::now();
                    let inside = message.offset() < read.ends[index];
                    if inside {
                        let sighting = match self.sighting(index, message) {
                            Err(_) if self.interrupt.is_asked() => return Ok(Ended::Interrupted),
                            sighting => sighting?,
                        };
                        read.records += 1;
                        if see(&sighting).is_break() {
                            return Ok(Ended::Enough);
                        }
                    }
                    if read.advance(index, message.offset() + 1) {
                        self.pause(&consumer, index)?;
                    }
                    if read.records.is_multiple_of(UPDATE_EVERY) {
                        self.progress.update(read.offsets, read.records);
                    }
                    if inside
                        && !self.cut
                        && read.records >= self.max_records
                        && read.unfinished > 0
                    {
                        (self.cut, read.cuts) = (true, true);
                        return Ok(Ended::AtTheEnd);
                    }
                }
                Some(Err(error)) => {
                    if let Some(stop) = hopeless(&format!("the records of {}", self.name), error) {
                        return Err(stop);
                    }
                    last_error = Some(error.clone());
                }
                None => {}
            }
            let idle = !matches!(polled, Some(Ok(_)));
            drop(polled);
            if idle || looked.elapsed() >= LOOK {
                looked = Instant::now();
                if self.look(&consumer, read)? {
                    moved = Instant::now();
                }
                self.progress.update(read.offsets, read.records);
            }
            if moved.elapsed() >= PATIENCE {
                return Err(self.stuck(&consumer, read, last_error));
            }
        }
        Ok(Ended::AtTheEnd)
    }

    /// Takes note of positions that moved without a record; whether any did.
    fn look(&self, consumer: &BaseConsumer<Logged>, read: &mut Read) -> Result<bool, Stop> {
        let positions = consumer.position().map_err(|error| self.failed(&error))?;
        let mut moved = false;
        for element in positions.elements() {
            let (Some(&index), Offset::Offset(position)) =
                (read.indices.get(&element.partition()), element.offset())
            else {
                continue;
            };
            let before = read.next[index];
            if read.advance(index, position) {
                self.pause(consumer, index)?;
            }
            moved |= read.next[index] > before;
        }
        Ok(moved)
    }

    /// What is beyond the end is not wanted.
    fn pause(&self, consumer: &BaseConsumer<Logged>, index: usize) -> Result<(), Stop> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.name, self.ranges[index].partition);
        consumer.pause(&list).map_err(|error| self.failed(&error))
    }

    fn stuck(
        &self,
        consumer: &BaseConsumer<Logged>,
        read: &Read,
        last_error: Option<KafkaError>,
    ) -> Stop {
        let index = (0..read.next.len()).find(|index| !read.is_finished(*index));
        let place = index.map_or(String::new(), |index| {
            format!(
                ", partition {}, offset {}",
                self.ranges[index].partition, read.next[index]
            )
        });
        let said = consumer.context().last_error();
        let said = said.or(last_error.map(|error| error.to_string()));
        let said = said.map_or(String::new(), |said| format!("; last error: {said}"));
        Stop::unreachable(format!(
            "Kafka brought nothing of {}{place} for {} s{said}. Are all brokers up, and does each \
             partition have a leader?",
            self.name,
            PATIENCE.as_secs()
        ))
    }
}

fn assignment(topic: &str, starts: &[(i32, i64)]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(starts.len());
    for (partition, offset) in starts {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}
