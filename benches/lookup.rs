//! A duplicate whose first record lies in a sealed slice: the filter says maybe, a chunk is read from
//! the store, verified and searched. Once within the memory that the store allows its databases, once
//! far beyond it.

use std::time::Instant;

use crate::measure::Samples;
use crate::results::{Case, OURS, Reach, Size, allowed, ids};
use crate::stream::{Random, Stream, fingerprint, id};
use crate::yardsticks::{Fjall, Redb, SeenSet, Sled, Window, feed};

pub fn run(size: Size) {
    let within = size.pick(100_000, 1_000_000);
    let beyond = allowed(size.pick(400_000, 20_000_000));
    measure(size, within, "within the store's memory", true);
    measure(size, beyond, "far beyond the store's memory", false);
}

fn measure(size: Size, window_ids: u64, name: &str, with_sled: bool) {
    let mut sets: Vec<Box<dyn SeenSet>> = vec![
        Box::new(Window::new(window_ids)),
        Box::new(Fjall::new()),
        Box::new(Redb::new()),
    ];
    if with_sled {
        sets.push(Box::new(Sled::new()));
    }
    let filled = window_ids / 10 * 9;
    for set in &mut sets {
        feed(&mut **set, &mut Stream::new(window_ids), filled);
    }
    // Newer ids are still in memory.
    let sealed = filled / 2;
    let (reads, rounds) = size.pick((2_000, 2), (200_000, 5));
    let mut samples = vec![Samples::default(); sets.len()];
    let mut random = Random(1);
    // The first round warms up.
    for round in 0..=rounds {
        let known: Vec<u128> = (0..reads)
            .map(|_| fingerprint(&id(random.below(sealed))))
            .collect();
        for (set, samples) in sets.iter_mut().zip(&mut samples) {
            // No longer than 3 s: far beyond memory a look-up may take milliseconds.
            let (started, mut done) = (Instant::now(), 0_u32);
            for fingerprint in &known {
                assert!(set.is_seen(*fingerprint), "{}", set.name());
                done += 1;
                if done.is_multiple_of(16) && started.elapsed().as_secs() >= 3 {
                    break;
                }
            }
            if round > 0 {
                samples.push(f64::from(done) / started.elapsed().as_secs_f64());
            }
        }
    }
    let reach = (size == Size::Heavy).then_some(Reach::AtLeast(300_000.0));
    let mut case = Case::new(format!("{}, {name}", ids(window_ids)), "look-ups/s");
    for (set, samples) in sets.iter().zip(samples) {
        let reach = reach.filter(|_| set.name() == OURS);
        case = case.side_with(set.name(), samples, reach, "");
    }
    case.tell();
}
