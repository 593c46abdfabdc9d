//! The overlay: what the open transaction let through and renewed, and how far it moved the
//! scope's clock. Dropping it is all that an abort takes (I4).

use hashbrown::HashMap;

use super::limits::Clock;
use crate::journal::run::Run;
use crate::store::{Entry, Fingerprint};

/// Bounded by the transaction (I8): one entry a record at most.
pub(super) struct Overlay {
    /// The scope's clock with this transaction's records taken in.
    pub clock: Clock,
    first_ordinal: u64,
    /// Columns in ordinal order, as the run has them. An id that is renewed is here twice.
    fingerprints: Vec<Fingerprint>,
    times_ms: Vec<i64>,
    offsets: Vec<i64>,
    payloads: Vec<u64>,
    latest: HashMap<Fingerprint, Latest, foldhash::fast::RandomState>,
}

/// The newest entry of an id.
#[derive(Clone, Copy)]
struct Latest {
    index: usize,
    /// The first record itself was in this transaction.
    first_here: bool,
}

impl Overlay {
    pub fn new(committed: Clock) -> Self {
        Self {
            clock: committed,
            first_ordinal: committed.next_ordinal,
            fingerprints: Vec::new(),
            times_ms: Vec::new(),
            offsets: Vec::new(),
            payloads: Vec::new(),
            latest: HashMap::default(),
        }
    }

    /// Empties it for a transaction that begins at this clock; keeps the room it has.
    pub fn reset(&mut self, committed: Clock) {
        self.clock = committed;
        self.first_ordinal = committed.next_ordinal;
        self.fingerprints.clear();
        self.times_ms.clear();
        self.offsets.clear();
        self.payloads.clear();
        self.latest.clear();
    }

    /// The newest entry of an id, and whether its first record is in this transaction. O(1).
    pub fn get(&self, fingerprint: Fingerprint) -> Option<(Entry, bool)> {
        let latest = self.latest.get(&fingerprint)?;
        Some((self.entry(latest.index), latest.first_here))
    }

    /// Takes the next ordinal for an id, at the stream time of now.
    pub fn push(&mut self, fingerprint: Fingerprint, offset: i64, payload: u64, first_here: bool) {
        let index = self.fingerprints.len();
        self.fingerprints.push(fingerprint);
        self.times_ms.push(self.clock.now_ms());
        self.offsets.push(offset);
        self.payloads.push(payload);
        self.latest
            .insert(fingerprint, Latest { index, first_here });
        self.clock.next_ordinal = self.clock.next_ordinal.saturating_add(1);
    }

    /// All entries in ordinal order.
    pub fn entries(&self) -> impl Iterator<Item = (Fingerprint, Entry)> + '_ {
        self.fingerprints
            .iter()
            .enumerate()
            .map(|(index, fingerprint)| (*fingerprint, self.entry(index)))
    }

    pub fn to_run(&self, identity: u64, next_offset: i64) -> Run {
        Run {
            identity,
            stream_time_ms: self.clock.stream_time_ms,
            next_offset,
            first_ordinal: self.first_ordinal,
            fingerprints: self.fingerprints.clone(),
            times_ms: self.times_ms.clone(),
            offsets: self.offsets.clone(),
            payloads: match self.payloads.iter().any(|payload| *payload != 0) {
                true => self.payloads.clone(),
                false => Vec::new(),
            },
            ..Run::default()
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.latest.allocation_size()
            + self.fingerprints.capacity() * size_of::<Fingerprint>()
            + (self.times_ms.capacity() + self.offsets.capacity() + self.payloads.capacity())
                * size_of::<i64>()
    }

    fn entry(&self, index: usize) -> Entry {
        Entry {
            time_ms: self.times_ms[index],
            offset: self.offsets[index],
            ordinal: self.first_ordinal.saturating_add(index as u64),
            payload: self.payloads[index],
        }
    }
}
