//! The source by itself. It starts where it is told to. What it reads ahead of its use is given out later in the same
//! order, and forgotten with all that the client itself forgets. It knows when what it has may have been another's, and
//! can be let go of at any time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_dedup::config::from_str;
use kafka_dedup::source::{Partition, Rebalance, Source};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};

use crate::kit::{Rec, broker, now_ms, unique};

const WAIT: Duration = Duration::from_millis(10);

/// A member of the topic's own group that has asked for the topic; `kafka` is the rest of that section.
fn subscribed(topic: &str, kafka: &str) -> Source {
    let text = format!(
        "kafka: {{bootstrap_servers: \"{}\", group_id: {topic}, {kafka}}}\ninput: {{topics: [{topic}]}}\nid: {{from: key}}\n",
        broker().bootstrap()
    );
    let config = from_str(&text, "test", &BTreeMap::new()).expect("valid");
    let source = Source::create(&config, 0).expect("a consumer");
    source.subscribe(&[topic.to_owned()]).expect("subscribed");
    source
}

/// A turn of a member that reads nothing yet.
fn turn(source: &mut Source) -> Option<Rebalance> {
    match source.poll(WAIT) {
        // A member that does not poll is told so.
        None | Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::PollExceeded))) => {}
        Some(Err(error)) => panic!("{error}"),
        Some(Ok(_)) => panic!("nothing was started"),
    }
    source.next_rebalance()
}

fn next_rebalance(source: &mut Source) -> Rebalance {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "no rebalance");
        if let Some(event) = turn(source) {
            return event;
        }
    }
}

fn acknowledge(source: &mut Source, event: &Rebalance) {
    let answered = match event {
        Rebalance::Assigned(partitions) => source.acknowledge_assigned(partitions),
        Rebalance::Revoked(partitions) | Rebalance::Lost(partitions) => {
            source.acknowledge_revoked(partitions)
        }
    };
    answered.expect("acknowledged");
}

/// A member with both partitions of a topic, which have offsets 0 to 99. Ids are in a header, which is as long as is
/// said here.
fn started(header_bytes: usize) -> (Source, [Partition; 2]) {
    let kafka = broker();
    let topic = unique("ahead");
    kafka.create_topic(&topic, 2, &[]);
    let records: Vec<Rec> = (0..100)
        .map(|number| Rec::with_id(format!("{number:0header_bytes$}"), now_ms()))
        .collect();
    for partition in [0, 1] {
        kafka.produce(&topic, partition, &records);
    }
    let mut source = subscribed(&topic, "instance_id: i");
    let assigned = next_rebalance(&mut source);
    acknowledge(&mut source, &assigned);
    let both = [0, 1].map(|partition| (topic.clone(), partition));
    for partition in &both {
        while source.start(partition, 0).is_err() {
            drop(source.poll(WAIT));
        }
    }
    (source, both)
}

/// Reads `most` records ahead, or fewer: until it reads no more. How many there are.
fn fill(source: &mut Source, most: usize) -> usize {
    let begun = Instant::now();
    let (_, mut ahead) = source.while_committing();
    while ahead.read(WAIT, most) {
        assert!(begun.elapsed() < Duration::from_secs(60), "not filled");
    }
    ahead.records()
}

/// Partition and offset of the next record.
fn next(source: &mut Source) -> (i32, i64) {
    let begun = Instant::now();
    let place = |record: BorrowedMessage<'_>| (record.partition(), record.offset());
    loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing comes");
        if let Some(read) = source.poll(WAIT) {
            return place(read.expect("a record"));
        }
    }
}

/// The offsets of the rest of both partitions, in the order in which they come.
fn rest(source: &mut Source) -> [Vec<i64>; 2] {
    let mut rest = [Vec::new(), Vec::new()];
    while rest.iter().any(|offsets| offsets.last() != Some(&99)) {
        let (partition, offset) = next(source);
        rest[usize::try_from(partition).expect("0 or 1")].push(offset);
    }
    rest
}

/// librdkafka looks a logical start offset up, and looks again half a second after a seek that
/// overtook the answer: the second answer must not move us.
#[test]
fn a_start_right_after_the_assignment_skips_nothing() {
    let kafka = broker();
    for protocol in ["cooperative-sticky", "range"] {
        let topic = unique("overtaken");
        // Retention has taken the beginning: no offset is valid but those that are there.
        kafka.create_topic(&topic, 1, &[]);
        let records = |from: i64, to: i64| -> Vec<Rec> {
            let record = |n: i64| Rec::with_id(n.to_string(), now_ms());
            (from..to).map(record).collect()
        };
        kafka.produce(&topic, 0, &records(0, 20));
        kafka.delete_before(&topic, 0, 10);
        let member = format!(
            "instance_id: i, consumer_properties: {{partition.assignment.strategy: {protocol}}}"
        );
        let mut source = subscribed(&topic, &member);
        let mut got = Vec::new();
        let mut produced = 20;
        let begun = Instant::now();
        while got.last() != Some(&219) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{protocol}: {got:?}"
            );
            match source.poll(WAIT) {
                Some(Ok(record)) => {
                    got.push(record.offset());
                    continue;
                }
                Some(Err(error)) => panic!("{protocol}: {error}"),
                None => {}
            }
            if let Some(Rebalance::Assigned(partitions)) = source.next_rebalance() {
                source.acknowledge_assigned(&partitions).expect("assigned");
                source.start(&partitions[0], 10).expect("started");
            }
            // While the records come in, over more than the half second.
            if !got.is_empty() && produced < 220 {
                kafka.produce(&topic, 0, &records(produced, produced + 10));
                produced += 10;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        assert_eq!(got, (10..220).collect::<Vec<i64>>(), "{protocol}");
    }
}

#[test]
fn what_is_read_ahead_comes_later_and_in_order() {
    let (mut source, both) = started(10);
    let (partition, offset) = next(&mut source);
    assert_eq!(fill(&mut source, 150), 150);
    // The client counts all of it as delivered, and nobody has had it yet.
    let positions = source.positions();
    let began: Vec<i64> = both.iter().map(|it| positions[it]).collect();
    let one = i64::from(partition == 1);
    assert_eq!((offset, began), (0, vec![1 - one, one]));
    let [zero, first] = rest(&mut source);
    assert_eq!(zero, (1 - one..100).collect::<Vec<_>>());
    assert_eq!(first, (one..100).collect::<Vec<_>>());
    assert!(source.positions().values().all(|position| *position == 100));
}

#[test]
fn what_is_read_ahead_is_forgotten_with_a_pause_a_seek_and_a_revocation() {
    let (mut source, both) = started(10);
    assert_eq!(fill(&mut source, 200), 200);
    source.pause(&both[..1]).expect("paused");
    source.start(&both[1], 40).expect("started");
    source.start(&both[0], 30).expect("started");
    let [zero, first] = rest(&mut source);
    assert_eq!(zero, (30..100).collect::<Vec<_>>());
    assert_eq!(first, (40..100).collect::<Vec<_>>());

    for partition in &both {
        source.start(partition, 0).expect("started");
    }
    assert_eq!(fill(&mut source, 200), 200);
    source.acknowledge_revoked(&both).expect("given back");
    assert!(source.poll(WAIT).is_none(), "it is not ours any more");
}

#[test]
fn records_of_long_headers_are_read_ahead_up_to_a_bound_of_bytes() {
    let (mut source, _) = started(60_000);
    // The first that come to 4 MiB.
    assert_eq!(fill(&mut source, 200), 70);
    let [zero, one] = rest(&mut source);
    let all: Vec<i64> = (0..100).collect();
    assert_eq!([&zero, &one], [&all, &all]);
    assert_eq!(fill(&mut source, 0), 0);
}

/// A member with a name that the group puts out while it is joining comes back under another id, and librdkafka claims
/// what it had: that is told as a loss, whether another member had it in between or not.
fn put_out_while_joining(another_has_it: bool) {
    let kafka = broker();
    let topic = unique("put-out");
    kafka.create_topic(&topic, 2, &[]);
    let named = |name| {
        let member = format!(
            "instance_id: {name}, static_membership: true, consumer_properties: {{heartbeat.interval.ms: 200}}"
        );
        subscribed(&topic, &member)
    };
    let mut first = named("first");
    let both = next_rebalance(&mut first);
    assert!(matches!(&both, Rebalance::Assigned(all) if all.len() == 2));
    acknowledge(&mut first, &both);
    assert!(first.membership().is_some());

    // It does not say that it has heard of its first assignment, and the group waits for that with the next.
    let mut second = named("second");
    let revoked = next_rebalance(&mut first);
    assert!(
        matches!(&revoked, Rebalance::Revoked(one) if one.len() == 1),
        "{revoked:?}"
    );
    acknowledge(&mut first, &revoked);
    let rest = next_rebalance(&mut first);
    assert!(
        matches!(&rest, Rebalance::Assigned(none) if none.is_empty()),
        "{rest:?}"
    );
    acknowledge(&mut first, &rest);
    // A client joins once a second at most.
    std::thread::sleep(Duration::from_millis(2500));
    kafka.put_out(&topic, "first-0");
    if another_has_it {
        // The first comes back a second later at the earliest, so this is over long before, unless the machine is busy.
        let begun = Instant::now();
        let mut has_both = false;
        while !has_both && begun.elapsed() < Duration::from_secs(3) {
            if let Some(event) = turn(&mut second) {
                acknowledge(&mut second, &event);
                has_both = matches!(event, Rebalance::Assigned(all) if all.len() == 2);
            }
        }
    } else {
        std::thread::sleep(Duration::from_secs(3));
    }

    let mut next_of_first = || {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is told");
            if let Some(event) = turn(&mut second) {
                acknowledge(&mut second, &event);
            }
            if let Some(event) = turn(&mut first) {
                let member = first.membership().is_some();
                acknowledge(&mut first, &event);
                return (event, member, first.membership().is_some());
            }
        }
    };
    let (lost, was_member, _) = next_of_first();
    assert!(
        matches!(&lost, Rebalance::Lost(one) if one.len() == 1),
        "{lost:?}"
    );
    assert!(!was_member, "not as what it was");
    loop {
        let (event, _, is_member) = next_of_first();
        if matches!(event, Rebalance::Assigned(one) if one.len() == 1) {
            assert!(is_member);
            return;
        }
    }
}

#[test]
fn what_a_member_had_that_was_put_out_is_lost_and_assigned_anew() {
    put_out_while_joining(false);
}

#[test]
fn what_another_member_had_in_between_is_lost() {
    put_out_while_joining(true);
}

/// librdkafka waits for an answer to each rebalance that it has told of, also when it is to be closed.
#[test]
fn a_source_is_let_go_of_with_a_rebalance_that_was_not_acknowledged() {
    for (protocol, last) in [
        ("cooperative-sticky", "assigned"),
        ("cooperative-sticky", "assigned nothing"),
        ("cooperative-sticky", "revoked"),
        ("cooperative-sticky", "lost"),
        ("range", "assigned"),
        ("range", "revoked"),
        ("range", "lost"),
    ] {
        let topic = unique("let-go");
        broker().create_topic(&topic, 2, &[]);
        let another = |name| {
            let member = format!(
                "instance_id: {name}, consumer_properties: {{partition.assignment.strategy: {protocol}, session.timeout.ms: 2000, max.poll.interval.ms: 2000}}"
            );
            subscribed(&topic, &member)
        };
        let mut source = another("one");
        let mut event = next_rebalance(&mut source);
        let mut others = Vec::new();
        if last != "assigned" {
            acknowledge(&mut source, &event);
            match last {
                "assigned nothing" => others.push(std::mem::replace(&mut source, another("two"))),
                "revoked" => others.push(another("two")),
                _ => std::thread::sleep(Duration::from_secs(4)),
            }
            event = next_rebalance(&mut source);
        }
        let is_it = match &event {
            Rebalance::Assigned(none) if none.is_empty() => last == "assigned nothing",
            Rebalance::Assigned(_) => last == "assigned",
            Rebalance::Revoked(_) => last == "revoked",
            Rebalance::Lost(_) => last == "lost",
        };
        assert!(is_it, "{protocol}, {last}: {event:?}");
        let (gone, is_gone) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(source);
            let _ = gone.send(());
        });
        assert!(
            is_gone.recv_timeout(Duration::from_secs(20)).is_ok(),
            "{protocol}: not let go of, {last}"
        );
    }
}
