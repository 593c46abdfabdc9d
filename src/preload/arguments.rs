//! The command line of `preload`: flags become a configuration, a source of ids, and where the input
//! begins. Touches the configuration file and the environment; never Kafka.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{self, Config, IdSource, PartitionBy, Scope, TopicPattern};
use crate::exit::Stop;
use crate::journal::Terms;
use crate::topics::OwnTopics;

const NOTES: &str = "\
What it does: it writes ids to the journal as if the service had let them through, and commits where the
group begins to read the input; then `kafka-dedup run` goes on from there. For a group that has not begun:
with committed offsets, or runs of the service in the journal, it is refused (78).

Ids of a topic (--from-topic, of the config's output where no name is given): id.from takes them, partition
by partition, so the topic has as many partitions as the input. An id counts from its record's timestamp on,
limited as stream time is; every record with an id counts, also a repeated one.

Ids of a file (--from-file): an id a line, or CSV with a head that names its columns: id (or fingerprint, as
`export` writes it), and if you like time (milliseconds since 1970, or 2026-01-31T12:00:00Z; else now) and
partition. Lines are in the order of their times. Without a partition an id goes to every partition: it is
remembered once for each. An export can only be preloaded for the same kafka.group_id and id.from.

It may be stopped or killed at any time: then the service refuses to start, and preload can be run again,
which begins anew. While it works it is a member of the group.

Examples:
  kafka-dedup preload -c dedup.yaml --from-topic --start-at latest
  kafka-dedup preload -c dedup.yaml --from-topic old_output --from 48h --start-at 2026-01-31T12:00:00Z
  kafka-dedup preload -c dedup.yaml --from-file seen.csv --start-at earliest

Exit status: 0 done, 64 bad usage, config or file, 69 Kafka unreachable, 75 not finished: run it again,
78 the group has begun already, or topics do not fit, 130 stopped.";

/// `kafka-dedup preload`
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = NOTES)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["from_topic", "from_file"]))]
pub struct PreloadArgs {
    /// Configuration file (YAML)
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Take ids from the records of this topic [default: the output of the config]
    #[arg(long, value_name = "TOPIC", num_args = 0..=1, default_missing_value = "")]
    from_topic: Option<String>,
    /// Take ids from this file
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Where the group begins to read the input: earliest, latest, or a time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "WHERE")]
    start_at: StartAt,
    /// The input topic, where the config has several
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// How far back the topic is read: earliest, a time, or how long ago [default: window.time]
    #[arg(long, value_name = "WHEN", conflicts_with = "from_file")]
    from: Option<crate::scan::From>,
    /// The ids of the file are bytes in hexadecimal
    #[arg(long, requires = "from_file")]
    hex: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Where the group begins to read a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    Latest,
    /// At the first record that is not older, in ms; at the end where there is none.
    Time(i64),
}

impl FromStr for StartAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => time_ms(text).map(Self::Time).ok_or_else(|| {
                "expected earliest, latest, or a time in UTC such as 2026-01-31T12:00:00Z"
                    .to_owned()
            }),
        }
    }
}

/// A time as RFC 3339 in UTC, or as milliseconds since 1970.
pub fn time_ms(text: &str) -> Option<i64> {
    if let Ok(ms) = text.parse::<i64>() {
        return Some(ms);
    }
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// Where ids come from.
#[derive(Debug, Clone)]
pub enum Source {
    Topic(FromTopic),
    File { path: PathBuf, hex: bool },
}

#[derive(Debug, Clone)]
pub struct FromTopic {
    pub name: String,
    /// `None` is the earliest record.
    pub from_ms: Option<i64>,
}

/// What is to be done, checked as far as it can be without Kafka.
pub struct Order {
    pub config: Config,
    /// The input.
    pub topic: String,
    pub source: Source,
    pub start_at: StartAt,
    pub terms: Terms,
    /// The wall clock at the start, in ms.
    pub wall_ms: i64,
}

impl Order {
    /// What a time counts as: one too far ahead of the clock counts as the clock.
    pub fn limited(&self, time_ms: i64) -> i64 {
        match time_ms > self.wall_ms.saturating_add(self.config.window.max_ahead_ms) {
            true => self.wall_ms,
            false => time_ms,
        }
    }
}

impl PreloadArgs {
    /// # Errors
    /// Usage (64), with what is wrong with the flags, or with the file.
    pub fn order(&self, now: SystemTime) -> Result<Order, Stop> {
        let config = config::load(&self.config, config::environment())?;
        let topic = self.input(&config)?;
        let wall = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let source = match (&self.from_topic, &self.from_file) {
            (Some(name), _) => Source::Topic(FromTopic {
                name: from_topic(name, &topic, &config)?,
                from_ms: match (self.from, config.window.time_ms) {
                    (Some(from), _) => from.ms(now)?,
                    (None, Some(ms)) => {
                        let ago = Duration::from_millis(ms.unsigned_abs());
                        crate::scan::From::Ago(ago).ms(now)?
                    }
                    (None, None) => None,
                },
            }),
            (None, Some(path)) => Source::File {
                path: path.clone(),
                hex: self.hex,
            },
            (None, None) => {
                return Err(Stop::usage("expected --from-topic or --from-file"));
            }
        };
        Ok(Order {
            terms: Terms::from(&config),
            topic,
            source,
            start_at: self.start_at,
            wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
            config,
        })
    }

    fn input(&self, config: &Config) -> Result<String, Stop> {
        let inputs: Vec<&str> = config
            .input
            .topics
            .iter()
            .map(TopicPattern::as_str)
            .collect();
        match (&self.topic, &config.input.topics[..]) {
            (Some(topic), _) if OwnTopics::new(config).resolve(&[topic]).is_empty() => {
                Err(Stop::usage(format!(
                    "--topic {topic}: it is no input of this config, whose input.topics are {}",
                    inputs.join(", ")
                )))
            }
            (Some(topic), _) => Ok(topic.clone()),
            (None, [TopicPattern::Name(only)]) => Ok(only.clone()),
            (None, _) => Err(Stop::usage(format!(
                "--topic: say which input is to be preloaded, as input.topics are {}",
                inputs.join(", ")
            ))),
        }
    }
}

fn from_topic(name: &str, input: &str, config: &Config) -> Result<String, Stop> {
    if config.scope == Scope::Repartition {
        return Err(Stop::usage(
            "--from-topic: with scope: repartition, ids of several partitions meet in one seen set, in the order of their times, and a topic is read partition by partition. Use --from-file, with lines in the order of their times",
        ));
    }
    if !name.is_empty() {
        return Ok(name.to_owned());
    }
    if config.output.partition == PartitionBy::Key || !config.output.topic.is_per_topic() {
        return Err(Stop::usage(
            "--from-topic: with output.partition: key, or an output that inputs share, a partition of the output does not hold the ids of one partition of the input. Name a topic that is partitioned as the input is, or use --from-file",
        ));
    }
    let output = OwnTopics::new(config).for_input(input).output;
    output.ok_or_else(|| {
        Stop::usage("--from-topic: with mode: observe there is no output. Name the topic to read")
    })
}

/// Whether the bytes of an id are those that `id.from` takes, and not several put together.
pub fn is_single(source: &IdSource) -> bool {
    !matches!(source, IdSource::All(_) | IdSource::CloudEvents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_or_written() {
        assert_eq!(time_ms("1700000000123"), Some(1_700_000_000_123));
        assert_eq!(time_ms("2023-11-14T22:13:20.123Z"), Some(1_700_000_000_123));
        assert_eq!(time_ms("-1"), Some(-1));
        assert_eq!(time_ms("yesterday"), None);
        assert_eq!("latest".parse(), Ok(StartAt::Latest));
        assert_eq!("5".parse(), Ok(StartAt::Time(5)));
        assert!("soon".parse::<StartAt>().is_err());
    }
}
