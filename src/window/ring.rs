//! The bit-sliced Bloom ring: one look-up that tells which slices of the seen window may hold an id.
//!
//! A slice of time owns one *plane* of the ring. The ring is an array of positions; bit `p` of the
//! word at a position belongs to plane `p`. Every id fills [`PROBES`] positions of its plane (Bloom
//! 1970, "Space/time trade-offs in hash coding with allowable errors"), and the same positions serve
//! all planes, so that the AND of eight words answers for up to 128 slices at once. A clear bit is
//! certain: that plane does not hold the id. A set bit means "may hold it".
//!
//! The high bits of the fingerprint choose a page of 2048 positions and all probes fall within it
//! (blocked filters: Putze, Sanders, Singler 2007, "Cache-, hash- and space-efficient Bloom
//! filters"). A check then costs one or two TLB entries, and a sorted run sets its bits in one sweep
//! over the memory. Each probe takes 11 bits of its own from the fingerprint. Double hashing, the
//! usual way to derive probes from two numbers, knows only 2048 * 1024 patterns in a page of this
//! size: two ids that share a pattern would be too common.
//!
//! Pure memory: this module may not touch files, clocks, threads or the slices themselves. It
//! expects fingerprints to be uniform hashes, such as xxh3_128; others cost speed, never an answer.

use std::ops::RangeInclusive;

#[cfg(test)]
mod tests;

/// Positions that an id fills in its plane, and words that a check reads at most.
pub const PROBES: u32 = 8;

const MOST_PLANES: u32 = 128;
/// 2^20 segments are enough for 10^14 ids; the list of segments itself stays small.
const MOST_SEGMENTS_LOG2: u32 = 20;
/// Positions of a page are chosen by 11 bits each.
const PAGE_POSITIONS: usize = 1 << PROBE_BITS;
const PROBE_BITS: usize = 11;
/// Slack behind a segment, so that the last word can be loaded 16 bytes at a time.
const PADDING: usize = 16;
/// Below this the sum in [`false_positive_rate`] drowns in rounding.
const LEAST_TARGET: f64 = 1e-9;

/// The shape of a ring. Numbers out of bounds are moved to the nearest allowed ones wherever a
/// geometry is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bits of a word: a multiple of 8, from 8 to 128.
    pub planes: u32,
    /// The ring is allocated in 2^this parts, each for an equal part of the fingerprints; 0 to 20.
    pub segments_log2: u32,
    /// Pages of 2048 positions in each segment, at least 1.
    pub pages_per_segment: u32,
}

impl Geometry {
    /// The smallest ring of `planes` full planes, each of at most `ids_per_plane` ids, that has at
    /// most `target` expected false positives a check over all planes together. A segment holds
    /// half of `ids_per_segment` to `ids_per_segment` of all ids (of all planes together).
    ///
    /// `target` is taken as 1e-9 if it is smaller or not a number. Rings so small that a segment
    /// would have less than 16 pages get fewer segments, so that rounding up to whole pages does not
    /// cost more than 6 %. Takes some microseconds.
    pub fn fitting(planes: u32, ids_per_plane: u64, target: f64, ids_per_segment: u64) -> Self {
        let planes = planes.clamp(1, MOST_PLANES).next_multiple_of(8);
        let target_per_plane = target.max(LEAST_TARGET) / f64::from(planes);
        // The most that 2^20 segments of 2^31 pages hold.
        let (mut pages, mut enough) = (1_u64, 1_u64 << 51);
        while pages < enough {
            let middle = pages.midpoint(enough);
            if false_positive_rate(ids_per_plane, middle) <= target_per_plane {
                enough = middle;
            } else {
                pages = middle + 1;
            }
        }
        let ids = ids_per_plane.saturating_mul(u64::from(planes));
        let wanted = ids
            .div_ceil(ids_per_segment.max(1))
            .clamp(1, 1 << MOST_SEGMENTS_LOG2);
        let most = (pages / 16).max(1).ilog2();
        let least = pages.next_power_of_two().ilog2().saturating_sub(31);
        let segments_log2 = wanted
            .next_power_of_two()
            .ilog2()
            .min(most)
            .max(least)
            .min(MOST_SEGMENTS_LOG2);
        let pages_per_segment = pages.div_ceil(1 << segments_log2) as u32;
        Self {
            planes,
            segments_log2,
            pages_per_segment,
        }
    }

    /// Positions of the whole ring.
    pub fn positions(&self) -> u64 {
        self.pages().saturating_mul(PAGE_POSITIONS as u64)
    }

    /// Memory of the whole ring in bytes, without 16 bytes a segment for padding.
    pub fn bytes(&self) -> u64 {
        self.positions()
            .saturating_mul(self.allowed().stride() as u64)
    }

    /// Expected false positives of one check of an absent id in one plane that holds `ids` ids.
    ///
    /// The variation of the ids a page is taken into account: exact for uniform fingerprints, but for
    /// rounding errors of about 1e-14.
    pub fn expected_false_positive_rate(&self, ids: u64) -> f64 {
        false_positive_rate(ids, self.pages())
    }

    fn allowed(&self) -> Self {
        Self {
            planes: self.planes.clamp(1, MOST_PLANES).next_multiple_of(8),
            segments_log2: self.segments_log2.min(MOST_SEGMENTS_LOG2),
            pages_per_segment: self.pages_per_segment.max(1),
        }
    }

    fn pages(&self) -> u64 {
        let Self {
            segments_log2,
            pages_per_segment,
            ..
        } = self.allowed();
        u64::from(pages_per_segment) << segments_log2
    }

    /// Bytes from one position to the next.
    fn stride(&self) -> usize {
        self.planes as usize / 8
    }

    fn segments(&self) -> u32 {
        1 << self.segments_log2
    }

    fn segment_range(&self, segment: u32) -> RangeInclusive<u64> {
        let width = u64::MAX >> self.segments_log2;
        let first = u64::from(segment) * (width.wrapping_add(1));
        first..=first + width
    }

    fn segment_of(&self, high: u64) -> u32 {
        // A rotation brings the top bits down even if there are none of them.
        high.rotate_left(self.segments_log2) as u32 & (self.segments() - 1)
    }

    /// Where the page of a fingerprint begins in its segment, in bytes. Fast range reduction
    /// (Lemire 2019, "Fast random integer generation in an interval") keeps the order of the
    /// fingerprints.
    fn page_start(&self, high: u64) -> usize {
        let rest = u128::from(high << self.segments_log2);
        let page = (rest * u128::from(self.pages_per_segment)) >> 64;
        page as usize * PAGE_POSITIONS * self.stride()
    }

    fn new_segment(&self) -> Box<[u8]> {
        let page_bytes = PAGE_POSITIONS * self.stride();
        vec![0; self.pages_per_segment as usize * page_bytes + PADDING].into_boxed_slice()
    }

    /// Sets the bits of those fingerprints that belong to `segment`, and returns their number.
    fn set_all(
        &self,
        segment: u32,
        memory: &mut [u8],
        plane: u32,
        fingerprints: impl IntoIterator<Item = u128>,
    ) -> u64 {
        if plane >= self.planes {
            return 0;
        }
        let (stride, lane, bit) = (self.stride(), plane as usize / 8, 1 << (plane % 8));
        let (mut set, mut swept) = (0, None);
        for fingerprint in fingerprints {
            let high = high_half(fingerprint);
            if self.segment_of(high) != segment {
                continue;
            }
            let start = self.page_start(high);
            let page = &mut memory[start..][..PAGE_POSITIONS * stride];
            if swept.replace(start) != Some(start) {
                sweep(page);
            }
            for position in positions_of(fingerprint) {
                page[position * stride + lane] |= bit;
            }
            set += 1;
        }
        set
    }
}

/// The ring. Its shape is fixed; one of another shape is a new ring, which its owner feeds with all
/// live slices before it takes the place of this one.
///
/// A plane that was not fed answers "certainly not here", so callers treat a slice as unfiltered
/// until its plane is fed, and mask out planes that belong to no slice.
#[derive(Debug, Default)]
pub struct Ring {
    geometry: Option<Geometry>,
    segments: Vec<Box<[u8]>>,
}

impl Ring {
    /// A ring without memory: every check is negative.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A ring of this shape in which nothing is set. The system gives its memory as it is touched.
    pub fn new(geometry: Geometry) -> Self {
        let geometry = geometry.allowed();
        Self {
            geometry: Some(geometry),
            segments: (0..geometry.segments())
                .map(|_| geometry.new_segment())
                .collect(),
        }
    }

    /// Bit `p` is set if plane `p` may hold the fingerprint, and clear if it certainly does not.
    ///
    /// Reads four words of one page, and four more if any plane is left then. Loads without a branch
    /// in between overlap; one after every word would be mispredicted more often than it saves a load.
    #[inline]
    pub fn check(&self, fingerprint: u128) -> u128 {
        let high = high_half(fingerprint);
        let Some(geometry) = self.geometry else {
            return 0;
        };
        let memory =
            &self.segments[geometry.segment_of(high) as usize][geometry.page_start(high)..];
        match geometry.stride() {
            1 => and_words::<1>(memory, 1, fingerprint),
            stride @ 2..=8 => and_words::<8>(memory, stride, fingerprint),
            stride => and_words::<16>(memory, stride, fingerprint),
        }
    }

    /// Its shape; `None` for an empty ring.
    pub fn geometry(&self) -> Option<Geometry> {
        self.geometry
    }

    /// Memory that it holds, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let segment = self
            .segments
            .first()
            .map_or(0, |memory| memory.len() as u64);
        segment * self.segments.len() as u64
    }

    /// Segments that can be fed and cleared, one after the other: none in an empty ring.
    pub fn segments(&self) -> u32 {
        self.geometry.map_or(0, |geometry| geometry.segments())
    }

    /// High halves of the fingerprints that belong to a segment; an empty range if it does not exist.
    pub fn segment_range(&self, segment: u32) -> RangeInclusive<u64> {
        match self.geometry {
            Some(geometry) if segment < geometry.segments() => geometry.segment_range(segment),
            _ => RangeInclusive::new(1, 0),
        }
    }

    /// Sets the bits of those fingerprints that belong to `segment`, and returns their number; the
    /// others are passed over. Any order will do, but sorted ones are set in one sweep over the
    /// memory and many times faster.
    ///
    /// Does nothing, and returns 0, if the ring has no such segment or plane.
    pub fn set_all(
        &mut self,
        segment: u32,
        plane: u32,
        fingerprints: impl IntoIterator<Item = u128>,
    ) -> u64 {
        let Some((geometry, memory)) = self.segment(segment) else {
            return 0;
        };
        geometry.set_all(segment, memory, plane, fingerprints)
    }

    /// Clears one plane of a segment in one sweep over its memory. Does nothing where
    /// [`Ring::set_all`] does nothing.
    pub fn clear(&mut self, segment: u32, plane: u32) {
        let Some((geometry, memory)) = self.segment(segment) else {
            return;
        };
        if plane >= geometry.planes {
            return;
        }
        // Sixteen words at a time, so that the compiler can use wide registers for any stride.
        let mut keep = vec![u8::MAX; 16 * geometry.stride()];
        for word in keep.chunks_exact_mut(geometry.stride()) {
            word[plane as usize / 8] = !(1 << (plane % 8));
        }
        for words in memory.chunks_exact_mut(keep.len()) {
            for (byte, kept) in words.iter_mut().zip(&keep) {
                *byte &= kept;
            }
        }
    }

    fn segment(&mut self, segment: u32) -> Option<(Geometry, &mut [u8])> {
        Some((self.geometry?, self.segments.get_mut(segment as usize)?))
    }
}

fn high_half(fingerprint: u128) -> u64 {
    (fingerprint >> 64) as u64
}

/// The positions of a fingerprint within its page: five from the low half, three from the low end
/// of the high half. The page is chosen by the high end, which overlaps from 2^31 pages on only.
#[inline]
fn positions_of(fingerprint: u128) -> [usize; PROBES as usize] {
    let (high, low) = (high_half(fingerprint), fingerprint as u64);
    std::array::from_fn(|probe| {
        let bits = if probe < 5 {
            low >> (PROBE_BITS * probe)
        } else {
            high >> (PROBE_BITS * (probe - 5))
        };
        bits as usize % PAGE_POSITIONS
    })
}

/// Reads a page once from front to back: the processor fetches ahead of a sweep, but not of bits set
/// here and there. Halves the time to set one plane of 64 that is out of the cache.
fn sweep(page: &[u8]) {
    const CACHE_LINE: usize = 64;
    // Without the black box the compiler drops reads that nothing depends on.
    std::hint::black_box(
        page.iter()
            .step_by(CACHE_LINE)
            .fold(0, |all, byte| all ^ byte),
    );
}

/// The AND of the words that a fingerprint chooses in the page at the beginning of `memory`. `LOAD`
/// bytes are loaded for each word of `stride <= LOAD` bytes.
#[inline]
fn and_words<const LOAD: usize>(memory: &[u8], stride: usize, fingerprint: u128) -> u128 {
    let word = |position: usize| {
        let mut bytes = [0; 16];
        bytes[..LOAD].copy_from_slice(&memory[position * stride..][..LOAD]);
        u128::from_le_bytes(bytes)
    };
    let mut planes = u128::MAX >> (128 - 8 * stride);
    for four in positions_of(fingerprint).chunks_exact(4) {
        planes &= word(four[0]) & word(four[1]) & word(four[2]) & word(four[3]);
        if planes == 0 {
            break;
        }
    }
    planes
}

/// Expected false positives of one check in a plane of `ids` ids over `pages` pages.
///
/// An id leaves `j` positions of a page untouched unless it falls into that page and hits one of
/// them: `1 - (1 - (1 - j / 2048)^8) / pages`. To the power of `ids` that is the chance that all of
/// them are empty, with the variation of the ids a page in it. Inclusion and exclusion over the
/// positions of a check then give the chance that none is empty.
fn false_positive_rate(ids: u64, pages: u64) -> f64 {
    let size = PAGE_POSITIONS as f64;
    // Some probes of a check may fall on the same position: chance of each number of positions.
    let mut chances = [0.0; PROBES as usize + 1];
    chances[0] = 1.0;
    for _ in 0..PROBES {
        for hit in (1..chances.len()).rev() {
            chances[hit] =
                (chances[hit] * hit as f64 + chances[hit - 1] * (size - (hit - 1) as f64)) / size;
        }
        chances[0] = 0.0;
    }
    let all_filled = |positions: usize| {
        let (mut sum, mut subsets) = (0.0, 1.0);
        for empty in 1..=positions {
            subsets *= -((positions + 1 - empty) as f64) / empty as f64;
            let untouched = (1.0 - empty as f64 / size).powi(PROBES as i32);
            // Less 1, which the alternating sum of the binomials makes up for.
            sum += subsets * (ids as f64 * (-(1.0 - untouched) / pages as f64).ln_1p()).exp_m1();
        }
        sum
    };
    let rate: f64 = (1..chances.len())
        .map(|hit| chances[hit] * all_filled(hit))
        .sum();
    rate.clamp(0.0, 1.0)
}
