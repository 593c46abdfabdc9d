//! Instances that are one consumer group, each a process with a store of its own, as an outsider sees
//! them: probes, metrics, the admin interface, and what the kernel says of a process.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::kafka::Kafka;
use crate::kit::{Deployment, Instance, unique, wait_for};
use crate::measure::memory_of;

/// A thousand partitions on a broker that shares its cores are restored and shared out within this.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// How often is looked whether something has come about: what is timed is no finer than this.
pub const LOOK: Duration = Duration::from_millis(20);
/// The default of `store.active_ids`.
const ACTIVE_IDS: u64 = 229_376;

/// What a group is told beside its defaults.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub workers: usize,
    /// `store.active_ids`: small, so that few ids come to the disk as many would.
    pub active_ids: u64,
    /// `transaction.records`: slices end between transactions.
    pub records_a_transaction: u64,
    pub static_members: bool,
}

pub const DEFAULTS: Setup = Setup {
    workers: 1,
    active_ids: ACTIVE_IDS,
    records_a_transaction: 20_000,
    static_members: false,
};

/// A new group on an input that is there.
pub fn group_on(kafka: &Kafka, input: &str, partitions: i32, setup: Setup) -> Deployment {
    let (group, output) = (unique("group"), unique("output"));
    let extra = format!("output: {{topic: {output}}}\nworkers: {}\n", setup.workers);
    let mut deployment = Deployment::of(kafka, input.to_owned(), partitions, &extra);
    (deployment.group, deployment.output) = (group, output);
    deployment.consumer_properties.clear();
    let env = |name: &str, value: String| (name.to_owned(), value);
    // The test kit's deployments have small slices.
    deployment.env = vec![
        env(
            "KAFKA_DEDUP__STORE__ACTIVE_IDS",
            setup.active_ids.to_string(),
        ),
        env(
            "KAFKA_DEDUP__TRANSACTION__RECORDS",
            setup.records_a_transaction.to_string(),
        ),
    ];
    if setup.static_members {
        deployment.env.push(env(
            "KAFKA_DEDUP__KAFKA__STATIC_MEMBERSHIP",
            "true".to_owned(),
        ));
        // Longer than a restart takes: else the group gives its partitions away meanwhile.
        let session = ("session.timeout.ms".to_owned(), "45000".to_owned());
        deployment.consumer_properties.push(session);
    }
    deployment
}

/// Ends an instance as a supervisor does.
pub fn stop(instance: &mut Instance) {
    let status = instance.terminate();
    assert!(status.success(), "{status}:\n{}", instance.log_tail());
    // For those who want to look at it.
    if std::env::var_os("KAFKA_DEDUP_BENCH_LOGS").is_some() {
        println!(
            "---- {}\n{}",
            instance.config.display(),
            instance.log_text()
        );
    }
}

/// Starts an instance that reads nothing until it is told to go on.
pub fn start_paused(group: &Deployment, name: &str) -> Instance {
    let instance = group.start(name);
    // Long before it has joined the group.
    wait_for("its admin interface", Duration::from_secs(30), || {
        command(&instance, "pause")
    });
    instance
}

pub fn resume(instance: &Instance) {
    assert!(
        command(instance, "resume"),
        "it goes on:\n{}",
        instance.log_tail()
    );
}

fn command(instance: &Instance, command: &str) -> bool {
    let url = format!("http://127.0.0.1:{}/admin/v1/{command}", instance.admin);
    let answer = ureq::post(&url)
        .header("content-type", "application/json")
        .send("{}");
    answer.is_ok()
}

/// Partitions that each of its workers has restored; `None` as long as one has others to restore.
fn shares(instance: &Instance) -> Option<Vec<usize>> {
    let (_, report) = instance.get("/readyz?verbose")?;
    let of_partitions = report
        .lines()
        .filter(|line| line.starts_with("worker-") && line.contains("/partitions: "));
    of_partitions
        .map(|line| {
            let said = line.rsplit("): ").next()?;
            let count = said.strip_suffix(" active")?.split(' ').next()?;
            count.parse().ok()
        })
        .collect()
}

/// Waits until the partitions are spread evenly over all workers of all instances, and restored.
pub fn wait_until_shared(instances: &mut [Instance], setup: Setup, partitions: i32) {
    let partitions = usize::try_from(partitions).expect("a count");
    let workers = instances.len() * setup.workers;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shares: Vec<usize> = instances
            .iter()
            .flat_map(|instance| shares(instance).unwrap_or_default())
            .collect();
        let least = shares.iter().min().copied().unwrap_or(0);
        let most = shares.iter().max().copied().unwrap_or(0);
        let all = shares.len() == workers && shares.iter().sum::<usize>() == partitions;
        if all && most - least <= 1 {
            return;
        }
        for instance in &mut *instances {
            assert!(!instance.has_ended(), "it ended:\n{}", instance.log_tail());
        }
        assert!(
            Instant::now() < deadline,
            "{partitions} partitions are not spread evenly: {shares:?}\n{}",
            instances[0].log_tail()
        );
        thread::sleep(LOOK);
    }
}

/// The numbers of the partitions that it has restored.
pub fn owned(instance: &Instance) -> BTreeSet<i32> {
    let (_, text) = instance.get("/metrics").expect("metrics");
    let active = text
        .lines()
        .filter(|line| line.starts_with("kafka_dedup_partition_active{") && line.ends_with(" 1"));
    active
        .map(|line| {
            let number = line.split("partition=\"").nth(1).expect("a label");
            let number = number.split('"').next().expect("a label");
            number.parse().expect("a number")
        })
        .collect()
}

/// Open files of a process.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("procfs")
        .count()
}

/// Threads of a process.
pub fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("procfs")
        .count()
}

/// Its resident memory in MiB: `VmRSS` now, `VmHWM` at its peak.
pub fn mib(pid: u32, field: &str) -> f64 {
    memory_of(pid, field) as f64 / f64::from(1 << 20)
}

/// All that it holds in its store.
pub fn forget_store(store: &Path) {
    if store.exists() {
        std::fs::remove_dir_all(store).expect("the store is removed");
    }
}
