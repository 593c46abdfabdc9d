//! The seen window of one scope: which ids were let through, and whether they still count.
//!
//! Logic over stream time, ordinals and fingerprints; it touches neither Kafka nor the clock, and
//! files only through the [`store`](crate::store), behind slices that are sealed. Four layers,
//! newest first: the `overlay` of the open transaction, the active slice, the closed slices that are
//! still in memory, and the sealed ones behind a `filter` (a bit-sliced Bloom [`ring`]). The life of
//! a transaction:
//!
//! ```text
//!             observe, judge                 merge (committed)
//!   committed ---------------> overlay open -----------------> committed, further on
//!       ^                          |
//!       +--------------------------+  discard (aborted): as if it had never been
//! ```
//!
//! A verdict compares the exact time and ordinal of an id with the window (`limits`). Slices and
//! filter only save work and memory, judged by the committed clock alone (I4).

mod coverage;
mod filter;
mod limits;
mod overlay;
pub mod ring;
pub mod sizing;
mod slice;
mod slices;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::broken::{self, Bug};
use crate::config;
use crate::journal::run::{NO_OFFSET, Run, Since, Terms};
pub use crate::store::Fingerprint;
use crate::store::{Anchor, Checkpoint, Damage, Entry, Loaded, Shelf};
pub use filter::Counts;
use limits::{Clock, Limits};
use overlay::Overlay;
use slices::Slices;

/// How a window spends memory; no verdict depends on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizing {
    /// Ids that the active slice holds in memory before it is closed, about 42 to 84 bytes each.
    pub active_ids: u64,
    /// False positives a look-up that the filter is sized for, over the whole window.
    pub false_positive_rate: f64,
}

impl Default for Sizing {
    fn default() -> Self {
        Self {
            // Fills a hash table of 2^18 buckets to the brim: 9.7 MB.
            active_ids: 229_376,
            false_positive_rate: 0.001,
        }
    }
}

impl From<&config::Store> for Sizing {
    fn from(store: &config::Store) -> Self {
        Self {
            active_ids: store.active_ids,
            false_positive_rate: store.false_positive_rate,
        }
    }
}

impl Sizing {
    /// Ids in closed slices that are not worth sealing: a scope that has fewer costs no file at all.
    fn memory_ids(&self) -> u64 {
        (self.active_ids / 14).min(16_384)
    }
}

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
        /// Its payload is known to be another one than was let through.
        conflicts: bool,
    },
}

/// What the window knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recalled {
    /// [`Verdict::Duplicate`].
    Remembered(Verdict),
    /// It was let through once, and the window is over. Known only while its slice is there, so that there
    /// are more such ids than one hears of.
    Over,
    Unknown,
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

/// Whether a window still remembers an id that was let through (or renewed) so, where its scope has
/// come to this stream time and takes this ordinal next. O(1).
pub fn remembers(
    window: config::Window,
    entry: &Entry,
    stream_time_ms: Option<i64>,
    next_ordinal: u64,
) -> bool {
    let clock = Clock {
        stream_time_ms,
        next_ordinal,
    };
    !entry.is_forgotten() && Limits::new(window).remember(entry, &clock)
}

/// The seen set of one scope.
pub struct SeenWindow {
    limits: Limits,
    committed: Clock,
    slices: Slices,
    overlay: Overlay,
    /// The last runs that were merged or applied.
    reached: Option<Reached>,
    /// All before was forgotten, and no committed run says so yet.
    begins: bool,
    /// Where the group began after a preload, of which runs and store may know no more.
    preloaded: Option<i64>,
    /// From where on it is whole; `None`: from the beginning of its input.
    since: Option<Since>,
    /// The first timestamp that the open transaction took in, where there was none before.
    first_ms: Option<i64>,
}

/// Whether what a store holds can be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Fits,
    /// The journal does not hold what its checkpoint names.
    NotOfThisJournal,
    /// It was held under a window that remembered less, and the journal holds more than it.
    Narrower,
}

/// Where the journal stood after a commit.
#[derive(Debug, Clone, Copy)]
struct Reached {
    /// Journal offset of the first run of the last transaction.
    first_run: i64,
    /// Its last run.
    last_run: Anchor,
    /// Input position committed with it.
    next_offset: i64,
}

impl SeenWindow {
    /// An empty window, which keeps its sealed slices on this shelf.
    pub fn new(limits: config::Window, sizing: Sizing, shelf: Arc<Shelf>) -> Self {
        let limits = Limits::new(limits);
        let committed = Clock::default();
        Self {
            limits,
            committed,
            slices: Slices::new(limits, sizing, shelf),
            overlay: Overlay::new(committed),
            reached: None,
            begins: false,
            preloaded: None,
            since: None,
            first_ms: None,
        }
    }

    /// The window that the shelf holds, with its filter, up to the [`Self::checkpoint`] that it has
    /// then; an empty one where nothing can be trusted. `fits` says whether what is there can be gone on
    /// with. What is found to be damaged on the way is set aside, and the rest is tried
    /// again. Stops early, with whatever it has, when `go_on` says no. O(ids); reads all of them once.
    pub fn load(
        limits: config::Window,
        sizing: Sizing,
        shelf: &Arc<Shelf>,
        fits: impl Fn(&Loaded) -> Fit,
        go_on: impl Fn() -> bool,
    ) -> Self {
        shelf.begin_opening();
        // Each round that finds damage leaves fewer slices.
        for _ in 0..=filter::MAX_PLANES {
            let Some(loaded) = shelf.load() else { break };
            let offset = loaded.checkpoint.anchor.offset;
            match fits(&loaded) {
                Fit::Fits => {}
                Fit::NotOfThisJournal => {
                    drop(loaded);
                    shelf.set_all_aside(&format!(
                        "it ends with the run at journal offset {offset}, which the journal does not hold"
                    ));
                    break;
                }
                Fit::Narrower => {
                    drop(loaded);
                    shelf.remove_all();
                    break;
                }
            }
            let mut window = Self::restore(limits, sizing, Arc::clone(shelf), loaded);
            match window.build_filter(&go_on) {
                Ok(()) => {
                    shelf.loaded();
                    return window;
                }
                Err(damage) => {
                    drop(window);
                    shelf.set_damaged_aside(&damage);
                    if damage.passing {
                        break;
                    }
                }
            }
        }
        shelf.loaded();
        Self::new(limits, sizing, Arc::clone(shelf))
    }

    fn build_filter(&mut self, go_on: impl Fn() -> bool) -> Result<(), Damage> {
        const STEPS: usize = 16;
        while go_on() && self.tend(STEPS)? == STEPS {}
        Ok(())
    }

    /// Until its filter is built, every look-up reads every slice.
    fn restore(limits: config::Window, sizing: Sizing, shelf: Arc<Shelf>, loaded: Loaded) -> Self {
        let limits = Limits::new(limits);
        let Checkpoint {
            anchor,
            next_offset,
            stream_time_ms,
            next_ordinal,
        } = loaded.checkpoint;
        let committed = Clock {
            stream_time_ms,
            next_ordinal,
        };
        let mut window = Self {
            limits,
            committed,
            slices: Slices::restore(limits, sizing, shelf, loaded),
            overlay: Overlay::new(committed),
            reached: Some(Reached {
                first_run: anchor.offset,
                last_run: anchor,
                next_offset,
            }),
            begins: false,
            preloaded: None,
            since: None,
            first_ms: None,
        };
        window.settle();
        window
    }

    /// Takes a record's own timestamp into stream time; to be called before its verdict, and for
    /// every record of the scope whatever becomes of it. `None` (Kafka's -1) leaves stream time
    /// as it is; a timestamp more than `max_ahead` beyond `wall_ms` counts as `wall_ms`. Gives the
    /// timestamp as it counted. O(1).
    pub fn observe(&mut self, timestamp_ms: Option<i64>, wall_ms: i64) -> Option<i64> {
        let counted = timestamp_ms.map(|timestamp| self.limits.clamp_ahead(timestamp, wall_ms));
        let clock = &mut self.overlay.clock;
        if clock.stream_time_ms.is_none() {
            self.first_ms = counted;
        }
        clock.stream_time_ms = clock.stream_time_ms.max(counted);
        counted
    }

    /// Takes over the stream time of its scope, where other windows of it have come further. O(1).
    pub fn advance(&mut self, stream_time_ms: Option<i64>) {
        let clock = &mut self.overlay.clock;
        clock.stream_time_ms = clock.stream_time_ms.max(stream_time_ms);
    }

    /// The verdict on a record with an id. An id that is let through is remembered in the
    /// overlay; with `refresh` a duplicate is renewed there: it takes the stream time of now and
    /// the next ordinal, and keeps its first offset. See [`Self::tend`] for what it costs.
    ///
    /// # Errors
    /// A slice cannot be read, so there is no verdict: the window must be given up and rebuilt from
    /// the journal.
    pub fn judge(&mut self, fingerprint: Fingerprint, offset: i64) -> Result<Verdict, Damage> {
        let now = self.stream_time_ms();
        if let Recalled::Remembered(duplicate) = self.recall(fingerprint, 0, now)? {
            return Ok(duplicate);
        }
        self.let_through(fingerprint, offset, 0);
        Ok(Verdict::Forward)
    }

    /// Remembers an id, whatever is known of it. `payload`: a hash of what is let through, or 0. O(1).
    pub fn let_through(&mut self, fingerprint: Fingerprint, offset: i64, payload: u64) {
        self.overlay.push(fingerprint, offset, payload, true);
    }

    /// What it remembers of an id, and how old that is in ms of stream time. Changes nothing.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn look_up(&mut self, fingerprint: Fingerprint) -> Result<Option<(Entry, u64)>, Damage> {
        let clock = self.overlay.clock;
        let found = self.find(fingerprint)?;
        let entry = found.map(|(entry, _)| entry);
        let remembered = entry.filter(|it| !it.is_forgotten() && self.limits.remember(it, &clock));
        Ok(remembered.map(|entry| (entry, clock.age_ms(entry.time_ms))))
    }

    /// Forgets an id, as part of the open transaction: from its commit on, here and for whoever reads the
    /// journal. It takes an ordinal. O(1).
    pub fn forget_id(&mut self, fingerprint: Fingerprint) {
        self.overlay
            .push(fingerprint, NO_OFFSET, Entry::FORGOTTEN, false);
    }

    /// Whether it remembers an id at this stream time of its scope. Like [`Self::judge`] otherwise, but that an
    /// id that is not remembered is not let through by it. `payload` is a hash of the record's, or 0 where
    /// payloads are not compared; a conflicting one renews nothing.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn recall(
        &mut self,
        fingerprint: Fingerprint,
        payload: u64,
        stream_time_ms: Option<i64>,
    ) -> Result<Recalled, Damage> {
        let own = self.overlay.clock;
        let clock = Clock {
            stream_time_ms: own.stream_time_ms.max(stream_time_ms),
            ..own
        };
        let found = self.find(fingerprint)?;
        let Some((entry, in_overlay)) = found.filter(|(it, _)| !it.is_forgotten()) else {
            return Ok(Recalled::Unknown);
        };
        if !self.limits.remember(&entry, &clock) {
            return Ok(Recalled::Over);
        }
        let conflicts = payload != 0 && entry.payload != 0 && payload != entry.payload;
        if self.limits.refresh && !conflicts {
            self.overlay.clock = clock;
            self.overlay
                .push(fingerprint, entry.offset, entry.payload, in_overlay);
        }
        Ok(Recalled::Remembered(Verdict::Duplicate {
            first_offset: entry.offset,
            age_ms: i64::try_from(clock.age_ms(entry.time_ms)).unwrap_or(i64::MAX),
            in_overlay,
            conflicts,
        }))
    }

    /// Whether the open transaction must write a run: it let ids through, renewed some, or moved
    /// stream time; or all before was forgotten, and no run says so yet.
    pub fn is_dirty(&self) -> bool {
        self.begins || self.overlay.clock != self.committed
    }

    /// What a run tells that was taken in before, of which only its ids are known.
    pub fn note(&mut self, run: &Run) {
        self.preloaded = run.preloaded.or(self.preloaded);
        self.since = run.since;
    }

    /// From where on it is whole; `None`: from the beginning of its input.
    pub fn since(&self) -> Option<Since> {
        self.since
    }

    /// The share of the configured window, from 0 to 1, of which it remembers all that was let through. Below 1,
    /// an id may be let through once more. O(1).
    pub fn coverage(&self) -> f64 {
        coverage::coverage(self.since, &self.limits, &self.committed)
    }

    /// What was let through before now is not known: the group has not begun where its input does, or runs
    /// have expired.
    pub fn begin_here(&mut self) {
        self.whole_only_from(Since {
            ordinal: self.committed.next_ordinal,
            time_ms: self.committed.stream_time_ms,
        });
    }

    /// What was let through before that is not known, as older runs are gone.
    pub fn whole_only_from(&mut self, since: Since) {
        self.since = Some(
            self.since
                .map_or(since, |known| coverage::later(known, since)),
        );
    }

    /// It was kept under terms that remember less, so what these forget is not known; but all that is in the journal
    /// is, where it was read from its first run on (`first`).
    pub fn grown(&mut self, earlier: &Terms, first: Option<Since>) {
        if first.is_some_and(|first| first.ordinal == 0) {
            return;
        }
        let clock = self.committed;
        let (oldest_ms, ordinal) = match self.oldest() {
            Some((oldest_ms, ordinal)) => (Some(oldest_ms), ordinal),
            None => (clock.stream_time_ms, clock.next_ordinal),
        };
        let by_time = earlier.time_ms.zip(clock.stream_time_ms);
        let kept_ms = by_time.map(|(time, now)| now.saturating_sub_unsigned(time));
        let by_count = earlier.ids.filter(|_| earlier.time_ms.is_none());
        let by_count = by_count.map(|ids| clock.next_ordinal.saturating_sub(ids));
        let kept = Since {
            ordinal: by_count.map_or(ordinal, |it| it.min(ordinal)),
            time_ms: oldest_ms.into_iter().chain(kept_ms).min(),
        };
        self.whole_only_from(first.map_or(kept, |first| coverage::earlier(first, kept)));
    }

    /// Forgets all ids, now and for every start to come: the next run says that the seen set begins
    /// with it. Stream time and ordinals go on. Until a run is committed, a start begins where this
    /// one did. O(slices).
    pub fn forget(&mut self) {
        self.slices.forget(&self.committed);
        self.begins = true;
        self.begin_here();
        self.settle();
    }

    /// The overlay as a run, without ids where there are none. `next_offset` is the input
    /// position that is committed with it. O(ids of the transaction).
    pub fn pending_run(&self, identity: u64, next_offset: i64) -> Run {
        Run {
            begins: self.begins,
            preloaded: self.preloaded,
            since: self.pending_since(),
            ..self.overlay.to_run(identity, next_offset)
        }
    }

    /// With the time that was not known before.
    fn pending_since(&self) -> Option<Since> {
        let pending_ms = self.first_ms.or(self.overlay.clock.stream_time_ms);
        self.since.map(|since| Since {
            time_ms: since.time_ms.or(pending_ms),
            ..since
        })
    }

    /// The transaction has committed, and wrote runs: its overlay becomes part of the window, and
    /// slices that are over are freed. `first_run` is the journal offset of its first run, `last_run`
    /// its last one, `next_offset` the input position committed with it. O(ids of the transaction).
    pub fn merge(&mut self, first_run: i64, last_run: Anchor, next_offset: i64) {
        let mut before = self.checkpoint();
        let first_ordinal = self.committed.next_ordinal;
        self.since = self.pending_since();
        self.committed = self.overlay.clock;
        self.begins = false;
        if broken::has(Bug::CheckpointAheadOfIds) {
            self.reached = Some(Reached {
                first_run,
                last_run,
                next_offset,
            });
            before = self.checkpoint();
        }
        let clock = self.committed;
        if clock.next_ordinal != first_ordinal {
            self.slices.cut(first_ordinal, first_run, before, &clock);
        }
        for (fingerprint, entry) in self.overlay.entries() {
            self.slices.insert(fingerprint, entry, &clock);
        }
        self.reached = Some(Reached {
            first_run,
            last_run,
            next_offset,
        });
        self.settle();
    }

    /// The transaction was aborted: all is as if it had never been, stream time and ordinals
    /// included.
    pub fn discard(&mut self) {
        if broken::has(Bug::OverlayKeptAfterAbort) {
            return;
        }
        self.first_ms = None;
        self.overlay.reset(self.committed);
    }

    /// Takes in a committed run that was read back from the journal; what the overlay holds is
    /// discarded. The first run of an empty window may begin with any ordinal, as older runs may
    /// be trimmed; so may one with which the seen set begins. O(ids of the run).
    ///
    /// # Errors
    /// [`BrokenChain`], and nothing is changed, when the run does not follow the one before it.
    pub fn apply(&mut self, run: &Run, read: Anchor) -> Result<(), BrokenChain> {
        let expected = match self.reached {
            Some(_) if !run.begins => self.committed.next_ordinal,
            _ => run.first_ordinal,
        };
        let next = run
            .first_ordinal
            .checked_add(run.fingerprints.len() as u64)
            .filter(|_| run.first_ordinal == expected);
        let Some(next_ordinal) = next else {
            return Err(BrokenChain {
                journal_offset: read.offset,
                expected,
                found: run.first_ordinal,
            });
        };
        let before = self.checkpoint();
        self.note(run);
        if run.begins {
            self.slices.forget(&self.committed);
            self.committed.stream_time_ms = None;
            self.begins = false;
        }
        self.committed = Clock {
            stream_time_ms: self.committed.stream_time_ms.max(run.stream_time_ms),
            next_ordinal,
        };
        let clock = self.committed;
        if !run.fingerprints.is_empty() {
            self.slices
                .cut(run.first_ordinal, read.offset, before, &clock);
        }
        let columns = run.fingerprints.iter().zip(&run.times_ms).zip(&run.offsets);
        let payloads = run.payloads.iter().copied().chain(std::iter::repeat(0));
        for (ordinal, (((fingerprint, time_ms), offset), payload)) in
            (run.first_ordinal..).zip(columns.zip(payloads))
        {
            let entry = Entry {
                time_ms: *time_ms,
                offset: *offset,
                ordinal,
                payload,
            };
            self.slices.insert(*fingerprint, entry, &clock);
        }
        self.reached = Some(Reached {
            first_run: read.offset,
            last_run: read,
            next_offset: run.next_offset,
        });
        self.settle();
        Ok(())
    }

    /// Up to `steps` steps, of about a millisecond each, of the work beside the verdicts: closed
    /// slices go to the store and into the filter, the filter grows, shrinks and is swept. Gives
    /// the steps that were done: fewer than asked for say that nothing is left to do. To be called often; what is put off costs memory, and
    /// look-ups that read in vain, but no verdict.
    ///
    /// With it, a verdict costs a probe of each slice in memory (one or two), and of the filter; an
    /// id that was seen costs one read of the store besides.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn tend(&mut self, steps: usize) -> Result<usize, Damage> {
        self.slices.tend(steps)
    }

    /// Whether a slice is on its way to the store.
    pub fn is_sealing(&self) -> bool {
        self.slices.is_sealing()
    }

    /// The shelf that holds the sealed slices.
    pub fn shelf(&self) -> &Arc<Shelf> {
        self.slices.shelf()
    }

    /// How far it has come; `None` before any run.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let reached = self.reached?;
        Some(Checkpoint {
            anchor: reached.last_run,
            next_offset: reached.next_offset,
            stream_time_ms: self.committed.stream_time_ms,
            next_ordinal: self.committed.next_ordinal,
        })
    }

    /// The oldest time seen that it holds, and an ordinal from which on it holds all; `None` without an
    /// id. O(1).
    pub fn oldest(&self) -> Option<(i64, u64)> {
        self.slices.oldest()
    }

    /// The lowest journal offset that the window still needs: below it the journal may be
    /// trimmed. Never beyond the last run, which carries stream time and the next ordinal even
    /// when all ids are forgotten. `None` before any run.
    pub fn keep_journal_from(&self) -> Option<i64> {
        let last = self.reached?.first_run;
        Some(self.slices.journal_from().unwrap_or(last).min(last))
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

    /// Slices that the store holds.
    pub fn slices_on_disk(&self) -> usize {
        self.slices.on_disk()
    }

    /// Ids that are held in memory beside the filter. O(slices).
    pub fn ids_in_memory(&self) -> u64 {
        self.slices.ids_in_memory()
    }

    /// What the filter has answered since this was called last.
    pub fn take_filter_counts(&mut self) -> Counts {
        self.slices.take_filter_counts()
    }

    /// False positives that a look-up of an id that was not seen is expected to have. O(slices).
    pub fn expected_false_positive_rate(&self) -> f64 {
        self.slices.expected_false_positive_rate()
    }

    /// Memory that the window holds, estimated by what its tables allocated; what the databases of
    /// sealed slices take is counted by the store. O(slices).
    pub fn memory_bytes(&self) -> u64 {
        self.slices.memory_bytes() + self.overlay.memory_bytes() as u64
    }

    /// The newest entry of an id, whatever its age, and whether its first record is in the open
    /// transaction.
    fn find(&mut self, fingerprint: Fingerprint) -> Result<Option<(Entry, bool)>, Damage> {
        if let Some(found) = self.overlay.get(fingerprint) {
            return Ok(Some(found));
        }
        Ok(self.slices.get(fingerprint)?.map(|entry| (entry, false)))
    }

    /// Frees what is over, and opens an empty overlay where the committed state stands.
    fn settle(&mut self) {
        self.slices.age_out(&self.committed);
        self.first_ms = None;
        self.overlay.reset(self.committed);
    }
}
