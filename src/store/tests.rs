use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use tempfile::TempDir;

use super::*;
use record::tests::lineage;

/// What a closed slice holds, in the order of the ids.
struct Rows(Vec<(Fingerprint, Entry)>);

impl Entries for Rows {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn for_each(&self, each: &mut dyn FnMut(Fingerprint, Entry)) {
        self.0
            .iter()
            .for_each(|(fingerprint, entry)| each(*fingerprint, *entry));
    }
}

fn fingerprint(id: u64) -> Fingerprint {
    xxhash_rust::xxh3::xxh3_128(&id.to_le_bytes())
}

fn entry(id: u64) -> Entry {
    let id_signed = i64::try_from(id).unwrap();
    Entry {
        time_ms: 1_700_000_000_000 + id_signed,
        offset: 3 * id_signed,
        ordinal: id,
        payload: 0,
    }
}

struct Bench {
    dir: TempDir,
    metrics: Arc<Metrics>,
    health: Health,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            metrics: Metrics::new(),
            health: Health::new(),
        }
    }

    fn store(&self) -> Arc<Store> {
        Store::open(
            self.dir.path(),
            64 << 20,
            Arc::clone(&self.metrics),
            self.health.clone(),
        )
        .unwrap()
    }

    fn shelf(&self) -> Arc<Shelf> {
        self.store().shelf(lineage())
    }

    /// Slices of so many ids each, on a chain.
    fn sealed(&self, ids: u64, slices: u64) -> Vec<Arc<Sealed>> {
        let shelf = self.shelf();
        let mut chain: Vec<Arc<Sealed>> = Vec::new();
        for slice in 0..slices {
            let sealed = seal(&shelf, slice * ids, ids, &chain);
            assert!(sealed.dir().is_some());
            chain.push(Arc::new(sealed));
        }
        chain
    }

    fn slice_dirs(&self) -> Vec<PathBuf> {
        self.scope_entries("slice-")
    }

    fn scope_entries(&self, prefix: &str) -> Vec<PathBuf> {
        shelf::listed(&shelf::listed(self.dir.path(), "t-3-")[0], prefix)
    }

    fn set_aside(&self, reason: &str) -> u64 {
        self.metrics
            .store_set_aside
            .with_label_values(&[reason])
            .get()
    }
}

fn seal(shelf: &Arc<Shelf>, first: u64, ids: u64, chain: &[Arc<Sealed>]) -> Sealed {
    let rows = (first..first + ids)
        .map(|id| (fingerprint(id), entry(id)))
        .collect();
    let pending = shelf.seal(Closed {
        span: Span {
            journal_from: 0,
            first_ordinal: first,
            end_ordinal: first + ids,
            newest_time_ms: entry(first + ids - 1).time_ms,
            oldest_time_ms: entry(first).time_ms,
        },
        checkpoint: Checkpoint {
            anchor: Anchor {
                offset: i64::try_from(first).unwrap(),
                checksum: first,
            },
            next_offset: 0,
            stream_time_ms: None,
            next_ordinal: first + ids,
        },
        entries: Arc::new(Rows(rows)),
        chain: Some(
            chain
                .iter()
                .map(|sealed| sealed.record().link(sealed.seal()))
                .collect(),
        ),
    });
    loop {
        if let Some(sealed) = pending.poll().unwrap() {
            return sealed;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn first_ordinals(loaded: Option<&Loaded>) -> Vec<u64> {
    let slices = loaded
        .map(|loaded| loaded.slices.as_slice())
        .unwrap_or_default();
    slices
        .iter()
        .map(|sealed| sealed.span().first_ordinal)
        .collect()
}

#[test]
fn every_id_of_a_sealed_slice_is_found_and_no_other() {
    let bench = Bench::new();
    for sealed in bench.sealed(10_000, 2) {
        let first = sealed.span().first_ordinal;
        for id in first..first + 10_000 {
            assert_eq!(sealed.get(fingerprint(id)), Ok(Some(entry(id))));
            assert_eq!(sealed.get(fingerprint(id + 20_000)), Ok(None));
        }
        let mut ids = 0;
        sealed.entries(|_, _| ids += 1).unwrap();
        assert_eq!(ids, 10_000);
    }
}

#[test]
fn what_was_sealed_is_there_again() {
    let bench = Bench::new();
    drop(bench.sealed(1_000, 3));
    let shelf = bench.shelf();
    let loaded = shelf.load().unwrap();
    assert_eq!(first_ordinals(Some(&loaded)), [0, 1_000, 2_000]);
    assert_eq!(loaded.checkpoint.next_ordinal, 3_000);
    assert_eq!(
        loaded.slices[1].get(fingerprint(1_500)),
        Ok(Some(entry(1_500)))
    );
    assert_eq!(loaded.slices[1].get(fingerprint(2_500)), Ok(None));
}

#[test]
fn a_missing_slice_costs_those_after_it() {
    for (missing, left) in [(0, vec![]), (1, vec![0]), (2, vec![0, 1_000])] {
        let bench = Bench::new();
        drop(bench.sealed(1_000, 3));
        fs::remove_dir_all(&bench.slice_dirs()[missing]).unwrap();
        let loaded = bench.shelf().load();
        // Without the newest, the one before it is the newest, and its chain is whole.
        assert_eq!(first_ordinals(loaded.as_ref()), left, "{missing}");
        assert_eq!(
            bench.slice_dirs().len(),
            left.len(),
            "what is of no use is removed"
        );
    }
}

#[test]
fn a_slice_that_was_retired_is_not_missed() {
    let bench = Bench::new();
    let shelf = bench.shelf();
    let first = Arc::new(seal(&shelf, 0, 500, &[]));
    let second = Arc::new(seal(&shelf, 500, 500, &[Arc::clone(&first)]));
    let third = seal(&shelf, 1_000, 500, &[Arc::clone(&second)]);
    shelf.retire(&first);
    drop((first, second, third, shelf));
    let loaded = bench.shelf().load();
    assert_eq!(first_ordinals(loaded.as_ref()), [500, 1_000]);
    assert_eq!(bench.slice_dirs().len(), 2);
}

/// Slices that are over wait for the next one to be written: on a disk that they have filled, for ever.
#[test]
fn where_there_is_no_room_what_is_over_goes_first() {
    let bench = Bench::new();
    let shelf = bench.shelf();
    let first = Arc::new(seal(&shelf, 0, 500, &[]));
    let second = Arc::new(seal(&shelf, 500, 500, &[Arc::clone(&first)]));
    let in_the_way = bench.slice_dirs()[0].with_file_name("slice-00000000000000001000");
    fs::write(&in_the_way, "").unwrap();
    let third = seal(&shelf, 1_000, 500, &[Arc::clone(&second)]);
    assert!(third.dir().is_none(), "sealed in memory");
    fs::remove_file(&in_the_way).unwrap();
    assert_eq!(bench.slice_dirs(), [second.dir().unwrap()]);
    // Its owner lets go of it later.
    shelf.retire(&first);
    assert_eq!(second.get(fingerprint(700)), Ok(Some(entry(700))));
}

#[test]
fn a_slice_that_was_never_finished_is_removed() {
    let bench = Bench::new();
    drop(bench.sealed(1_000, 2));
    let unfinished = bench.slice_dirs()[0].with_file_name("slice-00000000000000002000");
    drop(sled_dir::open(&unfinished, true).unwrap());
    let loaded = bench.shelf().load();
    assert_eq!(first_ordinals(loaded.as_ref()), [0, 1_000]);
    assert!(!unfinished.exists());
    assert_eq!(bench.set_aside("damaged"), 0);
}

#[test]
fn slices_of_another_lineage_are_set_aside_and_few_are_kept() {
    let bench = Bench::new();
    drop(bench.sealed(100, 7));
    let mut other = lineage();
    other.journal_id = Some("another".to_owned());
    let loaded = bench.store().shelf(other).load();
    assert_eq!(first_ordinals(loaded.as_ref()), [0_u64; 0]);
    assert_eq!(bench.set_aside("foreign"), 7);
    assert_eq!(bench.scope_entries("set-aside-").len(), 4);
}

#[test]
fn damage_of_any_kind_is_an_error_and_never_a_panic_or_a_wrong_answer() {
    let bench = Bench::new();
    drop(bench.sealed(20_000, 1));
    let slice = bench.slice_dirs().remove(0);
    let scope = slice.parent().unwrap().to_owned();
    let mut sound: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for file in shelf::listed(&slice, "")
        .into_iter()
        .filter(|path| path.is_file())
    {
        sound.push((file.clone(), fs::read(file).unwrap()));
    }
    let mut noticed = 0;
    for round in 0..60_usize {
        let _ = fs::remove_dir_all(&scope);
        fs::create_dir_all(slice.join("blobs")).unwrap();
        for (file, bytes) in &sound {
            let mut bytes = bytes.clone();
            let at = (round * 7_919 * 41) % bytes.len();
            match round % 3 {
                _ if !file.ends_with("db") => {}
                0 => bytes[at] ^= 0x10,
                1 => bytes[at..]
                    .iter_mut()
                    .take(4_096)
                    .for_each(|byte| *byte = 0),
                _ => bytes.truncate(at),
            }
            fs::write(file, bytes).unwrap();
        }
        let shelf = bench.shelf();
        let Some(loaded) = shelf.load() else {
            noticed += 1;
            continue;
        };
        let sealed = &loaded.slices[0];
        let damaged = (0..20_000).any(|id| match sealed.get(fingerprint(id)) {
            Ok(found) => {
                assert_eq!(found, Some(entry(id)));
                false
            }
            Err(damage) => {
                assert_eq!(PathBuf::from(&damage.slice), slice);
                true
            }
        });
        noticed += usize::from(damaged);
    }
    assert!(noticed > 10, "{noticed}");
}

#[test]
fn a_directory_in_use_by_another_is_left_alone_and_taken_when_it_is_free() {
    let bench = Bench::new();
    let owner = bench.shelf();
    let sealed = seal(&owner, 0, 100, &[]);
    let late = bench.shelf();
    assert!(late.load().is_none());
    assert!(!late.wants_disk());
    assert!(seal(&late, 0, 100, &[]).dir().is_none(), "sealed in memory");
    assert!(
        bench.health.report().contains("store/t-3: degraded"),
        "{}",
        bench.health.report()
    );
    assert_eq!(sealed.get(fingerprint(5)), Ok(Some(entry(5))));
    drop((sealed, owner, late));
    assert!(!bench.health.report().contains("store/t-3"));
    assert!(bench.shelf().load().is_some());
}

#[test]
fn what_this_process_holds_is_told_and_never_waited_for() {
    let bench = Bench::new();
    let store = bench.store();
    assert!(!store.is_held_here(&lineage()));
    let owner = store.shelf(lineage());
    assert!(store.is_held_here(&lineage()));
    let late = store.shelf(lineage());
    assert!(!late.wants_disk());
    assert!(
        bench
            .health
            .report()
            .contains("still in use by this process"),
        "{}",
        bench.health.report()
    );
    drop((owner, late));
    assert!(!store.is_held_here(&lineage()));
    assert!(store.shelf(lineage()).wants_disk());
}

#[test]
fn memory_of_open_databases_stays_within_the_budget() {
    let bench = Bench::new();
    drop(bench.sealed(5_000, 6));
    let shelf = bench.shelf();
    let loaded = shelf.load().unwrap();
    // Room for two.
    let handles = Arc::new(Handles::new(2 * 1024 * 1024 + 500_000));
    let slices: Vec<Sealed> = loaded
        .slices
        .iter()
        .map(|sealed| {
            let dir = sealed.dir().unwrap().to_owned();
            shelf.handles().close(sealed.number());
            let record = sealed.record().clone();
            Sealed::on_disk(record, sealed.seal(), dir, Arc::clone(&handles), 100_000)
        })
        .collect();
    for round in 0..3 {
        for (slice, id) in slices.iter().zip((0_u64..).step_by(5_000)) {
            let id = id + round;
            assert_eq!(slice.get(fingerprint(id)), Ok(Some(entry(id))));
            assert!(handles.memory_bytes() <= 2 * 1024 * 1024 + 500_000);
        }
    }
}

#[test]
fn what_nobody_asks_is_closed_and_opened_when_it_is_asked() {
    let bench = Bench::new();
    drop(bench.sealed(5_000, 3));
    let shelf = bench.shelf();
    let loaded = shelf.load().unwrap();
    let handles = shelf.handles();
    assert!(handles.memory_bytes() > 0);
    let bytes_on_disk = || {
        let dirs = loaded
            .slices
            .iter()
            .map(|sealed| sealed.dir().unwrap().to_owned());
        let files = dirs.flat_map(|dir| fs::read_dir(dir).unwrap());
        let sizes = files.map(|file| file.unwrap().metadata().map_or(0, |it| it.len()));
        sizes.sum::<u64>()
    };
    let before = bytes_on_disk();
    for id in 0..50 {
        handles.close_idle(Duration::ZERO);
        assert_eq!(handles.memory_bytes(), 0);
        assert_eq!(
            loaded.slices[1].get(fingerprint(5_000 + id)),
            Ok(Some(entry(5_000 + id)))
        );
        handles.close_idle(Duration::from_secs(60));
        assert!(handles.memory_bytes() > 0);
    }
    // Being asked leaves nothing behind.
    assert!(
        bytes_on_disk() <= before,
        "{} bytes on the disk, {before} before",
        bytes_on_disk()
    );
}

#[test]
fn a_damaged_slice_in_memory_is_noticed_too() {
    let store = Store::in_memory();
    let shelf = store.shelf(lineage());
    let sealed = seal(&shelf, 0, 1_000, &[]);
    assert!(sealed.verify_count(999).is_err());
    assert_eq!(sealed.verify_count(1_000), Ok(()));
    assert_eq!(sealed.get(fingerprint(7)), Ok(Some(entry(7))));
}

/// Two threads that want the same slice: one of them waits for the other to let it go.
#[test]
fn look_ups_from_several_threads_find_the_same() {
    let bench = Bench::new();
    let slices = bench.sealed(5_000, 4);
    let wrong = Mutex::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (slices, wrong) = (&slices, &wrong);
            scope.spawn(move || {
                for id in (thread..20_000).step_by(7) {
                    let slice = &slices[usize::try_from(id / 5_000).unwrap()];
                    if slice.get(fingerprint(id)) != Ok(Some(entry(id))) {
                        *wrong.lock().unwrap() += 1;
                    }
                }
            });
        }
    });
    assert_eq!(*wrong.lock().unwrap(), 0);
}
