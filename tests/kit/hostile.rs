//! A producer of everything that an input may hold: repeats near and far, repeats at the very edge
//! of the window, late and equal timestamps, null and empty parts, binary ids, repeated headers, and
//! transactions that are aborted or interleaved with plain records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::producer::Producer;

use super::kafka::Client;
use super::kafka::try_send;
use super::{Dice, Kafka, Rec, flush, now_ms, send, unique};

/// Ids that may still be repeated, of each partition.
const MEMORY: usize = 4_000;

/// Sends until it is finished. Dropped: ends soon.
pub struct Hostile {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Pool>>,
}

/// What was sent, for as long as it may be repeated; handed from one stream to the next.
pub struct Pool {
    dice: Dice,
    window_ms: i64,
    /// Some timestamps are up to five years off, either way.
    pub years: bool,
    partitions: Vec<Sent>,
    next_id: u64,
}

#[derive(Default)]
struct Sent {
    /// Id and stream time when it was sent.
    ids: Vec<(Vec<u8>, i64)>,
    stream_time_ms: i64,
}

impl Pool {
    pub fn new(seed: u64, partitions: i32, window_ms: i64) -> Self {
        Self {
            dice: Dice(seed | 1),
            window_ms,
            years: false,
            partitions: (0..partitions).map(|_| Sent::default()).collect(),
            next_id: 0,
        }
    }

    /// Sends to so many partitions from here on.
    pub fn cover(&mut self, partitions: i32) {
        let partitions = usize::try_from(partitions).expect("a count");
        self.partitions.resize_with(partitions, Sent::default);
    }

    /// The next record, and its partition.
    fn draw(&mut self) -> (i32, Rec) {
        let partition = self.below(self.partitions.len());
        let kind = self.dice.roll(100);
        let now = now_ms();
        // A minute behind, so that a step over the window's edge is not ahead of the clock.
        let mut timestamp = now - 60_000 - i64::try_from(self.dice.roll(400)).expect("small");
        let known = self.partitions[partition].ids.len();
        let id = match kind {
            // New ones: numbers, and bytes that are no text.
            0..55 => self.new_id(kind.is_multiple_of(7)),
            // Repeats of the last few, and of any that is remembered here.
            55..80 if known > 0 => {
                let back = self.below(known.min(50));
                self.partitions[partition].ids[known - 1 - back].0.clone()
            }
            80..90 if known > 0 => {
                let any = self.below(known);
                self.partitions[partition].ids[any].0.clone()
            }
            // A step beside, at, or over the window's edge.
            90..94 if known > 0 => {
                let any = self.below(known);
                let (id, seen_ms) = self.partitions[partition].ids[any].clone();
                let step = i64::try_from(self.dice.roll(3)).expect("small") - 1;
                let edge = seen_ms + self.window_ms + step;
                if edge < now {
                    timestamp = edge;
                }
                id
            }
            // Late by up to three windows.
            94..97 => {
                let late = self
                    .dice
                    .roll(u64::try_from(3 * self.window_ms).expect("positive"));
                timestamp -= i64::try_from(late).expect("small");
                self.new_id(false)
            }
            // No id: no header, a null one, an empty one.
            _ => Vec::new(),
        };
        if self.years && self.dice.roll(20) == 0 {
            let days = i64::try_from(self.dice.roll(3_652)).expect("small") - 1_826;
            timestamp += days * 86_400_000;
        }
        let sent = &mut self.partitions[partition];
        sent.stream_time_ms = sent.stream_time_ms.max(timestamp);
        if !id.is_empty() && kind < 97 {
            let entry = (id.clone(), sent.stream_time_ms);
            if sent.ids.len() < MEMORY {
                sent.ids.push(entry);
            } else {
                let place = usize::try_from(self.next_id).expect("small") % MEMORY;
                sent.ids[place] = entry;
            }
        }
        let record = self.dress(kind, id, timestamp);
        (i32::try_from(partition).expect("small"), record)
    }

    fn new_id(&mut self, binary: bool) -> Vec<u8> {
        self.next_id += 1;
        if binary {
            let mut id = self.next_id.to_be_bytes().to_vec();
            id.extend([0, 0xff, b'\n', 0x80]);
            id
        } else {
            format!("id-{}", self.next_id).into_bytes()
        }
    }

    fn dress(&mut self, kind: u64, id: Vec<u8>, timestamp: i64) -> Rec {
        let mut headers = vec![
            ("trace".to_owned(), Some(b"a".to_vec())),
            ("trace".to_owned(), None),
        ];
        match (kind, id.is_empty()) {
            (98, true) => headers.push(("message-id".to_owned(), None)),
            (99, true) => headers.push(("message-id".to_owned(), Some(Vec::new()))),
            (_, true) => headers.clear(),
            (0..10, false) => {
                // Of an id header that repeats, the last counts.
                headers.push(("message-id".to_owned(), Some(b"not this one".to_vec())));
                headers.push(("message-id".to_owned(), Some(id)));
            }
            (_, false) => headers.insert(1, ("message-id".to_owned(), Some(id))),
        }
        let part = |dice: &mut Dice, text: String| match dice.roll(12) {
            0 => None,
            1 => Some(Vec::new()),
            _ => Some(text.into_bytes()),
        };
        let key = part(&mut self.dice, format!("key {kind}"));
        let value = part(&mut self.dice, format!("value {kind} at {timestamp}"));
        Rec {
            key,
            value,
            headers,
            timestamp,
        }
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.dice.roll(u64::try_from(count).expect("small"))).expect("small")
    }
}

impl Hostile {
    /// Starts to send, on what the pool remembers.
    pub fn start(kafka: &Kafka, topic: &str, pool: Pool) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        let (kafka, topic) = (kafka.clone(), topic.to_owned());
        let thread = std::thread::spawn(move || flow(&kafka, &topic, pool, &stopped, &counted));
        Self {
            stop,
            sent,
            thread: Some(thread),
        }
    }

    /// Records sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until all that was sent is in the input.
    pub fn finish(mut self) -> Pool {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("running");
        thread.join().expect("the producer")
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn flow(
    kafka: &Kafka,
    topic: &str,
    mut pool: Pool,
    stopped: &AtomicBool,
    counted: &AtomicU64,
) -> Pool {
    // Brokers may be away for a while.
    let patient = ("message.timeout.ms", "120000");
    let plain = kafka.producer(&[patient]);
    let id = unique("upstream");
    let transactional = kafka.producer(&[
        ("transactional.id", id.as_str()),
        ("transaction.timeout.ms", "5000"),
        ("message.timeout.ms", "4000"),
    ]);
    let patience = Duration::from_secs(60);
    let mut upstream = transactional.init_transactions(patience).is_ok();
    while !stopped.load(Ordering::Relaxed) {
        // Transactions of an upstream service, one in three of them aborted, with plain records
        // in between.
        if upstream && pool.dice.roll(4) == 0 {
            upstream = transaction(&transactional, &plain, topic, &mut pool).is_ok();
        }
        for _ in 0..30 {
            let (partition, record) = pool.draw();
            send(&plain, topic, partition, &record);
        }
        counted.fetch_add(30, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(8));
    }
    flush(&plain);
    pool
}

/// An error means that brokers are away: the upstream producer is given up then, and what it left
/// open is ended by its coordinator.
fn transaction(
    transactional: &Client,
    plain: &Client,
    topic: &str,
    pool: &mut Pool,
) -> rdkafka::error::KafkaResult<()> {
    let patience = Duration::from_secs(20);
    transactional.begin_transaction()?;
    for number in 0..20 {
        let (partition, record) = pool.draw();
        let producer = if number % 3 == 0 {
            plain
        } else {
            transactional
        };
        try_send(producer, topic, partition, &record)?;
    }
    if pool.dice.roll(3) == 0 {
        transactional.abort_transaction(patience)
    } else {
        transactional.flush(patience)?;
        transactional.commit_transaction(patience)
    }
}
