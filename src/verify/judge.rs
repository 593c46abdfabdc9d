//! What must have become of each record of one input partition: the rules of the configuration,
//! replayed. Written from the words of the design, and sharing nothing with the service's own window,
//! so that a defect there does not excuse itself here.
//!
//! Two things may not be known afterwards: what was let through before the first record that is
//! still there, and what the wall clock said when a record far ahead of it was judged. So times are
//! spans, and a verdict that depends on where in its span a time lies is [`Verdict::Unsure`].
//! Touches neither Kafka nor the clock.

use hashbrown::HashMap;

use crate::config::{Conflicts, Window};
use crate::journal::run::NO_OFFSET;
use crate::window::Fingerprint;

/// So many timestamps in a row that leap ahead are believed: a partition that was quiet goes on.
const LEAPS: u32 = 16;
/// Entries before the map is swept for the first time.
const SWEEP_LEAST: usize = 4096;

/// A time in ms that lies somewhere from `from` to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: i64,
    pub to: i64,
}

impl Span {
    pub fn exactly(at: i64) -> Self {
        Self { from: at, to: at }
    }

    fn later(self, other: Self) -> Self {
        Self {
            from: self.from.max(other.from),
            to: self.to.max(other.to),
        }
    }

    /// Milliseconds from `earlier` to this, never below 0.
    fn since(self, earlier: Self) -> Self {
        Self {
            from: self.from.saturating_sub(earlier.to).max(0),
            to: self.to.saturating_sub(earlier.from).max(0),
        }
    }
}

/// What the wall clock said when a record was judged; `None` where nothing tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wall {
    pub from: Option<i64>,
    /// At most the time of the audit.
    pub to: i64,
}

/// The first record of an id, as a duplicate's headers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    /// `None` where it is not there any more.
    pub offset: Option<i64>,
    /// Stream time since it was let through, or renewed.
    pub age_ms: Span,
}

/// What must have become of a record with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Forward,
    Duplicate(First),
    /// The same, with another payload than was let through.
    Conflict(First),
    /// Forward, or a duplicate of what cannot be known.
    Unsure,
}

/// When an id was let through, or renewed, last.
#[derive(Debug, Clone, Copy)]
struct Seen {
    time: Span,
    /// As if every unsure record had taken an ordinal.
    ordinal: u64,
    /// Unsure records so far, that may have taken none.
    unsure: u64,
    offset: i64,
    /// It was forwarded for sure; else it may have been a duplicate of an earlier one.
    sure: bool,
    /// `offset` is that of the first record.
    first_known: bool,
    /// Where it is not sure: an earlier one is not known of.
    alone: bool,
    /// Hash of its payload; 0 where it is not known.
    payload: u64,
}

/// Yes, no, or not to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Open,
}

impl Truth {
    fn of(least: bool, most: bool) -> Self {
        match (least, most) {
            (true, true) => Self::Yes,
            (false, false) => Self::No,
            _ => Self::Open,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Open,
        }
    }
}

/// The seen set of one input partition, as it must have been.
pub struct Judge {
    window: Window,
    on_conflict: Conflicts,
    stream_time: Option<Span>,
    /// Ordinals taken, with every unsure record as if it had taken one.
    taken: u64,
    unsure: u64,
    seen: HashMap<Fingerprint, Seen, foldhash::fast::RandomState>,
    sweep_at: usize,
    /// Records before the first that is read were let through: until stream time is a window beyond
    /// this, an id that is not in the map may have been seen all the same.
    unknown: Option<Unknown>,
    /// Timestamps in a row that leap ahead of stream time with no witness, and the least of them.
    leaps: (u32, i64),
}

#[derive(Debug, Clone, Copy)]
enum Unknown {
    /// Nothing was read yet.
    Begins,
    /// Nothing unknown was let through at a later stream time.
    Until(i64),
}

impl Judge {
    /// An empty one. `complete` says that nothing was let through before the first record it sees.
    pub fn new(window: Window, on_conflict: Conflicts, complete: bool) -> Self {
        Self {
            window,
            on_conflict,
            stream_time: None,
            taken: 0,
            unsure: 0,
            seen: HashMap::default(),
            sweep_at: SWEEP_LEAST,
            unknown: (!complete).then_some(Unknown::Begins),
            leaps: (0, i64::MAX),
        }
    }

    /// What was let through before has a stream time below this (ms), however it came to be so.
    pub fn unknown_until(&mut self, time_ms: i64) {
        self.unknown = Some(Unknown::Until(time_ms));
    }

    /// What was preloaded so far does not count.
    pub fn begin_anew(&mut self) {
        self.seen.clear();
        self.stream_time = None;
    }

    /// An id that was remembered before the first record, let through at this stream time.
    pub fn preload(&mut self, id: Fingerprint, time_ms: i64) {
        self.preloaded_to(time_ms);
        let seen = Seen {
            time: Span::exactly(time_ms),
            ordinal: self.taken,
            unsure: self.unsure,
            offset: NO_OFFSET,
            sure: true,
            first_known: true,
            alone: true,
            payload: 0,
        };
        self.taken += 1;
        self.insert(id, seen);
    }

    /// How far stream time was before the first record.
    pub fn preloaded_to(&mut self, time_ms: i64) {
        let then = Span::exactly(time_ms);
        self.stream_time = Some(self.stream_time.map_or(then, |now| now.later(then)));
    }

    /// Takes in a record's timestamp, as the service does before its verdict, whatever that is.
    /// `trusted`: the broker's own clock made it. O(1).
    pub fn observe(&mut self, timestamp_ms: Option<i64>, trusted: bool, wall: Wall) {
        let Some(timestamp) = timestamp_ms else {
            return;
        };
        let counted = self.counted(timestamp, trusted, wall);
        let now = match self.stream_time {
            Some(before) => before.later(counted),
            // Where records before it are gone, stream time may have been further on.
            None if matches!(self.unknown, Some(Unknown::Begins)) => Span {
                from: counted.from,
                to: counted.to.saturating_add(self.window.max_ahead_ms),
            },
            None => counted,
        };
        self.stream_time = Some(now);
        if let Some(Unknown::Begins) = self.unknown {
            self.unknown = Some(Unknown::Until(now.to));
        }
    }

    /// A timestamp that was more than `max_ahead` ahead of the wall clock counted as that.
    fn counted(&mut self, timestamp: i64, trusted: bool, wall: Wall) -> Span {
        let ahead = self.window.max_ahead_ms;
        if trusted {
            return Span::exactly(timestamp);
        }
        if timestamp > wall.to.saturating_add(ahead) {
            let from = wall.from.or(self.stream_time.map(|now| now.from));
            return Span {
                from: from.unwrap_or(i64::MIN),
                to: wall.to,
            };
        }
        // Without a witness: the clock of a stream that goes on is about where the stream is.
        let about = wall.from.or(self.stream_time.map(|now| now.from));
        let Some(about) = about.filter(|about| timestamp > about.saturating_add(ahead)) else {
            self.leaps = (0, i64::MAX);
            return Span::exactly(timestamp);
        };
        let (count, least) = (self.leaps.0 + 1, self.leaps.1.min(timestamp));
        let believed = wall.from.is_none() && count >= LEAPS;
        self.leaps = if believed {
            (0, i64::MAX)
        } else {
            (count, least)
        };
        Span {
            from: if believed { least } else { about },
            to: timestamp,
        }
    }

    /// Judges a record whose timestamp was taken in. `payload` is its hash, or 0 where payloads are not
    /// compared. O(1), apart from sweeps.
    pub fn judge(&mut self, id: Fingerprint, offset: i64, payload: u64) -> Verdict {
        let now = self.now();
        let found = self.seen.get(&id).copied();
        let remembered = found.map_or(Truth::No, |seen| self.remembers(&seen, now));
        let verdict = match (found, remembered) {
            (Some(seen), Truth::Yes) if seen.sure || self.window.refresh => {
                Verdict::Duplicate(First {
                    offset: (seen.first_known && seen.sure).then_some(seen.offset),
                    age_ms: now.since(seen.time),
                })
            }
            (_, Truth::No) if !self.may_be_unknown(now) => Verdict::Forward,
            _ => Verdict::Unsure,
        };
        let known = found.map_or(0, |seen| seen.payload);
        let differs = payload != 0 && known != 0 && payload != known;
        let verdict = match verdict {
            // Whether the service knew the first payload, is not known: it may have been told to compare later.
            Verdict::Duplicate(_) if differs && self.on_conflict == Conflicts::Forward => {
                Verdict::Unsure
            }
            Verdict::Duplicate(first) if differs => Verdict::Conflict(first),
            other => other,
        };
        let (renews, offset, sure, first_known) = match (verdict, found) {
            (Verdict::Forward, _) => (true, offset, true, true),
            (Verdict::Conflict(_), Some(seen)) => (false, seen.offset, seen.sure, seen.first_known),
            (Verdict::Duplicate(_), Some(seen)) => (
                self.window.refresh,
                seen.offset,
                seen.sure,
                seen.first_known,
            ),
            // A renewal and a letting-through leave the same behind, apart from who was first.
            _ => (true, offset, self.window.refresh, false),
        };
        if renews {
            self.insert(
                id,
                Seen {
                    time: now,
                    ordinal: self.taken,
                    unsure: self.unsure,
                    offset,
                    sure,
                    first_known,
                    alone: found.is_none(),
                    payload: match verdict {
                        Verdict::Duplicate(_) => known,
                        _ => payload,
                    },
                },
            );
            self.taken += 1;
            self.unsure += u64::from(verdict == Verdict::Unsure && !self.window.refresh);
        }
        verdict
    }

    /// An operator had an id forgotten: the next record with it is new. O(1).
    pub fn forget(&mut self, id: Fingerprint) {
        self.seen.remove(&id);
    }

    /// An unsure record has turned out to have been forwarded.
    pub fn was_forwarded(&mut self, id: Fingerprint, offset: i64) {
        if let Some(seen) = self.seen.get_mut(&id)
            && seen.offset == offset
            && !seen.first_known
        {
            (seen.sure, seen.first_known) = (true, true);
        }
    }

    /// An unsure record has turned out not to have been forwarded: it was a duplicate of one before
    /// all that is known, and left nothing behind.
    pub fn was_not_forwarded(&mut self, id: Fingerprint, offset: i64) {
        if let Some(seen) = self.seen.get(&id)
            && seen.offset == offset
            && !seen.sure
            && seen.alone
        {
            self.seen.remove(&id);
        }
    }

    /// The offset at which an id that is remembered was first seen.
    pub fn first_seen(&self, id: Fingerprint) -> Option<i64> {
        self.seen.get(&id).map(|seen| seen.offset)
    }

    /// Memory of the map, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.seen.allocation_size()
    }

    /// Stream time that is not known yet counts as 0.
    fn now(&self) -> Span {
        self.stream_time.unwrap_or(Span::exactly(0))
    }

    fn remembers(&self, seen: &Seen, now: Span) -> Truth {
        let in_time = self.window.time_ms.map_or(Truth::Yes, |window| {
            let age = now.since(seen.time);
            // An older alternative of what is not sure is no younger than that.
            Truth::of(seen.sure && age.to <= window, age.from <= window)
        });
        let in_count = self.window.ids.map_or(Truth::Yes, |ids| {
            let most = self.taken.saturating_sub(seen.ordinal).saturating_sub(1);
            let least = most.saturating_sub(self.unsure.saturating_sub(seen.unsure));
            Truth::of(seen.sure && most < ids.max(1), least < ids.max(1))
        });
        in_time.and(in_count)
    }

    /// Whether an id that nobody knows of may be in the window.
    fn may_be_unknown(&mut self, now: Span) -> bool {
        let until = match self.unknown {
            None => return false,
            Some(Unknown::Begins) => i64::MAX,
            Some(Unknown::Until(time)) => time,
        };
        let out_of_time = self
            .window
            .time_ms
            .is_some_and(|window| now.from.saturating_sub(until) > window);
        let out_of_count = self
            .window
            .ids
            .is_some_and(|ids| self.taken.saturating_sub(self.unsure) >= ids.max(1));
        if out_of_time || out_of_count {
            self.unknown = None;
        }
        self.unknown.is_some()
    }

    fn insert(&mut self, id: Fingerprint, seen: Seen) {
        self.seen.insert(id, seen);
        if self.seen.len() >= self.sweep_at {
            let mut kept = std::mem::take(&mut self.seen);
            let now = self.now();
            kept.retain(|_, seen| self.remembers(seen, now) != Truth::No);
            self.sweep_at = (2 * kept.len()).max(SWEEP_LEAST);
            self.seen = kept;
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
