//! `preload`: fills the seen window of an input before the group's first start, so that a cut-over
//! forgets nothing.
//!
//! In the order of the data: `arguments` → `topic` or `file` (where ids come from) → `writer` (runs in
//! the journal, and the group's start offsets). Joins the group for as long as it works, so that
//! nobody else can begin meanwhile.
//!
//! What makes it safe to be killed at any time: the first transaction writes a run to every partition
//! of the journal, and the last one commits the start offsets of all. In between, a partition has runs
//! and no committed offset, which no start of the service takes for the truth (78); and a new preload
//! begins with a run that says that nothing before it counts.

mod arguments;
mod file;
mod topic;
mod writer;

pub use arguments::PreloadArgs;

use std::io::{self, Write};
use std::time::SystemTime;

use indicatif::HumanCount;
use serde::Serialize;

use crate::demo::interrupt::Interrupt;
use crate::exit::Stop;
use arguments::Source;
use writer::Writer;

/// What was preloaded.
#[derive(Debug, Serialize)]
struct Report {
    topic: String,
    journal: String,
    partitions: Vec<Row>,
    /// Records or lines that have no id.
    without_id: u64,
    /// Lines that belong to another topic.
    of_other_topics: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    partition: i32,
    ids: u64,
    /// Where the group begins to read the input.
    start_offset: i64,
    #[serde(serialize_with = "crate::inspect::serialize_some_time")]
    stream_time: Option<i64>,
}

/// What a source could not use.
#[derive(Debug, Default)]
struct LeftOut {
    without_id: u64,
    of_other_topics: u64,
}

/// Fills the window, and says with how many ids.
///
/// # Errors
/// 64 bad usage, config or file, 69 Kafka unreachable, 75 it could not be finished and may be run
/// again, 78 the group or its journal has begun already, or topics do not fit, 130 stopped from outside.
pub fn run(arguments: &PreloadArgs) -> Result<(), Stop> {
    let order = arguments.order(SystemTime::now())?;
    let interrupt = Interrupt::listen()?;
    let mut writer = Writer::join(&order, &interrupt)?;
    // What is wrong with a source is found before anything is written.
    let left_out = match &order.source {
        Source::Topic(from) => {
            let ranges = topic::look(from, &order, writer.partitions())?;
            writer.begin()?;
            topic::read(from, ranges, &order, &interrupt, &mut writer)?
        }
        Source::File { path, hex } => {
            file::check(path, *hex, &order, writer.partitions())?;
            writer.begin()?;
            file::read(path, *hex, &order, &mut writer)?
        }
    };
    let (journal, partitions) = writer.finish()?;
    let report = Report {
        topic: order.topic.clone(),
        journal,
        partitions,
        without_id: left_out.without_id,
        of_other_topics: left_out.of_other_topics,
    };
    let text = match arguments.json {
        true => json(&report)?,
        false => text(&report),
    };
    // Nobody reading is no reason to fail: it is done.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn json(report: &Report) -> Result<String, Stop> {
    serde_json::to_string_pretty(report)
        .map(|text| text + "\n")
        .map_err(|error| Stop::internal(format!("the report is no JSON: {error}")))
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for row in &report.partitions {
        let time = row
            .stream_time
            .map_or("not known".to_owned(), crate::inspect::time);
        text += &format!(
            "{}-{}: {} ids, stream time {time}, begins at offset {}\n",
            report.topic,
            row.partition,
            HumanCount(row.ids),
            row.start_offset
        );
    }
    if report.without_id > 0 {
        text += &format!(
            "left out: {} without an id\n",
            HumanCount(report.without_id)
        );
    }
    if report.of_other_topics > 0 {
        let count = HumanCount(report.of_other_topics);
        text += &format!("left out: {count} of other topics\n");
    }
    text + "preloaded: the group can be started\n"
}
