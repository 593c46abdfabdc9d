//! Producers that go on for as long as they live, at a pace: every 50 ms what they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::kit::{Kafka, Rec, now_ms};

const TICK: Duration = Duration::from_millis(50);

pub struct Flow {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flow {
    /// `of` has the records of a tick, with their partitions.
    pub fn start(
        kafka: &Kafka,
        topic: &str,
        mut of: impl FnMut(u64) -> Vec<(i32, Rec)> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (kafka, topic, stopped) = (kafka.clone(), topic.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let producer = kafka.producer(&[("message.timeout.ms", "300000")]);
            for tick in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                for (partition, record) in of(tick) {
                    // A broker that is gone has its queue fill up, which holds the pace up.
                    let _ = crate::kit::kafka::try_send(&producer, &topic, partition, &record);
                }
                std::thread::sleep(TICK);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Orders that are sent to partitions in turn, 200 a second, of which one in `every` is the one of ten before.
    pub fn of_orders(kafka: &Kafka, topic: &str, partitions: u64, every: u64) -> Self {
        Self::start(kafka, topic, move |tick| {
            let numbers = 10 * tick..10 * tick + 10;
            let order = |number: u64| {
                let repeats = number >= 10 * partitions && number.is_multiple_of(every);
                let number = if repeats {
                    number - 10 * partitions
                } else {
                    number
                };
                order(number, partitions)
            };
            numbers.map(order).collect()
        })
    }
}

pub fn order(number: u64, partitions: u64) -> (i32, Rec) {
    let partition = i32::try_from(number % partitions).expect("few");
    (partition, Rec::with_id(format!("order-{number}"), now_ms()))
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
