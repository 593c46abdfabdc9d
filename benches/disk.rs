//! Disk a live id, while the window moves on: over 30 slices it must not grow.

use kafka_dedup::window::Sizing;

use crate::measure::{Samples, disk};
use crate::results::{Case, OURS, Reach, Size, ids, scratch};
use crate::stream::{Stream, fingerprint, id};
use crate::yardsticks::{Fjall, Keep, Redb, SeenSet, Sled, Window, feed};

/// What a window has by time.
const SLICES_A_WINDOW: u64 = 8;
const SLICES_OF_CHURN: u64 = 30;

pub fn run(size: Size) {
    let (live, large, sled_live) =
        size.pick((100_000, 200_000, 16_000), (2_000_000, 10_000_000, 400_000));
    let sizing = |live: u64| Sizing {
        active_ids: Sizing::default().active_ids.min(live / SLICES_A_WINDOW),
        ..Sizing::default()
    };
    let window = |live| Window::in_dir(live, sizing(live), Keep::Removed(scratch()));
    let heavy = size == Size::Heavy;
    let reach = heavy.then_some(Reach::AtMost(40.0));
    churn(&mut window(large), large).tell(&format!("{} live", ids(large)), reach, &[]);
    churn(&mut window(live), live).tell(
        &format!("{} live", ids(live)),
        reach,
        &[
            churn(&mut Fjall::new(), live),
            churn(&mut Redb::new(), live),
            churn(&mut Sled::new(), sled_live),
        ],
    );
}

/// Bytes a live id after each slice of churn.
struct Churned {
    side: &'static str,
    live: u64,
    bytes: Vec<f64>,
}

fn churn(set: &mut dyn SeenSet, live: u64) -> Churned {
    let mut stream = Stream::new(live);
    feed(set, &mut stream, live);
    let a_slice = live / SLICES_A_WINDOW;
    let mut bytes = Vec::new();
    for _ in 0..SLICES_OF_CHURN {
        let until = stream.next + a_slice;
        let over = until - live - a_slice;
        feed(set, &mut stream, until);
        set.forget(&mut (over..over + a_slice).map(|number| fingerprint(&id(number))));
        set.settle();
        assert!(set.is_seen(fingerprint(&id(until - live / 2))));
        assert!(!set.is_seen(fingerprint(&id(over))) || set.name() == OURS);
        bytes.push(disk(set.dir().expect("files")) as f64 / live as f64);
    }
    Churned {
        side: set.name(),
        live,
        bytes,
    }
}

impl Churned {
    fn samples(&self) -> Samples {
        Samples(self.bytes.clone())
    }

    /// The last eight slices beside the first eight after the window was full.
    fn growth(&self) -> Samples {
        let (first, last) = self.bytes.split_at(SLICES_A_WINDOW as usize);
        let last = &last[last.len() - SLICES_A_WINDOW as usize..];
        let mean = |bytes: &[f64]| bytes.iter().sum::<f64>() / bytes.len() as f64;
        Samples(vec![mean(last) / mean(first)])
    }

    fn tell(self, name: &str, reach: Option<Reach>, others: &[Self]) {
        let mut case = Case::new(name, "B a live id").side_with(OURS, self.samples(), reach, "");
        for other in others {
            let note = format!("{} live", ids(other.live));
            case = case.side_with(other.side, other.samples(), None, &note);
        }
        case.tell();
        let reach = reach.map(|_| Reach::AtMost(1.1));
        let mut case = Case::new(format!("{name}: growth over 30 slices"), "ratio").side_with(
            OURS,
            self.growth(),
            reach,
            "",
        );
        for other in others {
            case = case.side(other.side, other.growth());
        }
        case.tell();
    }
}
