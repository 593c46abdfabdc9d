//! How long partitions stand: the gaps between their commits. The journal tells, as each transaction adds
//! a run for each of its partitions to it, which the broker stamps with its own time.

use rdkafka::message::Message;

use crate::audit;
use crate::kit::kafka::Kafka;

/// The times of all commits, in ms since 1970, by partition.
pub struct Commits(Vec<Vec<i64>>);

/// A stretch of time, in ms since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    pub from_ms: i64,
    pub to_ms: i64,
}

/// The longest gaps of some partitions, in ms.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    pub partitions: usize,
    pub median_ms: f64,
    pub longest_ms: f64,
}

impl Commits {
    /// Those of a group whose members have left.
    pub fn read(kafka: &Kafka, journal: &str, partitions: i32) -> Self {
        let mut times: Vec<Vec<i64>> = (0..partitions).map(|_| Vec::new()).collect();
        audit::each(kafka, journal, partitions, 0, |run| {
            let partition = usize::try_from(run.partition()).expect("a partition");
            times[partition].push(run.timestamp().to_millis().expect("a time"));
        });
        Self(times)
    }

    /// Of each of these partitions its longest gap that reaches into the stretch.
    pub fn pauses(&self, partitions: impl IntoIterator<Item = i32>, stretch: Stretch) -> Pauses {
        let mut longest: Vec<i64> = partitions
            .into_iter()
            .map(|partition| {
                let times = &self.0[usize::try_from(partition).expect("a partition")];
                longest_gap(times, stretch)
            })
            .collect();
        longest.sort_unstable();
        let of = |at: usize| longest.get(at).map_or(f64::NAN, |ms| *ms as f64);
        Pauses {
            partitions: longest.len(),
            median_ms: of(longest.len() / 2),
            longest_ms: of(longest.len().saturating_sub(1)),
        }
    }
}

/// A partition without a commit since stands until the stretch ends.
fn longest_gap(times: &[i64], stretch: Stretch) -> i64 {
    let Stretch { from_ms, to_ms } = stretch;
    let before = times.iter().copied().filter(|ms| *ms <= from_ms).max();
    let after = times.iter().copied().filter(|ms| *ms >= to_ms).min();
    let within = times
        .iter()
        .copied()
        .filter(|ms| *ms > from_ms && *ms < to_ms);
    let mut at = before.unwrap_or(from_ms);
    let mut longest = 0;
    for ms in within.chain([after.unwrap_or(to_ms)]) {
        longest = longest.max(ms - at);
        at = ms;
    }
    longest
}
