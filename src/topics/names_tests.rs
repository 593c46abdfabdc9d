use super::*;
use crate::config::TopicPattern;

fn own(inputs: &[&str]) -> OwnTopics {
    let pattern = |text: &&str| match text.starts_with('^') {
        true => TopicPattern::Regex(regex::Regex::new(text).expect("a pattern")),
        false => TopicPattern::Name((*text).to_owned()),
    };
    OwnTopics {
        group: "g".to_owned(),
        inputs: inputs.iter().map(pattern).collect(),
        output: TopicTemplate("{topic}_dedup".to_owned()),
        duplicates: Some(TopicTemplate("dup.{topic}".to_owned())),
        rejected: Some(TopicTemplate("all_rejected".to_owned())),
        repartition: TopicTemplate("{topic}-{group}-by-id".to_owned()),
        has_two_hops: false,
        journal: TopicTemplate("{topic}-{group}-seen".to_owned()),
        writes_records: true,
    }
}

#[test]
fn names_are_rendered_from_topic_and_group() {
    let names = own(&["truck"]).for_input("truck");
    assert_eq!(names.output.as_deref(), Some("truck_dedup"));
    assert_eq!(names.duplicates.as_deref(), Some("dup.truck"));
    assert_eq!(names.rejected.as_deref(), Some("all_rejected"));
    assert_eq!(names.journal, "truck-g-seen");
}

#[test]
fn what_is_not_written_has_no_name_but_stays_ours() {
    let mut own = own(&["^truck.*"]);
    own.writes_records = false;
    let names = own.for_input("truck");
    assert_eq!(
        (names.output, names.duplicates, names.rejected),
        (None, None, None)
    );
    assert_eq!(names.journal, "truck-g-seen");
    // Another mode may have made it.
    assert_eq!(own.resolve(&["truck", "truck_dedup"]), ["truck"]);
}

#[test]
fn a_pattern_never_matches_what_is_made_of_its_own_inputs() {
    let own = own(&["^truck.*"]);
    let all = [
        "__consumer_offsets",
        "truck_position",
        "truck_position_dedup",
        "truck_position_dedup_dedup",
        "truck_position-g-seen",
        "truck_position-other-seen",
        "trucks",
    ];
    assert_eq!(
        own.resolve(&all),
        ["truck_position", "truck_position-other-seen", "trucks"]
    );
}

#[test]
fn what_only_looks_like_ours_is_an_input() {
    // No input pattern matches "bus", so nobody makes bus_dedup.
    let own = own(&["^(truck|bus_).*"]);
    assert!(own.is_own("truck1_dedup"));
    assert!(!own.is_own("bus_dedup"), "bus is no input");
    assert_eq!(own.resolve(&["bus_dedup", "_dedup"]), ["bus_dedup"]);
}

#[test]
fn a_pattern_that_matches_everything_still_leaves_ours_out() {
    let own = own(&["^.*"]);
    let all = [
        "a",
        "a_dedup",
        "dup.a",
        "all_rejected",
        "a-g-seen",
        "__transaction_state",
    ];
    assert_eq!(own.resolve(&all), ["a"]);
}

#[test]
fn a_topic_configured_by_its_name_is_never_left_out() {
    let own = own(&["truck_dedup", "^truck.*"]);
    assert_eq!(
        own.resolve(&["truck", "truck_dedup", "__x"]),
        ["truck", "truck_dedup"]
    );
    assert!(!own.is_own("truck_dedup"));
    let own = super::tests::own(&["__internal"]);
    assert_eq!(own.resolve(&["__internal"]), ["__internal"]);
}

#[test]
fn topics_made_of_a_name_are_ours_even_before_it_exists() {
    assert!(own(&["truck"]).is_own("truck-g-seen"));
    assert!(!own(&["truck"]).is_own("bus-g-seen"));
}

#[test]
fn templates_are_read_backwards() {
    let name = |template: &str, name: &str| match captured(template, "g", name) {
        Some(Captured::Name(topic)) => Some(topic.to_owned()),
        Some(Captured::Nothing) => Some(String::new()),
        None => None,
    };
    assert_eq!(name("{topic}.{topic}", "ab.ab").as_deref(), Some("ab"));
    assert_eq!(name("{topic}.{topic}", "ab.ac"), None);
    assert_eq!(name("{topic}.{topic}", "ab.a"), None);
    assert_eq!(name("{topic}_x", "_x"), None);
    assert_eq!(name("{topic}_x", "x"), None);
    assert_eq!(name("all", "all").as_deref(), Some(""));
    assert_eq!(name("p-{topic}-s", "p-é-s").as_deref(), Some("é"));
    assert_eq!(name("é{topic}", "éa").as_deref(), Some("a"));
    assert_eq!(name("a{topic}", "éa"), None);
}

#[test]
fn of_two_hops_the_journal_is_that_of_the_second() {
    let mut own = own(&["^truck.*"]);
    own.has_two_hops = true;
    let names = own.for_input("truck");
    assert_eq!(names.repartition.as_deref(), Some("truck-g-by-id"));
    assert_eq!(names.journal, "truck-g-by-id-g-seen");
    assert_eq!(names.output.as_deref(), Some("truck_dedup"));
    assert_eq!(own.judged("truck"), "truck-g-by-id");
    assert_eq!(own.journal_of("truck-g-by-id"), names.journal);
    assert_eq!(own.input_of("truck-g-by-id").as_deref(), Some("truck"));
    assert_eq!(own.input_of("bus-g-by-id"), None);
    assert_eq!(own.repartition_before("truck"), None);
    let all = [
        "truck",
        "truck-g-by-id",
        "truck-g-by-id-g-seen",
        "truck_dedup",
    ];
    assert_eq!(own.resolve(&all), ["truck"]);

    own.has_two_hops = false;
    assert_eq!(own.resolve(&all), ["truck"]);
    let before = own.repartition_before("truck");
    assert_eq!(before.as_deref(), Some("truck-g-by-id"));
    assert_eq!(own.input_of("truck").as_deref(), Some("truck"));
    assert_eq!(own.input_of("truck-g-by-id"), None);
    own.group = "no topic's name".to_owned();
    assert_eq!(own.repartition_before("truck"), None);
}
