//! `scan` on a real broker: its figures are exact, it changes nothing, and it says why where it
//! cannot.

use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kafka_dedup::demo::broker::Cluster;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DefaultProducerContext, Producer, ThreadedProducer,
};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// The broker that the tests of this binary share.
fn bootstrap() -> String {
    static BROKER: OnceLock<(Cluster, TempDir)> = OnceLock::new();
    let (cluster, _) = BROKER.get_or_init(|| {
        let dir = TempDir::new().expect("a directory for the broker");
        let cluster = Cluster::start(1, dir.path()).expect("a Kafka broker");
        (cluster, dir)
    });
    cluster.bootstrap()
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap());
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    client().create().expect("an admin client")
}

/// A new topic of a name that no other test has.
fn topic(name: &str, partitions: i32) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{name}{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
    let made = futures_executor::block_on(admin().create_topics([&topic], &AdminOptions::new()));
    made.expect("an answer")
        .pop()
        .expect("one topic")
        .expect("made");
    let consumer: BaseConsumer = client().create().expect("a consumer");
    let until = Instant::now() + PATIENCE;
    for partition in 0..partitions {
        while consumer
            .fetch_watermarks(&name, partition, PATIENCE)
            .is_err()
        {
            assert!(Instant::now() < until, "{name} has no leader");
            thread::sleep(Duration::from_millis(50));
        }
    }
    name
}

fn exists(topic: &str) -> bool {
    let consumer: BaseConsumer = client().create().expect("a consumer");
    let metadata = consumer.fetch_metadata(None, PATIENCE).expect("metadata");
    metadata.topics().iter().any(|found| found.name() == topic)
}

/// 30 hours ago, from where the tests count.
fn base_ms() -> i64 {
    static BASE: OnceLock<i64> = OnceLock::new();
    *BASE.get_or_init(|| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock");
        i64::try_from(now.as_millis()).expect("a date") - 30 * 3_600_000
    })
}

/// Sends to a partition, in order: ids (`None`: no header) and seconds after [`base_ms`].
fn send<P: Sends>(producer: &P, topic: &str, partition: i32, records: &[(Option<&str>, i64)]) {
    for (id, second) in records {
        let headers = id.map(|id| {
            OwnedHeaders::new().insert(Header {
                key: "message-id",
                value: Some(id),
            })
        });
        let mut record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(partition)
            .payload(b"value")
            .timestamp(base_ms() + second * 1000);
        record.headers = headers;
        producer.send(record);
    }
}

trait Sends {
    fn send(&self, record: BaseRecord<'_, [u8], [u8]>);
}

impl Sends for BaseProducer {
    fn send(&self, record: BaseRecord<'_, [u8], [u8]>) {
        BaseProducer::send(self, record)
            .map_err(|(error, _)| error)
            .expect("sent");
        self.poll(Duration::ZERO);
    }
}

impl Sends for ThreadedProducer<DefaultProducerContext> {
    fn send(&self, record: BaseRecord<'_, [u8], [u8]>) {
        ThreadedProducer::send(self, record)
            .map_err(|(error, _)| error)
            .expect("sent");
    }
}

fn produce(topic: &str, partition: i32, records: &[(Option<&str>, i64)]) {
    let producer: BaseProducer = client().create().expect("a producer");
    send(&producer, topic, partition, records);
    producer.flush(PATIENCE).expect("delivered");
}

/// A producer with a transaction open.
fn transaction(name: &str) -> ThreadedProducer<DefaultProducerContext> {
    let producer: ThreadedProducer<_> = client()
        .set("transactional.id", name)
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("init");
    producer.begin_transaction().expect("begin");
    producer
}

fn scan(topic: &str, more: &[&str]) -> Output {
    let servers = bootstrap();
    Command::new(env!("CARGO_BIN_EXE_kafka-dedup"))
        .args(["scan", topic, "--bootstrap-servers", &servers])
        .args(["--id", "header:message-id"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("the command runs")
}

fn said(output: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn json(topic: &str, more: &[&str]) -> Value {
    let output = scan(topic, &[more, &["--json"]].concat());
    let (out, err) = said(&output);
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error} in\n{out}"))
}

/// The counts of all buckets.
fn ages(found: &Value) -> Vec<u64> {
    let ages = found["ages"].as_array().expect("ages");
    ages.iter()
        .map(|age| age["duplicates"].as_u64().expect("a count"))
        .collect()
}

/// Partition 0: 50 ids; ten of them again after a minute and more, one of them a day later; ids
/// that are missing; an aborted transaction with what would be duplicates. Partition 1: two ids of
/// partition 0. Partition 2: aborted records alone. Partition 3: nothing.
fn known(name: &str) -> String {
    let topic = topic(name, 4);
    let ids: Vec<String> = (0..50).map(|n| format!("id-{n}")).collect();
    let all: Vec<_> = ids.iter().map(|id| (Some(id.as_str()), 0)).collect();
    produce(&topic, 0, &all);
    let aborted = transaction(&topic);
    send(&aborted, &topic, 0, &all[..20]);
    send(&aborted, &topic, 2, &all[..5]);
    aborted.flush(PATIENCE).expect("delivered");
    aborted.abort_transaction(PATIENCE).expect("aborted");
    let again: Vec<_> = ids[..10].iter().map(|id| (Some(id.as_str()), 60)).collect();
    produce(&topic, 0, &again);
    produce(&topic, 0, &[(None, 61), (Some(""), 61), (None, 61)]);
    produce(
        &topic,
        1,
        &[
            (Some("id-0"), 0),
            (Some("id-49"), 0),
            (Some("only-here"), 0),
        ],
    );
    // A late record: stream time is a day on by then, its own timestamp is not.
    produce(
        &topic,
        0,
        &[(Some("much-later"), 86_400), (Some("id-0"), 100)],
    );
    // The last thing in partition 1 is a marker, which no consumer is shown.
    let committed = transaction(&topic);
    send(&committed, &topic, 1, &[(Some("id-0"), 2)]);
    committed.commit_transaction(PATIENCE).expect("committed");
    topic
}

#[test]
fn figures_are_exact() {
    let topic = known("known");
    for memory in ["256MB", "96MiB"] {
        let found = json(&topic, &["--memory", memory]);
        assert_eq!(found["complete"], true, "{found:#}");
        assert_eq!(found["records"], 50 + 10 + 3 + 2 + 4);
        assert_eq!(found["without_id"], 3);
        assert_eq!(found["unparsable"], 0);
        assert_eq!(found["counted_ids"], 66);
        assert_eq!(found["distinct_ids"], 52);
        // id-0 to id-9, id-0 once more, and id-0 in partition 1.
        assert_eq!(found["duplicates"], 12);
        assert_eq!(found["across_partitions"], 2);
        // 2 s, a minute, and the day of stream time less the minute.
        assert_eq!(ages(&found), [0, 1, 10, 0, 0, 0, 1, 0, 0]);
        let most = &found["most_repeated"][0];
        assert_eq!(most["id"], "id-0");
        assert_eq!(
            (&most["records"], &most["partitions"]),
            (&5.into(), &2.into())
        );
        assert_eq!(
            (&most["partition"], &most["offset"]),
            (&0.into(), &0.into())
        );
        let partitions = found["partitions"].as_array().expect("partitions");
        let column = |name: &str| -> Vec<u64> {
            partitions
                .iter()
                .map(|partition| partition[name].as_u64().expect("a count"))
                .collect()
        };
        assert_eq!(column("records"), [65, 4, 0, 0]);
        assert_eq!(column("duplicates"), [11, 1, 0, 0]);
        assert_eq!(column("without_id"), [3, 0, 0, 0]);
        assert_eq!(found["reads"], 2);
    }
}

#[test]
fn text_has_the_figures_the_histogram_and_the_sentence() {
    let output = scan(&known("text"), &[]);
    let (text, err) = said(&output);
    assert!(output.status.success(), "{err}");
    assert_eq!(err, "", "a quick scan has no progress to tell");
    for words in [
        "4 partitions, 2 reads in",
        "duplicates within a partition",
        "18.1 % of the records with an id",
        "██",
        "A window of 24h would catch 100.0 % of them.",
        "5          0       0  id-0  (in 2 partitions)",
        "Note: what has the same id in another partition",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
}

#[test]
fn the_range_can_be_chosen() {
    let topic = known("range");
    let found = json(&topic, &["--partitions", "1-3"]);
    assert_eq!(
        (&found["records"], &found["across_partitions"]),
        (&4.into(), &0.into())
    );
    assert_eq!(found["partitions"][0]["partition"], 1);
    let found = json(&topic, &["--max-records", "55", "--partitions", "0"]);
    assert_eq!(
        (&found["records"], &found["duplicates"]),
        (&55.into(), &5.into())
    );
    assert!(
        found["notes"][0]
            .as_str()
            .expect("a note")
            .contains("--max-records")
    );
}

#[test]
fn the_start_can_be_a_time() {
    let topic = topic("from", 2);
    produce(
        &topic,
        0,
        &[(Some("a"), 0), (Some("a"), 60), (Some("a"), 86_400)],
    );
    let second = UNIX_EPOCH + Duration::from_millis(base_ms().unsigned_abs() + 59_000);
    let second = humantime::format_rfc3339_millis(second).to_string();
    for (from, records, duplicates) in [
        ("earliest", 3, 2),
        ("31h", 3, 2),
        (second.as_str(), 2, 1),
        ("29h", 1, 0),
        ("5m", 0, 0),
    ] {
        let found = json(&topic, &["--from", from]);
        let figures = (&found["records"], &found["duplicates"]);
        assert_eq!(figures, (&records.into(), &duplicates.into()), "{from}");
    }
}

#[test]
fn an_empty_topic_and_one_of_aborted_records_hold_nothing() {
    let empty = topic("empty", 2);
    let found = json(&empty, &[]);
    assert_eq!(
        (&found["records"], &found["complete"]),
        (&0.into(), &true.into())
    );
    let output = scan(&empty, &[]);
    assert!(
        said(&output).0.contains("There are no records."),
        "{output:?}"
    );
    let aborted = transaction(&empty);
    send(&aborted, &empty, 0, &[(Some("a"), 0), (Some("a"), 1)]);
    aborted.flush(PATIENCE).expect("delivered");
    aborted.abort_transaction(PATIENCE).expect("aborted");
    let found = json(&empty, &[]);
    assert_eq!(
        (&found["records"], &found["complete"]),
        (&0.into(), &true.into())
    );
}

#[test]
fn a_transaction_that_is_open_is_not_waited_for_but_told() {
    let topic = topic("open", 1);
    produce(&topic, 0, &[(Some("a"), 0), (Some("a"), 1)]);
    let committed = transaction(&topic);
    send(&committed, &topic, 0, &[(Some("a"), 2)]);
    committed.commit_transaction(PATIENCE).expect("committed");
    let open = transaction(&topic);
    send(&open, &topic, 0, &[(Some("a"), 3)]);
    open.flush(PATIENCE).expect("delivered");
    let found = json(&topic, &[]);
    assert_eq!(
        (&found["records"], &found["duplicates"]),
        (&3.into(), &2.into())
    );
    let note = found["notes"][0].as_str().expect("a note");
    assert!(note.starts_with("1 offset at the end"), "{note}");
    open.abort_transaction(PATIENCE).expect("aborted");
}

#[test]
fn a_topic_that_was_trimmed_is_read_from_where_it_begins() {
    let topic = topic("trimmed", 1);
    produce(
        &topic,
        0,
        &[
            (Some("a"), 0),
            (Some("b"), 1),
            (Some("b"), 2),
            (Some("a"), 3),
        ],
    );
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(&topic, 0, Offset::Offset(1))
        .expect("an offset");
    // A client that goes before the answer comes takes it along: nobody would hear of it.
    let admin = admin();
    let deleted = admin.delete_records(&before, &AdminOptions::new());
    futures_executor::block_on(deleted).expect("deleted");
    let found = json(&topic, &[]);
    assert_eq!(
        (&found["records"], &found["duplicates"]),
        (&3.into(), &1.into())
    );
    assert_eq!(found["partitions"][0]["start"], 1);
}

#[test]
fn many_partitions_and_records_add_up() {
    let topic = topic("many", 40);
    let producer: ThreadedProducer<DefaultProducerContext> =
        client().set("linger.ms", "5").create().expect("a producer");
    for partition in 0..40 {
        let ids: Vec<String> = (0..1000)
            .map(|n| format!("{partition}-{}", n % 900))
            .collect();
        let records: Vec<_> = ids.iter().map(|id| (Some(id.as_str()), 0)).collect();
        send(&producer, &topic, partition, &records);
    }
    producer.flush(PATIENCE).expect("delivered");
    let found = json(&topic, &[]);
    assert_eq!(
        (&found["records"], &found["distinct_ids"]),
        (&40_000.into(), &36_000.into())
    );
    assert_eq!(
        (&found["duplicates"], &found["across_partitions"]),
        (&4000.into(), &0.into())
    );
    let (text, _) = said(&scan(&topic, &[]));
    assert!(
        !text.contains("without an id  duplicates"),
        "40 partitions are too many to list:\n{text}"
    );
}

#[test]
fn a_config_file_says_where_and_what() {
    let topic = known("file");
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("dedup.yaml");
    let config = format!(
        "kafka: {{bootstrap_servers: \"{}\", group_id: real-group}}\ninput: {{topics: [{topic}]}}\n\
         id: {{from: {{header: message-id}}}}\nwindow: {{time: 90m}}\n",
        bootstrap()
    );
    std::fs::write(&file, config).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_kafka-dedup"))
        .args(["scan", &topic, "-c"])
        .arg(&file)
        .output()
        .expect("the command runs");
    let (text, err) = said(&output);
    assert!(output.status.success(), "{err}");
    let text = text.replace('\n', " ");
    let sentence = "The configured window of 90m would catch 91.6 % of them.";
    assert!(text.contains(sentence), "no {sentence:?} in\n{text}");
    // Nobody has joined or committed anything in either group.
    let consumer: BaseConsumer = client().create().expect("a consumer");
    let groups = consumer.fetch_group_list(None, PATIENCE).expect("groups");
    let names: Vec<&str> = groups.groups().iter().map(|group| group.name()).collect();
    assert!(
        !names.contains(&"real-group") && !names.contains(&"kafka-dedup-scan"),
        "{names:?}"
    );
}

#[test]
fn what_is_not_there_contradicts_and_is_not_made() {
    let output = scan("no-such-topic", &[]);
    let (out, err) = said(&output);
    assert_eq!(output.status.code(), Some(78), "{err}");
    assert_eq!(out, "");
    assert!(
        err.contains("there is no topic no-such-topic at 127.0.0.1:"),
        "{err}"
    );
    assert!(!exists("no-such-topic"));
    let output = scan(&topic("two", 2), &["--partitions", "0,2"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(
        said(&output)
            .1
            .contains("has no partition 2: its partitions are 0 to 1"),
        "{output:?}"
    );
}

#[test]
fn a_broker_that_is_not_there_is_unreachable() {
    let output = Command::new(env!("CARGO_BIN_EXE_kafka-dedup"))
        .args(["scan", "t", "-b", "127.0.0.1:1", "--id", "key"])
        .output()
        .expect("the command runs");
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(
        said(&output).1.contains("cannot be reached at 127.0.0.1:1"),
        "{output:?}"
    );
}

#[test]
fn bad_usage_names_the_flags() {
    let output = scan(
        "t",
        &[
            "-X",
            "group.id=mine",
            "-X",
            "isolation.level=read_uncommitted",
        ],
    );
    let (_, err) = said(&output);
    assert_eq!(output.status.code(), Some(64), "{err}");
    assert_eq!(err.matches("-X: kafka.properties").count(), 2, "{err}");
}

#[test]
fn a_scan_that_is_interrupted_says_what_it_knows_and_exits_130() {
    let topic = topic("slow", 1);
    // One record a batch and one batch a fetch: slow enough to be caught.
    let producer: ThreadedProducer<DefaultProducerContext> = client()
        .set("batch.num.messages", "1")
        .create()
        .expect("a producer");
    let records: Vec<_> = (0..20_000).map(|_| (Some("same"), 0)).collect();
    send(&producer, &topic, 0, &records);
    producer.flush(PATIENCE).expect("delivered");
    let mut child = Command::new(env!("CARGO_BIN_EXE_kafka-dedup"))
        .args([
            "scan",
            &topic,
            "-b",
            &bootstrap(),
            "--id",
            "header:message-id",
        ])
        .args([
            "-X",
            "fetch.message.max.bytes=1",
            "-X",
            "queued.min.messages=1",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    thread::sleep(Duration::from_millis(1500));
    assert!(
        child.try_wait().expect("its state").is_none(),
        "it was too quick"
    );
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: kill takes two plain integers; the child has not been waited for, so the id is its.
    unsafe { libc::kill(pid, libc::SIGINT) };
    let output = child.wait_with_output().expect("its end");
    let (out, err) = said(&output);
    assert_eq!(output.status.code(), Some(130), "{out}\n{err}");
    assert!(out.contains("PARTIAL: stopped"), "{out}\n{err}");
    assert!(err.contains("stopped before its end, as asked"), "{err}");
}
