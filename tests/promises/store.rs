//! The store is a cache: warm, cold, damaged, stale, another's, full or out of reach, the output is
//! equal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::crash::rounds;
use crate::exactly_once::by_header;
use crate::kit::expected::{Limits, expect_forwarded};
use crate::kit::stream::Stream;
use crate::kit::{BINARY, Deployment, Dice, Instance, Rec, broker, now_ms, wait_for};
use crate::spoil::{self, Spoiler, Spoils};

const PATIENCE: Duration = Duration::from_secs(90);
/// Slices end between transactions; these are small, so that there are many.
const SMALL_TRANSACTIONS: &str = "transaction: {interval: 30ms, records: 200, timeout: 10s}\n";

/// Records with ids of their own, some of them sent twice, seconds apart in their own time.
fn records(from: u64, count: u64) -> Vec<Rec> {
    let begin = now_ms() - 6 * 3_600_000;
    let record = |n: u64| {
        let id = if n % 5 == 4 { n - n % 500 / 2 } else { n };
        Rec::with_id(
            id.to_string(),
            begin + i64::try_from(n * 100).expect("small"),
        )
    };
    (from..from + count).map(record).collect()
}

fn stored_slices(instance: &Instance) -> f64 {
    instance.metric("kafka_dedup_window_stored_slices")
}

fn assert_no_panic(instance: &Instance) {
    assert!(
        !instance.log_text().contains("panicked"),
        "{}",
        instance.log_tail()
    );
}

#[test]
fn restarted_warm_cold_and_damaged() {
    let deployment = Deployment::new("spoilt", 2, SMALL_TRANSACTIONS);
    let stream = Stream::start(&deployment.kafka, &deployment.input, 2, 2026);
    let mut runner = TestRunner::deterministic();
    let mut spoiler = Spoiler::new(&deployment.dir.path().join("store-one"));
    let (mut warm, mut cold, mut aside) = (0.0, 0.0, 0.0);
    for round in 0..rounds(16) {
        let mut instance = deployment.start("one");
        instance.wait_until_ready();
        wait_for("slices in the store", PATIENCE, || {
            stored_slices(&instance) > 2.0
        });
        warm += instance.metric("kafka_dedup_restores_total{kind=\"warm\"}");
        cold += instance.metric("kafka_dedup_restores_total{kind=\"cold\"}");
        aside += instance.metric("kafka_dedup_store_set_aside_total");
        assert_no_panic(&instance);
        if round % 2 == 0 {
            instance.kill();
        } else {
            assert!(instance.terminate().success(), "{}", instance.log_tail());
        }
        let spoils = match round {
            0 => Spoils::Keep,
            1 => Spoils::Lose,
            _ => spoil::any()
                .new_tree(&mut runner)
                .expect("a value")
                .current(),
        };
        spoiler.spoil(&spoils);
    }
    stream.finish();
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(PATIENCE);
    deployment.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success());
    assert!(
        warm > 0.0 && cold > 2.0 && aside > 0.0,
        "{warm} {cold} {aside}"
    );
}

#[test]
fn killed_while_slices_are_sealed_dropped_and_opened() {
    let deployment = Deployment::new(
        "sealing",
        2,
        "transaction: {interval: 20ms, timeout: 10s}\nwindow: {time: 2s}\n",
    );
    let stream = Stream::start(&deployment.kafka, &deployment.input, 2, 31);
    let mut dice = Dice(6);
    for _ in 0..rounds(2) {
        for step in [
            "seal-begin",
            "seal-chunks",
            "sealed",
            "slice-drop",
            "restore",
        ] {
            let before = if step == "restore" { 0 } else { dice.roll(6) };
            let mut instance =
                deployment.start_with("one", &[(step, &format!("{before}*off->return"))]);
            let ended = instance.wait(Duration::from_secs(60));
            assert!(
                ended.code().is_none(),
                "{step}: {ended}\n{}",
                instance.log_tail()
            );
            assert_no_panic(&instance);
        }
    }
    stream.finish();
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(PATIENCE);
    deployment.assert_output(|_, input| {
        expect_forwarded(Limits::time(2_000), input, |record| {
            record.header("message-id").map(<[u8]>::to_vec)
        })
    });
    assert!(instance.terminate().success());
}

#[test]
fn starts_that_die_while_slices_are_opened_give_the_store_up() {
    let deployment = Deployment::new("loop", 1, SMALL_TRANSACTIONS);
    broker().produce(&deployment.input, 0, &records(0, 3_000));
    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    wait_for("slices in the store", PATIENCE, || {
        stored_slices(&instance) > 2.0
    });
    deployment.wait_until_caught_up(PATIENCE);
    assert!(instance.terminate().success());
    for _ in 0..3 {
        let mut instance = deployment.start_with("one", &[("restore", "return")]);
        assert_eq!(instance.wait(PATIENCE).code(), None);
    }
    // The slices that these starts died of are not opened a fourth time.
    broker().produce(&deployment.input, 0, &records(2_500, 1_000));
    let mut instance = deployment.start_with("one", &[("restore", "return")]);
    deployment.wait_until_caught_up(PATIENCE);
    assert!(instance.metric("kafka_dedup_store_set_aside_total") > 2.0);
    deployment.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success());
}

/// A file may not grow beyond this: to sled that is a full disk. The log has room enough.
const FILE_LIMIT_BYTES: u64 = 700 * 1024;

#[test]
fn a_full_disk_is_told_and_lived_through_until_there_is_room() {
    let deployment = Deployment::new("full", 1, SMALL_TRANSACTIONS);
    let mut shell = Command::new("sh");
    // Without the signal a write that is too long fails as on a full disk.
    shell.args([
        "-c",
        &format!("trap '' XFSZ; exec prlimit --fsize={FILE_LIMIT_BYTES}: \"$@\""),
        "sh",
        BINARY,
    ]);
    let store = deployment.dir.path().join("store-one");
    let active_ids = [(
        "KAFKA_DEDUP__STORE__ACTIVE_IDS".to_owned(),
        "40000".to_owned(),
    )];
    let mut deployment = deployment;
    deployment.env.extend(active_ids);
    let mut instance = deployment.start_on("one", store, &[], shell);
    broker().produce(&deployment.input, 0, &records(0, 150_000));
    deployment.wait_until_caught_up(PATIENCE);
    wait_for("the store to be degraded", PATIENCE, || {
        instance.metric("kafka_dedup_store_degraded") > 0.0
    });
    assert!(instance.metric("kafka_dedup_store_errors_total") > 0.0);
    let (status, report) = instance.get("/readyz?verbose").expect("an answer");
    assert_eq!(status, 200, "{report}");
    assert!(report.contains("store: degraded"), "{report}");
    assert!(report.contains("held in memory"), "{report}");
    broker().produce(&deployment.input, 0, &records(100_000, 60_000));
    deployment.wait_until_caught_up(PATIENCE);

    lift_file_limit(instance.id());
    wait_for("the store to recover", PATIENCE, || {
        instance.metric("kafka_dedup_store_degraded") == 0.0 && stored_slices(&instance) > 2.0
    });
    let (_, report) = instance.get("/readyz?verbose").expect("an answer");
    assert!(report.contains("store: ready"), "{report}");
    broker().produce(&deployment.input, 0, &records(150_000, 30_000));
    deployment.wait_until_caught_up(PATIENCE);
    assert_no_panic(&instance);
    assert!(instance.terminate().success());

    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    assert!(instance.metric("kafka_dedup_restores_total{kind=\"warm\"}") > 0.0);
    deployment.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success());
}

fn lift_file_limit(process: u32) {
    let lifted = Command::new("prlimit")
        .args(["--fsize=unlimited:", "--pid", &process.to_string()])
        .status()
        .expect("prlimit, of util-linux");
    assert!(lifted.success());
}

#[test]
fn a_store_that_cannot_be_made_is_told_and_lived_through_until_it_can() {
    let deployment = Deployment::new("nostore", 2, SMALL_TRANSACTIONS);
    let store = deployment.dir.path().join("store-one");
    fs::write(&store, "a file is in the way").expect("written");
    let mut instance = deployment.start("one");
    for partition in 0..2 {
        broker().produce(&deployment.input, partition, &records(0, 2_000));
    }
    deployment.wait_until_caught_up(PATIENCE);
    let (status, report) = instance.get("/readyz?verbose").expect("an answer");
    assert_eq!(status, 200, "{report}");
    assert!(report.contains("degraded"), "{report}");
    fs::remove_file(&store).expect("removed");
    wait_for("the store to be used", PATIENCE, || {
        instance.metric("kafka_dedup_store_degraded") == 0.0 && stored_slices(&instance) > 2.0
    });
    for partition in 0..2 {
        broker().produce(&deployment.input, partition, &records(1_000, 2_000));
    }
    deployment.wait_until_caught_up(PATIENCE);
    assert!(instance.terminate().success());
    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    assert!(instance.metric("kafka_dedup_restores_total{kind=\"warm\"}") > 0.0);
    deployment.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success());
}

/// Partitions go from one worker to another while they are restored: none may wait for the other.
#[test]
fn workers_of_a_process_do_not_wait_for_each_others_stores() {
    let deployment = Deployment::new(
        "workers",
        12,
        &format!("workers: 4\nwindow: {{time: 24h}}\n{SMALL_TRANSACTIONS}"),
    );
    for partition in 0..12_i32 {
        let own = records(u64::from(partition.unsigned_abs()) * 2_000, 2_000);
        broker().produce(&deployment.input, partition, &own);
    }
    let mut instance = deployment.start("one");
    deployment.wait_until_caught_up(PATIENCE);
    assert!(instance.terminate().success());
    let mut dice = Dice(8);
    for _ in 0..rounds(3) {
        // One that is ended while it restores, and one that is not.
        let mut instance = deployment.start("one");
        wait_for("partitions", PATIENCE, || {
            instance.log_text().contains("assigned: ")
        });
        std::thread::sleep(Duration::from_millis(dice.roll(600)));
        let status = instance.terminate();
        assert!(status.success(), "{status}: {}", instance.log_tail());

        let mut instance = deployment.start("one");
        wait_for("all partitions", PATIENCE, || {
            instance.try_metric("kafka_dedup_partition_active") == Some(12.0)
        });
        let log = instance.log_text();
        assert!(!log.contains("in use"), "{log}");
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    }
    deployment.assert_output(|_, input| by_header(input));
}

#[test]
fn a_partition_that_comes_back_finds_what_is_still_valid() {
    // Once with a store for each, once with one for both.
    for shared in [false, true] {
        let deployment = Deployment::new("moves", 2, SMALL_TRANSACTIONS);
        let start = |name: &str| {
            let store = if shared { "store" } else { name };
            let store = deployment.dir.path().join(store);
            deployment.start_on(name, store, &[], Command::new(BINARY))
        };
        let mut count = 0;
        let mut more = || {
            for partition in 0..2 {
                broker().produce(&deployment.input, partition, &records(count, 1_500));
            }
            count += 1_000;
            deployment.wait_until_caught_up(PATIENCE);
        };
        let mut one = start("a");
        more();
        wait_for("slices in the store", PATIENCE, || {
            stored_slices(&one) > 4.0
        });
        let restores = |instance: &Instance, kind: &str| {
            instance.metric(&format!("kafka_dedup_restores_total{{kind=\"{kind}\"}}"))
        };
        assert_eq!((restores(&one, "warm"), restores(&one, "cold")), (0.0, 2.0));

        let mut two = start("b");
        two.wait_until_ready();
        wait_for("a partition to move", PATIENCE, || {
            two.metric("kafka_dedup_partition_active") > 0.0
        });
        let kind = if shared { "warm" } else { "cold" };
        assert_eq!(
            restores(&two, kind),
            1.0,
            "shared: {shared}\n{}",
            two.log_tail()
        );
        more();
        assert!(two.terminate().success());
        wait_for("it to come back", PATIENCE, || {
            one.metric("kafka_dedup_partition_active") > 1.0
        });
        more();
        assert_eq!(
            (restores(&one, "warm"), restores(&one, "cold")),
            (1.0, 2.0),
            "shared: {shared}\n{}",
            one.log_tail()
        );
        deployment.assert_output(|_, input| by_header(input));
        assert!(one.terminate().success());
    }
}

#[test]
fn slices_of_another_deployment_are_set_aside() {
    let [theirs, ours] = ["theirs", "ours"].map(|name| {
        let deployment = Deployment::new(name, 1, SMALL_TRANSACTIONS);
        broker().produce(&deployment.input, 0, &records(0, 2_000));
        let mut instance = deployment.start("one");
        deployment.wait_until_caught_up(PATIENCE);
        wait_for("slices in the store", PATIENCE, || {
            stored_slices(&instance) > 2.0
        });
        assert!(instance.terminate().success());
        deployment
    });
    let (from, to) = (scope_dir(&theirs), scope_dir(&ours));
    fs::remove_dir_all(&to).expect("removed");
    fs::rename(from, &to).expect("renamed");
    broker().produce(&ours.input, 0, &records(1_500, 1_000));
    let mut instance = ours.start("one");
    ours.wait_until_caught_up(PATIENCE);
    let foreign = instance.metric("kafka_dedup_store_set_aside_total{reason=\"foreign\"}");
    assert!(foreign > 2.0, "{foreign}");
    ours.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success());
    let kept = fs::read_dir(&to)
        .expect("listed")
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("set-aside-")
        });
    assert!(
        (1..=4).contains(&kept.count()),
        "kept for a look, and not all"
    );
}

fn scope_dir(deployment: &Deployment) -> PathBuf {
    let store: &Path = &deployment.dir.path().join("store-one");
    let mut dirs = fs::read_dir(store).expect("a store").flatten();
    dirs.next().expect("a scope").path()
}

/// How much of the window is covered: known after every kind of start, and less where it begins or grows.
#[test]
fn what_the_window_covers_is_known_to_every_start() {
    let mut it = Deployment::new("covers", 1, "window: {time: 100s}\n");
    it.extra += &format!("input: {{topics: [{}], start: latest}}\n", it.input);
    let begin = now_ms() - 3_600_000;
    let record = |second: i64| Rec::with_id(second.to_string(), begin + second * 1000);
    it.kafka.produce(&it.input, 0, &[record(0)]);
    let pass = |it: &Deployment, second: i64| {
        it.kafka.produce(&it.input, 0, &[record(second)]);
        it.wait_until_caught_up(PATIENCE);
    };
    let covers = |instance: &Instance, share: f64| {
        wait_for("a coverage", PATIENCE, || {
            let now = instance.try_metric("kafka_dedup_window_coverage_ratio");
            now.is_some_and(|now| (now - share).abs() < 1e-6)
        });
    };
    let mut instance = it.start("one");
    instance.wait_until_ready();
    wait_for("the start position", PATIENCE, || {
        it.kafka.committed(&it.group, &it.input, 0) == Some(1)
    });
    covers(&instance, 0.0);
    pass(&it, 100);
    covers(&instance, 0.0);
    pass(&it, 150);
    covers(&instance, 0.5);
    let (_, status) = instance.get("/metrics").expect("an answer");
    assert!(
        status.contains("kafka_dedup_window_configured_seconds 100\n"),
        "{status}"
    );
    assert!(instance.terminate().success());

    // Warm, cold, and as it goes on.
    let mut warm = it.start("one");
    covers(&warm, 0.5);
    assert!(warm.terminate().success());
    let mut cold = it.start("two");
    covers(&cold, 0.5);
    pass(&it, 175);
    covers(&cold, 0.75);
    pass(&it, 200);
    covers(&cold, 1.0);
    assert!(cold.terminate().success());

    // Grown: all that was let through is still in the journal, from second 100 on.
    it.extra = it.extra.replace("100s", "400s");
    let mut grown = it.start("two");
    covers(&grown, 0.25);
    assert!(grown.terminate().success());

    let whole = Deployment::new("covers-all", 1, "");
    whole.kafka.produce(&whole.input, 0, &[record(0)]);
    let mut instance = whole.start("one");
    whole.wait_until_caught_up(PATIENCE);
    covers(&instance, 1.0);
    assert!(instance.terminate().success());
}
