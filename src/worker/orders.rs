//! What an operator asks of this worker's partitions: is an id remembered, forget it, rebuild a seen set. Taken
//! between two turns of the loop.

use super::*;
use crate::control::{Answer, Ask, Target, What};
use crate::window::Fingerprint;

impl Worker {
    /// Takes the orders that are there.
    pub(super) fn obey(&mut self) -> Result<(), Stop> {
        let control = Arc::clone(&self.shared.control);
        while let Some(order) = control.next_order(self.index) {
            let answers = match &order.ask {
                Ask::Seen(target, id) => self.look_up(target, *id)?,
                Ask::Forget(target, id) => self.forget_id(target, *id)?,
                Ask::Rebuild(target) => self.rebuild(target)?,
            };
            // Nobody may wait any more.
            let _ = order.answer.send(answers);
        }
        Ok(())
    }

    /// Partitions of topics that pause stop being read, until [`Self::start_restored`].
    pub(super) fn heed_pauses(&mut self) {
        if !self.shared.control.pauses() {
            return;
        }
        let control = Arc::clone(&self.shared.control);
        let active = self.scopes.active();
        let paused = active.filter(|(_, scope)| scope.topic.is_paused(&control));
        let held = paused.map(|(_, scope)| (scope.partition_key(), scope.next_offset));
        let held: Vec<_> = held.collect();
        if self.hold(held) {
            // Whoever asked for it looks whether it is so.
            self.next_housekeeping = Instant::now();
        }
    }

    fn look_up(&mut self, target: &Target, id: Fingerprint) -> Result<Vec<Answer>, Stop> {
        let mut answers = self.restoring(target);
        let mut damaged = None;
        for (place, scope) in self.scopes.active() {
            let (topic, partition) = scope.partition_key();
            if !scope.topic.is_judged() || !target.covers(scope.topic.input(), partition) {
                continue;
            }
            let what = match scope.window.look_up(id) {
                Ok(Some((entry, age_ms))) => {
                    let (first_partition, first_offset) = scope.first_of(entry.offset);
                    What::Remembered {
                        first_partition,
                        first_offset,
                        seen_at_ms: entry.time_ms,
                        age_ms,
                    }
                }
                Ok(None) => What::NotRemembered,
                Err(damage) => {
                    damaged = Some((place, damage));
                    What::Restoring
                }
            };
            answers.push(Answer {
                topic,
                partition,
                what,
            });
        }
        if let Some((place, damage)) = damaged {
            self.rebuild_seen_set(place, &damage)?;
        }
        Ok(answers)
    }

    /// In a transaction of its own, which moves no position: so it is in the journal between the records before
    /// and those after, and `verify` finds it there.
    fn forget_id(&mut self, target: &Target, id: Fingerprint) -> Result<Vec<Answer>, Stop> {
        self.close_transaction()?;
        let before = self.look_up(target, id)?;
        let is_remembered = |it: &&Answer| matches!(it.what, What::Remembered { .. });
        if !before.iter().any(|it| is_remembered(&it)) {
            return Ok(before);
        }
        let Some(sink) = &mut self.sink else {
            return Ok(not_forgotten(before));
        };
        match commit::begin(sink) {
            Ok(open) => self.open = Some(open),
            Err(trouble) => {
                self.resolve(trouble)?;
                return Ok(not_forgotten(before));
            }
        }
        for answer in before.iter().filter(is_remembered) {
            let place = self.scopes.place(&answer.topic, answer.partition);
            if let Some(scope) = place.and_then(|place| self.scopes.at(place)) {
                scope.window.forget_id(id);
                scope.touched = true;
            }
        }
        self.close_transaction()?;
        // What was aborted is remembered again.
        let after = self.look_up(target, id)?;
        let forgotten = |mut answer: Answer| {
            answer.what = match answer.what {
                What::NotRemembered => What::Forgotten,
                _ => What::NotForgotten,
            };
            answer
        };
        let answers: Vec<Answer> = after.into_iter().map(forgotten).collect();
        tracing::warn!(
            worker = self.index,
            topic = target.topic,
            ?answers,
            "an id was forgotten by an operator"
        );
        Ok(answers)
    }

    fn rebuild(&mut self, target: &Target) -> Result<Vec<Answer>, Stop> {
        self.close_transaction()?;
        let mut answers = self.restoring(target);
        let active = self.scopes.active().map(|(_, scope)| scope);
        let judged = active.filter(|scope| scope.topic.is_judged());
        let wanted: Vec<Partition> = judged
            .filter(|scope| target.covers(scope.topic.input(), scope.partition))
            .map(|scope| scope.partition_key())
            .collect();
        for partition in wanted {
            let Some(scope) = self.scopes.remove(&partition) else {
                continue;
            };
            self.to_start.retain(|(starting, _)| *starting != partition);
            self.awaiting.remove(&partition);
            self.pause(std::slice::from_ref(&partition));
            let Scope {
                topic,
                partition,
                metrics,
                window,
                ..
            } = scope;
            window.shelf().set_all_aside("an operator asked for that");
            drop(window);
            answers.push(Answer {
                topic: topic.name.clone(),
                partition,
                what: What::Rebuilding,
            });
            self.request_recovery(topic, partition, metrics, None)?;
        }
        self.hold_incomplete();
        self.tell_recovery();
        tracing::warn!(
            worker = self.index,
            topic = target.topic,
            ?answers,
            "rebuilt by an operator"
        );
        Ok(answers)
    }

    fn restoring(&self, target: &Target) -> Vec<Answer> {
        let recovering = self.scopes.recovering().iter();
        let judged = recovering.filter(|(_, it)| it.topic.is_judged());
        let covered = judged.filter(|((_, number), it)| target.covers(it.topic.input(), *number));
        covered
            .map(|((topic, partition), _)| Answer {
                topic: topic.clone(),
                partition: *partition,
                what: What::Restoring,
            })
            .collect()
    }
}

fn not_forgotten(mut answers: Vec<Answer>) -> Vec<Answer> {
    for answer in &mut answers {
        answer.what = What::NotForgotten;
    }
    answers
}
