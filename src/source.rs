//! Source: the consumer group membership and the records of the assigned partitions.
//!
//! A rebalance is an event: librdkafka's callback only notes it, and the worker acknowledges it in
//! its own time, between two polls, after it has committed or aborted what is open (I6). Records can be
//! read ahead, while a transaction is being committed. It may touch the consumer and nothing else.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Config;
use crate::exit::Stop;
use crate::kafka::ahead::{ReadAhead, Reader};
use crate::kafka::clients;
use crate::kafka::context::Logged;
use crate::kafka::describe;

/// An input topic and one of its partitions.
pub type Partition = (String, i32);

/// What the group has decided about this member's partitions.
#[derive(Debug)]
pub enum Rebalance {
    /// These are ours from now on.
    Assigned(Vec<Partition>),
    /// These go to another member once we acknowledge: what is open can still be committed.
    Revoked(Vec<Partition>),
    /// These are gone already: what is open can only be aborted.
    Lost(Vec<Partition>),
}

/// Notes rebalances; the log lines of the consumer go where all of librdkafka's go.
pub struct SourceContext {
    logged: Logged,
    noted: Mutex<Noted>,
    closing: AtomicBool,
}

/// Rebalances between librdkafka's callback and their acknowledgement.
#[derive(Default)]
struct Noted {
    /// Those that nobody has taken yet.
    waiting: VecDeque<Rebalance>,
    /// Of the first of them it was told already that all that we had is lost.
    is_told: bool,
    /// What librdkafka waits for after the last one, until it is acknowledged.
    awaited: Option<Answer>,
}

/// How a rebalance is acknowledged.
#[derive(Clone, Copy)]
enum Answer {
    Assign,
    Unassign,
}

impl ClientContext for SourceContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.logged.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logged.error(error, reason);
    }
}

impl ConsumerContext for SourceContext {
    /// Runs on the polling thread. Overridden whole: the default would assign at once, at the
    /// committed offset, before the seen set covers it (I5).
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::Relaxed) {
            // Nobody polls any more to acknowledge it later; unanswered, closing waits for ever.
            if let Err(error) = unassign(consumer, partitions) {
                tracing::debug!(%error, "giving partitions back while closing");
            }
            return;
        }
        let list = partitions_of(partitions);
        let event = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assigned(list),
            _ if consumer.assignment_lost() => Rebalance::Lost(list),
            _ => Rebalance::Revoked(list),
        };
        let mut noted = lock(&self.noted);
        noted.awaited = Some(match event {
            Rebalance::Assigned(_) => Answer::Assign,
            Rebalance::Revoked(_) | Rebalance::Lost(_) => Answer::Unassign,
        });
        noted.waiting.push_back(event);
    }
}

/// The consumer of one worker.
pub struct Source {
    records: ReadAhead<SourceContext>,
    /// The member id of the last assignment that was acknowledged.
    assigned_as: Option<String>,
}

impl Source {
    /// Creates the consumer; nothing is subscribed yet.
    ///
    /// # Errors
    /// A property that librdkafka does not accept: status 64.
    pub fn create(config: &Config, worker: usize) -> Result<Self, Stop> {
        let context = SourceContext {
            logged: Logged::new(),
            noted: Mutex::default(),
            closing: AtomicBool::new(false),
        };
        let consumer = clients::consumer_config(config, worker)
            .create_with_context(context)
            .map_err(|error| {
                Stop::usage(format!(
                    "kafka: the consumer cannot be created: {}",
                    clients::refusal(&error)
                ))
            })?;
        Ok(Self {
            records: ReadAhead::new(consumer),
            assigned_as: None,
        })
    }

    /// Subscribes to exactly these topics, in place of what was subscribed before.
    pub fn subscribe(&self, topics: &[String]) -> KafkaResult<()> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        self.consumer().subscribe(&names)
    }

    fn consumer(&self) -> &BaseConsumer<SourceContext> {
        self.records.consumer()
    }

    /// The next record, or `None` after `timeout` or when a rebalance was noted.
    pub fn poll(&mut self, timeout: Duration) -> Option<KafkaResult<BorrowedMessage<'_>>> {
        self.records.poll(timeout)
    }

    /// While a transaction is committed: who we are in the group, for the thread that commits, and the records to come, for
    /// this one. What is read of them, [`Source::poll`] gives later.
    pub fn while_committing(&mut self) -> (Member<'_>, Reader<'_, SourceContext>) {
        let (consumer, reader) = self.records.split();
        let assigned_as = self.assigned_as.as_deref();
        let member = Member {
            consumer,
            assigned_as,
        };
        (member, reader)
    }

    /// The oldest rebalance that has not been taken yet. Each must be acknowledged before the next is asked for.
    pub fn next_rebalance(&self) -> Option<Rebalance> {
        let mut noted = lock(&self.consumer().context().noted);
        let event = noted.waiting.pop_front()?;
        if std::mem::take(&mut noted.is_told) {
            return Some(event);
        }
        let held = self.held();
        let is_cooperative = is_cooperative(self.consumer());
        // A static member that the group has put out while it was joining is taken back under another id, and librdkafka
        // claims for it what it had, which may have been another member's in between. It calls that no loss (2.12).
        let is_another = !held.is_empty() && !self.has_its_id();
        match event {
            // Without the cooperative protocol, an assignment comes to those alone who have nothing; librdkafka gives a
            // second one where topics have changed before the first was acknowledged.
            Rebalance::Assigned(new) if is_another || !is_cooperative && !held.is_empty() => {
                let kept = held.iter().filter(|_| is_cooperative).cloned();
                let all: BTreeSet<Partition> = kept.chain(new).collect();
                let all = Rebalance::Assigned(all.into_iter().collect());
                noted.waiting.push_front(all);
                tracing::warn!(
                    "this member comes back to its group with partitions that may have been another's in between; they are taken anew, and nothing is lost. Nothing needs to be done"
                );
                noted.is_told = true;
                Some(Rebalance::Lost(held))
            }
            Rebalance::Revoked(gone) if is_another => Some(Rebalance::Lost(gone)),
            event => Some(event),
        }
    }

    /// The partitions that were acknowledged as ours.
    fn held(&self) -> Vec<Partition> {
        let list = self.consumer().assignment();
        list.map_or_else(|_| Vec::new(), |list| partitions_of(&list))
    }

    /// Whether we are in the group under the id that we had at the last assignment; also where we are not in it now.
    fn has_its_id(&self) -> bool {
        let now = describe::group_generation(self.consumer()).map(|(_, id)| id);
        now.is_none() || now == self.assigned_as
    }

    /// An acknowledgement has gone through.
    fn answered(&self) {
        let mut noted = lock(&self.consumer().context().noted);
        if noted.waiting.is_empty() {
            noted.awaited = None;
        }
    }

    /// Acknowledges an assignment: the partitions are ours, but nothing is read from them until
    /// [`Source::start`]. An empty assignment must be acknowledged too.
    pub fn acknowledge_assigned(&mut self, partitions: &[Partition]) -> KafkaResult<()> {
        self.records.forget(partitions);
        // Paused before they are assigned, as nothing may be fetched at a start offset that is none.
        // It must be a number: "the end" would be asked of the broker, and librdkafka repeats that
        // question half a second after a seek has overtaken the answer; the second answer would
        // move the position to the end and skip what is before it.
        let list = list_of(partitions, Offset::Offset(0))?;
        for (topic, partition) in partitions {
            // Pausing passes over partitions that the client has not heard of; asking makes it know.
            let _ = describe::cached_watermarks(self.consumer(), topic, *partition);
        }
        if !partitions.is_empty() {
            self.consumer().pause(&list)?;
        }
        // Where there is none at the moment, nothing is committed before the next assignment.
        let id = describe::group_generation(self.consumer()).map(|(_, id)| id);
        self.assigned_as = Some(id.unwrap_or_default());
        assign(self.consumer(), &list)?;
        self.answered();
        Ok(())
    }

    /// Acknowledges a revocation or a loss.
    pub fn acknowledge_revoked(&mut self, partitions: &[Partition]) -> KafkaResult<()> {
        self.records.forget(partitions);
        unassign(self.consumer(), &list_of(partitions, Offset::Invalid)?)?;
        self.answered();
        Ok(())
    }

    /// Begins to read a partition at `offset`. Records fetched before are not delivered any more.
    ///
    /// # Errors
    /// Where librdkafka is not ready to seek yet: try again.
    pub fn start(&mut self, partition: &Partition, offset: i64) -> KafkaResult<()> {
        self.seek(std::slice::from_ref(partition), &[offset])?;
        self.consumer()
            .resume(&list_of(std::slice::from_ref(partition), Offset::Invalid)?)
    }

    /// Moves the read positions of assigned partitions.
    pub fn seek(&mut self, partitions: &[Partition], offsets: &[i64]) -> KafkaResult<()> {
        self.records.forget(partitions);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for ((topic, partition), offset) in partitions.iter().zip(offsets) {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        let outcome = self
            .consumer()
            .seek_partitions(list, Duration::from_secs(5))?;
        for element in outcome.elements() {
            element.error()?;
        }
        Ok(())
    }

    /// Stops reading partitions until [`Source::start`].
    pub fn pause(&mut self, partitions: &[Partition]) -> KafkaResult<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        self.records.forget(partitions);
        self.consumer()
            .pause(&list_of(partitions, Offset::Invalid)?)
    }

    /// Who we are in the group.
    pub fn member(&self) -> Member<'_> {
        Member {
            consumer: self.consumer(),
            assigned_as: self.assigned_as.as_deref(),
        }
    }

    /// As of [`Member::metadata`].
    pub fn membership(&self) -> Option<ConsumerGroupMetadata> {
        self.member().metadata()
    }

    /// The high watermark that the last fetch of this partition brought, if any.
    pub fn cached_high_watermark(&self, topic: &str, partition: i32) -> Option<i64> {
        describe::cached_watermarks(self.consumer(), topic, partition).map(|(_, high)| high)
    }

    /// The positions that are known: behind the last record that [`Source::poll`] gave, and behind all markers and
    /// aborted records after it. Unknown after a seek until something comes.
    pub fn positions(&self) -> HashMap<Partition, i64> {
        let Ok(positions) = self.consumer().position() else {
            return HashMap::new();
        };
        let elements = positions.elements();
        let known = elements
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => {
                    Some(((element.topic().to_owned(), element.partition()), offset))
                }
                _ => None,
            });
        let mut positions: HashMap<Partition, i64> = known.collect();
        // The client counts what was read ahead as delivered.
        positions.extend(self.records.first_offsets());
        positions
    }

    /// What librdkafka said last when something was wrong.
    pub fn last_error(&self) -> Option<String> {
        self.consumer().context().logged.last_error()
    }

    /// The client's fatal error, if it has one: it will not work again.
    pub fn fatal_error(&self) -> Option<String> {
        self.consumer()
            .client()
            .fatal_error()
            .map(|(code, reason)| format!("{code}: {reason}"))
    }
}

/// A member of a group.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    consumer: &'a BaseConsumer<SourceContext>,
    assigned_as: Option<&'a str>,
}

impl Member<'_> {
    /// What fences a member of an older generation, or `None` while this consumer is not the live member that its
    /// partitions were assigned to: offsets sent without generation and member id are not fenced at all, and those of a
    /// member that came back under another id are taken, whoever had its partitions in between (I6).
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        // Before the questions: a client that is a member afterwards was one when it was taken, as it would have had to
        // acknowledge a rebalance in between.
        let metadata = self.consumer.group_metadata()?;
        let (_, id) = describe::group_generation(self.consumer)?;
        let is_ours = self.assigned_as == Some(id.as_str()) && !self.consumer.assignment_lost();
        is_ours.then_some(metadata)
    }

    /// A deliberate bug's way to commit, see [`crate::broken`].
    #[cfg(feature = "broken")]
    pub fn commit_beside(&self, offsets: &TopicPartitionList) {
        let outcome = self
            .consumer
            .commit(offsets, rdkafka::consumer::CommitMode::Sync);
        tracing::debug!(?outcome, "committed beside the transaction");
    }
}

impl Drop for Source {
    /// Leaves the group (about 100 ms), on every way out: a rebalance that was noted must be answered, and those that come
    /// while closing the callback must answer itself, or destroying the consumer waits for ever.
    fn drop(&mut self) {
        let consumer = self.consumer();
        consumer.context().closing.store(true, Ordering::Relaxed);
        let awaited = lock(&consumer.context().noted).awaited.take();
        // Of nothing: that is an answer too, and what there is goes with the consumer.
        let nothing = TopicPartitionList::new();
        let answered = match awaited {
            None => Ok(()),
            Some(Answer::Assign) => assign(consumer, &nothing),
            Some(Answer::Unassign) => unassign(consumer, &nothing),
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "answering a rebalance while leaving");
        }
    }
}

fn is_cooperative(consumer: &BaseConsumer<SourceContext>) -> bool {
    matches!(
        consumer.rebalance_protocol(),
        RebalanceProtocol::Cooperative
    )
}

fn assign(
    consumer: &BaseConsumer<SourceContext>,
    partitions: &TopicPartitionList,
) -> KafkaResult<()> {
    if is_cooperative(consumer) {
        consumer.incremental_assign(partitions)
    } else {
        consumer.assign(partitions)
    }
}

fn unassign(
    consumer: &BaseConsumer<SourceContext>,
    partitions: &TopicPartitionList,
) -> KafkaResult<()> {
    if is_cooperative(consumer) {
        consumer.incremental_unassign(partitions)
    } else {
        consumer.unassign()
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<Partition> {
    let elements = list.elements();
    let partitions = elements.iter();
    partitions
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect()
}

fn list_of(partitions: &[Partition], offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, offset)?;
    }
    Ok(list)
}

/// The data behind these locks is whole after every statement, so a panic elsewhere is no reason
/// to stop using it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
