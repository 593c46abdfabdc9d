//! `kafka-dedup plan`: what a rate and a window take, before anything is deployed. Flags become a
//! [`Load`], [`model`] does the arithmetic, `text` writes it down. Touches the configuration file and
//! the environment; never Kafka.

pub mod model;
mod text;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use crate::config::{self, Config, Flags};
use crate::exit::Stop;
pub use model::{Load, Plan};

const NOTES: &str = "\
How it works: arithmetic, with the constants of this build; nothing is measured, Kafka is not asked.
`kafka-dedup scan` tells the share of duplicates of a topic that is there. Ids of any length take
the same, as fingerprints of 16 bytes are remembered. docs/sizing.md has the formulas.

Examples:
  kafka-dedup plan --rate 5000 --window 24h
  kafka-dedup plan --rate 20000 --window 1h --duplicates 30% --partitions 48 --instances 4
  kafka-dedup plan --rate 20000 -c dedup.yaml --json

Exit status: 0 done, 64 bad usage or config.";

/// `kafka-dedup plan`
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = NOTES)]
pub struct PlanArgs {
    /// Records a second, of all partitions together
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: f64,
    /// How long an id is remembered [default: 24h, or the file's]
    #[arg(long, value_name = "DURATION", value_parser = window)]
    window: Option<Duration>,
    /// How many ids a partition remembers at most [default: no such limit, or the file's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    ids: Option<u64>,
    /// The share of records that repeat an id, in percent
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = percent)]
    duplicates: f64,
    /// Partitions of the input, all topics together
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    partitions: u32,
    /// Processes that share the partitions
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    instances: u32,
    /// A record's key, value and headers
    #[arg(long, value_name = "SIZE", default_value = "1KB")]
    record: ByteSize,
    /// Replicas of each topic
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    replication: u32,
    /// Configuration file (YAML): `window`, `store`, `transaction`, `workers` and `duplicates` are used
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON document: bytes, seconds, and counts
    #[arg(long)]
    json: bool,
}

/// Prints the plan.
///
/// # Errors
/// Bad usage or config: 64.
pub fn run(arguments: &PlanArgs) -> Result<(), Stop> {
    let config = arguments.config()?;
    let plan = Plan::of(arguments.load(), &config);
    let out = if arguments.json {
        serde_json::to_string_pretty(&plan)
            .map_err(|error| Stop::internal(format!("the plan is no JSON: {error}")))?
            + "\n"
    } else {
        text::write(&plan, &config)
    };
    // A reader that has seen enough is no failure.
    let _ = io::stdout().write_all(out.as_bytes());
    Ok(())
}

impl PlanArgs {
    fn load(&self) -> Load {
        Load {
            rate: self.rate,
            duplicates: self.duplicates,
            partitions: self.partitions,
            instances: self.instances,
            record_bytes: self.record.as_u64(),
            replication: self.replication,
        }
    }

    /// The file's, or the defaults; with the window of the flags.
    fn config(&self) -> Result<Config, Stop> {
        let env = config::environment();
        let mut config = match &self.config {
            Some(file) => config::load(file, env)?,
            None => config::from_flags(
                Flags {
                    topic: "any",
                    bootstrap_servers: "any:9092",
                    id: "key",
                    registry: None,
                    properties: &[],
                },
                &env,
            )?,
        };
        let window = &mut config.window;
        if let Some(time) = self.window {
            window.time_ms = Some(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        }
        window.ids = self.ids.or(window.ids);
        Ok(config)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let parsed = text.parse::<f64>().ok();
    parsed
        .filter(|rate| (0.001..=1e9).contains(rate))
        .ok_or_else(|| {
            "expected records a second from 0.001 to 1000000000, such as 5000".to_owned()
        })
}

fn percent(text: &str) -> Result<f64, String> {
    let parsed = text.trim_end_matches('%').parse::<f64>().ok();
    parsed
        .filter(|percent| (0.0..=99.9).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "expected a percentage from 0% to 99.9%, such as 5%".to_owned())
}

fn window(text: &str) -> Result<Duration, String> {
    let ten_years = Duration::from_secs(3_650 * 86_400);
    let parsed = humantime::parse_duration(text).ok();
    parsed
        .filter(|time| (Duration::from_secs(1)..=ten_years).contains(time))
        .ok_or_else(|| "expected a duration from 1s to 3650d, such as 24h or 90m".to_owned())
}

#[cfg(test)]
mod tests;
