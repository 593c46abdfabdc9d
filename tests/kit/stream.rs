//! Producers that send on, with repeats, for as long as they live.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Dice, Kafka, Rec, flush, now_ms, send};

/// Producers that send on, with repeats, for as long as they live.
pub struct Stream {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Stream {
    /// An id comes in one partition, always the same.
    pub fn start(kafka: &Kafka, topic: &str, partitions: i32, seed: u64) -> Self {
        let topic = topic.to_owned();
        let count = u64::try_from(partitions).expect("a count");
        Self::placed(kafka, seed, move |_, id| {
            (topic.clone(), i32::try_from(id % count).expect("small"))
        })
    }

    /// An id comes where `place` says.
    pub fn placed(
        kafka: &Kafka,
        seed: u64,
        place: impl Fn(&mut Dice, u64) -> (String, i32) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (kafka, stopped) = (kafka.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            // A busy machine is no reason for a record to be given up.
            let producer = kafka.producer(&[("message.timeout.ms", "300000")]);
            let mut dice = Dice(seed);
            let mut sent = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                for _ in 0..40 {
                    // One in four repeats an id of the last thousand or so.
                    let id = if dice.roll(4) == 0 {
                        sent.saturating_sub(dice.roll(1000))
                    } else {
                        sent
                    };
                    let (topic, partition) = place(&mut dice, id);
                    let jitter = i64::try_from(dice.roll(2000)).expect("small");
                    send(
                        &producer,
                        &topic,
                        partition,
                        &Rec::with_id(id.to_string(), now_ms() - jitter),
                    );
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            flush(&producer);
            sent
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it; the number of records sent.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .expect("running")
            .join()
            .expect("the producer")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
