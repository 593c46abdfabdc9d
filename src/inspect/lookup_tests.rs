//! Ids as they are typed, and what the window makes of what is found.

use super::*;
use crate::config::Window;

struct Record {
    key: &'static [u8],
    headers: &'static [(&'static str, &'static [u8])],
}

impl Fields for Record {
    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn value(&self) -> Option<&[u8]> {
        None
    }

    fn last_header(&self, name: &CStr) -> Option<&[u8]> {
        let found = self
            .headers
            .iter()
            .rev()
            .find(|(n, _)| n.as_bytes() == name.to_bytes());
        found.map(|(_, value)| *value)
    }
}

fn arguments(ids: &[&str], hex: &[&str]) -> InspectArgs {
    InspectArgs {
        config: "f".into(),
        topic: None,
        partition: None,
        id: ids.iter().map(|id| (*id).to_owned()).collect(),
        id_hex: hex.iter().map(|id| (*id).to_owned()).collect(),
        offline: false,
        no_journal_scan: false,
        json: false,
    }
}

fn config(id: &str) -> Config {
    let text = format!(
        "kafka: {{bootstrap_servers: \"b:1\", group_id: g}}\ninput: {{topics: [t]}}\nid: {{from: {id}}}\n"
    );
    config::from_str(&text, "test", &std::collections::BTreeMap::new()).expect("a good file")
}

fn known(config: &Config, record: &Record) -> Option<Fingerprint> {
    let seed = deployment_seed(&config.kafka.group_id);
    match Identifier::new(&config.id.from, seed, &Schemas::default()).identify(record) {
        Ok(Identity::Id(fingerprint)) => Some(fingerprint),
        Ok(Identity::Missing(_)) | Err(_) => None,
    }
}

const RECORD: Record = Record {
    key: b"4711",
    headers: &[("source", b"truck"), ("id", b"\xff\x00")],
};

#[test]
fn a_typed_id_has_the_fingerprint_that_the_service_gives_its_record() {
    let by_key = config("key");
    let typed = |config: &Config, ids: &[&str], hex: &[&str]| {
        wanted(&arguments(ids, hex), config).expect("an id")
    };
    let of_key = known(&by_key, &RECORD);
    assert!(of_key.is_some());
    assert_eq!(typed(&by_key, &["4711"], &[]), of_key);
    assert_eq!(typed(&by_key, &[], &["34373131"]), of_key);
    assert_ne!(typed(&by_key, &["4712"], &[]), of_key);
    let by_header = config("{header: id}");
    assert_eq!(
        typed(&by_header, &[], &["FF00"]),
        known(&by_header, &RECORD)
    );
    assert_eq!(typed(&by_header, &[], &[]), None);
    let by_event = config("cloudevents");
    let event = Record {
        key: b"",
        headers: &[("ce_source", b"/truck"), ("ce_id", b"7")],
    };
    let of_event = known(&by_event, &event);
    assert!(of_event.is_some());
    assert_eq!(typed(&by_event, &["/truck", "7"], &[]), of_event);
}

#[test]
fn the_parts_of_an_id_are_put_together_as_the_service_does() {
    let parts = config("{all: [{header: source}, key]}");
    let of_record = known(&parts, &RECORD);
    assert!(of_record.is_some());
    let typed = |ids: &[&str]| wanted(&arguments(ids, &[]), &parts).expect("an id");
    assert_eq!(typed(&["truck", "4711"]), of_record);
    assert_ne!(typed(&["4711", "truck"]), of_record);
    assert_ne!(typed(&["truck4", "711"]), of_record);
}

#[test]
fn an_id_that_no_record_can_have_is_bad_usage() {
    let (one, two) = (config("key"), config("{all: [{header: source}, key]}"));
    for (config, ids, hex, words) in [
        (&one, &["a", "b"][..], &[][..], "2 were given"),
        (&two, &["a"], &[], "1 was given"),
        (&one, &[""], &[], "empty"),
        (&two, &["a", ""], &[], "empty"),
        (&one, &[], &["abc"], "even number"),
        (&one, &[], &["zz"], "0-9 and a-f"),
        (&one, &[], &["+a"], "0-9 and a-f"),
    ] {
        let stop = wanted(&arguments(ids, hex), config).expect_err("bad usage");
        assert_eq!(stop.status, crate::exit::Status::Usage);
        assert!(stop.sentence.contains(words), "{stop}");
    }
}

fn window(time_ms: Option<i64>, ids: Option<u64>) -> Window {
    Window {
        time_ms,
        ids,
        refresh: false,
        max_ahead_ms: 0,
    }
}

const ENTRY: Entry = Entry {
    time_ms: 1000,
    offset: 5,
    ordinal: 7,
    payload: 0,
};

#[test]
fn an_id_is_remembered_up_to_the_window_and_not_a_millisecond_longer() {
    let at = |now| remembrance(window(Some(500), None), ("t", 0), &ENTRY, (Some(now), 8));
    let last = at(1500);
    assert!(last.remembered);
    assert_eq!((last.age_ms, last.remembered_until), (500, Some(1500)));
    assert_eq!(last.forgotten_after_ids, None);
    assert!(!at(1501).remembered);
    assert!(at(10).remembered && at(10).age_ms == 0);
}

#[test]
fn a_window_of_ids_forgets_after_so_many_more() {
    let at = |next| remembrance(window(None, Some(3)), ("t", 0), &ENTRY, (Some(9999), next));
    for (next, remembered, after) in [(8, true, 3), (9, true, 2), (10, true, 1), (11, false, 0)] {
        let sighting = at(next);
        assert_eq!(sighting.remembered, remembered, "{next}");
        assert_eq!(sighting.forgotten_after_ids, Some(after), "{next}");
        assert_eq!(sighting.remembered_until, None);
    }
}

fn found(entry: Option<(Entry, String)>, next_ordinal: u64) -> Found {
    let anchor = crate::store::Anchor {
        offset: 0,
        checksum: 0,
    };
    Found {
        topic: "t".to_owned(),
        partition: 0,
        in_use: false,
        entry,
        checkpoint: Some(crate::store::Checkpoint {
            anchor,
            next_offset: 0,
            stream_time_ms: None,
            next_ordinal,
        }),
        unread: Vec::new(),
    }
}

#[test]
fn where_an_id_lies_in_the_store_is_said_of_every_case() {
    let slice = "slice-1".to_owned();
    let other = Entry {
        time_ms: 1,
        ..ENTRY
    };
    let older = Entry {
        ordinal: 2,
        ..ENTRY
    };
    let held = |entry: Entry| Some((entry, slice.clone()));
    let mut in_use = found(None, 0);
    in_use.in_use = true;
    for (stored, expected, words) in [
        (None, None, "nothing of this partition"),
        (Some(found(held(ENTRY), 9)), Some("slice-1"), "in slice-1"),
        (Some(found(held(other), 9)), Some("slice-1"), "contradicts"),
        (Some(found(held(older), 7)), None, "with ordinal 2"),
        (Some(found(None, 7)), None, "not sealed yet"),
        (Some(found(None, 8)), None, "in no slice"),
        (Some(in_use), None, "in use by a running service"),
    ] {
        let (slice, sentence) = place_in_store(&ENTRY, stored.as_ref());
        assert_eq!(slice.as_deref(), expected, "{sentence}");
        assert!(sentence.contains(words), "{sentence}");
    }
}
