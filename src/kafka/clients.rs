//! The librdkafka properties of every client, decided here and nowhere else.
//!
//! Layers, each stronger than the one before: our defaults, `kafka.properties`,
//! `kafka.consumer_properties` or `kafka.producer_properties`, and what the service must own so
//! that its invariants hold. Pure functions: nothing is connected.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::config::{Config, is_secret};

/// Largest record the producer takes, in bytes. The broker is to decide what is too large; this
/// only has to be beyond what brokers are set to.
const MESSAGE_MAX_BYTES: u64 = 100_000_000;
/// Room that the producer's queue keeps for headers beyond the largest record, in KiB.
const QUEUE_HEADROOM_KBYTES: u64 = 4096;
/// Fetched records that wait for a command that reads a topic, in KiB; as much again may be under
/// way from each broker.
const SCANNER_QUEUE_KBYTES: &str = "8192";
/// Heartbeats of a group member, in milliseconds, unless its session is shorter than three. A member hears of
/// a rebalance with the answer to one: where partitions move, they stand for up to two of them.
const HEARTBEAT_MS: u64 = 500;

/// The input consumer of one worker: a member of the group that commits nothing by itself.
pub fn consumer_config(config: &Config, worker: usize) -> ClientConfig {
    let assignor = config.scope.assignor().unwrap_or("cooperative-sticky");
    let mut client = layered(
        config,
        &[
            // A member that was killed keeps its partitions until its session ends.
            ("session.timeout.ms", "10000"),
            ("partition.assignment.strategy", assignor),
            ("topic.metadata.refresh.interval.ms", "30000"),
            // librdkafka's own default is 64 MiB a partition (I8). What is read ahead comes beside it, see
            // `READ_AHEAD_BYTES`. fetch.max.bytes and receive.message.max.bytes follow from it: librdkafka fits
            // what is not set.
            ("queued.max.messages.kbytes", "2048"),
            ("fetch.message.max.bytes", "1048576"),
            // Once the queue is full, librdkafka fetches nothing more of a partition for a second, by its own
            // default: a backlog comes through at two queues a second, whatever the size of its records.
            ("fetch.queue.backoff.ms", "10"),
        ],
        &config.kafka.consumer_properties,
    );
    own_consumer(&mut client, config);
    fit_heartbeat(&mut client);
    client.set("isolation.level", "read_committed");
    if config.kafka.static_membership {
        let instance = &config.kafka.instance_id;
        client.set("group.instance.id", format!("{instance}-{worker}"));
    }
    client
}

/// Reads the journal and answers stable committed offsets; assigned by hand, never a group member.
pub fn journal_reader_config(config: &Config) -> ClientConfig {
    let mut client = layered(
        config,
        &[
            ("queued.max.messages.kbytes", "32768"),
            ("fetch.message.max.bytes", "8388608"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.queue.backoff.ms", "10"),
        ],
        &config.kafka.consumer_properties,
    );
    own_consumer(&mut client, config);
    fit_heartbeat(&mut client);
    // Only a read_committed client asks for stable offsets (I5).
    client.set("isolation.level", "read_committed");
    client
}

/// Reads a topic from end to end for a command; assigned by hand, never a group member. What was
/// deleted since its start offset was chosen is passed over.
pub fn scanner_config(config: &Config) -> ClientConfig {
    let mut client = layered(
        config,
        &[
            // Of small records the client's own book-keeping is the larger part: the count bounds it
            // (I8). Measured: 36 MB where librdkafka's own defaults take 110, at the same speed.
            ("queued.min.messages", "20000"),
            ("queued.max.messages.kbytes", SCANNER_QUEUE_KBYTES),
            ("fetch.message.max.bytes", "262144"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.queue.backoff.ms", "10"),
        ],
        &config.kafka.consumer_properties,
    );
    own_consumer(&mut client, config);
    fit_heartbeat(&mut client);
    client.set("isolation.level", "read_committed");
    client.set("auto.offset.reset", "earliest");
    client
}

/// Sees true high watermarks: a read_committed client is told the last stable offset instead.
pub fn observer_config(config: &Config) -> ClientConfig {
    let mut client = layered(
        config,
        &[("queued.max.messages.kbytes", "1024")],
        &config.kafka.consumer_properties,
    );
    own_consumer(&mut client, config);
    fit_heartbeat(&mut client);
    client.remove("group.id");
    client.set("isolation.level", "read_uncommitted");
    client
}

/// Answers the group's committed offsets at once, even where a transaction is about to move them;
/// for questions of the kind "has this group ever worked here", never for recovery (I5).
pub fn group_config(config: &Config) -> ClientConfig {
    let mut client = observer_config(config);
    client.set("group.id", config.kafka.group_id.as_str());
    client
}

/// The transactional producer of one worker.
pub fn producer_config(config: &Config, worker: usize) -> ClientConfig {
    let timeout_ms = config.transaction.timeout.as_millis();
    let timeout_ms = u64::try_from(timeout_ms).unwrap_or(u64::MAX);
    let mut client = layered(
        config,
        &[
            ("message.max.bytes", &MESSAGE_MAX_BYTES.to_string()),
            ("queue.buffering.max.kbytes", "131072"),
            ("queue.buffering.max.messages", "200000"),
            ("linger.ms", "5"),
            ("compression.type", "none"),
        ],
        &config.kafka.producer_properties,
    );
    // A delivery, and any one request, must be over before the transaction times out; librdkafka
    // refuses a client where that does not hold.
    let delivery_ms = number(&client, "message.timeout.ms").filter(|ms| *ms > 0);
    let delivery_ms = delivery_ms.unwrap_or(timeout_ms).min(timeout_ms);
    client.set("message.timeout.ms", delivery_ms.to_string());
    if number(&client, "socket.timeout.ms").is_some_and(|ms| ms > timeout_ms) {
        client.set("socket.timeout.ms", timeout_ms.to_string());
    }
    // A record larger than the whole queue would be "queue full" for ever.
    let largest = number(&client, "message.max.bytes").unwrap_or(MESSAGE_MAX_BYTES);
    let needed_kbytes = largest.div_ceil(1024) + QUEUE_HEADROOM_KBYTES;
    if number(&client, "queue.buffering.max.kbytes").is_some_and(|kb| kb < needed_kbytes) {
        client.set("queue.buffering.max.kbytes", needed_kbytes.to_string());
    }
    client.set("transactional.id", transactional_id(config, worker));
    client.set("transaction.timeout.ms", timeout_ms.to_string());
    client.set("enable.idempotence", "true");
    client
}

/// Why librdkafka refuses a configuration, without the value of a secret.
pub fn refusal(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            format!("there is no property {name:?}")
        }
        KafkaError::ClientConfig(_, description, name, value)
            if is_secret(name) && description.contains(value.as_str()) =>
        {
            format!("the value of {name} (not shown) is not accepted")
        }
        KafkaError::ClientConfig(_, description, name, _) => format!("{name}: {description}"),
        other => other.to_string(),
    }
}

/// The client that creates, grows, describes and trims topics.
pub fn admin_config(config: &Config) -> ClientConfig {
    layered(config, &[], &BTreeMap::new())
}

/// `{group}-{instance}-{worker}`: the same after a restart, so that a restart ends its own open
/// transaction at once.
pub fn transactional_id(config: &Config, worker: usize) -> String {
    format!(
        "{}-{}-{worker}",
        config.kafka.group_id, config.kafka.instance_id
    )
}

fn layered(
    config: &Config,
    defaults: &[(&str, &str)],
    special: &BTreeMap<String, String>,
) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Info);
    if tracing::enabled!(target: "rdkafka", tracing::Level::DEBUG) {
        client.set_log_level(RDKafkaLogLevel::Debug);
    }
    client.set(
        "client.id",
        format!("kafka-dedup-{}", config.kafka.instance_id),
    );
    for (key, value) in defaults {
        client.set(*key, *value);
    }
    for (key, value) in config.kafka.properties.iter().chain(special) {
        client.set(canonical(key), value.as_str());
    }
    client.set("bootstrap.servers", config.kafka.bootstrap_servers.as_str());
    client
}

/// What every consumer of the service owns: it commits only within transactions (I1, I4), reads
/// nothing that nobody asked for, and never makes a topic by looking at it.
fn own_consumer(client: &mut ClientConfig, config: &Config) {
    client.set("group.id", config.kafka.group_id.as_str());
    client.remove("group.instance.id");
    // The newer protocol knows no session here and no generation to check (I6).
    client.set("group.protocol", "classic");
    client.set("enable.auto.commit", "false");
    client.set("enable.auto.offset.store", "false");
    client.set("auto.offset.reset", "error");
    client.set("allow.auto.create.topics", "false");
}

/// Three heartbeats in a session, where a shorter session was configured without its heartbeat.
fn fit_heartbeat(client: &mut ClientConfig) {
    if client.get("heartbeat.interval.ms").is_some() {
        return;
    }
    let third = number(client, "session.timeout.ms").map_or(HEARTBEAT_MS, |ms| ms / 3);
    let heartbeat_ms = third.clamp(1, HEARTBEAT_MS);
    client.set("heartbeat.interval.ms", heartbeat_ms.to_string());
}

fn number(client: &ClientConfig, key: &str) -> Option<u64> {
    client.get(key).and_then(|value| value.trim().parse().ok())
}

/// One name for each property that librdkafka knows by two: otherwise it would be chance whether
/// ours or the user's value won.
fn canonical(key: &str) -> &str {
    match key {
        "metadata.broker.list" => "bootstrap.servers",
        "delivery.timeout.ms" => "message.timeout.ms",
        "compression.codec" => "compression.type",
        "queue.buffering.max.ms" => "linger.ms",
        "max.partition.fetch.bytes" => "fetch.message.max.bytes",
        "auto.commit.enable" => "enable.auto.commit",
        other => other,
    }
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;
