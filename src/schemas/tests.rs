//! The handle: what is kept, what is asked, and when a registry's no is believed. What a registry does
//! is for tests/schemas.rs.

use super::*;

fn schema(field: &str) -> Schema {
    Schema {
        format: "AVRO".to_owned(),
        text: format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"{field}","type":"string"}}]}}"#
        ),
        references: Vec::new(),
    }
}

fn source() -> IdSource {
    IdSource::Avro("/id".to_owned())
}

#[test]
fn a_schema_says_what_its_records_have() {
    let place = &places(&source())[0];
    let json = Schema {
        format: "JSON".to_owned(),
        ..schema("id")
    };
    for (schema, prospect, part) in [
        (schema("id"), Prospect::Ids, "the id is at /id: string"),
        (
            schema("di"),
            Prospect::Absent,
            "nothing at /id: its records count as without an id",
        ),
        (
            json,
            Prospect::Refused,
            "is of type \"JSON\", and AVRO was expected",
        ),
    ] {
        let plan = Plan::new(place, &schema);
        assert_eq!(plan.prospect(), prospect, "{}", plan.sentence());
        assert!(plan.sentence().contains(part), "{}", plan.sentence());
    }
}

#[test]
fn the_schemas_that_were_not_used_for_the_longest_time_are_let_go() {
    let schemas = Schemas::given(&source(), (0..1_000).map(|id| (id, schema("id"))));
    schemas.look_up(0).expect("kept");
    let inner = schemas.inner().expect("some");
    inner.keep(1_000, &schema("id"));
    assert!(schemas.look_up(0).is_ok() && schemas.look_up(1_000).is_ok());
    assert_eq!(schemas.look_up(1).map(drop), Err(Unresolved::Unknown(1)));
    let state = inner.lock();
    assert_eq!(state.known.len(), KNOWN_MAX);
    assert_eq!(
        state.known_bytes,
        state.known.values().map(|known| known.bytes).sum::<usize>()
    );
}

#[test]
fn questions_are_bounded_and_the_one_wanted_least_lately_makes_room() {
    let mut state = State::default();
    let start = Instant::now();
    for id in 0..2_000 {
        let now = start + Duration::from_millis(u64::from(id));
        state.make_room(now);
        state.asked.insert(id, Asked::new(now));
    }
    assert_eq!(state.asked.len(), ASKED_MAX);
    assert!(state.asked.keys().all(|id| *id >= 1_000));
}

#[test]
fn a_registrys_no_is_believed_as_the_config_says() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let said = |first, last| Asked {
        denied: Some((at(first), at(last))),
        ..Asked::new(start)
    };
    let never = Asked::new(start);
    for policy in [
        UnknownSchema::Fail,
        UnknownSchema::Missing,
        UnknownSchema::Wait,
    ] {
        assert!(!never.is_denied(policy, at(500)));
        assert!(!said(0, 100).is_denied(UnknownSchema::Wait, at(100)));
    }
    // Once is enough, for a minute.
    assert!(said(0, 0).is_denied(UnknownSchema::Missing, at(59)));
    assert!(!said(0, 0).is_denied(UnknownSchema::Missing, at(60)));
    // For ten seconds, and nothing else in between.
    assert!(!said(0, 9).is_denied(UnknownSchema::Fail, at(20)));
    assert!(said(0, 10).is_denied(UnknownSchema::Fail, at(20)));
}
