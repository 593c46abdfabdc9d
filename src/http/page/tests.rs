//! The page without a process behind it: what it says, and that nothing in it is taken for HTML.

use std::time::{Duration, SystemTime};

use super::findings::Finding;
use super::history::Rates;
use super::problems::Problem;
use super::render;
use super::view::{Found, MOST_ROWS, View, Wanted};
use crate::control::{Answer, What};
use crate::http::health::{Condition, Held};
use crate::http::status::PartitionStatus;
use crate::metrics::{AgeBucket, Totals};

const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{202e}\0";

pub(super) fn row(topic: &str, partition: i32) -> PartitionStatus {
    PartitionStatus {
        topic: topic.to_owned(),
        partition,
        input: topic.to_owned(),
        state: "active",
        next_offset: Some(1),
        lag: Some(1234),
        lag_seconds: Some(61.0),
        stream_time_ms: Some(1_700_000_000_000),
        coverage: Some(0.999),
        last_commit_ms: None,
        ids: 7,
        slices: 0,
        restore_remaining: None,
    }
}

fn view(components: Vec<(String, Held)>) -> View {
    View {
        now: SystemTime::UNIX_EPOCH,
        group: HOSTILE.to_owned(),
        instance: "i".to_owned(),
        mode: "filter",
        ready: components
            .iter()
            .all(|(_, held)| !matches!(held.condition, Condition::NotReady(_))),
        components,
        rates: vec![
            Rates {
                received: 100.0,
                duplicates: 10.0,
            };
            3
        ],
        sum: Totals {
            received: 3000,
            duplicates: 300,
            ..Totals::default()
        },
        ages: vec![
            AgeBucket {
                up_to: Some(Duration::from_secs(1)),
                count: 3,
            },
            AgeBucket {
                up_to: None,
                count: 1,
            },
        ],
        rows: vec![(0, row(HOSTILE, 0))],
        partitions: 1,
        behind: 1234,
        restoring: (0, 0),
        topics: vec![HOSTILE.to_owned()],
        log_level: "info".to_owned(),
        problems: vec![Problem {
            is_error: true,
            sentence: HOSTILE.to_owned(),
            first: SystemTime::UNIX_EPOCH,
            last: SystemTime::UNIX_EPOCH,
            times: 2000,
        }],
        findings: vec![Finding {
            sentence: HOSTILE.to_owned(),
            section: "Fenced",
        }],
    }
}

fn component(condition: Condition) -> (String, Held) {
    let held = Held {
        condition,
        since: SystemTime::UNIX_EPOCH,
    };
    ("worker-0".to_owned(), held)
}

#[test]
fn the_state_is_a_sentence() {
    let said = |condition| render::live(&view(vec![component(condition)])).into_string();
    let ready = said(Condition::Ready("fine".to_owned()));
    assert!(ready.contains("<strong>Ready.</strong> 1 partition, 1,234 records behind."));
    let degraded = said(Condition::Degraded("the disk is full".to_owned()));
    assert!(degraded.contains("somebody should look.</strong> worker-0: the disk is full"));
    let not_ready = said(Condition::NotReady("restoring".to_owned()));
    assert!(not_ready.contains("<strong>Not ready.</strong> worker-0: restoring"));
    for words in [
        "2,000 times since",
        "10.0 %",
        "75.0 %",
        ">99 %<",
        "last 30s ",
        ">1m 1s<",
        ">longer<",
    ] {
        assert!(ready.contains(words), "{words} in {ready}");
    }
    let mut nobody = view(Vec::new());
    nobody.ready = false;
    let text = render::live(&nobody).into_string();
    assert!(text.contains("No part of the process has started yet."));
}

#[test]
fn nothing_that_comes_from_outside_is_taken_for_html() {
    let wanted = Wanted {
        topic: HOSTILE.to_owned(),
        id: HOSTILE.to_owned(),
        hex: false,
    };
    let answer = Answer {
        topic: HOSTILE.to_owned(),
        partition: 0,
        what: What::Remembered {
            first_partition: 0,
            first_offset: -1,
            seen_at_ms: i64::MAX,
            age_ms: u64::MAX,
        },
    };
    let view = view(vec![component(Condition::NotReady(HOSTILE.to_owned()))]);
    for found in [
        Found::Answers(vec![answer]),
        Found::Refused(HOSTILE.to_owned()),
    ] {
        let page = render::page(&view, HOSTILE, Some(&wanted), &found, Ok(())).into_string();
        assert_eq!(page.matches("<script").count(), 1, "{page}");
        assert!(!page.contains("alert(1)</script"), "{page}");
    }
}

#[test]
fn a_page_of_many_partitions_is_bounded() {
    let mut many = view(Vec::new());
    many.rows = (0..1000)
        .map(|number| (0, row("t", number)))
        .take(MOST_ROWS)
        .collect();
    many.partitions = 1000;
    many.restoring = (900, 12_345);
    let page = render::live(&many).into_string();
    assert!(page.contains("900 of 1000 are being restored: 12,345 journal"));
    assert!(page.contains("200 of 1000: those that are not read"));
    assert!(page.len() < 200_000, "{}", page.len());
}

#[test]
fn the_form_is_read_as_it_is_sent() {
    assert_eq!(Wanted::of(""), None);
    assert_eq!(Wanted::of("topic=a&id="), None);
    let wanted = Wanted::of("topic=a+b&id=%3Cx%3E&as=hex").expect("an id");
    assert_eq!(
        (wanted.topic.as_str(), wanted.id.as_str(), wanted.hex),
        ("a b", "<x>", true)
    );
}
