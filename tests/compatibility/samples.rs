//! What this build writes: a sample of every kind, with all that its format can say.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kafka_dedup::config::{self, Config};
use kafka_dedup::http::health::Health;
use kafka_dedup::identify::{Identity, MissingReason, deployment_seed};
use kafka_dedup::journal::{self, Run, Since, Terms};
use kafka_dedup::metrics::Metrics;
use kafka_dedup::repartition::{Mark, Passed};
use kafka_dedup::store::record::SealRecord;
use kafka_dedup::store::{
    Anchor, Checkpoint, Closed, Entry, Fingerprint, Lineage, Sealed, Shelf, Span, Store, chunk,
};
use xxhash_rust::xxh3::xxh3_128;

/// In place of every secret, as rendered configs have none.
pub const SECRET: &str = "a-secret-of-nobody";
pub const REDACTED: &str = "<redacted>";

const BEGAN_MS: i64 = 1_795_000_000_000;
const GROUP: &str = "trucks-dedup";
const TOPIC: &str = "truck_position";

pub fn config(text: &str, name: &str) -> Config {
    let variables = ["KAFKA_PASSWORD", "REGISTRY_PASSWORD", "ADMIN_TOKEN"]
        .map(|name| (name.to_owned(), SECRET.to_owned()));
    let env = variables
        .into_iter()
        .chain([("HOSTNAME".to_owned(), "dedup-0".to_owned())])
        .collect();
    config::from_str(text, name, &env).unwrap_or_else(|faults| {
        let lines: Vec<String> = faults.lines().collect();
        panic!(
            "this build refuses a config that its release took: {}",
            lines.join("\n")
        )
    })
}

/// Everything but the configs, which are in `release` already, and what is in all of it.
pub fn write(release: &Path) {
    let dir = |name: &str| {
        let dir = release.join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir).expect("what was there before");
        }
        fs::create_dir_all(&dir).expect("a directory");
        dir
    };
    let rendered = dir("rendered");
    for entry in fs::read_dir(release.join("configs")).expect("the configs") {
        let path = entry.expect("a config").path();
        let text = fs::read_to_string(&path).expect("its text");
        let name = path.file_name().expect("a name");
        let config = config(&text, &name.to_string_lossy());
        fs::write(rendered.join(name), config.to_yaml_redacted()).expect("written");
    }
    let kept = dir("runs");
    for (name, run, ids_in_a_part) in runs() {
        for (part, bytes) in run.encode(ids_in_a_part).iter().enumerate() {
            fs::write(kept.join(format!("{name}-{part}.run")), bytes).expect("written");
        }
    }
    let kept = dir("envelopes");
    for (name, passed) in envelopes() {
        fs::write(kept.join(name), passed.envelope(mark())).expect("written");
    }
    let kept = dir("store-parts");
    let store = dir("store");
    for (name, bytes) in write_store(&store) {
        fs::write(kept.join(name), bytes).expect("written");
    }
}

fn ids(count: i64) -> Run {
    let places = 0..count;
    Run {
        identity: journal::Identity::of(deployment_seed(GROUP), TOPIC, Some("Zx4kQ9"), 3).own,
        stream_time_ms: Some(BEGAN_MS + 100 * count),
        next_offset: 5_000 + 2 * count,
        first_ordinal: 70_000,
        fingerprints: places.clone().map(fingerprint).collect(),
        times_ms: places.clone().map(|id| BEGAN_MS + 100 * id).collect(),
        offsets: places.map(|id| 5_000 + 2 * id).collect(),
        terms: Some(terms()),
        ..Run::default()
    }
}

fn fingerprint(id: i64) -> Fingerprint {
    xxh3_128(&id.to_le_bytes())
}

fn terms() -> Terms {
    Terms {
        time_ms: Some(86_400_000),
        ids: Some(50_000_000),
        id_from: "{header: message-id}".to_owned(),
    }
}

/// Each by name, with the ids that a part of it may have.
fn runs() -> Vec<(&'static str, Run, usize)> {
    let payloads = vec![0, 1, u64::MAX - 1, Entry::FORGOTTEN];
    let since = |time_ms| Since {
        ordinal: 69_000,
        time_ms,
    };
    let without_ids = || Run {
        first_ordinal: 70_007,
        ..ids(0)
    };
    vec![
        (
            "first-version",
            Run {
                terms: None,
                ..ids(3)
            },
            100,
        ),
        (
            "first-version-no-time",
            Run {
                terms: None,
                stream_time_ms: None,
                ..ids(0)
            },
            100,
        ),
        ("ids", ids(5), 100),
        ("parts", ids(7), 3),
        ("no-ids", without_ids(), 100),
        (
            "no-stream-time",
            Run {
                stream_time_ms: None,
                ..without_ids()
            },
            100,
        ),
        (
            "no-limits",
            Run {
                terms: Some(Terms {
                    time_ms: None,
                    ids: None,
                    ..terms()
                }),
                ..ids(1)
            },
            100,
        ),
        ("extremes", extremes(), 100),
        ("payloads-and-forgotten", Run { payloads, ..ids(4) }, 100),
        (
            "begins",
            Run {
                begins: true,
                ..ids(2)
            },
            100,
        ),
        (
            "preload",
            Run {
                preload: true,
                begins: true,
                offsets: vec![journal::run::NO_OFFSET; 2],
                ..ids(2)
            },
            100,
        ),
        (
            "after-preload",
            Run {
                preloaded: Some(4_321),
                ..ids(2)
            },
            100,
        ),
        (
            "bypassed",
            Run {
                bypassed: true,
                ..ids(2)
            },
            100,
        ),
        (
            "since",
            Run {
                since: Some(since(Some(BEGAN_MS))),
                ..ids(2)
            },
            100,
        ),
        (
            "since-no-time",
            Run {
                since: Some(since(None)),
                ..without_ids()
            },
            100,
        ),
        (
            "all",
            Run {
                begins: true,
                preload: true,
                bypassed: true,
                preloaded: Some(4_321),
                since: Some(since(Some(-1))),
                payloads: vec![7, 8],
                ..ids(2)
            },
            100,
        ),
    ]
}

fn extremes() -> Run {
    Run {
        identity: u64::MAX,
        stream_time_ms: Some(i64::MIN),
        next_offset: i64::MAX,
        first_ordinal: u64::MAX - 2,
        fingerprints: vec![0, u128::MAX],
        times_ms: vec![i64::MIN, i64::MAX],
        offsets: vec![i64::MAX, 0],
        ..ids(0)
    }
}

pub fn mark() -> Mark {
    Mark::of(deployment_seed(GROUP), "{header: message-id}")
}

fn envelopes() -> Vec<(&'static str, Passed<'static>)> {
    let passed = Passed {
        partition: 11,
        offset: 1 << 40,
        timestamp_ms: Some(BEGAN_MS),
        identity: Identity::Id(fingerprint(1)),
        key: Some(b"truck-7"),
    };
    let missing = |why| Identity::Missing(why);
    vec![
        ("key", passed),
        (
            "empty-key",
            Passed {
                key: Some(b""),
                ..passed
            },
        ),
        (
            "no-key",
            Passed {
                key: None,
                timestamp_ms: None,
                ..passed
            },
        ),
        (
            "no-id",
            Passed {
                identity: missing(MissingReason::NoId),
                ..passed
            },
        ),
        (
            "unparsable",
            Passed {
                identity: missing(MissingReason::Unparsable),
                ..passed
            },
        ),
    ]
}

pub fn lineage() -> Lineage {
    Lineage {
        cluster_id: Some("5L6g3nShT-eMCtK--X86sw".to_owned()),
        group: GROUP.to_owned(),
        topic: TOPIC.to_owned(),
        partition: 3,
        topic_id: Some("Zx4kQ9".to_owned()),
        journal: format!("{TOPIC}-{GROUP}-seen"),
        journal_id: Some("Qy7aB2".to_owned()),
        seed: deployment_seed(GROUP),
    }
}

pub fn store(path: &Path) -> Arc<Store> {
    let store = Store::open(path, 64 << 20, Metrics::new(), Health::new()).expect("a store");
    store.hold_under(terms());
    store
}

struct Rows(Vec<(Fingerprint, Entry)>);

impl kafka_dedup::store::Entries for Rows {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn for_each(&self, each: &mut dyn FnMut(Fingerprint, Entry)) {
        self.0.iter().for_each(|(id, entry)| each(*id, *entry));
    }
}

/// Two slices: one of several chunks, and one with payloads and an id that was forgotten. Gives those of their parts
/// whose bytes follow from what they hold.
fn write_store(path: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let plain: Vec<_> = (0..600).map(|id| (fingerprint(id), entry(id, 0))).collect();
    let known = (600..640).map(|id| {
        let payload = if id == 639 {
            Entry::FORGOTTEN
        } else {
            u64::try_from(id % 4).expect("positive")
        };
        (fingerprint(id), entry(id, payload))
    });
    let payloads: Vec<_> = known.collect();
    let packed = |rows: &[(Fingerprint, Entry)]| {
        let mut rows = rows.to_vec();
        rows.sort_by_key(|(id, _)| *id);
        chunk::pack(&rows)
    };
    let mut parts = vec![
        ("plain.chunk", packed(&plain[..200])),
        ("payloads.chunk", packed(&payloads)),
        ("empty.chunk", packed(&[])),
    ];
    let shelf = store(path).shelf(lineage());
    let first = seal(&shelf, plain, &[]);
    let second = seal(&shelf, payloads, &[&first]);
    parts.push(("second.seal", record(&second)));
    parts
}

fn record(sealed: &Sealed) -> Vec<u8> {
    SealRecord::encode(sealed.record()).0
}

fn entry(id: i64, payload: u64) -> Entry {
    Entry {
        time_ms: BEGAN_MS + 100 * id,
        offset: 5_000 + 2 * id,
        ordinal: 70_000 + id.unsigned_abs(),
        payload,
    }
}

fn seal(shelf: &Arc<Shelf>, rows: Vec<(Fingerprint, Entry)>, before: &[&Sealed]) -> Sealed {
    let (first, last) = (rows[0].1, rows[rows.len() - 1].1);
    let pending = shelf.seal(Closed {
        span: Span {
            journal_from: 17,
            first_ordinal: first.ordinal,
            end_ordinal: last.ordinal + 1,
            newest_time_ms: last.time_ms,
            oldest_time_ms: first.time_ms,
        },
        checkpoint: Checkpoint {
            anchor: Anchor {
                offset: last.offset / 100,
                checksum: u64::MAX - last.ordinal,
            },
            next_offset: last.offset + 2,
            stream_time_ms: Some(last.time_ms + 50),
            next_ordinal: last.ordinal + 1,
        },
        entries: Arc::new(Rows(rows)),
        chain: Some(
            before
                .iter()
                .map(|sealed| sealed.record().link(sealed.seal()))
                .collect(),
        ),
    });
    loop {
        if let Some(sealed) = pending.poll().expect("sealed") {
            assert!(sealed.dir().is_some(), "it is on the disk");
            return sealed;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
