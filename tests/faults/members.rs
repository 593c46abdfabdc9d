//! Members of the group freeze, meet their twin, come and go.

use std::time::Duration;

use crate::campaign::Rounds;
use crate::kit::{Instance, wait_for};
use crate::rig::{Holdings, Plan, Rig};

/// The transaction time-out is 4 s, the session 2 s: a freeze lasts longer than one or both.
pub fn frozen(rounds: &mut Rounds) {
    let mut rig = Rig::of(Plan {
        extra: "transaction: {interval: 25ms, timeout: 4s}\n",
        ..Plan::new("frozen", rounds.seed)
    });
    rig.flow();
    let mut pair = [
        rig.deployment.start("first"),
        rig.deployment.start("second"),
    ];
    for instance in &mut pair {
        instance.wait_until_ready();
    }
    let mut flowing = true;
    while let Some(round) = rounds.next() {
        if !flowing {
            rig.flow();
        }
        let frozen = usize::from(round % 2 == 1);
        let held = Holdings::of(&pair[1 - frozen]);
        rig.let_flow(300);
        pair[frozen].freeze();
        let past_the_transaction = rounds.dice.roll(2) == 0;
        std::thread::sleep(Duration::from_millis(if past_the_transaction {
            6_500
        } else {
            2_500
        }));
        pair[frozen].thaw();
        rig.let_flow(500);
        // A zombie may end with 75, so that its supervisor starts it again; it must not hang.
        let [first, second] = &mut pair;
        for (name, instance) in [("first", &mut *first), ("second", &mut *second)] {
            if instance.has_ended() {
                let status = instance.wait(Duration::ZERO);
                assert_eq!(status.code(), Some(75), "{}", instance.log_tail());
                *instance = rig.deployment.start(name);
                instance.wait_until_ready();
            }
        }
        let tally = rig.settle(&mut [&mut *first, &mut *second]);
        flowing = false;
        rounds.compared(tally.received);
        held.assert_given_back(&pair[1 - frozen]);
    }
    for mut instance in pair {
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    }
}

/// One of the two gives up with 75 and says why, the other goes on.
pub fn twins(rounds: &mut Rounds) {
    let mut rig = Rig::of(Plan::new("twins", rounds.seed));
    while let Some(_round) = rounds.next() {
        rig.flow();
        let mut first = rig.deployment.start("twin");
        first.wait_until_ready();
        let store = rig.deployment.dir.path().join("store-of-the-other");
        let command = std::process::Command::new(crate::kit::BINARY);
        let mut second = rig.deployment.start_on("twin", store, &[], command);
        wait_for(
            "one of the twins to give up",
            Duration::from_secs(90),
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
        let tally = rig.settle(&mut [winner]);
        rounds.compared(tally.received);
        assert!(winner.terminate().success(), "{}", winner.log_tail());
    }
}

/// In turns of ten rounds, a group of its own each: how members are told their partitions.
pub fn rebalanced(rounds: &mut Rounds) {
    let ways = [
        ("cooperative-sticky", ""),
        ("range", ""),
        ("cooperative-sticky", "static"),
    ];
    let mut way = 0;
    while group_of(rounds, ways[way % 3]) {
        way += 1;
    }
}

/// Ten rounds of one group; `false` when there are no more.
fn group_of(rounds: &mut Rounds, (assignor, membership): (&str, &str)) -> bool {
    let mut rig = Rig::of(Plan {
        partitions: 3,
        ..Plan::new("rebalanced", rounds.seed)
    });
    let property = ("partition.assignment.strategy", assignor);
    rig.deployment
        .consumer_properties
        .push((property.0.to_owned(), property.1.to_owned()));
    if membership == "static" {
        let variable = ("KAFKA_DEDUP__KAFKA__STATIC_MEMBERSHIP", "true");
        rig.deployment
            .env
            .push((variable.0.to_owned(), variable.1.to_owned()));
    }
    let mut next_name = 1;
    let mut members = vec![rig.deployment.start("m0")];
    members[0].wait_until_ready();
    for turn in 0..10 {
        let Some(_round) = rounds.next() else {
            end(members);
            return false;
        };
        rig.flow();
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(rounds.dice.roll(500)));
            let chosen = rounds
                .dice
                .roll(u64::try_from(members.len()).expect("small"));
            let chosen = usize::try_from(chosen).expect("small");
            match rounds.dice.roll(4) {
                _ if members.len() == 1 => {}
                0 => members.remove(chosen).kill(),
                1 => {
                    let mut leaving = members.remove(chosen);
                    assert!(leaving.terminate().success(), "{}", leaving.log_tail());
                }
                _ => {}
            }
            if members.len() < 4 {
                members.push(rig.deployment.start(&format!("m{next_name}")));
                next_name += 1;
            }
        }
        if turn == 4 {
            rig.grow(5);
        }
        let mut survivors: Vec<&mut Instance> = members.iter_mut().collect();
        let tally = rig.settle(&mut survivors);
        rounds.compared(tally.received);
    }
    end(members);
    true
}

fn end(members: Vec<Instance>) {
    for mut member in members {
        assert!(member.terminate().success(), "{}", member.log_tail());
    }
}
