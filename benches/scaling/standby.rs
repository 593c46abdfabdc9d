//! What it costs to take partitions over, by the ids that they remember: with the store of an earlier time
//! on the disk, and with none.

use std::time::Duration;

use crate::cluster::Broker;
use crate::group::DEFAULTS;
use crate::kit::unique;
use crate::rebalance::{Scene, Told, is_right, tell};
use crate::results::{self, Size};
use crate::shape::{Compression, Shape};

const PARTITIONS: i32 = 8;

/// False where an output was not what it is to be.
pub fn measure(broker: &Broker, size: Size) -> bool {
    let windows: &[u64] = size.pick(&[20_000], &[100_000, 1_000_000, 4_000_000]);
    let mut right = true;
    for &ids in windows {
        right &= of_window(broker, ids, size);
    }
    right
}

fn of_window(broker: &Broker, ids: u64, size: Size) -> bool {
    let shape = Shape {
        ids,
        value_bytes: 200,
        duplicates_percent: 10,
        partitions: PARTITIONS,
        compression: Compression::None,
    };
    let input = unique("input");
    println!("  writing {shape}");
    let sent = shape.write(&broker.kafka, &input, crate::kit::now_ms());
    let mut scene = Scene::on(broker, &input, PARTITIONS, DEFAULTS, &["first"], sent);
    let quiet = scene.quiet(size.pick(Duration::from_secs(1), Duration::from_secs(5)));
    let (first, joins) = scene.joins("second");
    let (second, leaves) = scene.leaves();
    let (third, returns) = scene.joins("second");
    let told = [
        Told {
            what: "nothing happens",
            partitions: scene.all(),
            stretch: quiet,
        },
        Told {
            what: "taken over with an empty store",
            partitions: first,
            stretch: joins,
        },
        Told {
            what: "back where they were before",
            partitions: second,
            stretch: leaves,
        },
        Told {
            what: "taken over with a store of before",
            partitions: third,
            stretch: returns,
        },
    ];
    let (commits, verdict) = scene.end(sent);
    let case = format!("{}, {PARTITIONS} partitions", results::ids(ids));
    tell(&case, &commits, &told);
    is_right(verdict)
}
