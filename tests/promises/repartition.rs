//! `scope: repartition`: two hops, each of which may end at any step.

use std::collections::HashMap;
use std::time::Duration;

use kafka_dedup::identify::{Identity, deployment_seed};
use kafka_dedup::repartition::{Mark, Passed};

use crate::admin::{admin, does, run};
use crate::crash::rounds;
use crate::kit::hostile::{Hostile, Pool};
use crate::kit::kin::{
    assert_duplicates, assert_each, crossing, let_through_in_any_order as let_through,
};
use crate::kit::{Deployment, Dice, Rec, now_ms, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const TWO_HOPS: &str = "transaction: {interval: 30ms, timeout: 10s}\nscope: repartition\nrepartition: {partitions: 4}\n";

#[test]
fn an_id_of_several_partitions_is_let_through_once_whoever_dies() {
    let mut it = Deployment::new("hops", 3, TWO_HOPS);
    it.extra += "duplicates: {topic: \"{topic}_dups\"}\n";
    let stream = crossing(&it, 71);
    let steps = [
        "produced",
        "offsets-sent",
        "committed",
        "published",
        "restored",
        "commit-unknown",
        "trim",
    ];
    let mut dice = Dice(72);
    let mut two = [it.start("a"), it.start("b")];
    for round in 0..rounds(6) {
        std::thread::sleep(Duration::from_millis(500 + dice.roll(1000)));
        let victim = usize::try_from(dice.roll(2)).expect("small");
        let name = format!("r{round}");
        let step = steps[usize::try_from(dice.roll(7)).expect("small")];
        let late = it.start_with(&name, &[(step, "12*off->return")]);
        let mut gone = std::mem::replace(&mut two[victim], late);
        if round % 3 == 1 && !gone.has_ended() {
            assert!(gone.terminate().success(), "{}", gone.log_tail());
        } else {
            gone.kill();
        }
        for instance in &mut two {
            if instance.has_ended() {
                *instance = it.start(&format!("after{round}"));
            }
        }
    }
    assert!(stream.finish() > 1000);
    drop(two);
    let mut last = it.start("last");
    it.wait_until_caught_up(PATIENCE);
    assert_each(&let_through(&it), 1);
    let elsewhere = assert_duplicates(&it, &[&it.input], &it.output);
    assert!(elsewhere > 100, "{elsewhere} of another partition");
    wait_for("what was judged to be trimmed", PATIENCE, || {
        let by_id = it.by_id();
        (0..4).all(|number| {
            let (low, high) = it.kafka.watermarks(&by_id, number, "read_uncommitted");
            high - low < 5
        })
    });

    // Again all ids, where they have not been, for a process that has to read the journal.
    assert!(last.terminate().success());
    let ids: Vec<Vec<u8>> = let_through(&it).into_keys().collect();
    for partition in 0..3 {
        let again: Vec<Rec> = ids.iter().map(|id| Rec::with_id(id, now_ms())).collect();
        it.kafka.produce(&it.input, partition, &again);
    }
    let mut anew = it.start("anew");
    it.wait_until_caught_up(PATIENCE);
    assert_each(&let_through(&it), 1);
    assert!(anew.terminate().success());
}

/// Nulls, empty parts, binary ids, repeated headers, odd timestamps, aborted transactions: both hops leave a
/// record as it is. Without an id it is let through.
#[test]
fn whatever_a_record_is_it_passes_both_hops_as_it_is() {
    let it = Deployment::new("strange", 2, &format!("{TWO_HOPS}window: {{time: 30s}}\n"));
    let mut instance = it.start("one");
    let hostile = Hostile::start(&it.kafka, &it.input, Pool::new(73, 2, 30_000));
    std::thread::sleep(Duration::from_secs(5));
    assert!(hostile.sent() > 1000);
    hostile.finish();
    it.wait_until_caught_up(PATIENCE);
    let (mut without, mut with) = (0, 0);
    for partition in 0..2 {
        let mut input: HashMap<String, usize> = HashMap::new();
        let mut firsts: HashMap<Vec<u8>, usize> = HashMap::new();
        let shown = |record: &Rec| match record.timestamp {
            // Kafka's own clients cannot send these on.
            ..=0 => format!(
                "{:?}",
                Rec {
                    timestamp: 0,
                    ..record.clone()
                }
            ),
            _ => format!("{record:?}"),
        };
        for (_, record) in it.kafka.read_partition(&it.input, partition) {
            *input.entry(shown(&record)).or_default() += 1;
            match record.header("message-id").filter(|id| !id.is_empty()) {
                Some(id) => *firsts.entry(id.to_vec()).or_default() += 0,
                None => without += 1,
            }
        }
        for (_, record) in it.kafka.read_partition(&it.output, partition) {
            let left = input
                .get_mut(&shown(&record))
                .unwrap_or_else(|| panic!("{record:?}"));
            *left = left
                .checked_sub(1)
                .expect("not more often than in the input");
            match record.header("message-id").filter(|id| !id.is_empty()) {
                Some(id) => *firsts.get_mut(id).expect("an id") += 1,
                None => without -= 1,
            }
        }
        assert!(
            firsts.values().all(|times| *times > 0),
            "each id is let through"
        );
        with += firsts.len();
    }
    assert_eq!(without, 0, "what has no id is let through");
    assert!(with > 300, "{with}");
    assert!(instance.terminate().success());
}

/// Of one worker, partitions that catch up are passed on in about the order of their timestamps.
#[test]
fn partitions_catch_up_side_by_side() {
    let mut it = Deployment::new("hops-abreast", 2, TWO_HOPS);
    it.extra += "window: {time: 1h}\n";
    let day_ago = now_ms() - 86_400_000;
    let steps = 3000;
    let light: Vec<Rec> = (0..steps)
        .map(|n| Rec::with_id(format!("id-{n}"), day_ago + n * 25_000))
        .collect();
    let heavy = light.iter().map(|record| Rec {
        value: Some(vec![b'x'; 3000]),
        ..record.clone()
    });
    it.kafka.produce(&it.input, 0, &heavy.collect::<Vec<_>>());
    it.kafka.produce(&it.input, 1, &light);
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    assert_each(&let_through(&it), 1);
    assert!(instance.terminate().success());
}

/// Records between the hops are not left behind, and nobody else writes there.
#[test]
fn another_scope_is_refused_while_records_wait_between_the_hops() {
    let mut it = Deployment::new("leaving", 1, TWO_HOPS);
    let ids: Vec<Rec> = (0..500)
        .map(|n| Rec::with_id(format!("{n}"), now_ms()))
        .collect();
    it.kafka.produce(&it.input, 0, &ids);
    let instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    instance.kill();
    // As if the first hop had committed, and the second not yet.
    let foreign = Rec::with_id("foreign", now_ms());
    it.kafka
        .produce(&it.by_id(), 2, std::slice::from_ref(&foreign));
    let two_hops = std::mem::replace(&mut it.extra, "scope: topic\n".to_owned());
    let mut refused = it.start("two");
    assert_eq!(refused.wait(PATIENCE).code(), Some(78));
    let log = refused.log_text();
    assert!(
        log.contains("have not been judged, and with scope: topic nobody would"),
        "{log}"
    );

    it.extra = two_hops;
    let mut refused = it.start("three");
    assert_eq!(refused.wait(PATIENCE).code(), Some(78));
    let log = refused.log_text();
    let place = format!("{}-2 offset ", it.by_id());
    assert!(
        log.contains(&place) && log.contains("has not been passed on"),
        "{log}"
    );
}

/// What a first hop has passed on cannot be taken back: it stops before, and where the id of a record that is on
/// its way is another one, the second does.
#[test]
fn ids_from_elsewhere_are_not_passed_on() {
    let mut it = Deployment::new("hops-ids", 2, TWO_HOPS);
    let ids: Vec<Rec> = (0..300)
        .map(|n| Rec::with_id(format!("{n}"), now_ms()))
        .collect();
    it.kafka.produce(&it.input, 0, &ids);
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    assert!(instance.terminate().success());
    it.kafka.produce(&it.input, 1, &ids);
    let waiting = |it: &Deployment| -> i64 {
        let ends = (0..4).map(|n| it.kafka.watermarks(&it.by_id(), n, "read_committed").1);
        ends.sum()
    };
    let before = waiting(&it);
    let refused = |it: &Deployment, name: &str, words: &str| {
        let mut refused = it.start(name);
        assert_eq!(refused.wait(PATIENCE).code(), Some(78));
        let log = refused.log_text();
        assert!(log.contains(words), "{log}");
    };
    let own = it.extra.clone();
    it.extra += "id: {from: key}\n";
    let words = "were taken from {header: message-id}, and id.from is key";
    refused(&it, "two", words);
    it.extra = own;
    assert_eq!(waiting(&it), before);

    // As if an instance with another id.from had passed it on.
    let passed = Passed {
        partition: 1,
        offset: 0,
        timestamp_ms: Some(now_ms()),
        identity: Identity::Id(1),
        key: None,
    };
    let seed = deployment_seed(&it.group);
    let of = |mark| Rec {
        key: Some(passed.envelope(mark)),
        ..Rec::with_id("between", now_ms())
    };
    it.kafka
        .produce(&it.by_id(), 0, &[of(Mark::of(seed, "key"))]);
    refused(&it, "three", "was passed on with an id from something else");
    it.extra += "id: {from: {header: message-id}, changed: keep}\n";
    let mut instance = it.start("four");
    it.wait_until_caught_up(PATIENCE);
    let written = (0..2).map(|number| it.kafka.read_partition(&it.output, number).len());
    assert_eq!(written.sum::<usize>(), 301);
    assert!(instance.terminate().success());

    // Another group's.
    let foreign = Mark::of(seed ^ 1, "{header: message-id}");
    it.kafka.produce(&it.by_id(), 0, &[of(foreign)]);
    refused(&it, "five", "has not been passed on by this group");
}

/// `id.missing: fail` stops the service where such a record is read, and not behind it.
#[test]
fn a_record_without_an_id_is_not_passed_on_where_that_is_a_failure() {
    let mut it = Deployment::new("hops-fail", 1, TWO_HOPS);
    it.extra += "id: {from: {header: message-id}, missing: fail}\n";
    let without = Rec {
        headers: Vec::new(),
        ..Rec::with_id("", now_ms())
    };
    let records = [Rec::with_id("a", now_ms()), without];
    it.kafka.produce(&it.input, 0, &records);
    let mut refused = it.start("one");
    assert_eq!(refused.wait(PATIENCE).code(), Some(78));
    let log = refused.log_text();
    let place = format!("the record {}-0 offset 1 has no id", it.input);
    assert!(log.contains(&place), "{log}");
    assert_eq!(it.kafka.committed(&it.group, &it.input, 0), Some(1));
    it.extra = it.extra.replace("missing: fail", "missing: drop");
    let mut instance = it.start("two");
    it.wait_until_caught_up(PATIENCE);
    assert_eq!(it.kafka.read_partition(&it.output, 0).len(), 1);
    assert!(instance.terminate().success());
}

/// Offsets that expired are not guessed, and records that are not where they were are not passed over.
#[test]
fn a_first_hop_that_has_lost_its_place_does_not_begin() {
    let mut it = Deployment::new("hops-lost", 1, TWO_HOPS);
    it.extra += "input: {topics: [TOPIC], start: latest}\n";
    it.extra = it.extra.replace("TOPIC", &it.input);
    let records = |from: i64| -> Vec<Rec> {
        let numbers = from..from + 200;
        numbers
            .map(|n| Rec::with_id(format!("{n}"), now_ms()))
            .collect()
    };
    let mut instance = it.start("one");
    instance.wait_until_ready();
    wait_for("the start position", PATIENCE, || {
        it.kafka.committed(&it.group, &it.input, 0).is_some()
    });
    it.kafka.produce(&it.input, 0, &records(0));
    it.wait_until_caught_up(PATIENCE);
    assert!(instance.terminate().success());
    it.kafka.produce(&it.input, 0, &records(100));
    wait_for("an empty group", PATIENCE, || {
        it.kafka.try_delete_group(&it.group)
    });
    let mut refused = it.start("two");
    assert_eq!(refused.wait(PATIENCE).code(), Some(78));
    let log = refused.log_text();
    assert!(
        log.contains("has no committed offset in the input"),
        "{log}"
    );
    assert_eq!(it.kafka.committed(&it.group, &it.input, 0), None);

    // What the sentences say.
    it.kafka.commit(&it.group, &it.input, 0, 0);
    let mut refused = it.start("three");
    assert_eq!(refused.wait(PATIENCE).code(), Some(78));
    let log = refused.log_text();
    assert!(log.contains("holds runs up to offset"), "{log}");
    it.kafka.delete_topic(&it.by_id());
    let mut refused = it.start("four");
    assert_eq!(refused.wait(PATIENCE).code(), Some(78));
    let log = refused.log_text();
    assert!(log.contains("records that were on their way"), "{log}");
    for partition in 0..4 {
        it.kafka.commit(&it.group, &it.by_id(), partition, 0);
    }
    let mut instance = it.start("five");
    it.wait_until_caught_up(PATIENCE);
    assert_eq!(let_through(&it).len(), 300);
    assert_each(&let_through(&it), 1);
    assert!(instance.terminate().success());
}

/// A pause is one of the input: what has been passed on is judged, so that the scope can be left while producers
/// go on.
#[test]
fn what_is_between_the_hops_is_judged_in_a_pause() {
    let it = Deployment::new("hops-pause", 3, TWO_HOPS);
    let mut instance = it.start("one");
    instance.wait_until_ready();
    let stream = crossing(&it, 75);
    std::thread::sleep(Duration::from_secs(1));
    let between = ["pause", "--topic", &it.by_id()];
    let (status, said) = admin(&instance, &between);
    let said = said.as_str().expect("a sentence");
    assert!(status == 64 && said.contains("pause its input"), "{said}");
    does(&instance, &["pause"]);
    // The answer tells what will be, the status what is.
    wait_for("a pause of the first hop alone", PATIENCE, || {
        let (_, status) = instance.get_admin("/status").expect("an answer");
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        let mut rows = status["partitions"].as_array().expect("rows").iter();
        rows.all(|row| {
            let of_input = row["topic"] == it.input.as_str();
            row["state"] == if of_input { "paused" } else { "active" }
        })
    });
    let by_id = it.by_id();
    wait_for("nothing between the hops", PATIENCE, || {
        (0..4).all(|number| it.kafka.is_read(&it.group, &by_id, number))
    });
    let is_read = |number| it.kafka.is_read(&it.group, &it.input, number);
    assert!(!(0..3).all(is_read));
    does(&instance, &["resume"]);
    assert!(stream.finish() > 100);
    it.wait_until_caught_up(PATIENCE);
    assert_each(&let_through(&it), 1);
    assert!(instance.terminate().success());
}

/// Partitions that the input gets are passed on like the others; an id stays where it is.
#[test]
fn an_input_may_grow() {
    let mut it = Deployment::new("hops-grow", 1, TWO_HOPS);
    it.extra += "window: {time: 1h}\n";
    let ids: Vec<Rec> = (0..500)
        .map(|n| Rec::with_id(format!("{n}"), now_ms()))
        .collect();
    it.kafka.produce(&it.input, 0, &ids);
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    it.kafka.add_partitions(&it.output, 3);
    it.kafka.add_partitions(&it.input, 3);
    it.partitions = 3;
    for partition in 0..3 {
        it.kafka.produce(&it.input, partition, &ids);
    }
    it.wait_until_caught_up(PATIENCE);
    assert_each(&let_through(&it), 1);
    assert_eq!(it.kafka.partitions_of(&it.by_id()), Some(4));
    assert!(instance.terminate().success());
}

/// What is preloaded, asked, forgotten and exported is found where the id is judged, and positions are those of
/// the input.
#[test]
fn the_commands_know_of_two_hops() {
    let it = Deployment::new("hops-asked", 2, TWO_HOPS);
    let lines = it.dir.path().join("ids.txt");
    std::fs::write(&lines, "known-1\nknown-2\n").expect("a file");
    let path = lines.to_str().expect("text");
    let said = run(
        &it,
        &["preload", "--from-file", path, "--start-at", "earliest"],
    );
    let ids = |line: &str| -> Option<u64> {
        let (count, _) = line.split_once(": ")?.1.split_once(" ids")?;
        count.parse().ok()
    };
    assert_eq!(said.lines().filter_map(ids).sum::<u64>(), 2, "{said}");
    let first: Vec<Rec> = ["a", "b", "known-1"]
        .map(|id| Rec::with_id(id, now_ms()))
        .into();
    let second: Vec<Rec> = ["c", "a", "known-2"]
        .map(|id| Rec::with_id(id, now_ms() + 1))
        .into();
    it.kafka.produce(&it.input, 1, &first);
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    it.kafka.produce(&it.input, 0, &second);
    it.wait_until_caught_up(PATIENCE);
    let forwarded = |partition| it.kafka.read_partition(&it.output, partition).len();
    assert_eq!((forwarded(0), forwarded(1)), (1, 2));

    let topic = it.input.as_str();
    let said = does(&instance, &["seen", "--topic", topic, "--id", "a"]);
    let of = said["partitions"].as_array().expect("partitions");
    let known: Vec<_> = of
        .iter()
        .filter(|it| it["answer"] == "remembered")
        .collect();
    assert_eq!((of.len(), known.len()), (4, 1), "{said:#}");
    assert_eq!(
        (&known[0]["first_partition"], &known[0]["first_offset"]),
        (&1.into(), &0.into())
    );
    let said = run(&it, &["inspect", "--id", "c"]);
    assert!(
        said.contains(&format!("{topic}-0\n")) && said.contains("offset 0"),
        "{said}"
    );
    let rows = run(&it, &["export"]);
    let has_id = |row: &&str| row.split(',').nth(2).is_some_and(|id| !id.is_empty());
    assert_eq!(rows.lines().filter(has_id).count(), 1 + 5, "{rows}");
    assert!(rows.contains(",1/0,") && rows.contains(",0/0,"), "{rows}");

    does(&instance, &["forget", "--topic", topic, "--id", "a"]);
    it.kafka
        .produce(&it.input, 0, &[Rec::with_id("a", now_ms())]);
    it.wait_until_caught_up(PATIENCE);
    assert_eq!((forwarded(0), forwarded(1)), (2, 2));
    let said = run(&it, &["verify"]);
    for words in ["passed as far as", "ids were preloaded before"] {
        assert!(said.contains(words), "{said}");
    }
    let said = run(&it, &["check"]);
    for words in [
        "scope repartition",
        "of different ids may change places",
        "All is well",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert!(instance.terminate().success());
}
