//! What the seen set knows of an id.

/// xxh3_128 of an id; two ids are the same when their fingerprints are.
pub type Fingerprint = u128;

/// One letting-through (or renewal) of an id, in the order of its ordinal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// Stream time when it happened, in ms.
    pub time_ms: i64,
    /// Input offset of the first record, which a renewal does not change.
    pub offset: i64,
    pub ordinal: u64,
    /// Hash of the payload that was let through; 0 where it is not known; [`Entry::FORGOTTEN`].
    pub payload: u64,
}

impl Entry {
    /// In place of a payload: the id was forgotten then, by an operator. No payload has this hash.
    pub const FORGOTTEN: u64 = u64::MAX;

    pub fn is_forgotten(&self) -> bool {
        self.payload == Self::FORGOTTEN
    }
}
