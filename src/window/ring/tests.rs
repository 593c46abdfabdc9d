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

/// Slice `p` is fed to plane `p`.
fn ring_of(geometry: Geometry, slices: &[Vec<u128>]) -> Ring {
    let mut ring = Ring::new(geometry);
    for (plane, slice) in slices.iter().enumerate() {
        set_in_all_segments(&mut ring, plane as u32, slice);
    }
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
fn a_ring_takes_what_its_geometry_says() {
    for shape in [geometry(8, 4, 9), geometry(16, 0, 17), geometry(24, 5, 2)] {
        let ring = Ring::new(shape);
        assert_eq!(
            (ring.geometry(), ring.segments()),
            (Some(shape), shape.segments())
        );
        assert_eq!(
            ring.memory_bytes(),
            shape.bytes() + 16 * u64::from(shape.segments())
        );
    }
    assert_eq!(Ring::new(geometry(8, 0, 1)).set_all(0, 8, [0]), 0);
    assert_eq!(Ring::new(geometry(8, 0, 1)).set_all(1, 0, [0]), 0);
}
