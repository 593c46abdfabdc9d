//! The open sled databases of the process, bounded by the memory that they take (I8).
//!
//! sled keeps every page that it has read, whatever its cache capacity (it looks for pages to let
//! go of only after 64 accesses in each of 256 shards, more than a slice has pages). So the memory
//! of a database is counted here as its pages are touched, and those not used for the longest time
//! are closed when all together take more than the budget. Opening one again takes about a
//! millisecond, so what nobody has asked for a while is closed as well: most slices are asked by
//! mistake alone, when the filter is wrong.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sled::IVec;

use super::guard::Failure;
use super::sled_dir::{self, CHUNKS_PER_TREE};

/// What an open database takes before anything is read, in bytes (measured: 0.9 MB).
const OPEN_BYTES: u64 = 1024 * 1024;

pub(super) struct Handles {
    budget_bytes: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<u64, Open>,
    bytes: u64,
}

struct Open {
    db: sled::Db,
    used: Instant,
    bytes: u64,
    leaves: HashSet<u32>,
}

impl Handles {
    pub fn new(budget_bytes: u64) -> Self {
        Self {
            budget_bytes,
            state: Mutex::default(),
        }
    }

    /// Reads a chunk of the slice with this number, whose database is in `dir`. `chunk_bytes` is
    /// about how large its chunks are. O(1) where the database is open and the leaf is in memory.
    pub fn chunk(
        &self,
        slice: u64,
        dir: &Path,
        index: u32,
        chunk_bytes: u64,
    ) -> Result<Option<IVec>, Failure> {
        let db = match self.touch(slice, index, chunk_bytes) {
            Some(db) => db,
            None => self.open(slice, dir, index, chunk_bytes)?,
        };
        let chunk = sled_dir::chunk(&db, index);
        // It may be the last handle by now.
        sled_dir::close(db);
        chunk
    }

    fn touch(&self, slice: u64, index: u32, chunk_bytes: u64) -> Option<sled::Db> {
        let (db, over) = {
            let mut state = self.state();
            let open = state.open.get_mut(&slice)?;
            open.used = Instant::now();
            let mut grown = 0;
            if open.leaves.insert(index / CHUNKS_PER_TREE) {
                grown = chunk_bytes * u64::from(CHUNKS_PER_TREE);
                open.bytes += grown;
            }
            let db = open.db.clone();
            state.bytes += grown;
            (db, state.take_over_budget(self.budget_bytes, slice))
        };
        over.into_iter().for_each(sled_dir::close);
        Some(db)
    }

    fn open(
        &self,
        slice: u64,
        dir: &Path,
        index: u32,
        chunk_bytes: u64,
    ) -> Result<sled::Db, Failure> {
        let db = sled_dir::open(dir, false)?;
        self.adopt(slice, db.clone(), 0);
        self.touch(slice, index, chunk_bytes);
        Ok(db)
    }

    /// Takes a database that is open already, with `bytes` of it in memory.
    pub fn adopt(&self, slice: u64, db: sled::Db, bytes: u64) {
        let closed = {
            let mut state = self.state();
            let open = Open {
                db,
                used: Instant::now(),
                bytes: OPEN_BYTES + bytes,
                leaves: HashSet::new(),
            };
            state.bytes += open.bytes;
            let replaced = state.open.insert(slice, open);
            let mut closed = state.take_over_budget(self.budget_bytes, slice);
            if let Some(replaced) = replaced {
                state.bytes -= replaced.bytes;
                closed.push(replaced.db);
            }
            closed
        };
        closed.into_iter().for_each(sled_dir::close);
    }

    /// Closes the database of a slice, if it is open.
    pub fn close(&self, slice: u64) {
        let closed = {
            let mut state = self.state();
            let closed = state.open.remove(&slice);
            if let Some(open) = &closed {
                state.bytes -= open.bytes;
            }
            closed
        };
        if let Some(open) = closed {
            sled_dir::close(open.db);
        }
    }

    /// Closes what nobody has asked for so long. O(open databases).
    pub fn close_idle(&self, idle: Duration) {
        let closed: Vec<Open> = {
            let mut state = self.state();
            let is_idle = |_: &u64, open: &mut Open| open.used.elapsed() >= idle;
            let closed: Vec<Open> = state
                .open
                .extract_if(is_idle)
                .map(|(_, open)| open)
                .collect();
            state.bytes -= closed.iter().map(|open| open.bytes).sum::<u64>();
            closed
        };
        closed.into_iter().for_each(|open| sled_dir::close(open.db));
    }

    /// Estimated memory of all that is open, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.state().bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes out what has not been used for the longest time until the rest is within the budget;
    /// never the one that is in use now. O(open databases) for each that is taken.
    fn take_over_budget(&mut self, budget_bytes: u64, in_use: u64) -> Vec<sled::Db> {
        let mut taken = Vec::new();
        while self.bytes > budget_bytes {
            let oldest = self
                .open
                .iter()
                .filter(|(slice, _)| **slice != in_use)
                .min_by_key(|(_, open)| open.used)
                .map(|(slice, _)| *slice);
            let Some(open) = oldest.and_then(|slice| self.open.remove(&slice)) else {
                break;
            };
            self.bytes -= open.bytes;
            taken.push(open.db);
        }
        taken
    }
}
