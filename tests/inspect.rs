//! `inspect`, on what a real service has left behind: the store and the journal are described as they
//! are, an id is found where it is, and nothing is changed.

#[path = "kit/mod.rs"]
mod kit;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kit::{Deployment, Instance, Rec, broker, now_ms, wait_for};
use serde_json::Value;

const HOUR_MS: i64 = 3_600_000;
const EXTRA: &str = "window: {time: 24h}\ntransaction: {records: 100}\n";

/// Where the stretches of time begin: 30 ids, two hours later 3,000, and 23 hours later 500.
struct Life {
    it: Deployment,
    /// Stream time of the first.
    start_ms: i64,
}

impl Life {
    fn new() -> Self {
        let mut it = Deployment::new("inspected", 2, EXTRA);
        it.env = vec![(
            "KAFKA_DEDUP__STORE__ACTIVE_IDS".to_owned(),
            "100".to_owned(),
        )];
        // Slices are cut at every three hours of a window of 24.
        let start_ms = now_ms() / (3 * HOUR_MS) * (3 * HOUR_MS) - 27 * HOUR_MS;
        let old = (0..30).map(|n| Rec::with_id(format!("old-{n}"), start_ms));
        let id = |n: i64| Rec::with_id(format!("id-{n}"), start_ms + 2 * HOUR_MS + 7 * n);
        let new = (0..500).map(|n| Rec::with_id(format!("new-{n}"), start_ms + 25 * HOUR_MS));
        let records: Vec<Rec> = old.chain((0..3000).map(id)).chain(new).collect();
        broker().produce(&it.input, 0, &records);
        let few: Vec<Rec> = (0..10)
            .map(|n| Rec::with_id(format!("few-{n}"), start_ms))
            .collect();
        broker().produce(&it.input, 1, &few);
        Self { it, start_ms }
    }

    /// A service that has judged all, and sealed what it seals.
    fn run(&self) -> Instance {
        let mut service = self.it.start("one");
        service.wait_until_ready();
        self.it.wait_until_caught_up(Duration::from_secs(60));
        let sealed = || service.metric("kafka_dedup_window_stored_slices");
        wait_for("slices to be sealed", Duration::from_secs(60), || {
            sealed() > 10.0
        });
        let mut last = 0.0;
        wait_for("the last slice", Duration::from_secs(60), || {
            std::thread::sleep(Duration::from_millis(700));
            std::mem::replace(&mut last, sealed()) == sealed()
        });
        service
    }

    fn inspect(&self, service: &Instance, arguments: &[&str]) -> Inspected {
        let config = self
            .it
            .dir
            .path()
            .join(format!("one-{}.yaml", service.http));
        inspect(&config, arguments, &[])
    }

    fn scope(&self, service: &Instance) -> PathBuf {
        let prefix = format!("{}-0-", self.it.input);
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let mut dirs = fs::read_dir(&service.store).unwrap();
        dirs.find_map(|entry| {
            Some(entry.ok()?.path()).filter(|path| name(path).starts_with(&prefix))
        })
        .expect("the scope's directory")
    }
}

struct Inspected {
    status: i32,
    out: String,
    err: String,
}

impl Inspected {
    fn json(&self) -> Value {
        assert_eq!(self.status, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}:\n{}", self.out))
    }

    fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.out.contains(word), "no {word:?} in\n{}", self.out);
        }
    }
}

fn inspect(config: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Inspected {
    let output = Command::new(env!("CARGO_BIN_EXE_kafka-dedup"))
        .args(["inspect", "-c"])
        .arg(config)
        .args(arguments)
        .envs(env.iter().copied())
        .output()
        .expect("inspect runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let it = Inspected {
        status: output.status.code().expect("a status"),
        out: text(output.stdout),
        err: text(output.stderr),
    };
    if std::env::var_os("SHOW").is_some() {
        println!(
            "$ inspect {arguments:?}: {}\n{}{}",
            it.status, it.out, it.err
        );
    }
    it
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

fn number(value: &Value) -> i64 {
    value
        .as_i64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

fn array(value: &Value) -> &Vec<Value> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no array: {value}"))
}

#[test]
fn what_a_service_has_left_behind_is_told_and_left_alone() {
    let life = Life::new();
    let mut service = life.run();
    assert!(service.terminate().success());
    let before = contents(&service.store);

    overview_is_right(&life, &service);
    text_names_what_there_is(&life, &service);
    ids_are_found(&life, &service);
    troubles_have_their_statuses(&life, &service);
    assert_eq!(contents(&service.store), before, "inspect changes nothing");

    running_service_is_left_alone(&life);
    damage_is_told(&life, &service);
}

fn overview_is_right(life: &Life, service: &Instance) {
    let json = life.inspect(service, &["--json"]).json();
    let scopes = array(&json["store"]["scopes"]);
    assert_eq!(scopes.len(), 2);
    let scope = &scopes[0];
    assert_eq!(scope["topic"], life.it.input.as_str());
    assert_eq!(
        (number(&scope["partition"]), &scope["in_use"]),
        (0, &Value::Bool(false))
    );
    let slices = array(&scope["slices"]);
    assert!(slices.len() > 10, "{}", slices.len());
    let mut ordinal = number(&slices[0]["seal"]["first_ordinal"]);
    let mut ids = 0;
    for slice in slices {
        assert_eq!(slice["state"], "sound", "{slice}");
        assert_eq!(slice["used_at_start"], true, "{slice}");
        let seal = &slice["seal"];
        assert_eq!(number(&seal["first_ordinal"]), ordinal, "no gap");
        ordinal = number(&seal["end_ordinal"]);
        ids += number(&seal["ids"]);
        assert!(number(&seal["oldest_age_ms"]) >= number(&seal["newest_age_ms"]));
        assert!(number(&slice["bytes"]) > 1000);
    }
    assert_eq!(number(&scope["ids"]), ids);
    assert_eq!(number(&json["store"]["total"]["ids"]), ids);
    assert_eq!(number(&scope["checkpoint"]["next_ordinal"]), ordinal);
    assert_eq!(
        array(&scopes[1]["slices"]).len(),
        0,
        "too few ids for a file"
    );

    let journal = array(&json["journal"]);
    assert_eq!(journal.len(), 2);
    let zero = &journal[0];
    assert_eq!(zero["store"]["fit"], "fits");
    assert_eq!(number(&zero["held"]["ids"]), 3530);
    assert_eq!(number(&zero["committed"]), 3530);
    assert_eq!(number(&zero["last_run"]["input_offset"]), 3530);
    assert_eq!(number(&zero["last_run"]["next_ordinal"]), 3530);
    assert_eq!(zero["notes"], Value::Array(Vec::new()));
    assert_eq!(number(&journal[1]["held"]["ids"]), 10);

    let ends = life
        .inspect(service, &["--json", "--no-journal-scan"])
        .json();
    for (whole, ends) in journal.iter().zip(array(&ends["journal"])) {
        assert_eq!(ends["held"], Value::Null);
        for same in ["first_run", "last_run", "store", "committed", "low", "high"] {
            assert_eq!(whole[same], ends[same], "{same}");
        }
    }
    let one = life
        .inspect(service, &["--json", "--partition", "1"])
        .json();
    assert_eq!(array(&one["journal"]).len(), 1);
    assert_eq!(array(&one["store"]["scopes"]).len(), 1);
    let offline = life.inspect(service, &["--json", "--offline"]).json();
    assert_eq!(offline["journal"], Value::Null);
    assert_eq!(number(&offline["store"]["total"]["ids"]), ids);
}

fn text_names_what_there_is(life: &Life, service: &Instance) {
    let text = life.inspect(service, &[]);
    assert_eq!(text.status, 0, "{}", text.err);
    let (input, group) = (&life.it.input, &life.it.group);
    text.says(&[
        "2 partitions, ",
        &format!("{input}-0 in {input}-0-"),
        "on the chain",
        "checkpoint: input offset ",
        &format!("journal {} of {input}", life.it.journal()),
        "3,530 ids",
        "the store fits",
        &format!("committed input offset of {group}: 3530"),
    ]);
    assert!(text.err.is_empty(), "{}", text.err);
}

fn ids_are_found(life: &Life, service: &Instance) {
    let seen = life.inspect(service, &["--json", "--id", "id-7"]).json();
    assert_eq!(
        (&seen["seen"], &seen["by"]),
        (&Value::Bool(true), &"journal".into())
    );
    assert_eq!(number(&seen["partitions"]), 2);
    let sightings = array(&seen["sightings"]);
    assert_eq!(sightings.len(), 1);
    let sighting = &sightings[0];
    assert_eq!(
        (number(&sighting["offset"]), number(&sighting["ordinal"])),
        (37, 37)
    );
    assert_eq!(sighting["topic"], life.it.input.as_str());
    let age_ms = 23 * HOUR_MS - 49;
    assert_eq!(number(&sighting["age_ms"]), age_ms);
    assert_eq!(sighting["remembered"], true);
    let slice = sighting["slice"].as_str().expect("a slice");
    assert!(life.scope(service).join(slice).is_dir());

    let hex = life
        .inspect(service, &["--json", "--id-hex", "69642d37"])
        .json();
    assert_eq!(hex["sightings"], seen["sightings"]);
    let offline = life
        .inspect(service, &["--json", "--offline", "--id", "id-7"])
        .json();
    assert_eq!(offline["by"], "store");
    assert_eq!(offline["sightings"][0]["slice"], slice);
    assert_eq!(number(&offline["sightings"][0]["offset"]), 37);

    let text = life.inspect(service, &["--id", "id-7"]);
    text.says(&[
        "seen in 1 of 2 partitions, by the journal: its next record there is a duplicate",
        "offset 37",
        "22h 59m before",
        slice,
    ]);

    let new = life.inspect(service, &["--id", "new-499", "--partition", "0"]);
    new.says(&["seen in 1 of ", "offset 3529", "not sealed yet"]);

    let forgotten = life.inspect(service, &["--json", "--id", "old-3"]).json();
    assert_eq!(forgotten["seen"], false);
    let sighting = &forgotten["sightings"][0];
    assert_eq!(
        (number(&sighting["offset"]), &sighting["remembered"]),
        (3, &Value::Bool(false))
    );
    let until = humantime_of(life.start_ms + 24 * HOUR_MS);
    assert_eq!(sighting["remembered_until"], until.as_str());
    let text = life.inspect(service, &["--id", "old-3"]);
    text.says(&[
        "forgotten in 1 of 2 partitions, by the journal: its next record is let through",
        &until,
    ]);

    let unseen = life.inspect(service, &["--json", "--id", "never"]).json();
    assert_eq!(unseen["seen"], false);
    assert_eq!(array(&unseen["sightings"]).len(), 0);
    life.inspect(service, &["--id", "never"])
        .says(&["not seen in 2 partitions"]);
    life.inspect(service, &["--offline", "--id", "never"])
        .says(&["not seen in what could be read of 2 partitions, by the store"]);
}

fn humantime_of(ms: i64) -> String {
    let since = Duration::from_millis(ms.unsigned_abs());
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}

fn troubles_have_their_statuses(life: &Life, service: &Instance) {
    let config = life
        .it
        .dir
        .path()
        .join(format!("one-{}.yaml", service.http));
    for usage in [
        &["--topic", "nope"][..],
        &["--partition", "2"],
        &["--id", ""],
        &["--id", "a", "--id", "b"],
        &["--id-hex", "abc"],
    ] {
        let it = inspect(&config, usage, &[]);
        assert_eq!(it.status, 64, "{usage:?}: {}", it.err);
    }
    let away = inspect(
        &config,
        &["--id", "id-7"],
        &[("KAFKA_DEDUP__KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")],
    );
    assert_eq!(away.status, 69, "{}", away.err);
    away.says(&["seen in 1 of ", "offset 37", "by the store"]);
    // Another group: its journal is not there, and this store is another's.
    let other = [("KAFKA_DEDUP__KAFKA__GROUP_ID", "another")];
    let other = inspect(&config, &[], &other);
    assert_eq!(other.status, 78, "{}", other.err);
    other.says(&[
        "missing: the journal",
        "directories of others",
        "of another group",
    ]);
    let nowhere = [("KAFKA_DEDUP__STORE__PATH", "/nonexistent/store")];
    let nowhere = inspect(&config, &["--offline"], &nowhere);
    assert_eq!(nowhere.status, 78, "{}", nowhere.err);
    nowhere.says(&["it does not exist"]);
}

fn running_service_is_left_alone(life: &Life) {
    let mut service = life.run();
    let json = life.inspect(&service, &["--json"]).json();
    let scope = &json["store"]["scopes"][0];
    assert_eq!(scope["in_use"], true);
    for slice in array(&scope["slices"]) {
        assert_eq!(slice["state"], "unread");
    }
    assert_eq!(number(&json["journal"][0]["held"]["ids"]), 3530);
    let text = life.inspect(&service, &["--id", "id-7"]);
    text.says(&["seen in 1 of ", "offset 37", "in use by a running service"]);
    life.inspect(&service, &[])
        .says(&["in use by a running service", "not read"]);
    assert!(service.metric("kafka_dedup_store_degraded") == 0.0);
    assert!(service.terminate().success());
}

fn damage_is_told(life: &Life, service: &Instance) {
    let scope = life.scope(service);
    let mut slices: Vec<PathBuf> = fs::read_dir(&scope)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("/slice-"))
        .collect();
    slices.sort();
    let db = slices[3].join("db");
    let mut bytes = fs::read(&db).unwrap();
    let chunk = bytes
        .windows(4)
        .position(|four| four == b"KDC\x01")
        .expect("a chunk");
    bytes[chunk + 60] ^= 1;
    fs::write(&db, bytes).unwrap();
    fs::remove_file(slices[5].join("db")).unwrap();
    let stranger = service.store.join("stranger-0-0123456789abcdef");
    fs::create_dir_all(stranger.join("slice-00000000000000000000")).unwrap();
    let before = contents(&service.store);

    let json = life.inspect(service, &["--json"]).json();
    let scope = &json["store"]["scopes"][0];
    // sled may take it for the torn end of a write.
    let flipped = &scope["slices"][3];
    assert_ne!(flipped["state"], "sound");
    assert!(
        flipped["why"].as_str().is_some_and(|why| !why.is_empty()),
        "{flipped}"
    );
    let gone = &scope["slices"][5];
    assert_eq!(
        (&gone["state"], &gone["why"]),
        (&"damaged".into(), &"its database file is missing".into())
    );
    assert_eq!(scope["slices"][2]["used_at_start"], true);
    assert_eq!(scope["slices"][4]["on_chain"], true);
    assert_eq!(scope["slices"][4]["used_at_start"], false);
    assert_eq!(number(&scope["missing_slices"]), 2);
    assert_eq!(
        json["journal"][0]["store"]["fit"], "fits",
        "an older checkpoint"
    );
    assert_eq!(
        json["store"]["foreign"][0]["directory"],
        "stranger-0-0123456789abcdef"
    );
    let text = life.inspect(service, &[]);
    text.says(&["damaged", "behind a gap", "stranger-0-0123456789abcdef"]);
    let text = life.inspect(service, &["--id", "id-7"]);
    text.says(&["seen in 1 of ", "offset 37", "a slice was not asked"]);
    assert_eq!(contents(&service.store), before, "inspect changes nothing");

    let mut service = life.run();
    assert!(service.terminate().success());
    life.inspect(&service, &[])
        .says(&["set aside as damaged", " ago: set-aside-"]);
}

/// A transaction that is left open on the journal holds the reading up, for no longer than a
/// transaction may last; what is read up to there is told. And records of others are counted.
#[test]
fn an_open_transaction_ends_the_reading_and_foreign_records_are_counted() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let mut it = Deployment::new("held", 1, EXTRA);
    it.env = Vec::new();
    let records: Vec<Rec> = (0..300)
        .map(|n| Rec::with_id(format!("id-{n}"), now_ms()))
        .collect();
    broker().produce(&it.input, 0, &records);
    let mut service = it.start("one");
    service.wait_until_ready();
    it.wait_until_caught_up(Duration::from_secs(60));
    assert!(service.terminate().success());
    let config = it.dir.path().join(format!("one-{}.yaml", service.http));

    let patience = Duration::from_secs(20);
    let other: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", broker().bootstrap())
        .set("transactional.id", kit::unique("somebody-else"))
        .create()
        .expect("a producer");
    other.init_transactions(patience).expect("ours");
    other.begin_transaction().expect("begun");
    let journal = it.journal();
    let stray = BaseRecord::<[u8], [u8]>::to(&journal)
        .partition(0)
        .payload(b"{}");
    assert!(other.send(stray).is_ok());
    other.flush(patience).expect("delivered");

    let short = [("KAFKA_DEDUP__TRANSACTION__TIMEOUT", "1s")];
    let open = inspect(&config, &["--json"], &short).json();
    let partition = &open["journal"][0];
    assert_eq!(number(&partition["held"]["ids"]), 300);
    let note = partition["notes"][0].as_str().expect("a note");
    assert!(
        note.contains("an open transaction ends the reading"),
        "{note}"
    );
    other.commit_transaction(patience).expect("committed");

    let ended = inspect(&config, &["--json"], &[]).json();
    let partition = &ended["journal"][0];
    assert_eq!(number(&partition["held"]["foreign"]), 1);
    assert_eq!(number(&partition["held"]["ids"]), 300);
    let ends = inspect(&config, &["--json", "--no-journal-scan"], &[]).json();
    assert_eq!(ends["journal"][0]["last_run"], partition["last_run"]);
    inspect(&config, &[], &[]).says(&["1 foreign", "nothing but kafka-dedup should write there"]);
    inspect(&config, &["--id", "id-299"], &[]).says(&["seen in 1 of ", "offset 299"]);
}
