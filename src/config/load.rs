//! A file and the environment become a [`Config`], or the list of all that is wrong with them.
//!
//! Reads the file, the files named in it as `${file:...}`, and the environment it is given;
//! never Kafka.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Output;
use super::fault::{Fault, Faults, Place};
use super::topic_names;
use super::tree::{At, Content, Filling, Section, note_unknown_keys};
use super::{
    Changed, Config, Conflicts, Http, Id, Input, Journal, Kafka, Log, LogFormat, Missing, Mode,
};
use super::{PartitionBy, Repartition, Scope, SideTopic, Start, Store, Transaction, Window};
use super::{id_source, interpolate, overlay, payload, properties, schemas, value, yaml};
use crate::window::Sizing;

const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);
const ASSIGNOR: &str = "partition.assignment.strategy";
const DEFAULT_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// Partitions of a repartition topic.
const MAX_REPARTITION: u16 = 10_000;
/// More than any disk of one instance holds; keeps sums of counts far from overflow.
const IDS_MAX: u64 = 1_000_000_000_000;

/// The environment of this process, for [`load`]. What is not UTF-8 in it is marked with U+FFFD,
/// which [`load`] refuses where it is used (`std::env::vars` would panic).
pub fn environment() -> BTreeMap<String, String> {
    let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// Loads a configuration file under an environment (see [`environment`]).
///
/// # Errors
/// All faults of file and environment at once; they also cover a file that cannot be read.
pub fn load(
    path: &Path,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, Faults> {
    let name = path.display().to_string();
    let unreadable = |place: Place, sentence: String| {
        Faults::new(
            &name,
            vec![Fault {
                place,
                key: String::new(),
                sentence,
            }],
        )
    };
    let io = |error: std::io::Error| {
        unreadable(
            Place::File,
            format!("cannot be read: {error}; is the path right?"),
        )
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(yaml::TEXT_MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        unreadable(Place::Line(line), "not UTF-8 text".to_owned())
    })?;
    from_str(&text, &name, &env.into_iter().collect())
}

/// Loads a configuration from its text; `file_name` is for messages.
///
/// # Errors
/// All faults of text and environment at once.
pub fn from_str(
    text: &str,
    file_name: &str,
    env: &BTreeMap<String, String>,
) -> Result<Config, Faults> {
    let faults = RefCell::new(Vec::new());
    let (parsed, wrong) = yaml::parse(text.trim_start_matches('\u{FEFF}'), false);
    for (line, sentence) in wrong {
        let fault = Fault {
            place: Place::Line(line),
            key: String::new(),
            sentence,
        };
        faults.borrow_mut().push(fault);
    }
    let config = parsed.and_then(|parsed| {
        let mut root = Filling {
            env: Some(env),
            faults: &faults,
        }
        .tree(&parsed, "", Place::File);
        overlay::lay(&mut root, env, &faults);
        let root = Section::of(&root, "", &faults);
        note_unknown_keys(&root);
        assemble(&root, env)
    });
    let faults = faults.into_inner();
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(Faults::new(file_name, faults)),
    }
}

/// Reads every section, whatever was wrong before it. `None` only where a fault is noted.
fn assemble(root: &Section<'_>, env: &BTreeMap<String, String>) -> Option<Config> {
    // Each section once: looking it up notes a fault where it is no mapping.
    let kafka_section = root.section("kafka");
    let (kafka, group) = kafka(&kafka_section, env);
    let input_section = root.section("input");
    let patterns = topic_names::read_inputs(&input_section);
    let start = input_section.choice(
        "start",
        Start::Earliest,
        &[
            ("earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("fail", Start::Fail),
        ],
    );
    let id = root.section("id");
    let from = id_source::read(&id);
    let missing = id.choice("missing", Missing::Forward, &Missing::ALL);
    let schemas = schemas::read(&root.section("schemas"), from.as_ref());
    let changed = id.choice(
        "changed",
        Changed::Refuse,
        &[
            ("refuse", Changed::Refuse),
            ("keep", Changed::Keep),
            ("forget", Changed::Forget),
        ],
    );
    let conflicts = payload::conflicts(&id);
    let payload = payload::read(&id);
    let output = root.section("output");
    let partition = output.choice(
        "partition",
        PartitionBy::Same,
        &[("same", PartitionBy::Same), ("key", PartitionBy::Key)],
    );
    let create = output.read("create", true, value::boolean);
    let window = window(&root.section("window"));
    let scope = scope(root, &kafka_section, window.value);
    let repartition = root.section("repartition");
    let by_id_partitions = repartition.optional("partitions", |text| {
        value::count_within(text, 1, MAX_REPARTITION.into())
    });
    let journal = root.section("journal");
    let duplicates = root.section("duplicates");
    let mode = mode(root, &duplicates);
    let retention = retention(&journal, &window);
    let rejected = root.section("rejected");
    let written = [output, duplicates, rejected, repartition, journal];
    let [
        output_topic,
        duplicates,
        rejected,
        repartition_topic,
        journal_topic,
    ] = topic_names::read_written(written, &patterns, &group, scope);
    let store = store(&root.section("store"));
    let transaction = transaction(&root.section("transaction"));
    properties::check_delivery_timeouts(&kafka_section, &transaction.1);
    let workers = root.read("workers", 1, |text| value::count_within(text, 1, 64));
    check_conflicts(&id, &conflicts, scope, rejected.is_some());
    let http = http(&root.section("http"));
    let log = log(&root.section("log"));
    Some(Config {
        kafka,
        input: Input {
            topics: patterns.into_iter().map(|(pattern, _)| pattern).collect(),
            start: start.value,
        },
        output: Output {
            topic: output_topic?,
            partition: partition.value,
            create: create.value,
        },
        id: Id {
            from: from?,
            missing: missing.value,
            changed: changed.value,
            conflicts: conflicts.value,
            payload,
        },
        schemas,
        window: window.value,
        scope,
        repartition: Repartition {
            topic: repartition_topic?,
            partitions: by_id_partitions
                .value
                .and_then(|count| i32::try_from(count).ok()),
        },
        mode,
        duplicates: SideTopic { topic: duplicates },
        rejected: SideTopic { topic: rejected },
        journal: Journal {
            topic: journal_topic?,
            retention,
        },
        store,
        transaction: transaction.0,
        workers: usize::try_from(workers.value).ok()?,
        http,
        log,
    })
}

fn kafka(section: &Section<'_>, env: &BTreeMap<String, String>) -> (Kafka, At<String>) {
    let required = |key: &str, expected: &str, parse: fn(&str) -> Result<String, String>| {
        let found = section.optional(key, parse);
        if found.sound && found.value.is_none() {
            section.missing(key, expected);
        }
        let sound = found.sound && found.value.is_some();
        At {
            value: found.value.unwrap_or_default(),
            place: found.place,
            sound,
        }
    };
    let servers = required(
        "bootstrap_servers",
        "host:port, comma separated",
        value::bootstrap_servers,
    );
    let group = required(
        "group_id",
        "the name of the consumer group",
        value::not_empty,
    );
    let instance = section.optional("instance_id", value::not_empty);
    let instance_id = instance.value.or_else(|| interpolate::host_name(env));
    if instance.sound && instance_id.is_none() {
        section.missing("instance_id", "a name, as the host name is not known");
    }
    let kafka = Kafka {
        bootstrap_servers: servers.value,
        group_id: group.value.clone(),
        instance_id: instance_id.unwrap_or_default(),
        static_membership: section
            .read("static_membership", false, value::boolean)
            .value,
        properties: properties::read(section, "properties"),
        consumer_properties: properties::read(section, "consumer_properties"),
        producer_properties: properties::read(section, "producer_properties"),
    };
    (kafka, group)
}

fn window(section: &Section<'_>) -> At<Window> {
    let least = Duration::from_millis(1);
    let time = section.optional("time", |text| {
        value::duration_within(text, least, TEN_YEARS)
    });
    let ids = section.optional("ids", |text| value::count_within(text, 1, IDS_MAX));
    let refresh = section.read("refresh", false, value::boolean);
    let max_ahead = section.read("max_ahead", Duration::from_secs(600), |text| {
        value::duration_within(text, Duration::ZERO, TEN_YEARS)
    });
    let sound = time.sound && ids.sound;
    if sound && section.is_null("time") && ids.value.is_none() {
        section.fault(
            "time",
            &time.place,
            "found nothing, and no ids: a window needs one of them",
        );
    }
    let neither = time.value.is_none() && ids.value.is_none();
    let time_ms = time.value.or(neither.then_some(DEFAULT_WINDOW)).map(millis);
    let max_ahead_ms = millis(max_ahead.value);
    let value = Window {
        time_ms,
        ids: ids.value,
        refresh: refresh.value,
        max_ahead_ms,
    };
    At {
        value,
        place: time.place,
        sound,
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A journal that forgets before the window does would let old ids through again (I1).
fn retention(journal: &Section<'_>, window: &At<Window>) -> Option<Duration> {
    let found = journal.optional("retention", |text| {
        value::duration_within(text, Duration::from_secs(1), TEN_YEARS * 10)
    });
    let least = window.value.time_ms.and_then(|ms| u64::try_from(ms).ok());
    if let (Some(retention), Some(least), true) = (found.value, least, window.sound)
        && retention < Duration::from_millis(least)
    {
        let sentence = format!(
            "found {}, expected at least window.time ({}): the journal would forget ids that the \
             window still holds",
            value::render_duration(retention),
            value::render_duration(Duration::from_millis(least))
        );
        journal.fault("retention", &found.place, sentence);
    }
    found.value
}

fn store(section: &Section<'_>) -> Store {
    let path = section.read("path", "/var/lib/kafka-dedup".to_owned(), |text| {
        value::not_empty(text).map_err(|_| "the path of a directory".to_owned())
    });
    let Sizing {
        active_ids,
        false_positive_rate,
    } = Sizing::default();
    Store {
        path: PathBuf::from(path.value),
        active_ids: section
            .read("active_ids", active_ids, |text| {
                value::count_within(text, 16, 16_777_216)
            })
            .value,
        memory_bytes: section
            .read("memory", 96 << 20, |text| {
                value::size_within(text, 16 << 20, 1 << 40)
            })
            .value,
        false_positive_rate: section
            .read("false_positive_rate", false_positive_rate, |text| {
                value::share_within(text, 0.000_001, 0.1)
            })
            .value,
    }
}

fn transaction(section: &Section<'_>) -> (Transaction, At<Duration>) {
    let ms = Duration::from_millis;
    let interval = section.read("interval", ms(100), |text| {
        value::duration_within(text, ms(1), ms(10_000))
    });
    let records = section.read("records", 20_000, |text| {
        value::count_within(text, 1, 1_000_000)
    });
    let timeout = section.read("timeout", ms(30_000), |text| {
        value::duration_within(text, ms(1_000), ms(900_000))
    });
    if interval.sound && timeout.sound && interval.value >= timeout.value {
        let sentence = format!(
            "found {}, expected less than transaction.timeout ({})",
            value::render_duration(interval.value),
            value::render_duration(timeout.value)
        );
        section.fault("interval", &interval.place, sentence);
    }
    let transaction = Transaction {
        interval: interval.value,
        records: usize::try_from(records.value).unwrap_or(usize::MAX),
        timeout: timeout.value,
    };
    (transaction, timeout)
}

/// What a scope of several partitions does not go with.
fn scope(root: &Section<'_>, kafka: &Section<'_>, window: Window) -> Scope {
    let scope = root.choice("scope", Scope::default(), &Scope::ALL);
    let word = scope.value.as_str();
    if scope.value.has_kin() && window.ids.is_some() {
        let sentence = format!(
            "found {word}, and window.ids is set: ids are counted by partition; leave out window.ids, or use scope: partition"
        );
        root.fault("scope", &scope.place, sentence);
    }
    for section in ["properties", "consumer_properties"] {
        let Some(map) = kafka.node(section) else {
            continue;
        };
        let Content::Map(entries) = &map.content else {
            continue;
        };
        let properties = kafka.section_at(section, entries, map);
        let Some(node) = properties.node(ASSIGNOR) else {
            continue;
        };
        let Content::Scalar { text, .. } = &node.content else {
            continue;
        };
        let sentence = match scope.value.assignor() {
            Some(assignor) if text != assignor => {
                format!(
                    "found {}, and scope: {word} needs {assignor}: leave it out",
                    node.shown()
                )
            }
            // The coordinator is to keep these two kinds of members apart.
            None if text.contains("roundrobin") => format!(
                "found {}, which is that of scope: topic; use cooperative-sticky or range",
                node.shown()
            ),
            _ => continue,
        };
        properties.fault(ASSIGNOR, &node.place, sentence);
    }
    scope.value
}

/// What the policies for conflicts do not go with.
fn check_conflicts(id: &Section<'_>, conflicts: &At<Conflicts>, scope: Scope, rejected: bool) {
    if conflicts.value == Conflicts::Reject && !rejected {
        let sentence = "found reject, and rejected.topic is not set: such records would be gone; set \
                        it, or choose count or forward";
        id.fault("conflicts", &conflicts.place, sentence);
    }
    if conflicts.value == Conflicts::Forward && scope.has_kin() {
        let sentence = format!(
            "found forward, and scope: {}: which of several payloads is the last one, is known within a \
             partition; choose count or reject",
            scope.as_str()
        );
        id.fault("conflicts", &conflicts.place, sentence);
    }
}

/// Marked duplicates go to the output, so a topic of their own would stay empty.
fn mode(root: &Section<'_>, duplicates: &Section<'_>) -> Mode {
    let mode = root.choice("mode", Mode::default(), &Mode::ALL);
    if mode.value == Mode::Mark
        && let Some(node) = duplicates.node("topic")
        && !duplicates.is_null("topic")
    {
        let sentence = format!(
            "found {}, and mode: mark sends duplicates to the output: leave out one of the two",
            node.shown()
        );
        duplicates.fault("topic", &node.place, sentence);
    }
    mode.value
}

fn http(section: &Section<'_>) -> Http {
    let listen = section.read(
        "listen",
        SocketAddr::from(([0, 0, 0, 0], 9464)),
        value::address,
    );
    let admin = section.read(
        "admin",
        SocketAddr::from(([127, 0, 0, 1], 9465)),
        value::address,
    );
    let (a, b) = (listen.value, admin.value);
    // Port 0 is any free one, so two of them never meet; an unspecified address covers all others.
    let meet = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    if listen.sound && admin.sound && a.port() != 0 && a.port() == b.port() && meet {
        let sentence = format!("found {b}, which http.listen ({a}) takes; choose another port");
        let place = if section.node("admin").is_some() {
            &admin.place
        } else {
            &listen.place
        };
        section.fault("admin", place, sentence);
    }
    Http {
        listen: a,
        admin: b,
        admin_token: admin_token(section),
        admin_hosts: admin_hosts(section),
    }
}

/// Of characters that a header can carry, and too long to be guessed. No fault quotes it.
fn admin_token(section: &Section<'_>) -> Option<String> {
    const EXPECTED: &str = "expected a token of 16 characters or more, without blanks";
    let node = section.node("admin_token")?;
    match &node.content {
        Content::Scalar { text, .. } => {
            let is_sound = text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_sound {
                let sentence = format!("found {} characters, {EXPECTED}", text.chars().count());
                section.fault("admin_token", &node.place, sentence);
            }
            is_sound.then(|| text.clone())
        }
        Content::Null | Content::Faulty => None,
        Content::List(_) | Content::Map(_) => {
            section.fault("admin_token", &node.place, EXPECTED);
            None
        }
    }
}

fn admin_hosts(section: &Section<'_>) -> Vec<String> {
    let Some(node) = section.node("admin_hosts") else {
        return Vec::new();
    };
    let Content::List(nodes) = &node.content else {
        if !matches!(node.content, Content::Null | Content::Faulty) {
            let sentence = format!("found {}, expected a list of names", node.shown());
            section.fault("admin_hosts", &node.place, sentence);
        }
        return Vec::new();
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let host = |text: &str| match !text.is_empty() && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("the name of a host, without a port".to_owned()),
    };
    let hosts = nodes
        .iter()
        .filter_map(|node| section.parse("admin_hosts", node, host));
    hosts.collect()
}

fn log(section: &Section<'_>) -> Log {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    Log {
        level: section
            .read("level", "info".to_owned(), value::log_level)
            .value,
        format: section.choice("format", LogFormat::Text, &formats).value,
    }
}
