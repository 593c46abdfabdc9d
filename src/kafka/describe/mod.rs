//! What librdkafka can tell and its Rust wrapper does not ask: topic ids, permissions, the group's
//! generation, watermarks it has already heard of, headers by any name.
//!
//! It and [`super::produce`] alone call librdkafka directly. Questions to the cluster stand in this file and in
//! `bounds`; they block for at most their timeout and a few seconds, and free what they were given. What
//! the client knows by itself is in `local`, the plumbing of a request in `native`.

#![allow(unsafe_code)]

mod bounds;
mod local;
mod native;

use std::collections::BTreeSet;
use std::ffi::c_char;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_admin_op_t as Op;

pub use bounds::{End, bounds};
pub use local::{
    cached_watermarks, each_header, group_generation, header_count, last_header, may_be_written,
};
use native::{Options, Owned, ask, c_strings, elements, failure};
use native::{permissions, text, unexpected};

/// Why a question was not answered: the code to match on and the text for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct NoAnswer {
    pub code: RDKafkaErrorCode,
    pub text: String,
}

/// What an ACL may permit, in Kafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
    DescribeConfigs,
}

/// A topic as its cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    pub name: String,
    /// Base64, as Kafka's own tools print it; a topic that was deleted and made again has another.
    /// `None` on brokers before 2.8.
    pub id: Option<String>,
    /// One more than the largest partition number.
    pub partitions: i32,
    /// Replicas of the partition that has the fewest.
    pub replication: i32,
    /// Every partition has a leader.
    pub led: bool,
    /// What this client may do there; `None` where the broker does not tell.
    pub permitted: Option<BTreeSet<Permission>>,
}

/// A topic by its name, and what there is to say of it.
pub type DescribedTopic = (String, Result<TopicDescription, NoAnswer>);

/// The cluster as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDescription {
    pub id: Option<String>,
    /// `host:port (id)` of each node.
    pub nodes: Vec<String>,
    pub permitted: Option<BTreeSet<Permission>>,
}

/// Describes topics, each on its own: absent and forbidden topics are errors of theirs alone
/// (`UnknownTopicOrPartition`, `TopicAuthorizationFailed`). One request. A name may come more than once, and is answered
/// once: librdkafka refuses a request that repeats one.
pub fn topics<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<DescribedTopic>, NoAnswer> {
    let distinct: BTreeSet<&str> = names.iter().copied().collect();
    let names = c_strings(&Vec::from_iter(distinct))?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: `pointers` holds as many valid C strings as is said; librdkafka copies them.
    let collection = unsafe {
        sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len())
    };
    let collection = Owned::new(collection, sys::rd_kafka_TopicCollection_destroy)?;
    let options = Options::new(client, Op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout)?;
    options.with_permissions();
    let event = ask(client, timeout, |rk, queue| {
        // SAFETY: all four are alive; the request copies collection and options.
        unsafe { sys::rd_kafka_DescribeTopics(rk, collection.get(), options.get(), queue) }
    })?;
    let mut count = 0;
    // SAFETY: the event is alive and of the kind asked for (null otherwise, see `elements`); the
    // result and all it points to live as long as the event.
    let found = unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event.get());
        if result.is_null() {
            return Err(unexpected());
        }
        elements(
            sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count),
            count,
        )
    };
    Ok(found
        .iter()
        .map(|topic| topic_description(*topic))
        .collect())
}

/// The private half of [`topics`]: `topic` must be of an event that is alive.
fn topic_description(topic: *const sys::rd_kafka_TopicDescription_t) -> DescribedTopic {
    let (mut partition_count, mut permission_count) = (0, 0);
    // SAFETY: `topic` and what it points to belong to an event that the caller keeps alive.
    let (name, error, id, partitions, permitted) = unsafe {
        (
            text(sys::rd_kafka_TopicDescription_name(topic)),
            failure(sys::rd_kafka_TopicDescription_error(topic)),
            sys::rd_kafka_TopicDescription_topic_id(topic),
            elements(
                sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partition_count),
                partition_count,
            ),
            permissions(
                sys::rd_kafka_TopicDescription_authorized_operations(
                    topic,
                    &raw mut permission_count,
                ),
                permission_count,
            ),
        )
    };
    if let Some(error) = error {
        return (name, Err(error));
    }
    let mut description = TopicDescription {
        name: name.clone(),
        id: topic_id(id),
        partitions: 0,
        replication: i32::MAX,
        led: true,
        permitted,
    };
    for partition in partitions {
        let mut replicas = 0;
        // SAFETY: as above; a partition without a leader has a null one.
        let (number, leader) = unsafe {
            sys::rd_kafka_TopicPartitionInfo_replicas(*partition, &raw mut replicas);
            (
                sys::rd_kafka_TopicPartitionInfo_partition(*partition),
                sys::rd_kafka_TopicPartitionInfo_leader(*partition),
            )
        };
        description.partitions = description.partitions.max(number.saturating_add(1));
        let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
        description.replication = description.replication.min(replicas);
        description.led &= !leader.is_null();
    }
    (name, Ok(description))
}

/// Brokers without topic ids answer one that is all zero.
fn topic_id(id: *const sys::rd_kafka_Uuid_t) -> Option<String> {
    if id.is_null() {
        return None;
    }
    // SAFETY: not null, and of an event that the caller of `topic_description` keeps alive.
    unsafe {
        let zero = sys::rd_kafka_Uuid_most_significant_bits(id) == 0
            && sys::rd_kafka_Uuid_least_significant_bits(id) == 0;
        (!zero).then(|| text(sys::rd_kafka_Uuid_base64str(id)))
    }
}

/// What this client may do with the consumer group; `None` where the broker does not tell.
/// `GroupAuthorizationFailed` where it may not even look.
pub fn group_permissions<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<Option<BTreeSet<Permission>>, NoAnswer> {
    let names = c_strings(&[group])?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let options = Options::new(
        client,
        Op::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
        timeout,
    )?;
    options.with_permissions();
    let event = ask(client, timeout, |rk, queue| {
        let (names, count) = (pointers.as_mut_ptr(), pointers.len());
        // SAFETY: all are alive; the request copies names and options.
        unsafe { sys::rd_kafka_DescribeConsumerGroups(rk, names, count, options.get(), queue) }
    })?;
    let (mut count, mut permission_count) = (0, 0);
    // SAFETY: as in `topics`.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event.get());
        if result.is_null() {
            return Err(unexpected());
        }
        let found = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        let group = *elements(found, count).first().ok_or_else(unexpected)?;
        if let Some(error) = failure(sys::rd_kafka_ConsumerGroupDescription_error(group)) {
            return Err(error);
        }
        let operations = sys::rd_kafka_ConsumerGroupDescription_authorized_operations(
            group,
            &raw mut permission_count,
        );
        Ok(permissions(operations, permission_count))
    }
}

/// The cluster's id, its nodes, and what this client may do with the cluster as a whole.
pub fn cluster<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
) -> Result<ClusterDescription, NoAnswer> {
    let options = Options::new(client, Op::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER, timeout)?;
    options.with_permissions();
    let event = ask(client, timeout, |rk, queue| {
        // SAFETY: all are alive; the request copies the options.
        unsafe { sys::rd_kafka_DescribeCluster(rk, options.get(), queue) }
    })?;
    let (mut count, mut permission_count) = (0, 0);
    // SAFETY: as in `topics`; the id may be null.
    unsafe {
        let result = sys::rd_kafka_event_DescribeCluster_result(event.get());
        if result.is_null() {
            return Err(unexpected());
        }
        let id = sys::rd_kafka_DescribeCluster_result_cluster_id(result);
        let nodes = sys::rd_kafka_DescribeCluster_result_nodes(result, &raw mut count);
        let operations = sys::rd_kafka_DescribeCluster_result_authorized_operations(
            result,
            &raw mut permission_count,
        );
        Ok(ClusterDescription {
            id: (!id.is_null()).then(|| text(id)),
            nodes: elements(nodes, count)
                .iter()
                .map(|node| node_name(*node))
                .collect(),
            permitted: permissions(operations, permission_count),
        })
    }
}

fn node_name(node: *const sys::rd_kafka_Node_t) -> String {
    // SAFETY: the node belongs to an event that the caller keeps alive.
    unsafe {
        let host = text(sys::rd_kafka_Node_host(node));
        format!(
            "{host}:{} ({})",
            sys::rd_kafka_Node_port(node),
            sys::rd_kafka_Node_id(node)
        )
    }
}
