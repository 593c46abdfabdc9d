//! The effective configuration as a file, without secrets: what `check` prints and support asks for.
//!
//! Pure functions; touch nothing outside.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use super::properties::{REDACTED, redacted};
use super::value::{render_duration, render_size};
use super::{Changed, Config, Conflicts, IdSource, Kafka, LogFormat, PartitionBy, Payload, Start};
use super::{TopicPattern, TopicTemplate, UnknownSchema};

impl Config {
    /// The effective values as YAML, in the order of the sample file. It loads again as the same
    /// configuration, except that secrets of the `properties` sections read `<redacted>`.
    pub fn to_yaml_redacted(&self) -> String {
        let mut yaml = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut yaml);
        yaml
    }

    fn write(&self, f: &mut String) -> fmt::Result {
        writeln!(f, "kafka:")?;
        writeln!(
            f,
            "  bootstrap_servers: {}",
            text(&self.kafka.bootstrap_servers)
        )?;
        writeln!(f, "  group_id: {}", text(&self.kafka.group_id))?;
        writeln!(f, "  instance_id: {}", text(&self.kafka.instance_id))?;
        writeln!(f, "  static_membership: {}", self.kafka.static_membership)?;
        write_properties(f, "properties", &self.kafka.properties)?;
        write_properties(f, "consumer_properties", &self.kafka.consumer_properties)?;
        write_properties(f, "producer_properties", &self.kafka.producer_properties)?;

        let topics: Vec<String> = self.input.topics.iter().map(pattern).collect();
        let start = match self.input.start {
            Start::Earliest => "earliest",
            Start::Latest => "latest",
            Start::Fail => "fail",
        };
        writeln!(
            f,
            "input:\n  topics: [{}]\n  start: {start}",
            topics.join(", ")
        )?;

        let partition = match self.output.partition {
            PartitionBy::Same => "same",
            PartitionBy::Key => "key",
        };
        writeln!(f, "output:\n  topic: {}", text(&self.output.topic.0))?;
        writeln!(
            f,
            "  partition: {partition}\n  create: {}",
            self.output.create
        )?;

        let missing = self.id.missing.as_str();
        let changed = match self.id.changed {
            Changed::Refuse => "refuse",
            Changed::Keep => "keep",
            Changed::Forget => "forget",
        };
        writeln!(
            f,
            "id:\n  from: {}\n  missing: {missing}\n  changed: {changed}",
            source(&self.id.from)
        )?;
        let conflicts = Conflicts::ALL
            .iter()
            .find(|(_, it)| *it == self.id.conflicts);
        writeln!(f, "  conflicts: {}", conflicts.map_or("", |(word, _)| word))?;
        let payload = match &self.id.payload {
            Payload::Value => "value".to_owned(),
            Payload::ValueAndHeaders => "value_and_headers".to_owned(),
            Payload::JsonWithout(pointers) => {
                let pointers: Vec<String> = pointers.iter().map(|it| text(it)).collect();
                format!("{{json_without: [{}]}}", pointers.join(", "))
            }
        };
        writeln!(f, "  payload: {payload}")?;

        self.write_schemas(f)?;
        let time = self.window.time_ms.map(ms_text);
        let ids = self.window.ids.map(|ids| ids.to_string());
        writeln!(
            f,
            "window:\n  time: {}\n  ids: {}",
            or_null(time),
            or_null(ids)
        )?;
        writeln!(f, "  refresh: {}", self.window.refresh)?;
        writeln!(f, "  max_ahead: {}", ms_text(self.window.max_ahead_ms))?;

        writeln!(f, "scope: {}", self.scope.as_str())?;
        let by_id = &self.repartition;
        let partitions = or_null(by_id.partitions.map(|count| count.to_string()));
        writeln!(f, "repartition:\n  topic: {}", text(&by_id.topic.0))?;
        writeln!(f, "  partitions: {partitions}")?;
        writeln!(f, "mode: {}", self.mode.as_str())?;
        let side = |topic: &Option<TopicTemplate>| or_null(topic.as_ref().map(|t| text(&t.0)));
        writeln!(f, "duplicates:\n  topic: {}", side(&self.duplicates.topic))?;
        writeln!(f, "rejected:\n  topic: {}", side(&self.rejected.topic))?;
        let retention = or_null(self.journal.retention.map(render_duration));
        writeln!(f, "journal:\n  topic: {}", text(&self.journal.topic.0))?;
        writeln!(f, "  retention: {retention}")?;
        writeln!(
            f,
            "store:\n  path: {}",
            text(&self.store.path.to_string_lossy())
        )?;
        writeln!(f, "  active_ids: {}", self.store.active_ids)?;
        writeln!(f, "  memory: {}", render_size(self.store.memory_bytes))?;
        let rate = self.store.false_positive_rate;
        writeln!(f, "  false_positive_rate: {rate}")?;
        writeln!(f, "transaction:")?;
        writeln!(
            f,
            "  interval: {}",
            render_duration(self.transaction.interval)
        )?;
        writeln!(f, "  records: {}", self.transaction.records)?;
        writeln!(
            f,
            "  timeout: {}",
            render_duration(self.transaction.timeout)
        )?;
        writeln!(f, "workers: {}", self.workers)?;
        writeln!(f, "http:\n  listen: \"{}\"", self.http.listen)?;
        writeln!(f, "  admin: \"{}\"", self.http.admin)?;
        let token = or_null(self.http.admin_token.as_ref().map(|_| text(REDACTED)));
        writeln!(f, "  admin_token: {token}")?;
        let hosts: Vec<String> = self.http.admin_hosts.iter().map(|it| text(it)).collect();
        writeln!(f, "  admin_hosts: [{}]", hosts.join(", "))?;
        let format = match self.log.format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        writeln!(
            f,
            "log:\n  level: {}\n  format: {format}",
            text(&self.log.level)
        )
    }
}

impl Config {
    fn write_schemas(&self, f: &mut String) -> fmt::Result {
        let Some(schemas) = &self.schemas else {
            return writeln!(f, "schemas:\n  registry: null");
        };
        let name = or_null(schemas.username.as_deref().map(text));
        let password = or_null(schemas.password.as_ref().map(|_| text(REDACTED)));
        let ca = schemas.ca.as_ref();
        let ca = or_null(ca.map(|path| text(&path.to_string_lossy())));
        let unknown = match schemas.unknown {
            UnknownSchema::Fail => "fail",
            UnknownSchema::Missing => "missing",
            UnknownSchema::Wait => "wait",
        };
        writeln!(f, "schemas:\n  registry: {}", text(&schemas.registry))?;
        writeln!(f, "  username: {name}\n  password: {password}\n  ca: {ca}")?;
        writeln!(
            f,
            "  timeout: {}\n  unknown: {unknown}",
            render_duration(schemas.timeout)
        )
    }
}

/// A longer source is told by its beginning and a hash.
const MARK_BYTES: usize = 80;
const MARK_BEGINNING_BYTES: usize = 48;

impl IdSource {
    /// The source as text, at most 80 bytes: two that take the same bytes from every record, and are
    /// written alike, have the same, and two others have not.
    pub fn mark(&self) -> String {
        let whole = source(self);
        if whole.len() <= MARK_BYTES {
            return whole;
        }
        let beginning = whole.floor_char_boundary(MARK_BEGINNING_BYTES);
        let hash = xxhash_rust::xxh3::xxh3_64(whole.as_bytes());
        format!("{}... #{hash:016x}", &whole[..beginning])
    }
}

impl fmt::Debug for Kafka {
    /// As derived, except that no secret of the properties is printed, however it gets into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |properties| redacted(properties).collect::<BTreeMap<_, _>>();
        f.debug_struct("Kafka")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("group_id", &self.group_id)
            .field("instance_id", &self.instance_id)
            .field("static_membership", &self.static_membership)
            .field("properties", &shown(&self.properties))
            .field("consumer_properties", &shown(&self.consumer_properties))
            .field("producer_properties", &shown(&self.producer_properties))
            .finish()
    }
}

fn write_properties(
    f: &mut String,
    key: &str,
    properties: &BTreeMap<String, String>,
) -> fmt::Result {
    if properties.is_empty() {
        return writeln!(f, "  {key}: {{}}");
    }
    writeln!(f, "  {key}:")?;
    for (name, value) in redacted(properties) {
        writeln!(f, "    {}: {}", quoted(name), text(value))?;
    }
    Ok(())
}

fn pattern(pattern: &TopicPattern) -> String {
    match pattern {
        TopicPattern::Name(name) => text(name),
        TopicPattern::Regex(regex) => text(regex.as_str()),
    }
}

fn source(from: &IdSource) -> String {
    match from {
        IdSource::Key => "key".to_owned(),
        IdSource::Value => "value".to_owned(),
        IdSource::CloudEvents => "cloudevents".to_owned(),
        IdSource::Header(name) => format!("{{header: {}}}", text(name)),
        IdSource::Json(pointer) => format!("{{json: {}}}", text(pointer)),
        IdSource::Avro(pointer) => format!("{{avro: {}}}", text(pointer)),
        IdSource::Protobuf(pointer) => format!("{{protobuf: {}}}", text(pointer)),
        IdSource::JsonSchema(pointer) => format!("{{json_schema: {}}}", text(pointer)),
        IdSource::Csv { column, delimiter } => {
            let delimiter = text(&char::from(*delimiter).to_string());
            format!("{{csv: {{column: {column}, delimiter: {delimiter}}}}}")
        }
        IdSource::All(sources) => {
            let sources: Vec<String> = sources.iter().map(source).collect();
            format!("{{all: [{}]}}", sources.join(", "))
        }
    }
}

fn ms_text(ms: i64) -> String {
    render_duration(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

fn or_null(value: Option<String>) -> String {
    value.unwrap_or_else(|| "null".to_owned())
}

/// A value: plain where every reader of YAML takes it for the same text, else quoted, and so that
/// it is not interpolated when it is read again.
fn text(value: &str) -> String {
    let tame = value
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
        && value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let word = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"]
        .contains(&value.to_lowercase().as_str());
    if tame && !word {
        value.to_owned()
    } else {
        quoted(&value.replace("${", "$${"))
    }
}

/// JSON's quoting is YAML's, but for the characters that YAML wants escaped and JSON does not.
fn quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{FEFF}') => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
