//! The seen window itself, driven as the worker drives it: observe, judge, merge, tend.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kafka_dedup::config;
use kafka_dedup::http::health::Health;
use kafka_dedup::metrics::Metrics;
use kafka_dedup::store::{Anchor, Lineage, Shelf, Store};
use kafka_dedup::window::{SeenWindow, Sizing, Verdict};
use tempfile::TempDir;

use super::SeenSet;
use crate::results::{OURS, scratch};
use crate::stream::{Record, WINDOW_MS, fingerprint};

pub struct Window {
    pub window: SeenWindow,
    pub journal_end: i64,
    /// Ids in memory beyond which judging waits for the sealer, as recovery does.
    ahead: u64,
    dir: Keep,
}

/// What becomes of the files.
pub enum Keep {
    Removed(TempDir),
    Kept(PathBuf),
}

impl Keep {
    fn path(&self) -> &Path {
        match self {
            Self::Removed(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }
}

/// The default of `store.memory`.
const MEMORY_BYTES: u64 = 96 << 20;

pub fn limits() -> config::Window {
    config::Window {
        time_ms: Some(WINDOW_MS),
        ids: None,
        refresh: false,
        max_ahead_ms: WINDOW_MS,
    }
}

pub fn shelf(dir: &Path) -> Arc<Shelf> {
    let store = Store::open(dir, MEMORY_BYTES, Metrics::new(), Health::new()).expect("a store");
    let lineage = Lineage {
        topic: "bench".to_owned(),
        ..Lineage::default()
    };
    store.shelf(lineage)
}

impl Window {
    /// A window that will hold so many ids, with the sizes that the service has by default.
    pub fn new(ids: u64) -> Self {
        Self::in_dir(ids, Sizing::default(), Keep::Removed(scratch()))
    }

    pub fn in_dir(ids: u64, sizing: Sizing, dir: Keep) -> Self {
        Self {
            window: SeenWindow::new(limits(), sizing, shelf(dir.path())),
            journal_end: 0,
            // The active slice of a very large window is larger.
            ahead: 4 * sizing.active_ids.max(ids / 32),
            dir,
        }
    }

    /// All that is there to tend.
    fn tend(&mut self) {
        const STEPS: usize = 4;
        while self.window.tend(STEPS).expect("sound slices") == STEPS {}
    }
}

impl SeenSet for Window {
    fn name(&self) -> &'static str {
        OURS
    }

    fn judge(&mut self, records: &[Record], verdicts: &mut Vec<bool>) {
        verdicts.clear();
        for record in records {
            self.window.observe(Some(record.time_ms), record.time_ms);
            let verdict = self
                .window
                .judge(fingerprint(&record.id), record.offset)
                .expect("sound slices");
            verdicts.push(matches!(verdict, Verdict::Duplicate { .. }));
        }
        if self.window.is_dirty() {
            let run = Anchor {
                offset: self.journal_end,
                checksum: self.journal_end.cast_unsigned(),
            };
            let next = records.last().map_or(0, |record| record.offset + 1);
            self.window.merge(run.offset, run, next);
            self.journal_end += 1;
        } else {
            self.window.discard();
        }
        self.tend();
        while self.window.is_sealing() && self.window.ids_in_memory() > self.ahead {
            std::thread::sleep(Duration::from_millis(1));
            self.tend();
        }
    }

    fn settle(&mut self) {
        self.tend();
        while self.window.is_sealing() {
            std::thread::sleep(Duration::from_millis(1));
            self.tend();
        }
    }

    fn is_seen(&mut self, fingerprint: u128) -> bool {
        let verdict = self.window.judge(fingerprint, 0).expect("sound slices");
        matches!(verdict, Verdict::Duplicate { .. })
    }

    fn dir(&self) -> Option<&Path> {
        Some(self.dir.path())
    }
}
