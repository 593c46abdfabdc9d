//! Notices a worker that does not go on, as when the Kafka client never comes back from a call: its
//! group takes it for alive, while its partitions stand still.
//!
//! It counts its own looks and not the time: a process that stood still as a whole has missed both.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::exit::Stop;
use crate::worker::Pulse;

/// How often it is said that a worker takes long.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Looks at the workers' pulses.
pub struct Watchdog {
    pulses: Arc<[Pulse]>,
    between_looks: Duration,
    limit: Duration,
    /// Of each worker: its last beat, and the looks since.
    last: Vec<(u64, u32)>,
}

impl Watchdog {
    /// For one look every `between_looks`; a step may take `limit`.
    pub fn new(pulses: Arc<[Pulse]>, between_looks: Duration, limit: Duration) -> Self {
        let last = vec![(0, 0); pulses.len()];
        Self {
            pulses,
            between_looks,
            limit,
            last,
        }
    }

    /// Looks at those that are running.
    ///
    /// # Errors
    /// Restart (75) when a step has taken longer than the limit.
    pub fn look(&mut self, running: &BTreeSet<usize>) -> Result<(), Stop> {
        let say_every = self.looks_in(SAY_EVERY);
        for &worker in running {
            let (beats, step) = self.pulses[worker].last();
            let (last, looks) = &mut self.last[worker];
            if *last != beats {
                (*last, *looks) = (beats, 0);
                continue;
            }
            *looks = looks.saturating_add(1);
            let looks = *looks;
            let stood = humantime::format_duration(self.between_looks.saturating_mul(looks));
            if looks > self.looks_in(self.limit) {
                return Err(Stop::restart(format!(
                    "worker {worker} has been {step} for {stood} and does not come back. Start the service again: it goes on where it was. If it happens again, keep the log and report it"
                )));
            }
            if looks.is_multiple_of(say_every) {
                tracing::warn!(worker, step, "worker {worker} has been {step} for {stood}");
            }
        }
        Ok(())
    }

    fn looks_in(&self, time: Duration) -> u32 {
        let looks = time.as_millis() / self.between_looks.as_millis().max(1);
        u32::try_from(looks).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;

    #[test]
    fn who_beats_may_go_on_and_who_does_not_ends_the_process() {
        let pulses: Arc<[Pulse]> = (0..3).map(|_| Pulse::default()).collect();
        let second = Duration::from_secs(1);
        let mut dog = Watchdog::new(Arc::clone(&pulses), second, 10 * second);
        let running = BTreeSet::from([0, 1]);
        pulses[1].beat("committing");
        for _ in 0..11 {
            pulses[0].beat("polling");
            dog.look(&running).unwrap();
        }
        pulses[0].beat("polling");
        let stop = dog.look(&running).unwrap_err();
        assert_eq!(stop.status, Status::Restart);
        assert!(
            stop.sentence
                .contains("worker 1 has been committing for 11s"),
            "{stop}"
        );
        pulses[1].beat("polling");
        dog.look(&running).unwrap();
    }
}
