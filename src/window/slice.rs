//! A slice in memory: a stretch of the window that is aged out whole. It finds an id and knows its
//! newest entry; it decides neither verdicts nor its own end.

use std::hash::{Hash, Hasher};

use hashbrown::HashMap;

use crate::store::{Entries, Entry, Fingerprint, Span};

/// Entries with consecutive ordinals, each id once.
pub(super) struct Slice {
    journal_from: i64,
    first_ordinal: u64,
    oldest_time_ms: i64,
    newest_time_ms: i64,
    last_ordinal: u64,
    entries: HashMap<Key, Packed, foldhash::fast::RandomState>,
    /// Of the ids whose payload is known; nothing where payloads are not compared.
    payloads: HashMap<Key, u64, foldhash::fast::RandomState>,
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
#[derive(Clone, Copy)]
struct Packed {
    time_ms: i64,
    offset: i64,
    /// Ordinal minus the slice's first.
    ordinal: u32,
}

/// Of an id in the map, beside the map's own byte.
pub(super) const ENTRY_BYTES: usize = size_of::<(Key, Packed)>();

/// The same of an id in the table of payloads.
pub(super) const PAYLOAD_ENTRY_BYTES: usize = size_of::<(Key, u64)>();

impl Slice {
    /// An empty slice with room for so many ids. `first_ordinal` is the end of the slice before it,
    /// `journal_from` the journal offset of the first run that it takes entries from.
    pub fn new(first_ordinal: u64, journal_from: i64, room: usize) -> Self {
        Self {
            journal_from,
            first_ordinal,
            oldest_time_ms: i64::MAX,
            newest_time_ms: i64::MIN,
            last_ordinal: first_ordinal,
            entries: HashMap::with_capacity_and_hasher(room, Default::default()),
            payloads: HashMap::default(),
        }
    }

    /// Adds an entry with a later ordinal. O(1).
    pub fn insert(&mut self, fingerprint: Fingerprint, entry: Entry) {
        self.oldest_time_ms = self.oldest_time_ms.min(entry.time_ms);
        self.newest_time_ms = self.newest_time_ms.max(entry.time_ms);
        self.last_ordinal = entry.ordinal;
        let packed = Packed {
            time_ms: entry.time_ms,
            offset: entry.offset,
            ordinal: u32::try_from(entry.ordinal.saturating_sub(self.first_ordinal))
                .unwrap_or(u32::MAX),
        };
        self.entries.insert(Key(fingerprint.to_ne_bytes()), packed);
        if entry.payload != 0 {
            let key = Key(fingerprint.to_ne_bytes());
            self.payloads.insert(key, entry.payload);
        } else if !self.payloads.is_empty() {
            self.payloads.remove(&Key(fingerprint.to_ne_bytes()));
        }
    }

    /// The newest entry that this slice has of an id. O(1).
    pub fn get(&self, fingerprint: Fingerprint) -> Option<Entry> {
        let key = Key(fingerprint.to_ne_bytes());
        let packed = self.entries.get(&key)?;
        Some(self.unpacked(&key, *packed))
    }

    /// What it spans when it ends before this ordinal.
    pub fn span(&self, end_ordinal: u64) -> Span {
        Span {
            journal_from: self.journal_from,
            first_ordinal: self.first_ordinal,
            end_ordinal,
            newest_time_ms: self.newest_time_ms,
            oldest_time_ms: self.oldest_time_ms,
        }
    }

    pub fn journal_from(&self) -> i64 {
        self.journal_from
    }

    pub fn oldest_time_ms(&self) -> i64 {
        self.oldest_time_ms
    }

    pub fn newest_time_ms(&self) -> i64 {
        self.newest_time_ms
    }

    pub fn last_ordinal(&self) -> u64 {
        self.last_ordinal
    }

    /// How many ordinals it spans.
    pub fn ordinals(&self) -> u64 {
        (self.last_ordinal - self.first_ordinal).saturating_add(1)
    }

    pub fn memory_bytes(&self) -> usize {
        self.entries.allocation_size() + self.payloads.allocation_size()
    }

    fn unpacked(&self, key: &Key, packed: Packed) -> Entry {
        Entry {
            time_ms: packed.time_ms,
            offset: packed.offset,
            ordinal: self.first_ordinal.saturating_add(u64::from(packed.ordinal)),
            payload: self.payloads.get(key).copied().unwrap_or(0),
        }
    }
}

impl Entries for Slice {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn for_each(&self, each: &mut dyn FnMut(Fingerprint, Entry)) {
        for (key, packed) in &self.entries {
            each(u128::from_ne_bytes(key.0), self.unpacked(key, *packed));
        }
    }
}
