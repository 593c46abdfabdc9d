//! What an operator tells a running service, by the command that does: it holds, and the rest of the promises with it.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::exactly_once::by_header;
use crate::kit::kin::{assert_each, crossing, let_through, reads};
use crate::kit::stream::Stream;
use crate::kit::{BINARY, Deployment, Instance, Rec, now_ms, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const TRANSACTION: &str = "transaction: {interval: 30ms, timeout: 10s}\n";

/// Status, and what it prints: JSON, or the sentence of an error.
pub fn admin(instance: &Instance, arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(BINARY)
        .args(["admin", "-c"])
        .arg(&instance.config)
        .args(arguments)
        .output()
        .expect("admin runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status.code().expect("a status");
    let said = match status {
        0 => serde_json::from_str(&text(&output.stdout)).expect("JSON"),
        _ => Value::String(text(&output.stderr)),
    };
    (status, said)
}

pub fn does(instance: &Instance, arguments: &[&str]) -> Value {
    let (status, said) = admin(instance, arguments);
    assert_eq!(status, 0, "{arguments:?}: {said}\n{}", instance.log_tail());
    said
}

fn seen(instance: &Instance, topic: &str, id: &str) -> Vec<String> {
    let said = does(instance, &["seen", "--topic", topic, "--id", id]);
    let partitions = said["partitions"].as_array().expect("partitions");
    let answer = |it: &Value| it["answer"].as_str().expect("an answer").to_owned();
    partitions.iter().map(answer).collect()
}

/// What a command says of a deployment.
pub fn run(it: &Deployment, arguments: &[&str]) -> String {
    let output = Command::new(BINARY)
        .arg(arguments[0])
        .arg("-c")
        .arg(it.config_file())
        .args(&arguments[1..])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Rows of an export.
fn exported(it: &Deployment) -> usize {
    run(it, &["export"]).lines().count() - 1
}

fn verify(it: &Deployment) {
    let output = Command::new(BINARY)
        .args(["verify", "--strict", "-c"])
        .arg(it.config_file())
        .output()
        .expect("verify runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn ids(it: &Deployment, partition: i32) -> Vec<String> {
    let records = it.kafka.read_partition(&it.output, partition);
    let id = |(_, record): (i64, Rec)| {
        String::from_utf8_lossy(record.header("message-id").expect("an id")).into_owned()
    };
    records.into_iter().map(id).collect()
}

#[test]
fn a_pause_stops_the_stream_and_the_other_topics_do_not_notice() {
    let it = Deployment::new("paused", 2, TRANSACTION);
    let stream = Stream::start(&it.kafka, &it.input, 2, 71);
    let mut instance = it.start("one");
    instance.wait_until_ready();
    does(&instance, &["pause"]);
    let (code, text) = instance.get("/readyz").expect("an answer");
    assert!(
        code == 503 && text.contains("paused by an operator: all topics"),
        "{text}"
    );
    assert_eq!(instance.metric("kafka_dedup_paused"), 1.0);
    // What was open is committed; then nothing is read any more, and the group keeps its member.
    let received = || instance.metric("kafka_dedup_records_received_total");
    let (mut before, mut since) = (received(), Instant::now());
    wait_for("the last commit", PATIENCE, || {
        let now = received();
        if std::mem::replace(&mut before, now) != now {
            since = Instant::now();
        }
        since.elapsed() > Duration::from_secs(3)
    });
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(received(), before);
    assert_eq!(
        does(&instance, &["state"])["paused"][0]["topic"],
        Value::Null
    );
    assert_eq!(
        instance.metric("kafka_dedup_rebalances_total{event=\"lost\"}"),
        0.0
    );
    does(&instance, &["resume"]);
    instance.wait_until_ready();
    assert_eq!(admin(&instance, &["resume"]).0, 64);
    does(&instance, &["pause", "--topic", &it.input]);
    does(&instance, &["resume", "--topic", &it.input]);
    stream.finish();
    it.wait_until_caught_up(PATIENCE);
    it.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success());
}

/// The client gives up a partition whose offset is out of range, and nothing but a new assignment makes it read again; its
/// word for that can be lost.
#[test]
fn a_partition_whose_beginning_is_gone_when_it_is_resumed_is_read_from_there() {
    for (error, goes_on_at) in [("off", 5), ("return", 0)] {
        let it = Deployment::new("overtaken", 2, TRANSACTION);
        let mut instance = it.start_with("one", &[("offset-error-lost", error)]);
        instance.wait_until_ready();
        does(&instance, &["pause"]);
        // The answer tells what will be, the status what is.
        wait_for("the pause", PATIENCE, || {
            let (_, status) = instance.get_admin("/status").expect("an answer");
            let status: Value = serde_json::from_str(&status).expect("JSON");
            let rows = status["partitions"].as_array().expect("rows");
            rows.len() == 2 && rows.iter().all(|row| row["state"] == "paused")
        });
        let records: Vec<Rec> = (0..10)
            .map(|id| Rec::with_id(id.to_string(), now_ms()))
            .collect();
        it.kafka.produce(&it.input, 0, &records);
        it.kafka.delete_before(&it.input, 0, 5);
        does(&instance, &["resume"]);
        let ended = instance.wait(PATIENCE * 2);
        let log = instance.log_text();
        let words = format!(
            "is not read any more: the client has given it up, as it does where an offset is out of range. Start the service again: it goes on at offset {goes_on_at}"
        );
        assert!(
            ended.code() == Some(75) && log.contains(&words),
            "{ended}: {log}"
        );
        let mut instance = it.start("one");
        it.wait_until_caught_up(PATIENCE);
        assert_eq!(ids(&it, 0), ["5", "6", "7", "8", "9"]);
        assert!(instance.terminate().success());
    }
}

#[test]
fn a_bypass_lets_all_through_and_forgets_nothing() {
    let mut it = Deployment::new("bypassed", 1, TRANSACTION);
    it.extra +=
        "duplicates: {topic: \"{topic}_dups\"}\nid: {from: {header: message-id}, missing: drop}\n";
    let record = |id: &str| Rec::with_id(id, now_ms());
    let send = |records: &[Rec]| {
        it.kafka.produce(&it.input, 0, records);
        it.wait_until_caught_up(PATIENCE);
    };
    let mut instance = it.start("one");
    send(&[record("a"), record("a"), record("")]);
    does(&instance, &["bypass", "on"]);
    let (_, text) = instance.get("/readyz?verbose").expect("an answer");
    assert!(
        text.contains("operator: degraded") && instance.is_ready(),
        "{text}"
    );
    send(&[record("a"), record("b"), record("b"), record("")]);
    wait_for("the counter", PATIENCE, || {
        instance.try_metric("kafka_dedup_records_bypassed_total") == Some(3.0)
    });
    does(&instance, &["bypass", "off"]);
    send(&[record("a"), record("b"), record("c")]);
    assert_eq!(ids(&it, 0), ["a", "a", "b", "b", "", "c"]);
    verify(&it);
    // A restart knows nothing of it.
    does(&instance, &["bypass", "on"]);
    assert!(instance.terminate().success());
    let mut instance = it.start("one");
    send(&[record("b"), record("c"), record("d")]);
    assert_eq!(ids(&it, 0).len(), 7);
    assert_eq!(instance.metric("kafka_dedup_bypass"), 0.0);
    assert!(instance.terminate().success());
}

#[test]
fn a_forgotten_id_is_new_once_and_stays_so_after_every_restart() {
    for window in [
        "{time: 1h}",
        "{time: null, ids: 5000}",
        "{time: 1h, ids: 5000, refresh: true}",
    ] {
        let mut it = Deployment::new("forgotten", 1, TRANSACTION);
        it.extra += &format!("window: {window}\n");
        let numbered = |from: u32, to: u32| -> Vec<Rec> {
            (from..to)
                .map(|n| Rec::with_id(n.to_string(), now_ms()))
                .collect()
        };
        let send = |records: &[Rec]| {
            it.kafka.produce(&it.input, 0, records);
            it.wait_until_caught_up(PATIENCE);
        };
        let instance = it.start("one");
        // Enough that the ids are in sealed slices.
        send(&numbered(0, 400));
        assert_eq!(seen(&instance, &it.input, "7"), ["remembered"]);
        assert_eq!(seen(&instance, &it.input, "700"), ["not-remembered"]);
        let said = does(&instance, &["forget", "--topic", &it.input, "--id", "7"]);
        assert_eq!(said["partitions"][0]["answer"], "forgotten");
        assert_eq!(seen(&instance, &it.input, "7"), ["not-remembered"]);
        let again = does(
            &instance,
            &["forget", "--topic", &it.input, "--id-hex", "37"],
        );
        assert_eq!(again["partitions"][0]["answer"], "not-remembered");
        // It is forgotten in a sealed slice of its own, too.
        send(&numbered(400, 800));
        let store = instance.store.clone();
        instance.kill();
        for cold in [false, true] {
            if cold {
                std::fs::remove_dir_all(&store).expect("the store goes");
            }
            let mut instance = it.start("one");
            instance.wait_until_ready();
            assert_eq!(
                seen(&instance, &it.input, "7"),
                ["not-remembered"],
                "{window}, cold: {cold}"
            );
            assert_eq!(seen(&instance, &it.input, "8"), ["remembered"]);
            assert!(instance.terminate().success());
        }
        assert_eq!(exported(&it), 799 + 1, "799 ids, and a line of stream time");
        let told = run(&it, &["inspect", "--id", "7"]);
        assert!(
            told.contains("no, an operator had it forgotten then"),
            "{told}"
        );
        let mut instance = it.start("one");
        send(&numbered(6, 9));
        send(&numbered(6, 9));
        let of_seven = ids(&it, 0).into_iter().filter(|id| id == "7").count();
        assert_eq!((of_seven, ids(&it, 0).len()), (2, 801), "{window}");
        verify(&it);
        assert!(instance.terminate().success());
    }
}

#[test]
fn seen_sets_are_rebuilt_under_a_stream() {
    let mut it = Deployment::new("anew", 3, TRANSACTION);
    it.extra += "scope: topic\nworkers: 2\n";
    // A session that ends on a busy machine would be one more restore of each.
    it.consumer_properties[0] = ("session.timeout.ms".to_owned(), "20000".to_owned());
    let stream = crossing(&it, 73);
    let mut instance = it.start("one");
    instance.wait_until_ready();
    // The second worker may have joined after the first had the topic, which was restored once more then.
    wait_for("the owner among the two", PATIENCE, || {
        reads(&instance) == 3 && instance.is_ready()
    });
    let cold = || instance.metric("kafka_dedup_restores_total{kind=\"cold\"}");
    let at_start = cold();
    for partition in [None, Some("1"), None] {
        std::thread::sleep(Duration::from_millis(700));
        let mut arguments = vec!["rebuild", "--topic", &it.input];
        arguments.extend(partition.iter().flat_map(|it| ["--partition", it]));
        let said = does(&instance, &arguments);
        let rebuilding = said["partitions"].as_array().expect("partitions").len();
        assert_eq!(rebuilding, if partition.is_some() { 1 } else { 3 });
        wait_for("the rebuild", PATIENCE, || instance.is_ready());
    }
    assert_eq!(cold() - at_start, 7.0);
    assert_eq!(
        does(&instance, &["log-level", "debug"])["log_level"],
        "debug"
    );
    wait_for("a line of debug", PATIENCE, || {
        instance.log_text().contains("DEBUG")
    });
    does(&instance, &["log-level"]);
    let (status, said) = admin(&instance, &["log-level", "wran"]);
    let said = said.as_str().expect("a sentence");
    assert!(status == 64 && said.contains("use error, warn"), "{said}");
    let (status, said) = admin(&instance, &["rebuild", "--topic", "nothing"]);
    let said = said.as_str().expect("a sentence");
    assert!(status == 64 && said.contains("it has some of"), "{said}");
    assert!(stream.finish() > 1000);
    it.wait_until_caught_up(PATIENCE);
    assert_each(&let_through(&it, &[&it.input], &it.output), 1);
    assert!(instance.terminate().success());
    let (status, said) = admin(&instance, &["state"]);
    assert!(
        status == 69
            && said
                .as_str()
                .expect("a sentence")
                .contains("no answer from"),
        "{said}"
    );
}
