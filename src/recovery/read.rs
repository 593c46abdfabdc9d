//! Step 3 of recovery: the journal, from where the window ends to the watermark that was taken.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::{HANDOVER_PATIENCE, HANDOVER_PAUSE, Jobs, Key, Located, Room, Stage, warm};
use crate::exit::Stop;
use crate::journal::{Run, RunError, Since, run};
use crate::metrics::Metrics;
use crate::store::{Anchor, Damage};
use crate::window::{SeenWindow, Sizing};

/// Records taken from the reader before positions are looked at again.
const RECORDS_PER_ROUND: usize = 256;
/// How long the reader waits for a record before positions are looked at again.
const WAIT: Duration = Duration::from_millis(20);
/// Ids in memory, as a multiple of the active slice's, beyond which reading waits for the store.
const AHEAD_OF_STORE: u64 = 4;
/// Reading waits no longer than this for the store, after each run.
const KEEP_UP: Duration = Duration::from_secs(1);
/// A restore that takes long says so in the log this often.
const PROGRESS: Duration = Duration::from_secs(10);

/// Why the reading of a partition ended before its end.
pub(super) enum Ended {
    /// The window came from a store that does not fit the journal: begin again without it.
    Unfit(String),
    /// A slice of the window cannot be read: begin again with what is left in the store.
    Damaged(Damage),
    Stop(Stop),
}

impl Room {
    /// Finds the window to go on with, and lets the reader read what comes after it.
    pub(super) fn begin_reading(&mut self, key: &Key, located: Located) {
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        if job.request.journal.is_none() {
            let shelf = self.nothing.shelf(job.request.lineage.clone());
            job.window = Some(SeenWindow::new(self.config.window, job.sizing, shelf));
            job.stage = Stage::Read {
                located,
                next: 0,
                until: 0,
            };
            return self.finish(key, Ok(()));
        }
        // Looked at again rather than waited for: the owner may be another worker's recovery, which in turn
        // may want a store that a job of ours has.
        let held = job.window.is_none() && self.store.is_held_here(&job.request.lineage);
        if held && job.started.elapsed() < HANDOVER_PATIENCE {
            let not_before = Instant::now() + HANDOVER_PAUSE;
            job.stage = Stage::Locate { not_before };
            return;
        }
        let (low, until) = (located.journal_low, located.journal_high);
        let complete = |window: &SeenWindow| {
            let checkpoint = window.checkpoint();
            checkpoint.is_some_and(|checkpoint| located.is_complete(&checkpoint))
        };
        // A journal with a retention of its own may have lost runs that are known here. Whether one is
        // missing between what is known and what is left, the chain of ordinals tells.
        let expires = self.config.journal.retention.is_some();
        let known = job.window.take().zip(job.journal_next);
        let next = match known {
            Some((window, next)) if next >= low || complete(&window) || expires => {
                job.window = Some(window);
                job.may_not_fit = expires;
                next.max(low)
            }
            too_old => {
                if let Some((window, _)) = too_old {
                    window
                        .shelf()
                        .set_all_aside("the journal was trimmed beyond what it holds");
                }
                let (window, terms) = warm::start(
                    &job.request,
                    &located,
                    &self.store,
                    &self.config,
                    &self.stopping,
                );
                let checkpoint = window.checkpoint();
                job.kind = Some(checkpoint.map_or("cold", |_| "warm"));
                job.may_not_fit = false;
                job.terms = terms.filter(|_| checkpoint.is_some());
                job.first = None;
                job.anchor = checkpoint
                    .filter(|checkpoint| !located.is_complete(checkpoint))
                    .map(|checkpoint| checkpoint.anchor);
                job.window = Some(window);
                job.anchor.map_or(low, |anchor| anchor.offset)
            }
        };
        if self.read_up_to.get(key).is_some_and(|read| *read > next) {
            self.replace_reader();
        }
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        job.journal_next = Some(next);
        let metrics = &job.request.metrics;
        metrics.restore_remaining.set((until - next).max(0));
        metrics.restored_ids.set(ids(job.window.as_ref()));
        job.stage = Stage::Read {
            located,
            next,
            until,
        };
        if next >= until {
            self.finish(key, Ok(()));
            return;
        }
        let mut list = TopicPartitionList::new();
        let assigned = list
            .add_partition_offset(&key.0, key.1, Offset::Offset(next))
            .and_then(|()| self.reader.incremental_assign(&list));
        if let Some(job) = self.jobs.get_mut(key) {
            job.reading = assigned.is_ok();
        }
        if let Err(error) = assigned {
            self.postpone(
                key,
                &format!("the journal {}-{} cannot be read: {error}", key.0, key.1),
            );
        }
    }

    /// Some records, then a look at how far each partition has come.
    pub(super) fn read(&mut self) {
        let reading = self
            .jobs
            .values()
            .any(|job| matches!(job.stage, Stage::Read { .. }));
        if !reading {
            if !self.jobs.is_empty() {
                std::thread::sleep(WAIT);
            }
            return;
        }
        for _ in 0..RECORDS_PER_ROUND {
            match self.reader.poll(WAIT) {
                None => break,
                Some(Ok(message)) => {
                    fail::fail_point!("restore-read");
                    if let Err((key, ended)) = apply(&mut self.jobs, &self.metrics, &message) {
                        drop(message);
                        return self.end(&key, ended);
                    }
                }
                Some(Err(error)) => {
                    self.metrics.client_error(error.rdkafka_error_code());
                    if error.rdkafka_error_code()
                        == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
                    {
                        // The client goes on trying.
                        tracing::warn!(%error, "a journal topic may not be read; trying again. Grant Read on it to this user (kafka-dedup check names it)");
                    }
                    if is_out_of_range(&error) {
                        // Which partition it was, the error does not say.
                        return self.read_again("the journal was trimmed while it was read");
                    }
                    break;
                }
            }
        }
        self.look_at_positions();
    }

    /// The position is the measure of how far a partition has come: it moves over markers and aborted
    /// runs, which no count of records does.
    fn look_at_positions(&mut self) {
        let Ok(positions) = self.reader.position() else {
            return;
        };
        for element in positions.elements() {
            let Offset::Offset(position) = element.offset() else {
                continue;
            };
            let key = (element.topic().to_owned(), element.partition());
            let Some(job) = self.jobs.get_mut(&key) else {
                continue;
            };
            let Stage::Read { until, next, .. } = &mut job.stage else {
                continue;
            };
            *next = position.max(*next);
            self.read_up_to.insert(key.clone(), *next);
            let left = (*until - *next).max(0);
            job.request.metrics.restore_remaining.set(left);
            if job.progress_told.elapsed() >= PROGRESS {
                job.progress_told = Instant::now();
                tracing::info!(
                    topic = job.request.topic,
                    partition = job.request.partition,
                    journal_offsets_left = left,
                    ids = ids(job.window.as_ref()),
                    seconds = job.started.elapsed().as_secs(),
                    "the seen set is being restored from the journal"
                );
            }
            match job.anchor {
                _ if left > 0 => {}
                None => self.finish(&key, Ok(())),
                Some(anchor) => {
                    let why = format!("the journal has no run at offset {}", anchor.offset);
                    return self.end(&key, Ended::Unfit(why));
                }
            }
        }
    }

    /// The partition is located again, and its window looked for in the store anew.
    fn end(&mut self, key: &Key, ended: Ended) {
        let why = match &ended {
            Ended::Stop(stop) => return self.finish(key, Err(stop.clone())),
            Ended::Unfit(why) => why.clone(),
            Ended::Damaged(damage) => damage.to_string(),
        };
        if let Some(job) = self.jobs.get_mut(key) {
            if let Some(window) = job.window.take() {
                match &ended {
                    Ended::Damaged(damage) => window.shelf().set_damaged_aside(damage),
                    _ => window.shelf().set_all_aside(&why),
                }
            }
            (job.journal_next, job.anchor) = (None, None);
        }
        self.postpone(key, &why);
    }

    /// A reader that is let go of and assigned anew may still tell its old position for a moment,
    /// and an old position beyond the end would end a restore before its time (I5). So none is asked
    /// to go back: there is a new one, and all partitions that are being read are located again.
    fn replace_reader(&mut self) {
        match super::journal_reader(&self.config) {
            Ok(reader) => {
                self.read_again("the reader is replaced");
                self.reader = reader;
                self.read_up_to.clear();
            }
            // It was made before, from the same configuration.
            Err(stop) => tracing::warn!(%stop, "the journal's reader could not be replaced"),
        }
    }

    /// All partitions that are being read are located again, and go on from what they have.
    fn read_again(&mut self, why: &str) {
        let keys: Vec<Key> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.stage, Stage::Read { .. }))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.postpone(&key, why);
        }
    }
}

/// Takes one journal record into the window of its partition.
fn apply(
    jobs: &mut Jobs,
    metrics: &Metrics,
    message: &BorrowedMessage<'_>,
) -> Result<(), (Key, Ended)> {
    let key = (message.topic().to_owned(), message.partition());
    let Some(job) = jobs.get_mut(&key) else {
        return Ok(());
    };
    let (
        Stage::Read {
            next,
            located,
            until,
        },
        Some(window),
    ) = (&mut job.stage, &mut job.window)
    else {
        return Ok(());
    };
    let low = located.journal_low;
    let offset = message.offset();
    if job.journal_next.is_some_and(|known| offset < known) {
        return Ok(());
    }
    *next = offset + 1;
    job.journal_next = Some(offset + 1);
    let left = (*until - *next).max(0);
    job.request.metrics.restore_remaining.set(left);
    let bytes = message.payload().unwrap_or_default();
    let read = Anchor {
        offset,
        checksum: run::checksum(bytes),
    };
    if let Some(anchor) = job.anchor.take() {
        if read == anchor {
            job.may_not_fit = true;
            // Its ids are known; under which terms it was written may not be.
            if let Ok(run) = Run::decode(bytes) {
                window.note(&run);
                job.is_preload = run.preload;
                job.terms = run.terms;
            }
            return Ok(());
        }
        let why = format!(
            "the journal's run at offset {} is not the one that it ends with",
            anchor.offset
        );
        return Err((key, Ended::Unfit(why)));
    }
    let (journal, partition) = (&key.0, key.1);
    let (input, anew) = (&job.request.input, &job.request.to_begin_anew);
    let unusable = |why: String| {
        Ended::Stop(Stop::contradiction(format!(
            "the journal {journal}-{partition} cannot be trusted at offset {offset}: {why}. Nothing was forwarded since. To begin anew, choose a new kafka.group_id, or: {anew}"
        )))
    };
    let outcome = match Run::decode(bytes) {
        Ok(run) if !job.request.identity.has_written(&run) => Err(unusable(format!(
            "the run was written for another group, topic or partition, or for a topic {input} that was deleted and created again"
        ))),
        // Only trimming takes a journal's first runs away, and it moves the beginning.
        Ok(run) if window.checkpoint().is_none() && low == 0 && run.first_ordinal > 0 => {
            Err(unusable(format!(
                "its first run begins with ordinal {}: the journal was deleted and created again",
                run.first_ordinal
            )))
        }
        Ok(run) => match window.apply(&run, read) {
            Ok(()) => {
                if job.kind == Some("cold") {
                    let time_ms = run.times_ms.first().copied().or(run.stream_time_ms);
                    // What was before a beginning is not asked for.
                    let ordinal = if run.begins { 0 } else { run.first_ordinal };
                    let first = Since { ordinal, time_ms };
                    job.first = job.first.filter(|_| !run.begins).or(Some(first));
                }
                job.is_preload = run.preload;
                job.terms = run.terms;
                keep_up(window, job.sizing).map_err(Ended::Damaged)
            }
            Err(broken) if job.may_not_fit => Err(Ended::Unfit(broken.to_string())),
            Err(broken) => Err(unusable(broken.to_string())),
        },
        Err(RunError::Foreign) => {
            // Somebody else's record: a genuine run that is missing would break the chain of
            // ordinals, so skipping this one hides nothing.
            metrics.journal_foreign_records.inc();
            tracing::warn!(
                journal,
                partition,
                offset,
                "a record in the journal is not a run; skipped. Nothing but kafka-dedup should write there"
            );
            Ok(())
        }
        Err(error) => Err(unusable(error.to_string())),
    };
    job.request.metrics.restored_ids.set(ids(Some(window)));
    outcome.map_err(|ended| (key, ended))
}

/// The journal may be read faster than slices are sealed: reading waits then, so that memory stays
/// bounded (I8). Where nothing is on its way to the store, or the disk hangs, waiting would not help.
fn keep_up(window: &mut SeenWindow, sizing: Sizing) -> Result<(), Damage> {
    let bound = AHEAD_OF_STORE.saturating_mul(sizing.active_ids);
    let deadline = Instant::now() + KEEP_UP;
    loop {
        let steps = window.tend(4)?;
        let nothing_comes = steps == 0 && !window.is_sealing();
        if window.ids_in_memory() <= bound || nothing_comes || Instant::now() >= deadline {
            return Ok(());
        }
        if steps == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn ids(window: Option<&SeenWindow>) -> i64 {
    let ids = window.map_or(0, SeenWindow::ids);
    i64::try_from(ids).unwrap_or(i64::MAX)
}

fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}
