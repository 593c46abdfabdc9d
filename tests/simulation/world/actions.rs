//! What is possible next: steps that lead on, chores, and faults.

use super::*;

impl<W: Seen> World<W> {
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

    pub(super) fn worker_steps(
        &self,
        slot: usize,
        process: &Process<W>,
        actions: &mut Vec<Action>,
    ) {
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

    pub(super) fn settles(&self, partition: usize) -> bool {
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
}
