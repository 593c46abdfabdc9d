//! What the trucks report, and the ways in which a report comes twice; from a seed alone.
//!
//! Touches nothing.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Records that can still come again: the longest batch and the longest lag of [`Cause::Reread`].
const REMEMBERED: usize = 4096;
const ROUTES: [u64; 5] = [1927624662, 1384345811, 160779139, 1565885487, 1090292248];
const EVENTS: [&str; 4] = [
    "Overspeed",
    "Lane Departure",
    "Unsafe following distance",
    "Unsafe tail distance",
];

/// What is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Records with an id of their own; 1 or more.
    pub unique: u64,
    /// Records that repeat an id.
    pub duplicates: u64,
    /// Trucks, each a key; 1 or more.
    pub trucks: u64,
    /// All that is random follows from it.
    pub seed: u64,
    /// How long the sending takes, where the machine can follow.
    pub drive: Duration,
}

/// Why a record was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The truck reported.
    Reported,
    /// The acknowledgement of its batch was lost, so the producer sent the batch again, with the
    /// timestamps that it had.
    Resent,
    /// The gateway restarted before it had committed its offsets, read a batch again and published
    /// it again, with new timestamps and its new name in the header.
    Reread,
}

/// One truck's report; `id` is what the service is to tell records apart by.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub truck: u64,
    event: &'static str,
    latitude: f64,
    longitude: f64,
    id: i64,
    /// Set when it is first sent.
    pub at_ms: i64,
}

impl Report {
    /// The line as the trucks of the sample write it.
    pub fn line(&self) -> String {
        let route = ROUTES[(self.truck % 5) as usize];
        let Self {
            truck,
            event,
            latitude,
            longitude,
            id,
            at_ms,
        } = self;
        let driver = truck % 70;
        format!("{at_ms},{truck},{driver},{route},{event},{latitude:.2},{longitude:.2},{id}")
    }
}

/// All that the fleet sends, in order.
pub struct Reports {
    plan: Plan,
    random: StdRng,
    /// How many of each cause have been handed out.
    reported: u64,
    resent: Repeats,
    reread: Repeats,
    /// What was reported last, oldest first.
    history: VecDeque<Report>,
    /// A batch that is being repeated.
    again: VecDeque<(Cause, Report)>,
}

/// The repeats of one cause: how many there will be, have been, and are in the next batch.
struct Repeats {
    planned: u64,
    done: u64,
    next_batch: u64,
}

impl Repeats {
    fn new(planned: u64) -> Self {
        Self {
            planned,
            done: 0,
            next_batch: 1,
        }
    }

    /// The size of the batch that is due after `part` of `whole` reports; 0 when none is.
    fn due(&self, part: u64, whole: u64) -> u64 {
        let owed =
            (u128::from(self.planned) * u128::from(part) / u128::from(whole)) as u64 - self.done;
        if owed >= self.next_batch {
            self.next_batch
        } else if part == whole {
            owed
        } else {
            0
        }
    }
}

impl Reports {
    /// Nothing is handed out yet.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            random: StdRng::seed_from_u64(plan.seed),
            reported: 0,
            resent: Repeats::new(plan.duplicates / 2),
            reread: Repeats::new(plan.duplicates - plan.duplicates / 2),
            history: VecDeque::with_capacity(REMEMBERED),
            again: VecDeque::new(),
        }
    }

    /// The next record; `now_ms` becomes its time when it is sent for the first time.
    pub fn next(&mut self, now_ms: i64) -> Option<(Cause, Report)> {
        if self.again.is_empty() {
            self.repeat_what_is_due();
        }
        self.again.pop_front().or_else(|| {
            (self.reported < self.plan.unique).then(|| (Cause::Reported, self.report(now_ms)))
        })
    }

    fn repeat_what_is_due(&mut self) {
        if self.history.is_empty() {
            return;
        }
        let newest = self.history.len();
        let resend = self.resent.due(self.reported, self.plan.unique);
        if resend > 0 {
            // A lost acknowledgement is noticed at once: the newest records.
            let size = self.repeat(Cause::Resent, newest, resend);
            self.resent.done += size;
            self.resent.next_batch = self.random.random_range(1..=16);
            return;
        }
        let reread = self.reread.due(self.reported, self.plan.unique);
        if reread > 0 {
            // A restart takes a while: others have reported meanwhile.
            let end = newest - self.random.random_range(0..newest.min(2000));
            let size = self.repeat(Cause::Reread, end, reread);
            self.reread.done += size;
            self.reread.next_batch = self.random.random_range(50..=500);
        }
    }

    /// Queues up to `size` records of the history before `end`, and answers how many.
    fn repeat(&mut self, cause: Cause, end: usize, size: u64) -> u64 {
        let start = end.saturating_sub(usize::try_from(size).unwrap_or(usize::MAX));
        let batch = self.history.range(start..end);
        self.again
            .extend(batch.map(|report| (cause, report.clone())));
        (end - start) as u64
    }

    fn report(&mut self, at_ms: i64) -> Report {
        let truck = self.random.random_range(0..self.plan.trucks);
        let normal = self.random.random_ratio(9, 10);
        let unusual = EVENTS[self.random.random_range(0..EVENTS.len())];
        let report = Report {
            truck: 101 + truck,
            event: if normal { "Normal" } else { unusual },
            latitude: self.random.random_range(36.0..42.0),
            longitude: self.random.random_range(-95.0..-88.0),
            id: spread(self.plan.seed.wrapping_add(self.reported)),
            at_ms,
        };
        self.reported += 1;
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        self.history.push_back(report.clone());
        report
    }
}

/// The finishing step of SplitMix64: one-to-one, so that no two reports share an id by chance.
fn spread(ordinal: u64) -> i64 {
    let mut bits = ordinal.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)).cast_signed()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all(plan: Plan) -> Vec<(Cause, Report)> {
        let mut reports = Reports::new(plan);
        std::iter::from_fn(|| reports.next(1_522_846_456_703)).collect()
    }

    fn plan(unique: u64, duplicates: u64) -> Plan {
        Plan {
            unique,
            duplicates,
            trucks: 20,
            seed: 7,
            drive: Duration::ZERO,
        }
    }

    #[test]
    fn every_id_is_reported_once_and_repeats_come_after_their_first_in_the_planned_number() {
        for (unique, duplicates) in [(1, 0), (1, 9), (10, 1), (5000, 500), (3000, 9000)] {
            let sent = all(plan(unique, duplicates));
            let mut seen = HashSet::new();
            for (cause, report) in &sent {
                assert_eq!(seen.insert(report.id), *cause == Cause::Reported);
            }
            assert_eq!(seen.len() as u64, unique);
            let resent = sent
                .iter()
                .filter(|(cause, _)| *cause == Cause::Resent)
                .count() as u64;
            assert_eq!(resent, duplicates / 2);
            assert_eq!(sent.len() as u64, unique + duplicates);
        }
    }

    #[test]
    fn the_same_seed_sends_the_same() {
        assert_eq!(all(plan(1000, 100)), all(plan(1000, 100)));
    }

    #[test]
    fn a_line_has_the_message_id_in_column_8() {
        let (_, report) = all(plan(1, 0)).remove(0);
        let line = report.line();
        let columns: Vec<&str> = line.split(',').collect();
        assert_eq!(columns.len(), 8, "{line}");
        assert_eq!(columns[0], "1522846456703");
        assert_eq!(columns[1], report.truck.to_string());
        assert_eq!(columns[7], report.id.to_string());
    }
}
