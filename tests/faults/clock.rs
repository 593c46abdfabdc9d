//! The wall clock jumps under the running program, or timestamps are years off. No test may set the
//! clock of a machine, so a small library in front of libc (clock.c) moves that of the program alone.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kafka_dedup::config::Window;

use crate::campaign::Rounds;
use crate::kit::BINARY;
use crate::rig::{Plan, Rig};

const DAY_MS: i64 = 86_400_000;

pub fn jumped(rounds: &mut Rounds) {
    let plan = Plan::new("jumped", rounds.seed);
    // No timestamp counts as ahead of the clock, or verdicts would rest on when they were made.
    let window = Window {
        max_ahead_ms: 3_650 * DAY_MS,
        ..plan.window
    };
    let mut rig = Rig::of(Plan { window, ..plan });
    // Here they may: but all that is remembered is within a day, whatever the clock made of it.
    let plan = Plan::new("years", rounds.seed);
    let mut years = Rig::of(Plan {
        window: Window {
            time_ms: Some(365 * DAY_MS),
            ids: Some(3_000),
            ..plan.window
        },
        settings: &[
            ("retention.ms", "-1"),
            ("message.timestamp.after.max.ms", "9223372036854775807"),
        ],
        ..plan
    });
    let tools = tempfile::tempdir().expect("a directory");
    let library = compile(tools.path());
    let offset = tools.path().join("offset");
    while let Some(round) = rounds.next() {
        if round % 2 == 0 {
            set(&offset, 0);
            let start = |rig: &Rig| {
                let store = rig.deployment.dir.path().join("store-one");
                let mut command = Command::new(BINARY);
                command
                    .env("LD_PRELOAD", &library)
                    .env("CLOCK_OFFSET_FILE", &offset);
                rig.deployment.start_on("one", store, &[], command)
            };
            let mut instance = start(&rig);
            rig.flow();
            instance.wait_until_ready();
            let mut hours = 0;
            for _ in 0..3 {
                rig.let_flow(400);
                let before = hours;
                hours = i64::try_from(rounds.dice.roll(240)).expect("small") - 120;
                set(&offset, hours);
                if hours < before {
                    // The Kafka client cannot live with that: the process says so and ends.
                    let status = instance.wait(Duration::from_secs(30));
                    assert_eq!(status.code(), Some(75), "{}", instance.log_tail());
                    let log = instance.log_text();
                    assert!(log.contains("the wall clock was set back"), "{log}");
                    instance = start(&rig);
                    instance.wait_until_ready();
                }
            }
            rig.let_flow(400);
            let tally = rig.settle(&mut [&mut instance]);
            rounds.compared(tally.received);
            assert!(instance.terminate().success(), "{}", instance.log_tail());
        } else {
            let mut instance = years.deployment.start("one");
            years.flow_with_years();
            years.let_flow(1_000);
            let tally = years.settle(&mut [&mut instance]);
            rounds.compared(tally.received);
            assert!(instance.terminate().success(), "{}", instance.log_tail());
        }
    }
}

/// In place: the program has the file mapped.
fn set(offset: &Path, hours: i64) {
    let seconds = (hours * 3_600).to_ne_bytes();
    let mut options = fs::File::options();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(offset);
    file.and_then(|mut file| file.write_all(&seconds))
        .expect("written");
}

fn compile(directory: &Path) -> PathBuf {
    let library = directory.join("clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/clock.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .status();
    assert!(status.expect("cc").success());
    library
}
