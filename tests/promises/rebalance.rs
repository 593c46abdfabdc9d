//! Members come, go, freeze and return: the output is still equal, and a zombie commits nothing.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use kafka_dedup::config::from_str;
use kafka_dedup::source::Source;

use crate::crash::rounds;
use crate::exactly_once::by_header;
use crate::kit::kin::reads;
use crate::kit::stream::Stream;
use crate::kit::{Deployment, Instance, wait_for};

const WAIT: Duration = Duration::from_secs(40);

fn scale(assignor: &str, transaction: &str) {
    let transaction = format!("transaction: {{{transaction}, timeout: 10s}}\n");
    let mut deployment = Deployment::new("scale", 4, &transaction);
    deployment.consumer_properties.push((
        "partition.assignment.strategy".to_owned(),
        assignor.to_owned(),
    ));
    let stream = Stream::start(&deployment.kafka, &deployment.input, 4, 21);
    let mut instances = vec![deployment.start("m0")];
    instances[0].wait_until_ready();
    for count in [2, 4, 5] {
        while instances.len() < count {
            instances.push(deployment.start(&format!("m{}", instances.len())));
        }
        for instance in &mut instances {
            instance.wait_until_ready();
        }
        std::thread::sleep(Duration::from_millis(800));
    }
    // Five members, four partitions: one is idle, and ready all the same.
    wait_for("one of five to idle", Duration::from_secs(30), || {
        let owned: Vec<usize> = instances
            .iter()
            .map(|instance| {
                let (_, text) = instance.get("/metrics").expect("metrics");
                text.lines()
                    .filter(|line| line.starts_with("kafka_dedup_partition_active{"))
                    .count()
            })
            .collect();
        owned.iter().sum::<usize>() == 4 && owned.contains(&0)
    });
    while instances.len() > 1 {
        let mut leaving = instances.remove(0);
        assert!(leaving.terminate().success(), "{}", leaving.log_tail());
        std::thread::sleep(Duration::from_millis(500));
    }
    stream.finish();
    deployment.wait_until_caught_up(Duration::from_secs(90));
    deployment.assert_output(|_, input| by_header(input));
    assert!(instances[0].terminate().success());
}

#[test]
fn scaling_1_2_4_5_1_cooperative() {
    scale("cooperative-sticky", "interval: 30ms");
}

#[test]
fn scaling_1_2_4_5_1_eager() {
    scale("range", "interval: 30ms");
}

/// Transactions so small that there is always more than they take: each is committed while the next records
/// are read, of partitions that may be going to another member.
#[test]
fn scaling_while_a_backlog_is_read_ahead_cooperative() {
    scale("cooperative-sticky", "records: 20");
}

#[test]
fn scaling_while_a_backlog_is_read_ahead_eager() {
    scale("range", "records: 20");
}

#[test]
fn frozen_past_its_session_then_thawed() {
    // A transaction time-out shorter than the freeze in every second round: then the coordinator
    // has ended the zombie's transaction, and its epoch with it.
    let deployment = Deployment::new("frozen", 2, "transaction: {interval: 30ms, timeout: 4s}\n");
    let stream = Stream::start(&deployment.kafka, &deployment.input, 2, 31);
    let mut first = deployment.start("first");
    first.wait_until_ready();
    let mut second = deployment.start("second");
    second.wait_until_ready();
    for round in 0..rounds(4) {
        let (frozen, other) = if round % 2 == 0 {
            (&first, &second)
        } else {
            (&second, &first)
        };
        let before = other.metric("kafka_dedup_records_received_total");
        frozen.freeze();
        std::thread::sleep(Duration::from_millis(if round % 2 == 0 {
            2500
        } else {
            6500
        }));
        // What the frozen one left open holds its partitions up until the transaction time-out.
        wait_for("the other to take over", Duration::from_secs(20), || {
            other.metric("kafka_dedup_records_received_total") > before + 500.0
        });
        frozen.thaw();
        std::thread::sleep(Duration::from_millis(1500));
    }
    stream.finish();
    // A zombie may end with 75, so that its supervisor starts it again; it must not hang.
    let mut alive = 0;
    for instance in [&mut first, &mut second] {
        if instance.has_ended() {
            assert_eq!(
                instance.wait(Duration::ZERO).code(),
                Some(75),
                "{}",
                instance.log_tail()
            );
        } else {
            alive += 1;
        }
    }
    assert!(alive > 0, "somebody must have survived");
    deployment.wait_until_caught_up(Duration::from_secs(90));
    deployment.assert_output(|_, input| by_header(input));
}

#[test]
fn two_processes_with_the_same_instance_id() {
    let deployment = Deployment::new("twins", 2, "transaction: {interval: 30ms, timeout: 10s}\n");
    let stream = Stream::start(&deployment.kafka, &deployment.input, 2, 51);
    let mut first = deployment.start("twin");
    first.wait_until_ready();
    let mut second = deployment.start("twin");
    wait_for(
        "one of the twins to give up",
        Duration::from_secs(60),
        || first.has_ended() || second.has_ended(),
    );
    let (loser, winner) = if first.has_ended() {
        (&mut first, &mut second)
    } else {
        (&mut second, &mut first)
    };
    assert_eq!(
        loser.wait(Duration::ZERO).code(),
        Some(75),
        "{}",
        loser.log_tail()
    );
    assert!(
        loser.log_text().contains("kafka.instance_id"),
        "{}",
        loser.log_tail()
    );
    stream.finish();
    deployment.wait_until_caught_up(Duration::from_secs(90));
    deployment.assert_output(|_, input| by_header(input));
    assert!(winner.terminate().success(), "{}", winner.log_tail());
}

/// A rolling upgrade, once by SIGTERM and once by kill -9: who comes back under its name within its session has its
/// partitions again, and those of the others do not move.
#[test]
fn members_with_names_are_replaced_and_nobody_elses_partitions_move() {
    let mut deployment =
        Deployment::new("named", 6, "transaction: {interval: 50ms, timeout: 10s}\n");
    deployment.env.push((
        "KAFKA_DEDUP__KAFKA__STATIC_MEMBERSHIP".to_owned(),
        "true".to_owned(),
    ));
    deployment.consumer_properties = vec![
        ("session.timeout.ms".to_owned(), "45000".to_owned()),
        ("heartbeat.interval.ms".to_owned(), "500".to_owned()),
    ];
    let names = ["pod-0", "pod-1", "pod-2"];
    let mut members: Vec<_> = names.iter().map(|name| deployment.start(name)).collect();
    for member in &mut members {
        member.wait_until_ready();
    }
    wait_for("two partitions each", Duration::from_secs(90), || {
        members.iter().all(|member| reads(member) == 2)
    });
    let stream = Stream::start(&deployment.kafka, &deployment.input, 6, 23);
    std::thread::sleep(Duration::from_secs(1));
    let moved = |member: &Instance| {
        let of = |event| {
            member.metric(&format!(
                "kafka_dedup_rebalances_total{{event=\"{event}\"}}"
            ))
        };
        of("revoked") + of("lost")
    };
    let own = |member: &Instance| {
        let (_, text) = member.get("/metrics").expect("metrics");
        let lines = text.lines();
        let active = lines.filter(|line| line.starts_with("kafka_dedup_partition_active{"));
        active
            .map(|line| line.split('}').next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    for is_asked in [true, false] {
        for (turn, name) in names.iter().enumerate() {
            let mut gone = members.remove(turn);
            let had = own(&gone);
            let before: Vec<f64> = members.iter().map(moved).collect();
            let since = Instant::now();
            if is_asked {
                assert!(gone.terminate().success(), "{}", gone.log_tail());
            } else {
                gone.end();
            }
            drop(gone);
            let mut back = deployment.start(name);
            back.wait_until_ready();
            wait_for("its partitions", Duration::from_secs(40), || {
                reads(&back) == 2
            });
            eprintln!("{name}: away for {:?}", since.elapsed());
            assert_eq!(own(&back), had, "{name}");
            let after: Vec<f64> = members.iter().map(moved).collect();
            assert_eq!(after, before, "while {name} was replaced");
            members.insert(turn, back);
        }
    }
    assert!(stream.finish() > 0);
    deployment.wait_until_caught_up(Duration::from_secs(90));
    deployment.assert_output(|_, input| by_header(input));
    for member in &mut members {
        assert!(member.terminate().success(), "{}", member.log_tail());
    }
}

/// A group that waits for another member puts a named one out while it is joining: it comes back under another id, with
/// what it had, and must not go on as if nothing had been.
#[test]
fn a_named_member_that_was_put_out_while_joining_takes_its_partitions_anew() {
    let mut deployment = Deployment::new(
        "put-out",
        2,
        "transaction: {interval: 30ms, timeout: 10s}\n",
    );
    let text = fs::read_to_string(deployment.config_file()).expect("the config");
    let config = from_str(&text, "test", &BTreeMap::new()).expect("valid");
    deployment.env.push((
        "KAFKA_DEDUP__KAFKA__STATIC_MEMBERSHIP".to_owned(),
        "true".to_owned(),
    ));
    let stream = Stream::start(&deployment.kafka, &deployment.input, 2, 24);
    let mut member = deployment.start("named");
    member.wait_until_ready();
    // It never polls, so it acknowledges nothing, and the group waits for it.
    let other = Source::create(&config, 0).expect("a consumer");
    let topics = std::slice::from_ref(&deployment.input);
    other.subscribe(topics).expect("subscribed");
    let told = |member: &Instance, event| {
        let name = format!("kafka_dedup_rebalances_total{{event=\"{event}\"}}");
        member.try_metric(&name).unwrap_or(0.0)
    };
    wait_for("a partition to be given up", WAIT, || {
        told(&member, "revoked") > 0.0
    });
    // A client joins once a second at most.
    std::thread::sleep(Duration::from_millis(2500));
    deployment.kafka.put_out(&deployment.group, "named-0");
    std::thread::sleep(Duration::from_secs(3));
    drop(other);
    wait_for("its loss to be noticed", WAIT, || {
        told(&member, "lost") > 0.0
    });
    wait_for("its partitions", WAIT, || reads(&member) == 2);
    assert!(
        member
            .log_text()
            .contains("comes back to its group with partitions"),
        "{}",
        member.log_tail()
    );
    assert!(stream.finish() > 0);
    deployment.wait_until_caught_up(Duration::from_secs(90));
    deployment.assert_output(|_, input| by_header(input));
    assert!(member.terminate().success(), "{}", member.log_tail());
}
