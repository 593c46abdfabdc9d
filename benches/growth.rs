//! What a verdict costs as the window grows: new ids with 10 % duplicates, beside a hash map that
//! grows with it.

use crate::measure::{Meter, Samples};
use crate::results::{Case, OURS, Reach, Size, allowed, ids};
use crate::stream::{PER_TRANSACTION, Repeats, Stream};
use crate::yardsticks::{Map, SeenSet, Window, feed};

pub fn run(size: Size) {
    let counts = size.pick(
        vec![20_000, 200_000],
        vec![1_000_000, 10_000_000, 100_000_000],
    );
    let mut ours = Vec::new();
    for count in counts.into_iter().filter(|count| allowed(*count) == *count) {
        ours.push(measure(size, count));
    }
    let (first, last) = (&ours[0], &ours[ours.len() - 1]);
    let ratio = last.0.iter().map(|cost| cost / first.median()).collect();
    let reach = (size == Size::Heavy).then_some(Reach::AtMost(3.0));
    Case::new("largest window to smallest", "ratio")
        .side_with(OURS, Samples(ratio), reach, "")
        .tell();
}

fn measure(size: Size, window_ids: u64) -> Samples {
    let mut sets: [Box<dyn SeenSet>; 2] =
        [Box::new(Window::new(window_ids)), Box::<Map>::default()];
    let mut streams = [0; 2].map(|_| Stream::new(window_ids));
    for (set, stream) in sets.iter_mut().zip(&mut streams) {
        feed(&mut **set, stream, window_ids / 10 * 9);
    }
    // A slice of a large window is large: a round has to have its share of sealing.
    let (transactions, rounds) = size.pick((2, 2), (50, 5));
    let mut samples: [Samples; 2] = Default::default();
    let mut verdicts = Vec::new();
    for _ in 0..rounds {
        for ((set, stream), samples) in sets.iter_mut().zip(&mut streams).zip(&mut samples) {
            let mut meter = Meter::start();
            for _ in 0..transactions {
                let (records, expected) = stream.records(PER_TRANSACTION, 100, Repeats::Soon);
                meter.section(|| set.judge(&records, &mut verdicts));
                assert_eq!(verdicts, expected, "{}", set.name());
            }
            meter.section(|| set.settle());
            let judged = f64::from(transactions) * PER_TRANSACTION as f64;
            samples.push(meter.cpu() * 1e9 / judged);
        }
    }
    let [ours, map] = samples;
    Case::new(ids(window_ids), "ns CPU a verdict")
        .side(OURS, ours.clone())
        .side("HashMap in memory", map)
        .tell();
    ours
}
