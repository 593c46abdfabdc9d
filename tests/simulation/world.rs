//! The world: processes with their workers, the network between them and the broker, and what may go
//! wrong. One [`Action`] is one step of one of them; a schedule is a list of actions, and the same list
//! always gives the same world.
//!
//! The worker's steps are those of `src/commit.rs`, `src/worker` and `src/recovery`, by their names.

mod actions;
mod consumer;
mod process;
mod recovery;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use kafka_dedup::config::Window;
use kafka_dedup::journal::{Run, run};
use kafka_dedup::window::Verdict;

use crate::broker::{Broker, Bytes, MemberId, Next, Refused, State, Target, Topic, Value, Writer};
use crate::seen::{Mark, Seen};
use crate::truth::{Input, Truth, fingerprint};
use process::{Known, Life, Phase, Process, Rebalance, Request, Scope, Source, Stage, Trouble};

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
}

fn identity(partition: usize) -> u64 {
    kafka_dedup::journal::Identity::of(1, "input", None, partition as i32).own
}
