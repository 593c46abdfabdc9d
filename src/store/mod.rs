//! The store: what was seen, on the local disk. A cache of the journal, never the truth: it may be
//! lost, stale or damaged at any time, and is brought up to date or made anew from the journal.
//!
//! It touches its own directory and nothing else. A scope's part of it is a [`Shelf`]; a shelf holds
//! [`Sealed`] slices, each a sled database of packed [`chunk`]s and a seal [`record`] with the
//! checkpoint, written in one batch with the last chunks (I4). Slices are sealed on a thread of the
//! store's own ([`sealer`]), and the memory of open databases is bounded ([`handles`]).
//!
//! Why one database a slice: sled reclaims disk space badly, and a whole directory is always
//! reclaimed; damage is kept to one slice; and a slice that is over goes without a single delete.

pub mod chunk;
mod entry;
mod guard;
mod handles;
pub mod inspect;
pub mod record;
mod sealed;
mod sealer;
mod shelf;
mod sled_dir;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use entry::{Entry, Fingerprint};
pub use record::{Anchor, Checkpoint, Lineage, Link, Span};
pub use sealed::{Damage, Sealed};
pub use sealer::{Abandoned, Closed, Entries, Pending};
pub use shelf::{Loaded, Shelf};

use crate::exit::Stop;
use crate::http::health::{Condition, Health};
use crate::metrics::Metrics;
use handles::Handles;
use sealer::Job;

/// Memory that open databases may take, all together, in bytes.
const HANDLES_BUDGET_BYTES: u64 = 64 * 1024 * 1024;
/// After a write that failed, the next is tried this much later.
const WRITE_PAUSE: Duration = Duration::from_secs(10);
const COMPONENT: &str = "store";

/// The store of the process. Lives as long as a shelf of it does.
pub struct Store {
    path: Option<PathBuf>,
    handles: Arc<Handles>,
    jobs: Mutex<Option<Sender<Job>>>,
    /// When the last write failed; `None` since the last one that did not.
    failed: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
    health: Health,
}

/// Why a slice was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    Damaged,
    /// Of another cluster, topic, group, seed or format.
    Foreign,
    /// Sound, and not of this journal's history.
    Stale,
}

impl Aside {
    /// The word for directory names and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Foreign => "foreign",
            Self::Stale => "stale",
        }
    }
}

impl Store {
    /// The store in this directory, which is made when a scope first needs it. One that cannot be
    /// used is no reason to stop: seen ids are held in memory then, and the health says so.
    ///
    /// # Errors
    /// No thread can be had (70).
    pub fn open(path: &Path, metrics: Arc<Metrics>, health: Health) -> Result<Arc<Self>, Stop> {
        let (jobs, inbox) = channel();
        std::thread::Builder::new()
            .name("sealer".to_owned())
            .spawn(move || sealer::work(&inbox))
            .map_err(|error| Stop::internal(format!("no thread for the store: {error}")))?;
        let store = Self {
            path: Some(path.to_owned()),
            handles: Arc::new(Handles::new(HANDLES_BUDGET_BYTES)),
            jobs: Mutex::new(Some(jobs)),
            failed: Mutex::default(),
            metrics,
            health,
        };
        if let Err(error) = std::fs::create_dir_all(path) {
            store.not_written(&format!("{} cannot be made: {error}", path.display()));
        } else {
            store.tell_ready();
        }
        Ok(Arc::new(store))
    }

    /// A store without a disk: all slices are held in memory, and sealed by the caller's thread.
    pub fn in_memory() -> Arc<Self> {
        Arc::new(Self {
            path: None,
            handles: Arc::new(Handles::new(0)),
            jobs: Mutex::default(),
            failed: Mutex::default(),
            metrics: Metrics::new(),
            health: Health::new(),
        })
    }

    /// The part of one scope. Waits up to a second for an earlier owner to let go.
    pub fn shelf(self: &Arc<Self>, lineage: Lineage) -> Arc<Shelf> {
        Shelf::open(Arc::clone(self), lineage)
    }

    /// Estimated memory of the open databases, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.handles.memory_bytes()
    }

    fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn handles(&self) -> &Arc<Handles> {
        &self.handles
    }

    fn submit(&self, job: Job) {
        // Without a thread the job is dropped, and whoever waits for it sees that.
        if let Some(jobs) = &*lock(&self.jobs) {
            let _ = jobs.send(job);
        }
    }

    fn may_write(&self) -> bool {
        lock(&self.failed).is_none_or(|at| at.elapsed() >= WRITE_PAUSE)
    }

    fn written(&self) {
        if lock(&self.failed).take().is_some() {
            tracing::info!("the store can be written again");
        }
        self.tell_ready();
    }

    fn tell_ready(&self) {
        self.metrics.store_degraded.set(0);
        let path = self.path().unwrap_or(Path::new("")).display();
        self.health
            .set(COMPONENT, Condition::Ready(format!("in {path}")));
    }

    fn not_written(&self, why: &str) {
        self.count_error("write");
        *lock(&self.failed) = Some(Instant::now());
        self.unusable(COMPONENT, why);
    }

    /// Says that seen ids are held in memory, and why; `component` is the store or a part of it.
    fn unusable(&self, component: &str, why: &str) {
        self.metrics.store_degraded.set(1);
        let sentence = format!(
            "{why}. Seen ids are held in memory and in the journal meanwhile: nothing is lost, but \
             memory grows with the window and a restart takes longer"
        );
        self.health.set(component, Condition::Degraded(sentence));
    }

    /// A part of the store can be used: it is not mentioned on its own any more.
    fn usable(&self, component: &str) {
        self.health.clear(component);
    }

    fn count_error(&self, operation: &str) {
        self.metrics
            .store_errors
            .with_label_values(&[operation])
            .inc();
    }

    fn note_set_aside(&self, aside: Aside) {
        self.metrics
            .store_set_aside
            .with_label_values(&[aside.word()])
            .inc();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
