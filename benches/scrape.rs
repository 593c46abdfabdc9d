//! What it costs to be watched: a scrape of a process with many partitions.

use std::hint::black_box;
use std::time::Instant;

use kafka_dedup::metrics::Metrics;

use crate::measure::{Meter, Samples};
use crate::results::{Case, OURS, Reach, Size};

/// Between two scrapes, in seconds: a third of what Prometheus does by default.
const INTERVAL: f64 = 5.0;
const TOPICS: i32 = 10;

pub fn run(size: Size) {
    for partitions in size.pick(vec![100], vec![100, 1_000]) {
        measure(size, partitions);
    }
}

/// The topic of a partition of this number, and its number there.
pub fn topic(number: i32) -> (String, i32) {
    let topic = format!("orders-of-region-{}", number % TOPICS);
    (topic, number / TOPICS)
}

/// All families, as if so many partitions had been read.
pub fn fill(metrics: &Metrics, partitions: i32) {
    for number in 0..partitions {
        let (topic, partition) = topic(number);
        let partition = metrics.partition(&topic, partition);
        partition.lag.set(i64::from(number));
        partition.stream_time.set(1_700_000_000.123);
        partition.coverage.set(0.987_654_321);
        let topic = metrics.topic(&topic);
        topic.received.inc_by(1_000_000_007);
        topic.duplicate_age_seconds.observe(12.5);
        topic.latency_seconds.observe(0.042);
    }
}

fn measure(size: Size, partitions: i32) {
    let metrics = Metrics::new();
    fill(&metrics, partitions);
    let (mut wall, mut share) = (Samples::default(), Samples::default());
    let mut bytes = 0;
    for _ in 0..size.pick(3, 31) {
        let mut meter = Meter::start();
        let began = Instant::now();
        bytes = meter.section(|| black_box(metrics.encode()).len());
        wall.push(began.elapsed().as_secs_f64() * 1000.0);
        share.push(100.0 * meter.cpu() / INTERVAL);
    }
    let text = metrics.encode();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("kafka_dedup_lag_records{"));
    assert_eq!(lines.count(), usize::try_from(partitions).expect("small"));
    let is_heavy = size == Size::Heavy;
    let reach = |most| is_heavy.then_some(Reach::AtMost(most));
    let kilobytes = bytes / 1024;
    Case::new(format!("{partitions} partitions"), "ms a scrape")
        .side_with(OURS, wall, reach(50.0), &format!("{kilobytes} KiB"))
        .tell();
    Case::new(
        format!("{partitions} partitions, a scrape every 5 s"),
        "% of a core",
    )
    .side_with(OURS, share, reach(1.0), "")
    .tell();
}
