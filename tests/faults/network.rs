//! The network between the program and its broker fails in every way; see [`crate::proxy`].

use std::time::Duration;

use kafka_dedup::demo::broker::{Cluster, Layout, Listener};
use kafka_dedup::demo::ports::free_ports;
use tempfile::TempDir;

use crate::campaign::Rounds;
use crate::kit::{Instance, Kafka, wait_for};
use crate::proxy::{Act, Proxy, Weather};
use crate::rig::{Holdings, Plan, Rig};

/// What a frame or an answer is held back for: longer than the transaction time-out (4 s), which is
/// also what bounds each of the producer's requests.
const LATE: Duration = Duration::from_secs(6);
/// What makes the network show what it does.
const PATIENCE: Duration = Duration::from_secs(60);

const FETCH: i16 = 1;
const PRODUCE: i16 = 0;
const LIST_OFFSETS: i16 = 2;
const OFFSET_FETCH: i16 = 9;
const JOIN_GROUP: i16 = 11;
const HEARTBEAT: i16 = 12;
const SYNC_GROUP: i16 = 14;
const INIT_PRODUCER_ID: i16 = 22;
const ADD_PARTITIONS_TO_TXN: i16 = 24;
const ADD_OFFSETS_TO_TXN: i16 = 25;
const END_TXN: i16 = 26;
const TXN_OFFSET_COMMIT: i16 = 28;

#[derive(Debug)]
enum Disturbance {
    /// All frames, for a while.
    All(Weather),
    /// Requests of one kind, one to so many of them.
    Requests(i16, Act, u64),
    /// The same, while a member is killed and starts again: only then are such requests sent.
    AtStart(i16, Act, u64),
}

use Disturbance::{All, AtStart, Requests};

const BOTH_WAYS: Weather = hole(true, true);

const fn hole(requests: bool, answers: bool) -> Weather {
    Weather::Hole { requests, answers }
}

const DISTURBANCES: [Disturbance; 41] = [
    // The short form has the first 21.
    // Nobody may ask where an assigned partition ends: librdkafka would go on there once the answer
    // came late, and skip records.
    AtStart(LIST_OFFSETS, Act::HoldAnswer(LATE), 1),
    All(Weather::Cut),
    All(BOTH_WAYS),
    All(hole(true, false)),
    All(hole(false, true)),
    All(Weather::Delay(Duration::from_millis(200))),
    All(Weather::Loss(5)),
    Requests(END_TXN, Act::LoseAnswer, 4),
    Requests(END_TXN, Act::LoseRequest, 4),
    Requests(END_TXN, Act::HoldAnswer(LATE), 2),
    Requests(END_TXN, Act::HoldRequest(LATE), 2),
    Requests(ADD_OFFSETS_TO_TXN, Act::LoseAnswer, 4),
    Requests(ADD_OFFSETS_TO_TXN, Act::HoldRequest(LATE), 2),
    Requests(TXN_OFFSET_COMMIT, Act::LoseAnswer, 4),
    Requests(TXN_OFFSET_COMMIT, Act::HoldRequest(LATE), 2),
    AtStart(INIT_PRODUCER_ID, Act::LoseAnswer, 1),
    AtStart(INIT_PRODUCER_ID, Act::HoldRequest(LATE), 1),
    AtStart(OFFSET_FETCH, Act::LoseAnswer, 3),
    AtStart(JOIN_GROUP, Act::LoseAnswer, 2),
    Requests(HEARTBEAT, Act::HoldRequest(LATE), 2),
    Requests(PRODUCE, Act::HoldRequest(LATE), 2),
    // What is left, in the long form.
    Requests(PRODUCE, Act::LoseAnswer, 8),
    Requests(PRODUCE, Act::LoseRequest, 8),
    Requests(PRODUCE, Act::HoldAnswer(LATE), 2),
    Requests(ADD_PARTITIONS_TO_TXN, Act::LoseAnswer, 4),
    Requests(ADD_PARTITIONS_TO_TXN, Act::HoldRequest(LATE), 2),
    Requests(ADD_OFFSETS_TO_TXN, Act::HoldAnswer(LATE), 2),
    Requests(ADD_OFFSETS_TO_TXN, Act::LoseRequest, 4),
    Requests(TXN_OFFSET_COMMIT, Act::HoldAnswer(LATE), 2),
    Requests(TXN_OFFSET_COMMIT, Act::LoseRequest, 4),
    Requests(HEARTBEAT, Act::HoldAnswer(LATE), 2),
    Requests(HEARTBEAT, Act::LoseAnswer, 8),
    Requests(FETCH, Act::HoldAnswer(LATE), 2),
    Requests(FETCH, Act::LoseAnswer, 8),
    AtStart(OFFSET_FETCH, Act::HoldRequest(LATE), 2),
    AtStart(OFFSET_FETCH, Act::HoldAnswer(LATE), 2),
    AtStart(JOIN_GROUP, Act::HoldRequest(LATE), 2),
    AtStart(JOIN_GROUP, Act::HoldAnswer(LATE), 2),
    AtStart(SYNC_GROUP, Act::HoldAnswer(LATE), 2),
    AtStart(INIT_PRODUCER_ID, Act::HoldAnswer(LATE), 1),
    All(Weather::Loss(20)),
];

/// A broker with a way in that leads through the proxy.
struct Network {
    proxy: Proxy,
    kafka: Kafka,
    _cluster: Cluster,
    _dir: TempDir,
}

impl Network {
    fn start(seed: u64) -> Self {
        let ports = free_ports(2).expect("free ports");
        let layout = Layout {
            listeners: vec![Listener {
                name: "PROXIED".to_owned(),
                protocol: "PLAINTEXT".to_owned(),
                ports: vec![ports[0]],
                advertised: vec![ports[1]],
            }],
            // A transaction that is given up is ended soon after its time-out.
            properties: vec![(
                "transaction.abort.timed.out.transaction.cleanup.interval.ms".to_owned(),
                "1000".to_owned(),
            )],
            ..Layout::of(1)
        };
        let dir = TempDir::new().expect("a directory for the broker");
        let cluster = Cluster::start_as(&layout, dir.path()).expect("a Kafka broker");
        Self {
            proxy: Proxy::start(ports[1], ports[0], seed),
            kafka: Kafka::at(cluster.bootstrap()),
            _cluster: cluster,
            _dir: dir,
        }
    }
}

/// Two members behind the proxy; the judge and the upstream service have a line of their own.
pub fn disturbed(rounds: &mut Rounds) {
    let network = Network::start(rounds.seed);
    let mut rig = Rig::of(Plan {
        extra: "transaction: {interval: 25ms, timeout: 4s}\n",
        ..Plan::on(&network.kafka, "disturbed", rounds.seed)
    });
    let variable = "KAFKA_DEDUP__KAFKA__BOOTSTRAP_SERVERS";
    let way_in = (variable.to_owned(), network.proxy.address());
    rig.deployment.env.push(way_in);
    let mut pair = ["first", "second"].map(|name| Member::start(&rig, name));
    rig.flow();
    rig.let_flow(5_000);
    let [first, second] = &mut pair;
    rig.settle(&mut [&mut first.instance, &mut second.instance]);
    let held = Holdings::of(&pair[0].instance).or(Holdings::of(&pair[1].instance));
    while let Some(round) = rounds.next() {
        let place = usize::try_from(round).expect("small") % DISTURBANCES.len();
        eprintln!("network: round {round}: {:?}", DISTURBANCES[place]);
        rig.flow();
        rig.let_flow(300);
        disturb(
            &network.proxy,
            &DISTURBANCES[place],
            &rig,
            rounds,
            &mut pair[0],
        );
        network.proxy.heal();
        rig.let_flow(300);
        for member in &mut pair {
            member.start_again_if_fenced(&rig);
        }
        let [first, second] = &mut pair;
        let tally = rig.settle(&mut [&mut first.instance, &mut second.instance]);
        rounds.compared(tally.received);
        for member in &pair {
            held.assert_given_back(&member.instance);
        }
    }
    for mut member in pair {
        let status = member.instance.terminate();
        assert!(status.success(), "{}", member.instance.log_tail());
    }
}

/// Returns when it has really happened.
fn disturb(
    proxy: &Proxy,
    disturbance: &Disturbance,
    rig: &Rig,
    rounds: &mut Rounds,
    member: &mut Member,
) {
    let (struck, refused) = (proxy.struck(), proxy.refused());
    match *disturbance {
        All(weather) => {
            proxy.set(weather);
            let goal = match weather {
                Weather::Delay(_) | Weather::Loss(_) => 40,
                _ => 1,
            };
            wait_for("frames to be struck", PATIENCE, || {
                proxy.struck() >= struck + goal
                    && (weather != Weather::Cut || proxy.refused() > refused)
            });
            std::thread::sleep(Duration::from_millis(1_000 + rounds.dice.roll(7_000)));
        }
        Requests(api, act, most) => {
            proxy.trap(api, act, 1 + rounds.dice.roll(most));
            wait_for("a request to be caught", PATIENCE, || {
                proxy.struck() > struck
            });
        }
        AtStart(api, act, most) => {
            proxy.trap(api, act, 1 + rounds.dice.roll(most));
            member.kill_and_start(rig);
            if api == LIST_OFFSETS {
                member.instance.wait_until_ready();
                std::thread::sleep(LATE);
                rig.let_flow(600);
                assert_eq!(proxy.struck(), struck, "nobody asks for the end");
                return;
            }
            wait_for("a request to be caught", PATIENCE, || {
                proxy.struck() > struck
            });
        }
    }
    rig.let_flow(600);
}

/// One of the group's members.
struct Member {
    name: &'static str,
    instance: Instance,
}

impl Member {
    fn start(rig: &Rig, name: &'static str) -> Self {
        let mut instance = rig.deployment.start(name);
        instance.wait_until_ready();
        Self { name, instance }
    }

    fn kill_and_start(&mut self, rig: &Rig) {
        self.instance.end();
        self.instance = rig.deployment.start(self.name);
    }

    /// A request of its own that arrives late may fence a producer; 75 asks for another start.
    fn start_again_if_fenced(&mut self, rig: &Rig) {
        if self.instance.has_ended() {
            let status = self.instance.wait(Duration::ZERO);
            assert_eq!(status.code(), Some(75), "{}", self.instance.log_tail());
            eprintln!("{} ended with 75:\n{}", self.name, self.instance.log_tail());
            self.instance = rig.deployment.start(self.name);
        }
    }
}
