//! How much of its window a seen set truly covers: 1 where all that was let through within the window is
//! remembered, less where the set has begun, was grown or was forgotten not a window ago. Pure.

use super::limits::{Clock, Limits};
use crate::journal::Since;

/// The share of the window, from 0 to 1, of a seen set that is whole from there on (`None`: from the beginning
/// of its input). Of both limits, what is beyond either needs not be remembered: so the one that is covered
/// further counts.
pub(super) fn coverage(since: Option<Since>, limits: &Limits, clock: &Clock) -> f64 {
    let Some(since) = since else { return 1.0 };
    let by_time = limits.time_ms.map(|time| match since.time_ms {
        // An age equal to the window is inside: what came at that very time has to be over as well.
        Some(since_ms) if clock.stream_time_ms.is_some() => match clock.age_ms(since_ms) {
            age if age > time => 1.0,
            age => share(age, time).min(1.0_f64.next_down()),
        },
        _ => 0.0,
    });
    let by_count = limits
        .ids
        .map(|ids| share(clock.next_ordinal.saturating_sub(since.ordinal), ids));
    by_time.into_iter().chain(by_count).fold(0.0, f64::max)
}

fn share(covered: u64, whole: u64) -> f64 {
    match covered >= whole {
        true => 1.0,
        false => covered as f64 / whole as f64,
    }
}

/// What is whole from both of these on.
pub(super) fn later(a: Since, b: Since) -> Since {
    Since {
        ordinal: a.ordinal.max(b.ordinal),
        // A time that is not known yet is still to come.
        time_ms: a.time_ms.zip(b.time_ms).map(|(a, b)| a.max(b)),
    }
}

/// What is whole from either of these on.
pub(super) fn earlier(a: Since, b: Since) -> Since {
    let times = a.time_ms.into_iter().chain(b.time_ms);
    Since {
        ordinal: a.ordinal.min(b.ordinal),
        time_ms: times.min(),
    }
}
