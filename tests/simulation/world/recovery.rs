//! Recovery, see `src/recovery`.

use super::*;

impl<W: Seen> World<W> {
    pub(super) fn locate(&mut self, slot: usize, partition: usize) {
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

    pub(super) fn watermark(&mut self, slot: usize, partition: usize) {
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

    pub(super) fn read(&mut self, slot: usize, partition: usize) {
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

    pub(super) fn finish(
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
}
