//! A worker's pulse: what it is doing, and that it goes on. It tells of nothing else.

use std::sync::{Mutex, PoisonError};

/// One worker's. The worker beats, the supervisor listens.
#[derive(Debug)]
pub struct Pulse(Mutex<(u64, &'static str)>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Mutex::new((0, "starting")))
    }
}

impl Pulse {
    /// The worker begins its next step. About 20 ns.
    pub fn beat(&self, step: &'static str) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (last.0.wrapping_add(1), step);
    }

    /// Steps begun so far, and the one that goes on.
    pub fn last(&self) -> (u64, &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
