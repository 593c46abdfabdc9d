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
mod tests;
