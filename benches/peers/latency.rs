//! How late: records come at a fixed rate, and a consumer of committed records notes how old each is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::message::Message;

use crate::audit::{Findings, id_of, reader};
use crate::cluster::Broker;
use crate::kit::{flush, unique};
use crate::measure::Samples;
use crate::programs::{Job, Program, ports, turns};
use crate::results::{Case, Size, scratch};
use crate::shape::{Sent, Shape, partition_of, send, value};
use crate::stream::{Repeats, Stream, fingerprint};
use crate::throughput::end;

const RECORDS_PER_SECOND: u64 = 5000;
/// The records of a millisecond are sent together.
const TICK: Duration = Duration::from_millis(1);
const PER_TICK: usize = (RECORDS_PER_SECOND / 1000) as usize;
/// Digits of a time in microseconds, at the beginning of each value.
const STAMP: usize = 16;
/// A record that has not come through by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Milliseconds that so many of a thousand records stayed below.
struct Percentiles([f64; 3]);

const PER_MILLE: [(usize, &str); 3] = [
    (500, "ms, half of the records"),
    (990, "ms, 99 %"),
    (999, "ms, 99.9 %"),
];

pub fn measure(
    broker: &Broker,
    shape: &Shape,
    programs: &[Program],
    intervals_ms: &[u64],
    rounds: usize,
    size: Size,
) -> bool {
    // The first to come would meet a broker that has compiled nothing yet.
    let (_, verdict) = run(broker, shape, Program::PassThrough, 100, Size::Small);
    let mut right = verdict.is_ok();
    for &interval_ms in intervals_ms {
        let mut sides: Vec<Vec<Percentiles>> = programs.iter().map(|_| Vec::new()).collect();
        let mut notes = vec![String::new(); programs.len()];
        for round in turns(programs, rounds) {
            for at in round {
                let program = programs[at];
                let (percentiles, verdict) = run(broker, shape, program, interval_ms, size);
                println!(
                    "  every {interval_ms} ms: {:<26} {:.1?} ms",
                    program.name(),
                    percentiles.0
                );
                sides[at].push(percentiles);
                if let Err(wrong) = verdict {
                    println!("  WRONG OUTPUT of {}: {wrong}", program.name());
                    notes[at] = wrong;
                    right = false;
                }
            }
        }
        for (at, (_, unit)) in PER_MILLE.into_iter().enumerate() {
            let mut case = Case::new(format!("a commit every {interval_ms} ms"), unit);
            for ((program, side), note) in programs.iter().zip(&sides).zip(&notes) {
                let samples = Samples(side.iter().map(|run| run.0[at]).collect());
                case = case.side_with(program.name(), samples, None, note);
            }
            case.tell();
        }
    }
    right
}

fn run(
    broker: &Broker,
    shape: &Shape,
    program: Program,
    interval_ms: u64,
    size: Size,
) -> (Percentiles, Result<(), String>) {
    // A virtual machine compiles for as long as it is warmed up.
    let (warm, measured) = size.pick((1, 2), (8, 12));
    let (warm, measured) = (Duration::from_secs(warm), Duration::from_secs(measured));
    let (input, output, group, dir) = (
        unique("input"),
        unique("output"),
        unique("group"),
        scratch(),
    );
    let kafka = &broker.kafka;
    for topic in [&input, &output] {
        kafka.create_topic(topic, shape.partitions, &[]);
    }
    let total = RECORDS_PER_SECOND * (warm + measured).as_secs();
    let job = Job {
        bootstrap: kafka.bootstrap(),
        input: &input,
        output: &output,
        group: &group,
        interval_ms,
        compression: shape.compression,
        ids: total,
        dir: dir.path(),
        core: None,
        ports: ports(),
    };
    let mut child = program.start(&job);

    let arrived = Arc::new(AtomicU64::new(0));
    let wanted = Arc::new(AtomicU64::new(u64::MAX));
    let consumer = {
        let reader = reader(kafka, &output, shape.partitions);
        let (arrived, wanted) = (Arc::clone(&arrived), Arc::clone(&wanted));
        thread::spawn(move || {
            let (mut findings, mut ages) = (Findings::default(), Vec::new());
            let mut last = Instant::now();
            while findings.records < wanted.load(Ordering::Relaxed) && last.elapsed() < PATIENCE {
                if let Some(Ok(message)) = reader.poll(Duration::from_millis(50)) {
                    let now = micros();
                    last = Instant::now();
                    let value = message.payload().expect("a value");
                    let stamp = std::str::from_utf8(&value[..STAMP]).expect("digits");
                    let stamp: u64 = stamp.parse().expect("a time");
                    ages.push((stamp, now.saturating_sub(stamp)));
                    findings.add(&id_of(&message));
                    arrived.store(findings.records, Ordering::Relaxed);
                }
            }
            (findings, ages)
        })
    };

    // Batches as clients make them by default, up to 5 ms. Without, the broker is busy with requests of one
    // record, and that is what would be measured.
    let producer = kafka.producer(&[]);
    let mut stream = Stream::new(total);
    let mut sent = Sent::default();
    let mut feed = |count: usize| {
        let duplicates = shape.duplicates_percent * 10;
        let (records, duplicate) = stream.records(count, duplicates, Repeats::Soon);
        for (record, duplicate) in records.iter().zip(duplicate) {
            let now = micros();
            let mut value = value(&record.id, shape.value_bytes);
            value[..STAMP].copy_from_slice(format!("{now:016}").as_bytes());
            let timestamp_ms = i64::try_from(now / 1000).expect("a date");
            send(
                &producer,
                &input,
                partition_of(&record.id, shape.partitions),
                &record.id,
                &value,
                timestamp_ms,
            );
            sent.records += 1;
            if !duplicate {
                sent.ids += 1;
                sent.checksum ^= fingerprint(&record.id);
            }
        }
    };
    // The first record comes through when the program is up.
    feed(1);
    let deadline = Instant::now() + PATIENCE;
    while arrived.load(Ordering::Relaxed) == 0 {
        assert!(
            Instant::now() < deadline && child.try_wait().expect("its state").is_none(),
            "{} lets nothing through:\n{}",
            program.name(),
            job.log_end()
        );
        thread::sleep(TICK);
    }
    let began = Instant::now();
    let counted_from = micros() + u64::try_from(warm.as_micros()).expect("a time");
    for tick in 1..=total / PER_TICK as u64 {
        feed(PER_TICK);
        let next = began + TICK * u32::try_from(tick).expect("a count");
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let rate = (total - 1) as f64 / began.elapsed().as_secs_f64();
    flush(&producer);
    let expected = if program.judges() {
        sent.ids
    } else {
        sent.records
    };
    wanted.store(expected, Ordering::Relaxed);
    let (findings, ages) = consumer.join().expect("the consumer");
    end(&mut child, program, &job);
    broker.delete_all_but("");

    if rate < 0.95 * RECORDS_PER_SECOND as f64 {
        println!(
            "  the machine is too busy: {rate:.0} records/s were sent, not {RECORDS_PER_SECOND}"
        );
    }
    let verdict = findings.check(expected, &sent);
    let counted = ages.into_iter().filter(|(stamp, _)| *stamp >= counted_from);
    let mut ages: Vec<u64> = counted.map(|(_, age)| age).collect();
    ages.sort_unstable();
    let of = |per_mille: usize| {
        let at = ages.len() * per_mille / 1000;
        ages.get(at).map_or(f64::NAN, |age| *age as f64 / 1000.0)
    };
    (
        Percentiles(PER_MILLE.map(|(per_mille, _)| of(per_mille))),
        verdict,
    )
}

fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("a clock").as_micros()).expect("a date")
}
