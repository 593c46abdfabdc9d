//! What it costs to look: the status page and its live updates, asked of both listeners as a browser and Prometheus ask
//! them. CPU is that of the process without the thread that reads, so what HTTP and sockets take is in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_dedup::cli::logging::LogLevel;
use kafka_dedup::config;
use kafka_dedup::control::Control;
use kafka_dedup::http::admin::Admin;
use kafka_dedup::http::page::{History, Page, Problems, history};
use kafka_dedup::http::server::{self, Site};
use kafka_dedup::http::{Condition, Health, PartitionStatus, Status};
use kafka_dedup::metrics::{Metrics, Totals};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tracing_subscriber::layer::SubscriberExt;

use crate::measure::{Meter, Samples};
use crate::reader::{first_update, follow, whole};
use crate::results::{Case, Reach, Size};
use crate::scrape::{fill, topic};

/// What Prometheus is told most often, in seconds.
const SCRAPE_INTERVAL: f64 = 15.0;
const CONFIG: &str = r#"
kafka: {bootstrap_servers: "broker:9092", group_id: orders-dedup, instance_id: orders-dedup-0}
input: {topics: ["^orders-of-region-[0-9]+$"]}
id: {from: {header: message-id}}
http: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}
"#;

pub fn run(size: Size) {
    for partitions in size.pick(vec![8], vec![8, 200, 1_000]) {
        let served = Served::start(partitions);
        let scrape_ms = one_by_one(size, partitions, &served);
        over_time(size, partitions, &served, &scrape_ms);
        served.stop();
    }
}

/// What each answer takes. Gives that of a scrape in ms CPU.
fn one_by_one(size: Size, partitions: i32, served: &Served) -> Samples {
    let asked: [(&str, &dyn Fn() -> usize); 3] = [
        ("the page", &|| whole(served.admin, "/")),
        ("an update of it", &|| first_update(served.admin)),
        ("a scrape", &|| whole(served.public, "/metrics")),
    ];
    let (requests, rounds) = size.pick((2, 2), (50, 9));
    let mut samples: [Samples; 3] = Default::default();
    let mut bytes = [0; 3];
    for _ in 0..rounds {
        for (at, (_, ask)) in asked.iter().enumerate() {
            let meter = Meter::start();
            for _ in 0..requests {
                bytes[at] = ask();
            }
            samples[at].push(1000.0 * meter.cpu() / f64::from(requests));
        }
    }
    let mut case = Case::new(format!("{partitions} partitions"), "ms CPU");
    for (at, (name, _)) in asked.iter().enumerate() {
        let kilobytes = format!("{:.1} KiB", bytes[at] as f64 / 1024.0);
        case = case.side_with(name, samples[at].clone(), None, &kilobytes);
    }
    case.tell();
    let [_, _, scrape] = samples;
    scrape
}

/// What a reader takes who leaves the page open, and what is taken when there is none.
fn over_time(size: Size, partitions: i32, served: &Served, scrape_ms: &Samples) {
    // Two streams of updates, with one sample of the page's history at least.
    let span = size.pick(Duration::from_millis(300), Duration::from_millis(12_400));
    let (mut read, mut unread) = (Samples::default(), Samples::default());
    let mut updates = 0;
    for _ in 0..size.pick(1, 5) {
        let meter = Meter::start();
        let began = Instant::now();
        updates = follow(served.admin, || began.elapsed() < span);
        read.push(100.0 * meter.cpu() / began.elapsed().as_secs_f64());
        // Until the server has noticed that the reader is gone.
        std::thread::sleep(size.pick(Duration::ZERO, Duration::from_secs(3)));
        let meter = Meter::start();
        std::thread::sleep(span);
        unread.push(100.0 * meter.cpu() / span.as_secs_f64());
    }
    let scraped = scrape_ms.0.iter().map(|ms| ms / 10.0 / SCRAPE_INTERVAL);
    let reach = |most| (size == Size::Heavy).then_some(Reach::AtMost(most));
    let note = format!("{updates} updates in {span:?}");
    Case::new(format!("{partitions} partitions, over time"), "% of a core")
        .side_with("one live reader", read, reach(1.0), &note)
        .side_with("nobody reads", unread, reach(0.01), "")
        .side_with(
            "a scrape every 15 s",
            Samples(scraped.collect()),
            reach(1.0),
            "",
        )
        .tell();
}

/// Both listeners of a process that has all to show that it can.
struct Served {
    runtime: Runtime,
    public: SocketAddr,
    admin: SocketAddr,
    stop: watch::Sender<bool>,
}

impl Served {
    fn start(partitions: i32) -> Self {
        let config = config::from_str(CONFIG, "page.yaml", &BTreeMap::new()).expect("a config");
        // As the service has it.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let site = Site {
            metrics: Metrics::new(),
            health: Health::new(),
            status: Arc::new(Status::new("orders-dedup", "orders-dedup-0", config.mode)),
        };
        fill(&site.metrics, partitions);
        site.status.update(0, (0..partitions).map(row).collect());
        let ready = Condition::Ready(format!("{partitions} partitions"));
        site.health.set("worker-0", ready);
        let history = full_hour();
        runtime.spawn(history.clone().keep(Arc::clone(&site.metrics)));
        let control = Control::new(1, Arc::clone(&site.metrics), site.health.clone());
        let admin = Arc::new(Admin::new(
            &config,
            Arc::new(control),
            Arc::clone(&site.status),
            Arc::clone(&site.metrics),
            LogLevel::silent(),
        ));
        let page = Page::new(
            &config,
            site.clone(),
            Arc::clone(&admin),
            history,
            as_many_as_are_kept(),
        );
        let listeners = runtime
            .block_on(server::bind(&config.http))
            .expect("two ports");
        let (public, address) = (listeners.public_address, listeners.admin_address);
        let (stop, stopped) = watch::channel(false);
        runtime.spawn(server::serve(
            listeners,
            site,
            admin,
            Arc::new(page),
            stopped,
        ));
        Self {
            runtime,
            public,
            admin: address,
            stop,
        }
    }

    fn stop(self) {
        self.stop.send_replace(true);
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

fn row(number: i32) -> PartitionStatus {
    let (topic, partition) = topic(number);
    PartitionStatus {
        input: topic.clone(),
        topic,
        partition,
        state: "active",
        next_offset: Some(1_000_000_007),
        lag: Some(i64::from(number)),
        lag_seconds: Some(1.5),
        stream_time_ms: Some(1_700_000_000_123),
        coverage: Some(0.987_654_321),
        last_commit_ms: Some(1_700_000_000_456),
        ids: 12_345_678,
        slices: 9,
        restore_remaining: None,
    }
}

fn full_hour() -> History {
    let history = History::default();
    let now = Instant::now();
    for back in (0..=360_u32).rev() {
        let so_far = u64::from(360 - back) * 100_000;
        let totals = Totals {
            received: so_far,
            duplicates: so_far / 10,
            ..Totals::default()
        };
        let totals = (0..10).map(|number| (topic(number).0, totals));
        history.add(now - history::EVERY * back, totals.collect());
    }
    history
}

fn as_many_as_are_kept() -> Problems {
    let problems = Problems::default();
    let log = tracing_subscriber::registry().with(problems.clone());
    tracing::subscriber::with_default(log, || {
        for letter in 'a'..'u' {
            tracing::warn!(
                "topic {letter} is not read, as its partition count has changed; restart to read it again"
            );
        }
    });
    problems
}
