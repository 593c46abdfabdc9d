use super::*;
use crate::config::from_str;
use crate::exit::Status;

fn config(extra: &str) -> Config {
    let text = format!(
        "kafka: {{bootstrap_servers: \"b:9092\", group_id: g, instance_id: i}}\n\
         input: {{topics: [in]}}\nid: {{from: key}}\n{extra}"
    );
    from_str(&text, "test", &std::collections::BTreeMap::new()).expect("a good file")
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn the_output_accepts_and_keeps_what_its_input_does_with_the_records_own_timestamps() {
    let input = settings(&[
        ("message.timestamp.type", "LogAppendTime"),
        ("message.timestamp.after.max.ms", "3600000"),
        ("retention.ms", "-1"),
        ("max.message.bytes", "5000000"),
        ("min.insync.replicas", "2"),
        ("compression.type", "zstd"),
    ]);
    let made = initial(&config(""), Role::Output, Some(&input));
    assert_eq!(made["message.timestamp.type"], "CreateTime");
    assert_eq!(made["message.timestamp.after.max.ms"], "3600000");
    assert_eq!(made["retention.ms"], "-1");
    assert_eq!(made["max.message.bytes"], "5000000");
    assert_eq!(made["min.insync.replicas"], "2");
    assert!(!made.contains_key("compression.type"));
}

#[test]
fn a_small_input_does_not_make_an_output_that_refuses_our_batches() {
    let input = settings(&[("max.message.bytes", "1000")]);
    let made = initial(&config(""), Role::Output, Some(&input));
    assert_eq!(made["max.message.bytes"], MESSAGE_BYTES.to_string());
    let huge = settings(&[("max.message.bytes", "2147483647")]);
    let made = initial(&config(""), Role::Duplicates, Some(&huge));
    assert_eq!(made["max.message.bytes"], "2147483647");
}

#[test]
fn rejected_records_find_a_place_whatever_their_timestamp_and_headers() {
    let input = settings(&[
        ("message.timestamp.before.max.ms", "1"),
        ("max.message.bytes", "2000000"),
    ]);
    let made = initial(&config(""), Role::Rejected, Some(&input));
    assert_eq!(
        made["message.timestamp.before.max.ms"],
        i64::MAX.to_string()
    );
    assert_eq!(
        made["max.message.bytes"],
        (2_000_000 + HEADER_BYTES).to_string()
    );
}

#[test]
fn a_journal_ages_by_the_brokers_clock_and_only_where_that_was_configured() {
    let input = settings(&[("min.insync.replicas", "2"), ("retention.ms", "5")]);
    let made = initial(&config(""), Role::Journal, Some(&input));
    assert_eq!(made["message.timestamp.type"], "LogAppendTime");
    assert_eq!(made["retention.ms"], "-1");
    assert_eq!(made["cleanup.policy"], "delete");
    assert_eq!(made["min.insync.replicas"], "2");
    let kept = config("journal: {retention: 48h}\n");
    assert_eq!(
        initial(&kept, Role::Journal, None)["retention.ms"],
        "172800000"
    );
}

#[test]
fn a_compacted_journal_stops_and_a_short_lived_one_warns() {
    let config = config("window: {time: 1h}\n");
    let found = |pairs: &[(&str, &str)]| judge(&config, Role::Journal, "j", &settings(pairs));
    let stop = found(&[("cleanup.policy", "compact,delete")]).expect_err("a contradiction");
    assert_eq!(stop.status, Status::Contradiction);
    assert!(stop.sentence.contains('j') && stop.sentence.contains("cleanup.policy=delete"));
    let short = found(&[("retention.ms", "60000"), ("cleanup.policy", "delete")]).expect("usable");
    assert!(short[0].contains("retention.ms=60000"), "{short:?}");
    assert_eq!(
        found(&[("retention.ms", "3600000")]).expect("usable"),
        Vec::<String>::new()
    );
    assert_eq!(
        found(&[("retention.ms", "-1")]).expect("usable"),
        Vec::<String>::new()
    );
    assert_eq!(
        found(&[("retention.bytes", "1000")]).expect("usable").len(),
        1
    );
}

#[test]
fn an_output_that_changes_timestamps_or_refuses_batches_warns() {
    let found = settings(&[
        ("message.timestamp.type", "LogAppendTime"),
        ("max.message.bytes", "1000"),
    ]);
    let warnings = judge(&config(""), Role::Output, "out", &found).expect("usable");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("CreateTime") && warnings[1].contains("batch.size"));
}

#[test]
fn what_waits_between_two_hops_is_neither_lost_nor_changed() {
    let input = settings(&[
        ("message.timestamp.after.max.ms", "3600000"),
        ("retention.ms", "1000"),
        ("cleanup.policy", "compact"),
        ("max.message.bytes", "5000000"),
        ("min.insync.replicas", "2"),
    ]);
    let made = initial(&config(""), Role::Repartition, Some(&input));
    assert_eq!(made["message.timestamp.after.max.ms"], i64::MAX.to_string());
    assert_eq!(made["retention.ms"], "-1");
    assert_eq!(made["cleanup.policy"], "delete");
    assert_eq!(made["min.insync.replicas"], "2");
    // Room for the envelope.
    assert_eq!(
        made["max.message.bytes"],
        (5_000_000 + HEADER_BYTES).to_string()
    );
    let judged = |found: &Settings| judge(&config(""), Role::Repartition, "between", found);
    assert_eq!(judged(&made).expect("its own settings"), [""; 0]);
    for (key, value) in [
        ("retention.ms", "1000"),
        ("message.timestamp.type", "LogAppendTime"),
    ] {
        let mut changed = made.clone();
        changed.insert(key.to_owned(), value.to_owned());
        let stop = judged(&changed).expect_err(key);
        assert_eq!(stop.status, Status::Contradiction);
        assert!(
            stop.sentence
                .contains(&format!("between has {key}={value}")),
            "{stop}"
        );
    }
}
