//! The chunk: how a sealed slice of the seen window lies in the database, about 256 entries to a
//! value. Entries are sorted by fingerprint and kept in packed columns, so that one is found by
//! binary search in the bytes as they were read. Bytes in, bytes out: this module touches no file,
//! no clock and no other state.
//!
//! # Format, versions 1 and 2
//!
//! All numbers are little endian; `n` is the count of entries.
//!
//! | at | bytes | what |
//! |---:|------:|------|
//! | 0 | 3 | magic, `KDC` in ASCII |
//! | 3 | 1 | version: 2 where payloads are known, else 1 |
//! | 4 | 1 | `wh`, width of the high column in bits, 0 to 64 |
//! | 5 | 1 | `wt`, width of the time column in bits, 0 to 64 |
//! | 6 | 1 | `wf`, width of the offset column in bits, 0 to 64 |
//! | 7 | 1 | `wo`, width of the ordinal column in bits, 0 to 64 |
//! | 8 | 4 | `n`, 0 to 2^24 |
//! | 12 | 8 | smallest high half of a fingerprint |
//! | 20 | 8 | smallest time in ms, two's complement |
//! | 28 | 8 | smallest offset, two's complement |
//! | 36 | 8 | smallest ordinal |
//! | 44 | ⌈`n`·`wh`/8⌉ | high halves of the fingerprints, less the smallest |
//! | … | ⌈`n`·`wt`/8⌉ | times, less the smallest |
//! | … | ⌈`n`·`wf`/8⌉ | offsets, less the smallest |
//! | … | ⌈`n`·`wo`/8⌉ | ordinals, less the smallest |
//! | … | 8·`n` | low halves of the fingerprints, as they are |
//! | … | 8·`n` | in version 2 alone: hashes of the payloads, as they are; 0 where one is not known |
//! | … | 8 | `xxh3_64` of all bytes before it |
//!
//! Entries are in strictly ascending order of fingerprint, and row `i` of every column belongs to
//! entry `i`. In a packed column of width `w` the value at row `i` takes the `w` bits from bit
//! `i·w`, the lowest bit first, bit 0 being the lowest of the column's first byte; the bits that
//! fill up its last byte are 0. The value is added to the smallest modulo 2^64. An empty chunk has
//! widths and smallest values of 0.
//!
//! This is frame-of-reference coding (J. Goldstein, R. Ramakrishnan, U. Shaft, "Compressing
//! Relations and Indexes", ICDE 1998). It keeps every row at a computable place, which is what the
//! binary search needs. The raw column and the checksum come last so that 16 bytes can be read from
//! the start of any packed value without leaving the chunk.

use super::entry::{Entry, Fingerprint};
use std::hint::select_unpredictable;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// How many entries a chunk has on average.
pub const ENTRIES_PER_CHUNK: usize = 256;

/// How many entries a chunk may have at most. Fingerprints are not evenly spread when ids were
/// chosen to collide, so this is far above the average.
pub const MAX_ENTRIES: usize = 1 << 24;

const MAGIC: [u8; 3] = *b"KDC";
const VERSION: u8 = 1;
const WITH_PAYLOADS: u8 = 2;
const HEADER_BYTES: usize = 44;
const RAW_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 8;
const MAX_WIDTH: u8 = 64;

/// Why some bytes are not a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// The bytes are a chunk of a version that this program does not know.
    #[error("chunk is of version {0}, and only versions up to {WITH_PAYLOADS} can be read")]
    Version(u8),
    /// The bytes are not what was packed; the text says what is wrong with them.
    #[error("chunk is damaged: {0}")]
    Damaged(&'static str),
}

/// How many chunks a slice of so many entries is divided into: one for every
/// [`ENTRIES_PER_CHUNK`] begun, at least 1 and at most `u32::MAX`.
#[must_use]
pub fn chunks_for(entries: u64) -> u32 {
    let chunks = entries.div_ceil(ENTRIES_PER_CHUNK as u64);
    u32::try_from(chunks).unwrap_or(u32::MAX).max(1)
}

/// Which of `chunks` chunks a fingerprint is in, counted from 0. A greater fingerprint is never in
/// an earlier chunk, and hashed ids are spread evenly. Without chunks (`chunks` of 0) it is 0.
///
/// The high half is scaled to the range by multiplication (D. Lemire, "Fast Random Integer
/// Generation in an Interval", 2019), which unlike a remainder keeps the order.
#[must_use]
pub fn chunk_of(fingerprint: Fingerprint, chunks: u32) -> u32 {
    // The product is below chunks * 2^64, so the cast loses nothing.
    ((u128::from(high_half(fingerprint)) * u128::from(chunks)) >> 64) as u32
}

/// Packs entries into a chunk. They must be in strictly ascending order of fingerprint and at most
/// [`MAX_ENTRIES`]; a chunk of more is refused by [`Chunk::open`]. Takes time linear in the entries
/// and allocates once.
#[must_use]
pub fn pack(entries: &[(Fingerprint, Entry)]) -> Vec<u8> {
    debug_assert!(entries.is_sorted_by(|left, right| left.0 < right.0));
    debug_assert!(entries.len() <= MAX_ENTRIES);

    let highs = entries.iter().map(|(id, _)| high_half(*id));
    let times = entries.iter().map(|(_, entry)| entry.time_ms);
    let offsets = entries.iter().map(|(_, entry)| entry.offset);
    let ordinals = entries.iter().map(|(_, entry)| entry.ordinal);

    let high = Frame::around(highs.clone(), |high| high);
    let time = Frame::around(times.clone(), i64::cast_unsigned);
    let offset = Frame::around(offsets.clone(), i64::cast_unsigned);
    let ordinal = Frame::around(ordinals.clone(), |ordinal| ordinal);
    let frames = [high, time, offset, ordinal];

    // A count beyond u32 becomes one beyond MAX_ENTRIES, which open refuses.
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let packed: usize = frames.iter().map(|f| f.packed_bytes(entries.len())).sum();
    let has_payloads = entries.iter().any(|(_, entry)| entry.payload != 0);
    let raw = entries.len() * RAW_BYTES * (1 + usize::from(has_payloads));
    let mut out = Vec::with_capacity(HEADER_BYTES + packed + raw + CHECKSUM_BYTES);

    out.extend_from_slice(&MAGIC);
    out.push(match has_payloads {
        true => WITH_PAYLOADS,
        false => VERSION,
    });
    out.extend(frames.iter().map(|frame| frame.width));
    out.extend_from_slice(&count.to_le_bytes());
    out.extend(frames.iter().flat_map(|frame| frame.base.to_le_bytes()));
    high.pack(highs, &mut out);
    time.pack(times.map(i64::cast_unsigned), &mut out);
    offset.pack(offsets.map(i64::cast_unsigned), &mut out);
    ordinal.pack(ordinals, &mut out);
    for (id, _) in entries {
        out.extend_from_slice(&low_half(*id).to_le_bytes());
    }
    for (_, entry) in entries.iter().filter(|_| has_payloads) {
        out.extend_from_slice(&entry.payload.to_le_bytes());
    }
    let checksum = xxh3_64(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// A chunk that was opened for reading. It keeps the bytes as they are and decodes only what is
/// asked for.
///
/// [`Chunk::open`] establishes that every row lies within the bytes. It does not establish that the
/// rows are in order: a chunk which somebody made up and gave a right checksum may be searched in
/// vain, but never harms.
#[derive(Debug, Clone)]
pub struct Chunk<B: AsRef<[u8]>> {
    bytes: B,
    count: usize,
    high: Column,
    time: Column,
    offset: Column,
    ordinal: Column,
    low: Column,
    payload: Option<Column>,
}

impl<B: AsRef<[u8]>> Chunk<B> {
    /// Opens the bytes that [`pack`] made, after reading all of them once for the checksum.
    /// Allocates nothing.
    ///
    /// # Errors
    ///
    /// [`ChunkError::Version`] when the chunk is of another version, and [`ChunkError::Damaged`]
    /// when the bytes are too few or too many, do not begin as a chunk does, state a count or a
    /// width that cannot be, or do not have the checksum they end with.
    pub fn open(bytes: B) -> Result<Self, ChunkError> {
        let all = bytes.as_ref();
        let (body, checksum) = all
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(ChunkError::Damaged("it is shorter than a checksum"))?;
        let header = Header::read(body)?;

        let mut end = HEADER_BYTES;
        let [high, time, offset, ordinal] = header.frames.map(|frame| {
            let start = end;
            end += frame.packed_bytes(header.count);
            Column::new(start, frame)
        });
        let low = Column::new(end, Frame::RAW);
        end += header.count * RAW_BYTES;
        let payload = header.has_payloads.then(|| Column::new(end, Frame::RAW));
        end += payload.map_or(0, |_| header.count * RAW_BYTES);
        if body.len() != end {
            return Err(ChunkError::Damaged("its length is not that of its columns"));
        }
        if xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err(ChunkError::Damaged("its checksum is wrong"));
        }
        let count = header.count;
        Ok(Self {
            bytes,
            count,
            high,
            time,
            offset,
            ordinal,
            low,
            payload,
        })
    }

    /// How many entries the chunk has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the chunk has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entry of a fingerprint, if the chunk has it. Takes time logarithmic in the count.
    #[must_use]
    pub fn get(&self, fingerprint: Fingerprint) -> Option<Entry> {
        let bytes = self.bytes.as_ref();
        let (high, low) = (high_half(fingerprint), low_half(fingerprint));
        // Searching by the high half alone is faster, and nearly always only one row has it.
        let row = last_row_not_after(self.count, |row| high < self.high.value_at(bytes, row))?;
        if self.high.value_at(bytes, row) != high {
            return None;
        }
        if self.low.value_at(bytes, row) == low {
            return Some(self.entry_at(bytes, row));
        }
        // The row is the last of those with this high half, and the one wanted may be before it.
        let row = last_row_not_after(row, |row| fingerprint < self.fingerprint_at(bytes, row))?;
        let is_here = self.fingerprint_at(bytes, row) == fingerprint;
        is_here.then(|| self.entry_at(bytes, row))
    }

    /// The first and the last fingerprint. Takes constant time.
    #[must_use]
    pub fn ends(&self) -> Option<(Fingerprint, Fingerprint)> {
        let bytes = self.bytes.as_ref();
        let last = self.count.checked_sub(1)?;
        Some((
            self.fingerprint_at(bytes, 0),
            self.fingerprint_at(bytes, last),
        ))
    }

    /// All fingerprints, in ascending order. Each takes constant time.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        let bytes = self.bytes.as_ref();
        (0..self.count).map(move |row| self.fingerprint_at(bytes, row))
    }

    /// All fingerprints with their entries, in ascending order of fingerprint. Each takes constant
    /// time.
    pub fn entries(&self) -> impl Iterator<Item = (Fingerprint, Entry)> {
        let bytes = self.bytes.as_ref();
        (0..self.count).map(move |row| (self.fingerprint_at(bytes, row), self.entry_at(bytes, row)))
    }

    fn fingerprint_at(&self, bytes: &[u8], row: usize) -> Fingerprint {
        let high = self.high.value_at(bytes, row);
        let low = self.low.value_at(bytes, row);
        (u128::from(high) << 64) | u128::from(low)
    }

    fn entry_at(&self, bytes: &[u8], row: usize) -> Entry {
        Entry {
            time_ms: self.time.value_at(bytes, row).cast_signed(),
            offset: self.offset.value_at(bytes, row).cast_signed(),
            ordinal: self.ordinal.value_at(bytes, row),
            payload: self.payload.map_or(0, |column| column.value_at(bytes, row)),
        }
    }
}

/// What stands before the columns, after it was found to be possible.
struct Header {
    has_payloads: bool,
    count: usize,
    frames: [Frame; 4],
}

impl Header {
    fn read(body: &[u8]) -> Result<Self, ChunkError> {
        let (magic, rest) = body
            .split_first_chunk()
            .ok_or(ChunkError::Damaged("it is shorter than a header"))?;
        if *magic != MAGIC {
            return Err(ChunkError::Damaged("it does not begin as a chunk does"));
        }
        // The version comes before all else, as another one may have another header.
        let ([version], rest) = rest
            .split_first_chunk()
            .ok_or(ChunkError::Damaged("it is shorter than a header"))?;
        let has_payloads = match *version {
            VERSION => false,
            WITH_PAYLOADS => true,
            other => return Err(ChunkError::Version(other)),
        };
        Self::read_fields(rest, has_payloads)
            .ok_or(ChunkError::Damaged("it is shorter than a header"))?
            .check()
    }

    fn read_fields(rest: &[u8], has_payloads: bool) -> Option<Self> {
        let (widths, rest) = rest.split_first_chunk::<4>()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (bases, _) = rest.as_chunks::<8>();
        let frame = |column: usize| {
            let width = *widths.get(column)?;
            let base = u64::from_le_bytes(*bases.get(column)?);
            Some(Frame { base, width })
        };
        Some(Self {
            has_payloads,
            // A count beyond usize becomes one beyond MAX_ENTRIES.
            count: usize::try_from(u32::from_le_bytes(*count)).unwrap_or(usize::MAX),
            frames: [frame(0)?, frame(1)?, frame(2)?, frame(3)?],
        })
    }

    fn check(self) -> Result<Self, ChunkError> {
        if self.count > MAX_ENTRIES {
            return Err(ChunkError::Damaged("its count is beyond the maximum"));
        }
        if self.frames.iter().any(|frame| frame.width > MAX_WIDTH) {
            return Err(ChunkError::Damaged("a column is wider than 64 bits"));
        }
        Ok(self)
    }
}

/// How the values of a column are written: as `width` bits for what each is above `base`.
#[derive(Clone, Copy)]
struct Frame {
    base: u64,
    width: u8,
}

impl Frame {
    /// The frame in which every value is written as it is.
    const RAW: Self = Self {
        base: 0,
        width: MAX_WIDTH,
    };

    /// The narrowest frame around the values. They are compared as what they are and only then made
    /// into `bits`, so that a negative number is less than a positive one.
    fn around<T: Copy + Ord>(values: impl Iterator<Item = T>, bits: impl Fn(T) -> u64) -> Self {
        let widen = |(least, most): (T, T), value: T| (least.min(value), most.max(value));
        let extremes = values
            .map(|value| (value, value))
            .reduce(|so_far, (value, _)| widen(so_far, value));
        let (least, most) = extremes.map_or((0, 0), |(least, most)| (bits(least), bits(most)));
        // The width is at most 64, so the cast loses nothing.
        let width = (u64::BITS - most.wrapping_sub(least).leading_zeros()) as u8;
        Self { base: least, width }
    }

    /// The bytes that a packed column of `count` values takes. No overflow is possible with up to
    /// [`MAX_ENTRIES`] of them, even if `usize` has 32 bits.
    fn packed_bytes(self, count: usize) -> usize {
        (count * usize::from(self.width)).div_ceil(8)
    }

    fn pack(self, values: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
        // Fewer than 64 bits are pending before a value of at most 64 is put above them.
        let mut pending: u128 = 0;
        let mut pending_bits = 0;
        for value in values {
            pending |= u128::from(value.wrapping_sub(self.base)) << pending_bits;
            pending_bits += usize::from(self.width);
            if pending_bits >= 64 {
                out.extend_from_slice(&low_half(pending).to_le_bytes());
                pending >>= 64;
                pending_bits -= 64;
            }
        }
        out.extend(pending.to_le_bytes().iter().take(pending_bits.div_ceil(8)));
    }
}

/// Where a column lies and how its values are read. Rows below the count lie within the bytes.
#[derive(Debug, Clone, Copy)]
struct Column {
    start: usize,
    base: u64,
    width: usize,
    mask: u64,
}

impl Column {
    fn new(start: usize, frame: Frame) -> Self {
        let unused = u32::from(MAX_WIDTH.saturating_sub(frame.width));
        Self {
            start,
            base: frame.base,
            width: usize::from(frame.width),
            mask: u64::MAX.checked_shr(unused).unwrap_or(0),
        }
    }

    /// The value at a row, in constant time. The bytes of an opened chunk always suffice, for a
    /// value begins no later than at the last raw low half, and that and the checksum are 16 bytes.
    /// Were they to change after opening, the value would be wrong, but nothing worse.
    #[inline]
    fn value_at(&self, bytes: &[u8], row: usize) -> u64 {
        let bit = row * self.width;
        let from = self.start + bit / 8;
        let window = bytes
            .get(from..)
            .and_then(|rest| rest.first_chunk())
            .copied();
        let window = u128::from_le_bytes(window.unwrap_or_default());
        let above = low_half(window >> (bit % 8)) & self.mask;
        self.base.wrapping_add(above)
    }
}

/// The last of so many rows that is not after what is looked for, or the first if all are; none if
/// there are no rows.
fn last_row_not_after(rows: usize, is_after: impl Fn(usize) -> bool) -> Option<usize> {
    let mut row = 0;
    let mut left = rows;
    // Which way a search turns cannot be predicted, so no branch depends on it.
    while left > 1 {
        let half = left / 2;
        let middle = row + half;
        row = select_unpredictable(is_after(middle), row, middle);
        left -= half;
    }
    (rows > 0).then_some(row)
}

fn high_half(number: u128) -> u64 {
    (number >> 64) as u64
}

fn low_half(number: u128) -> u64 {
    (number & u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_128;

    type Row = (Fingerprint, Entry);

    fn fingerprint(high: u64, low: u64) -> Fingerprint {
        (u128::from(high) << 64) | u128::from(low)
    }

    fn entry(time_ms: i64, offset: i64, ordinal: u64) -> Entry {
        Entry {
            time_ms,
            offset,
            ordinal,
            payload: 0,
        }
    }

    fn damage<T>(result: Result<T, ChunkError>) -> &'static str {
        match result.err() {
            Some(ChunkError::Damaged(what)) => what,
            other => panic!("expected damage but got {other:?}"),
        }
    }

    fn seal(mut body: Vec<u8>) -> Vec<u8> {
        let checksum = xxh3_64(&body);
        body.extend_from_slice(&checksum.to_le_bytes());
        body
    }

    /// A slice as it is sealed in production: hashed ids, admitted one after another over a while.
    fn slice(count: u32, lasting_ms: u64) -> Vec<Row> {
        let mut rows: Vec<Row> = (0..count)
            .map(|nth| {
                let time_ms = 1_790_000_000_000 + u64::from(nth) * lasting_ms / u64::from(count);
                let ordinal = 5_000_000_000 + u64::from(nth);
                let offset = 7_000_000_000 + i64::from(nth);
                let id = xxh3_128(&nth.to_le_bytes());
                (id, entry(time_ms.cast_signed(), offset, ordinal))
            })
            .collect();
        rows.sort_unstable_by_key(|row| row.0);
        rows
    }

    /// Calls everything there is to call, with fingerprints that lie anywhere.
    fn use_every_method(bytes: &[u8], wanted: &[Fingerprint]) {
        let Ok(chunk) = Chunk::open(bytes) else {
            return;
        };
        let listed: Vec<Fingerprint> = chunk.fingerprints().collect();
        assert_eq!(listed.len(), chunk.len());
        assert_eq!(chunk.is_empty(), listed.is_empty());
        assert!(chunk.entries().map(|row| row.0).eq(listed.iter().copied()));
        for id in listed.iter().chain(wanted) {
            let found = chunk.get(*id);
            assert!(found.is_none() || listed.contains(id));
        }
    }

    /// Halves from few values, so that fingerprints often share one.
    fn any_half() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..4_u64, Just(u64::MAX), Just(1 << 63)]
    }

    fn any_fingerprint() -> impl Strategy<Value = Fingerprint> {
        (any_half(), any_half()).prop_map(|(high, low)| fingerprint(high, low))
    }

    fn any_signed() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), -3..3_i64, Just(i64::MIN), Just(i64::MAX)]
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        (any_signed(), any_signed(), any_half())
            .prop_map(|(time, offset, ordinal)| entry(time, offset, ordinal))
    }

    fn any_rows() -> impl Strategy<Value = Vec<Row>> {
        let payloads = prop_oneof![Just(0), any::<u64>()];
        (btree_map(any_fingerprint(), any_entry(), 0..100), payloads).prop_map(|(rows, payload)| {
            let row = |(id, entry): (Fingerprint, Entry)| {
                let payload = payload & entry.ordinal;
                (id, Entry { payload, ..entry })
            };
            rows.into_iter().map(row).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_is_found_and_comes_back_entry_by_entry(rows in any_rows()) {
            let chunk = Chunk::open(pack(&rows)).unwrap();
            prop_assert_eq!(chunk.len(), rows.len());
            prop_assert_eq!(chunk.is_empty(), rows.is_empty());
            prop_assert!(chunk.entries().eq(rows.iter().copied()));
            prop_assert!(chunk.fingerprints().eq(rows.iter().map(|row| row.0)));
            for (id, packed) in rows {
                prop_assert_eq!(chunk.get(id), Some(packed));
            }
        }

        #[test]
        fn a_fingerprint_that_was_not_packed_is_not_found(
            rows in any_rows(),
            absent in vec(any_fingerprint(), 1..50),
        ) {
            let chunk = Chunk::open(pack(&rows)).unwrap();
            let neighbours = rows
                .iter()
                .flat_map(|row| [row.0.wrapping_sub(1), row.0.wrapping_add(1)]);
            for id in neighbours.chain(absent) {
                let packed = rows.binary_search_by_key(&id, |row| row.0).ok().map(|at| rows[at].1);
                prop_assert_eq!(chunk.get(id), packed);
            }
        }

        #[test]
        fn a_flipped_bit_in_any_chunk_is_noticed(
            rows in any_rows(),
            bit in any::<prop::sample::Index>(),
        ) {
            let mut bytes = pack(&rows);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Chunk::open(bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in vec(any::<u8>(), 0..2000)) {
            prop_assert!(Chunk::open(bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_behind_a_right_beginning_are_refused(
            bytes in vec(any::<u8>(), 0..2000),
        ) {
            let bytes = [&b"KDC\x01"[..], &bytes].concat();
            prop_assert!(Chunk::open(bytes).is_err());
        }

        #[test]
        fn an_arbitrary_body_with_a_right_checksum_does_no_harm(
            fields in vec(any::<u8>(), 0..400),
            wanted in vec(any_fingerprint(), 1..20),
        ) {
            use_every_method(&seal([&b"KDC\x01"[..], &fields].concat()), &wanted);
        }

        #[test]
        fn arbitrary_columns_of_a_right_length_and_checksum_do_no_harm(
            widths in prop::array::uniform4(0..=64_u8),
            count in 0..200_u32,
            bases in prop::array::uniform4(any_half()),
            filling in vec(any::<u8>(), 1..100),
            wanted in vec(any_fingerprint(), 1..20),
        ) {
            let rows = usize::try_from(count).unwrap();
            let packed: usize = widths
                .iter()
                .map(|width| (rows * usize::from(*width)).div_ceil(8))
                .sum();
            let mut body = b"KDC\x01".to_vec();
            body.extend(widths);
            body.extend(count.to_le_bytes());
            body.extend(bases.iter().flat_map(|base| base.to_le_bytes()));
            body.extend(filling.iter().cycle().take(packed + rows * 8));
            let bytes = seal(body);
            prop_assert_eq!(Chunk::open(&bytes).map(|chunk| chunk.len()), Ok(rows));
            use_every_method(&bytes, &wanted);
        }

        #[test]
        fn a_header_that_lies_about_a_good_chunk_does_no_harm(
            rows in any_rows(),
            at in 4..44_usize,
            lie in any::<u8>(),
        ) {
            let mut body = pack(&rows);
            body.truncate(body.len() - 8);
            body[at] = lie;
            use_every_method(&seal(body), &[0, u128::MAX]);
        }

        #[test]
        fn greater_fingerprints_are_never_in_earlier_chunks(
            one in any::<u128>(),
            other in any::<u128>(),
            chunks in 1..=u32::MAX,
        ) {
            let (less, more) = (one.min(other), one.max(other));
            prop_assert!(chunk_of(less, chunks) <= chunk_of(more, chunks));
            prop_assert!(chunk_of(more, chunks) < chunks);
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_documented_format() {
        let rows = [
            (fingerprint(10, 0xAA), entry(-5, 100, 7)),
            (fingerprint(10, 0xBB), entry(-4, 100, 9)),
            (fingerprint(13, 0xCC), entry(-2, 115, 8)),
        ];
        let mut body = b"KDC\x01\x02\x02\x04\x02\x03\0\0\0".to_vec();
        body.extend(10_u64.to_le_bytes());
        body.extend((-5_i64).to_le_bytes());
        body.extend(100_i64.to_le_bytes());
        body.extend(7_u64.to_le_bytes());
        body.push(0b11_00_00);
        body.push(0b11_01_00);
        body.extend([0b0000_0000, 0b1111]);
        body.push(0b01_10_00);
        body.extend(
            [0xAA_u64, 0xBB, 0xCC]
                .iter()
                .flat_map(|low| low.to_le_bytes()),
        );
        assert_eq!(pack(&rows), seal(body));
    }

    #[test]
    fn nothing_packed_is_an_empty_chunk() {
        let bytes = pack(&[]);
        assert_eq!(bytes.len(), 52);
        let chunk = Chunk::open(bytes).unwrap();
        assert!(chunk.is_empty());
        assert_eq!(chunk.len(), 0);
        assert_eq!(chunk.get(0), None);
        assert_eq!(chunk.fingerprints().count(), 0);
        assert_eq!(chunk.entries().count(), 0);
    }

    #[test]
    fn a_single_entry_needs_no_packed_bits() {
        let only = (fingerprint(3, 4), entry(5, 6, 7));
        let bytes = pack(&[only]);
        assert_eq!(bytes.len(), 60);
        let chunk = Chunk::open(bytes).unwrap();
        assert_eq!(chunk.get(only.0), Some(only.1));
        assert!(chunk.entries().eq([only]));
    }

    #[test]
    fn extreme_values_come_back() {
        let rows = [
            (0, entry(i64::MAX, i64::MIN, 0)),
            (fingerprint(1 << 63, u64::MAX), entry(-1, 0, 1 << 63)),
            (u128::MAX - 1, entry(0, -1, 1)),
            (u128::MAX, entry(i64::MIN, i64::MAX, u64::MAX)),
        ];
        let chunk = Chunk::open(pack(&rows)).unwrap();
        assert!(chunk.entries().eq(rows));
        for (id, packed) in rows {
            assert_eq!(chunk.get(id), Some(packed));
        }
        assert_eq!(chunk.get(1), None);
        assert_eq!(chunk.get(u128::MAX - 2), None);
    }

    #[test]
    fn an_equal_high_half_alone_is_not_enough() {
        let rows: Vec<Row> = (0..500_u64)
            .map(|nth| (fingerprint(42, nth * 2 + 1), entry(1, 2, nth)))
            .collect();
        let chunk = Chunk::open(pack(&rows)).unwrap();
        for (nth, (id, packed)) in rows.iter().enumerate() {
            assert_eq!(chunk.get(*id), Some(*packed), "entry {nth}");
            assert_eq!(chunk.get(*id - 1), None);
            assert_eq!(chunk.get(*id + 1), None);
        }
    }

    #[test]
    fn hostile_ids_that_all_fall_into_one_chunk_are_kept() {
        let rows: Vec<Row> = (0..100_000_u32)
            .map(|nth| (fingerprint(9, u64::from(nth)), entry(i64::from(nth), 0, 0)))
            .collect();
        let chunk = Chunk::open(pack(&rows)).unwrap();
        assert_eq!(chunk.len(), rows.len());
        assert!(chunk.entries().eq(rows.iter().copied()));
        assert_eq!(chunk.get(fingerprint(9, 77_777)), Some(entry(77_777, 0, 0)));
        assert_eq!(chunk.get(fingerprint(9, 100_000)), None);
    }

    #[test]
    fn every_single_flipped_bit_is_noticed() {
        // This is long enough for the checksum to go through all its stages.
        let good = pack(&slice(60, 60_000));
        assert!(good.len() > 1024);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Chunk::open(bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_chunk_cut_off_or_lengthened_anywhere_is_noticed() {
        let good = pack(&slice(128, 60_000));
        for len in 0..good.len() {
            assert!(Chunk::open(&good[..len]).is_err(), "{len} bytes");
        }
        for len in 0..good.len() - 8 {
            let sealed_again = seal(good[..len].to_vec());
            assert!(Chunk::open(sealed_again).is_err(), "{len} bytes");
        }
        assert!(Chunk::open([&good[..], &[0]].concat()).is_err());
        assert!(Chunk::open([&[0], &good[..]].concat()).is_err());
    }

    #[test]
    fn each_refusal_says_what_is_wrong() {
        let good = pack(&slice(10, 60_000));
        let with = |at: usize, byte: u8| {
            let mut body = good[..good.len() - 8].to_vec();
            body[at] = byte;
            Chunk::open(seal(body))
        };
        assert_eq!(damage(Chunk::open([0; 7])), "it is shorter than a checksum");
        assert_eq!(
            damage(Chunk::open(&good[..51])),
            "it is shorter than a header"
        );
        assert_eq!(damage(with(0, b'k')), "it does not begin as a chunk does");
        assert_eq!(damage(with(11, 1)), "its count is beyond the maximum");
        assert_eq!(damage(with(7, 65)), "a column is wider than 64 bits");
        assert_eq!(damage(with(8, 11)), "its length is not that of its columns");

        let mut bytes = good.clone();
        bytes[60] ^= 1;
        let error = Chunk::open(bytes).err().unwrap();
        assert_eq!(error.to_string(), "chunk is damaged: its checksum is wrong");

        assert_eq!(damage(with(3, 2)), "its length is not that of its columns");
        let error = with(3, 3).err().unwrap();
        assert_eq!(error, ChunkError::Version(3));
        assert_eq!(
            error.to_string(),
            "chunk is of version 3, and only versions up to 2 can be read"
        );
    }

    #[test]
    fn the_greatest_count_is_legal_and_the_next_is_not() {
        let claiming = |count: u32| {
            let mut body = pack(&[]);
            body.truncate(HEADER_BYTES);
            body[8..12].copy_from_slice(&count.to_le_bytes());
            damage(Chunk::open(seal(body)))
        };
        let length = "its length is not that of its columns";
        assert_eq!(claiming(1 << 24), length);
        assert_eq!(claiming((1 << 24) + 1), "its count is beyond the maximum");
        assert_eq!(claiming(u32::MAX), "its count is beyond the maximum");
    }

    #[test]
    fn bytes_that_change_after_opening_do_no_harm() {
        /// Shows its bytes once and is empty from then on.
        struct Vanishing(Vec<u8>, std::cell::Cell<bool>);

        impl AsRef<[u8]> for Vanishing {
            fn as_ref(&self) -> &[u8] {
                if self.1.replace(true) { &[] } else { &self.0 }
            }
        }

        let rows = slice(128, 60_000);
        let bytes = Vanishing(pack(&rows), false.into());
        let chunk = Chunk::open(bytes).unwrap();
        assert_eq!(chunk.get(rows[5].0), None);
        assert_eq!(chunk.fingerprints().count(), 128);
        assert_eq!(chunk.entries().count(), 128);
    }

    #[test]
    fn chunks_are_as_many_as_the_entries_fill() {
        assert_eq!(chunks_for(0), 1);
        assert_eq!(chunks_for(256), 1);
        assert_eq!(chunks_for(257), 2);
        assert_eq!(chunks_for(230_000), 899);
        assert_eq!(chunks_for(256 * u64::from(u32::MAX)), u32::MAX);
        assert_eq!(chunks_for(256 * u64::from(u32::MAX) + 1), u32::MAX);
        assert_eq!(chunks_for(u64::MAX), u32::MAX);
    }

    #[test]
    fn the_first_and_the_last_fingerprint_are_in_the_first_and_the_last_chunk() {
        for chunks in [1, 2, 3, 1797, u32::MAX] {
            assert_eq!(chunk_of(0, chunks), 0);
            assert_eq!(chunk_of(u128::MAX, chunks), chunks - 1);
        }
        assert_eq!(chunk_of(fingerprint(1 << 63, 0) - 1, 2), 0);
        assert_eq!(chunk_of(fingerprint(1 << 63, 0), 2), 1);
        assert_eq!(chunk_of(u128::MAX, 0), 0);
    }

    #[test]
    fn a_slice_divided_into_chunks_takes_at_most_23_bytes_an_entry() {
        for lasting_ms in [10_000, 3 * 60 * 60 * 1000] {
            let rows = slice(230_000, lasting_ms);
            let chunks = chunks_for(230_000);
            let sharing_a_chunk =
                |left: &Row, right: &Row| chunk_of(left.0, chunks) == chunk_of(right.0, chunks);
            let packed: Vec<(usize, usize)> = rows
                .chunk_by(sharing_a_chunk)
                .map(|share| (share.len(), pack(share).len()))
                .collect();
            let bytes: usize = packed.iter().map(|share| share.1).sum();
            assert!(bytes <= rows.len() * 23, "{bytes} bytes in all");
            for (count, bytes) in packed {
                assert!(
                    count < 128 || bytes <= count * 23,
                    "{bytes} bytes for {count} entries"
                );
            }
        }
    }
}
