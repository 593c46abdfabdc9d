//! How fast, and for how much: the input is complete before a program starts. Time counts from the
//! first commit that a bystander sees until all of the input is committed, so that the start of a
//! virtual machine and of a group are apart.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use kafka_dedup::demo::process;

use crate::audit;
use crate::cluster::{Broker, Progress, written};
use crate::kit::unique;
use crate::measure::{Samples, cpu_of, cpu_of_process, disk, memory_of};
use crate::programs::{Job, Program, ports, turns};
use crate::results::{Case, scratch};
use crate::shape::{Sent, Shape};
use crate::watched::Watchers;

/// How often a bystander looks at what is committed.
const LOOK: Duration = Duration::from_millis(20);
/// A program that commits nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(120);
const END_WITHIN: Duration = Duration::from_secs(60);

/// The service's default.
pub const INTERVAL_MS: u64 = 100;

/// What one run measured.
struct Run {
    records_per_second: f64,
    cpu_us: f64,
    peak_mib: f64,
    state_mb: f64,
    written: f64,
    start_seconds: f64,
    start_cpu_seconds: f64,
}

type Figure = fn(&Run) -> f64;

#[derive(Default)]
struct Side {
    runs: Vec<Run>,
    /// What is wrong with its outputs.
    wrong: Option<String>,
}

/// All programs on one input, in turns, each on all cores or on one. False where an output was not what it is to be.
pub fn measure(
    broker: &Broker,
    shape: &Shape,
    programs: &[Program],
    rounds: usize,
    core: Option<usize>,
) -> bool {
    let input = unique("input");
    println!("  writing {shape}");
    let now_ms = crate::kit::now_ms();
    let sent = shape.write(&broker.kafka, &input, now_ms);
    let mut sides: Vec<Side> = programs.iter().map(|_| Side::default()).collect();
    for (round, places) in turns(programs, rounds).into_iter().enumerate() {
        for at in places {
            let (program, side) = (programs[at], &mut sides[at]);
            let (run, verdict) = run(broker, shape, &input, &sent, program, core);
            println!(
                "  round {}: {:<26} {:>8.0} records/s, {:.2} us CPU a record, {:.0} MiB",
                round + 1,
                program.name(),
                run.records_per_second,
                run.cpu_us,
                run.peak_mib
            );
            side.runs.push(run);
            if let Err(wrong) = verdict {
                println!("  WRONG OUTPUT of {}: {wrong}", program.name());
                side.wrong = Some(wrong);
            }
        }
    }
    tell(shape, programs, &sides);
    broker.kafka.delete_topic(&input);
    sides.iter().all(|side| side.wrong.is_none())
}

fn run(
    broker: &Broker,
    shape: &Shape,
    input: &str,
    sent: &Sent,
    program: Program,
    core: Option<usize>,
) -> (Run, Result<(), String>) {
    let (output, group, dir) = (unique("output"), unique("group"), scratch());
    let kafka = &broker.kafka;
    // Old timestamps, as the input has.
    kafka.create_topic(&output, shape.partitions, &[("retention.ms", "-1")]);
    let job = Job {
        bootstrap: kafka.bootstrap(),
        input,
        output: &output,
        group: &group,
        interval_ms: INTERVAL_MS,
        compression: shape.compression,
        ids: shape.ids,
        dir: dir.path(),
        core,
        ports: ports(),
    };
    let progress = Progress::of(kafka, &group, input, shape.partitions);
    let logs_before = broker.logs_beside(input);
    let cpu_before = cpu_of(libc::RUSAGE_CHILDREN).as_secs_f64();
    let started = Instant::now();
    let mut child = program.start(&job);
    let pid = child.id();
    let must_run = |child: &mut Child| {
        if let Some(status) = child.try_wait().expect("its state") {
            panic!("{} ended with {status}:\n{}", program.name(), job.log_end());
        }
    };

    let first = until(&progress, 1, || must_run(&mut child), &job);
    let start_seconds = started.elapsed().as_secs_f64();
    let start_cpu_seconds = cpu_of_process(pid);
    let watchers = (program == Program::Watched).then(|| Watchers::start(&job));
    let ended = until(&progress, sent.records, || must_run(&mut child), &job);
    watchers.into_iter().for_each(Watchers::stop);
    // An input that is one transaction has no time between its first commit and its last.
    let (since, before) = if first.committed < sent.records {
        (first.at, first.committed)
    } else {
        (started, 0)
    };
    let records = (sent.records - before) as f64;
    let seconds = (ended.at - since).as_secs_f64();
    let peak = memory_of(pid, "VmHWM");

    end(&mut child, program, &job);
    let cpu = cpu_of(libc::RUSAGE_CHILDREN).as_secs_f64() - cpu_before;
    let counted_cpu = if before == 0 {
        cpu
    } else {
        cpu - start_cpu_seconds
    };
    let written = written(&logs_before, &broker.logs_beside(input));
    let run = Run {
        records_per_second: records / seconds,
        cpu_us: counted_cpu * 1e6 / records,
        peak_mib: peak as f64 / f64::from(1 << 20),
        state_mb: disk(&job.state()) as f64 / 1e6,
        written: written as f64 / sent.forwarded_bytes as f64,
        start_seconds,
        start_cpu_seconds,
    };
    let wanted = if program.judges() {
        sent.ids
    } else {
        sent.records
    };
    let verdict = audit::read(kafka, &output, shape.partitions, wanted).check(wanted, sent);
    broker.delete_all_but(input);
    (run, verdict)
}

struct Seen {
    at: Instant,
    committed: u64,
}

/// Waits until so many records are committed.
fn until(progress: &Progress, wanted: u64, mut must_run: impl FnMut(), job: &Job<'_>) -> Seen {
    let (mut last, mut before) = (Instant::now(), 0);
    loop {
        must_run();
        let committed = progress.committed();
        let at = Instant::now();
        if committed >= wanted {
            return Seen { at, committed };
        }
        if committed > before {
            (last, before) = (at, committed);
        }
        assert!(
            last.elapsed() < PATIENCE,
            "{committed} of {wanted} records are committed, and no more for {PATIENCE:?}:\n{}",
            job.log_end()
        );
        std::thread::sleep(LOOK);
    }
}

/// Ends it as a supervisor does; its last work counts as well. What cannot be ended so is killed.
pub fn end(child: &mut Child, program: Program, job: &Job<'_>) {
    process::ask_to_end(child);
    let ended = process::wait_until(child, Instant::now() + END_WITHIN);
    if !matches!(ended, Ok(Some(_))) {
        process::kill(child);
        panic!(
            "{} did not end within {END_WITHIN:?} after SIGTERM:\n{}",
            program.name(),
            job.log_end()
        );
    }
    // For those who want to look at it.
    if std::env::var_os("KAFKA_DEDUP_BENCH_LOGS").is_some() {
        let text = fs::read_to_string(job.log()).unwrap_or_default();
        println!("---- {}\n{text}", program.name());
    }
}

fn tell(shape: &Shape, programs: &[Program], sides: &[Side]) {
    let figures: [(&'static str, Figure); 7] = [
        ("records/s", |run| run.records_per_second),
        ("us CPU a record", |run| run.cpu_us),
        ("MiB at its peak", |run| run.peak_mib),
        ("MB of state", |run| run.state_mb),
        ("bytes written a byte forwarded", |run| run.written),
        ("s to the first commit", |run| run.start_seconds),
        ("s CPU to the first commit", |run| run.start_cpu_seconds),
    ];
    for (unit, figure) in figures {
        let mut case = Case::new(shape.to_string(), unit);
        for (program, side) in programs.iter().zip(sides) {
            let samples = Samples(side.runs.iter().map(figure).collect());
            let note = side.wrong.as_deref().unwrap_or("");
            case = case.side_with(program.name(), samples, None, note);
        }
        case.tell();
    }
}
