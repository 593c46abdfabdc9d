//! Which offsets of which partitions are read: fixed once, before the first read, so that all reads
//! see the same records.
//!
//! Asks the cluster, changes nothing.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use super::arguments::Order;
use crate::exit::Stop;
use crate::kafka;
use crate::kafka::clients::{self, scanner_config};
use crate::kafka::context::Logged;
use crate::topics::admin::{TIMEOUT, is_absent, is_forbidden};
use crate::topics::{Admin, PrepareError};

/// A leader that moves is back after that.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// Offsets of one partition: `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub partition: i32,
    pub start: i64,
    /// The last stable offset when the scan began: nothing below it can still change, so no read
    /// has to wait for a transaction.
    pub end: i64,
    /// Offsets from there to the true high watermark, behind a transaction that was open; 0 or more.
    pub open: i64,
}

impl Range {
    /// No partition has more records than that.
    pub fn offsets(&self) -> u64 {
        self.end.saturating_sub(self.start).max(0).unsigned_abs()
    }
}

/// The ranges of the topic's partitions, by number.
///
/// # Errors
/// 69 where Kafka does not answer, 78 where topic or partition do not exist or may not be read.
pub fn survey(order: &Order) -> Result<Vec<Range>, Stop> {
    let servers = &order.config.kafka.bootstrap_servers;
    let topic = &order.topic;
    let admin = Admin::new(&order.config)?;
    let described = admin.describe(&[topic]).map_err(|error| match error {
        PrepareError::Stop(stop) => stop,
        PrepareError::Retry(why) => Stop::unreachable(format!(
            "Kafka cannot be reached at {servers}: {why}. Check the bootstrap servers, the network, \
             and the properties security.protocol and sasl.*"
        )),
    })?;
    let Some(described) = described.into_iter().next().flatten() else {
        return Err(Stop::contradiction(format!(
            "there is no topic {topic} at {servers}: check its name, and that this user may Describe it"
        )));
    };
    let all = 0..described.partitions;
    let numbers: Vec<i32> = match &order.partitions {
        None => all.collect(),
        Some(wanted) => {
            if let Some(absent) = wanted.iter().find(|number| !all.contains(number)) {
                return Err(Stop::contradiction(format!(
                    "topic {topic} has no partition {absent}: its partitions are 0 to {}",
                    described.partitions - 1
                )));
            }
            wanted.iter().copied().collect()
        }
    };
    // Told the last stable offset, where the admin's observer is told the true high watermark.
    let stable: BaseConsumer<Logged> = scanner_config(&order.config)
        .create_with_context(Logged::new())
        .map_err(|error| refused(&error))?;
    let mut ranges = Vec::with_capacity(numbers.len());
    for partition in numbers {
        // In this order: where nothing is open, what was high before is stable after, however fast
        // the topic grows.
        let (_, high) = watermarks(admin.observer(), topic, partition)?;
        let (start, end) = watermarks(&stable, topic, partition)?;
        ranges.push(Range {
            partition,
            start,
            end,
            open: high.saturating_sub(end).max(0),
        });
    }
    if let Some(from_ms) = order.from_ms {
        begin_at(&stable, topic, from_ms, &mut ranges)?;
    }
    Ok(ranges)
}

/// A property that librdkafka does not accept.
pub fn refused(error: &KafkaError) -> Stop {
    Stop::usage(format!(
        "librdkafka refuses the client configuration: {}. Correct the properties",
        clients::refusal(error)
    ))
}

fn watermarks(
    client: &BaseConsumer<Logged>,
    topic: &str,
    partition: i32,
) -> Result<(i64, i64), Stop> {
    let what = format!("the offsets of {topic}, partition {partition}");
    patiently(&what, || {
        kafka::watermarks(client, topic, partition, TIMEOUT)
    })
}

/// Moves every start to the first record that is not older, or to the end where there is none.
fn begin_at(
    client: &BaseConsumer<Logged>,
    topic: &str,
    from_ms: i64,
    ranges: &mut [Range],
) -> Result<(), Stop> {
    let what = format!("the offsets of {topic} by time");
    let found = patiently(&what, || {
        let mut asked = TopicPartitionList::with_capacity(ranges.len());
        for range in ranges.iter() {
            asked.add_partition_offset(topic, range.partition, Offset::Offset(from_ms))?;
        }
        let found = client.offsets_for_times(asked, TIMEOUT)?;
        for element in found.elements() {
            element.error()?;
        }
        Ok(found)
    })?;
    for range in ranges {
        let start = found
            .find_partition(topic, range.partition)
            .and_then(|element| element.offset().to_raw())
            .filter(|offset| *offset >= 0)
            .unwrap_or(range.end);
        range.start = range.start.max(start).min(range.end);
    }
    Ok(())
}

/// Asks until there is an answer: a leader may just move.
fn patiently<T>(what: &str, ask: impl Fn() -> KafkaResult<T>) -> Result<T, Stop> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                if let Some(stop) = hopeless(what, &error) {
                    return Err(stop);
                }
                if Instant::now() >= until {
                    return Err(Stop::unreachable(format!(
                        "{what} could not be asked for: {error}. Are all brokers up, and does each \
                         partition have a leader?"
                    )));
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Where asking again cannot help: a person must act.
pub fn hopeless(what: &str, error: &KafkaError) -> Option<Stop> {
    let code = error.rdkafka_error_code()?;
    if is_forbidden(code) {
        return Some(Stop::contradiction(format!(
            "{what} may not be read: {error}. Grant Read and Describe on the topic to this user"
        )));
    }
    is_absent(code).then(|| {
        Stop::contradiction(format!(
            "{what} are gone: {error}. Was the topic deleted meanwhile?"
        ))
    })
}
