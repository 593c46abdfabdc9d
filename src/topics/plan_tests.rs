use super::*;
use crate::config::from_str;
use crate::kafka::describe::TopicDescription;
use crate::topics::OwnTopics;

fn config(extra: &str) -> Config {
    let text = format!(
        "kafka: {{bootstrap_servers: \"b:9092\", group_id: g, instance_id: i}}\n\
         input: {{topics: [in]}}\nid: {{from: key}}\n{extra}"
    );
    from_str(&text, "test", &std::collections::BTreeMap::new()).expect("a good file")
}

fn topic(name: &str, partitions: i32) -> TopicDescription {
    TopicDescription {
        name: name.to_owned(),
        id: None,
        partitions,
        replication: 1,
        led: true,
        permitted: None,
    }
}

fn decided(config: &Config, role: Role, input: i32, has: Option<i32>, worked: bool) -> Decision {
    let survey = Survey {
        input: topic("in", input),
        names: OwnTopics::new(config).for_input("in"),
        own: Vec::new(),
        left_behind: None,
        worked_before: worked,
    };
    let found = has.map(|partitions| topic("ours", partitions));
    decide(
        config,
        &survey,
        &Own {
            role,
            name: "ours".to_owned(),
            wanted: input,
            found,
        },
    )
}

fn contradicts(decision: &Decision, words: &[&str]) {
    let Decision::Contradiction(sentence) = decision else {
        panic!("{decision:?}")
    };
    for word in words {
        assert!(sentence.contains(word), "no {word} in: {sentence}");
    }
}

#[test]
fn what_is_absent_is_made_where_that_is_ours_to_do() {
    let ours = config("");
    assert_eq!(
        decided(&ours, Role::Output, 4, None, false),
        Decision::Create(4)
    );
    let theirs = config("output: {create: false}\n");
    assert_eq!(
        decided(&theirs, Role::Journal, 4, None, true),
        Decision::Create(4)
    );
    for role in [Role::Output, Role::Duplicates, Role::Rejected] {
        let decision = decided(&theirs, role, 4, None, true);
        contradicts(
            &decision,
            &["ours", "4 partitions", "output.create", role.name()],
        );
    }
}

#[test]
fn a_fresh_deployment_does_not_grow_what_somebody_else_made() {
    let config = config("");
    let decision = decided(&config, Role::Output, 4, Some(2), false);
    contradicts(
        &decision,
        &[
            "ours has 2 partitions",
            "input in has 4",
            "output.partition: key",
        ],
    );
    contradicts(
        &decided(&config, Role::Journal, 4, Some(3), false),
        &["has 3", "has 4", "journal"],
    );
    contradicts(
        &decided(&config, Role::Rejected, 4, Some(3), false),
        &["rejected"],
    );
}

#[test]
fn a_deployment_that_has_worked_follows_its_input() {
    let config = config("");
    for role in [
        Role::Output,
        Role::Duplicates,
        Role::Rejected,
        Role::Journal,
    ] {
        assert_eq!(decided(&config, role, 4, Some(2), true), Decision::Grow(4));
    }
}

#[test]
fn without_output_create_only_the_journal_grows() {
    let config = config("output: {create: false}\n");
    assert_eq!(
        decided(&config, Role::Journal, 4, Some(2), true),
        Decision::Grow(4)
    );
    contradicts(
        &decided(&config, Role::Output, 4, Some(2), true),
        &["kafka-topics --alter"],
    );
}

#[test]
fn more_partitions_are_fine_except_in_a_journal() {
    let config = config("");
    assert_eq!(
        decided(&config, Role::Output, 4, Some(8), false),
        Decision::Fits
    );
    assert_eq!(
        decided(&config, Role::Journal, 4, Some(4), false),
        Decision::Fits
    );
    contradicts(
        &decided(&config, Role::Journal, 4, Some(8), true),
        &["has 8", "has 4"],
    );
}

#[test]
fn by_key_only_the_output_may_be_smaller() {
    let config = config("output: {partition: key}\n");
    assert_eq!(
        decided(&config, Role::Output, 4, Some(1), false),
        Decision::Fits
    );
    contradicts(
        &decided(&config, Role::Duplicates, 4, Some(1), false),
        &["duplicates"],
    );
}

#[test]
fn between_two_hops_partitions_stay_as_many_as_they_are() {
    let hops = |more: &str| config(&format!("scope: repartition\nrepartition: {{{more}}}\n"));
    let free = hops("");
    assert_eq!(
        decided(&free, Role::Repartition, 4, None, true),
        Decision::Create(4)
    );
    // The input has grown since it was made.
    assert_eq!(
        decided(&free, Role::Repartition, 8, Some(4), true),
        Decision::Fits
    );
    assert_eq!(
        decided(&hops("partitions: 8"), Role::Repartition, 8, Some(8), true),
        Decision::Fits
    );
    let other = decided(&hops("partitions: 4"), Role::Repartition, 4, Some(8), true);
    contradicts(
        &other,
        &["has 8 partitions", "where they are not remembered"],
    );
}
