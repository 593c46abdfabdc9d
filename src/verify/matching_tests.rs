use proptest::prelude::*;

use super::*;

fn body(n: u64) -> Body {
    Body {
        key: n,
        value: n,
        headers: n,
        timestamp_ms: Some(1000 + n.cast_signed()),
    }
}

fn expected(n: u64) -> Expected {
    Expected {
        offset: n.cast_signed(),
        id: Some(n.into()),
        body: body(n),
        place: 0,
        first: None,
        must: Must::Be,
    }
}

fn found(offset: i64, n: u64) -> Found {
    Found {
        offset,
        id: Some(n.into()),
        body: body(n),
        aside: None,
    }
}

/// What becomes of the records 0 to `count` of one lane where these are there; reading alternates in
/// one way or the other.
fn events(count: u64, there: &[Found], ahead: usize, strand_first: bool) -> Vec<Event> {
    let mut strand = Strand::new(1, ahead, Cut::default());
    let (mut next, mut at) = (0, 0);
    while next < count || at < there.len() {
        if strand_first && at < there.len() {
            strand.find(there[at].clone());
            at += 1;
        }
        if next < count {
            strand.expect(0, expected(next));
            next += 1;
        }
        if !strand_first && at < there.len() {
            strand.find(there[at].clone());
            at += 1;
        }
    }
    strand.finish();
    assert_eq!((strand.open(), strand.strays()), (0, 0));
    strand.events().collect()
}

fn all(count: u64) -> Vec<Found> {
    (0..count).map(|n| found(n.cast_signed(), n)).collect()
}

fn numbered(records: impl IntoIterator<Item = Found>) -> Vec<Found> {
    let records = (0..).zip(records);
    records
        .map(|(offset, record)| Found { offset, ..record })
        .collect()
}

#[test]
fn what_is_as_it_should_be_says_nothing_and_keeps_nothing() {
    for strand_first in [false, true] {
        assert_eq!(events(1000, &all(1000), 10, strand_first), []);
    }
}

#[test]
fn each_kind_of_difference_is_one() {
    let missing = |n: i64| Event::Missing { lane: 0, offset: n };
    for strand_first in [false, true] {
        let mut there = all(100);
        there.remove(40);
        assert_eq!(events(100, &there, 20, strand_first), [missing(40)]);

        let mut there = all(100);
        there.insert(41, found(0, 40));
        let extra = Event::Extra {
            found: 41,
            id: Some(40),
        };
        assert_eq!(events(100, &numbered(there), 20, strand_first), [extra]);

        let mut there = all(100);
        there[40].body.value = 7;
        let altered = |parts: &str| Event::Altered {
            lane: 0,
            offset: 40,
            found: 40,
            parts: parts.to_owned(),
        };
        assert_eq!(events(100, &there, 20, strand_first), [altered("value")]);
        // By its place, where the id is another one.
        there[40].id = Some(1_000_000);
        assert_eq!(events(100, &there, 20, strand_first), [altered("value")]);

        for (from, to) in [(40, 50), (50, 40)] {
            let mut there = all(100);
            let moved = there.remove(from);
            there.insert(to, moved);
            let reordered = Event::Reordered {
                lane: 0,
                offset: i64::try_from(from).unwrap(),
                found: i64::try_from(to).unwrap(),
            };
            assert_eq!(events(100, &numbered(there), 20, strand_first), [reordered]);
        }
    }
}

#[test]
fn what_was_sent_as_now_has_no_time_to_compare() {
    let mut strand = Strand::new(1, 10, Cut::default());
    let timeless = |n: u64| {
        let mut it = expected(n);
        it.body.timestamp_ms = Some(0);
        it
    };
    strand.expect(0, timeless(1));
    strand.find(found(0, 1));
    strand.find(found(1, 2));
    strand.expect(0, timeless(2));
    strand.finish();
    assert_eq!(strand.events().collect::<Vec<_>>(), []);
}

#[test]
fn of_twins_in_two_lanes_it_cannot_be_told_which_came_first() {
    for turn in [[0, 1], [1, 0]] {
        for late in [false, true] {
            let mut strand = Strand::new(2, 10, Cut::default());
            // Lane 0: twin, a. Lane 1: twin, b. There: twin of lane 0, a, twin of lane 1, b.
            let twin = || expected(5);
            strand.expect(turn[0], twin());
            if !late {
                strand.expect(turn[1], twin());
            }
            strand.find(found(0, 5));
            if late {
                strand.expect(turn[1], twin());
            }
            strand.expect(0, expected(6));
            strand.expect(1, expected(7));
            strand.find(found(1, 6));
            strand.find(found(2, 5));
            strand.find(found(3, 7));
            strand.finish();
            let events: Vec<Event> = strand.events().collect();
            assert_eq!(events, [], "{turn:?} {late}");
        }
    }
}

#[test]
fn what_may_be_there_is_no_difference_either_way() {
    let mut strand = Strand::new(1, 10, Cut::default());
    for n in 0..4 {
        let must = if n % 2 == 0 { Must::Be } else { Must::MayBe };
        strand.expect(
            0,
            Expected {
                must,
                ..expected(n)
            },
        );
    }
    for (offset, n) in [(0, 0), (1, 1), (2, 2)] {
        strand.find(found(offset, n));
    }
    strand.finish();
    let confirmed = Event::Confirmed {
        lane: 0,
        offset: 1,
        time_ms: Some(1001),
        id: Some(1),
        aside: false,
    };
    let absent = Event::Absent {
        lane: 0,
        offset: 3,
        id: Some(3),
        aside: false,
    };
    assert_eq!(strand.events().collect::<Vec<_>>(), [confirmed, absent]);
}

#[test]
fn beginnings_that_are_gone_are_no_differences() {
    let cut = Cut {
        strand: true,
        input: true,
        own_times: false,
    };
    let mut strand = Strand::new(1, 100, cut);
    for n in 10..20 {
        strand.expect(0, expected(n));
    }
    // 5 and 6 are older than the input, 10 to 13 were deleted here; 15 is missing.
    for n in [5_u64, 6, 14, 16, 17, 18, 19] {
        strand.find(found(n.cast_signed(), n));
    }
    strand.finish();
    let events: Vec<Event> = strand.events().collect();
    let count = |wanted: &Event| events.iter().filter(|event| *event == wanted).count();
    assert_eq!(count(&Event::GoneFromStrand { lane: 0 }), 4);
    assert_eq!(count(&Event::GoneFromInput), 2);
    assert_eq!(
        count(&Event::Missing {
            lane: 0,
            offset: 15
        }),
        1
    );
    assert_eq!(events.len(), 7);
}

proptest! {
    /// Any mixture of removals, insertions and changes that are not side by side is counted exactly.
    #[test]
    fn differences_do_not_cascade(
        kinds in prop::collection::vec(0_u8..12, 1..80),
        ahead in 30_usize..60,
        strand_first in any::<bool>(),
    ) {
        let count = kinds.len() as u64 * 4;
        let mut there = Vec::new();
        let mut want = [0; 3];
        for n in 0..count {
            let kind = if n % 4 == 2 { kinds[(n / 4) as usize] } else { 9 };
            let mut record = found(0, n);
            match kind {
                0 => { want[0] += 1; continue; }
                1 => { want[1] += 1; there.push(found(0, n + 1_000_000)); }
                2 => { want[2] += 1; record.body.key = 3; }
                _ => {}
            }
            there.push(record);
        }
        let mut have = [0; 3];
        for event in events(count, &numbered(there), ahead, strand_first) {
            match event {
                Event::Missing { .. } => have[0] += 1,
                Event::Extra { .. } => have[1] += 1,
                Event::Altered { .. } => have[2] += 1,
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(have, want);
    }

    /// The longest rising part is one, and no other is longer.
    #[test]
    fn a_longest_rising_part_is_found(values in prop::collection::vec(0_i64..30, 0..12)) {
        let kept = longest_rising(&values);
        prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1] && values[pair[0]] < values[pair[1]]));
        let subset = |mask: u32| {
            let chosen = values.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0);
            let chosen: Vec<i64> = chosen.map(|(_, value)| *value).collect();
            chosen.windows(2).all(|pair| pair[0] < pair[1]).then_some(chosen.len())
        };
        let longest = (0..1_u32 << values.len()).filter_map(subset).max();
        prop_assert_eq!(Some(kept.len()), longest);
    }
}
