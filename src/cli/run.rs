//! `run`: read the config, say what will be done, bind the listeners, start the workers, wait for
//! their end. From top to bottom that is the life of the process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::cli::logging;
use crate::cli::signals::Signals;
use crate::cli::supervisor::{LEAVE_TIMEOUT, LOOK, supervise};
use crate::cli::watchdog::Watchdog;
use crate::config::{Changed, Config, Missing, Mode, SideTopic, TopicPattern, environment, load};
use crate::control::Control;
use crate::exit::Stop;
use crate::http::admin::Admin;
use crate::http::health::{Condition, Health, worker_component};
use crate::http::page::{History, Page, Problems};
use crate::http::server::{self, Site};
use crate::http::status::Status;
use crate::journal::Terms;
use crate::metrics::Metrics;
use crate::schemas::Schemas;
use crate::store::Store;
use crate::worker::{self, Pulse, Sentinels, Shared};

/// How long answers that are under way may hold up the end.
const HTTP_END_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a worker may stay at one step, beyond two transaction time-outs.
const STEP_LIMIT: Duration = Duration::from_secs(300);

const NOTES: &str = "\
It stops with SIGTERM or Ctrl-C: what is open is committed, and partitions are given back. A second
signal ends it at once; nothing is lost then, and the next start ends the open transaction. It logs to
standard error (log.level, log.format), and says at http.listen how it is: /readyz?verbose, /metrics.

Examples:
  kafka-dedup run -c dedup.yaml
  KAFKA_DEDUP__LOG__FORMAT=json kafka-dedup run -c dedup.yaml

Exit status: 0 stopped when asked, 64 bad usage or config, 69 Kafka unreachable at start, 70 defect,
75 a restart helps, 78 the environment contradicts the config.";

/// `kafka-dedup run`
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct RunArgs {
    /// Configuration file (YAML)
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs the service until it is told to stop.
///
/// # Errors
/// Whatever ends the process; see [`crate::exit::Status`].
pub fn run(file: &Path) -> Result<(), Stop> {
    let config = Arc::new(load(file, environment())?);
    let problems = Problems::default();
    let level = logging::start(&config.log, problems.clone())?;
    announce(&config, file);

    let runtime = start_runtime()?;
    let inside = runtime.enter();
    let shutdown = Arc::new(AtomicBool::new(false));
    let metrics = Metrics::new();
    metrics.set_mode(config.mode);
    metrics.set_window(&config.window);
    let site = Site {
        metrics,
        health: Health::new(),
        status: Arc::new(Status::new(
            &config.kafka.group_id,
            &config.kafka.instance_id,
            config.mode,
        )),
    };
    runtime.spawn(Signals::catch()?.obey(Arc::clone(&shutdown), site.health.clone()));

    let listeners = runtime.block_on(server::bind(&config.http))?;
    let (stop_http, http_stopped) = watch::channel(false);
    let control = Arc::new(Control::new(
        config.workers,
        Arc::clone(&site.metrics),
        site.health.clone(),
    ));
    let admin = Arc::new(Admin::new(
        &config,
        Arc::clone(&control),
        Arc::clone(&site.status),
        Arc::clone(&site.metrics),
        level,
    ));
    let history = History::default();
    runtime.spawn(history.clone().keep(Arc::clone(&site.metrics)));
    let page = Page::new(&config, site.clone(), Arc::clone(&admin), history, problems);
    let http = server::serve(listeners, site.clone(), admin, Arc::new(page), http_stopped);
    let http = runtime.spawn(http);

    let store = Store::open(
        &config.store.path,
        config.store.memory_bytes,
        Arc::clone(&site.metrics),
        site.health.clone(),
    )?;
    let schemas = Schemas::start(&config, Some(Arc::clone(&site.metrics)))?;
    store.hold_under(Terms::from(&*config));
    let pulses = (0..config.workers).map(|_| Pulse::default()).collect();
    let shared = Shared {
        store,
        schemas,
        pulses,
        metrics: site.metrics,
        health: site.health,
        status: site.status,
        shutdown: Arc::clone(&shutdown),
        runtime: runtime.handle().clone(),
        sentinels: Arc::new(Sentinels::default()),
        control,
    };
    let result = run_workers(&config, &shared);

    // Probes are answered until the workers have left, so that the end can be watched.
    stop_http.send_replace(true);
    let _ = runtime.block_on(async { tokio::time::timeout(HTTP_END_TIMEOUT, http).await });
    drop(inside);
    runtime.shutdown_background();
    if result.is_ok() {
        tracing::info!("all workers have committed and left");
    }
    result
}

fn run_workers(config: &Arc<Config>, shared: &Shared) -> Result<(), Stop> {
    // All before the first: the latch must not open before the last worker has spoken.
    for index in 0..config.workers {
        let starting = Condition::NotReady("starting".to_owned());
        shared.health.set(&worker_component(index), starting);
    }
    let (ended, worker_ended) = mpsc::channel();
    let workers = (0..config.workers)
        .map(|index| worker::spawn(index, Arc::clone(config), shared.clone(), ended.clone()))
        .collect();
    drop(ended);
    // A step waits for a transaction and its abort at most; the rest is room for slow brokers and disks.
    let limit = 2 * config.transaction.timeout + step_limit();
    let watchdog = Watchdog::new(Arc::clone(&shared.pulses), LOOK, limit);
    let shutdown = &shared.shutdown;
    supervise(workers, &worker_ended, shutdown, LEAVE_TIMEOUT, watchdog)
}

fn step_limit() -> Duration {
    fail::fail_point!("step-limit", |_| Duration::from_secs(3));
    STEP_LIMIT
}

/// Two threads: HTTP and signals need no more, the records run on the workers' own.
fn start_runtime() -> Result<Runtime, Stop> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|error| Stop::internal(format!("the HTTP threads cannot be started: {error}")))
}

/// What this process is about to do: a sentence, with all that it follows from as fields; and a line of its
/// own for each thing that is unusual. No secret is in them.
fn announce(config: &Config, file: &Path) {
    let (_, client) = rdkafka::util::get_rdkafka_version();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        librdkafka = client,
        file = %file.display(),
        bootstrap_servers = config.kafka.bootstrap_servers,
        instance = config.kafka.instance_id,
        static_membership = config.kafka.static_membership,
        start = ?config.input.start,
        missing_id = ?config.id.missing,
        schemas = config.schemas.as_ref().map(|it| it.registry.as_str()),
        refresh = config.window.refresh,
        duplicates = side_topic(&config.duplicates),
        rejected = side_topic(&config.rejected),
        journal = config.journal.topic.0,
        store = %config.store.path.display(),
        workers = config.workers,
        transaction = %humantime::format_duration(config.transaction.interval),
        listen = %config.http.listen,
        admin = %config.http.admin,
        "kafka-dedup starts: {} -> {}, group {}, mode {}, ids from {}, window {}, scope {}",
        inputs(&config.input.topics),
        config.output.topic.0,
        config.kafka.group_id,
        config.mode.as_str(),
        config.id.from,
        config.window,
        config.scope.as_str(),
    );
    for unusual in unusual(config) {
        tracing::warn!("{unusual}");
    }
}

/// What a person who did not write the file would not expect.
fn unusual(config: &Config) -> Vec<&'static str> {
    let mut all = Vec::new();
    match config.mode {
        Mode::Filter => {}
        Mode::Mark => all.push(
            "mode is mark: duplicates are left in the output, with headers that say so. That is what the file asks for",
        ),
        Mode::Observe => all.push(
            "mode is observe: nothing is written to the output, verdicts are only counted. That is what the file asks for",
        ),
    }
    if config.id.missing == Missing::Drop {
        all.push(
            "id.missing is drop: records without an id are discarded, and counted. That is what the file asks for",
        );
    }
    if config.id.changed != Changed::Refuse {
        all.push(
            "id.changed is set: where id.from is another than before, the service starts all the same. Take it out when it has",
        );
    }
    if cfg!(any(feature = "failpoints", feature = "broken")) {
        all.push("this is a build for tests: it can be told to fail. Do not use it for records that matter");
    }
    all
}

fn inputs(topics: &[TopicPattern]) -> String {
    let name = |topic: &TopicPattern| match topic {
        TopicPattern::Name(name) => name.clone(),
        TopicPattern::Regex(regex) => regex.as_str().to_owned(),
    };
    topics.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn side_topic(side: &SideTopic) -> &str {
    side.topic
        .as_ref()
        .map_or("(only counted)", |topic| &topic.0)
}
