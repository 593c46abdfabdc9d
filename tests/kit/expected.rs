//! What the reference model lets through of an input read back from Kafka.

use kafka_dedup::config::Window;

use super::model::{Input, Judged, filter};
use super::{Rec, now_ms};

/// Limits of a window, with what a test does not care about left at its default.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub time_ms: Option<i64>,
    pub ids: Option<u64>,
    pub refresh: bool,
}

impl Limits {
    pub fn unlimited() -> Self {
        Self {
            time_ms: None,
            ids: None,
            refresh: false,
        }
    }

    pub fn time(time_ms: i64) -> Self {
        Self {
            time_ms: Some(time_ms),
            ..Self::unlimited()
        }
    }
}

/// The records that are let through, given a partition's records in order, by what `id` takes from
/// each; records without an id are let through.
pub fn expect_forwarded(
    limits: Limits,
    input: &[(i64, Rec)],
    id: impl Fn(&Rec) -> Option<Vec<u8>>,
) -> Vec<Rec> {
    let window = Window {
        time_ms: limits.time_ms,
        ids: limits.ids,
        refresh: limits.refresh,
        max_ahead_ms: 600_000,
    };
    let wall_ms = now_ms();
    let records: Vec<Input> = input
        .iter()
        .map(|(offset, record)| Input {
            id: id(record),
            timestamp_ms: Some(record.timestamp),
            wall_ms,
            offset: *offset,
        })
        .collect();
    filter(window, &records)
        .into_iter()
        .zip(input)
        .filter(|((_, judged), _)| matches!(judged, Judged::Forward | Judged::NoId))
        .map(|(_, (_, record))| record.clone())
        .collect()
}
