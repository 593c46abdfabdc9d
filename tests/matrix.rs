//! Every pair of features that can be combined, on a real broker: id source, missing policy, window, refresh, scope,
//! mode, conflicts, topics configured, output partitions, workers. Configurations are chosen so that each pair of
//! their values is in one of them at least; each runs with a stream of its own and a restart in the middle, and
//! all that it writes and counts is held against the reference model.
//!
//! `KAFKA_DEDUP_MATRIX_SEED` chooses other configurations and streams.

#[path = "kit/mod.rs"]
mod kit;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use kafka_dedup::config::Window;
use kit::model::{Judged, Model};
use kit::{Deployment, Dice, Instance, Rec, flush, now_ms, send, wait_for};
use rdkafka::producer::Producer;

const PATIENCE: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 2;
/// Records of each half of a stream.
const HALF: u64 = 400;

/// Name of a feature, and its values as the config has them.
const FEATURES: [(&str, &[&str]); 10] = [
    (
        "id.from",
        &[
            "header",
            "key",
            "value",
            "json",
            "csv",
            "all",
            "cloudevents",
        ],
    ),
    ("id.missing", &["forward", "reject", "drop", "fail"]),
    ("window", &["time", "ids", "both"]),
    ("refresh", &["false", "true"]),
    (
        "scope",
        &["partition", "topic", "copartition", "repartition"],
    ),
    ("mode", &["filter", "mark", "observe"]),
    ("id.conflicts", &["ignore", "count", "forward", "reject"]),
    ("topics", &["none", "duplicates", "rejected", "both"]),
    ("output.partition", &["same", "key"]),
    ("workers", &["1", "2"]),
];

type Pair = ((usize, usize), (usize, usize));

/// A value of each feature, by its index.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Choice(Vec<usize>);

impl Choice {
    fn any(dice: &mut Dice) -> Self {
        let value = |(_, values): &(&str, &[&str])| roll(dice, values.len());
        Self(FEATURES.iter().map(value).collect())
    }

    fn is(&self, feature: &str, value: &str) -> bool {
        self.get(feature) == value
    }

    fn get(&self, feature: &str) -> &'static str {
        let at = FEATURES.iter().position(|(name, _)| *name == feature);
        let at = at.expect("a feature");
        FEATURES[at].1[self.0[at]]
    }

    /// Partitions of the input ask each other's windows.
    fn has_kin(&self) -> bool {
        self.is("scope", "topic") || self.is("scope", "copartition")
    }

    /// Whether it makes sense; what does not is refused by the config.
    fn is_allowed(&self) -> bool {
        let kin = self.has_kin();
        let has = |topic: &str| self.is("topics", topic) || self.is("topics", "both");
        let refused = [
            kin && !self.is("window", "time"),
            kin && self.is("id.conflicts", "forward"),
            self.is("id.conflicts", "reject") && !has("rejected"),
            self.is("mode", "mark") && has("duplicates"),
        ];
        !refused.contains(&true)
    }

    fn pairs(&self) -> impl Iterator<Item = Pair> + '_ {
        let features = 0..self.0.len();
        features
            .flat_map(move |a| (a + 1..self.0.len()).map(move |b| ((a, self.0[a]), (b, self.0[b]))))
    }

    fn with(mut self, ((a, value_a), (b, value_b)): Pair) -> Self {
        self.0[a] = value_a;
        self.0[b] = value_b;
        self
    }

    fn window(&self) -> Window {
        // Which of several partitions moves stream time, or takes an ordinal, first is not known: none
        // forgets then.
        let (time_ms, ids) = match self.is("scope", "partition") {
            true => (30_000, 150),
            false => (86_400_000, 1_000_000),
        };
        Window {
            time_ms: (!self.is("window", "ids")).then_some(time_ms),
            ids: (!self.is("window", "time")).then_some(ids),
            refresh: self.is("refresh", "true"),
            max_ahead_ms: 600_000,
        }
    }

    fn yaml(&self) -> String {
        let from = match self.get("id.from") {
            "header" => "{header: message-id}",
            "json" => "{json: /id}",
            "csv" => "{csv: {column: 2}}",
            "all" => "{all: [{header: tenant}, {header: message-id}]}",
            other => other,
        };
        let window = self.window();
        let or_null = |value: Option<String>| value.unwrap_or_else(|| "null".to_owned());
        let topic = |name: &str| match self.is("topics", name) || self.is("topics", "both") {
            true => format!("{name}: {{topic: \"{{topic}}_{name}\"}}\n"),
            false => String::new(),
        };
        format!(
            "id: {{from: {from}, missing: {}, conflicts: {}}}\nwindow: {{time: {}, ids: {}, refresh: {}}}\nscope: {}\nmode: {}\noutput: {{partition: {}}}\nrepartition: {{partitions: 3}}\nworkers: {}\ntransaction: {{interval: 20ms, timeout: 10s}}\n{}{}",
            self.get("id.missing"),
            self.get("id.conflicts"),
            or_null(window.time_ms.map(|ms| format!("{ms}ms"))),
            or_null(window.ids.map(|ids| ids.to_string())),
            self.get("refresh"),
            self.get("scope"),
            self.get("mode"),
            self.get("output.partition"),
            self.get("workers"),
            topic("duplicates"),
            topic("rejected"),
        )
    }
}

fn roll(dice: &mut Dice, sides: usize) -> usize {
    usize::try_from(dice.roll(sides as u64)).expect("small")
}

/// Configurations in which every pair occurs that can: greedily, of some that have the next pair, the one with
/// the most pairs that are still wanted. Beside them the pairs that no allowed configuration has.
fn covering(seed: u64) -> (Vec<Choice>, BTreeSet<Pair>) {
    const TRIES: usize = 400;
    let mut dice = Dice(seed | 1);
    let mut wanted: BTreeSet<Pair> = BTreeSet::new();
    for (a, (_, of_a)) in FEATURES.iter().enumerate() {
        for (b, (_, of_b)) in FEATURES.iter().enumerate().skip(a + 1) {
            for value_a in 0..of_a.len() {
                wanted.extend((0..of_b.len()).map(|value_b| ((a, value_a), (b, value_b))));
            }
        }
    }
    let (mut chosen, mut impossible) = (Vec::new(), BTreeSet::new());
    while let Some(&next) = wanted.first() {
        let tries = (0..TRIES).map(|_| Choice::any(&mut dice).with(next));
        let best = tries
            .filter(Choice::is_allowed)
            .max_by_key(|choice| choice.pairs().filter(|pair| wanted.contains(pair)).count());
        match best {
            Some(choice) => {
                for pair in choice.pairs() {
                    wanted.remove(&pair);
                }
                chosen.push(choice);
            }
            None => {
                wanted.remove(&next);
                impossible.insert(next);
            }
        }
    }
    (chosen, impossible)
}

fn seed() -> u64 {
    let seed = std::env::var("KAFKA_DEDUP_MATRIX_SEED");
    seed.ok().and_then(|it| it.parse().ok()).unwrap_or(2026)
}

#[test]
fn every_pair_is_chosen_or_refused_by_the_config() {
    let (chosen, impossible) = covering(seed());
    let covered: BTreeSet<Pair> = chosen.iter().flat_map(Choice::pairs).collect();
    assert!(covered.is_disjoint(&impossible));
    assert!(chosen.len() < 70, "{} configurations", chosen.len());
    // topic and copartition with ids and both, and with forward; mark with two kinds of topics; reject with two.
    assert_eq!(impossible.len(), 4 + 2 + 2 + 2, "{impossible:?}");

    let mut dice = Dice(seed() | 1);
    for _ in 0..2_000 {
        let choice = Choice::any(&mut dice);
        let least = "kafka: {bootstrap_servers: \"b:9092\", group_id: g, instance_id: i}\ninput: {topics: [t]}\n";
        let text = format!("{least}{}", choice.yaml());
        let loaded = kafka_dedup::config::from_str(&text, "c.yaml", &BTreeMap::new());
        assert_eq!(
            loaded.is_ok(),
            choice.is_allowed(),
            "{text}{:?}",
            loaded.err().map(|it| it.to_string())
        );
    }
}

#[test]
fn every_pair_of_features_does_what_the_model_does() {
    let seed = seed();
    let (chosen, _) = covering(seed);
    eprintln!("{} configurations, seed {seed}", chosen.len());
    let left = Mutex::new(chosen.into_iter().enumerate());
    let next = || left.lock().expect("no thread has failed").next();
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                while let Some((number, choice)) = next() {
                    eprintln!("{number}: {choice:?}\n{}", choice.yaml());
                    Run::new(&choice, seed + number as u64).go();
                }
            });
        }
    });
}

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Forward,
    Duplicate {
        reason: &'static str,
        first_offset: i64,
        age_ms: i128,
    },
    Reject {
        reason: &'static str,
    },
    Drop,
}

/// What is in one of the topics, by the sequence number of its records.
type Written = BTreeMap<String, Vec<Rec>>;

struct Run<'a> {
    choice: &'a Choice,
    it: Deployment,
    dice: Dice,
    sent: u64,
    start_ms: i64,
}

impl<'a> Run<'a> {
    fn new(choice: &'a Choice, seed: u64) -> Self {
        let it = Deployment::new("matrix", PARTITIONS, &choice.yaml());
        Self {
            choice,
            it,
            dice: Dice(seed | 1),
            sent: 0,
            start_ms: now_ms() - 600_000,
        }
    }

    fn go(mut self) {
        let before = self.produce();
        let instance = self.it.start("one");
        self.it.wait_until_caught_up(PATIENCE);
        self.assert_counted(&instance, &BTreeMap::new());
        let mut instance = match self.dice.roll(2) {
            0 => {
                instance.kill();
                self.produce();
                self.it.start("one")
            }
            _ => {
                let mut instance = instance;
                assert!(instance.terminate().success(), "{}", instance.log_tail());
                self.produce();
                self.it.start("one")
            }
        };
        self.it.wait_until_caught_up(PATIENCE);
        self.assert_counted(&instance, &before);
        self.assert_written();
        assert!(instance.terminate().success(), "{}", instance.log_tail());
    }

    /// Half of the stream: repeats near and far, other payloads, late timestamps, no ids, nulls, repeated headers,
    /// and records of a transaction that is aborted. Gives what is committed so far, by partition.
    fn produce(&mut self) -> BTreeMap<i32, usize> {
        let kafka = self.it.kafka.clone();
        let producer = kafka.producer(&[("transactional.id", &self.it.input)]);
        producer
            .init_transactions(PATIENCE)
            .expect("a transactional id");
        let from = self.sent;
        for aborted in [true, false] {
            producer.begin_transaction().expect("begun");
            let until = if aborted { from + 20 } else { from + HALF };
            for n in from..until {
                let partition = i32::try_from(self.dice.roll(2)).expect("small");
                let mut record = self.record(n, partition);
                if aborted {
                    record.headers[0].1 = Some(b"aborted".to_vec());
                }
                send(&producer, &self.it.input, partition, &record);
            }
            flush(&producer);
            match aborted {
                true => producer.abort_transaction(PATIENCE).expect("aborted"),
                false => producer.commit_transaction(PATIENCE).expect("committed"),
            }
        }
        self.sent += HALF;
        let count = |partition| {
            (
                partition,
                kafka.read_partition(&self.it.input, partition).len(),
            )
        };
        (0..PARTITIONS).map(count).collect()
    }

    fn record(&mut self, n: u64, partition: i32) -> Rec {
        let dice = &mut self.dice;
        let back = match dice.roll(5) {
            0 | 1 => dice.roll(40),
            2 => dice.roll(300),
            _ => 0,
        };
        // An id comes in one partition.
        let id = format!("{}-{partition}", n.saturating_sub(back));
        let kind = dice.roll(5) / 4;
        let missing = dice.roll(12) == 0 && !self.choice.is("id.missing", "fail");
        let late = if dice.roll(4) == 0 {
            dice.roll(4_000)
        } else {
            0
        };
        let time = self.start_ms + i64::try_from(n * 200 - late.min(n * 200)).expect("small");
        let mut headers = vec![("seq".to_owned(), Some(format!("{n}").into_bytes()))];
        headers.push(("again".to_owned(), None));
        headers.push(("again".to_owned(), Some(vec![0xff, 0, 1])));
        let mut key = (dice.roll(5) > 0).then(|| format!("key {}", n % 7).into_bytes());
        let mut value = Some(format!("kind {kind}").into_bytes());
        let mut header = |name: &str, text: &str| {
            headers.push((name.to_owned(), Some(text.as_bytes().to_vec())));
        };
        match (self.choice.get("id.from"), missing) {
            ("header", false) => header("message-id", &id),
            ("header", true) => header("message-id", ""),
            ("key", _) => key = (!missing).then(|| id.into_bytes()),
            ("value", _) => value = (!missing).then(|| id.into_bytes()),
            ("json", false) => {
                value = Some(format!(r#"{{"id":"{id}","kind":{kind}}}"#).into_bytes())
            }
            ("json", true) => {
                value = [None, Some(b"{".to_vec()), Some(b"{\"id\":null}".to_vec())][roll(dice, 3)]
                    .clone()
            }
            ("csv", false) => value = Some(format!("x,\"{id}\",{kind}").into_bytes()),
            ("csv", true) => value = Some(b"x".to_vec()),
            ("all", _) => {
                header("tenant", "t");
                if !missing {
                    header("message-id", &id);
                }
            }
            _ => {
                header("ce_source", "/matrix");
                if !missing {
                    header("ce_id", &id);
                }
            }
        }
        Rec {
            key,
            value,
            headers,
            timestamp: time,
        }
    }

    /// The id as the test has written it, and not as the service finds it.
    fn id_of(&self, record: &Rec) -> Option<Vec<u8>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let value = record.value.as_deref();
        let id = match self.choice.get("id.from") {
            "header" | "all" => record.header("message-id").map(<[u8]>::to_vec),
            "key" => record.key.clone(),
            "value" => record.value.clone(),
            "json" => {
                value.and_then(|value| Some(text(value).split('"').nth(3)?.as_bytes().to_vec()))
            }
            "csv" => {
                value.and_then(|value| Some(text(value).split('"').nth(1)?.as_bytes().to_vec()))
            }
            _ => record.header("ce_id").map(<[u8]>::to_vec),
        };
        id.filter(|id| !id.is_empty())
    }

    /// What must become of each record of a partition.
    fn fates(&self, partition: i32) -> Vec<(i64, Rec, Fate)> {
        let mut model = Model::new(self.choice.window());
        let mut payloads: HashMap<Vec<u8>, Option<Vec<u8>>> = HashMap::new();
        let input = self.it.kafka.read_partition(&self.it.input, partition);
        let fate = |(offset, record): (i64, Rec)| {
            let fate = self.fate(&mut model, &mut payloads, offset, &record);
            (offset, record, fate)
        };
        input.into_iter().map(fate).collect()
    }

    fn fate(
        &self,
        model: &mut Model,
        payloads: &mut HashMap<Vec<u8>, Option<Vec<u8>>>,
        offset: i64,
        record: &Rec,
    ) -> Fate {
        let (time, wall) = (Some(record.timestamp), now_ms());
        let Some(id) = self.id_of(record) else {
            model.observe(time, wall);
            return match self.choice.get("id.missing") {
                "forward" => Fate::Forward,
                "reject" => Fate::Reject { reason: "" },
                _ => Fate::Drop,
            };
        };
        let before = model.clone();
        let judged = model.judge(&id, time, wall, offset);
        let Judged::Duplicate {
            first_offset,
            age_ms,
        } = judged
        else {
            payloads.insert(id, record.value.clone());
            return Fate::Forward;
        };
        let duplicate = |reason| Fate::Duplicate {
            reason,
            first_offset,
            age_ms,
        };
        let policy = self.choice.get("id.conflicts");
        if policy == "ignore" || payloads[&id] == record.value {
            return duplicate("duplicate");
        }
        // What conflicts renews nothing.
        (model.seen, model.ordinals_taken) = (before.seen, before.ordinals_taken);
        match policy {
            "forward" => {
                model.seen.remove(&id);
                model.judge(&id, time, wall, offset);
                payloads.insert(id, record.value.clone());
                Fate::Forward
            }
            "reject" => Fate::Reject { reason: "conflict" },
            _ => duplicate("conflict"),
        }
    }

    fn assert_written(&self) {
        let mut expected: [Written; 3] = Default::default();
        for partition in 0..PARTITIONS {
            for (offset, record, fate) in self.fates(partition) {
                let (topic, record) = match fate {
                    Fate::Forward => (0, record),
                    Fate::Duplicate { .. } if self.choice.is("mode", "mark") => {
                        (0, self.marked(partition, offset, record, fate))
                    }
                    Fate::Duplicate { .. } => (1, self.marked(partition, offset, record, fate)),
                    Fate::Reject { .. } => (2, self.marked(partition, offset, record, fate)),
                    Fate::Drop => continue,
                };
                let seq = text(&record, "seq");
                expected[topic].entry(seq).or_default().push(record);
            }
        }
        let side = |name: &str| format!("{}_{name}", self.it.input);
        let has = |name: &str| self.choice.is("topics", name) || self.choice.is("topics", "both");
        let observes = self.choice.is("mode", "observe");
        let topics = [
            (self.it.output.clone(), true),
            (side("duplicates"), has("duplicates")),
            (side("rejected"), has("rejected")),
        ];
        for ((topic, configured), expected) in topics.into_iter().zip(expected) {
            let context = || format!("{topic} of\n{}", self.choice.yaml());
            if observes || !configured {
                assert_eq!(self.it.kafka.partitions_of(&topic), None, "{}", context());
                continue;
            }
            let found = self.written(&topic);
            for (seq, wanted) in &expected {
                assert_eq!(
                    found.get(seq),
                    Some(wanted),
                    "record {seq} in {}",
                    context()
                );
            }
            assert_eq!(found.len(), expected.len(), "{}", context());
        }
    }

    /// All of a topic. What comes from one partition and is in one is there in its order.
    fn written(&self, topic: &str) -> Written {
        let mut written = Written::new();
        for partition in 0..PARTITIONS {
            let mut last = HashMap::new();
            for (_, record) in self.it.kafka.read_partition(topic, partition) {
                let id = self.id_of(&record).unwrap_or_default();
                let seq = text(&record, "seq");
                let number: u64 = seq.parse().expect("nothing of an aborted transaction");
                // The id names its partition; without one, the order is that of all such records.
                let lane = match self.choice.is("scope", "repartition") {
                    // Of an id alone there is an order.
                    true => Some(id),
                    false => id.rsplit(|byte| *byte == b'-').next().map(<[u8]>::to_vec),
                };
                if let Some(lane) = lane.filter(|lane| !lane.is_empty()) {
                    let before = last.insert(lane, number);
                    assert!(
                        before < Some(number),
                        "{topic}-{partition}: {seq} after {before:?}"
                    );
                }
                if !self.choice.is("output.partition", "key") || topic != self.it.output {
                    let own = self
                        .id_of(&record)
                        .is_none_or(|id| id.ends_with(partition.to_string().as_bytes()));
                    assert!(own, "{topic}-{partition}: {seq} is of another partition");
                }
                written
                    .entry(seq)
                    .or_default()
                    .push(self.comparable(record));
            }
        }
        written
    }

    /// With the headers that say why it is not in the output, or is marked there.
    fn marked(&self, partition: i32, offset: i64, mut record: Rec, fate: Fate) -> Rec {
        let (reason, first) = match fate {
            Fate::Duplicate {
                reason,
                first_offset,
                age_ms,
            } => (reason, Some((first_offset, age_ms))),
            Fate::Reject { reason } => (reason, None),
            Fate::Forward | Fate::Drop => unreachable!("it has no such headers"),
        };
        let topic = || self.it.input.clone();
        let mut headers = vec![
            ("dedup-reason", reason.to_owned()),
            ("dedup-source-topic", topic()),
            ("dedup-source-partition", partition.to_string()),
            ("dedup-source-offset", offset.to_string()),
        ];
        if let Some((first_offset, age_ms)) = first {
            headers.extend([
                ("dedup-first-topic", topic()),
                ("dedup-first-partition", partition.to_string()),
                ("dedup-first-offset", first_offset.to_string()),
                ("dedup-age-ms", age_ms.to_string()),
            ]);
        }
        let owned = |(name, value): (&str, String)| (name.to_owned(), Some(value.into_bytes()));
        record.headers.extend(headers.into_iter().map(owned));
        self.comparable(record)
    }

    /// Stream time is that of all kin: how old a duplicate was when it came is not known. Why a record has no id
    /// is what other tests look at.
    fn comparable(&self, mut record: Rec) -> Rec {
        let kin = !self.choice.is("scope", "partition");
        for (name, value) in &mut record.headers {
            let without_id = |value: &[u8]| value == b"missing-id" || value == b"unparsable";
            if kin && name == "dedup-age-ms"
                || name == "dedup-reason" && value.as_deref().is_some_and(without_id)
            {
                *value = Some(Vec::new());
            }
        }
        record
    }

    /// What the process has counted is what came after the first records of each partition.
    fn assert_counted(&self, instance: &Instance, before: &BTreeMap<i32, usize>) {
        let mut counts = BTreeMap::<&str, f64>::new();
        for partition in 0..PARTITIONS {
            let skipped = before.get(&partition).copied().unwrap_or(0);
            for (_, record, fate) in self.fates(partition).into_iter().skip(skipped) {
                let kind = match fate {
                    Fate::Forward => "forwarded",
                    Fate::Duplicate { .. } => "duplicate",
                    Fate::Reject { .. } => "rejected",
                    Fate::Drop => "dropped",
                };
                *counts.entry("received").or_default() += 1.0;
                *counts.entry(kind).or_default() += 1.0;
                let missing = self.id_of(&record).is_none();
                *counts.entry("missing_id").or_default() += f64::from(missing);
            }
        }
        for kind in [
            "received",
            "forwarded",
            "duplicate",
            "rejected",
            "dropped",
            "missing_id",
        ] {
            let wanted = counts.get(kind).copied().unwrap_or(0.0);
            let name = format!("kafka_dedup_records_{kind}_total");
            let mut found = None;
            let is_so = || {
                found = instance.try_metric(&name);
                found == Some(wanted)
            };
            let what = format!("{name} to be {wanted} with\n{}", self.choice.yaml());
            wait_for(&what, Duration::from_secs(20), is_so);
        }
    }
}

fn text(record: &Rec, header: &str) -> String {
    String::from_utf8_lossy(record.header(header).expect("a header")).into_owned()
}
