//! What is in the files of a release, as this build reads them.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::path::Path;

use kafka_dedup::config::IdSource;
use kafka_dedup::identify::{Fields, Identifier, Identity, deployment_seed};
use kafka_dedup::journal::Run;
use kafka_dedup::repartition::Passed;
use kafka_dedup::schemas::{Schemas, places};
use kafka_dedup::store::chunk::Chunk;
use kafka_dedup::store::record::SealRecord;
use kafka_dedup::store::{Entry, Fingerprint};
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::Xxh3;

use super::samples::{self, REDACTED, SECRET};

pub fn of(release: &Path) -> Value {
    json!({
        "runs": each(&release.join("runs"), run),
        "envelopes": each(&release.join("envelopes"), envelope),
        "store": store(&release.join("store")),
        "store_parts": parts(&release.join("store-parts")),
        "ids": ids(&release.join("configs")),
    })
}

fn each(dir: &Path, fact: impl Fn(&[u8]) -> Value) -> Value {
    let facts = super::files(dir)
        .into_iter()
        .map(|(name, bytes)| (name, fact(&bytes)));
    Value::Object(facts.collect::<Map<_, _>>())
}

fn run(bytes: &[u8]) -> Value {
    let run = match Run::decode(bytes) {
        Ok(run) => run,
        Err(error) => return json!({ "refused": error.to_string() }),
    };
    json!({
        "identity": run.identity,
        "stream_time_ms": run.stream_time_ms,
        "next_offset": run.next_offset,
        "first_ordinal": run.first_ordinal,
        "fingerprints": run.fingerprints.iter().map(hex).collect::<Vec<_>>(),
        "times_ms": run.times_ms,
        "offsets": run.offsets,
        "payloads": run.payloads,
        "terms": run.terms,
        "begins": run.begins,
        "preload": run.preload,
        "bypassed": run.bypassed,
        "preloaded": run.preloaded,
        "since": run.since.map(|since| json!({"ordinal": since.ordinal, "time_ms": since.time_ms})),
    })
}

fn hex(fingerprint: &Fingerprint) -> String {
    format!("{fingerprint:032x}")
}

fn identity(identity: Identity) -> Value {
    match identity {
        Identity::Id(id) => json!(hex(&id)),
        Identity::Missing(why) => json!({ "missing": why.as_str() }),
    }
}

fn envelope(bytes: &[u8]) -> Value {
    let Some((passed, mark)) = Passed::open(Some(bytes)) else {
        return json!("refused");
    };
    json!({
        "partition": passed.partition,
        "offset": passed.offset,
        "timestamp_ms": passed.timestamp_ms,
        "identity": identity(passed.identity),
        "key": passed.key.map(String::from_utf8_lossy),
        "mark_is_that_of_its_group": mark == samples::mark(),
        // Where it belongs is a part of the format: members of two versions must agree.
        "position": passed.position(),
        "to_partition_of_24": passed.to_partition(24),
    })
}

/// Many entries as one number, and their count.
fn entries(rows: impl IntoIterator<Item = (Fingerprint, Entry)>) -> Value {
    let mut hash = Xxh3::new();
    let mut count = 0;
    for (id, entry) in rows {
        count += 1;
        hash.update(&id.to_le_bytes());
        hash.update(&entry.time_ms.to_le_bytes());
        hash.update(&entry.offset.to_le_bytes());
        hash.update(&entry.ordinal.to_le_bytes());
        hash.update(&entry.payload.to_le_bytes());
    }
    json!({"count": count, "hash": format!("{:016x}", hash.digest())})
}

fn parts(dir: &Path) -> Value {
    let mut facts = Map::new();
    for (name, bytes) in super::files(dir) {
        let fact = match name.ends_with(".seal") {
            true => match SealRecord::decode(&bytes) {
                Ok((record, _)) => json!(record),
                Err(error) => json!({ "refused": error.to_string() }),
            },
            false => match Chunk::open(bytes.as_slice()) {
                Ok(chunk) => entries(chunk.entries()),
                Err(error) => json!({ "refused": error.to_string() }),
            },
        };
        facts.insert(name, fact);
    }
    Value::Object(facts)
}

/// As the service starts with it: on a copy, which sled may write to.
fn store(dir: &Path) -> Value {
    let scratch = tempfile::tempdir().expect("a directory");
    copy(dir, scratch.path());
    let shelf = samples::store(scratch.path()).shelf(samples::lineage());
    let Some(loaded) = shelf.load() else {
        return json!({"slices": "none of them can be used"});
    };
    let slices = loaded.slices.iter().map(|slice| {
        let mut rows = Vec::new();
        let read = slice.entries(|id, entry| rows.push((id, entry)));
        json!({
            "span": slice.span(),
            "entries": entries(rows),
            "damage": read.err().map(|damage| damage.why),
        })
    });
    json!({
        "checkpoint": loaded.checkpoint,
        "terms": loaded.terms,
        "slices": slices.collect::<Vec<_>>(),
    })
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("its type").is_dir() {
            true => {
                fs::create_dir_all(&target).expect("a directory");
                copy(&entry.path(), &target);
            }
            false => drop(fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

/// One record, with an id at every place.
struct Record {
    value: Vec<u8>,
}

impl Record {
    /// `framed`: as serializers of a schema registry write it, behind the number of its schema.
    fn new(framed: bool) -> Self {
        let json = br#"{"event":{"id":"e-1"},"order":{"id":"o-1"},"note":"a;b;c;d","n":[1,2,3,4,5,6,7,8,9]}"#;
        let frame: &[u8] = if framed { &[0, 0, 0, 0, 7] } else { &[] };
        Self {
            value: [frame, json].concat(),
        }
    }
}

impl Fields for Record {
    fn key(&self) -> Option<&[u8]> {
        Some(b"truck-7")
    }
    fn value(&self) -> Option<&[u8]> {
        Some(&self.value)
    }
    fn last_header(&self, name: &CStr) -> Option<&[u8]> {
        let found: &[u8] = match name.to_bytes() {
            b"message-id" => b"m-1",
            b"tenant" => b"acme",
            b"ce_specversion" => b"1.0",
            b"ce_source" => b"/trucks/7",
            b"ce_id" => b"c-1",
            _ => return None,
        };
        Some(found)
    }
}

/// The fingerprint of that record, and the text by which runs name where ids come from: were one of both another in a
/// later build, it would not know again what was seen.
fn ids(configs: &Path) -> Value {
    each(configs, |text| {
        let text = String::from_utf8_lossy(text);
        let config = samples::config(&text, "a config of a release");
        let from = &config.id.from;
        let mut facts = BTreeMap::from([("mark", json!(from.mark()))]);
        if places(from).is_empty() {
            let seed = deployment_seed(&config.kafka.group_id);
            let record = Record::new(matches!(from, IdSource::JsonSchema(_)));
            let mut identifier = Identifier::new(from, seed, &Schemas::default());
            let found = identifier.identify(&record).expect("it needs no schema");
            facts.insert("fingerprint", identity(found));
        }
        json!(facts)
    })
}

/// A config means what it meant: what that release rendered of it, defaults written out, is the same configuration.
pub fn assert_configs_mean_the_same(release: &Path) {
    let rendered = super::files(&release.join("rendered"));
    for (name, text) in super::files(&release.join("configs")) {
        let place = format!("{}/configs/{name}", release.display());
        let then = rendered
            .get(&name)
            .unwrap_or_else(|| panic!("{place} is rendered nowhere"));
        let then = String::from_utf8_lossy(then).replace(REDACTED, SECRET);
        let now = samples::config(&String::from_utf8_lossy(&text), &place);
        let meant = samples::config(&then, &format!("{}/rendered/{name}", release.display()));
        if now != meant {
            let (now, meant) = (now.to_yaml_redacted(), meant.to_yaml_redacted());
            let lines = now
                .lines()
                .zip(meant.lines())
                .filter(|(now, meant)| now != meant);
            let lines: Vec<String> = lines
                .map(|(now, meant)| format!("{now}, and was {meant}"))
                .collect();
            panic!(
                "{place}: a default or the meaning of a key is another than it was: {}. Let it mean what it meant, or give \
                 it another name",
                lines.join("; ")
            );
        }
    }
}
