//! The promise between versions: what every release wrote, each later build reads, and means the same by it.
//! `tests/data/releases/v<version>/` holds what a release wrote:
//!
//! ```text
//! configs/*.yaml     by hand: every key, every source of ids, the least that is needed
//! rendered/*.yaml    the same as that release understood them, defaults written out
//! runs/*.run         records of the journal
//! envelopes/*        keys of the repartition topic
//! store/             a store of two slices, as the service leaves it
//! store-parts/*      chunks and a seal record alone, whose bytes follow from what they hold
//! expected.json      what is in all of them
//! ```
//!
//! `KAFKA_DEDUP_WRITE_FIXTURES=1 cargo test --test compatibility` writes those of the version in Cargo.toml anew, but
//! for the configs. docs/versions.md says when.

#[path = "compatibility/facts.rs"]
mod facts;
#[path = "compatibility/samples.rs"]
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use kafka_dedup::journal::{Run, RunError};
use xxhash_rust::xxh3::xxh3_64;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const WRITE: &str = "KAFKA_DEDUP_WRITE_FIXTURES";
/// What of a release follows from its samples byte by byte. A store does not: sled's files differ from run to run.
const EXACT: [&str; 4] = ["rendered", "runs", "envelopes", "store-parts"];

fn releases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/releases")
}

fn present() -> PathBuf {
    releases().join(format!("v{VERSION}"))
}

/// Name and bytes of every file in a directory.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            let bytes = fs::read(entry.path()).expect("its bytes");
            (name, bytes)
        })
        .collect()
}

/// Writes the fixtures of this version where that is asked for. All tests look at them, so it is done once.
fn written() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if std::env::var_os(WRITE).is_some() {
            samples::write(&present());
            let facts = facts::of(&present());
            let text = serde_json::to_string_pretty(&facts).expect("JSON");
            fs::write(present().join("expected.json"), text + "\n").expect("written");
        }
    });
}

#[test]
fn what_each_release_wrote_is_read_and_means_the_same() {
    written();
    let mut count = 0;
    for entry in fs::read_dir(releases()).expect("the releases") {
        let release = entry.expect("a release").path();
        let name = release.display();
        let expected = fs::read_to_string(release.join("expected.json")).unwrap_or_else(|error| {
            panic!("{name}/expected.json: {error}. It belongs to the release: get it back")
        });
        let expected: serde_json::Value = serde_json::from_str(&expected).expect("JSON");
        let found = facts::of(&release);
        for section in ["runs", "envelopes", "store", "store_parts", "ids"] {
            let (found, expected) = (&found[section], &expected[section]);
            let entries = expected.as_object().expect("facts by name");
            for name_of in entries.keys() {
                assert_eq!(
                    found[name_of], expected[name_of],
                    "{name}: this build reads {section}, {name_of}, otherwise than that release wrote it: read its \
                     format as before, and give the new one a version of its own"
                );
            }
            assert_eq!(
                found, expected,
                "{name}: {section} has more than that release wrote"
            );
        }
        facts::assert_configs_mean_the_same(&release);
        count += 1;
    }
    assert!(count > 0, "there is no release in {}", releases().display());
}

#[test]
fn this_version_writes_what_its_fixtures_hold() {
    written();
    assert!(
        present().exists(),
        "{VERSION} has no fixtures: put its configs into {}/configs, and run {WRITE}=1 cargo test --test compatibility",
        present().display()
    );
    let scratch = tempfile::tempdir().expect("a directory");
    let configs = scratch.path().join("configs");
    fs::create_dir(&configs).expect("a directory");
    for (name, bytes) in files(&present().join("configs")) {
        fs::write(configs.join(name), bytes).expect("written");
    }
    samples::write(scratch.path());
    for kind in EXACT {
        let (now, then) = (
            files(&scratch.path().join(kind)),
            files(&present().join(kind)),
        );
        let names: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
        let differing: Vec<&String> = names
            .into_iter()
            .filter(|name| now.get(*name) != then.get(*name))
            .collect();
        assert!(
            differing.is_empty(),
            "this build does not write {kind}/{differing:?} as version {VERSION} does. If {VERSION} was released, give \
             Cargo.toml the next version and that one fixtures of its own; else write them anew: {WRITE}=1 cargo \
             test --test compatibility"
        );
    }
}

/// A run with a right checksum again.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 8);
    let checksum = xxh3_64(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// So that a flag or version that comes later is not forgotten here.
#[test]
fn every_flag_and_version_of_a_run_is_among_the_fixtures() {
    const AT_VERSION: usize = 4;
    const AT_FLAGS: usize = 5;
    written();
    let runs = files(&present().join("runs"));
    let flags = runs.values().fold(0, |flags, run| flags | run[AT_FLAGS]);
    for (name, run) in &runs {
        for bit in (0..8).filter(|bit| flags & (1 << bit) == 0) {
            let mut bytes = run.clone();
            bytes[AT_FLAGS] |= 1 << bit;
            let read = Run::decode(&sealed(bytes));
            assert!(
                matches!(read, Err(RunError::Damaged(why)) if why.contains("flags")),
                "runs have flag bit {bit}, and no fixture has it: add one to tests/compatibility/samples.rs ({name}: {read:?})"
            );
        }
    }
    for version in (0..=u8::MAX).filter(|it| !runs.values().any(|run| run[AT_VERSION] == *it)) {
        let mut bytes = runs.values().next().expect("a run").clone();
        bytes[AT_VERSION] = version;
        assert_eq!(
            Run::decode(&sealed(bytes)),
            Err(RunError::Version(version)),
            "runs have version {version}, and no fixture has it: add one to tests/compatibility/samples.rs"
        );
    }
}

#[test]
fn every_key_is_in_the_fixture_that_has_every_key() {
    written();
    let given = fs::read_to_string(present().join("configs/every-key.yaml")).expect("the config");
    let rendered =
        fs::read_to_string(present().join("rendered/every-key.yaml")).expect("as it was read");
    for line in rendered.lines() {
        let (key, _) = line.trim().split_once(':').expect("a key");
        let key = key.trim_matches('"');
        assert!(
            given.contains(&format!("{key}:")),
            "configs/every-key.yaml of v{VERSION} does not have {key}: add it"
        );
    }
}
