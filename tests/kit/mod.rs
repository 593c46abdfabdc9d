//! What the tests that run the real program on real brokers share: a broker, clients, deployments,
//! the reference model and what it makes of an input.
//!
//! - [`kafka`]: a cluster seen by a plain client, and records as they are compared.
//! - [`service`]: a deployment of the program, and its running instances.
//! - [`hostile`]: a producer of everything that an input may hold, in any order.
//! - [`audit`]: compares all outputs with what the model makes of the input, as both grow.
//! - [`expected`]: what the reference model lets through of an input read back.
//! - [`kin`]: what must hold where partitions share what they have seen.
//! - [`stream`]: producers that send on, with repeats.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses the part that it needs"
)]

pub mod audit;
pub mod expected;
pub mod hostile;
pub mod kafka;
pub mod kin;
#[path = "../model/mod.rs"]
pub mod model;
pub mod service;
pub mod stream;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kafka_dedup::demo::broker::Cluster;
use tempfile::TempDir;

pub use kafka::{Kafka, Rec, flush, send};
pub use service::{BINARY, Deployment, Instance, fetch};

/// The one broker that the tests of a binary share.
pub fn broker() -> &'static Kafka {
    static BROKER: OnceLock<(Cluster, TempDir, Kafka)> = OnceLock::new();
    let (_, _, kafka) = BROKER.get_or_init(|| {
        let dir = TempDir::new().expect("a directory for the broker");
        let cluster = Cluster::start(1, dir.path()).expect("a Kafka broker");
        let kafka = Kafka::at(cluster.bootstrap());
        (cluster, dir, kafka)
    });
    kafka
}

/// A name that no other test of this run uses.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{name}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock");
    i64::try_from(since.as_millis()).expect("a date")
}

pub fn wait_for(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {patience:?} for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Numbers that look random and are the same in every run: xorshift64*, Vigna 2016.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}
