//! The worker: one OS thread with one consumer, one transactional producer, and its scopes.
//!
//! The loop, in the order in which data flows:
//! poll → identify → judge → (rebalance?) → (recovered?) → commit when due → housekeeping.
//!
//! A scope's life: assigned → recovering → active → revoked or lost.
//! - *assigned*: acknowledged, paused; a [`recovery`](crate::recovery) request goes out.
//! - *recovering*: its records are not read.
//! - *active*: read from the committed offset on, judged against its window (I5). Where only a schema can
//!   find an id, a partition that has come to one that is not known is paused until it is.
//! - *revoked*: what is open is committed first; *lost*: what is open is aborted (I6).

mod discovery;
mod housekeeping;
pub mod judge;
mod kin;
mod membership;
mod orders;
mod partitions;
mod pulse;
mod schemas;
pub mod scope;
pub mod scopes;
pub mod sentinel;
mod transactions;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;

use crate::commit::{self, Open, Trouble};
use crate::config::{Config, Start};
use crate::control::Control;
use crate::exit::Stop;
use crate::http::health::{Condition, Health, worker_component};
use crate::http::status::{PartitionStatus, Status};
use crate::identify::payload::PayloadHash;
use crate::identify::{Identifier, deployment_seed};
use crate::kafka::context::advice;
use crate::metrics::{Metrics, PartitionMetrics};
use crate::recovery::{Recovered, Recovery, Request, Restored};
use crate::repartition::Mark;
use crate::schemas::{Schemas, Unresolved};
use crate::sink::Sink;
use crate::source::{Partition, Rebalance, Source};
use crate::store::{Damage, Lineage, Store};
use crate::topics::names::OwnTopics;
use crate::topics::prepare::prepare;
use crate::topics::trim::Trimmer;
use crate::topics::{self, Admin, PrepareError};
use crate::window::{Counts, SeenWindow};
use judge::Unread;
use membership::Standing;
pub use pulse::Pulse;
use scope::{Hop, Pace, Scope, Tally, Topic};
use scopes::{Recovering, Scopes};
pub use sentinel::Sentinels;

/// What the workers of a process share.
#[derive(Clone)]
pub struct Shared {
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub status: Arc<Status>,
    pub store: Arc<Store>,
    pub schemas: Schemas,
    /// Set when the process is to end: commit, leave the group, return.
    pub shutdown: Arc<AtomicBool>,
    /// One a worker.
    pub pulses: Arc<[Pulse]>,
    pub runtime: tokio::runtime::Handle,
    pub sentinels: Arc<Sentinels>,
    pub control: Arc<Control>,
}

/// How long one poll may wait for records.
const POLL: Duration = Duration::from_millis(100);
/// Records judged before the loop looks up; keeps rebalances and commits on time.
const RECORDS_PER_ROUND: usize = 2_000;
/// Records judged between two looks at the clock, which costs as much as some steps of judging one.
const RECORDS_PER_LOOK: usize = 16;
/// What the windows' other work may take of a turn of the loop, all together; a step that has begun
/// is finished.
const TENDING: Duration = Duration::from_millis(4);
const HOUSEKEEPING: Duration = Duration::from_secs(1);
const TRIM_INTERVAL: Duration = Duration::from_secs(5);
/// How long an input is silent before markers at its end are committed past.
const IDLE: Duration = Duration::from_secs(10);
/// A transaction stays open for this part of `transaction.interval` at least.
const SHORTEST_PART: u32 = 4;
/// How long Kafka may stay out of reach at start before the process says so and ends (69).
const START_PATIENCE: Duration = Duration::from_secs(30);
/// One attempt at taking the transactional id over.
const INIT_ATTEMPT: Duration = Duration::from_secs(10);
/// A partition that cannot be started for so long, in so many attempts, will not be in this process.
const REFUSED: Duration = Duration::from_secs(10);
const REFUSALS: u32 = 20;
/// How long the source may not know where a partition ends before it is started again.
const UNSEEN: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Being fenced this often within [`FENCE_MEMORY`] means a twin that is alive, not a coordinator
/// that gave up on a transaction of ours.
const FENCES: usize = 3;
const FENCE_MEMORY: Duration = Duration::from_secs(120);
/// Producers replaced in a row without a commit in between.
const REPLACEMENTS: u32 = 20;
/// Calls into the client library, of each worker, that have not come back, after which a new process is
/// the better one: each holds a client with its threads and sockets.
const CALLS_GIVEN_UP: usize = 4;
/// A transaction commits early after this many records had to be sent alone.
const ALONE_PER_TRANSACTION: usize = 100;
/// A transaction commits early when it holds something of this many partitions. Of each, output and journal take a request to
/// the brokers and a place in the transaction, milliseconds for both: with many partitions that have few records each,
/// nothing else bounds how long a commit takes, and with it a rebalance, which waits for it.
const PARTITIONS_PER_TRANSACTION: usize = 100;

/// Starts a worker; how it ended is sent to `ended` with its index. A panic ends the thread without
/// a word, which the supervisor notices.
pub fn spawn(
    index: usize,
    config: Arc<Config>,
    shared: Shared,
    ended: Sender<(usize, Result<(), Stop>)>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let outcome = Worker::start(index, config, shared).and_then(|mut worker| {
            let outcome = worker.run();
            worker.leave();
            outcome
        });
        // The supervisor has gone only when the process is ending already.
        let _ = ended.send((index, outcome));
    })
}

struct Worker {
    index: usize,
    config: Arc<Config>,
    shared: Shared,
    admin: Admin,
    /// `None` where the cluster does not tell.
    cluster_id: Option<String>,
    own: OwnTopics,
    trimmer: Trimmer,
    source: Option<Source>,
    sink: Option<Sink>,
    recovery: Recovery,
    identifier: Identifier,
    payloads: PayloadHash,
    seed: u64,
    /// What records are passed on with between two hops.
    mark: Mark,
    topics: HashMap<String, Arc<Topic>>,
    subscribed: Vec<String>,
    scopes: Scopes,
    open: Option<Open>,
    /// When the last transaction was closed: its commit began.
    closed_at: Instant,
    /// Partitions that are to be read from these offsets as soon as the consumer can seek.
    to_start: Vec<(Partition, i64)>,
    /// Partitions that the client has refused to start: since when, and how often in a row.
    refusals: HashMap<Partition, (Instant, u32)>,
    /// Partitions that are not started before a schema is there, and its id.
    awaiting: HashMap<Partition, u32>,
    fenced_at: VecDeque<Instant>,
    replacements: u32,
    aborts_in_a_row: u32,
    standing: Standing,
    /// The ACLs kept records of an input from being read.
    read_refused: bool,
    /// Nothing is polled before this time: the pause after a failed transaction.
    resume_at: Instant,
    next_housekeeping: Instant,
    next_discovery: Instant,
    next_trim: Instant,
    /// A window has work left beside its verdicts.
    tending: bool,
    /// The place of the scope whose window has the next turn at it.
    tending_turn: usize,
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
            cluster_id: None,
            own: OwnTopics::new(&config),
            trimmer,
            source: None,
            sink: None,
            recovery: Recovery::start(&config, &shared.metrics, &shared.store, index)?,
            identifier: Identifier::new(&config.id.from, seed, &shared.schemas),
            payloads: PayloadHash::new(&config.id, seed),
            seed,
            mark: Mark::of(seed, &config.id.from.mark()),
            topics: HashMap::new(),
            subscribed: Vec::new(),
            scopes: Scopes::new(config.scope),
            open: None,
            closed_at: now,
            to_start: Vec::new(),
            refusals: HashMap::new(),
            awaiting: HashMap::new(),
            fenced_at: VecDeque::new(),
            replacements: 0,
            aborts_in_a_row: 0,
            standing: Standing::Joining,
            read_refused: false,
            resume_at: now,
            next_housekeeping: now,
            next_discovery: now,
            next_trim: now,
            tending: false,
            tending_turn: 0,
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
                    self.cluster_id = self.admin.cluster_id();
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
                    let text = format!("connecting: {error}");
                    self.tell("kafka", Condition::NotReady(text));
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }

    fn run(&mut self) -> Result<(), Stop> {
        while !self.shutting_down() {
            if self.sink.is_none() {
                self.at("taking its transactional id over");
                self.take_over_transactional_id()?;
                continue;
            }
            if Instant::now() >= self.next_discovery {
                self.at("looking for topics");
                self.discover_topics()?;
            }
            self.at("obeying");
            self.obey()?;
            self.heed_pauses();
            self.at("starting restored partitions");
            self.release_awaiting();
            self.keep_pace();
            self.start_restored()?;
            self.pin_start_positions()?;
            self.at("polling and judging");
            self.poll_and_judge()?;
            self.at("handing partitions over");
            self.handle_rebalances()?;
            self.take_recovered()?;
            self.at("tending windows");
            self.tend_windows()?;
            if self.commit_is_due() {
                self.at("committing");
                self.close_transaction()?;
                // What was noted meanwhile, before more is judged.
                self.handle_rebalances()?;
            }
            if Instant::now() >= self.next_housekeeping {
                self.at("keeping house");
                self.keep_house()?;
                self.commit_idle_positions(IDLE)?;
            }
        }
        tracing::info!(worker = self.index, "stopping: committing what is open");
        self.commit_idle_positions(Duration::ZERO)?;
        self.close_transaction()
    }

    /// Says what comes next, for the watchdog.
    fn at(&self, step: &'static str) {
        if let Some(pulse) = self.shared.pulses.get(self.index) {
            pulse.beat(step);
        }
    }

    /// Leaves the group and lets go of everything, whatever the outcome was. The clients are taken apart side
    /// by side: each waits for its own threads, and the partitions stand meanwhile.
    fn leave(mut self) {
        self.abandon_transaction();
        // The stores first: whoever gets the partitions next may want them.
        self.scopes = Scopes::default();
        self.shared.status.update(self.index, Vec::new());
        let Self {
            source,
            sink,
            recovery,
            admin,
            ..
        } = self;
        std::thread::scope(|scope| {
            let aside = || std::thread::Builder::new().name("leaving".to_owned());
            // Where no thread is to be had, it is dropped here.
            let _ = aside().spawn_scoped(scope, || drop(sink));
            let _ = aside().spawn_scoped(scope, || drop(recovery));
            let _ = aside().spawn_scoped(scope, || drop(admin));
            drop(source);
        });
    }

    /// Takes records for one round and judges them. A transaction begins with its first record.
    fn poll_and_judge(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        if now < self.resume_at {
            std::thread::sleep((self.resume_at - now).min(POLL));
            // Poll all the same when nothing can be judged: the group wants to hear from us.
        }
        let mut wait = self.poll_timeout();
        let wall_ms = wall_clock_ms();
        let paced = self.is_paced();
        for number in 1..=RECORDS_PER_ROUND {
            let judged = {
                let (Some(source), Some(sink)) = (&mut self.source, &mut self.sink) else {
                    return Ok(());
                };
                match source.poll(wait) {
                    None => {
                        self.open.iter_mut().for_each(|open| open.ran_dry = true);
                        return Ok(());
                    }
                    Some(Err(error)) => Err(error),
                    Some(Ok(message)) => {
                        let place = self.scopes.place(message.topic(), message.partition());
                        // Not active: it will be read from its committed offset when it is (I5).
                        let Some(place) = place else { continue };
                        // To be read again from where the scope is; it is paused until then, but a
                        // pause that meets a rebalance in librdkafka can be lost.
                        let starting = self.to_start.iter();
                        if starting
                            .map(|(partition, _)| partition)
                            .any(|(topic, number)| {
                                *number == message.partition() && topic == message.topic()
                            })
                        {
                            continue;
                        }
                        let timestamp_ms = message.timestamp().to_millis();
                        let window = self.config.window;
                        if paced && !self.scopes.is_in_step(place, timestamp_ms, wall_ms, window) {
                            drop(message);
                            self.hold_back(place);
                            continue;
                        }
                        let Some(scope) = self.scopes.at(place) else {
                            continue;
                        };
                        let known_by = (self.mark, self.config.id.changed);
                        match judge::read(&scope.topic, &message, &mut self.identifier, known_by) {
                            Ok(record) => {
                                let open = match &mut self.open {
                                    Some(open) => Ok(open),
                                    None => commit::begin(sink).map(|open| self.open.insert(open)),
                                };
                                Ok(open.and_then(|open| {
                                    let mut room = judge::Room {
                                        scopes: &mut self.scopes,
                                        sink,
                                        open,
                                        config: &self.config,
                                        payloads: &self.payloads,
                                        mark: self.mark,
                                        bypass: self.shared.control.is_bypassed(),
                                    };
                                    room.judge(&message, place, &record, wall_ms)
                                }))
                            }
                            Err(Unread::Schema(Unresolved::Awaited(schema))) => {
                                drop(message);
                                self.await_schema(place, schema);
                                return Ok(());
                            }
                            Err(Unread::Schema(Unresolved::Unknown(schema))) => {
                                let stop = self.shared.schemas.unknown(
                                    schema,
                                    &format!(
                                        "the record {}-{} offset {}",
                                        message.topic(),
                                        message.partition(),
                                        message.offset()
                                    ),
                                );
                                Ok(Err(Trouble::Halt(stop)))
                            }
                            Err(Unread::Foreign) => {
                                Ok(Err(Trouble::Halt(judge::foreign(&message))))
                            }
                            Err(Unread::OtherIds) => {
                                let stop = judge::other_ids(&message, &self.config);
                                Ok(Err(Trouble::Halt(stop)))
                            }
                        }
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
            if self.is_full() || number % RECORDS_PER_LOOK == 0 && self.commit_is_due() {
                return Ok(());
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Duration {
        let starting = self.to_start.len() > self.awaiting.len() || self.schema_is_near();
        let starting = starting && !self.shared.control.pauses();
        let waited_for = !self.scopes.recovering().is_empty() || starting || self.tending;
        let busy = if waited_for {
            Duration::from_millis(5)
        } else {
            POLL
        };
        match &self.open {
            Some(open) => busy.min(
                self.due(open, true)
                    .saturating_duration_since(Instant::now()),
            ),
            None => busy,
        }
    }

    /// The end of a sentence: what librdkafka said last, or nothing.
    fn last_error_of_source(&self) -> String {
        let last = self.source.as_ref().and_then(Source::last_error);
        last.map_or_else(String::new, |error| {
            format!("; last error: {error}{}", advice(&error))
        })
    }

    /// Counts an error of the consumer, and tells where it means that Kafka is away.
    fn note_unreachable(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        self.shared.metrics.client_error(code);
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            let last = self.last_error_of_source();
            let text = format!("no broker can be reached; trying again{last}");
            self.tell("kafka", Condition::NotReady(text));
            // An idle service would not notice that they are back.
            self.next_discovery = self.next_discovery.min(Instant::now() + HOUSEKEEPING);
        }
    }

    /// A consumer that will not work again says so once, and reads nothing from then on.
    fn heed_fatal_error(&self) -> Result<(), Stop> {
        let Some(fatal) = self.source.as_ref().and_then(Source::fatal_error) else {
            return Ok(());
        };
        let id = &self.config.kafka.instance_id;
        Err(Stop::restart(
            match fatal.to_lowercase().contains("fenced") {
                true => format!(
                    "another process has taken the place of the static member {id}: end one of the two, or give each an instance_id of its own. The client says: {fatal}"
                ),
                false => format!("the consumer cannot go on: {fatal}. Start the service again"),
            },
        ))
    }

    fn note_poll_error(&mut self, error: &KafkaError) -> Result<(), Stop> {
        use RDKafkaErrorCode as Code;
        self.note_unreachable(error);
        self.heed_fatal_error()?;
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                fail::fail_point!("offset-error-lost", |_| Ok(()));
                // Which partition it was, the error does not say: recovery finds out, and says
                // what is to be done.
                tracing::warn!(
                    worker = self.index,
                    %error,
                    "a partition cannot be read at its offset; all positions are read again, and what is wrong is told then"
                );
                self.abandon_transaction();
                self.recover_all()
            }
            Some(Code::InconsistentGroupProtocol) => {
                self.tell(
                    "group",
                    Condition::NotReady(format!(
                        "the group {} has members with another assignor (another scope, or partition.assignment.strategy); it is joined when they have left",
                        self.config.kafka.group_id
                    )),
                );
                Ok(())
            }
            Some(Code::GroupAuthorizationFailed) => {
                self.stands(Standing::KeptOut(Instant::now()));
                Ok(())
            }
            Some(Code::TopicAuthorizationFailed) => {
                tracing::warn!(
                    worker = self.index,
                    %error,
                    "an input topic may not be read; trying again. Grant Read on it to this user (kafka-dedup check names it)"
                );
                self.read_refused = true;
                self.next_discovery = self.next_discovery.min(Instant::now() + HOUSEKEEPING);
                Ok(())
            }
            Some(code @ (Code::BadMessage | Code::BadCompression | Code::NotImplemented)) => {
                // It would be fetched again and again, or passed over.
                let last = self.last_error_of_source();
                Err(Stop::contradiction(format!(
                    "an input holds a batch that cannot be read ({code}){last}. Look at it with kafka-dump-log; to go on behind it, move the offset of the group {} with kafka-consumer-groups --reset-offsets",
                    self.config.kafka.group_id
                )))
            }
            Some(Code::InvalidMessage | Code::Unknown) => {
                let last = self.last_error_of_source();
                tracing::warn!(
                    worker = self.index,
                    "a broker cannot read a partition of an input, and is asked again: {error}{last}. See its log; a replica that is whole may have to lead"
                );
                Ok(())
            }
            _ => {
                tracing::debug!(%error, "poll");
                Ok(())
            }
        }
    }

    fn shutting_down(&self) -> bool {
        self.shared.shutdown.load(Ordering::Relaxed)
    }
}

/// How often new topics and partitions are looked for: as often as the client looks itself.
fn discovery_interval(config: &Config) -> Duration {
    let configured = consumer_property_ms(config, "topic.metadata.refresh.interval.ms");
    Duration::from_millis(configured.unwrap_or(30_000).max(100))
}

fn consumer_property_ms(config: &Config, property: &str) -> Option<u64> {
    let special = config.kafka.consumer_properties.get(property);
    let value = special.or_else(|| config.kafka.properties.get(property))?;
    value.trim().parse().ok()
}

fn wall_clock_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// For a log line, each topic with its partitions: `orders-0,orders-2..9`.
fn listed(partitions: &[Partition]) -> String {
    let mut sorted: Vec<&Partition> = partitions.iter().collect();
    sorted.sort();
    let follows = |a: &&Partition, b: &&Partition| a.0 == b.0 && a.1 + 1 == b.1;
    let ranges = sorted.chunk_by(follows).map(|range| match range {
        [first, .., last] => format!("{}-{}..{}", first.0, first.1, last.1),
        [(topic, partition), ..] => format!("{topic}-{partition}"),
        [] => String::new(),
    });
    ranges.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_listed_in_ranges() {
        let partitions = [
            ("b", 7),
            ("a", 3),
            ("a", 1),
            ("a", 0),
            ("a", 2),
            ("b", 6),
            ("a", 5),
            ("b", 0),
        ];
        let partitions = partitions.map(|(topic, partition)| (topic.to_owned(), partition));
        assert_eq!(listed(&partitions), "a-0..3,a-5,b-0,b-6..7");
        assert_eq!(listed(&[]), "");
    }
}
