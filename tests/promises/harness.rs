//! What every promise needs: a shared broker, topics of its own, instances of the real binary as
//! processes, and the comparison of an output with what the reference model makes of its input.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kafka_dedup::demo::broker::Cluster;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_kafka-dedup");

/// The broker that the tests of this binary share.
pub fn bootstrap() -> String {
    static BROKER: OnceLock<(Cluster, TempDir)> = OnceLock::new();
    let (cluster, _) = BROKER.get_or_init(|| {
        let dir = TempDir::new().expect("a directory for the broker");
        let cluster = Cluster::start(1, dir.path()).expect("a Kafka broker");
        (cluster, dir)
    });
    cluster.bootstrap()
}

/// A name that no other test of this run uses.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{name}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A record as it is compared: everything but its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rec {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp: i64,
}

impl Rec {
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

pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock");
    i64::try_from(since.as_millis()).expect("a date")
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap());
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    client().create().expect("an admin client")
}

pub fn create_topic(name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let outcome = futures_executor::block_on(admin().create_topics([&topic], &AdminOptions::new()))
        .expect("an answer");
    outcome
        .into_iter()
        .for_each(|topic| drop(topic.expect("the topic")));
    wait_for("the topic's leaders", Duration::from_secs(20), || {
        partitions_of(name) == Some(usize::try_from(partitions).expect("a count"))
    });
}

pub fn add_partitions(name: &str, total: usize) {
    let grown = NewPartitions::new(name, total);
    let outcome =
        futures_executor::block_on(admin().create_partitions([&grown], &AdminOptions::new()))
            .expect("an answer");
    outcome
        .into_iter()
        .for_each(|topic| drop(topic.expect("more partitions")));
}

pub fn delete_topic(name: &str) {
    let outcome = futures_executor::block_on(admin().delete_topics(&[name], &AdminOptions::new()))
        .expect("an answer");
    outcome
        .into_iter()
        .for_each(|topic| drop(topic.expect("deleted")));
    wait_for("the topic to go", Duration::from_secs(20), || {
        partitions_of(name).is_none()
    });
}

/// Partitions that have a leader; `None` where there is no such topic.
pub fn partitions_of(name: &str) -> Option<usize> {
    let consumer: BaseConsumer = client().create().expect("a consumer");
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
    producer.flush(Duration::from_secs(60)).expect("delivered");
    let failures = producer.client().context().0.lock().expect("the failures");
    let first = failures.first();
    assert!(
        first.is_none(),
        "{} records were refused, the first: {first:?}",
        failures.len()
    );
}

/// A plain producer.
pub fn producer(extra: &[(&str, &str)]) -> Client {
    let mut config = client();
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

pub fn send(producer: &Client, topic: &str, partition: i32, record: &Rec) {
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
    loop {
        match producer.send(message) {
            Ok(()) => return,
            Err((error, returned))
                if error.rdkafka_error_code()
                    == Some(rdkafka::error::RDKafkaErrorCode::QueueFull) =>
            {
                message = returned;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((error, _)) => panic!("produce to {topic}-{partition}: {error}"),
        }
    }
}

/// Sends records to one partition, and waits until the broker has them.
pub fn produce(topic: &str, partition: i32, records: &[Rec]) {
    let producer = producer(&[]);
    for record in records {
        send(&producer, topic, partition, record);
    }
    flush(&producer);
}

fn watermarks(topic: &str, partition: i32, isolation: &str) -> (i64, i64) {
    let consumer: BaseConsumer = client()
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

pub fn low_watermark(topic: &str, partition: i32) -> i64 {
    watermarks(topic, partition, "read_uncommitted").0
}

/// The last stable offset is the high watermark: no transaction is left open.
pub fn nothing_hangs(topic: &str, partition: i32) -> bool {
    watermarks(topic, partition, "read_committed").1
        == watermarks(topic, partition, "read_uncommitted").1
}

/// All committed records of a partition with their offsets, up to its end at the time of the call.
pub fn read_partition(topic: &str, partition: i32) -> Vec<(i64, Rec)> {
    wait_for("open transactions to end", Duration::from_secs(60), || {
        nothing_hangs(topic, partition)
    });
    let (low, high) = watermarks(topic, partition, "read_uncommitted");
    let consumer: BaseConsumer = client()
        .set("group.id", unique("reader"))
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(low))
        .expect("an offset");
    consumer.assign(&list).expect("assigned");
    let mut records = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let position = consumer.position().expect("a position").elements()[0].offset();
        if low >= high || matches!(position, Offset::Offset(position) if position >= high) {
            return records;
        }
        assert!(
            Instant::now() < deadline,
            "{topic}-{partition} was not read to its end"
        );
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message.expect("a record");
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect()
        });
        let record = Rec {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
        };
        records.push((message.offset(), record));
    }
}

/// The group's committed offset.
pub fn committed(group: &str, topic: &str, partition: i32) -> Option<i64> {
    let consumer: BaseConsumer = client()
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

pub fn wait_for(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {patience:?} for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// One deployment under test: an input topic, a group, a config.
pub struct Deployment {
    pub dir: TempDir,
    pub input: String,
    pub output: String,
    pub group: String,
    pub partitions: i32,
    /// Sections of the config beyond the common ones, as YAML.
    pub extra: String,
    pub consumer_properties: Vec<(String, String)>,
    /// Variables of the service's environment.
    pub env: Vec<(String, String)>,
}

impl Deployment {
    pub fn new(name: &str, partitions: i32, extra: &str) -> Self {
        let input = unique(name);
        create_topic(&input, partitions, &[]);
        Self::on(input, partitions, extra)
    }

    /// A deployment on a topic that exists, or will.
    pub fn on(input: String, partitions: i32, extra: &str) -> Self {
        Self {
            dir: TempDir::new().expect("a directory"),
            output: format!("{input}_dedup"),
            group: format!("{input}-group"),
            input,
            partitions,
            extra: extra.to_owned(),
            env: Vec::new(),
            consumer_properties: vec![
                ("session.timeout.ms".to_owned(), "2000".to_owned()),
                ("heartbeat.interval.ms".to_owned(), "500".to_owned()),
                (
                    "topic.metadata.refresh.interval.ms".to_owned(),
                    "1000".to_owned(),
                ),
            ],
        }
    }

    pub fn journal(&self) -> String {
        format!("{}-{}-seen", self.input, self.group)
    }

    fn config(&self, instance: &str, http: u16, admin: u16, store: &Path) -> PathBuf {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "kafka:\n  bootstrap_servers: {}\n  group_id: {}\n  instance_id: {instance}\n  consumer_properties:",
            bootstrap(),
            self.group
        );
        for (key, value) in &self.consumer_properties {
            let _ = writeln!(text, "    {key}: \"{value}\"");
        }
        let _ = writeln!(
            text,
            "store: {{path: {}}}\nhttp: {{listen: \"127.0.0.1:{http}\", admin: \"127.0.0.1:{admin}\"}}",
            store.display()
        );
        if !self.extra.contains("input:") {
            let _ = writeln!(text, "input: {{topics: [\"{}\"]}}", self.input);
        }
        if !self.extra.contains("id:") {
            let _ = writeln!(text, "id: {{from: {{header: message-id}}}}");
        }
        text.push_str(&self.extra);
        let path = self.dir.path().join(format!("{instance}-{http}.yaml"));
        fs::write(&path, text).expect("the config is written");
        path
    }

    pub fn start(&self, instance: &str) -> Instance {
        self.start_with(instance, &[])
    }

    /// Starts the real binary, with failpoints where given: `("committed", "3*off->return")`.
    pub fn start_with(&self, instance: &str, failpoints: &[(&str, &str)]) -> Instance {
        let store = self.dir.path().join(format!("store-{instance}"));
        self.start_on(instance, store, failpoints, Command::new(BINARY))
    }

    /// Starts it with this store, by a command that ends in the binary's arguments.
    pub fn start_on(
        &self,
        instance: &str,
        store: PathBuf,
        failpoints: &[(&str, &str)],
        mut command: Command,
    ) -> Instance {
        let (http, admin) = (free_port(), free_port());
        let config = self.config(instance, http, admin, &store);
        let log = self.dir.path().join(format!("{instance}-{http}.log"));
        let file = fs::File::create(&log).expect("a log file");
        let points: Vec<String> = failpoints
            .iter()
            .map(|(point, action)| format!("{point}={action}"))
            .collect();
        let child = command
            .args(["run", "-c"])
            .arg(&config)
            .env("FAILPOINTS", points.join(";"))
            // Few ids are many here: whatever a test is about, slices are sealed while it goes on.
            .env("KAFKA_DEDUP__STORE__ACTIVE_IDS", "64")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the service starts");
        Instance {
            child,
            http,
            log,
            store,
        }
    }

    /// Waits until the group has committed all that the input holds now.
    pub fn wait_until_caught_up(&self, patience: Duration) {
        for partition in 0..self.partitions {
            let Some((last, _)) = read_partition(&self.input, partition).pop() else {
                continue;
            };
            wait_for(
                &format!("{}-{partition} to be read to {last}", self.input),
                patience,
                || {
                    committed(&self.group, &self.input, partition)
                        .is_some_and(|offset| offset > last)
                },
            );
        }
    }

    /// Compares the output with what `expected` makes of the input, partition by partition, record
    /// by record; and sees that no transaction hangs.
    pub fn assert_output(&self, mut expected: impl FnMut(i32, &[(i64, Rec)]) -> Vec<Rec>) {
        for partition in 0..self.partitions {
            let input = read_partition(&self.input, partition);
            let want = expected(partition, &input);
            let got: Vec<Rec> = read_partition(&self.output, partition)
                .into_iter()
                .map(|(_, record)| record)
                .collect();
            let differs = want.iter().zip(&got).position(|(want, got)| want != got);
            if let Some(index) = differs {
                panic!(
                    "{}-{partition}: record {index} differs\nwant {:?}\ngot  {:?}\n({} wanted, {} got)",
                    self.output,
                    want[index],
                    got[index],
                    want.len(),
                    got.len()
                );
            }
            assert_eq!(
                got.len(),
                want.len(),
                "{}-{partition}: count of {} input records",
                self.output,
                input.len()
            );
        }
    }
}

/// A running service.
pub struct Instance {
    child: Child,
    pub http: u16,
    pub log: PathBuf,
    pub store: PathBuf,
}

impl Instance {
    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: kill takes two plain integers; the child has not been waited for, so the id is its.
        unsafe { libc::kill(pid, signal) };
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("its end");
    }

    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait(Duration::from_secs(40))
    }

    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still running after {patience:?}:\n{}",
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_some()
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .into();
        let mut response = agent
            .get(format!("http://127.0.0.1:{}{path}", self.http))
            .call()
            .ok()?;
        let status = response.status().as_u16();
        Some((status, response.body_mut().read_to_string().ok()?))
    }

    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|(status, _)| status == 200)
    }

    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.is_ready() {
            assert!(!self.has_ended(), "it ended:\n{}", self.log_tail());
            assert!(
                Instant::now() < deadline,
                "not ready: {:?}\n{}",
                self.get("/readyz?verbose"),
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The sum of a metric over all its labels; or one series, named with its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").expect("metrics");
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It has ended already when this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), self.log_tail());
        }
    }
}

/// Numbers that look random and are the same in every run: xorshift64*, Vigna 2016.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

pub fn set_topic_config(topic: &str, key: &str, value: &str) {
    use rdkafka::admin::{AlterConfig, ResourceSpecifier};
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
    let outcome =
        futures_executor::block_on(admin().alter_configs([&change], &AdminOptions::new()))
            .expect("an answer");
    outcome
        .into_iter()
        .for_each(|resource| drop(resource.expect("changed")));
}
