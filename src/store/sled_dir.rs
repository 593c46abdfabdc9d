//! One slice as one sled database in a directory of its own, deleted whole when the slice is over.
//!
//! Chunks are spread over small trees, eight to a tree. In one large tree sled writes every value
//! about 2.5 times: a leaf is written anew after ten changes, and again when it splits, and what is
//! dead by then is reclaimed slowly. A tree of eight keys never comes to either, so each chunk is
//! written once (25 bytes an id instead of 58, at a third of the CPU time). The seal record stands in
//! the default tree. Every call of sled goes through [`guarded`].

use std::path::Path;
use std::time::{Duration, Instant};

use sled::IVec;

use super::guard::{Failure, guarded};

const SEAL_KEY: &[u8] = b"seal record";
/// Fewer than the changes after which sled writes a leaf anew (10), and than the keys at which it
/// splits one (16). sled reads a leaf whole.
pub(super) const CHUNKS_PER_TREE: u32 = 8;
/// sled keeps what it reads whatever this says (its queue of accesses is longer than a slice has
/// pages); `handles` bounds it by closing.
const CACHE_BYTES: u64 = 64 * 1024;
/// sled allocates files and buffers in segments, two of them at least; its default is 512 KiB.
const SEGMENT_BYTES: usize = 256 * 1024;
/// Another handle of this process may be on its way out: a closing database holds its lock a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Opens a database that is there, or makes one where `create` says so.
pub(super) fn open(dir: &Path, create: bool) -> Result<sled::Db, Failure> {
    if !create && !dir.join("db").is_file() {
        // sled would make a new, empty one.
        return Err(Failure::lasting("its database file is missing".to_owned()));
    }
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let opened = guarded(|| {
            sled::Config::new()
                .path(dir)
                .create_new(false)
                .mode(sled::Mode::LowSpace)
                .segment_size(SEGMENT_BYTES)
                .flush_every_ms(None)
                .cache_capacity(CACHE_BYTES)
                .open()
        });
        match opened {
            Err(failure) if failure.is_lock() && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// Writes chunks as they come, in order, and then the seal record.
pub(super) struct Writer {
    /// `None` only when it is dropped.
    db: Option<sled::Db>,
    tree: Option<sled::Tree>,
    bytes: u64,
}

impl Writer {
    pub fn create(dir: &Path) -> Result<Self, Failure> {
        Ok(Self {
            db: Some(open(dir, true)?),
            tree: None,
            bytes: 0,
        })
    }

    pub fn put(&mut self, index: u32, chunk: &[u8]) -> Result<(), Failure> {
        let (tree, key) = place(index);
        if let (0, Some(db)) = (key, &self.db) {
            self.tree = Some(guarded(|| db.open_tree(tree.to_be_bytes()))?);
        }
        let Some(tree) = &self.tree else {
            return Err(Failure::lasting(format!("chunk {index} comes first")));
        };
        guarded(|| tree.insert([key], chunk))?;
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    /// The slice is there from the moment at which its seal record is: one write, after all chunks
    /// are on the disk. Gives the database, and how many bytes of chunks it holds.
    pub fn seal(mut self, record: &[u8]) -> Result<(sled::Db, u64), Failure> {
        let Some(db) = self.db.clone() else {
            return Err(Failure::lasting("it is closed".to_owned()));
        };
        guarded(|| db.flush())?;
        guarded(|| db.insert(SEAL_KEY, record))?;
        guarded(|| db.flush())?;
        self.tree = None;
        Ok((db, self.bytes))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let (tree, db) = (self.tree.take(), self.db.take());
        close((tree, db));
    }
}

/// The tree that a chunk is in, and its key there.
fn place(index: u32) -> (u32, u8) {
    (index / CHUNKS_PER_TREE, (index % CHUNKS_PER_TREE) as u8)
}

pub(super) fn seal_record(db: &sled::Db) -> Result<Option<IVec>, Failure> {
    guarded(|| db.get(SEAL_KEY))
}

/// Opening a tree makes it where it is missing: a damaged slice is written to then, which is set
/// aside all the same.
pub(super) fn chunk(db: &sled::Db, index: u32) -> Result<Option<IVec>, Failure> {
    let (tree, key) = place(index);
    guarded(|| db.open_tree(tree.to_be_bytes())?.get([key]))
}

/// Lets go of a database, or what belongs to one. The last to do so closes it, which may panic.
pub(super) fn close<T>(of_a_database: T) {
    let _ = guarded(|| {
        drop(of_a_database);
        Ok(())
    });
}
