//! What the passes read: a log that can be read more than once, record by record.
//!
//! Kafka is behind it in `read`, a list in the tests.

use std::ops::ControlFlow;

use crate::exit::Stop;
use crate::identify::Identity;

/// One record, as far as the passes are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Index of its partition among those that are scanned.
    pub partition: usize,
    pub offset: i64,
    /// As counted for stream time; `None` where the record has none.
    pub time_ms: Option<i64>,
    pub identity: Identity,
}

/// Why a read is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All of it was read.
    AtTheEnd,
    /// The one who sees has seen enough.
    Enough,
    /// Somebody asked the command to end.
    Interrupted,
}

/// What a read is for; for whoever shows progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Pass one: which ids may repeat?
    Filter,
    /// Pass two: which of them do, and how?
    Count,
    /// All of them, for a preload.
    Preload,
}

/// A log of some partitions with the same records in each read, in the order of their offsets
/// within a partition; partitions may interleave differently each time.
pub trait Log {
    /// Partitions that are scanned.
    fn partitions(&self) -> usize;

    /// No read brings more records than that.
    fn records_at_most(&self) -> u64;

    /// Shows every record to `see`, from the first on.
    ///
    /// # Errors
    /// Where the log cannot be read any further.
    fn read(
        &mut self,
        purpose: Purpose,
        see: &mut dyn FnMut(&Sighting) -> ControlFlow<()>,
    ) -> Result<Ended, Stop>;
}
