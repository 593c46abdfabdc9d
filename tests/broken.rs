//! Proof that the checks can fail: builds that are broken on purpose (feature `broken`) are caught by
//! the comparison that sound builds pass. Every test runs its scenario twice, without the bug and with
//! it; a bug that survives fails the test.

#[path = "kit/mod.rs"]
mod kit;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use kit::expected::{Limits, expect_forwarded};
use kit::{Deployment, Instance, Rec, now_ms, wait_for};

const WINDOW_MS: i64 = 4_000;
const PATIENCE: Duration = Duration::from_secs(60);
/// Runs the scenario until the bug is caught in this way, three times at most; and first without it.
fn is_caught(bug: &str, way: &str, scenario: impl Fn(&mut Deployment)) {
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
        // By the check that was meant, and not because the program never started.
        let first = told.lines().next().unwrap_or_default();
        assert!(first.contains(way), "{bug}: {told}");
        eprintln!("{bug} is caught: {first}");
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

/// In the failpoint `drained`: all is delivered, and offsets are not sent.
fn freeze_with_an_open_transaction(it: &Deployment, instance: &Instance) {
    wait_for("an open transaction", PATIENCE, || {
        !it.kafka.nothing_hangs(&it.output, 0)
    });
    std::thread::sleep(Duration::from_millis(100));
    instance.freeze();
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
    // A later one, so that what went wrong was not the last transaction.
    std::thread::sleep(Duration::from_secs(2));
    send(it, begins_ms, 1000..1050);
    compare(it);
    assert!(instance.terminate().success(), "{}", instance.log_tail());
}

#[test]
fn store_written_before_the_commit() {
    is_caught("store-before-commit", "differs", |it| {
        with_failpoint(it, ("offsets-refused", "2*off->1*return->off"));
    });
}

#[test]
fn overlay_kept_after_an_abort() {
    is_caught("overlay-kept-after-abort", "differs", |it| {
        with_failpoint(it, ("offsets-refused", "2*off->1*return->off"));
    });
}

/// A backlog of five transactions, one of which is aborted while the records of the next are there already: more of
/// them than are passed over while the partition is to be read again.
#[test]
fn records_read_ahead_kept_over_an_abort() {
    is_caught("read-ahead-kept", "differs", |it| {
        for (key, value) in [("RECORDS", "4000"), ("INTERVAL", "5s")] {
            let variable = format!("KAFKA_DEDUP__TRANSACTION__{key}");
            it.env.push((variable, value.to_owned()));
        }
        send(it, now_ms() - 300_000, 0..20_000);
        let slowly = ("drained", "sleep(500)");
        let refused = ("offsets-refused", "2*off->1*return->off");
        let mut instance = it.start_with("one", &[slowly, refused]);
        compare(it);
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    });
}

#[test]
fn producer_kept_after_an_unknown_commit() {
    is_caught("producer-kept-after-unknown-commit", "differs", |it| {
        with_failpoint(it, ("commit-unknown", "15%return"));
    });
}

#[test]
fn offsets_committed_beside_the_transaction() {
    is_caught("offsets-outside-transaction", "differs", |it| {
        let begins_ms = now_ms() - 60_000;
        let mut instance = it.start_with("one", &[("offsets-sent", "3*off->return")]);
        instance.wait_until_ready();
        for step in 0..14 {
            send(it, begins_ms, step * 50..(step + 1) * 50);
            std::thread::sleep(Duration::from_millis(60));
        }
        assert_eq!(instance.wait(PATIENCE).code(), None, "killed");
        let mut instance = it.start("one");
        compare(it);
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    });
}

#[test]
fn slice_dropped_early() {
    is_caught("slice-dropped-early", "differs", |it| {
        with_failpoint(it, ("none", "off"));
    });
}

#[test]
fn checkpoint_ahead_of_its_ids() {
    is_caught("checkpoint-ahead-of-ids", "differs", |it| {
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

/// Frozen before it writes its run, which its successor would wait for: what it sends afterwards belongs
/// to a member that is gone.
#[test]
fn offsets_sent_without_a_generation() {
    is_caught("no-generation", "differs", |it| {
        let begins_ms = now_ms() - 60_000;
        let mut zombie = it.start_with("zombie", &[("prepare", "sleep(4000)")]);
        zombie.wait_until_ready();
        send(it, begins_ms, 0..200);
        freeze_with_an_open_transaction(it, &zombie);
        let mut other = it.start("other");
        it.wait_until_caught_up(PATIENCE);
        zombie.thaw();
        wait_for("the zombie to come back", PATIENCE, || {
            let metrics = zombie.get("/metrics").unwrap_or_default().1;
            let mut transactions = metrics
                .lines()
                .filter(|line| line.starts_with("kafka_dedup_transactions_total"));
            zombie.has_ended() || transactions.any(|line| !line.ends_with(" 0"))
        });
        send(it, begins_ms, 200..400);
        compare(it);
        zombie.end();
        assert!(other.terminate().success(), "{}", other.log_tail());
    });
}

/// Two zombies with open runs in the journal: above the first one's there are committed ones, which a
/// restore up to the last stable offset does not see.
#[test]
fn restored_to_the_stable_offset() {
    is_caught("restore-to-stable-offset", "differs", |it| {
        let begins_ms = now_ms() - 60_000;
        let mut zombie = it.start_with("zombie", &[("drained", "sleep(300)")]);
        zombie.wait_until_ready();
        send(it, begins_ms, 0..50);
        it.wait_until_caught_up(PATIENCE);
        send(it, begins_ms, 50..100);
        freeze_with_an_open_transaction(it, &zombie);
        let mut second = it.start("second");
        send(it, begins_ms, 100..330);
        it.wait_until_caught_up(PATIENCE);
        second.end();
        let mut third = it.start("third");
        send(it, begins_ms, 300..600);
        compare(it);
        zombie.end();
        assert!(third.terminate().success(), "{}", third.log_tail());
    });
}

/// Nothing is judged wrongly, but soon every id is looked for in the store.
#[test]
fn filter_bit_kept() {
    is_caught("ring-bit-kept", "false positives", |it| {
        let begins_ms = now_ms() - 600_000;
        let mut instance = it.start("one");
        instance.wait_until_ready();
        for step in 0..60_i64 {
            let numbers = step * 500..(step + 1) * 500;
            let records: Vec<Rec> = numbers
                .map(|number| Rec::with_id(number.to_string(), begins_ms + number))
                .collect();
            it.kafka.produce(&it.input, 0, &records);
            std::thread::sleep(Duration::from_millis(60));
        }
        compare(it);
        let checks = instance.metric("kafka_dedup_filter_checks_total");
        let wrong = instance.metric("kafka_dedup_filter_false_positives_total");
        assert!(
            wrong < checks / 50.0,
            "{wrong} false positives in {checks} checks"
        );
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    });
}

/// Nothing is lost, but after the purge the producer's sequence has a gap.
#[test]
fn purged_before_an_abort() {
    is_caught("purge-before-abort", "failed by themselves", |it| {
        let begins_ms = now_ms() - 60_000;
        let mut instance = it.start_with("one", &[("in-flight-refused", "25%return")]);
        instance.wait_until_ready();
        for step in 0..20_i64 {
            let large = (step * 100..(step + 1) * 100).map(|number| Rec {
                value: Some(vec![b'x'; 10_000]),
                ..Rec::with_id(number.to_string(), begins_ms + number)
            });
            let large: Vec<Rec> = large.collect();
            it.kafka.produce(&it.input, 0, &large);
            std::thread::sleep(Duration::from_millis(30));
        }
        compare(it);
        let failed = ["delivery", "produce"].map(|cause| {
            instance.metric(&format!(
                "kafka_dedup_transactions_total{{cause=\"{cause}\",outcome=\"aborted\"}}"
            ))
        });
        let failed: f64 = failed.iter().sum();
        assert!(failed < 1.0, "{failed} transactions failed by themselves");
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    });
}
