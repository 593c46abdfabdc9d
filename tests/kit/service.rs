//! A deployment of the program under test: its config, its instances as processes, and the
//! comparison of its output with what is expected of its input.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kafka_dedup::demo::ports::free_ports;
use tempfile::TempDir;

use super::{Kafka, Rec, broker, unique, wait_for};

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_kafka-dedup");

/// One deployment under test: an input topic, a group, a config.
pub struct Deployment {
    pub kafka: Kafka,
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
        Self::at(broker(), name, partitions, extra)
    }

    /// A deployment on a new topic of this cluster.
    pub fn at(kafka: &Kafka, name: &str, partitions: i32, extra: &str) -> Self {
        let input = unique(name);
        kafka.create_topic(&input, partitions, &[]);
        Self::of(kafka, input, partitions, extra)
    }

    /// A deployment on a topic of the shared broker that exists, or will.
    pub fn on(input: String, partitions: i32, extra: &str) -> Self {
        Self::of(broker(), input, partitions, extra)
    }

    /// A deployment on a topic of this cluster that exists, or will.
    pub fn of(kafka: &Kafka, input: String, partitions: i32, extra: &str) -> Self {
        Self {
            kafka: kafka.clone(),
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

    /// The topic between two hops.
    pub fn by_id(&self) -> String {
        format!("{}-{}-by-id", self.input, self.group)
    }

    fn config(&self, instance: &str, http: u16, admin: u16, store: &Path) -> PathBuf {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "kafka:\n  bootstrap_servers: {}\n  group_id: {}\n  instance_id: {instance}\n  properties: {}\n  consumer_properties: {}",
            self.kafka.bootstrap(),
            self.group,
            yaml_map(&self.kafka.properties),
            yaml_map(&self.consumer_properties)
        );
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

    /// The file of a config that no service runs with.
    pub fn config_file(&self) -> PathBuf {
        self.config("none", 1, 2, &self.dir.path().join("store-none"))
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
        let ports = free_ports(2).expect("free ports");
        let (http, admin) = (ports[0], ports[1]);
        let config = self.config(instance, http, admin, &store);
        let log = self.dir.path().join(format!("{instance}-{http}.log"));
        let file = fs::File::create(&log).expect("a log file");
        let points: Vec<String> = failpoints
            .iter()
            .map(|(point, action)| format!("{point}={action}"))
            .collect();
        keep_own_files(&mut command);
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
            admin,
            config,
            log,
            store,
        }
    }

    /// Waits until the group has committed all that the input holds now.
    pub fn wait_until_caught_up(&self, patience: Duration) {
        self.wait_until_read(&self.input, patience);
        if self.extra.contains("scope: repartition") {
            let (group, by_id) = (&self.group, self.by_id());
            let partitions = self.kafka.partitions_of(&by_id).expect("it was made");
            for partition in 0..i32::try_from(partitions).expect("small") {
                wait_for(&format!("{by_id}-{partition} to be read"), patience, || {
                    self.kafka.is_read(group, &by_id, partition)
                });
            }
        }
    }

    /// The same of one of several inputs.
    pub fn wait_until_read(&self, input: &str, patience: Duration) {
        for partition in 0..self.partitions {
            let Some((last, _)) = self.kafka.read_partition(input, partition).pop() else {
                continue;
            };
            wait_for(
                &format!("{input}-{partition} to be read to {last}"),
                patience,
                || {
                    self.kafka
                        .committed(&self.group, input, partition)
                        .is_some_and(|offset| offset > last)
                },
            );
        }
    }

    /// Compares the output with what `expected` makes of the input, partition by partition, record
    /// by record; and sees that no transaction hangs.
    pub fn assert_output(&self, mut expected: impl FnMut(i32, &[(i64, Rec)]) -> Vec<Rec>) {
        for partition in 0..self.partitions {
            let input = self.kafka.read_partition(&self.input, partition);
            let want = expected(partition, &input);
            let got: Vec<Rec> = self
                .kafka
                .read_partition(&self.output, partition)
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
    pub admin: u16,
    /// Its config.
    pub config: PathBuf,
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
        self.end();
    }

    /// Kills it, and waits for its end.
    pub fn end(&mut self) {
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

    /// What `http.listen` answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        fetch(self.http, path)
    }

    /// What `http.admin` answers.
    pub fn get_admin(&self, path: &str) -> Option<(u16, String)> {
        fetch(self.admin, path)
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
        self.try_metric(name).expect("metrics")
    }

    /// Like [`Instance::metric`]; `None` of a process that does not answer.
    pub fn try_metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Some(values.sum())
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

/// The service starts without the pipes of this process's Kafka clients, which librdkafka does not
/// close on exec: its open files are counted.
fn keep_own_files(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let close_on_exec = || {
        let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
        // SAFETY: a system call on plain numbers; it changes descriptors' flags alone.
        match unsafe { libc::close_range(3, libc::c_uint::MAX, flags) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call, and takes no memory and no lock.
    unsafe { command.pre_exec(close_on_exec) };
}

/// As YAML, of which JSON is a part.
fn yaml_map(entries: &[(String, String)]) -> serde_json::Value {
    let entries = entries.iter();
    entries
        .map(|(key, value)| (key.clone(), serde_json::Value::from(value.as_str())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Status and text of what a listener of this machine answers.
pub fn fetch(port: u16, path: &str) -> Option<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(5)))
        .build()
        .into();
    let mut response = agent
        .get(format!("http://127.0.0.1:{port}{path}"))
        .call()
        .ok()?;
    let status = response.status().as_u16();
    Some((status, response.body_mut().read_to_string().ok()?))
}
