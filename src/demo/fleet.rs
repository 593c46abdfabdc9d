//! The trucks: what they report, and the ways in which a report comes twice.
//!
//! [`Reports`] says what is sent, from a seed alone; [`Fleet`] sends it, at an even pace, from a
//! thread and a producer of its own. Touches the input topic only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::exit::Stop;

/// Records that can still come again: the longest batch and the longest lag of [`Cause::Reread`].
const REMEMBERED: usize = 4096;
const ROUTES: [u64; 5] = [1927624662, 1384345811, 160779139, 1565885487, 1090292248];
const EVENTS: [&str; 4] = [
    "Overspeed",
    "Lane Departure",
    "Unsafe following distance",
    "Unsafe tail distance",
];

/// What is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Records with an id of their own; 1 or more.
    pub unique: u64,
    /// Records that repeat an id.
    pub duplicates: u64,
    /// Trucks, each a key; 1 or more.
    pub trucks: u64,
    /// All that is random follows from it.
    pub seed: u64,
    /// How long the sending takes, where the machine can follow.
    pub drive: Duration,
}

/// Why a record was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The truck reported.
    Reported,
    /// The acknowledgement of its batch was lost, so the producer sent the batch again, with the
    /// timestamps that it had.
    Resent,
    /// The gateway restarted before it had committed its offsets, read a batch again and published
    /// it again, with new timestamps and its new name in the header.
    Reread,
}

/// One truck's report; `id` is what the service is to tell records apart by.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    truck: u64,
    event: &'static str,
    latitude: f64,
    longitude: f64,
    id: i64,
    /// Set when it is first sent.
    at_ms: i64,
}

impl Report {
    /// The line as the trucks of the sample write it.
    fn line(&self) -> String {
        let route = ROUTES[(self.truck % 5) as usize];
        let Self {
            truck,
            event,
            latitude,
            longitude,
            id,
            at_ms,
        } = self;
        let driver = truck % 70;
        format!("{at_ms},{truck},{driver},{route},{event},{latitude:.2},{longitude:.2},{id}")
    }
}

/// All that the fleet sends, in order.
struct Reports {
    plan: Plan,
    random: StdRng,
    /// How many of each cause have been handed out.
    reported: u64,
    resent: Repeats,
    reread: Repeats,
    /// What was reported last, oldest first.
    history: VecDeque<Report>,
    /// A batch that is being repeated.
    again: VecDeque<(Cause, Report)>,
}

/// The repeats of one cause: how many there will be, have been, and are in the next batch.
struct Repeats {
    planned: u64,
    done: u64,
    next_batch: u64,
}

impl Repeats {
    fn new(planned: u64) -> Self {
        Self {
            planned,
            done: 0,
            next_batch: 1,
        }
    }

    /// The size of the batch that is due after `part` of `whole` reports; 0 when none is.
    fn due(&self, part: u64, whole: u64) -> u64 {
        let owed =
            (u128::from(self.planned) * u128::from(part) / u128::from(whole)) as u64 - self.done;
        if owed >= self.next_batch {
            self.next_batch
        } else if part == whole {
            owed
        } else {
            0
        }
    }
}

impl Reports {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            random: StdRng::seed_from_u64(plan.seed),
            reported: 0,
            resent: Repeats::new(plan.duplicates / 2),
            reread: Repeats::new(plan.duplicates - plan.duplicates / 2),
            history: VecDeque::with_capacity(REMEMBERED),
            again: VecDeque::new(),
        }
    }

    /// The next record; `now_ms` becomes its time when it is sent for the first time.
    fn next(&mut self, now_ms: i64) -> Option<(Cause, Report)> {
        if self.again.is_empty() {
            self.repeat_what_is_due();
        }
        self.again.pop_front().or_else(|| {
            (self.reported < self.plan.unique).then(|| (Cause::Reported, self.report(now_ms)))
        })
    }

    fn repeat_what_is_due(&mut self) {
        if self.history.is_empty() {
            return;
        }
        let newest = self.history.len();
        let resend = self.resent.due(self.reported, self.plan.unique);
        if resend > 0 {
            // A lost acknowledgement is noticed at once: the newest records.
            let size = self.repeat(Cause::Resent, newest, resend);
            self.resent.done += size;
            self.resent.next_batch = self.random.random_range(1..=16);
            return;
        }
        let reread = self.reread.due(self.reported, self.plan.unique);
        if reread > 0 {
            // A restart takes a while: others have reported meanwhile.
            let end = newest - self.random.random_range(0..newest.min(2000));
            let size = self.repeat(Cause::Reread, end, reread);
            self.reread.done += size;
            self.reread.next_batch = self.random.random_range(50..=500);
        }
    }

    /// Queues up to `size` records of the history before `end`, and answers how many.
    fn repeat(&mut self, cause: Cause, end: usize, size: u64) -> u64 {
        let start = end.saturating_sub(usize::try_from(size).unwrap_or(usize::MAX));
        let batch = self.history.range(start..end);
        self.again
            .extend(batch.map(|report| (cause, report.clone())));
        (end - start) as u64
    }

    fn report(&mut self, at_ms: i64) -> Report {
        let truck = self.random.random_range(0..self.plan.trucks);
        let normal = self.random.random_ratio(9, 10);
        let unusual = EVENTS[self.random.random_range(0..EVENTS.len())];
        let report = Report {
            truck: 101 + truck,
            event: if normal { "Normal" } else { unusual },
            latitude: self.random.random_range(36.0..42.0),
            longitude: self.random.random_range(-95.0..-88.0),
            id: spread(self.plan.seed.wrapping_add(self.reported)),
            at_ms,
        };
        self.reported += 1;
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        self.history.push_back(report.clone());
        report
    }
}

/// The finishing step of SplitMix64: one-to-one, so that no two reports share an id by chance.
fn spread(ordinal: u64) -> i64 {
    let mut bits = ordinal.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)).cast_signed()
}

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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all(plan: Plan) -> Vec<(Cause, Report)> {
        let mut reports = Reports::new(plan);
        std::iter::from_fn(|| reports.next(1_522_846_456_703)).collect()
    }

    fn plan(unique: u64, duplicates: u64) -> Plan {
        Plan {
            unique,
            duplicates,
            trucks: 20,
            seed: 7,
            drive: Duration::ZERO,
        }
    }

    #[test]
    fn every_id_is_reported_once_and_repeats_come_after_their_first_in_the_planned_number() {
        for (unique, duplicates) in [(1, 0), (1, 9), (10, 1), (5000, 500), (3000, 9000)] {
            let sent = all(plan(unique, duplicates));
            let mut seen = HashSet::new();
            for (cause, report) in &sent {
                assert_eq!(seen.insert(report.id), *cause == Cause::Reported);
            }
            assert_eq!(seen.len() as u64, unique);
            let resent = sent
                .iter()
                .filter(|(cause, _)| *cause == Cause::Resent)
                .count() as u64;
            assert_eq!(resent, duplicates / 2);
            assert_eq!(sent.len() as u64, unique + duplicates);
        }
    }

    #[test]
    fn the_same_seed_sends_the_same() {
        assert_eq!(all(plan(1000, 100)), all(plan(1000, 100)));
    }

    #[test]
    fn a_line_has_the_message_id_in_column_8() {
        let (_, report) = all(plan(1, 0)).remove(0);
        let line = report.line();
        let columns: Vec<&str> = line.split(',').collect();
        assert_eq!(columns.len(), 8, "{line}");
        assert_eq!(columns[0], "1522846456703");
        assert_eq!(columns[1], report.truck.to_string());
        assert_eq!(columns[7], report.id.to_string());
    }
}
