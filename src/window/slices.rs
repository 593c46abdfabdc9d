//! The committed window, cut into slices from oldest to newest. The newest is the active one, which
//! takes new entries; the oldest is dropped whole once nothing in it can be remembered any more.
//!
//! A slice's life:
//! ```text
//!   active --> closed --> sealed, not in the filter yet --> in the filter --> over
//!   in memory, exact, asked directly                        on disk, asked when the filter says so
//! ```
//! Slices move along this line in order, so the ones in memory are always the newest.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Sizing;
use super::filter::{Counts, Filter, MAX_PLANES};
use super::limits::{Clock, Limits};
use super::slice::Slice;
use crate::broken::{self, Bug};
use crate::store::{
    Abandoned, Checkpoint, Closed, Damage, Entries, Entry, Fingerprint, Link, Loaded, Pending,
    Sealed, Shelf, Span,
};

/// Slices that one window is cut into by time and by count.
pub(super) const CUTS: u64 = 8;
/// More are not cut by time and count (I8): where both cut, the active slice grows on.
const MAX_CUTS: usize = 16;
/// More are not cut for their size either; each needs a plane of the filter, and some planes are
/// being swept.
const MAX_SLICES: usize = MAX_PLANES as usize - 8;
/// A window of more ids than this many active slices hold gets slices that are larger by this factor,
/// so that 100 million ids take about 100 slices. Once, and not by and by: the filter has room for the
/// largest slice in every plane, so that slices of many sizes would waste most of it.
pub(super) const LARGE_WINDOW: u64 = 16;
pub(super) const LARGE_SLICE: u64 = 5;
/// Beyond this many slices they are larger still, by this factor.
pub(super) const MANY_SLICES: usize = MAX_SLICES - 8;
pub(super) const HUGE_SLICE: u64 = 50;
/// Renewals take ordinals without making a slice larger; its ordinals must fit 32 bits.
const MAX_ORDINALS: u64 = 1 << 31;

pub(super) struct Slices {
    limits: Limits,
    sizing: Sizing,
    shelf: Arc<Shelf>,
    filter: Filter,
    /// Closed slices, oldest first.
    kept: VecDeque<Kept>,
    active: Slice,
    sealing: Option<Sealing>,
    /// Slices on the disk that are over. The newest checkpoint on the disk may still name them, so
    /// they stay until a newer one is there: what it names must never be missing.
    retired: Vec<Arc<Sealed>>,
}

/// A closed slice.
pub(super) struct Kept {
    pub span: Span,
    pub checkpoint: Checkpoint,
    /// Until it is in the filter.
    pub ram: Option<Arc<Slice>>,
    pub sealed: Option<Arc<Sealed>>,
    /// Of the filter, once that answers for it.
    pub plane: Option<u32>,
}

/// The slice that is on its way to the disk; one at a time.
struct Sealing {
    first_ordinal: u64,
    pending: Pending,
    /// How many slices were retired when its checkpoint was made: it does not name them.
    retired: usize,
    /// All ids were forgotten since.
    is_forgotten: bool,
}

impl Slices {
    pub fn new(limits: Limits, sizing: Sizing, shelf: Arc<Shelf>) -> Self {
        Self {
            limits,
            sizing,
            shelf,
            filter: Filter::new(sizing.false_positive_rate),
            kept: VecDeque::new(),
            active: Slice::new(0, 0, 0),
            sealing: None,
            retired: Vec::new(),
        }
    }

    /// The slices of a store, up to its checkpoint.
    pub fn restore(limits: Limits, sizing: Sizing, shelf: Arc<Shelf>, loaded: Loaded) -> Self {
        let mut slices = Self::new(limits, sizing, shelf);
        slices.active = Slice::new(
            loaded.checkpoint.next_ordinal,
            loaded.checkpoint.anchor.offset,
            0,
        );
        slices.kept = loaded
            .slices
            .into_iter()
            .map(|sealed| Kept {
                span: *sealed.span(),
                checkpoint: sealed.record().checkpoint,
                ram: None,
                sealed: Some(sealed),
                plane: None,
            })
            .collect();
        slices
    }

    pub fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// Entries from this ordinal on, of runs from this journal offset on, are about to be added:
    /// closes the active slice if it is full. `before` is the committed state without them, `clock`
    /// the one with them. Slices end between transactions, so that a checkpoint is all that a slice
    /// needs to say how far it goes. O(slices).
    pub fn cut(
        &mut self,
        first_ordinal: u64,
        journal_offset: i64,
        before: Option<Checkpoint>,
        clock: &Clock,
    ) {
        if self.active.is_empty() {
            // What came since the slice before it was over at once; the chain has no gap all the same.
            let last = self.kept.back();
            let begin = last.map_or(first_ordinal, |last| last.span.end_ordinal);
            self.active = Slice::new(begin, journal_offset, 0);
        } else if let Some(checkpoint) = before
            && self.active_is_full(clock)
        {
            // The next one is likely to be as large; a table that doubles on the way costs more.
            let next = Slice::new(first_ordinal, journal_offset, self.active.len());
            let closed = std::mem::replace(&mut self.active, next);
            self.kept.push_back(Kept {
                span: closed.span(first_ordinal),
                checkpoint,
                ram: Some(Arc::new(closed)),
                sealed: None,
                plane: None,
            });
        }
    }

    /// Adds a committed entry; entries come in ordinal order. What is over by `clock`, the committed
    /// one, is not added: older copies of it, which it would hide, are over as well. Not so those from before the first
    /// timestamp, which count as seen at 0, where that timestamp was less. O(1).
    pub fn insert(&mut self, fingerprint: Fingerprint, entry: Entry, clock: &Clock) {
        if entry.time_ms < 0 || self.limits.remember(&entry, clock) {
            self.active.insert(fingerprint, entry);
        }
    }

    /// The newest entry of an id: newest slice first, as a renewal leaves its older copies where
    /// they are. O(slices in memory) and one probe of the filter; a slice that the filter names
    /// costs one read.
    ///
    /// # Errors
    /// A slice cannot be read.
    pub fn get(&mut self, fingerprint: Fingerprint) -> Result<Option<Entry>, Damage> {
        if let Some(entry) = self.active.get(fingerprint) {
            return Ok(Some(entry));
        }
        let mut planes = None;
        for kept in self.kept.iter().rev() {
            let found = match (&kept.ram, kept.plane, &kept.sealed) {
                (Some(ram), ..) => ram.get(fingerprint),
                (None, Some(plane), Some(sealed)) => {
                    let planes = *planes.get_or_insert_with(|| self.filter.check(fingerprint));
                    if planes & (1 << plane) == 0 {
                        continue;
                    }
                    let found = sealed.get(fingerprint)?;
                    if found.is_none() {
                        self.filter.note_false_positive();
                    }
                    found
                }
                // Not in the filter yet: there is none to ask.
                (None, None, Some(sealed)) => sealed.get(fingerprint)?,
                (None, _, None) => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Drops the slices that are over. From the oldest on, so that no stale copy outlives the
    /// newer one that hides it. O(1) for each.
    pub fn age_out(&mut self, clock: &Clock) {
        while let Some(oldest) = self.kept.front()
            && self.is_over(
                oldest.span.newest_time_ms,
                oldest.span.end_ordinal - 1,
                clock,
            )
        {
            self.drop_oldest();
        }
        if self.kept.is_empty() {
            let (time_ms, ordinal) = (self.active.newest_time_ms(), self.active.last_ordinal());
            if !self.active.is_empty() && self.is_over(time_ms, ordinal, clock) {
                self.active = Slice::new(clock.next_ordinal, self.active.journal_from(), 0);
            }
        }
        self.remove_unnamed();
    }

    /// Drops all slices, the active one included, and what a checkpoint names goes as well. Ordinals may begin anew, so
    /// nothing may be left that is known by them: of the filter's work, of files, or on its way to the disk. O(slices).
    pub fn forget(&mut self, clock: &Clock) {
        self.filter = Filter::new(self.sizing.false_positive_rate);
        let sealed = self.kept.drain(..).filter_map(|kept| kept.sealed);
        for sealed in self.retired.drain(..).chain(sealed) {
            self.shelf.retire(&sealed);
        }
        if let Some(sealing) = &mut self.sealing {
            sealing.is_forgotten = true;
        }
        self.active = Slice::new(clock.next_ordinal, self.active.journal_from(), 0);
    }

    fn drop_oldest(&mut self) {
        let Some(over) = self.kept.pop_front() else {
            return;
        };
        if let Some(plane) = over.plane {
            self.filter.release(plane);
        }
        self.retired
            .extend(over.sealed.filter(|sealed| sealed.dir().is_some()));
    }

    fn remove_unnamed(&mut self) {
        let names = self.sealing.is_some() || self.kept.iter().any(|kept| kept.sealed.is_some());
        if !names && !self.retired.is_empty() {
            // No checkpoint that names them is of use any more.
            self.remove_retired(self.retired.len());
        }
    }

    /// Up to `steps` steps of the work beside the verdicts: slices are handed to the sealer and
    /// taken back, and the filter is kept up to date. Gives the steps that were done.
    ///
    /// # Errors
    /// A slice cannot be read.
    pub fn tend(&mut self, steps: usize) -> Result<usize, Damage> {
        self.take_sealed();
        self.seal_next();
        for done in 0..steps {
            if !self.filter.step(&mut self.kept)? {
                return Ok(done);
            }
        }
        Ok(steps)
    }

    /// Whether a slice is at the sealer's.
    pub fn is_sealing(&self) -> bool {
        self.sealing.is_some()
    }

    /// The journal offset of the first run that a slice needs; `None` without any entry.
    pub fn journal_from(&self) -> Option<i64> {
        match self.kept.front() {
            Some(oldest) => Some(oldest.span.journal_from),
            None => (!self.active.is_empty()).then(|| self.active.journal_from()),
        }
    }

    /// The oldest time seen of all entries, and an ordinal from which on none is missing.
    pub fn oldest(&self) -> Option<(i64, u64)> {
        match self.kept.front() {
            Some(oldest) => Some((oldest.span.oldest_time_ms, oldest.span.end_ordinal)),
            None => (!self.active.is_empty())
                .then(|| (self.active.oldest_time_ms(), self.active.last_ordinal())),
        }
    }

    /// How many slices there are, the active one included if it holds anything.
    pub fn count(&self) -> usize {
        self.kept.len() + usize::from(!self.active.is_empty())
    }

    /// Slices that are on the disk.
    pub fn on_disk(&self) -> usize {
        self.kept.iter().filter(|kept| is_on_disk(kept)).count()
    }

    /// Ids in all slices, renewed ones once a slice. O(slices).
    pub fn ids(&self) -> u64 {
        self.kept.iter().map(ids_of).sum::<u64>() + self.active.len() as u64
    }

    /// Ids that are held in memory, exactly or packed. O(slices).
    pub fn ids_in_memory(&self) -> u64 {
        let in_memory = |kept: &&Kept| kept.ram.is_some() || !is_on_disk(kept);
        let kept: u64 = self.kept.iter().filter(in_memory).map(ids_of).sum();
        kept + self.active.len() as u64
    }

    /// Memory of slices and filter; what sled holds is counted by the store. O(slices).
    pub fn memory_bytes(&self) -> u64 {
        let kept = self.kept.iter().map(|kept| {
            let ram = kept.ram.as_ref().map_or(0, |ram| ram.memory_bytes() as u64);
            ram + kept
                .sealed
                .as_ref()
                .map_or(0, |sealed| sealed.memory_bytes())
        });
        kept.sum::<u64>() + self.active.memory_bytes() as u64 + self.filter.memory_bytes()
    }

    #[cfg(test)]
    pub fn filter_memory_bytes(&self) -> u64 {
        self.filter.memory_bytes()
    }

    pub fn take_filter_counts(&mut self) -> Counts {
        self.filter.take_counts()
    }

    pub fn expected_false_positive_rate(&self) -> f64 {
        self.filter.expected_false_positive_rate(&self.kept)
    }

    fn is_over(&self, newest_time_ms: i64, last_ordinal: u64, clock: &Clock) -> bool {
        let newest = Entry {
            time_ms: newest_time_ms,
            ordinal: last_ordinal,
            ..Entry::default()
        };
        if broken::has(Bug::SliceDroppedEarly)
            && let Some(time) = self.limits.time_ms
        {
            return clock.age_ms(newest_time_ms) > time / 2;
        }
        !self.limits.remember(&newest, clock)
    }

    /// Whether the active slice ends here: by its size, by its ordinals, or because stream time has
    /// come to another of the stretches that it is divided into.
    fn active_is_full(&self, clock: &Clock) -> bool {
        let slices = self.count();
        if slices < MAX_SLICES && self.active.len() as u64 >= self.active_bound() {
            return true;
        }
        if self.active.ordinals() >= MAX_ORDINALS {
            return true;
        }
        let by_count = self
            .limits
            .ids
            .is_some_and(|ids| self.active.ordinals() >= ids.div_ceil(CUTS));
        let by_time = || {
            self.limits.time_ms.is_some_and(|time| {
                let stretch = i64::try_from(time.div_ceil(CUTS))
                    .unwrap_or(i64::MAX)
                    .max(1);
                let of = |time_ms: i64| time_ms.div_euclid(stretch);
                of(self.active.newest_time_ms()) != of(clock.now_ms())
            })
        };
        slices < MAX_CUTS && (by_count || by_time())
    }

    /// Ids at which the active slice is closed: more in very large windows, so that they are not cut
    /// into more slices than the filter has planes for.
    fn active_bound(&self) -> u64 {
        let ids = self.sizing.active_ids.max(1);
        let held: u64 = self.kept.iter().map(ids_of).sum();
        if self.kept.len() >= MANY_SLICES {
            ids.saturating_mul(HUGE_SLICE)
        } else if held > ids.saturating_mul(LARGE_WINDOW) {
            ids.saturating_mul(LARGE_SLICE)
        } else {
            ids
        }
    }

    /// Takes back what the sealer has done.
    fn take_sealed(&mut self) {
        let Some(sealing) = &self.sealing else { return };
        let done = sealing.pending.poll();
        if matches!(done, Ok(None)) {
            return;
        }
        let Some(sealing) = self.sealing.take() else {
            return;
        };
        if sealing.is_forgotten {
            if let Ok(Some(sealed)) = done {
                // Before another of that name is handed over.
                self.shelf.retire(&sealed);
            }
            return;
        }
        let sealed = match done {
            Ok(Some(sealed)) => Arc::new(sealed),
            Ok(None) => return,
            Err(Abandoned) => {
                let at = self
                    .kept
                    .iter()
                    .position(|kept| kept.span.first_ordinal == sealing.first_ordinal);
                let Some(closed) = at.and_then(|at| self.closed(at)) else {
                    return;
                };
                Arc::new(self.shelf.seal_in_memory(&closed))
            }
        };
        let found = self
            .kept
            .iter_mut()
            .find(|kept| kept.span.first_ordinal == sealing.first_ordinal);
        match found {
            Some(kept) if sealed.dir().is_some() => {
                kept.sealed = Some(sealed);
                self.remove_retired(sealing.retired);
            }
            // In memory, and in memory before: the one that the filter knows is as good.
            Some(kept) => {
                kept.sealed.get_or_insert(sealed);
            }
            None => self
                .retired
                .extend(Some(sealed).filter(|sealed| sealed.dir().is_some())),
        }
    }

    /// Hands the next slice to the sealer: the oldest one that is only in memory, if there is more
    /// there than is worth it, or one that could not be written before.
    fn seal_next(&mut self) {
        if self.sealing.is_some() {
            return;
        }
        let unsealed = self.kept.iter().position(|kept| kept.sealed.is_none());
        let ids: u64 = unsealed.map_or(0, |at| self.kept.range(at..).map(ids_of).sum());
        let due = unsealed.filter(|_| ids > self.sizing.memory_ids());
        let off_disk = self.kept.iter().position(|kept| !is_on_disk(kept));
        let again = off_disk.filter(|at| self.kept[*at].sealed.is_some());
        // The order is kept on the disk as well: a slice there needs those before it.
        let next = match again {
            Some(at) if self.shelf.wants_disk() => Some(at),
            _ => due,
        };
        let Some(closed) = next.and_then(|at| self.closed(at)) else {
            return;
        };
        self.sealing = Some(Sealing {
            first_ordinal: closed.span.first_ordinal,
            pending: self.shelf.seal(closed),
            retired: self.retired.len(),
            is_forgotten: false,
        });
    }

    /// A closed slice as the sealer wants it.
    fn closed(&self, at: usize) -> Option<Closed> {
        let chain: Option<Vec<Link>> = self
            .kept
            .range(..at)
            .map(|kept| {
                let sealed = kept.sealed.as_ref().filter(|_| is_on_disk(kept))?;
                Some(sealed.record().link(sealed.seal()))
            })
            .collect();
        let kept = &self.kept[at];
        let entries: Arc<dyn Entries> = match (&kept.ram, &kept.sealed) {
            (Some(ram), _) => Arc::clone(ram) as Arc<dyn Entries>,
            (None, Some(sealed)) => Arc::clone(sealed) as Arc<dyn Entries>,
            (None, None) => return None,
        };
        Some(Closed {
            span: kept.span,
            checkpoint: kept.checkpoint,
            entries,
            chain,
        })
    }

    fn remove_retired(&mut self, count: usize) {
        let count = count.min(self.retired.len());
        for sealed in self.retired.drain(..count) {
            self.shelf.retire(&sealed);
        }
    }
}

fn is_on_disk(kept: &Kept) -> bool {
    kept.sealed
        .as_ref()
        .is_some_and(|sealed| sealed.dir().is_some())
}

fn ids_of(kept: &Kept) -> u64 {
    match (&kept.sealed, &kept.ram) {
        (Some(sealed), _) => sealed.len(),
        (None, Some(ram)) => ram.len() as u64,
        (None, None) => 0,
    }
}
