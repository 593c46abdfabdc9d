//! The broker that all programs share, and what a bystander sees of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kafka_dedup::demo::broker::{Cluster, Layout};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset};

use crate::kit::kafka::Kafka;
use crate::measure::cpu_of_process;

pub struct Broker {
    cluster: Cluster,
    pub kafka: Kafka,
    logs: PathBuf,
}

impl Broker {
    pub fn start(dir: &Path) -> Self {
        let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let layout = Layout {
            // A server's Java: room for what it caches, both compilers, the collector of Kafka's own scripts.
            java: [
                "-Xms1g",
                "-Xmx1g",
                "-XX:TieredStopAtLevel=4",
                "-XX:-UseSerialGC",
                "-XX:+UseG1GC",
            ]
            .map(str::to_owned)
            .to_vec(),
            properties: vec![
                // Topics go at the end of each run, and their files soon after: the disk must hold one run.
                property("log.segment.delete.delay.ms", "1000"),
                // Peers that ask for the broker's default get one copy.
                property("min.insync.replicas", "1"),
            ],
            ..Layout::of(1)
        };
        let cluster = Cluster::start_as(&layout, dir).expect("a Kafka broker");
        Self {
            kafka: Kafka::at(cluster.bootstrap()),
            cluster,
            logs: dir.join("node-0/data"),
        }
    }

    pub fn stop(self) {
        self.cluster.stop();
    }

    /// Leaves it one core, all its threads and those to come.
    pub fn pin(&self, core: usize) {
        let pid = self.cluster.pid(0).expect("it runs");
        let status = Command::new("taskset")
            .args(["--all-tasks", "--cpu-list", "--pid", &core.to_string()])
            .arg(pid.to_string())
            .stdout(Stdio::null())
            .status();
        assert!(
            status.expect("taskset").success(),
            "the broker is not pinned to core {core}"
        );
    }

    /// CPU time of the broker so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_of_process(self.cluster.pid(0).expect("it runs"))
    }

    /// Bytes of records in the logs of all topics but this one, by partition: outputs, journals,
    /// changelogs, and Kafka's own for offsets and transactions.
    pub fn logs_beside(&self, input: &str) -> BTreeMap<String, u64> {
        let partitions = fs::read_dir(&self.logs).expect("the broker's logs");
        partitions
            .flatten()
            .filter_map(|partition| {
                let name = partition.file_name().into_string().ok()?;
                // Those of deleted topics have another name until their files go.
                let counts = !is_partition_of(input, &name)
                    && !name.starts_with("__cluster_metadata")
                    && !name.ends_with("-delete");
                counts.then(|| (name, log_bytes(&partition.path())))
            })
            .collect()
    }

    /// Bytes of records in the logs of one topic.
    pub fn log_of(&self, topic: &str) -> u64 {
        let of_all = self.logs_beside("");
        let of_topic = of_all
            .iter()
            .filter(|(name, _)| is_partition_of(topic, name));
        of_topic.map(|(_, bytes)| bytes).sum()
    }

    /// Deletes all topics that a run made.
    pub fn delete_all_but(&self, input: &str) {
        let consumer: BaseConsumer = self.kafka.client().create().expect("a consumer");
        let metadata = consumer
            .fetch_metadata(None, Duration::from_secs(10))
            .expect("metadata");
        for topic in metadata.topics() {
            if topic.name() != input && !topic.name().starts_with("__") {
                self.kafka.delete_topic(topic.name());
            }
        }
    }
}

/// Whether a directory is one of a topic: another's name may begin with the topic's.
fn is_partition_of(topic: &str, dir: &str) -> bool {
    let rest = dir.strip_prefix(topic);
    let number = rest.and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Of the record files of a partition, without their indexes.
fn log_bytes(partition: &Path) -> u64 {
    let files = fs::read_dir(partition).into_iter().flatten().flatten();
    files
        .filter(|file| file.path().extension().is_some_and(|kind| kind == "log"))
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}

/// What was written between two looks.
pub fn written(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    let earlier = |name: &String| before.get(name).copied().unwrap_or(0);
    after
        .iter()
        .map(|(name, bytes)| bytes.saturating_sub(earlier(name)))
        .sum()
}

/// Asks for a group's committed offsets, all partitions in one request.
pub struct Progress {
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl Progress {
    pub fn of(kafka: &Kafka, group: &str, topic: &str, count: i32) -> Self {
        let mut config: ClientConfig = kafka.client();
        let consumer = config
            .set("group.id", group)
            // Else an answer waits for the end of a transaction.
            .set("isolation.level", "read_uncommitted")
            .create()
            .expect("a consumer");
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(topic, 0, count - 1);
        Self {
            consumer,
            partitions,
        }
    }

    /// Records committed so far. The input has no gaps, so offsets count records.
    pub fn committed(&self) -> u64 {
        let asked = self.partitions.clone();
        let Ok(answer) = self
            .consumer
            .committed_offsets(asked, Duration::from_secs(10))
        else {
            return 0;
        };
        let offsets = answer
            .elements()
            .into_iter()
            .map(|partition| partition.offset());
        offsets
            .map(|offset| match offset {
                Offset::Offset(offset) => u64::try_from(offset).unwrap_or(0),
                _ => 0,
            })
            .sum()
    }
}
