//! What the output refused, which only the rejected topic tells.

use std::collections::HashMap;

use super::audit::{Room, too_little};
use super::feeds::{Feeds, Part};
use super::plan::Group;
use super::progress::Progress;
use super::record::Aside;
use crate::exit::Stop;
use crate::topics::survey::Role;

/// What a refusal that is kept takes, in bytes, about.
pub const REFUSAL_BYTES: usize = 64;
/// The words with which the service rejects what the output refuses.
const REFUSALS: [&str; 3] = ["too-large", "timestamp", "invalid-record"];

/// What the output refused, by input: nothing but the rejected topic tells.
#[derive(Default)]
pub struct Refusals {
    pub by_input: HashMap<(Vec<u8>, i32), HashMap<i64, &'static str>>,
    /// The first input offset that the rejected topic knows of, where its beginning is gone.
    pub known_from: HashMap<(Vec<u8>, i32), i64>,
}

/// Reads the rejected topic of a group, whole.
///
/// # Errors
/// 64 where the memory is not enough, else as of [`Feeds::pull`].
pub fn refusals(group: &Group, room: &mut Room<'_>) -> Result<Refusals, Stop> {
    let mut refusals = Refusals::default();
    let strands = group.strands.iter();
    let rejected: Vec<Part> = strands
        .filter(|strand| strand.role == Role::Rejected)
        .map(|strand| strand.part.clone())
        .collect();
    if rejected.iter().all(|part| part.offsets() == 0) {
        return Ok(refusals);
    }
    room.progress.at("rejected records");
    let count = rejected.len();
    let mut feeds = Feeds::open(room.config, rejected, room.interrupt)?;
    let mut bytes = 0;
    for feed in 0..count {
        let mut unused = Progress::new(0);
        while let Some(message) = feeds.pull(feed, &mut unused)? {
            let Some((aside, _)) = Aside::of(&message) else {
                continue;
            };
            let input = (aside.topic, aside.partition);
            refusals
                .known_from
                .entry(input.clone())
                .or_insert(aside.offset);
            let reason = REFUSALS
                .into_iter()
                .find(|word| word.as_bytes() == aside.reason);
            if let Some(reason) = reason {
                let of_input = refusals.by_input.entry(input).or_default();
                of_input.insert(aside.offset, reason);
                bytes += REFUSAL_BYTES;
            }
            if bytes > room.memory_bytes / 2 {
                return Err(too_little(room.memory_bytes));
            }
        }
    }
    Ok(refusals)
}
