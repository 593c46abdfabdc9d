//! The programs that do the same job, each as one process of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::ValueEnum;
use kafka_dedup::demo::ports::free_ports;
use kafka_dedup::demo::{java, last_lines, process};

use crate::results::OURS;
use crate::shape::{Compression, ID_HEADER};
use crate::{jvm, quix};

/// What an id in a map of the Java client takes: a string of 36 characters, its bytes, a boxed time, an
/// entry of the map and its place in the table.
const HEAP_BYTES_AN_ID: u64 = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Program {
    KafkaDedup,
    /// The same, while somebody looks: see [`crate::watched`].
    #[value(skip)]
    Watched,
    PassThrough,
    #[value(name = "kafka-streams-1")]
    Streams1,
    #[value(name = "kafka-streams-2")]
    Streams2,
    JavaClient,
    Quix,
}

/// What a program is told.
pub struct Job<'a> {
    pub bootstrap: &'a str,
    pub input: &'a str,
    pub output: &'a str,
    pub group: &'a str,
    pub interval_ms: u64,
    pub compression: Compression,
    /// Distinct ids to come, for those that hold them on a heap of a given size.
    pub ids: u64,
    /// Empty, for all it writes.
    pub dir: &'a Path,
    /// The only core it may use.
    pub core: Option<usize>,
    /// Of `http.listen` and `http.admin` of kafka-dedup.
    pub ports: [u16; 2],
}

/// Two that are free.
pub fn ports() -> [u16; 2] {
    let ports = free_ports(2).expect("free ports");
    ports.try_into().expect("two of them")
}

impl Job<'_> {
    /// Where it keeps what it has to know after a restart.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn log_end(&self) -> String {
        last_lines(&self.log(), 30)
    }
}

impl Program {
    pub fn name(self) -> &'static str {
        match self {
            Self::KafkaDedup => OURS,
            Self::Watched => "kafka-dedup, watched",
            Self::PassThrough => "pass-through",
            Self::Streams1 => "Kafka Streams, 1 thread",
            Self::Streams2 => "Kafka Streams, 2 threads",
            Self::JavaClient => "Java client, HashMap",
            Self::Quix => "Quix Streams",
        }
    }

    /// Whether it is to let each id through once. The floor lets through everything.
    pub fn judges(self) -> bool {
        self != Self::PassThrough
    }

    /// Python takes minutes for a million records: once is enough.
    fn most_rounds(self) -> usize {
        if self == Self::Quix { 1 } else { usize::MAX }
    }

    /// What has to be there before it can start.
    pub fn install(self) {
        match self {
            Self::KafkaDedup | Self::Watched | Self::PassThrough => {}
            Self::Streams1 | Self::Streams2 | Self::JavaClient => jvm::build(),
            Self::Quix => quix::install(),
        }
    }

    pub fn start(self, job: &Job<'_>) -> Child {
        let mut command = match self {
            Self::KafkaDedup | Self::Watched => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-dedup"));
                command.args(["run", "-c"]).arg(config(job));
                command
            }
            Self::PassThrough => {
                let this = std::env::current_exe().expect("this program");
                let mut command = Command::new(this);
                command
                    .arg("pass-through")
                    .arg(config(job))
                    .args([job.input, job.output]);
                command
            }
            Self::Streams1 => streams(job, 1),
            Self::Streams2 => streams(job, 2),
            Self::JavaClient => {
                let heap_mib = 512 + job.ids * HEAP_BYTES_AN_ID / (1 << 20);
                let mut command = jvm_program(job, "peers.ClientDedup", heap_mib);
                command.arg("transaction.records=20000");
                command
            }
            Self::Quix => {
                let mut command = Command::new(quix::python());
                command
                    .arg(quix::program())
                    .args(arguments(job))
                    .arg(format!("state={}", job.state().display()));
                command
            }
        };
        if let Some(core) = job.core {
            command = on_core(core, &command);
        }
        let log = File::create(job.log()).expect("a log");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        process::spawn(command).unwrap_or_else(|error| panic!("{} starts: {error}", self.name()))
    }
}

/// Whose turn it is, round by round, as places in `programs`: another one is the first each time.
pub fn turns(programs: &[Program], rounds: usize) -> Vec<Vec<usize>> {
    let count = programs.len();
    let of_round = |round: usize| -> Vec<usize> {
        let places = (0..count).map(|turn| (round + turn) % count);
        let due = places.filter(|at: &usize| round < programs[*at].most_rounds());
        due.collect()
    };
    (0..rounds).map(of_round).collect()
}

/// The same with one core, known to it before it counts them.
fn on_core(core: usize, command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned
        .args(["--cpu-list", &core.to_string()])
        .arg(command.get_program())
        .args(command.get_args());
    pinned
}

fn streams(job: &Job<'_>, threads: u32) -> Command {
    // Its store is beside the heap.
    let mut command = jvm_program(job, "peers.StreamsDedup", 512);
    command.args([
        format!("state={}", job.state().display()),
        format!("threads={threads}"),
        "window.hours=24".to_owned(),
    ]);
    command
}

fn jvm_program(job: &Job<'_>, class: &str, heap_mib: u64) -> Command {
    let mut command = Command::new(java().expect("Java"));
    command
        .arg(format!("-Xmx{heap_mib}m"))
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .arg("-cp")
        .arg(jvm::class_path())
        .arg(class)
        .args(arguments(job));
    command
}

fn arguments(job: &Job<'_>) -> [String; 6] {
    [
        format!("bootstrap={}", job.bootstrap),
        format!("input={}", job.input),
        format!("output={}", job.output),
        format!("group={}", job.group),
        format!("interval.ms={}", job.interval_ms),
        format!("compression={}", job.compression.name()),
    ]
}

/// A file of the service with nothing in it but what has to be said.
fn config(job: &Job<'_>) -> PathBuf {
    let mut yaml = String::new();
    let _ = write!(
        yaml,
        r#"kafka:
  bootstrap_servers: "{bootstrap}"
  group_id: {group}
  instance_id: peers
  producer_properties: {{compression.type: {compression}}}
input: {{topics: [{input}]}}
output: {{topic: {output}}}
id: {{from: {{header: {ID_HEADER}}}}}
window: {{time: 24h}}
store: {{path: "{state}"}}
transaction: {{interval: {interval}ms}}
http: {{listen: "127.0.0.1:{http}", admin: "127.0.0.1:{admin}"}}
"#,
        bootstrap = job.bootstrap,
        group = job.group,
        compression = job.compression.name(),
        input = job.input,
        output = job.output,
        state = job.state().display(),
        interval = job.interval_ms,
        http = job.ports[0],
        admin = job.ports[1],
    );
    let path = job.dir.join("kafka-dedup.yaml");
    fs::write(&path, yaml).expect("a config");
    path
}
