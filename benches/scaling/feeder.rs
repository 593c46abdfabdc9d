//! Records that come all the time, to each partition in turn and at a fixed rate, so that a gap in what
//! becomes of them is a partition that stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::kit::kafka::{Kafka, flush};
use crate::kit::now_ms;
use crate::shape::{Sent, send, value};
use crate::stream::{fingerprint, id};

/// The records of this time are sent together.
const TICK: Duration = Duration::from_millis(10);
/// Of each partition's records, one in so many comes twice.
const REPEATED: u64 = 10;
const VALUE_BYTES: usize = 200;
/// The ids of a [`Shape`](crate::shape::Shape) have smaller numbers.
const FIRST_ID: u64 = 1 << 40;

/// Ends when it is dropped.
pub struct Feeder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Sent>>,
}

impl Feeder {
    /// So many records with a new id, to each partition in a second.
    pub fn start(kafka: &Kafka, topic: &str, partitions: i32, per_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (kafka, topic, stopped) = (kafka.clone(), topic.to_owned(), Arc::clone(&stop));
        let thread = thread::spawn(move || feed(&kafka, &topic, partitions, per_second, &stopped));
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it; what it has sent.
    pub fn finish(mut self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("the producer")
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn feed(kafka: &Kafka, topic: &str, partitions: i32, per_second: u32, stop: &AtomicBool) -> Sent {
    // A machine that is busy is no reason to give a record up.
    let producer = kafka.producer(&[("message.timeout.ms", "300000")]);
    let count = u64::try_from(partitions).expect("a count");
    let rate = count * u64::from(per_second);
    let (begun, mut number, mut sent) = (Instant::now(), 0, Sent::default());
    while !stop.load(Ordering::Relaxed) {
        let due = rate * u64::try_from(begun.elapsed().as_millis()).expect("a time") / 1000;
        while number < due {
            let partition = i32::try_from(number % count).expect("small");
            let id = id(FIRST_ID + number);
            let value = value(&id, VALUE_BYTES);
            let times = if number / count % REPEATED == 0 { 2 } else { 1 };
            for _ in 0..times {
                send(&producer, topic, partition, &id, &value, now_ms());
                sent.records += 1;
            }
            sent.ids += 1;
            sent.checksum ^= fingerprint(&id);
            number += 1;
        }
        thread::sleep(TICK);
    }
    flush(&producer);
    sent
}
