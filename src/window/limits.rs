//! When an id is forgotten: exact arithmetic over stream time and ordinals, nothing else.

use crate::config;
use crate::store::Entry;

/// How far a scope has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Clock {
    /// `None` until a record had a timestamp.
    pub stream_time_ms: Option<i64>,
    /// The ordinal that the next letting-through or renewal takes.
    pub next_ordinal: u64,
}

impl Clock {
    /// Stream time, with 0 for "not known yet". Only the message formats before Kafka 0.10 have
    /// no timestamps, and 0 is what keeps their ids remembered for as long as no timestamp comes.
    /// With the first one they are as old as the epoch, so a window of time forgets them: they
    /// are let through once more rather than dropped on an age that nobody knows.
    pub fn now_ms(&self) -> i64 {
        self.stream_time_ms.unwrap_or(0)
    }

    /// Milliseconds of stream time since then. Unsigned: the distance between two `i64` needs
    /// all 64 bits, and a saturated age would remember what a window must forget.
    pub fn age_ms(&self, time_ms: i64) -> u64 {
        if self.now_ms() > time_ms {
            self.now_ms().abs_diff(time_ms)
        } else {
            0
        }
    }

    /// How many ordinals have been taken after this one.
    fn taken_after(&self, ordinal: u64) -> u64 {
        self.next_ordinal.saturating_sub(ordinal).saturating_sub(1)
    }
}

/// `window:` of the configuration, ready for comparison.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub time_ms: Option<u64>,
    pub ids: Option<u64>,
    pub refresh: bool,
    pub max_ahead_ms: i64,
}

impl Limits {
    pub fn new(window: config::Window) -> Self {
        Self {
            time_ms: window.time_ms.map(|time| time.max(0).unsigned_abs()),
            ids: window.ids.map(|ids| ids.max(1)),
            refresh: window.refresh,
            max_ahead_ms: window.max_ahead_ms.max(0),
        }
    }

    /// Whether an id that was let through (or renewed) so is still in the window. An age equal
    /// to the window is inside; of both limits the one that ends first counts.
    pub fn remember(&self, entry: &Entry, clock: &Clock) -> bool {
        self.time_ms
            .is_none_or(|time| clock.age_ms(entry.time_ms) <= time)
            && self
                .ids
                .is_none_or(|ids| clock.taken_after(entry.ordinal) < ids)
    }

    /// What a record's timestamp counts as: one too far ahead of the wall clock would expire the
    /// whole window, so it counts as the wall clock.
    pub fn clamp_ahead(&self, timestamp_ms: i64, wall_ms: i64) -> i64 {
        if timestamp_ms > wall_ms.saturating_add(self.max_ahead_ms) {
            wall_ms
        } else {
            timestamp_ms
        }
    }
}
