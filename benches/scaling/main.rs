//! How the service scales: over partitions, workers and instances, on a real broker.
//!
//! ```text
//! cargo bench --bench scaling                               all questions, small: figures of no worth
//! cargo bench --bench scaling -- --heavy                    all questions, up to 1,000 partitions: 20 minutes
//! cargo bench --bench scaling -- --heavy rebalance          some of them
//! cargo bench --bench scaling -- --partitions 300 rebalance
//! cargo bench --bench scaling -- document                   docs/scaling.md from the last results
//! ```
//!
//! Every output is read back, with committed records alone, and each id must be there once: what is wrong
//! is told, and the exit status is 1. Results are added to `target/bench-results/scaling-*.jsonl`.

#[path = "../peers/audit.rs"]
mod audit;
#[allow(dead_code, reason = "benches/peers needs more of it")]
#[path = "../peers/cluster.rs"]
mod cluster;
#[path = "../document.rs"]
mod document;
mod feeder;
mod group;
#[path = "../../tests/kit/mod.rs"]
mod kit;
#[allow(dead_code, reason = "the questions need more of it")]
#[path = "../measure.rs"]
mod measure;
mod pauses;
mod process;
mod rebalance;
#[allow(dead_code, reason = "the questions need more of it")]
#[path = "../results.rs"]
mod results;
#[allow(dead_code, reason = "benches/peers needs more of it")]
#[path = "../peers/shape.rs"]
mod shape;
mod standby;
#[allow(dead_code, reason = "the questions need more of it")]
#[path = "../stream.rs"]
mod stream;
mod throughput;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use kafka_dedup::demo::kafka_version;

use cluster::Broker;
use results::{Size, scratch};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Full size, up to 1,000 partitions: 20 minutes
    #[arg(long)]
    heavy: bool,
    /// So many partitions instead, where one number is measured
    #[arg(long)]
    partitions: Option<i32>,
    /// Some questions instead of all
    questions: Vec<Question>,
    /// What `cargo bench` adds, behind all else
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// docs/scaling.md from the last results
    Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Question {
    /// Records a second and CPU a record, by partitions and instances
    Throughput,
    /// All partitions in one process
    Process,
    /// Members join, leave and are replaced
    Rebalance,
    /// Partitions are taken over, with a store and without
    Standby,
}

/// As the results have them.
const RESULTS: [&str; 6] = [
    "scaling-throughput",
    "scaling-cost",
    "scaling-process",
    "scaling-rebalance",
    "scaling-rolling",
    "scaling-standby",
];

fn main() -> ExitCode {
    let args = Args::parse();
    // As `cargo bench --bench scaling -- document` has it.
    debug_assert!(Args::try_parse_from(["scaling", "document", "--bench"]).is_ok());
    if let Some(Command::Document) = args.command {
        document::run("scaling.md", &RESULTS, "scaling-machine", &versions());
        return ExitCode::SUCCESS;
    }
    if measure(&args) {
        ExitCode::SUCCESS
    } else {
        eprintln!("an output was not what it is to be: see WRONG OUTPUT above");
        ExitCode::FAILURE
    }
}

fn measure(args: &Args) -> bool {
    let size = if args.heavy { Size::Heavy } else { Size::Small };
    let partitions = args.partitions.unwrap_or(size.pick(24, 1000));
    let is_asked = |question| args.questions.is_empty() || args.questions.contains(&question);
    let dir = scratch();
    let broker = Broker::start(dir.path());
    let mut right = true;
    if is_asked(Question::Throughput) {
        right &= throughput::measure(&broker, size);
    }
    if is_asked(Question::Process) {
        results::begin("scaling-process", size);
        right &= process::measure(&broker, partitions, size);
    }
    if is_asked(Question::Rebalance) {
        // As many as a member should have, and far more.
        let few_and_many = size.pick(vec![24], vec![60, 1000]);
        for partitions in args.partitions.map_or(few_and_many, |it| vec![it]) {
            right &= rebalance::measure(&broker, partitions, size);
        }
    }
    if is_asked(Question::Standby) {
        results::begin("scaling-standby", size);
        right &= standby::measure(&broker, size);
    }
    broker.stop();
    right
}

/// Of what ran beside the service.
fn versions() -> String {
    format!(
        "{}, Apache Kafka {}",
        document::versions_of(&["rdkafka", "sled"]),
        kafka_version().unwrap_or("?")
    )
}
