//! Somebody looks at kafka-dedup while it works: a status page that is left open, and a scrape every five seconds.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::programs::Job;
use crate::reader::{follow, whole};

/// A third of what Prometheus does by default.
const SCRAPE_EVERY: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

pub struct Watchers {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<usize>,
    scraper: JoinHandle<usize>,
}

impl Watchers {
    /// Of the service with this job, which listens.
    pub fn start(job: &Job<'_>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = || {
            let stop = Arc::clone(&stop);
            move || stop.load(Ordering::Relaxed)
        };
        let [public, admin] = job
            .ports
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let (reader_stopped, scraper_stopped) = (stopped(), stopped());
        Self {
            reader: thread::spawn(move || {
                whole(admin, "/");
                follow(admin, || !reader_stopped())
            }),
            scraper: thread::spawn(move || scrape(public, &scraper_stopped)),
            stop,
        }
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let updates = self.reader.join().expect("the page was read");
        let scrapes = self.scraper.join().expect("the metrics were scraped");
        assert!(updates > 0 && scrapes > 0);
        println!("  watched by {updates} updates and {scrapes} scrapes");
    }
}

fn scrape(address: SocketAddr, stopped: &impl Fn() -> bool) -> usize {
    let mut scrapes = 0;
    let mut due = Instant::now();
    while !stopped() {
        if Instant::now() >= due {
            whole(address, "/metrics");
            scrapes += 1;
            due += SCRAPE_EVERY;
        }
        thread::sleep(LOOK);
    }
    scrapes
}
