//! The command line of `scan`: flags become a configuration, and what of the topic to read.
//!
//! Touches the configuration file and the environment; never Kafka.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;

use super::budget;
use crate::config::{self, Config, Flags, TopicPattern};
use crate::exit::Stop;

/// Beyond any partition number that a cluster can hold.
const PARTITION_MAX: i32 = 1_000_000;
const MEMORY_MAX: ByteSize = ByteSize::tib(1);

const NOTES: &str = "\
It needs no configuration file: -b and --id say what one would, with -X for the client's properties
and --registry. Where there is one, -c takes brokers, properties, id and window from it.

How it works: the topic is read twice or more, from a start to the end it had when the scan began.
The first read puts every id into a Bloom filter, which tells the ids that may occur more than once;
the second counts only those, exactly. Nothing is written anywhere: no group is joined, no offset is
committed, no topic is made.

Limits: memory is bounded by --memory. A topic with more ids than fit is counted in parts, with more
reads; 256MB do for about 120 million records in one part, and each further read counts about
2 million ids that repeat. After --reads reads the figures are exact for a share of the ids, which a hash has
chosen, and say so. Duplicates older than the start are not seen. Records behind an open transaction
are left out.

Examples:
  kafka-dedup scan truck_position -c dedup.yaml
  kafka-dedup scan truck_position --bootstrap-servers broker-1:9092 --id header:message-id
  kafka-dedup scan orders --bootstrap-servers b:9093 --id json:/order/id --from 24h --json \\
      -X security.protocol=SASL_SSL -X sasl.mechanism=PLAIN -X sasl.username=me \\
      -X 'sasl.password=${file:/run/secrets/kafka}'

Exit status: 0 done (with or without duplicates), 64 bad usage or config, 69 Kafka unreachable,
70 defect, 78 no such topic or partition, or no permission, 130 ended by Ctrl-C or SIGTERM (the
figures so far are printed, and say that they are partial).";

/// `kafka-dedup scan`
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = NOTES)]
pub struct ScanArgs {
    /// The topic to read
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Configuration file (YAML), in place of -b, --registry and -X: its `kafka`, `id.from`, `schemas` and `window` are used
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["bootstrap_servers", "properties"])]
    config: Option<PathBuf>,
    /// Brokers to ask first, instead of a file
    #[arg(
        short,
        long,
        value_name = "HOST:PORT,...",
        required_unless_present = "config"
    )]
    bootstrap_servers: Option<String>,
    /// Where the id is: key, value, cloudevents, header:NAME, csv:COLUMN, or KIND:/POINTER with json, avro, protobuf or json_schema
    #[arg(long, value_name = "SOURCE", value_parser = id, required_unless_present = "config")]
    id: Option<String>,
    /// The schema registry that avro and protobuf ids need, instead of a file
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    registry: Option<String>,
    /// A librdkafka property, repeatable; ${NAME} and ${file:/path} are filled in
    #[arg(short = 'X', long = "property", value_name = "KEY=VALUE")]
    properties: Vec<String>,
    /// Where to begin: earliest, a time (2026-01-31T12:00:00Z), or how long ago (24h)
    #[arg(long, value_name = "WHEN", default_value = "earliest")]
    from: From,
    /// Only these partitions, such as 0,3,8-11 [default: all]
    #[arg(long, value_name = "LIST")]
    partitions: Option<Partitions>,
    /// Memory for everything, at least 96MiB
    #[arg(long, value_name = "SIZE", default_value = "256MB", value_parser = memory)]
    memory: ByteSize,
    /// How often the topic may be read at most
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1000))]
    reads: u32,
    /// Stop the first read after so many records; later reads end where it did
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_records: Option<u64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What is to be done, checked as far as it can be without Kafka.
pub struct Order {
    pub config: Config,
    pub topic: String,
    /// `None` is the earliest record; else milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Asked for by number; `None` is all.
    pub partitions: Option<BTreeSet<i32>>,
    pub memory: ByteSize,
    pub reads: u32,
    pub max_records: u64,
    /// The window of the file, where there is one.
    pub window_ms: Option<i64>,
    pub json: bool,
}

impl Order {
    /// All records of a topic from a time on, of all partitions.
    pub fn whole(config: Config, topic: String, from_ms: Option<i64>) -> Self {
        Self {
            config,
            topic,
            from_ms,
            partitions: None,
            memory: ByteSize::b(budget::LEAST),
            reads: 1,
            max_records: u64::MAX,
            window_ms: None,
            json: false,
        }
    }
}

impl ScanArgs {
    /// # Errors
    /// Usage (64), with all that is wrong with the flags, or with the file.
    pub fn order(self, now: SystemTime) -> Result<Order, Stop> {
        check_properties(&self.properties)?;
        let of_schema = |id: &str| id.starts_with("avro:") || id.starts_with("protobuf:");
        if self.config.is_none()
            && self.registry.is_none()
            && self.id.as_deref().is_some_and(of_schema)
        {
            return Err(Stop::usage(
                "--id: such an id is found by its schema: give --registry URL, or a file with -c",
            ));
        }
        let registry = match &self.config {
            // The file's own is taken.
            Some(_) => Some("http://file"),
            None => self.registry.as_deref(),
        };
        let env = config::environment();
        // Also with a file: it checks the topic's name and the id.
        let flags = config::from_flags(
            Flags {
                topic: &self.topic,
                bootstrap_servers: self.bootstrap_servers.as_deref().unwrap_or("file:9092"),
                id: self.id.as_deref().unwrap_or("key"),
                registry,
                properties: &self.properties,
            },
            &env,
        )?;
        let Some(TopicPattern::Name(topic)) = flags.input.topics.first().cloned() else {
            return Err(Stop::usage(format!(
                "TOPIC: found {:?}, expected the name of one topic: a scan reads no regular expression",
                self.topic
            )));
        };
        let (config, window_ms) = match &self.config {
            None => (flags, None),
            Some(file) => {
                let mut config = config::load(file, env)?;
                if self.id.is_some() {
                    if config.schemas.is_none() && self.id.as_deref().is_some_and(of_schema) {
                        return Err(Stop::usage(format!(
                            "--id: such an id is found by its schema, and {} names no schemas.registry",
                            file.display()
                        )));
                    }
                    config.id = flags.id;
                }
                let window_ms = config.window.time_ms;
                (config, window_ms)
            }
        };
        Ok(Order {
            config,
            topic,
            from_ms: self.from.ms(now)?,
            partitions: self.partitions.map(|Partitions(numbers)| numbers),
            memory: self.memory,
            reads: self.reads,
            max_records: self.max_records.unwrap_or(u64::MAX),
            window_ms,
            json: self.json,
        })
    }
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Earliest,
    At(SystemTime),
    Ago(Duration),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "earliest" {
            return Ok(Self::Earliest);
        }
        if let Ok(time) = humantime::parse_rfc3339_weak(text) {
            return Ok(Self::At(time));
        }
        humantime::parse_duration(text).map(Self::Ago).map_err(|_| {
            "expected earliest, a time in UTC such as 2026-01-31T12:00:00Z, or a duration such as \
             24h or 7d"
                .to_owned()
        })
    }
}

impl From {
    /// Milliseconds since 1970; `None` is the beginning.
    ///
    /// # Errors
    /// 64 where it is in the future.
    pub fn ms(self, now: SystemTime) -> Result<Option<i64>, Stop> {
        let time = match self {
            Self::Earliest => return Ok(None),
            Self::At(time) => time,
            // Longer ago than the clock reaches is from the beginning.
            Self::Ago(ago) => match now.checked_sub(ago) {
                Some(time) => time,
                None => return Ok(None),
            },
        };
        if time > now {
            return Err(Stop::usage(format!(
                "--from: {} is in the future, and no record is",
                humantime::format_rfc3339_seconds(time)
            )));
        }
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Some(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// Partition numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Partitions(BTreeSet<i32>);

impl FromStr for Partitions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let parsed = text.trim().parse().ok();
            parsed.filter(|number| (0..=PARTITION_MAX).contains(number))
        };
        let mut numbers = BTreeSet::new();
        for part in text.split(',') {
            let bounds = match part.split_once('-') {
                Some((first, last)) => number(first).zip(number(last)),
                None => number(part).map(|number| (number, number)),
            };
            match bounds {
                Some((first, last)) if first <= last => numbers.extend(first..=last),
                _ => {
                    return Err(format!(
                        "found {part:?}, expected partition numbers up to {PARTITION_MAX} such as \
                         0,3,8-11"
                    ));
                }
            }
        }
        Ok(Self(numbers))
    }
}

fn memory(text: &str) -> Result<ByteSize, String> {
    let least = ByteSize::b(budget::LEAST);
    let bare = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<ByteSize>() {
        Ok(size) if !bare && (least..=MEMORY_MAX).contains(&size) => Ok(size),
        _ => {
            Err("expected a size with a unit from 96MiB to 1TiB, such as 256MB or 4GiB".to_owned())
        }
    }
}

/// The form alone; what is behind the colon is checked as a file's is.
fn id(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some(("header" | "json" | "csv" | "avro" | "protobuf" | "json_schema", _)) => {
            Ok(text.to_owned())
        }
        None if matches!(text, "key" | "value" | "cloudevents") => Ok(text.to_owned()),
        _ => Err(
            "expected key, value, cloudevents, header:NAME, csv:COLUMN, or json:/POINTER (also \
             avro, protobuf, json_schema)"
                .to_owned(),
        ),
    }
}

/// Not by clap, which would quote a password that was written otherwise.
fn check_properties(properties: &[String]) -> Result<(), Stop> {
    match properties.iter().all(|property| property.contains('=')) {
        true => Ok(()),
        false => Err(Stop::usage(
            "-X: found a property without = (not shown), expected KEY=VALUE, such as security.protocol=SSL",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IdSource;
    use crate::exit::Status;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        scan: ScanArgs,
    }

    fn parse(arguments: &[&str]) -> Result<ScanArgs, String> {
        Program::try_parse_from([&["scan"], arguments].concat())
            .map(|program| program.scan)
            .map_err(|error| error.to_string())
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_767_225_600)
    }

    fn order(arguments: &[&str]) -> Result<Order, Stop> {
        parse(arguments).expect("good usage").order(now())
    }

    const BASIC: [&str; 5] = ["t", "--bootstrap-servers", "b:9092", "--id", "csv:8"];

    #[test]
    fn flags_alone_are_enough() {
        let order = order(&BASIC).unwrap();
        assert_eq!(
            (order.topic.as_str(), order.from_ms, order.partitions),
            ("t", None, None)
        );
        assert_eq!((order.memory, order.reads), (ByteSize::mb(256), 16));
        assert_eq!(order.config.kafka.bootstrap_servers, "b:9092");
        assert_eq!(order.window_ms, None);
    }

    #[test]
    fn a_file_takes_the_place_of_the_flags_and_its_id_can_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dedup.yaml");
        std::fs::write(
            &file,
            "kafka: {bootstrap_servers: 'f:1', group_id: g}\ninput: {topics: [other]}\n\
             id: {from: key}\nwindow: {time: 36h}",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let plain = order(&["t", "-c", file]).unwrap();
        assert_eq!(plain.config.kafka.bootstrap_servers, "f:1");
        assert_eq!(plain.config.id.from, IdSource::Key);
        assert_eq!(plain.window_ms, Some(36 * 3_600_000));
        let other = order(&["t", "-c", file, "--id", "value"]).unwrap();
        assert_eq!(other.config.id.from, IdSource::Value);
        assert!(parse(&["t", "-c", file, "-b", "b:1"]).is_err());
    }

    #[test]
    fn beginnings_are_times_or_durations() {
        let at = |from: &str| {
            order(&[&BASIC[..], &["--from", from]].concat()).map(|order| order.from_ms)
        };
        assert_eq!(at("earliest").unwrap(), None);
        assert_eq!(at("2025-12-31T23:00:00Z").unwrap(), Some(1_767_222_000_000));
        assert_eq!(at("24h").unwrap(), Some(1_767_139_200_000));
        assert_eq!(at("500years").unwrap().unwrap_or(0), 0);
        let stop = at("2026-01-02T00:00:00Z").unwrap_err();
        assert_eq!(stop.status, Status::Usage);
        for text in ["yesterday", "24", "1.5 days ago", ""] {
            let error = parse(&[&BASIC[..], &["--from", text]].concat()).unwrap_err();
            assert!(error.contains("--from"), "{text}: {error}");
        }
    }

    #[test]
    fn partitions_are_numbers_and_ranges() {
        let numbers = |text: &str| {
            text.parse::<Partitions>()
                .map(|Partitions(set)| set.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(numbers("0,3,8-11,3").unwrap(), [0, 3, 8, 9, 10, 11]);
        for text in ["", "1,", "-1", "3-1", "x", "1-99999999", "0;1"] {
            assert!(numbers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units_and_bounds() {
        assert_eq!(memory("1GiB").unwrap(), ByteSize::gib(1));
        for text in ["256", "1MB", "2TiB", "lots", ""] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_out_of_bounds_is_bad_usage() {
        for arguments in [
            &[][..],
            &["t"],
            &["t", "-b", "b:1"],
            &["t", "--id", "key"],
            &["t", "-b", "b:1", "--id", "uuid"],
            &[
                "t",
                "-b",
                "b:1",
                "--id",
                "key",
                "-c",
                "f",
                "--registry",
                "http://r",
            ],
            &["t", "-b", "b:1", "--id", "key", "--reads", "1"],
            &["t", "-b", "b:1", "--id", "key", "--max-records", "0"],
        ] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
        let without_value = [&BASIC[..], &["-X", "sasl.password:hunter2"]].concat();
        let stop = parse(&without_value).unwrap().order(now()).err().unwrap();
        assert_eq!(stop.status, Status::Usage);
        assert!(!stop.sentence.contains("hunter2"), "{stop}");
        let without_registry = ["t", "-b", "b:1", "--id", "avro:/id"];
        let stop = order(&without_registry).err().unwrap();
        assert!(stop.sentence.contains("--registry"), "{stop}");
        assert!(order(&[&without_registry[..], &["--registry", "http://r"]].concat()).is_ok());
        for topic in ["^t", "a b", ""] {
            let stop = parse(&[&[topic], &BASIC[1..]].concat())
                .unwrap()
                .order(now());
            assert_eq!(
                stop.err().map(|stop| stop.status),
                Some(Status::Usage),
                "{topic}"
            );
        }
    }
}
