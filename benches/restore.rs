//! A cold start: the store is gone, and the seen set is rebuilt from the journal on a real broker. The
//! real service is started and timed until it says that it is ready.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kafka_dedup::demo::broker::Cluster;
use kafka_dedup::demo::ports::free_ports;
use kafka_dedup::demo::process;
use kafka_dedup::identify::deployment_seed;
use kafka_dedup::journal::{Identity, MAX_IDS_PER_RUN, Run};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::measure::{Samples, cpu_of_process};
use crate::results::{Case, OURS, Reach, Size, allowed, ids, scratch};
use crate::stream::{WINDOW_MS, fingerprint, id};

const INPUT: &str = "bench";
const GROUP: &str = "bench-group";
const JOURNAL: &str = "bench-bench-group-seen";
const PATIENCE: Duration = Duration::from_secs(300);

type Client = ThreadedProducer<DefaultProducerContext>;

pub fn run(size: Size) {
    let count = allowed(size.pick(100_000, 20_000_000));
    let dir = scratch();
    let cluster = Cluster::start(1, dir.path()).expect("a Kafka broker");
    let bootstrap = cluster.bootstrap();
    create_input(&bootstrap);
    let producer: Client = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .create()
        .expect("a producer");
    let begins_ms = now_ms() - WINDOW_MS / 2;
    send(
        &producer,
        BaseRecord::to(INPUT)
            .partition(0)
            .key("key")
            .payload("value")
            .timestamp(begins_ms)
            .headers(OwnedHeaders::new().insert(Header {
                key: "message-id",
                value: Some("the first"),
            })),
    );
    producer.flush(PATIENCE).expect("delivered");
    // It makes its topics, lets one id through, and commits: what follows continues its journal.
    let service = Service::start(dir.path(), &bootstrap);
    service.wait_for("ids", |service| service.ids() >= 1);
    service.stop();

    let seed = deployment_seed(GROUP);
    for first in (0..count).step_by(MAX_IDS_PER_RUN) {
        let numbers = first..count.min(first + MAX_IDS_PER_RUN as u64);
        let time_ms = |number: u64| {
            let passed = u128::from(number) * (WINDOW_MS / 2) as u128 / u128::from(count);
            begins_ms + i64::try_from(passed).expect("a time")
        };
        let run = Run {
            identity: Identity::of(seed, INPUT, None, 0).own,
            stream_time_ms: Some(time_ms(numbers.end)),
            next_offset: 1,
            first_ordinal: 1 + first,
            fingerprints: numbers.clone().map(|n| fingerprint(&id(n))).collect(),
            times_ms: numbers.clone().map(time_ms).collect(),
            offsets: numbers.map(|number| number.cast_signed()).collect(),
            ..Run::default()
        };
        for bytes in run.encode(MAX_IDS_PER_RUN) {
            send(
                &producer,
                BaseRecord::<[u8], [u8]>::to(JOURNAL)
                    .partition(0)
                    .payload(&bytes),
            );
        }
    }
    producer.flush(PATIENCE).expect("delivered");

    let (mut restored, mut ready, mut cpu) = <(Samples, Samples, Samples)>::default();
    for _ in 0..size.pick(1, 3) {
        // A store from before would make it a warm start.
        let _ = fs::remove_dir_all(dir.path().join("store"));
        let started = Instant::now();
        let service = Service::start(dir.path(), &bootstrap);
        service.wait_for("readiness", Service::is_ready);
        ready.push(count as f64 / started.elapsed().as_secs_f64());
        let (found, seconds) = service.restored();
        assert_eq!(found, count + 1, "ids of the journal, and the first");
        restored.push(count as f64 / seconds);
        cpu.push(cpu_of_process(service.child.id()) * 1e9 / count as f64);
        service.stop();
    }
    let heavy = size == Size::Heavy;
    Case::new(format!("{} restored", ids(count)), "ids/s")
        .side_with(
            OURS,
            restored,
            heavy.then_some(Reach::AtLeast(2_000_000.0)),
            "as its log says",
        )
        .side_with(
            "from start to ready",
            ready,
            None,
            "with the group's rebalance",
        )
        .tell();
    Case::new(format!("{}, CPU", ids(count)), "ns CPU an id")
        .side_with(OURS, cpu, None, "from start until ready")
        .tell();
    cluster.stop();
}

fn create_input(bootstrap: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .expect("an admin client");
    // The first record is half a day old.
    let topic = NewTopic::new(INPUT, 1, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let outcome = futures_executor::block_on(admin.create_topics([&topic], &AdminOptions::new()))
        .expect("an answer");
    outcome
        .into_iter()
        .for_each(|topic| drop(topic.expect("the topic")));
}

fn send<K, P>(producer: &Client, record: BaseRecord<'_, K, P>)
where
    K: rdkafka::message::ToBytes + ?Sized,
    P: rdkafka::message::ToBytes + ?Sized,
{
    let mut record = record;
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((error, back))
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
            {
                record = back;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((error, _)) => panic!("not sent: {error}"),
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("a clock").as_millis()).expect("a date")
}

struct Service {
    child: Child,
    http: String,
    log: std::path::PathBuf,
}

impl Service {
    fn start(dir: &Path, bootstrap: &str) -> Self {
        let ports = free_ports(2).expect("free ports");
        let [http, admin] = [0, 1].map(|which| format!("127.0.0.1:{}", ports[which]));
        let store = dir.join("store");
        let mut yaml = String::new();
        let _ = writeln!(
            yaml,
            "kafka:\n  bootstrap_servers: {bootstrap}\n  group_id: {GROUP}\n  instance_id: bench"
        );
        let _ = writeln!(yaml, "input: {{topics: [{INPUT}]}}");
        let _ = writeln!(yaml, "id: {{from: {{header: message-id}}}}");
        let _ = writeln!(yaml, "window: {{time: 24h}}");
        let _ = writeln!(yaml, "store: {{path: {}}}", store.display());
        let _ = writeln!(yaml, "http: {{listen: \"{http}\", admin: \"{admin}\"}}");
        let config = dir.join("bench.yaml");
        fs::write(&config, yaml).expect("the config is written");
        let log = dir.join(format!("service-{}.log", ports[0]));
        let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-dedup"));
        command
            .args(["run", "-c"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a log"));
        let child = process::spawn(command).expect("the service starts");
        Self { child, http, log }
    }

    fn wait_for(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !reached(self) {
            assert!(
                Instant::now() < deadline,
                "waited for {what}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .into();
        let mut response = agent
            .get(format!("http://{}{path}", self.http))
            .call()
            .ok()?;
        let status = response.status().as_u16();
        Some((status, response.body_mut().read_to_string().ok()?))
    }

    fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|(status, _)| status == 200)
    }

    /// Ids that its window holds.
    fn ids(&self) -> u64 {
        let text = self.get("/metrics").map_or(String::new(), |(_, text)| text);
        text.lines()
            .filter(|line| line.starts_with("kafka_dedup_window_ids"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64
    }

    /// Ids of the seen set when it was handed over, and the seconds that took, as its log says.
    fn restored(&self) -> (u64, f64) {
        let log = self.log();
        let field = |name: &str| -> Option<u64> {
            let line = log
                .lines()
                .find(|line| line.contains("seen set is up to date"))?;
            let value = line.split(name).nth(1)?;
            value.split_whitespace().next()?.parse().ok()
        };
        match (field(" ids="), field(" millis=")) {
            (Some(ids), Some(millis)) => (ids, millis as f64 / 1000.0),
            _ => panic!("no restore in the log:\n{log}"),
        }
    }

    fn stop(mut self) {
        process::ask_to_end(&mut self.child);
        let ended = process::wait_until(&mut self.child, Instant::now() + Duration::from_secs(60));
        if !matches!(ended, Ok(Some(_))) {
            process::kill(&mut self.child);
            panic!("it did not end:\n{}", self.log());
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        process::kill(&mut self.child);
    }
}
