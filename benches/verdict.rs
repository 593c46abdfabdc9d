//! What does a verdict cost beside the least that it could be, one look-up in a hash map?
//!
//! `cargo bench --bench verdict`. Both sides run in one process; compare the medians as a ratio.

use std::collections::HashMap;

use divan::{Bencher, black_box};
use kafka_dedup::config::Window;
use kafka_dedup::window::SeenWindow;
use xxhash_rust::xxh3::xxh3_128;

fn main() {
    divan::main();
}

const IDS: [u64; 2] = [100_000, 1_000_000];
const PER_TRANSACTION: u64 = 20_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn fingerprint(n: u64) -> u128 {
    xxh3_128(&n.to_le_bytes())
}

/// A window with `ids` ids spread over its day, committed in transactions.
fn filled(ids: u64) -> SeenWindow {
    let mut window = SeenWindow::new(Window {
        time_ms: Some(DAY_MS),
        ids: None,
        refresh: false,
        max_ahead_ms: DAY_MS,
    });
    for n in 0..ids {
        let time = i64::try_from(n * 80_000_000 / ids).unwrap_or(0);
        let offset = i64::try_from(n).unwrap_or(0);
        window.observe(Some(time), time);
        black_box(window.judge(fingerprint(n), offset));
        if n % PER_TRANSACTION == PER_TRANSACTION - 1 {
            window.merge(offset);
        }
    }
    window.merge(i64::try_from(ids).unwrap_or(0));
    window
}

#[divan::bench(args = IDS)]
fn duplicate_in_the_window(bencher: Bencher<'_, '_>, ids: u64) {
    let mut window = filled(ids);
    let mut n = 0;
    bencher.bench_local(|| {
        n = (n + 7919) % ids;
        black_box(window.judge(fingerprint(n), 0))
    });
}

#[divan::bench(args = IDS)]
fn duplicate_in_a_hash_map(bencher: Bencher<'_, '_>, ids: u64) {
    let map: HashMap<u128, i64> = (0..ids).map(|n| (fingerprint(n), 0)).collect();
    let mut n = 0;
    bencher.bench_local(|| {
        n = (n + 7919) % ids;
        black_box(map.get(&fingerprint(n)))
    });
}

#[divan::bench(args = IDS)]
fn new_ids_in_the_window_one_transaction(bencher: Bencher<'_, '_>, ids: u64) {
    let mut window = filled(ids);
    let mut n = ids;
    bencher.bench_local(|| {
        for _ in 0..PER_TRANSACTION {
            n += 1;
            black_box(window.judge(fingerprint(n), 0));
        }
        window.discard();
    });
}
