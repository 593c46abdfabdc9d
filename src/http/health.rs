//! Readiness as a latch that components hold: the process is ready when at least one component
//! has spoken and none of them says that it is not. Touches nothing but its own table and the log.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Ready; what it is doing.
    Ready(String),
    /// Not ready; why, and what is being waited for.
    NotReady(String),
    /// Ready, but a person should look; why.
    Degraded(String),
}

impl Condition {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ready(_) => "ready",
            Self::NotReady(_) => "not ready",
            Self::Degraded(_) => "degraded",
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Self::Ready(text) | Self::NotReady(text) | Self::Degraded(text) => text,
        }
    }

    fn is_ready(&self) -> bool {
        !matches!(self, Self::NotReady(_))
    }
}

/// The name under which a worker reports.
#[must_use]
pub fn worker_component(worker: usize) -> String {
    format!("worker-{worker}")
}

/// The latch; clones share it.
#[derive(Clone, Default)]
pub struct Health {
    components: Arc<Mutex<BTreeMap<String, Held>>>,
}

/// What a component has said.
#[derive(Debug, Clone)]
pub struct Held {
    pub condition: Condition,
    /// When the component came to be ready, not ready or degraded; a new text alone leaves it.
    pub since: SystemTime,
}

impl Health {
    /// A latch that nobody has spoken to: not ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says how a component is. A change between ready, degraded and not ready is logged.
    pub fn set(&self, component: &str, condition: Condition) {
        let (word, text) = (condition.word(), condition.text().to_owned());
        let mut since = SystemTime::now();
        let mut changed = true;
        let mut before = String::new();
        {
            let mut components = self.lock();
            if let Some(held) = components.get(component) {
                changed = held.condition.word() != word;
                if changed {
                    let lasted = since.duration_since(held.since).unwrap_or_default();
                    let lasted = Duration::from_secs(lasted.as_secs());
                    if !lasted.is_zero() {
                        let lasted = humantime::format_duration(lasted);
                        before = format!(" (was {} for {lasted})", held.condition.word());
                    }
                } else {
                    since = held.since;
                }
            }
            components.insert(component.to_owned(), Held { condition, since });
        }
        // Outside the lock: a log that blocks must not hold up the probes.
        if changed && word == "degraded" {
            tracing::warn!(component, "{component} is {word}: {text}{before}");
        } else if changed {
            tracing::info!(component, "{component} is {word}: {text}{before}");
        }
    }

    /// The component is no more, and is asked no longer.
    pub fn clear(&self, component: &str) {
        self.lock().remove(component);
    }

    /// Whether at least one component has spoken and none is not ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let components = self.lock();
        !components.is_empty() && components.values().all(|held| held.condition.is_ready())
    }

    /// All components, in order of their names.
    #[must_use]
    pub fn held(&self) -> Vec<(String, Held)> {
        let components = self.lock();
        let held = components.iter();
        held.map(|(name, held)| (name.clone(), held.clone()))
            .collect()
    }

    /// One line a component: `worker-0: not ready since 12s (2026-01-31T12:00:00Z): text`.
    #[must_use]
    pub fn report(&self) -> String {
        let components = self.lock();
        if components.is_empty() {
            return "process: not ready: no component has started yet\n".to_owned();
        }
        components
            .iter()
            .fold(String::new(), |mut report, (component, held)| {
                let Held { condition, since } = held;
                let (word, text) = (condition.word(), condition.text());
                let age = since.elapsed().unwrap_or_default().as_secs();
                let _ = writeln!(
                    report,
                    "{component}: {word} since {} ({}): {text}",
                    humantime::format_duration(Duration::from_secs(age)),
                    humantime::format_rfc3339_seconds(*since),
                );
                report
            })
    }

    /// Why the process is not ready, in one line; `None` when it is.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let components = self.lock();
        if components.is_empty() {
            return Some("no component has started yet".to_owned());
        }
        let reasons: Vec<String> = components
            .iter()
            .filter(|(_, held)| !held.condition.is_ready())
            .map(|(component, held)| format!("{component}: {}", held.condition.text()))
            .collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.components
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_ready_before_any_component_has_spoken() {
        let health = Health::new();
        assert!(!health.is_ready());
        assert!(health.reason().is_some());
    }

    #[test]
    fn one_component_that_is_not_ready_holds_the_latch_until_it_is_or_leaves() {
        let health = Health::new();
        health.set("worker-0", Condition::Ready("8 partitions".to_owned()));
        health.set("worker-1", Condition::NotReady("restoring a/3".to_owned()));
        assert!(!health.is_ready());
        assert_eq!(health.reason().as_deref(), Some("worker-1: restoring a/3"));
        health.clear("worker-1");
        assert!(health.is_ready());
        assert_eq!(health.reason(), None);
    }

    #[test]
    fn a_degraded_component_is_shown_but_ready() {
        let health = Health::new();
        health.set(
            "journal",
            Condition::Degraded("trimming is forbidden".to_owned()),
        );
        assert!(health.is_ready());
        let report = health.report();
        assert!(
            report.starts_with("journal: degraded since 0s ("),
            "{report}"
        );
        assert!(report.ends_with("): trimming is forbidden\n"), "{report}");
    }

    #[test]
    fn a_new_text_alone_leaves_since_when() {
        let health = Health::new();
        health.set("worker-0", Condition::NotReady("2 left".to_owned()));
        let since = health.lock()["worker-0"].since;
        health.set("worker-0", Condition::NotReady("1 left".to_owned()));
        assert_eq!(health.lock()["worker-0"].since, since);
        assert_eq!(health.reason().as_deref(), Some("worker-0: 1 left"));
    }
}
