//! One slice as one sled database in a directory of its own, deleted whole when the slice is over.
//!
//! Keys are chunk numbers (u32, big-endian, so that they lie in order); the seal record has a key of
//! its own. Every call of sled goes through [`guarded`].

use std::path::Path;
use std::time::{Duration, Instant};

use sled::IVec;

use super::guard::guarded;

/// Longer than any chunk's key, so it can never be one.
const SEAL_KEY: &[u8] = b"seal record";
/// Chunks in one batch: about 200 KB, so that writing takes little memory.
const CHUNKS_PER_BATCH: usize = 64;
/// sled keeps what it reads whatever this says (its queue of accesses is longer than a slice has
/// pages); `handles` bounds it by closing.
const CACHE_BYTES: u64 = 64 * 1024;
/// Another handle of this process may be on its way out: a closing database holds its lock a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Opens a database that is there, or makes one where `create` says so.
pub(super) fn open(dir: &Path, create: bool) -> Result<sled::Db, String> {
    if !create && !dir.join("db").is_file() {
        // sled would make a new, empty one.
        return Err("its database file is missing".to_owned());
    }
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let opened = guarded(|| {
            sled::Config::new()
                .path(dir)
                .create_new(false)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(None)
                .cache_capacity(CACHE_BYTES)
                .open()
        });
        match opened {
            Err(why) if why.contains("could not acquire lock") && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// Writes chunks as they come, then the seal record in one batch with the last of them, and waits
/// until all of it is on the disk.
pub(super) struct Writer {
    db: sled::Db,
    batch: sled::Batch,
    batched: usize,
    bytes: u64,
}

impl Writer {
    pub fn create(dir: &Path) -> Result<Self, String> {
        Ok(Self {
            db: open(dir, true)?,
            batch: sled::Batch::default(),
            batched: 0,
            bytes: 0,
        })
    }

    pub fn put(&mut self, index: u32, chunk: &[u8]) -> Result<(), String> {
        if self.batched == CHUNKS_PER_BATCH {
            let batch = std::mem::take(&mut self.batch);
            guarded(|| self.db.apply_batch(batch))?;
            self.batched = 0;
        }
        self.batch.insert(&index.to_be_bytes(), chunk);
        self.batched += 1;
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    /// The database, and how many bytes of chunks it holds.
    pub fn seal(mut self, record: &[u8]) -> Result<(sled::Db, u64), String> {
        self.batch.insert(SEAL_KEY, record);
        guarded(|| self.db.apply_batch(self.batch))?;
        guarded(|| self.db.flush())?;
        Ok((self.db, self.bytes))
    }
}

pub(super) fn seal_record(db: &sled::Db) -> Result<Option<IVec>, String> {
    guarded(|| db.get(SEAL_KEY))
}

pub(super) fn chunk(db: &sled::Db, index: u32) -> Result<Option<IVec>, String> {
    guarded(|| db.get(index.to_be_bytes()))
}

/// Lets go of a database. Closing one that is damaged may panic, too.
pub(super) fn close(db: sled::Db) {
    let _ = guarded(|| {
        drop(db);
        Ok(())
    });
}
