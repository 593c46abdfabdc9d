//! Duplicates and rejected records in topics of their own, and records that the output refuses.

use std::time::Duration;

use crate::exactly_once::by_header;
use crate::kit::{Deployment, Rec, broker, now_ms};

#[test]
fn duplicates_and_rejected_records_go_to_their_topics_with_the_reason() {
    let extra = "id: {from: {header: message-id}, missing: reject}\nduplicates: {topic: \"{topic}_dup\"}\nrejected: {topic: \"{topic}_rej\"}\n";
    let deployment = Deployment::new("sides", 2, extra);
    let t = now_ms() - 60_000;
    let without = Rec {
        headers: vec![("other".to_owned(), None)],
        ..Rec::with_id("", t + 2)
    };
    let records = [
        Rec::with_id("a", t),
        Rec::with_id("b", t + 1),
        without.clone(),
        Rec::with_id("a", t + 500),
    ];
    broker().produce(&deployment.input, 1, &records);
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    let output: Vec<Rec> = broker()
        .read_partition(&deployment.output, 1)
        .into_iter()
        .map(|r| r.1)
        .collect();
    assert_eq!(output, records[..2]);
    let text = |record: &Rec, name: &str| {
        String::from_utf8(record.header(name).unwrap_or_default().to_vec()).expect("text")
    };
    let duplicates = broker().read_partition(&format!("{}_dup", deployment.input), 1);
    assert_eq!(duplicates.len(), 1);
    let duplicate = &duplicates[0].1;
    assert_eq!(
        duplicate.headers[0], records[3].headers[0],
        "its own headers come first, unchanged"
    );
    assert_eq!(
        (&duplicate.key, &duplicate.value, duplicate.timestamp),
        (&records[3].key, &records[3].value, t + 500)
    );
    for (name, want) in [
        ("dedup-reason", "duplicate"),
        ("dedup-first-topic", &deployment.input),
        ("dedup-first-partition", "1"),
        ("dedup-first-offset", "0"),
        ("dedup-age-ms", "500"),
        ("dedup-source-topic", &deployment.input),
        ("dedup-source-partition", "1"),
        ("dedup-source-offset", "3"),
    ] {
        assert_eq!(text(duplicate, name), want, "{name}");
    }
    let rejected = broker().read_partition(&format!("{}_rej", deployment.input), 1);
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].1.headers[0], without.headers[0]);
    assert_eq!(text(&rejected[0].1, "dedup-reason"), "missing-id");
    assert_eq!(text(&rejected[0].1, "dedup-source-offset"), "2");
    assert_eq!(instance.metric("kafka_dedup_records_rejected_total"), 1.0);
    assert_eq!(instance.metric("kafka_dedup_records_duplicate_total"), 1.0);
    assert!(instance.terminate().success());
}

#[test]
fn records_without_an_id_are_dropped_or_stop_the_service_as_configured() {
    let t = now_ms() - 60_000;
    let without = Rec {
        headers: vec![],
        ..Rec::with_id("", t)
    };
    let records = [Rec::with_id("a", t), without, Rec::with_id("b", t + 1)];
    let deployment = Deployment::new(
        "drop",
        1,
        "id: {from: {header: message-id}, missing: drop}\n",
    );
    broker().produce(&deployment.input, 0, &records);
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    assert_eq!(broker().read_partition(&deployment.output, 0).len(), 2);
    assert_eq!(instance.metric("kafka_dedup_records_dropped_total"), 1.0);
    assert!(instance.terminate().success());

    let deployment = Deployment::new(
        "fail",
        1,
        "id: {from: {header: message-id}, missing: fail}\n",
    );
    broker().produce(&deployment.input, 0, &records);
    let mut instance = deployment.start("one");
    assert_eq!(
        instance.wait(Duration::from_secs(60)).code(),
        Some(78),
        "{}",
        instance.log_tail()
    );
    assert!(
        instance.log_text().contains("offset 1 has no id"),
        "{}",
        instance.log_tail()
    );
    assert_eq!(
        broker().read_partition(&deployment.output, 0).len(),
        1,
        "what came before it is committed"
    );
}

fn sized(id: &str, bytes: usize, t: i64) -> Rec {
    Rec {
        value: Some(vec![b'x'; bytes]),
        ..Rec::with_id(id, t)
    }
}

#[test]
fn a_record_that_the_output_refuses_is_rejected_and_the_rest_goes_on() {
    let extra = "rejected: {topic: \"{topic}_rej\"}\n";
    let deployment = Deployment::new("refused", 1, extra);
    broker().create_topic(&deployment.output, 1, &[("max.message.bytes", "20000")]);
    let t = now_ms() - 60_000;
    let mut records = Vec::new();
    for n in 0..300i64 {
        let large = n % 100 == 50;
        records.push(sized(
            &format!("id{n}"),
            if large { 50_000 } else { 100 },
            t + n,
        ));
        if large {
            // Its id has not gone out, so the next record with it is new.
            records.push(sized(&format!("id{n}"), 100, t + n));
        }
    }
    broker().produce(&deployment.input, 0, &records);
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    let output: Vec<Rec> = broker()
        .read_partition(&deployment.output, 0)
        .into_iter()
        .map(|r| r.1)
        .collect();
    let want: Vec<Rec> = records
        .iter()
        .filter(|r| r.value.as_ref().is_some_and(|v| v.len() == 100))
        .cloned()
        .collect();
    assert_eq!(output.len(), want.len());
    assert!(output == want, "small records come through in order");
    let rejected = broker().read_partition(&format!("{}_rej", deployment.input), 0);
    assert_eq!(rejected.len(), 3);
    for (_, record) in rejected {
        assert_eq!(record.header("dedup-reason"), Some(&b"too-large"[..]));
    }
    assert!(instance.terminate().success());
}

/// Of a batch that is too large all records are reported, one by one, while more are judged: the first is no more to
/// blame than the others.
#[test]
fn no_record_is_blamed_for_a_batch_before_all_of_it_is_reported() {
    let extra = "rejected: {topic: \"{topic}_rej\"}\ntransaction: {interval: 1s}\n";
    let deployment = Deployment::new("blamed", 1, extra);
    broker().create_topic(&deployment.output, 1, &[("max.message.bytes", "20000")]);
    let t = now_ms() - 60_000;
    let records: Vec<Rec> = (0..3_000)
        .map(|n| sized(&format!("id{n}"), 1_000, t + n))
        .collect();
    broker().produce(&deployment.input, 0, &records);
    let mut instance = deployment.start_with("one", &[("delivery-failed", "1*sleep(1000)")]);
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| by_header(input));
    let rejected = broker().read_partition(&format!("{}_rej", deployment.input), 0);
    assert_eq!(rejected.len(), 0);
    assert!(instance.terminate().success());
}

/// Batches that are on their way behind the one that is refused: the client keeps them for another attempt, which never
/// comes in a transaction that is to be aborted.
#[test]
fn a_refused_record_holds_up_nothing_that_was_sent_behind_it() {
    let extra = "rejected: {topic: \"{topic}_rej\"}\ntransaction: {interval: 2s}\n";
    let mut deployment = Deployment::new("behind", 1, extra);
    for (name, value) in [("BATCH_SIZE", "15000"), ("LINGER_MS", "0")] {
        let name = format!("KAFKA_DEDUP__KAFKA__PRODUCER_PROPERTIES__{name}");
        deployment.env.push((name, value.to_owned()));
    }
    broker().create_topic(&deployment.output, 1, &[("max.message.bytes", "20000")]);
    let t = now_ms() - 60_000;
    let records: Vec<Rec> = (0..20_000)
        .map(|n| {
            sized(
                &format!("id{n}"),
                if n == 500 { 50_000 } else { 100 },
                t + n,
            )
        })
        .collect();
    broker().produce(&deployment.input, 0, &records);
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    let rejected = broker().read_partition(&format!("{}_rej", deployment.input), 0);
    assert_eq!(rejected.len(), 1);
    assert_eq!(broker().read_partition(&deployment.output, 0).len(), 19_999);
    let log = instance.log_text();
    assert!(!log.contains("in doubt"), "{log}");
    assert!(instance.terminate().success());
}

/// Of several partitions in one transaction: each has a partition of the journal to itself, so that a run is to blame
/// for sure.
#[test]
fn a_journal_that_takes_no_runs_stops_the_service_with_a_sentence() {
    let deployment = Deployment::new("small-journal", 2, "transaction: {interval: 1s}\n");
    let journal = deployment.journal();
    broker().create_topic(&journal, 2, &[("max.message.bytes", "5000")]);
    let t = now_ms() - 60_000;
    let records: Vec<Rec> = (0..1_000)
        .map(|n| sized(&format!("id{n}"), 10, t + n))
        .collect();
    for partition in [0, 1] {
        broker().produce(&deployment.input, partition, &records);
    }
    let mut instance = deployment.start("one");
    let status = instance.wait(Duration::from_secs(60));
    assert_eq!(status.code(), Some(78), "{}", instance.log_tail());
    let log = instance.log_text();
    assert!(
        log.contains("the journal topic refused what belongs to")
            && log.contains("max.message.bytes"),
        "{log}"
    );
}

#[test]
fn a_record_that_no_topic_can_take_stops_the_service_and_is_not_passed_over() {
    let mut deployment = Deployment::new("client-limit", 1, "rejected: {topic: \"{topic}_rej\"}\n");
    let limit = "KAFKA_DEDUP__KAFKA__PRODUCER_PROPERTIES__MESSAGE_MAX_BYTES";
    deployment.env.push((limit.to_owned(), "20000".to_owned()));
    let t = now_ms() - 60_000;
    broker().produce(
        &deployment.input,
        0,
        &[
            sized("a", 100, t),
            sized("b", 50_000, t + 1),
            sized("c", 100, t + 2),
        ],
    );
    let mut instance = deployment.start("one");
    // The rejected topic cannot take it either through this client: the end is a sentence, no loop.
    assert_eq!(
        instance.wait(Duration::from_secs(60)).code(),
        Some(78),
        "{}",
        instance.log_tail()
    );
    assert!(
        instance.log_text().contains("rejected topic refused"),
        "{}",
        instance.log_tail()
    );
    // The record is neither lost nor passed over: the next start, without the limit, has it.
    deployment.env.clear();
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success());
}

#[test]
fn a_refused_record_without_a_rejected_topic_stops_the_service_with_a_sentence() {
    let deployment = Deployment::new("stopped", 1, "");
    broker().create_topic(&deployment.output, 1, &[("max.message.bytes", "20000")]);
    let t = now_ms() - 60_000;
    let records = [
        sized("a", 100, t),
        sized("b", 50_000, t + 1),
        sized("c", 100, t + 2),
    ];
    broker().produce(&deployment.input, 0, &records);
    let mut instance = deployment.start("one");
    assert_eq!(
        instance.wait(Duration::from_secs(60)).code(),
        Some(78),
        "{}",
        instance.log_tail()
    );
    let log = instance.log_text();
    assert!(
        log.contains("offset 1 is refused") && log.contains("max.message.bytes"),
        "{}",
        instance.log_tail()
    );
    assert_eq!(
        broker().read_partition(&deployment.output, 0).len(),
        1,
        "what came before it is committed"
    );
    // After the setting is put right the same start goes on where it stopped.
    broker().set_topic_config(&deployment.output, "max.message.bytes", "1000000");
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success());
}
