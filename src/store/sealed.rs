//! A sealed slice: sorted, packed in chunks, immutable. Finds an id by reading one chunk. It lives
//! in a sled database, or in memory where the disk cannot be written.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::chunk::{Chunk, chunk_of};
use super::entry::{Entry, Fingerprint};
use super::handles::Handles;
use super::record::{SealRecord, Span};

/// A slice that can be read no longer: what it says cannot be trusted, so the seen set is rebuilt
/// from the journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored slice {slice} cannot be read: {why}")]
pub struct Damage {
    /// Its directory, or where else it is.
    pub slice: String,
    pub why: String,
    /// What is on the disk may be sound all the same: files or memory ran short.
    pub passing: bool,
}

/// A sealed slice. Dropping it closes its database and leaves its files.
pub struct Sealed {
    record: SealRecord,
    seal: u64,
    /// Tells it apart from all others of the process.
    number: u64,
    home: Home,
}

enum Home {
    Memory(Vec<Box<[u8]>>),
    Disk {
        dir: PathBuf,
        handles: Arc<Handles>,
        chunk_bytes: u64,
    },
}

static NUMBERS: AtomicU64 = AtomicU64::new(0);

impl Sealed {
    pub(super) fn in_memory(record: SealRecord, chunks: Vec<Box<[u8]>>) -> Self {
        let (_, seal) = record.encode();
        Self {
            record,
            seal,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            home: Home::Memory(chunks),
        }
    }

    pub(super) fn on_disk(
        record: SealRecord,
        seal: u64,
        dir: PathBuf,
        handles: Arc<Handles>,
        bytes: u64,
    ) -> Self {
        let chunk_bytes = bytes / u64::from(record.chunks.max(1));
        Self {
            record,
            seal,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            home: Home::Disk {
                dir,
                handles,
                chunk_bytes,
            },
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub fn record(&self) -> &SealRecord {
        &self.record
    }

    /// The checksum by which a chain names it.
    pub fn seal(&self) -> u64 {
        self.seal
    }

    pub fn span(&self) -> &Span {
        &self.record.span
    }

    /// How many ids it holds.
    pub fn len(&self) -> u64 {
        self.record.entries
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where its files are; `None` where it is held in memory.
    pub fn dir(&self) -> Option<&Path> {
        match &self.home {
            Home::Memory(_) => None,
            Home::Disk { dir, .. } => Some(dir),
        }
    }

    /// Memory that its chunks take. What sled holds of a slice on disk is counted by the store.
    pub fn memory_bytes(&self) -> u64 {
        match &self.home {
            Home::Memory(chunks) => chunks.iter().map(|chunk| chunk.len() as u64).sum(),
            Home::Disk { .. } => 0,
        }
    }

    /// The entry of an id. One chunk is read and verified: O(log ids of a chunk).
    ///
    /// # Errors
    /// The chunk cannot be read or is not what was written.
    pub fn get(&self, fingerprint: Fingerprint) -> Result<Option<Entry>, Damage> {
        fail::fail_point!("chunk-unreadable", self.dir().is_some(), |_| Err(
            self.damage("a failpoint does not read it".to_owned())
        ));
        let index = chunk_of(fingerprint, self.record.chunks);
        self.with_chunk(index, |chunk| chunk.get(fingerprint))
    }

    /// Hands over all chunks that reach into a range of the high 64 bits, in order. O(ids in them).
    ///
    /// # Errors
    /// A chunk cannot be read or is not what was written.
    pub fn chunks(
        &self,
        high: RangeInclusive<u64>,
        mut each: impl FnMut(&Chunk<&[u8]>),
    ) -> Result<(), Damage> {
        let place = |high: u64| chunk_of(Fingerprint::from(high) << 64, self.record.chunks);
        for index in place(*high.start())..=place(*high.end()) {
            self.with_chunk(index, &mut each)?;
        }
        Ok(())
    }

    /// Hands over all entries in the order of their fingerprints.
    ///
    /// # Errors
    /// As [`Self::chunks`]; and where the count is not what the seal record says.
    pub fn entries(&self, mut each: impl FnMut(Fingerprint, Entry)) -> Result<(), Damage> {
        let mut count = 0;
        for index in 0..self.record.chunks {
            self.with_chunk(index, |chunk| {
                chunk.entries().for_each(|(fingerprint, entry)| {
                    count += 1;
                    each(fingerprint, entry);
                });
            })?;
        }
        self.verify_count(count)
    }

    /// All chunks have been read, and held this many ids.
    ///
    /// # Errors
    /// It is not the count that was sealed.
    pub fn verify_count(&self, ids: u64) -> Result<(), Damage> {
        if ids == self.record.entries {
            return Ok(());
        }
        Err(self.damage(format!(
            "it holds {ids} ids, and its seal record says {}",
            self.record.entries
        )))
    }

    fn with_chunk<T>(
        &self,
        index: u32,
        read: impl FnOnce(&Chunk<&[u8]>) -> T,
    ) -> Result<T, Damage> {
        match &self.home {
            Home::Memory(chunks) => match chunks.get(index as usize) {
                Some(bytes) => self.open_chunk(index, bytes, read),
                None => Err(self.damage(format!("chunk {index} is missing"))),
            },
            Home::Disk {
                dir,
                handles,
                chunk_bytes,
            } => match handles.chunk(self.number, dir, index, *chunk_bytes) {
                Ok(Some(bytes)) => self.open_chunk(index, &bytes, read),
                Ok(None) => Err(self.damage(format!("chunk {index} is missing"))),
                Err(failure) => Err(Damage {
                    passing: failure.passing,
                    ..self.damage(format!("chunk {index}: {failure}"))
                }),
            },
        }
    }

    fn open_chunk<T>(
        &self,
        index: u32,
        bytes: &[u8],
        read: impl FnOnce(&Chunk<&[u8]>) -> T,
    ) -> Result<T, Damage> {
        let chunk =
            Chunk::open(bytes).map_err(|error| self.damage(format!("chunk {index}: {error}")))?;
        // Sorted, so its ends speak for all: a sound chunk in another's place would hide ids.
        let out_of_place = |fingerprint| chunk_of(fingerprint, self.record.chunks) != index;
        if chunk
            .ends()
            .is_some_and(|(first, last)| out_of_place(first) || out_of_place(last))
        {
            return Err(self.damage(format!("chunk {index} holds what belongs to another")));
        }
        Ok(read(&chunk))
    }

    pub(super) fn damage(&self, why: String) -> Damage {
        let slice = match &self.home {
            Home::Memory(_) => format!("in memory from ordinal {}", self.span().first_ordinal),
            Home::Disk { dir, .. } => dir.display().to_string(),
        };
        Damage {
            slice,
            why,
            passing: false,
        }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        if let Home::Disk { handles, .. } = &self.home {
            handles.close(self.number);
        }
    }
}
