//! The reference model: what deduplication means, in as few lines as it takes.
//!
//! Written from the words of the design (stream time, seen set, window, verdict) and from nothing
//! else: one map, no slices, no transactions, wide integers. Tests hold the service against it.

#![allow(dead_code, reason = "each test uses the part that it needs")]

use std::collections::HashMap;

use kafka_dedup::config::Window;

/// What must become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    Forward,
    Duplicate {
        first_offset: i64,
        age_ms: i128,
    },
    /// The record has no id; what becomes of it is for the configuration to say.
    NoId,
}

/// A record of one scope, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub id: Option<Vec<u8>>,
    /// `None` where Kafka says -1.
    pub timestamp_ms: Option<i64>,
    /// The wall clock when the record is judged.
    pub wall_ms: i64,
    pub offset: i64,
}

/// When an id was let through or renewed last.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub time_ms: i128,
    pub ordinal: u64,
    pub first_offset: i64,
}

/// The seen set of one scope.
#[derive(Debug, Clone)]
pub struct Model {
    pub limits: Window,
    pub stream_time_ms: Option<i128>,
    pub ordinals_taken: u64,
    pub seen: HashMap<Vec<u8>, Seen>,
}

impl Model {
    pub fn new(limits: Window) -> Self {
        Self {
            limits,
            stream_time_ms: None,
            ordinals_taken: 0,
            seen: HashMap::new(),
        }
    }

    /// A record's timestamp counts before its verdict, whatever the verdict is; one too far ahead
    /// of the wall clock counts as the wall clock.
    pub fn observe(&mut self, timestamp_ms: Option<i64>, wall_ms: i64) {
        let Some(timestamp) = timestamp_ms.map(i128::from) else {
            return;
        };
        let wall = i128::from(wall_ms);
        let too_far = timestamp - wall > i128::from(self.limits.max_ahead_ms);
        let counted = if too_far { wall } else { timestamp };
        self.stream_time_ms = Some(match self.stream_time_ms {
            Some(stream_time) => stream_time.max(counted),
            None => counted,
        });
    }

    /// Takes in the timestamp, then judges the id.
    pub fn judge(
        &mut self,
        id: &[u8],
        timestamp_ms: Option<i64>,
        wall_ms: i64,
        offset: i64,
    ) -> Judged {
        self.observe(timestamp_ms, wall_ms);
        // Stream time that is not known yet counts as 0.
        let now = self.stream_time_ms.unwrap_or(0);
        let remembered = self.seen.get(id).copied().filter(|seen| {
            let in_time = match self.limits.time_ms {
                Some(window) => now - seen.time_ms <= i128::from(window),
                None => true,
            };
            let in_count = match self.limits.ids {
                Some(ids) => self.ordinals_taken - (seen.ordinal + 1) < ids,
                None => true,
            };
            in_time && in_count
        });
        if remembered.is_none() || self.limits.refresh {
            let seen = Seen {
                time_ms: now,
                ordinal: self.ordinals_taken,
                first_offset: remembered.map_or(offset, |seen| seen.first_offset),
            };
            self.seen.insert(id.to_vec(), seen);
            self.ordinals_taken += 1;
        }
        match remembered {
            None => Judged::Forward,
            Some(seen) => Judged::Duplicate {
                first_offset: seen.first_offset,
                age_ms: (now - seen.time_ms).max(0),
            },
        }
    }
}

/// The verdicts on one partition's records, given in offset order: `filter(input of p)`.
pub fn filter<'a>(
    limits: Window,
    records: impl IntoIterator<Item = &'a Input>,
) -> Vec<(&'a Input, Judged)> {
    let mut model = Model::new(limits);
    records
        .into_iter()
        .map(|record| {
            let judged = match &record.id {
                Some(id) => model.judge(id, record.timestamp_ms, record.wall_ms, record.offset),
                None => {
                    model.observe(record.timestamp_ms, record.wall_ms);
                    Judged::NoId
                }
            };
            (record, judged)
        })
        .collect()
}
