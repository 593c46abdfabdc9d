//! The store as somebody sees it who does not own it: what lies in its directory, read so that no
//! file of it changes and no service that owns a part of it is held up.
//!
//! sled cannot open a database without locking and writing it, so a slice is copied to a scratch
//! directory first (one at a time, and it is small) and the copy is opened. A scope's lock is not
//! kept meanwhile: a service that starts waits for it only a second, and would go without its store.
//! Instead the lock is looked at before the copy and after it. What was copied is believed for its
//! checksums alone.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::guard::Failure;
use super::handles::Handles;
use super::record::{Lineage, RecordError, SealRecord};
use super::sealed::Sealed;
use super::shelf::{LOCK, OPENING, SET_ASIDE, SLICE, dir_name, listed};
use super::sled_dir;

/// A directory of the store, by the names and sizes in it.
#[derive(Debug, Clone)]
pub struct ScopeDir {
    pub path: PathBuf,
    /// Oldest first.
    pub slices: Vec<SliceDir>,
    pub set_aside: Vec<SetAside>,
    /// Starts in a row that ended while the slices were opened.
    pub unfinished_starts: u32,
}

#[derive(Debug, Clone)]
pub struct SliceDir {
    pub path: PathBuf,
    /// As the name says; `None` where it is no slice's name.
    pub first_ordinal: Option<u64>,
    /// That it takes on the disk.
    pub bytes: u64,
    /// When a file of it was changed last: when it was sealed, or opened since.
    pub changed: Option<SystemTime>,
}

/// A slice that was set aside.
#[derive(Debug, Clone)]
pub struct SetAside {
    pub path: PathBuf,
    /// `damaged`, `foreign` or `stale`.
    pub reason: String,
    /// Wall clock in ms.
    pub since_ms: Option<i64>,
    pub bytes: u64,
}

/// The directories in a store, by name. O(files).
///
/// # Errors
/// The store's directory cannot be read.
pub fn scope_dirs(store: &Path) -> io::Result<Vec<ScopeDir>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            dirs.push(scope_dir(entry.path()));
        }
    }
    dirs.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(dirs)
}

fn scope_dir(path: PathBuf) -> ScopeDir {
    let slices = listed(&path, SLICE).into_iter().map(slice_dir).collect();
    let set_aside = listed(&path, SET_ASIDE).into_iter().map(aside).collect();
    let starts = fs::read_to_string(path.join(OPENING)).ok();
    ScopeDir {
        slices,
        set_aside,
        unfinished_starts: starts
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0),
        path,
    }
}

fn slice_dir(path: PathBuf) -> SliceDir {
    let size = size(&path);
    SliceDir {
        first_ordinal: name(&path).strip_prefix(SLICE).and_then(|n| n.parse().ok()),
        bytes: size.bytes,
        changed: size.changed,
        path,
    }
}

fn aside(path: PathBuf) -> SetAside {
    let name = name(&path);
    // set-aside-<ms>-<why>-slice-<first ordinal>
    let mut parts = name.strip_prefix(SET_ASIDE).unwrap_or("").split('-');
    let since_ms = parts.next().and_then(|ms| ms.parse().ok());
    SetAside {
        reason: parts.next().unwrap_or("unknown").to_owned(),
        since_ms,
        bytes: size(&path).bytes,
        path,
    }
}

/// The name of the directory that a scope has in the store.
pub fn scope_dir_name(group: &str, topic: &str, partition: i32) -> String {
    dir_name(&Lineage {
        group: group.to_owned(),
        topic: topic.to_owned(),
        partition,
        ..Lineage::default()
    })
}

/// Whose directory it is, as far as that can be told from its name: a scope of this group, of one of
/// these topics or of the one that the name shows.
pub fn scope_of(dir: &str, group: &str, topics: &[String]) -> Option<(String, i32)> {
    let (rest, _hash) = dir.rsplit_once('-')?;
    let (readable, partition) = rest.rsplit_once('-')?;
    let partition: i32 = partition.parse().ok()?;
    std::iter::once(readable)
        .chain(topics.iter().map(String::as_str))
        .find(|topic| scope_dir_name(group, topic, partition) == dir)
        .map(|topic| (topic.to_owned(), partition))
}

/// Whether a process owns this scope's directory now. The lock is let go of at once.
///
/// # Errors
/// The lock's file cannot be opened.
pub fn is_in_use(scope: &Path) -> io::Result<bool> {
    let file = match File::open(scope.join(LOCK)) {
        Ok(file) => file,
        // Whoever owns it has made the file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Where copies lie: a directory of its own among the temporary files, for its owner's eyes, and
/// gone when this is dropped.
pub struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    /// # Errors
    /// The directory cannot be made.
    pub fn new() -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kafka-dedup-inspect-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&dir)
            .map_err(|error| named(&dir, "cannot be made", &error))?;
        Ok(Self { dir })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What a slice's directory turned out to be.
pub enum Looked {
    Sound(Box<Copied>),
    /// A write that did not end: the next start removes it.
    Unfinished,
    /// Of another build.
    OtherFormat(String),
    Damaged(String),
    /// A process has taken the scope: not looked into.
    InUse,
    /// Not the slice's fault.
    Unread(String),
}

/// A sound slice, read from a copy of its files, which is gone when this is dropped.
pub struct Copied {
    sealed: Sealed,
    _files: Files,
}

impl Deref for Copied {
    type Target = Sealed;

    fn deref(&self) -> &Sealed {
        &self.sealed
    }
}

/// Copies a slice of a scope that nobody uses, opens the copy and reads its seal record; its chunks
/// are read when they are asked for. O(bytes of the slice).
pub fn open(scope: &Path, slice: &Path, scratch: &Scratch) -> Looked {
    let in_use = || is_in_use(scope).map_err(|error| named(scope, "cannot be locked", &error));
    match in_use() {
        Ok(false) => {}
        Ok(true) => return Looked::InUse,
        Err(error) => return Looked::Unread(error.to_string()),
    }
    let files = Files(scratch.dir.join(name(slice)));
    let copied = copy(slice, &files.0);
    match (in_use(), copied) {
        (Ok(true), _) => Looked::InUse,
        (Err(error), _) | (_, Err(error)) => Looked::Unread(error.to_string()),
        (Ok(false), Ok(bytes)) => open_copy(files, bytes),
    }
}

fn open_copy(files: Files, bytes_of_db: u64) -> Looked {
    let db = match sled_dir::open(&files.0, false) {
        Ok(db) => db,
        Err(failure) => return failed(failure),
    };
    let unsound = match sled_dir::seal_record(&db) {
        Ok(Some(bytes)) => match SealRecord::decode(&bytes) {
            Ok((record, seal)) => {
                let handles = Arc::new(Handles::new(u64::MAX));
                let dir = files.0.clone();
                let sealed = Sealed::on_disk(record, seal, dir, Arc::clone(&handles), bytes_of_db);
                handles.adopt(sealed.number(), db, 0);
                return Looked::Sound(Box::new(Copied {
                    sealed,
                    _files: files,
                }));
            }
            Err(error @ RecordError::Format(_)) => Looked::OtherFormat(error.to_string()),
            Err(error) => Looked::Damaged(error.to_string()),
        },
        Ok(None) => Looked::Unfinished,
        Err(failure) => failed(failure),
    };
    sled_dir::close(db);
    unsound
}

/// That room or files ran short says nothing of the slice.
fn failed(failure: Failure) -> Looked {
    match failure.passing {
        true => Looked::Unread(failure.why),
        false => Looked::Damaged(failure.why),
    }
}

/// What the next start makes of sound slices, as [`super::Shelf::load`] decides it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Places of the slices that it goes on with, oldest first: those that the newest one names, up
    /// to the first gap.
    pub kept: Vec<usize>,
    /// Places of the slices that the newest one names and that lie behind a gap.
    pub behind_gap: Vec<usize>,
    /// Slices that the newest one names and that are not there.
    pub missing: usize,
}

/// Which of these slices, each with its seal, belong together. O(slices²), and a scope has at most 120.
pub fn chain(slices: &[(&SealRecord, u64)]) -> Chain {
    let newest = slices
        .iter()
        .enumerate()
        .max_by_key(|(_, (record, _))| (record.span.end_ordinal, record.span.first_ordinal));
    let Some((newest, (record, _))) = newest else {
        return Chain::default();
    };
    let place = |seal: u64| slices.iter().position(|(_, found)| *found == seal);
    let mut chain = Chain::default();
    let named = record.chain.iter().map(|link| place(link.seal));
    let mut whole = true;
    for found in named.chain([Some(newest)]) {
        let Some(at) = found else {
            chain.missing += 1;
            whole = false;
            continue;
        };
        let last = chain.kept.last().map(|last| slices[*last].0.span);
        whole &= last.is_none_or(|last| last.end_ordinal == slices[at].0.span.first_ordinal);
        if whole {
            chain.kept.push(at);
        } else {
            chain.behind_gap.push(at);
        }
    }
    chain
}

/// Copied files, until they are dropped.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies a directory's files, without links; shares their blocks where the file system can. Gives
/// the bytes of its largest file, the database.
fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    let unreadable = |error| named(from, "cannot be read", &error);
    fs::create_dir(to).map_err(|error| named(to, "cannot be made", &error))?;
    let mut largest = 0;
    for entry in fs::read_dir(from).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let (kind, to) = (
            entry.file_type().map_err(unreadable)?,
            to.join(entry.file_name()),
        );
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            let bytes = fs::copy(entry.path(), &to)
                .map_err(|error| named(&entry.path(), "cannot be copied", &error))?;
            largest = largest.max(bytes);
        }
    }
    Ok(largest)
}

#[derive(Default)]
struct Size {
    bytes: u64,
    changed: Option<SystemTime>,
}

/// Of all files in a directory, as far as they can be seen.
fn size(dir: &Path) -> Size {
    let mut total = Size::default();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                let inner = size(&entry.path());
                total.bytes += inner.bytes;
                total.changed = total.changed.max(inner.changed);
            }
            Ok(metadata) => {
                total.bytes += on_disk(&metadata);
                total.changed = total.changed.max(metadata.modified().ok());
            }
            Err(_) => {}
        }
    }
    total
}

/// What a file takes on the disk: sled makes files larger than what it has written.
#[cfg(unix)]
fn on_disk(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn on_disk(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn named(path: &Path, what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{} {what}: {error}", path.display()))
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
