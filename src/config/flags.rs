//! The few flags of a command that only reads a topic, in place of a file.
//!
//! They become a configuration by the same checks as a file; a fault names the flag.

use std::collections::BTreeMap;

use super::fault::{Faults, Place};
use super::keys::PREFIX;
use super::{Config, load};

/// Never joined: a consumer of librdkafka has to have a group, even one that is assigned by hand.
const GROUP: &str = "kafka-dedup-scan";

/// What was given, as it was given. Values take `${NAME}` and `${file:/path}` as a file's do.
#[derive(Debug, Clone, Copy)]
pub struct Flags<'a> {
    pub topic: &'a str,
    /// `host:port`, comma separated.
    pub bootstrap_servers: &'a str,
    /// `key`, `value`, `cloudevents`, `header:NAME`, `json:/POINTER` (also `avro`, `protobuf` and
    /// `json_schema`) or `csv:COLUMN`.
    pub id: &'a str,
    /// The URL of a schema registry.
    pub registry: Option<&'a str>,
    /// `key=value`, librdkafka's names.
    pub properties: &'a [String],
}

/// A configuration with what the flags say and defaults for all else. The environment fills in
/// `${NAME}`; its `KAFKA_DEDUP__` variables are those of a file, and left alone.
///
/// # Errors
/// All faults at once, each with the flag it is about.
pub fn from_flags(flags: Flags<'_>, env: &BTreeMap<String, String>) -> Result<Config, Faults> {
    let mut text = Lines::default();
    text.push(
        "TOPIC",
        format!("input: {{topics: [{}]}}", quoted(flags.topic)),
    );
    text.push("--id", format!("id: {{from: {}}}", id_source(flags.id)));
    if let Some(registry) = flags.registry {
        let line = format!("schemas: {{registry: {}}}", quoted(registry));
        text.push("--registry", line);
    }
    // Nothing is written there; names that no topic has to be spared for.
    text.push(
        "TOPIC",
        "output: {topic: kafka-dedup.scan.output}".to_owned(),
    );
    text.push(
        "TOPIC",
        "journal: {topic: kafka-dedup.scan.journal}".to_owned(),
    );
    text.push("TOPIC", format!("kafka:\n  group_id: {GROUP}"));
    text.push(
        "--bootstrap-servers",
        format!("  bootstrap_servers: {}", quoted(flags.bootstrap_servers)),
    );
    text.push("-X", "  properties:".to_owned());
    for property in flags.properties {
        let (key, value) = property.split_once('=').unwrap_or((property, ""));
        text.push("-X", format!("    {}: {}", quoted(key), quoted(value)));
    }
    let environment = env.iter().filter(|(name, _)| !name.starts_with(PREFIX));
    let environment = environment
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    load::from_str(&text.text, "command line", &environment).map_err(|faults| {
        faults.placed(|place| match place {
            Place::Line(line) => text
                .flag_of(line)
                .map_or(Place::Line(line), |flag| Place::Variable(flag.to_owned())),
            other => other,
        })
    })
}

/// Lines of a file, and the flag that each comes from.
#[derive(Default)]
struct Lines {
    text: String,
    flags: Vec<&'static str>,
}

impl Lines {
    fn push(&mut self, flag: &'static str, lines: String) {
        for line in lines.split('\n') {
            self.text.push_str(line);
            self.text.push('\n');
            self.flags.push(flag);
        }
    }

    /// Lines count from 1.
    fn flag_of(&self, line: usize) -> Option<&'static str> {
        self.flags.get(line.checked_sub(1)?).copied()
    }
}

/// `header:message-id` as the file has it.
fn id_source(flag: &str) -> String {
    match flag.split_once(':') {
        Some((kind @ ("header" | "json" | "avro" | "protobuf" | "json_schema"), place)) => {
            format!("{{{kind}: {}}}", quoted(place))
        }
        Some(("csv", column)) => format!("{{csv: {{column: {}}}}}", quoted(column)),
        _ => quoted(flag),
    }
}

/// In double quotes, where YAML and JSON agree; on one line, whatever it holds.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{IdSource, TopicPattern};

    fn flags<'a>(
        topic: &'a str,
        servers: &'a str,
        id: &'a str,
        properties: &'a [String],
    ) -> Flags<'a> {
        Flags {
            topic,
            bootstrap_servers: servers,
            id,
            registry: Some("http://r"),
            properties,
        }
    }

    fn with_id(id: &str) -> Result<Config, Faults> {
        from_flags(flags("t", "b:9092", id, &[]), &BTreeMap::new())
    }

    #[test]
    fn flags_become_a_configuration() {
        let properties =
            ["security.protocol=SASL_SSL", "sasl.password=a=b: \"#${P}"].map(str::to_owned);
        let env = [
            ("P", "secret"),
            ("KAFKA_DEDUP__KAFKA__BOOTSTRAP_SERVERS", "other:1"),
        ];
        let env = env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let given = flags(
            "truck_position",
            "a:1,b:2",
            "header:message-id",
            &properties,
        );
        let config = from_flags(given, &env).unwrap();
        assert_eq!(config.kafka.bootstrap_servers, "a:1,b:2");
        assert_eq!(config.kafka.properties["sasl.password"], "a=b: \"#secret");
        assert_eq!(
            config.input.topics,
            [TopicPattern::Name("truck_position".into())]
        );
        assert_eq!(config.id.from, IdSource::Header("message-id".into()));
    }

    #[test]
    fn ids_are_named_as_in_a_file() {
        for (flag, source) in [
            ("key", IdSource::Key),
            ("value", IdSource::Value),
            ("cloudevents", IdSource::CloudEvents),
            ("header:a: \"b\"", IdSource::Header("a: \"b\"".into())),
            ("json:/event/id", IdSource::Json("/event/id".into())),
            ("json:", IdSource::Json(String::new())),
            ("avro:/event/id", IdSource::Avro("/event/id".into())),
            ("protobuf:/id", IdSource::Protobuf("/id".into())),
            ("json_schema:/id", IdSource::JsonSchema("/id".into())),
            (
                "csv:8",
                IdSource::Csv {
                    column: 8,
                    delimiter: b',',
                },
            ),
        ] {
            assert_eq!(with_id(flag).unwrap().id.from, source, "{flag}");
        }
    }

    #[test]
    fn a_fault_names_its_flag() {
        for id in [
            "",
            "headers",
            "header:",
            "json:event",
            "csv:0",
            "csv:x",
            "csv",
            "xml:/a",
        ] {
            let faults = with_id(id).unwrap_err().to_string();
            assert!(faults.starts_with("--id: id.from"), "{id}: {faults}");
        }
        let owned = ["group.id=g".to_owned()];
        let given = flags("a/b", "broker", "key", &owned);
        let faults = from_flags(given, &BTreeMap::new()).unwrap_err().to_string();
        let lines: Vec<&str> = faults.lines().collect();
        assert_eq!(lines.len(), 3, "{faults}");
        assert!(
            lines[0].starts_with("--bootstrap-servers: kafka.bootstrap_servers: found \"broker\""),
            "{faults}"
        );
        assert!(
            lines[1].starts_with("-X: kafka.properties.group.id: refused"),
            "{faults}"
        );
        assert!(
            lines[2].starts_with("TOPIC: input.topics: found \"a/b\""),
            "{faults}"
        );
    }

    #[test]
    fn a_topic_may_be_as_long_as_kafka_lets_it() {
        let long = "t".repeat(249);
        assert!(from_flags(flags(&long, "b:1", "key", &[]), &BTreeMap::new()).is_ok());
    }
}
