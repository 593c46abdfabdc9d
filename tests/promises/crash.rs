//! kill -9 at any moment, and at each named step of a commit: the output is still equal.

use std::time::{Duration, Instant};

use crate::exactly_once::by_header;
use crate::kit::stream::Stream;
use crate::kit::{self, Deployment, Dice, broker};

/// Rounds of the fault tests: short unless told otherwise.
pub fn rounds(short: usize) -> usize {
    let factor = std::env::var("KAFKA_DEDUP_TEST_ROUNDS")
        .ok()
        .and_then(|n| n.parse::<usize>().ok());
    short * factor.unwrap_or(1)
}

fn assert_quiet_and_equal(deployment: &Deployment) {
    deployment.wait_until_caught_up(Duration::from_secs(90));
    deployment.assert_output(|_, input| by_header(input));
    for partition in 0..deployment.partitions {
        assert!(
            broker().nothing_hangs(&deployment.journal(), partition),
            "the journal has no open transaction"
        );
    }
}

#[test]
fn killed_at_random_moments() {
    for keep_disk in [true, false] {
        let deployment =
            Deployment::new("killed", 2, "transaction: {interval: 30ms, timeout: 10s}\n");
        let stream = Stream::start(&deployment.kafka, &deployment.input, 2, 42);
        let mut dice = Dice(if keep_disk { 1 } else { 2 });
        for _ in 0..rounds(8) {
            let mut instance = deployment.start("one");
            // Most kills hit a running service, some hit one that is still starting.
            if dice.roll(4) > 0 {
                instance.wait_until_ready();
            }
            std::thread::sleep(Duration::from_millis(dice.roll(700)));
            let store = instance.store.clone();
            instance.kill();
            if !keep_disk {
                std::fs::remove_dir_all(store).ok();
            }
        }
        let sent = stream.finish();
        assert!(sent > 1000, "records flowed: {sent}");
        let mut instance = deployment.start("one");
        assert_quiet_and_equal(&deployment);
        assert!(instance.terminate().success());
    }
}

#[test]
fn killed_at_each_step_of_a_commit() {
    let deployment = Deployment::new(
        "steps",
        2,
        "transaction: {interval: 20ms, timeout: 10s}\nwindow: {time: 3s}\n",
    );
    let stream = Stream::start(&deployment.kafka, &deployment.input, 2, 4711);
    let steps = [
        "initialised",
        "restored",
        "begin",
        "produced",
        "drained",
        "offsets-sent",
        "committed",
        "published",
    ];
    let mut dice = Dice(5);
    let mut killed = 0;
    for _ in 0..rounds(2) {
        for step in steps {
            let before = if matches!(step, "initialised" | "restored") {
                0
            } else {
                dice.roll(20)
            };
            let mut instance =
                deployment.start_with("one", &[(step, &format!("{before}*off->return"))]);
            let ended = instance.wait(Duration::from_secs(60));
            assert!(
                ended.code().is_none(),
                "{step}: killed, not ended by itself: {ended}\n{}",
                instance.log_tail()
            );
            killed += 1;
        }
    }
    assert!(killed >= steps.len());
    stream.finish();
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(Duration::from_secs(90));
    deployment.assert_output(|_, input| {
        crate::kit::expected::expect_forwarded(
            crate::kit::expected::Limits::time(3_000),
            input,
            |r| r.header("message-id").map(<[u8]>::to_vec),
        )
    });
    assert!(instance.terminate().success());
}

#[test]
fn three_instances_killed_in_turn() {
    let deployment = Deployment::new("three", 4, "transaction: {interval: 30ms, timeout: 10s}\n");
    let stream = Stream::start(&deployment.kafka, &deployment.input, 4, 77);
    let names = ["a", "b", "c"];
    let mut instances: Vec<_> = names
        .iter()
        .map(|name| Some(deployment.start(name)))
        .collect();
    let mut dice = Dice(12);
    for round in 0..rounds(9) {
        std::thread::sleep(Duration::from_millis(600 + dice.roll(1500)));
        let victim = usize::try_from(dice.roll(3)).expect("small");
        if let Some(instance) = instances[victim].take() {
            let store = instance.store.clone();
            instance.kill();
            if round % 2 == 0 {
                std::fs::remove_dir_all(store).ok();
            }
        }
        std::thread::sleep(Duration::from_millis(dice.roll(1000)));
        instances[victim] = Some(deployment.start(names[victim]));
    }
    stream.finish();
    assert_quiet_and_equal(&deployment);
    for mut instance in instances.into_iter().flatten() {
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    }
}

#[test]
fn terminated_in_mid_transaction() {
    let deployment = Deployment::new("term", 2, "transaction: {interval: 200ms, timeout: 60s}\n");
    let stream = Stream::start(&deployment.kafka, &deployment.input, 2, 9);
    let mut dice = Dice(8);
    for _ in 0..rounds(5) {
        let mut instance = deployment.start("one");
        let started = Instant::now();
        instance.wait_until_ready();
        // The one before left the group and left nothing open: nothing to wait for.
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "no waiting for a transaction time-out"
        );
        std::thread::sleep(Duration::from_millis(100 + dice.roll(600)));
        assert_eq!(
            instance.terminate().code(),
            Some(0),
            "{}",
            instance.log_tail()
        );
    }
    stream.finish();
    let mut instance = deployment.start("one");
    assert_quiet_and_equal(&deployment);
    assert!(instance.terminate().success());
}

/// The client library's own timeouts do not always hold (see `kafka::bounded`).
#[test]
fn a_call_that_never_comes_back_is_given_up() {
    let once = "4*off->1*sleep(86400000)->off";
    for hung in [
        &[("offsets-hang", once)][..],
        &[("commit-hang", once)],
        &[
            ("abort-hang", "1*sleep(86400000)->off"),
            ("offsets-refused", "4*off->1*return->off"),
        ],
    ] {
        let deployment = Deployment::new("hung", 2, "transaction: {interval: 30ms, timeout: 4s}\n");
        let stream = Stream::start(&deployment.kafka, &deployment.input, 2, 42);
        let mut instance = deployment.start_with("one", hung);
        instance.wait_until_ready();
        kit::wait_for("the call to be given up", Duration::from_secs(60), || {
            instance.metric("kafka_dedup_producer_rebuilds_total") > 0.0
        });
        assert!(
            instance.log_text().contains("given up"),
            "{}",
            instance.log_tail()
        );
        let sent = stream.finish();
        assert!(sent > 1000, "records flowed: {sent}");
        assert_quiet_and_equal(&deployment);
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    }
}
