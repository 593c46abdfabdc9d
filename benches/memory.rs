//! Memory of a process that holds a window, each in a fresh one.

use std::process::Command;

use crate::measure::{Samples, memory};
use crate::results::{Case, OURS, Reach, Size, allowed, ids};
use crate::stream::Stream;
use crate::yardsticks::{Map, SeenSet, Window, feed};

/// Beyond this a bound holds for each id.
const BASE_BYTES: f64 = 100.0 * 1024.0 * 1024.0;

pub fn run(size: Size) {
    for count in size.pick(vec![200_000], vec![10_000_000, 100_000_000]) {
        if allowed(count) < count {
            continue;
        }
        let [ours, ours_peak] = ask("window", count);
        let [map, map_peak] = ask("map", count);
        let reach = (size == Size::Heavy).then_some(BASE_BYTES + 6.0 * count as f64);
        let mib = |bytes: f64| Samples(vec![bytes / 1024.0 / 1024.0]);
        let reach_mib = reach.map(|bytes| Reach::AtMost(bytes / 1024.0 / 1024.0));
        let note = format!(
            "{:.1} B an id beyond 100 MiB",
            (ours - BASE_BYTES) / count as f64
        );
        Case::new(format!("{}, resident", ids(count)), "MiB")
            .side_with(OURS, mib(ours), reach_mib, &note)
            .side("HashMap in memory", mib(map))
            .side_with(
                "RocksDB window store",
                mib(rocksdb(count)),
                None,
                "an estimate, not measured",
            )
            .tell();
        Case::new(format!("{}, peak", ids(count)), "MiB")
            .side(OURS, mib(ours_peak))
            .side_with(
                "HashMap in memory",
                mib(map_peak),
                None,
                "while it doubles, both tables are there",
            )
            .tell();
    }
}

/// What Kafka Streams' window store on RocksDB takes beside the Java heap by its defaults: three
/// segments, each with a block cache of 50 MiB and memtables of 3 times 16 MiB, a Bloom filter of 10
/// bits a key, and an index entry of about 30 B a block of 4 KiB, of about 80 ids (36-byte key, 12
/// bytes of time and sequence, value and overhead of 8).
fn rocksdb(count: u64) -> f64 {
    let a_segment = f64::from(50 + 3 * 16) * 1024.0 * 1024.0;
    3.0 * a_segment + count as f64 * (10.0 / 8.0 + 30.0 / 80.0)
}

/// Resident and peak bytes of a child that holds so many ids.
fn ask(side: &str, count: u64) -> [f64; 2] {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["child", "memory", side, &count.to_string()])
        .output()
        .expect("a child process");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut figures = text.split_whitespace().map(|text| text.parse().ok());
    match (figures.next().flatten(), figures.next().flatten()) {
        (Some(resident), Some(peak)) if output.status.success() => [resident, peak],
        _ => panic!(
            "the child failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

pub fn child(side: &str, count: &str) {
    let count: u64 = count.parse().expect("a count");
    let mut set: Box<dyn SeenSet> = match side {
        "window" => Box::new(Window::new(count)),
        _ => Box::<Map>::default(),
    };
    feed(&mut *set, &mut Stream::new(count), count);
    println!("{} {}", memory("VmRSS"), memory("VmHWM"));
}
