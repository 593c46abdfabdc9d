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
use std::pin::pin;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, Packet, Publish, RetainForwardRule, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

/// Messages that MQTT may deliver without an acknowledgement. The MQTT broker holds the others back: so
/// memory is bounded by this many messages of [`LARGEST`] bytes, and a slow Kafka slows the bridge.
const UNACKNOWLEDGED: u16 = 100;
/// Bytes of a message. Tell the MQTT broker the same: what is larger it would drop, for this client.
const LARGEST: u32 = 65_536;
/// How long the MQTT broker keeps what it has for a bridge that is away, in seconds: a week.
const SESSION_EXPIRES: u32 = 7 * 24 * 3600;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Before the next try, after a connection was lost or refused.
const PAUSE: Duration = Duration::from_millis(500);

type Failure = Box<dyn Error + Send + Sync>;

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
    // As many requests as there may be acknowledgements, a subscription and the end.
    let (client, mut connection) =
        AsyncClient::new(mqtt_options(&arguments), usize::from(UNACKNOWLEDGED) + 2);
    let mut waiting: VecDeque<(Publish, DeliveryFuture)> = VecDeque::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (mut ending, mut leaving) = (false, false);
    loop {
        let event = {
            // A poll that has begun is not given up: what it was about to write would be lost.
            let mut poll = pin!(connection.poll());
            loop {
                if ending && !leaving && waiting.is_empty() {
                    // It goes out behind the acknowledgements; the session stays.
                    client.try_disconnect()?;
                    leaving = true;
                }
                tokio::select! {
                    event = &mut poll => break event,
                    // In the order in which MQTT delivered (MQTT-4.6.0-2).
                    stored = oldest(&mut waiting) => client.try_ack(&stored?)?,
                    _ = terminate.recv() => ending = true,
                    _ = interrupt.recv() => ending = true,
                }
            }
        };
        match event {
            Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                subscribe(&client, &arguments, &answer)?;
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => must_be_granted(&arguments, &answer)?,
            // Those that come while it ends are not acknowledged, and so delivered again.
            Ok(Event::Incoming(Packet::Publish(publish))) if !ending => {
                let delivery = produce(&producer, &arguments, &publish)?;
                waiting.push_back((publish, delivery));
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return Ok(()),
            Ok(_) => {}
            Err(_) if ending => return Ok(()),
            Err(error) => {
                let count = waiting.len();
                eprintln!("no MQTT connection ({count} messages were unacknowledged): {error}");
                // All of them are delivered again on the next connection. An acknowledgement belongs
                // to the connection that delivered: on another it could hit another message.
                waiting.clear();
                connection.state.events.clear();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The oldest message that is not acknowledged to MQTT, once Kafka has it. May be given up at any time.
async fn oldest(waiting: &mut VecDeque<(Publish, DeliveryFuture)>) -> Result<Publish, Failure> {
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
    let topic = String::from_utf8_lossy(&publish.topic);
    let truck = wildcard(&arguments.filter, &topic);
    let dup = if publish.dup { "true" } else { "false" };
    let mut headers = OwnedHeaders::new()
        .insert(header("mqtt-topic", &topic))
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
    let topic = String::from_utf8_lossy(&publish.topic);
    let bytes = publish.payload.len();
    format!(
        "Kafka does not take a message of {topic} ({bytes} bytes): {error}; \
         it was not acknowledged to MQTT, and comes again at the next start"
    )
    .into()
}

/// Subscribes on every connection: a process that was killed between its first connection and its
/// subscription left a session without one.
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
    let mut filter = Filter::new(&arguments.filter, QoS::AtLeastOnce);
    // Else each connection would bring the retained messages once more.
    filter.retain_forward_rule = RetainForwardRule::OnNewSubscribe;
    Ok(client.try_subscribe_many([filter])?)
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
        .set_clean_start(false)
        .set_session_expiry_interval(Some(SESSION_EXPIRES))
        .set_receive_maximum(Some(UNACKNOWLEDGED))
        .set_max_packet_size(Some(LARGEST))
        .set_manual_acks(true)
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
