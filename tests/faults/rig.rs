//! What a round works with: a deployment, hostile input that flows, and the judge.

use std::fs;
use std::time::{Duration, Instant};

use kafka_dedup::config::Window;

use crate::kit::audit::{Audit, Tally};
use crate::kit::hostile::{Hostile, Pool};
use crate::kit::{Deployment, Instance, Kafka, broker, unique, wait_for};

/// Small, so that ids age out, slices are sealed and dropped, and the journal is trimmed in minutes.
pub const WINDOW_MS: i64 = 6_000;
const WINDOW_IDS: u64 = 3_000;
/// Longer than any time-out that a fault can make one wait for.
const PATIENCE: Duration = Duration::from_secs(150);
/// A process may hold this much more when all is quiet again than when it became ready.
const MEMORY_SLACK_KIB: u64 = 96 * 1024;
const HANDLES_SLACK: usize = 40;

pub struct Rig {
    pub deployment: Deployment,
    window: Window,
    pool: Option<Pool>,
    flow: Option<Hostile>,
    audit: Option<Audit>,
    seed: u64,
}

/// How a rig is set up, as far as faults differ in it.
pub struct Plan<'a> {
    pub kafka: &'a Kafka,
    pub name: &'a str,
    pub partitions: i32,
    pub seed: u64,
    pub window: Window,
    /// Settings of the input topic.
    pub settings: &'a [(&'a str, &'a str)],
    /// More of the config, as YAML.
    pub extra: &'a str,
}

impl<'a> Plan<'a> {
    /// Two partitions on the shared broker.
    pub fn new(name: &'a str, seed: u64) -> Self {
        Self::on(broker(), name, seed)
    }

    /// Two partitions on this cluster.
    pub fn on(kafka: &'a Kafka, name: &'a str, seed: u64) -> Self {
        Self {
            kafka,
            name,
            partitions: 2,
            seed,
            window: Window {
                time_ms: Some(WINDOW_MS),
                ids: Some(WINDOW_IDS),
                refresh: false,
                max_ahead_ms: 600_000,
            },
            settings: &[],
            extra: "transaction: {interval: 25ms, timeout: 10s}\n",
        }
    }
}

impl Rig {
    pub fn of(plan: Plan<'_>) -> Self {
        let window = plan.window;
        let mut yaml = format!(
            "window: {{max_ahead: {}ms, time: {}ms",
            window.max_ahead_ms,
            window.time_ms.unwrap_or(WINDOW_MS)
        );
        if let Some(ids) = window.ids {
            yaml += &format!(", ids: {ids}");
        }
        yaml += "}\nduplicates: {topic: \"{topic}_dups\"}\n";
        yaml += plan.extra;
        let input = unique(plan.name);
        plan.kafka
            .create_topic(&input, plan.partitions, plan.settings);
        let deployment = Deployment::of(plan.kafka, input, plan.partitions, &yaml);
        Self {
            deployment,
            window,
            pool: Some(Pool::new(plan.seed, plan.partitions, WINDOW_MS)),
            flow: None,
            audit: None,
            seed: plan.seed,
        }
    }

    /// Adds partitions to the input while records flow; from the next flow on they get some.
    pub fn grow(&mut self, partitions: i32) {
        let it = &mut self.deployment;
        it.kafka
            .add_partitions(&it.input, usize::try_from(partitions).expect("a count"));
        it.partitions = partitions;
    }

    /// Records flow until the next [`Rig::settle`].
    pub fn flow(&mut self) {
        let input = &self.deployment.input;
        let pool = self.pool.take().expect("it does not flow yet");
        self.flow = Some(Hostile::start(&self.deployment.kafka, input, pool));
    }

    /// Like [`Rig::flow`], with timestamps that are years off in between.
    pub fn flow_with_years(&mut self) {
        let pool = self.pool.as_mut().expect("it does not flow yet");
        pool.years = true;
        self.flow();
    }

    /// Waits until so many more records have been sent.
    pub fn let_flow(&self, records: u64) {
        let flow = self.flow.as_ref().expect("it flows");
        let goal = flow.sent() + records;
        wait_for("records to be sent", PATIENCE, || flow.sent() >= goal);
    }

    /// The faults are over: lets all that was sent be read, and compares everything there is. The
    /// instances are those that are left; none may have panicked, leaked, or lost count.
    pub fn settle(&mut self, survivors: &mut [&mut Instance]) -> Tally {
        if let Some(flow) = self.flow.take() {
            self.pool = Some(flow.finish());
        }
        let tally = self.compare(survivors);
        for instance in &*survivors {
            assert_counts_add_up(instance);
        }
        self.assert_no_panic(survivors);
        tally
    }

    fn compare(&mut self, survivors: &mut [&mut Instance]) -> Tally {
        let it = &self.deployment;
        let duplicates = format!("{}_dups", it.input);
        // The program makes its topics itself.
        for topic in [&it.output, &duplicates, &it.journal()] {
            wait_for("the topics to be made", PATIENCE, || {
                it.kafka.partitions_of(topic) == usize::try_from(it.partitions).ok()
            });
        }
        let audit = self
            .audit
            .get_or_insert_with(|| Audit::new(&it.kafka, &it.input, self.window));
        audit.cover(it.partitions, &it.output, &duplicates);
        if let Some(pool) = &mut self.pool {
            pool.cover(it.partitions);
        }
        let (tally, last) = audit.read_input();
        let deadline = Instant::now() + PATIENCE;
        for (partition, last) in (0..).zip(&last) {
            let Some(last) = last else { continue };
            loop {
                let committed = it.kafka.committed(&it.group, &it.input, partition);
                if committed.is_some_and(|committed| committed > *last) {
                    break;
                }
                for instance in &mut *survivors {
                    assert!(!instance.has_ended(), "it ended:\n{}", instance.log_tail());
                }
                if Instant::now() > deadline {
                    let told: Vec<String> = survivors.iter().map(|it| describe(it)).collect();
                    panic!(
                        "{}-{partition} is not read to {last}: committed {committed:?}\n{}",
                        it.input,
                        told.join("\n")
                    );
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if let Err(difference) = audit.compare() {
            let told: Vec<String> = survivors.iter().map(|it| describe(it)).collect();
            if std::env::var_os("KAFKA_DEDUP_FAULTS_HOLD").is_some() {
                eprintln!(
                    "held for a look: {} on {}, {}\n{difference}",
                    it.input,
                    it.kafka.bootstrap(),
                    it.dir.path().display()
                );
                std::thread::sleep(Duration::from_secs(86_400));
            }
            panic!("seed {}: {difference}\n{}", self.seed, told.join("\n"));
        }
        for topic in [&it.output, &it.journal()] {
            for partition in 0..it.partitions {
                wait_for("all transactions to have ended", PATIENCE, || {
                    it.kafka.nothing_hangs(topic, partition)
                });
            }
        }
        tally
    }

    /// Logs of those that have ended are read for the last time.
    fn assert_no_panic(&self, survivors: &[&mut Instance]) {
        for entry in fs::read_dir(self.deployment.dir.path()).expect("the directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "log") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            assert!(!text.contains("panicked at"), "a panic:\n{text}");
            if survivors.iter().all(|survivor| survivor.log != path) {
                fs::rename(&path, path.with_extension("read")).expect("renamed");
            }
        }
    }
}

fn describe(instance: &Instance) -> String {
    let report = instance.get("/readyz?verbose");
    format!("{report:?}\n{}", instance.log_tail())
}

/// I2: every record that was received has one verdict, at any moment.
pub fn assert_counts_add_up(instance: &Instance) {
    let Some((_, text)) = instance.get("/metrics") else {
        panic!("no metrics:\n{}", instance.log_tail());
    };
    let sum = |name: &str| -> f64 {
        text.lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    let received = sum("kafka_dedup_records_received_total");
    let judged = sum("kafka_dedup_records_forwarded_total")
        + sum("kafka_dedup_records_duplicate_total")
        + sum("kafka_dedup_records_rejected_total")
        + sum("kafka_dedup_records_dropped_total");
    assert!(
        (received - judged).abs() < 0.5,
        "{received} received, {judged} judged\n{text}"
    );
}

/// What a process holds: memory and open files.
#[derive(Debug, Clone, Copy)]
pub struct Holdings {
    resident_kib: u64,
    handles: usize,
}

impl Holdings {
    pub fn of(instance: &Instance) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", instance.id()));
        let status = status.expect("procfs");
        let resident_kib = status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .expect("VmRSS");
        let handles = fs::read_dir(format!("/proc/{}/fd", instance.id()))
            .expect("procfs")
            .count();
        Self {
            resident_kib,
            handles,
        }
    }

    /// All that was taken for a fault has been given back, or is within a minute: clients that were
    /// replaced are taken apart beside the others.
    pub fn assert_given_back(self, instance: &Instance) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let now = Self::of(instance);
            if now.resident_kib <= self.resident_kib + MEMORY_SLACK_KIB
                && now.handles <= self.handles + HANDLES_SLACK
            {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "it held {self:?}, and holds {now:?}: {}",
                open_files(instance)
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The larger of both, each way.
    pub fn or(self, other: Self) -> Self {
        Self {
            resident_kib: self.resident_kib.max(other.resident_kib),
            handles: self.handles.max(other.handles),
        }
    }
}

/// The kinds of open files, and how many of each.
fn open_files(instance: &Instance) -> String {
    let listed = fs::read_dir(format!("/proc/{}/fd", instance.id())).expect("procfs");
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for target in listed
        .flatten()
        .filter_map(|it| fs::read_link(it.path()).ok())
    {
        let name = target.file_name().unwrap_or(target.as_os_str());
        let kind = name
            .to_string_lossy()
            .trim_end_matches(|c: char| !c.is_alphabetic())
            .to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    format!("{kinds:?}")
}
