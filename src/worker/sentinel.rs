//! The sentinel of an input topic: does the same id come in several partitions? `scope: partition`
//! does not see that, and nothing else would tell.
//!
//! Of one id in `ONE_IN`, it remembers for about a window where it was let through, in two Bloom
//! filters of fixed size. It decides no verdict. One for all workers of a process, so it knows of the
//! partitions of this process alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bloomfilter::Bloom;

use crate::metrics::{Metrics, SentinelMetrics};
use crate::window::Fingerprint;

/// One id in so many is sampled: those whose fingerprints end with as many zero bits.
const ONE_IN: Fingerprint = 64;
/// Samples in one generation at most: about a million ids.
const SAMPLES: usize = 16_384;
/// A sample is two items: its id, and its id in its partition.
const ITEMS: usize = 2 * SAMPLES;
/// 96 KB a generation.
const FALSE_POSITIVES: f64 = 1e-5;
/// A warning takes so many ids, and one sample in so many: far more than are mistaken.
const CROSSINGS_LEAST: u64 = 3;
const CROSSINGS_ONE_IN: u64 = 1000;
/// After so many samples, what was counted for the next warning begins anew.
const SAMPLES_A_PERIOD: u64 = 100_000;
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Whether the sentinel wants to know of this id.
pub fn is_sampled(id: Fingerprint) -> bool {
    id.is_multiple_of(ONE_IN)
}

/// The sentinels of a process, by input topic.
#[derive(Default)]
pub struct Sentinels(Mutex<HashMap<String, Arc<Sentinel>>>);

impl Sentinels {
    /// The one of a topic, made when it is asked for first. `window_ms` is the window in stream time.
    pub fn of(&self, topic: &str, window_ms: Option<i64>, metrics: &Metrics) -> Arc<Sentinel> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sentinel = all.entry(topic.to_owned()).or_insert_with(|| {
            Arc::new(Sentinel {
                topic: topic.to_owned(),
                generation_ms: window_ms.unwrap_or(i64::MAX) / 2,
                metrics: metrics.sentinel(topic),
                memory: Mutex::default(),
            })
        });
        Arc::clone(sentinel)
    }
}

/// What is known of one input topic.
pub struct Sentinel {
    topic: String,
    /// Stream time after which a generation takes no more.
    generation_ms: i64,
    metrics: SentinelMetrics,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The newer one takes samples; both are asked.
    generations: Option<[Generation; 2]>,
    samples: u64,
    crossings: u64,
    warned: Option<Instant>,
}

struct Generation {
    filter: Bloom<(Fingerprint, i32)>,
    samples: usize,
    since_ms: Option<i64>,
}

/// Stands for any partition.
const ANY: i32 = -1;

impl Sentinel {
    /// Takes in sampled ids that a committed transaction has let through in a partition, whose stream
    /// time is `now_ms`. O(samples).
    pub fn take(&self, partition: i32, now_ms: Option<i64>, samples: &[Fingerprint]) {
        if samples.is_empty() {
            return;
        }
        let mut memory = self.memory();
        for id in samples {
            let crosses = memory.crosses(*id, partition, now_ms, self.generation_ms);
            memory.samples += 1;
            memory.crossings += u64::from(crosses);
            self.metrics.samples.inc();
            self.metrics.crossings.inc_by(u64::from(crosses));
        }
        if let Some((crossings, of)) = memory.worth_a_warning() {
            tracing::warn!(
                topic = self.topic,
                "of {of} new ids, one in {ONE_IN} of all, {crossings} had been let through in another \
                 partition of {0} before: such duplicates are not seen there. Send records with the same id \
                 to the same partition, for instance by a key that follows from the id, or set scope: \
                 topic or repartition; kafka-dedup scan {0} counts them",
                self.topic
            );
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Whole after every statement: a panic elsewhere is no reason to stop using it.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Whether the id was let through in another partition and not in this one; remembers it here.
    fn crosses(
        &mut self,
        id: Fingerprint,
        partition: i32,
        now_ms: Option<i64>,
        generation_ms: i64,
    ) -> bool {
        let generations = self
            .generations
            .get_or_insert_with(|| [Generation::new(), Generation::new()]);
        if generations[0].is_over(now_ms, generation_ms) {
            generations.swap(0, 1);
            generations[0] = Generation::new();
        }
        let holds = |key| generations.iter().any(|it| it.filter.check(&key));
        let crosses = holds((id, ANY)) && !holds((id, partition));
        generations[0].take(id, partition, now_ms);
        crosses
    }

    /// Crossings and samples, where a person should know of them now.
    fn worth_a_warning(&mut self) -> Option<(u64, u64)> {
        let many = self.crossings >= CROSSINGS_LEAST
            && self.crossings.saturating_mul(CROSSINGS_ONE_IN) >= self.samples;
        let lately = self.warned.is_some_and(|at| at.elapsed() < WARN_EVERY);
        let found = (many && !lately).then_some((self.crossings, self.samples));
        if found.is_some() {
            self.warned = Some(Instant::now());
        }
        if found.is_some() || self.samples >= SAMPLES_A_PERIOD {
            (self.crossings, self.samples) = (0, 0);
        }
        found
    }
}

impl Generation {
    fn new() -> Self {
        // Two different halves: they key the filter's two hashes.
        let mut seed = [0x5e; 32];
        seed[16..].fill(0xa1);
        let bytes = Bloom::<(Fingerprint, i32)>::compute_bitmap_size(ITEMS, FALSE_POSITIVES);
        // It fails only where random numbers are asked for.
        match Bloom::new_with_seed(bytes, ITEMS, &seed) {
            Ok(filter) => Self {
                filter,
                samples: 0,
                since_ms: None,
            },
            Err(why) => unreachable!("a filter with a seed: {why}"),
        }
    }

    fn is_over(&self, now_ms: Option<i64>, generation_ms: i64) -> bool {
        let age_ms = now_ms.zip(self.since_ms);
        self.samples >= SAMPLES
            || age_ms.is_some_and(|(now, since)| now.saturating_sub(since) > generation_ms)
    }

    fn take(&mut self, id: Fingerprint, partition: i32, now_ms: Option<i64>) {
        self.filter.set(&(id, ANY));
        self.filter.set(&(id, partition));
        self.samples += 1;
        self.since_ms = self.since_ms.or(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn sentinel() -> (Arc<Metrics>, Arc<Sentinel>) {
        let metrics = Metrics::new();
        let sentinel = Sentinels::default().of("orders", Some(HOUR_MS), &metrics);
        (metrics, sentinel)
    }

    fn sampled(numbers: std::ops::Range<u64>) -> Vec<Fingerprint> {
        numbers
            .map(|number| xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes()).wrapping_mul(ONE_IN))
            .collect()
    }

    #[test]
    fn the_same_ids_in_another_partition_are_seen_and_in_the_same_they_are_not() {
        let (_, sentinel) = sentinel();
        let ids = sampled(0..10_000);
        sentinel.take(3, Some(0), &ids);
        // Let through again where they were: the window had forgotten them.
        sentinel.take(3, Some(1), &ids);
        assert_eq!(sentinel.metrics.crossings.get(), 0);
        sentinel.take(5, Some(2), &ids[..500]);
        assert_eq!(sentinel.metrics.crossings.get(), 500);
        assert_eq!(sentinel.metrics.samples.get(), 20_500);
    }

    #[test]
    fn different_ids_are_hardly_ever_mistaken() {
        let (_, sentinel) = sentinel();
        for (partition, first) in (0..100).zip((0..).step_by(1000)) {
            sentinel.take(partition % 7, Some(0), &sampled(first..first + 1000));
        }
        let mistaken = sentinel.metrics.crossings.get();
        assert!(mistaken < 20, "{mistaken} of 100,000");
        assert_eq!(sentinel.memory().warned, None);
    }

    #[test]
    fn what_is_older_than_a_window_is_forgotten() {
        let (_, sentinel) = sentinel();
        let ids = sampled(0..1000);
        sentinel.take(0, Some(0), &ids);
        // Half a window a generation, and two of them.
        for half in 1..=3 {
            let now = Some(half * (HOUR_MS / 2 + 1));
            sentinel.take(0, now, &sampled(9_000_000..9_000_001));
        }
        sentinel.take(1, Some(2 * HOUR_MS), &ids);
        assert_eq!(sentinel.metrics.crossings.get(), 0);
    }

    #[test]
    fn it_warns_of_many_and_not_again_at_once() {
        let (_, sentinel) = sentinel();
        let ids = sampled(0..1000);
        sentinel.take(0, Some(0), &ids);
        sentinel.take(1, Some(0), &ids[..2]);
        assert_eq!(sentinel.memory().warned, None, "two are too few");
        sentinel.take(1, Some(0), &ids[2..3]);
        let warned = sentinel.memory().warned;
        assert!(warned.is_some());
        sentinel.take(1, Some(0), &ids[3..]);
        assert_eq!(sentinel.memory().warned, warned);
        assert_eq!(sentinel.memory().crossings, 997, "told of next time");
    }
}
