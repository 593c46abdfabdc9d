use proptest::prelude::*;

use super::*;

const MINUTE: i64 = 60_000;
/// A clock that no timestamp is ahead of.
const LATE: Wall = Wall {
    from: Some(i64::MAX / 2),
    to: i64::MAX / 2,
};

fn window(time_ms: Option<i64>, ids: Option<u64>, refresh: bool) -> Window {
    Window {
        time_ms,
        ids,
        refresh,
        max_ahead_ms: 10 * MINUTE,
    }
}

fn duplicate(offset: i64, age_ms: i64) -> Verdict {
    Verdict::Duplicate(First {
        offset: Some(offset),
        age_ms: Span::exactly(age_ms),
    })
}

/// Verdicts on (id, timestamp), offsets counted from 0.
fn verdicts(window: Window, records: &[(u128, i64)]) -> Vec<Verdict> {
    let mut judge = Judge::new(window, Conflicts::Ignore, true);
    let mut all = Vec::new();
    for (offset, (id, time)) in (0..).zip(records) {
        judge.observe(Some(*time), false, LATE);
        all.push(judge.judge(*id, offset, 0));
    }
    all
}

#[test]
fn an_age_equal_to_the_window_is_inside() {
    let time = window(Some(100), None, false);
    assert_eq!(
        verdicts(time, &[(1, 0), (1, 100), (2, 101), (1, 50), (1, 101)]),
        [
            Verdict::Forward,
            duplicate(0, 100),
            Verdict::Forward,
            // Late, but stream time is further.
            Verdict::Forward,
            duplicate(3, 0),
        ]
    );
}

#[test]
fn fewer_than_n_later_ids_keep_one_remembered() {
    let ids = window(None, Some(2), false);
    let found = verdicts(ids, &[(1, 0), (2, 0), (1, 0), (3, 0), (1, 0)]);
    let forward = Verdict::Forward;
    assert_eq!(found, [forward, forward, duplicate(0, 0), forward, forward]);
}

#[test]
fn a_renewal_keeps_the_first_offset_and_starts_the_age_anew() {
    let found = verdicts(
        window(Some(100), None, true),
        &[(1, 0), (1, 80), (1, 160), (1, 261)],
    );
    let forward = Verdict::Forward;
    assert_eq!(
        found,
        [forward, duplicate(0, 80), duplicate(0, 80), forward]
    );
}

#[test]
fn a_timestamp_far_ahead_does_not_expire_the_window() {
    let wall = Wall {
        from: Some(1000),
        to: 2000,
    };
    let mut judge = Judge::new(window(Some(MINUTE), None, false), Conflicts::Ignore, true);
    judge.observe(Some(500), false, wall);
    assert_eq!(judge.judge(1, 0, 0), Verdict::Forward);
    judge.observe(Some(i64::MAX), false, wall);
    let age_ms = Span {
        from: 500,
        to: 1500,
    };
    let offset = Some(0);
    let clamped = Verdict::Duplicate(First { offset, age_ms });
    assert_eq!(judge.judge(1, 1, 0), clamped);
    // Where the broker's own clock says so, it is so.
    judge.observe(Some(10 * MINUTE), true, wall);
    assert_eq!(judge.judge(1, 2, 0), Verdict::Forward);
}

#[test]
fn without_a_witness_a_leap_is_not_believed_and_not_denied() {
    let wall = Wall {
        from: None,
        to: i64::MAX / 2,
    };
    let mut judge = Judge::new(window(Some(MINUTE), None, false), Conflicts::Ignore, true);
    judge.observe(Some(0), false, wall);
    assert_eq!(judge.judge(1, 0, 0), Verdict::Forward);
    judge.observe(Some(30 * MINUTE), false, wall);
    assert_eq!(judge.judge(1, 1, 0), Verdict::Unsure);
    // One that is where stream time was shows that the leap was none.
    judge.observe(Some(1), false, wall);
    for offset in 2..2 + i64::from(LEAPS) {
        judge.observe(Some(30 * MINUTE + offset), false, wall);
    }
    // Many in a row are believed.
    assert_eq!(judge.judge(2, 100, 0), Verdict::Forward);
    judge.observe(Some(32 * MINUTE), false, wall);
    assert_eq!(judge.judge(2, 101, 0), Verdict::Forward);
    judge.observe(Some(32 * MINUTE), false, wall);
    assert_eq!(judge.judge(2, 102, 0), duplicate(101, 0));
}

#[test]
fn the_map_is_swept() {
    let mut judge = Judge::new(window(Some(100), None, false), Conflicts::Ignore, true);
    for n in 0..100_000 {
        judge.observe(Some(n), false, LATE);
        judge.judge(n.unsigned_abs().into(), n, 0);
    }
    assert!(judge.seen.len() <= 2 * SWEEP_LEAST, "{}", judge.seen.len());
}

proptest! {
    /// Whatever a judge that begins in the middle is sure of, is so.
    #[test]
    fn what_is_sure_from_the_middle_is_sure(
        records in prop::collection::vec((0_u128..12, 0_i64..40), 1..300),
        begin in 0_usize..150,
        time in prop::option::of(1_i64..400),
        ids in prop::option::of(1_u64..20),
        refresh in any::<bool>(),
        told in any::<bool>(),
    ) {
        prop_assume!(time.is_some() || ids.is_some());
        let window = Window { max_ahead_ms: 50, ..window(time, ids, refresh) };
        // Rising, and up to 40 ms late.
        let times = records.iter().zip(0_i64..).map(|((id, late), n)| (*id, 1000 + 10 * n - late));
        let records: Vec<(u128, i64)> = times.collect();
        let whole = verdicts(window, &records);
        let mut judge = Judge::new(window, Conflicts::Ignore, false);
        for (offset, ((id, time), truth)) in (0_i64..).zip(records.iter().zip(&whole)).skip(begin) {
            judge.observe(Some(*time), true, LATE);
            match (judge.judge(*id, offset, 0), truth) {
                (Verdict::Forward, truth) => prop_assert_eq!(truth, &Verdict::Forward),
                (Verdict::Duplicate(said), Verdict::Duplicate(truth)) => {
                    prop_assert!(said.offset.is_none_or(|offset| Some(offset) == truth.offset));
                    let (said, truth) = (said.age_ms, truth.age_ms);
                    prop_assert!(said.from <= truth.from && truth.to <= said.to, "{said:?} {truth:?}");
                }
                (Verdict::Duplicate(_), Verdict::Forward) => prop_assert!(false, "{offset}"),
                (Verdict::Unsure, Verdict::Forward) if told => judge.was_forwarded(*id, offset),
                (Verdict::Unsure, Verdict::Duplicate(_)) if told => {
                    judge.was_not_forwarded(*id, offset);
                }
                _ => {}
            }
        }
    }
}
