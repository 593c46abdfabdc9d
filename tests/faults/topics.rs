//! Topics are taken away from under the service: where exactly-once cannot be kept, it ends with 78 and
//! a way on, which is followed here.

use std::time::Duration;

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::campaign::Rounds;
use crate::kit::expected::{Limits, expect_forwarded};
use crate::kit::{Deployment, Instance, Rec, now_ms, wait_for};

const PATIENCE: Duration = Duration::from_secs(90);

pub fn taken_away(rounds: &mut Rounds) {
    while let Some(round) = rounds.next() {
        let up = (round / 3).is_multiple_of(2);
        let records = match round % 3 {
            0 => made_anew(rounds, up),
            1 => overtaken(up),
            _ => output_deleted(up),
        };
        rounds.compared(records);
    }
}

/// `count` records, of which every third repeats the one before it.
fn records(name: &str, count: usize) -> Vec<Rec> {
    let t = now_ms() - 60_000;
    (0..count)
        .map(|n| Rec::with_id(format!("{name}{}", n - usize::from(n % 3 == 2)), t))
        .collect()
}

fn filtered(input: &[(i64, Rec)]) -> Vec<Rec> {
    expect_forwarded(Limits::unlimited(), input, |record| {
        record.header("message-id").map(<[u8]>::to_vec)
    })
}

fn stops_saying(instance: &mut Instance, words: &[&str]) {
    let ended = instance.wait(PATIENCE);
    assert_eq!(ended.code(), Some(78), "{}", instance.log_tail());
    for word in words {
        assert!(
            instance.log_text().contains(word),
            "{word}:\n{}",
            instance.log_tail()
        );
    }
}

/// The new topic has fewer, as many, or more records than the old: nothing but its id is sure to tell.
fn made_anew(rounds: &mut Rounds, up: bool) -> u64 {
    let it = Deployment::new("anew", 1, "");
    it.kafka.produce(&it.input, 0, &records("old", 30));
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    let forwarded = it.kafka.read_partition(&it.output, 0).len();
    if !up {
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    }
    it.kafka.delete_topic(&it.input);
    let count = [10, 30, 60][usize::try_from(rounds.dice.roll(3)).expect("small")];
    // The broker may still be about to forget the topic that is gone.
    wait_for("the topic to be made", PATIENCE, || {
        let topic =
            rdkafka::admin::NewTopic::new(&it.input, 1, rdkafka::admin::TopicReplication::Fixed(1));
        let made = it.kafka.admin();
        let made = futures_executor::block_on(made.create_topics([&topic], &AdminOptions::new()));
        made.is_ok_and(|made| made.iter().all(Result::is_ok))
    });
    wait_for("its leader", PATIENCE, || {
        it.kafka.partitions_of(&it.input) == Some(1)
    });
    it.kafka.produce(&it.input, 0, &records("new", count));
    // An offset that was restored from a backup, or by a tool, as if the topic were the old one.
    if !up {
        if rounds.dice.roll(2) == 0 {
            set_offset(&it, 10);
        }
        instance = it.start("one");
    }
    stops_saying(&mut instance, &["deleted and created again"]);
    // It does not begin to guess when it is started once more.
    instance = it.start("one");
    stops_saying(&mut instance, &["deleted and created again"]);
    let input = it.kafka.read_partition(&it.input, 0);
    let output = it.kafka.read_partition(&it.output, 0);
    let of_new: Vec<&Rec> = output.iter().skip(forwarded).map(|(_, it)| it).collect();
    // A client reads on in a topic that takes another's place at once, until it is looked at: the service
    // may have let records of the new one through by then, each once.
    let read_on: Vec<&Rec> = input.iter().skip(30).map(|(_, it)| it).collect();
    let mut rest = read_on.iter().filter(|_| up);
    assert!(
        of_new.iter().all(|record| rest.any(|it| it == record)),
        "{of_new:?} is not of {read_on:?}, in order"
    );
    let forwarded = output.len();

    it.kafka.delete_topic(&it.journal());
    delete_offsets(&it);
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    let input = it.kafka.read_partition(&it.input, 0);
    let output: Vec<Rec> = it
        .kafka
        .read_partition(&it.output, 0)
        .into_iter()
        .skip(forwarded)
        .map(|(_, record)| record)
        .collect();
    assert_eq!(output, filtered(&input), "{}", instance.log_tail());
    assert!(instance.terminate().success(), "{}", instance.log_tail());
    u64::try_from(30 + count).expect("small")
}

/// Records are deleted that were not read yet: the group goes on only when a person has said so.
fn overtaken(up: bool) -> u64 {
    let it = Deployment::new("overtaken", 1, "");
    it.kafka.produce(&it.input, 0, &records("read", 30));
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    if up {
        instance.freeze();
    } else {
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    }
    it.kafka.produce(&it.input, 0, &records("lost", 30));
    it.kafka.produce(&it.input, 0, &records("kept", 30));
    delete_records(&it, &it.input, 60);
    if up {
        instance.thaw();
        // What was fetched before the freeze may have been judged: then nothing was lost.
        wait_for("an end, or all read", PATIENCE, || {
            instance.has_ended() || it.kafka.committed(&it.group, &it.input, 0) >= Some(90)
        });
    }
    let read_all = it.kafka.committed(&it.group, &it.input, 0) >= Some(90);
    if !read_all {
        if !up {
            instance = it.start("one");
        }
        stops_saying(&mut instance, &["retention has deleted", "--reset-offsets"]);
        set_offset(&it, 60);
        instance = it.start("one");
        it.wait_until_caught_up(PATIENCE);
    }
    let output = it.kafka.read_partition(&it.output, 0);
    let kept = filtered(&it.kafka.read_partition(&it.input, 0));
    let before = if read_all { 40 } else { 20 };
    assert_eq!(output.len(), before + kept.len(), "{}", instance.log_tail());
    let output: Vec<Rec> = output.into_iter().skip(before).map(|it| it.1).collect();
    assert_eq!(output, kept);
    assert!(instance.terminate().success(), "{}", instance.log_tail());
    90
}

/// The output is the user's to delete: it is made again, and goes on where the input is.
fn output_deleted(up: bool) -> u64 {
    let it = Deployment::new("unled", 1, "");
    it.kafka.produce(&it.input, 0, &records("old", 30));
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    if !up {
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    }
    it.kafka.delete_topic(&it.output);
    it.kafka.produce(&it.input, 0, &records("new", 30));
    if up {
        let ended = instance.wait(PATIENCE);
        assert!(
            matches!(ended.code(), Some(75 | 78)),
            "{ended:?}\n{}",
            instance.log_tail()
        );
    }
    let mut instance = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    let input = it.kafka.read_partition(&it.input, 0);
    let output = it.kafka.read_partition(&it.output, 0);
    let output: Vec<Rec> = output.into_iter().map(|it| it.1).collect();
    assert_eq!(output, filtered(&input[30..]), "{}", instance.log_tail());
    assert!(instance.terminate().success(), "{}", instance.log_tail());
    60
}

pub fn delete_records(it: &Deployment, topic: &str, before: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(before))
        .expect("an offset");
    let admin = it.kafka.admin();
    futures_executor::block_on(admin.delete_records(&list, &AdminOptions::new()))
        .expect("an answer")
        .elements()
        .iter()
        .for_each(|element| element.error().expect("deleted"));
}

/// What kafka-consumer-groups --reset-offsets does, for a group without members.
fn set_offset(it: &Deployment, offset: i64) {
    let consumer: BaseConsumer = it
        .kafka
        .client()
        .set("group.id", &it.group)
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&it.input, 0, Offset::Offset(offset))
        .expect("an offset");
    // The group may still wait for a member that was killed.
    wait_for("the offset to be taken", PATIENCE, || {
        consumer.commit(&list, CommitMode::Sync).is_ok()
    });
}

/// What kafka-consumer-groups --delete-offsets does, for a group of one topic.
fn delete_offsets(it: &Deployment) {
    let admin = it.kafka.admin();
    wait_for("the offsets to be deleted", PATIENCE, || {
        let groups = [it.group.as_str()];
        let answer = futures_executor::block_on(admin.delete_groups(&groups, &AdminOptions::new()));
        answer.is_ok_and(|answer| {
            answer.iter().all(|group| match group {
                Ok(_) => true,
                Err((_, code)) => *code == rdkafka::error::RDKafkaErrorCode::GroupIdNotFound,
            })
        })
    });
}

/// The journal goes, and comes back empty, or with what was written since: the truth is not whole.
pub fn journal_taken_away(rounds: &mut Rounds) {
    while let Some(round) = rounds.next() {
        let up = round.is_multiple_of(2);
        let it = Deployment::new("untrue", 1, "");
        it.kafka.produce(&it.input, 0, &records("old", 30));
        let mut instance = it.start("one");
        it.wait_until_caught_up(PATIENCE);
        let before = it.kafka.read_partition(&it.output, 0);
        if !up {
            assert!(instance.terminate().success(), "{}", instance.log_tail());
        }
        it.kafka.delete_topic(&it.journal());
        if !up {
            instance = it.start("one");
        }
        stops_saying(&mut instance, &[&it.journal(), "no longer known"]);
        // Nor is anything guessed without the store.
        std::fs::remove_dir_all(&instance.store).expect("the store is removed");
        let mut instance = it.start("one");
        stops_saying(&mut instance, &[&it.journal(), "no longer known"]);
        assert_eq!(it.kafka.read_partition(&it.output, 0), before);

        it.kafka.delete_topic(&it.journal());
        delete_offsets(&it);
        let mut instance = it.start("one");
        it.wait_until_caught_up(PATIENCE);
        let output = it.kafka.read_partition(&it.output, 0);
        let output: Vec<Rec> = output
            .into_iter()
            .skip(before.len())
            .map(|it| it.1)
            .collect();
        let input = it.kafka.read_partition(&it.input, 0);
        assert_eq!(output, filtered(&input), "{}", instance.log_tail());
        assert!(instance.terminate().success(), "{}", instance.log_tail());
        rounds.compared(60);
    }
}
