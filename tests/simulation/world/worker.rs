//! The worker's steps, see `src/worker` and `src/commit.rs`.

use super::*;

impl<W: Seen> World<W> {
    pub(super) fn take_over(&mut self, slot: usize, fate: Fate) {
        let id = self.processes[slot].instance;
        let outcome = self.broker.init(id);
        if let (Ok(epoch), Fate::Answered) = (outcome, fate) {
            self.processes[slot].producer = Some((epoch, 0));
        }
    }

    pub(super) fn handle_rebalance(&mut self, slot: usize) {
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

    pub(super) fn judge(&mut self, slot: usize, partition: usize, fate: Fate) {
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
    pub(super) fn produce(
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

    pub(super) fn prepare(&mut self, slot: usize, fate: Fate) {
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

    pub(super) fn send_offsets(&mut self, slot: usize, fate: Fate) {
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

    pub(super) fn commit(&mut self, slot: usize, fate: Fate) {
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

    pub(super) fn publish(&mut self, slot: usize) {
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

    pub(super) fn abort(&mut self, slot: usize, fate: Fate) {
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

    pub(super) fn resolve(&mut self, slot: usize, trouble: Trouble) {
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
    pub(super) fn replace_producer(&mut self, slot: usize) {
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

    pub(super) fn rebuild_seen_set(&mut self, slot: usize, partition: usize) {
        let process = &mut self.processes[slot];
        process.scopes.remove(&partition);
        process.store.remove(&partition);
        process.request_recovery(partition, None);
        if process.phase == Phase::Open {
            process.phase = Phase::Aborting;
        }
    }

    pub(super) fn trim(&mut self, slot: usize, partition: usize) {
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

    pub(super) fn leave(&mut self, slot: usize) {
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

    pub(super) fn activate(&mut self, slot: usize, partition: usize) {
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
    pub(super) fn pin_start_positions(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        for scope in process.scopes.values_mut() {
            scope.touched |= scope.must_write_run;
        }
        if process.phase == Phase::Idle {
            process.begin();
        }
    }

    pub(super) fn check_seen_sets(&mut self, slot: usize) {
        for (partition, scope) in &mut self.processes[slot].scopes {
            let outcome = self.truth.check_seen(*partition, &mut scope.window);
            if let (Err(why), None) = (outcome, &self.violation) {
                self.violation = Some(why);
            }
        }
    }
}

fn trouble_of(outcome: Option<Result<Vec<i64>, Refused>>) -> Trouble {
    match outcome {
        Some(Err(Refused::Fenced)) => Trouble::Fenced,
        Some(Err(Refused::NotAMember)) => Trouble::Abort,
        _ => Trouble::InDoubt,
    }
}
