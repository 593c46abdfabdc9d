//! The three modes: filter is what all other promises are about; here are mark and observe, and what a
//! change from one to another keeps.

use std::time::Duration;

use kafka_dedup::config::Window;

use crate::kit::model::{Judged, Model};
use crate::kit::stream::Stream;
use crate::kit::{Deployment, Dice, Rec, broker, now_ms, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const WINDOW: Window = Window {
    time_ms: Some(60_000),
    ids: Some(400),
    refresh: false,
    max_ahead_ms: 600_000,
};
const YAML: &str = "window: {time: 60s, ids: 400}\ntransaction: {interval: 30ms, timeout: 10s}\n";

/// Each record of a partition with its verdict, from its beginning.
fn judged(input: &[(i64, Rec)]) -> Vec<(i64, Rec, Judged)> {
    let mut model = Model::new(WINDOW);
    let wall_ms = now_ms();
    let judge = |(offset, record): &(i64, Rec)| {
        let id = record.header("message-id").filter(|id| !id.is_empty());
        let judged = match id {
            Some(id) => model.judge(id, Some(record.timestamp), wall_ms, *offset),
            None => {
                model.observe(Some(record.timestamp), wall_ms);
                Judged::NoId
            }
        };
        (*offset, record.clone(), judged)
    };
    input.iter().map(judge).collect()
}

/// A record as mode mark lets it through.
fn marked(topic: &str, partition: i32, offset: i64, record: &Rec, judged: Judged) -> Rec {
    let mut marked = record.clone();
    if let Judged::Duplicate {
        first_offset,
        age_ms,
    } = judged
    {
        let own = [
            ("dedup-reason", "duplicate".to_owned()),
            ("dedup-source-topic", topic.to_owned()),
            ("dedup-source-partition", partition.to_string()),
            ("dedup-source-offset", offset.to_string()),
            ("dedup-first-topic", topic.to_owned()),
            ("dedup-first-partition", partition.to_string()),
            ("dedup-first-offset", first_offset.to_string()),
            ("dedup-age-ms", age_ms.to_string()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), Some(value.into_bytes())));
        marked.headers.extend(own);
    }
    marked
}

/// Repeats near and far, and records without an id.
fn mixture(from: u64, count: u64) -> Vec<Rec> {
    let mut dice = Dice(from + 99);
    let start = now_ms() - 600_000;
    (from..from + count)
        .map(|n| {
            let id = n.saturating_sub(dice.roll(3) * dice.roll(500));
            let time = start + i64::try_from(n * 100).expect("small");
            let mut record = Rec::with_id(id.to_string(), time);
            if dice.roll(20) == 0 {
                record.headers.clear();
            }
            record
        })
        .collect()
}

#[test]
fn marked_duplicates_stay_in_place_with_headers_that_name_the_first() {
    let mut it = Deployment::new("marked", 2, YAML);
    it.extra += "mode: mark\n";
    let stream = Stream::start(&it.kafka, &it.input, 2, 11);
    let mut dice = Dice(3);
    for _ in 0..4 {
        let mut instance = it.start("one");
        instance.wait_until_ready();
        std::thread::sleep(Duration::from_millis(dice.roll(500)));
        instance.kill();
    }
    assert!(stream.finish() > 1000);
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    let mut repeated = 0;
    it.assert_output(|partition, input| {
        let judged = judged(input);
        let duplicate =
            |(_, _, judged): &&(i64, Rec, Judged)| matches!(judged, Judged::Duplicate { .. });
        repeated += judged.iter().filter(duplicate).count();
        judged
            .iter()
            .map(|(offset, record, judged)| marked(&it.input, partition, *offset, record, *judged))
            .collect()
    });
    assert!(repeated > 100, "{repeated} duplicates mean something");
    assert_eq!(instance.metric("kafka_dedup_mode{mode=\"mark\"}"), 1.0);
    assert!(instance.terminate().success());
}

/// Ids are remembered while nothing is written, so that the day of the switch forgets none.
#[test]
fn from_observe_to_filter_the_window_is_kept() {
    for keep_store in [true, false] {
        let mut it = Deployment::new("observed", 1, YAML);
        it.extra += "mode: observe\nduplicates: {topic: \"{topic}_dups\"}\n";
        broker().produce(&it.input, 0, &mixture(0, 2000));
        let mut instance = it.start("one");
        it.wait_until_caught_up(PATIENCE);
        let watched = it.kafka.read_partition(&it.input, 0);
        let would_drop = judged(&watched)
            .iter()
            .filter(|(_, _, judged)| matches!(judged, Judged::Duplicate { .. }))
            .count();
        wait_for("the counters", PATIENCE, || {
            instance.metric("kafka_dedup_records_received_total") == 2000.0
        });
        let counted = instance.metric("kafka_dedup_records_duplicate_total");
        assert!(
            would_drop > 300 && counted == would_drop as f64,
            "{counted} of {would_drop}"
        );
        assert_eq!(instance.metric("kafka_dedup_mode{mode=\"observe\"}"), 1.0);
        assert!(instance.terminate().success());
        let store = instance.store.clone();
        for topic in [it.output.clone(), format!("{}_dups", it.input)] {
            assert_eq!(it.kafka.partitions_of(&topic), None, "{topic} was made");
        }

        // From here on it filters; the next records repeat what was seen before.
        let switch = watched.last().expect("records").0;
        broker().produce(&it.input, 0, &mixture(2000, 1000));
        it.extra = it.extra.replace("mode: observe", "mode: filter");
        if !keep_store {
            std::fs::remove_dir_all(store).expect("the store goes");
        }
        let mut instance = it.start("one");
        it.wait_until_caught_up(PATIENCE);
        it.assert_output(|_, input| {
            let after: Vec<(i64, Rec, Judged)> = judged(input)
                .into_iter()
                .filter(|(offset, ..)| *offset > switch)
                .collect();
            let before = |(_, _, judged): &&(i64, Rec, Judged)| {
                matches!(judged, Judged::Duplicate { first_offset, .. } if *first_offset <= switch)
            };
            assert!(after.iter().filter(before).count() > 20, "it depends on what was observed");
            after
                .into_iter()
                .filter(|(_, _, judged)| !matches!(judged, Judged::Duplicate { .. }))
                .map(|(_, record, _)| record)
                .collect()
        });
        assert!(instance.terminate().success());
    }
}
