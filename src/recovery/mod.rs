//! Recovery: brings the seen set of an assigned partition up to date, before the worker may judge
//! its records (I5). It reads Kafka; it writes nothing.
//!
//! For each partition, in this order, which is what makes it safe:
//! 1. `locate`: the stable committed offset; **after** that the journal's true high watermark.
//!    An answer means that no transaction has offsets pending for the partition, and a member of an
//!    older generation cannot add any; so all that is committed lies in the journal below that
//!    watermark, and what an earlier owner left open there can only be aborted.
//! 2. `warm`: what the store holds of the seen set, up to its checkpoint; nothing, in a cold start.
//! 3. `read`: the journal from there on, read_committed, until the reader's position has reached the
//!    watermark. The first run read must be the one that the checkpoint names, else the store is
//!    not one of this journal and the start is a cold one.
//! 4. `restored`: the window is handed over, with the input offset at which to go on.
//!
//! It runs on a thread of its own beside the worker's, so that other partitions go on meanwhile.

pub(crate) mod locate;
mod read;
pub(crate) mod restored;
mod warm;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use crate::config::{Config, Start};
use crate::exit::Stop;
use crate::journal::{Identity, Since, Terms};
use crate::kafka::clients;
use crate::kafka::context::Logged;
use crate::metrics::{Metrics, PartitionMetrics};
use crate::store::{Anchor, Checkpoint, Lineage, Store};
use crate::window::{SeenWindow, Sizing};

/// A partition whose seen set is to be brought up to date.
pub struct Request {
    pub topic: String,
    pub partition: i32,
    /// The input that its records are of: another topic in the second of two hops.
    pub input: String,
    /// What a person does to have the group begin anew.
    pub to_begin_anew: String,
    /// `None` where records are passed on and nothing is remembered: then there is only a place to go on at.
    pub journal: Option<String>,
    /// Where to begin when nothing was committed.
    pub start: Start,
    /// Whose runs to expect.
    pub identity: Identity,
    /// Whose seen set to look for in the store.
    pub lineage: Lineage,
    /// What is known already, without an overlay, and the journal offset up to which it is complete.
    pub known: Option<(SeenWindow, i64)>,
    /// Tells an answer apart from one to an earlier assignment of the same partition.
    pub epoch: u64,
    /// Set when nobody wants the answer any more.
    pub cancelled: Arc<AtomicBool>,
    pub metrics: PartitionMetrics,
}

impl Request {
    fn is_between_hops(&self) -> bool {
        self.topic != self.input
    }

    fn key(&self) -> Key {
        let topic = self.journal.as_ref().unwrap_or(&self.topic);
        (topic.clone(), self.partition)
    }
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
    /// Where the input ended when it was asked.
    pub input_end: i64,
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
        store: &Arc<Store>,
        worker: usize,
    ) -> Result<Self, Stop> {
        let reader = journal_reader(config)?;
        let observer = clients::observer_config(config)
            .create_with_context(Logged::new())
            .map_err(|error| unusable(&error))?;
        let (requests, inbox) = mpsc::channel();
        let (outbox, answers) = mpsc::channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let room = Room {
            config: Arc::clone(config),
            metrics: Arc::clone(metrics),
            store: Arc::clone(store),
            nothing: Store::in_memory(),
            reader,
            observer,
            outbox,
            jobs: HashMap::new(),
            read_up_to: HashMap::new(),
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
    input_end: i64,
    committed: bool,
    /// What the journal holds: from the low to below the high watermark.
    journal_low: i64,
    journal_high: i64,
}

impl Located {
    /// Whether a seen set that goes up to this checkpoint can be gone on with: the journal still has
    /// the run that it ends with, or nothing was committed since.
    fn fits(&self, checkpoint: &Checkpoint) -> bool {
        let journal = self.journal_low..self.journal_high;
        journal.contains(&checkpoint.anchor.offset) || self.is_complete(checkpoint)
    }

    /// A journal with a retention of its own is empty once nothing has come for that long. What was
    /// committed then is no reason to forget what the store or this process remembers.
    fn is_complete(&self, checkpoint: &Checkpoint) -> bool {
        let empty = self.journal_low == self.journal_high;
        empty && self.committed && checkpoint.next_offset == self.input_offset
    }
}

struct Job {
    request: Request,
    sizing: Sizing,
    /// The seen set so far; `None` until it is known where to begin.
    window: Option<SeenWindow>,
    /// The journal offset up to which the window is complete.
    journal_next: Option<i64>,
    /// The run that must come first, where the window came from the store.
    anchor: Option<Anchor>,
    /// The window came from the store, and the anchor was found; or the journal may have expired since.
    may_not_fit: bool,
    /// Under which the last run that was read was written, or else the newest slice of the store.
    terms: Option<Terms>,
    /// The last run that was read was written by `preload`.
    is_preload: bool,
    /// Where the first run of the journal begins, where all of it is read.
    first: Option<Since>,
    /// Runs were found without a committed offset, and the offset was asked for again.
    asked_again: bool,
    /// How the seen set is being restored: warm or cold; `None` where it was known.
    kind: Option<&'static str>,
    stage: Stage,
    /// The reader is assigned to its journal partition.
    reading: bool,
    attempts: u32,
    started: Instant,
    progress_told: Instant,
}

/// Journal topic and partition, as that is how runs arrive; the topic itself where it has no journal.
type Key = (String, i32);
type Jobs = HashMap<Key, Job>;

struct Room {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    store: Arc<Store>,
    /// Of partitions of which nothing is remembered.
    nothing: Arc<Store>,
    /// read_committed, of our group: committed offsets and runs.
    reader: BaseConsumer<Logged>,
    /// read_uncommitted: only such a client is told the true high watermark.
    observer: BaseConsumer<Logged>,
    outbox: Sender<Recovered>,
    jobs: Jobs,
    /// How far this reader has read: it is not asked to go back, see [`Room::begin_reading`].
    read_up_to: HashMap<Key, i64>,
    stopping: Arc<AtomicBool>,
}

/// One question to Kafka may take this long before other partitions get their turn.
const PATIENCE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long an earlier owner of a store in this process has to let go of it, and how often it is looked
/// whether it has.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(30);
const HANDOVER_PAUSE: Duration = Duration::from_millis(100);

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
        while let Some(mut request) = next {
            let key = request.key();
            let (window, journal_next) = request.known.take().unzip();
            let job = Job {
                request,
                sizing: Sizing::from(&self.config.store),
                window,
                journal_next,
                anchor: None,
                may_not_fit: false,
                terms: None,
                is_preload: false,
                first: None,
                asked_again: false,
                kind: None,
                stage: Stage::Locate {
                    not_before: Instant::now(),
                },
                reading: false,
                attempts: 0,
                started: Instant::now(),
                progress_told: Instant::now(),
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
        let keys: Vec<Key> = self
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

    /// Asks again later, for ever: the partition is not touched meanwhile, and /readyz says so.
    fn postpone(&mut self, key: &Key, why: &str) {
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

    fn stop_reading(&self, key: &Key) {
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

/// A reader of journals, assigned to nothing.
fn journal_reader(config: &Config) -> Result<BaseConsumer<Logged>, Stop> {
    clients::journal_reader_config(config)
        .create_with_context(Logged::new())
        .map_err(|error| unusable(&error))
}

fn unusable(error: &KafkaError) -> Stop {
    Stop::usage(format!(
        "kafka: the journal's reader cannot be created: {}",
        clients::refusal(error)
    ))
}

struct Disconnected;

enum Trouble {
    Later(String),
    Stop(Stop),
}
