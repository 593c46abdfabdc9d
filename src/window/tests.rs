use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::Window;
use crate::http::health::Health;
use crate::metrics::Metrics;
use crate::store::{Lineage, Store};

/// A window that seals in memory, and soon.
fn new_window(limits: Window) -> SeenWindow {
    let sizing = Sizing {
        active_ids: 1_000,
        ..Sizing::default()
    };
    SeenWindow::new(limits, sizing, Store::in_memory().shelf(Lineage::default()))
}

fn judge(window: &mut SeenWindow, fingerprint: u128, offset: i64) -> Verdict {
    // As evenly spread as real fingerprints are.
    window.judge(spread(fingerprint), offset).unwrap()
}

fn spread(fingerprint: u128) -> u128 {
    fingerprint.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn merge(window: &mut SeenWindow, journal_offset: i64) {
    let last_run = Anchor {
        offset: journal_offset,
        checksum: 0,
    };
    window.merge(journal_offset, last_run, 0);
    while window.tend(1).unwrap() > 0 {}
}

const HOUR: Window = Window {
    time_ms: Some(3_600_000),
    ids: None,
    refresh: false,
    max_ahead_ms: 600_000,
};

/// Judges one id a millisecond and commits every ten, as long as told.
fn run_through(limits: Window, ids: u64) -> (SeenWindow, u64) {
    let mut window = new_window(limits);
    let mut most_slices = 0;
    for id in 0..ids {
        window.observe(Some(id as i64), i64::MAX);
        assert_eq!(
            judge(&mut window, u128::from(id), id as i64),
            Verdict::Forward
        );
        if id % 10 == 9 {
            merge(&mut window, id as i64 / 10);
            most_slices = most_slices.max(window.slices() as u64);
        }
    }
    (window, most_slices)
}

#[test]
fn a_window_of_time_holds_an_eighth_more_than_the_window() {
    let time_ms = Some(8_000);
    let (window, most_slices) = run_through(Window { time_ms, ..HOUR }, 50_000);
    assert!((8_000..=9_010).contains(&window.ids()), "{}", window.ids());
    assert!((8..=10).contains(&most_slices), "{most_slices}");
    let kept_runs = 4_999 - window.keep_journal_from().unwrap();
    assert!((799..=901).contains(&kept_runs), "{kept_runs}");
}

#[test]
fn a_window_of_ids_holds_an_eighth_more_than_the_window() {
    let (time_ms, ids) = (None, Some(8_000));
    let (window, most_slices) = run_through(
        Window {
            time_ms,
            ids,
            ..HOUR
        },
        50_000,
    );
    assert!((8_000..=9_010).contains(&window.ids()), "{}", window.ids());
    assert!((8..=10).contains(&most_slices), "{most_slices}");
}

#[test]
fn two_limits_never_cut_more_than_sixteen_slices() {
    let (time_ms, ids) = (Some(8_000), Some(7_300));
    let (window, most_slices) = run_through(
        Window {
            time_ms,
            ids,
            ..HOUR
        },
        50_000,
    );
    assert!(window.ids() <= 9_010, "{}", window.ids());
    assert!(most_slices <= 16, "{most_slices}");
}

#[test]
fn sparse_data_of_years_in_one_transaction_leaves_few_slices() {
    let mut window = new_window(HOUR);
    for day in 0..5_000 {
        window.observe(Some(day * 86_400_000), i64::MAX);
        judge(&mut window, day as u128, day);
    }
    merge(&mut window, 0);
    assert_eq!(window.slices(), 1);
    assert_eq!(window.ids(), 1);
}

#[test]
fn an_age_equal_to_the_window_is_still_inside() {
    for (age, expected_new) in [(3_599_999, false), (3_600_000, false), (3_600_001, true)] {
        let mut window = new_window(HOUR);
        window.observe(Some(5), i64::MAX);
        judge(&mut window, 1, 0);
        merge(&mut window, 0);
        window.observe(Some(5 + age), i64::MAX);
        assert_eq!(
            judge(&mut window, 1, 1) == Verdict::Forward,
            expected_new,
            "{age}"
        );
    }
}

#[test]
fn one_timestamp_from_the_far_future_does_not_expire_the_window() {
    let mut window = new_window(HOUR);
    window.observe(Some(1_000), 1_000);
    judge(&mut window, 1, 0);
    window.observe(Some(1_000 + 10 * 3_600_000), 1_500);
    assert_eq!(window.stream_time_ms(), Some(1_500));
    let expected = Verdict::Duplicate {
        first_offset: 0,
        age_ms: 500,
        in_overlay: true,
        conflicts: false,
    };
    assert_eq!(judge(&mut window, 1, 1), expected);
}

#[test]
fn an_id_without_any_timestamp_is_remembered_until_one_comes() {
    let mut window = new_window(HOUR);
    window.observe(None, 1_700_000_000_000);
    assert_eq!(judge(&mut window, 1, 0), Verdict::Forward);
    assert_ne!(judge(&mut window, 1, 1), Verdict::Forward);
    window.observe(Some(1_700_000_000_000), 1_700_000_000_000);
    assert_eq!(judge(&mut window, 1, 2), Verdict::Forward);
}

#[test]
fn a_run_that_is_missing_or_repeated_is_noticed() {
    let mut writer = new_window(HOUR);
    let mut runs = Vec::new();
    for id in 0..3 {
        writer.observe(Some(id as i64), i64::MAX);
        judge(&mut writer, id, id as i64);
        runs.push(writer.pending_run(7, id as i64 + 1));
        merge(&mut writer, id as i64);
    }
    let read_at = |offset| Anchor {
        offset,
        checksum: 0,
    };
    let mut reader = new_window(HOUR);
    assert_eq!(reader.keep_journal_from(), None);
    reader.apply(&runs[1], read_at(1)).unwrap();
    let repeated = reader.apply(&runs[1], read_at(2)).unwrap_err();
    assert_eq!((repeated.expected, repeated.found), (2, 1));
    let mut reader = new_window(HOUR);
    reader.apply(&runs[0], read_at(0)).unwrap();
    let missing = reader.apply(&runs[2], read_at(2)).unwrap_err();
    assert_eq!((missing.expected, missing.found), (1, 2));
    assert_eq!((reader.next_ordinal(), reader.ids()), (1, 1));
}

/// The runs of ids that are let through at one a millisecond, a hundred in each.
fn runs_of(ids: std::ops::Range<u64>) -> Vec<Run> {
    let mut writer = new_window(HOUR);
    let mut runs = Vec::new();
    for id in ids {
        let at = i64::try_from(id).unwrap();
        writer.observe(Some(at), i64::MAX);
        assert_eq!(judge(&mut writer, u128::from(id), at), Verdict::Forward);
        if id % 100 == 99 {
            runs.push(writer.pending_run(7, at + 1));
            merge(&mut writer, at / 100);
        }
    }
    runs
}

/// As of a preload that was killed, and of the one that was run after it: the ordinals of both begin with 0.
#[test]
fn slices_from_before_a_beginning_are_never_taken_for_those_after_it() {
    // How far the work beside the verdicts has come by then: from the first slice that is with the sealer to all of it.
    for (is_on_disk, tends) in (0..24).map(|it| (it % 2 == 1, it / 2)) {
        let dir = TempDir::new().unwrap();
        let store = match is_on_disk {
            true => Store::open(dir.path(), 1 << 20, Metrics::new(), Health::new()).unwrap(),
            false => Store::in_memory(),
        };
        let sizing = Sizing {
            active_ids: 1_000,
            ..Sizing::default()
        };
        let mut window = SeenWindow::new(HOUR, sizing, store.shelf(Lineage::default()));
        let mut offset = 0;
        let mut apply = |window: &mut SeenWindow, run: &Run| {
            let read = Anchor {
                offset,
                checksum: 0,
            };
            window.apply(run, read).unwrap();
            offset += 1;
        };
        // More slices than a filter of the first size has room for.
        for run in runs_of(0..10_100) {
            apply(&mut window, &run);
            while tends == 11 && (window.tend(1).unwrap() > 0 || window.is_sealing()) {}
        }
        for _ in 0..tends {
            window.tend(1).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(u64::from(is_on_disk)));
        }
        for (at, mut run) in runs_of(20_000..31_100).into_iter().enumerate() {
            run.begins = at == 0;
            apply(&mut window, &run);
        }
        while window.tend(8).unwrap() > 0 || window.is_sealing() {}
        assert!(window.slices() > 10 && window.ids() == 11_100);
        for id in (0..10_100).chain(20_000..31_100) {
            let is_new = judge(&mut window, id, 0) == Verdict::Forward;
            assert_eq!(is_new, id < 10_100, "{id}, on disk: {is_on_disk}, {tends}");
        }
        assert_eq!(window.slices_on_disk() > 0, is_on_disk);
    }
}

#[test]
fn a_moved_stream_time_alone_makes_a_run() {
    let mut window = new_window(HOUR);
    assert!(!window.is_dirty());
    window.observe(None, 0);
    assert!(!window.is_dirty());
    window.observe(Some(10), i64::MAX);
    assert!(window.is_dirty());
    let run = window.pending_run(7, 3);
    assert_eq!((run.stream_time_ms, run.next_offset), (Some(10), 3));
    assert!(run.fingerprints.is_empty());
    window.discard();
    assert_eq!((window.is_dirty(), window.stream_time_ms()), (false, None));
}

/// Lets `ids` new ids through at one a millisecond from `begin` on, in transactions of a hundred.
fn let_through(window: &mut SeenWindow, begin: u64, ids: u64) {
    for id in begin..begin + ids {
        let at = i64::try_from(id).unwrap();
        window.observe(Some(at), i64::MAX);
        assert_eq!(judge(window, u128::from(id), at), Verdict::Forward);
        if id % 100 == 99 {
            merge(window, at / 100);
        }
    }
}

#[test]
fn the_filter_is_as_good_as_expected_while_slices_come_and_go() {
    let time_ms = Some(20_000);
    let mut window = new_window(Window { time_ms, ..HOUR });
    let mut memory = 0;
    for round in 0..10 {
        window.take_filter_counts();
        let_through(&mut window, round * 20_000, 20_000);
        let counts = window.take_filter_counts();
        let (measured, expected) = (
            counts.false_positive_rate(),
            window.expected_false_positive_rate(),
        );
        if round < 2 {
            continue;
        }
        assert!(expected > 0.0 && expected <= 0.001, "{expected}");
        assert!(counts.checks > 19_000, "{counts:?}");
        // 20,000 look-ups have 20 false positives at most on average; 50 would be no accident.
        assert!(measured < expected + 0.0015, "{measured} {expected}");
        memory = if round == 2 {
            window.memory_bytes()
        } else {
            memory
        };
        assert!(
            window.memory_bytes() < memory * 3 / 2,
            "{}",
            window.memory_bytes()
        );
    }
}

#[test]
fn the_filter_grows_with_the_rate_and_shrinks_with_it() {
    let time_ms = Some(20_000);
    let limits = Window { time_ms, ..HOUR };
    let sizing = Sizing {
        active_ids: 100_000,
        ..Sizing::default()
    };
    let shelf = Store::in_memory().shelf(Lineage::default());
    let mut window = SeenWindow::new(limits, sizing, shelf);
    let mut next = 0_u64;
    let mut at_rate = |window: &mut SeenWindow, ids_a_ms: u64| {
        let begin = window.stream_time_ms().unwrap_or(0);
        for ms in 1..=40_000 {
            window.observe(Some(begin + ms), i64::MAX);
            for _ in 0..ids_a_ms {
                judge(window, u128::from(next), 0);
                next += 1;
            }
            if ms % 500 == 0 {
                merge(window, i64::try_from(next).unwrap());
            }
        }
        assert!(window.expected_false_positive_rate() <= 0.001);
        window.slices.filter_memory_bytes()
    };
    let slow = at_rate(&mut window, 2);
    let fast = at_rate(&mut window, 10);
    let slow_again = at_rate(&mut window, 2);
    assert!(fast > 3 * slow, "{slow} {fast}");
    assert!(slow_again < 2 * slow, "{slow} {slow_again}");
}

/// A payload is known in the overlay, in memory, in a sealed slice, and to whoever reads the runs.
#[test]
fn a_payload_is_kept_beside_its_id_wherever_that_is() {
    let conflicts = |window: &mut SeenWindow, id: u64, payload: u64| {
        let now = window.stream_time_ms();
        let seen = window.recall(spread(u128::from(id)), payload, now).unwrap();
        match seen {
            Recalled::Remembered(Verdict::Duplicate { conflicts, .. }) => conflicts,
            other => panic!("{id}: {other:?}"),
        }
    };
    let mut window = new_window(HOUR);
    let mut reader = new_window(HOUR);
    for id in 0..5_000_u64 {
        window.observe(Some(id.cast_signed()), i64::MAX);
        // Of one in three nothing is known.
        let payload = if id % 3 == 0 { 0 } else { id + 1 };
        window.let_through(spread(u128::from(id)), id.cast_signed(), payload);
        assert!(!conflicts(&mut window, id, payload));
        assert_eq!(conflicts(&mut window, id, 9_999), id % 3 != 0);
        if id % 10 == 9 {
            let run = window.pending_run(7, 0);
            merge(&mut window, id.cast_signed() / 10);
            let read = Anchor {
                offset: id.cast_signed() / 10,
                checksum: 0,
            };
            reader.apply(&run, read).unwrap();
            while reader.tend(1).unwrap() > 0 {}
        }
    }
    assert!(window.slices() > 3 && reader.slices() > 3);
    for id in 0..5_000 {
        for window in [&mut window, &mut reader] {
            assert!(!conflicts(window, id, id + 1));
            assert!(!conflicts(window, id, 0));
            assert_eq!(conflicts(window, id, 9_999), id % 3 != 0, "{id}");
        }
    }
}

#[test]
fn what_conflicts_renews_nothing() {
    let mut window = new_window(Window {
        refresh: true,
        ..HOUR
    });
    window.observe(Some(0), i64::MAX);
    window.let_through(1, 0, 5);
    window.observe(Some(3_000_000), i64::MAX);
    assert!(matches!(
        window.recall(1, 6, None),
        Ok(Recalled::Remembered(Verdict::Duplicate {
            conflicts: true,
            ..
        }))
    ));
    window.observe(Some(3_700_000), i64::MAX);
    assert_eq!(window.recall(1, 5, None), Ok(Recalled::Over));
    assert_eq!(window.recall(2, 5, None), Ok(Recalled::Unknown));
}

/// In memory and in sealed slices; not once its slice has gone, and not where it was forgotten by
/// an operator.
#[test]
fn an_id_that_comes_after_its_window_is_known_for_a_while() {
    let mut window = new_window(HOUR);
    let minute = 60_000_i64;
    for number in 0..180 {
        window.observe(Some(number * minute), i64::MAX);
        // Enough to be sealed.
        for id in 0..100 {
            judge(
                &mut window,
                u128::from(number.cast_unsigned()) * 10_000 + id,
                0,
            );
        }
        merge(&mut window, number);
        while window.tend(1).unwrap() > 0 {}
    }
    assert!(window.slices() > 3);
    let now = window.stream_time_ms();
    let mut known = |minutes_ago: u128| {
        let id = (179 - minutes_ago) * 10_000 + 7;
        window.recall(spread(id), 0, now).unwrap()
    };
    for ago in 0..=60 {
        assert!(matches!(known(ago), Recalled::Remembered(_)), "{ago}");
    }
    assert_eq!(known(61), Recalled::Over);
    for ago in 70..180 {
        assert_eq!(known(ago), Recalled::Unknown, "{ago}");
    }
    let forgotten = spread(179 * 10_000 + 7);
    window.forget_id(forgotten);
    assert_eq!(window.recall(forgotten, 0, now).unwrap(), Recalled::Unknown);
}

/// What was forgotten hides the older entry wherever that is, and does not come back.
#[test]
fn a_forgotten_id_is_new_again_in_memory_in_slices_and_from_the_journal() {
    let (time_ms, ids) = (None, Some(100_000));
    for limits in [
        HOUR,
        Window {
            refresh: true,
            ..HOUR
        },
        Window {
            time_ms,
            ids,
            ..HOUR
        },
    ] {
        let (mut window, mut reader) = (new_window(limits), new_window(limits));
        for id in 0..6_000_u64 {
            window.observe(Some(id.cast_signed()), i64::MAX);
            assert_eq!(judge(&mut window, u128::from(id), 0), Verdict::Forward);
            // A near one, and one that is in a sealed slice by now.
            for forgotten in [id.saturating_sub(1), id.saturating_sub(3_000)] {
                if forgotten % 50 == 10 {
                    window.forget_id(spread(u128::from(forgotten)));
                }
            }
            if id % 10 == 9 {
                let run = window.pending_run(7, 0);
                let offset = id.cast_signed() / 10;
                merge(&mut window, offset);
                reader
                    .apply(
                        &run,
                        Anchor {
                            offset,
                            checksum: 0,
                        },
                    )
                    .unwrap();
                while reader.tend(1).unwrap() > 0 {}
            }
        }
        for window in [&mut window, &mut reader] {
            for id in 0..6_000_u64 {
                let found = window.look_up(spread(u128::from(id))).unwrap();
                assert_eq!(found.is_none(), id % 50 == 10, "{id}");
            }
            // Let through once more, it is remembered.
            assert_eq!(judge(window, 10, 7), Verdict::Forward);
            assert!(matches!(
                judge(window, 10, 8),
                Verdict::Duplicate {
                    first_offset: 7,
                    ..
                }
            ));
        }
    }
}

proptest! {
    /// Of a group that began in the middle: where the window says that it is covered, each id of all that was ever
    /// let through that must be remembered is; and it says so when what came before is over.
    #[test]
    fn a_covered_window_misses_nothing(
        before in prop::collection::vec(0_i64..50, 0..20),
        steps in prop::collection::vec((0_i64..50, 0_u8..8), 1..80),
        (time_ms, ids) in prop_oneof![
            (1_i64..400).prop_map(|time| (Some(time), None)),
            (1_u64..40).prop_map(|ids| (None, Some(ids))),
            (1_i64..400, 1_u64..40).prop_map(|(time, ids)| (Some(time), Some(ids))),
        ],
    ) {
        let limits = Window { time_ms, ids, ..HOUR };
        let mut window = new_window(limits);
        // What another group let through: time and ordinal, counted back from where this one begins.
        let mut now = 0;
        let mut history = Vec::new();
        for step in &before {
            now += step;
            history.push(now);
        }
        let unknown = history.len();
        window.begin_here();
        let mut run = Run::default();
        for (number, (step, fate)) in (0_i64..).zip(steps) {
            now += step;
            window.observe(Some(now), i64::MAX);
            judge(&mut window, number as u128, number);
            if fate == 0 {
                window.discard();
                continue;
            }
            history.push(now);
            run = window.pending_run(7, number);
            merge(&mut window, number);
            let within = |(at, time): &(usize, &i64)| {
                let later = (history.len() - 1 - at) as u64;
                time_ms.is_none_or(|limit| now - **time <= limit) && ids.is_none_or(|limit| later < limit)
            };
            let missed = history.iter().enumerate().filter(within).any(|(at, _)| at < unknown);
            prop_assert!(window.coverage() < 1.0 || !missed, "{:?}", window.since());
            prop_assert!((0.0..=1.0).contains(&window.coverage()));
        }
        // A start that reads the journal knows the same.
        if window.checkpoint().is_some() {
            let mut again = new_window(limits);
            let last = Anchor { offset: 0, checksum: 0 };
            again.apply(&run, last).unwrap();
            prop_assert_eq!(again.since(), window.since());
            prop_assert_eq!(again.coverage(), window.coverage());
        }
    }
}

/// Of another group's record with the same timestamp as the first of ours, at the edge of the window.
#[test]
fn at_the_very_edge_a_window_is_not_covered_yet() {
    let mut window = new_window(HOUR);
    window.begin_here();
    for (time_ms, covered) in [(0, false), (3_600_000, false), (3_600_001, true)] {
        window.observe(Some(time_ms), i64::MAX);
        judge(&mut window, time_ms as u128, 0);
        merge(&mut window, time_ms);
        assert_eq!(window.coverage() >= 1.0, covered, "at {time_ms}");
    }
}

#[test]
fn coverage_falls_where_less_is_known() {
    let mut window = new_window(HOUR);
    let pass = |window: &mut SeenWindow, time_ms: i64| {
        window.observe(Some(time_ms), i64::MAX);
        judge(window, time_ms as u128, 0);
        merge(window, time_ms);
    };
    pass(&mut window, 0);
    assert!((window.coverage() - 1.0).abs() < 1e-9, "from the beginning");
    window.forget();
    assert!(window.coverage() < 1e-9, "forgotten");
    pass(&mut window, 900_000);
    assert!((window.coverage() - 0.25).abs() < 1e-9);
    pass(&mut window, 3_600_000);
    assert!((window.coverage() - 1.0).abs() < 1e-9);

    // Kept for an hour, and asked for two now: ids of half of it may have been forgotten.
    let earlier = Terms {
        time_ms: Some(3_600_000),
        ..Terms::default()
    };
    let two_hours = Window {
        time_ms: Some(7_200_000),
        ..HOUR
    };
    let mut window = new_window(two_hours);
    for time_ms in [0, 10_000_000, 14_400_000] {
        pass(&mut window, time_ms);
    }
    let whole = Since {
        ordinal: 0,
        time_ms: Some(0),
    };
    window.grown(&earlier, Some(whole));
    assert!((window.coverage() - 1.0).abs() < 1e-9, "nothing is gone");
    let trimmed = Since {
        ordinal: 1,
        time_ms: Some(10_000_000),
    };
    window.grown(&earlier, Some(trimmed));
    let covered = 4_400_000.0 / 7_200_000.0;
    assert!((window.coverage() - covered).abs() < 1e-9);
}
