//! The settings of the topics we make, and what is dangerous in those that are there. Pure.

use super::admin::Settings;
use super::survey::Role;
use crate::config::Config;
use crate::exit::Stop;

/// Settings of the input that decide what is accepted and how long it lives. The timestamp type is
/// not among them: the output keeps the record's own timestamp (I1), whatever the input does.
const COPIED: [&str; 8] = [
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "message.timestamp.difference.max.ms",
    "max.message.bytes",
    "retention.ms",
    "retention.bytes",
    "cleanup.policy",
    "min.insync.replicas",
];
/// Kafka's default, and a little more than the batches our producer makes: a topic that takes less
/// would refuse batches whose every record it would take.
const MESSAGE_BYTES: u64 = 1_048_588;
/// Room for the headers that say why a record is a duplicate or was rejected.
const HEADER_BYTES: u64 = 65_536;
/// DeleteRecords frees whole segments only; smaller ones than the usual 1 GiB follow the window.
pub const JOURNAL_SEGMENT_BYTES: u64 = 64 << 20;

/// The settings that a topic of this role is made with; `input` is `None` where the input's may not
/// be read, and then the broker's defaults stand in.
pub fn initial(config: &Config, role: Role, input: Option<&Settings>) -> Settings {
    match role {
        Role::Journal => journal(config, input),
        Role::Repartition => between(input),
        Role::Output | Role::Duplicates | Role::Rejected => beside(role, input),
    }
}

/// Takes whatever the input took, and keeps it until it is trimmed.
fn between(input: Option<&Settings>) -> Settings {
    let mut settings = beside(Role::Rejected, input);
    for (key, value) in [
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("segment.bytes", JOURNAL_SEGMENT_BYTES.to_string()),
    ] {
        settings.insert(key.to_owned(), value);
    }
    settings
}

fn beside(role: Role, input: Option<&Settings>) -> Settings {
    let mut settings = Settings::new();
    for key in COPIED {
        if let Some(value) = input.and_then(|input| input.get(key)) {
            settings.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(bytes) = settings.get_mut("max.message.bytes")
        && let Ok(accepted) = bytes.parse::<u64>()
    {
        let headers = if role == Role::Output {
            0
        } else {
            HEADER_BYTES
        };
        let wanted = accepted.max(MESSAGE_BYTES).saturating_add(headers);
        *bytes = wanted.min(i32::MAX.unsigned_abs().into()).to_string();
    }
    if role == Role::Rejected {
        // What the output refuses for its timestamp must find a place here.
        for (key, value) in &mut settings {
            if key.starts_with("message.timestamp.") {
                *value = i64::MAX.to_string();
            }
        }
    }
    settings.insert("message.timestamp.type".to_owned(), "CreateTime".to_owned());
    settings
}

fn journal(config: &Config, input: Option<&Settings>) -> Settings {
    let retention_ms = match config.journal.retention {
        Some(retention) => retention.as_millis().to_string(),
        None => "-1".to_owned(),
    };
    // Stream time may be years ago: the broker's own clock decides what is old.
    let mut settings: Settings = [
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", retention_ms),
        ("retention.bytes", "-1".to_owned()),
        ("segment.bytes", JOURNAL_SEGMENT_BYTES.to_string()),
        ("max.message.bytes", MESSAGE_BYTES.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    if let Some(replicas) = input.and_then(|input| input.get("min.insync.replicas")) {
        settings.insert("min.insync.replicas".to_owned(), replicas.clone());
    }
    settings
}

/// What an existing topic's settings would do to us: an error where they break a promise, sentences
/// where they may.
pub fn judge(
    config: &Config,
    role: Role,
    topic: &str,
    settings: &Settings,
) -> Result<Vec<String>, Stop> {
    match role {
        Role::Journal => judge_journal(config, topic, settings),
        Role::Repartition => judge_between(topic, settings),
        Role::Output | Role::Duplicates | Role::Rejected => Ok(judge_beside(topic, settings)),
    }
}

fn judge_journal(config: &Config, topic: &str, settings: &Settings) -> Result<Vec<String>, Stop> {
    let policy = settings
        .get("cleanup.policy")
        .map_or("delete", String::as_str);
    if policy.contains("compact") {
        return Err(Stop::contradiction(format!(
            "the journal {topic} has cleanup.policy={policy}, which would delete ids within the \
             window: set it to delete (kafka-configs --alter --add-config cleanup.policy=delete)"
        )));
    }
    let mut warnings = Vec::new();
    let number = |key: &str| {
        settings
            .get(key)
            .and_then(|value| value.parse::<i64>().ok())
    };
    if let Some(retention) = number("retention.ms").filter(|ms| *ms >= 0) {
        match config.window.time_ms {
            Some(window) if retention < window => warnings.push(format!(
                "the journal {topic} has retention.ms={retention}, shorter than the window of \
                 {window} ms: after a restart, older ids are not known. Set it to -1"
            )),
            None => warnings.push(format!(
                "the journal {topic} has retention.ms={retention}, but the window has no time: \
                 after a restart, older ids are not known. Set it to -1"
            )),
            Some(_) => {}
        }
    }
    if let Some(bytes) = number("retention.bytes").filter(|bytes| *bytes >= 0) {
        warnings.push(format!(
            "the journal {topic} has retention.bytes={bytes}: ids beyond that are not known after a \
             restart. Set it to -1"
        ));
    }
    Ok(warnings)
}

/// Records that wait between two hops must not be lost, nor change.
fn judge_between(topic: &str, settings: &Settings) -> Result<Vec<String>, Stop> {
    let is = |key: &str, wanted: &str| settings.get(key).is_none_or(|value| value == wanted);
    for (key, wanted) in [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("message.timestamp.type", "CreateTime"),
    ] {
        if !is(key, wanted) {
            return Err(Stop::contradiction(format!(
                "the repartition topic {topic} has {key}={}: records that wait in it would be lost or \
                 changed. Set it to {wanted} (kafka-configs --alter --add-config {key}={wanted})",
                settings.get(key).map_or("", String::as_str)
            )));
        }
    }
    Ok(Vec::new())
}

fn judge_beside(topic: &str, settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    if settings
        .get("message.timestamp.type")
        .is_some_and(|kind| kind == "LogAppendTime")
    {
        warnings.push(format!(
            "topic {topic} has message.timestamp.type=LogAppendTime: records lose their own \
             timestamps there. Set it to CreateTime"
        ));
    }
    let bytes = settings
        .get("max.message.bytes")
        .and_then(|value| value.parse::<u64>().ok());
    if let Some(bytes) = bytes.filter(|bytes| *bytes < 1_000_000) {
        warnings.push(format!(
            "topic {topic} has max.message.bytes={bytes}, smaller than a batch of the producer: \
             raise it to {MESSAGE_BYTES}, or set kafka.producer_properties batch.size below it"
        ));
    }
    warnings
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
