//! The process is ended, at any moment and at each named step.

use std::time::Duration;

use crate::campaign::Rounds;
use crate::kit::wait_for;
use crate::rig::{Holdings, Plan, Rig};

/// Every step at which a failpoint can end the process, and how often it is passed before.
const STEPS: [(&str, u64); 15] = [
    ("", 0),
    ("initialised", 1),
    ("restored", 2),
    ("begin", 20),
    ("produced", 20),
    ("drained", 20),
    ("offsets-sent", 20),
    ("committed", 20),
    ("published", 20),
    ("trim", 1),
    ("seal-begin", 6),
    ("seal-chunks", 6),
    ("sealed", 6),
    ("slice-drop", 3),
    ("restore", 1),
];

/// One in three starts finds no disk, one in three is a static member.
pub fn killed(rounds: &mut Rounds) {
    let mut rig = Rig::of(Plan::new("killed", rounds.seed));
    while let Some(round) = rounds.next() {
        let (step, passes) = STEPS[usize::try_from(round % 15).expect("small")];
        rig.flow();
        if step.is_empty() {
            let mut instance = rig.deployment.start("one");
            // Most kills hit a running service, some hit one that is still starting.
            if rounds.dice.roll(4) > 0 {
                instance.wait_until_ready();
            }
            std::thread::sleep(Duration::from_millis(rounds.dice.roll(700)));
            instance.kill();
        } else {
            if step == "restore" {
                fill_store(&rig);
            }
            let passed = rounds.dice.roll(passes);
            let action = format!("{passed}*off->return");
            let mut instance = rig.deployment.start_with("one", &[(step, &action)]);
            let ended = instance.wait(Duration::from_secs(90));
            assert_eq!(
                ended.code(),
                None,
                "{step}: killed, not ended by itself\n{}",
                instance.log_tail()
            );
        }
        if rounds.dice.roll(3) == 0 && step != "restore" {
            // What the disk held is a cache.
            let _ = std::fs::remove_dir_all(rig.deployment.dir.path().join("store-one"));
        }
        let mut instance = rig.deployment.start("one");
        let tally = rig.settle(&mut [&mut instance]);
        rounds.compared(tally.received);
        if round % 2 == 0 {
            instance.kill();
        } else {
            assert!(instance.terminate().success(), "{}", instance.log_tail());
        }
    }
}

/// What was killed soon after a cold start may have left nothing there to restore.
fn fill_store(rig: &Rig) {
    let mut instance = rig.deployment.start("one");
    wait_for("a stored slice", Duration::from_secs(90), || {
        let stored = instance.try_metric("kafka_dedup_window_stored_slices");
        stored.is_some_and(|slices| slices > 0.0)
    });
    assert!(instance.terminate().success(), "{}", instance.log_tail());
}

pub fn terminated(rounds: &mut Rounds) {
    let mut rig = Rig::of(Plan {
        extra: "transaction: {interval: 200ms, timeout: 60s}\n",
        ..Plan::new("terminated", rounds.seed)
    });
    while let Some(_round) = rounds.next() {
        rig.flow();
        let mut instance = rig.deployment.start("one");
        instance.wait_until_ready();
        let held = Holdings::of(&instance);
        std::thread::sleep(Duration::from_millis(rounds.dice.roll(600)));
        held.assert_given_back(&instance);
        assert_eq!(
            instance.terminate().code(),
            Some(0),
            "{}",
            instance.log_tail()
        );
        // The one before has left the group and nothing open: nobody waits for a time-out.
        let mut instance = rig.deployment.start("one");
        let tally = rig.settle(&mut [&mut instance]);
        rounds.compared(tally.received);
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    }
}
