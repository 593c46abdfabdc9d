//! What somebody who is woken at three has: the alerts that fired and the status page. Each case is staged on a real
//! broker, with a real Prometheus whose time goes sixty times as fast, and what page and alerts say of it is held against
//! what has to be said, and against docs/incidents.md.
//!
//! ```text
//! cargo test --features failpoints,broken --test staged                all of them at once, in three minutes or four
//! cargo test --features failpoints,broken --test staged -- twin        one of them
//! ```
//! Of each, `target/staged` has a picture of the page, and what was said as JSON.

#[allow(dead_code, reason = "it is another test's browser too")]
#[path = "../page/browser.rs"]
mod browser;
mod flow;
#[path = "../kit/mod.rs"]
mod kit;
mod prometheus;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_dedup::demo::broker::Cluster;
use libtest_mimic::{Arguments, Trial};
use regex::Regex;
use tempfile::TempDir;

use browser::Browser;
use flow::{Flow, order};
use kit::{BINARY, Deployment, Instance, Kafka, Rec, broker, fetch, now_ms, wait_for};
use prometheus::{Alert, Prometheus};

/// Until alerts fire and the page says what it has to: its own samples are half a minute apart.
const PATIENCE: Duration = Duration::from_secs(180);

fn main() {
    let mut arguments = Arguments::from_args();
    // They wait more than they work.
    arguments.test_threads = arguments.test_threads.or(Some(CASES.len()));
    let prometheus = Arc::new(Prometheus::start());
    let trials = CASES.iter().map(|&(name, stage)| {
        let prometheus = Arc::clone(&prometheus);
        Trial::test(name, move || {
            stage(&Scene {
                name,
                prometheus: &prometheus,
            });
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(prometheus);
    conclusion.exit();
}

type Case = (&'static str, fn(&Scene<'_>));

const CASES: &[Case] = &[
    ("nothing", nothing),
    ("broker", broker_is_down),
    ("header", another_header),
    ("window", window_too_short),
    ("disk", disk_is_full),
    ("twin", a_twin),
    ("hot", a_hot_partition),
    ("restore", a_restore),
    ("resend", all_is_sent_again),
    ("dashboard", the_dashboard),
];

/// A machine that stands still for two seconds has stood still for two minutes here.
const STALLS: &[&str] = &["KafkaDedupNotCommitting", "KafkaDedupLagGrowing"];

struct Scene<'a> {
    name: &'static str,
    prometheus: &'a Prometheus,
}

/// What has to be said.
struct Wanted<'a> {
    /// Alerts that tell it.
    alerts: &'a [&'a str],
    /// Alerts that may fire beside them, as they follow from it. No others may, but those of [`STALLS`].
    besides: &'a [&'a str],
    /// On the page, in this order.
    page: &'a [&'a str],
}

impl Scene<'_> {
    fn watch(&self, instances: &[&Instance]) {
        let ports: Vec<u16> = instances.iter().map(|it| it.http).collect();
        self.prometheus.watch(&self.job(), &ports);
    }

    fn job(&self) -> String {
        format!("kafka-dedup-{}", self.name)
    }

    /// Waits until it is said, on the page at this port too, and keeps what was.
    fn expect(&self, admin: u16, wanted: &Wanted<'_>) {
        let mut fired = BTreeMap::new();
        let mut says = String::new();
        let deadline = Instant::now() + PATIENCE;
        let mut missing = String::new();
        while Instant::now() < deadline {
            let firing = self.prometheus.firing(&self.job());
            // A process that is started again does not answer in between.
            if let Some((200, page)) = fetch(admin, "/") {
                says = words_of(&page);
            }
            missing = wanted.lacks(&firing, &says);
            fired.extend(firing);
            if missing.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        self.keep(admin, wanted, &fired, &says);
        assert!(
            missing.is_empty(),
            "{}: {missing}\nfired {fired:#?}\nthe page: {says}",
            self.name
        );
        let lists = [wanted.alerts, wanted.besides, STALLS];
        for (name, alert) in &fired {
            assert!(
                lists.concat().contains(&name.as_str()),
                "{}: {name} leads elsewhere: {alert:?}",
                self.name
            );
        }
        let docs = fs::read_to_string(root().join("docs/incidents.md")).expect("docs");
        let of_case = docs
            .split("\n## ")
            .find(|it| it.contains(&format!("staged-{}.png", self.name)));
        let of_case = of_case.unwrap_or_else(|| panic!("docs/incidents.md has no {}", self.name));
        for name in wanted.alerts {
            assert!(
                of_case.contains(name),
                "docs/incidents.md does not say {name} of {}",
                self.name
            );
        }
    }

    fn keep(&self, admin: u16, wanted: &Wanted<'_>, fired: &BTreeMap<String, Alert>, says: &str) {
        let dir = root().join("target/staged");
        fs::create_dir_all(&dir).expect("a directory");
        let told = serde_json::json!({"alerts": fired, "page": says});
        let told = serde_json::to_string_pretty(&told).expect("JSON");
        fs::write(dir.join(format!("{}.json", self.name)), told).expect("written");
        if !browser::is_here() {
            return;
        }
        let browser = Browser::open(true);
        browser.look(1100, 800, "light");
        let url = format!("http://127.0.0.1:{admin}/");
        // What has said so may be starting again at this moment.
        wait_for("the page to show it", PATIENCE, || {
            browser.goes(&url) && wanted.page_lacks(&browser.text("main")).is_empty()
        });
        let picture = |name: &str, png: Vec<u8>| fs::write(dir.join(name), png).expect("written");
        picture(&format!("{}.png", self.name), browser.picture());
        // For docs/incidents.md.
        picture(
            &format!("staged-{}.png", self.name),
            browser.top(1100, 900, 0.7),
        );
    }
}

impl Wanted<'_> {
    /// What is not said yet, in words.
    fn lacks(&self, firing: &BTreeMap<String, Alert>, says: &str) -> String {
        for name in self.alerts {
            if !firing.contains_key(*name) {
                return format!("{name} does not fire");
            }
        }
        self.page_lacks(says)
    }

    fn page_lacks(&self, says: &str) -> String {
        let mut rest = says;
        for words in self.page {
            match rest.split_once(words) {
                Some((_, after)) => rest = after,
                None => return format!("the page does not say {words:?}"),
            }
        }
        String::new()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a reader sees of it, as lines.
fn words_of(page: &str) -> String {
    let body = page.split_once("<main>").map_or(page, |(_, body)| body);
    let text = Regex::new("<[^>]*>")
        .expect("sound")
        .replace_all(body, "\n");
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&");
    // What belongs to one sentence is on one line again, as bold words and links are in between.
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// Transactions as small as what flows here.
const SMALL: &str = "transaction: {interval: 50ms, timeout: 10s}\n";

fn on_shared(scene: &Scene<'_>, partitions: i32, extra: &str) -> Deployment {
    let topic = format!("orders-{}", scene.name);
    broker().create_topic(&topic, partitions, &[]);
    Deployment::on(topic, partitions, extra)
}

fn nothing(scene: &Scene<'_>) {
    let it = on_shared(scene, 3, SMALL);
    let mut instance = it.start("orders-0");
    let _flow = Flow::of_orders(&it.kafka, &it.input, 3, 40);
    instance.wait_until_ready();
    scene.watch(&[&instance]);
    // As long as the slowest alert takes, and an hour there.
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        for (name, alert) in scene.prometheus.firing(&scene.job()) {
            assert!(STALLS.contains(&name.as_str()), "{name}: {alert:?}");
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    scene.expect(
        instance.admin,
        &Wanted {
            alerts: &[],
            besides: &[],
            page: &[
                "Ready.",
                "3 partitions",
                "What stands out",
                "Nothing, of records and partitions",
            ],
        },
    );
}

fn broker_is_down(scene: &Scene<'_>) {
    let dir = TempDir::new().expect("a directory");
    let mut cluster = Cluster::start(1, dir.path()).expect("a broker");
    let kafka = Kafka::at(cluster.bootstrap());
    kafka.create_topic("orders-broker", 3, &[]);
    let mut it = Deployment::of(&kafka, "orders-broker".to_owned(), 3, SMALL);
    // As often within a second here as within a minute there.
    it.consumer_properties
        .push(("reconnect.backoff.max.ms".to_owned(), "200".to_owned()));
    let mut instance = it.start("orders-0");
    let _flow = Flow::of_orders(&kafka, &it.input, 3, 40);
    instance.wait_until_ready();
    scene.watch(&[&instance]);
    std::thread::sleep(Duration::from_secs(10));
    cluster.kill(0);
    scene.expect(
        instance.admin,
        &Wanted {
            alerts: &["KafkaDedupBrokersUnreachable"],
            besides: &[
                "KafkaDedupNoPartitions",
                "KafkaDedupPartitionsLost",
                "KafkaDedupProducerRebuildLoop",
                // Until they are lost they wait for an attempt at the transactional id: ten seconds, ten minutes here.
                "KafkaDedupRestoreStuck",
                "KafkaDedupTransactionsAborting",
            ],
            page: &["Not ready.", "no broker can be reached", "What stands out"],
        },
    );
}

fn another_header(scene: &Scene<'_>) {
    let it = on_shared(
        scene,
        3,
        &format!("{SMALL}id: {{from: {{header: event-id}}}}\n"),
    );
    let mut instance = it.start("orders-0");
    let _flow = Flow::of_orders(&it.kafka, &it.input, 3, 40);
    instance.wait_until_ready();
    scene.watch(&[&instance]);
    scene.expect(
        instance.admin,
        &Wanted {
            alerts: &["KafkaDedupRecordsWithoutId"],
            besides: &[],
            page: &[
                "Ready.",
                "100.0 % of the records of orders-header have no id where id.from looks for it (header event-id)",
                "id.missing: forward",
            ],
        },
    );
}

fn window_too_short(scene: &Scene<'_>) {
    let it = on_shared(scene, 2, &format!("{SMALL}window: {{time: 10s}}\n"));
    let mut instance = it.start("orders-0");
    // One in five comes again, after up to 15 s.
    let flow = Flow::start(&it.kafka, &it.input, |tick| {
        let numbers = 10 * tick..10 * tick + 10;
        let order = |number: u64| match number.is_multiple_of(5) {
            // Even, so that it stays in its partition.
            true => order(number.saturating_sub(2 * (1 + number * 7 % 1500)), 2),
            false => order(number, 2),
        };
        numbers.map(order).collect()
    });
    instance.wait_until_ready();
    scene.watch(&[&instance]);
    scene.expect(
        instance.admin,
        &Wanted {
            alerts: &["KafkaDedupWindowTooShort"],
            besides: &[],
            page: &[
                "Ready.",
                "The window (10s) is too short for orders-window",
                "were forwarded once more",
            ],
        },
    );
    drop(flow);
}

fn disk_is_full(scene: &Scene<'_>) {
    let it = on_shared(scene, 3, SMALL);
    let store = it.dir.path().join("store");
    fs::create_dir(&store).expect("a directory");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4M", "tmpfs"])
        .arg(&store)
        .status();
    if !mounted.is_ok_and(|it| it.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "no file system can be mounted"
        );
        eprintln!("disk: not staged, as no file system can be mounted here (that takes root)");
        return;
    }
    let _unmounted = Unmount(&store);
    let mut instance = it.start_on("orders-0", store.clone(), &[], Command::new(BINARY));
    let _flow = Flow::of_orders(&it.kafka, &it.input, 3, 40);
    instance.wait_until_ready();
    scene.watch(&[&instance]);
    std::thread::sleep(Duration::from_secs(5));
    let ballast = fs::File::create(store.join("something-else")).expect("a file");
    let filled = std::io::copy(&mut std::io::repeat(0), &mut { ballast });
    filled.expect_err("it is full");
    scene.expect(
        instance.admin,
        &Wanted {
            alerts: &["KafkaDedupStoreDegraded"],
            besides: &[],
            page: &[
                "Ready, and somebody should look.",
                "store:",
                "No space left on device",
            ],
        },
    );
    let _ = instance.terminate();
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// As Kubernetes does: what has ended is started again.
struct Kept {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Kept {
    fn running(mut instance: Instance) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut again: Option<Child> = None;
            while !stopped.load(Ordering::Relaxed) {
                let has_ended = match &mut again {
                    None => instance.has_ended(),
                    Some(child) => child.try_wait().expect("its state").is_some(),
                };
                if has_ended {
                    std::thread::sleep(Duration::from_millis(500));
                    let log = fs::OpenOptions::new()
                        .append(true)
                        .open(&instance.log)
                        .expect("a log");
                    let started = Command::new(BINARY)
                        .args(["run", "-c"])
                        .arg(&instance.config)
                        .stdout(Stdio::null())
                        .stderr(log)
                        .spawn();
                    again = Some(started.expect("it starts"));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            if let Some(mut child) = again {
                let _ = child.kill();
                let _ = child.wait();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn a_twin(scene: &Scene<'_>) {
    let it = on_shared(scene, 4, SMALL);
    let _flow = Flow::of_orders(&it.kafka, &it.input, 4, 40);
    let mut one = it.start("orders-0");
    one.wait_until_ready();
    // Two pods, two volumes, and one name.
    let other = it.dir.path().join("store-other");
    let other = it.start_on("orders-0", other, &[], Command::new(BINARY));
    scene.watch(&[&one, &other]);
    let admin = one.admin;
    let _kept = (Kept::running(one), Kept::running(other));
    scene.expect(
        admin,
        &Wanted {
            alerts: &["KafkaDedupProducerRebuildLoop", "KafkaDedupRestarting"],
            besides: &[
                "KafkaDedupNoPartitions",
                "KafkaDedupPartitionsLost",
                "KafkaDedupTargetDown",
                "KafkaDedupTransactionsAborting",
            ],
            page: &[
                "Ready, and somebody should look.",
                "producer: fenced",
                "another process uses the instance id orders-0",
            ],
        },
    );
}

fn a_hot_partition(scene: &Scene<'_>) {
    // Of 20 records each, so that one worker has its fill.
    let it = on_shared(
        scene,
        4,
        "transaction: {interval: 50ms, records: 20, timeout: 10s}\n",
    );
    let mut instance = it.start("orders-0");
    let _flow = Flow::of_orders(&it.kafka, &it.input, 4, 40);
    let hot: Vec<Rec> = (0..200_000)
        .map(|it| Rec::with_id(format!("hot-{it}"), now_ms()))
        .collect();
    instance.wait_until_ready();
    scene.watch(&[&instance]);
    it.kafka.produce(&it.input, 1, &hot);
    scene.expect(
        instance.admin,
        &Wanted {
            alerts: &["KafkaDedupHotPartition"],
            besides: &[],
            page: &[
                "Ready.",
                "orders-hot-1 holds",
                "one of 4 partitions here: a hot partition",
            ],
        },
    );
}

fn a_restore(scene: &Scene<'_>) {
    let it = on_shared(
        scene,
        3,
        "transaction: {interval: 50ms, records: 100, timeout: 10s}\n",
    );
    for partition in 0..3 {
        let orders = |it| order(u64::try_from(it).expect("small"), 3).1;
        let all: Vec<Rec> = (0..20_000).map(orders).collect();
        it.kafka.produce(&it.input, partition, &all);
    }
    let mut instance = it.start("orders-0");
    it.wait_until_caught_up(PATIENCE);
    assert!(instance.terminate().success());
    fs::remove_dir_all(&instance.store).expect("its store");
    // 600 runs, for a minute.
    let slow = [("restore-read", "sleep(100)")];
    let instance = it.start_with("orders-0", &slow);
    scene.watch(&[&instance]);
    // As long as the slowest alert about it takes.
    std::thread::sleep(Duration::from_secs(20));
    scene.expect(
        instance.admin,
        &Wanted {
            alerts: &[],
            besides: &[],
            page: &[
                "Not ready.",
                "restored",
                "journal offsets to go. They are not read meanwhile.",
            ],
        },
    );
}

fn all_is_sent_again(scene: &Scene<'_>) {
    let it = on_shared(scene, 3, SMALL);
    let mut instance = it.start("orders-0");
    let usual = Flow::of_orders(&it.kafka, &it.input, 3, 40);
    instance.wait_until_ready();
    scene.watch(&[&instance]);
    // What is usual is known of an hour before.
    std::thread::sleep(Duration::from_secs(90));
    let _again = Flow::start(&it.kafka, &it.input, |tick| {
        (100 * tick..100 * tick + 100)
            .map(|it| order(it % 10_000, 3))
            .collect()
    });
    scene.expect(
        instance.admin,
        &Wanted {
            alerts: &["KafkaDedupDuplicatesUp"],
            besides: &[],
            page: &[
                "Ready.",
                "of the records of orders-resend are duplicates",
                "Somebody sends again what was sent before",
            ],
        },
    );
    drop(usual);
}

/// Every query of the dashboard finds something to show of a service that works.
fn the_dashboard(scene: &Scene<'_>) {
    let it = on_shared(
        scene,
        3,
        &format!("{SMALL}window: {{time: 24h, ids: 1000000}}\n"),
    );
    let mut instance = it.start("orders-0");
    let _flow = Flow::of_orders(&it.kafka, &it.input, 3, 40);
    instance.wait_until_ready();
    scene.watch(&[&instance]);
    let text =
        fs::read_to_string(root().join("deploy/grafana/kafka-dedup.json")).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| Some((panel["title"].as_str()?, panel["targets"].as_array()?)));
    let queries: Vec<(&str, String)> = targets
        .flat_map(|(title, targets)| targets.iter().map(move |target| (title, target)))
        .map(|(title, target)| {
            let query = target["expr"]
                .as_str()
                .expect("a query")
                .replace("$__rate_interval", "5s");
            let query = query
                .replace("$job", &scene.job())
                .replace("$instance", ".*");
            (title, query.replace("$topic", ".*"))
        })
        .collect();
    assert!(queries.len() > 70 && queries.iter().all(|(_, query)| !query.contains('$')));
    let mut empty = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        empty = queries
            .iter()
            .filter(|(_, query)| scene.prometheus.series(query).expect("an answer") == 0)
            .map(|(title, query)| format!("{title}: {query}"))
            .filter(|it| !NOT_SHOWN.iter().any(|name| it.contains(name)))
            .collect();
        if empty.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(empty.is_empty(), "nothing to show: {empty:#?}");
    let (_, scrape) = instance.get("/metrics").expect("an answer");
    let lint = scene.prometheus.lint(&scrape);
    assert!(lint.is_empty(), "{lint}");
}

/// Queries that find nothing where nothing of the kind has happened: an order, an error, a restore.
const NOT_SHOWN: &[&str] = &[
    "kafka_dedup_partition_active{job=~\"kafka-dedup-dashboard\", instance=~\".*\", topic=~\".*\"} == 0",
    "kafka_dedup_admin_requests_total",
    "kafka_dedup_client_errors_total",
];
