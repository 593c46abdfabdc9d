//! The output is exactly the first sightings of the input: record by record, byte for byte.

use std::time::Duration;

use rdkafka::producer::Producer;

use crate::kit::expected::{Limits, expect_forwarded};
use crate::kit::{Deployment, Dice, Rec, broker, flush, now_ms, send, unique, wait_for};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn header_id(record: &Rec) -> Option<Vec<u8>> {
    record
        .header("message-id")
        .filter(|id| !id.is_empty())
        .map(<[u8]>::to_vec)
}

/// What the model lets through, by the message-id header and a window of a day.
pub fn by_header(input: &[(i64, Rec)]) -> Vec<Rec> {
    expect_forwarded(Limits::time(DAY_MS), input, header_id)
}

#[test]
fn null_and_empty_and_binary_and_repeated_parts_come_through_unchanged() {
    let deployment = Deployment::new("adversarial", 2, "");
    let t = now_ms() - 60_000;
    let id = |bytes: &[u8]| ("message-id".to_owned(), Some(bytes.to_vec()));
    let plain = |headers: Vec<(String, Option<Vec<u8>>)>, n: i64| Rec {
        key: Some(format!("k{n}").into_bytes()),
        value: Some(format!("v{n}").into_bytes()),
        headers,
        timestamp: t + n,
    };
    let mut records = vec![
        plain(vec![id(b"a")], 0),
        plain(vec![id(b"a")], 1),
        Rec {
            key: None,
            ..plain(vec![id(b"null key")], 2)
        },
        Rec {
            value: None,
            ..plain(vec![id(b"null value")], 3)
        },
        Rec {
            key: None,
            value: None,
            ..plain(vec![id(b"null both")], 4)
        },
        Rec {
            key: None,
            value: None,
            ..plain(vec![id(b"null both")], 5)
        },
        Rec {
            key: Some(vec![]),
            value: Some(vec![]),
            ..plain(vec![id(b"empty both")], 6)
        },
        plain(vec![id(&[0, 159, 146, 150, 255, 0])], 7),
        plain(vec![id(&[0, 159, 146, 150, 255, 0])], 8),
        plain(vec![id(&[0, 159, 146, 150, 255])], 9),
        // Repeated: the last counts.
        plain(vec![id(b"first"), id(b"a")], 10),
        plain(vec![id(b"a"), id(b"second")], 11),
        plain(
            vec![
                ("x".to_owned(), Some(b"1".to_vec())),
                id(b"c"),
                ("x".to_owned(), None),
                ("x".to_owned(), Some(vec![])),
                ("x".to_owned(), Some(b"1".to_vec())),
            ],
            12,
        ),
        plain(
            vec![("".to_owned(), Some(b"no name".to_vec())), id(b"d")],
            13,
        ),
        // Without an id: forwarded, every time.
        plain(vec![], 14),
        plain(vec![], 14),
        plain(vec![id(b"")], 15),
        plain(vec![("message-id".to_owned(), None)], 16),
        plain(vec![id(b"a"), ("message-id".to_owned(), None)], 17),
        // Another name is not the name.
        plain(vec![("Message-Id".to_owned(), Some(b"a".to_vec()))], 18),
        plain(vec![id(&[b'x'; 10_000])], 19),
        plain(vec![id(&[b'x'; 10_000])], 20),
        Rec {
            value: Some(vec![7; 900_000]),
            ..plain(vec![id(b"large")], 21)
        },
    ];
    broker().produce(&deployment.input, 0, &records);
    records.reverse();
    broker().produce(&deployment.input, 1, &records);
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| {
        let forwarded = by_header(input);
        assert!(
            forwarded.len() >= 17 && forwarded.len() < input.len(),
            "the input means something"
        );
        forwarded
    });
    let sums = ["forwarded", "duplicate", "rejected", "dropped"]
        .map(|verdict| instance.metric(&format!("kafka_dedup_records_{verdict}_total")));
    assert_eq!(
        sums.iter().sum::<f64>(),
        46.0,
        "every record has one verdict: {sums:?}"
    );
    assert_eq!(instance.metric("kafka_dedup_records_received_total"), 46.0);
    assert!(instance.terminate().success());
}

#[test]
fn every_compression_and_aborted_transactions_upstream() {
    let deployment = Deployment::new("compressed", 1, "");
    let start = now_ms() - 3_600_000;
    let mut dice = Dice(7);
    for (round, codec) in ["gzip", "snappy", "lz4", "zstd", "none"].iter().enumerate() {
        let transactional = unique("upstream");
        let producer = broker().producer(&[
            ("compression.type", codec),
            ("transactional.id", &transactional),
        ]);
        producer
            .init_transactions(Duration::from_secs(20))
            .expect("initialised");
        for commit in [true, false, true] {
            producer.begin_transaction().expect("begun");
            for n in 0..200 {
                let id = dice.roll(600).to_string();
                let at = start + i64::try_from(round).expect("small") * 1000 + n;
                send(&producer, &deployment.input, 0, &Rec::with_id(id, at));
            }
            flush(&producer);
            if commit {
                producer
                    .commit_transaction(Duration::from_secs(20))
                    .expect("committed");
            } else {
                producer
                    .abort_transaction(Duration::from_secs(20))
                    .expect("aborted");
            }
        }
    }
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| {
        assert_eq!(input.len(), 2000, "aborted records are not input");
        by_header(input)
    });
    assert!(instance.terminate().success());
}

/// Without it the offset before the last marker stays committed, and retention that takes all of an idle
/// input takes, by that offset, what was never read.
#[test]
fn an_idle_input_is_committed_past_its_last_marker() {
    let deployment = Deployment::new("idle", 2, "");
    let producer = broker().producer(&[("transactional.id", &unique("upstream"))]);
    let patience = Duration::from_secs(30);
    producer.init_transactions(patience).expect("initialised");
    let record = Rec::with_id("once", now_ms() - 60_000);
    // One partition holds records and markers, the other an aborted record and its marker alone.
    producer.begin_transaction().expect("begun");
    send(&producer, &deployment.input, 0, &record);
    producer.commit_transaction(patience).expect("committed");
    producer.begin_transaction().expect("begun");
    send(&producer, &deployment.input, 0, &record);
    send(&producer, &deployment.input, 1, &record);
    producer.flush(patience).expect("delivered");
    producer.abort_transaction(patience).expect("aborted");
    // Records and markers; a marker comes a moment after the abort was answered.
    let ends = [4, 2];
    for (partition, end) in (0..).zip(ends) {
        wait_for("the markers", Duration::from_secs(30), || {
            let end_now = broker().watermarks(&deployment.input, partition, "read_uncommitted");
            end_now.1 == end
        });
    }
    let mut instance = deployment.start("one");
    for (partition, end) in (0..).zip(ends) {
        wait_for("the end to be committed", Duration::from_secs(60), || {
            broker().committed(&deployment.group, &deployment.input, partition) == Some(end)
        });
        broker().delete_before(&deployment.input, partition, end);
    }
    assert_eq!(instance.metric("kafka_dedup_records_received_total"), 1.0);
    assert!(instance.terminate().success());

    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    broker().produce(&deployment.input, 0, std::slice::from_ref(&record));
    broker().produce(&deployment.input, 1, std::slice::from_ref(&record));
    deployment.wait_until_caught_up(Duration::from_secs(60));
    for partition in [0, 1] {
        // It is a duplicate in the one, and was never let through in the other.
        let output = broker().read_partition(&deployment.output, partition);
        assert_eq!(output.len(), 1, "partition {partition}");
    }
    assert_eq!(instance.metric("kafka_dedup_records_duplicate_total"), 1.0);
    assert!(instance.terminate().success());
}

/// However soon after its last marker.
#[test]
fn an_input_is_committed_past_its_last_marker_at_a_clean_end() {
    let deployment = Deployment::new("ended", 1, "");
    let producer = broker().producer(&[("transactional.id", &unique("upstream"))]);
    let patience = Duration::from_secs(30);
    producer.init_transactions(patience).expect("initialised");
    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    producer.begin_transaction().expect("begun");
    let record = Rec::with_id("once", now_ms());
    send(&producer, &deployment.input, 0, &record);
    producer.commit_transaction(patience).expect("committed");
    wait_for("the record", patience, || {
        broker().read_partition(&deployment.output, 0).len() == 1
    });
    assert!(instance.terminate().success());
    // The record and the marker.
    let committed = broker().committed(&deployment.group, &deployment.input, 0);
    assert_eq!(committed, Some(2));
    broker().delete_before(&deployment.input, 0, 2);
    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    assert!(instance.terminate().success());
}

#[test]
fn ids_at_the_very_edge_of_the_window_and_timestamps_out_of_order() {
    let input = unique("edge");
    // A topic that takes any timestamp; by default Kafka 4 refuses those more than an hour ahead.
    broker().create_topic(
        &input,
        1,
        &[("message.timestamp.after.max.ms", "9223372036854775807")],
    );
    let deployment = Deployment::on(
        input,
        1,
        "window: {time: 10s}\ntransaction: {interval: 20ms}\n",
    );
    let t = now_ms() - 3_600_000;
    let at = |id: &str, offset: i64| Rec::with_id(id, t + offset);
    let mut records = vec![
        at("a", 0),
        at("a", 9_999),
        at("a", 10_000),
        at("b", 10_000),
        at("a", 10_001),
        at("b", 20_000),
        at("late", -5_000_000),
        at("late", 20_000),
        at("late", 30_000),
        at("late", 30_001),
    ];
    let mut dice = Dice(99);
    let mut time = 40_000;
    for _ in 0..3000 {
        time += i64::try_from(dice.roll(40)).expect("small") - 15;
        records.push(at(&dice.roll(400).to_string(), time));
    }
    // Far ahead of the wall clock: counts as the wall clock. Sent last, so that what the clock said
    // then does not matter to the model.
    let far = at("b", 4 * DAY_MS);
    broker().produce(&deployment.input, 0, &records);
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| expect_forwarded(Limits::time(10_000), input, header_id));
    // A restart knows the window from the journal alone.
    assert!(instance.terminate().success());
    std::fs::remove_dir_all(&instance.store).ok();
    let mut instance = deployment.start("one");
    broker().produce(&deployment.input, 0, &records[records.len() - 200..]);
    broker().produce(&deployment.input, 0, &[far.clone(), far]);
    deployment.wait_until_caught_up(Duration::from_secs(60));
    let output = broker().read_partition(&deployment.output, 0);
    assert_eq!(
        output
            .iter()
            .filter(|(_, r)| r.timestamp == t + 4 * DAY_MS)
            .count(),
        1,
        "a record far ahead of the clock is forwarded, once"
    );
    let before_far = broker().read_partition(&deployment.input, 0).len() - 2;
    let input = broker().read_partition(&deployment.input, 0);
    let want = expect_forwarded(Limits::time(10_000), &input[..before_far], header_id);
    let got: Vec<Rec> = output.into_iter().map(|(_, r)| r).collect();
    assert_eq!(&got[..got.len() - 1], &want[..]);
    assert!(instance.terminate().success());
}

#[test]
fn a_window_by_count_and_refresh() {
    for (extra, limits) in [
        (
            "window: {ids: 50}\n",
            Limits {
                ids: Some(50),
                ..Limits::unlimited()
            },
        ),
        (
            "window: {ids: 50, refresh: true}\n",
            Limits {
                ids: Some(50),
                refresh: true,
                ..Limits::unlimited()
            },
        ),
        (
            "window: {ids: 80, time: 2s, refresh: true}\n",
            Limits {
                ids: Some(80),
                time_ms: Some(2000),
                refresh: true,
            },
        ),
    ] {
        let deployment = Deployment::new("count", 1, extra);
        let mut dice = Dice(3);
        let t = now_ms() - 3_600_000;
        let records: Vec<Rec> = (0..1500)
            .map(|n| Rec::with_id(dice.roll(120).to_string(), t + n * 17))
            .collect();
        broker().produce(&deployment.input, 0, &records[..700]);
        let mut instance = deployment.start("one");
        deployment.wait_until_caught_up(Duration::from_secs(60));
        assert!(instance.terminate().success());
        broker().produce(&deployment.input, 0, &records[700..]);
        let mut instance = deployment.start("two");
        deployment.wait_until_caught_up(Duration::from_secs(60));
        deployment.assert_output(|_, input| {
            let forwarded = expect_forwarded(limits, input, header_id);
            assert!(
                forwarded.len() > 150,
                "{extra}: ids are forgotten and come again"
            );
            forwarded
        });
        assert!(instance.terminate().success());
    }
}

#[test]
fn ids_from_key_value_json_csv_and_several_places() {
    let csv = |record: &Rec| {
        let value = String::from_utf8(record.value.clone()?).ok()?;
        value
            .split(',')
            .nth(7)
            .filter(|id| !id.is_empty())
            .map(|id| id.as_bytes().to_vec())
    };
    let json = |record: &Rec| {
        let value: serde_json::Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
        Some(value.pointer("/event/id")?.as_str()?.as_bytes().to_vec()).filter(|id| !id.is_empty())
    };
    let all = |record: &Rec| {
        let (a, b) = (record.header("ce-source")?, record.header("ce-id")?);
        Some([a, &[0xff], b].concat())
    };
    type Source<'a> = (
        &'a str,
        Box<dyn Fn(u64) -> Rec>,
        Box<dyn Fn(&Rec) -> Option<Vec<u8>>>,
    );
    let t = now_ms() - 3_600_000;
    let base = move |n: u64| Rec::with_id("unused", t + i64::try_from(n % 1000).expect("small"));
    let sources: Vec<Source<'_>> = vec![
        (
            "key",
            Box::new(move |n| Rec {
                key: Some(n.to_string().into_bytes()),
                ..base(n)
            }),
            Box::new(|r| r.key.clone()),
        ),
        (
            "value",
            Box::new(move |n| Rec {
                value: Some(n.to_string().into_bytes()),
                ..base(n)
            }),
            Box::new(|r| r.value.clone()),
        ),
        (
            "{json: /event/id}",
            Box::new(move |n| Rec {
                value: Some(if n % 17 == 0 {
                    b"{not json".to_vec()
                } else {
                    format!("{{\"event\": {{\"id\": \"{n}\", \"x\": [1, {{}}]}}, \"at\": {t}}}")
                        .into_bytes()
                }),
                ..base(n)
            }),
            Box::new(json),
        ),
        (
            "{csv: {column: 8}}",
            Box::new(move |n| Rec {
                value: Some(
                    format!("1522846456703,101,31,1927624662,Normal,37.31,-94.31,-{n}")
                        .into_bytes(),
                ),
                ..base(n)
            }),
            Box::new(csv),
        ),
        (
            "{all: [{header: ce-source}, {header: ce-id}]}",
            Box::new(move |n| Rec {
                headers: vec![
                    (
                        "ce-source".to_owned(),
                        Some(vec![b'a'; usize::try_from(n % 3).expect("small") + 1]),
                    ),
                    (
                        "ce-id".to_owned(),
                        Some(
                            format!(
                                "{}{}",
                                "a".repeat(usize::try_from(n % 2).expect("small")),
                                n / 6
                            )
                            .into_bytes(),
                        ),
                    ),
                ],
                ..base(n)
            }),
            Box::new(all),
        ),
    ];
    for (source, record, id) in sources {
        let deployment = Deployment::new("source", 1, &format!("id: {{from: {source}}}\n"));
        let mut dice = Dice(11);
        let records: Vec<Rec> = (0..1000).map(|_| record(dice.roll(500))).collect();
        broker().produce(&deployment.input, 0, &records);
        let mut instance = deployment.start("one");
        deployment.wait_until_caught_up(Duration::from_secs(60));
        deployment
            .assert_output(|_, input| expect_forwarded(Limits::time(DAY_MS), input, |r| id(r)));
        assert!(instance.terminate().success());
    }
}

#[test]
fn partition_by_key_is_where_the_java_client_puts_it() {
    let deployment = Deployment::new("by-key", 2, "output: {partition: key}\n");
    broker().create_topic(&deployment.output, 5, &[]);
    let t = now_ms() - 60_000;
    let records: Vec<Rec> = (0..500i64)
        .map(|n| Rec {
            key: (n % 10 != 0).then(|| format!("truck-{}", n % 37).into_bytes()),
            ..Rec::with_id(n.to_string(), t + n)
        })
        .collect();
    broker().produce(&deployment.input, 1, &records);
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(60));
    let mut total = 0;
    for partition in 0..5 {
        for (_, record) in broker().read_partition(&deployment.output, partition) {
            total += 1;
            let want = match &record.key {
                Some(key) => kafka_dedup::partitioner::murmur2_partition(key, 5),
                None => 1,
            };
            assert_eq!(partition, want, "{record:?}");
        }
    }
    assert_eq!(total, 500);
    assert!(instance.terminate().success());
}
