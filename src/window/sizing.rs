//! What a window of a given size takes, by the same constants that size the real one. For plans.

use super::filter;
use super::slice::{ENTRY_BYTES, PAYLOAD_ENTRY_BYTES};
use super::slices::{CUTS, HUGE_SLICE, LARGE_SLICE, LARGE_WINDOW, MANY_SLICES};

/// Ids of a slice in a window that has been full for a while.
pub fn ids_a_slice(ids_remembered: f64, active_ids: u64) -> f64 {
    let active = active_ids.max(1) as f64;
    let bound = if ids_remembered > active * LARGE_WINDOW as f64 {
        active * LARGE_SLICE as f64
    } else {
        active
    };
    let bound = if ids_remembered / bound > MANY_SLICES as f64 {
        active * HUGE_SLICE as f64
    } else {
        bound
    };
    (ids_remembered / CUTS as f64).min(bound).max(1.0)
}

/// Memory of the filter in front of so many slices.
pub fn filter_bytes(slices: u32, ids_a_slice: f64, target: f64) -> f64 {
    filter::table_for(slices, ids_a_slice as u64, target).bytes() as f64
}

/// Memory of a slice that is not sealed yet: a hash table of a power of two of buckets, at most 7 of
/// 8 taken.
pub fn table_bytes(ids: f64) -> f64 {
    buckets(ids) * (ENTRY_BYTES + 1) as f64
}

/// The same of the table that holds their payloads' hashes, where these are compared.
pub fn payload_table_bytes(ids: f64) -> f64 {
    buckets(ids) * (PAYLOAD_ENTRY_BYTES + 1) as f64
}

fn buckets(ids: f64) -> f64 {
    (ids * 8.0 / 7.0).log2().ceil().exp2()
}
