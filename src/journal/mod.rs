//! The journal: one Kafka topic for each input topic, holding the runs of committed transactions.
//! It is the truth of what has been let through; everything else that remembers ids is a cache of
//! it. This room knows the format of a run and whose run it is; it does not talk to Kafka.

pub mod run;

pub use run::{Run, RunError};

/// Ids in one journal record at most: about 400 KB, well below the 1 MB that a topic accepts by
/// default. A larger transaction writes several runs.
pub const MAX_IDS_PER_RUN: usize = 20_000;

/// Whose runs these are: a hash of the seed, the input topic and its partition. A run with another
/// identity was written for another deployment, and its fingerprints mean nothing here.
pub fn identity(seed: u64, topic: &str, partition: i32) -> u64 {
    let mut text = Vec::with_capacity(topic.len() + 12);
    text.extend_from_slice(topic.as_bytes());
    text.push(0); // a topic name holds no NUL, so the parts cannot run into each other
    text.extend_from_slice(&partition.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64_with_seed(&text, seed)
}
