//! Notices that the wall clock was set back under the running process.
//!
//! librdkafka waits on condition variables until a time of the wall clock (`tinycthread.c`): set the
//! clock back by an hour, and what waits now waits for an hour more, whatever its time-out was. No
//! call of ours can be relied on then, so the process ends (75): a new one counts from the new time.
//! A clock that is set forward only ends waits early, which every caller is prepared for.

use std::time::{Duration, Instant, SystemTime};

use crate::exit::Stop;

/// Smaller steps, as of an NTP daemon that corrects a drift, only prolong a wait by as much.
const TOLERANCE: Duration = Duration::from_secs(5);

/// The wall clock as it was at the last look, beside a clock that nobody sets.
pub struct WallClock {
    steady: Instant,
    wall: SystemTime,
}

impl WallClock {
    /// Looks for the first time.
    pub fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Looks again.
    ///
    /// # Errors
    /// Restart (75) when the clock was set back by more than 5 s since the last look.
    pub fn look(&mut self) -> Result<(), Stop> {
        self.compare(Self::now())
    }

    fn compare(&mut self, now: Self) -> Result<(), Stop> {
        let expected = self.wall + now.steady.saturating_duration_since(self.steady);
        let back = expected.duration_since(now.wall).unwrap_or_default();
        *self = now;
        if back <= TOLERANCE {
            return Ok(());
        }
        let back = humantime::format_duration(Duration::from_secs(back.as_secs()));
        Err(Stop::restart(format!(
            "the wall clock was set back by {back}, and the Kafka client's waits with it. Start the service again: it goes on where it was"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;

    fn after(clock: &WallClock, steady_s: u64, wall_s: i64) -> WallClock {
        let wall = Duration::from_secs(wall_s.unsigned_abs());
        WallClock {
            steady: clock.steady + Duration::from_secs(steady_s),
            wall: if wall_s < 0 {
                clock.wall - wall
            } else {
                clock.wall + wall
            },
        }
    }

    #[test]
    fn only_a_step_back_ends_the_process() {
        let mut clock = WallClock::now();
        for (steady_s, wall_s) in [(1, 1), (1, 86_400), (3_600, 3_600), (1, 0), (1, -4)] {
            let now = after(&clock, steady_s, wall_s);
            assert!(clock.compare(now).is_ok(), "{steady_s} {wall_s}");
        }
        let now = after(&clock, 1, -5);
        let stop = clock.compare(now).unwrap_err();
        assert_eq!(stop.status, Status::Restart);
        assert!(stop.sentence.contains("set back by 6s"), "{stop}");
        let now = after(&clock, 1, 1);
        assert!(clock.compare(now).is_ok(), "once is enough");
    }
}
