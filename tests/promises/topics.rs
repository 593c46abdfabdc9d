//! Topics: patterns, growth, contradictions, and the journal's life.

use std::time::Duration;

use crate::exactly_once::by_header;
use crate::kit::stream::Stream;
use crate::kit::{Deployment, Instance, Rec, broker, kafka, now_ms, unique, wait_for};

#[test]
fn a_pattern_takes_new_topics_and_never_its_own() {
    let prefix = unique("fleet");
    let first = format!("{prefix}-a");
    broker().create_topic(&first, 1, &[]);
    let deployment = Deployment::on(
        first.clone(),
        1,
        &format!(
            "input: {{topics: [\"^{prefix}.*\"]}}\nduplicates: {{topic: \"{{topic}}_dup\"}}\n"
        ),
    );
    let group = deployment.group.clone();
    let t = now_ms() - 1000;
    let twice = [Rec::with_id("x", t), Rec::with_id("x", t)];
    broker().produce(&first, 0, &twice);
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    let second = format!("{prefix}-b");
    broker().create_topic(&second, 2, &[]);
    broker().produce(&second, 1, &twice);
    wait_for("the new topic to be read", Duration::from_secs(60), || {
        broker().committed(&group, &second, 1) == Some(2)
    });
    std::thread::sleep(Duration::from_secs(3));
    for (topic, partition) in [(&first, 0), (&second, 1)] {
        assert_eq!(
            broker()
                .read_partition(&format!("{topic}_dedup"), partition)
                .len(),
            1
        );
        assert_eq!(
            broker()
                .read_partition(&format!("{topic}_dup"), partition)
                .len(),
            1
        );
    }
    assert_eq!(broker().partitions_of(&format!("{second}_dedup")), Some(2));
    for own in ["_dedup", "_dup", &format!("-{group}-seen")] {
        assert_eq!(
            broker().partitions_of(&format!("{first}{own}_dedup")),
            None,
            "{own} is not input"
        );
    }
    assert!(instance.terminate().success());
}

/// The output holds them, as promised; but nobody means to have it so.
#[test]
fn ids_that_come_in_several_partitions_are_told_of() {
    let t = now_ms() - 60_000;
    let ids =
        |from: i64| (from..from + 6000).map(move |n| Rec::with_id(n.to_string(), t + n % 1000));
    for (second, crossing) in [(3000, true), (6000, false)] {
        let mut deployment = Deployment::new("crossing", 2, "");
        deployment.extra += "workers: 2\n";
        broker().produce(&deployment.input, 0, &ids(0).collect::<Vec<_>>());
        let mut instance = deployment.start("one");
        let metric = |instance: &Instance, name: &str| {
            instance.metric(&format!("kafka_dedup_scope_{name}_ids_total"))
        };
        deployment.wait_until_caught_up(Duration::from_secs(60));
        wait_for("samples", Duration::from_secs(60), || {
            metric(&instance, "sampled") > 50.0
        });
        // In its own partition an id is a duplicate, not a crossing.
        broker().produce(&deployment.input, 0, &ids(0).collect::<Vec<_>>());
        broker().produce(&deployment.input, 1, &ids(second).collect::<Vec<_>>());
        deployment.wait_until_caught_up(Duration::from_secs(60));
        wait_for("all to be counted", Duration::from_secs(60), || {
            instance.metric("kafka_dedup_records_received_total") == 18_000.0
        });
        let (sampled, found) = (metric(&instance, "sampled"), metric(&instance, "crossing"));
        assert!(
            (100.0..300.0).contains(&sampled),
            "of 12,000 ids: {sampled}"
        );
        let log = instance.log_text();
        let warned = log.contains("had been let through in another partition");
        if crossing {
            assert!((20.0..90.0).contains(&found), "of 3,000 ids: {found}");
            assert!(warned, "{log}");
        } else {
            assert_eq!(found, 0.0);
            assert!(!warned, "{log}");
        }
        assert!(instance.terminate().success());
    }
}

#[test]
fn new_partitions_appear_while_it_runs_and_while_it_does_not() {
    let mut deployment = Deployment::new("growth", 1, "transaction: {interval: 30ms}\n");
    let t = now_ms() - 1000;
    broker().produce(&deployment.input, 0, &[Rec::with_id("x", t)]);
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    broker().add_partitions(&deployment.input, 3);
    deployment.partitions = 3;
    broker().produce(
        &deployment.input,
        2,
        &[Rec::with_id("x", t), Rec::with_id("x", t)],
    );
    deployment.wait_until_caught_up(Duration::from_secs(60));
    assert!(instance.terminate().success());
    broker().add_partitions(&deployment.input, 5);
    deployment.partitions = 5;
    broker().produce(
        &deployment.input,
        4,
        &[Rec::with_id("y", t), Rec::with_id("y", t)],
    );
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| by_header(input));
    assert_eq!(broker().partitions_of(&deployment.output), Some(5));
    assert_eq!(broker().partitions_of(&deployment.journal()), Some(5));
    assert!(instance.terminate().success());
}

#[test]
fn contradictions_end_with_78_and_a_sentence() {
    let ends = |deployment: &Deployment, words: &[&str]| {
        let mut instance = deployment.start("one");
        let status = instance.wait(Duration::from_secs(60));
        assert_eq!(status.code(), Some(78), "{}", instance.log_tail());
        for word in words {
            assert!(
                instance.log_text().contains(word),
                "{word}:\n{}",
                instance.log_tail()
            );
        }
    };
    let deployment = Deployment::new("few-outputs", 4, "");
    broker().create_topic(&deployment.output, 2, &[]);
    ends(&deployment, &[&deployment.output, "4", "2"]);

    let deployment = Deployment::new("odd-journal", 4, "");
    broker().create_topic(&deployment.journal(), 3, &[]);
    ends(&deployment, &[&deployment.journal(), "4", "3"]);

    let deployment = Deployment::new("no-output", 1, "output: {create: false}\n");
    ends(&deployment, &[&deployment.output, "output.create"]);

    let deployment = Deployment::new("start-fail", 1, "");
    let deployment = Deployment {
        extra: format!(
            "input: {{topics: [\"{}\"], start: fail}}\n",
            deployment.input
        ),
        ..deployment
    };
    ends(&deployment, &["input.start"]);

    // The journal's truth is gone while the group has committed: never guessed around.
    let deployment = Deployment::new("lost-journal", 1, "");
    broker().produce(&deployment.input, 0, &[Rec::with_id("x", now_ms())]);
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    assert!(instance.terminate().success());
    broker().delete_topic(&deployment.journal());
    ends(&deployment, &[&deployment.journal(), "holds no run"]);
}

#[test]
fn it_waits_for_a_topic_that_is_not_there_yet() {
    let deployment = Deployment::on(unique("later"), 1, "");
    let mut instance = deployment.start("one");
    wait_for("the reason on /readyz", Duration::from_secs(30), || {
        instance
            .get("/readyz?verbose")
            .is_some_and(|(status, text)| status == 503 && text.contains(&deployment.input))
    });
    assert_eq!(instance.get("/livez").expect("an answer").0, 200);
    broker().create_topic(&deployment.input, 1, &[]);
    broker().produce(
        &deployment.input,
        0,
        &[Rec::with_id("x", now_ms()), Rec::with_id("x", now_ms())],
    );
    instance.wait_until_ready();
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success());
}

#[test]
fn start_latest_skips_what_was_there_and_nothing_that_comes_while_it_restarts() {
    let deployment = Deployment::new("latest", 1, "");
    let deployment = Deployment {
        extra: format!(
            "input: {{topics: [\"{}\"], start: latest}}\n",
            deployment.input
        ),
        ..deployment
    };
    let t = now_ms() - 1000;
    broker().produce(&deployment.input, 0, &[Rec::with_id("old", t)]);
    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    wait_for("the start to be pinned", Duration::from_secs(30), || {
        broker().committed(&deployment.group, &deployment.input, 0) == Some(1)
    });
    instance.terminate();
    broker().produce(
        &deployment.input,
        0,
        &[Rec::with_id("new", t), Rec::with_id("new", t)],
    );
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| vec![input[1].1.clone()]);
    assert!(instance.terminate().success());
}

/// How long a commit takes does not grow with the number of partitions that have few records each: a transaction holds something
/// of a hundred at most, also where it only pins where they start.
#[test]
fn a_transaction_is_of_a_hundred_partitions_at_most() {
    const PARTITIONS: i32 = 130;
    let mut it = Deployment::new("wide", PARTITIONS, "transaction: {interval: 6s}\n");
    it.extra += &format!("input: {{topics: [\"{}\"], start: latest}}\n", it.input);
    let mut instance = it.start("one");
    instance.wait_until_ready();
    let committed = |instance: &Instance, cause: &str| {
        instance.metric(&format!(
            "kafka_dedup_transactions_total{{cause=\"{cause}\",outcome=\"committed\"}}"
        ))
    };
    let patience = Duration::from_secs(60);
    // A slow machine may take more than two.
    wait_for("the starts to be pinned", patience, || {
        committed(&instance, "full") + committed(&instance, "interval") >= 2.0
    });
    let before = committed(&instance, "full");
    let t = now_ms();
    let twice = [Rec::with_id("x", t), Rec::with_id("x", t)];
    let producer = broker().producer(&[]);
    for partition in 0..PARTITIONS {
        for record in &twice {
            kafka::send(&producer, &it.input, partition, record);
        }
    }
    kafka::flush(&producer);
    wait_for("all to be judged", patience, || {
        instance.metric("kafka_dedup_records_received_total") == 2.0 * f64::from(PARTITIONS)
    });
    assert!(committed(&instance, "full") > before);
    for partition in [0, 77, PARTITIONS - 1] {
        let output = broker().read_partition(&it.output, partition);
        let records: Vec<Rec> = output.into_iter().map(|(_, record)| record).collect();
        assert_eq!(records, twice[..1]);
    }
    assert!(instance.terminate().success());
}

/// A window that was made shorter by mistake, and put right before a record came: nothing has happened.
#[test]
fn a_journal_is_not_trimmed_for_a_window_under_which_nothing_was_let_through() {
    let window =
        |time: &str| format!("window: {{time: {time}}}\ntransaction: {{interval: 50ms}}\n");
    let mut it = Deployment::new("shorter", 1, &window("24h"));
    let now = now_ms();
    let early = Rec::with_id("early", now - 10 * 3_600_000);
    let patience = Duration::from_secs(60);
    let mut instance = it.start("one");
    for record in [&early, &Rec::with_id("late", now)] {
        it.kafka.produce(&it.input, 0, std::slice::from_ref(record));
        it.wait_until_caught_up(patience);
    }
    assert!(instance.terminate().success());
    it.extra = window("1h");
    let mut instance = it.start("two");
    instance.wait_until_ready();
    // Longer than from one trim to the next.
    std::thread::sleep(Duration::from_secs(7));
    assert!(instance.terminate().success());
    assert_eq!(it.kafka.low_watermark(&it.journal(), 0), 0);
    it.extra = window("24h");
    let mut instance = it.start("three");
    it.kafka.produce(&it.input, 0, &[early]);
    it.wait_until_caught_up(patience);
    it.assert_output(|_, input| by_header(input));
    assert_eq!(it.kafka.read_partition(&it.output, 0).len(), 2);
    assert!(instance.terminate().success());
}

#[test]
fn the_journal_holds_the_window_and_no_more() {
    let deployment = Deployment::new(
        "trimmed",
        1,
        "window: {time: 2s}\ntransaction: {interval: 50ms}\n",
    );
    let stream = Stream::start(&deployment.kafka, &deployment.input, 1, 61);
    let mut instance = deployment.start("one");
    wait_for("the journal to be trimmed", Duration::from_secs(60), || {
        broker().partitions_of(&deployment.journal()).is_some()
            && broker().low_watermark(&deployment.journal(), 0) > 20
    });
    stream.finish();
    deployment.wait_until_caught_up(Duration::from_secs(60));
    assert!(instance.terminate().success());
    // A start from a trimmed journal and an empty disk judges as if it had never stopped.
    std::fs::remove_dir_all(&instance.store).ok();
    let input = broker().read_partition(&deployment.input, 0);
    let again: Vec<Rec> = input[input.len() - 300..]
        .iter()
        .map(|(_, record)| record.clone())
        .collect();
    broker().produce(&deployment.input, 0, &again);
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| {
        crate::kit::expected::expect_forwarded(
            crate::kit::expected::Limits::time(2_000),
            input,
            |r| r.header("message-id").map(<[u8]>::to_vec),
        )
    });
    assert!(instance.terminate().success());
}
