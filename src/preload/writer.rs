//! The journal of one input, filled before the group's first start: runs in as many transactions as it
//! takes, and the group's start offsets in the last one.
//!
//! The life of a preload, as the journal and the group have it:
//! ```text
//!   nothing --begin--> runs, no committed offset --finish--> runs and committed offsets
//!                      (a start says 78, a preload begins anew)        (the group may start)
//! ```
//! A member of the group all the while: offsets are fenced by its generation (I6), and it ends when
//! somebody else joins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::Row;
use super::arguments::{Order, StartAt};
use crate::commit::{Trouble, consequence};
use crate::demo::interrupt::Interrupt;
use crate::exit::Stop;
use crate::identify::deployment_seed;
use crate::inspect::journal_ends;
use crate::journal::run::NO_OFFSET;
use crate::journal::{Identity, MAX_IDS_PER_RUN, Run, Since};
use crate::kafka::clients;
use crate::kafka::context::Logged;
use crate::repartition::partition_of;
use crate::sink::{Origin, Outgoing, Sink, Target};
use crate::source::{Rebalance, Source};
use crate::topics::admin::TIMEOUT;
use crate::topics::{Admin, PrepareError, prepare};
use crate::window::Fingerprint;

/// Ids that wait to be written, of all partitions together (I8): 64 MB.
const WAITING: usize = 2_000_000;
const WAITING_LEAST: usize = 64;
/// Ids of a transaction, as a multiple of `transaction.records`: nobody waits for it.
const TRANSACTION: usize = 10;
/// Ids between two looks at the group.
const LOOK_EVERY: u32 = 4096;
/// How long Kafka, and a predecessor's session and transaction, are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// One partition.
struct Scope {
    start_offset: i64,
    /// The ids that wait, and how far the partition has come.
    waiting: Run,
    ids: u64,
}

pub struct Writer<'a> {
    order: &'a Order,
    interrupt: &'a Interrupt,
    source: Source,
    sink: Sink,
    /// The topic whose records will be judged.
    judged: String,
    /// Of two hops, where the first begins.
    input_starts: Vec<(i32, i64)>,
    journal: String,
    /// By number.
    scopes: Vec<Scope>,
    /// Ids of one partition that may wait.
    most: usize,
    open: Option<Instant>,
    in_transaction: usize,
    puts: u32,
}

impl<'a> Writer<'a> {
    /// Joins the group and finds out whether anything has begun already. Makes the topics that a start
    /// would make; writes no record.
    ///
    /// # Errors
    /// 69 where Kafka does not answer, 78 where group or journal have begun, others are members of the
    /// group, or topics do not fit.
    pub fn join(order: &'a Order, interrupt: &'a Interrupt) -> Result<Self, Stop> {
        let (config, topic) = (&order.config, &order.topic);
        let admin = Admin::new(config)?;
        let prepared = retried(interrupt, || prepare(&admin, config, topic))?;
        let inputs = prepared.partitions;
        let journal = prepared.names.journal.clone();
        let hops = prepared.repartition.is_some();
        // The topic whose records will be judged.
        let (judged, partitions) = match &prepared.repartition {
            Some(between) => (&between.name, between.partitions),
            None => (topic, inputs),
        };
        let input_id = prepared.input_id.as_deref();
        let of_input = match hops {
            true => retried(interrupt, || admin.committed(topic, inputs))?,
            false => Vec::new(),
        };
        let begun = retried(interrupt, || admin.committed(judged, partitions))?;
        if let Some((partition, offset)) = begun.first() {
            let ends = journal_ends(config, topic, interrupt)?;
            let mut untouched = begun.len() == ends.len()
                && ends.iter().all(|end| {
                    end.is_preload && begun.contains(&(end.partition, end.input_offset))
                });
            // Nor has a first hop passed anything on.
            for (number, start) in begun.iter().filter(|_| hops) {
                let (_, high) = retried(interrupt, || admin.watermarks(judged, *number))?;
                untouched &= high <= *start;
            }
            let at = (*partition, *offset);
            return Err(begun_already(order, at, untouched, (judged, &journal)));
        }
        if let Some(first) = of_input.first() {
            return Err(begun_already(order, *first, false, (judged, &journal)));
        }
        let mut source = joined(order, interrupt, (judged, partitions))?;
        let sink = taken_over(order, interrupt, &mut source)?;
        // In this order, as in recovery: what an earlier preload left is committed or gone by now.
        let stable = stable_offsets(order, interrupt, (judged, partitions))?;
        if let Some((partition, offset)) = stable {
            let at = (partition, offset);
            return Err(begun_already(order, at, false, (judged, &journal)));
        }
        let ends = journal_ends(config, topic, interrupt)?;
        let seed = deployment_seed(&config.kafka.group_id);
        let mut scopes = Vec::new();
        for partition in 0..partitions {
            let end = ends.iter().find(|end| end.partition == partition);
            if let Some(end) = end
                && !end.is_preload
            {
                return Err(Stop::contradiction(format!(
                    "the journal {journal}-{partition} holds runs of the service, and the group {} has no committed offset in {topic}: its offsets expired or were deleted. To preload a window anew, delete the journal: kafka-topics --delete --topic {journal}",
                    config.kafka.group_id
                )));
            }
            let start_offset = match hops {
                true => retried(interrupt, || Ok(admin.watermarks(judged, partition)?.0))?,
                false => retried(interrupt, || start(&admin, order, partition))?,
            };
            scopes.push(Scope {
                start_offset,
                waiting: Run {
                    identity: Identity::of(seed, judged, input_id, partition).own,
                    next_offset: start_offset,
                    // What an unfinished preload left does not count, nor do its ordinals.
                    first_ordinal: 0,
                    terms: Some(order.terms.clone()),
                    preload: true,
                    preloaded: Some(start_offset),
                    since: Some(Since {
                        ordinal: 0,
                        time_ms: None,
                    }),
                    ..Run::default()
                },
                ids: 0,
            });
        }
        let mut input_starts = Vec::new();
        for partition in 0..inputs * i32::from(hops) {
            let offset = retried(interrupt, || start(&admin, order, partition))?;
            input_starts.push((partition, offset));
        }
        let judged = judged.clone();
        let most = (WAITING / scopes.len().max(1)).min(config.transaction.records);
        let most = most.clamp(WAITING_LEAST, MAX_IDS_PER_RUN);
        Ok(Self {
            order,
            interrupt,
            source,
            sink,
            judged,
            input_starts,
            journal,
            scopes,
            most,
            open: None,
            in_transaction: 0,
            puts: 0,
        })
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> usize {
        self.scopes.len()
    }

    /// Of two hops, the partition that an id has; `None` where it may be in any.
    pub fn place_of(&self, id: Fingerprint) -> Option<usize> {
        let count = i32::try_from(self.scopes.len()).ok()?;
        let hops = self.judged != self.order.topic;
        hops.then(|| usize::try_from(partition_of(id, count)).unwrap_or(0))
    }

    /// Writes a run to every partition, from which on the seen set begins: from here on no start takes
    /// the journal for the truth before [`Self::finish`].
    ///
    /// # Errors
    /// 75 where it could not be committed.
    pub fn begin(&mut self) -> Result<(), Stop> {
        for partition in 0..self.scopes.len() {
            self.scopes[partition].waiting.begins = true;
            self.send(partition)?;
            self.scopes[partition].waiting.begins = false;
        }
        self.commit(false)?;
        fail::fail_point!("preload-begun", |_| crate::exit::die());
        Ok(())
    }

    /// Takes a record's time into stream time, as the service does before a verdict. O(1).
    pub fn observe(&mut self, partition: usize, time_ms: i64) {
        let limited = self.order.limited(time_ms);
        let run = &mut self.scopes[partition].waiting;
        if let Some(since) = &mut run.since {
            since.time_ms = since.time_ms.or(Some(limited));
        }
        run.stream_time_ms = run.stream_time_ms.max(Some(limited));
    }

    /// Lets an id through, at the stream time of now.
    ///
    /// # Errors
    /// 75 where a transaction could not be committed, or somebody joined the group; 130 where somebody
    /// asked to end.
    pub fn put(&mut self, partition: usize, fingerprint: Fingerprint) -> Result<(), Stop> {
        let scope = &mut self.scopes[partition];
        let run = &mut scope.waiting;
        run.fingerprints.push(fingerprint);
        run.times_ms.push(run.stream_time_ms.unwrap_or(0));
        run.offsets.push(NO_OFFSET);
        scope.ids += 1;
        self.puts = self.puts.wrapping_add(1);
        if self.scopes[partition].waiting.fingerprints.len() >= self.most {
            self.send(partition)?;
        }
        if self.puts.is_multiple_of(LOOK_EVERY) {
            self.look()?;
        }
        let timeout = self.order.config.transaction.timeout;
        let is_old = self.open.is_some_and(|begun| begun.elapsed() > timeout / 4);
        let most = TRANSACTION.saturating_mul(self.order.config.transaction.records);
        if self.in_transaction >= most || is_old {
            self.commit(false)?;
            fail::fail_point!("preload-part", |_| crate::exit::die());
        }
        Ok(())
    }

    /// Writes what waits, and commits where the group begins. Then the group can start.
    ///
    /// # Errors
    /// 75 where it could not be committed.
    pub fn finish(mut self) -> Result<(String, Vec<Row>), Stop> {
        for partition in 0..self.scopes.len() {
            self.send(partition)?;
        }
        self.commit(true)?;
        fail::fail_point!("preload-done", |_| crate::exit::die());
        let rows = (0..).zip(&self.scopes).map(|(partition, scope)| Row {
            partition,
            ids: scope.ids,
            start_offset: scope.start_offset,
            stream_time: scope.waiting.stream_time_ms,
        });
        Ok((self.journal, rows.collect()))
    }

    /// Sends what waits of a partition as a run, without ids where there are none.
    fn send(&mut self, partition: usize) -> Result<(), Stop> {
        let begun = match self.open {
            Some(begun) => begun,
            None => {
                self.sink
                    .begin()
                    .map_err(|error| unfinished(&error, "begin", &self.sink))?;
                *self.open.insert(Instant::now())
            }
        };
        let deadline = begun + self.order.config.transaction.timeout;
        let run = &mut self.scopes[partition].waiting;
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        for part in run.encode(MAX_IDS_PER_RUN) {
            let outgoing = Outgoing {
                topic: &self.journal,
                partition: number,
                key: None,
                value: Some(&part),
                headers: None,
                timestamp_ms: None,
            };
            let origin = Origin {
                scope: partition,
                offset: run.next_offset,
                target: Target::Journal,
            };
            self.sink
                .send(outgoing, origin, deadline)
                .map_err(|error| unfinished(&error, "produce", &self.sink))?;
        }
        let count = run.fingerprints.len();
        run.first_ordinal += count as u64;
        run.fingerprints.clear();
        run.times_ms.clear();
        run.offsets.clear();
        self.in_transaction += count;
        Ok(())
    }

    /// Commits what is open; the last one with the start offsets.
    fn commit(&mut self, last: bool) -> Result<(), Stop> {
        let Some(begun) = self.open.take() else {
            return Ok(());
        };
        self.in_transaction = 0;
        let deadline = begun + self.order.config.transaction.timeout;
        if !self.sink.drain(deadline) {
            return Err(again("the journal did not take all runs in time"));
        }
        if let Some(failure) = self.sink.failures().first() {
            return Err(again(&format!(
                "a run was not taken by the journal {}: {}",
                self.journal, failure.code
            )));
        }
        self.look()?;
        let Some(membership) = self.source.membership() else {
            return Err(again("this process is no member of the group any more"));
        };
        let left = || {
            let left = deadline.saturating_duration_since(Instant::now());
            left.max(Duration::from_secs(1))
        };
        if last {
            let mut offsets = TopicPartitionList::new();
            let of_judged = (0..).zip(self.scopes.iter().map(|scope| scope.start_offset));
            let of_judged = of_judged.map(|(number, offset)| (&self.judged, number, offset));
            let of_input = self.input_starts.iter();
            let of_input = of_input.map(|(number, offset)| (&self.order.topic, *number, *offset));
            for (topic, partition, offset) in of_judged.chain(of_input) {
                offsets
                    .add_partition_offset(topic, partition, Offset::Offset(offset))
                    .map_err(|error| Stop::internal(format!("no offset: {error}")))?;
            }
            self.sink
                .send_offsets(&offsets, &Arc::new(membership), left())
                .map_err(|error| unfinished(&error, "offsets", &self.sink))?;
            fail::fail_point!("preload-last", |_| crate::exit::die());
        }
        self.sink
            .commit(left())
            .map_err(|error| unfinished(&error, "commit", &self.sink))
    }

    /// Hears what the group and the user have to say.
    fn look(&mut self) -> Result<(), Stop> {
        if self.interrupt.is_asked() {
            return Err(stopped());
        }
        // Everything is paused: what comes are events.
        drop(self.source.poll(Duration::ZERO));
        match self.source.next_rebalance() {
            None => Ok(()),
            Some(Rebalance::Assigned(new)) if new.is_empty() => self
                .source
                .acknowledge_assigned(&new)
                .map_err(|error| again(&error.to_string())),
            Some(_) => Err(again(&format!(
                "somebody else joined the group {} meanwhile",
                self.order.config.kafka.group_id
            ))),
        }
    }
}

/// A member of the group that has all partitions.
fn joined(
    order: &Order,
    interrupt: &Interrupt,
    (topic, partitions): (&String, i32),
) -> Result<Source, Stop> {
    let mut source = Source::create(&order.config, 0)?;
    source
        .subscribe(std::slice::from_ref(topic))
        .map_err(|error| again(&format!("{topic} cannot be subscribed to: {error}")))?;
    let deadline = Instant::now() + PATIENCE;
    let mut ours: BTreeSet<i32> = BTreeSet::new();
    while ours.len() < usize::try_from(partitions).unwrap_or(0) {
        if interrupt.is_asked() {
            return Err(stopped());
        }
        if Instant::now() >= deadline {
            return Err(Stop::contradiction(format!(
                "the group {} did not give all {partitions} partitions of {topic} to this process within {} s: stop all other members, and wait for the session of one that was killed",
                order.config.kafka.group_id,
                PATIENCE.as_secs()
            )));
        }
        drop(source.poll(POLL));
        while let Some(event) = source.next_rebalance() {
            let acknowledged = match &event {
                Rebalance::Assigned(new) => {
                    ours.extend(new.iter().map(|(_, partition)| *partition));
                    source.acknowledge_assigned(new)
                }
                Rebalance::Revoked(old) | Rebalance::Lost(old) => {
                    ours.retain(|partition| !old.iter().any(|(_, old)| old == partition));
                    source.acknowledge_revoked(old)
                }
            };
            acknowledged.map_err(|error| again(&error.to_string()))?;
        }
    }
    Ok(source)
}

/// The transactional id of the first worker: what an earlier preload left open is ended.
fn taken_over(order: &Order, interrupt: &Interrupt, source: &mut Source) -> Result<Sink, Stop> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sink = Sink::create(&order.config, 0)?;
        let error = match sink.init(Duration::from_secs(10)) {
            Ok(()) => return Ok(sink),
            Err(error) => error,
        };
        if let Trouble::Stop(stop) =
            consequence(&error, "init_transactions", sink.transactional_id())
        {
            return Err(stop);
        }
        if interrupt.is_asked() {
            return Err(stopped());
        }
        if Instant::now() >= deadline {
            return Err(Stop::unreachable(format!(
                "the transactional id could not be taken over: {error}"
            )));
        }
        drop(source.poll(POLL));
    }
}

/// The first committed offset, if there is one; answered when no transaction has one pending.
fn stable_offsets(
    order: &Order,
    interrupt: &Interrupt,
    (topic, partitions): (&str, i32),
) -> Result<Option<(i32, i64)>, Stop> {
    let client: BaseConsumer<Logged> = clients::journal_reader_config(&order.config)
        .create_with_context(Logged::new())
        .map_err(|error| Stop::usage(format!("kafka: {}", clients::refusal(&error))))?;
    retried(interrupt, || {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(topic, 0, partitions - 1);
        let answer = client.committed_offsets(asked, TIMEOUT);
        let answer = answer.map_err(|error| {
            PrepareError::Retry(format!("the committed offsets are in doubt: {error}"))
        })?;
        let elements = answer.elements();
        let mut committed = elements
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            });
        Ok(committed.next())
    })
}

/// Where the group begins to read a partition.
fn start(admin: &Admin, order: &Order, partition: i32) -> Result<i64, PrepareError> {
    let (low, high) = admin.watermarks(&order.topic, partition)?;
    let at = match order.start_at {
        StartAt::Earliest => return Ok(low),
        StartAt::Latest => return Ok(high),
        StartAt::Time(ms) if ms < 0 => return Ok(low),
        StartAt::Time(ms) => ms,
    };
    let unknown = |error: &dyn std::fmt::Display| {
        PrepareError::Retry(format!(
            "where {}-{partition} is at that time is not known: {error}",
            order.topic
        ))
    };
    let mut asked = TopicPartitionList::new();
    asked
        .add_partition_offset(&order.topic, partition, Offset::Offset(at))
        .map_err(|error| unknown(&error))?;
    let found = admin
        .observer()
        .offsets_for_times(asked, TIMEOUT)
        .map_err(|error| unknown(&error))?;
    let element = found.find_partition(&order.topic, partition);
    let element = element.ok_or_else(|| unknown(&"no answer"))?;
    element.error().map_err(|error| unknown(&error))?;
    Ok(match element.offset() {
        Offset::Offset(offset) if offset >= 0 => offset.clamp(low, high),
        _ => high,
    })
}

/// Asks until there is an answer.
fn retried<T>(
    interrupt: &Interrupt,
    mut ask: impl FnMut() -> Result<T, PrepareError>,
) -> Result<T, Stop> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(PrepareError::Stop(stop)) => return Err(stop),
            Err(PrepareError::Retry(why)) if Instant::now() >= deadline => {
                return Err(Stop::unreachable(format!("Kafka does not answer: {why}")));
            }
            Err(PrepareError::Retry(_)) if interrupt.is_asked() => return Err(stopped()),
            Err(PrepareError::Retry(_)) => std::thread::sleep(POLL),
        }
    }
}

fn begun_already(
    order: &Order,
    (partition, offset): (i32, i64),
    untouched: bool,
    (judged, journal): (&str, &str),
) -> Stop {
    let (topic, group) = (&order.topic, &order.config.kafka.group_id);
    let between = match judged == topic {
        true => String::new(),
        false => format!(" --topic {judged}"),
    };
    let forget =
        format!("kafka-consumer-groups --delete-offsets --topic {topic}{between} --group {group}");
    Stop::contradiction(match untouched {
        true => format!(
            "{topic} is preloaded already, and the group {group} has judged nothing since: start it. To preload it anew, delete the start offsets ({forget}) and run preload again"
        ),
        false => format!(
            "the group {group} has begun to read {topic} (committed offset {offset} in partition {partition}), and a window is preloaded before the first start. Choose another kafka.group_id; or begin anew: kafka-topics --delete --topic {journal}, and {forget}"
        ),
    })
}

pub fn stopped() -> Stop {
    Stop::interrupted(
        "stopped before the end, as asked: the window is not preloaded. Run preload again before the service is started",
    )
}

/// Not finished, whatever was committed: the next one begins anew.
fn again(why: &str) -> Stop {
    Stop::restart(format!(
        "the window is not preloaded: {why}. Run preload again before the service is started"
    ))
}

fn unfinished(error: &rdkafka::error::KafkaError, step: &'static str, sink: &Sink) -> Stop {
    match consequence(error, step, sink.transactional_id()) {
        Trouble::Stop(stop) => stop,
        Trouble::Abort { why, .. } | Trouble::InDoubt { why, .. } | Trouble::Fenced { why } => {
            again(&why)
        }
        Trouble::Damaged { .. } | Trouble::Halt(_) => again(&error.to_string()),
    }
}
