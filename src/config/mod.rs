//! The configuration as the rest of the program sees it: types that cannot hold nonsense.
//!
//! A file and the environment become a [`Config`] in [`load()`]; nothing here touches Kafka.

mod fault;
mod flags;
mod id_source;
mod interpolate;
mod keys;
pub mod load;
mod overlay;
mod payload;
mod properties;
mod render;
mod schemas;
#[cfg(test)]
mod tests;
mod topic_names;
mod tree;
mod value;
mod words;
mod yaml;

pub use fault::Faults;
pub use flags::{Flags, from_flags};
pub(crate) use keys::nearest;
pub use load::{environment, from_str, load};
pub(crate) use properties::is_secret;
pub(crate) use value::log_level;
pub use value::render_duration;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub kafka: Kafka,
    pub input: Input,
    pub output: Output,
    pub id: Id,
    /// `None` where no registry is configured.
    pub schemas: Option<Schemas>,
    pub window: Window,
    pub scope: Scope,
    pub repartition: Repartition,
    pub mode: Mode,
    pub duplicates: SideTopic,
    pub rejected: SideTopic,
    pub journal: Journal,
    pub store: Store,
    pub transaction: Transaction,
    /// Worker threads, each one member of the consumer group. Default 1, at most 64.
    pub workers: usize,
    pub http: Http,
    pub log: Log,
}

/// `kafka:` how to reach the cluster, and who we are there. `Debug` prints no secret of the
/// properties.
#[derive(Clone, PartialEq)]
pub struct Kafka {
    /// `host:port`, comma separated. Required.
    pub bootstrap_servers: String,
    /// Consumer group. Required.
    pub group_id: String,
    /// Names this instance; part of the transactional id. Default: the host name.
    pub instance_id: String,
    /// Also set `group.instance.id`. Default false.
    pub static_membership: bool,
    /// librdkafka properties of both clients, verbatim.
    pub properties: BTreeMap<String, String>,
    pub consumer_properties: BTreeMap<String, String>,
    pub producer_properties: BTreeMap<String, String>,
}

/// `input:` what is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Topic names; one that starts with `^` is a regular expression. Required, not empty.
    pub topics: Vec<TopicPattern>,
    /// Where a partition with no committed offset begins. Default earliest.
    pub start: Start,
}

/// A topic by name, or all topics that a regular expression matches from their first character.
#[derive(Debug, Clone)]
pub enum TopicPattern {
    Name(String),
    Regex(regex::Regex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    Fail,
}

/// `output:` where new records go.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Default `{topic}_dedup`.
    pub topic: TopicTemplate,
    /// Default same.
    pub partition: PartitionBy,
    /// Create it (and the duplicates and rejected topics) when absent. Default true.
    pub create: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionBy {
    /// The record's own partition number.
    Same,
    /// murmur2 of the key, as the Java client does.
    Key,
}

/// `id:` where a record's id is.
#[derive(Debug, Clone, PartialEq)]
pub struct Id {
    /// Required.
    pub from: IdSource,
    /// What becomes of a record without one. Default forward.
    pub missing: Missing,
    /// What to do where the ids of the journal were taken from elsewhere. Default refuse.
    pub changed: Changed,
    /// What becomes of a record with an id that is remembered, and another payload. Default ignore.
    pub conflicts: Conflicts,
    /// What of a record is compared for that. Default value.
    pub payload: Payload,
}

/// The same id with another payload is no repetition, but a fault of whoever sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conflicts {
    /// Payloads are not compared.
    #[default]
    Ignore,
    /// It is a duplicate, and counted.
    Count,
    /// It is let through, and counted; the next one is compared with it.
    Forward,
    /// It goes to the rejected topic.
    Reject,
}

impl Conflicts {
    /// Each with its word.
    pub const ALL: [(&'static str, Self); 4] = [
        ("ignore", Self::Ignore),
        ("count", Self::Count),
        ("forward", Self::Forward),
        ("reject", Self::Reject),
    ];
}

/// `id.payload:` the bytes of a record that two with the same id must have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Value,
    /// The value and all headers, in their order.
    ValueAndHeaders,
    /// The value as JSON, without what these pointers (RFC 6901) lead to, whatever the order of members.
    JsonWithout(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdSource {
    Key,
    Value,
    /// The last header of that name.
    Header(String),
    /// RFC 6901 pointer into the value.
    Json(String),
    /// 1-based column of the value, and the delimiter (default `,`).
    Csv {
        column: usize,
        delimiter: u8,
    },
    /// RFC 6901 pointer to a field of an Avro value in the wire format of schema registries.
    Avro(String),
    /// The same, of a Protobuf value.
    Protobuf(String),
    /// RFC 6901 pointer into a JSON value in the wire format of schema registries.
    JsonSchema(String),
    /// `source` and `id` of a CloudEvent, in binary or structured mode.
    CloudEvents,
    /// All of these, none of them itself `All` or `CloudEvents`; at least one.
    All(Vec<IdSource>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Forward,
    Reject,
    Drop,
    Fail,
}

/// `schemas:` the registry that knows the schemas of values. `Debug` prints no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Schemas {
    /// `http://` or `https://`, with the path under which the registry's interface is.
    pub registry: String,
    /// Set together with `password`, or not at all.
    pub username: Option<String>,
    pub password: Option<String>,
    /// Certificates in PEM that the registry's must go back to. Default: the system's.
    pub ca: Option<PathBuf>,
    /// Of one request. Default 5 s.
    pub timeout: Duration,
    /// What becomes of a record whose schema the registry does not know. Default fail.
    pub unknown: UnknownSchema,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownSchema {
    /// Stop, when the registry has said for 10 s that it has no such schema.
    Fail,
    /// It is unparsable, and `id.missing` says what that means.
    Missing,
    /// Its partition waits until the registry knows it.
    Wait,
}

/// What becomes of remembered ids that were taken from another source than `id.from` names now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// The service does not start (78).
    Refuse,
    /// They are compared with the new ones, byte by byte.
    Keep,
    /// They are forgotten.
    Forget,
}

/// `window:` how long an id is remembered. At least one of `time_ms` and `ids` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Milliseconds; `None` only where `ids` alone was configured. Default 24 h.
    pub time_ms: Option<i64>,
    /// Count of ids; 1 or more.
    pub ids: Option<u64>,
    /// A duplicate renews its id. Default false.
    pub refresh: bool,
    /// Milliseconds that a timestamp may be ahead of the wall clock. Default 10 min.
    pub max_ahead_ms: i64,
}

/// `scope:` which records share one seen set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those of one input partition. Default.
    #[default]
    Partition,
    /// Those of the partitions of one number, of all input topics.
    Copartition,
    /// Those of one input topic.
    Topic,
    /// The same, in two hops: records go through a topic of the service's own, partitioned by id.
    Repartition,
}

/// What members of `scope: topic` have in common with each other, and with no others.
const TOPIC_ASSIGNOR: &str = "roundrobin";

impl Scope {
    /// Each with its word.
    pub const ALL: [(&'static str, Self); 4] = [
        ("partition", Self::Partition),
        ("copartition", Self::Copartition),
        ("topic", Self::Topic),
        ("repartition", Self::Repartition),
    ];

    /// The word in configs and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Copartition => "copartition",
            Self::Topic => "topic",
            Self::Repartition => "repartition",
        }
    }

    /// Whether partitions of the inputs ask each other's windows.
    pub fn has_kin(self) -> bool {
        matches!(self, Self::Copartition | Self::Topic)
    }

    /// The assignor of the group that this scope asks for; `None` where any will do.
    pub fn assignor(self) -> Option<&'static str> {
        match self {
            Self::Partition | Self::Repartition => None,
            // Gives the partitions of one number of all topics to one member.
            Self::Copartition => Some("range"),
            // No member of another scope has it, so the coordinator lets none of them in: it would be given
            // partitions that the owner of the topic reads.
            Self::Topic => Some(TOPIC_ASSIGNOR),
        }
    }
}

/// `repartition:` the topic between the two hops of `scope: repartition`.
#[derive(Debug, Clone, PartialEq)]
pub struct Repartition {
    /// Default `{topic}-{group}-by-id`.
    pub topic: TopicTemplate,
    /// Partitions that it is made with; never changed afterwards. Default: as many as the input has.
    pub partitions: Option<i32>,
}

/// `mode:` what is written, and where. Verdicts, journal and store are the same in all of them, so a
/// deployment may change its mode and keeps its window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// New records go to the output. Default.
    #[default]
    Filter,
    /// All records go to the output, and duplicates carry headers that say so.
    Mark,
    /// No record is written: verdicts are counted and remembered.
    Observe,
}

impl Mode {
    /// Each with its word.
    pub const ALL: [(&'static str, Self); 3] = [
        ("filter", Self::Filter),
        ("mark", Self::Mark),
        ("observe", Self::Observe),
    ];

    /// The word in configs, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Mark => "mark",
            Self::Observe => "observe",
        }
    }
}

/// `duplicates:` and `rejected:`; `None` means that such records are only counted.
#[derive(Debug, Clone, PartialEq)]
pub struct SideTopic {
    pub topic: Option<TopicTemplate>,
}

/// `journal:` the topic that holds the runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Journal {
    /// Default `{topic}-{group}-seen`.
    pub topic: TopicTemplate,
    /// `retention.ms` of a journal that may not be trimmed. Default none (-1).
    pub retention: Option<Duration>,
}

/// `store:` the local cache of the journal, and what the seen window keeps in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    pub path: PathBuf,
    /// Ids that a scope's active slice holds in memory before it is sealed. Default 229,376 (up to
    /// 10 MB); 16 to 16,777,216.
    pub active_ids: u64,
    /// Memory of the open databases of the store, in bytes. Default 96 MiB; 16 MiB to 1 TiB.
    pub memory_bytes: u64,
    /// False positives a look-up that the filter in front of the store is sized for. Default 0.001;
    /// 0.000001 to 0.1.
    pub false_positive_rate: f64,
}

/// `transaction:` bounds of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// From one commit to the next, at least. Default 100 ms.
    pub interval: Duration,
    /// Default 20,000; 1 to 1,000,000.
    pub records: usize,
    /// Default 30 s.
    pub timeout: Duration,
}

/// `http:` the two listeners. `Debug` prints no token.
#[derive(Clone, PartialEq, Eq)]
pub struct Http {
    /// Probes and metrics. Default 0.0.0.0:9464.
    pub listen: SocketAddr,
    /// Status and admin. Default 127.0.0.1:9465.
    pub admin: SocketAddr,
    /// What the admin interface wants to be shown; needed beyond loopback.
    pub admin_token: Option<String>,
    /// Names under which the admin interface may be asked, beside addresses and `localhost`.
    pub admin_hosts: Vec<String>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http")
            .field("listen", &self.listen)
            .field("admin", &self.admin)
            .field(
                "admin_token",
                &self.admin_token.as_ref().map(|_| properties::REDACTED),
            )
            .field("admin_hosts", &self.admin_hosts)
            .finish()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A tracing filter: `info`, `debug`, `info,rdkafka=debug`. Default info.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// A topic name in which `{topic}` stands for the input topic and `{group}` for the group id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate(pub String);

impl TopicTemplate {
    /// The topic name for one input topic.
    pub fn render(&self, topic: &str, group: &str) -> String {
        self.0.replace("{group}", group).replace("{topic}", topic)
    }

    /// Whether every input topic gets a topic of its own.
    pub fn is_per_topic(&self) -> bool {
        self.0.contains("{topic}")
    }
}

impl PartialEq for TopicPattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(a), Self::Name(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl TopicPattern {
    /// The pattern as it was configured.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Regex(regex) => regex.as_str(),
        }
    }

    /// Whether the pattern stands for this topic.
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Name(name) => name == topic,
            Self::Regex(regex) => regex.is_match(topic),
        }
    }
}
