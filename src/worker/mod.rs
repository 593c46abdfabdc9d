//! The worker: one OS thread with one consumer, one transactional producer, and its scopes.
//!
//! The loop, in the order in which data flows:
//! poll → judge → (rebalance?) → (recovered?) → commit when due → housekeeping.
//!
//! A scope's life: assigned → recovering → active → revoked or lost.
//! - *assigned*: acknowledged, paused; a [`recovery`](crate::recovery) request goes out.
//! - *recovering*: its records are not read.
//! - *active*: read from the committed offset on, judged against its window (I5).
//! - *revoked*: what is open is committed first; *lost*: what is open is aborted (I6).

pub mod judge;
pub mod scope;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::error::KafkaError;
use rdkafka::message::Message;

use crate::commit::{self, Open, Trouble};
use crate::config::{Config, Start};
use crate::exit::Stop;
use crate::http::health::{Condition, Health, worker_component};
use crate::http::status::{PartitionStatus, Status};
use crate::identify::{Identifier, deployment_seed};
use crate::journal;
use crate::metrics::{Metrics, PartitionMetrics};
use crate::recovery::{Recovered, Recovery, Request, Restored};
use crate::sink::Sink;
use crate::source::{Partition, Rebalance, Source};
use crate::topics::names::OwnTopics;
use crate::topics::prepare::prepare;
use crate::topics::trim::Trimmer;
use crate::topics::{self, Admin, PrepareError};
use crate::window::SeenWindow;
use scope::{Recovering, Scope, Scopes, Tally, Topic};

/// What the workers of a process share.
#[derive(Clone)]
pub struct Shared {
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub status: Arc<Status>,
    /// Set when the process is to end: commit, leave the group, return.
    pub shutdown: Arc<AtomicBool>,
    pub runtime: tokio::runtime::Handle,
}

/// How long one poll may wait for records.
const POLL: Duration = Duration::from_millis(100);
/// Records judged before the loop looks up; keeps rebalances and commits on time.
const RECORDS_PER_ROUND: usize = 2_000;
const HOUSEKEEPING: Duration = Duration::from_secs(1);
const TRIM_INTERVAL: Duration = Duration::from_secs(5);
/// How long Kafka may stay out of reach at start before the process says so and ends (69).
const START_PATIENCE: Duration = Duration::from_secs(30);
/// One attempt at taking the transactional id over.
const INIT_ATTEMPT: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Being fenced this often within [`FENCE_MEMORY`] means a twin that is alive, not a coordinator
/// that gave up on a transaction of ours.
const FENCES: usize = 3;
const FENCE_MEMORY: Duration = Duration::from_secs(120);
/// Producers replaced in a row without a commit in between.
const REPLACEMENTS: u32 = 20;
/// A transaction commits early after this many records had to be sent alone.
const ALONE_PER_TRANSACTION: usize = 100;

/// Starts a worker; how it ended is sent to `ended` with its index, whatever happens in it.
pub fn spawn(
    index: usize,
    config: Arc<Config>,
    shared: Shared,
    ended: Sender<(usize, Result<(), Stop>)>,
) -> std::thread::JoinHandle<()> {
    let body = move || {
        let run = std::panic::AssertUnwindSafe(|| {
            let mut worker = Worker::start(index, config, shared)?;
            let outcome = worker.run();
            worker.leave();
            outcome
        });
        let outcome = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
            let what = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Err(Stop::internal(format!("worker {index} panicked: {what}")))
        });
        // The supervisor has gone only when the process is ending already.
        let _ = ended.send((index, outcome));
    };
    std::thread::spawn(body)
}

struct Worker {
    index: usize,
    config: Arc<Config>,
    shared: Shared,
    admin: Admin,
    own: OwnTopics,
    trimmer: Trimmer,
    source: Option<Source>,
    sink: Option<Sink>,
    recovery: Recovery,
    identifier: Identifier,
    seed: u64,
    topics: HashMap<String, Arc<Topic>>,
    subscribed: Vec<String>,
    scopes: Scopes,
    open: Option<Open>,
    /// Partitions that are to be read from these offsets as soon as the consumer can seek.
    to_start: Vec<(Partition, i64)>,
    fenced_at: VecDeque<Instant>,
    replacements: u32,
    aborts_in_a_row: u32,
    /// Nothing is polled before this time: the pause after a failed transaction.
    resume_at: Instant,
    next_housekeeping: Instant,
    next_discovery: Instant,
    next_trim: Instant,
}

impl Worker {
    /// Reaches Kafka, prepares the topics, takes the transactional id over, and joins the group, in
    /// that order: joining first would hold up partitions that cannot be worked on yet.
    fn start(index: usize, config: Arc<Config>, shared: Shared) -> Result<Self, Stop> {
        let seed = deployment_seed(&config.kafka.group_id);
        let admin = Admin::new(&config)?;
        let failures = Arc::clone(&shared.metrics);
        let trimmer = Trimmer::new(&admin, shared.runtime.clone(), move |_: &str| {
            failures.journal_trim_failures.inc();
        });
        let now = Instant::now();
        let mut worker = Self {
            index,
            own: OwnTopics::new(&config),
            trimmer,
            source: None,
            sink: None,
            recovery: Recovery::start(&config, &shared.metrics, index)?,
            identifier: Identifier::new(&config.id.from, seed),
            seed,
            topics: HashMap::new(),
            subscribed: Vec::new(),
            scopes: Scopes::default(),
            open: None,
            to_start: Vec::new(),
            fenced_at: VecDeque::new(),
            replacements: 0,
            aborts_in_a_row: 0,
            resume_at: now,
            next_housekeeping: now,
            next_discovery: now,
            next_trim: now,
            admin,
            config,
            shared,
        };
        worker.reach_kafka()?;
        Ok(worker)
    }

    /// The first contact: within [`START_PATIENCE`] or not at all (69).
    fn reach_kafka(&mut self) -> Result<(), Stop> {
        let started = Instant::now();
        self.tell("kafka", Condition::NotReady("connecting".to_owned()));
        loop {
            match topics::list(&self.admin) {
                Ok(_) => {
                    self.tell("kafka", Condition::Ready("connected".to_owned()));
                    return Ok(());
                }
                Err(_) if self.shutting_down() => return Ok(()),
                Err(error) if started.elapsed() >= START_PATIENCE => {
                    return Err(Stop::unreachable(format!(
                        "Kafka cannot be reached at {}: {error}. Check kafka.bootstrap_servers, the network, and security.protocol and sasl.* in kafka.properties",
                        self.config.kafka.bootstrap_servers
                    )));
                }
                Err(error) => {
                    tracing::debug!(%error, "Kafka is not reached yet");
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }

    fn run(&mut self) -> Result<(), Stop> {
        while !self.shutting_down() {
            if self.sink.is_none() {
                self.take_over_transactional_id()?;
                continue;
            }
            if Instant::now() >= self.next_discovery {
                self.discover_topics()?;
            }
            self.start_restored();
            self.pin_start_positions()?;
            self.poll_and_judge()?;
            self.handle_rebalances()?;
            self.take_recovered()?;
            if self.commit_is_due() {
                self.close_transaction()?;
            }
            if Instant::now() >= self.next_housekeeping {
                self.keep_house()?;
            }
        }
        tracing::info!(worker = self.index, "stopping: committing what is open");
        self.close_transaction()
    }

    /// Leaves the group and lets go of everything, whatever the outcome was.
    fn leave(&mut self) {
        self.abandon_transaction();
        if let Some(source) = self.source.take() {
            source.close();
        }
        self.shared.status.update(self.index, Vec::new());
    }

    // ---- records ----------------------------------------------------------------------------

    /// Takes records for one round and judges them. A transaction begins with its first record.
    fn poll_and_judge(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        if now < self.resume_at {
            std::thread::sleep((self.resume_at - now).min(POLL));
            // Poll all the same when nothing can be judged: the group wants to hear from us.
        }
        let mut wait = self.poll_timeout();
        let wall_ms = wall_clock_ms();
        for _ in 0..RECORDS_PER_ROUND {
            let judged = {
                let (Some(source), Some(sink)) = (&self.source, &mut self.sink) else {
                    return Ok(());
                };
                match source.poll(wait) {
                    None => return Ok(()),
                    Some(Err(error)) => Err(error),
                    Some(Ok(message)) => {
                        let place = self.scopes.place(message.topic(), message.partition());
                        // Not active: it will be read from its committed offset when it is (I5).
                        let Some(place) = place else { continue };
                        let open = match &mut self.open {
                            Some(open) => Ok(open),
                            None => commit::begin(sink).map(|open| self.open.insert(open)),
                        };
                        Ok(open.and_then(|open| {
                            let mut room = judge::Room {
                                scopes: &mut self.scopes,
                                sink,
                                identifier: &mut self.identifier,
                                open,
                                config: &self.config,
                            };
                            room.judge(&message, place, wall_ms)
                        }))
                    }
                }
            };
            match judged {
                Err(error) => return self.note_poll_error(&error),
                Ok(Err(Trouble::Halt(stop))) => {
                    // What came before the record that stops us is as good as ever.
                    self.close_transaction()?;
                    return Err(stop);
                }
                Ok(Err(trouble)) => return self.resolve(trouble),
                Ok(Ok(())) => {}
            }
            if self.commit_is_due() {
                return Ok(());
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Duration {
        let busy = if self.scopes.recovering().is_empty() && self.to_start.is_empty() {
            POLL
        } else {
            Duration::from_millis(5)
        };
        match &self.open {
            Some(open) => busy.min(
                self.config
                    .transaction
                    .interval
                    .saturating_sub(open.begun.elapsed()),
            ),
            None => busy,
        }
    }

    fn note_poll_error(&mut self, error: &KafkaError) -> Result<(), Stop> {
        use rdkafka::error::RDKafkaErrorCode as Code;
        self.shared.metrics.client_error(error.rdkafka_error_code());
        if let Some(fatal) = self.source.as_ref().and_then(Source::fatal_error) {
            return Err(Stop::restart(format!(
                "the consumer cannot go on: {fatal}. Start the service again; if it says fenced, look for a second process with the instance id {}",
                self.config.kafka.instance_id
            )));
        }
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                // Which partition it was, the error does not say: recovery finds out, and says
                // what is to be done.
                tracing::warn!(%error, "a partition cannot be read at its offset; reading positions again");
                self.abandon_transaction();
                self.recover_all()
            }
            Some(Code::AllBrokersDown) => {
                self.tell(
                    "kafka",
                    Condition::NotReady("no broker can be reached; trying again".to_owned()),
                );
                // An idle service would not notice that they are back.
                self.next_discovery = self.next_discovery.min(Instant::now() + HOUSEKEEPING);
                Ok(())
            }
            _ => {
                tracing::debug!(%error, "poll");
                Ok(())
            }
        }
    }

    // ---- transactions -----------------------------------------------------------------------

    fn commit_is_due(&self) -> bool {
        let Some(open) = &self.open else { return false };
        open.records >= self.config.transaction.records
            || open.alone >= ALONE_PER_TRANSACTION
            || open.begun.elapsed() >= self.config.transaction.interval
    }

    /// Commits what is open; if that cannot be, aborts it, so that nothing is open afterwards.
    fn close_transaction(&mut self) -> Result<(), Stop> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        match self.try_commit(&open) {
            Ok(()) => {
                self.aborts_in_a_row = 0;
                self.replacements = 0;
                let metrics = &self.shared.metrics;
                metrics.transactions_committed.inc();
                metrics.transaction_records.observe(open.records as f64);
                metrics
                    .last_commit_timestamp_seconds
                    .set(wall_clock_ms() as f64 / 1000.0);
                self.tell("kafka", Condition::Ready("committing".to_owned()));
                Ok(())
            }
            Err(trouble) => {
                self.open = Some(open);
                self.resolve(trouble)
            }
        }
    }

    /// prepare → commit → publish, see [`crate::commit`].
    fn try_commit(&mut self, open: &Open) -> Result<(), Trouble> {
        let Some(sink) = &mut self.sink else {
            return Err(Trouble::InDoubt {
                cause: "no-producer",
                why: "there is no producer".to_owned(),
            });
        };
        let metrics = &self.shared.metrics;
        let started = Instant::now();
        commit::prepare(sink, &mut self.scopes, open, &self.config)?;
        metrics.observe_step("drain", started.elapsed());
        let membership = self.source.as_ref().and_then(Source::membership);
        commit::commit(
            sink,
            &mut self.scopes,
            membership.as_ref(),
            open,
            &self.config,
            metrics,
        )?;
        let started = Instant::now();
        commit::publish(sink, &mut self.scopes);
        metrics.observe_step("publish", started.elapsed());
        Ok(())
    }

    /// Acts on what went wrong with the open transaction. Afterwards none is open.
    fn resolve(&mut self, trouble: Trouble) -> Result<(), Stop> {
        let metrics = Arc::clone(&self.shared.metrics);
        match trouble {
            Trouble::Stop(stop) | Trouble::Halt(stop) => Err(stop),
            Trouble::Abort { cause, why } => {
                metrics.transaction_aborted(cause);
                tracing::warn!(
                    worker = self.index,
                    cause,
                    "transaction aborted, its records are judged again: {why}"
                );
                self.abort_and_rewind()
            }
            Trouble::InDoubt { cause, why } => {
                metrics.transaction_aborted(cause);
                tracing::warn!(
                    worker = self.index,
                    cause,
                    "the outcome of the transaction is in doubt; replacing the producer: {why}"
                );
                self.replace_producer()
            }
            Trouble::Fenced { why } => {
                metrics.transaction_aborted("fenced");
                let overdue = self
                    .open
                    .as_ref()
                    .is_some_and(|open| Instant::now() >= open.deadline(&self.config));
                if !overdue {
                    self.count_fence(&why)?;
                }
                tracing::warn!(
                    worker = self.index,
                    "the producer was fenced; replacing it: {why}"
                );
                self.replace_producer()
            }
        }
    }

    fn count_fence(&mut self, why: &str) -> Result<(), Stop> {
        let now = Instant::now();
        self.fenced_at
            .retain(|at| now.duration_since(*at) < FENCE_MEMORY);
        self.fenced_at.push_back(now);
        if self.fenced_at.len() >= FENCES {
            return Err(Stop::restart(format!(
                "fenced {FENCES} times in {} s: another process uses the instance id {} in the group {}. Give every instance its own kafka.instance_id. Last: {why}",
                FENCE_MEMORY.as_secs(),
                self.config.kafka.instance_id,
                self.config.kafka.group_id
            )));
        }
        Ok(())
    }

    fn abort_and_rewind(&mut self) -> Result<(), Stop> {
        let (Some(_), Some(sink)) = (self.open.take(), &self.sink) else {
            // Nothing is open that could be aborted: what the producer means, it alone knows.
            return self.replace_producer();
        };
        // Refusals that were reported meanwhile must not be forgotten with the transaction.
        if let Err(Trouble::Stop(stop)) = commit::drain(sink, &mut self.scopes, Instant::now()) {
            return Err(stop);
        }
        if let Err(trouble) = commit::abort(sink, &mut self.scopes, &self.config) {
            return self.resolve(trouble);
        }
        self.aborts_in_a_row += 1;
        let pause = Duration::from_millis(10)
            .saturating_mul(1 << self.aborts_in_a_row.min(9))
            .min(LONGEST_PAUSE);
        self.resume_at = Instant::now() + pause;
        self.rewind();
        Ok(())
    }

    /// Moves the source back to where the scopes are.
    fn rewind(&mut self) {
        let targets: Vec<(Partition, i64)> = self
            .scopes
            .active()
            .map(|(_, scope)| (scope.partition_key(), scope.next_offset))
            .collect();
        let partitions: Vec<Partition> = targets
            .iter()
            .map(|(partition, _)| partition.clone())
            .collect();
        if let Some(source) = &self.source
            && let Err(error) = source.pause(&partitions)
        {
            tracing::debug!(%error, "pausing before a rewind");
        }
        self.to_start = targets;
    }

    /// I7: a new producer, which ends whatever the old one left; then position and seen set of
    /// every scope are read from Kafka again.
    fn replace_producer(&mut self) -> Result<(), Stop> {
        self.open = None;
        self.replacements += 1;
        if self.replacements > REPLACEMENTS {
            return Err(Stop::restart(format!(
                "{REPLACEMENTS} producers in a row could not commit a single transaction; see the warnings above"
            )));
        }
        self.shared.metrics.producer_rebuilds.inc();
        if let Some(sink) = self.sink.take() {
            // Destroying a client waits for its threads, which may wait for a broker.
            std::thread::spawn(move || drop(sink));
        }
        self.recover_all()
    }

    /// Forgets nothing that is committed, assumes nothing of what is not: all scopes go back to
    /// recovery, which continues from the windows they have.
    fn recover_all(&mut self) -> Result<(), Stop> {
        self.to_start.clear();
        let scopes = self.scopes.take_active();
        let partitions: Vec<Partition> = scopes.iter().map(Scope::partition_key).collect();
        if let Some(source) = &self.source
            && let Err(error) = source.pause(&partitions)
        {
            tracing::debug!(%error, "pausing before recovery");
        }
        for mut scope in scopes {
            scope.discard();
            let known = (scope.journal_next, scope.window);
            self.request_recovery(scope.topic, scope.partition, scope.metrics, Some(known))?;
        }
        Ok(())
    }

    /// Makes a producer and takes the transactional id over. One attempt; the loop comes back.
    /// The group hears from us between attempts.
    fn take_over_transactional_id(&mut self) -> Result<(), Stop> {
        let sink = Sink::create(&self.config, self.index)?;
        match sink.init(INIT_ATTEMPT) {
            Ok(()) => {
                self.sink = Some(sink);
                fail::fail_point!("initialised", |_| crate::exit::die());
                self.tell(
                    "producer",
                    Condition::Ready("transactional id is ours".to_owned()),
                );
                Ok(())
            }
            Err(error) => {
                if let Trouble::Stop(stop) = commit::consequence(&error, "init_transactions") {
                    return Err(stop);
                }
                let last = sink.last_error().unwrap_or_default();
                std::thread::spawn(move || drop(sink));
                self.tell(
                    "producer",
                    Condition::NotReady(format!("taking the transactional id over: {error}")),
                );
                tracing::warn!(worker = self.index, %error, last, "the transactional id could not be taken over yet; trying again");
                // What is polled meanwhile is not judged: it must be read again.
                self.rewind();
                let until = Instant::now() + Duration::from_secs(1);
                while Instant::now() < until && !self.shutting_down() {
                    self.serve_group()?;
                }
                Ok(())
            }
        }
    }

    /// Polls without judging: every partition is paused, or will be read again when it is started.
    fn serve_group(&mut self) -> Result<(), Stop> {
        match &self.source {
            Some(source) => {
                if let Some(Err(error)) = source.poll(POLL) {
                    tracing::debug!(%error, "poll");
                }
                self.handle_rebalances()?;
            }
            None => std::thread::sleep(POLL),
        }
        Ok(())
    }

    /// Aborts what is open without judging it again: its partitions are going away.
    fn abandon_transaction(&mut self) {
        if self.open.take().is_none() {
            return;
        }
        self.shared.metrics.transaction_aborted("abandoned");
        let Some(sink) = &self.sink else { return };
        if let Err(trouble) = commit::abort(sink, &mut self.scopes, &self.config) {
            tracing::warn!(
                worker = self.index,
                ?trouble,
                "abort failed; the next producer with this transactional id ends the transaction"
            );
            if let Some(sink) = self.sink.take() {
                std::thread::spawn(move || drop(sink));
            }
        }
    }

    // ---- partitions -------------------------------------------------------------------------

    fn handle_rebalances(&mut self) -> Result<(), Stop> {
        while let Some(event) = self.source.as_ref().and_then(Source::next_rebalance) {
            match event {
                Rebalance::Assigned(partitions) => self.assigned(&partitions)?,
                Rebalance::Revoked(partitions) => {
                    self.shared
                        .metrics
                        .rebalances
                        .with_label_values(&["revoked"])
                        .inc();
                    self.close_transaction()?;
                    self.forget(&partitions, "revoked");
                }
                Rebalance::Lost(partitions) => {
                    self.shared
                        .metrics
                        .rebalances
                        .with_label_values(&["lost"])
                        .inc();
                    self.abandon_transaction();
                    self.rewind();
                    self.forget(&partitions, "lost");
                }
            }
        }
        Ok(())
    }

    fn assigned(&mut self, partitions: &[Partition]) -> Result<(), Stop> {
        self.shared
            .metrics
            .rebalances
            .with_label_values(&["assigned"])
            .inc();
        tracing::info!(worker = self.index, partitions = %listed(partitions), "assigned");
        self.tell("group", Condition::Ready("member of the group".to_owned()));
        let Some(source) = &self.source else {
            return Ok(());
        };
        if let Err(error) = source.acknowledge_assigned(partitions) {
            return Err(Stop::restart(format!(
                "the assignment could not be taken: {error}"
            )));
        }
        for (name, partition) in partitions {
            let topic = self.topic_with(name, *partition)?;
            let metrics = self.shared.metrics.partition(name, *partition);
            self.request_recovery(topic, *partition, metrics, None)?;
        }
        self.tell_recovery();
        Ok(())
    }

    fn forget(&mut self, partitions: &[Partition], how: &str) {
        tracing::info!(worker = self.index, partitions = %listed(partitions), how, "partitions are gone");
        for partition in partitions {
            self.scopes.remove(partition);
            self.shared
                .metrics
                .forget_partition(&partition.0, partition.1);
        }
        self.to_start
            .retain(|(partition, _)| !partitions.contains(partition));
        if let Some(source) = &self.source
            && let Err(error) = source.acknowledge_revoked(partitions)
        {
            tracing::warn!(%error, "giving partitions back");
        }
        self.tell_recovery();
    }

    fn request_recovery(
        &mut self,
        topic: Arc<Topic>,
        partition: i32,
        metrics: PartitionMetrics,
        known: Option<(i64, SeenWindow)>,
    ) -> Result<(), Stop> {
        metrics.state.set(0);
        let (epoch, cancelled) =
            self.scopes
                .begin_recovery(Arc::clone(&topic), partition, metrics.clone());
        let (journal_next, window) = match known {
            Some((next, window)) => (Some(next), window),
            None => (None, SeenWindow::new(self.config.window)),
        };
        self.recovery.request(Request {
            topic: topic.name.clone(),
            partition,
            journal: topic.names.journal.clone(),
            identity: journal::identity(self.seed, &topic.name, partition),
            window,
            journal_next,
            epoch,
            cancelled,
            metrics,
        })
    }

    fn take_recovered(&mut self) -> Result<(), Stop> {
        while let Some(Recovered {
            topic,
            partition,
            epoch,
            outcome,
        }) = self.recovery.next()
        {
            let key = (topic, partition);
            let Some(recovering) = self.scopes.end_recovery(&key, epoch) else {
                continue;
            };
            self.activate(recovering, partition, outcome?);
        }
        Ok(())
    }

    /// The seen set covers the journal up to the committed offset: the partition may be judged (I5).
    fn activate(&mut self, recovering: Recovering, partition: i32, restored: Restored) {
        let Recovering { topic, metrics, .. } = recovering;
        metrics.state.set(1);
        fail::fail_point!("restored", |_| crate::exit::die());
        let Restored {
            window,
            input_offset,
            committed,
            journal_next,
        } = restored;
        let scope = Scope {
            identity: journal::identity(self.seed, &topic.name, partition),
            metrics,
            topic,
            partition,
            window,
            next_offset: input_offset,
            committed_offset: input_offset,
            journal_next,
            touched: false,
            must_write_run: !committed,
            tally: Tally::default(),
            refused: std::collections::BTreeMap::new(),
            suspects: std::collections::BTreeSet::new(),
            trimmed_to: 0,
        };
        self.to_start.push((scope.partition_key(), input_offset));
        self.scopes.insert(scope);
        self.tell_recovery();
    }

    /// Lets the source read what has been restored or rewound.
    fn start_restored(&mut self) {
        if self.to_start.is_empty() || Instant::now() < self.resume_at {
            return;
        }
        let Some(source) = &self.source else { return };
        self.to_start.retain(|(partition, offset)| match source.start(partition, *offset) {
            Ok(()) => false,
            Err(error) => {
                tracing::debug!(topic = partition.0, partition = partition.1, %error, "cannot seek yet");
                true
            }
        });
    }

    /// Where a partition starts at its end, that place is committed before anything is judged:
    /// records that come while the service restarts are not skipped then.
    fn pin_start_positions(&mut self) -> Result<(), Stop> {
        if self.config.input.start != Start::Latest {
            return Ok(());
        }
        let mut pinned = false;
        for (_, scope) in self.scopes.active() {
            if scope.must_write_run && !scope.touched {
                scope.touched = true;
                pinned = true;
            }
        }
        let Some(sink) = &mut self.sink else {
            return Ok(());
        };
        if pinned && self.open.is_none() {
            match commit::begin(sink) {
                Ok(open) => self.open = Some(open),
                Err(trouble) => return self.resolve(trouble),
            }
        }
        Ok(())
    }

    // ---- topics -----------------------------------------------------------------------------

    /// Looks which input topics there are, prepares new ones, and subscribes to all.
    fn discover_topics(&mut self) -> Result<(), Stop> {
        self.next_discovery = Instant::now() + discovery_interval(&self.config);
        let listed = match topics::list(&self.admin) {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "topics cannot be listed");
                self.next_discovery = Instant::now() + Duration::from_secs(1);
                return Ok(());
            }
        };
        self.tell("kafka", Condition::Ready("connected".to_owned()));
        let names: Vec<String> = listed.iter().map(|(name, _)| name.clone()).collect();
        let mut inputs = self.own.resolve(&names);
        inputs.sort();
        for (name, partitions) in &listed {
            if inputs.contains(name)
                && self
                    .topics
                    .get(name)
                    .is_none_or(|t| t.partitions < *partitions)
            {
                match self.prepare_topic(name) {
                    Ok(_) => {}
                    Err(PrepareError::Stop(stop)) => return Err(stop),
                    Err(PrepareError::Retry(why)) => {
                        tracing::warn!(topic = name, "the topic cannot be prepared yet: {why}");
                        self.next_discovery = Instant::now() + Duration::from_secs(1);
                    }
                }
            }
        }
        // A topic that has gone keeps its place in the subscription until it is back.
        inputs.retain(|name| self.topics.contains_key(name));
        self.tell_inputs(&inputs);
        if inputs.is_empty() || inputs == self.subscribed {
            return Ok(());
        }
        if self.source.is_none() {
            self.source = Some(Source::create(&self.config, self.index)?);
        }
        let Some(source) = &self.source else {
            return Ok(());
        };
        source.subscribe(&inputs).map_err(|error| {
            Stop::restart(format!(
                "the topics {} cannot be subscribed to: {error}",
                inputs.join(", ")
            ))
        })?;
        tracing::info!(worker = self.index, topics = inputs.join(","), "subscribed");
        if self.subscribed.is_empty() {
            self.tell("group", Condition::NotReady("joining the group; a predecessor that was killed keeps its partitions until its session.timeout.ms has passed".to_owned()));
        }
        self.subscribed = inputs;
        Ok(())
    }

    fn prepare_topic(&mut self, name: &str) -> Result<Arc<Topic>, PrepareError> {
        let prepared = prepare(&self.admin, &self.config, name)?;
        let topic = Arc::new(Topic {
            name: name.to_owned(),
            names: prepared.names,
            partitions: prepared.partitions,
            output_partitions: prepared.output_partitions,
            metrics: self.shared.metrics.topic(name),
        });
        self.topics.insert(name.to_owned(), Arc::clone(&topic));
        Ok(topic)
    }

    /// The topic, prepared for at least this partition. The group may know of new partitions before
    /// we have looked.
    fn topic_with(&mut self, name: &str, partition: i32) -> Result<Arc<Topic>, Stop> {
        loop {
            if let Some(topic) = self.topics.get(name)
                && topic.partitions > partition
            {
                return Ok(Arc::clone(topic));
            }
            match self.prepare_topic(name) {
                Ok(topic) if topic.partitions > partition => return Ok(topic),
                Err(PrepareError::Stop(stop)) => return Err(stop),
                Ok(_) => std::thread::sleep(POLL),
                Err(PrepareError::Retry(why)) => {
                    tracing::warn!(topic = name, "the topic cannot be prepared yet: {why}");
                    std::thread::sleep(POLL);
                }
            }
            if self.shutting_down() {
                return Err(Stop {
                    status: crate::exit::Status::Done,
                    sentence: "stopped while a topic was prepared".to_owned(),
                });
            }
        }
    }

    // ---- housekeeping -----------------------------------------------------------------------

    fn keep_house(&mut self) -> Result<(), Stop> {
        self.next_housekeeping = Instant::now() + HOUSEKEEPING;
        let trim = Instant::now() >= self.next_trim;
        if trim {
            self.next_trim = Instant::now() + TRIM_INTERVAL;
        }
        let mut rows = Vec::new();
        for (_, scope) in self.scopes.active() {
            let (name, partition) = (&scope.topic.name, scope.partition);
            let high = self
                .source
                .as_ref()
                .and_then(|source| source.cached_high_watermark(name, partition));
            let lag = high.map(|high| (high - scope.committed_offset).max(0));
            if let Some(lag) = lag {
                scope.metrics.lag.set(lag);
            }
            if trim
                && let Some(keep_from) = scope.window.keep_journal_from()
                && keep_from > scope.trimmed_to
            {
                fail::fail_point!("trim", |_| crate::exit::die());
                self.trimmer
                    .trim(&scope.topic.names.journal, partition, keep_from);
                scope.trimmed_to = keep_from;
            }
            rows.push(PartitionStatus {
                topic: name.clone(),
                partition,
                state: "active",
                next_offset: Some(scope.committed_offset),
                lag,
                stream_time_ms: scope.window.stream_time_ms(),
                ids: scope.window.ids(),
                slices: scope.window.slices(),
                restore_remaining: None,
            });
        }
        for ((name, partition), recovering) in self.scopes.recovering() {
            rows.push(PartitionStatus {
                topic: name.clone(),
                partition: *partition,
                state: "restoring",
                next_offset: None,
                lag: None,
                stream_time_ms: None,
                ids: 0,
                slices: 0,
                restore_remaining: Some(recovering.metrics.restore_remaining.get()),
            });
        }
        self.shared.status.update(self.index, rows);
        self.tell_recovery();
        Ok(())
    }

    fn tell(&self, component: &str, condition: Condition) {
        self.shared
            .health
            .set(&format!("worker-{}/{component}", self.index), condition);
    }

    fn tell_recovery(&mut self) {
        let left = self.scopes.recovering().len();
        let active = self.scopes.active().count();
        let condition = if left == 0 {
            Condition::Ready(format!("{active} partitions active"))
        } else {
            Condition::NotReady(format!(
                "{left} of {} partitions are being restored from the journal",
                left + active
            ))
        };
        self.tell("partitions", condition);
    }

    fn tell_inputs(&self, inputs: &[String]) {
        let patterns = self.config.input.topics.iter();
        let absent: Vec<&str> = patterns
            .filter(|pattern| !inputs.iter().any(|input| pattern.matches(input)))
            .map(|pattern| pattern.as_str())
            .collect();
        let condition = if absent.is_empty() {
            Condition::Ready(format!("reading {}", inputs.join(", ")))
        } else {
            Condition::NotReady(format!(
                "no topic yet for {}; waiting for it",
                absent.join(", ")
            ))
        };
        self.tell("inputs", condition);
        // From here on the parts speak for the worker.
        self.shared.health.clear(&worker_component(self.index));
    }

    fn shutting_down(&self) -> bool {
        self.shared.shutdown.load(Ordering::Relaxed)
    }
}

/// How often new topics and partitions are looked for: as often as the client looks itself.
fn discovery_interval(config: &Config) -> Duration {
    let property = "topic.metadata.refresh.interval.ms";
    let configured = config
        .kafka
        .consumer_properties
        .get(property)
        .or_else(|| config.kafka.properties.get(property))
        .and_then(|value| value.parse::<u64>().ok());
    Duration::from_millis(configured.unwrap_or(30_000).max(100))
}

fn wall_clock_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn listed(partitions: &[Partition]) -> String {
    let names: Vec<String> = partitions
        .iter()
        .map(|(topic, partition)| format!("{topic}-{partition}"))
        .collect();
    names.join(",")
}
