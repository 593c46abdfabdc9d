//! The whole scene on this machine: mosquitto, Kafka, the bridge, kafka-dedup and trucks, with a network
//! that loses acknowledgements and connections, and a bridge that is killed; then a comparison.
//!
//! Touches loopback ports, one directory, and processes that end with this one.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use kafka_dedup::demo::audit::Reader;
use kafka_dedup::demo::broker::{self, Cluster};
use kafka_dedup::demo::interrupt::Interrupt;
use kafka_dedup::demo::ports::free_ports;
use kafka_dedup::demo::program::Program;
use kafka_dedup::demo::watch::Watch;
use kafka_dedup::demo::{Record, create_topic, dir, kafka_version, table};
use kafka_dedup::exit::{Status, Stop};
use tokio::runtime::Runtime;

use super::comparison::{Comparison, compare};
use super::mosquitto;
use super::network::Network;
use super::trucks::{Fleet, Plan};

/// As kafka-dedup.yaml has them.
const RAW: &str = "truck_position_raw";
const OUTPUT: &str = "truck_position";
const GROUP: &str = "truck-position-dedup";
const CONFIG: &str = include_str!("kafka-dedup.yaml");
const PARTITIONS: i32 = 4;

const TICK: Duration = Duration::from_millis(50);
const SAY_EVERY: Duration = Duration::from_secs(3);
/// Of so many acknowledgements to the trucks one is lost.
const LOST_ONE_IN: u32 = 40;
/// How often trucks lose their connections, and how many at a time.
const CUT_EVERY: Duration = Duration::from_millis(500);
const CUT: usize = 2;
/// Acknowledgements of the bridge that are lost before its connection is cut, or Kafka stands still.
const BRIDGE_LOSES: u64 = 5;
/// How long Kafka stands still before the bridge is killed.
const STILL_FOR: Duration = Duration::from_secs(1);
/// A supervisor's pause before it starts a dead process again.
const DOWN_FOR: Duration = Duration::from_secs(1);
/// When for so long no further position has arrived in Kafka, none will.
const ARRIVE_WITHIN: Duration = Duration::from_secs(20);
/// For anything else that has to happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// Plays the whole scene on this machine, and compares
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Trucks, each an MQTT client and a record key
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=500))]
    trucks: u64,
    /// Positions that each truck reports
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    positions: u64,
    /// Seconds over which the reports are spread
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Lose nothing and kill nothing; the comparison fails then, as there were no duplicates
    #[arg(long)]
    no_faults: bool,
    /// An empty or new directory for all data and logs; it is left there [default: a temporary one,
    /// left there only when the scene fails]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Plays it, in about 40 s with the defaults.
///
/// # Errors
/// `AuditFailed` (1) when a position is missing, came out twice or otherwise than it must, and when there
/// were no duplicates to remove; 130 when it was stopped; usage (64) when mosquitto, Java, Maven or the
/// directory is not as needed; else internal (70).
pub fn run(args: &RunArgs) -> Result<(), Stop> {
    let interrupt = Interrupt::listen()?;
    dir::within(args.dir.as_deref(), "kafka-dedup-mqtt", &interrupt, |dir| {
        play(args, dir, &interrupt)
    })
}

fn play(args: &RunArgs, dir: &Path, interrupt: &Interrupt) -> Result<(), Stop> {
    let executable = mosquitto::find()?;
    broker::jars(&say)?;
    let failed = |error: io::Error| Stop::internal(format!("cannot set the scene: {error}"));
    let runtime = Runtime::new().map_err(failed)?;
    let ports = free_ports(5).map_err(failed)?;
    let plan = Plan {
        trucks: args.trucks,
        positions: args.positions,
        drive: Duration::from_secs(args.seconds.into()),
        seed: rand::random(),
    };
    say(&format!(
        "starting mosquitto and Apache Kafka {}",
        kafka_version()?
    ));
    let mut mosquitto = mosquitto::start(&executable, &dir.join("mosquitto"), ports[0])?;
    let network = |port| {
        let started = runtime.block_on(Network::start(port, ports[0]));
        started.map_err(failed)
    };
    let (roads, line) = (network(ports[1])?, network(ports[2])?);
    let cluster = Cluster::start(1, dir)?;
    interrupt.check()?;
    let bootstrap = cluster.bootstrap();
    create_topic(&bootstrap, RAW, PARTITIONS)?;
    let mut stage = Stage {
        roads,
        line,
        bridge: bridge(dir, ports[2], &bootstrap)?,
        service: service("run", dir, &bootstrap, &ports[3..])?,
        cluster,
        bridge_kills: 0,
    };
    stage.service.start()?;
    stage.bridge.start()?;
    // What is published before the first subscription is nobody's.
    let mut waiting = Waiting::new("the bridge to subscribe");
    while stage.line.to_client.subscribed.load(Relaxed) == 0 {
        waiting.tick(interrupt, &mut [&mut stage.bridge])?;
    }
    say(&format!(
        "{} trucks set out; mosquitto 127.0.0.1:{}, Kafka {bootstrap}",
        plan.trucks, ports[0]
    ));
    let _inside = runtime.enter();
    let mut fleet = Fleet::start(plan, stage.roads.port);
    stage.drive(args, &mut fleet, &mut mosquitto, interrupt)?;
    let reader = Reader::new(&bootstrap)?;
    stage.await_arrival(plan, &reader, interrupt)?;
    // From here on the raw topic does not change.
    stage.bridge.stop()?;
    let raw = read(&reader, RAW)?;
    stage.await_judgement(&bootstrap, &raw, interrupt)?;
    stage.service.stop()?;
    let mut comparison = compare(plan.ids(), &raw, &read(&reader, OUTPUT)?);
    let right = comparison.differences == 0;
    comparison.must_have_had_duplicates();
    let mut verify = service("verify", dir, &bootstrap, &ports[3..])?;
    verify.start()?;
    let verified = verify.must_end(PATIENCE, "auditing");
    report(&fleet, &stage, &comparison, right, verified.is_ok());
    mosquitto.stop()?;
    stage.cluster.stop();
    verdict(&comparison)?;
    verified.map_err(|stop| Stop {
        status: Status::AuditFailed,
        ..stop
    })
}

/// All that is up while the trucks drive.
struct Stage {
    /// Between the trucks and mosquitto.
    roads: Network,
    /// Between mosquitto and the bridge.
    line: Network,
    bridge: Program,
    service: Program,
    cluster: Cluster,
    bridge_kills: u64,
}

/// What the bridge meets, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// Until so many percent of the reports are made.
    Calm {
        until: u64,
        then: Fault,
    },
    /// Its acknowledgements are lost, until this many were.
    Mute {
        lost: u64,
        then: Fault,
    },
    /// Kafka stands still since that moment: what the bridge takes in is in no other place.
    Still {
        since: Instant,
    },
    /// It was killed at that moment.
    Down {
        since: Instant,
    },
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    Kill,
}

impl Stage {
    /// Has the trucks report everything, through all that happens to them and to the bridge. Returns
    /// when mosquitto has acknowledged every position.
    fn drive(
        &mut self,
        args: &RunArgs,
        fleet: &mut Fleet,
        mosquitto: &mut Program,
        interrupt: &Interrupt,
    ) -> Result<(), Stop> {
        let total = args.trucks * args.positions;
        let mut trial = Trial::Over;
        if !args.no_faults {
            self.roads.to_client.lose_one_in.store(LOST_ONE_IN, Relaxed);
            trial = Trial::Calm {
                until: 25,
                then: Fault::Cut,
            };
        }
        let mut cut = Instant::now();
        let mut said = Instant::now();
        let mut waiting = Waiting::new("the trucks to get their positions acknowledged");
        waiting.deadline += Duration::from_secs(args.seconds.into());
        while !(fleet.has_arrived()? && trial == Trial::Over) {
            waiting.tick(
                interrupt,
                &mut [mosquitto, &mut self.bridge, &mut self.service],
            )?;
            let (reported, acknowledged) = (
                fleet.tally.reported.load(Relaxed),
                fleet.tally.acknowledged.load(Relaxed),
            );
            if !args.no_faults && cut.elapsed() >= CUT_EVERY {
                self.roads.cut(CUT);
                cut = Instant::now();
            }
            trial = self.endure(trial, 100 * reported / total)?;
            if said.elapsed() >= SAY_EVERY {
                say(&format!(
                    "{acknowledged}/{total} positions acknowledged by mosquitto"
                ));
                said = Instant::now();
            }
        }
        Ok(())
    }

    /// The bridge's trial after this moment.
    fn endure(&mut self, trial: Trial, reported_percent: u64) -> Result<Trial, Stop> {
        let acknowledgements = &self.line.to_broker;
        let lost = acknowledgements.lost.load(Relaxed);
        Ok(match trial {
            Trial::Calm { until, then } if reported_percent >= until => {
                acknowledgements.lose_one_in.store(1, Relaxed);
                Trial::Mute {
                    lost: lost + BRIDGE_LOSES,
                    then,
                }
            }
            Trial::Mute { lost: enough, then } if lost >= enough => {
                let next = match then {
                    Fault::Cut => {
                        self.line.cut(1);
                        say("the bridge's connection was cut, with acknowledgements under way");
                        Trial::Calm {
                            until: 50,
                            then: Fault::Kill,
                        }
                    }
                    Fault::Kill => {
                        self.signal_kafka(libc::SIGSTOP);
                        Trial::Still {
                            since: Instant::now(),
                        }
                    }
                };
                self.line.to_broker.lose_one_in.store(0, Relaxed);
                next
            }
            Trial::Still { since } if since.elapsed() >= STILL_FOR => {
                self.bridge.kill();
                self.bridge_kills += 1;
                self.signal_kafka(libc::SIGCONT);
                say("the bridge was killed with -9, while Kafka stood still");
                Trial::Down {
                    since: Instant::now(),
                }
            }
            Trial::Down { since } if since.elapsed() >= DOWN_FOR => {
                self.bridge.start()?;
                Trial::Over
            }
            other => other,
        })
    }

    fn signal_kafka(&self, signal: libc::c_int) {
        let pid = self.cluster.pid(0).map(libc::pid_t::try_from);
        if let Some(Ok(pid)) = pid {
            // SAFETY: kill takes two plain integers; the broker is up and not waited for, so the id is its.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Waits until every position is in the raw topic, or no more of them arrive: which ones are missing
    /// is for the comparison to say. Repetitions may still be on their way.
    fn await_arrival(
        &mut self,
        plan: Plan,
        reader: &Reader,
        interrupt: &Interrupt,
    ) -> Result<(), Stop> {
        let total = plan.trucks * plan.positions;
        let mut progress = (0, Instant::now());
        while progress.1.elapsed() < ARRIVE_WITHIN {
            let raw = read(reader, RAW)?;
            let arrived: HashSet<_> = raw.iter().flatten().map(|record| &record.value).collect();
            if arrived.len() as u64 >= total {
                break;
            }
            if arrived.len() > progress.0 {
                progress = (arrived.len(), Instant::now());
            }
            interrupt.check()?;
            self.bridge.must_run()?;
            self.service.must_run()?;
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Waits until the service has committed a verdict for every record of the raw topic.
    fn await_judgement(
        &mut self,
        bootstrap: &str,
        raw: &[Vec<Record>],
        interrupt: &Interrupt,
    ) -> Result<(), Stop> {
        let count: usize = raw.iter().map(Vec::len).sum();
        let mut watch = Watch::new(bootstrap, GROUP, RAW, PARTITIONS)?;
        let mut waiting = Waiting::new("kafka-dedup to judge all records");
        while watch.judged() < count as u64 {
            waiting.tick(interrupt, &mut [&mut self.service])?;
        }
        Ok(())
    }
}

/// Something that has to happen in time, while programs keep running.
struct Waiting {
    what: &'static str,
    deadline: Instant,
}

impl Waiting {
    fn new(what: &'static str) -> Self {
        let deadline = Instant::now() + PATIENCE;
        Self { what, deadline }
    }

    fn tick(&mut self, interrupt: &Interrupt, programs: &mut [&mut Program]) -> Result<(), Stop> {
        interrupt.check()?;
        for program in programs.iter_mut() {
            program.must_run()?;
        }
        if Instant::now() < self.deadline {
            thread::sleep(TICK);
            return Ok(());
        }
        let what = format!("runs, but waiting for {} took too long", self.what);
        Err(match programs.last() {
            Some(program) => program.complain(&what),
            None => Stop::internal(what),
        })
    }
}

/// This program as the bridge.
fn bridge(dir: &Path, mqtt_port: u16, bootstrap: &str) -> Result<Program, Stop> {
    let port = mqtt_port.to_string();
    let arguments = [
        "bridge",
        "--mqtt-port",
        &port,
        "--bootstrap-servers",
        bootstrap,
    ];
    Ok(Program::new(
        "the bridge",
        this_program()?,
        arguments,
        dir.join("bridge.log"),
    ))
}

/// This program as kafka-dedup, with the config that lies beside this file. What is another here than
/// where it is deployed comes from the environment.
fn service(command: &str, dir: &Path, bootstrap: &str, ports: &[u16]) -> Result<Program, Stop> {
    let config = dir.join("kafka-dedup.yaml");
    fs::write(&config, CONFIG)
        .map_err(|error| Stop::internal(format!("cannot write {}: {error}", config.display())))?;
    let arguments = [
        "kafka-dedup".as_ref(),
        command.as_ref(),
        "-c".as_ref(),
        config.as_os_str(),
    ];
    let log = dir.join(format!("kafka-dedup-{command}.log"));
    let store = dir.join("store").display().to_string();
    let here = [
        ("KAFKA__BOOTSTRAP_SERVERS", bootstrap.to_owned()),
        ("STORE__PATH", store),
        ("HTTP__LISTEN", format!("127.0.0.1:{}", ports[0])),
        ("HTTP__ADMIN", format!("127.0.0.1:{}", ports[1])),
    ];
    let here = here.map(|(key, value)| (format!("KAFKA_DEDUP__{key}"), value));
    Ok(Program::new("kafka-dedup", this_program()?, arguments, log).with_environment(here.into()))
}

fn this_program() -> Result<PathBuf, Stop> {
    env::current_exe().map_err(|error| Stop::internal(format!("cannot find this program: {error}")))
}

/// All records of a topic, by partition.
fn read(reader: &Reader, topic: &str) -> Result<Vec<Vec<Record>>, Stop> {
    (0..PARTITIONS)
        .map(|partition| reader.read(topic, partition))
        .collect()
}

fn report(fleet: &Fleet, stage: &Stage, found: &Comparison, right: bool, verified: bool) {
    let sent = fleet.tally.sent.load(Relaxed);
    let lost = &stage.roads.to_client.lost;
    let passed = |passed| if passed { "passed" } else { "FAILED" }.to_owned();
    table(&[
        (
            "positions that the trucks reported",
            found.reported.to_string(),
        ),
        (
            "acknowledgements to trucks lost",
            lost.load(Relaxed).to_string(),
        ),
        (
            "connections of trucks cut",
            stage.roads.cut.load(Relaxed).to_string(),
        ),
        (
            "sent again by trucks",
            sent.saturating_sub(found.reported).to_string(),
        ),
        (
            "connections of the bridge cut",
            stage.line.cut.load(Relaxed).to_string(),
        ),
        ("bridge killed with -9", stage.bridge_kills.to_string()),
        ("records in truck_position_raw", found.raw.to_string()),
        (
            "  duplicates: sent again by the truck",
            found.sent_again.to_string(),
        ),
        (
            "  duplicates: delivered again to the bridge",
            found.delivered_again.to_string(),
        ),
        (
            "  marked DUP by MQTT, and no duplicates",
            found.marked_first.to_string(),
        ),
        ("records in truck_position", found.output.to_string()),
        (
            "each position once, in order, nothing missing",
            passed(right),
        ),
        ("kafka-dedup verify", passed(verified)),
    ]);
}

/// # Errors
/// `AuditFailed` (1) with the first differences.
fn verdict(found: &Comparison) -> Result<(), Stop> {
    if found.differences == 0 {
        return Ok(());
    }
    Err(Stop {
        status: Status::AuditFailed,
        sentence: format!(
            "not what it must be, {} differences, the first of them:\n  {}",
            found.differences,
            found.described.join("\n  ")
        ),
    })
}

fn say(line: &str) {
    eprintln!("{line}");
}
