//! `plan` held against a service that runs: what it says a window takes is what it takes, within 20 %.

#[path = "kit/mod.rs"]
mod kit;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kit::{BINARY, Deployment, Rec, now_ms};

const IDS: i64 = 240_000;
/// One in five records repeats the one two before it.
const DUPLICATES: i64 = 5;

#[test]
fn what_a_window_takes_is_what_was_planned() {
    // Slices end between transactions: few records a transaction make them as large as was planned.
    let extra = format!(
        "window: {{time: 10d, ids: {IDS}}}\ntransaction: {{interval: 200ms, records: 1000}}\n"
    );
    let mut deployment = Deployment::new("planned", 1, &extra);
    let active = "KAFKA_DEDUP__STORE__ACTIVE_IDS";
    deployment
        .env
        .push((active.to_owned(), "229376".to_owned()));
    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    // Nearly a window and a half, so that slices have come and gone.
    let total = IDS * 29 / 20 * DUPLICATES / (DUPLICATES - 1);
    let begins_ms = now_ms() - total;
    let started = Instant::now();
    for first in (0..total).step_by(4_000) {
        let records: Vec<Rec> = (first..first + 4_000)
            .map(|number| {
                let id = if number % DUPLICATES == 4 {
                    number - 2
                } else {
                    number
                };
                Rec::with_id(id.to_string(), begins_ms + number)
            })
            .collect();
        deployment.kafka.produce(&deployment.input, 0, &records);
    }
    deployment.wait_until_caught_up(Duration::from_secs(240));
    let records_per_run = {
        let journal = deployment.kafka.read_partition(&deployment.journal(), 0);
        total as f64 / journal.len() as f64
    };
    // The rate that the machine had decides how many ids a run holds.
    let rate = total as f64 / started.elapsed().as_secs_f64();
    let interval_ms = (1e3 * records_per_run / rate).clamp(1.0, 10_000.0);
    let config = deployment.dir.path().join("planned.yaml");
    let yaml = format!(
        "kafka: {{bootstrap_servers: 'b:9092', group_id: g}}\ninput: {{topics: [t]}}\nid: {{from: key}}\n\
         window: {{time: 10d, ids: {IDS}}}\ntransaction: {{interval: {interval_ms:.0}ms, records: 1000000}}\n"
    );
    std::fs::write(&config, yaml).expect("a config");
    let out = Command::new(BINARY)
        .args(["plan", "--json", "--partitions", "1", "--duplicates", "20%"])
        .args(["--rate", &format!("{rate:.0}"), "-c"])
        .arg(&config)
        .output()
        .expect("it runs");
    assert!(out.status.success(), "{out:?}");
    let plan: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let planned = |key: &str| plan["partition"][key].as_f64().expect("a number");

    // Sealing and the filter lag a little behind.
    let memory = planned("filter_bytes") + planned("active_bytes");
    let settled = Instant::now() + Duration::from_secs(20);
    while instance.metric("kafka_dedup_window_bytes") > 1.1 * memory && Instant::now() < settled {
        std::thread::sleep(Duration::from_millis(200));
    }
    let near = |what: &str, planned: f64, found: f64| {
        let ratio = planned / found;
        eprintln!("{what}: planned {planned:.0}, found {found:.0}");
        assert!(
            (0.8..=1.2).contains(&ratio),
            "{what}: planned {planned}, found {found}"
        );
    };
    // A filter that was larger for a while is built anew only when it is twice what it need be.
    let found = instance.metric("kafka_dedup_window_bytes");
    let filter = planned("filter_bytes");
    let memory = if found > 1.2 * memory {
        memory + filter
    } else {
        memory
    };
    near("memory", memory, found);
    near(
        "ids",
        planned("ids_held"),
        instance.metric("kafka_dedup_window_ids"),
    );
    near(
        "disk",
        planned("disk_bytes"),
        size_of_tree(&instance.store) as f64,
    );
    let journal = deployment.kafka.read_partition(&deployment.journal(), 0);
    // A run's value, and what Kafka adds to it in a batch of its own.
    let bytes: usize = journal
        .iter()
        .map(|(_, run)| run.value.as_ref().map_or(0, Vec::len) + 71 + 78)
        .sum();
    let ids = instance.metric("kafka_dedup_window_ids");
    near(
        "journal",
        planned("journal_bytes") / planned("ids_held"),
        bytes as f64 / ids,
    );
    assert!(instance.terminate().success(), "{}", instance.log_tail());
}

fn size_of_tree(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                size_of_tree(&entry.path())
            } else {
                use std::os::unix::fs::MetadataExt;
                512 * entry.metadata().expect("metadata").blocks()
            }
        })
        .sum()
}
