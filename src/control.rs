//! What an operator has told this process while it runs: which topics pause, whether duplicates are let through
//! (bypass), and orders to its workers. Nothing of it outlives the process, but ids that were forgotten, which a
//! worker writes to the journal.
//!
//! The HTTP side puts orders in and waits; each worker takes them between two turns of its loop.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::oneshot;

use crate::http::health::{Condition, Health};
use crate::metrics::Metrics;
use crate::window::Fingerprint;

/// Orders that wait for a worker; more are refused.
const ORDERS: usize = 16;
/// A bypass is warned of this often.
const REMINDER: Duration = Duration::from_secs(60);

/// Which partitions an order is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub topic: String,
    /// All that the worker has of the topic where there is none.
    pub partition: Option<i32>,
}

impl Target {
    pub fn covers(&self, topic: &str, partition: i32) -> bool {
        self.topic == topic && self.partition.is_none_or(|only| only == partition)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Is this id remembered?
    Seen(Target, Fingerprint),
    /// Forget it, now and for every start to come.
    Forget(Target, Fingerprint),
    /// Throw what is stored of these partitions away, and restore it from the journal.
    Rebuild(Target),
}

/// What a worker says of one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub topic: String,
    pub partition: i32,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum What {
    Remembered {
        /// Input partition and offset of the first record; the offset is -1 of an id that was preloaded.
        first_partition: i32,
        first_offset: i64,
        /// Stream time when it was let through or renewed, in ms since 1970.
        seen_at_ms: i64,
        age_ms: u64,
    },
    NotRemembered,
    Forgotten,
    /// It could not be committed: ask again.
    NotForgotten,
    Rebuilding,
    /// It is being restored, and does not know yet.
    Restoring,
}

pub struct Order {
    pub ask: Ask,
    pub answer: oneshot::Sender<Vec<Answer>>,
}

/// Shared by the workers and the admin listener.
pub struct Control {
    /// Topic (`None`: all of them) and since when it pauses.
    paused: Mutex<BTreeMap<Option<String>, SystemTime>>,
    pauses: AtomicBool,
    bypass: AtomicBool,
    reminded: Mutex<Option<Instant>>,
    orders: Vec<Mutex<VecDeque<Order>>>,
    metrics: Arc<Metrics>,
    health: Health,
}

/// What is in force.
#[derive(Debug, Serialize)]
pub struct State {
    pub paused: Vec<Paused>,
    pub bypass: bool,
}

#[derive(Debug, Serialize)]
pub struct Paused {
    /// `null` is all topics.
    pub topic: Option<String>,
    pub since: String,
}

impl Control {
    /// Nothing is paused, nothing bypassed.
    pub fn new(workers: usize, metrics: Arc<Metrics>, health: Health) -> Self {
        Self {
            paused: Mutex::default(),
            pauses: AtomicBool::new(false),
            bypass: AtomicBool::new(false),
            reminded: Mutex::default(),
            orders: (0..workers).map(|_| Mutex::default()).collect(),
            metrics,
            health,
        }
    }

    pub fn workers(&self) -> usize {
        self.orders.len()
    }

    /// Stops reading a topic, or all; what is open is committed.
    pub fn pause(&self, topic: Option<String>) {
        let named = topic.clone().unwrap_or_else(|| "all topics".to_owned());
        lock(&self.paused)
            .entry(topic)
            .or_insert_with(SystemTime::now);
        tracing::warn!(topic = named, "paused by an operator");
        self.tell();
    }

    /// Goes on with a topic, or with all that pause. Whether it, or any, did pause.
    pub fn resume(&self, topic: Option<&str>) -> bool {
        let did = {
            let mut paused = lock(&self.paused);
            match topic {
                Some(topic) => paused.remove(&Some(topic.to_owned())).is_some(),
                None => !std::mem::take(&mut *paused).is_empty(),
            }
        };
        tracing::warn!(
            topic = topic.unwrap_or("all topics"),
            did,
            "resumed by an operator"
        );
        self.tell();
        did
    }

    /// Lets everything through, or not any more.
    pub fn set_bypass(&self, on: bool) {
        self.bypass.store(on, Ordering::Relaxed);
        *lock(&self.reminded) = on.then(Instant::now);
        match on {
            true => tracing::warn!(
                "bypass is ON, by an operator: every record is forwarded, duplicates too; ids are remembered"
            ),
            false => tracing::warn!("bypass is off, by an operator: duplicates are removed again"),
        }
        self.tell();
    }

    pub fn is_bypassed(&self) -> bool {
        self.bypass.load(Ordering::Relaxed)
    }

    /// Whether anything pauses. O(1).
    pub fn pauses(&self) -> bool {
        self.pauses.load(Ordering::Relaxed)
    }

    pub fn is_paused(&self, topic: &str) -> bool {
        if !self.pauses() {
            return false;
        }
        let paused = lock(&self.paused);
        paused.contains_key(&None) || paused.keys().flatten().any(|it| it == topic)
    }

    pub fn state(&self) -> State {
        let paused = lock(&self.paused);
        let paused = paused.iter().map(|(topic, since)| Paused {
            topic: topic.clone(),
            since: humantime::format_rfc3339_seconds(*since).to_string(),
        });
        State {
            paused: paused.collect(),
            bypass: self.is_bypassed(),
        }
    }

    /// Once in a while, from a worker: an emergency switch must not be forgotten.
    pub fn remind(&self) {
        let mut reminded = lock(&self.reminded);
        if let Some(last) = *reminded
            && last.elapsed() >= REMINDER
        {
            *reminded = Some(Instant::now());
            tracing::warn!(
                "bypass is still on: every record is forwarded, duplicates too (kafka-dedup admin bypass off)"
            );
        }
    }

    /// Puts an order in for a worker; `None` where too many wait already.
    pub fn order(&self, worker: usize, ask: Ask) -> Option<oneshot::Receiver<Vec<Answer>>> {
        let mut orders = lock(self.orders.get(worker)?);
        // Whoever asked may have gone.
        orders.retain(|order| !order.answer.is_closed());
        if orders.len() >= ORDERS {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        orders.push_back(Order { ask, answer });
        Some(answered)
    }

    /// The next order of a worker.
    pub fn next_order(&self, worker: usize) -> Option<Order> {
        let mut orders = lock(self.orders.get(worker)?);
        orders.retain(|order| !order.answer.is_closed());
        orders.pop_front()
    }

    /// In /readyz and /metrics.
    fn tell(&self) {
        let paused: Vec<String> = {
            let paused = lock(&self.paused);
            let name =
                |topic: &Option<String>| topic.clone().unwrap_or_else(|| "all topics".to_owned());
            paused.keys().map(name).collect()
        };
        self.pauses.store(!paused.is_empty(), Ordering::Relaxed);
        self.metrics.paused.set(i64::from(!paused.is_empty()));
        self.metrics.bypass.set(i64::from(self.is_bypassed()));
        let bypass = "bypass is on: every record is forwarded, duplicates too";
        match (paused.is_empty(), self.is_bypassed()) {
            (true, false) => self.health.clear("operator"),
            (true, true) => self
                .health
                .set("operator", Condition::Degraded(bypass.to_owned())),
            (false, bypassed) => {
                let also = if bypassed {
                    format!("; {bypass}")
                } else {
                    String::new()
                };
                let text = format!(
                    "paused by an operator: {}; go on with kafka-dedup admin resume{also}",
                    paused.join(", ")
                );
                self.health.set("operator", Condition::NotReady(text));
            }
        }
    }
}

/// Whole after every statement: a panic elsewhere is no reason to stop using it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_all_and_one_of_a_topic_end_apart() {
        let health = Health::new();
        let control = Control::new(1, Metrics::new(), health.clone());
        assert!(!control.is_paused("a"));
        control.pause(Some("a".to_owned()));
        assert!(control.is_paused("a") && !control.is_paused("b"));
        control.pause(None);
        assert!(control.is_paused("b"));
        assert!(control.resume(Some("a")) && control.is_paused("a"));
        let reason = health.reason().unwrap();
        assert!(
            reason.contains("paused by an operator: all topics"),
            "{reason}"
        );
        assert!(control.resume(None) && !control.is_paused("a"));
        assert!(!control.resume(None));
        control.set_bypass(true);
        assert!(health.report().contains("operator: degraded"));
        control.set_bypass(false);
        assert!(!health.report().contains("operator"));
    }

    #[test]
    fn orders_are_bounded_and_those_that_nobody_waits_for_are_dropped() {
        let control = Control::new(1, Metrics::new(), Health::new());
        let target = || Target {
            topic: "t".to_owned(),
            partition: None,
        };
        let ask = || control.order(0, Ask::Rebuild(target()));
        let waiting: Vec<_> = (0..ORDERS).map(|_| ask().unwrap()).collect();
        assert!(ask().is_none());
        assert!(control.order(1, Ask::Rebuild(target())).is_none());
        drop(waiting);
        let last = ask().unwrap();
        assert!(control.next_order(0).is_some());
        assert!(control.next_order(0).is_none());
        drop(last);
        assert!(target().covers("t", 3) && !target().covers("u", 3));
    }
}
