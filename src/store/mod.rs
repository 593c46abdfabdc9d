//! The store: what was seen, on the local disk. A cache of the journal, never the truth: it may be
//! lost, stale or damaged at any time, and is brought up to date or made anew from the journal.
//!
//! It touches its own directory and nothing else. A scope's part of it is a [`Shelf`]; a shelf holds
//! [`Sealed`] slices, each a sled database of packed [`chunk`]s and a seal [`record`] with the
//! checkpoint, whose one write makes the slice count (I4). Slices are sealed on a thread of the
//! store's own (`sealer`), and the memory of open databases is bounded (`handles`).
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
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use entry::{Entry, Fingerprint};
pub use record::{Anchor, Checkpoint, Lineage, Link, Span};
pub use sealed::{Damage, Sealed};
pub use sealer::{Abandoned, Closed, Entries, Pending};
pub use shelf::{Loaded, Shelf};

use crate::exit::Stop;
use crate::http::health::{Condition, Health};
use crate::journal::Terms;
use crate::metrics::Metrics;
use handles::Handles;
use sealer::Job;
use shelf::Holders;

/// After a write that failed, the next is tried this much later.
const WRITE_PAUSE: Duration = Duration::from_secs(10);
/// Slices that turn out to be damaged so often within [`DAMAGE_PAUSE`] speak of a disk that cannot be
/// trusted: it is left alone for that long, as rebuilding again and again would be all that is done.
const DAMAGES: usize = 16;
const DAMAGE_PAUSE: Duration = Duration::from_secs(600);
/// How long a directory that another process uses is waited for.
const OTHERS_PATIENCE: Duration = Duration::from_secs(1);
const OTHERS_MEMORY: Duration = Duration::from_secs(10);
const COMPONENT: &str = "store";

/// The store of the process. Lives as long as a shelf of it does.
pub struct Store {
    path: Option<PathBuf>,
    handles: Arc<Handles>,
    jobs: Mutex<Option<Sender<Job>>>,
    /// Nothing is written before this time; `None` while writing goes well.
    paused_until: Mutex<Option<Instant>>,
    damaged_at: Mutex<VecDeque<Instant>>,
    holders: Holders,
    /// When a directory was found to be in use by another process.
    others_at: Mutex<Option<Instant>>,
    /// The components of the health that say they are degraded: the store, or parts of it.
    degraded: Mutex<BTreeSet<String>>,
    /// Under which seen sets are held, for the seal records.
    terms: OnceLock<Terms>,
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
    /// Starts ended while it was opened.
    Suspect,
}

impl Aside {
    /// The word for directory names and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Foreign => "foreign",
            Self::Stale => "stale",
            Self::Suspect => "suspect",
        }
    }
}

impl Store {
    /// The store in this directory, whose open databases take `memory_bytes` at most, all together. One that cannot be
    /// used is no reason to stop: seen ids are held in memory then, and the health says so.
    ///
    /// # Errors
    /// No thread can be had (70).
    pub fn open(
        path: &Path,
        memory_bytes: u64,
        metrics: Arc<Metrics>,
        health: Health,
    ) -> Result<Arc<Self>, Stop> {
        let (jobs, inbox) = channel();
        let handles = Arc::new(Handles::new(memory_bytes));
        let of_sealer = Arc::clone(&handles);
        std::thread::Builder::new()
            .name("sealer".to_owned())
            .spawn(move || sealer::work(&inbox, &of_sealer))
            .map_err(|error| Stop::internal(format!("no thread for the store: {error}")))?;
        let store = Self {
            path: Some(path.to_owned()),
            handles,
            jobs: Mutex::new(Some(jobs)),
            paused_until: Mutex::default(),
            damaged_at: Mutex::default(),
            holders: Holders::default(),
            others_at: Mutex::default(),
            degraded: Mutex::default(),
            terms: OnceLock::new(),
            metrics,
            health,
        };
        if let Err(error) = make_private(path) {
            let why = format!("{} cannot be made: {error}", path.display());
            store.unusable(COMPONENT, &why);
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
            paused_until: Mutex::default(),
            damaged_at: Mutex::default(),
            holders: Holders::default(),
            others_at: Mutex::default(),
            degraded: Mutex::default(),
            terms: OnceLock::new(),
            metrics: Metrics::new(),
            health: Health::new(),
        })
    }

    /// Says under which terms all seen sets of this process are held; the first word counts.
    pub fn hold_under(&self, terms: Terms) {
        let _ = self.terms.set(terms);
    }

    /// Whether a directory could be made here, and written to, by this user; why not otherwise. Makes
    /// nothing.
    ///
    /// # Errors
    /// What is in the way, as a sentence.
    pub fn probe(path: &Path) -> Result<(), String> {
        let there = path
            .ancestors()
            .find(|path| path.as_os_str().is_empty() || path.exists())
            .unwrap_or(path);
        let there = if there.as_os_str().is_empty() {
            Path::new(".")
        } else {
            there
        };
        if !there.is_dir() {
            return Err(format!("{} is not a directory", there.display()));
        }
        tempfile_in(there).map_err(|error| format!("{}: {error}", there.display()))
    }

    /// Whether an earlier owner in this process still has the part of this scope: another worker, or the
    /// sealer. It lets go as soon as it looks, so it must not be made to wait meanwhile.
    pub fn is_held_here(&self, lineage: &Lineage) -> bool {
        let dir = self.path().map(|path| path.join(shelf::dir_name(lineage)));
        dir.is_some_and(|dir| self.holders.hold(&dir))
    }

    /// The part of one scope. One that [is held](Self::is_held_here) is done without.
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

    /// Another process that leaves lets go of its directories within milliseconds. One that does not
    /// keeps all of them, and is not waited for again and again.
    fn patience_with_others(&self) -> Duration {
        let lately = lock(&self.others_at).is_some_and(|at| at.elapsed() < OTHERS_MEMORY);
        if lately {
            Duration::ZERO
        } else {
            OTHERS_PATIENCE
        }
    }

    fn note_others(&self) {
        *lock(&self.others_at) = Some(Instant::now());
    }

    fn holders(&self) -> &Holders {
        &self.holders
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
        lock(&self.paused_until).is_none_or(|until| Instant::now() >= until)
    }

    fn written(&self) {
        let mut paused_until = lock(&self.paused_until);
        if paused_until.is_some_and(|until| until > Instant::now() + WRITE_PAUSE) {
            // The disk is left alone for its damages; what was under way is no sign of better times.
            return;
        }
        let paused = paused_until.take();
        drop(paused_until);
        if paused.is_some() {
            tracing::info!(
                "the store can be written again; slices that waited in memory go to the disk"
            );
        }
        self.tell_ready();
    }

    fn tell_ready(&self) {
        self.no_longer_degraded(COMPONENT);
        let path = self.path().unwrap_or(Path::new("")).display();
        self.health
            .set(COMPONENT, Condition::Ready(format!("in {path}")));
    }

    fn not_written(&self, why: &str) {
        self.count_error("write");
        *lock(&self.paused_until) = Some(Instant::now() + WRITE_PAUSE);
        self.unusable(COMPONENT, why);
    }

    /// Says that seen ids are held in memory, and why; `component` is the store or a part of it.
    fn unusable(&self, component: &str, why: &str) {
        let mut degraded = lock(&self.degraded);
        degraded.insert(component.to_owned());
        self.metrics.store_degraded.set(1);
        drop(degraded);
        let sentence = format!(
            "{why}. Seen ids are held in memory and in the journal meanwhile: nothing is lost, but \
             memory grows with the window and a restart takes longer. See that store.path is a directory \
             that this user may write to, and has room"
        );
        self.health.set(component, Condition::Degraded(sentence));
    }

    /// A part of the store can be used, and so can the whole, unless writing fails.
    fn usable(&self, component: &str) {
        self.forget(component);
        if lock(&self.paused_until).is_none() {
            self.tell_ready();
        }
    }

    /// A part of the store is not spoken of any more.
    fn forget(&self, component: &str) {
        self.no_longer_degraded(component);
        self.health.clear(component);
    }

    fn no_longer_degraded(&self, component: &str) {
        let mut degraded = lock(&self.degraded);
        degraded.remove(component);
        let any = !degraded.is_empty();
        self.metrics.store_degraded.set(i64::from(any));
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
        if aside != Aside::Damaged {
            return;
        }
        let now = Instant::now();
        let mut damaged_at = lock(&self.damaged_at);
        damaged_at.retain(|at| now.duration_since(*at) < DAMAGE_PAUSE);
        damaged_at.push_back(now);
        if damaged_at.len() >= DAMAGES {
            damaged_at.clear();
            *lock(&self.paused_until) = Some(now + DAMAGE_PAUSE);
            self.unusable(
                COMPONENT,
                &format!(
                    "{DAMAGES} stored slices were damaged within {} s; the disk is left alone for as long",
                    DAMAGE_PAUSE.as_secs()
                ),
            );
        }
    }
}

/// Makes a directory, and those above it that are missing, which only this user may enter: ids are
/// nobody else's business, and whoever could write here could have records dropped.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// Makes a file that has no name, which is gone when this returns.
fn tempfile_in(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let unnamed = std::fs::File::options()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(dir);
    match unnamed {
        Ok(_) => Ok(()),
        // Not every file system has such files; then only an attempt would tell.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
