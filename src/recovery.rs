//! Recovery: brings the seen set of an assigned partition up to date, before the worker may judge
//! its records (I5). It reads Kafka; it writes nothing.
//!
//! For each partition, in this order, which is what makes it safe:
//! 1. `locate`: the stable committed offset; **after** that the journal's true high watermark.
//!    An answer means that no transaction has offsets pending for the partition, and a member of an
//!    older generation cannot add any; so all that is committed lies in the journal below that
//!    watermark, and what an earlier owner left open there can only be aborted.
//! 2. `read`: the journal, read_committed, until the reader's position has reached the watermark.
//! 3. `hand over`: the window and the input offset at which to go on.
//!
//! It runs on a thread of its own beside the worker's, so that other partitions go on meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::{Config, Start};
use crate::exit::Stop;
use crate::journal::{Run, RunError};
use crate::kafka::clients;
use crate::kafka::context::Logged;
use crate::metrics::{Metrics, PartitionMetrics};
use crate::window::SeenWindow;

/// A partition whose seen set is to be brought up to date.
pub struct Request {
    pub topic: String,
    pub partition: i32,
    pub journal: String,
    /// Whose runs to expect, see [`crate::journal::identity`].
    pub identity: u64,
    /// What is known already; without an overlay.
    pub window: SeenWindow,
    /// The journal offset up to which `window` is complete; `None` when it holds nothing.
    pub journal_next: Option<i64>,
    /// Tells an answer apart from one to an earlier assignment of the same partition.
    pub epoch: u64,
    /// Set when nobody wants the answer any more.
    pub cancelled: Arc<AtomicBool>,
    pub metrics: PartitionMetrics,
}

/// The answer to a [`Request`].
pub struct Recovered {
    pub topic: String,
    pub partition: i32,
    pub epoch: u64,
    pub outcome: Result<Restored, Stop>,
}

/// A seen set that covers the journal up to the committed input offset.
pub struct Restored {
    pub window: SeenWindow,
    /// The input offset of the next record to judge.
    pub input_offset: i64,
    /// Whether the group had committed an offset for the partition.
    pub committed: bool,
    /// The journal offset up to which the window is complete.
    pub journal_next: i64,
}

/// The worker's handle on its recovery thread; the thread ends when this is dropped.
pub struct Recovery {
    requests: Option<Sender<Request>>,
    answers: Receiver<Recovered>,
    thread: Option<std::thread::JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
}

impl Recovery {
    /// Starts the thread.
    ///
    /// # Errors
    /// A property that librdkafka does not accept (64), or no thread to be had (70).
    pub fn start(
        config: &Arc<Config>,
        metrics: &Arc<Metrics>,
        worker: usize,
    ) -> Result<Self, Stop> {
        let unusable = |error| {
            Stop::usage(format!(
                "kafka: the journal's reader cannot be created: {error}"
            ))
        };
        let reader = clients::journal_reader_config(config)
            .create_with_context(Logged::new())
            .map_err(unusable)?;
        let observer = clients::observer_config(config)
            .create_with_context(Logged::new())
            .map_err(unusable)?;
        let (requests, inbox) = mpsc::channel();
        let (outbox, answers) = mpsc::channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let room = Room {
            config: Arc::clone(config),
            metrics: Arc::clone(metrics),
            reader,
            observer,
            outbox,
            jobs: HashMap::new(),
            stopping: Arc::clone(&stopping),
        };
        let thread = std::thread::Builder::new()
            .name(format!("recovery-{worker}"))
            .spawn(move || room.run(&inbox))
            .map_err(|error| Stop::internal(format!("no thread for recovery: {error}")))?;
        Ok(Self {
            requests: Some(requests),
            answers,
            thread: Some(thread),
            stopping,
        })
    }

    /// Asks for a partition; the answer comes through [`Recovery::next`].
    ///
    /// # Errors
    /// The thread has ended by a defect.
    pub fn request(&self, request: Request) -> Result<(), Stop> {
        let gone = || Stop::internal("the recovery thread has ended unexpectedly");
        self.requests
            .as_ref()
            .ok_or_else(gone)?
            .send(request)
            .map_err(|_| gone())
    }

    /// The next answer, if one is there.
    pub fn next(&self) -> Option<Recovered> {
        self.answers.try_recv().ok()
    }
}

impl Drop for Recovery {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has shown itself already as an unanswered request.
            let _ = thread.join();
        }
    }
}

/// How far a partition has come.
enum Stage {
    /// Nothing asked yet, or the last answer is in doubt: ask again at this time.
    Locate { not_before: Instant },
    /// The journal is read up to `until`.
    Read {
        located: Located,
        next: i64,
        until: i64,
    },
}

struct Located {
    input_offset: i64,
    committed: bool,
}

struct Job {
    request: Request,
    /// The input offset that the last run was committed with.
    last_run: Option<i64>,
    stage: Stage,
    /// The reader is assigned to its journal partition.
    reading: bool,
    attempts: u32,
    started: Instant,
}

/// Jobs by journal topic and partition: that is how runs arrive.
type Jobs = HashMap<(String, i32), Job>;

struct Room {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    /// read_committed, of our group: committed offsets and runs.
    reader: BaseConsumer<Logged>,
    /// read_uncommitted: only such a client is told the true high watermark.
    observer: BaseConsumer<Logged>,
    outbox: Sender<Recovered>,
    jobs: Jobs,
    stopping: Arc<AtomicBool>,
}

/// One question to Kafka may take this long before other partitions get their turn.
const PATIENCE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Records taken from the reader before positions are looked at again.
const RECORDS_PER_ROUND: usize = 256;

impl Room {
    fn run(mut self, inbox: &Receiver<Request>) {
        while !self.stopping.load(Ordering::Relaxed) {
            match self.take_requests(inbox) {
                Ok(()) => {}
                Err(Disconnected) => return,
            }
            self.drop_cancelled();
            self.locate();
            self.read();
        }
    }

    /// Waits for work when there is none; takes all that is there.
    fn take_requests(&mut self, inbox: &Receiver<Request>) -> Result<(), Disconnected> {
        let wait = if self.jobs.is_empty() {
            Duration::from_secs(1)
        } else {
            Duration::ZERO
        };
        let mut next = match inbox.recv_timeout(wait) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Err(Disconnected),
        };
        while let Some(request) = next {
            let key = (request.journal.clone(), request.partition);
            let job = Job {
                request,
                last_run: None,
                stage: Stage::Locate {
                    not_before: Instant::now(),
                },
                reading: false,
                attempts: 0,
                started: Instant::now(),
            };
            // A newer request for the same partition replaces one that nobody waits for any more.
            self.stop_reading(&key);
            self.jobs.insert(key, job);
            next = inbox.try_recv().ok();
        }
        Ok(())
    }

    fn drop_cancelled(&mut self) {
        let cancelled = |job: &Job| job.request.cancelled.load(Ordering::Relaxed);
        let keys: Vec<(String, i32)> = self
            .jobs
            .iter()
            .filter(|(_, job)| cancelled(job))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.stop_reading(&key);
            self.jobs.remove(&key);
        }
    }

    /// Step 1 for every partition that is due.
    fn locate(&mut self) {
        let now = Instant::now();
        let due: Vec<(String, i32)> = self
            .jobs
            .iter()
            .filter(
                |(_, job)| matches!(job.stage, Stage::Locate { not_before } if not_before <= now),
            )
            .map(|(key, _)| key.clone())
            .collect();
        if due.is_empty() {
            return;
        }
        let committed = self.committed_offsets(&due);
        for (key, answer) in due.iter().zip(committed) {
            let Some(job) = self.jobs.get(key) else {
                continue;
            };
            let located = answer.and_then(|committed| self.locate_one(&job.request, committed));
            match located {
                Ok((located, next, until)) => self.begin_reading(key, located, next, until),
                Err(Trouble::Later(why)) => self.postpone(key, &why),
                Err(Trouble::Stop(stop)) => self.finish(key, Err(stop)),
            }
        }
    }

    /// The stable committed offsets of our group. A time-out means that a transaction has offsets
    /// pending for one of the partitions: then each is asked for alone, so that one does not hold
    /// up all.
    fn committed_offsets(&self, keys: &[(String, i32)]) -> Vec<Result<Option<i64>, Trouble>> {
        let ask = |keys: &[(String, i32)]| -> Result<TopicPartitionList, KafkaError> {
            let mut list = TopicPartitionList::with_capacity(keys.len());
            for key in keys {
                if let Some(job) = self.jobs.get(key) {
                    list.add_partition(&job.request.topic, job.request.partition);
                }
            }
            self.reader.committed_offsets(list, PATIENCE)
        };
        let read = |list: &TopicPartitionList, key: &(String, i32)| {
            let request = self.jobs.get(key).map(|job| &job.request);
            let element =
                request.and_then(|request| list.find_partition(&request.topic, request.partition));
            match element {
                None => Err(Trouble::Later(
                    "the committed offset was not answered".to_owned(),
                )),
                Some(element) => match (element.error(), element.offset()) {
                    (Err(error), _) => Err(Trouble::Later(format!("committed offset: {error}"))),
                    (Ok(()), Offset::Offset(offset)) => Ok(Some(offset)),
                    (Ok(()), _) => Ok(None),
                },
            }
        };
        match ask(keys) {
            Ok(list) => keys.iter().map(|key| read(&list, key)).collect(),
            Err(_) if keys.len() > 1 => keys
                .iter()
                .map(|key| match ask(std::slice::from_ref(key)) {
                    Ok(list) => read(&list, key),
                    Err(error) => Err(in_doubt(&error)),
                })
                .collect(),
            Err(error) => keys.iter().map(|_| Err(in_doubt(&error))).collect(),
        }
    }

    /// The rest of step 1: where to begin in the input and in the journal, and where the journal
    /// ends. Finds out whether Kafka still has what the committed offset stands for.
    fn locate_one(
        &self,
        request: &Request,
        committed: Option<i64>,
    ) -> Result<(Located, i64, i64), Trouble> {
        let (topic, partition) = (&request.topic, request.partition);
        let watermarks = |topic: &str| {
            self.observer
                .fetch_watermarks(topic, partition, PATIENCE * 5)
                .map_err(|error| {
                    Trouble::Later(format!("watermarks of {topic}-{partition}: {error}"))
                })
        };
        let (journal_low, journal_high) = watermarks(&request.journal)?;
        let (input_low, input_high) = watermarks(topic)?;
        let group = &self.config.kafka.group_id;
        let input_offset = match (committed, self.config.input.start) {
            (Some(offset), _) if offset < input_low => {
                return Err(Trouble::Stop(Stop::contradiction(format!(
                    "{topic}-{partition}: the group {group} has committed offset {offset}, but the topic begins at {input_low}: retention has deleted {} offsets that were not read. To go on without them: kafka-consumer-groups --reset-offsets --to-earliest --topic {topic}:{partition} --group {group} --execute, then start again",
                    input_low - offset
                ))));
            }
            (Some(offset), _) if offset > input_high => {
                return Err(Trouble::Stop(Stop::contradiction(format!(
                    "{topic}-{partition}: the group {group} has committed offset {offset}, but the topic ends at {input_high}: it was deleted and created again, or lost data. Delete the journal {} and the group's offsets for the topic to begin anew",
                    request.journal
                ))));
            }
            (Some(offset), _) => offset,
            (None, Start::Earliest) => input_low,
            (None, Start::Latest) => input_high,
            (None, Start::Fail) => {
                return Err(Trouble::Stop(Stop::contradiction(format!(
                    "{topic}-{partition}: the group {group} has no committed offset, and input.start is fail. Commit one with kafka-consumer-groups --reset-offsets, or set input.start to earliest or latest"
                ))));
            }
        };
        // Below the journal's first offset everything was trimmed because it had aged out.
        let next = request.journal_next.unwrap_or(journal_low).max(journal_low);
        Ok((
            Located {
                input_offset,
                committed: committed.is_some(),
            },
            next,
            journal_high,
        ))
    }

    fn begin_reading(&mut self, key: &(String, i32), located: Located, next: i64, until: i64) {
        let limits = self.config.window;
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        if job.request.journal_next.is_some_and(|known| known < next) {
            // Runs after those that the window knows have been trimmed: it is too old to build on.
            job.request.window = SeenWindow::new(limits);
            job.request.journal_next = None;
        }
        job.request.metrics.restore_remaining.set(until - next);
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
        job.reading = assigned.is_ok();
        if let Err(error) = assigned {
            self.postpone(
                key,
                &format!("the journal {}-{} cannot be read: {error}", key.0, key.1),
            );
        }
    }

    /// Step 2: some records, then a look at how far each partition has come. The position is the
    /// measure: it moves over markers and aborted runs, which no count of records does.
    fn read(&mut self) {
        let reading = self
            .jobs
            .values()
            .any(|job| matches!(job.stage, Stage::Read { .. }));
        if !reading {
            if !self.jobs.is_empty() {
                std::thread::sleep(Duration::from_millis(20));
            }
            return;
        }
        for _ in 0..RECORDS_PER_ROUND {
            match self.reader.poll(Duration::from_millis(20)) {
                None => break,
                Some(Ok(message)) => {
                    if let Err((key, stop)) = apply(&mut self.jobs, &self.metrics, &message) {
                        drop(message);
                        self.finish(&key, Err(stop));
                        return;
                    }
                }
                Some(Err(error)) => {
                    self.metrics.client_error(error.rdkafka_error_code());
                    if is_out_of_range(&error) {
                        // Trimmed under our hands; which partition, the error does not say.
                        self.read_again();
                        return;
                    }
                    break;
                }
            }
        }
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
            if let Stage::Read { until, next, .. } = &mut job.stage {
                *next = position.max(*next);
                job.request
                    .metrics
                    .restore_remaining
                    .set((*until - *next).max(0));
                if *next >= *until {
                    self.finish(&key, Ok(()));
                }
            }
        }
    }

    fn read_again(&mut self) {
        let keys: Vec<(String, i32)> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.stage, Stage::Read { .. }))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.postpone(&key, "the journal was trimmed while it was read");
        }
    }

    /// Step 3: hands the partition over, whatever has become of it.
    fn finish(&mut self, key: &(String, i32), outcome: Result<(), Stop>) {
        self.stop_reading(key);
        let Some(job) = self.jobs.remove(key) else {
            return;
        };
        job.request.metrics.restore_remaining.set(0);
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

    /// Asks again later, for ever: the partition is not touched meanwhile, and /readyz says so.
    fn postpone(&mut self, key: &(String, i32), why: &str) {
        self.stop_reading(key);
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        job.attempts += 1;
        job.reading = false;
        let pause = Duration::from_millis(50)
            .saturating_mul(1 << job.attempts.min(7))
            .min(LONGEST_PAUSE);
        let waited = job.started.elapsed().as_secs();
        if job.attempts.is_power_of_two() && job.attempts > 2 {
            tracing::warn!(
                topic = job.request.topic,
                partition = job.request.partition,
                attempts = job.attempts,
                waited_seconds = waited,
                "the seen set cannot be brought up to date yet: {why}"
            );
        } else {
            tracing::debug!(
                topic = job.request.topic,
                partition = job.request.partition,
                attempts = job.attempts,
                "recovery waits: {why}"
            );
        }
        job.stage = Stage::Locate {
            not_before: Instant::now() + pause,
        };
    }

    fn stop_reading(&self, key: &(String, i32)) {
        let reading = self.jobs.get(key).is_some_and(|job| job.reading);
        if !reading {
            return;
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(&key.0, key.1);
        if let Err(error) = self.reader.incremental_unassign(&list) {
            tracing::debug!(journal = key.0, partition = key.1, %error, "letting go of the journal");
        }
    }
}

struct Disconnected;

enum Trouble {
    Later(String),
    Stop(Stop),
}

fn in_doubt(error: &KafkaError) -> Trouble {
    let why = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut) => {
            "an earlier transaction still has offsets pending; it ends by its transaction.timeout at the latest".to_owned()
        }
        _ => format!("committed offset: {error}"),
    };
    Trouble::Later(why)
}

fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}

/// Takes one journal record into the window of its partition.
fn apply(
    jobs: &mut Jobs,
    metrics: &Metrics,
    message: &BorrowedMessage<'_>,
) -> Result<(), ((String, i32), Stop)> {
    let key = (message.topic().to_owned(), message.partition());
    let Some(job) = jobs.get_mut(&key) else {
        return Ok(());
    };
    let Stage::Read { next, .. } = &mut job.stage else {
        return Ok(());
    };
    let offset = message.offset();
    if job.request.journal_next.is_some_and(|known| offset < known) {
        return Ok(());
    }
    let (journal, partition) = (&key.0, key.1);
    let unusable = |why: String| {
        Stop::contradiction(format!(
            "the journal {journal}-{partition} cannot be trusted at offset {offset}: {why}. Nothing was forwarded since. To begin anew, delete the journal topic and the group's offsets for {}, or choose a new kafka.group_id",
            job.request.topic
        ))
    };
    let outcome = match Run::decode(message.payload().unwrap_or_default()) {
        Ok(run) if run.identity != job.request.identity => Err(unusable(
            "the run was written for another group, topic or partition".to_owned(),
        )),
        Ok(run) => {
            let ids = run.fingerprints.len();
            match job.request.window.apply(&run, offset) {
                Ok(()) => {
                    job.last_run = Some(run.next_offset);
                    job.request
                        .metrics
                        .restored_ids
                        .add(i64::try_from(ids).unwrap_or(i64::MAX));
                    Ok(())
                }
                Err(broken) => Err(unusable(broken.to_string())),
            }
        }
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
    *next = offset + 1;
    job.request.journal_next = Some(offset + 1);
    outcome.map_err(|stop| (key, stop))
}

/// Holds the journal against the committed offset: both change in one transaction, so one without
/// the other means that somebody has taken the truth away. That is never guessed around.
fn restored(job: Job, config: &Config) -> Result<Restored, Stop> {
    let Job {
        request,
        stage,
        started,
        last_run,
        ..
    } = job;
    let Stage::Read {
        located,
        next,
        until,
    } = stage
    else {
        return Err(Stop::internal("recovery ended before it had begun"));
    };
    let (topic, partition, journal) = (&request.topic, request.partition, &request.journal);
    let group = &config.kafka.group_id;
    let (input_offset, committed) = (located.input_offset, located.committed);
    let has_runs = request.window.keep_journal_from().is_some();
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
        ids = request.window.ids(),
        input_offset,
        journal_offset = until,
        millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "seen set is up to date"
    );
    Ok(Restored {
        window: request.window,
        input_offset,
        committed,
        journal_next: next.max(until),
    })
}
