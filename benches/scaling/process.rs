//! All partitions of a large topic in one process: what it holds, and how long until it is ready.

use std::thread;
use std::time::{Duration, Instant};

use crate::audit;
use crate::cluster::{Broker, Progress};
use crate::group::{
    DEFAULTS, LOOK, PATIENCE, Setup, forget_store, group_on, mib, open_files, stop, threads,
};
use crate::kit::{Deployment, Instance, unique};
use crate::measure::{Samples, cpu_of_process, disk};
use crate::rebalance::is_right;
use crate::results::{Case, Size, ids};
use crate::shape::{Compression, Shape};
use crate::throughput::until;

const SCRAPES: usize = 5;

/// What an instance is found to hold.
struct Found {
    what: &'static str,
    /// From the start of the process until /readyz said so.
    ready_seconds: f64,
    cpu_seconds: f64,
    now_mib: f64,
    peak_mib: f64,
    open_files: usize,
    threads: usize,
    slices_on_disk: f64,
    store_mb: f64,
    scrape_ms: Samples,
    metrics_mb: f64,
}

type Figure = fn(&Found) -> f64;

const UNTIL_READY: (&str, Figure) = ("s until ready", |it| it.ready_seconds);
const CPU_SO_FAR: (&str, Figure) = ("s CPU until then", |it| it.cpu_seconds);
const HELD: [(&str, Figure); 8] = [
    ("MiB", |it| it.now_mib),
    ("MiB at its peak", |it| it.peak_mib),
    ("open files", |it| it.open_files as f64),
    ("threads", |it| it.threads as f64),
    ("slices on disk", |it| it.slices_on_disk),
    ("MB of store", |it| it.store_mb),
    ("ms a scrape", |it| it.scrape_ms.median()),
    ("MB a scrape", |it| it.metrics_mb),
];

/// False where an output was not what it is to be.
pub fn measure(broker: &Broker, partitions: i32, size: Size) -> bool {
    let shape = Shape {
        ids: size.pick(9_000, 900_000),
        value_bytes: 200,
        duplicates_percent: 10,
        partitions,
        compression: Compression::None,
    };
    // Few ids a partition cost no file, and a restart reads the journal. With smaller slices some of them are
    // on the disk, as they are by default of a partition that remembers more than about 18,000.
    let small = Setup {
        active_ids: size.pick(256, 8192),
        records_a_transaction: size.pick(1000, DEFAULTS.records_a_transaction),
        ..DEFAULTS
    };
    let defaults = of_setup(broker, &shape, DEFAULTS, "");
    let on_disk = of_setup(broker, &shape, small, ", small slices");
    defaults & on_disk
}

fn of_setup(broker: &Broker, shape: &Shape, setup: Setup, with: &str) -> bool {
    let (input, partitions) = (unique("input"), shape.partitions);
    broker
        .kafka
        .create_topic(&input, partitions, &[("retention.ms", "-1")]);
    let group = group_on(&broker.kafka, &input, partitions, setup);
    // Its own topics are made in the first start, and are there in the second.
    let mut first = start(&group);
    stop(&mut first.0);
    let (mut instance, ready) = start(&group);
    let mut starts = vec![look("nothing is remembered", &instance, ready)];

    let sent = shape.write_to(&broker.kafka, &input, crate::kit::now_ms());
    let progress = Progress::of(&broker.kafka, &group.group, &input, partitions);
    until(&progress, sent.records, std::slice::from_mut(&mut instance));
    // Slices are sealed beside, one after the other.
    wait_until_sealed(&instance);
    let judged = look("all of the input is judged", &instance, ready);
    stop(&mut instance);

    let (mut instance, ready) = start(&group);
    starts.push(look("started again, with its store", &instance, ready));
    stop(&mut instance);
    forget_store(&instance.store);
    let (mut instance, ready) = start(&group);
    starts.push(look("started again, without", &instance, ready));
    stop(&mut instance);

    let journal = broker.log_of(&group.journal());
    let verdict =
        audit::read(&broker.kafka, &group.output, partitions, sent.ids).check(sent.ids, &sent);
    broker.delete_all_but("");
    let case = format!("{partitions} partitions, {}{with}", ids(shape.ids));
    let of_a_start: Vec<_> = [UNTIL_READY, CPU_SO_FAR].into_iter().chain(HELD).collect();
    tell(&format!("{case}: starts"), &starts, &of_a_start);
    let case = format!("{case}: at work");
    tell(&case, &[judged], &HELD);
    Case::new(case, "bytes of the journal an id")
        .side(
            "all of the input is judged",
            Samples(vec![journal as f64 / sent.ids as f64]),
        )
        .tell();
    is_right(verdict)
}

/// An instance that is ready, and how long that took.
fn start(group: &Deployment) -> (Instance, f64) {
    let begun = Instant::now();
    let mut instance = group.start("one");
    while !instance.is_ready() {
        assert!(!instance.has_ended(), "it ended:\n{}", instance.log_tail());
        assert!(
            begun.elapsed() < PATIENCE,
            "not ready: {:?}\n{}",
            instance.get("/readyz?verbose"),
            instance.log_tail()
        );
        thread::sleep(LOOK);
    }
    (instance, begun.elapsed().as_secs_f64())
}

/// Waits until the number of slices on the disk stays the same.
fn wait_until_sealed(instance: &Instance) {
    let on_disk = || instance.metric("kafka_dedup_window_stored_slices");
    let begun = Instant::now();
    let mut before = on_disk();
    loop {
        // They are counted once a second.
        thread::sleep(Duration::from_secs(2));
        let now = on_disk();
        if now.to_bits() == before.to_bits() || begun.elapsed() > PATIENCE {
            return;
        }
        before = now;
    }
}

fn look(what: &'static str, instance: &Instance, ready_seconds: f64) -> Found {
    let pid = instance.id();
    let cpu_seconds = cpu_of_process(pid);
    let mut scrape_ms = Samples::default();
    let mut metrics_mb = 0.0;
    for _ in 0..SCRAPES {
        let begun = Instant::now();
        let (_, text) = instance.get("/metrics").expect("metrics");
        scrape_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        metrics_mb = text.len() as f64 / 1e6;
    }
    Found {
        what,
        ready_seconds,
        cpu_seconds,
        now_mib: mib(pid, "VmRSS"),
        peak_mib: mib(pid, "VmHWM"),
        open_files: open_files(pid),
        threads: threads(pid),
        slices_on_disk: instance.metric("kafka_dedup_window_stored_slices"),
        store_mb: disk(&instance.store) as f64 / 1e6,
        scrape_ms,
        metrics_mb,
    }
}

fn tell(case: &str, found: &[Found], figures: &[(&'static str, Figure)]) {
    for (unit, figure) in figures {
        let mut of_case = Case::new(case, unit);
        for found in found {
            of_case = of_case.side(found.what, Samples(vec![figure(found)]));
        }
        of_case.tell();
    }
}
