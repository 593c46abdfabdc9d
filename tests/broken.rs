//! Proof that the checks can fail: builds that are broken on purpose (feature `broken`) are caught by
//! the comparison that sound builds pass. Every test runs its scenario twice, without the bug and with
//! it; a bug that survives fails the test.

#[path = "kit/mod.rs"]
mod kit;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use kit::expected::{Limits, expect_forwarded};
use kit::{Deployment, Rec, now_ms};

const WINDOW_MS: i64 = 4_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the scenario until the bug is caught, at most so often; and first without it.
fn is_caught(bug: &str, scenario: impl Fn(&mut Deployment)) {
    let run = |bug: Option<&str>| {
        let extra = format!(
            "transaction: {{interval: 20ms, timeout: 10s}}\nwindow: {{time: {WINDOW_MS}ms}}\n"
        );
        let mut deployment = Deployment::new("broken", 1, &extra);
        if let Some(bug) = bug {
            deployment
                .env
                .push(("KAFKA_DEDUP_BUG".to_owned(), bug.to_owned()));
        }
        scenario(&mut deployment);
    };
    run(None);
    for _ in 0..3 {
        let caught = catch_unwind(AssertUnwindSafe(|| run(Some(bug))));
        let Err(panic) = caught else { continue };
        let told = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|told| (*told).to_owned()))
            .unwrap_or_default();
        // A difference, and not a program that never started.
        assert!(
            told.contains("differs") || told.contains("count of"),
            "{bug}: {told}"
        );
        return;
    }
    panic!("the bug {bug} survived");
}

/// A stretch of records, 10 ms apart: every third repeats an id that is 3 s old, in the window's
/// later half.
fn send(it: &Deployment, begins_ms: i64, numbers: std::ops::Range<i64>) {
    let records: Vec<Rec> = numbers
        .map(|number| {
            let id = if number % 3 == 0 && number >= 300 {
                number - 299
            } else {
                number
            };
            Rec::with_id(id.to_string(), begins_ms + number * 10)
        })
        .collect();
    it.kafka.produce(&it.input, 0, &records);
}

fn compare(it: &Deployment) {
    it.wait_until_caught_up(PATIENCE);
    it.assert_output(|_, input| {
        expect_forwarded(Limits::time(WINDOW_MS), input, |record| {
            record.header("message-id").map(<[u8]>::to_vec)
        })
    });
}

/// Many small transactions, with a failpoint.
fn with_failpoint(it: &Deployment, failpoint: (&str, &str)) {
    let begins_ms = now_ms() - 60_000;
    let mut instance = it.start_with("one", &[failpoint]);
    instance.wait_until_ready();
    for step in 0..20 {
        send(it, begins_ms, step * 50..(step + 1) * 50);
        std::thread::sleep(Duration::from_millis(30));
    }
    compare(it);
    assert!(instance.terminate().success(), "{}", instance.log_tail());
}

#[test]
fn store_written_before_the_commit() {
    is_caught("store-before-commit", |it| {
        with_failpoint(it, ("offsets-refused", "25%return"));
    });
}

#[test]
fn overlay_kept_after_an_abort() {
    is_caught("overlay-kept-after-abort", |it| {
        with_failpoint(it, ("offsets-refused", "25%return"));
    });
}

#[test]
fn producer_kept_after_an_unknown_commit() {
    is_caught("producer-kept-after-unknown-commit", |it| {
        with_failpoint(it, ("commit-unknown", "15%return"));
    });
}

#[test]
fn offsets_committed_beside_the_transaction() {
    is_caught("offsets-outside-transaction", |it| {
        let begins_ms = now_ms() - 60_000;
        send(it, begins_ms, 0..500);
        let mut instance = it.start_with("one", &[("offsets-sent", "1*off->return")]);
        for step in 10..14 {
            send(it, begins_ms, step * 50..(step + 1) * 50);
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(instance.wait(PATIENCE).code(), None, "killed");
        let mut instance = it.start("one");
        compare(it);
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    });
}

#[test]
fn slice_dropped_early() {
    is_caught("slice-dropped-early", |it| {
        with_failpoint(it, ("none", "off"));
    });
}

#[test]
fn checkpoint_ahead_of_its_ids() {
    is_caught("checkpoint-ahead-of-ids", |it| {
        let begins_ms = now_ms() - 60_000;
        for round in 0..4 {
            let mut instance = it.start("one");
            instance.wait_until_ready();
            for step in 0..8 {
                let first = round * 400 + step * 50;
                send(it, begins_ms, first..first + 50);
                std::thread::sleep(Duration::from_millis(60));
            }
            it.wait_until_caught_up(PATIENCE);
            assert!(instance.terminate().success(), "{}", instance.log_tail());
        }
        let mut instance = it.start("one");
        compare(it);
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    });
}
