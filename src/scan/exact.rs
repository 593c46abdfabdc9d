//! Pass two: counts candidates exactly, in a map of a fixed size.
//!
//! One entry for each candidate and partition. A map that is full gives up the upper half of its
//! span, which a later read counts; what it keeps is complete, because it has been watched from the
//! first record on. Ids that pass one mistook for repetitions end with a count of one.

use std::ops::ControlFlow;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::ages::{Ages, Edges};
use super::filter::Candidates;
use super::log::Sighting;
use super::span::Span;
use crate::exit::Stop;
use crate::identify::Identity;
use crate::window::Fingerprint;

/// Parts of a span that can be given up one by one.
const CHUNKS: u128 = 64;
/// An id that repeats is reported with its position, the most repeated ones first.
const MOST: usize = 5;
/// What the index takes for an entry at most, in bytes: its buckets are a power of two, a seventh
/// of them free, five bytes each.
const INDEX_BYTES: u64 = 12;
const ENTRY_BYTES: u64 = size_of::<Entry>() as u64 + INDEX_BYTES;

/// A candidate in one partition.
struct Entry {
    /// The fingerprint, in halves: as one number it would be aligned to 16 bytes.
    high: u64,
    low: u64,
    /// Stream time when it was seen first, and last.
    first_ms: i64,
    last_ms: i64,
    first_offset: i64,
    count: u64,
    partition: u32,
}

impl Entry {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from(self.high) << 64 | Fingerprint::from(self.low)
    }
}

/// Entries that fit into `bytes`; no more than there are records.
pub fn entries_in(bytes: u64, records: u64) -> usize {
    let entries = (bytes / ENTRY_BYTES)
        .min(records)
        .clamp(1, u64::from(u32::MAX));
    usize::try_from(entries).unwrap_or(usize::MAX)
}

/// What so many entries take at most, in bytes.
pub fn bytes_of(entries: usize) -> u64 {
    entries as u64 * ENTRY_BYTES
}

/// The count of one read, over a span that only shrinks.
pub struct Exact<'a> {
    candidates: &'a Candidates,
    edges: &'a Edges,
    /// What is still counted.
    span: Span,
    chunk_width: u128,
    chunks: Vec<Chunk>,
    capacity: usize,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    /// Stream time of each partition.
    clocks: Vec<i64>,
    too_dense: bool,
}

/// What cannot be told from the entries.
#[derive(Clone)]
struct Chunk {
    ids: u64,
    ages: Ages,
}

/// What a read counted.
pub struct Tally {
    /// The span that was counted; where it is empty, the map was too small even for the least part.
    pub span: Span,
    /// Records with an id in the span.
    pub ids: u64,
    /// Entries that the map had for the span in the end.
    pub entries: usize,
    /// Repetitions within a partition, by partition.
    pub duplicates: Vec<u64>,
    /// Partitions in which an id occurs beyond its first one, over all ids.
    pub elsewhere: u64,
    /// Candidates that occur once after all.
    pub mistaken: u64,
    pub ages: Ages,
    pub most: Vec<Repeated>,
}

/// An id that occurs more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated {
    /// Its records in all partitions.
    pub count: u64,
    /// Index of the partition that had it first, by stream time, and where.
    pub partition: usize,
    pub offset: i64,
    /// Partitions that have it.
    pub partitions: usize,
    pub fingerprint: Fingerprint,
}

impl<'a> Exact<'a> {
    /// A count over `span` in a log of so many partitions.
    ///
    /// # Errors
    /// Usage (64) where the memory is not to be had.
    pub fn new(
        candidates: &'a Candidates,
        edges: &'a Edges,
        span: Span,
        capacity: usize,
        partitions: usize,
    ) -> Result<Self, Stop> {
        let chunk_width = span.width().div_ceil(CHUNKS).max(1);
        let chunks = span.width().div_ceil(chunk_width).max(1);
        let chunk = Chunk {
            ids: 0,
            ages: Ages::new(edges),
        };
        let no_memory = || {
            Stop::usage(format!(
                "{} bytes for counting are not to be had on this machine: give a smaller --memory",
                bytes_of(capacity)
            ))
        };
        let mut entries = Vec::new();
        entries
            .try_reserve_exact(capacity)
            .map_err(|_| no_memory())?;
        let mut index = HashTable::new();
        index
            .try_reserve(capacity, |_| unreachable!("an empty index"))
            .map_err(|_| no_memory())?;
        Ok(Self {
            candidates,
            edges,
            span,
            chunk_width,
            chunks: vec![chunk; usize::try_from(chunks).unwrap_or(1)],
            capacity,
            index,
            entries,
            clocks: vec![i64::MIN; partitions],
            too_dense: false,
        })
    }

    /// Takes a record in; breaks where the map is too small even for the least part of the span.
    /// O(1), apart from the times that the span shrinks, at most 6 in a read.
    pub fn see(&mut self, sighting: &Sighting) -> ControlFlow<()> {
        let Some(clock) = self.clocks.get_mut(sighting.partition) else {
            return ControlFlow::Continue(());
        };
        if let Some(time_ms) = sighting.time_ms {
            *clock = (*clock).max(time_ms);
        }
        let now_ms = *clock;
        let Identity::Id(id) = sighting.identity else {
            return ControlFlow::Continue(());
        };
        while self.span.contains(id) {
            if self.count(id, sighting, now_ms) {
                return ControlFlow::Continue(());
            }
            if self.chunks.len() == 1 {
                self.too_dense = true;
                return ControlFlow::Break(());
            }
            self.shrink();
        }
        ControlFlow::Continue(())
    }

    /// Whether there was room for it.
    fn count(&mut self, id: Fingerprint, sighting: &Sighting, now_ms: i64) -> bool {
        let chunk = (Span::point(id) - self.span.from) / self.chunk_width;
        let chunk = &mut self.chunks[usize::try_from(chunk).unwrap_or(0)];
        if !self.candidates.contain(id) {
            chunk.ids += 1;
            return true;
        }
        let partition = u32::try_from(sighting.partition).unwrap_or(u32::MAX);
        let entries = &mut self.entries;
        let slot = self.index.entry(
            hash(id, partition),
            |at| {
                let entry = &entries[*at as usize];
                entry.fingerprint() == id && entry.partition == partition
            },
            |at| {
                let entry = &entries[*at as usize];
                hash(entry.fingerprint(), entry.partition)
            },
        );
        match slot {
            Slot::Occupied(slot) => {
                let entry = &mut entries[*slot.get() as usize];
                let since_last_ms = now_ms.saturating_sub(entry.last_ms);
                let since_first_ms = now_ms.saturating_sub(entry.first_ms);
                chunk.ages.add(self.edges, since_last_ms, since_first_ms);
                entry.last_ms = now_ms;
                entry.count += 1;
            }
            Slot::Vacant(_) if entries.len() >= self.capacity => return false,
            Slot::Vacant(slot) => {
                // `entries_in` keeps the capacity within 32 bits.
                slot.insert(u32::try_from(entries.len()).unwrap_or(u32::MAX));
                entries.push(Entry {
                    high: (id >> 64) as u64,
                    low: id as u64,
                    first_ms: now_ms,
                    last_ms: now_ms,
                    first_offset: sighting.offset,
                    count: 1,
                    partition,
                });
            }
        }
        chunk.ids += 1;
        true
    }

    /// Gives up the upper half of the chunks.
    fn shrink(&mut self) {
        self.chunks.truncate(self.chunks.len().div_ceil(2));
        let kept = self.chunk_width * self.chunks.len() as u128;
        self.span = self.span.front(kept);
        let span = self.span;
        self.entries
            .retain(|entry| span.contains(entry.fingerprint()));
        self.index.clear();
        let entries = &self.entries;
        for (at, entry) in entries.iter().enumerate() {
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            let rehash = |at: &u32| {
                let entry = &entries[*at as usize];
                hash(entry.fingerprint(), entry.partition)
            };
            self.index
                .insert_unique(hash(entry.fingerprint(), entry.partition), at, rehash);
        }
    }

    /// What was counted. O(entries log entries), in place.
    pub fn finish(self) -> Tally {
        let Self {
            mut entries,
            index,
            mut span,
            ..
        } = self;
        drop(index);
        if self.too_dense {
            span.to = span.from;
            entries.clear();
        }
        let chunks = if self.too_dense {
            &[]
        } else {
            &self.chunks[..]
        };
        let mut tally = Tally {
            span,
            ids: chunks.iter().map(|chunk| chunk.ids).sum(),
            entries: entries.len(),
            duplicates: vec![0; self.clocks.len()],
            elsewhere: 0,
            mistaken: 0,
            ages: Ages::new(self.edges),
            most: Vec::new(),
        };
        chunks
            .iter()
            .for_each(|chunk| tally.ages.merge(&chunk.ages));
        entries
            .sort_unstable_by_key(|entry| (entry.high, entry.low, entry.first_ms, entry.partition));
        for id in entries.chunk_by(|a, b| a.fingerprint() == b.fingerprint()) {
            tally.add(id);
        }
        tally
    }
}

impl Tally {
    /// One id: its entries in all partitions, the earliest first.
    fn add(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Some(duplicates) = self.duplicates.get_mut(entry.partition as usize) {
                *duplicates += entry.count - 1;
            }
        }
        self.elsewhere += entries.len() as u64 - 1;
        let count = entries.iter().map(|entry| entry.count).sum();
        let Some(first) = entries.first().filter(|_| count > 1) else {
            self.mistaken += 1;
            return;
        };
        let repeated = Repeated {
            count,
            partition: first.partition as usize,
            offset: first.first_offset,
            partitions: entries.len(),
            fingerprint: first.fingerprint(),
        };
        keep_most(&mut self.most, repeated);
    }
}

/// Puts an id among the most repeated ones, where it belongs there; of equals those that come
/// first in the topic.
pub fn keep_most(most: &mut Vec<Repeated>, repeated: Repeated) {
    let rank = |id: &Repeated| (std::cmp::Reverse(id.count), id.partition, id.offset);
    let at = most.partition_point(|other| rank(other) < rank(&repeated));
    if at < MOST {
        most.insert(at, repeated);
        most.truncate(MOST);
    }
}

fn hash(id: Fingerprint, partition: u32) -> u64 {
    // The lower half is a hash already; the golden ratio keeps an id's partitions apart.
    (id as u64) ^ u64::from(partition).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
