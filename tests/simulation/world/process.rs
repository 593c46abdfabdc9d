//! What a process holds: its consumer, its producer, its scopes, what is in recovery, its disk.

use super::*;

/// A partition's seen set as it is on a disk: runs up to a checkpoint, each with its mark.
pub type Saved = Vec<(Mark, Bytes)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Life {
    Down,
    Up,
    Frozen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Idle,
    Open,
    Prepared,
    OffsetsSent,
    /// The commit was answered.
    Committed,
    /// What is open is to be aborted.
    Aborting,
}

/// Why a transaction cannot go on, by its consequence; see `src/commit.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    Abort,
    InDoubt,
    Fenced,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rebalance {
    Assigned(BTreeSet<usize>),
    Revoked(BTreeSet<usize>),
    Lost,
}

/// The consumer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Source {
    pub member: Option<MemberId>,
    pub generation: i32,
    pub owned: BTreeSet<usize>,
    pub noted: VecDeque<Rebalance>,
}

#[derive(Debug, Clone, Hash)]
pub struct Scope<W> {
    pub window: W,
    pub next_offset: i64,
    pub committed_offset: i64,
    pub journal_next: i64,
    pub touched: bool,
    pub must_write_run: bool,
    pub tally: Vec<(i64, Topic)>,
    pub refused: BTreeSet<i64>,
    pub pending_runs: Saved,
    pub trimmed_to: i64,
    /// What the store would hold if all of the window were sealed now.
    pub runs: Saved,
}

/// A seen set that is known, without an overlay; see `Request::known`.
#[derive(Debug, Clone, Hash)]
pub struct Known<W> {
    pub window: W,
    pub journal_next: i64,
    pub runs: Saved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Locate,
    Watermark {
        committed: Option<i64>,
        high: Option<i64>,
    },
    Read {
        committed: Option<i64>,
        input_offset: i64,
        next: i64,
        until: i64,
    },
    Done {
        committed: Option<i64>,
        input_offset: i64,
        next: i64,
    },
}

#[derive(Debug, Clone, Hash)]
pub struct Job<W> {
    pub known: Option<Known<W>>,
    pub window: Option<W>,
    pub runs: Saved,
    pub anchor: Option<Mark>,
    pub may_not_fit: bool,
    pub asked_again: bool,
    pub stage: Stage,
}

#[derive(Debug, Clone, Hash)]
pub struct Process<W> {
    pub life: Life,
    pub instance: u8,
    pub source: Source,
    /// Epoch and the serial of the newest transaction.
    pub producer: Option<(u16, u16)>,
    pub phase: Phase,
    pub failed: Option<Trouble>,
    pub scopes: BTreeMap<usize, Scope<W>>,
    pub recovering: BTreeMap<usize, Job<W>>,
    pub store: BTreeMap<usize, Saved>,
    pub backup: BTreeMap<usize, Saved>,
    pub fences: u8,
    pub leaving: bool,
}

/// A request that its sender has given up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    Produce(Writer, Vec<((Topic, usize), Value)>),
    Offsets(Writer, Option<(MemberId, i32)>, BTreeMap<usize, i64>),
    End(Writer, bool),
    Delete(usize, i64),
}

impl<W: Seen> Scope<W> {
    /// After the commit; gives the tally, which is counted now.
    pub fn publish(&mut self) -> Vec<(i64, Topic)> {
        let runs = std::mem::take(&mut self.pending_runs);
        match (runs.first(), runs.last()) {
            (Some(((first, _), _)), Some((last, _))) => {
                self.window.merge(*first, *last, self.next_offset);
                self.journal_next = last.0 + 1;
                self.must_write_run = false;
            }
            _ => self.window.discard(),
        }
        self.runs.extend(runs);
        self.committed_offset = self.next_offset;
        self.touched = false;
        self.refused = self.refused.split_off(&self.next_offset);
        std::mem::take(&mut self.tally)
    }

    pub fn discard(&mut self) {
        self.window.discard();
        self.next_offset = self.committed_offset;
        self.touched = false;
        self.tally.clear();
        self.pending_runs.clear();
    }
}

impl<W: Seen> Job<W> {
    /// Postponed: it goes on from what it has.
    pub fn locate_again(&mut self, journal_next: i64) {
        self.stage = Stage::Locate;
        self.known = self.window.take().map(|window| Known {
            window,
            journal_next,
            runs: std::mem::take(&mut self.runs),
        });
    }

    /// The store does not fit the journal: without it.
    pub fn begin_anew(&mut self) {
        self.stage = Stage::Locate;
        (self.known, self.window, self.anchor) = (None, None, None);
        self.runs.clear();
    }
}

impl<W: Seen> Process<W> {
    pub fn begin(&mut self) {
        self.phase = Phase::Open;
        if let Some((_, serial)) = &mut self.producer {
            *serial += 1;
        }
    }

    pub fn request_recovery(&mut self, partition: usize, known: Option<Known<W>>) {
        let job = Job {
            known,
            window: None,
            runs: Vec::new(),
            anchor: None,
            may_not_fit: false,
            asked_again: false,
            stage: Stage::Locate,
        };
        self.recovering.insert(partition, job);
    }

    pub fn forget(&mut self, partitions: &BTreeSet<usize>) {
        for partition in partitions {
            self.scopes.remove(partition);
            self.recovering.remove(partition);
            self.source.owned.remove(partition);
        }
    }
}
