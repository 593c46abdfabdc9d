//! The committed window: slices from oldest to newest. The newest is the active one, which takes
//! new entries; the oldest is dropped whole once nothing in it can be remembered any more.

use std::collections::VecDeque;

use super::Fingerprint;
use super::limits::{Clock, Entry, Limits};
use super::slice::Slice;

/// Slices that one window is cut into.
const CUTS: u64 = 8;
/// More are never cut by choice (I8): where time and count both cut, the active slice grows on.
const MAX_SLICES: usize = 16;

pub(super) struct Slices {
    limits: Limits,
    slices: VecDeque<Slice>,
}

impl Slices {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slices: VecDeque::new(),
        }
    }

    /// Adds a committed entry; entries come in ordinal order. `clock` is the committed one.
    /// O(1), and the dropping of what it ages out.
    pub fn insert(
        &mut self,
        fingerprint: Fingerprint,
        entry: Entry,
        journal_offset: i64,
        clock: &Clock,
    ) {
        if self.active_is_full(&entry) {
            // What is over by now makes room before the count is held against the bound.
            self.age_out(clock);
            if self.slices.len() < MAX_SLICES {
                return self.begin(fingerprint, entry, journal_offset);
            }
        }
        let held = self
            .slices
            .back_mut()
            .is_some_and(|active| active.insert(fingerprint, entry));
        if !held {
            self.begin(fingerprint, entry, journal_offset);
        }
    }

    /// The newest entry of an id: newest slice first, as a renewal leaves its older copies where
    /// they are. O(slices).
    pub fn get(&self, fingerprint: Fingerprint) -> Option<Entry> {
        self.slices
            .iter()
            .rev()
            .find_map(|slice| slice.get(fingerprint))
    }

    /// Drops the slices that are over. From the oldest on, so that no stale copy outlives the
    /// newer one that hides it. O(1) for each: entries need no destructor.
    pub fn age_out(&mut self, clock: &Clock) {
        while let Some(oldest) = self.slices.front()
            && !self.limits.remember(oldest.newest(), clock)
        {
            self.slices.pop_front();
        }
    }

    pub fn oldest(&self) -> Option<&Slice> {
        self.slices.front()
    }

    pub fn count(&self) -> usize {
        self.slices.len()
    }

    pub fn ids(&self) -> u64 {
        self.slices.iter().map(|slice| slice.len() as u64).sum()
    }

    pub fn memory_bytes(&self) -> usize {
        self.slices.iter().map(Slice::memory_bytes).sum()
    }

    fn begin(&mut self, fingerprint: Fingerprint, entry: Entry, journal_offset: i64) {
        self.slices
            .push_back(Slice::new(fingerprint, entry, journal_offset));
    }

    /// Whether the active slice ends before this entry: by its ordinals, or because the entry
    /// lies in another of the stretches that stream time is divided into.
    fn active_is_full(&self, entry: &Entry) -> bool {
        let Some(active) = self.slices.back() else {
            return false;
        };
        let by_count = self
            .limits
            .ids
            .is_some_and(|ids| active.ordinals() >= ids.div_ceil(CUTS));
        by_count
            || self.limits.time_ms.is_some_and(|time| {
                let stretch = i64::try_from(time.div_ceil(CUTS))
                    .unwrap_or(i64::MAX)
                    .max(1);
                active.newest().time_ms.div_euclid(stretch) != entry.time_ms.div_euclid(stretch)
            })
    }
}
