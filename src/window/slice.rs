//! A slice: a stretch of the window that is aged out whole. It finds an id and knows its newest
//! entry; it decides neither verdicts nor its own end.

use std::hash::{Hash, Hasher};

use hashbrown::HashMap;

use super::Fingerprint;
use super::limits::Entry;

/// Entries with consecutive ordinals, held in memory.
pub(super) struct Slice {
    /// The journal from here on rebuilds this slice and all newer ones.
    pub journal_offset: i64,
    first_ordinal: u64,
    newest: Entry,
    entries: HashMap<Key, Packed, foldhash::fast::RandomState>,
}

/// 16 bytes without the alignment of a `u128`, which would pad every entry.
#[derive(PartialEq, Eq)]
struct Key([u8; 16]);

impl Hash for Key {
    /// A fingerprint is a hash already, but its seed can be known: the map's random state keeps
    /// ids that were crafted to collide from piling up in one place.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.0));
    }
}

/// 20 bytes; with its key an id takes 36 (and one of the map).
#[repr(C, packed(4))]
struct Packed {
    time_ms: i64,
    offset: i64,
    /// Ordinal minus the slice's first.
    ordinal: u32,
}

impl Slice {
    /// A slice that begins with this entry.
    pub fn new(fingerprint: Fingerprint, entry: Entry, journal_offset: i64) -> Self {
        let mut slice = Self {
            journal_offset,
            first_ordinal: entry.ordinal,
            newest: entry,
            entries: HashMap::default(),
        };
        slice.put(fingerprint, entry, 0);
        slice
    }

    /// Adds an entry with a later ordinal; false (and nothing done) when the ordinal is too far
    /// from the slice's first to be held. O(1).
    pub fn insert(&mut self, fingerprint: Fingerprint, entry: Entry) -> bool {
        let Ok(ordinal) = u32::try_from(entry.ordinal.saturating_sub(self.first_ordinal)) else {
            return false;
        };
        self.put(fingerprint, entry, ordinal);
        true
    }

    fn put(&mut self, fingerprint: Fingerprint, entry: Entry, ordinal: u32) {
        self.newest = Entry {
            time_ms: self.newest.time_ms.max(entry.time_ms),
            ..entry
        };
        let packed = Packed {
            time_ms: entry.time_ms,
            offset: entry.offset,
            ordinal,
        };
        self.entries.insert(Key(fingerprint.to_ne_bytes()), packed);
    }

    /// The newest entry that this slice has of an id. O(1).
    pub fn get(&self, fingerprint: Fingerprint) -> Option<Entry> {
        let packed = self.entries.get(&Key(fingerprint.to_ne_bytes()))?;
        Some(Entry {
            time_ms: packed.time_ms,
            offset: packed.offset,
            ordinal: self.first_ordinal.saturating_add(u64::from(packed.ordinal)),
        })
    }

    /// The largest time and ordinal in the slice: once these are forgotten, all of it is.
    pub fn newest(&self) -> &Entry {
        &self.newest
    }

    /// How many ordinals it spans.
    pub fn ordinals(&self) -> u64 {
        (self.newest.ordinal - self.first_ordinal).saturating_add(1)
    }

    /// How many ids it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn memory_bytes(&self) -> usize {
        self.entries.allocation_size()
    }
}
