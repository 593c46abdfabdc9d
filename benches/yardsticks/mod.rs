//! The seen window, and what else one could remember ids in, behind one trait.
//!
//! The stores hold one key an id (its 16-byte fingerprint) with the 24 bytes that a verdict tells
//! from: time, offset and ordinal. They age nothing out unless told to, which is in their favour.

mod fjall;
mod map;
mod redb;
mod sled;
pub mod window;

use std::path::Path;

pub use self::fjall::Fjall;
pub use self::map::Map;
pub use self::redb::Redb;
pub use self::sled::Sled;
pub use self::window::{Keep, Window};
use crate::stream::{Record, Stream};

pub trait SeenSet {
    fn name(&self) -> &'static str;

    /// Judges the records of one transaction, id text and all, and commits. `verdicts` gets whether
    /// each is a duplicate.
    fn judge(&mut self, records: &[Record], verdicts: &mut Vec<bool>);

    /// Waits until nothing goes on in the background.
    fn settle(&mut self);

    /// Whether a committed id was seen.
    fn is_seen(&mut self, fingerprint: u128) -> bool;

    /// Removes ids that are over, where that does not happen by itself.
    fn forget(&mut self, _fingerprints: &mut dyn Iterator<Item = u128>) {}

    /// Where its files are.
    fn dir(&self) -> Option<&Path> {
        None
    }
}

/// Judges a stretch of the stream in transactions, and holds every verdict against what it must be.
pub fn feed(set: &mut dyn SeenSet, stream: &mut Stream, until: u64) {
    use crate::stream::{PER_TRANSACTION, Repeats};
    let mut verdicts = Vec::new();
    while stream.next < until {
        let count = usize::try_from(until - stream.next).expect("a count");
        let (records, expected) = stream.records(count.min(PER_TRANSACTION), 0, Repeats::Soon);
        set.judge(&records, &mut verdicts);
        assert_eq!(verdicts, expected, "{}", set.name());
    }
    set.settle();
}

fn value(record: &Record, ordinal: u64) -> [u8; 24] {
    let mut value = [0; 24];
    value[..8].copy_from_slice(&record.time_ms.to_le_bytes());
    value[8..16].copy_from_slice(&record.offset.to_le_bytes());
    value[16..].copy_from_slice(&ordinal.to_le_bytes());
    value
}
