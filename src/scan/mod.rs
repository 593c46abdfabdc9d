//! `kafka-dedup scan TOPIC`: how many duplicates a topic holds, and of what age, before anything is
//! deployed.
//!
//! In the order in which data flows: `arguments` (flags → what to read), `ranges` (which offsets),
//! `read` (the topic as a `log` that can be read again), `filter` (pass one: which ids may repeat),
//! `exact` (pass two: which do, and their `ages`), `passes` (as many reads as the `budget` and the
//! `span`s of fingerprints need), `report`. Reads one topic; joins no group, commits and makes
//! nothing.

mod ages;
mod arguments;
mod budget;
mod exact;
mod filter;
mod log;
mod passes;
mod progress;
mod ranges;
mod read;
mod report;
mod span;

/// What other commands use to read a topic as a scan does.
pub(crate) mod source {
    pub(crate) use super::arguments::Order;
    pub(crate) use super::log::{Ended, Log, Purpose};
    pub(crate) use super::ranges::{Range, survey};
    pub(crate) use super::read::Topic;
}

pub use arguments::{From, ScanArgs};
pub(crate) use report::printable;

use std::io::{self, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ages::Edges;
use budget::Budget;
use log::Log;
use passes::{Limits, Outcome};
use read::Topic;
use report::Report;

use crate::demo::interrupt::Interrupt;
use crate::exit::Stop;

/// Scans a topic and prints what is in it.
///
/// # Errors
/// 64 bad usage or config, 69 Kafka unreachable, 78 no such topic, or it may not be read, 130 ended
/// from outside, after what was known has been printed.
pub fn run(arguments: ScanArgs) -> Result<(), Stop> {
    let (began, now) = (Instant::now(), SystemTime::now());
    let order = arguments.order(now)?;
    let interrupt = Interrupt::listen()?;
    let ranges = ranges::survey(&order)?;
    let wall = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall_ms = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
    let mut topic = Topic::new(&order, ranges, wall_ms, interrupt)?;
    let limits = Limits {
        budget: Budget::divide(order.memory.as_u64(), topic.records_at_most()),
        reads: order.reads,
        edges: Edges::with(order.window_ms),
    };
    let findings = passes::count(&mut topic, &limits)?;
    let most = findings.most.iter();
    let positions: Vec<(usize, i64)> = most.map(|id| (id.partition, id.offset)).collect();
    let ids = topic.ids(&positions);
    let report = Report {
        topic: &order.topic,
        ranges: topic.ranges(),
        findings: &findings,
        edges: &limits.edges,
        window_ms: order.window_ms,
        ids: &ids,
        memory_bytes: order.memory.as_u64(),
        elapsed: began.elapsed(),
        cut: topic.was_cut(),
    };
    print(&if order.json {
        report.json()
    } else {
        report.text()
    });
    match findings.outcome {
        Outcome::Complete | Outcome::ReadsUsedUp => Ok(()),
        Outcome::InterruptedInFilter { .. } | Outcome::InterruptedInCount => {
            Err(Stop::interrupted(format!(
                "the scan of {} was stopped before its end, as asked: the figures are partial",
                order.topic
            )))
        }
    }
}

fn print(text: &str) {
    let mut out = io::stdout().lock();
    // A reader that went away (`scan | head`) is no fault of the topic.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
