//! The seen set as the simulated worker uses it: the crate's own [`SeenWindow`], or a plain one that
//! can be copied and compared, for the exhaustive exploration. Both speak in the crate's [`Run`]s.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use kafka_dedup::config::Window;
use kafka_dedup::journal::Run;
use kafka_dedup::store::{Anchor, Entry, Lineage, Shelf, Store};
use kafka_dedup::window::{SeenWindow, Sizing, Verdict, remembers};

/// A journal offset and the checksum of the run that stands there.
pub type Mark = (i64, u64);

/// What a worker asks of a seen set; the words are those of [`SeenWindow`].
pub trait Seen: Sized {
    fn empty(limits: Window) -> Self;
    fn observe(&mut self, timestamp_ms: Option<i64>, wall_ms: i64);
    fn judge(&mut self, fingerprint: u128, offset: i64) -> Verdict;
    fn is_dirty(&self) -> bool;
    fn pending_run(&self, identity: u64, next_offset: i64) -> Run;
    fn merge(&mut self, first_run: i64, last_run: Mark, next_offset: i64);
    fn discard(&mut self);
    /// False where the run does not follow the one before it.
    fn apply(&mut self, run: &Run, read: Mark) -> bool;
    /// The last run taken in, and the input position committed with it.
    fn checkpoint(&self) -> Option<(Mark, i64)>;
    fn keep_journal_from(&self) -> Option<i64>;
}

fn shelf() -> Arc<Shelf> {
    static SHELF: OnceLock<Arc<Shelf>> = OnceLock::new();
    Arc::clone(SHELF.get_or_init(|| Store::in_memory().shelf(Lineage::default())))
}

/// Does all that a worker does between its transactions, so that a run is the same every time.
fn tend(window: &mut SeenWindow) {
    while window.tend(8).expect("slices in memory can be read") > 0 {}
}

impl Seen for SeenWindow {
    fn empty(limits: Window) -> Self {
        // Slices of two ids: closed, sealed, filtered and aged out within a few transactions.
        let sizing = Sizing {
            active_ids: 2,
            false_positive_rate: 0.01,
        };
        Self::new(limits, sizing, shelf())
    }

    fn observe(&mut self, timestamp_ms: Option<i64>, wall_ms: i64) {
        self.observe(timestamp_ms, wall_ms);
    }

    fn judge(&mut self, fingerprint: u128, offset: i64) -> Verdict {
        self.judge(fingerprint, offset)
            .expect("slices in memory can be read")
    }

    fn is_dirty(&self) -> bool {
        self.is_dirty()
    }

    fn pending_run(&self, identity: u64, next_offset: i64) -> Run {
        self.pending_run(identity, next_offset)
    }

    fn merge(&mut self, first_run: i64, (offset, checksum): Mark, next_offset: i64) {
        self.merge(first_run, Anchor { offset, checksum }, next_offset);
        tend(self);
    }

    fn discard(&mut self) {
        self.discard();
    }

    fn apply(&mut self, run: &Run, (offset, checksum): Mark) -> bool {
        let applied = self.apply(run, Anchor { offset, checksum }).is_ok();
        tend(self);
        applied
    }

    fn checkpoint(&self) -> Option<(Mark, i64)> {
        let checkpoint = self.checkpoint()?;
        let Anchor { offset, checksum } = checkpoint.anchor;
        Some(((offset, checksum), checkpoint.next_offset))
    }

    fn keep_journal_from(&self) -> Option<i64> {
        self.keep_journal_from()
    }
}

/// A seen set without slices and filters, which forgets nothing that it need not remember.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Plain {
    limits: Limits,
    committed: Clock,
    seen: BTreeMap<u128, Row>,
    clock: Clock,
    overlay: Vec<(u128, Row, bool)>,
    reached: Option<(Mark, i64, i64)>,
}

type Limits = (Option<i64>, Option<u64>, bool, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Clock {
    stream_time_ms: Option<i64>,
    next_ordinal: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    time_ms: i64,
    offset: i64,
    ordinal: u64,
}

impl Plain {
    fn window(&self) -> Window {
        let (time_ms, ids, refresh, max_ahead_ms) = self.limits;
        Window {
            time_ms,
            ids,
            refresh,
            max_ahead_ms,
        }
    }

    fn push(&mut self, fingerprint: u128, offset: i64, first_here: bool) {
        let row = Row {
            time_ms: self.clock.stream_time_ms.unwrap_or(0),
            offset,
            ordinal: self.clock.next_ordinal,
        };
        self.overlay.push((fingerprint, row, first_here));
        self.clock.next_ordinal += 1;
    }
}

impl Seen for Plain {
    fn empty(limits: Window) -> Self {
        Self {
            limits: (
                limits.time_ms,
                limits.ids,
                limits.refresh,
                limits.max_ahead_ms,
            ),
            committed: Clock::default(),
            seen: BTreeMap::new(),
            clock: Clock::default(),
            overlay: Vec::new(),
            reached: None,
        }
    }

    fn observe(&mut self, timestamp_ms: Option<i64>, wall_ms: i64) {
        let counted = timestamp_ms.map(|at| {
            if at > wall_ms + self.limits.3 {
                wall_ms
            } else {
                at
            }
        });
        self.clock.stream_time_ms = self.clock.stream_time_ms.max(counted);
    }

    fn judge(&mut self, fingerprint: u128, offset: i64) -> Verdict {
        let here = self.overlay.iter().rev().find(|row| row.0 == fingerprint);
        let found = match here {
            Some((_, row, first_here)) => Some((*row, *first_here)),
            None => self.seen.get(&fingerprint).map(|row| (*row, false)),
        };
        let clock = self.clock;
        let found = found.filter(|(row, _)| {
            let entry = Entry {
                time_ms: row.time_ms,
                offset: row.offset,
                ordinal: row.ordinal,
                payload: 0,
            };
            remembers(
                self.window(),
                &entry,
                clock.stream_time_ms,
                clock.next_ordinal,
            )
        });
        let Some((row, in_overlay)) = found else {
            self.push(fingerprint, offset, true);
            return Verdict::Forward;
        };
        if self.limits.2 {
            self.push(fingerprint, row.offset, in_overlay);
        }
        Verdict::Duplicate {
            first_offset: row.offset,
            age_ms: (clock.stream_time_ms.unwrap_or(0) - row.time_ms).max(0),
            in_overlay,
            conflicts: false,
        }
    }

    fn is_dirty(&self) -> bool {
        self.clock != self.committed
    }

    fn pending_run(&self, identity: u64, next_offset: i64) -> Run {
        Run {
            identity,
            stream_time_ms: self.clock.stream_time_ms,
            next_offset,
            first_ordinal: self.committed.next_ordinal,
            fingerprints: self.overlay.iter().map(|row| row.0).collect(),
            times_ms: self.overlay.iter().map(|row| row.1.time_ms).collect(),
            offsets: self.overlay.iter().map(|row| row.1.offset).collect(),
            ..Run::default()
        }
    }

    fn merge(&mut self, first_run: i64, last_run: Mark, next_offset: i64) {
        self.committed = self.clock;
        for (fingerprint, row, _) in std::mem::take(&mut self.overlay) {
            self.seen.insert(fingerprint, row);
        }
        self.reached = Some((last_run, next_offset, first_run));
    }

    fn discard(&mut self) {
        self.clock = self.committed;
        self.overlay.clear();
    }

    fn apply(&mut self, run: &Run, read: Mark) -> bool {
        if self.reached.is_some() && run.first_ordinal != self.committed.next_ordinal {
            return false;
        }
        self.committed = Clock {
            stream_time_ms: self.committed.stream_time_ms.max(run.stream_time_ms),
            next_ordinal: run.first_ordinal + run.fingerprints.len() as u64,
        };
        let columns = run.fingerprints.iter().zip(&run.times_ms).zip(&run.offsets);
        for (ordinal, ((fingerprint, time_ms), offset)) in (run.first_ordinal..).zip(columns) {
            let row = Row {
                time_ms: *time_ms,
                offset: *offset,
                ordinal,
            };
            self.seen.insert(*fingerprint, row);
        }
        self.reached = Some((read, run.next_offset, read.0));
        self.discard();
        true
    }

    fn checkpoint(&self) -> Option<(Mark, i64)> {
        self.reached.map(|(mark, next, _)| (mark, next))
    }

    /// It keeps all of the journal.
    fn keep_journal_from(&self) -> Option<i64> {
        None
    }
}
