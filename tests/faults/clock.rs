//! The wall clock jumps under the running program (libfaketime), or timestamps are years off.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    let library = library();
    while let Some(round) = rounds.next() {
        if round % 2 == 0 {
            let clock = rig.deployment.dir.path().join("clock");
            fs::write(&clock, "+0").expect("written");
            let mut command = Command::new(BINARY);
            command
                .env("LD_PRELOAD", &library)
                .env("FAKETIME_TIMESTAMP_FILE", &clock)
                .env("FAKETIME_CACHE_DURATION", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            let store = rig.deployment.dir.path().join("store-one");
            let mut instance = rig.deployment.start_on("one", store, &[], command);
            rig.flow();
            instance.wait_until_ready();
            for _ in 0..3 {
                rig.let_flow(400);
                let hours = i64::try_from(rounds.dice.roll(240)).expect("small") - 120;
                set(&clock, hours);
                // Its cached time lasts a second.
                std::thread::sleep(std::time::Duration::from_millis(1_200));
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

/// Replaced at once, as the library reads it at any time.
fn set(clock: &Path, hours: i64) {
    let new = clock.with_extension("new");
    fs::write(&new, format!("{:+}", hours * 3_600)).expect("written");
    fs::rename(new, clock).expect("renamed");
}

fn library() -> PathBuf {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ];
    let found = places.iter().map(PathBuf::from).find(|it| it.exists());
    found.expect("libfaketime: apt-get install faketime")
}
