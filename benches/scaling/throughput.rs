//! What a record costs, by partitions and by instances that share them. The input is complete before
//! any instance reads: all are paused until the group has shared the partitions out. Time and CPU
//! count from the first commit that a bystander sees until all of the input is committed.

use std::thread;
use std::time::{Duration, Instant};

use crate::audit;
use crate::cluster::{Broker, Progress};
use crate::group::{
    DEFAULTS, PATIENCE, Setup, group_on, mib, resume, start_paused, stop, wait_until_shared,
};
use crate::kit::{Instance, unique};
use crate::measure::{Samples, cpu_of_process};
use crate::results::{self, Case, OURS, Reach, Size};
use crate::shape::{Compression, Sent, Shape};

/// How often a bystander looks at what is committed: a look asks for all partitions.
const LOOK: Duration = Duration::from_millis(50);
/// A group that commits nothing for so long is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// What a record of a thousand partitions may cost, beside one of a single partition.
const REACH: Reach = Reach::AtMost(1.3);

/// How the workers are spread over processes.
#[derive(Debug, Clone, Copy)]
struct Fleet {
    instances: usize,
    workers: usize,
}

impl Fleet {
    fn name(self) -> String {
        match (self.instances, self.workers) {
            (1, 1) => "1 instance".to_owned(),
            (1, workers) => format!("1 instance, {workers} workers"),
            (instances, _) => format!("{instances} instances"),
        }
    }
}

const fn fleet(instances: usize, workers: usize) -> Fleet {
    Fleet { instances, workers }
}

/// A single partition has only the first; at small size there are two.
const FLEETS: [Fleet; 4] = [fleet(1, 1), fleet(1, 2), fleet(2, 1), fleet(4, 1)];

struct Run {
    records_per_second: f64,
    /// Of all instances together, a record.
    cpu_us: f64,
    broker_cpu_us: f64,
    records_a_transaction: f64,
    /// Of the instance that has most, at its peak.
    largest_mib: f64,
    all_mib: f64,
}

type Figure = fn(&Run) -> f64;

/// False where an output was not what it is to be.
pub fn measure(broker: &Broker, size: Size) -> bool {
    results::begin("scaling-throughput", size);
    let partitions: &[i32] = size.pick(&[1, 24], &[1, 8, 64, 256, 1000]);
    let mut right = true;
    let mut single = Vec::new();
    for &partitions in partitions {
        let fleets = match partitions {
            1 => &FLEETS[..1],
            _ => size.pick(&FLEETS[..2], &FLEETS[..]),
        };
        let shape = Shape {
            ids: size.pick(9_000, 720_000),
            value_bytes: 200,
            duplicates_percent: 10,
            partitions,
            compression: Compression::None,
        };
        let (runs, all_right) = of_shape(broker, &shape, fleets);
        single.push((partitions, runs[0].cpu_us));
        right &= all_right;
        tell(&shape, fleets, &runs);
    }
    results::begin("scaling-cost", size);
    tell_cost(&single);
    right
}

/// All fleets on one input, one after the other.
fn of_shape(broker: &Broker, shape: &Shape, fleets: &[Fleet]) -> (Vec<Run>, bool) {
    let input = unique("input");
    println!("  writing {shape}");
    let sent = shape.write(&broker.kafka, &input, crate::kit::now_ms());
    let mut right = true;
    let mut runs = Vec::new();
    for fleet in fleets {
        let (run, verdict) = run(broker, shape, &input, &sent, *fleet);
        println!(
            "  {:<22} {:>8.0} records/s, {:.2} us CPU a record (broker {:.2}), {:.0} MiB",
            fleet.name(),
            run.records_per_second,
            run.cpu_us,
            run.broker_cpu_us,
            run.all_mib
        );
        runs.push(run);
        if let Err(wrong) = verdict {
            println!("  WRONG OUTPUT of {}: {wrong}", fleet.name());
            right = false;
        }
    }
    broker.kafka.delete_topic(&input);
    (runs, right)
}

fn run(
    broker: &Broker,
    shape: &Shape,
    input: &str,
    sent: &Sent,
    fleet: Fleet,
) -> (Run, Result<(), String>) {
    let kafka = &broker.kafka;
    let setup = Setup {
        workers: fleet.workers,
        ..DEFAULTS
    };
    let group = group_on(kafka, input, shape.partitions, setup);
    let progress = Progress::of(kafka, &group.group, input, shape.partitions);
    let mut instances: Vec<Instance> = (0..fleet.instances)
        .map(|number| start_paused(&group, &format!("instance-{number}")))
        .collect();
    wait_until_shared(&mut instances, setup, shape.partitions);
    instances.iter().for_each(resume);

    let cpu = |instances: &[Instance]| -> f64 {
        let of = |instance: &Instance| cpu_of_process(instance.id());
        instances.iter().map(of).sum()
    };
    let transactions = |instances: &[Instance]| -> f64 {
        let committed = |it: &Instance| it.metric("kafka_dedup_transactions_total");
        instances.iter().map(committed).sum()
    };
    let first = until(&progress, 1, &mut instances);
    let (begun, cpu_before, broker_before) =
        (Instant::now(), cpu(&instances), broker.cpu_seconds());
    let last = until(&progress, sent.records, &mut instances);
    let seconds = begun.elapsed().as_secs_f64();
    // An input that is one transaction has no time between its first commit and its last.
    let records = (last - first).max(1) as f64;
    let run = Run {
        records_per_second: records / seconds,
        cpu_us: (cpu(&instances) - cpu_before) * 1e6 / records,
        broker_cpu_us: (broker.cpu_seconds() - broker_before) * 1e6 / records,
        records_a_transaction: sent.records as f64 / transactions(&instances),
        largest_mib: peaks(&instances).fold(0.0, f64::max),
        all_mib: peaks(&instances).sum(),
    };
    instances.iter_mut().for_each(stop);
    let verdict =
        audit::read(kafka, &group.output, shape.partitions, sent.ids).check(sent.ids, sent);
    broker.delete_all_but(input);
    (run, verdict)
}

fn peaks(instances: &[Instance]) -> impl Iterator<Item = f64> {
    instances.iter().map(|instance| mib(instance.id(), "VmHWM"))
}

/// Waits until so many records are committed; how many are.
pub fn until(progress: &Progress, wanted: u64, instances: &mut [Instance]) -> u64 {
    let (mut last, mut before) = (Instant::now(), 0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let committed = progress.committed();
        if committed >= wanted {
            return committed;
        }
        if committed > before {
            (last, before) = (Instant::now(), committed);
        }
        for instance in &mut *instances {
            assert!(!instance.has_ended(), "it ended:\n{}", instance.log_tail());
        }
        assert!(
            last.elapsed() < STUCK && Instant::now() < deadline,
            "{committed} of {wanted} records are committed:\n{}",
            instances[0].log_tail()
        );
        thread::sleep(LOOK);
    }
}

fn tell(shape: &Shape, fleets: &[Fleet], runs: &[Run]) {
    let figures: [(&'static str, Figure); 6] = [
        ("records/s", |run| run.records_per_second),
        ("us CPU a record, all instances", |run| run.cpu_us),
        ("us CPU a record, broker", |run| run.broker_cpu_us),
        ("records a transaction", |run| run.records_a_transaction),
        ("MiB at its peak, largest instance", |run| run.largest_mib),
        ("MiB at their peaks, all", |run| run.all_mib),
    ];
    for (unit, figure) in figures {
        let mut case = Case::new(shape.to_string(), unit);
        for (fleet, run) in fleets.iter().zip(runs) {
            case = case.side(&fleet.name(), Samples(vec![figure(run)]));
        }
        case.tell();
    }
}

/// What a record costs beside one of an input with a single partition.
fn tell_cost(single: &[(i32, f64)]) {
    let (_, one) = single[0];
    for &(partitions, cpu_us) in &single[1..] {
        Case::new(
            format!("CPU a record with {partitions} partitions, times that with 1"),
            "ratio",
        )
        .side_with(OURS, Samples(vec![cpu_us / one]), Some(REACH), "")
        .tell();
    }
}
