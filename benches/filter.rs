//! An id that was not seen, the usual case: how long until all slices have said no?

use std::hint::black_box;
use std::time::Instant;

use bloomfilter::Bloom;
use fastbloom::BloomFilter;
use hashbrown::HashSet;
use kafka_dedup::window::ring::{Geometry, Ring};

use crate::measure::Samples;
use crate::results::{Case, OURS, Reach, Size, allowed, ids};
use crate::stream::Random;

const SLICES: usize = 8;
/// False positives a look-up, over all slices.
const TARGET: f64 = 0.001;
const IDS_PER_SEGMENT: u64 = 32_768;

pub fn run(size: Size) {
    for (count, reach_ns) in size.pick(
        vec![(80_000, None)],
        vec![(10_000_000, Some(60.0)), (100_000_000, Some(110.0))],
    ) {
        if allowed(count) == count {
            measure(size, count, reach_ns);
        }
    }
}

fn random(seed: &mut Random) -> u128 {
    u128::from(seed.next()) << 64 | u128::from(seed.next())
}

fn measure(size: Size, count: u64, reach_ns: Option<f64>) {
    let mut seed = Random(count);
    let mut slices: Vec<Vec<u128>> = (0..SLICES)
        .map(|_| {
            (0..count / SLICES as u64)
                .map(|_| random(&mut seed))
                .collect()
        })
        .collect();
    slices.iter_mut().for_each(|slice| slice.sort_unstable());

    let ring = ring(&slices);
    let per_slice = TARGET / SLICES as f64;
    let mut blooms = Vec::new();
    let mut fast = Vec::new();
    let mut exact: HashSet<u128, foldhash::fast::RandomState> =
        HashSet::with_capacity_and_hasher(count as usize, foldhash::fast::RandomState::default());
    for slice in &slices {
        // Its two hashes have half of the seed each; they must differ.
        let seed = std::array::from_fn(|at| at as u8);
        let mut bloom =
            Bloom::new_for_fp_rate_with_seed(slice.len(), per_slice, &seed).expect("a filter");
        let mut quick = BloomFilter::with_false_pos(per_slice).expected_items(slice.len());
        for fingerprint in slice {
            bloom.set(fingerprint);
            quick.insert_hash(*fingerprint as u64);
            exact.insert(*fingerprint);
        }
        blooms.push(bloom);
        fast.push(quick);
    }
    never_a_false_negative(&slices, &ring);
    drop(slices);

    let (checks, rounds) = size.pick((20_000, 3), (1 << 20, 9));
    let mut samples: [Samples; 4] = Default::default();
    let mut positives = [0_usize; 4];
    for _ in 0..rounds {
        let absent: Vec<u128> = (0..checks).map(|_| random(&mut seed)).collect();
        let sides: [&dyn Fn(&u128) -> bool; 4] = [
            &|id| ring.check(*id) != 0,
            // It takes what is hashed already, once for all slices; `bloomfilter` does not.
            &|id| fast.iter().any(|filter| filter.contains_hash(*id as u64)),
            &|id| blooms.iter().any(|filter| filter.check(id)),
            &|id| exact.contains(id),
        ];
        for ((check, samples), positives) in sides.iter().zip(&mut samples).zip(&mut positives) {
            let started = Instant::now();
            *positives += absent.iter().filter(|id| check(black_box(id))).count();
            samples.push(started.elapsed().as_secs_f64() * 1e9 / f64::from(checks));
        }
    }
    let waiting = one_at_a_time(&ring, &mut seed, checks, rounds);
    let asked = f64::from(checks) * f64::from(rounds);
    let rates = positives.map(|positives| positives as f64 / asked);
    let most = 1.3 * TARGET + 5.0 * (TARGET / asked).sqrt();
    assert!(rates[..3].iter().all(|rate| *rate < most), "{rates:?}");
    assert_eq!(positives[3], 0, "the exact set knows an absent id");

    let [ours, fast, blooms, exact] = samples;
    let reach = reach_ns.map(Reach::AtMost);
    let note = |rate: f64| format!("{:.3} % false positives", 100.0 * rate);
    let ratio =
        |other: &Samples| Samples(other.0.iter().zip(&ours.0).map(|(a, b)| a / b).collect());
    let (to_blooms, to_fast) = (ratio(&blooms), ratio(&fast));
    Case::new(ids(count), "ns a check")
        .side_with(OURS, ours, reach, &note(rates[0]))
        .side_with("one at a time", waiting, None, "what a lone look-up waits")
        .side_with("bloomfilter, one a slice", blooms, None, &note(rates[2]))
        .side_with("fastbloom, one a slice", fast, None, &note(rates[1]))
        .side_with("exact HashSet", exact, None, "one set, all slices")
        .tell();
    Case::new(format!("{}: times as fast as", ids(count)), "ratio")
        .side_with(
            "bloomfilter",
            to_blooms,
            reach_ns.map(|_| Reach::AtLeast(10.0)),
            "",
        )
        .side("fastbloom", to_fast)
        .tell();
}

/// Each check waits for the answer of the one before, so that no two of them overlap.
fn one_at_a_time(ring: &Ring, seed: &mut Random, checks: i32, rounds: i32) -> Samples {
    let mut samples = Samples::default();
    for _ in 0..rounds {
        let absent: Vec<u128> = (0..checks).map(|_| random(seed)).collect();
        let started = Instant::now();
        let mut before = 0;
        for fingerprint in &absent {
            // Bits 8 and up of the answer are always clear, which the compiler does not know.
            before = ring.check(fingerprint ^ (before >> 8));
        }
        black_box(before);
        samples.push(started.elapsed().as_secs_f64() * 1e9 / f64::from(checks));
    }
    samples
}

fn ring(slices: &[Vec<u128>]) -> Ring {
    let largest = slices.iter().map(Vec::len).max().unwrap_or(0) as u64;
    let geometry = Geometry::fitting(SLICES as u32, largest, TARGET, IDS_PER_SEGMENT);
    let mut ring = Ring::new(geometry);
    for (plane, slice) in (0..).zip(slices) {
        for segment in 0..ring.segments() {
            let range = ring.segment_range(segment);
            let place = |high: u64| {
                slice.partition_point(|fingerprint| (*fingerprint >> 64) < u128::from(high))
            };
            let end = range.end().checked_add(1).map_or(slice.len(), place);
            let part = &slice[place(*range.start())..end];
            let set = ring.set_all(segment, plane, part.iter().copied());
            assert_eq!(set, part.len() as u64);
        }
    }
    ring
}

fn never_a_false_negative(slices: &[Vec<u128>], ring: &Ring) {
    for (plane, slice) in slices.iter().enumerate() {
        for fingerprint in slice.iter().step_by(1 + slice.len() / 10_000) {
            assert!(ring.check(*fingerprint) & (1 << plane) != 0);
        }
    }
}
