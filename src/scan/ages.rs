//! How old duplicates are: a histogram whose edges are the windows one would think of.

use std::time::Duration;

const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Windows, in milliseconds, ascending.
const EDGES_MS: [i64; 8] = [
    SECOND_MS,
    10 * SECOND_MS,
    MINUTE_MS,
    10 * MINUTE_MS,
    HOUR_MS,
    6 * HOUR_MS,
    DAY_MS,
    7 * DAY_MS,
];

/// The upper edges of the buckets; one more bucket is open above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edges(Vec<i64>);

impl Edges {
    /// The usual ones, and the window that is configured.
    pub fn with(window_ms: Option<i64>) -> Self {
        let mut edges = EDGES_MS.to_vec();
        edges.extend(window_ms);
        edges.sort_unstable();
        edges.dedup();
        Self(edges)
    }

    /// Buckets, the open one included.
    pub fn buckets(&self) -> usize {
        self.0.len() + 1
    }

    /// The bucket of an age: an age that equals a window is within it, as the service has it.
    fn bucket(&self, age_ms: i64) -> usize {
        self.0.partition_point(|edge| *edge < age_ms)
    }

    /// In milliseconds, ascending.
    pub fn upper_ms(&self) -> &[i64] {
        &self.0
    }
}

/// Duplicates by age, twice: since the id was last seen in the partition, and since it was first
/// seen there. What a window catches is between the two: with `window.refresh` each repetition
/// renews its id, so the last sighting counts; without, some sighting from the first to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ages {
    pub since_last: Vec<u64>,
    pub since_first: Vec<u64>,
}

impl Ages {
    pub fn new(edges: &Edges) -> Self {
        Self {
            since_last: vec![0; edges.buckets()],
            since_first: vec![0; edges.buckets()],
        }
    }

    /// One duplicate.
    pub fn add(&mut self, edges: &Edges, since_last_ms: i64, since_first_ms: i64) {
        for (counts, age_ms) in [
            (&mut self.since_last, since_last_ms),
            (&mut self.since_first, since_first_ms),
        ] {
            if let Some(count) = counts.get_mut(edges.bucket(age_ms)) {
                *count += 1;
            }
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in [
            (&mut self.since_last, &other.since_last),
            (&mut self.since_first, &other.since_first),
        ] {
            for (our, their) in ours.iter_mut().zip(theirs) {
                *our += their;
            }
        }
    }

    pub fn total(&self) -> u64 {
        self.since_last.iter().sum()
    }

    /// Duplicates that each window catches: at least (without refresh) and at most (with it).
    pub fn caught(&self) -> Vec<(u64, u64)> {
        let mut sums = (0, 0);
        let buckets = self.since_first.iter().zip(&self.since_last);
        buckets
            .map(|(first, last)| {
                sums = (sums.0 + first, sums.1 + last);
                sums
            })
            .collect()
    }
}

/// `1s`, `10m`, `7d`, `36h`.
pub fn shown(window_ms: i64) -> String {
    crate::config::render_duration(Duration::from_millis(window_ms.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_that_equals_a_window_is_within_it() {
        let edges = Edges::with(None);
        for (age_ms, bucket) in [
            (0, 0),
            (1000, 0),
            (1001, 1),
            (10_000, 1),
            (10_001, 2),
            (HOUR_MS, 4),
            (HOUR_MS + 1, 5),
            (7 * DAY_MS, 7),
            (7 * DAY_MS + 1, 8),
            (i64::MAX, 8),
        ] {
            assert_eq!(edges.bucket(age_ms), bucket, "{age_ms}");
        }
        assert_eq!(edges.buckets(), 9);
    }

    #[test]
    fn a_configured_window_is_an_edge_of_its_own_unless_it_is_one_already() {
        assert_eq!(Edges::with(Some(36 * HOUR_MS)).upper_ms()[7], 36 * HOUR_MS);
        assert_eq!(Edges::with(Some(HOUR_MS)), Edges::with(None));
    }

    #[test]
    fn windows_catch_what_is_younger() {
        let edges = Edges::with(None);
        let mut ages = Ages::new(&edges);
        ages.add(&edges, 500, 500);
        ages.add(&edges, 500, 5000);
        ages.add(&edges, 8 * DAY_MS, 8 * DAY_MS);
        let caught = ages.caught();
        assert_eq!(caught[0], (1, 2));
        assert_eq!(caught[1], (2, 2));
        assert_eq!(caught[7], (2, 2));
        assert_eq!(caught[8], (3, 3));
        assert_eq!(ages.total(), 3);
    }

    #[test]
    fn windows_are_shown_as_they_are_configured() {
        let shown: Vec<String> = EDGES_MS.iter().map(|edge| shown(*edge)).collect();
        assert_eq!(shown, ["1s", "10s", "1m", "10m", "1h", "6h", "24h", "7d"]);
    }
}
