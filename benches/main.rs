//! What the seen window costs, one file a question, each beside what else one could use for the job.
//!
//! ```text
//! cargo bench --bench questions                      all questions, small: seconds, figures of no worth
//! cargo bench --bench questions -- --heavy           all questions at full size: about half an hour
//! cargo bench --bench questions -- filter growth     some of them
//! cargo bench --bench questions -- document          docs/benchmarks.md from the last results
//! ```
//!
//! Every figure is measured in the same run as its yardsticks, in turns (A B A B), because machines
//! differ and are shared. Every question checks what it measures: a wrong verdict ends the run.
//! `KAFKA_DEDUP_BENCH_MOST_IDS` leaves out windows that are larger than a machine has room for.
//! Results are added to `target/bench-results/<question>.jsonl`.

mod disk;
mod document;
mod filter;
mod growth;
mod lookup;
mod measure;
mod memory;
mod page;
mod reader;
mod restart;
mod restore;
mod results;
mod scrape;
mod stream;
mod verdict;
mod yardsticks;

use results::Size;

type Question = (&'static str, fn(Size));

const QUESTIONS: [Question; 10] = [
    ("filter", filter::run),
    ("verdict", verdict::run),
    ("lookup", lookup::run),
    ("growth", growth::run),
    ("memory", memory::run),
    ("disk", disk::run),
    ("restart", restart::run),
    ("restore", restore::run),
    ("scrape", scrape::run),
    ("page", page::run),
];

fn main() {
    // `cargo bench` adds --bench.
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["child", "memory", side, ids] => return memory::child(side, ids),
        ["child", "restart", dir, journal_end, ids] => {
            return restart::child(dir, journal_end, ids);
        }
        ["document"] => {
            let yardsticks = ["bloomfilter", "fastbloom", "fjall", "redb", "sled"];
            return document::run(
                "benchmarks.md",
                &QUESTIONS.map(|(question, _)| question),
                "machine",
                &document::versions_of(&yardsticks),
            );
        }
        _ => {}
    }
    let heavy_by_env = std::env::var("KAFKA_DEDUP_BENCH").is_ok_and(|size| size == "heavy");
    let mut size = if heavy_by_env {
        Size::Heavy
    } else {
        Size::Small
    };
    let mut wanted = Vec::new();
    for arg in &args {
        match arg.as_str() {
            "--heavy" => size = Size::Heavy,
            name => wanted.push(
                QUESTIONS
                    .into_iter()
                    .find(|(question, _)| *question == name)
                    .unwrap_or_else(|| panic!("there is no question {name}")),
            ),
        }
    }
    if wanted.is_empty() {
        wanted.extend(QUESTIONS);
    }
    for (name, run) in wanted {
        results::begin(name, size);
        run(size);
    }
}
