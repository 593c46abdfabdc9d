//! A warm start: a fresh process opens the slices of the window before and builds the filter anew.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use kafka_dedup::store::Loaded;
use kafka_dedup::window::{Fit, SeenWindow, Sizing, Verdict};

use crate::measure::{Meter, Samples, disk};
use crate::results::{Case, OURS, Reach, Size, allowed, ids, scratch};
use crate::stream::{Stream, fingerprint, id};
use crate::yardsticks::window::{limits, shelf};
use crate::yardsticks::{Keep, SeenSet, Window, feed};

pub fn run(size: Size) {
    for (count, reach) in size.pick(
        vec![(200_000, None)],
        vec![(10_000_000, None), (100_000_000, Some(Reach::AtMost(8.0)))],
    ) {
        if allowed(count) < count {
            continue;
        }
        let dir = scratch();
        let kept = Keep::Kept(dir.path().to_owned());
        let mut window = Window::in_dir(count, Sizing::default(), kept);
        feed(&mut window, &mut Stream::new(count), count);
        window.settle();
        let journal_end = window.journal_end;
        drop(window);
        let bytes = disk(dir.path());
        let (mut seconds, mut cpu) = (Samples::default(), Samples::default());
        let mut loaded = 0.0;
        for _ in 0..size.pick(1, 3) {
            let [wall, busy, found] = ask(dir.path(), journal_end, count);
            seconds.push(wall);
            cpu.push(busy);
            loaded = found;
        }
        let note = format!(
            "{loaded} ids were on the disk, in {} MB, in the page cache",
            bytes / 1_000_000
        );
        Case::new(ids(count), "s to load")
            .side_with(OURS, seconds, reach, &note)
            .tell();
        Case::new(format!("{}, CPU", ids(count)), "s CPU to load")
            .side(OURS, cpu)
            .tell();
    }
}

fn ask(dir: &Path, journal_end: i64, count: u64) -> [f64; 3] {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["child", "restart"])
        .arg(dir)
        .args([journal_end.to_string(), count.to_string()])
        .output()
        .expect("a child process");
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text
        .split_whitespace()
        .filter_map(|text| text.parse().ok())
        .collect();
    match (figures.try_into(), output.status.success()) {
        (Ok(figures), true) => figures,
        _ => panic!(
            "the child failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

pub fn child(dir: &str, journal_end: &str, count: &str) {
    let journal_end: i64 = journal_end.parse().expect("an offset");
    let count: u64 = count.parse().expect("a count");
    let mut meter = Meter::start();
    let started = Instant::now();
    let mut window = meter.section(|| {
        let shelf = shelf(Path::new(dir));
        let fits = |loaded: &Loaded| match loaded.checkpoint.anchor.offset < journal_end {
            true => Fit::Fits,
            false => Fit::NotOfThisJournal,
        };
        SeenWindow::load(limits(), Sizing::default(), &shelf, fits, || true)
    });
    let wall = started.elapsed().as_secs_f64();
    let cpu = meter.cpu();
    let loaded = window.ids();
    assert!(loaded >= count / 10 * 8, "only {loaded} ids were found");
    for number in (count / 4..count / 2).step_by(1 + count as usize / 800) {
        let verdict = window.judge(fingerprint(&id(number)), 0).expect("sound");
        assert!(matches!(verdict, Verdict::Duplicate { .. }), "{number}");
    }
    let absent = window.judge(fingerprint(&id(u64::MAX)), 0).expect("sound");
    assert_eq!(absent, Verdict::Forward);
    println!("{wall} {cpu} {loaded}");
}
