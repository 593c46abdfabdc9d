//! What the last hour was like: a sample of the verdict counters every ten seconds, in fixed memory (360 samples,
//! 12 KB). Reads the metrics; begins empty with the process, as they do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::{Metrics, Totals};

/// Between two samples.
pub const EVERY: Duration = Duration::from_secs(10);
/// An hour of them.
const SAMPLES: usize = 360;

/// Records a second between two samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    pub received: f64,
    pub duplicates: f64,
}

/// Clones share one.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<VecDeque<(Instant, Totals)>>>);

impl History {
    /// Samples for as long as it is polled.
    pub async fn keep(self, metrics: Arc<Metrics>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.add(Instant::now(), metrics.totals());
        }
    }

    pub fn add(&self, at: Instant, totals: Totals) {
        let mut samples = self.lock();
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
        samples.push_back((at, totals));
    }

    /// Oldest first; one fewer than there are samples.
    pub fn rates(&self) -> Vec<Rates> {
        let samples = self.lock();
        let between = samples.iter().zip(samples.iter().skip(1));
        between
            .map(|((began, from), (ended, to))| {
                // A process that stood still has slept over some.
                let took = ended.duration_since(*began).as_secs_f64().max(0.001);
                let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / took;
                Rates {
                    received: rate(from.received, to.received),
                    duplicates: rate(from.duplicates, to.duplicates),
                }
            })
            .collect()
    }

    /// Records and duplicates of the time that the samples span.
    pub fn sum(&self) -> (u64, u64) {
        let samples = self.lock();
        match (samples.front(), samples.back()) {
            (Some((_, from)), Some((_, to))) => (
                to.received.saturating_sub(from.received),
                to.duplicates.saturating_sub(from.duplicates),
            ),
            _ => (0, 0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Totals)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let history = History::default();
        assert_eq!((history.rates().len(), history.sum()), (0, (0, 0)));
        let mut at = Instant::now();
        for number in 0..1000 {
            at += EVERY;
            let totals = Totals {
                received: 100 * number,
                duplicates: 10 * number,
            };
            history.add(at, totals);
        }
        let rates = history.rates();
        assert_eq!(rates.len(), SAMPLES);
        let even = Rates {
            received: 10.0,
            duplicates: 1.0,
        };
        assert!(rates.iter().all(|it| *it == even));
        assert_eq!(history.sum(), (36_000, 3_600));
    }
}
