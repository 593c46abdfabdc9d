//! Variables over the file, and variables and files inside of its values.

use super::*;

#[test]
fn the_environment_wins_over_the_file() {
    let config = with_env(
        "window: {time: 24h}\nworkers: 1\nduplicates: {topic: d}\n",
        &[
            ("KAFKA_DEDUP__WINDOW__TIME", "1h"),
            ("KAFKA_DEDUP__WORKERS", "2"),
            ("KAFKA_DEDUP__ID__FROM__HEADER", "message-id"),
            ("KAFKA_DEDUP__INPUT__TOPICS", "[a,b]"),
            ("KAFKA_DEDUP__OUTPUT__TOPIC", "{topic}-new"),
            ("KAFKA_DEDUP__DUPLICATES__TOPIC", ""),
            (
                "KAFKA_DEDUP__KAFKA__PROPERTIES__SASL_PASSWORD",
                "${not} {a: file}",
            ),
            (
                "KAFKA_DEDUP__HTTP",
                "{listen: '0.0.0.0:1', admin: '0.0.0.0:2'}",
            ),
            ("KAFKA_DEDUP_CONFIG", "not ours"),
        ],
    )
    .unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(
        (config.window.time_ms, config.workers),
        (Some(3_600_000), 2)
    );
    assert_eq!(config.id.from, IdSource::Header("message-id".to_owned()));
    let names = ["a", "b"].map(|name| TopicPattern::Name(name.to_owned()));
    assert_eq!(config.input.topics, names);
    assert_eq!(config.output.topic.0, "{topic}-new");
    assert_eq!(config.duplicates.topic, None);
    assert_eq!(config.kafka.properties["sasl.password"], "${not} {a: file}");
    assert_eq!(config.http.listen.port(), 1);
}

#[test]
fn variables_alone_make_a_configuration() {
    let pairs = [
        ("KAFKA_DEDUP__KAFKA__BOOTSTRAP_SERVERS", "b:9092"),
        ("KAFKA_DEDUP__KAFKA__GROUP_ID", "g"),
        ("KAFKA_DEDUP__INPUT__TOPICS", "a, ^b{1,2}"),
        ("KAFKA_DEDUP__ID__FROM__CSV__COLUMN", "8"),
        ("KAFKA_DEDUP__ID__FROM__CSV__DELIMITER", ";"),
    ];
    let config = from_str("", "c.yaml", &env(&pairs)).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(
        config.id.from,
        IdSource::Csv {
            column: 8,
            delimiter: b';'
        }
    );
    assert!(config.input.topics[1].matches("bb"));
    // What is missing is not blamed on a variable that is there.
    let found = faults_of("", &pairs[..1]);
    assert!(
        found[0].starts_with("c.yaml: kafka.group_id: missing"),
        "{found:#?}"
    );
}

#[test]
fn a_fault_in_a_variable_names_it_instead_of_a_line() {
    let bad = |name: &str, value: &str, part: &str| {
        one_fault("", &[(name, value)], &[&format!("{name}: "), part]);
    };
    bad("KAFKA_DEDUP__WINDOW__TIME", "1", "window.time: found \"1\"");
    bad("KAFKA_DEDUP__INPUT__TOPICS", "[a", "not valid YAML");
    bad(
        "KAFKA_DEDUP__INPUT__TOPICS",
        "a,,b",
        "a topic name (it is empty)",
    );
    bad(
        "KAFKA_DEDUP__WINDOW__TIEM",
        "1h",
        "did you mean KAFKA_DEDUP__WINDOW__TIME?",
    );
    bad(
        "KAFKA_DEDUP__window__time",
        "1h",
        "did you mean KAFKA_DEDUP__WINDOW__TIME?",
    );
    bad("KAFKA_DEDUP__NOTHING_LIKE_IT", "1", "stands for no key");
    bad("KAFKA_DEDUP__KAFKA__PROPERTIES__", "1", "stands for no key");
    bad(
        "KAFKA_DEDUP__KAFKA__PROPERTIES__ACKS",
        "1",
        "kafka.properties.acks: refused",
    );
    bad(
        "KAFKA_DEDUP__KAFKA__PROPERTIES",
        "{a: [1]}",
        "kafka.properties.a: found a list",
    );
    bad(
        "KAFKA_DEDUP__WINDOW",
        "{tmie: 1h}",
        "window.tmie: unknown key; did you mean time?",
    );
    bad("KAFKA_DEDUP__LOG__LEVEL", "\u{FFFD}", "not UTF-8");
    let both = [
        ("KAFKA_DEDUP__ID__FROM", "key"),
        ("KAFKA_DEDUP__ID__FROM__HEADER", "h"),
    ];
    one_fault(
        "",
        &both,
        &["KAFKA_DEDUP__ID__FROM__HEADER: contradicts KAFKA_DEDUP__ID__FROM;"],
    );
}

#[test]
fn values_of_the_file_are_filled_from_the_environment_and_from_files() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "hunter2\n").unwrap();
    let file = format!("${{file:{}}}", secret.path().display());
    let more = "workers: ${N}\noutput: {topic: '${PREFIX:-new}.{topic}'}\n\
                store: {path: '/data/${HOSTNAME}'}\nlog: {level: '${LEVEL:-info}'}\n";
    let config = with_env(more, &[("N", "3"), ("HOSTNAME", "h")]).unwrap();
    assert_eq!(
        (config.workers, config.output.topic.0.as_str()),
        (3, "new.{topic}")
    );
    assert_eq!(config.store.path, PathBuf::from("/data/h"));
    one_fault(
        "workers: ${N}",
        &[],
        &["c.yaml:4: workers: the environment variable N is not set"],
    );
    one_fault(
        "workers: ${N}",
        &[("N", "x")],
        &["found \"x\" (from \"${N}\")"],
    );
    // A secret that ends up at the wrong key must not end up in the message.
    let found = faults_of(&format!("{LEAST}workers: {file}"), &[]).join("\n");
    assert!(
        found.contains("found \"${file:") && !found.contains("hunter2"),
        "{found}"
    );
    let text = LEAST.replace(
        "i}",
        &format!("i, properties: {{sasl.password: '{file}'}}}}"),
    );
    let config = from_str(&text, "c.yaml", &env(&[])).unwrap();
    assert_eq!(config.kafka.properties["sasl.password"], "hunter2");
}
