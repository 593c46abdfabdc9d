//! A cluster as a plain client sees it: topics, records in, records out, offsets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{unique, wait_for};

/// A record as it is compared: everything but its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rec {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp: i64,
}

impl Rec {
    pub fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect()
        });
        Self {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
        }
    }

    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .rev()
            .find(|(key, _)| key == name)?
            .1
            .as_deref()
    }

    /// A record with a message-id header.
    pub fn with_id(id: impl AsRef<[u8]>, timestamp: i64) -> Self {
        Self {
            key: Some(b"key".to_vec()),
            value: Some(format!("value at {timestamp}").into_bytes()),
            headers: vec![("message-id".to_owned(), Some(id.as_ref().to_vec()))],
            timestamp,
        }
    }
}

/// Where a cluster is and how to speak to it; clones are the same cluster.
#[derive(Debug, Clone)]
pub struct Kafka {
    bootstrap: String,
    /// librdkafka properties of all clients, also of the service's: those of a secured listener.
    pub properties: Vec<(String, String)>,
    /// How many copies a topic gets.
    pub replication: i32,
}

impl Kafka {
    pub fn at(bootstrap: String) -> Self {
        Self {
            bootstrap,
            properties: Vec::new(),
            replication: 1,
        }
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// What every client begins with.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(self.replication));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let outcome =
            futures_executor::block_on(self.admin().create_topics([&topic], &AdminOptions::new()))
                .expect("an answer");
        outcome
            .into_iter()
            .for_each(|topic| drop(topic.expect("the topic")));
        wait_for("the topic's leaders", Duration::from_secs(20), || {
            self.partitions_of(name) == Some(usize::try_from(partitions).expect("a count"))
        });
    }

    pub fn add_partitions(&self, name: &str, total: usize) {
        let grown = NewPartitions::new(name, total);
        let outcome = futures_executor::block_on(
            self.admin()
                .create_partitions([&grown], &AdminOptions::new()),
        )
        .expect("an answer");
        outcome
            .into_iter()
            .for_each(|topic| drop(topic.expect("more partitions")));
    }

    pub fn delete_topic(&self, name: &str) {
        let outcome =
            futures_executor::block_on(self.admin().delete_topics(&[name], &AdminOptions::new()))
                .expect("an answer");
        outcome
            .into_iter()
            .for_each(|topic| drop(topic.expect("deleted")));
        wait_for("the topic to go", Duration::from_secs(20), || {
            self.partitions_of(name).is_none()
        });
    }

    /// Partitions that have a leader; `None` where there is no such topic.
    pub fn partitions_of(&self, name: &str) -> Option<usize> {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let metadata = consumer
            .fetch_metadata(None, Duration::from_secs(10))
            .expect("metadata");
        let topic = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == name)?;
        Some(
            topic
                .partitions()
                .iter()
                .filter(|partition| partition.leader() >= 0)
                .count(),
        )
    }

    /// A plain producer.
    pub fn producer(&self, extra: &[(&str, &str)]) -> Client {
        let mut config = self.client();
        config
            .set("linger.ms", "5")
            .set("message.timeout.ms", "30000");
        for (key, value) in extra {
            config.set(*key, *value);
        }
        config
            .create_with_context(Strict(std::sync::Mutex::default()))
            .expect("a producer")
    }

    /// Sends records to one partition, and waits until the broker has them.
    pub fn produce(&self, topic: &str, partition: i32, records: &[Rec]) {
        let producer = self.producer(&[]);
        for record in records {
            send(&producer, topic, partition, record);
        }
        flush(&producer);
    }

    pub fn watermarks(&self, topic: &str, partition: i32, isolation: &str) -> (i64, i64) {
        let consumer: BaseConsumer = self
            .client()
            .set("isolation.level", isolation)
            .create()
            .expect("a consumer");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)) {
                Ok(watermarks) => return watermarks,
                Err(error) if Instant::now() > deadline => panic!("watermarks of {topic}: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    pub fn low_watermark(&self, topic: &str, partition: i32) -> i64 {
        self.watermarks(topic, partition, "read_uncommitted").0
    }

    /// The last stable offset is the high watermark: no transaction is left open.
    pub fn nothing_hangs(&self, topic: &str, partition: i32) -> bool {
        self.watermarks(topic, partition, "read_committed").1
            == self.watermarks(topic, partition, "read_uncommitted").1
    }

    /// All committed records of a partition with their offsets, up to its end at the time of the call.
    pub fn read_partition(&self, topic: &str, partition: i32) -> Vec<(i64, Rec)> {
        wait_for("open transactions to end", Duration::from_secs(60), || {
            self.nothing_hangs(topic, partition)
        });
        Reader::new(self, topic, partition).read_to_end()
    }

    /// Deletes what is before an offset, as retention does.
    pub fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .expect("an offset");
        futures_executor::block_on(self.admin().delete_records(&list, &AdminOptions::new()))
            .expect("an answer");
        wait_for("the records to go", Duration::from_secs(20), || {
            self.low_watermark(topic, partition) == offset
        });
    }

    /// The group's committed offset.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let list = consumer
            .committed_offsets(list, Duration::from_secs(5))
            .ok()?;
        match list.elements().first()?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// Commits for a group without members.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let consumer: BaseConsumer = (self.client())
            .set("group.id", group)
            .create()
            .expect("a consumer");
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .expect("an offset");
        consumer
            .commit(&offsets, CommitMode::Sync)
            .expect("committed");
    }

    /// A group and all its offsets; no where it has members.
    pub fn try_delete_group(&self, group: &str) -> bool {
        let (admin, options) = (self.admin(), AdminOptions::new());
        let deletion = futures_executor::block_on(admin.delete_groups(&[group], &options));
        deletion.expect("an answer").iter().all(Result::is_ok)
    }

    /// Has the one broker of a cluster without passwords put a static member out of its group. No client of librdkafka
    /// can do that for another: LeaveGroup, version 3, by hand.
    pub fn put_out(&self, group: &str, instance_id: &str) {
        let text = |text: &str| {
            let length = i16::try_from(text.len()).expect("a short name");
            [&length.to_be_bytes(), text.as_bytes()].concat()
        };
        let head = [&13_i16.to_be_bytes()[..], &3_i16.to_be_bytes(), &[0; 4]].concat();
        let members = [&1_i32.to_be_bytes()[..], &text(""), &text(instance_id)].concat();
        let request = [head, text("test"), text(group), members].concat();
        let length = u32::try_from(request.len()).expect("short");
        let mut broker = TcpStream::connect(&self.bootstrap).expect("the broker");
        let patience = Some(Duration::from_secs(20));
        broker.set_read_timeout(patience).expect("a patience");
        broker.write_all(&length.to_be_bytes()).expect("asked");
        broker.write_all(&request).expect("asked");
        let mut length = [0; 4];
        broker.read_exact(&mut length).expect("an answer");
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("short")];
        broker.read_exact(&mut answer).expect("an answer");
        // Behind the number of the request and the time that it was throttled for; of the only member at the end.
        assert_eq!(answer[8..10], [0, 0], "{answer:?}");
        assert_eq!(answer[answer.len() - 2..], [0, 0], "{answer:?}");
    }

    /// Whether the group has read all of a partition that is trimmed meanwhile: behind its offset there is
    /// nothing but markers.
    pub fn is_read(&self, group: &str, topic: &str, partition: i32) -> bool {
        let Some(committed) = self.committed(group, topic, partition) else {
            return self.watermarks(topic, partition, "read_uncommitted").1 == 0;
        };
        let (_, high) = self.watermarks(topic, partition, "read_uncommitted");
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", unique("reader"))
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "latest")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(committed))
            .expect("an offset");
        consumer.assign(&list).expect("assigned");
        let deadline = Instant::now() + Duration::from_secs(5);
        while committed < high && Instant::now() < deadline {
            if let Some(Ok(_)) = consumer.poll(Duration::from_millis(20)) {
                return false;
            }
            let position = consumer.position().expect("a position").elements()[0].offset();
            if matches!(position, Offset::Offset(position) if position >= high) {
                return true;
            }
        }
        committed >= high
    }

    pub fn set_topic_config(&self, topic: &str, key: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
        let outcome =
            futures_executor::block_on(self.admin().alter_configs([&change], &AdminOptions::new()))
                .expect("an answer");
        outcome
            .into_iter()
            .for_each(|resource| drop(resource.expect("changed")));
    }
}

/// Reads a partition on from where it was, committed records only.
pub struct Reader {
    consumer: BaseConsumer,
    ends: BaseConsumer,
    topic: String,
    partition: i32,
    next: i64,
}

impl Reader {
    /// At the beginning of the partition.
    pub fn new(kafka: &Kafka, topic: &str, partition: i32) -> Self {
        let next = kafka.low_watermark(topic, partition);
        let consumer: BaseConsumer = kafka
            .client()
            .set("group.id", unique("reader"))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "20")
            .create()
            .expect("a consumer");
        let ends = kafka
            .client()
            .set("isolation.level", "read_uncommitted")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(next))
            .expect("an offset");
        consumer.assign(&list).expect("assigned");
        Self {
            consumer,
            ends,
            topic: topic.to_owned(),
            partition,
            next,
        }
    }

    /// The records up to the end as it is now, after the open transactions there have ended.
    pub fn read_to_end(&mut self) -> Vec<(i64, Rec)> {
        let high = self.high_watermark();
        let mut records = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.next < high {
            assert!(
                Instant::now() < deadline,
                "{}-{} was not read to its end: at {} of {high}",
                self.topic,
                self.partition,
                self.next
            );
            match self.consumer.poll(Duration::from_millis(20)) {
                Some(Ok(message)) => records.push((message.offset(), Rec::of(&message))),
                Some(Err(error)) if transient(&error) => {}
                Some(Err(error)) => panic!("{}-{}: {error}", self.topic, self.partition),
                None => {}
            }
            let position = self.consumer.position().expect("a position").elements()[0].offset();
            if let Offset::Offset(position) = position {
                self.next = position;
            }
        }
        records
    }

    fn high_watermark(&self) -> i64 {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ends =
                self.ends
                    .fetch_watermarks(&self.topic, self.partition, Duration::from_secs(10));
            match ends {
                Ok((_, high)) => return high,
                Err(error) if Instant::now() > deadline => panic!("end of {}: {error}", self.topic),
                Err(_) => {
                    // A client may remember a leader that is gone for minutes, unless it is made to
                    // look again.
                    let look = self
                        .ends
                        .fetch_metadata(Some(&self.topic), Duration::from_secs(5));
                    drop(look);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }
}

/// What a client says while brokers come and go.
fn transient(error: &KafkaError) -> bool {
    !matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::Fatal
        )
    )
}

/// A test's input is what it says it is: a record that the broker refuses ends the test.
pub struct Strict(std::sync::Mutex<Vec<String>>);

impl rdkafka::ClientContext for Strict {}

impl rdkafka::producer::ProducerContext for Strict {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::producer::DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let place = format!("{}-{}: {error}", message.topic(), message.partition());
            self.0.lock().expect("the failures").push(place);
        }
    }
}

pub type Client = ThreadedProducer<Strict>;

/// Waits until the broker has all records.
pub fn flush(producer: &Client) {
    producer.flush(Duration::from_secs(300)).expect("delivered");
    let failures = producer.client().context().0.lock().expect("the failures");
    let first = failures.first();
    assert!(
        first.is_none(),
        "{} records were refused, the first: {first:?}",
        failures.len()
    );
}

/// Sends one record; one that the client refuses ends the test.
pub fn send(producer: &Client, topic: &str, partition: i32, record: &Rec) {
    if let Err(error) = try_send(producer, topic, partition, record) {
        panic!("produce to {topic}-{partition}: {error}");
    }
}

/// Sends one record, after waiting for room.
pub fn try_send(producer: &Client, topic: &str, partition: i32, record: &Rec) -> KafkaResult<()> {
    let mut headers = OwnedHeaders::new();
    for (key, value) in &record.headers {
        headers = headers.insert(Header {
            key,
            value: value.as_ref(),
        });
    }
    let mut message = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
    message.key = record.key.as_deref();
    message.payload = record.value.as_deref();
    message.timestamp = Some(record.timestamp);
    message.headers = (!record.headers.is_empty()).then_some(headers);
    send_record(producer, message)
}

/// Sends a record as the client has it, after waiting for room.
pub fn send_record(producer: &Client, message: BaseRecord<'_, [u8], [u8]>) -> KafkaResult<()> {
    let mut message = message;
    loop {
        match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((error, returned))
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
            {
                message = returned;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(error),
        }
    }
}
