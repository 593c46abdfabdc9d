//! The thread that turns closed slices into sealed ones, removes those that are over, and closes databases that
//! nobody asks, so that no worker waits for a disk. One for the process; a scope has at most one slice on its way (I8).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use super::chunk::{chunk_of, chunks_for, pack};
use super::entry::{Entry, Fingerprint};
use super::guard::Failure;
use super::handles::Handles;
use super::record::{Checkpoint, FORMAT, Link, SealRecord, Span};
use super::sealed::Sealed;
use super::shelf::Shelf;
use super::sled_dir::Writer;

/// Entries that are sorted at a time: bounds the room that sealing takes beside the slice itself
/// (12 MB).
const ENTRIES_PER_PASS: u64 = 1 << 18;

/// How long an open database is kept that nobody asks, about; what is asked less often costs less to open than to keep.
const IDLE: Duration = Duration::from_secs(5);

/// What a closed slice holds, in any order, each id once.
pub trait Entries: Send + Sync {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn for_each(&self, each: &mut dyn FnMut(Fingerprint, Entry));
}

impl Entries for Sealed {
    fn len(&self) -> usize {
        usize::try_from(self.record().entries).unwrap_or(usize::MAX)
    }

    /// Of a slice in memory, which nothing can damage.
    fn for_each(&self, each: &mut dyn FnMut(Fingerprint, Entry)) {
        if let Err(damage) = self.entries(each) {
            tracing::error!(%damage, "a slice in memory is damaged: a defect, or memory that fails");
        }
    }
}

/// A slice that takes no more entries.
pub struct Closed {
    pub span: Span,
    pub checkpoint: Checkpoint,
    pub entries: Arc<dyn Entries>,
    /// The live slices before it, if all of them are on the disk; without them on the disk it
    /// cannot be there either.
    pub chain: Option<Vec<Link>>,
}

/// A slice on its way.
pub struct Pending(Receiver<Sealed>);

impl Pending {
    pub(super) fn new() -> (Sender<Sealed>, Self) {
        let (sender, receiver) = channel();
        (sender, Self(receiver))
    }

    /// The sealed slice, when it is there.
    ///
    /// # Errors
    /// The sealer gave up.
    pub fn poll(&self) -> Result<Option<Sealed>, Abandoned> {
        match self.0.try_recv() {
            Ok(sealed) => Ok(Some(sealed)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Abandoned),
        }
    }
}

/// The sealer has given up on a slice: a panic, which only a defect explains.
#[derive(Debug)]
pub struct Abandoned;

pub(super) enum Job {
    Seal {
        shelf: Arc<Shelf>,
        closed: Closed,
        reply: Sender<Sealed>,
    },
    Remove {
        shelf: Arc<Shelf>,
        dir: PathBuf,
    },
}

/// Works until the last sender is gone. A job that panics is given up; the next is not its victim.
pub(super) fn work(jobs: &Receiver<Job>, handles: &Handles) {
    loop {
        match jobs.recv_timeout(IDLE) {
            // What it touched is dropped with it: the reply's other end notices.
            Ok(job) => drop(catch_unwind(AssertUnwindSafe(|| job.carry_out()))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        handles.close_idle(IDLE);
    }
}

impl Job {
    fn carry_out(self) {
        match self {
            Self::Seal {
                shelf,
                closed,
                reply,
            } => {
                let sealed = seal(&shelf, &closed);
                // The shelf's lock must be free when the last that knows of this slice lets go.
                drop((shelf, closed));
                // A scope that has moved on takes its slice from the disk when it is back.
                let _ = reply.send(sealed);
            }
            Self::Remove { shelf, dir } => {
                fail::fail_point!("slice-drop", |_| crate::exit::die());
                shelf.remove(&dir);
            }
        }
    }
}

/// Sorts and packs a closed slice; on the disk where that can be, else in memory. O(n log n).
pub(super) fn seal(shelf: &Shelf, closed: &Closed) -> Sealed {
    let record = record(shelf, closed);
    if closed.chain.is_some() && shelf.wants_disk() {
        match on_disk(shelf, &record, &*closed.entries) {
            Ok(sealed) => {
                shelf.written();
                return sealed;
            }
            Err(failure) => shelf.not_written(&record, &failure.why),
        }
    }
    in_memory(record, closed)
}

/// Sorts and packs a closed slice, in memory. O(n log n).
pub(super) fn in_memory(record: SealRecord, closed: &Closed) -> Sealed {
    let mut chunks = Vec::with_capacity(record.chunks as usize);
    let packed: Result<(), std::convert::Infallible> =
        pack_all(&*closed.entries, record.chunks, |_, bytes| {
            chunks.push(bytes.into_boxed_slice());
            Ok(())
        });
    let Ok(()) = packed;
    Sealed::in_memory(record, chunks)
}

pub(super) fn record(shelf: &Shelf, closed: &Closed) -> SealRecord {
    let entries = closed.entries.len() as u64;
    SealRecord {
        format: FORMAT,
        lineage: shelf.lineage().clone(),
        terms: shelf.terms().cloned(),
        span: closed.span,
        entries,
        chunks: chunks_for(entries),
        checkpoint: closed.checkpoint,
        chain: closed.chain.clone().unwrap_or_default(),
    }
}

fn on_disk(shelf: &Shelf, record: &SealRecord, entries: &dyn Entries) -> Result<Sealed, Failure> {
    let dir = shelf
        .new_slice_dir(record.span.first_ordinal)
        .map_err(Failure::lasting)?;
    fail::fail_point!("seal-begin", |_| crate::exit::die());
    let mut writer = Writer::create(&dir)?;
    pack_all(entries, record.chunks, |index, bytes| {
        writer.put(index, &bytes)
    })?;
    fail::fail_point!("seal-chunks", |_| crate::exit::die());
    let (bytes, seal) = record.encode();
    let (db, chunk_bytes) = writer.seal(&bytes)?;
    fail::fail_point!("sealed", |_| crate::exit::die());
    let handles = Arc::clone(shelf.handles());
    let sealed = Sealed::on_disk(record.clone(), seal, dir, handles, chunk_bytes);
    // Its filter bits are read from it right away.
    shelf.handles().adopt(sealed.number(), db, chunk_bytes);
    Ok(sealed)
}

/// Packs the entries chunk by chunk, in order, sorting a share of the fingerprints at a time.
fn pack_all<E>(
    entries: &dyn Entries,
    chunks: u32,
    mut take: impl FnMut(u32, Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let passes = (entries.len() as u64).div_ceil(ENTRIES_PER_PASS).max(1);
    let bound = |pass: u64| (u64::from(chunks) * pass / passes) as u32;
    let mut share = Vec::new();
    for pass in 0..passes {
        let range = bound(pass)..bound(pass + 1);
        share.clear();
        entries.for_each(&mut |fingerprint, entry| {
            if range.contains(&chunk_of(fingerprint, chunks)) {
                share.push((fingerprint, entry));
            }
        });
        share.sort_unstable_by_key(|(fingerprint, _)| *fingerprint);
        let mut rest = share.as_slice();
        for index in range {
            let here =
                rest.partition_point(|(fingerprint, _)| chunk_of(*fingerprint, chunks) <= index);
            let (chunk, after) = rest.split_at(here);
            rest = after;
            take(index, pack(chunk))?;
        }
    }
    Ok(())
}
