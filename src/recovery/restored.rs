//! Step 4 of recovery: the partition is handed over, if journal and committed offset agree.

use super::locate::between_lost;
use super::{Job, Key, Recovered, Request, Restored, Room, Stage};
use crate::config::{Changed, Config, Start};
use crate::exit::Stop;
use crate::inspect::time;
use crate::journal::{Since, Terms};
use crate::window::SeenWindow;

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
        terms,
        is_preload,
        first,
        ..
    } = job;
    let (
        Stage::Read {
            located,
            next,
            until,
        },
        Some(mut window),
    ) = (stage, window)
    else {
        return Err(Stop::internal("recovery ended before it had begun"));
    };
    let Some(journal) = &request.journal else {
        return Ok(Restored {
            window,
            input_offset: located.input_offset,
            input_end: located.input_end,
            committed: located.committed,
            journal_next: 0,
        });
    };
    let last_run = window.checkpoint().map(|checkpoint| checkpoint.next_offset);
    let (topic, partition) = (&request.topic, request.partition);
    let group = &config.kafka.group_id;
    let (input_offset, committed) = (located.input_offset, located.committed);
    let has_runs = last_run.is_some();
    if committed && !has_runs && config.journal.retention.is_none() {
        return Err(Stop::contradiction(format!(
            "{topic}-{partition}: the group {group} has committed offset {input_offset}, but the journal {journal}-{partition} holds no run: what was let through is no longer known. If the journal was deleted, or the group was used by another program, choose a new kafka.group_id, or delete the group's offsets for the topic to begin anew"
        )));
    }
    if !committed && is_preload {
        return Err(preload_unfinished(&format!("{topic}-{partition}"), journal));
    }
    let is_shorter = last_run.is_some_and(|reached| reached > located.input_end);
    if !committed && is_shorter && request.is_between_hops() {
        return Err(between_lost(topic, &request.input, group));
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
    if config.journal.retention.is_some() {
        // Runs may have expired before they were over.
        let is_empty = located.journal_low == located.journal_high;
        let oldest = window.oldest().filter(|_| is_empty);
        let oldest = oldest.map(|(time_ms, ordinal)| Since {
            ordinal,
            time_ms: Some(time_ms),
        });
        if let Some(known) = first.or(oldest).filter(|known| known.ordinal > 0) {
            window.whole_only_from(known);
        }
        if committed && !has_runs {
            window.begin_here();
        }
    }
    if !committed && !has_runs && !begins_with_its_input(&request, input_offset, config) {
        window.begin_here();
    }
    if let Some(earlier) = terms {
        let now = Terms::from(config);
        if earlier.id_from != now.id_from {
            id_source_changed(&request, journal, &mut window, [&earlier, &now], config)?;
        }
        if now.remember_more_than(&earlier) {
            window.grown(&earlier, first);
            let whole = whole_from(&window, config);
            tracing::info!(topic, partition, "the window was grown: {whole}");
        }
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
        input_end: located.input_end,
        committed,
        journal_next: next.max(until),
    })
}

/// Whether a group that begins here has missed nothing of its input.
fn begins_with_its_input(request: &Request, input_offset: i64, config: &Config) -> bool {
    match request.is_between_hops() {
        // What was passed on begins where the first hop did.
        true => config.input.start == Start::Earliest,
        false => input_offset == 0,
    }
}

/// The ids that are remembered are not those that records are asked for now. Whether they are the same
/// bytes all the same, only a person knows.
fn id_source_changed(
    request: &Request,
    journal: &str,
    window: &mut SeenWindow,
    [earlier, now]: [&Terms; 2],
    config: &Config,
) -> Result<(), Stop> {
    let (topic, partition) = (&request.topic, request.partition);
    let (earlier, now) = (&earlier.id_from, &now.id_from);
    match config.id.changed {
        Changed::Refuse => Err(taken_from_elsewhere(journal, earlier, now)),
        Changed::Keep => {
            tracing::warn!(
                topic,
                partition,
                "the ids that are remembered were taken from {earlier}, and id.from is {now}: they are kept (id.changed: keep)"
            );
            Ok(())
        }
        Changed::Forget => {
            tracing::warn!(
                topic,
                partition,
                "the ids that are remembered were taken from {earlier}, and id.from is {now}: they are forgotten (id.changed: forget)"
            );
            window.forget();
            Ok(())
        }
    }
}

/// A preload was killed, of this partition or input.
pub(crate) fn preload_unfinished(of: &str, journal: &str) -> Stop {
    Stop::contradiction(format!(
        "{of}: a preload of the journal {journal} was begun and not finished. Run kafka-dedup preload again; to begin without, delete the journal topic"
    ))
}

/// `id.changed: refuse`.
pub(crate) fn taken_from_elsewhere(journal: &str, earlier: &str, now: &str) -> Stop {
    Stop::contradiction(format!(
        "the ids that the journal {journal} remembers were taken from {earlier}, and id.from is {now}: they might not be known again. If both give a message the same bytes, set id.changed: keep; to begin with nothing remembered, set id.changed: forget; else set id.from to {earlier}"
    ))
}

/// From when on a window that was grown remembers all that it has to.
fn whole_from(window: &SeenWindow, config: &Config) -> String {
    let since = window.since();
    let since_ms = since.and_then(|since| since.time_ms.or(window.stream_time_ms()));
    let Some((since, since_ms)) = since.zip(since_ms) else {
        return "nothing was forgotten before, so it is whole".to_owned();
    };
    let by_time = config.window.time_ms.map(|ms| {
        let until = since_ms.saturating_add(ms);
        format!("stream time has passed {}", time(until))
    });
    let by_count = config.window.ids.map(|ids| {
        let until = since.ordinal.saturating_add(ids);
        let left = until.saturating_sub(window.next_ordinal());
        format!("{left} more ids were let through")
    });
    let until: Vec<String> = by_time.into_iter().chain(by_count).collect();
    format!(
        "remembered is what was let through from {} on, and all that it has to be when {}",
        time(since_ms),
        until.join(", or ")
    )
}
