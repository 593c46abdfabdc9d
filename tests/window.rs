//! The promise of the seen window: whatever order records, commits, aborts and restarts come in,
//! warm or cold, with a store that is sound, damaged, stale, another's or of no use, its verdicts are
//! those of the reference model.

mod model;

#[path = "window/spoil.rs"]
mod spoil;

use std::collections::HashSet;
use std::sync::Arc;

use kafka_dedup::config::Window;
use kafka_dedup::http::health::Health;
use kafka_dedup::journal::run::{Run, checksum};
use kafka_dedup::metrics::Metrics;
use kafka_dedup::store::{Anchor, Lineage, Loaded, Store};
use kafka_dedup::window::{Fit, SeenWindow, Sizing, Verdict};
use model::{Judged, Model};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use spoil::{Spoiler, Spoils};
use tempfile::TempDir;

const CASES_IN_MEMORY: u32 = 2000;
/// Files cost milliseconds. `KAFKA_DEDUP_TEST_ROUNDS` multiplies this.
const CASES_ON_DISK: u32 = 120;

/// A timestamp, chosen by what it does to stream time.
#[derive(Debug, Clone)]
enum At {
    None,
    Same,
    Ahead(i64),
    Behind(i64),
    /// The age of an id becomes the window, one less or one more.
    Edge {
        id: u8,
        off_by: i64,
    },
    /// The wall clock plus `max_ahead`, one less or one more.
    AheadOfWall(i64),
    Exactly(i64),
}

#[derive(Debug, Clone)]
enum Wall {
    /// So late that nothing is ahead of it.
    Late,
    /// Relative to stream time.
    Near(i64),
}

#[derive(Debug, Clone)]
enum Step {
    Record {
        id: Option<u8>,
        at: At,
        wall: Wall,
    },
    Commit,
    /// The open transaction's records are judged again after it.
    Abort,
    /// Work beside the verdicts: slices to the store, the filter's size.
    Tend(usize),
    /// All of it.
    Settle,
    Restart {
        trimmed: bool,
        /// What happens to the store's files before the start; none of them where it is `Keep`.
        spoils: Spoils,
    },
}

fn windows() -> impl Strategy<Value = Window> {
    let time = prop_oneof![
        4 => prop::sample::select(vec![0, 1, 7, 8, 9, 64, 100, 1000]),
        2 => Just(i64::MAX),
    ];
    let ids = prop::sample::select(vec![1_u64, 2, 3, 7, 8, 9, 16, 17, 40]);
    let limits = prop_oneof![
        time.clone().prop_map(|time| (Some(time), None)),
        ids.clone().prop_map(|ids| (None, Some(ids))),
        (time, ids).prop_map(|(time, ids)| (Some(time), Some(ids))),
    ];
    let max_ahead = prop::sample::select(vec![0, 10, 600, i64::MAX]);
    (limits, any::<bool>(), max_ahead).prop_map(|((time_ms, ids), refresh, max_ahead_ms)| Window {
        time_ms,
        ids,
        refresh,
        max_ahead_ms,
    })
}

fn timestamps() -> impl Strategy<Value = At> {
    prop_oneof![
        1 => Just(At::None),
        3 => Just(At::Same),
        6 => (0_i64..20).prop_map(At::Ahead),
        1 => (0_i64..1500).prop_map(At::Ahead),
        2 => (0_i64..1500).prop_map(At::Behind),
        8 => (0_u8..24, -1_i64..=1).prop_map(|(id, off_by)| At::Edge { id, off_by }),
        2 => (-1_i64..=1).prop_map(At::AheadOfWall),
        1 => prop::sample::select(vec![i64::MIN, -1000, -2, 0, 1_700_000_000_000]).prop_map(At::Exactly),
        1 => prop::sample::select(vec![i64::MAX, i64::MAX - 1]).prop_map(At::Exactly),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few ids, so that they meet again; more now and then, so that counts run out.
    let id = prop::option::weighted(0.95, prop_oneof![3 => 0_u8..4, 2 => 0_u8..24]);
    let wall = prop_oneof![2 => (-50_i64..50).prop_map(Wall::Near), 5 => Just(Wall::Late)];
    let record = (id, timestamps(), wall).prop_map(|(id, at, wall)| Step::Record { id, at, wall });
    let step = prop_oneof![
        14 => record,
        4 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => (0_usize..4).prop_map(Step::Tend),
        3 => Just(Step::Settle),
        1 => (any::<bool>(), spoil::any()).prop_map(|(trimmed, spoils)| Step::Restart { trimmed, spoils }),
    ];
    prop::collection::vec(step, 1..120)
}

/// A record as it was judged, so that an abort can judge it again.
type Record = (Option<u8>, Option<i64>, i64);

/// Where the window keeps its sealed slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    None,
    Sound,
    /// A path at which nothing can be written.
    Unusable,
}

/// The window and the model side by side, and store and journal between restarts.
struct Bench {
    limits: Window,
    sizing: Sizing,
    store: Arc<Store>,
    spoiler: Option<Spoiler>,
    _dir: TempDir,
    window: Option<SeenWindow>,
    model: Model,
    committed: Model,
    position: i64,
    open: Vec<Record>,
    forwarded: HashSet<i64>,
    journal: Vec<Vec<u8>>,
    trimmed_to: i64,
    part_ids: usize,
}

impl Bench {
    fn new(limits: Window, active_ids: u64, part_ids: usize, disk: Disk) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("store");
        let on_disk = || Store::open(&path, 16 << 20, Metrics::new(), Health::new()).unwrap();
        let store = match disk {
            Disk::None => Store::in_memory(),
            Disk::Sound => on_disk(),
            Disk::Unusable => {
                std::fs::write(&path, "a file is in the way").unwrap();
                on_disk()
            }
        };
        let sizing = Sizing {
            active_ids,
            false_positive_rate: 0.1,
        };
        let shelf = store.shelf(Lineage::default());
        Self {
            limits,
            sizing,
            store,
            spoiler: (disk == Disk::Sound).then(|| Spoiler::new(&path)),
            _dir: dir,
            window: Some(SeenWindow::new(limits, sizing, shelf)),
            model: Model::new(limits),
            committed: Model::new(limits),
            position: 0,
            open: Vec::new(),
            forwarded: HashSet::new(),
            journal: Vec::new(),
            trimmed_to: 0,
            part_ids,
        }
    }

    fn window(&mut self) -> &mut SeenWindow {
        self.window.as_mut().expect("a window between restarts")
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Record { id, at, wall } => {
                let stream_time = self.stream_time();
                let wall = match wall {
                    Wall::Late => i64::MAX / 2,
                    Wall::Near(by) => stream_time.saturating_add(*by),
                };
                let timestamp = self.timestamp(at, wall);
                self.record((*id, timestamp, wall));
            }
            Step::Commit => self.commit(),
            Step::Abort => {
                for record in self.abort() {
                    self.record(record);
                }
            }
            Step::Tend(steps) => {
                self.window().tend(*steps).unwrap();
            }
            Step::Settle => self.settle(),
            Step::Restart { trimmed, spoils } => self.restart(*trimmed, spoils),
        }
        let stream_time = self.model.stream_time_ms.map(|time| time as i64);
        assert_eq!(self.window().stream_time_ms(), stream_time);
        assert_eq!(self.window().next_ordinal(), self.model.ordinals_taken);
        assert!(self.window().slices() <= 120);
    }

    fn stream_time(&self) -> i64 {
        self.model.stream_time_ms.unwrap_or(0) as i64
    }

    fn timestamp(&self, at: &At, wall: i64) -> Option<i64> {
        let stream_time = self.stream_time();
        match at {
            At::None => None,
            At::Same => Some(stream_time),
            At::Ahead(by) => Some(stream_time.saturating_add(*by)),
            At::Behind(by) => Some(stream_time.saturating_sub(*by)),
            At::Edge { id, off_by } => {
                let seen = self.model.seen.get([*id].as_slice());
                let since = seen.map_or(stream_time, |seen| seen.time_ms as i64);
                let window = self.limits.time_ms.unwrap_or(0);
                Some(since.saturating_add(window).saturating_add(*off_by))
            }
            At::AheadOfWall(off_by) => {
                let edge = wall.saturating_add(self.limits.max_ahead_ms);
                Some(edge.saturating_add(*off_by))
            }
            At::Exactly(timestamp) => Some(*timestamp),
        }
    }

    fn record(&mut self, (id, timestamp, wall): Record) {
        let offset = self.position;
        self.position += 1;
        self.open.push((id, timestamp, wall));
        self.window().observe(timestamp, wall);
        let Some(id) = id else {
            self.model.observe(timestamp, wall);
            return;
        };
        let expected = match self.model.judge(&[id], timestamp, wall, offset) {
            Judged::Forward => {
                self.forwarded.insert(offset);
                Verdict::Forward
            }
            Judged::Duplicate {
                first_offset,
                age_ms,
            } => Verdict::Duplicate {
                first_offset,
                age_ms: i64::try_from(age_ms).unwrap_or(i64::MAX),
                in_overlay: self.forwarded.contains(&first_offset),
                conflicts: false,
            },
            Judged::NoId => unreachable!("the record has an id"),
        };
        let verdict = self.window().judge(fingerprint(id), offset).unwrap();
        assert_eq!(verdict, expected, "id {id} at offset {offset}");
    }

    fn commit(&mut self) {
        if self.window().is_dirty() {
            let position = self.position;
            let run = self.window().pending_run(1, position);
            let first_run = self.journal.len() as i64;
            self.journal.extend(run.encode(self.part_ids));
            let last_run = self.anchor(self.journal.len() - 1);
            self.window().merge(first_run, last_run, position);
            let keep_from = self.window().keep_journal_from().unwrap();
            assert!((0..=first_run).contains(&keep_from));
        }
        assert!(!self.window().is_dirty());
        self.committed = self.model.clone();
        self.open.clear();
        self.forwarded.clear();
    }

    fn settle(&mut self) {
        while self.window().tend(8).unwrap() > 0 || self.window().is_sealing() {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
    }

    /// Back to the last commit; answers the records that come again.
    fn abort(&mut self) -> Vec<Record> {
        self.window().discard();
        assert!(!self.window().is_dirty());
        self.rewind()
    }

    /// A new window from store and journal; what was open is gone with the old one.
    fn restart(&mut self, trimmed: bool, spoils: &Spoils) {
        if let Some(keep_from) = self.window().keep_journal_from()
            && trimmed
        {
            self.trimmed_to = self.trimmed_to.max(keep_from);
        }
        self.window = None;
        // The store's thread may still write what it was given.
        self.wait_until_free(&Lineage::default());
        if let Some(spoiler) = &mut self.spoiler {
            spoiler.spoil(spoils);
        }
        let mut window = self.start(Lineage::default());
        if window.is_none() {
            // What was on the shelf did not fit the journal, and is set aside by now.
            window = self.start(Lineage::default());
        }
        self.window = Some(window.expect("a cold start fits every journal"));
        for record in self.rewind() {
            self.record(record);
        }
    }

    fn wait_until_free(&self, lineage: &Lineage) {
        while self.store.is_held_here(lineage) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Starts as recovery does; `None`, with the shelf empty, where the store does not fit.
    fn start(&self, lineage: Lineage) -> Option<SeenWindow> {
        self.wait_until_free(&lineage);
        let shelf = self.store.shelf(lineage);
        let journal = self.trimmed_to..self.journal.len() as i64;
        let fits = |loaded: &Loaded| match journal.contains(&loaded.checkpoint.anchor.offset) {
            true => Fit::Fits,
            false => Fit::NotOfThisJournal,
        };
        let mut window = SeenWindow::load(self.limits, self.sizing, &shelf, fits, || true);
        let mut next = journal.start;
        if let Some(checkpoint) = window.checkpoint() {
            if self.anchor(checkpoint.anchor.offset as usize) != checkpoint.anchor {
                shelf.set_all_aside("another journal");
                return None;
            }
            next = checkpoint.anchor.offset + 1;
        }
        for offset in next as usize..self.journal.len() {
            let run = Run::decode(&self.journal[offset]).unwrap();
            if window.apply(&run, self.anchor(offset)).is_err() {
                assert!(next > journal.start, "a cold start found a broken chain");
                shelf.set_all_aside("another journal");
                return None;
            }
        }
        Some(window)
    }

    fn anchor(&self, offset: usize) -> Anchor {
        Anchor {
            offset: offset as i64,
            checksum: checksum(&self.journal[offset]),
        }
    }

    fn rewind(&mut self) -> Vec<Record> {
        self.model = self.committed.clone();
        self.position -= self.open.len() as i64;
        self.forwarded.clear();
        std::mem::take(&mut self.open)
    }
}

fn fingerprint(id: u8) -> u128 {
    0x9e37_79b9_7f4a_7c15_u128 << 64 | u128::from(id)
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

fn cases_on_disk() -> u32 {
    let rounds = std::env::var("KAFKA_DEDUP_TEST_ROUNDS").ok();
    let rounds: u32 = rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    CASES_ON_DISK * rounds
}

/// All steps; at the end the whole window is over, and nothing is held but what the last run says.
fn act_out(mut bench: Bench, steps: &[Step]) {
    for step in steps {
        bench.step(step);
    }
    bench.commit();
    bench.restart(true, &Spoils::Keep);
    // Ids from before the first timestamp count as seen at 0, which a negative stream time is still
    // behind.
    let newest = bench.stream_time().max(0);
    let end = bench
        .limits
        .time_ms
        .and_then(|time| newest.checked_add(time))
        .and_then(|end| end.checked_add(1));
    let Some(end) = end else { return };
    bench.record((None, Some(end), end));
    bench.commit();
    let last = bench.journal.len() as i64 - 1;
    let window = bench.window();
    assert_eq!((window.ids(), window.slices()), (0, 0));
    assert_eq!(window.keep_journal_from(), Some(last));
    bench.settle();
    let window = bench.window();
    assert_eq!(window.expected_false_positive_rate(), 0.0);
}

proptest! {
    #![proptest_config(config(CASES_IN_MEMORY))]

    #[test]
    fn verdicts_are_those_of_the_model(
        limits in windows(),
        active_ids in 1_u64..6,
        part_ids in 1_usize..6,
        unusable in any::<bool>(),
        steps in steps(),
    ) {
        let disk = if unusable { Disk::Unusable } else { Disk::None };
        act_out(Bench::new(limits, active_ids, part_ids, disk), &steps);
    }
}

proptest! {
    #![proptest_config(config(cases_on_disk()))]

    #[test]
    fn verdicts_are_those_of_the_model_whatever_becomes_of_the_store(
        limits in windows(),
        active_ids in 1_u64..6,
        part_ids in 1_usize..6,
        steps in steps(),
    ) {
        act_out(Bench::new(limits, active_ids, part_ids, Disk::Sound), &steps);
    }
}

/// Seen at 0 while no timestamp was known, then renewed at a time before that.
#[test]
fn a_renewal_before_1970_that_is_over_hides_what_was_seen_without_a_timestamp() {
    let limits = Window {
        time_ms: Some(0),
        ids: None,
        refresh: true,
        max_ahead_ms: 0,
    };
    let mut bench = Bench::new(limits, 1, 1, Disk::None);
    for (id, timestamp) in [(Some(3), None), (None, Some(-236)), (Some(3), None)] {
        bench.record((id, timestamp, 0));
    }
    bench.record((None, Some(-235), 0));
    bench.commit();
    bench.record((Some(3), None, 0));
    bench.restart(false, &Spoils::Keep);
    bench.record((Some(3), None, 0));
}

const HOUR: Window = Window {
    time_ms: Some(3_600_000),
    ids: None,
    refresh: false,
    max_ahead_ms: 600_000,
};

#[test]
fn the_model_filters_a_partition() {
    let record = |id: Option<&str>, timestamp, offset| model::Input {
        id: id.map(Into::into),
        timestamp_ms: Some(timestamp),
        wall_ms: i64::MAX,
        offset,
    };
    let records = [
        record(Some("a"), 0, 0),
        record(Some("a"), 3_600_000, 1),
        record(None, 3_600_001, 2),
        record(Some("a"), 5, 3),
    ];
    let judged: Vec<Judged> = model::filter(HOUR, &records)
        .into_iter()
        .map(|(_, judged)| judged)
        .collect();
    let duplicate = Judged::Duplicate {
        first_offset: 0,
        age_ms: 3_600_000,
    };
    assert_eq!(
        judged,
        [Judged::Forward, duplicate, Judged::NoId, Judged::Forward]
    );
}
