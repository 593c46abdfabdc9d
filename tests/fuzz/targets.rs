//! What must hold for any bytes at all, one function a door through which foreign bytes come in.
//! Shared by the fuzzer (fuzz/) and the tests (tests/fuzz.rs), so that both run the same checks: each
//! function panics where a promise does not hold, and otherwise answers whether the bytes were of use.

use std::collections::BTreeMap;
use std::ffi::CStr;

use kafka_dedup::config::{Config, IdSource, from_str};
use kafka_dedup::identify::{Fields, Identifier, MissingReason, Without};
use kafka_dedup::journal::Run;
use kafka_dedup::schemas::{Format, Place, Plan, Pointer, Prospect, Schema, Schemas};
use kafka_dedup::store::chunk::{self, Chunk};
use kafka_dedup::store::record::SealRecord;
use kafka_dedup::store::{Entry, Fingerprint};

/// A record made of bytes: the first says where its parts end.
pub struct Record<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

impl<'a> Record<'a> {
    pub fn of(value: &'a [u8]) -> Self {
        Self {
            key: Some(value),
            value: Some(value),
            headers: vec![
                (b"id", Some(value)),
                (b"other", None),
                (b"id", None),
                (b"id", Some(value)),
            ],
        }
    }
}

impl Fields for Record<'_> {
    fn key(&self) -> Option<&[u8]> {
        self.key
    }

    fn value(&self) -> Option<&[u8]> {
        self.value
    }

    fn last_header(&self, name: &CStr) -> Option<&[u8]> {
        let mut headers = self.headers.iter().rev();
        headers.find(|(key, _)| *key == name.to_bytes())?.1
    }
}

/// Pointers to look up, with the same as a path for an independent look.
const POINTERS: [(&str, &[&str]); 6] = [
    ("/id", &["id"]),
    ("/event/id", &["event", "id"]),
    ("/0/id", &["0", "id"]),
    ("/a~1b/m~0n", &["a/b", "m~n"]),
    ("", &[]),
    ("/id/1", &["id", "1"]),
];

/// Every form of `id.from` on one record, held against other readers of JSON and CSV.
pub fn identify(bytes: &[u8]) -> bool {
    let record = Record::of(bytes);
    let id = |source: IdSource| {
        let mut identifier = Identifier::new(&source, 7, &Schemas::default());
        match identifier.id(&record) {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(Without::Missing(reason)) => Err(reason),
            Err(Without::Schema(unresolved)) => panic!("{unresolved:?}"),
        }
    };
    let whole = if bytes.is_empty() {
        Err(MissingReason::NoId)
    } else {
        Ok(bytes.to_vec())
    };
    assert_eq!(id(IdSource::Key), whole);
    assert_eq!(id(IdSource::Value), whole);
    assert_eq!(id(IdSource::Header("id".into())), whole);
    assert_eq!(
        id(IdSource::Header("other".into())),
        Err(MissingReason::NoId)
    );
    assert_eq!(
        id(IdSource::Header("n\0l".into())),
        Err(MissingReason::NoId)
    );
    let mut found = false;
    for (pointer, path) in POINTERS {
        let got = id(IdSource::Json(pointer.into()));
        found |= got.is_ok();
        if let Some(want) = by_serde_json(bytes, path) {
            assert_eq!(
                got.map(same_number),
                want.map(same_number),
                "{pointer} in {bytes:?}"
            );
        }
    }
    for (column, delimiter) in [(1, b','), (2, b','), (3, b';'), (2, b'\t')] {
        let got = id(IdSource::Csv { column, delimiter });
        found |= got.is_ok();
        let want = by_csv(bytes, column, delimiter).ok_or(MissingReason::NoId);
        assert_eq!(got, want, "column {column} by {delimiter} in {bytes:?}");
    }
    // With a frame before it JSON is what it is without.
    let framed = [b"\0\x01\x02\x03\x04".as_slice(), bytes].concat();
    let framed = Record::of(&framed);
    let source = IdSource::JsonSchema("/id".into());
    let mut identifier = Identifier::new(&source, 7, &Schemas::default());
    let framed = identifier.id(&framed).map(<[u8]>::to_vec);
    match id(IdSource::Json("/id".into())) {
        Err(MissingReason::NoId) if bytes.is_empty() => {}
        plain => assert_eq!(framed, plain.map_err(Without::Missing)),
    }
    let parts = [IdSource::Key, IdSource::Json("/id".into())];
    let both = id(IdSource::All(parts.to_vec()));
    let expected = id(IdSource::Key).and_then(|key| {
        let json = id(IdSource::Json("/id".into()))?;
        let part = |bytes: &[u8]| {
            [
                &u32::try_from(bytes.len()).expect("short").to_le_bytes(),
                bytes,
            ]
            .concat()
        };
        Ok([part(&key), part(&json)].concat())
    });
    assert_eq!(both, expected);
    found
}

/// serde_json's tree writes an exponent with its sign, the service the number as it stands.
fn same_number(id: Vec<u8>) -> Vec<u8> {
    match serde_json::from_slice::<serde_json::Number>(&id) {
        Ok(number) => number.to_string().into_bytes(),
        Err(_) => id,
    }
}

/// By the tree that serde_json builds; `None` where it is too deep for that.
fn by_serde_json(bytes: &[u8], path: &[&str]) -> Option<Result<Vec<u8>, MissingReason>> {
    use serde_json::Value;
    if bytes.is_empty() {
        return Some(Err(MissingReason::NoId));
    }
    let document: Value = match serde_json::from_slice(bytes) {
        Ok(document) => document,
        Err(error) if error.to_string().contains("recursion limit") => return None,
        Err(_) => return Some(Err(MissingReason::Unparsable)),
    };
    let mut at = Some(&document);
    for step in path {
        at = match at {
            Some(Value::Object(members)) => members.get(*step),
            Some(Value::Array(elements)) => step.parse().ok().and_then(|n: usize| elements.get(n)),
            _ => None,
        };
    }
    Some(match at {
        None | Some(Value::Null) => Err(MissingReason::NoId),
        Some(Value::Object(_) | Value::Array(_)) => Err(MissingReason::Unparsable),
        Some(Value::String(text)) if text.is_empty() => Err(MissingReason::NoId),
        Some(Value::String(text)) => Ok(text.clone().into_bytes()),
        // Numbers keep their text.
        Some(other) => Ok(other.to_string().into_bytes()),
    })
}

/// By the csv crate, of which the first record counts.
fn by_csv(bytes: &[u8], column: usize, delimiter: u8) -> Option<Vec<u8>> {
    // A value that begins with an empty line has no columns; the crate would pass over it.
    let line = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if line.is_empty() || line.starts_with(b"\n") || line.starts_with(b"\r") {
        return None;
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(bytes);
    let record = reader.byte_records().next()?.ok()?;
    record
        .get(column - 1)
        .map(<[u8]>::to_vec)
        .filter(|id| !id.is_empty())
}

/// Schemas whose values and texts are tried: the first text is the one that is changed.
pub const AVRO: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"n","type":"long"},
    {"name":"m","type":{"type":"map","values":{"type":"array","items":["null","string","R"]}}},
    {"name":"event","type":["null",{"type":"record","name":"E","fields":[
        {"name":"f","type":{"type":"fixed","name":"F","size":2}},
        {"name":"id","type":["string","long",{"type":"enum","name":"K","symbols":["A","B"]}]}]}]}]}"#;
pub const PROTOBUF: &str = r#"syntax = "proto3"; package p;
message R { int64 n = 1; Event event = 2; map<string, R> m = 3;
  message Event { bytes f = 1; oneof k { string id = 2; sint64 other = 3; } } }"#;

/// Bytes as a value of a schema and as a schema's text, for both kinds: nothing is exhausted, nothing is
/// guessed, and the same value has the same id again.
pub fn schemas(bytes: &[u8]) -> bool {
    let mut found = false;
    for (format, text) in [(Format::Avro, AVRO), (Format::Protobuf, PROTOBUF)] {
        let place = |pointer| Place {
            format,
            pointer: Pointer::new(pointer),
        };
        let schema = |text: &str| Schema {
            format: format.as_str().to_owned(),
            text: text.to_owned(),
            references: Vec::new(),
        };
        for pointer in ["/event/id", "/n"] {
            let plan = Plan::new(&place(pointer), &schema(text));
            assert_eq!(plan.prospect(), Prospect::Ids, "{}", plan.sentence());
            let find = |value: &[u8]| {
                let mut text = Vec::new();
                plan.find(value, &mut text).map(|id| id.map(<[u8]>::to_vec))
            };
            let id = find(bytes);
            found |= matches!(id, Ok(Some(_)));
            assert_eq!(find(bytes), id);
            if let (Format::Avro, Ok(_)) = (format, &id) {
                // What comes after the id does not matter.
                assert_eq!(find(&[bytes, b"more"].concat()), id);
            }
        }
        if let Ok(text) = std::str::from_utf8(bytes) {
            let plan = Plan::new(&place("/event/id"), &schema(text));
            assert_plain(plan.sentence());
            found |= plan.prospect() != Prospect::Refused;
            for value in [
                b"".as_slice(),
                b"\0",
                b"\x02\x02\x02a",
                &[0x12; 40],
                &[0xfe; 40],
            ] {
                let _ = plan.find(value, &mut Vec::new());
            }
        }
    }
    found
}

/// What is read as a run is written back the same way, and no byte of it can change unnoticed.
pub fn run(bytes: &[u8]) -> bool {
    let made = Run {
        identity: word(bytes, 0),
        stream_time_ms: bytes
            .first()
            .is_none_or(|b| b & 1 == 0)
            .then(|| word(bytes, 1).cast_signed()),
        next_offset: word(bytes, 2).cast_signed(),
        first_ordinal: word(bytes, 3) >> 1,
        fingerprints: ids(bytes),
        times_ms: ids(bytes).iter().map(|id| *id as i64).collect(),
        offsets: ids(bytes).iter().map(|id| (*id >> 64) as i64).collect(),
        ..Run::default()
    };
    let encoded = made.encode(usize::MAX).remove(0);
    assert_eq!(Run::decode(&encoded).as_ref(), Ok(&made));
    refuses_changes(&encoded, bytes, |changed| Run::decode(changed).is_err());
    match Run::decode(bytes) {
        Err(error) => {
            assert_plain(&error.to_string());
            false
        }
        Ok(decoded) => {
            let again = decoded.encode(usize::MAX).remove(0);
            assert_eq!(Run::decode(&again), Ok(decoded));
            true
        }
    }
}

/// The same for what the store writes: chunks of ids, and the record that seals a slice.
pub fn store(bytes: &[u8]) -> bool {
    let entries: BTreeMap<Fingerprint, Entry> = ids(bytes)
        .into_iter()
        .zip(0_u64..)
        .map(|(id, ordinal)| {
            let entry = Entry {
                time_ms: id as i64,
                offset: (id >> 64) as i64,
                ordinal,
                payload: if bytes.len().is_multiple_of(2) {
                    0
                } else {
                    id as u64
                },
            };
            (id, entry)
        })
        .collect();
    let entries: Vec<(Fingerprint, Entry)> = entries.into_iter().collect();
    let packed = chunk::pack(&entries);
    let opened = Chunk::open(packed.as_slice()).expect("what was packed");
    assert!(opened.entries().eq(entries.iter().copied()));
    for (id, entry) in &entries {
        assert_eq!(opened.get(*id), Some(*entry));
    }
    refuses_changes(&packed, bytes, |changed| Chunk::open(changed).is_err());
    let mut useful = false;
    match Chunk::open(bytes) {
        Ok(chunk) => {
            useful = true;
            assert_eq!(chunk.entries().count(), chunk.len());
            assert!(chunk.fingerprints().is_sorted());
        }
        Err(error) => assert_plain(&error.to_string()),
    }
    match SealRecord::decode(bytes) {
        Ok((record, _)) => {
            let (again, seal) = record.encode();
            assert_eq!(SealRecord::decode(&again), Ok((record, seal)));
            useful = true;
            refuses_changes(&again, bytes, |changed| {
                SealRecord::decode(changed).is_err()
            });
        }
        Err(error) => assert_plain(&error.to_string()),
    }
    useful
}

pub const MARKER: &str = "secret-marker-4711";

/// A text that loads is rendered as a text that loads as the same; one that does not is told in lines
/// that hold neither control characters nor a secret.
pub fn config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let env = BTreeMap::from([
        ("HOSTNAME".to_owned(), "host-7".to_owned()),
        (
            "KAFKA_DEDUP__KAFKA__PROPERTIES__SASL_PASSWORD".to_owned(),
            MARKER.to_owned(),
        ),
        ("KAFKA_PASSWORD".to_owned(), "another".to_owned()),
    ]);
    match from_str(text, "c.yaml", &env) {
        Ok(config) => {
            let yaml = config.to_yaml_redacted();
            assert!(!yaml.contains(MARKER), "{yaml}");
            assert!(!format!("{config:?}").contains(MARKER));
            let again = from_str(&yaml, "c.yaml", &BTreeMap::new());
            let again = again.unwrap_or_else(|faults| panic!("{faults}\n{yaml}"));
            assert_eq!(again.to_yaml_redacted(), yaml);
            assert_eq!(without_secrets(again), without_secrets(config));
            true
        }
        Err(faults) => {
            for line in faults.lines() {
                assert_plain(&line);
                assert!(!line.contains(MARKER), "{line}");
            }
            false
        }
    }
}

/// Redacted values differ from what they stand for.
fn without_secrets(mut config: Config) -> Config {
    if let Some(schemas) = &mut config.schemas {
        schemas.password = None;
    }
    let kafka = &mut config.kafka;
    for properties in [
        &mut kafka.properties,
        &mut kafka.consumer_properties,
        &mut kafka.producer_properties,
    ] {
        properties.values_mut().for_each(String::clear);
    }
    config
}

/// No content of a record or a file may write lines of its own into a log.
fn assert_plain(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// One byte changed, at a place and to a value that the input says.
fn refuses_changes(good: &[u8], bytes: &[u8], refused: impl Fn(&[u8]) -> bool) {
    let mut changed = good.to_vec();
    let at = usize::try_from(word(bytes, 4) % good.len() as u64).expect("an index");
    changed[at] ^= bytes.first().copied().unwrap_or(1).max(1);
    assert!(refused(&changed), "byte {at} of {good:?} changed unnoticed");
    assert!(refused(&good[..at]), "cut off at {at} unnoticed");
}

/// The n-th eight bytes, as far as they are there.
fn word(bytes: &[u8], n: usize) -> u64 {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes.iter().skip(8 * n)) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

fn ids(bytes: &[u8]) -> Vec<u128> {
    let (ids, _) = bytes.as_chunks::<16>();
    ids.iter()
        .take(300)
        .map(|id| u128::from_le_bytes(*id))
        .collect()
}
