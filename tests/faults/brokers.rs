//! Brokers of a cluster of three are killed, freeze, and are rolled.

use std::time::Duration;

use kafka_dedup::demo::broker::{Cluster, Layout};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use crate::campaign::Rounds;
use crate::kit::{Kafka, wait_for};
use crate::rig::{Holdings, Plan, Rig};

/// Nodes are numbered from 0, as their ids are.
const NODES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);

/// In turn: a leader of the input, the coordinator of a member's transactions, and the group's
/// coordinator are killed; one of these freezes for longer than its session; all are rolled; two are
/// away together, so that nobody leads anything.
pub fn away(rounds: &mut Rounds) {
    let dir = TempDir::new().expect("a directory for the brokers");
    let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let layout = Layout {
        properties: vec![
            property("min.insync.replicas", "2"),
            property("transaction.state.log.min.isr", "2"),
            // A leader that is gone is missed after this long; 9 s unless set.
            property("broker.session.timeout.ms", "4000"),
            property("broker.heartbeat.interval.ms", "1000"),
        ],
        ..Layout::of(NODES)
    };
    let mut cluster = Cluster::start_as(&layout, dir.path()).expect("three brokers");
    let mut kafka = Kafka::at(cluster.bootstrap());
    kafka.replication = 3;
    let mut rig = Rig::of(Plan {
        settings: &[("min.insync.replicas", "2")],
        ..Plan::on(&kafka, "away", rounds.seed)
    });
    let mut pair = ["first", "second"].map(|name| rig.deployment.start(name));
    for instance in &mut pair {
        instance.wait_until_ready();
    }
    rig.flow();
    rig.let_flow(5_000);
    let [first, second] = &mut pair;
    rig.settle(&mut [first, second]);
    let held = Holdings::of(&pair[0]).or(Holdings::of(&pair[1]));
    while let Some(round) = rounds.next() {
        rig.flow();
        rig.let_flow(300);
        let group = rig.deployment.group.clone();
        let targets = [
            Target::leader(&rig.deployment.input, 0),
            Target::coordinator("__transaction_state", &format!("{group}-first-0")),
            Target::coordinator("__consumer_offsets", &group),
        ];
        match round % 6 {
            turn @ 0..=2 => {
                let target = &targets[usize::try_from(turn).expect("small")];
                let node = target.node(&kafka);
                cluster.kill(node);
                target.wait_until_elsewhere(&kafka, node);
                rig.let_flow(300);
                cluster.restart(node).expect("it comes back");
            }
            3 => {
                let target = &targets[usize::try_from(rounds.dice.roll(3)).expect("small")];
                let node = target.node(&kafka);
                let pid = cluster.pid(node).expect("it is up");
                signal(pid, libc::SIGSTOP);
                target.wait_until_elsewhere(&kafka, node);
                rig.let_flow(300);
                signal(pid, libc::SIGCONT);
            }
            4 => {
                for node in 0..NODES {
                    cluster.end(node);
                    rig.let_flow(300);
                    cluster.restart(node).expect("it comes back");
                    wait_until_in_sync(&kafka);
                }
            }
            _ => {
                let stays = usize::try_from(rounds.dice.roll(3)).expect("small");
                let leaving = (0..NODES).filter(|node| *node != stays);
                leaving.clone().for_each(|node| cluster.kill(node));
                let seconds = 3 + rounds.dice.roll(15);
                std::thread::sleep(Duration::from_secs(seconds));
                for node in leaving {
                    cluster.restart(node).expect("it comes back");
                }
            }
        }
        wait_until_in_sync(&kafka);
        rig.let_flow(300);
        for instance in &mut pair {
            assert!(!instance.has_ended(), "it ended:\n{}", instance.log_tail());
        }
        let [first, second] = &mut pair;
        let tally = rig.settle(&mut [first, second]);
        rounds.compared(tally.received);
        for instance in &pair {
            held.assert_given_back(instance);
        }
    }
    for mut instance in pair {
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    }
}

/// A partition whose leader is to be struck.
struct Target {
    topic: String,
    key: Key,
}

enum Key {
    Partition(i32),
    /// The id of a group or of a producer: its hash chooses the partition, and so the coordinator.
    Id(String),
}

impl Target {
    fn leader(topic: &str, partition: i32) -> Self {
        Self {
            topic: topic.to_owned(),
            key: Key::Partition(partition),
        }
    }

    fn coordinator(topic: &str, id: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            key: Key::Id(id.to_owned()),
        }
    }

    /// The node that leads it now.
    fn node(&self, kafka: &Kafka) -> usize {
        let mut node = None;
        wait_for("a leader", PATIENCE, || {
            node = self.leads(kafka);
            node.is_some()
        });
        node.expect("a leader")
    }

    fn wait_until_elsewhere(&self, kafka: &Kafka, node: usize) {
        wait_for("another leader", PATIENCE, || {
            self.leads(kafka).is_some_and(|leader| leader != node)
        });
    }

    fn leads(&self, kafka: &Kafka) -> Option<usize> {
        let client: BaseConsumer = kafka.client().create().expect("a client");
        let metadata = client.fetch_metadata(Some(&self.topic), Duration::from_secs(5));
        let metadata = metadata.ok()?;
        let partitions = metadata.topics().first()?.partitions();
        let count = i32::try_from(partitions.len()).ok().filter(|it| *it > 0)?;
        let wanted = match &self.key {
            Key::Partition(partition) => *partition,
            Key::Id(id) => java_hash(id).checked_abs().unwrap_or(0) % count,
        };
        let found = partitions.iter().find(|it| it.id() == wanted)?;
        usize::try_from(found.leader()).ok()
    }
}

/// `String.hashCode` of ASCII.
fn java_hash(text: &str) -> i32 {
    text.bytes().fold(0_i32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(i32::from(byte))
    })
}

fn wait_until_in_sync(kafka: &Kafka) {
    wait_for("all replicas to be in sync", PATIENCE, || {
        let client: BaseConsumer = kafka.client().create().expect("a client");
        let Ok(metadata) = client.fetch_metadata(None, Duration::from_secs(5)) else {
            return false;
        };
        let mut partitions = metadata.topics().iter().flat_map(|it| it.partitions());
        partitions.all(|it| it.isr().len() == it.replicas().len())
    });
}

fn signal(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).expect("a process id");
    // SAFETY: kill takes two plain integers; the cluster has not waited for this child, so the id is its.
    unsafe { libc::kill(pid, signal) };
}
