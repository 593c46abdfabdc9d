//! The seen window of one scope: which ids were let through, and whether they still count.
//!
//! Pure logic over stream time, ordinals and fingerprints; it touches neither Kafka nor files nor
//! the clock. Three layers, newest first: the `overlay` of the open transaction, the active
//! slice, and the older slices (`slices`). The life of a transaction:
//!
//! ```text
//!             observe, judge                 merge (committed)
//!   committed ---------------> overlay open -----------------> committed, further on
//!       ^                          |
//!       +--------------------------+  discard (aborted): as if it had never been
//! ```
//!
//! A verdict compares the exact time and ordinal of an id with the window (`limits`). Slices
//! only decide when memory is freed, judged by the committed clock alone (I4).

mod limits;
mod overlay;
mod slice;
mod slices;
#[cfg(test)]
mod tests;

use crate::config;
use crate::journal::run::Run;
use limits::{Clock, Entry, Limits};
use overlay::Overlay;
use slices::Slices;

/// xxh3_128 of an id; two ids are the same when their fingerprints are.
pub type Fingerprint = u128;

/// What the window says of a record with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen within the window: let it through. It is remembered from now on.
    Forward,
    /// Seen within the window.
    Duplicate {
        /// Input offset of the first record.
        first_offset: i64,
        /// Stream time since the id was let through (or last renewed), in ms.
        age_ms: i64,
        /// The first record is in the transaction that is open now.
        in_overlay: bool,
    },
}

/// A run that does not continue the runs before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the run at journal offset {journal_offset} begins with ordinal {found}, but {expected} comes \
     next: a run is missing or repeated; rebuild this seen set from the beginning of the journal"
)]
pub struct BrokenChain {
    pub journal_offset: i64,
    pub expected: u64,
    pub found: u64,
}

/// The seen set of one scope.
pub struct SeenWindow {
    limits: Limits,
    committed: Clock,
    slices: Slices,
    overlay: Overlay,
    /// Journal offset of the last run that was merged or applied.
    last_run: Option<i64>,
}

impl SeenWindow {
    pub fn new(limits: config::Window) -> Self {
        let limits = Limits::new(limits);
        let committed = Clock::default();
        Self {
            limits,
            committed,
            slices: Slices::new(limits),
            overlay: Overlay::new(committed),
            last_run: None,
        }
    }

    /// Takes a record's own timestamp into stream time; to be called before its verdict, and for
    /// every record of the scope whatever becomes of it. `None` (Kafka's -1) leaves stream time
    /// as it is; a timestamp more than `max_ahead` beyond `wall_ms` counts as `wall_ms`. O(1).
    pub fn observe(&mut self, timestamp_ms: Option<i64>, wall_ms: i64) {
        let counted = timestamp_ms.map(|timestamp| self.limits.clamp_ahead(timestamp, wall_ms));
        let clock = &mut self.overlay.clock;
        clock.stream_time_ms = clock.stream_time_ms.max(counted);
    }

    /// The verdict on a record with an id. An id that is let through is remembered in the
    /// overlay; with `refresh` a duplicate is renewed there: it takes the stream time of now and
    /// the next ordinal, and keeps its first offset. O(slices).
    pub fn judge(&mut self, fingerprint: Fingerprint, offset: i64) -> Verdict {
        let clock = self.overlay.clock;
        let seen = self
            .find(fingerprint)
            .filter(|(entry, _)| self.limits.remember(entry, &clock));
        let Some((entry, in_overlay)) = seen else {
            self.overlay.push(fingerprint, offset, true);
            return Verdict::Forward;
        };
        if self.limits.refresh {
            self.overlay.push(fingerprint, entry.offset, in_overlay);
        }
        Verdict::Duplicate {
            first_offset: entry.offset,
            age_ms: i64::try_from(clock.age_ms(entry.time_ms)).unwrap_or(i64::MAX),
            in_overlay,
        }
    }

    /// Whether the open transaction must write a run: it let ids through, renewed some, or moved
    /// stream time.
    pub fn is_dirty(&self) -> bool {
        self.overlay.clock != self.committed
    }

    /// The overlay as a run, without ids where there are none. `next_offset` is the input
    /// position that is committed with it. O(ids of the transaction).
    pub fn pending_run(&self, identity: u64, next_offset: i64) -> Run {
        self.overlay.to_run(identity, next_offset)
    }

    /// The transaction has committed, and wrote a run: its overlay becomes part of the window, and
    /// slices that are over are freed. `journal_offset` is that of its first run. O(ids of the
    /// transaction).
    pub fn merge(&mut self, journal_offset: i64) {
        self.committed = self.overlay.clock;
        self.last_run = Some(journal_offset);
        for (fingerprint, entry) in self.overlay.entries() {
            self.slices
                .insert(fingerprint, entry, journal_offset, &self.committed);
        }
        self.settle();
    }

    /// The transaction was aborted: all is as if it had never been, stream time and ordinals
    /// included.
    pub fn discard(&mut self) {
        self.overlay.reset(self.committed);
    }

    /// Takes in a committed run that was read back from the journal; what the overlay holds is
    /// discarded. The first run of an empty window may begin with any ordinal, as older runs may
    /// be trimmed. O(ids of the run).
    ///
    /// # Errors
    /// [`BrokenChain`], and nothing is changed, when the run does not follow the one before it.
    pub fn apply(&mut self, run: &Run, journal_offset: i64) -> Result<(), BrokenChain> {
        let expected = match self.last_run {
            Some(_) => self.committed.next_ordinal,
            None => run.first_ordinal,
        };
        let next = run
            .first_ordinal
            .checked_add(run.fingerprints.len() as u64)
            .filter(|_| run.first_ordinal == expected);
        let Some(next_ordinal) = next else {
            return Err(BrokenChain {
                journal_offset,
                expected,
                found: run.first_ordinal,
            });
        };
        self.committed = Clock {
            stream_time_ms: self.committed.stream_time_ms.max(run.stream_time_ms),
            next_ordinal,
        };
        self.last_run = Some(journal_offset);
        let columns = run.fingerprints.iter().zip(&run.times_ms).zip(&run.offsets);
        for (ordinal, ((fingerprint, time_ms), offset)) in (run.first_ordinal..).zip(columns) {
            let entry = Entry {
                time_ms: *time_ms,
                offset: *offset,
                ordinal,
            };
            self.slices
                .insert(*fingerprint, entry, journal_offset, &self.committed);
        }
        self.settle();
        Ok(())
    }

    /// The lowest journal offset that the window still needs: below it the journal may be
    /// trimmed. Never beyond the last run, which carries stream time and the next ordinal even
    /// when all ids are forgotten. `None` before any run.
    pub fn keep_journal_from(&self) -> Option<i64> {
        let last = self.last_run?;
        let oldest = self.slices.oldest().map(|slice| slice.journal_offset);
        Some(oldest.unwrap_or(last).min(last))
    }

    /// Stream time in ms, with the open transaction's records taken in; `None` until a record had
    /// a timestamp.
    pub fn stream_time_ms(&self) -> Option<i64> {
        self.overlay.clock.stream_time_ms
    }

    /// Entries that the slices hold: committed ids, and those not freed yet. O(slices).
    pub fn ids(&self) -> u64 {
        self.slices.ids()
    }

    pub fn slices(&self) -> usize {
        self.slices.count()
    }

    /// The ordinal that the next letting-through or renewal takes, the open transaction's taken in.
    pub fn next_ordinal(&self) -> u64 {
        self.overlay.clock.next_ordinal
    }

    /// Memory that the window holds, estimated by what its tables allocated. O(slices).
    pub fn memory_bytes(&self) -> u64 {
        (self.slices.memory_bytes() + self.overlay.memory_bytes()) as u64
    }

    /// The newest entry of an id, whatever its age, and whether its first record is in the open
    /// transaction.
    fn find(&self, fingerprint: Fingerprint) -> Option<(Entry, bool)> {
        self.overlay
            .get(fingerprint)
            .or_else(|| self.slices.get(fingerprint).map(|entry| (entry, false)))
    }

    /// Frees what is over, and opens an empty overlay where the committed state stands.
    fn settle(&mut self) {
        self.slices.age_out(&self.committed);
        self.overlay.reset(self.committed);
    }
}
