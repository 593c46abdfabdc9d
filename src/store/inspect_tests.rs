//! Real slices in real directories, looked at from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use tempfile::TempDir;

use super::super::record::tests::lineage;
use super::super::record::{Anchor, Checkpoint, FORMAT, Link, Span};
use super::super::sealer::{Closed, Entries};
use super::super::{Entry, Fingerprint, Shelf, Store};
use super::*;
use crate::http::health::Health;
use crate::metrics::Metrics;

struct Ids(u64);

impl Entries for Ids {
    fn len(&self) -> usize {
        self.0 as usize
    }

    fn for_each(&self, each: &mut dyn FnMut(Fingerprint, Entry)) {
        for ordinal in 0..self.0 {
            let entry = Entry {
                time_ms: ordinal as i64,
                offset: 2 * ordinal as i64,
                ordinal,
                payload: 0,
            };
            each(fingerprint(ordinal), entry);
        }
    }
}

fn fingerprint(ordinal: u64) -> Fingerprint {
    u128::from(ordinal.wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        anchor: Anchor {
            offset: 9,
            checksum: 8,
        },
        next_offset: 7,
        stream_time_ms: Some(6),
        next_ordinal: 1000,
    }
}

fn span(first_ordinal: u64, end_ordinal: u64) -> Span {
    Span {
        journal_from: 0,
        first_ordinal,
        end_ordinal,
        newest_time_ms: 999,
        oldest_time_ms: 0,
    }
}

/// A store with one scope of one slice of a thousand ids, and whoever owns it.
fn sealed(store: &TempDir) -> Arc<Shelf> {
    let opened = Store::open(store.path(), 64 << 20, Metrics::new(), Health::new()).unwrap();
    let shelf = opened.shelf(lineage());
    let pending = shelf.seal(Closed {
        span: span(0, 1000),
        checkpoint: checkpoint(),
        entries: Arc::new(Ids(1000)),
        chain: Some(Vec::new()),
    });
    while pending.poll().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    shelf
}

/// Waits until the sealer's thread has let go, too.
fn let_go(shelf: Arc<Shelf>, scope: &Path) {
    drop(shelf);
    while is_in_use(scope).unwrap() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

type Contents = BTreeMap<PathBuf, (Vec<u8>, SystemTime)>;

fn contents(dir: &Path) -> Contents {
    let mut all = Contents::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            all.extend(contents(&path));
            all.insert(path, (Vec::new(), changed));
        } else {
            all.insert(path.clone(), (fs::read(&path).unwrap(), changed));
        }
    }
    all
}

fn only(store: &TempDir) -> ScopeDir {
    let mut dirs = scope_dirs(store.path()).unwrap();
    assert_eq!(dirs.len(), 1);
    dirs.remove(0)
}

#[test]
fn a_slice_is_read_whole_and_no_file_of_the_store_changes() {
    let store = TempDir::new().unwrap();
    let shelf = sealed(&store);
    let scope = only(&store);
    let_go(shelf, &scope.path);
    let slice = &scope.slices[0];
    assert_eq!(slice.first_ordinal, Some(0));
    assert!(slice.bytes > 10_000 && slice.changed.is_some());

    let before = contents(store.path());
    let scratch = Scratch::new().unwrap();
    let Looked::Sound(copied) = open(&scope.path, &slice.path, &scratch) else {
        panic!("not sound");
    };
    assert_eq!(copied.record().checkpoint, checkpoint());
    let entry = copied.get(fingerprint(7)).unwrap().unwrap();
    assert_eq!((entry.ordinal, entry.offset), (7, 14));
    let mut ids = 0;
    copied.entries(|_, _| ids += 1).unwrap();
    assert_eq!(ids, 1000);
    drop(copied);
    assert_eq!(contents(store.path()), before);
    assert_eq!(contents(&scratch.dir), Contents::new());

    let dir = scratch.dir.clone();
    drop(scratch);
    assert!(!dir.exists());
}

/// Why it is a copy that is opened.
#[test]
fn sled_changes_a_database_that_is_only_opened() {
    let store = TempDir::new().unwrap();
    let shelf = sealed(&store);
    let scope = only(&store);
    let_go(shelf, &scope.path);
    let before = contents(store.path());
    let db = sled_dir::open(&scope.slices[0].path, false).unwrap();
    assert!(sled_dir::seal_record(&db).unwrap().is_some());
    sled_dir::close(db);
    assert_ne!(contents(store.path()), before);
}

#[test]
fn a_scope_that_a_process_owns_is_left_alone_until_it_lets_go() {
    let store = TempDir::new().unwrap();
    let shelf = sealed(&store);
    let scope = only(&store);
    let slice = scope.slices[0].path.clone();
    let scratch = Scratch::new().unwrap();
    assert!(is_in_use(&scope.path).unwrap());
    assert!(matches!(open(&scope.path, &slice, &scratch), Looked::InUse));
    let_go(shelf, &scope.path);
    let looked = open(&scope.path, &slice, &scratch);
    assert!(matches!(looked, Looked::Sound(_)));
    // Whoever comes now finds the lock free while the copy is still being read.
    let opened = Store::open(store.path(), 64 << 20, Metrics::new(), Health::new()).unwrap();
    assert!(opened.shelf(lineage()).wants_disk());
}

#[test]
fn damage_is_told_with_its_reason_and_never_a_panic() {
    let store = TempDir::new().unwrap();
    let shelf = sealed(&store);
    let scope = only(&store);
    let_go(shelf, &scope.path);
    let slice = scope.slices[0].path.clone();
    let db = slice.join("db");
    let whole = fs::read(&db).unwrap();
    let scratch = Scratch::new().unwrap();
    let mut damaged = 0;
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&db, &bytes).unwrap();
        let why = match open(&scope.path, &slice, &scratch) {
            Looked::Sound(copied) => copied.entries(|_, _| {}).err().map(|damage| damage.why),
            Looked::Damaged(why) => Some(why),
            // A seal record that cannot be seen.
            Looked::Unfinished => Some("unfinished".to_owned()),
            _ => panic!("byte {at}: neither sound nor damaged"),
        };
        damaged += usize::from(why.is_some());
    }
    assert!(damaged > 5, "{damaged}");
    fs::remove_file(&db).unwrap();
    let Looked::Damaged(why) = open(&scope.path, &slice, &scratch) else {
        panic!("not damaged");
    };
    assert_eq!(why, "its database file is missing");
}

#[test]
fn directories_are_known_by_their_names() {
    let name = scope_dir_name("g", "trucks.eu-1", 12);
    assert!(name.starts_with("trucks.eu-1-12-"), "{name}");
    let ours = Some(("trucks.eu-1".to_owned(), 12));
    assert_eq!(scope_of(&name, "g", &[]), ours);
    assert_eq!(scope_of(&name, "another", &[]), None);
    assert_eq!(scope_of("lost+found", "g", &[]), None);
    assert_eq!(scope_of("trucks.eu-1-12-0123456789abcdef", "g", &[]), None);
    // Too long to be shown whole.
    let long = "x".repeat(200);
    let name = scope_dir_name("g", &long, 0);
    assert_eq!(scope_of(&name, "g", &[]), None);
    let known = [long.clone()];
    assert_eq!(scope_of(&name, "g", &known), Some((long, 0)));
}

#[test]
fn what_was_set_aside_says_when_and_why() {
    let store = TempDir::new().unwrap();
    let scope = store.path().join("t-0-x");
    let kept = "set-aside-001700000000123-damaged-slice-00000000000000000007";
    fs::create_dir_all(scope.join(kept)).unwrap();
    fs::write(scope.join(kept).join("db"), [0; 77]).unwrap();
    fs::write(scope.join(OPENING), "2").unwrap();
    let scope = only(&store);
    assert_eq!((scope.slices.len(), scope.unfinished_starts), (0, 2));
    let aside = &scope.set_aside[0];
    assert_eq!(
        (aside.reason.as_str(), aside.since_ms),
        ("damaged", Some(1_700_000_000_123))
    );
    assert!(aside.bytes >= 77);
    assert!(!is_in_use(&scope.path).unwrap());
}

fn record(first_ordinal: u64, chain: &[(u64, u64)]) -> SealRecord {
    let link = |(first_ordinal, seal): &(u64, u64)| Link {
        first_ordinal: *first_ordinal,
        seal: *seal,
    };
    SealRecord {
        format: FORMAT,
        lineage: lineage(),
        terms: None,
        span: span(first_ordinal, first_ordinal + 10),
        entries: 10,
        chunks: 1,
        checkpoint: checkpoint(),
        chain: chain.iter().map(link).collect(),
    }
}

#[test]
fn a_chain_ends_where_a_slice_is_missing_and_leaves_out_what_is_over() {
    assert_eq!(chain(&[]), Chain::default());
    let (over, first) = (record(0, &[]), record(10, &[(0, 1)]));
    let second = record(20, &[(10, 2)]);
    let third = record(30, &[(10, 2), (20, 3)]);
    let whole = [(&over, 1), (&first, 2), (&second, 3), (&third, 4)];
    let kept = |kept: &[usize], behind_gap: &[usize], missing| Chain {
        kept: kept.to_vec(),
        behind_gap: behind_gap.to_vec(),
        missing,
    };
    assert_eq!(chain(&whole), kept(&[1, 2, 3], &[], 0));
    assert_eq!(chain(&[whole[1], whole[3]]), kept(&[0], &[1], 1));
    assert_eq!(chain(&[whole[2], whole[3]]), kept(&[], &[0, 1], 1));
    // The newest that is there names none of the later ones.
    assert_eq!(chain(&whole[..3]), kept(&[1, 2], &[], 0));
    // Of another life: the same place, another seal.
    let lookalike = [(&first, 9), (&second, 3), (&third, 4)];
    assert_eq!(chain(&lookalike), kept(&[], &[1, 2], 1));
}
