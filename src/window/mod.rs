//! The seen window of one scope. See `SeenWindow`.
use crate::config;
/// xxh3_128 of an id; two ids are the same when their fingerprints are.
pub type Fingerprint = u128;
/// What the window says of a record with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen within the window: let it through. It is remembered (in the overlay) from now on.
    Forward,
    /// Seen; where the first record is, and how long ago in stream time (ms) its id was last let through or renewed.
    Duplicate { first_offset: i64, age_ms: i64 },
}
#[allow(unused_variables)]
mod api {
    use super::*;
    pub struct SeenWindow;
    impl SeenWindow {
        pub fn new(limits: config::Window) -> Self { todo!() }
    }
}
