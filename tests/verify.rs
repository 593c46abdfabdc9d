//! `verify`, on what a real service has made of an input: an honest output passes, every kind of
//! difference is found once and named, and what cannot be known is said so.

#[path = "kit/mod.rs"]
mod kit;

use std::process::Command;
use std::time::Duration;

use kafka_dedup::identify::{Identity, deployment_seed};
use kafka_dedup::repartition::{Mark, Passed};
use kit::stream::Stream;
use kit::{Deployment, Dice, Rec, broker, flush, now_ms, send, unique};
use rdkafka::producer::Producer;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const MINUTE_MS: i64 = 60_000;
const SIDES: &str = "duplicates: {topic: \"{topic}_dup\"}\nrejected: {topic: \"{topic}_rej\"}\n";

struct Verified {
    status: i32,
    out: String,
    err: String,
}

impl Verified {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}:\n{}\n{}", self.out, self.err))
    }

    fn says(&self, words: &[&str]) {
        for word in words {
            assert!(
                self.out.contains(word) || self.err.contains(word),
                "no {word:?} in\n{}\n{}",
                self.out,
                self.err
            );
        }
    }
}

fn verify(it: &Deployment, arguments: &[&str], env: &[(&str, &str)]) -> Verified {
    let output = Command::new(kit::BINARY)
        .args(["verify", "-c"])
        .arg(it.config_file())
        .args(arguments)
        .envs(env.iter().copied())
        .output()
        .expect("verify runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let it = Verified {
        status: output.status.code().expect("a status"),
        out: text(output.stdout),
        err: text(output.stderr),
    };
    if std::env::var_os("SHOW").is_some() {
        println!(
            "$ verify {arguments:?} {env:?}: {}\n{}{}",
            it.status, it.out, it.err
        );
    }
    it
}

/// Passes, with nothing that cannot be known; gives the JSON.
fn passes(it: &Deployment, arguments: &[&str], env: &[(&str, &str)]) -> Value {
    let arguments = [&["--json", "--strict"], arguments].concat();
    let verified = verify(it, &arguments, env);
    assert_eq!(verified.status, 0, "{}\n{}", verified.out, verified.err);
    let json = verified.json();
    assert_eq!(json["verdict"], "passed");
    json
}

fn count(json: &Value, name: &str) -> i64 {
    json["total"][name].as_i64().expect("a count")
}

/// missing, extra, altered, reordered
fn differences(json: &Value) -> [i64; 4] {
    ["missing", "extra", "altered", "reordered"].map(|name| count(json, name))
}

/// Runs the service until it has judged all that is there.
fn judge_all(it: &Deployment) {
    let mut service = it.start("one");
    it.wait_until_caught_up(PATIENCE);
    assert!(service.terminate().success());
}

/// A topic beside the honest one, with these records instead.
fn forged(it: &Deployment, partitions: i32, records: &[Vec<Rec>]) -> String {
    let name = unique("forged");
    it.kafka.create_topic(
        &name,
        partitions,
        &[("message.timestamp.after.max.ms", "9223372036854775807")],
    );
    for (partition, records) in (0..).zip(records) {
        it.kafka.produce(&name, partition, records);
    }
    name
}

fn records(it: &Deployment, topic: &str, partition: i32) -> Vec<Rec> {
    let records = it.kafka.read_partition(topic, partition);
    records.into_iter().map(|(_, record)| record).collect()
}

/// Repeats near and far, late records, records without an id: all that the rules speak of.
fn mixture(partition: i64, count: i64, start_ms: i64) -> Vec<Rec> {
    let mut dice = Dice(77 + partition.unsigned_abs());
    let mut roll = |sides: u64| i64::try_from(dice.roll(sides)).expect("small");
    (0..count)
        .map(|n| {
            let id = match roll(10) {
                0..=2 => n - roll(30),
                3 => n - roll(600),
                _ => n,
            };
            let late = if roll(8) == 0 { roll(3 * 60_000) } else { 0 };
            let time = start_ms + n * 1000 - late;
            let mut record = Rec::with_id(format!("{partition}-{id}"), time);
            record.key = Some(format!("key-{}", id.rem_euclid(17)).into_bytes());
            record.headers.insert(0, ("x".to_owned(), None));
            if roll(20) == 0 {
                record.headers.truncate(1);
            }
            record
        })
        .collect()
}

fn judged(extra: &str, partitions: i32) -> Deployment {
    let it = Deployment::new("audited", partitions, extra);
    for partition in 0..partitions {
        let mix = mixture(partition.into(), 1500, now_ms() - 1_600_000);
        broker().produce(&it.input, partition, &mix);
    }
    judge_all(&it);
    it
}

#[test]
fn an_honest_output_passes_under_all_rules() {
    for rules in [
        "window: {time: 5m}\n",
        "window: {time: 5m, refresh: true}\nid: {from: {header: message-id}, missing: reject}\n",
        "window: {ids: 100}\nid: {from: {header: message-id}, missing: drop}\n",
        "window: {time: 10m, ids: 300, refresh: true}\n",
    ] {
        let it = judged(&format!("{rules}{SIDES}transaction: {{records: 100}}\n"), 2);
        let json = passes(&it, &[], &[]);
        assert_eq!(count(&json, "received"), 3000, "{rules}");
        let kinds = ["forwarded", "duplicates", "rejected", "dropped"];
        let kinds = kinds.map(|kind| count(&json, kind));
        assert_eq!(kinds.iter().sum::<i64>(), 3000, "{rules}: {kinds:?}");
        assert!(kinds[1] > 300, "{rules}: {kinds:?}");
        let output: usize = (0..2).map(|p| records(&it, &it.output, p).len()).sum();
        assert_eq!(i64::try_from(output).expect("small"), kinds[0], "{rules}");
        let rows = json["partitions"].as_array().expect("rows");
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (&rows[1]["from"], &rows[1]["to"]),
            (&0.into(), &1500.into())
        );
        let one = passes(&it, &["--partition", "1", "--topic", &it.input], &[]);
        assert_eq!(count(&one, "received"), 1500);
    }
    let text = verify(&judged("window: {time: 5m}\n", 1), &[], &[]);
    assert_eq!(text.status, 0);
    text.says(&[
        "partition",
        "received",
        "passed: the output is what it must be",
        "0-1500",
    ]);
    assert!(text.err.is_empty(), "{}", text.err);
}

#[test]
fn every_difference_is_found_once_and_named() {
    let it = judged("window: {time: 5m}\n", 1);
    let honest = records(&it, &it.output, 0);
    let input = it.kafka.read_partition(&it.input, 0);
    let in_input = |record: &Rec| {
        let place = input.iter().find(|(_, other)| other == record);
        place.expect("it was in the input").0
    };
    type Forge = fn(&mut Vec<Rec>);
    let cases: [(&str, [i64; 4], Forge); 13] = [
        ("missing", [1, 0, 0, 0], |out| drop(out.remove(500))),
        ("missing", [1, 0, 0, 0], |out| drop(out.remove(0))),
        ("missing", [20, 0, 0, 0], |out| {
            let end = out.len() - 20;
            out.truncate(end);
        }),
        // An id that is in the window.
        ("extra", [0, 1, 0, 0], |out| {
            out.insert(501, out[500].clone())
        }),
        ("extra", [0, 1, 0, 0], |out| out.push(out[900].clone())),
        ("extra", [0, 1, 0, 0], |out| {
            out.insert(0, Rec::with_id("stranger", 1))
        }),
        ("altered", [0, 0, 1, 0], |out| out[500].key = None),
        ("altered", [0, 0, 1, 0], |out| {
            out[500].value = Some(Vec::new())
        }),
        ("altered", [0, 0, 1, 0], |out| out[500].timestamp += 1),
        ("altered", [0, 0, 1, 0], |out| {
            out[500].headers[0].1 = Some(Vec::new())
        }),
        // The id itself: known by its place.
        ("altered", [0, 0, 1, 0], |out| {
            out[500].headers = vec![("message-id".to_owned(), Some(b"\x1b[31mbad".to_vec()))];
        }),
        ("reordered", [0, 0, 0, 1], |out| {
            let moved = out.remove(500);
            out.insert(520, moved);
        }),
        ("reordered", [0, 0, 0, 1], |out| {
            let moved = out.remove(520);
            out.insert(500, moved);
        }),
    ];
    for (number, (kind, want, forge)) in cases.into_iter().enumerate() {
        let mut out = honest.clone();
        forge(&mut out);
        let forged = forged(&it, 1, &[out]);
        let env = [("KAFKA_DEDUP__OUTPUT__TOPIC", forged.as_str())];
        let verified = verify(&it, &["--json"], &env);
        assert_eq!(verified.status, 1, "{number}: {}", verified.err);
        let json = verified.json();
        assert_eq!(json["verdict"], "failed");
        assert_eq!(differences(&json), want, "case {number}: {json:#}");
        let first = &json["differences"][0];
        assert_eq!(first["kind"], kind, "{json:#}");
        assert_eq!(first["output_topic"], forged.as_str());
        let at = |side: &str| first[side]["offset"].as_i64();
        match number {
            0 => assert_eq!(at("input"), Some(in_input(&honest[500]))),
            3 => assert_eq!(
                (at("input"), at("output")),
                (Some(in_input(&honest[500])), Some(501))
            ),
            5 => assert_eq!((at("input"), at("output")), (None, Some(0))),
            6 => assert_eq!(first["parts"], "key"),
            7 => assert_eq!(first["parts"], "value"),
            8 => assert_eq!(first["parts"], "timestamp"),
            9 => assert_eq!(first["parts"], "headers"),
            11 => assert_eq!(
                (at("input"), at("output")),
                (Some(in_input(&honest[500])), Some(520))
            ),
            12 => assert_eq!(
                (at("input"), at("output")),
                (Some(in_input(&honest[520])), Some(500))
            ),
            _ => {}
        }
        let text = verify(&it, &[], &env);
        assert_eq!(text.status, 1);
        text.says(&[
            &format!("  {kind}: "),
            "FAILED: ",
            "the output is not what it must be",
        ]);
        assert!(
            !text.out.contains('\x1b'),
            "an id never acts on the terminal"
        );
    }
}

#[test]
fn windows_that_are_applied_wrongly_are_found() {
    // As if the service had had another window than the file says.
    let it = judged("window: {time: 5m}\n", 1);
    let longer = verify(&it, &["--json"], &[("KAFKA_DEDUP__WINDOW__TIME", "6m")]);
    assert_eq!(longer.status, 1);
    let [missing, extra, altered, reordered] = differences(&longer.json());
    assert!(
        extra > 0 && missing + altered + reordered == 0,
        "{}",
        longer.out
    );
    let shorter = verify(&it, &["--json"], &[("KAFKA_DEDUP__WINDOW__TIME", "4m")]);
    assert_eq!(shorter.status, 1);
    assert!(differences(&shorter.json())[0] > 0, "{}", shorter.out);
}

#[test]
fn side_topics_are_audited_too() {
    let extra = format!(
        "window: {{time: 5m}}\nid: {{from: {{header: message-id}}, missing: reject}}\n{SIDES}"
    );
    let it = judged(&extra, 1);
    let dup = records(&it, &format!("{}_dup", it.input), 0);
    let rej = records(&it, &format!("{}_rej", it.input), 0);
    assert!(dup.len() > 100 && rej.len() > 20);
    let set = |record: &mut Rec, name: &str, value: &str| {
        let header = record.headers.iter_mut().find(|(key, _)| key == name);
        header.expect("the header").1 = Some(value.as_bytes().to_vec());
    };
    type Forge<'a> = Box<dyn Fn(&mut Vec<Rec>) + 'a>;
    let cases: [(&str, &[Rec], [i64; 4], Forge<'_>); 6] = [
        (
            "DUPLICATES",
            &dup,
            [1, 0, 0, 0],
            Box::new(|out| drop(out.remove(50))),
        ),
        (
            "DUPLICATES",
            &dup,
            [0, 1, 0, 0],
            Box::new(|out| out.push(out[60].clone())),
        ),
        (
            "DUPLICATES",
            &dup,
            [0, 0, 1, 0],
            Box::new(|out| set(&mut out[50], "dedup-first-offset", "1")),
        ),
        (
            "DUPLICATES",
            &dup,
            [0, 0, 1, 0],
            Box::new(|out| set(&mut out[50], "dedup-age-ms", "7777777")),
        ),
        (
            "REJECTED",
            &rej,
            [1, 0, 0, 0],
            Box::new(|out| drop(out.remove(5))),
        ),
        (
            "REJECTED",
            &rej,
            [0, 0, 0, 1],
            Box::new(|out| out.swap(5, 6)),
        ),
    ];
    for (number, (which, honest, want, forge)) in cases.into_iter().enumerate() {
        let mut out = honest.to_vec();
        forge(&mut out);
        let forged = forged(&it, 1, &[out]);
        let variable = format!("KAFKA_DEDUP__{which}__TOPIC");
        let verified = verify(&it, &["--json"], &[(&variable, &forged)]);
        assert_eq!(verified.status, 1, "{number}: {}", verified.err);
        let json = verified.json();
        assert_eq!(differences(&json), want, "case {number}: {json:#}");
        assert_eq!(json["differences"][0]["role"], which.to_lowercase());
    }
}

#[test]
fn marked_outputs_are_audited_too() {
    let rules = "window: {time: 5m}\nid: {from: {header: message-id}, missing: reject}\n";
    let extra = format!("{rules}mode: mark\nrejected: {{topic: \"{{topic}}_rej\"}}\n");
    let it = judged(&extra, 1);
    let json = passes(&it, &[], &[]);
    assert!(count(&json, "duplicates") > 100 && count(&json, "rejected") > 20);
    // From the middle some verdicts are not known at first, but each record is there, marked or not.
    let part = verify(&it, &["--json", "--from", "900s"], &[]);
    assert_eq!(part.status, 0, "{}{}", part.out, part.err);
    assert_eq!(differences(&part.json()), [0, 0, 0, 0]);

    let honest = records(&it, &it.output, 0);
    let is_marked = |record: &Rec| record.header("dedup-first-offset").is_some();
    let marked = honest.iter().position(is_marked).expect("a duplicate");
    type Forge<'a> = Box<dyn Fn(&mut Vec<Rec>) + 'a>;
    let cases: [(&str, Forge<'_>); 5] = [
        ("missing", Box::new(|out| drop(out.remove(marked)))),
        ("altered", Box::new(|out| out[marked].headers.truncate(2))),
        ("altered", Box::new(|out| out[marked].value = None)),
        (
            "altered",
            Box::new(|out| {
                let headers = &mut out[marked].headers;
                let age = headers.iter_mut().find(|(name, _)| name == "dedup-age-ms");
                age.expect("the header").1 = Some(b"7777777".to_vec());
            }),
        ),
        ("extra", Box::new(|out| out.push(out[marked].clone()))),
    ];
    for (number, (kind, forge)) in cases.into_iter().enumerate() {
        let mut out = honest.clone();
        forge(&mut out);
        let forged = forged(&it, 1, &[out]);
        let verified = verify(&it, &["--json"], &[("KAFKA_DEDUP__OUTPUT__TOPIC", &forged)]);
        assert_eq!(verified.status, 1, "{number}: {}", verified.err);
        let json = verified.json();
        assert_eq!(
            differences(&json).iter().sum::<i64>(),
            1,
            "case {number}: {json:#}"
        );
        assert_eq!(
            json["differences"][0]["kind"], kind,
            "case {number}: {json:#}"
        );
    }
    let observing = verify(&it, &[], &[("KAFKA_DEDUP__MODE", "observe")]);
    assert_eq!(observing.status, 64);
    observing.says(&["mode: observe writes no record"]);
}

#[test]
fn many_differences_do_not_become_more() {
    let it = Deployment::new("many", 1, "window: {time: 24h}\n");
    let start = now_ms() - 100_000;
    let all: Vec<Rec> = (0..60_000)
        .map(|n| Rec::with_id(n.to_string(), start + n))
        .collect();
    broker().produce(&it.input, 0, &all);
    judge_all(&it);
    // 20,000 in a row are more than wait for their counterpart.
    let mut out = all.clone();
    out.drain(10_000..30_000);
    out[20_000].value = None;
    let strangers = (0..25_000).map(|n| Rec::with_id(format!("old-{n}"), start - 1_000_000 + n));
    let out: Vec<Rec> = strangers.chain(out).collect();
    let forged = forged(&it, 1, &[out]);
    let verified = verify(&it, &["--json"], &[("KAFKA_DEDUP__OUTPUT__TOPIC", &forged)]);
    assert_eq!(verified.status, 1);
    let json = verified.json();
    assert_eq!(differences(&json), [20_000, 25_000, 1, 0]);
    assert_eq!(json["differences"].as_array().map(Vec::len), Some(20));
}

#[test]
fn a_running_service_can_be_audited() {
    let it = Deployment::new("running", 2, &format!("window: {{time: 1h}}\n{SIDES}"));
    let stream = Stream::start(&it.kafka, &it.input, 2, 5);
    let mut service = it.start("one");
    service.wait_until_ready();
    let committed = || {
        (0..2).all(|p| {
            it.kafka
                .committed(&it.group, &it.input, p)
                .is_some_and(|at| at > 500)
        })
    };
    kit::wait_for("some work", PATIENCE, committed);
    let mut received = 0;
    for _ in 0..5 {
        let json = passes(&it, &[], &[]);
        assert!(count(&json, "received") > received, "it goes on meanwhile");
        received = count(&json, "received");
    }
    stream.finish();
    assert!(service.terminate().success());
    passes(&it, &[], &[]);
}

#[test]
fn partitions_that_meet_in_the_output_are_audited_together() {
    let it = Deployment::new("keyed", 3, "window: {time: 5m}\noutput: {partition: key}\n");
    let start = now_ms() - 1_600_000;
    for partition in 0..3 {
        let mut mix = mixture(partition.into(), 1500, start);
        // The same records in all partitions: which of them came out where cannot be told.
        for n in (0..1500).step_by(10) {
            let twin = i64::try_from(n).expect("small");
            mix[n] = Rec::with_id(format!("twin-{n}"), start + twin * 1000);
        }
        broker().produce(&it.input, partition, &mix);
    }
    judge_all(&it);
    let json = passes(&it, &[], &[]);
    assert_eq!(count(&json, "received"), 4500);
    let mut out: Vec<Vec<Rec>> = (0..3).map(|p| records(&it, &it.output, p)).collect();
    let busy = (0..3).max_by_key(|p| out[*p].len()).expect("three");
    let own = |record: &Rec| {
        !record
            .header("message-id")
            .unwrap_or(b"twin")
            .starts_with(b"twin")
    };
    let at = (100..)
        .find(|at| own(&out[busy][*at]))
        .expect("one that has no twin");
    out[busy].remove(at);
    let name = forged(&it, 3, &out);
    let verified = verify(&it, &["--json"], &[("KAFKA_DEDUP__OUTPUT__TOPIC", &name)]);
    assert_eq!(
        differences(&verified.json()),
        [1, 0, 0, 0],
        "{}",
        verified.out
    );
    let refused = verify(&it, &["--partition", "1"], &[]);
    assert_eq!(refused.status, 64);
    refused.says(&["can only be audited together"]);
}

/// Which of two partitions was read first is not known; what must hold whichever it was is held against
/// what is there.
#[test]
fn partitions_that_share_what_they_have_seen_are_audited_together() {
    let it = Deployment::new("kin", 3, "scope: topic\nwindow: {time: 2h}\n");
    let start = now_ms() - 3_600_000;
    let record = |n: i64| Rec::with_id(format!("id-{n}"), start + n * 1000);
    let mut input = vec![Vec::new(); 3];
    for n in 0..600 {
        let at = usize::try_from(n).expect("small") % 3;
        input[at].push(record(n));
        if n % 4 == 0 {
            // Byte by byte the same, in a partition that may be read first.
            input[(at + 1) % 3].push(record(n));
        }
    }
    for (partition, records) in (0..).zip(&input) {
        it.kafka.produce(&it.input, partition, records);
    }
    judge_all(&it);
    let honest: Vec<Vec<Rec>> = (0..3).map(|p| records(&it, &it.output, p)).collect();
    let json = passes(&it, &[], &[]);
    assert_eq!(count(&json, "received"), 750);
    assert_eq!(
        (count(&json, "forwarded"), count(&json, "duplicates")),
        (600, 150)
    );

    let audited = |there: &[Vec<Rec>]| {
        let topic = forged(&it, 3, there);
        let env = [("KAFKA_DEDUP__OUTPUT__TOPIC", topic.as_str())];
        verify(&it, &["--json", "--strict"], &env)
    };
    let mut there = honest.clone();
    let lost = there[1].remove(100);
    let verified = audited(&there);
    assert_ne!(verified.status, 0);
    assert_eq!(differences(&verified.json()), [1, 0, 0, 0]);
    verified.says(&[std::str::from_utf8(lost.header("message-id").expect("an id")).expect("text")]);

    let mut there = honest.clone();
    let again = there[2][50].clone();
    there[2].push(again);
    let verified = audited(&there);
    assert_ne!(verified.status, 0);
    assert_eq!(differences(&verified.json()), [0, 1, 0, 0]);

    let mut there = honest.clone();
    there[0].swap(10, 90);
    let verified = audited(&there);
    assert_ne!(verified.status, 0);
    // Not where it may be, and somewhere else.
    assert!(differences(&verified.json())[1] > 0, "{}", verified.out);

    // Every duplicate is let through: nothing that an input has not, and each id too often.
    let verified = audited(&input);
    assert_ne!(verified.status, 0);
    assert_eq!(differences(&verified.json()), [0; 4]);
    verified.says(&["150 records of the output have an id that was there before"]);
    let refused = verify(&it, &["--partition", "1"], &[]);
    assert_eq!(refused.status, 64);
}

/// Of each record it is not known which of two places it is in, and nothing ever comes in the one: that is not
/// waited for, however many there are.
#[test]
fn many_records_of_which_none_is_a_duplicate_pass() {
    let extra = format!("scope: topic\ntransaction: {{records: 500}}\n{SIDES}");
    let it = Deployment::new("none", 1, &extra);
    let start = now_ms() - 60 * MINUTE_MS;
    let record = |n: i64| Rec::with_id(n.to_string(), start + n);
    let all: Vec<Rec> = (0..60_000).map(record).collect();
    it.kafka.produce(&it.input, 0, &all);
    judge_all(&it);
    let verified = verify(&it, &["--json"], &[]);
    let json = verified.json();
    assert_eq!(json["verdict"], "passed", "{}", verified.out);
    assert_eq!(differences(&json), [0; 4]);
    assert_eq!(count(&json, "forwarded"), 60_000);
}

#[test]
fn aborted_input_is_not_received() {
    let it = Deployment::new("aborting", 1, "window: {time: 1h}\n");
    let producer = it
        .kafka
        .producer(&[("transactional.id", &unique("upstream"))]);
    producer.init_transactions(PATIENCE).expect("initialised");
    let start = now_ms() - MINUTE_MS;
    for round in 0..20 {
        producer.begin_transaction().expect("begun");
        for n in 0..20 {
            let record = Rec::with_id((round * 10 + n).to_string(), start + n);
            send(&producer, &it.input, 0, &record);
        }
        if round % 2 == 0 {
            flush(&producer);
            producer.abort_transaction(PATIENCE).expect("aborted");
        } else {
            producer.commit_transaction(PATIENCE).expect("committed");
        }
    }
    judge_all(&it);
    let json = passes(&it, &[], &[]);
    assert_eq!(count(&json, "received"), 200);
}

#[test]
fn what_retention_took_cannot_be_known() {
    let it = judged("window: {time: 5m, max_ahead: 3m}\n", 1);
    it.kafka.delete_before(&it.input, 0, 700);
    let verified = verify(&it, &["--json"], &[]);
    assert_eq!(verified.status, 0, "{}\n{}", verified.out, verified.err);
    let json = verified.json();
    assert_eq!(json["verdict"], "passed-as-far-as-known");
    assert_eq!(count(&json, "received"), 800);
    // A window of five minutes: 300 records of a second each, and the late ones.
    let unknown = count(&json, "unknown");
    assert!((1..300).contains(&unknown), "{unknown}");
    let text = verify(&it, &[], &[]);
    text.says(&[
        "cannot know: ",
        "offsets 0 to 699 of the input are gone",
        "passed as far as can be known",
    ]);
    let strict = verify(&it, &["--strict"], &[]);
    assert_eq!(strict.status, 1);
    strict.says(&["--strict"]);
    // A difference behind the part that cannot be known is found as ever.
    let mut out = records(&it, &it.output, 0);
    let end = out.len() - 100;
    out.remove(end);
    let name = forged(&it, 1, &[out]);
    let env = [("KAFKA_DEDUP__OUTPUT__TOPIC", name.as_str())];
    let found = verify(&it, &["--json"], &env);
    assert_eq!(
        (found.status, differences(&found.json())),
        (1, [1, 0, 0, 0]),
        "{}",
        found.out
    );
    // The output has lost its beginning too, more of it and then less.
    for keep in [100, 700] {
        let high = it.kafka.watermarks(&it.output, 0, "read_uncommitted").1;
        it.kafka.delete_before(
            &it.output,
            0,
            (high - keep).max(it.kafka.low_watermark(&it.output, 0)),
        );
        let verified = verify(&it, &["--json"], &[]);
        assert_eq!(verified.status, 0, "{}\n{}", verified.out, verified.err);
        verified.says(&["its beginning is gone"]);
    }
}

#[test]
fn a_range_is_audited_with_what_was_seen_before_it() {
    let it = judged("window: {time: 5m}\n", 1);
    let json = passes(&it, &["--from", "400", "--to", "900"], &[]);
    assert_eq!(count(&json, "received"), 500);
    let whole = passes(&it, &["--from", "1970-01-01T00:00:00Z"], &[]);
    assert_eq!(count(&whole, "received"), 1500);
    // 1500 records a second apart ended 100 s ago.
    let late = passes(&it, &["--from", "600s"], &[]);
    let received = count(&late, "received");
    assert!((300..700).contains(&received), "{received}");
    // What is missing before the range is not asked for, what is missing in it is.
    let mut out = records(&it, &it.output, 0);
    let last = out.len() - 50;
    out.remove(last);
    out.remove(10);
    let name = forged(&it, 1, &[out]);
    let env = [("KAFKA_DEDUP__OUTPUT__TOPIC", name.as_str())];
    for from in ["600s", "900"] {
        let found = verify(&it, &["--json", "--from", from], &env);
        assert_eq!(
            differences(&found.json()),
            [1, 0, 0, 0],
            "{from}: {}",
            found.out
        );
    }
    let none = verify(&it, &["--json", "--from", "900", "--to", "1000"], &env);
    assert_eq!(
        (none.status, differences(&none.json())),
        (0, [0; 4]),
        "{}",
        none.out
    );
}

#[test]
fn a_group_that_began_at_the_end_is_audited_from_there() {
    let it = Deployment::new("late", 1, "");
    let extra = format!(
        "input: {{topics: [\"{}\"], start: latest}}\nwindow: {{time: 1h}}\n",
        it.input
    );
    let it = Deployment { extra, ..it };
    let start = now_ms() - 10 * MINUTE_MS;
    let before: Vec<Rec> = (0..300)
        .map(|n| Rec::with_id(n.to_string(), start + n))
        .collect();
    broker().produce(&it.input, 0, &before);
    let mut service = it.start("one");
    service.wait_until_ready();
    let without = Rec {
        headers: Vec::new(),
        ..Rec::with_id("", start + 1000)
    };
    let after = (250..400).map(|n| Rec::with_id((n % 350).to_string(), start + 2000 + n));
    let after: Vec<Rec> = std::iter::once(without).chain(after).collect();
    broker().produce(&it.input, 0, &after);
    it.wait_until_caught_up(PATIENCE);
    assert!(service.terminate().success());
    let json = passes(&it, &[], &[]);
    // The record without an id is in no run: where the first transaction had others as well, the
    // range begins behind it.
    let from = json["partitions"][0]["from"].as_i64().expect("an offset");
    assert!((300..=301).contains(&from), "{from}");
    assert_eq!(from + count(&json, "received"), 451);
}

#[test]
fn what_the_output_refuses_is_found_among_the_rejected() {
    let it = Deployment::new("refusing", 1, &format!("window: {{time: 1h}}\n{SIDES}"));
    it.kafka
        .create_topic(&it.output, 1, &[("max.message.bytes", "20000")]);
    let start = now_ms() - MINUTE_MS;
    let sized = |id: i64, bytes: usize| Rec {
        value: Some(vec![b'x'; bytes]),
        ..Rec::with_id(id.to_string(), start + id)
    };
    let mut all: Vec<Rec> = (0..40)
        .map(|n| sized(n, if n % 9 == 4 { 60_000 } else { 10 }))
        .collect();
    // Refused, so not remembered: the next with its id is let through.
    all.push(sized(4, 10));
    all.push(sized(4, 10));
    broker().produce(&it.input, 0, &all);
    judge_all(&it);
    let json = passes(&it, &[], &[]);
    let kinds = ["forwarded", "duplicates", "rejected"].map(|kind| count(&json, kind));
    assert_eq!(kinds, [37, 1, 4]);
}

#[test]
fn strange_times_do_not_deceive() {
    let it = Deployment::new("times", 1, &format!("window: {{time: 30m}}\n{SIDES}"));
    let topic = &it.input;
    let (setting, most) = ("message.timestamp.after.max.ms", i64::MAX.to_string());
    it.kafka.set_topic_config(topic, setting, &most);
    let now = now_ms();
    let mut records = Vec::new();
    for n in 0..300 {
        records.push(Rec::with_id(
            n.to_string(),
            now - 50 * MINUTE_MS + n * 10_000,
        ));
        if n % 50 == 7 {
            // Years ahead of the clock, and a repetition that must still be caught.
            records.push(Rec::with_id(format!("far-{n}"), now + 90_000_000 * n));
            records.push(Rec::with_id(
                n.to_string(),
                now - 50 * MINUTE_MS + n * 10_000,
            ));
        }
        if n % 60 == 9 {
            records.push(Rec::with_id(format!("zero-{n}"), 0));
        }
    }
    // At the very beginning as well.
    records.insert(0, Rec::with_id("first", now + 10_000_000_000));
    broker().produce(topic, 0, &records);
    judge_all(&it);
    let verified = verify(&it, &["--json"], &[]);
    let json = verified.json();
    assert_eq!(differences(&json), [0; 4], "{json:#}");
    assert_eq!(verified.status, 0);
    assert!(count(&json, "unknown") < 5, "{json:#}");
}

#[test]
fn append_times_pass() {
    let it = Deployment::new("append", 1, "window: {time: 1h}\n");
    it.kafka
        .set_topic_config(&it.input, "message.timestamp.type", "LogAppendTime");
    let mix = mixture(0, 300, now_ms() - 1_000_000);
    broker().produce(&it.input, 0, &mix);
    judge_all(&it);
    passes(&it, &[], &[]);
    let copy = unique("copy");
    it.kafka
        .create_topic(&copy, 1, &[("message.timestamp.type", "LogAppendTime")]);
    it.kafka.produce(&copy, 0, &records(&it, &it.output, 0));
    passes(&it, &[], &[("KAFKA_DEDUP__OUTPUT__TOPIC", &copy)]);
}

#[test]
fn a_compacted_input_calls_nothing_missing_or_extra() {
    let it = judged("window: {time: 5m}\n", 1);
    let mut out = records(&it, &it.output, 0);
    out.remove(500);
    out.insert(300, Rec::with_id("gone from the input", now_ms()));
    let name = forged(&it, 1, &[out]);
    it.kafka
        .set_topic_config(&it.input, "cleanup.policy", "compact");
    let verified = verify(&it, &["--json"], &[("KAFKA_DEDUP__OUTPUT__TOPIC", &name)]);
    assert_eq!(
        (verified.status, differences(&verified.json())),
        (0, [0; 4]),
        "{}",
        verified.out
    );
    verified.says(&["the input is compacted", "passed-as-far-as-known"]);
}

#[test]
fn an_open_transaction_is_waited_for_until_somebody_ends_the_audit() {
    let it = Deployment::new("open", 1, "window: {time: 1h}\n");
    it.kafka
        .produce(&it.input, 0, &[Rec::with_id("a", now_ms())]);
    judge_all(&it);
    let producer = it.kafka.producer(&[("transactional.id", &unique("other"))]);
    producer.init_transactions(PATIENCE).expect("initialised");
    producer.begin_transaction().expect("begun");
    send(&producer, &it.output, 0, &Rec::with_id("b", now_ms()));
    flush(&producer);
    let mut child = Command::new(kit::BINARY)
        .args(["verify", "-c"])
        .arg(it.config_file())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("verify runs");
    let status = format!("/proc/{}/status", child.id());
    let listens = || {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & (1 << (libc::SIGINT - 1)) != 0)
    };
    kit::wait_for("it to listen for Ctrl-C", PATIENCE, listens);
    assert!(child.try_wait().expect("its state").is_none(), "it waits");
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: kill takes two plain integers; the child has not been waited for, so the id is its.
    unsafe { libc::kill(pid, libc::SIGINT) };
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing is proved"));
    producer.abort_transaction(PATIENCE).expect("aborted");
    passes(&it, &[], &[]);
}

#[test]
fn troubles_have_their_statuses() {
    let it = Deployment::new("nothing", 1, "");
    let nothing = verify(&it, &[], &[]);
    assert_eq!(nothing.status, 78, "{}", nothing.err);
    nothing.says(&["there is nothing to audit"]);
    let unreachable = verify(
        &it,
        &[],
        &[("KAFKA_DEDUP__KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")],
    );
    assert_eq!(unreachable.status, 69, "{}", unreachable.err);
    let bad = verify(&it, &[], &[("KAFKA_DEDUP__WINDOW__TIME", "soon")]);
    assert_eq!(bad.status, 64);
    let other = verify(&it, &["--topic", "some-other"], &[]);
    assert_eq!(other.status, 64);
    let it = judged("window: {time: 5m}\n", 1);
    let gone = verify(&it, &[], &[("KAFKA_DEDUP__OUTPUT__TOPIC", "never-made")]);
    assert_eq!(gone.status, 78);
    gone.says(&["the output topic never-made does not exist"]);
    let partition = verify(&it, &["--partition", "9"], &[]);
    assert_eq!(partition.status, 64);
    let small = verify(&it, &["--memory", "1KiB"], &[]);
    assert_eq!(small.status, 64);
}

/// Records of different ids are in no order then, and which partition was first is not known; all else is.
#[test]
fn of_two_hops_all_is_audited_but_the_order() {
    let sides = "scope: repartition\nrepartition: {partitions: 3}\nwindow: {time: 2h}\n";
    let it = Deployment::new("two", 2, &format!("{sides}{SIDES}"));
    for partition in 0..2 {
        // The same ids in both.
        let mix = mixture(0, 800, now_ms() - 900_000);
        broker().produce(&it.input, partition, &mix);
    }
    judge_all(&it);
    let json = passes_as_far_as_known(&it, &[], &[]);
    assert_eq!(count(&json, "received"), 1600, "{json:#}");
    assert!(count(&json, "duplicates") > 800, "{json:#}");
    assert_eq!(differences(&json), [0; 4], "{json:#}");
    assert_eq!(count(&json, "unknown"), 0, "{json:#}");

    let honest = [0, 1].map(|partition| records(&it, &it.output, partition));
    type Forge = fn(&mut [Vec<Rec>; 2]);
    let cases: [(&str, [i64; 4], Forge); 6] = [
        ("order", [0, 0, 0, 0], |out| out[0].reverse()),
        ("one is missing", [1, 0, 0, 0], |out| drop(out[0].remove(9))),
        ("a stranger", [0, 1, 0, 0], |out| {
            out[1].push(Rec::with_id("stranger", 1));
        }),
        ("another partition", [1, 1, 0, 0], |out| {
            let moved = out[0].remove(7);
            out[1].push(moved);
        }),
        ("another value", [1, 1, 0, 0], |out| {
            out[0][5].value = Some(b"altered".to_vec());
        }),
        ("another time", [1, 1, 0, 0], |out| out[0][5].timestamp += 1),
    ];
    for (name, wanted, forge) in cases {
        let mut out = honest.clone();
        forge(&mut out);
        let forged = forged(&it, 2, &out);
        let env = [("KAFKA_DEDUP__OUTPUT__TOPIC", forged.as_str())];
        let json = verify(&it, &["--json"], &env).json();
        assert_eq!(differences(&json), wanted, "{name}: {json:#}");
    }

    // A duplicate that names a first record of another id.
    let mut dups = [0, 1].map(|partition| records(&it, &format!("{}_dup", it.input), partition));
    let named = dups[1][3].headers.iter_mut();
    let offset = named.rev().find(|(name, _)| name == "dedup-first-offset");
    let offset = &mut offset.expect("a duplicate").1;
    let other = String::from_utf8(offset.clone().expect("text")).expect("text");
    *offset = Some(format!("{}", other.parse::<i64>().expect("a number") ^ 1).into_bytes());
    let forged_dups = forged(&it, 2, &dups);
    let env = [("KAFKA_DEDUP__DUPLICATES__TOPIC", forged_dups.as_str())];
    let json = verify(&it, &["--json"], &env).json();
    assert_eq!(differences(&json), [0, 0, 1, 0], "{json:#}");

    // Passed on, and not judged yet.
    let late = Rec::with_id("between", now_ms());
    broker().produce(&it.input, 0, std::slice::from_ref(&late));
    let (_, end) = broker().watermarks(&it.input, 0, "read_uncommitted");
    let passed = Passed {
        partition: 0,
        offset: end - 1,
        timestamp_ms: Some(late.timestamp),
        identity: Identity::Id(1),
        key: None,
    };
    let mark = Mark::of(deployment_seed(&it.group), "{header: message-id}");
    let between = Rec {
        key: Some(passed.envelope(mark)),
        ..late
    };
    broker().produce(&it.by_id(), 1, &[between]);
    // As if the first hop had committed up to here.
    it.kafka.commit(&it.group, &it.input, 0, end);
    let verified = verify(&it, &["--json"], &[]);
    let json = verified.json();
    assert_eq!(differences(&json), [0; 4], "{json:#}");
    assert_eq!(count(&json, "unknown"), 1, "{json:#}");
    assert!(
        verified.out.contains("are not judged yet by the second"),
        "{json:#}"
    );

    let refused = verify(&it, &["--partition", "0"], &[]);
    assert_eq!(refused.status, 64);
    refused.says(&["with scope: repartition records are in no order"]);
}

/// No difference, and what cannot be known is said.
fn passes_as_far_as_known(it: &Deployment, arguments: &[&str], env: &[(&str, &str)]) -> Value {
    let arguments = [&["--json"], arguments].concat();
    let verified = verify(it, &arguments, env);
    assert_eq!(verified.status, 0, "{}\n{}", verified.out, verified.err);
    verified.json()
}
