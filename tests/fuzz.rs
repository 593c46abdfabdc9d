//! The fuzzer's checks (see fuzz/README.md) on 110,000 inputs that are nearly right: valid ones with
//! something changed. Quick, and the same in every run of a seed; the fuzzer goes deeper.

#[path = "fuzz/targets.rs"]
mod targets;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const SAMPLE: &str = include_str!("../deploy/kafka-dedup.yaml");

const JSON: [&str; 6] = [
    r#"{"id":"a","event":{"id":12.50,"x":[1,2]}}"#,
    r#"[{"id":"\u00e9\n"},{"id":null}]"#,
    r#"{"a/b":{"m~n":true},"id":[0,"x"]}"#,
    r#"{"id":1,"id":"2","event":{"id":""}}"#,
    r#""plain""#,
    "-1e400",
];

const CSV: [&str; 5] = [
    "a,b,c\nd,e,f\n",
    "\"a,\"\"b\",c;d;e\r\n",
    "\u{feff}x;y;\"z\nz\"\n",
    "a\tb\tc",
    ",\"\",\n",
];

/// A valid input with a few bytes replaced, put in, taken out, or a part repeated.
fn nearly(valid: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let telling = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\"\\{}[]:,;\n\r\t0$-'#&*!|>%@~ \xef\xbb\xbf\x00\x1b".to_vec()),
    ];
    let change = (0_u8..4, any::<prop::sample::Index>(), telling, 1_usize..24);
    (
        prop::sample::select(valid),
        prop::collection::vec(change, 0..6),
    )
        .prop_map(|(mut bytes, changes)| {
            for (what, at, byte, length) in changes {
                let at = at.index(bytes.len() + 1);
                let end = (at + length).min(bytes.len());
                match what {
                    0 if at < bytes.len() => bytes[at] = byte,
                    1 => drop(bytes.drain(at..end)),
                    2 => {
                        let part = bytes[at..end].to_vec();
                        bytes.splice(at..at, part);
                    }
                    _ => bytes.insert(at, byte),
                }
            }
            bytes
        })
}

/// Runs so many cases; at least one in a hundred must be of use, or they test refusals alone.
fn cases(count: u32, valid: Vec<Vec<u8>>, target: impl Fn(&[u8]) -> bool) {
    let useful = std::cell::Cell::new(0_u32);
    let config = Config {
        cases: count,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&nearly(valid), |bytes| {
            useful.set(useful.get() + u32::from(target(&bytes)));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(
        useful.get() > count / 100,
        "only {} of {count} were of use",
        useful.get()
    );
}

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn ids_of_records_that_are_nearly_json_or_csv() {
    cases(
        40_000,
        bytes(&[&JSON[..], &CSV[..]].concat()),
        targets::identify,
    );
}

#[test]
fn ids_of_records_that_are_nearly_of_a_schema_and_schemas_that_are_nearly_one() {
    let avro = b"\x02\x02\x02k\x04\0\x02\x02v\0\0\x02ff\0\x04ab";
    let avro_sized = b"\x7f\x01\x06\x02k\0\0\x02ff\x04\x02";
    let protobuf = b"\0\x08\x05\x12\x07\x0a\x01f\x12\x02ab\x1a\x00";
    let indexed = b"\x04\0\0\x12\x02ab";
    let texts = bytes(&[targets::AVRO, targets::PROTOBUF]);
    let values = [avro.as_slice(), avro_sized, protobuf, indexed];
    let values = values.iter().map(|value| value.to_vec());
    cases(
        10_000,
        texts.into_iter().chain(values).collect(),
        targets::schemas,
    );
}

#[test]
fn runs_of_the_journal() {
    let run = |ids: i64| {
        kafka_dedup::journal::Run {
            identity: 7,
            stream_time_ms: Some(1_700_000_000_000),
            next_offset: 10 + ids,
            first_ordinal: 3,
            fingerprints: (0..ids).map(|id| (id as u128) << 90 | 5).collect(),
            times_ms: (0..ids).map(|id| 1_700_000_000_000 + id / 3).collect(),
            offsets: (10..10 + ids).collect(),
            payloads: match ids {
                100 => (0..100).collect(),
                _ => Vec::new(),
            },
            terms: (ids % 2 == 0).then(|| kafka_dedup::journal::Terms {
                time_ms: Some(3_600_000),
                ids: None,
                id_from: "key".to_owned(),
            }),
            ..Default::default()
        }
        .encode(usize::MAX)
        .remove(0)
    };
    cases(
        20_000,
        vec![run(0), run(1), run(17), run(100)],
        targets::run,
    );
}

#[test]
fn chunks_and_seals_of_the_store() {
    use kafka_dedup::store::{Entry, chunk};
    let chunk = |ids: u64| {
        let entries: Vec<_> = (0..ids)
            .map(|n| {
                let entry = Entry {
                    time_ms: 1_700_000_000_000 + n as i64,
                    offset: n as i64 * 3,
                    ordinal: n,
                    payload: if ids == 40 { n + 1 } else { 0 },
                };
                ((u128::from(n) << 100) | 9, entry)
            })
            .collect();
        chunk::pack(&entries)
    };
    cases(
        20_000,
        vec![chunk(0), chunk(1), chunk(40), chunk(256)],
        targets::store,
    );
}

#[test]
fn configurations() {
    let secret = SAMPLE.replace(
        "properties: {}                    #",
        "properties: {sasl.password: '${KAFKA_PASSWORD}'} #",
    );
    let least = "kafka: {bootstrap_servers: 'b:9092', group_id: g, properties: {linger.ms: 7}}\ninput: {topics: [t]}\nid: {from: {all: [{header: a}, {csv: {column: 2, delimiter: \";\"}}]}}\n";
    let framed = "kafka: {bootstrap_servers: 'b:9092', group_id: g}\ninput: {topics: [t]}\nid: {from: {avro: /a~1b}}\nschemas: {registry: 'http://r', username: me, password: x, timeout: 7s, unknown: wait}\n";
    cases(
        20_000,
        bytes(&[&secret, least, least, framed]),
        targets::config,
    );
}
