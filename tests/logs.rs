//! What a real service logs on a real broker: nothing over and over, nothing of what records hold, and in
//! JSON every line of it.

#[path = "kit/mod.rs"]
mod kit;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kafka_dedup::demo::broker::Cluster;
use kit::{Deployment, Instance, Kafka, Rec, now_ms, wait_for};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// What no log may hold.
const MARKER: &str = "sesame-4711";
/// Lines that differ in one of these speak of different things, as docs/logs.md has it.
const PLACES: [&str; 6] = [
    "partition=",
    "partitions=",
    "worker=",
    "component=",
    "topic=",
    "journal=",
];

/// The one broker of these tests, for one of them at a time: it is killed.
fn cluster() -> MutexGuard<'static, Cluster> {
    static CLUSTER: OnceLock<(Mutex<Cluster>, TempDir)> = OnceLock::new();
    let (cluster, _) = CLUSTER.get_or_init(|| {
        let dir = TempDir::new().expect("a directory for the broker");
        let cluster = Cluster::start(1, dir.path()).expect("a Kafka broker");
        (Mutex::new(cluster), dir)
    });
    cluster.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record with a marker in every part of it, and bytes that a terminal would obey.
fn marked(number: usize, value: &str) -> Rec {
    let text = format!("{MARKER}-{number}\n\x1b[31m").into_bytes();
    Rec {
        key: Some(text.clone()),
        value: Some(value.as_bytes().to_vec()),
        headers: vec![(MARKER.to_owned(), Some(text))],
        timestamp: now_ms(),
    }
}

/// Lines without their times and numbers, but for those of their [`PLACES`], and how often each is there.
fn repeats(log: &str) -> HashMap<String, usize> {
    let mut all = HashMap::new();
    for line in log.lines() {
        let (_, line) = line.split_once("Z ").unwrap_or(("", line));
        let line = line.split(" left_out=").next().unwrap_or(line);
        let places = line
            .split_whitespace()
            .filter(|word| PLACES.iter().any(|place| word.starts_with(place)));
        let places: Vec<&str> = places.collect();
        let words = line.replace(|c: char| c.is_ascii_digit(), "");
        *all.entry(format!("{words} {}", places.join(" ")))
            .or_default() += 1;
    }
    all
}

/// No line more often than once a minute.
fn assert_quiet(instance: &Instance, since: Instant) {
    let minutes = usize::try_from(since.elapsed().as_secs() / 60).expect("small") + 1;
    let log = instance.log_text();
    let often: Vec<_> = repeats(&log)
        .into_iter()
        .filter(|(_, times)| *times > minutes)
        .collect();
    assert!(
        often.is_empty(),
        "in {minutes} minutes: {often:#?}\nin\n{log}"
    );
}

#[test]
fn a_broker_that_is_away_is_told_of_once_and_so_is_that_it_is_back() {
    let mut cluster = cluster();
    let kafka = Kafka::at(cluster.bootstrap());
    let mut it = Deployment::at(&kafka, "away", 2, "workers: 2\n");
    let soon = ("reconnect.backoff.max.ms".to_owned(), "1000".to_owned());
    it.consumer_properties.push(soon);
    let since = Instant::now();
    let mut instance = it.start("one");
    instance.wait_until_ready();
    it.kafka
        .produce(&it.input, 0, &[Rec::with_id("1", now_ms())]);
    it.wait_until_caught_up(PATIENCE);
    cluster.kill(0);
    wait_for("it to notice", PATIENCE, || !instance.is_ready());
    // What repeats every second or so has the time to.
    std::thread::sleep(Duration::from_secs(10));
    cluster.restart(0).expect("it comes back");
    it.kafka = Kafka::at(cluster.bootstrap());
    it.kafka
        .produce(&it.input, 1, &[Rec::with_id("2", now_ms())]);
    instance.wait_until_ready();
    it.wait_until_caught_up(PATIENCE);
    let ended = instance.terminate();
    assert!(ended.success(), "{}", instance.log_tail());
    assert_quiet(&instance, since);
    let log = instance.log_text();
    for words in [
        "rdkafka",
        "kafka is not ready: ",
        "(was not ready for ",
        " left_out=",
    ] {
        assert!(log.contains(words), "no {words:?} in\n{log}");
    }
}

#[test]
fn thousands_of_bad_records_are_no_thousands_of_lines_and_none_of_them_is_shown() {
    let cluster = cluster();
    let kafka = Kafka::at(cluster.bootstrap());
    let extra = "id: {from: {json: /id}, missing: reject}\nrejected: {topic: \"{topic}_bad\"}\n\
                 duplicates: {topic: \"{topic}_again\"}\n";
    let mut it = Deployment::at(&kafka, "bad", 2, extra);
    // What is larger is refused by the output.
    let settings = [("max.message.bytes", "4000")];
    it.kafka.create_topic(&it.output, 2, &settings);
    let large = format!("{{\"id\": \"large\", \"text\": \"{}\"}}", "x".repeat(8000));
    for partition in 0..2 {
        let faulty = ["", "{", "{\"id\": null}"];
        let faulty = |number| format!("{}{MARKER}", faulty[number % 3]);
        let bad = (0..4000).map(|number| marked(number, &faulty(number)));
        let mut records: Vec<Rec> = bad.collect();
        let id = |number| format!("{{\"id\": \"{MARKER}-{number}\"}}");
        records.extend((0..100).map(|number| marked(number, &id(number / 2))));
        if partition == 0 {
            records.insert(2000, marked(2000, &large));
        }
        it.kafka.produce(&it.input, partition, &records);
    }
    let begun = Instant::now();
    let kinds = [("text", "info"), ("json", "trace")];
    let mut running = kinds.map(|(format, level)| {
        it.group = format!("{}-{format}", it.input);
        it.env = vec![
            ("KAFKA_DEDUP__LOG__LEVEL".to_owned(), level.to_owned()),
            ("KAFKA_DEDUP__LOG__FORMAT".to_owned(), format.to_owned()),
        ];
        if level == "trace" {
            let debug = ("debug".to_owned(), "msg,fetch,cgrp".to_owned());
            it.consumer_properties.push(debug);
        }
        it.start(format)
    });
    for (instance, (format, _)) in running.iter_mut().zip(kinds) {
        it.group = format!("{}-{format}", it.input);
        it.wait_until_caught_up(PATIENCE);
        assert!(instance.metric("kafka_dedup_records_rejected_total") >= 8000.0);
        assert!(instance.metric("kafka_dedup_records_duplicate_total") >= 100.0);
        assert!(instance.terminate().success(), "{}", instance.log_tail());
        let log = instance.log_text();
        assert!(!log.contains(MARKER), "what a record holds is in\n{log}");
        assert!(!log.contains('\x1b'), "{log}");
        if format == "text" {
            assert_quiet(instance, begun);
        } else {
            let lines = assert_json(&log);
            assert!(lines.iter().any(|line| line["level"] == "DEBUG"));
        }
    }
}

#[test]
fn a_log_in_json_is_json_also_where_a_thread_panics() {
    let cluster = cluster();
    let kafka = Kafka::at(cluster.bootstrap());
    let it = Deployment::at(&kafka, "panics", 1, "log: {format: json}\n");
    let mut instance = it.start_with("one", &[("assigned", "panic(two\nlines \"quoted\")")]);
    let status = instance.wait(PATIENCE);
    assert_eq!(status.code(), Some(70), "{}", instance.log_tail());
    let lines = assert_json(&instance.log_text());
    let message = |line: &Value| line["message"].as_str().unwrap_or_default().to_owned();
    let panic = lines
        .iter()
        .find(|line| message(line).starts_with("panic in thread"));
    assert!(panic.is_some_and(|line| line["level"] == "ERROR"));
    let last = lines.last().expect("a last line");
    assert_eq!(last["status"], 70, "{last}");
}

/// Each line is an object with what a collector needs.
fn assert_json(log: &str) -> Vec<Value> {
    let parsed = log.lines().map(|line| {
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(object[field].is_string(), "no {field} in {line}");
        }
        object
    });
    parsed.collect()
}
