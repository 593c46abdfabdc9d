//! Step 4 of recovery: the partition is handed over, if journal and committed offset agree.

use super::{Job, Key, Recovered, Restored, Room, Stage};
use crate::config::Config;
use crate::exit::Stop;

impl Room {
    /// Hands the partition over, whatever has become of it.
    pub(super) fn finish(&mut self, key: &Key, outcome: Result<(), Stop>) {
        if outcome.is_ok() && self.must_ask_again(key) {
            return self.postpone(key, "the journal holds runs, and no offset was committed");
        }
        self.stop_reading(key);
        let Some(job) = self.jobs.remove(key) else {
            return;
        };
        job.request.metrics.restore_remaining.set(0);
        if let (Ok(()), Some(kind)) = (&outcome, job.kind) {
            self.metrics.restores.with_label_values(&[kind]).inc();
        }
        let request = &job.request;
        let (topic, partition, epoch) = (request.topic.clone(), request.partition, request.epoch);
        let outcome = outcome.and_then(|()| restored(job, &self.config));
        // The worker has gone when nobody receives; then nobody needs the answer.
        let _ = self.outbox.send(Recovered {
            topic,
            partition,
            epoch,
            outcome,
        });
    }

    /// Runs without a committed offset contradict each other, unless another owner has committed both
    /// since the offset was asked for: this process was held up, and does not know yet that it has lost
    /// the partition. An offset that is asked for after the runs were seen tells.
    fn must_ask_again(&mut self, key: &Key) -> bool {
        let Some(job) = self.jobs.get_mut(key) else {
            return false;
        };
        let Stage::Read { located, .. } = &job.stage else {
            return false;
        };
        let has_runs = job
            .window
            .as_ref()
            .is_some_and(|w| w.checkpoint().is_some());
        has_runs && !located.committed && !std::mem::replace(&mut job.asked_again, true)
    }
}

/// Holds the journal against the committed offset: both change in one transaction, so one without
/// the other means that somebody has taken the truth away. That is never guessed around.
fn restored(job: Job, config: &Config) -> Result<Restored, Stop> {
    let Job {
        request,
        stage,
        started,
        window,
        ..
    } = job;
    let (
        Stage::Read {
            located,
            next,
            until,
        },
        Some(window),
    ) = (stage, window)
    else {
        return Err(Stop::internal("recovery ended before it had begun"));
    };
    let last_run = window.checkpoint().map(|checkpoint| checkpoint.next_offset);
    let (topic, partition, journal) = (&request.topic, request.partition, &request.journal);
    let group = &config.kafka.group_id;
    let (input_offset, committed) = (located.input_offset, located.committed);
    let has_runs = last_run.is_some();
    if committed && !has_runs && config.journal.retention.is_none() {
        return Err(Stop::contradiction(format!(
            "{topic}-{partition}: the group {group} has committed offset {input_offset}, but the journal {journal}-{partition} holds no run: what was let through is no longer known. If the journal was deleted, or the group was used by another program, choose a new kafka.group_id, or delete the group's offsets for the topic to begin anew"
        )));
    }
    if !committed && has_runs {
        let reached = last_run.map_or_else(String::new, |offset| {
            format!(" up to input offset {offset}")
        });
        return Err(Stop::contradiction(format!(
            "{topic}-{partition}: the journal {journal}-{partition} holds runs{reached}, but the group {group} has no committed offset: it expired or was deleted. To go on, commit that offset with kafka-consumer-groups --reset-offsets; to begin anew, delete the journal topic"
        )));
    }
    if last_run.is_some_and(|reached| reached > input_offset) {
        tracing::warn!(
            topic,
            partition,
            input_offset,
            judged_up_to = last_run,
            "the group's offset was set back: records judged before are judged again, and their ids are remembered"
        );
    }
    tracing::info!(
        topic,
        partition,
        ids = window.ids(),
        input_offset,
        journal_offset = until,
        millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "seen set is up to date"
    );
    Ok(Restored {
        window,
        input_offset,
        committed,
        journal_next: next.max(until),
    })
}
