//! What the last hour was like: a sample of the verdict counters every ten seconds, and one by topic every half a
//! minute, in bounded memory (360 samples of all, 120 of each of 64 topics: 1 MB at most, and 3 MB where topics have the
//! longest names). Reads the metrics; begins empty with the process, as they do.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::{Metrics, Totals};

/// Between two samples.
pub const EVERY: Duration = Duration::from_secs(10);
/// An hour of them.
const SAMPLES: usize = 360;
/// One in so many is kept by topic too.
const BY_TOPIC: usize = 3;
/// Topics that are looked at one by one, the first by name; the chart is of all.
const MOST_TOPICS: usize = 64;
/// What counts as now, beside the hour.
const NOW: Duration = Duration::from_secs(300);

/// Records a second between two samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    pub received: f64,
    pub duplicates: f64,
}

/// What came of a topic in the last five minutes, and before them in what is left of an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    pub topic: String,
    pub now: Totals,
    /// That `now` speaks of.
    pub span: Duration,
    pub before: Totals,
}

impl Recent {
    /// Of duplicates among the records, now and before.
    pub fn duplicate_shares(&self) -> (f64, f64) {
        let share = |of: Totals| of.duplicates as f64 / of.received.max(1) as f64;
        (share(self.now), share(self.before))
    }
}

#[derive(Default)]
struct Samples {
    taken: usize,
    all: VecDeque<(Instant, Totals)>,
    by_topic: VecDeque<(Instant, BTreeMap<String, Totals>)>,
}

/// Clones share one.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Samples>>);

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

    pub fn add(&self, at: Instant, mut totals: BTreeMap<String, Totals>) {
        let all = totals
            .values()
            .copied()
            .fold(Totals::default(), Totals::plus);
        let mut samples = self.lock();
        push(&mut samples.all, SAMPLES + 1, (at, all));
        if samples.taken.is_multiple_of(BY_TOPIC) {
            if let Some((beyond, _)) = totals.iter().nth(MOST_TOPICS) {
                let beyond = beyond.clone();
                totals.split_off(&beyond);
            }
            push(&mut samples.by_topic, SAMPLES / BY_TOPIC + 1, (at, totals));
        }
        samples.taken += 1;
    }

    /// Oldest first; one fewer than there are samples.
    pub fn rates(&self) -> Vec<Rates> {
        let samples = self.lock();
        let between = samples.all.iter().zip(samples.all.iter().skip(1));
        between
            .map(|((began, from), (ended, to))| {
                // A process that stood still has slept over some.
                let took = ended.duration_since(*began).as_secs_f64().max(0.001);
                let came = to.since(*from);
                Rates {
                    received: came.received as f64 / took,
                    duplicates: came.duplicates as f64 / took,
                }
            })
            .collect()
    }

    /// Of the time that the samples span.
    pub fn sum(&self) -> Totals {
        let samples = self.lock();
        match (samples.all.front(), samples.all.back()) {
            (Some((_, from)), Some((_, to))) => to.since(*from),
            _ => Totals::default(),
        }
    }

    /// By topic, as far as there are samples.
    pub fn recent(&self) -> Vec<Recent> {
        let samples = self.lock();
        let by_topic = &samples.by_topic;
        let (Some((begun, oldest)), Some((at, newest))) = (by_topic.front(), by_topic.back())
        else {
            return Vec::new();
        };
        let is_before = |(then, _): &&(Instant, _)| at.duration_since(*then) >= NOW;
        let pivot = by_topic.iter().rev().find(is_before);
        let (since, pivot) = pivot.map_or((begun, oldest), |(then, totals)| (then, totals));
        let span = at.duration_since(*since);
        let of = |totals: &BTreeMap<String, Totals>, topic| {
            totals.get(topic).copied().unwrap_or_default()
        };
        newest
            .iter()
            .map(|(topic, totals)| Recent {
                topic: topic.clone(),
                now: totals.since(of(pivot, topic)),
                span,
                before: of(pivot, topic).since(of(oldest, topic)),
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Samples> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<T>(samples: &mut VecDeque<T>, most: usize, sample: T) {
    if samples.len() >= most {
        samples.pop_front();
    }
    samples.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(received: u64, duplicates: u64) -> Totals {
        Totals {
            received,
            duplicates,
            ..Totals::default()
        }
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let history = History::default();
        assert_eq!(
            (history.rates().len(), history.sum()),
            (0, Totals::default())
        );
        assert!(history.recent().is_empty());
        let mut at = Instant::now();
        for number in 0..1000 {
            at += EVERY;
            // One of a hundred topics comes late, and then with more.
            let late = totals(1000 * number, 0);
            let topics =
                (0..100).map(|it| (format!("t{it:02}"), totals(100 * number, 10 * number)));
            let mut topics: BTreeMap<_, _> = topics.collect();
            topics.extend((number > 990).then(|| ("late".to_owned(), late)));
            history.add(at, topics);
        }
        let rates = history.rates();
        assert_eq!(rates.len(), SAMPLES);
        let even = Rates {
            received: 1000.0,
            duplicates: 100.0,
        };
        assert!(rates[..SAMPLES - 10].iter().all(|it| *it == even));
        let recent = history.recent();
        assert_eq!(recent.len(), MOST_TOPICS);
        let of = |topic: &str| {
            recent
                .iter()
                .find(|it| it.topic == topic)
                .expect("it is there")
        };
        // Five minutes are 30 samples.
        assert_eq!(of("t07").now, totals(3_000, 300));
        assert_eq!(of("t07").span, NOW);
        assert_eq!(of("t07").before, totals(33_000, 3_300));
        assert_eq!(of("late").before, totals(0, 0));
        assert_eq!(of("late").now, totals(999_000, 0));
    }
}
