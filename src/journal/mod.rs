//! The journal: one Kafka topic for each input topic, holding the runs of committed transactions.
//! It is the truth of what has been let through; everything else that remembers ids is a cache of
//! it. This room knows the format of a run and whose run it is; it does not talk to Kafka.

pub mod run;

pub use run::{Run, RunError, Since, Terms};

use crate::config::Config;

/// Ids in one journal record at most: about 400 KB, well below the 1 MB that a topic accepts by
/// default. A larger transaction writes several runs.
pub const MAX_IDS_PER_RUN: usize = 20_000;

impl From<&Config> for Terms {
    fn from(config: &Config) -> Self {
        Self {
            time_ms: config.window.time_ms.map(|ms| ms.max(0).unsigned_abs()),
            ids: config.window.ids,
            id_from: config.id.from.mark(),
        }
    }
}

/// Whose runs these are. A run of another identity was written for another deployment, or for a topic
/// of the same name that has been deleted: its fingerprints and offsets mean nothing here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity {
    /// What new runs carry.
    pub own: u64,
    /// What runs carry that were written before identities told topic ids apart.
    without_topic_id: u64,
}

impl Identity {
    /// A hash of the seed, the input topic with its id (`None` on brokers before 2.8), and the
    /// partition.
    pub fn of(seed: u64, topic: &str, topic_id: Option<&str>, partition: i32) -> Self {
        let mut text = Vec::with_capacity(topic.len() + 40);
        text.extend_from_slice(topic.as_bytes());
        text.push(0); // a topic name holds no NUL, so the parts cannot run into each other
        text.extend_from_slice(&partition.to_le_bytes());
        let without_topic_id = xxhash_rust::xxh3::xxh3_64_with_seed(&text, seed);
        text.extend_from_slice(topic_id.unwrap_or_default().as_bytes());
        Self {
            own: xxhash_rust::xxh3::xxh3_64_with_seed(&text, seed),
            without_topic_id,
        }
    }

    /// Whether the run was written for this topic, as far as it tells.
    pub fn has_written(&self, run: &Run) -> bool {
        run.identity == self.own || run.identity == self.without_topic_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_made_anew_is_another_and_older_runs_are_still_read() {
        let run = |identity| Run {
            identity,
            ..Run::default()
        };
        let dead = Identity::of(1, "orders", Some("dead"), 0);
        let new = Identity::of(1, "orders", Some("new"), 0);
        let older = Identity::of(1, "orders", None, 0);
        assert!(new.has_written(&run(new.own)));
        assert!(new.has_written(&run(older.own)));
        assert!(!new.has_written(&run(dead.own)));
        for other in [
            Identity::of(2, "orders", Some("new"), 0),
            Identity::of(1, "order", Some("new"), 0),
            Identity::of(1, "orders", Some("new"), 1),
        ] {
            assert!(!new.has_written(&run(other.own)));
        }
    }
}
