//! The whole verdict: the hash of a 36-byte id, the look-up, remembering it, and its share of all
//! that comes of it on any thread: sealing, packing, compaction, writing. CPU time, not wall time.

use std::time::{Duration, Instant};

use crate::measure::{Meter, Samples};
use crate::results::{Case, OURS, Reach, Size, allowed, ids};
use crate::stream::{PER_TRANSACTION, Repeats, Stream};
use crate::yardsticks::{Fjall, Map, Redb, SeenSet, Sled, Window, feed};

/// A round that takes longer ends early: far beyond memory a duplicate may take milliseconds.
const LONGEST_ROUND: Duration = Duration::from_secs(15);

struct Side {
    set: Box<dyn SeenSet>,
    stream: Stream,
    per_round: usize,
    note: String,
}

impl Side {
    fn new(set: Box<dyn SeenSet>, window_ids: u64, per_round: usize) -> Self {
        let (mut set, mut stream) = (set, Stream::new(window_ids));
        feed(&mut *set, &mut stream, window_ids / 10 * 9);
        Self {
            set,
            stream,
            per_round,
            note: format!("in {}", ids(window_ids)),
        }
    }

    /// CPU microseconds an id.
    fn round(&mut self, per_mille: u64, repeats: Repeats) -> f64 {
        let mut meter = Meter::start();
        let mut verdicts = Vec::new();
        let (started, mut judged) = (Instant::now(), 0);
        while judged < self.per_round && started.elapsed() < LONGEST_ROUND {
            let count = PER_TRANSACTION.min(self.per_round - judged);
            judged += count;
            let (records, expected) = self.stream.records(count, per_mille, repeats);
            meter.section(|| self.set.judge(&records, &mut verdicts));
            assert_eq!(verdicts, expected, "{}", self.set.name());
        }
        meter.section(|| self.set.settle());
        meter.cpu() * 1e6 / judged as f64
    }
}

pub fn run(size: Size) {
    let window_ids = allowed(size.pick(100_000, 10_000_000));
    let sled_ids = size.pick(20_000, Sled::MOST_IDS / 2);
    // As many ids as fill some slices, so that every round has its share of sealing.
    let per_round = size.pick(60_000, 1_200_000);
    let mut sides = [
        Side::new(Box::new(Window::new(window_ids)), window_ids, per_round),
        Side::new(Box::new(Sled::new()), sled_ids, per_round / 20),
        Side::new(Box::new(Fjall::new()), window_ids, per_round / 3),
        Side::new(Box::new(Redb::new()), window_ids, per_round / 3),
        Side::new(Box::<Map>::default(), window_ids, per_round / 3),
    ];
    let rounds = size.pick(1, 3);
    for repeats in [Repeats::Soon, Repeats::Anywhere] {
        for percent in [1, 10, 50] {
            let mut samples: Vec<Samples> = vec![Samples::default(); sides.len()];
            for _ in 0..rounds {
                for (side, samples) in sides.iter_mut().zip(&mut samples) {
                    samples.push(side.round(percent * 10, repeats));
                }
            }
            tell(size, &sides, &samples, percent, repeats);
        }
    }
}

fn tell(size: Size, sides: &[Side], samples: &[Samples], percent: u64, repeats: Repeats) {
    let from = match repeats {
        Repeats::Soon => "of the last 100,000 ids",
        Repeats::Anywhere => "of any age",
    };
    let name = format!("{percent} % duplicates {from}");
    let heavy = size == Size::Heavy;
    let mut case = Case::new(name.clone(), "us CPU an id");
    for (side, samples) in sides.iter().zip(samples) {
        let reach = (heavy && side.set.name() == OURS).then_some(Reach::AtMost(0.5));
        case = case.side_with(side.set.name(), samples.clone(), reach, &side.note);
    }
    case.tell();
    let ratio = samples[1].0.iter().zip(&samples[0].0).map(|(a, b)| a / b);
    Case::new(format!("{name}: CPU times ours"), "ratio")
        .side_with(
            "sled, a key an id",
            Samples(ratio.collect()),
            heavy.then_some(Reach::AtLeast(10.0)),
            "",
        )
        .tell();
}
