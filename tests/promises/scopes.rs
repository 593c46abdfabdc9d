//! Scopes of several partitions: an id is let through once in all of them, whoever reads them.

use std::time::Duration;

use crate::crash::rounds;
use crate::kit::kin::{assert_duplicates, assert_each, crossing, let_through, owner_first, reads};
use crate::kit::stream::Stream;
use crate::kit::{Deployment, Dice, Instance, Rec, now_ms, unique, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const TRANSACTION: &str = "transaction: {interval: 30ms, timeout: 10s}\n";

#[test]
fn a_topic_has_one_owner_and_a_standby_that_takes_over() {
    let mut it = Deployment::new("whole", 3, TRANSACTION);
    it.extra += "scope: topic\nduplicates: {topic: \"{topic}_dups\"}\n";
    let stream = crossing(&it, 61);
    let steps = [
        "produced",
        "offsets-sent",
        "committed",
        "published",
        "restored",
    ];
    let mut dice = Dice(62);
    let mut two = [it.start("a"), it.start("b")];
    for round in 0..rounds(3) {
        let [mut owner, standby] = owner_first(3, two);
        std::thread::sleep(Duration::from_millis(300 + dice.roll(400)));
        if round % 3 == 1 {
            assert!(owner.terminate().success(), "{}", owner.log_tail());
        } else {
            owner.kill();
        }
        // Whoever comes now will be the owner next time, and may die at a step of its own then.
        let step = steps[usize::try_from(dice.roll(5)).expect("small")];
        let late = it.start_with(&format!("late{round}"), &[(step, "12*off->return")]);
        two = [standby, late];
        for instance in &mut two {
            if instance.has_ended() {
                *instance = it.start(&format!("after{round}"));
            }
        }
    }
    assert!(stream.finish() > 1000);
    drop(two);
    let owner = it.start("last");
    it.wait_until_caught_up(PATIENCE);
    let count = let_through(&it, &[&it.input], &it.output);
    assert_each(&count, 1);

    let elsewhere = assert_duplicates(&it, &[&it.input], &it.output);
    assert!(elsewhere > 100, "{elsewhere} of another partition");

    // Again all ids, where they have not been, for a process that has to read the journal.
    drop(owner);
    for partition in 0..3 {
        let again = |id: &Vec<u8>| Rec::with_id(id, now_ms());
        let records: Vec<Rec> = count.keys().map(again).collect();
        it.kafka.produce(&it.input, partition, &records);
    }
    let mut anew = it.start("anew");
    it.wait_until_caught_up(PATIENCE);
    assert_each(&let_through(&it, &[&it.input], &it.output), 1);
    assert!(anew.terminate().success());
}

/// What one partition remembers goes bad under a running service: its kin waits until it is rebuilt, as
/// without it their duplicates would not be seen.
#[test]
fn kin_waits_while_a_seen_set_is_rebuilt() {
    let mut it = Deployment::new("patient", 3, TRANSACTION);
    it.extra += "scope: topic\n";
    // Slices that are read soon, however slow the stream.
    let active_ids = "KAFKA_DEDUP__STORE__ACTIVE_IDS".to_owned();
    it.env.push((active_ids, "2000".to_owned()));
    let stream = crossing(&it, 64);
    let points = [(
        "chunk-unreadable",
        "50*off->1*return->150*off->1*return->off",
    )];
    let mut instance = it.start_with("one", &points);
    wait_for("two slices to go bad", PATIENCE, || {
        instance.try_metric("kafka_dedup_store_set_aside_total") == Some(2.0)
    });
    assert!(stream.finish() > 1000);
    it.wait_until_caught_up(PATIENCE);
    assert_each(&let_through(&it, &[&it.input], &it.output), 1);
    assert!(instance.terminate().success());
}

/// A process that stood still is not the owner any more, though it has not heard of it.
#[test]
fn an_owner_that_was_frozen_commits_nothing_more() {
    let mut it = Deployment::new("zombie", 3, TRANSACTION);
    it.extra += "scope: topic\n";
    let stream = crossing(&it, 65);
    let mut two = [it.start("a"), it.start("b")];
    for round in 0..rounds(2) {
        let [frozen, standby] = owner_first(3, two);
        frozen.freeze();
        wait_for("the other to read all", PATIENCE, || reads(&standby) == 3);
        std::thread::sleep(Duration::from_millis(500));
        frozen.thaw();
        std::thread::sleep(Duration::from_millis(1000));
        two = [frozen, standby];
        for instance in &mut two {
            if instance.has_ended() {
                *instance = it.start(&format!("after{round}"));
            }
        }
    }
    assert!(stream.finish() > 1000);
    it.wait_until_caught_up(PATIENCE);
    assert_each(&let_through(&it, &[&it.input], &it.output), 1);
}

/// Partitions of one topic that are read from their beginning, and hold stretches of time that differ in
/// length and weight, are read side by side: else what is early in one would be late in another.
#[test]
fn partitions_catch_up_side_by_side() {
    let mut it = Deployment::new("abreast", 3, TRANSACTION);
    it.extra += "scope: topic\nwindow: {time: 1h}\n";
    let day_ago = now_ms() - 86_400_000;
    let at = |step: i64| day_ago + step * 20_000;
    let steps = 3600;
    // Each id comes in two partitions, and two hours later in the third.
    let id = |step: i64| format!("id-{step}");
    let light: Vec<Rec> = (0..steps).map(|n| Rec::with_id(id(n), at(n))).collect();
    let heavy = light.iter().map(|record| Rec {
        value: Some(vec![b'x'; 3000]),
        ..record.clone()
    });
    let heavy: Vec<Rec> = heavy.collect();
    let later: Vec<Rec> = (0..steps)
        .map(|n| Rec::with_id(id(n), at(n + 360)))
        .collect();
    for (partition, records) in [&light, &heavy, &later].into_iter().enumerate() {
        let partition = i32::try_from(partition).expect("small");
        it.kafka.produce(&it.input, partition, records);
    }
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    assert_each(&let_through(&it, &[&it.input], &it.output), 2);
    assert!(instance.terminate().success());
}

/// Two producers of the same records, each into a topic of its own.
#[test]
fn topics_share_what_they_have_seen_by_partition_number() {
    let mut it = Deployment::new("eu", 4, TRANSACTION);
    let (eu, us, joined) = (it.input.clone(), unique("us"), unique("joined"));
    it.kafka.create_topic(&us, 4, &[]);
    it.output.clone_from(&joined);
    it.extra += &format!(
        "input: {{topics: [{eu}, {us}]}}\noutput: {{topic: {joined}}}\nscope: copartition\n"
    );
    let sides = [eu.clone(), us.clone()];
    let stream = Stream::placed(&it.kafka, 63, move |dice, id| {
        let side = usize::try_from(dice.roll(2)).expect("small");
        (sides[side].clone(), i32::try_from(id % 4).expect("small"))
    });
    let mut one = it.start("one");
    one.wait_until_ready();
    let two = it.start("two");
    let pairs = |instance: &Instance| reads(instance) == 4;
    wait_for("both to read two pairs", PATIENCE, || {
        pairs(&one) && pairs(&two)
    });
    std::thread::sleep(Duration::from_millis(500));
    two.kill();
    wait_for("one to read all", PATIENCE, || reads(&one) == 8);
    let mut three = it.start("three");
    wait_for("both to read two pairs", PATIENCE, || {
        pairs(&one) && pairs(&three)
    });
    assert!(stream.finish() > 1000);
    it.wait_until_read(&eu, PATIENCE);
    it.wait_until_read(&us, PATIENCE);
    let count = let_through(&it, &[&eu, &us], &joined);
    assert_each(&count, 1);
    assert!(one.terminate().success() && three.terminate().success());
}

/// The window of the one that has gone is asked for all records of the other, also after a start.
#[test]
fn an_input_that_cannot_be_seen_any_more_holds_up_its_kin() {
    let mut it = Deployment::new("gone", 1, TRANSACTION);
    let (eu, us, joined) = (it.input.clone(), unique("stays"), unique("joined"));
    it.kafka.create_topic(&us, 1, &[]);
    it.output.clone_from(&joined);
    it.extra += &format!(
        "input: {{topics: [{eu}, {us}]}}\noutput: {{topic: {joined}}}\nscope: copartition\n"
    );
    let record = [Rec::with_id("x", now_ms())];
    let forwarded = || it.kafka.read_partition(&joined, 0).len();
    it.kafka.produce(&eu, 0, &record);
    let mut instance = it.start("one");
    wait_for("the record", PATIENCE, || forwarded() == 1);
    it.kafka.delete_topic(&eu);
    let is_held_up = |instance: &Instance| {
        wait_for("it to be missed", PATIENCE, || {
            let answer = instance.get("/readyz");
            answer.is_some_and(|(_, text)| text.contains(&format!("no topic yet for {eu}")))
        });
        it.kafka.produce(&us, 0, &record);
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(forwarded(), 1);
    };
    is_held_up(&instance);
    assert!(instance.terminate().success());
    let mut instance = it.start("one");
    is_held_up(&instance);
    assert!(instance.terminate().success());
}

/// Their output is one topic, which must not be asked about twice: librdkafka answers no such question.
#[test]
fn a_journal_that_is_deleted_is_noticed_where_inputs_share_an_output() {
    let mut it = Deployment::new("shares", 1, TRANSACTION);
    let other = unique("another");
    it.kafka.create_topic(&other, 1, &[]);
    it.extra += &format!(
        "input: {{topics: [{}, {other}]}}\noutput: {{topic: {}}}\n",
        it.input, it.output
    );
    let mut instance = it.start("one");
    instance.wait_until_ready();
    it.kafka.delete_topic(&it.journal());
    assert_eq!(instance.wait(PATIENCE).code(), Some(78));
    let log = instance.log_text();
    assert!(log.contains("was deleted while the service ran"), "{log}");
}

/// Nothing is read until it can be prepared, and that is said.
#[test]
fn a_topic_that_is_gone_when_it_is_assigned_is_waited_for_and_named() {
    let mut it = Deployment::new("assigned", 1, TRANSACTION);
    let gone = unique("gone");
    it.kafka.create_topic(&gone, 1, &[]);
    it.extra += &format!("input: {{topics: [{}, {gone}]}}\nscope: topic\n", it.input);
    let mut instance = it.start_with("one", &[("assigned", "1*sleep(5000)")]);
    let assigned = "kafka_dedup_rebalances_total{event=\"assigned\"}";
    wait_for("the assignment", PATIENCE, || {
        instance.try_metric(assigned) == Some(1.0)
    });
    it.kafka.delete_topic(&gone);
    wait_for("it to be named", PATIENCE, || {
        let words = format!("{gone} was assigned and cannot be prepared yet");
        instance
            .get("/readyz")
            .is_some_and(|(status, text)| status == 503 && text.contains(&words))
    });
    it.kafka.create_topic(&gone, 1, &[]);
    it.kafka
        .produce(&it.input, 0, &[Rec::with_id("x", now_ms())]);
    it.wait_until_caught_up(PATIENCE);
    instance.wait_until_ready();
    assert!(instance.terminate().success());
}

/// Members that share partitions would be given some that the owner of the topic reads: the two kinds are never
/// in the group together, and none disturbs the other.
#[test]
fn members_of_another_scope_are_kept_out_until_the_last_one_has_left() {
    for [first, second] in [["partition", "topic"], ["topic", "partition"]] {
        let mut it = Deployment::new("mixed", 3, TRANSACTION);
        let plain = it.extra.clone();
        // An id comes in one partition, so that both scopes make the same of it.
        let stream = Stream::start(&it.kafka, &it.input, 3, 66);
        it.extra = format!("{plain}scope: {first}\n");
        let mut before = it.start("before");
        before.wait_until_ready();
        it.extra = format!("{plain}scope: {second}\n");
        let mut after = it.start("after");
        std::thread::sleep(Duration::from_secs(5));
        assert!(
            !after.is_ready() && !after.has_ended(),
            "{}",
            after.log_tail()
        );
        let (_, text) = after.get("/readyz").expect("an answer");
        assert!(text.contains("members with another assignor"), "{text}");
        assert_eq!((reads(&before), reads(&after)), (3, 0));
        assert!(before.is_ready(), "{}", before.log_tail());
        assert!(before.terminate().success(), "{}", before.log_tail());
        after.wait_until_ready();
        assert_eq!(reads(&after), 3);
        assert!(stream.finish() > 1000);
        it.wait_until_caught_up(PATIENCE);
        assert_each(&let_through(&it, &[&it.input], &it.output), 1);
        assert!(after.terminate().success());
    }
}

/// The owner reads what its topic has got, whoever the group gives it to.
#[test]
fn an_owner_reads_the_partitions_that_its_topic_gets() {
    let mut it = Deployment::new("grows", 1, TRANSACTION);
    it.extra += "scope: topic\nwindow: {time: 1h, refresh: true}\n";
    let ids: Vec<Rec> = (0..500)
        .map(|n| Rec::with_id(format!("{n}"), now_ms()))
        .collect();
    it.kafka.produce(&it.input, 0, &ids);
    let two = [it.start("one"), it.start("two")];
    let two = owner_first(1, two);
    it.wait_until_caught_up(PATIENCE);
    it.kafka.add_partitions(&it.output, 3);
    it.kafka.add_partitions(&it.input, 3);
    it.partitions = 3;
    for partition in 0..3 {
        it.kafka.produce(&it.input, partition, &ids);
    }
    it.wait_until_caught_up(PATIENCE);
    let [mut owner, mut standby] = owner_first(3, two);
    assert_each(&let_through(&it, &[&it.input], &it.output), 1);
    let (_, text) = standby.get("/readyz?verbose").expect("an answer");
    assert!(text.contains("standing by"), "{text}");
    assert!(standby.terminate().success() && owner.terminate().success());
}
