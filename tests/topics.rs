//! What only a real broker can judge about topics: that they are made, grown, refused and trimmed
//! as promised, and that `check` says so before and changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kafka_dedup::cli::check::{self, CheckArgs};
use kafka_dedup::config::{Config, from_str};
use kafka_dedup::demo::broker::Cluster;
use kafka_dedup::exit::Status;
use kafka_dedup::kafka::{clients, context::Logged, describe};
use kafka_dedup::topics::{Admin, PrepareError, Prepared, Trimmer, list, prepare};
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;

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

/// A deployment with names of its own.
struct Deployment {
    input: String,
    text: String,
    config: Config,
    admin: Admin,
}

impl Deployment {
    fn new(name: &str, extra: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let input = format!("{name}{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let text = format!(
            "kafka: {{bootstrap_servers: \"{}\", group_id: g-{input}, instance_id: i}}\n\
             id: {{from: {{header: message-id}}}}\n{}",
            bootstrap(),
            extra.replace("INPUT", &input)
        );
        let inputs = format!("input: {{topics: [{input}]}}\n");
        let text = if text.contains("input:") {
            text
        } else {
            text + &inputs
        };
        let config = from_str(&text, "test", &BTreeMap::new()).expect("a good file");
        let admin = Admin::new(&config).expect("clients");
        Self {
            input,
            text,
            config,
            admin,
        }
    }

    fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = settings
            .iter()
            .fold(new, |new, (key, value)| new.set(key, value));
        self.admin
            .create(&new, false)
            .expect("an answer")
            .expect("a new topic");
        self.wait_for(topic, partitions);
    }

    fn grow(&self, topic: &str, partitions: i32) {
        self.admin
            .grow(topic, partitions, false)
            .expect("an answer")
            .expect("more partitions");
        self.wait_for(topic, partitions);
    }

    fn wait_for(&self, topic: &str, partitions: i32) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.partitions(topic) != Some(partitions) {
            assert!(
                Instant::now() < until,
                "{topic} does not have {partitions} partitions"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn partitions(&self, topic: &str) -> Option<i32> {
        let found = self.admin.describe(&[topic]).expect("an answer");
        found[0]
            .as_ref()
            .filter(|topic| topic.led)
            .map(|topic| topic.partitions)
    }

    fn setting(&self, topic: &str, key: &str) -> String {
        let settings = self
            .admin
            .settings(topic)
            .expect("an answer")
            .expect("settings");
        settings.get(key).cloned().unwrap_or_default()
    }

    fn commit(&self, partition: i32, offset: i64) {
        let consumer: BaseConsumer = clients::journal_reader_config(&self.config)
            .create()
            .expect("a consumer");
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(&self.input, partition, Offset::Offset(offset))
            .expect("an offset");
        consumer
            .commit(&offsets, CommitMode::Sync)
            .expect("committed");
    }

    fn prepare(&self) -> Result<Prepared, PrepareError> {
        prepare(&self.admin, &self.config, &self.input)
    }

    fn contradiction(&self, words: &[&str]) {
        let Err(PrepareError::Stop(stop)) = self.prepare() else {
            panic!("no contradiction")
        };
        assert_eq!(stop.status, Status::Contradiction);
        for word in words {
            assert!(stop.sentence.contains(word), "no {word} in: {stop}");
        }
    }

    /// What `check` ends with, having changed no topic.
    fn check(&self) -> Result<(), kafka_dedup::exit::Stop> {
        let before = list(&self.admin).expect("topics");
        let before: Vec<_> = before
            .iter()
            .filter(|(name, _)| name.contains(&self.input))
            .collect();
        let dir = TempDir::new().expect("a directory");
        let path: PathBuf = dir.path().join("dedup.yaml");
        std::fs::write(&path, &self.text).expect("a file");
        let end = check::run(&asked(&path, false));
        let after = list(&self.admin).expect("topics");
        let after: Vec<_> = after
            .iter()
            .filter(|(name, _)| name.contains(&self.input))
            .collect();
        assert_eq!(before, after, "check changes nothing");
        end
    }
}

#[test]
fn what_is_absent_is_made_like_the_input_and_only_once() {
    let extra = "duplicates: {topic: \"{topic}_dup\"}\nrejected: {topic: \"{topic}_rej\"}\n";
    let it = Deployment::new("made", extra);
    let settings = [
        ("retention.ms", "-1"),
        ("max.message.bytes", "3000000"),
        ("message.timestamp.after.max.ms", "9223372036854775807"),
        ("message.timestamp.type", "LogAppendTime"),
    ];
    it.create(&it.input, 3, &settings);
    it.check().expect("nothing in the way");

    let prepared = it.prepare().expect("topics");
    assert_eq!((prepared.partitions, prepared.output_partitions), (3, 3));
    let id = prepared.journal_id.clone().expect("a topic id");
    assert_ne!(Some(&id), prepared.input_id.as_ref());
    let output = prepared.names.output.as_ref().expect("it is written");
    let journal = &prepared.names.journal;
    for topic in [
        output,
        journal,
        &format!("{}_dup", it.input),
        &format!("{}_rej", it.input),
    ] {
        assert_eq!(it.partitions(topic), Some(3), "{topic}");
    }
    for (key, value) in &settings[..3] {
        assert_eq!(it.setting(output, key), *value, "{key}");
    }
    assert_eq!(it.setting(output, "message.timestamp.type"), "CreateTime");
    assert_eq!(
        it.setting(journal, "message.timestamp.type"),
        "LogAppendTime"
    );
    assert_eq!(it.setting(journal, "retention.ms"), "-1");
    assert_eq!(it.setting(journal, "cleanup.policy"), "delete");

    assert_eq!(
        it.prepare().expect("topics"),
        prepared,
        "the second time changes nothing"
    );
    it.check().expect("nothing in the way");
}

#[test]
fn instances_that_start_together_do_not_trip_each_other() {
    let it = Deployment::new("race", "");
    it.create(&it.input, 4, &[]);
    let outcomes: Vec<Prepared> = std::thread::scope(|scope| {
        let start = || scope.spawn(|| it.prepare().expect("topics"));
        let instances: Vec<_> = (0..4).map(|_| start()).collect();
        instances
            .into_iter()
            .map(|one| one.join().expect("an outcome"))
            .collect()
    });
    assert!(outcomes.iter().all(|one| *one == outcomes[0]));
}

#[test]
fn topics_follow_an_input_that_grows_once_the_group_has_worked() {
    let it = Deployment::new("grown", "");
    it.create(&it.input, 2, &[]);
    let prepared = it.prepare().expect("topics");
    it.grow(&it.input, 5);
    it.contradiction(&["has 2 partitions", "has 5"]);
    it.commit(0, 0);
    let again = it.prepare().expect("grown topics");
    assert_eq!((again.partitions, again.output_partitions), (5, 5));
    assert_eq!(it.partitions(&again.names.journal), Some(5));
    assert_eq!(
        again.journal_id, prepared.journal_id,
        "the same topic, grown"
    );
}

#[test]
fn contradictions_name_topics_and_counts_and_check_sees_them_first() {
    let it = Deployment::new("small", "");
    it.create(&it.input, 4, &[]);
    let output = format!("{}_dedup", it.input);
    it.create(&output, 2, &[]);
    let words = [output.as_str(), "has 2 partitions", "has 4"];
    let stop = it.check().expect_err("a contradiction");
    assert_eq!(stop.status, Status::Contradiction);
    assert!(
        words.iter().all(|word| stop.sentence.contains(word)),
        "{stop}"
    );
    it.contradiction(&words);
    let journal = format!("{}-g-{}-seen", it.input, it.input);
    assert_eq!(
        it.partitions(&journal),
        None,
        "nothing is made where the whole cannot work"
    );

    let it = Deployment::new("keyed", "output: {partition: key}\n");
    it.create(&it.input, 4, &[]);
    it.create(&format!("{}_dedup", it.input), 1, &[]);
    assert_eq!(it.prepare().expect("topics").output_partitions, 1);

    let it = Deployment::new("compacted", "");
    it.create(&it.input, 1, &[]);
    let journal = format!("{}-g-{}-seen", it.input, it.input);
    it.create(&journal, 1, &[("cleanup.policy", "compact")]);
    it.contradiction(&[&journal, "cleanup.policy"]);
    assert_eq!(
        it.check().expect_err("a contradiction").status,
        Status::Contradiction
    );

    let it = Deployment::new("theirs", "output: {create: false}\n");
    it.create(&it.input, 1, &[]);
    it.contradiction(&[&format!("{}_dedup", it.input), "output.create"]);
}

#[test]
fn an_input_that_is_not_there_is_asked_for_again() {
    let it = Deployment::new("later", "");
    assert!(matches!(it.prepare(), Err(PrepareError::Retry(_))));
    it.check().expect("a warning only");
    assert_eq!(it.partitions(&it.input), None, "looking does not make it");
}

#[test]
fn an_output_that_inputs_share_holds_the_largest() {
    let it = Deployment::new(
        "shared",
        "input: {topics: [INPUT, INPUT-b]}\noutput: {topic: INPUT-all}\n",
    );
    it.create(&it.input, 2, &[]);
    let larger = format!("{}-b", it.input);
    it.create(&larger, 6, &[]);
    assert_eq!(it.prepare().expect("topics").output_partitions, 6);
    assert_eq!(
        prepare(&it.admin, &it.config, &larger)
            .expect("topics")
            .output_partitions,
        6
    );
}

#[test]
fn check_finds_a_journal_that_lost_what_the_group_committed() {
    let it = Deployment::new("lost", "");
    it.create(&it.input, 1, &[]);
    it.commit(0, 0);
    let stop = it.check().expect_err("a contradiction");
    assert_eq!(stop.status, Status::Contradiction);
    assert!(stop.sentence.contains("holds nothing"), "{stop}");
}

fn asked(file: &Path, offline: bool) -> CheckArgs {
    CheckArgs {
        config: file.to_owned(),
        offline,
        json: false,
    }
}

#[test]
fn check_ends_with_69_where_nobody_answers() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("dedup.yaml");
    let text = "kafka: {bootstrap_servers: \"127.0.0.1:1\", group_id: g, instance_id: i}\n\
                input: {topics: [in]}\nid: {from: key}\n";
    std::fs::write(&path, text).expect("a file");
    check::run(&asked(&path, true)).expect("a good file");
    let stop = check::run(&asked(&path, false)).expect_err("no broker");
    assert_eq!(stop.status, Status::Unreachable);
    assert!(
        stop.sentence.contains("127.0.0.1:1") && stop.sentence.contains("last error"),
        "{stop}"
    );
}

#[test]
fn a_journal_is_trimmed_to_the_newest_offset_asked_for() {
    let it = Deployment::new("trimmed", "");
    it.create(&it.input, 1, &[]);
    let journal = it.prepare().expect("topics").names.journal;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap())
        .create()
        .expect("a producer");
    for _ in 0..20 {
        producer
            .send(BaseRecord::<[u8], [u8]>::to(&journal).payload(b"run"))
            .expect("queued");
    }
    producer.flush(Duration::from_secs(20)).expect("delivered");

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let failures = std::sync::Arc::new(AtomicU32::new(0));
    let seen = std::sync::Arc::clone(&failures);
    let trimmer = Trimmer::new(&it.admin, runtime.handle().clone(), move |_: &str| {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    (1..=15).for_each(|offset| trimmer.trim(&journal, 0, offset));
    let until = Instant::now() + Duration::from_secs(20);
    while it.admin.watermarks(&journal, 0).expect("watermarks") != (15, 20) {
        assert!(Instant::now() < until, "not trimmed");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(failures.load(Ordering::Relaxed), 0);
    trimmer.trim("no-such-journal", 0, 5);
    let until = Instant::now() + Duration::from_secs(60);
    while failures.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < until, "a failure is not told");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_member_knows_its_generation_its_watermarks_and_any_header() {
    let it = Deployment::new("member", "");
    it.create(&it.input, 1, &[]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap())
        .create()
        .expect("a producer");
    let header = |key, value: Option<&'static str>| Header { key, value };
    let headers = OwnedHeaders::new()
        .insert(header("id", Some("first")))
        .insert(header("id", Some("last")))
        .insert(header("empty", Some("")))
        .insert(header("null", None));
    let record = BaseRecord::<[u8], [u8]>::to(&it.input).headers(headers);
    producer.send(record).expect("queued");
    producer.flush(Duration::from_secs(20)).expect("delivered");
    it.commit(0, 0);

    let consumer: BaseConsumer<Logged> = clients::consumer_config(&it.config, 0)
        .create_with_context(Logged::new())
        .expect("a consumer");
    assert_eq!(describe::group_generation(&consumer), None);
    assert_eq!(describe::cached_watermarks(&consumer, &it.input, 0), None);
    consumer.subscribe(&[&it.input]).expect("subscribed");
    let until = Instant::now() + Duration::from_secs(60);
    let message = loop {
        assert!(Instant::now() < until, "no record");
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
            break message;
        }
    };
    assert_eq!(message.partition(), 0);
    assert_eq!(describe::last_header(&message, c"id"), Some(&b"last"[..]));
    assert_eq!(describe::last_header(&message, c"empty"), Some(&b""[..]));
    assert_eq!(describe::last_header(&message, c"null"), None);
    assert_eq!(describe::last_header(&message, c"absent"), None);
    let (generation, member) = describe::group_generation(&consumer).expect("a generation");
    assert!(generation >= 1 && !member.is_empty());
    assert_eq!(
        describe::cached_watermarks(&consumer, &it.input, 0).map(|(_, high)| high),
        Some(1)
    );
}

#[test]
fn the_bounds_of_many_partitions_are_those_of_each() {
    let it = Deployment::new("bounds", "");
    it.create(&it.input, 3, &[]);
    let patience = Duration::from_secs(20);
    let produce = |producer: &BaseProducer, partition: i32, count: usize| {
        for _ in 0..count {
            let record = BaseRecord::<[u8], [u8]>::to(&it.input).payload(b"record");
            producer.send(record.partition(partition)).expect("queued");
        }
        producer.flush(patience).expect("delivered");
    };
    let client = |settings: &[(&str, &str)]| -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap());
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().expect("a producer")
    };
    // One is trimmed, one has a transaction open, one is empty.
    produce(&client(&[]), 1, 20);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    Trimmer::new(&it.admin, runtime.handle().clone(), |_: &str| {}).trim(&it.input, 1, 5);
    let until = Instant::now() + patience;
    while it.admin.watermarks(&it.input, 1).expect("watermarks") != (5, 20) {
        assert!(Instant::now() < until, "not trimmed");
        std::thread::sleep(Duration::from_millis(50));
    }
    let transactional = client(&[("transactional.id", &it.input)]);
    transactional.init_transactions(patience).expect("ours");
    transactional.begin_transaction().expect("begun");
    produce(&transactional, 2, 1);

    let asked = [2, 0, 1].map(|partition| (it.input.as_str(), partition));
    let bounds = |asked: &[(&str, i32)], end: describe::End| {
        describe::bounds(it.admin.observer().client(), asked, end, patience / 4)
    };
    let high = bounds(&asked, describe::End::High).expect("an answer");
    assert_eq!(high, [Some((0, 1)), Some((0, 0)), Some((5, 20))]);
    let of_each = asked.map(|(topic, partition)| it.admin.watermarks(topic, partition).ok());
    assert_eq!(high, of_each);
    let stable = bounds(&asked, describe::End::Stable).expect("an answer");
    assert_eq!(stable, [Some((0, 0)), Some((0, 0)), Some((5, 20))]);
    transactional.abort_transaction(patience).expect("aborted");

    assert_eq!(bounds(&[], describe::End::High), Ok(Vec::new()));
    let absent = bounds(&[(&it.input, 0), ("no-such-topic", 0)], describe::End::High);
    let answered = absent.map_or(None, |found| found[1]);
    assert_eq!(answered, None);
}
