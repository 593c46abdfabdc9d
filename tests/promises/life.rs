//! The life of the process: status, probes, bad starts, and many workers.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::exactly_once::by_header;
use crate::kit::{Deployment, Rec, broker, now_ms, wait_for};

#[test]
fn two_workers_in_one_process() {
    let deployment = Deployment::new("workers", 4, "workers: 2\n");
    let t = now_ms() - 10_000;
    for partition in 0..4 {
        let records: Vec<Rec> = (0..500)
            .map(|n| Rec::with_id((n % 333).to_string(), t + n))
            .collect();
        broker().produce(&deployment.input, partition, &records);
    }
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| by_header(input));
    assert_eq!(
        instance.metric("kafka_dedup_records_received_total"),
        2000.0
    );
    assert_eq!(
        instance.metric("kafka_dedup_records_forwarded_total"),
        4.0 * 333.0
    );
    assert!(instance.terminate().success());
}

#[test]
fn no_broker_at_start_is_69_and_a_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("c.yaml");
    std::fs::write(&config, "kafka: {bootstrap_servers: \"127.0.0.1:1\", group_id: g}\ninput: {topics: [t]}\nid: {from: key}\nhttp: {listen: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}\n").expect("written");
    let started = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_kafka-dedup"))
        .args(["run", "-c"])
        .arg(&config)
        .output()
        .expect("run");
    assert_eq!(
        output.status.code(),
        Some(69),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(started.elapsed() < Duration::from_secs(90));
    assert!(String::from_utf8_lossy(&output.stderr).contains("127.0.0.1:1"));
}

#[test]
fn a_faulty_config_is_64_with_every_fault_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("c.yaml");
    std::fs::write(
        &config,
        "kafka: {group_id: g}\ninput: {topics: []}\nid: {from: {heder: x}}\nwindow: {time: 24}\n",
    )
    .expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_kafka-dedup"))
        .args(["run", "-c"])
        .arg(&config)
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in ["bootstrap_servers", "input.topics", "heder", "window.time"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// A process is ready when its partitions are: not a moment before, however slowly it gets there.
#[test]
fn ready_means_that_the_partitions_are_active() {
    let deployment = Deployment::new("latch", 2, "");
    broker().produce(&deployment.input, 0, &[Rec::with_id("a", now_ms())]);
    let slowly = [("subscribed", "sleep(400)"), ("assigned", "sleep(400)")];
    let mut instance = deployment.start_with("one", &slowly);
    instance.wait_until_ready();
    let (_, report) = instance.get("/readyz?verbose").expect("an answer");
    assert!(
        report.contains("worker-0/partitions: ready") && report.contains("2 partitions active"),
        "{report}"
    );
    assert!(instance.terminate().success());
}

/// Records that wait are told in records and in seconds, and how long they took when they went out.
#[test]
fn how_far_behind_it_is_and_how_long_records_take_is_measured() {
    let it = Deployment::new(
        "behind",
        1,
        "transaction: {interval: 4s, timeout: 20s}\nwindow: {time: 1h}\n",
    );
    let old = |id: &str| Rec::with_id(id, now_ms() - 60_000);
    let mut instance = it.start("one");
    instance.wait_until_ready();
    broker().produce(&it.input, 0, &[old("a"), old("b")]);
    let patience = Duration::from_secs(30);
    it.wait_until_caught_up(patience);
    broker().produce(&it.input, 0, &[old("c"), old("d"), old("e")]);
    let lag = |unit: &str| instance.try_metric(&format!("kafka_dedup_lag_{unit}"));
    wait_for("the lag to be told", patience, || {
        lag("records") == Some(3.0) && lag("seconds").is_some_and(|it| it >= 60.0)
    });
    it.wait_until_caught_up(patience);
    wait_for("no lag", patience, || {
        lag("records") == Some(0.0) && lag("seconds") == Some(0.0)
    });
    // One of each transaction.
    let count = instance.metric("kafka_dedup_latency_seconds_count");
    let sum = instance.metric("kafka_dedup_latency_seconds_sum");
    assert!((2.0..=3.0).contains(&count), "{count}");
    assert!((60.0..90.0).contains(&(sum / count)), "{sum} of {count}");
    assert!(instance.terminate().success());
}

/// A worker that does not come back from a step is noticed, and the process ends, so that it can be started again.
#[test]
fn a_worker_that_hangs_ends_the_process_and_is_named_with_its_step() {
    let it = Deployment::new("hangs", 1, "transaction: {interval: 30ms, timeout: 1s}\n");
    let records: Vec<Rec> = (0..100)
        .map(|n| Rec::with_id(format!("{n}"), now_ms()))
        .collect();
    it.kafka.produce(&it.input, 0, &records);
    let patience = Duration::from_secs(60);
    let mut hangs = it.start_with(
        "one",
        &[("assigned", "sleep(86400000)"), ("step-limit", "return")],
    );
    assert_eq!(hangs.wait(patience).code(), Some(75));
    let log = hangs.log_text();
    assert!(
        log.contains("worker 0 has been handing partitions over for"),
        "{log}"
    );
    let mut after = it.start("one");
    it.wait_until_caught_up(patience);
    assert!(after.terminate().success());
    assert_eq!(it.kafka.read_partition(&it.output, 0).len(), 100);
}
