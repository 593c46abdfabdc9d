//! Every test seeds its own fingerprints, so that figures and failures repeat.

use proptest::collection::vec;
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::*;

type Slices = Vec<Vec<u128>>;

fn geometry(planes: u32, segments_log2: u32, pages_per_segment: u32) -> Geometry {
    Geometry {
        planes,
        segments_log2,
        pages_per_segment,
    }
}

/// A sorted run of distinct fingerprints.
fn run(seed: u64, ids: u64) -> Vec<u128> {
    let mut run: Vec<u128> = (0..ids)
        .map(|id| xxh3_128_with_seed(&id.to_le_bytes(), seed))
        .collect();
    run.sort_unstable();
    run
}

/// Feeds slice `p` to plane `p`.
fn publish_next(ring: &mut Ring, slices: &[Vec<u128>]) {
    let mut segment = ring.open_segment().unwrap();
    for (plane, slice) in slices.iter().enumerate() {
        segment.set_all(plane as u32, slice.iter().copied());
    }
    assert!(ring.publish(segment));
}

fn rebuild(ring: &mut Ring, geometry: Geometry, slices: &[Vec<u128>]) {
    assert!(ring.begin_rebuild(geometry));
    while ring.rebuilding().is_some() {
        publish_next(ring, slices);
    }
}

fn ring_of(geometry: Geometry, slices: &[Vec<u128>]) -> Ring {
    let mut ring = Ring::empty();
    rebuild(&mut ring, geometry, slices);
    ring
}

fn set_in_all_segments(ring: &mut Ring, plane: u32, run: &[u128]) -> u64 {
    (0..ring.segments())
        .map(|segment| ring.set_all(segment, plane, run.iter().copied()))
        .sum()
}

fn any_geometry() -> impl Strategy<Value = Geometry> {
    (1_u32..=16, 0_u32..=4, 1_u32..=5).prop_map(|(bytes, s, pages)| geometry(8 * bytes, s, pages))
}

/// Up to five slices, of fingerprints that sit at the borders of segments as often as not.
fn any_slices() -> impl Strategy<Value = Slices> {
    let high = prop_oneof![
        any::<u64>(),
        (0_u64..=32, 0_u64..3).prop_map(|(part, by)| (part << 59).wrapping_add(by).wrapping_sub(1)),
    ];
    let fingerprint =
        (high, any::<u64>()).prop_map(|(high, low)| (u128::from(high) << 64) | u128::from(low));
    vec(vec(fingerprint, 0..60), 1..6)
}

proptest! {
    #[test]
    fn every_id_is_found_however_its_run_is_split(
        geometry in any_geometry(), slices in any_slices(), part in 1_usize..70,
    ) {
        let mut ring = ring_of(geometry, &[]);
        let last = geometry.planes - 1;
        for (plane, slice) in slices.iter().enumerate() {
            let set: u64 =
                slice.chunks(part).map(|ids| set_in_all_segments(&mut ring, last - plane as u32, ids)).sum();
            prop_assert_eq!(set, slice.len() as u64);
        }
        for (plane, slice) in slices.iter().enumerate() {
            for id in slice {
                prop_assert_ne!(ring.check(*id) & (1 << (last - plane as u32)), 0);
            }
        }
    }

    #[test]
    fn every_id_is_found_at_every_stage_of_a_rebuild_with_new_plane_numbers(
        old in any_geometry(), new in any_geometry(), slices in any_slices(),
    ) {
        let mut ring = ring_of(old, &slices);
        let reversed: Slices = slices.iter().rev().cloned().collect();
        prop_assert!(ring.begin_rebuild(new));
        loop {
            let start = ring.rebuild_range().map(|range| *range.start());
            for (plane, slice) in slices.iter().enumerate() {
                for id in slice {
                    let in_new = start.is_none_or(|start| high_half(*id) < start);
                    let plane = if in_new { slices.len() - 1 - plane } else { plane };
                    prop_assert_ne!(ring.check(*id) & (1 << plane), 0);
                }
            }
            if start.is_none() {
                break;
            }
            publish_next(&mut ring, &reversed);
        }
        prop_assert_eq!(ring.geometry(), Some(new));
        prop_assert_eq!(ring.memory_bytes(), new.bytes() + 16 * u64::from(new.segments()));
    }

    #[test]
    fn planes_do_not_touch_each_other(
        geometry in any_geometry(), slices in any_slices(), cleared in 0_usize..5,
    ) {
        let all = slices.concat();
        let mut without = slices.clone();
        if let Some(slice) = without.get_mut(cleared) {
            slice.clear();
        }
        let mut ring = ring_of(geometry, &slices);
        for segment in 0..ring.segments() {
            ring.clear(segment, cleared as u32);
        }
        let never_fed = ring_of(geometry, &without);
        for id in all {
            prop_assert_eq!(ring.check(id), never_fed.check(id));
            prop_assert_eq!(ring.check(id) & (1 << cleared), 0);
        }
    }
}

#[test]
fn an_empty_ring_answers_no_and_holds_nothing() {
    let mut ring = Ring::empty();
    assert_eq!((ring.check(0), ring.check(u128::MAX)), (0, 0));
    assert_eq!(
        (ring.memory_bytes(), ring.segments(), ring.geometry()),
        (0, 0, None)
    );
    assert_eq!(ring.set_all(0, 0, [1]), 0);
    ring.clear(0, 0);
    assert!(ring.segment_range(0).is_empty());
    assert!(ring.open_segment().is_none() && ring.rebuild_range().is_none());
    fn is_send<T: Send + Sync>(_: &T) {}
    is_send(&ring);
}

#[test]
fn fingerprints_at_the_borders_of_segments_are_found() {
    for segments_log2 in [0, 1, 3] {
        let mut ring = ring_of(geometry(16, segments_log2, 3), &[]);
        let ranges: Vec<_> = (0..ring.segments())
            .map(|s| ring.segment_range(s))
            .collect();
        assert_eq!(
            (*ranges[0].start(), *ranges[ranges.len() - 1].end()),
            (0, u64::MAX)
        );
        assert!(
            ranges
                .windows(2)
                .all(|pair| pair[0].end() + 1 == *pair[1].start())
        );
        let mut borders: Vec<u128> = Vec::new();
        for high in ranges
            .iter()
            .flat_map(|range| [*range.start(), *range.end()])
        {
            borders.extend([0, u64::MAX].map(|low| (u128::from(high) << 64) | u128::from(low)));
        }
        assert_eq!(
            set_in_all_segments(&mut ring, 15, &borders),
            borders.len() as u64
        );
        assert!(borders.iter().all(|id| ring.check(*id) == 1 << 15));
    }
}

#[test]
fn false_positives_are_as_many_as_expected() {
    // Planes, segments, pages, ids a plane: from sparse to crowded, and from 1 to 256 pages.
    let cases = [
        (8, 0, 64, 8_000),
        (8, 2, 16, 12_000),
        (40, 8, 1, 30_000),
        (128, 0, 3, 290),
        (128, 0, 1, 80),
    ];
    for (planes, segments_log2, pages, ids) in cases {
        let geometry = geometry(planes, segments_log2, pages);
        let slices: Slices = (0..u64::from(planes))
            .map(|plane| run(plane, ids))
            .collect();
        let ring = ring_of(geometry, &slices);
        let absent = run(u64::MAX, 200_000);
        let measured: u32 = absent.iter().map(|id| ring.check(*id).count_ones()).sum();
        let expected =
            geometry.expected_false_positive_rate(ids) * f64::from(planes) * absent.len() as f64;
        let ratio = f64::from(measured) / expected;
        println!("{geometry:?}: {measured} false positives, {ratio:.3} of the expected ones");
        assert!(expected > 500.0, "{expected} are too few to compare");
        assert!(
            (0.75..=1.25).contains(&ratio),
            "{geometry:?}: {ratio} of the expected rate"
        );
    }
}

#[test]
fn a_fitting_geometry_meets_its_target_with_the_least_pages() {
    for (planes, ids, target) in [(8, 20_000, 0.01), (64, 3_000, 0.02)] {
        let fitting = Geometry::fitting(planes, ids, target, 50_000);
        let slices: Slices = (0..u64::from(planes))
            .map(|plane| run(plane, ids))
            .collect();
        let ring = ring_of(fitting, &slices);
        let absent = run(u64::MAX, 200_000);
        let hits: u32 = absent.iter().map(|id| ring.check(*id).count_ones()).sum();
        let measured = f64::from(hits) / absent.len() as f64;
        println!("{fitting:?}: {measured:.5} for a target of {target}");
        assert!(
            measured <= 1.1 * target,
            "{fitting:?}: {measured} instead of {target}"
        );
        let pages_per_segment = fitting.pages_per_segment - 1;
        let smaller = Geometry {
            pages_per_segment,
            ..fitting
        };
        assert!(smaller.expected_false_positive_rate(ids) * f64::from(planes) > target);
    }
}

#[test]
fn fitting_rings_take_the_memory_they_are_meant_to() {
    for (planes, positions_per_id) in [(8, 20.0..21.5), (64, 28.0..29.5)] {
        let fitting = Geometry::fitting(planes, 1_000_000, 0.001, 1_000_000);
        let measured = fitting.positions() as f64 / 1e6;
        assert!(
            positions_per_id.contains(&measured),
            "{measured} positions an id of a plane"
        );
        assert_eq!(fitting.segments(), planes);
    }
}

#[test]
fn fitting_survives_any_input() {
    let nothing = Geometry::fitting(0, 0, 0.0, 0);
    assert_eq!(nothing, geometry(8, 0, 1));
    for ids in [0, 1, 1_000, 1_000_000_000_000, u64::MAX] {
        for target in [
            f64::NAN,
            f64::NEG_INFINITY,
            0.0,
            1e-300,
            1e-3,
            2.0,
            f64::INFINITY,
        ] {
            for ids_per_segment in [0, 1, 1_000_000, u64::MAX] {
                let fitting = Geometry::fitting(1_000, ids, target, ids_per_segment);
                assert_eq!(fitting.allowed(), fitting);
                assert!(fitting.bytes() < u64::MAX || ids == u64::MAX);
                let met = 128.0 * fitting.expected_false_positive_rate(ids) <= target.max(1e-9);
                assert!(met || ids == u64::MAX, "{ids} ids, {target}, {fitting:?}");
            }
        }
    }
    let absurd = geometry(u32::MAX, u32::MAX, u32::MAX);
    assert_eq!(absurd.bytes(), u64::MAX);
    assert_eq!(absurd.expected_false_positive_rate(0), 0.0);
}

#[test]
fn a_rebuild_takes_one_segment_more_than_the_larger_table() {
    for (old, new) in [
        ((8, 4, 9), (8, 4, 17)),
        ((16, 4, 17), (8, 4, 3)),
        ((8, 3, 6), (24, 5, 2)),
    ] {
        let (old, new) = (geometry(old.0, old.1, old.2), geometry(new.0, new.1, new.2));
        let open = new.new_segment().len() as u64;
        let padding = 16 * u64::from(old.segments() + new.segments());
        let mut ring = ring_of(old, &[]);
        assert!(ring.begin_rebuild(new));
        let mut most = 0;
        while ring.rebuilding().is_some() {
            most = most.max(ring.memory_bytes() + open);
            publish_next(&mut ring, &[]);
        }
        // An old segment that is larger than a new one goes only when all of it is replaced.
        let one_segment = open.max(old.new_segment().len() as u64);
        assert!(
            most <= old.bytes().max(new.bytes()) + one_segment + padding,
            "{most}"
        );
    }
}

#[test]
fn segments_of_another_rebuild_or_out_of_turn_are_refused() {
    let shape = geometry(8, 1, 1);
    let mut ring = Ring::empty();
    assert!(ring.begin_rebuild(shape));
    assert!(!ring.begin_rebuild(geometry(16, 0, 1)));
    let (first, twin) = (ring.open_segment().unwrap(), ring.open_segment().unwrap());
    assert!(ring.publish(first));
    assert!(!ring.publish(twin));
    let second = ring.open_segment().unwrap();
    let left_over = ring.open_segment().unwrap();
    assert_eq!(Some(second.range()), ring.rebuild_range());
    assert!(ring.publish(second));
    assert!(!ring.publish(left_over));
    assert!(ring.begin_rebuild(shape));
    let mut abandoned = ring.open_segment().unwrap();
    assert_eq!(abandoned.set_all(8, [0]), 0);
    publish_next(&mut ring, &[]);
    publish_next(&mut ring, &[]);
    assert!(ring.begin_rebuild(shape));
    assert!(!ring.publish(abandoned));
}

#[test]
fn a_ring_that_is_being_rebuilt_takes_no_ids_and_clears_none() {
    let slices = [run(1, 500)];
    let mut ring = ring_of(geometry(8, 0, 2), &slices);
    assert!(ring.begin_rebuild(geometry(8, 1, 2)));
    assert_eq!((ring.segments(), ring.set_all(0, 0, run(2, 10))), (0, 0));
    ring.clear(0, 0);
    assert!(slices[0].iter().all(|id| ring.check(*id) == 1));
}
