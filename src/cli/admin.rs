//! `admin`: what the admin interface of a running process can be asked and told, from a terminal. Speaks HTTP to
//! `http.admin` of the config, and nothing else.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::config::{self, Config};
use crate::exit::Stop;
use crate::http::admin::BASE;

/// Longer than the process gives its workers.
const PATIENCE: Duration = Duration::from_secs(10);

const NOTES: &str = "\
It speaks to one process, at http.admin of the config (or --url), with http.admin_token where that is
set. What it says of partitions is said of those that the process has. Pauses, bypass and log level end
with the process; a forgotten id stays forgotten. Every answer is one JSON document.

Examples:
  kafka-dedup admin -c dedup.yaml state
  kafka-dedup admin -c dedup.yaml seen --topic truck_position --id 4711
  kafka-dedup admin -c dedup.yaml forget --topic truck_position --id 4711
  kafka-dedup admin -c dedup.yaml pause
  kafka-dedup admin -c dedup.yaml bypass on

Exit status: 0 done, 64 bad usage or refused, 69 the process does not answer, 75 ask again.";

/// `kafka-dedup admin`
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct AdminArgs {
    /// Configuration file (YAML) of the process
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Where it listens, such as http://127.0.0.1:9465 [default: http.admin of the file]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What is in force: pauses, bypass, log level
    #[command(after_help = "Example:\n  kafka-dedup admin -c dedup.yaml state")]
    State,
    /// Is an id remembered, since when, and where is its first record?
    #[command(
        after_help = "Examples:\n  kafka-dedup admin -c dedup.yaml seen --topic orders --id 4711\n  kafka-dedup admin -c dedup.yaml seen --topic orders --partition 3 --id-hex 00ff"
    )]
    Seen(OfId),
    /// Forget an id, for good: the next record with it is new
    #[command(
        after_help = "Examples:\n  kafka-dedup admin -c dedup.yaml forget --topic orders --id 4711"
    )]
    Forget(OfId),
    /// Stop reading a topic, or all
    #[command(
        after_help = "Examples:\n  kafka-dedup admin -c dedup.yaml pause\n  kafka-dedup admin -c dedup.yaml pause --topic orders"
    )]
    Pause {
        /// Input topic; without it, all
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
    },
    /// Go on with a topic that was paused by its name, or with all
    #[command(
        after_help = "Examples:\n  kafka-dedup admin -c dedup.yaml resume\n  kafka-dedup admin -c dedup.yaml resume --topic orders"
    )]
    Resume {
        /// Input topic; without it, all
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
    },
    /// Forward everything, duplicates too (ids are remembered), or not any more
    #[command(
        after_help = "Examples:\n  kafka-dedup admin -c dedup.yaml bypass on\n  kafka-dedup admin -c dedup.yaml bypass off"
    )]
    Bypass {
        /// Whether everything is forwarded from now on
        switch: Switch,
    },
    /// Set what is stored of a topic aside, and restore it from the journal
    #[command(
        after_help = "Examples:\n  kafka-dedup admin -c dedup.yaml rebuild --topic orders\n  kafka-dedup admin -c dedup.yaml rebuild --topic orders --partition 3"
    )]
    Rebuild {
        /// Input topic
        #[arg(long, value_name = "TOPIC")]
        topic: String,
        /// Only this partition
        #[arg(long, value_name = "N")]
        partition: Option<i32>,
    },
    /// Change what is logged: debug, "info,rdkafka=debug"; without a level, as configured
    #[command(
        after_help = "Examples:\n  kafka-dedup admin -c dedup.yaml log-level info,rdkafka=debug\n  kafka-dedup admin -c dedup.yaml log-level"
    )]
    LogLevel {
        /// As log.level takes it
        level: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Debug, Args)]
struct OfId {
    /// Input topic
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Only this partition
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// The id; or its parts, in their order, where id.from is all or cloudevents
    #[arg(
        long,
        value_name = "VALUE",
        required_unless_present = "id_hex",
        conflicts_with = "id_hex"
    )]
    id: Vec<String>,
    /// The same, in hexadecimal digits
    #[arg(long, value_name = "HEX")]
    id_hex: Vec<String>,
}

/// Asks, and prints the answer (JSON).
///
/// # Errors
/// 64 bad usage, or the process refuses; 69 it does not answer; 75 it could not do it now.
pub fn run(arguments: &AdminArgs) -> Result<(), Stop> {
    let config = config::load(&arguments.config, config::environment())?;
    let url = match &arguments.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", reachable(config.http.admin)),
    };
    let answer = send(&config, &url, &request(&arguments.command))?;
    // A reader that went away is no reason to fail: it is done.
    let _ = writeln!(io::stdout(), "{}", answer.trim_end());
    Ok(())
}

enum Request {
    Get(String),
    Post(&'static str, Value),
}

fn request(command: &Command) -> Request {
    match command {
        Command::State => Request::Get("state".to_owned()),
        Command::Seen(of) => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("topic", &of.topic);
            if let Some(partition) = of.partition {
                query.append_pair("partition", &partition.to_string());
            }
            query.extend_pairs(of.id.iter().map(|id| ("id", id)));
            query.extend_pairs(of.id_hex.iter().map(|id| ("id_hex", id)));
            Request::Get(format!("seen?{}", query.finish()))
        }
        Command::Forget(of) => Request::Post(
            "forget",
            json!({"topic": of.topic, "partition": of.partition, "id": of.id, "id_hex": of.id_hex}),
        ),
        Command::Pause { topic } => Request::Post("pause", json!({"topic": topic})),
        Command::Resume { topic } => Request::Post("resume", json!({"topic": topic})),
        Command::Bypass { switch } => Request::Post("bypass", json!({"on": *switch == Switch::On})),
        Command::Rebuild { topic, partition } => {
            Request::Post("rebuild", json!({"topic": topic, "partition": partition}))
        }
        Command::LogLevel { level } => Request::Post("log-level", json!({"level": level})),
    }
}

fn send(config: &Config, url: &str, request: &Request) -> Result<String, Stop> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let token = config.http.admin_token.as_ref();
    let token = token.map(|token| format!("Bearer {token}"));
    let sent = match request {
        Request::Get(path) => {
            let mut get = agent.get(format!("{url}{BASE}/{path}"));
            if let Some(token) = &token {
                get = get.header("authorization", token);
            }
            get.call()
        }
        Request::Post(path, body) => {
            let mut post = agent
                .post(format!("{url}{BASE}/{path}"))
                .header("content-type", "application/json");
            if let Some(token) = &token {
                post = post.header("authorization", token);
            }
            post.send(body.to_string())
        }
    };
    let silent = |error: ureq::Error| {
        Stop::unreachable(format!(
            "no answer from {url}: {error}. Does kafka-dedup run there, with http.admin as in this config?"
        ))
    };
    let mut response = sent.map_err(silent)?;
    let code = response.status().as_u16();
    let text = response.body_mut().read_to_string().map_err(silent)?;
    if code == 200 {
        return Ok(text);
    }
    let said: Option<Value> = serde_json::from_str(&text).ok();
    let said = said.as_ref().and_then(|said| said["error"].as_str());
    let sentence = match said {
        Some(sentence) => sentence.to_owned(),
        None => format!("{url} answers {code}: {}", text.trim_end()),
    };
    Err(match code {
        503 => Stop::restart(sentence),
        _ => Stop::usage(sentence),
    })
}

/// Where a listener of all addresses is reached from this machine.
fn reachable(listener: SocketAddr) -> SocketAddr {
    match listener.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listener.port()),
        false => listener,
    }
}
