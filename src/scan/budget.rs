//! How the memory that a scan may use is divided.
//!
//! A reserve is for the program and the records under way. Of the rest pass one has two filters,
//! one for all ids and a smaller one for candidates, and pass two has the smaller one and a map,
//! which takes the place of the larger. Pure arithmetic.

use bloomfilter::Bloom;

use super::exact;
use super::span::Span;
use crate::window::Fingerprint;

/// What the program itself and the fetched records take, in bytes; measured.
const RESERVE: u64 = 56 << 20;
/// The least that makes sense, in bytes.
pub const LEAST: u64 = 96 << 20;

/// Of ids seen for the first time, how many pass one takes for a repetition.
const FALSE_POSITIVES: f64 = 0.01;
/// Of ids that do not repeat, how many pass two counts in vain.
const FALSE_CANDIDATES: f64 = 0.001;
/// An id that repeats takes two records; what pass one mistakes is far fewer than the slack.
const RECORDS_PER_CANDIDATE: u64 = 2;

/// The sizes of what the passes allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The filter of pass one: bytes, and ids for which it holds [`FALSE_POSITIVES`].
    pub seen: Sized,
    /// The filter of candidates.
    pub candidates: Sized,
    /// Entries of the map of pass two: one for each candidate and partition.
    pub entries: usize,
    /// How much of the fingerprints' space one pass one can cover.
    pub slice: u128,
}

/// A Bloom filter to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sized {
    pub bytes: usize,
    pub items: usize,
}

impl Budget {
    /// Divides `memory` bytes for a log of at most `records`.
    pub fn divide(memory: u64, records: u64) -> Self {
        let free = memory.saturating_sub(RESERVE).max(LEAST - RESERVE);
        Self::of_free(free, records)
    }

    /// Divides what is left after the reserve.
    pub(super) fn of_free(free: u64, records: u64) -> Self {
        let records = records.max(1);
        let whole = bytes_for(records, FALSE_POSITIVES);
        let slices = whole.div_ceil((free / 4 * 3).max(1)).max(1);
        // Shares of a hash are even, but not to the last id.
        let ids = (records / slices).saturating_add(records / slices / 50 + 16);
        let seen = sized(bytes_for(ids, FALSE_POSITIVES), ids);
        let wanted = bytes_for(ids / RECORDS_PER_CANDIDATE + 1, FALSE_CANDIDATES);
        let bytes = wanted.min(free / 4).max(1);
        let candidates = sized(bytes, items_in(bytes, FALSE_CANDIDATES));
        let map = free.saturating_sub(bytes);
        Self {
            seen,
            candidates,
            entries: exact::entries_in(map, records),
            slice: Span::WHOLE.width().div_ceil(u128::from(slices)),
        }
    }
}

impl Sized {
    /// An empty filter; different seeds give independent ones.
    pub fn filter(&self, seed: u8) -> Bloom<Fingerprint> {
        // Each of its two hashes is keyed by half of the seed: equal halves make one hash of them, and
        // many times the false positives.
        let mut halves = [seed; 32];
        halves[16..].fill(!seed);
        // It fails only where random numbers are asked for.
        match Bloom::new_with_seed(self.bytes.max(1), self.items.max(1), &halves) {
            Ok(filter) => filter,
            Err(why) => unreachable!("a filter with a seed: {why}"),
        }
    }
}

fn sized(bytes: u64, items: u64) -> Sized {
    Sized {
        bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        items: usize::try_from(items).unwrap_or(usize::MAX),
    }
}

fn bytes_for(items: u64, false_positives: f64) -> u64 {
    let items = usize::try_from(items).unwrap_or(usize::MAX).max(1);
    Bloom::<Fingerprint>::compute_bitmap_size(items, false_positives) as u64
}

/// The inverse of [`bytes_for`], about.
fn items_in(bytes: u64, false_positives: f64) -> u64 {
    let thousand = bytes_for(1000, false_positives).max(1);
    (bytes.saturating_mul(1000) / thousand).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_as_good_as_it_is_sized_for() {
        let ids = 20_000_u128;
        let fingerprint = |id: u128| xxhash_rust::xxh3::xxh3_128(&id.to_le_bytes());
        for target in [FALSE_POSITIVES, FALSE_CANDIDATES] {
            let mut filter = sized(bytes_for(20_000, target), 20_000).filter(7);
            (0..ids).for_each(|id| filter.set(&fingerprint(id)));
            assert!((0..ids).all(|id| filter.check(&fingerprint(id))));
            let false_positives = (ids..11 * ids).filter(|id| filter.check(&fingerprint(*id)));
            let measured = false_positives.count() as f64 / (10 * ids) as f64;
            assert!(measured < 1.5 * target, "{measured} instead of {target}");
        }
    }

    const MB: u64 = 1_000_000;

    #[test]
    fn a_small_topic_takes_little_and_one_slice() {
        let budget = Budget::divide(256 * MB, 220_000);
        assert!(budget.slice >= Span::WHOLE.width());
        assert!(budget.seen.bytes < 300_000, "{budget:?}");
        assert!(budget.entries >= 220_000, "{budget:?}");
        assert!(Budget::divide(256 * MB, 0).entries >= 1);
    }

    #[test]
    fn nothing_is_larger_than_the_memory_whatever_the_topic() {
        for memory in [LEAST, 256 * MB, 4096 * MB] {
            for records in [0, 1, 1000, 100_000_000, 10_000_000_000, u64::MAX / 1000] {
                let Budget {
                    seen,
                    candidates,
                    entries,
                    slice,
                } = Budget::divide(memory, records);
                let one = (seen.bytes + candidates.bytes) as u64 + RESERVE;
                let two = candidates.bytes as u64 + exact::bytes_of(entries) + RESERVE;
                // The slack for uneven shares is 2 %.
                assert!(one <= memory + memory / 50, "{memory} {records}: {one}");
                assert!(two <= memory, "{memory} {records}: {two}");
                assert!(slice >= 1);
            }
        }
    }

    #[test]
    fn a_topic_that_is_too_large_for_one_filter_is_walked_in_slices() {
        let budget = Budget::divide(256 * MB, 1_000_000_000);
        let slices = Span::WHOLE.width().div_ceil(budget.slice);
        assert!((7..=9).contains(&slices), "{slices}");
    }
}
