//! The same job done by other programs: the same input, the same broker, in turns.
//!
//! ```text
//! cargo bench --bench peers                               all programs, small: figures of no worth
//! cargo bench --bench peers -- --heavy                    all shapes and latencies: two hours
//! cargo bench --bench peers -- --ids 300000 --duplicates 50 --programs kafka-dedup,kafka-streams-1
//! cargo bench --bench peers -- --heavy --latency --every 20
//! cargo bench --bench peers -- --heavy --pinned           broker and program with a core each
//! cargo bench --bench peers -- --heavy --watched          kafka-dedup beside itself while somebody looks at it
//! cargo bench --bench peers -- document                   docs/benchmarks.md from the last results
//! ```
//!
//! Every output is read back, with committed records alone, and each id must be there once: a program
//! whose output is wrong is named beside its figures, and the exit status is 1. Results are added to
//! `target/bench-results/peers.jsonl`, `peers-latency.jsonl`, `peers-pinned.jsonl` and `watched.jsonl`.

mod audit;
#[allow(dead_code, reason = "benches/scaling needs more of it")]
mod cluster;
#[path = "../document.rs"]
mod document;
mod jvm;
#[path = "../../tests/kit/mod.rs"]
mod kit;
mod latency;
#[allow(dead_code, reason = "the questions need more of it")]
#[path = "../measure.rs"]
mod measure;
mod pass_through;
mod programs;
mod quix;
#[allow(dead_code, reason = "the questions need more of it")]
#[path = "../reader.rs"]
mod reader;
#[allow(dead_code, reason = "the questions need more of it")]
#[path = "../results.rs"]
mod results;
#[allow(dead_code, reason = "benches/scaling needs more of it")]
mod shape;
#[allow(dead_code, reason = "the questions need more of it")]
#[path = "../stream.rs"]
mod stream;
mod throughput;
mod watched;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use kafka_dedup::demo::kafka_version;

use cluster::Broker;
use programs::Program;
use results::{Size, allowed, scratch};
use shape::{Compression, Shape};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Full size, all shapes, latencies: two hours
    #[arg(long)]
    heavy: bool,
    /// One shape instead: distinct ids
    #[arg(long)]
    ids: Option<u64>,
    /// One shape instead: bytes of a value
    #[arg(long)]
    value: Option<usize>,
    /// One shape instead: duplicates in percent
    #[arg(long)]
    duplicates: Option<u64>,
    /// One shape instead: partitions
    #[arg(long)]
    partitions: Option<i32>,
    /// One shape instead: compression
    #[arg(long)]
    compression: Option<Compression>,
    #[arg(long)]
    rounds: Option<usize>,
    /// Some programs instead of all
    #[arg(long, value_delimiter = ',')]
    programs: Vec<Program>,
    /// Latencies alone
    #[arg(long)]
    latency: bool,
    /// Latencies with a commit every so many ms, instead of all
    #[arg(long, value_delimiter = ',')]
    every: Vec<u64>,
    /// One shape with the broker and the program pinned to a core each, alone
    #[arg(long, conflicts_with = "latency")]
    pinned: bool,
    /// Something else instead: kafka-dedup with a reader of its page and a scraper beside kafka-dedup without
    #[arg(long, conflicts_with_all = ["programs", "latency", "pinned"])]
    watched: bool,
    /// What `cargo bench` adds, behind all else
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// docs/benchmarks.md from the last results
    Document,
    /// The floor, as a process of its own
    #[command(hide = true)]
    PassThrough {
        config: PathBuf,
        input: String,
        output: String,
    },
}

/// The shape that the others differ from in one thing each.
const REFERENCE: Shape = Shape {
    ids: 1_000_000,
    value_bytes: 200,
    duplicates_percent: 10,
    partitions: 8,
    compression: Compression::None,
};

/// Shapes, and how many rounds each has.
fn full() -> Vec<(Shape, usize)> {
    let other = [
        REFERENCE,
        Shape {
            value_bytes: 1000,
            ..REFERENCE
        },
        Shape {
            duplicates_percent: 1,
            ..REFERENCE
        },
        Shape {
            duplicates_percent: 50,
            ..REFERENCE
        },
        Shape {
            partitions: 64,
            ..REFERENCE
        },
        Shape {
            compression: Compression::Lz4,
            ..REFERENCE
        },
    ];
    let base = Shape {
        ids: 2_700_000,
        ..REFERENCE
    };
    let large = Shape {
        ids: 10_000_000,
        ..REFERENCE
    };
    let mut shapes = vec![(base, 3)];
    shapes.extend(other.map(|shape| (shape, 3)));
    shapes.push((large, 1));
    shapes.retain(|(shape, _)| allowed(shape.ids) == shape.ids);
    shapes
}

fn main() -> ExitCode {
    let args = Args::parse();
    // As `cargo bench --bench peers -- document` has it.
    debug_assert!(Args::try_parse_from(["peers", "document", "--bench"]).is_ok());
    match &args.command {
        Some(Command::Document) => {
            document::run(
                "benchmarks.md",
                &["peers", "peers-latency", "peers-pinned", "watched"],
                "peers-machine",
                &versions(),
            );
            return ExitCode::SUCCESS;
        }
        Some(Command::PassThrough {
            config,
            input,
            output,
        }) => {
            pass_through::run(config, input, output);
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    if measure(&args) {
        ExitCode::SUCCESS
    } else {
        eprintln!("an output was not what it is to be: see WRONG OUTPUT above");
        ExitCode::FAILURE
    }
}

fn measure(args: &Args) -> bool {
    let own = Shape {
        ids: args
            .ids
            .unwrap_or(if args.heavy { REFERENCE.ids } else { 18_000 }),
        value_bytes: args.value.unwrap_or(REFERENCE.value_bytes),
        duplicates_percent: args.duplicates.unwrap_or(REFERENCE.duplicates_percent),
        partitions: args.partitions.unwrap_or(REFERENCE.partitions),
        compression: args.compression.unwrap_or(REFERENCE.compression),
    };
    let is_own =
        own != Shape {
            ids: own.ids,
            ..REFERENCE
        } || args.ids.is_some();
    let size = if args.heavy { Size::Heavy } else { Size::Small };
    let mut shapes = match size {
        _ if args.watched => vec![(own, 4)],
        Size::Heavy if !is_own => full(),
        _ => vec![(own, 1)],
    };
    if let Some(rounds) = args.rounds {
        shapes.iter_mut().for_each(|shape| shape.1 = rounds);
    }
    let mut programs = args.programs.clone();
    if args.watched {
        programs = vec![Program::KafkaDedup, Program::Watched];
    } else if programs.is_empty() {
        programs = Program::value_variants().to_vec();
    }
    programs.iter().for_each(|program| program.install());
    let dir = scratch();
    let broker = Broker::start(dir.path());
    let mut right = true;
    let everything = !(is_own || args.watched || args.latency || args.pinned);
    if !(args.latency || args.pinned) {
        results::begin(if args.watched { "watched" } else { "peers" }, size);
        for (shape, rounds) in &shapes {
            let mut programs = programs.clone();
            if args.programs.is_empty() && size == Size::Heavy && *shape != REFERENCE {
                // On one shape only.
                programs.retain(|program| *program != Program::Quix);
            }
            right &= throughput::measure(&broker, shape, &programs, *rounds, None);
        }
    }
    if args.latency || everything {
        results::begin("peers-latency", size);
        let mut intervals: &[u64] = size.pick(&[100], &[10, 20, 50, 100]);
        if !args.every.is_empty() {
            intervals = &args.every;
        }
        let rounds = args.rounds.unwrap_or(size.pick(1, 3));
        right &= latency::measure(&broker, &own, &programs, intervals, rounds, size);
    }
    // The last, as the broker stays pinned.
    if args.pinned || everything && size == Size::Heavy {
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
            eprintln!(
                "broker and program pinned to a core each: left out, as this machine has one core"
            );
            broker.stop();
            return right && !args.pinned;
        }
        results::begin("peers-pinned", size);
        programs.retain(|program| !matches!(program, Program::Streams2 | Program::Quix));
        broker.pin(0);
        let rounds = args.rounds.unwrap_or(size.pick(1, 3));
        right &= throughput::measure(&broker, &own, &programs, rounds, Some(1));
    }
    broker.stop();
    right
}

/// Of all that ran beside kafka-dedup.
fn versions() -> String {
    let java = std::process::Command::new("java").arg("-version").output();
    let java = java.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    let java = java.unwrap_or_default();
    format!(
        "{}, Apache Kafka {} (broker, Kafka Streams and Java client), {}, {}",
        document::versions_of(&["rdkafka"]),
        kafka_version().unwrap_or("?"),
        quix::version(),
        java.lines().next().unwrap_or("Java ?")
    )
}
