//! A deployment that does not stay as it is: its window grows and shrinks, its ids come from elsewhere,
//! its group changes. What must be remembered is, what cannot be is said so.

#[path = "kit/mod.rs"]
mod kit;

use std::fs;
use std::process::Command;
use std::time::Duration;

use kafka_dedup::config::Window;
use kit::model::{Judged, Model};
use kit::{BINARY, Deployment, Dice, Instance, Rec, broker, now_ms, wait_for};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(240);
const MINUTE_MS: i64 = 60_000;
/// Many runs, so that a journal can be trimmed at many places.
const SMALL: &str = "transaction: {interval: 30ms, records: 40, timeout: 10s}\n";

/// What the model makes of an input, as it grows, under rules that change between its records.
struct Expected {
    model: Model,
    judged: usize,
    forwarded: Vec<Rec>,
}

impl Expected {
    fn under(limits: Window) -> Self {
        Self {
            model: Model::new(limits),
            judged: 0,
            forwarded: Vec::new(),
        }
    }

    /// Judges what has come since, and holds the whole output against it.
    fn holds(&mut self, it: &Deployment, header: &str) {
        let wall_ms = now_ms();
        it.assert_output(|_, input| {
            for (offset, record) in &input[self.judged..] {
                let id = record.header(header).expect("an id");
                let time_ms = Some(record.timestamp);
                if let Judged::Forward = self.model.judge(id, time_ms, wall_ms, *offset) {
                    self.forwarded.push(record.clone());
                }
            }
            self.judged = input.len();
            self.forwarded.clone()
        });
    }

    fn forget_before(&mut self, ordinal: u64) {
        self.model.seen.retain(|_, seen| seen.ordinal >= ordinal);
    }
}

fn window(time_ms: Option<i64>, ids: Option<u64>, refresh: bool) -> Window {
    Window {
        time_ms,
        ids,
        refresh,
        max_ahead_ms: 600_000,
    }
}

fn yaml(window: &Window) -> String {
    let time = window
        .time_ms
        .map_or("null".to_owned(), |ms| format!("{ms}ms"));
    let ids = window.ids.map_or("null".to_owned(), |ids| ids.to_string());
    format!(
        "window: {{time: {time}, ids: {ids}, refresh: {}}}\n",
        window.refresh
    )
}

fn command(it: &Deployment, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(BINARY)
        .args([arguments[0], "-c"])
        .arg(it.config_file())
        .args(&arguments[1..])
        .output()
        .expect("the command runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    if std::env::var_os("SHOW").is_some() {
        println!("$ {arguments:?}: {}\n{out}{err}", output.status);
    }
    (output.status.code().expect("a status"), out, err)
}

/// The ordinal with which the journal begins.
fn first_ordinal(it: &Deployment) -> u64 {
    let (status, out, err) = command(it, &["inspect", "--json", "--no-journal-scan"]);
    assert_eq!(status, 0, "{err}");
    let json: Value = serde_json::from_str(&out).expect("JSON");
    json["journal"][0]["first_run"]["first_ordinal"]
        .as_u64()
        .unwrap_or_else(|| panic!("no ordinal in {json:#}"))
}

/// Runs it until all is judged, and something is in the store; gives its log.
fn judge_all(it: &Deployment, and: impl FnOnce(&Instance)) -> String {
    let mut service = it.start("one");
    service.wait_until_ready();
    it.wait_until_caught_up(PATIENCE);
    wait_for("slices in the store", PATIENCE, || {
        service.metric("kafka_dedup_window_stored_slices") > 0.0
    });
    and(&service);
    assert!(service.terminate().success(), "{}", service.log_tail());
    let log = service.log_text();
    if std::env::var_os("SHOW").is_some() {
        println!("{log}");
    }
    log
}

fn lose_store(it: &Deployment) {
    fs::remove_dir_all(it.dir.path().join("store-one")).expect("removed");
}

#[test]
fn a_window_that_is_grown_remembers_what_is_left_and_one_that_is_shrunk_forgets_at_once() {
    let hour = 60 * MINUTE_MS;
    let phases = [
        (window(Some(10 * MINUTE_MS), None, false), false),
        (window(Some(2 * hour), None, false), true),
        (window(Some(20 * MINUTE_MS), None, false), false),
        (window(None, Some(300), false), true),
        (window(None, Some(3000), false), true),
        (window(Some(hour), Some(100), true), false),
        (window(Some(10 * MINUTE_MS), None, false), true),
    ];
    for store_is_lost in [false, true] {
        let mut it = Deployment::new("windows", 1, SMALL);
        let mut expected = Expected::under(phases[0].0);
        let mut dice = Dice(2027);
        let begins = now_ms() - 8 * hour;
        let mut sent = 0_u64;
        for (phase, (limits, grown)) in phases.iter().enumerate() {
            let records: Vec<Rec> = (0..400)
                .map(|_| {
                    sent += 1;
                    let id = match dice.roll(5) {
                        0 => sent - dice.roll(sent.min(60)),
                        1 => sent - dice.roll(sent.min(1500)),
                        _ => sent,
                    };
                    let late = i64::try_from(dice.roll(30_000)).expect("small");
                    let time = begins + i64::try_from(sent).expect("small") * 6_000 - late;
                    Rec::with_id(id.to_string(), time)
                })
                .collect();
            broker().produce(&it.input, 0, &records);
            let journal = it.journal();
            if phase > 0 {
                let left = first_ordinal(&it);
                assert!(left > 0, "the journal was trimmed");
                expected.forget_before(left);
            }
            if phase > 0 && store_is_lost {
                lose_store(&it);
            }
            it.extra = format!("{SMALL}{}", yaml(limits));
            expected.model.limits = *limits;
            let log = judge_all(&it, |_| {
                if phase == 0 {
                    wait_for("the journal to be trimmed", PATIENCE, || {
                        broker().low_watermark(&journal, 0) > 0
                    });
                }
            });
            assert_eq!(
                log.contains("the window was grown"),
                *grown,
                "phase {phase}\n{log}"
            );
            // Where the window has not grown, the store is as good as ever.
            let warm = log.contains("seen ids were read from the store");
            assert_eq!(
                warm,
                phase > 0 && !store_is_lost && !grown,
                "phase {phase}\n{log}"
            );
            assert!(!log.contains("set aside"), "phase {phase}\n{log}");
            expected.holds(&it, "message-id");
        }
        assert!(expected.forwarded.len() > 1500);
    }
}

/// Two ids in one record.
fn two(a: impl ToString, b: impl ToString, time: i64) -> Rec {
    let header = |name: &str, id: String| (name.to_owned(), Some(id.into_bytes()));
    Rec {
        headers: vec![header("a", a.to_string()), header("b", b.to_string())],
        ..Rec::with_id("", time)
    }
}

#[test]
fn ids_from_elsewhere_are_refused_until_somebody_says_what_they_are() {
    let from = |header: &str, changed: &str| {
        format!("{SMALL}id: {{from: {{header: {header}}}{changed}}}\nwindow: {{time: 24h}}\n")
    };
    let mut it = Deployment::new("sources", 1, &from("a", ""));
    let begins = now_ms() - 60 * MINUTE_MS;
    let mut expected = Expected::under(window(Some(24 * 60 * MINUTE_MS), None, false));
    let produce = |it: &Deployment, records: Vec<Rec>| broker().produce(&it.input, 0, &records);
    produce(
        &it,
        (0..300)
            .map(|n| two(n, format!("b{n}"), begins + n))
            .collect(),
    );
    judge_all(&it, |_| {});
    expected.holds(&it, "a");

    // The first 50 have ids that header a had, then come new ones, then repeats.
    let more = |n: i64| {
        two(
            format!("a{n}"),
            if n < 50 { n } else { n % 200 + 1000 },
            begins + 1000 + n,
        )
    };
    produce(&it, (0..400).map(more).collect());
    for (store_is_lost, header) in [(false, "b"), (true, "b"), (false, "c")] {
        if store_is_lost {
            lose_store(&it);
        }
        it.extra = from(header, "");
        let mut service = it.start("one");
        assert_eq!(
            service.wait(PATIENCE).code(),
            Some(78),
            "{}",
            service.log_tail()
        );
        let log = service.log_text();
        for words in [
            "were taken from {header: a}",
            &format!("id.from is {{header: {header}}}"),
            "id.changed: keep",
            "id.changed: forget",
        ] {
            assert!(log.contains(words), "no {words:?} in\n{log}");
        }
    }
    assert_eq!(it.kafka.committed(&it.group, &it.input, 0), Some(300));

    it.extra = from("b", ", changed: keep");
    let log = judge_all(&it, |_| {});
    assert!(log.contains("they are kept (id.changed: keep)"), "{log}");
    expected.holds(&it, "b");
    // It is written down: no more need to say so.
    it.extra = from("b", "");
    produce(
        &it,
        (0..100)
            .map(|n| two("", n + 1000, begins + 2000 + n))
            .collect(),
    );
    judge_all(&it, |_| {});
    expected.holds(&it, "b");

    // All that is known is forgotten, whatever ends the first transaction.
    expected.model.seen.clear();
    let more = |n: i64| two(n % 250, "", begins + 3000 + n);
    produce(&it, (0..500).map(more).collect());
    it.extra = from("a", ", changed: forget");
    for (point, action) in [
        ("drained", "return"),
        ("commit-unknown", "1*return"),
        ("committed", "return"),
    ] {
        let mut service = it.start_with("one", &[(point, action)]);
        if point == "commit-unknown" {
            it.wait_until_caught_up(PATIENCE);
            service.end();
        } else {
            assert_eq!(service.wait(PATIENCE).code(), None, "{point}");
        }
        let forgets = "they are forgotten (id.changed: forget)";
        assert_eq!(
            service.log_text().contains(forgets),
            point != "committed",
            "{point}"
        );
        if point == "commit-unknown" {
            produce(
                &it,
                (0..100)
                    .map(|n| two(n + 200, "", begins + 4000 + n))
                    .collect(),
            );
        }
    }
    for store_is_lost in [false, true] {
        if store_is_lost {
            lose_store(&it);
        }
        it.extra = from("a", "");
        produce(
            &it,
            (0..300)
                .map(|n| two(n + 100, "", begins + 5000 + n))
                .collect(),
        );
        judge_all(&it, |_| {});
        expected.holds(&it, "a");
    }
}

#[test]
fn a_journal_of_another_group_is_refused() {
    let mut it = Deployment::new("groups", 1, SMALL);
    it.extra = format!("{SMALL}journal: {{topic: \"{}-journal\"}}\n", it.input);
    let records: Vec<Rec> = (0..200)
        .map(|n| Rec::with_id(n.to_string(), now_ms()))
        .collect();
    broker().produce(&it.input, 0, &records);
    judge_all(&it, |_| {});
    it.group = format!("{}-other", it.group);
    let mut service = it.start("other");
    assert_eq!(
        service.wait(PATIENCE).code(),
        Some(78),
        "{}",
        service.log_tail()
    );
    let log = service.log_text();
    assert!(
        log.contains("the run was written for another group"),
        "{log}"
    );
    assert_eq!(it.kafka.read_partition(&it.output, 0).len(), 200);
}

/// A row of an export.
type Row = (String, i32, u128, String, Option<i64>, String, String);

fn rows(csv: &str) -> Vec<Row> {
    let mut lines = csv.lines();
    assert_eq!(
        lines.next(),
        Some("topic,partition,fingerprint,time_seen,first_offset,expires,deployment")
    );
    let row = |line: &str| {
        let [
            topic,
            partition,
            fingerprint,
            seen,
            offset,
            expires,
            deployment,
        ] = line.split(',').collect::<Vec<_>>()[..]
        else {
            panic!("{line}");
        };
        let fingerprint = match fingerprint {
            "" => 0,
            hex => u128::from_str_radix(hex, 16).expect("a fingerprint"),
        };
        (
            topic.to_owned(),
            partition.parse().expect("a partition"),
            fingerprint,
            seen.to_owned(),
            offset.parse().ok(),
            expires.to_owned(),
            deployment.to_owned(),
        )
    };
    lines.map(row).collect()
}

fn stamp(ms: i64) -> String {
    let since = Duration::from_millis(ms.unsigned_abs());
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}

#[test]
fn an_export_is_what_the_model_remembers() {
    let limits = window(Some(10 * MINUTE_MS), Some(150), true);
    let it = Deployment::new("exported", 2, &format!("{SMALL}{}", yaml(&limits)));
    let begins = now_ms() - 3 * 60 * MINUTE_MS;
    let mut dice = Dice(9);
    for partition in 0..2 {
        let records: Vec<Rec> = (0..500 + 300 * i64::from(partition))
            .map(|n| {
                let back = i64::try_from(dice.roll(40)).expect("small");
                let id = if dice.roll(3) == 0 { n - back } else { n };
                Rec::with_id(id.to_string(), begins + n * 6_000 - back * 100)
            })
            .collect();
        broker().produce(&it.input, partition, &records);
    }
    let mut service = it.start("one");
    service.wait_until_ready();
    it.wait_until_caught_up(PATIENCE);

    // Beside the running service.
    let (status, out, err) = command(&it, &["export"]);
    assert_eq!(status, 0, "{err}");
    assert!(err.contains(&format!("{}-1: ", it.input)), "{err}");
    let all = rows(&out);
    let seed = kafka_dedup::identify::deployment_seed(&it.group);
    for partition in 0..2 {
        let mut model = Model::new(limits);
        let mut taken = Vec::new();
        for (offset, record) in it.kafka.read_partition(&it.input, partition) {
            let id = record.header("message-id").expect("an id").to_vec();
            let time_ms = Some(record.timestamp);
            model.judge(&id, time_ms, now_ms(), offset);
            taken.push((id.clone(), model.seen[&id]));
        }
        let now = model.stream_time_ms.expect("a time");
        let remembered = |seen: &kit::model::Seen| {
            now - seen.time_ms <= i128::from(10 * MINUTE_MS)
                && model.ordinals_taken - (seen.ordinal + 1) < 150
        };
        // With refresh every record takes an ordinal, and the row of the last one counts.
        let expected: Vec<(u128, String, Option<i64>, String)> = taken
            .iter()
            .filter(|(_, seen)| remembered(seen))
            .map(|(id, seen)| {
                let time = i64::try_from(seen.time_ms).expect("a time");
                let fingerprint = xxhash_rust::xxh3::xxh3_128_with_seed(id, seed);
                let expires = stamp(time + 10 * MINUTE_MS);
                (fingerprint, stamp(time), Some(seen.first_offset), expires)
            })
            .collect();
        let mut found: Vec<&Row> = all.iter().filter(|row| row.1 == partition).collect();
        let last = found.pop().expect("the stream time");
        assert_eq!((last.2, &last.4, last.5.as_str()), (0, &None, ""));
        assert_eq!(last.3, stamp(i64::try_from(now).expect("a time")));
        let found: Vec<_> = found
            .into_iter()
            .map(|(_, _, fingerprint, seen, offset, expires, _)| {
                (*fingerprint, seen.clone(), *offset, expires.clone())
            })
            .collect();
        assert!(!expected.is_empty() && expected.len() <= 150);
        assert_eq!(found, expected, "partition {partition}");
    }
    let topics = all.iter().all(|row| row.0 == it.input && row.6 == all[0].6);
    assert!(topics);
    let (_, last) = it
        .kafka
        .read_partition(&it.input, 1)
        .pop()
        .expect("a record");
    let last = String::from_utf8(last.header("message-id").expect("an id").to_vec());
    let (status, found, err) = command(&it, &["inspect", "--id", &last.expect("digits")]);
    assert_eq!(status, 0, "{err}");
    let of_last = all.iter().rev().nth(1).expect("a row").2;
    assert!(found.contains(&format!("{of_last:032x}")), "{found}");

    assert!(service.terminate().success());
    let file = it.dir.path().join("seen.csv");
    let path = file.to_str().expect("a path");
    let arguments = ["export", "--partition", "1", "--output", path, "--json"];
    let (status, out, err) = command(&it, &arguments);
    assert_eq!(status, 0, "{err}");
    let written = rows(&fs::read_to_string(&file).expect("the file"));
    let second: Vec<Row> = all.into_iter().filter(|row| row.1 == 1).collect();
    assert_eq!(written, second);
    let json: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(json[0]["rows"], written.len() - 1);
    assert_eq!(json[0]["partition"], 1);

    let nowhere = it.dir.path().join("no/such/file");
    let (status, _, err) = command(&it, &["export", "-o", nowhere.to_str().expect("a path")]);
    assert_eq!(status, 64, "{err}");
    let (status, _, err) = command(&it, &["export", "--topic", "another"]);
    assert_eq!(status, 64, "{err}");
    let never = Deployment::new("never", 1, "");
    let (status, out, err) = command(&never, &["export"]);
    assert_eq!((status, out.as_str()), (78, ""), "{err}");
}

const HOUR: Window = Window {
    time_ms: Some(60 * MINUTE_MS),
    ids: Some(700),
    refresh: false,
    max_ahead_ms: 600_000,
};
const SIDE: &str = "duplicates: {topic: \"{topic}_dup\"}\n";

/// Records 6 s apart, with repeats near and far, some of them late.
fn records(dice: &mut Dice, numbers: std::ops::Range<i64>, begins: i64) -> Vec<Rec> {
    let mut roll = |sides: u64| i64::try_from(dice.roll(sides)).expect("small");
    numbers
        .map(|n| {
            let id = match roll(6) {
                0 => n - roll(50),
                1 => n - roll(900),
                _ => n,
            };
            Rec::with_id(id.to_string(), begins + n * 6_000 - roll(5) * 20_000)
        })
        .collect()
}

/// An id that was preloaded, at the time of its record.
fn preloaded(model: &mut Model, id: &[u8], time_ms: i64) {
    model.observe(Some(time_ms), now_ms());
    let seen = kit::model::Seen {
        time_ms: model.stream_time_ms.expect("a time"),
        ordinal: model.ordinals_taken,
        first_offset: -1,
    };
    model.seen.insert(id.to_vec(), seen);
    model.ordinals_taken += 1;
}

fn id_of(record: &Rec) -> Vec<u8> {
    record.header("message-id").expect("an id").to_vec()
}

/// What the model lets through of an input from this offset on, and the first offsets of its duplicates.
fn judge_from(model: &mut Model, input: &[(i64, Rec)], from: i64) -> (Vec<Rec>, Vec<i64>) {
    let (mut forwarded, mut firsts) = (Vec::new(), Vec::new());
    for (offset, record) in input.iter().filter(|(offset, _)| *offset >= from) {
        let time_ms = Some(record.timestamp);
        match model.judge(&id_of(record), time_ms, now_ms(), *offset) {
            Judged::Forward => forwarded.push(record.clone()),
            Judged::Duplicate { first_offset, .. } => firsts.push(first_offset),
            Judged::NoId => panic!("no id"),
        }
    }
    (forwarded, firsts)
}

/// Runs `preload` until it dies at this point.
fn preload_dies(it: &Deployment, arguments: &[&str], point: &str) {
    let ended = Command::new(BINARY)
        .args(["preload", "-c"])
        .arg(it.config_file())
        .args(arguments)
        .env("FAILPOINTS", format!("{point}=return"))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), None, "{point}: {text}");
}

fn refused(it: &Deployment, words: &str) {
    let mut service = it.start("refused");
    assert_eq!(
        service.wait(PATIENCE).code(),
        Some(78),
        "{}",
        service.log_tail()
    );
    let log = service.log_text();
    assert!(log.contains(words), "no {words:?} in\n{log}");
}

#[test]
fn a_cut_over_forgets_nothing_whatever_happens_to_the_preload() {
    let it = Deployment::new("cutover", 2, &format!("{SMALL}{SIDE}{}", yaml(&HOUR)));
    it.kafka.create_topic(&it.output, 2, &[]);
    let begins = now_ms() - 4 * 60 * MINUTE_MS;
    let mut dice = Dice(5);
    let old: Vec<Vec<Rec>> = (0..2)
        .map(|_| records(&mut dice, 0..1200, begins))
        .collect();
    for partition in 0..2 {
        // What the old pipeline has read, and what it made of it.
        let records = &old[usize::try_from(partition).expect("small")];
        broker().produce(&it.input, partition, &records[..700]);
        broker().produce(&it.output, partition, records);
    }
    let arguments = ["--from-topic", "--from", "earliest", "--start-at", "latest"];
    let again = || {
        let all = [&["preload"], &arguments[..]].concat();
        command(&it, &all)
    };
    for point in ["preload-begun", "preload-part", "preload-last"] {
        preload_dies(&it, &arguments, point);
        if point == "preload-part" {
            refused(
                &it,
                "was begun and not finished. Run kafka-dedup preload again",
            );
        }
    }
    preload_dies(&it, &arguments, "preload-done");
    let (status, _, err) = again();
    assert_eq!(status, 78, "{err}");
    assert!(err.contains("is preloaded already"), "{err}");
    let (status, out, err) = command(&it, &["inspect", "--id", "1199"]);
    assert_eq!(status, 0, "{err}");
    assert!(
        out.contains("none of this topic: it was preloaded"),
        "{out}"
    );

    let mut models = [Model::new(HOUR), Model::new(HOUR)];
    let mut forwarded = [Vec::new(), Vec::new()];
    for (model, records) in models.iter_mut().zip(&old) {
        for record in records {
            preloaded(model, &id_of(record), record.timestamp);
        }
    }
    for (round, numbers) in [1200..1500, 1500..1900].into_iter().enumerate() {
        for partition in 0..2 {
            let records = records(&mut dice, numbers.clone(), begins);
            broker().produce(&it.input, partition, &records);
        }
        if round == 1 {
            lose_store(&it);
        }
        judge_all(&it, |_| {
            wait_for("the journal to be trimmed", PATIENCE, || {
                (0..2).all(|partition| broker().low_watermark(&it.journal(), partition) > 0)
            });
        });
    }
    let mut of_old = 0;
    it.assert_output(|partition, input| {
        let at = usize::try_from(partition).expect("small");
        let (let_through, firsts) = judge_from(&mut models[at], input, 700);
        of_old += firsts.iter().filter(|first| **first == -1).count();
        let told: Vec<i64> = it
            .kafka
            .read_partition(&format!("{}_dup", it.input), partition)
            .iter()
            .map(|(_, record)| {
                let text = record.header("dedup-first-offset").expect("a header");
                String::from_utf8_lossy(text).parse().expect("an offset")
            })
            .collect();
        assert_eq!(told, firsts);
        forwarded[at] = let_through.clone();
        [old[at].clone(), let_through].concat()
    });
    assert!(of_old > 50, "{of_old} repeats of what was preloaded");
    let (status, _, err) = again();
    assert_eq!(status, 78, "{err}");
    assert!(err.contains("has begun to read"), "{err}");
    // The journal has been trimmed beyond what was preloaded: nobody can know, and that is said.
    let (status, out, err) = command(&it, &["verify"]);
    assert_eq!(status, 0, "{out}{err}");
    assert!(
        out.contains("ids were preloaded before the group began"),
        "{out}"
    );
    assert!(out.contains(" 700-1400 "), "{out}");
}

#[test]
fn a_deployment_moves_to_another_cluster_with_its_export() {
    let extra = format!("{SMALL}{}", yaml(&HOUR));
    let it = Deployment::new("moved", 2, &extra);
    let begins = now_ms() - 4 * 60 * MINUTE_MS;
    let mut dice = Dice(12);
    let mut models = [Model::new(HOUR), Model::new(HOUR)];
    for partition in 0..2 {
        let records = records(&mut dice, 0..1000, begins);
        broker().produce(&it.input, partition, &records);
    }
    judge_all(&it, |_| {});
    it.assert_output(|partition, input| {
        let at = usize::try_from(partition).expect("small");
        judge_from(&mut models[at], input, 0).0
    });
    let file = it.dir.path().join("seen.csv");
    let path = file.to_str().expect("a path");
    let (status, _, err) = command(&it, &["export", "--output", path]);
    assert_eq!(status, 0, "{err}");

    let dir = tempfile::TempDir::new().expect("a directory for the broker");
    let cluster = kafka_dedup::demo::broker::Cluster::start(1, dir.path()).expect("a broker");
    let there = kit::Kafka::at(cluster.bootstrap());
    there.create_topic(&it.input, 2, &[]);
    let there = Deployment::of(&there, it.input.clone(), 2, &extra);
    for partition in 0..2 {
        let records = records(&mut dice, 1000..1600, begins);
        there.kafka.produce(&there.input, partition, &records);
    }
    let arguments = ["preload", "--from-file", path, "--start-at", "earliest"];
    let mut other = Deployment::of(&there.kafka, it.input.clone(), 2, &extra);
    other.group = format!("{}-other", it.group);
    let (status, _, err) = command(&other, &arguments);
    assert_eq!(status, 64, "{err}");
    assert!(
        err.contains("seen.csv:2: the fingerprint is of the deployment"),
        "{err}"
    );
    let (status, out, err) = command(&there, &arguments);
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("preloaded: the group can be started"), "{out}");
    judge_all(&there, |_| {});
    let mut of_old = 0;
    there.assert_output(|partition, input| {
        let at = usize::try_from(partition).expect("small");
        let before = models[at].seen.clone();
        let (forwarded, firsts) = judge_from(&mut models[at], input, 0);
        of_old += firsts.len();
        assert!(!before.is_empty());
        forwarded
    });
    assert!(of_old > 200, "{of_old}");
    let (status, out, err) = command(&there, &["verify"]);
    assert_eq!(status, 0, "{out}{err}");
}

#[test]
fn ids_of_a_file_go_where_it_says_and_faults_write_nothing() {
    let it = Deployment::new("listed", 2, &format!("{SMALL}window: {{time: 24h}}\n"));
    let preload = |name: &str, text: &str, arguments: &[&str]| {
        let file = it.dir.path().join(name);
        fs::write(&file, text).expect("written");
        let from = [
            "preload",
            "--start-at",
            "latest",
            "--from-file",
            file.to_str().expect("a path"),
        ];
        command(&it, &[&from, arguments].concat())
    };
    for (text, line, words) in [
        (
            "id,partition\na,0\nb,2\n",
            3,
            "found partition 2, expected 0 to 1",
        ),
        ("id,time\na,soon\n", 2, "found the time soon"),
        ("id,time\na\n", 2, "found 1 columns, and the head has 2"),
        ("fingerprint\n00\n", 1, "without the column deployment"),
        ("id,fingerprint\n", 1, "names id and fingerprint"),
    ] {
        let (status, _, err) = preload("bad.csv", text, &[]);
        assert_eq!(status, 64, "{err}");
        assert!(
            err.contains(&format!("bad.csv:{line}: ")) && err.contains(words),
            "{err}"
        );
    }
    let (status, _, err) = preload("bad.txt", "6g\n", &["--hex"]);
    assert_eq!(status, 64, "{err}");
    let end = |partition| {
        it.kafka
            .watermarks(&it.journal(), partition, "read_uncommitted")
            .1
    };
    assert_eq!((end(0), end(1)), (0, 0), "nothing was written");
    let narrow = it.kafka.clone();
    let three = kit::unique("three");
    narrow.create_topic(&three, 3, &[]);
    let (status, _, err) = command(
        &it,
        &["preload", "--start-at", "latest", "--from-topic", &three],
    );
    assert_eq!(status, 78, "{err}");
    assert!(err.contains("has 3 partitions, and the input"), "{err}");

    // A second one begins anew: nothing of an unfinished one counts.
    let file = it.dir.path().join("first.txt");
    fs::write(&file, "gone\n").expect("written");
    let path = file.to_str().expect("a path");
    preload_dies(
        &it,
        &["--start-at", "latest", "--from-file", path],
        "preload-last",
    );
    let now = now_ms();
    let text = format!(
        "time,partition,id\n{},0,old\n{},1,\"a,b\"\n{now},,everywhere\n{now},1,\n",
        now - 25 * 60 * MINUTE_MS,
        now - MINUTE_MS
    );
    let (status, out, err) = preload("ids.csv", &text, &["--json"]);
    assert_eq!(status, 0, "{err}");
    let json: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(json["partitions"][0]["ids"], 2, "{json:#}");
    assert_eq!(json["partitions"][1]["ids"], 2);
    assert_eq!(json["without_id"], 1);
    let sent = ["old", "a,b", "everywhere", "gone", "new"];
    for partition in 0..2 {
        let records: Vec<Rec> = sent.iter().map(|id| Rec::with_id(id, now)).collect();
        broker().produce(&it.input, partition, &records);
    }
    let mut service = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    assert!(service.terminate().success());
    it.assert_output(|partition, input| {
        let known: &[&str] = [&["everywhere"][..], &["a,b", "everywhere"]]
            [usize::try_from(partition).expect("small")];
        let is_new = |record: &&(i64, Rec)| {
            !known
                .iter()
                .any(|known| known.as_bytes() == id_of(&record.1))
        };
        input
            .iter()
            .filter(is_new)
            .map(|(_, record)| record.clone())
            .collect()
    });
    let (status, out, err) = command(&it, &["verify", "--strict"]);
    assert_eq!(status, 0, "{out}{err}");
}
