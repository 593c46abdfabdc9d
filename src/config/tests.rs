//! Whole files and environments, by scenario.

mod environment;
mod hostile;
mod ids;
mod names;
mod secrets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::exit::{Status, Stop};

const SAMPLE: &str = include_str!("../../deploy/kafka-dedup.yaml");
const LEAST: &str = "\
kafka: {bootstrap_servers: 'b:9092', group_id: g, instance_id: i}
input: {topics: [t]}
id: {from: key}
";

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn with_env(more: &str, pairs: &[(&str, &str)]) -> Result<Config, Faults> {
    from_str(&format!("{LEAST}{more}"), "c.yaml", &env(pairs))
}

/// The least configuration and something more, from line 4 on.
fn with(more: &str) -> Config {
    with_env(more, &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

fn faults_of(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    from_str(text, "c.yaml", &env(pairs))
        .expect_err(text)
        .lines()
        .collect()
}

/// Exactly one fault, and what is in it.
fn one_fault(more: &str, pairs: &[(&str, &str)], parts: &[&str]) {
    let found = faults_of(&format!("{LEAST}{more}"), pairs);
    assert_eq!(found.len(), 1, "{more}: {found:#?}");
    for part in parts {
        assert!(found[0].contains(part), "{part:?} is not in {:?}", found[0]);
    }
}

#[test]
fn the_sample_file_loads() {
    let config = from_str(SAMPLE, "kafka-dedup.yaml", &env(&[("HOSTNAME", "host-7")]));
    let config = config.unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.kafka.instance_id, "host-7");
    assert_eq!(config.id.from, IdSource::Header("message-id".to_owned()));
    assert_eq!(config.window.ids, Some(50_000_000));
    // What the sample says is the default must be: the same file with the required keys alone.
    let least = "\
kafka: {bootstrap_servers: 'broker-1:9092,broker-2:9092', group_id: trucks-dedup}
input: {topics: truck_position}
id: {from: {header: message-id}}
window: {time: 24h, ids: 50_000_000}
";
    assert_eq!(
        config,
        from_str(least, "c.yaml", &env(&[("HOSTNAME", "host-7")])).unwrap()
    );
}

#[test]
fn required_keys_alone_bring_the_documented_defaults() {
    let config = with("");
    assert_eq!(config.input.start, Start::Earliest);
    assert_eq!(
        config.output.topic,
        TopicTemplate("{topic}_dedup".to_owned())
    );
    assert_eq!(
        (config.output.partition, config.output.create),
        (PartitionBy::Same, true)
    );
    assert_eq!(config.id.missing, Missing::Forward);
    let window = Window {
        time_ms: Some(86_400_000),
        ids: None,
        refresh: false,
        max_ahead_ms: 600_000,
    };
    assert_eq!(config.window, window);
    assert_eq!(
        (&config.duplicates.topic, &config.rejected.topic),
        (&None, &None)
    );
    assert_eq!(config.journal.topic.render("t", "g"), "t-g-seen");
    assert_eq!(config.journal.retention, None);
    assert_eq!(config.store.path, PathBuf::from("/var/lib/kafka-dedup"));
    assert_eq!(config.store.active_ids, 229_376);
    assert_eq!(config.store.memory_bytes, 96 << 20);
    assert_eq!(config.store.false_positive_rate, 0.001);
    assert_eq!(config.transaction.interval, Duration::from_millis(100));
    assert_eq!(config.transaction.timeout, Duration::from_secs(30));
    assert_eq!((config.transaction.records, config.workers), (20_000, 1));
    assert_eq!(config.http.listen.to_string(), "0.0.0.0:9464");
    assert_eq!(config.http.admin.to_string(), "127.0.0.1:9465");
    assert_eq!(
        (config.log.level.as_str(), config.log.format),
        ("info", LogFormat::Text)
    );
}

#[test]
fn ten_wrong_values_in_one_file_are_ten_faults_with_their_lines() {
    let text = "\
kafka:
  bootstrap_servers: broker-1
  group_id: g
input:
  topics: [t, 'not a topic']
  start: begining
output: {create: maybe}
id:
  from: {csv: {column: 0}}
  missing: ignore
window:
  time: 24 hours ago
transaction:
  timeout: 30
  records: 1_000_001
wokers: 2
http:
  listen: localhost
";
    let lines: Vec<usize> = faults_of(text, &[])
        .iter()
        .map(|fault| {
            fault
                .split(':')
                .nth(1)
                .and_then(|line| line.parse().ok())
                .unwrap_or(0)
        })
        .collect();
    assert_eq!(lines, [2, 5, 6, 7, 9, 10, 12, 14, 15, 16, 18]);
    let all = faults_of(text, &[]).join("\n");
    assert!(all.contains(
        "c.yaml:12: window.time: found \"24 hours ago\", expected a duration with a unit, such as \
         90s, 15m or 24h"
    ));
    assert!(
        all.contains("found \"begining\", expected earliest, latest or fail"),
        "{all}"
    );
    assert!(
        all.contains("c.yaml:16: wokers: unknown key; did you mean workers?"),
        "{all}"
    );
}

#[test]
fn faults_become_a_stop_with_status_64() {
    let faults = from_str("workers: 0", "c.yaml", &env(&[])).unwrap_err();
    let stop = Stop::from(faults.clone());
    assert_eq!(stop.status, Status::Usage);
    assert_eq!(stop.sentence, faults.to_string());
}

#[test]
fn an_empty_file_names_every_required_key() {
    let found = faults_of("", &[]);
    for key in [
        "kafka.bootstrap_servers",
        "kafka.group_id",
        "input.topics",
        "id.from",
    ] {
        let start = format!("c.yaml: {key}: missing");
        assert!(
            found.iter().any(|fault| fault.starts_with(&start)),
            "{key}: {found:#?}"
        );
    }
    assert_eq!(found.len(), 4, "{found:#?}");
}

#[test]
fn a_missing_key_has_the_line_of_its_section() {
    let found = faults_of(
        "input: {topics: t}\nid: {from: key}\nkafka:\n  group_id: g\n",
        &[],
    );
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("c.yaml:3: kafka.bootstrap_servers: missing"),
        "{found:?}"
    );
    assert!(found[0].contains("KAFKA_DEDUP__KAFKA__BOOTSTRAP_SERVERS"));
}

#[test]
fn a_file_that_is_not_there_is_a_fault() {
    let faults = load(Path::new("/nowhere/c.yaml"), [])
        .unwrap_err()
        .to_string();
    assert!(
        faults.starts_with("/nowhere/c.yaml: cannot be read"),
        "{faults}"
    );
}

#[test]
fn a_file_that_is_not_utf8_names_the_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"# a\n# \xff\n").unwrap();
    let faults = load(file.path(), environment()).unwrap_err().to_string();
    assert!(faults.ends_with(":2: not UTF-8 text"), "{faults}");
}

#[test]
fn broken_yaml_has_a_line_and_a_repeated_key_hides_no_other_fault() {
    assert!(faults_of("kafka:\n  a: [\n", &[])[0].starts_with("c.yaml:2: not valid YAML"));
    let found = faults_of(
        &format!("{LEAST}workers: 1\nworkers: 99\nscope: all\n"),
        &[],
    );
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("c.yaml:5: the key \"workers\" is here a second time"));
    assert!(found[1].starts_with("c.yaml:5: workers: found \"99\""));
    assert!(found[2].starts_with("c.yaml:6: scope"));
    // A section that is no mapping is one fault, however often its keys are asked for.
    one_fault(
        "journal: x\noutput: null\n",
        &[],
        &["c.yaml:4: journal: found \"x\""],
    );
    assert!(faults_of("- a", &[])[0].contains("expected sections"));
}

#[test]
fn a_scope_of_several_partitions_has_its_own_assignor_and_counts_no_ids() {
    assert_eq!(with("").scope, Scope::Partition);
    for (word, scope) in Scope::ALL {
        assert_eq!(with(&format!("scope: {word}")).scope, scope);
    }
    one_fault(
        "scope: world",
        &[],
        &["found \"world\", expected partition"],
    );
    one_fault(
        "window: {time: 1h, ids: 10}\nscope: topic",
        &[],
        &["c.yaml:5: scope: found topic", "leave out window.ids"],
    );
    let assignor = |kind: &str, name: &str, scope: &str| {
        let properties = format!("{kind}: {{partition.assignment.strategy: {name}}}");
        let text = LEAST.replace("kafka: {", &format!("kafka: {{{properties}, "));
        from_str(&format!("{text}scope: {scope}\n"), "c.yaml", &env(&[]))
            .map_err(|it| it.to_string())
    };
    let refused = assignor("consumer_properties", "range", "topic").unwrap_err();
    let expected = "found \"range\", and scope: topic needs roundrobin: leave it out";
    assert!(refused.contains(expected), "{refused}");
    assert!(assignor("properties", "roundrobin", "copartition").is_err());
    assert!(assignor("properties", "range", "copartition").is_ok());
    assert!(assignor("properties", "range", "partition").is_ok());
    // Members of scope: topic must not be in a group with others.
    assert!(assignor("properties", "range,roundrobin", "partition").is_err());
    let scopes = Scope::ALL.map(|(_, scope)| scope.assignor());
    assert_eq!(scopes, [None, Some("range"), Some("roundrobin"), None]);
}

#[test]
fn a_topic_between_two_hops_has_a_name_and_a_size() {
    let config = with("scope: repartition\nwindow: {ids: 10}");
    assert_eq!(config.repartition.topic.render("t", "g"), "t-g-by-id");
    assert_eq!(config.repartition.partitions, None);
    let config = with("repartition: {topic: \"{topic}.hop\", partitions: 12}");
    assert_eq!(config.repartition.topic.render("t", "g"), "t.hop");
    assert_eq!(config.repartition.partitions, Some(12));
    one_fault(
        "repartition: {partitions: 0}",
        &[],
        &["c.yaml:4: repartition.partitions: found \"0\", expected a whole number from 1 to 10000"],
    );
    one_fault(
        "scope: repartition\nrepartition: {topic: \"{topic}_dedup\"}",
        &[],
        &["repartition.topic: gives \"t_dedup\", which is also what output.topic gives"],
    );
    let several = LEAST.replace("[t]", "[t, u]") + "repartition: {topic: hop}\n";
    let refused = from_str(&several, "c.yaml", &env(&[]))
        .unwrap_err()
        .to_string();
    let expected = "each input topic needs a repartition topic of its own";
    assert!(refused.contains(expected), "{refused}");
    // Where there is one hop, a name that is not used is not looked at.
    let group = LEAST.replace("group_id: g", "group_id: \"a group\"");
    let journal = "journal: {topic: \"{topic}-seen\"}\n";
    assert!(from_str(&(group.clone() + journal), "c.yaml", &env(&[])).is_ok());
    let two = from_str(
        &(group + journal + "scope: repartition\n"),
        "c.yaml",
        &env(&[]),
    );
    let refused = two.unwrap_err().to_string();
    assert!(
        refused.contains("set repartition.topic without {group}"),
        "{refused}"
    );
}

#[test]
fn conflicts_have_a_policy_and_a_payload() {
    let id = |more: &str| LEAST.replace("id: {from: key}", &format!("id: {{from: key, {more}}}"));
    let loaded = |more: &str, rest: &str| from_str(&(id(more) + rest), "c.yaml", &env(&[]));
    let rejected = "rejected: {topic: r}\n";
    for (word, conflicts) in Conflicts::ALL {
        let config = loaded(&format!("conflicts: {word}"), rejected).unwrap();
        assert_eq!(
            (config.id.conflicts, config.id.payload),
            (conflicts, Payload::Value)
        );
    }
    let payload = |text: &str| {
        let more = format!("conflicts: count, payload: {text}");
        loaded(&more, "").map(|config| config.id.payload)
    };
    assert_eq!(
        payload("value_and_headers").unwrap(),
        Payload::ValueAndHeaders
    );
    let pointers = Payload::JsonWithout(vec!["/sent".to_owned(), "/a~1b/0".to_owned()]);
    assert_eq!(
        payload("{json_without: [/sent, /a~1b/0]}").unwrap(),
        pointers
    );
    for wrong in [
        "headers",
        "{json_without: []}",
        "{json_without: [sent]}",
        "{json: [/a]}",
        "[/a]",
        "{json_without: ['']}",
    ] {
        assert!(payload(wrong).is_err(), "{wrong}");
    }
    let faults = loaded("conflicts: reject", "").unwrap_err().to_string();
    assert!(faults.contains("rejected.topic is not set"), "{faults}");
    let faults = loaded("conflicts: forward", "scope: topic\n")
        .unwrap_err()
        .to_string();
    assert!(faults.contains("choose count or reject"), "{faults}");
}

#[test]
fn a_token_is_long_and_never_quoted() {
    let token = |text: &str| with_env(&format!("http: {{admin_token: {text}}}"), &[]);
    let config = token("0123456789abcdef").unwrap();
    assert_eq!(config.http.admin_token.as_deref(), Some("0123456789abcdef"));
    for shown in [format!("{config:?}"), config.to_yaml_redacted()] {
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
    }
    for wrong in ["tooshort", "'0123456789 abcdef'", "[0123456789abcdef]"] {
        let faults = token(wrong).unwrap_err().to_string();
        assert!(faults.contains("c.yaml:4: http.admin_token"), "{faults}");
        assert!(
            !faults.contains("tooshort") && !faults.contains("0123456789"),
            "{faults}"
        );
    }
    one_fault(
        "http: {admin_hosts: [a b]}",
        &[],
        &["c.yaml:4", "without a port"],
    );
}

#[test]
fn a_mode_is_one_of_three_words_and_marks_need_no_topic_of_duplicates() {
    assert_eq!(with("").mode, Mode::Filter);
    assert_eq!(
        with("mode: observe\nduplicates: {topic: d}").mode,
        Mode::Observe
    );
    assert_eq!(
        with("mode: mark\nduplicates: {topic: null}").mode,
        Mode::Mark
    );
    one_fault(
        "mode: watch",
        &[],
        &["c.yaml:4: mode: found \"watch\", expected filter, mark or observe"],
    );
    one_fault(
        "mode: mark\nduplicates: {topic: d}",
        &[],
        &[
            "c.yaml:5: duplicates.topic: found \"d\"",
            "leave out one of the two",
        ],
    );
}

#[test]
fn a_window_is_time_or_ids_or_both() {
    let window = |more: &str| (with(more).window.time_ms, with(more).window.ids);
    assert_eq!(window("window: {time: 1h30m}"), (Some(5_400_000), None));
    assert_eq!(
        window("window: {ids: 50_000_000}"),
        (None, Some(50_000_000))
    );
    assert_eq!(window("window: {time: null, ids: 5}"), (None, Some(5)));
    assert_eq!(window("window: {time: 1ms, ids: 5}"), (Some(1), Some(5)));
    assert_eq!(window("window:"), (Some(86_400_000), None));
    one_fault(
        "window: {time: null}",
        &[],
        &["c.yaml:4: window.time", "needs one of them"],
    );
    one_fault("window: {time: 0s}", &[], &["expected 1ms to 3650d"]);
    one_fault(
        "window: {time: 3600}",
        &[],
        &["a bare number does not say of what"],
    );
    one_fault("window: {ids: 0}", &[], &["a whole number from 1"]);
    one_fault(
        "window: 24h",
        &[],
        &["window: found \"24h\", expected a mapping of keys"],
    );
}

#[test]
fn one_value_is_held_against_another() {
    one_fault(
        "transaction: {interval: 2s, timeout: 1500ms}",
        &[],
        &["transaction.interval: found 2s, expected less than transaction.timeout (1500ms)"],
    );
    one_fault(
        "journal: {retention: 1h}",
        &[],
        &["at least window.time (24h)"],
    );
    // One mistake makes one fault: nothing is held against a value that is wrong itself.
    one_fault(
        "journal: {retention: 1h}\nwindow: {time: x}",
        &[],
        &["c.yaml:5: window.time"],
    );
    one_fault(
        "http: {admin: '127.0.0.1:9464'}",
        &[],
        &["http.admin", "which http.listen"],
    );
    assert_eq!(
        with("http: {listen: '0.0.0.0:0', admin: '0.0.0.0:0'}")
            .http
            .admin
            .port(),
        0
    );
}
