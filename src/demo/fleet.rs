//! The trucks on the road: sends [`Reports`] at an even pace, from a thread and a producer of its own.
//!
//! Touches the input topic only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::reports::{Cause, Plan, Report, Reports};
use crate::exit::Stop;

/// What has been sent so far, and whether to go on; shared with the sending thread.
#[derive(Debug, Default)]
struct Tally {
    reported: AtomicU64,
    resent: AtomicU64,
    reread: AtomicU64,
    /// Delivery reports that were errors.
    refused: AtomicU64,
    end: AtomicBool,
}

/// How many records were sent, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub reported: u64,
    pub resent: u64,
    pub reread: u64,
}

impl Sent {
    /// All records.
    pub fn total(&self) -> u64 {
        self.reported + self.resent + self.reread
    }
}

/// The sending thread. Dropped: it stops sending and ends.
#[derive(Debug)]
pub struct Fleet {
    tally: Arc<Tally>,
    thread: Option<JoinHandle<Result<(), Stop>>>,
}

impl Fleet {
    /// Starts sending to `topic`.
    ///
    /// # Errors
    /// Internal (70) when the producer or the thread cannot be made.
    pub fn start(bootstrap: &str, topic: &str, plan: Plan) -> Result<Self, Stop> {
        let tally = Arc::new(Tally::default());
        let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("client.id", "truck-fleet")
            .set("enable.idempotence", "false")
            .set("acks", "1")
            .set("linger.ms", "5")
            .set("partitioner", "murmur2_random")
            .create_with_context(Deliveries(Arc::clone(&tally)))
            .map_err(|error| Stop::internal(format!("no producer for the trucks: {error}")))?;
        let (shared, topic) = (Arc::clone(&tally), topic.to_owned());
        let thread = thread::Builder::new()
            .name("fleet".into())
            .spawn(move || drive(&producer, &topic, plan, &shared))
            .map_err(|error| Stop::internal(format!("no thread for the trucks: {error}")))?;
        Ok(Self {
            tally,
            thread: Some(thread),
        })
    }

    /// What has been handed to the producer so far.
    pub fn sent(&self) -> Sent {
        Sent {
            reported: self.tally.reported.load(Relaxed),
            resent: self.tally.resent.load(Relaxed),
            reread: self.tally.reread.load(Relaxed),
        }
    }

    /// Whether the thread has ended: all is sent and acknowledged, or it failed.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end of the sending.
    ///
    /// # Errors
    /// Internal (70) when the broker refused records.
    pub fn finish(mut self) -> Result<Sent, Stop> {
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .map_err(|_| Stop::internal("the trucks' thread panicked"))??;
        }
        Ok(self.sent())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tally.end.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whatever it says, somebody is already leaving with a reason of their own.
            let _ = thread.join();
        }
    }
}

/// Counts what the broker refused.
struct Deliveries(Arc<Tally>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.refused.fetch_add(1, Relaxed);
        }
    }
}

/// Sends all reports at an even pace; ends early when told to.
fn drive(
    producer: &ThreadedProducer<Deliveries>,
    topic: &str,
    plan: Plan,
    tally: &Tally,
) -> Result<(), Stop> {
    let mut reports = Reports::new(plan);
    let total = plan.unique + plan.duplicates;
    let start = Instant::now();
    let mut sent = 0;
    let mut now_ms = 0;
    'pace: while !tally.end.load(Relaxed) {
        let gone = start.elapsed().as_secs_f64() / plan.drive.as_secs_f64().max(0.001);
        let due = (total as f64 * gone.min(1.0)) as u64;
        // The clock may step back; the trucks' time does not.
        now_ms = now_ms.max(epoch_ms() - 1000);
        while sent < due {
            let Some((cause, report)) = reports.next(now_ms) else {
                break 'pace;
            };
            send(producer, topic, cause, &report, now_ms, &tally.end)?;
            let count = match cause {
                Cause::Reported => &tally.reported,
                Cause::Resent => &tally.resent,
                Cause::Reread => &tally.reread,
            };
            count.fetch_add(1, Relaxed);
            sent += 1;
        }
        if sent == total {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    producer.flush(Duration::from_secs(60)).map_err(|error| {
        Stop::internal(format!(
            "{topic} does not take the trucks' records: {error}"
        ))
    })?;
    match tally.refused.load(Relaxed) {
        0 => Ok(()),
        refused => Err(Stop::internal(format!(
            "the broker refused {refused} of {sent} records for {topic}; its log says why"
        ))),
    }
}

fn send(
    producer: &ThreadedProducer<Deliveries>,
    topic: &str,
    cause: Cause,
    report: &Report,
    now_ms: i64,
    end: &AtomicBool,
) -> Result<(), Stop> {
    let (key, line) = (report.truck.to_string(), report.line());
    let gateway = format!("gateway-{}", report.truck % 4);
    let (gateway, at_ms) = match cause {
        Cause::Reported | Cause::Resent => (gateway, report.at_ms),
        Cause::Reread => (gateway + "-restarted", now_ms),
    };
    let header = Header {
        key: "gateway",
        value: Some(&gateway),
    };
    let mut record = BaseRecord::to(topic)
        .key(&key)
        .payload(&line)
        .timestamp(at_ms)
        .headers(OwnedHeaders::new().insert(header));
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                if !end.load(Relaxed) =>
            {
                record = back;
                thread::sleep(Duration::from_millis(5));
            }
            Err((error, _)) => {
                return Err(Stop::internal(format!("cannot send to {topic}: {error}")));
            }
        }
    }
}

fn epoch_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
