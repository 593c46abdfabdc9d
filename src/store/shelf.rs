//! The directory of one scope: its slices, and which of them can be trusted.
//!
//! ```text
//! <store.path>/<topic>-<partition>-<hash>/
//!     lock                          held by the process that uses the directory
//!     opening                       how many starts in a row ended while slices were opened
//!     slice-<first ordinal>/        a sled database
//!     set-aside-<ms>-<why>-slice-…  what could not be trusted, kept for a look; at most 4
//! ```
//!
//! A shelf without a directory (no store, or another process uses it) seals in memory.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::guard::Failure;
use super::handles::Handles;
use super::record::{Checkpoint, Lineage, RecordError, SealRecord};
use super::sealed::{Damage, Sealed};
use super::sealer::{self, Closed, Job, Pending, seal};
use super::sled_dir;
use super::{Aside, Store, lock};
use crate::journal::Terms;

pub(super) const LOCK: &str = "lock";
pub(super) const OPENING: &str = "opening";
pub(super) const SLICE: &str = "slice-";
pub(super) const SET_ASIDE: &str = "set-aside-";
/// Directories that are kept for inspection, a scope (I8).
const SET_ASIDE_MAX: usize = 4;
/// A start that ends while the slices are opened may have been killed by chance; this many in a row
/// were not.
const OPENING_MAX: u32 = 3;
/// How long until a directory that is another's is tried again.
const LOCK_PAUSE: Duration = Duration::from_secs(10);

/// The directory of one scope, for as long as the scope is ours.
pub struct Shelf {
    store: Arc<Store>,
    lineage: Lineage,
    dir: Option<PathBuf>,
    lock: Mutex<Lock>,
}

/// Whether the directory is ours.
enum Lock {
    /// For as long as the file is open.
    Ours { _file: File, _held: Held },
    /// Worth trying again from this time on.
    NotOurs { try_at: Instant },
}

/// Directories that shelves of this process hold: one that goes over to another worker is free soon,
/// one that another process has may never be.
#[derive(Default)]
pub(super) struct Holders(Mutex<HashSet<PathBuf>>);

impl Holders {
    pub(super) fn hold(&self, dir: &Path) -> bool {
        lock(&self.0).contains(dir)
    }
}

/// A directory is held until this is dropped.
struct Held {
    store: Arc<Store>,
    dir: PathBuf,
}

impl Held {
    fn new(store: &Arc<Store>, dir: &Path) -> Self {
        lock(&store.holders().0).insert(dir.to_owned());
        Self {
            store: Arc::clone(store),
            dir: dir.to_owned(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.store.holders().0).remove(&self.dir);
    }
}

/// What was found on a shelf, sound and complete up to a checkpoint.
pub struct Loaded {
    /// Oldest first; never empty.
    pub slices: Vec<Arc<Sealed>>,
    /// What the slices amount to.
    pub checkpoint: Checkpoint,
    /// Under which the newest of them was held, as far as that is known.
    pub terms: Option<Terms>,
}

/// What a directory turned out to be.
enum Found {
    Sound(Arc<Sealed>),
    /// A write that did not end.
    Unfinished,
    Untrusted(Aside, String),
    /// Files, memory or room ran short; what is there may be sound.
    Unreadable(String),
}

impl Shelf {
    pub(super) fn open(store: Arc<Store>, lineage: Lineage) -> Arc<Self> {
        let dir = store.path().map(|path| path.join(dir_name(&lineage)));
        let shelf = Self {
            store,
            lineage,
            dir,
            lock: Mutex::new(Lock::NotOurs {
                try_at: Instant::now(),
            }),
        };
        shelf.take_lock(true);
        Arc::new(shelf)
    }

    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    pub(super) fn terms(&self) -> Option<&Terms> {
        self.store.terms.get()
    }

    pub(super) fn handles(&self) -> &Arc<Handles> {
        self.store.handles()
    }

    /// Seals a slice: at once where there is no store, else on the sealer's thread.
    pub fn seal(self: &Arc<Self>, closed: Closed) -> Pending {
        let (reply, pending) = Pending::new();
        if self.dir.is_none() {
            let _ = reply.send(seal(self, &closed));
        } else {
            self.store.submit(Job::Seal {
                shelf: Arc::clone(self),
                closed,
                reply,
            });
        }
        pending
    }

    /// Seals a slice in memory, here and now.
    pub fn seal_in_memory(&self, closed: &Closed) -> Sealed {
        sealer::in_memory(sealer::record(self, closed), closed)
    }

    /// Removes a slice that is over, some time soon.
    pub fn retire(self: &Arc<Self>, sealed: &Sealed) {
        if let Some(dir) = sealed.dir() {
            self.handles().close(sealed.number());
            self.store.submit(Job::Remove {
                shelf: Arc::clone(self),
                dir: dir.to_owned(),
            });
        }
    }

    /// Whether it is worth trying to write now: the directory is ours, and the last failure is some
    /// time ago.
    pub fn wants_disk(&self) -> bool {
        if self.dir.is_none() || !self.store.may_write() {
            return false;
        }
        if self.is_ours() {
            return true;
        }
        if matches!(*self.lock(), Lock::NotOurs { try_at } if Instant::now() < try_at) {
            return false;
        }
        self.take_lock(false);
        // What was another's until now is not what we hold.
        self.remove_all();
        self.is_ours()
    }

    /// To be called once before [`Self::load`]. Slices at which several starts in a row ended (a
    /// process that is killed tells nobody why) are set aside instead of being opened once more.
    pub fn begin_opening(&self) {
        let Some(dir) = self.dir.as_ref().filter(|_| self.is_ours()) else {
            return;
        };
        if count_opening(dir) <= OPENING_MAX {
            return;
        }
        for slice in &self.slice_dirs() {
            let why = format!("{OPENING_MAX} starts in a row ended while slices were opened");
            self.set_aside(slice, Aside::Suspect, &why);
        }
    }

    /// Opens what is there and keeps what can be trusted: a chain without a gap that ends in a
    /// checkpoint. What cannot be read or is another's is set aside, what is over or was never
    /// finished is removed. `None` where nothing is left, or files or memory run short at the moment.
    /// O(slices); no chunk is read.
    pub fn load(&self) -> Option<Loaded> {
        if !self.is_ours() {
            return None;
        }
        let dirs = self.slice_dirs();
        let mut sound: HashMap<u64, Arc<Sealed>> = HashMap::new();
        for slice in dirs {
            match self.look(&slice) {
                Found::Sound(sealed) => {
                    sound.insert(sealed.seal(), sealed);
                }
                Found::Unfinished => self.remove(&slice),
                Found::Untrusted(aside, why) => self.set_aside(&slice, aside, &why),
                Found::Unreadable(why) => {
                    let slice = slice.display();
                    tracing::warn!(
                        topic = self.lineage.topic,
                        partition = self.lineage.partition,
                        %slice,
                        "the store cannot be read at the moment, and the journal is read in its place: {why}"
                    );
                    return None;
                }
            }
        }
        let chain = self.longest_chain(&mut sound);
        for rest in sound.into_values() {
            if let Some(slice) = rest.dir().map(Path::to_owned) {
                drop(rest);
                self.remove(&slice);
            }
        }
        let newest = chain.last()?.record();
        Some(Loaded {
            checkpoint: newest.checkpoint,
            terms: newest.terms.clone(),
            slices: chain,
        })
    }

    /// All that was loaded has been read and was sound.
    pub fn loaded(&self) {
        if let Some(dir) = &self.dir {
            let _ = fs::remove_file(dir.join(OPENING));
        }
    }

    /// A slice could not be read. Where that says something of the slice, it is set aside.
    pub fn set_damaged_aside(&self, damage: &Damage) {
        if damage.passing {
            return;
        }
        let slice = PathBuf::from(&damage.slice);
        if self.dir.as_ref().is_some_and(|dir| slice.starts_with(dir)) {
            self.set_aside(&slice, Aside::Damaged, &damage.why);
        }
    }

    /// Nothing on this shelf fits the journal.
    pub fn set_all_aside(&self, why: &str) {
        if !self.is_ours() {
            return;
        }
        for slice in self.slice_dirs() {
            self.set_aside(&slice, Aside::Stale, why);
        }
    }

    /// What is on this shelf is of no use any more.
    pub fn remove_all(&self) {
        if !self.is_ours() {
            return;
        }
        for slice in self.slice_dirs() {
            self.remove(&slice);
        }
    }

    pub(super) fn written(&self) {
        self.store.written();
    }

    /// A slice could not be written. Room for the next attempt counts for more than what was kept for a look, and than what
    /// is over and only the newest checkpoint names: without that, a start reads more of the journal.
    pub(super) fn not_written(&self, record: &SealRecord, why: &str) {
        if let Some(dir) = &self.dir {
            let chain = record.chain.iter();
            let needed: HashSet<PathBuf> = chain
                .map(|link| dir.join(slice_name(link.first_ordinal)))
                .collect();
            let mut there = self.slice_dirs();
            there.retain(|slice| !needed.contains(slice));
            for old in there.iter().chain(&listed(dir, SET_ASIDE)) {
                let _ = fs::remove_dir_all(old);
            }
        }
        self.store.not_written(&format!(
            "the seen ids of {}-{} cannot be stored: {why}",
            self.lineage.topic, self.lineage.partition
        ));
    }

    /// The directory for a slice, which is not there yet. What another build or an earlier life of
    /// this scope left there is not ours to write into.
    pub(super) fn new_slice_dir(&self, first_ordinal: u64) -> Result<PathBuf, String> {
        let dir = self.dir.as_ref().ok_or("there is no store")?;
        let slice = dir.join(slice_name(first_ordinal));
        match fs::remove_dir_all(&slice) {
            Ok(()) => Ok(slice),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(slice),
            Err(error) => Err(format!("{} is in the way: {error}", slice.display())),
        }
    }

    pub(super) fn remove(&self, slice: &Path) {
        if let Err(error) = fs::remove_dir_all(slice)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            self.store.count_error("remove");
            tracing::warn!(
                topic = self.lineage.topic,
                partition = self.lineage.partition,
                slice = %slice.display(),
                %error,
                "a slice that is over cannot be removed: it takes room on the disk and does no harm. Remove the directory by hand"
            );
        }
    }

    /// Takes the lock; says in the health where it does not succeed. Another process that ends is worth a
    /// `wait`; an owner in this one never is: it may be waiting for us, see [`Store::is_held_here`].
    fn take_lock(&self, wait: bool) {
        let Some(dir) = &self.dir else { return };
        let component = self.component();
        let started = Instant::now();
        let outcome = loop {
            match lock_file(dir) {
                Ok(Some(file)) => break Ok(file),
                Ok(None) => {
                    let in_this_process = self.store.holders().hold(dir);
                    let patience = match in_this_process || !wait {
                        true => Duration::ZERO,
                        false => self.store.patience_with_others(),
                    };
                    if started.elapsed() >= patience {
                        let dir = dir.display();
                        if in_this_process {
                            break Err(format!("{dir} is still in use by this process"));
                        }
                        if wait {
                            self.store.note_others();
                        }
                        break Err(format!(
                            "{dir} is in use; give every instance a store.path of its own"
                        ));
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => break Err(format!("{} cannot be used: {error}", dir.display())),
            }
        };
        match outcome {
            Ok(file) => {
                let held = Held::new(&self.store, dir);
                *self.lock() = Lock::Ours {
                    _file: file,
                    _held: held,
                };
                self.store.usable(&component);
            }
            Err(why) => {
                *self.lock() = Lock::NotOurs {
                    try_at: Instant::now() + LOCK_PAUSE,
                };
                self.store.unusable(&component, &why);
            }
        }
    }

    /// The name under which the health speaks of it.
    fn component(&self) -> String {
        format!("store/{}-{}", self.lineage.topic, self.lineage.partition)
    }

    fn is_ours(&self) -> bool {
        matches!(*self.lock(), Lock::Ours { .. })
    }

    fn look(&self, slice: &Path) -> Found {
        fail::fail_point!("restore", |_| crate::exit::die());
        let damaged = |why: String| Found::Untrusted(Aside::Damaged, why);
        let failed = |failure: Failure| match failure.passing {
            true => Found::Unreadable(failure.why),
            false => damaged(failure.why),
        };
        let db = match sled_dir::open(slice, false) {
            Ok(db) => db,
            Err(failure) => return failed(failure),
        };
        let record = match sled_dir::seal_record(&db) {
            Ok(Some(bytes)) => SealRecord::decode(&bytes),
            Ok(None) => {
                sled_dir::close(db);
                return Found::Unfinished;
            }
            Err(failure) => {
                sled_dir::close(db);
                return failed(failure);
            }
        };
        let found = match record {
            Ok((record, seal)) if record.lineage == self.lineage => {
                let bytes = fs::metadata(slice.join("db")).map_or(0, |file| file.len());
                let handles = Arc::clone(self.handles());
                let sealed = Sealed::on_disk(record, seal, slice.to_owned(), handles, bytes);
                self.handles().adopt(sealed.number(), db.clone(), 0);
                Found::Sound(Arc::new(sealed))
            }
            Ok((record, _)) => Found::Untrusted(
                Aside::Foreign,
                format!(
                    "it belongs to {:?}, not to {:?}",
                    record.lineage, self.lineage
                ),
            ),
            Err(error @ RecordError::Format(_)) => {
                Found::Untrusted(Aside::Foreign, error.to_string())
            }
            Err(error) => damaged(error.to_string()),
        };
        sled_dir::close(db);
        found
    }

    /// The newest slice names all that it needs. The oldest of these that are there without a gap
    /// are worth keeping: what comes after them is read from the journal again.
    fn longest_chain(&self, sound: &mut HashMap<u64, Arc<Sealed>>) -> Vec<Arc<Sealed>> {
        let newest = sound
            .values()
            .max_by_key(|sealed| (sealed.span().end_ordinal, sealed.span().first_ordinal));
        let Some(newest) = newest else {
            return Vec::new();
        };
        let mut wanted: Vec<u64> = newest.record().chain.iter().map(|link| link.seal).collect();
        wanted.push(newest.seal());
        let mut chain: Vec<Arc<Sealed>> = Vec::with_capacity(wanted.len());
        for seal in &wanted {
            let next = sound.get(seal).filter(|next| {
                chain
                    .last()
                    .is_none_or(|last| last.span().end_ordinal == next.span().first_ordinal)
            });
            match next {
                Some(next) => chain.push(Arc::clone(next)),
                None => break,
            }
        }
        if chain.len() < wanted.len() {
            tracing::warn!(
                topic = self.lineage.topic,
                partition = self.lineage.partition,
                kept = chain.len(),
                wanted = wanted.len(),
                "slices of the store are missing or damaged; what they held is read from the journal"
            );
        }
        for kept in &chain {
            sound.remove(&kept.seal());
        }
        chain
    }

    fn set_aside(&self, slice: &Path, aside: Aside, why: &str) {
        let Some(dir) = &self.dir else { return };
        self.store.note_set_aside(aside);
        let name = slice.file_name().unwrap_or_default().to_string_lossy();
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let kept = dir.join(format!(
            "{SET_ASIDE}{:015}-{}-{name}",
            since.as_millis(),
            aside.word()
        ));
        tracing::warn!(
            topic = self.lineage.topic,
            partition = self.lineage.partition,
            slice = %slice.display(),
            kept = %kept.display(),
            "a slice of the store is {} and was set aside; what it held is read from the journal: {why}",
            aside.word()
        );
        if fs::rename(slice, &kept).is_err() {
            let _ = fs::remove_dir_all(slice);
        }
        let kept = listed(dir, SET_ASIDE);
        let over = kept.len().saturating_sub(SET_ASIDE_MAX);
        for old in &kept[..over] {
            let _ = fs::remove_dir_all(old);
        }
    }

    fn slice_dirs(&self) -> Vec<PathBuf> {
        self.dir
            .as_ref()
            .map_or_else(Vec::new, |dir| listed(dir, SLICE))
    }

    fn lock(&self) -> MutexGuard<'_, Lock> {
        lock(&self.lock)
    }
}

impl Drop for Shelf {
    /// A shelf that is no more is not asked for any more.
    fn drop(&mut self) {
        if !self.is_ours() {
            self.store.forget(&self.component());
        }
    }
}

/// Makes the directory and locks it against other processes, and other owners in this one; `None`
/// where one of them has it.
fn lock_file(dir: &Path) -> std::io::Result<Option<File>> {
    super::make_private(dir)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Directories whose names begin so, in the order of their names.
pub(super) fn listed(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn slice_name(first_ordinal: u64) -> String {
    format!("{SLICE}{first_ordinal:020}")
}

/// Readable, and no two scopes have the same.
pub(super) fn dir_name(lineage: &Lineage) -> String {
    let readable: String = lineage
        .topic
        .chars()
        .take(100)
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => c,
            _ => '_',
        })
        .collect();
    let whole = format!(
        "{}\0{}\0{}",
        lineage.group, lineage.topic, lineage.partition
    );
    let hash = xxh3_64_with_seed(whole.as_bytes(), 0);
    format!("{readable}-{}-{hash:016x}", lineage.partition)
}

/// Counts this start, until [`Shelf::loaded`] says that it went well.
fn count_opening(dir: &Path) -> u32 {
    let path = dir.join(OPENING);
    let before = fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .unwrap_or(0);
    let starts = before.saturating_add(1);
    // Where it cannot be written, nothing can be opened for writing either.
    let _ = fs::write(&path, starts.to_string());
    starts
}
