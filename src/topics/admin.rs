//! One way to ask and change the cluster: an admin client, and a consumer that only looks.
//!
//! Calls block and end within [`TIMEOUT`] (creation within [`CREATION`]); they are made on worker
//! threads and in commands, never on the runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::PrepareError;
use crate::config::Config;
use crate::exit::Stop;
use crate::kafka::clients::{self, admin_config, group_config, observer_config};
use crate::kafka::context::{Logged, advice};
use crate::kafka::describe::{
    self, ClusterDescription, DescribedTopic, NoAnswer, Permission, TopicDescription,
};
use crate::kafka::watermarks;

/// One question may take this long.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Making or growing a topic may take this long.
pub const CREATION: Duration = Duration::from_secs(30);

/// Pause before a question is asked again.
const LOOK: Duration = Duration::from_millis(200);

/// A topic's effective settings, by name.
pub type Settings = BTreeMap<String, String>;

/// The admin client and the observer of one process; share it by reference or `Arc`.
pub struct Admin {
    client: Arc<AdminClient<Logged>>,
    observer: Arc<BaseConsumer<Logged>>,
    logged: Logged,
    group: String,
    group_config: ClientConfig,
    ending: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Admin {
    /// Makes both clients. Connects to nothing yet; fails (64) only on properties that librdkafka
    /// refuses.
    pub fn new(config: &Config) -> Result<Self, Stop> {
        let logged = Logged::new();
        let mut admin = admin_config(config);
        // Nobody can poll this client's log queue; what it would say, the observer says too (I8).
        admin.set_log_level(RDKafkaLogLevel::Emerg);
        let client = admin
            .create_with_context(logged.clone())
            .map_err(|e| refused(&e))?;
        let observer: BaseConsumer<Logged> = observer_config(config)
            .create_with_context(logged.clone())
            .map_err(|error| refused(&error))?;
        let observer = Arc::new(observer);
        let ending = Arc::new(AtomicBool::new(false));
        let listener = listen(Arc::clone(&observer), Arc::clone(&ending))?;
        let group = config.kafka.group_id.clone();
        let client = Arc::new(client);
        Ok(Self {
            client,
            observer,
            logged,
            group,
            group_config: group_config(config),
            ending,
            listener: Some(listener),
        })
    }

    /// The admin client, for requests that run on the runtime.
    pub fn client(&self) -> Arc<AdminClient<Logged>> {
        Arc::clone(&self.client)
    }

    /// The id of the cluster, once anything was answered; `None` where it does not tell.
    pub fn cluster_id(&self) -> Option<String> {
        self.observer.client().fetch_cluster_id(TIMEOUT)
    }

    /// The read_uncommitted consumer: it sees true high watermarks and belongs to no group.
    pub fn observer(&self) -> &BaseConsumer<Logged> {
        &self.observer
    }

    /// What librdkafka said last when something was wrong.
    pub fn last_error(&self) -> Option<String> {
        self.logged.last_error()
    }

    /// See [`super::list`].
    pub fn list(&self) -> Result<Vec<(String, i32)>, PrepareError> {
        let metadata = self.observer.fetch_metadata(None, TIMEOUT);
        let metadata = metadata.map_err(|e| self.retry("the topics could not be listed", &e))?;
        let known = metadata
            .topics()
            .iter()
            .filter(|topic| !topic.partitions().is_empty());
        let mut topics: Vec<(String, i32)> = known
            .map(|topic| {
                let last = topic
                    .partitions()
                    .iter()
                    .map(|partition| partition.id())
                    .max();
                (
                    topic.name().to_owned(),
                    last.map_or(0, |last| last.saturating_add(1)),
                )
            })
            .collect();
        topics.sort();
        Ok(topics)
    }

    /// Describes topics; an absent one is `None`. One that may not be seen stops with 78.
    pub fn describe(&self, names: &[&str]) -> Result<Vec<Option<TopicDescription>>, PrepareError> {
        let found = describe::topics(self.observer.client(), names, TIMEOUT)
            .map_err(|error| self.retry("the topics could not be described", &error))?;
        names
            .iter()
            .map(|name| self.described(name, &found))
            .collect()
    }

    fn described(
        &self,
        name: &str,
        found: &[DescribedTopic],
    ) -> Result<Option<TopicDescription>, PrepareError> {
        let answer = found
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, answer)| answer);
        match answer {
            Some(Ok(topic)) => Ok(Some(topic.clone())),
            Some(Err(e)) if is_absent(e.code) => Ok(None),
            Some(Err(e)) if is_forbidden(e.code) => Err(Stop::contradiction(format!(
                "topic {name} may not be described: {e}. Grant this user what is missing on topic {name}: Read on an input, Write on an output, Read, Write and Delete on a journal; each of them includes Describe"
            ))
            .into()),
            Some(Err(e)) => Err(self.retry(&format!("topic {name} could not be described"), e)),
            None => Err(PrepareError::Retry(format!("the cluster did not answer for topic {name}"))),
        }
    }

    /// What this client may do with each topic: nothing where it may not even look; `None` where the
    /// broker does not tell, or there is no such topic.
    pub fn permitted(
        &self,
        names: &[&str],
    ) -> Result<Vec<Option<BTreeSet<Permission>>>, PrepareError> {
        let found = describe::topics(self.observer.client(), names, TIMEOUT)
            .map_err(|error| self.retry("the topics could not be described", &error))?;
        let permitted = |name: &&str| match found.iter().find(|(found, _)| found == name) {
            Some((_, Ok(topic))) => topic.permitted.clone(),
            Some((_, Err(error))) if is_forbidden(error.code) => Some(BTreeSet::new()),
            _ => None,
        };
        Ok(names.iter().map(permitted).collect())
    }

    /// A topic's effective settings; `None` where the ACLs forbid to read them, or it is absent.
    pub fn settings(&self, topic: &str) -> Result<Option<Settings>, PrepareError> {
        let what = format!("the settings of topic {topic} could not be read");
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let wanted = [ResourceSpecifier::Topic(topic)];
        let answer = block_on(self.client.describe_configs(&wanted, &options));
        let answer = answer.map_err(|error| self.retry(&what, &error))?;
        match answer.into_iter().next() {
            Some(Ok(resource)) => {
                // A refusal arrives as a topic without settings; every real one has some.
                if resource.entries.is_empty() {
                    return Ok(None);
                }
                let entries = resource.entries.into_iter();
                Ok(Some(
                    entries
                        .filter_map(|e| e.value.map(|value| (e.name, value)))
                        .collect(),
                ))
            }
            Some(Err(code)) if is_forbidden(code) || is_absent(code) => Ok(None),
            Some(Err(code)) => Err(self.retry(&what, &code)),
            None => Err(PrepareError::Retry(what)),
        }
    }

    /// The group's committed offsets in a topic as (partition, offset), partitions without one left
    /// out. Not the stable ones: where a transaction is about to move an offset, the old one.
    ///
    /// Asked by a client of its own that belongs to the group: librdkafka ends the process where a
    /// client without one asks while the group's coordinator moves.
    pub fn committed(&self, topic: &str, partitions: i32) -> Result<Vec<(i32, i64)>, PrepareError> {
        let group = &self.group;
        let unknown = |error: &dyn std::fmt::Display| {
            self.retry(
                &format!("the offsets of group {group} in {topic} are not known"),
                error,
            )
        };
        let client: BaseConsumer<Logged> = self
            .group_config
            .create_with_context(self.logged.clone())
            .map_err(|error| refused(&error))?;
        let until = Instant::now() + TIMEOUT;
        let answer = loop {
            let mut wanted = TopicPartitionList::new();
            wanted.add_partition_range(topic, 0, partitions - 1);
            match client.committed_offsets(wanted, TIMEOUT) {
                Ok(answer) => break answer,
                Err(error) if Instant::now() < until && is_moving(&error) => {
                    std::thread::sleep(LOOK)
                }
                Err(error) => {
                    // Where the ACLs forbid the group, librdkafka only stops waiting.
                    return Err(match self.group_permissions() {
                        Err(reason) if is_forbidden(reason.code) => {
                            self.group_forbidden(topic, &reason)
                        }
                        _ => unknown(&error),
                    });
                }
            }
        };
        let mut committed = Vec::new();
        for element in answer.elements() {
            match (element.error(), element.offset()) {
                (Ok(()), Offset::Offset(offset)) => committed.push((element.partition(), offset)),
                (Ok(()), _) => {}
                (Err(error), _) if error.rdkafka_error_code().is_some_and(is_forbidden) => {
                    return Err(self.group_forbidden(topic, &error));
                }
                (Err(error), _) => return Err(unknown(&error)),
            }
        }
        Ok(committed)
    }

    fn group_forbidden(&self, topic: &str, error: &dyn std::fmt::Display) -> PrepareError {
        let group = &self.group;
        Stop::contradiction(format!(
            "the offsets of group {group} in topic {topic} may not be read: {error}. Grant Read on \
             group {group} and Describe on topic {topic} to this user"
        ))
        .into()
    }

    /// What this client may do with the consumer group; see [`describe::group_permissions`].
    pub fn group_permissions(&self) -> Result<Option<BTreeSet<Permission>>, NoAnswer> {
        describe::group_permissions(self.observer.client(), &self.group, TIMEOUT)
    }

    /// Low and true high watermark of a partition, asked of its leader.
    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), PrepareError> {
        watermarks(&self.observer, topic, partition, TIMEOUT).map_err(|error| {
            self.retry(
                &format!("watermarks of {topic} partition {partition} are not known"),
                &error,
            )
        })
    }

    /// The cluster's id, nodes, and what may be done with the cluster as a whole.
    pub fn cluster(&self) -> Result<ClusterDescription, PrepareError> {
        describe::cluster(self.observer.client(), TIMEOUT)
            .map_err(|error| self.retry("the cluster could not be described", &error))
    }

    /// Makes a topic, or with `dry` only asks whether that would be accepted. A topic that is there
    /// already is the outer `Ok`'s `Err(TopicAlreadyExists)`.
    pub fn create(
        &self,
        topic: &NewTopic<'_>,
        dry: bool,
    ) -> Result<Result<(), RDKafkaErrorCode>, PrepareError> {
        let answer = block_on(self.client.create_topics([topic], &changing(dry)));
        self.changed(
            &format!("topic {} could not be created", topic.name),
            answer,
        )
    }

    /// Grows a topic to `partitions`, or with `dry` only asks whether that would be accepted.
    pub fn grow(
        &self,
        topic: &str,
        partitions: i32,
        dry: bool,
    ) -> Result<Result<(), RDKafkaErrorCode>, PrepareError> {
        let count = usize::try_from(partitions).unwrap_or(0);
        let wanted = [NewPartitions::new(topic, count)];
        let answer = block_on(self.client.create_partitions(&wanted, &changing(dry)));
        self.changed(&format!("topic {topic} could not be grown"), answer)
    }

    fn changed(
        &self,
        what: &str,
        answer: Result<Vec<rdkafka::admin::TopicResult>, KafkaError>,
    ) -> Result<Result<(), RDKafkaErrorCode>, PrepareError> {
        let answer = answer.map_err(|error| self.retry(what, &error))?;
        match answer.into_iter().next() {
            Some(Ok(_)) => Ok(Ok(())),
            Some(Err((_, code))) => Ok(Err(code)),
            None => Err(PrepareError::Retry(what.to_owned())),
        }
    }

    fn retry(&self, what: &str, error: &dyn std::fmt::Display) -> PrepareError {
        let last = self
            .last_error()
            .map(|last| format!(" (last error: {last}){}", advice(&last)));
        PrepareError::Retry(format!("{what}: {error}{}", last.unwrap_or_default()))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(listener) = self.listener.take() {
            // Its only way to fail is a panic, which has been reported by then.
            let _ = listener.join();
        }
    }
}

/// Serves the observer's log and error events, so that they reach the log while a call blocks, and
/// none pile up (I8).
fn listen(
    observer: Arc<BaseConsumer<Logged>>,
    ending: Arc<AtomicBool>,
) -> Result<JoinHandle<()>, Stop> {
    let serve = move || {
        while !ending.load(Ordering::Relaxed) {
            // The context has taken note of errors; there is no assignment, so no message.
            drop(observer.poll(Duration::from_millis(100)));
        }
    };
    let thread = std::thread::Builder::new()
        .name("kafka-observer".to_owned())
        .spawn(serve);
    thread.map_err(|error| Stop::internal(format!("no thread for the Kafka observer: {error}")))
}

fn changing(dry: bool) -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(CREATION))
        .operation_timeout(Some(CREATION))
        .validate_only(dry)
}

fn refused(error: &KafkaError) -> Stop {
    Stop::usage(format!(
        "librdkafka refuses the client configuration: {}. Correct kafka.properties",
        clients::refusal(error)
    ))
}

/// The ACLs say no.
pub fn is_forbidden(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// The group's coordinator is being elected, or has just moved.
fn is_moving(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::NotCoordinator | Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress
        )
    )
}

/// There is no such topic.
pub fn is_absent(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic)
}
