//! The bridge: what MQTT delivers goes into a Kafka topic, at least once.
//!
//! To MQTT a message is acknowledged when Kafka has acknowledged it, never before: whatever ends this
//! process or its connections, nothing is lost, and what was not acknowledged is delivered again.
//! That is where duplicates come from, and why kafka-dedup stands behind it.
//!
//! Speaks to one MQTT broker and one Kafka cluster, keeps nothing on the disk, and knows nothing of the
//! scene around it: it is meant to be copied.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::error::Error;
use std::future;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rumqttc::{
    AsyncClient, ConnAck, Event, EventLoop, MqttOptions, Packet, PubAck, Publish, QoS, SubAck,
    SubscribeReasonCode,
};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// Messages that may be with the bridge and not yet in Kafka, each of at most [`LARGEST`] bytes: where
/// there are so many, it reads no further, TCP holds the MQTT broker back, and the broker keeps the rest.
/// Not every broker keeps to a limit by itself: mosquitto before 2.0.13 does not.
const WAITING: usize = 1000;
/// Bytes of a packet. Let the MQTT broker accept no larger ones: such a one would stop the bridge.
const LARGEST: usize = 65_536;
/// A Kafka that is away for longer than this costs the MQTT connection too, and so some duplicates.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Before the next try, after a connection was lost or refused.
const PAUSE: Duration = Duration::from_millis(500);

type Failure = Box<dyn Error + Send + Sync>;
/// Messages that Kafka has not acknowledged yet, as MQTT delivered them.
type Waiting = VecDeque<(Publish, DeliveryFuture)>;

/// Brings messages from MQTT into a Kafka topic, until SIGTERM or Ctrl-C
#[derive(Debug, clap::Args)]
pub struct BridgeArgs {
    /// MQTT broker
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    mqtt_host: String,
    #[arg(long, value_name = "PORT", default_value_t = 1883)]
    mqtt_port: u16,
    /// User of the MQTT broker [default: none]
    #[arg(long, env = "MQTT_USER")]
    mqtt_user: Option<String>,
    #[arg(long, env = "MQTT_PASSWORD", hide_env_values = true)]
    mqtt_password: Option<String>,
    /// The name of the session that the MQTT broker keeps: one process at a time, and always the same
    #[arg(long, default_value = "truck-bridge")]
    client_id: String,
    /// What to subscribe to; what its first + stands for is the key in Kafka
    #[arg(long, default_value = "truck/+/position")]
    filter: String,
    /// Kafka brokers
    #[arg(long, value_name = "SERVERS", default_value = "127.0.0.1:9092")]
    bootstrap_servers: String,
    /// Kafka topic
    #[arg(long, default_value = "truck_position_raw")]
    topic: String,
    /// A librdkafka property, like security.protocol=SASL_SSL; may be repeated
    #[arg(short = 'X', value_name = "NAME=VALUE")]
    properties: Vec<String>,
}

/// Runs the bridge until it is told to end; what is under way is brought to its end first.
///
/// # Errors
/// What Kafka refuses for good, and what MQTT refuses: a supervisor starts it again, and the MQTT broker
/// delivers again what was not acknowledged. A lost MQTT connection is no error.
pub async fn run(arguments: BridgeArgs) -> Result<(), Failure> {
    let producer = producer(&arguments)?;
    let (client, mut connection) = AsyncClient::new(mqtt_options(&arguments), 1);
    let mut waiting = Waiting::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut ending = false;
    while !ending || !waiting.is_empty() {
        tokio::select! {
            biased;
            _ = terminate.recv() => ending = true,
            _ = interrupt.recv() => ending = true,
            // Before further ones are read.
            stored = oldest(&mut waiting) => {
                if let Err(error) = acknowledge(&mut connection, &stored?).await {
                    lost(&mut connection, &mut waiting, error.as_ref());
                }
            }
            event = connection.poll(), if !ending && waiting.len() < WAITING => match event {
                Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                    subscribe(&client, &arguments, &answer)?;
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    must_be_granted(&arguments, &answer)?;
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let delivery = produce(&producer, &arguments, &publish)?;
                    waiting.push_back((publish, delivery));
                }
                Ok(_) => {}
                Err(error) => {
                    lost(&mut connection, &mut waiting, &error);
                    sleep(PAUSE).await;
                }
            },
        }
    }
    // The session stays. Where the connection is lost already there is nobody to tell.
    let _ = send(&mut connection, Packet::Disconnect).await;
    Ok(())
}

/// What was published with QoS 0 needs no acknowledgement: nobody will deliver it again.
async fn acknowledge(connection: &mut EventLoop, publish: &Publish) -> Result<(), Failure> {
    if publish.qos == QoS::AtMostOnce {
        return Ok(());
    }
    send(connection, Packet::PubAck(PubAck::new(publish.pkid))).await
}

/// Writes a packet past the client library's queue of requests, of which it sends one for every ten
/// packets that it reads: acknowledgements would fall behind without bound.
async fn send(connection: &mut EventLoop, packet: Packet) -> Result<(), Failure> {
    let Some(network) = &mut connection.network else {
        return Err("there is no connection".into());
    };
    let written = async {
        network.write(packet).await?;
        network.flush().await
    };
    Ok(timeout(KEEP_ALIVE, written).await??)
}

/// Gives a connection up, and all that it brought and that is not acknowledged: it is delivered again, on
/// the next one. An acknowledgement belongs to the connection that delivered: on another it could hit
/// another message.
fn lost(connection: &mut EventLoop, waiting: &mut Waiting, error: &dyn Error) {
    eprintln!(
        "no MQTT connection: {error}; {} messages are not acknowledged",
        waiting.len()
    );
    waiting.clear();
    connection.clean();
    connection.state.events.clear();
    connection.pending.clear();
}

/// The message that waits for the longest, once Kafka has it. May be given up at any time.
/// In that order, as MQTT wants it (MQTT-4.6.0-2).
async fn oldest(waiting: &mut Waiting) -> Result<Publish, Failure> {
    let Some((_, delivery)) = waiting.front_mut() else {
        return future::pending().await;
    };
    let delivered = delivery.await;
    let Some((publish, _)) = waiting.pop_front() else {
        return future::pending().await;
    };
    match delivered? {
        Ok(_) => Ok(publish),
        Err((error, _)) => Err(refused(&publish, &error)),
    }
}

/// Hands a message to the Kafka client, with the truck as its key: so all of a truck's messages are in
/// one partition, in order, and so are their repetitions.
fn produce(
    producer: &FutureProducer<ToStderr>,
    arguments: &BridgeArgs,
    publish: &Publish,
) -> Result<DeliveryFuture, Failure> {
    let topic = publish.topic.as_str();
    let truck = wildcard(&arguments.filter, topic);
    let dup = if publish.dup { "true" } else { "false" };
    let mut headers = OwnedHeaders::new()
        .insert(header("mqtt-topic", topic))
        .insert(header("truck", truck))
        // For the curious: it says that MQTT tried before, not that Kafka has the message.
        .insert(header("mqtt-dup", dup));
    // Without it kafka-dedup does what its id.missing says.
    if let Ok(Identified { id }) = serde_json::from_slice(&publish.payload) {
        headers = headers.insert(header("message-id", &id));
    }
    let record = FutureRecord::to(&arguments.topic)
        .key(truck)
        .payload(publish.payload.as_ref())
        .headers(headers);
    producer
        .send_result(record)
        .map_err(|(error, _)| refused(publish, &error))
}

/// What of a message the bridge reads: the id that its publisher gave it.
#[derive(Deserialize)]
struct Identified<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

fn header<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header {
        key,
        value: Some(value),
    }
}

/// What the filter's first + stands for in a topic; all of the topic where the filter has none.
fn wildcard<'a>(filter: &str, topic: &'a str) -> &'a str {
    let mut levels = filter.split('/').zip(topic.split('/'));
    levels
        .find(|(level, _)| *level == "+")
        .map_or(topic, |(_, name)| name)
}

fn refused(publish: &Publish, error: &dyn Error) -> Failure {
    let (topic, bytes) = (&publish.topic, publish.payload.len());
    format!(
        "Kafka does not take a message of {topic} ({bytes} bytes): {error}; \
         it was not acknowledged to MQTT, and comes again at the next start"
    )
    .into()
}

/// Subscribes on every connection: a process that was killed between its first connection and its
/// subscription left a session without one. (It brings retained messages once more, each time: positions
/// are not to be retained.)
fn subscribe(
    client: &AsyncClient,
    arguments: &BridgeArgs,
    answer: &ConnAck,
) -> Result<(), Failure> {
    let session = if answer.session_present {
        "goes on"
    } else {
        "is new: what was published before is not in it"
    };
    eprintln!(
        "connected to MQTT; session {} {session}",
        arguments.client_id
    );
    Ok(client.try_subscribe(&arguments.filter, QoS::AtLeastOnce)?)
}

fn must_be_granted(arguments: &BridgeArgs, answer: &SubAck) -> Result<(), Failure> {
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    if answer.return_codes == [granted] {
        return Ok(());
    }
    let (filter, codes) = (&arguments.filter, &answer.return_codes);
    Err(format!("the MQTT broker does not grant {filter} with QoS 1, but answers {codes:?}").into())
}

fn mqtt_options(arguments: &BridgeArgs) -> MqttOptions {
    let (host, port) = (&arguments.mqtt_host, arguments.mqtt_port);
    let mut options = MqttOptions::new(&arguments.client_id, host, port);
    options
        .set_clean_session(false)
        .set_manual_acks(true)
        .set_max_packet_size(LARGEST, LARGEST)
        .set_keep_alive(KEEP_ALIVE);
    if let Some(user) = &arguments.mqtt_user {
        options.set_credentials(user, arguments.mqtt_password.clone().unwrap_or_default());
    }
    options
}

fn producer(arguments: &BridgeArgs) -> Result<FutureProducer<ToStderr>, Failure> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &arguments.bootstrap_servers)
        // What the Kafka client sends again makes no duplicates and keeps its order.
        .set("enable.idempotence", "true")
        // As the Java client does: other producers to this topic find the same partition.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5");
    for property in &arguments.properties {
        let (name, value) = property
            .split_once('=')
            .ok_or("-X takes NAME=VALUE, like -X security.protocol=SSL")?;
        config.set(name, value);
    }
    Ok(config.create_with_context(ToStderr)?)
}

/// Tells what is wrong with Kafka while the client tries on.
struct ToStderr;

impl ClientContext for ToStderr {
    fn error(&self, error: KafkaError, reason: &str) {
        eprintln!("Kafka: {error}: {reason}");
    }
}
