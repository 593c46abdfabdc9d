//! The world: processes with their workers, the network between them and the broker, and what may go
//! wrong. One [`Action`] is one step of one of them; a schedule is a list of actions, and the same list
//! always gives the same world.
//!
//! The worker's steps are those of `src/commit.rs`, `src/worker` and `src/recovery`, by their names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use kafka_dedup::config::Window;
use kafka_dedup::journal::{Run, run};
use kafka_dedup::window::Verdict;

use crate::broker::{Broker, Bytes, MemberId, Next, Refused, State, Target, Topic, Value, Writer};
use crate::seen::{Mark, Seen};
use crate::truth::{Input, Truth, fingerprint};

/// What becomes of a request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    Answered,
    /// It is carried out, and the sender hears nothing.
    AnswerLost,
    /// The sender gives up; it is carried out later, or never.
    Late,
    /// Refused with an error after which the transaction can be aborted.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    // A worker's loop.
    TakeOver(usize, Fate),
    HandleRebalance(usize),
    Judge(usize, usize, Fate),
    Prepare(usize, Fate),
    SendOffsets(usize, Fate),
    Commit(usize, Fate),
    Publish(usize),
    Abort(usize, Fate),
    Activate(usize, usize),
    PinStart(usize),
    Seal(usize, usize),
    Trim(usize, usize),
    Damage(usize, usize),
    // Its recovery thread.
    Locate(usize, usize),
    Watermark(usize, usize),
    Read(usize, usize),
    // Its consumer's background thread.
    Heartbeat(usize),
    // The broker and the network.
    Mark(u8, Target),
    Deliver(usize),
    CompleteRebalance(usize),
    Append,
    Clock(i64),
    // Faults.
    Crash(usize),
    Restart(usize),
    Leave(usize),
    Freeze(usize),
    Thaw(usize),
    ExpireSession(MemberId),
    TimeOut(u8),
    LoseStore(usize),
    BackUpStore(usize),
    OldStore(usize),
    CopyStore(usize, usize),
    ExpireJournal(usize),
}

/// A deliberate defect of the protocol; each must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    StoreBeforeCommit,
    OverlayKeptAfterAbort,
    OffsetsOutsideTransaction,
    NoGeneration,
    RestoreToLastStableOffset,
    ProducerKeptAfterUnknownCommit,
    WatermarkBeforeCommittedOffset,
    NoRestore,
    PublishBeforeCommit,
    PositionKeptAfterAbort,
    NoRunForStreamTime,
    UnstableOffset,
    TrimToLastRun,
    /// What librdkafka calls abortable, and is not certain.
    UnansweredOffsetsAborted,
    IdleJournalForgotten,
    /// Stops where another owner has committed offset and runs meanwhile.
    ContradictionNotConfirmed,
}

impl Bug {
    pub const ALL: [Self; 16] = [
        Self::StoreBeforeCommit,
        Self::OverlayKeptAfterAbort,
        Self::OffsetsOutsideTransaction,
        Self::NoGeneration,
        Self::RestoreToLastStableOffset,
        Self::ProducerKeptAfterUnknownCommit,
        Self::WatermarkBeforeCommittedOffset,
        Self::NoRestore,
        Self::PublishBeforeCommit,
        Self::PositionKeptAfterAbort,
        Self::NoRunForStreamTime,
        Self::UnstableOffset,
        Self::TrimToLastRun,
        Self::UnansweredOffsetsAborted,
        Self::IdleJournalForgotten,
        Self::ContradictionNotConfirmed,
    ];
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub limits: Window,
    /// The instance of each process; two with the same are twins.
    pub instances: Vec<u8>,
    pub partitions: usize,
    pub cooperative: bool,
    pub static_membership: bool,
    /// `input.start: latest`.
    pub latest: bool,
    /// `journal.retention`: the journal may expire, and no process ends.
    pub retention: bool,
    pub max_ids_per_run: usize,
    pub bug: Option<Bug>,
}

/// A partition's seen set as it is on a disk: runs up to a checkpoint, each with its mark.
type Saved = Vec<(Mark, Bytes)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Life {
    Down,
    Up,
    Frozen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
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
enum Trouble {
    Abort,
    InDoubt,
    Fenced,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Rebalance {
    Assigned(BTreeSet<usize>),
    Revoked(BTreeSet<usize>),
    Lost,
}

/// The consumer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Source {
    member: Option<MemberId>,
    generation: i32,
    owned: BTreeSet<usize>,
    noted: VecDeque<Rebalance>,
}

#[derive(Debug, Clone, Hash)]
struct Scope<W> {
    window: W,
    next_offset: i64,
    committed_offset: i64,
    journal_next: i64,
    touched: bool,
    must_write_run: bool,
    tally: Vec<(i64, Topic)>,
    refused: BTreeSet<i64>,
    pending_runs: Saved,
    trimmed_to: i64,
    /// What the store would hold if all of the window were sealed now.
    runs: Saved,
}

/// A seen set that is known, without an overlay; see `Request::known`.
#[derive(Debug, Clone, Hash)]
struct Known<W> {
    window: W,
    journal_next: i64,
    runs: Saved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
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
struct Job<W> {
    known: Option<Known<W>>,
    window: Option<W>,
    runs: Saved,
    anchor: Option<Mark>,
    may_not_fit: bool,
    asked_again: bool,
    stage: Stage,
}

#[derive(Debug, Clone, Hash)]
struct Process<W> {
    life: Life,
    instance: u8,
    source: Source,
    /// Epoch and the serial of the newest transaction.
    producer: Option<(u16, u16)>,
    phase: Phase,
    failed: Option<Trouble>,
    scopes: BTreeMap<usize, Scope<W>>,
    recovering: BTreeMap<usize, Job<W>>,
    store: BTreeMap<usize, Saved>,
    backup: BTreeMap<usize, Saved>,
    fences: u8,
    leaving: bool,
}

/// A request that its sender has given up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Request {
    Produce(Writer, Vec<((Topic, usize), Value)>),
    Offsets(Writer, Option<(MemberId, i32)>, BTreeMap<usize, i64>),
    End(Writer, bool),
    Delete(usize, i64),
}

#[derive(Clone)]
pub struct World<W> {
    pub settings: Settings,
    pub broker: Broker,
    processes: Vec<Process<W>>,
    late: Vec<Request>,
    /// Input records that are there, by partition.
    appended: usize,
    wall_ms: i64,
    pub truth: Truth,
    /// What was found to be wrong.
    pub violation: Option<String>,
    /// Faults that may still come, where they are counted.
    pub budget: u8,
}

impl<W: Hash> Hash for World<W> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.broker.hash(state);
        self.processes.hash(state);
        self.late.hash(state);
        (self.appended, self.wall_ms, &self.violation, self.budget).hash(state);
        self.truth.hash(state);
    }
}

impl<W: Seen> World<W> {
    pub fn new(settings: Settings, inputs: Vec<Vec<Input>>) -> Self {
        let process = |instance: &u8| Process {
            life: Life::Down,
            instance: *instance,
            source: Source::default(),
            producer: None,
            phase: Phase::Idle,
            failed: None,
            scopes: BTreeMap::new(),
            recovering: BTreeMap::new(),
            store: BTreeMap::new(),
            backup: BTreeMap::new(),
            fences: 0,
            leaving: false,
        };
        let mut broker = Broker::default();
        for partition in 0..settings.partitions {
            for topic in [
                Topic::Output,
                Topic::Duplicates,
                Topic::Rejected,
                Topic::Journal,
            ] {
                broker.logs.entry((topic, partition)).or_default();
            }
        }
        Self {
            processes: settings.instances.iter().map(process).collect(),
            truth: Truth::new(settings.limits, inputs),
            settings,
            broker,
            late: Vec::new(),
            appended: 0,
            wall_ms: 1_000,
            violation: None,
            budget: u8::MAX,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.settings.bug == Some(bug)
    }

    fn blame(&mut self, outcome: Result<(), String>) {
        if let (Err(why), None) = (outcome, &self.violation) {
            self.violation = Some(why);
        }
    }

    /// The input partition's end: a gap of one offset (a marker of some upstream transaction) follows
    /// every record.
    fn input_high(&self, partition: usize) -> i64 {
        let inputs = &self.truth.inputs[partition];
        inputs
            .iter()
            .take(self.appended)
            .next_back()
            .map_or(0, |record| record.offset + 2)
    }

    fn next_input(&self, partition: usize, from: i64) -> Option<&Input> {
        let there = self.truth.inputs[partition].iter().take(self.appended);
        there.into_iter().find(|record| record.offset >= from)
    }

    /// All input is there, was read, and is committed.
    pub fn is_done(&self) -> bool {
        let inputs = self.truth.inputs.iter().enumerate();
        self.appended >= self.truth.inputs.iter().map(Vec::len).max().unwrap_or(0)
            && inputs.clone().all(|(partition, inputs)| {
                let end = inputs.last().map_or(0, |record| record.offset);
                let committed = self.broker.group.committed.get(&partition);
                inputs.is_empty() || committed.is_some_and(|at| *at > end)
            })
            && self
                .processes
                .iter()
                .all(|process| process.phase == Phase::Idle)
            && self
                .broker
                .transactions
                .values()
                .all(|t| !matches!(t.state, State::Ongoing | State::Ending { .. }))
    }

    /// Steps that lead on and are possible now, in a fixed order; without faults.
    pub fn progress(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (slot, process) in self
            .processes
            .iter()
            .enumerate()
            .filter(|(_, p)| p.life == Life::Up)
        {
            self.worker_steps(slot, process, &mut actions);
        }
        for (id, transaction) in &self.broker.transactions {
            if matches!(transaction.state, State::Ending { .. }) {
                actions.extend(
                    transaction
                        .targets
                        .iter()
                        .map(|target| Action::Mark(*id, *target)),
                );
            }
        }
        if self.broker.group.can_complete() {
            actions.push(Action::CompleteRebalance(0));
        }
        if self.appended < self.truth.inputs.iter().map(Vec::len).max().unwrap_or(0) {
            actions.push(Action::Append);
        }
        actions
    }

    fn worker_steps(&self, slot: usize, process: &Process<W>, actions: &mut Vec<Action>) {
        use Fate::Answered;
        if self.heartbeat_is_due(slot) {
            actions.push(Action::Heartbeat(slot));
        }
        for (partition, job) in &process.recovering {
            match job.stage {
                // Asked again later, while a transaction has offsets pending.
                Stage::Locate if self.settles(*partition) => {
                    actions.push(Action::Locate(slot, *partition))
                }
                Stage::Locate => {}
                Stage::Watermark { .. } => actions.push(Action::Watermark(slot, *partition)),
                Stage::Read { next, until, .. } => {
                    let log = self.broker.log((Topic::Journal, *partition));
                    if next >= until || log.next(next).0 > next || next < log.low {
                        actions.push(Action::Read(slot, *partition));
                    }
                }
                Stage::Done { .. } => {}
            }
        }
        match process.phase {
            Phase::Idle if process.producer.is_none() => {
                let ending = self.broker.transactions.get(&process.instance);
                if !ending.is_some_and(|t| matches!(t.state, State::Ending { .. })) {
                    actions.push(Action::TakeOver(slot, Answered));
                }
                if process.leaving {
                    actions.push(Action::Leave(slot));
                }
                // Between attempts, the group hears from us.
                if !process.source.noted.is_empty() {
                    actions.push(Action::HandleRebalance(slot));
                }
            }
            Phase::Idle | Phase::Open => {
                if !process.source.noted.is_empty() {
                    actions.push(Action::HandleRebalance(slot));
                }
                for (partition, job) in &process.recovering {
                    if matches!(job.stage, Stage::Done { .. }) {
                        actions.push(Action::Activate(slot, *partition));
                    }
                }
                if self.settings.latest
                    && process
                        .scopes
                        .values()
                        .any(|scope| scope.must_write_run && !scope.touched)
                {
                    actions.push(Action::PinStart(slot));
                }
                let ending = self.broker.transactions.get(&process.instance);
                let waits = ending.is_some_and(|t| {
                    matches!(t.state, State::Ending { .. })
                        && process.producer.is_some_and(|(epoch, _)| epoch == t.epoch)
                });
                for (partition, scope) in &process.scopes {
                    let more = self.next_input(*partition, scope.next_offset).is_some();
                    if more && !waits && !process.leaving {
                        actions.push(Action::Judge(slot, *partition, Answered));
                    }
                }
                if process.phase == Phase::Open {
                    actions.push(Action::Prepare(slot, Answered));
                }
                if process.phase == Phase::Idle && process.leaving {
                    actions.push(Action::Leave(slot));
                }
            }
            Phase::Prepared => actions.push(Action::SendOffsets(slot, Answered)),
            Phase::OffsetsSent => actions.push(Action::Commit(slot, Answered)),
            Phase::Committed => actions.push(Action::Publish(slot)),
            Phase::Aborting => actions.push(Action::Abort(slot, Answered)),
        }
    }

    fn settles(&self, partition: usize) -> bool {
        self.has(Bug::UnstableOffset) || self.broker.stable_offset(partition).is_ok()
    }

    /// What is neither needed nor wrong: store, trimming, clock.
    pub fn chores(&self) -> Vec<Action> {
        let mut actions = vec![Action::Clock(7), Action::Clock(-5)];
        for (slot, process) in self
            .processes
            .iter()
            .enumerate()
            .filter(|(_, p)| p.life == Life::Up)
        {
            if !matches!(process.phase, Phase::Idle | Phase::Open) {
                continue;
            }
            for partition in process.scopes.keys() {
                actions.push(Action::Seal(slot, *partition));
                actions.push(Action::Trim(slot, *partition));
            }
        }
        actions
    }

    /// What may go wrong now.
    pub fn faults(&self) -> Vec<Action> {
        use Fate::{AnswerLost, Late};
        let mut actions = Vec::new();
        for action in self.progress() {
            match action {
                Action::Judge(s, p, _) => {
                    actions.extend(
                        [AnswerLost, Late, Fate::Refused].map(|fate| Action::Judge(s, p, fate)),
                    );
                }
                Action::Prepare(s, _) => {
                    actions.extend(
                        [AnswerLost, Late, Fate::Refused].map(|fate| Action::Prepare(s, fate)),
                    );
                }
                Action::SendOffsets(s, _) => {
                    actions.extend(
                        [AnswerLost, Late, Fate::Refused].map(|fate| Action::SendOffsets(s, fate)),
                    );
                }
                Action::Commit(s, _) => {
                    actions.extend([AnswerLost, Late].map(|fate| Action::Commit(s, fate)))
                }
                Action::Abort(s, _) => {
                    actions.extend([AnswerLost, Late].map(|fate| Action::Abort(s, fate)))
                }
                Action::TakeOver(s, _) => actions.push(Action::TakeOver(s, AnswerLost)),
                Action::CompleteRebalance(_) => actions.push(Action::CompleteRebalance(1)),
                _ => {}
            }
        }
        let last = !self.settings.retention;
        for (slot, process) in self.processes.iter().enumerate() {
            match process.life {
                Life::Down => {
                    actions.extend([Action::LoseStore(slot), Action::OldStore(slot)]);
                    let others = (0..self.processes.len()).filter(|other| *other != slot);
                    actions.extend(others.map(|other| Action::CopyStore(other, slot)));
                }
                Life::Up if last => {
                    actions.extend([
                        Action::Crash(slot),
                        Action::Freeze(slot),
                        Action::BackUpStore(slot),
                    ]);
                    if !process.leaving {
                        actions.push(Action::Leave(slot));
                    }
                    if matches!(process.phase, Phase::Idle | Phase::Open) {
                        actions.extend(
                            process
                                .scopes
                                .keys()
                                .map(|partition| Action::Damage(slot, *partition)),
                        );
                    }
                }
                _ => {}
            }
        }
        if last {
            actions.extend(
                self.broker
                    .group
                    .members
                    .keys()
                    .map(|member| Action::ExpireSession(*member)),
            );
        } else {
            // A journal expires after hours: not before what it holds was taken in.
            let idle = self.processes.iter().filter(|p| p.phase == Phase::Idle);
            actions.extend(
                idle.flat_map(|p| p.scopes.keys())
                    .map(|p| Action::ExpireJournal(*p)),
            );
        }
        for (id, transaction) in &self.broker.transactions {
            if transaction.state == State::Ongoing {
                actions.push(Action::TimeOut(*id));
            }
        }
        actions
    }

    /// What its coordinator ends when nobody else does: the sessions and transactions of those that are
    /// gone, and transactions whose producer was replaced.
    pub fn overdue(&self) -> Vec<Action> {
        let members = self.broker.group.members.keys().filter(|member| {
            let is_it = |p: &Process<W>| p.source.member == Some(**member) && p.life == Life::Up;
            !self.processes.iter().any(is_it)
        });
        let mut actions: Vec<Action> = members
            .map(|member| Action::ExpireSession(*member))
            .collect();
        for (id, transaction) in &self.broker.transactions {
            let is_open = |p: &Process<W>| p.instance == *id && p.phase != Phase::Idle;
            if transaction.state == State::Ongoing && !self.processes.iter().any(is_open) {
                actions.push(Action::TimeOut(*id));
            }
        }
        actions
    }

    /// The way back from faults.
    pub fn returns(&self) -> Vec<Action> {
        let mut actions: Vec<Action> = (0..self.late.len()).map(Action::Deliver).collect();
        for (slot, process) in self.processes.iter().enumerate() {
            match process.life {
                Life::Down => actions.push(Action::Restart(slot)),
                Life::Frozen => actions.push(Action::Thaw(slot)),
                Life::Up => {}
            }
        }
        actions
    }

    /// Faults end: everything late arrives, every instance runs once, sessions and transactions of
    /// those that do not run end; then all input must come to be committed.
    pub fn drain(&mut self) {
        while !self.late.is_empty() {
            self.step(Action::Deliver(0));
        }
        let mut running = BTreeSet::new();
        for slot in 0..self.processes.len() {
            let first = running.insert(self.processes[slot].instance);
            match self.processes[slot].life {
                Life::Down if first => self.step(Action::Restart(slot)),
                Life::Frozen if first => self.step(Action::Thaw(slot)),
                Life::Up | Life::Frozen if !first => self.step(Action::Crash(slot)),
                _ => {}
            }
            self.processes[slot].fences = 0;
            self.processes[slot].leaving = false;
        }
        for round in 0..600 {
            if self.violation.is_some() {
                return;
            }
            // What nobody ends, its coordinator does.
            for action in self.overdue() {
                if round % 20 == 19 || matches!(action, Action::ExpireSession(_)) {
                    self.step(action);
                }
            }
            for slot in 0..self.processes.len() {
                if self.processes[slot].life == Life::Down
                    && round % 50 == 49
                    && !self
                        .processes
                        .iter()
                        .any(|p| p.life == Life::Up && p.instance == self.processes[slot].instance)
                {
                    self.step(Action::Restart(slot));
                }
            }
            let actions = self.progress();
            if self.is_done() {
                break;
            }
            for action in actions {
                // Possible no more, where one before it changed that.
                if self.progress().contains(&action) && self.violation.is_none() {
                    self.step(action);
                }
            }
        }
        if self.violation.is_some() {
            return;
        }
        if !self.is_done() {
            let open = self.progress();
            self.violation = Some(format!(
                "stuck: input is left, and what can be done does not help: {open:?}"
            ));
            return;
        }
        let outcome = self.truth.check_end(&self.broker);
        self.blame(outcome);
    }

    /// Steps that touch one process alone, and that nobody else can tell from one that comes later: taken
    /// at once, they leave fewer worlds to explore, and none of any other kind.
    pub fn take_local_steps(&mut self) {
        while let Some(action) = self.progress().into_iter().find(|action| match action {
            Action::Publish(_) | Action::Activate(..) => true,
            Action::HandleRebalance(slot) => self.processes[*slot].phase == Phase::Idle,
            _ => false,
        }) {
            self.step(action);
        }
    }

    /// Carries out one action that [`Self::progress`] and its like have named.
    pub fn step(&mut self, action: Action) {
        match action {
            Action::TakeOver(s, fate) => self.take_over(s, fate),
            Action::HandleRebalance(s) => self.handle_rebalance(s),
            Action::Judge(s, p, fate) => self.judge(s, p, fate),
            Action::Prepare(s, fate) => self.prepare(s, fate),
            Action::SendOffsets(s, fate) => self.send_offsets(s, fate),
            Action::Commit(s, fate) => self.commit(s, fate),
            Action::Publish(s) => self.publish(s),
            Action::Abort(s, fate) => self.abort(s, fate),
            Action::Activate(s, p) => self.activate(s, p),
            Action::PinStart(s) => self.pin_start_positions(s),
            Action::Seal(s, p) => {
                let process = &mut self.processes[s];
                if let Some(scope) = process.scopes.get(&p) {
                    process.store.insert(p, scope.runs.clone());
                }
            }
            Action::Trim(s, p) => self.trim(s, p),
            Action::Damage(s, p) => self.rebuild_seen_set(s, p),
            Action::Locate(s, p) => self.locate(s, p),
            Action::Watermark(s, p) => self.watermark(s, p),
            Action::Read(s, p) => self.read(s, p),
            Action::Heartbeat(s) => self.heartbeat(s),
            Action::Mark(id, target) => self.broker.mark(id, target),
            Action::Deliver(at) => {
                if at < self.late.len() {
                    let request = self.late.remove(at);
                    // Nobody hears the answer.
                    let _ = self.carry_out(request);
                }
            }
            Action::CompleteRebalance(shift) => {
                if self.broker.group.can_complete() {
                    self.broker.group.complete(self.settings.partitions, shift);
                }
            }
            Action::Append => self.appended += 1,
            Action::Clock(by) => self.wall_ms += by,
            Action::Crash(s) => self.end_process(s),
            Action::Restart(s) => {
                self.end_process(s);
                self.processes[s].life = Life::Up;
            }
            Action::Leave(s) => self.leave(s),
            Action::Freeze(s) => self.processes[s].life = Life::Frozen,
            Action::Thaw(s) => self.processes[s].life = Life::Up,
            Action::ExpireSession(member) => self.broker.group.remove(member),
            Action::TimeOut(id) => self.broker.time_out(id),
            Action::LoseStore(s) => self.processes[s].store.clear(),
            Action::BackUpStore(s) => self.processes[s].backup = self.processes[s].store.clone(),
            Action::OldStore(s) => self.processes[s].store = self.processes[s].backup.clone(),
            Action::CopyStore(from, to) => {
                self.processes[to].store = self.processes[from].store.clone()
            }
            Action::ExpireJournal(p) => {
                let log = self.broker.log((Topic::Journal, p));
                let (stable, high) = (log.last_stable(), log.high());
                if stable == high {
                    self.broker.delete((Topic::Journal, p), high);
                }
            }
        }
    }

    fn end_process(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        process.life = Life::Down;
        process.source = Source::default();
        (process.producer, process.phase, process.failed) = (None, Phase::Idle, None);
        process.scopes.clear();
        process.recovering.clear();
        (process.fences, process.leaving) = (0, false);
    }

    /// A request arrives at the broker.
    fn carry_out(&mut self, request: Request) -> Result<Vec<i64>, Refused> {
        match request {
            Request::Produce(by, records) => self.broker.produce(by, &records),
            Request::Offsets(by, member, offsets) => {
                let checked = if self.has(Bug::NoGeneration) {
                    None
                } else {
                    member
                };
                self.broker.offsets(by, checked, &offsets)?;
                for partition in offsets.keys() {
                    let owner = self.broker.group.assignment.get(partition).copied();
                    let sender = member.map(|(member, _)| member);
                    if owner.is_some() && owner != sender {
                        self.blame(Err(format!("I6: member {sender:?} moves the offset of {partition}, which is {owner:?}'s")));
                    }
                }
                Ok(Vec::new())
            }
            Request::End(by, commit) => {
                let open = self
                    .broker
                    .transactions
                    .get(&by.id)
                    .is_some_and(|t| t.epoch == by.epoch && t.state == State::Ongoing);
                if open && commit {
                    let outcome = self.truth.committed(&self.broker, by.id);
                    self.blame(outcome);
                }
                self.broker.end(by.id, by.epoch, commit)?;
                Ok(Vec::new())
            }
            Request::Delete(partition, before) => {
                self.broker.delete((Topic::Journal, partition), before);
                Ok(Vec::new())
            }
        }
    }

    /// Sends a request; `None` where no answer comes.
    fn send(&mut self, request: Request, fate: Fate) -> Option<Result<Vec<i64>, Refused>> {
        match fate {
            Fate::Answered => Some(self.carry_out(request)),
            Fate::AnswerLost => {
                let _ = self.carry_out(request);
                None
            }
            Fate::Late => {
                self.late.push(request);
                None
            }
            Fate::Refused => Some(Err(Refused::NotAMember)),
        }
    }

    fn writer(&self, slot: usize) -> Option<Writer> {
        let process = &self.processes[slot];
        let (epoch, serial) = process.producer?;
        Some(Writer {
            id: process.instance,
            epoch,
            serial,
        })
    }

    // The worker's steps, see src/worker and src/commit.rs.

    fn take_over(&mut self, slot: usize, fate: Fate) {
        let id = self.processes[slot].instance;
        let outcome = self.broker.init(id);
        if let (Ok(epoch), Fate::Answered) = (outcome, fate) {
            self.processes[slot].producer = Some((epoch, 0));
        }
    }

    fn handle_rebalance(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        let Some(event) = process.source.noted.front().cloned() else {
            return;
        };
        match event {
            Rebalance::Assigned(partitions) => {
                process.source.owned.extend(&partitions);
                for partition in partitions {
                    process.request_recovery(partition, None);
                }
            }
            // What is open is committed first.
            Rebalance::Revoked(_) if process.phase == Phase::Open => {
                return self.prepare(slot, Fate::Answered);
            }
            Rebalance::Revoked(partitions) => {
                process.forget(&partitions);
                if let (true, Some(member)) = (self.settings.cooperative, process.source.member)
                    && self.broker.group.members.contains_key(&member)
                {
                    self.broker.group.rebalance();
                }
            }
            Rebalance::Lost if process.phase == Phase::Open => {
                process.phase = Phase::Aborting;
                return;
            }
            Rebalance::Lost => {
                let owned = process.source.owned.clone();
                process.forget(&owned);
            }
        }
        self.processes[slot].source.noted.pop_front();
    }

    fn judge(&mut self, slot: usize, partition: usize, fate: Fate) {
        let wall_ms = self.wall_ms;
        let from = self.processes[slot].scopes[&partition].next_offset;
        let Some(record) = self.next_input(partition, from).cloned() else {
            return;
        };
        let process = &mut self.processes[slot];
        if process.phase == Phase::Idle {
            process.begin();
        }
        let Some(scope) = process.scopes.get_mut(&partition) else {
            return;
        };
        scope.touched = true;
        scope.window.observe(record.timestamp_ms, wall_ms);
        let (topic, duplicate_of) = match record.id {
            _ if scope.refused.contains(&record.offset) => (Topic::Rejected, None),
            None => (Topic::Output, None),
            Some(id) => match scope.window.judge(fingerprint(id), record.offset) {
                Verdict::Forward => (Topic::Output, None),
                Verdict::Duplicate {
                    first_offset,
                    age_ms,
                    ..
                } => (Topic::Duplicates, Some((first_offset, age_ms))),
            },
        };
        scope.tally.push((record.offset, topic));
        scope.next_offset = record.offset + 1;
        if record.refused && topic == Topic::Output {
            // Found when deliveries are drained; of several, which are judged alone then, the first.
            if process.failed.is_none() {
                scope.refused.insert(record.offset);
                process.failed = Some(Trouble::Abort);
            }
            return;
        }
        let copy = Value::Copy {
            source: record.offset,
            bytes: record.bytes,
            wall_ms,
            duplicate_of,
        };
        self.produce(slot, vec![((topic, partition), copy)], fate);
    }

    /// Gives the offsets; what went wrong is noted, and found when deliveries are drained.
    fn produce(
        &mut self,
        slot: usize,
        records: Vec<((Topic, usize), Value)>,
        fate: Fate,
    ) -> Vec<i64> {
        let Some(writer) = self.writer(slot) else {
            return Vec::new();
        };
        let trouble = match self.send(Request::Produce(writer, records), fate) {
            Some(Ok(offsets)) => return offsets,
            None => Trouble::InDoubt,
            Some(Err(Refused::Fenced)) => Trouble::Fenced,
            Some(Err(Refused::InvalidState)) => Trouble::InDoubt,
            Some(Err(_)) => Trouble::Abort,
        };
        let failed = &mut self.processes[slot].failed;
        if failed.is_none_or(|before| before == Trouble::Abort) {
            *failed = Some(trouble);
        }
        Vec::new()
    }

    fn prepare(&mut self, slot: usize, fate: Fate) {
        let (bug, max_ids) = (self.settings.bug, self.settings.max_ids_per_run);
        let mut wanted = Vec::new();
        for (partition, scope) in &mut self.processes[slot].scopes {
            let run = scope
                .window
                .pending_run(identity(*partition), scope.next_offset);
            let dirty = match bug {
                Some(Bug::NoRunForStreamTime) => !run.fingerprints.is_empty(),
                _ => scope.window.is_dirty(),
            };
            if scope.touched && (scope.must_write_run || dirty) {
                wanted.push((*partition, run));
            }
        }
        for (partition, run) in wanted {
            let parts: Vec<Bytes> = run.encode(max_ids).into_iter().map(Bytes::from).collect();
            let records = parts
                .iter()
                .map(|part| ((Topic::Journal, partition), Value::Run(part.clone())))
                .collect();
            let offsets = self.produce(slot, records, fate);
            let marks = offsets
                .iter()
                .zip(&parts)
                .map(|(offset, part)| ((*offset, run::checksum(part)), part.clone()));
            let process = &mut self.processes[slot];
            let Some(scope) = process.scopes.get_mut(&partition) else {
                continue;
            };
            scope.pending_runs = marks.collect();
            if bug == Some(Bug::StoreBeforeCommit) {
                // The ids are in the store, and the checkpoint is still the one before.
                let mut saved = scope.runs.clone();
                if let Some((mark, _)) = saved.last().cloned() {
                    saved.extend(
                        scope
                            .pending_runs
                            .iter()
                            .map(|(_, part)| (mark, part.clone())),
                    );
                    process.store.insert(partition, saved);
                }
            }
        }
        self.processes[slot].phase = Phase::Prepared;
        match self.processes[slot].failed.take() {
            Some(trouble) => self.resolve(slot, trouble),
            // Nothing was sent that could fail.
            None if fate == Fate::Refused => self.resolve(slot, Trouble::Abort),
            None if fate != Fate::Answered => self.resolve(slot, Trouble::InDoubt),
            None => {}
        }
    }

    fn send_offsets(&mut self, slot: usize, fate: Fate) {
        let process = &self.processes[slot];
        let touched = process.scopes.iter().filter(|(_, scope)| scope.touched);
        let offsets: BTreeMap<usize, i64> = touched
            .map(|(partition, scope)| (*partition, scope.next_offset))
            .collect();
        let Source {
            member, generation, ..
        } = process.source;
        let Some(writer) = self.writer(slot) else {
            return;
        };
        if self.has(Bug::OffsetsOutsideTransaction) {
            self.broker.group.committed.extend(offsets);
            self.processes[slot].phase = Phase::OffsetsSent;
            return;
        }
        let membership = match member.filter(|_| generation >= 0) {
            Some(member) => Some((member, generation)),
            None if self.has(Bug::NoGeneration) => None,
            None => return self.resolve(slot, Trouble::Abort),
        };
        let outcome = match self.broker.add_offsets(writer) {
            Ok(()) => self.send(Request::Offsets(writer, membership, offsets), fate),
            Err(refused) => Some(Err(refused)),
        };
        match outcome {
            Some(Ok(_)) => self.processes[slot].phase = Phase::OffsetsSent,
            None if self.has(Bug::UnansweredOffsetsAborted) => self.resolve(slot, Trouble::Abort),
            outcome => self.resolve(slot, trouble_of(outcome)),
        }
        if self.has(Bug::PublishBeforeCommit) && self.processes[slot].phase == Phase::OffsetsSent {
            for scope in self.processes[slot].scopes.values_mut() {
                scope.publish();
            }
        }
    }

    fn commit(&mut self, slot: usize, fate: Fate) {
        let Some(writer) = self.writer(slot) else {
            return;
        };
        match self.send(Request::End(writer, true), fate) {
            Some(Ok(_)) => self.processes[slot].phase = Phase::Committed,
            None if self.has(Bug::ProducerKeptAfterUnknownCommit) => {
                self.resolve(slot, Trouble::Abort)
            }
            outcome => self.resolve(slot, trouble_of(outcome)),
        }
    }

    fn publish(&mut self, slot: usize) {
        let mut counted = Vec::new();
        for (partition, scope) in &mut self.processes[slot].scopes {
            if scope.touched {
                counted.push((*partition, scope.publish()));
            }
        }
        for (partition, tally) in counted {
            let outcome = self.truth.counted(partition, &tally);
            self.blame(outcome);
        }
        self.processes[slot].phase = Phase::Idle;
        self.check_seen_sets(slot);
    }

    fn abort(&mut self, slot: usize, fate: Fate) {
        let Some(writer) = self.writer(slot) else {
            return;
        };
        let begun = self
            .broker
            .transactions
            .get(&writer.id)
            .is_some_and(|t| t.epoch != writer.epoch || t.serial >= writer.serial);
        // The client knows whether anything was sent.
        let outcome = if begun {
            self.send(Request::End(writer, false), fate)
        } else {
            Some(Ok(Vec::new()))
        };
        let process = &mut self.processes[slot];
        process.failed = None;
        for scope in process.scopes.values_mut() {
            match self.settings.bug {
                Some(Bug::OverlayKeptAfterAbort) => {
                    scope.next_offset = scope.committed_offset;
                    (scope.touched, scope.tally) = (false, Vec::new());
                }
                Some(Bug::PositionKeptAfterAbort) => {
                    let next_offset = scope.next_offset;
                    scope.discard();
                    scope.next_offset = next_offset;
                }
                _ => scope.discard(),
            }
        }
        process.phase = Phase::Idle;
        let kept = self.has(Bug::ProducerKeptAfterUnknownCommit);
        match outcome {
            Some(Ok(_)) => self.check_seen_sets(slot),
            Some(Err(Refused::Concurrent | Refused::InvalidState)) if kept => {}
            outcome => match trouble_of(outcome) {
                Trouble::Abort => self.resolve(slot, Trouble::InDoubt),
                trouble => self.resolve(slot, trouble),
            },
        }
    }

    fn resolve(&mut self, slot: usize, trouble: Trouble) {
        let instances = &self.settings.instances;
        let twins = instances
            .iter()
            .filter(|one| **one == instances[slot])
            .count()
            > 1;
        let process = &mut self.processes[slot];
        match trouble {
            Trouble::Abort => process.phase = Phase::Aborting,
            Trouble::InDoubt => self.replace_producer(slot),
            Trouble::Fenced => {
                // A transaction that was overdue is no sign of a twin.
                process.fences += u8::from(twins);
                if process.fences >= 3 {
                    return self.end_process(slot);
                }
                self.replace_producer(slot);
            }
        }
    }

    /// I7: the producer goes, and all scopes go back to recovery.
    fn replace_producer(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        (process.producer, process.phase, process.failed) = (None, Phase::Idle, None);
        for (partition, mut scope) in std::mem::take(&mut process.scopes) {
            scope.discard();
            let known = Known {
                window: scope.window,
                journal_next: scope.journal_next,
                runs: scope.runs,
            };
            process.request_recovery(partition, Some(known));
        }
    }

    fn rebuild_seen_set(&mut self, slot: usize, partition: usize) {
        let process = &mut self.processes[slot];
        process.scopes.remove(&partition);
        process.store.remove(&partition);
        process.request_recovery(partition, None);
        if process.phase == Phase::Open {
            process.phase = Phase::Aborting;
        }
    }

    fn trim(&mut self, slot: usize, partition: usize) {
        let to_last_run = self.has(Bug::TrimToLastRun);
        let Some(scope) = self.processes[slot].scopes.get_mut(&partition) else {
            return;
        };
        let last = scope.window.checkpoint().map(|((offset, _), _)| offset);
        let keep_from = if to_last_run {
            last
        } else {
            scope.window.keep_journal_from()
        };
        if let Some(keep_from) = keep_from.filter(|from| *from > scope.trimmed_to) {
            scope.trimmed_to = keep_from;
            // Somewhere on its way: it may arrive long after.
            self.late.push(Request::Delete(partition, keep_from));
        }
    }

    fn leave(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        process.leaving = true;
        if process.phase != Phase::Idle {
            return;
        }
        if let Some(member) = process
            .source
            .member
            .filter(|_| !self.settings.static_membership)
        {
            self.broker.group.remove(member);
        }
        self.end_process(slot);
    }

    fn activate(&mut self, slot: usize, partition: usize) {
        let process = &mut self.processes[slot];
        let Some(job) = process.recovering.remove(&partition) else {
            return;
        };
        let (
            Stage::Done {
                committed,
                input_offset,
                next,
            },
            Some(window),
        ) = (job.stage, job.window)
        else {
            return;
        };
        let mut scope = Scope {
            window,
            next_offset: input_offset,
            committed_offset: input_offset,
            journal_next: next,
            touched: false,
            must_write_run: committed.is_none(),
            tally: Vec::new(),
            refused: BTreeSet::new(),
            pending_runs: Vec::new(),
            trimmed_to: 0,
            runs: job.runs,
        };
        let outcome = self
            .truth
            .check_covers(partition, &scope.window, input_offset);
        let outcome = outcome.and_then(|()| self.truth.check_seen(partition, &mut scope.window));
        process.scopes.insert(partition, scope);
        self.blame(outcome);
    }

    /// Where a partition starts at its end, that place is committed before anything is judged.
    fn pin_start_positions(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        for scope in process.scopes.values_mut() {
            scope.touched |= scope.must_write_run;
        }
        if process.phase == Phase::Idle {
            process.begin();
        }
    }

    fn check_seen_sets(&mut self, slot: usize) {
        for (partition, scope) in &mut self.processes[slot].scopes {
            let outcome = self.truth.check_seen(*partition, &mut scope.window);
            if let (Err(why), None) = (outcome, &self.violation) {
                self.violation = Some(why);
            }
        }
    }

    // Recovery, see src/recovery.

    fn locate(&mut self, slot: usize, partition: usize) {
        let early = self.has(Bug::WatermarkBeforeCommittedOffset);
        let high = early.then(|| self.broker.log((Topic::Journal, partition)).high());
        let unstable = self.has(Bug::UnstableOffset);
        let committed = match self.broker.stable_offset(partition) {
            Ok(committed) => committed,
            Err(_) if unstable => self.broker.group.committed.get(&partition).copied(),
            Err(_) => return,
        };
        let Some(job) = self.processes[slot].recovering.get_mut(&partition) else {
            return;
        };
        // With the defect, the offset is asked for one step later than the watermark.
        job.stage = Stage::Watermark {
            committed: committed.filter(|_| !early),
            high,
        };
    }

    fn watermark(&mut self, slot: usize, partition: usize) {
        let log = self.broker.log((Topic::Journal, partition));
        let (low, mut until) = (log.low, log.high());
        if self.has(Bug::RestoreToLastStableOffset) {
            until = log.last_stable();
        }
        let limits = self.settings.limits;
        let input_high = self.input_high(partition);
        let (latest, retention) = (self.settings.latest, self.settings.retention);
        let forgets = self.has(Bug::IdleJournalForgotten);
        let now = self.broker.stable_offset(partition);
        let process = &mut self.processes[slot];
        let Some(job) = process.recovering.get_mut(&partition) else {
            return;
        };
        let Stage::Watermark {
            mut committed,
            high,
        } = job.stage
        else {
            return;
        };
        if let Some(early) = high {
            let Ok(now) = now else { return };
            (committed, until) = (now, early);
        }
        let input_offset = committed.unwrap_or(if latest { input_high } else { 0 });
        let complete = |known: &Known<W>| {
            let reached = known.window.checkpoint().map(|(_, next)| next);
            low == until && committed.is_some() && reached == committed
        };
        let expires = retention && !forgets;
        let next = match job.known.take() {
            Some(known) if known.journal_next >= low || complete(&known) || expires => {
                // A run that expired before it was read shows in the chain of ordinals.
                job.may_not_fit = expires;
                (job.window, job.runs) = (Some(known.window), known.runs);
                known.journal_next.max(low)
            }
            _ => {
                let saved = process.store.get(&partition).cloned().unwrap_or_default();
                let fits = saved
                    .last()
                    .is_some_and(|((offset, _), _)| (low..until).contains(offset));
                let saved = if fits { saved } else { Vec::new() };
                let mut window = W::empty(limits);
                for (mark, bytes) in &saved {
                    let run = Run::decode(bytes).expect("what was encoded");
                    window.apply(&run, *mark);
                }
                job.anchor = saved.last().map(|(mark, _)| *mark);
                job.may_not_fit = false;
                (job.window, job.runs) = (Some(window), saved);
                job.anchor.map_or(low, |(offset, _)| offset)
            }
        };
        job.stage = Stage::Read {
            committed,
            input_offset,
            next,
            until,
        };
        if self.has(Bug::NoRestore) {
            self.finish(slot, partition, committed, input_offset, until);
        }
    }

    fn read(&mut self, slot: usize, partition: usize) {
        let log = self.broker.log((Topic::Journal, partition)).clone();
        let process = &mut self.processes[slot];
        let Some(job) = process.recovering.get_mut(&partition) else {
            return;
        };
        let Stage::Read {
            committed,
            input_offset,
            mut next,
            until,
        } = job.stage
        else {
            return;
        };
        let Some(window) = &mut job.window else {
            return;
        };
        while next < until {
            let (position, found) = log.next(next);
            match found {
                Next::OutOfRange => return job.locate_again(next),
                Next::Blocked => {
                    next = position;
                    break;
                }
                Next::Record(offset, Value::Run(bytes)) => {
                    next = position;
                    let mark = (offset, run::checksum(&bytes));
                    if let Some(anchor) = job.anchor.take() {
                        if anchor != mark {
                            process.store.remove(&partition);
                            return job.begin_anew();
                        }
                        job.may_not_fit = true;
                        continue;
                    }
                    let run = Run::decode(&bytes);
                    let applied = run.is_ok_and(|run| {
                        run.identity == identity(partition) && window.apply(&run, mark)
                    });
                    if !applied && job.may_not_fit {
                        process.store.remove(&partition);
                        return job.begin_anew();
                    }
                    if !applied {
                        let why = format!(
                            "a process stops for no reason: the run at {offset} of the journal {partition} does not follow the one before"
                        );
                        return self.blame(Err(why));
                    }
                    job.runs.push((mark, bytes));
                }
                Next::Record(..) => next = position,
            }
        }
        job.stage = Stage::Read {
            committed,
            input_offset,
            next,
            until,
        };
        if next < until {
            return;
        }
        if job.anchor.is_some() {
            process.store.remove(&partition);
            return job.begin_anew();
        }
        self.finish(slot, partition, committed, input_offset, next);
    }

    fn finish(
        &mut self,
        slot: usize,
        partition: usize,
        committed: Option<i64>,
        input_offset: i64,
        next: i64,
    ) {
        let strict = !self.has(Bug::NoRestore) && !self.settings.retention;
        let once = self.has(Bug::ContradictionNotConfirmed);
        let Some(job) = self.processes[slot].recovering.get_mut(&partition) else {
            return;
        };
        let has_runs = job
            .window
            .as_ref()
            .is_some_and(|window| window.checkpoint().is_some());
        let doubtful = has_runs && committed.is_none() && !once;
        if doubtful && !std::mem::replace(&mut job.asked_again, true) {
            return job.locate_again(next);
        }
        job.stage = Stage::Done {
            committed,
            input_offset,
            next,
        };
        if strict && committed.is_some() != has_runs {
            self.blame(Err(format!("a process stops for no reason: {partition} has the committed offset {committed:?}, runs: {has_runs}")));
        }
    }

    // The consumer's background thread.

    fn heartbeat_is_due(&self, slot: usize) -> bool {
        let (process, group) = (&self.processes[slot], &self.broker.group);
        let source = &process.source;
        let Some(member) = source.member else {
            // Joined once the transactional id was ours, and only then.
            return source.noted.is_empty()
                && source.owned.is_empty()
                && (process.producer.is_some() || source.generation < 0)
                && !process.leaving;
        };
        match group.members.get(&member) {
            None => true,
            Some(member) => {
                member.news.is_some()
                    || (group.rebalancing && !member.joined && source.noted.is_empty())
            }
        }
    }

    fn heartbeat(&mut self, slot: usize) {
        let instance = self
            .settings
            .static_membership
            .then_some(self.processes[slot].instance);
        let Settings {
            cooperative,
            partitions,
            ..
        } = self.settings;
        let group = &mut self.broker.group;
        let source = &mut self.processes[slot].source;
        let Some(id) = source.member else {
            source.member = Some(group.join_new(slot, instance, partitions));
            source.generation = -1;
            return;
        };
        if group.fenced.contains(&id) {
            // A fatal error of the consumer.
            return self.end_process(slot);
        }
        let generation = group.generation;
        let Some(member) = group.members.get_mut(&id) else {
            (source.member, source.generation) = (None, -1);
            source.noted.push_back(Rebalance::Lost);
            return;
        };
        if let Some(assigned) = member.news.take() {
            source.generation = generation;
            let revoked: BTreeSet<usize> = source.owned.difference(&assigned).copied().collect();
            let added: BTreeSet<usize> = assigned.difference(&source.owned).copied().collect();
            if !revoked.is_empty() {
                source.noted.push_back(Rebalance::Revoked(revoked));
            }
            if !added.is_empty() {
                source.noted.push_back(Rebalance::Assigned(added));
            }
        } else if !cooperative && !source.owned.is_empty() {
            source
                .noted
                .push_back(Rebalance::Revoked(source.owned.clone()));
        } else {
            let owned = source.owned.clone();
            group.rejoin(id, owned);
        }
    }
}

impl<W: Seen> Scope<W> {
    /// After the commit; gives the tally, which is counted now.
    fn publish(&mut self) -> Vec<(i64, Topic)> {
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

    fn discard(&mut self) {
        self.window.discard();
        self.next_offset = self.committed_offset;
        self.touched = false;
        self.tally.clear();
        self.pending_runs.clear();
    }
}

impl<W: Seen> Job<W> {
    /// Postponed: it goes on from what it has.
    fn locate_again(&mut self, journal_next: i64) {
        self.stage = Stage::Locate;
        self.known = self.window.take().map(|window| Known {
            window,
            journal_next,
            runs: std::mem::take(&mut self.runs),
        });
    }

    /// The store does not fit the journal: without it.
    fn begin_anew(&mut self) {
        self.stage = Stage::Locate;
        (self.known, self.window, self.anchor) = (None, None, None);
        self.runs.clear();
    }
}

impl<W: Seen> Process<W> {
    fn begin(&mut self) {
        self.phase = Phase::Open;
        if let Some((_, serial)) = &mut self.producer {
            *serial += 1;
        }
    }

    fn request_recovery(&mut self, partition: usize, known: Option<Known<W>>) {
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

    fn forget(&mut self, partitions: &BTreeSet<usize>) {
        for partition in partitions {
            self.scopes.remove(partition);
            self.recovering.remove(partition);
            self.source.owned.remove(partition);
        }
    }
}

fn identity(partition: usize) -> u64 {
    kafka_dedup::journal::Identity::of(1, "input", None, partition as i32).own
}

fn trouble_of(outcome: Option<Result<Vec<i64>, Refused>>) -> Trouble {
    match outcome {
        Some(Err(Refused::Fenced)) => Trouble::Fenced,
        Some(Err(Refused::NotAMember)) => Trouble::Abort,
        _ => Trouble::InDoubt,
    }
}
