//! Topic names, patterns and templates, alone and against each other.

use super::*;

/// One fault for these topics, with this in it.
fn refused(topics: &str, more: &str, parts: &[&str]) {
    let text = LEAST.replace("[t]", topics);
    let found = faults_of(&format!("{text}{more}"), &[]);
    assert_eq!(found.len(), 1, "{topics} {more}: {found:#?}");
    for part in parts {
        assert!(found[0].contains(part), "{part:?} is not in {:?}", found[0]);
    }
}

#[test]
fn one_topic_needs_no_list() {
    let text = LEAST.replace("[t]", "orders");
    let config = from_str(&text, "c.yaml", &env(&[])).unwrap();
    assert_eq!(
        config.input.topics,
        [TopicPattern::Name("orders".to_owned())]
    );
}

#[test]
fn a_regular_expression_starts_with_a_caret_and_counts_from_there() {
    let text = LEAST.replace("[t]", "['^trucks\\.(eu|us)$', orders]");
    let config = from_str(&text, "c.yaml", &env(&[])).unwrap();
    assert!(config.input.topics[0].matches("trucks.eu"));
    assert!(!config.input.topics[0].matches("my.trucks.eu"));
    refused(
        "['trucks.*']",
        "",
        &[
            "c.yaml:2: input.topics",
            "'*' is not one of",
            "starts with ^",
        ],
    );
    refused(
        "['^(trucks']",
        "",
        &["a regular expression (unclosed group)"],
    );
    refused("['^a|b']", "", &["^(a|b)"]);
}

#[test]
fn names_that_kafka_refuses_are_refused_here() {
    refused("[]", "", &["found 0 topics"]);
    refused("[a, a]", "", &["\"a\" is listed twice"]);
    refused("['']", "", &["it is empty"]);
    refused("['..']", "", &["reserved"]);
    refused(&format!("[{}]", "a".repeat(250)), "", &["250 characters"]);
    refused("{a: b}", "", &["found a mapping"]);
    refused(
        "[t]",
        "output: {topic: 'a/b'}",
        &["c.yaml:4: output.topic", "'/' is not one of"],
    );
    refused(
        "[t]",
        "output: {topic: '{topc}_x'}",
        &["{topic} and {group}, not \"{topc}\""],
    );
    refused("[t]", "output: {topic: 'x}'}", &["not \"}\""]);
    let long = format!("output: {{topic: '{{topic}}{}'}}", "x".repeat(249));
    refused("[t]", &long, &["which is no topic name: 250 characters"]);
}

#[test]
fn a_service_that_would_read_what_it_writes_is_refused() {
    refused(
        "[a, a_dedup]",
        "",
        &[
            "c.yaml:2: output.topic: gives \"a_dedup\"",
            "also an input topic",
        ],
    );
    refused(
        "[t]",
        "duplicates: {topic: t}",
        &["c.yaml:4: duplicates.topic", "also an input"],
    );
    refused(
        "[t]",
        "rejected: {topic: '{topic}'}",
        &["rejected.topic", "also an input"],
    );
    refused(
        "[t]",
        "journal: {topic: t}",
        &["journal.topic", "also an input"],
    );
    refused(
        "['^t']",
        "output: {topic: '{topic}'}",
        &[
            "output.topic",
            "every topic that \"^t\" matches its own name",
        ],
    );
    // A regular expression leaves the service's own topics out when it is matched.
    let text = LEAST.replace("[t]", "['^.*']");
    assert!(
        from_str(
            &format!("{text}output: {{topic: all}}"),
            "c.yaml",
            &env(&[])
        )
        .is_ok()
    );
}

#[test]
fn two_kinds_of_records_never_share_a_topic() {
    refused(
        "[t]",
        "duplicates: {topic: t_dedup}",
        &["also what output.topic gives"],
    );
    refused(
        "['^t']",
        "rejected: {topic: d}\nduplicates: {topic: d}",
        &[
            "c.yaml:4: rejected.topic",
            "also what duplicates.topic gives",
        ],
    );
    refused(
        "[t]",
        "journal: {topic: '{topic}_dedup'}",
        &["journal.topic", "output.topic"],
    );
    // Not only for the same input.
    refused(
        "[a, b]",
        "duplicates: {topic: b_dedup}",
        &["also what output.topic gives"],
    );
    // Several inputs may share an output.
    let text = LEAST.replace("[t]", "[a, b]");
    assert!(
        from_str(
            &format!("{text}output: {{topic: all}}"),
            "c.yaml",
            &env(&[])
        )
        .is_ok()
    );
}

#[test]
fn every_input_topic_has_its_own_journal() {
    for topics in ["[a, b]", "['^a']"] {
        refused(
            topics,
            "journal: {topic: seen}",
            &["expected {topic} in it"],
        );
    }
    assert_eq!(with("journal: {topic: seen}").journal.topic.0, "seen");
}

#[test]
fn a_group_id_that_no_topic_name_may_hold_asks_for_another_journal() {
    let text = LEAST.replace("group_id: g", "group_id: 'my group'");
    let found = faults_of(&text, &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("c.yaml:1: journal.topic: the group id \"my group\" has ' '"));
    assert!(
        found[0].contains("set journal.topic without {group}"),
        "{found:#?}"
    );
    let text = format!("{text}journal: {{topic: '{{topic}}-seen'}}");
    assert!(from_str(&text, "c.yaml", &env(&[])).is_ok());
}
