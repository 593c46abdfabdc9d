//! The same id with another payload: what is done with it, and that it is known after a restart.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use crate::kit::{BINARY, Deployment, Dice, Instance, Rec, now_ms, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const SIDES: &str = "duplicates: {topic: \"{topic}_dup\"}\nrejected: {topic: \"{topic}_rej\"}\ntransaction: {interval: 30ms, timeout: 10s}\n";

/// Where a record of the input goes, by the rules of the config's documentation.
#[derive(Clone, Copy, PartialEq)]
enum Goes {
    Output,
    Duplicate,
    Conflict,
}

/// Ids that come again with the same payload, or with one of two others.
fn records(from: u64, count: u64, value: impl Fn(u64, u64) -> String) -> Vec<Rec> {
    let mut dice = Dice(from + 5);
    (from..from + count)
        .map(|n| {
            let id = n - dice.roll(3).min(n) * dice.roll(300).min(n) / 2;
            let mut record = Rec::with_id(id.to_string(), now_ms() - 600_000);
            record.value = Some(value(dice.roll(4) / 2, n).into_bytes());
            record
        })
        .collect()
}

/// `forwards`: what conflicts is let through, and the next one compared with it.
fn expected(input: &[Rec], forwards: bool, payload: impl Fn(&Rec) -> String) -> Vec<Goes> {
    let mut seen = HashMap::new();
    let goes = |record: &Rec| {
        let id = record.header("message-id").expect("an id").to_vec();
        let payload = payload(record);
        match seen.get(&id) {
            Some(first) if *first == payload => Goes::Duplicate,
            Some(_) if !forwards => Goes::Conflict,
            first => {
                let goes = if first.is_some() {
                    Goes::Conflict
                } else {
                    Goes::Output
                };
                seen.insert(id, payload);
                goes
            }
        }
    };
    input.iter().map(goes).collect()
}

fn topic(it: &Deployment, name: &str) -> Vec<Rec> {
    let records = it.kafka.read_partition(name, 0);
    records.into_iter().map(|(_, record)| record).collect()
}

fn reasons(records: &[Rec]) -> Vec<&[u8]> {
    records
        .iter()
        .map(|record| record.header("dedup-reason").expect("a reason"))
        .collect()
}

fn assert_verified(it: &Deployment) {
    let verify = Command::new(BINARY)
        .args(["verify", "--strict", "-c"])
        .arg(it.config_file())
        .output()
        .expect("verify runs");
    let text = String::from_utf8_lossy(&verify.stdout);
    assert!(
        verify.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&verify.stderr)
    );
}

/// A service that is killed after each piece; its store is lost after one of them.
fn run_through(it: &Deployment, records: &[Rec]) -> Instance {
    for (round, piece) in records.chunks(records.len().div_ceil(3)).enumerate() {
        it.kafka.produce(&it.input, 0, piece);
        let instance = it.start("one");
        it.wait_until_caught_up(PATIENCE);
        let store = instance.store.clone();
        instance.kill();
        if round == 1 {
            std::fs::remove_dir_all(store).expect("the store goes");
        }
    }
    it.start("one")
}

#[test]
fn conflicts_are_counted_forwarded_or_rejected_as_configured() {
    for policy in ["count", "forward", "reject"] {
        let mut it = Deployment::new(policy, 1, SIDES);
        it.extra += &format!("id: {{from: {{header: message-id}}, conflicts: {policy}}}\n");
        let input = records(0, 3000, |kind, _| format!("payload {kind}"));
        let mut instance = run_through(&it, &input);
        let value = |record: &Rec| {
            String::from_utf8_lossy(record.value.as_deref().expect("a value")).into_owned()
        };
        let goes = expected(&input, policy == "forward", value);
        let those = |wanted: &[Goes]| -> Vec<Rec> {
            let chosen = input
                .iter()
                .zip(&goes)
                .filter(|(_, it)| wanted.contains(it));
            chosen.map(|(record, _)| record.clone()).collect()
        };
        let conflicts = those(&[Goes::Conflict]).len();
        assert!(conflicts > 300, "{conflicts} conflicts");

        let output = match policy {
            "forward" => those(&[Goes::Output, Goes::Conflict]),
            _ => those(&[Goes::Output]),
        };
        assert_eq!(topic(&it, &it.output), output, "{policy}");
        let aside = topic(&it, &format!("{}_dup", it.input));
        let of_reason = |records: &[Rec], reason: &[u8]| {
            reasons(records).iter().filter(|it| **it == reason).count()
        };
        let repeated = those(&[Goes::Duplicate]).len();
        assert_eq!(of_reason(&aside, b"duplicate"), repeated, "{policy}");
        let in_duplicates = if policy == "count" { conflicts } else { 0 };
        assert_eq!(of_reason(&aside, b"conflict"), in_duplicates, "{policy}");
        let rejected = topic(&it, &format!("{}_rej", it.input));
        let in_rejected = if policy == "reject" { conflicts } else { 0 };
        assert_eq!(of_reason(&rejected, b"conflict"), in_rejected, "{policy}");
        assert_verified(&it);

        // What a restart has read from the journal tells conflicts too.
        let mut last = input[0].clone();
        last.value = Some(b"quite another".to_vec());
        it.kafka.produce(&it.input, 0, &[last]);
        wait_for("the counter", PATIENCE, || {
            instance.try_metric("kafka_dedup_records_conflicting_total") == Some(1.0)
        });
        assert!(instance.terminate().success());
    }
}

#[test]
fn what_a_json_value_says_elsewhere_is_no_conflict() {
    let mut it = Deployment::new("parts", 1, SIDES);
    it.extra += "id: {from: {header: message-id}, conflicts: reject, payload: {json_without: [/sent, /meta/try]}}\n";
    let value = |kind: u64, n: u64| match n % 2 {
        0 => format!(r#"{{"km": {kind}, "sent": {n}, "meta": {{"try": {n}, "by": "t"}}}}"#),
        _ => format!(r#"{{"meta":{{"by":"t","try":{n}}},"sent":{n},"km":{kind}}}"#),
    };
    let input = records(0, 2000, value);
    let mut instance = run_through(&it, &input);
    let payload = |record: &Rec| {
        let value: serde_json::Value =
            serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        value["km"].to_string()
    };
    let goes = expected(&input, false, payload);
    let count = |wanted: Goes| goes.iter().filter(|it| **it == wanted).count();
    assert_eq!(topic(&it, &it.output).len(), count(Goes::Output));
    assert_eq!(
        topic(&it, &format!("{}_rej", it.input)).len(),
        count(Goes::Conflict)
    );
    assert_eq!(
        topic(&it, &format!("{}_dup", it.input)).len(),
        count(Goes::Duplicate)
    );
    assert_verified(&it);
    assert!(instance.terminate().success());
}

/// What was let through before payloads were compared is known by its id alone.
#[test]
fn payloads_are_compared_from_the_day_they_are_kept() {
    let mut it = Deployment::new("later", 1, SIDES);
    let mut record = Rec::with_id("before", now_ms());
    it.kafka.produce(&it.input, 0, &[record.clone()]);
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    assert!(instance.terminate().success());
    it.extra += "id: {from: {header: message-id}, conflicts: reject, payload: value_and_headers}\n";
    record.value = Some(b"other".to_vec());
    let mut after = Rec::with_id("after", now_ms());
    let first = after.clone();
    after.headers.push(("more".to_owned(), None));
    it.kafka
        .produce(&it.input, 0, &[record, first.clone(), after, first]);
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    assert_eq!(
        reasons(&topic(&it, &format!("{}_dup", it.input))),
        [b"duplicate"; 2]
    );
    assert_eq!(
        reasons(&topic(&it, &format!("{}_rej", it.input))),
        [b"conflict"]
    );
    assert_verified(&it);
    assert!(instance.terminate().success());
}
