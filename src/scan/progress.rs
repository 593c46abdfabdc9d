//! What a scan shows while it reads: a bar on a terminal, a line now and then elsewhere, both on
//! standard error.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::log::Purpose;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Over how long a rate is taken on a terminal.
const RATE_OVER: Duration = Duration::from_millis(500);

/// The progress of one read after another.
pub struct Progress {
    terminal: bool,
    bar: Option<ProgressBar>,
    label: String,
    reads: u32,
    /// Offsets of the read that is under way.
    total: u64,
    /// When the rate was taken last, and with how many records.
    rated: (Instant, u64),
}

impl Progress {
    pub fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            bar: None,
            label: String::new(),
            reads: 0,
            total: 0,
            rated: (Instant::now(), 0),
        }
    }

    /// A read of so many offsets begins.
    pub fn begin(&mut self, purpose: Purpose, total: u64) {
        self.reads += 1;
        let what = match purpose {
            Purpose::Filter => "looking for ids that may repeat",
            Purpose::Count => "counting those that do",
            Purpose::Preload => "taking all ids",
        };
        self.label = format!("read {}, {what}", self.reads);
        self.total = total;
        self.rated = (Instant::now(), 0);
        self.bar = self.terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            if let Ok(style) =
                ProgressStyle::with_template("{prefix} [{wide_bar}] {percent} %, {eta} left {msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(self.label.clone());
            bar
        });
    }

    /// So many offsets are behind, with so many records in them. Cheap, but not for every record.
    pub fn update(&mut self, offsets: u64, records: u64) {
        let (since, before) = self.rated;
        let every = if self.terminal { RATE_OVER } else { LINE_EVERY };
        let elapsed = since.elapsed();
        if let Some(bar) = &self.bar {
            bar.set_position(offsets);
        }
        if elapsed < every {
            return;
        }
        let rate = records.saturating_sub(before) as f64 / elapsed.as_secs_f64();
        self.rated = (Instant::now(), records);
        let (records, rate) = (HumanCount(records), HumanCount(rate as u64));
        let rest = format!("{records} records, {rate}/s");
        if let Some(bar) = &self.bar {
            bar.set_message(rest);
        } else {
            let percent = offsets.saturating_mul(100) / self.total.max(1);
            // Nobody reading is no reason to stop.
            let _ = writeln!(io::stderr(), "{}: {percent} %, {rest}", self.label);
        }
    }

    /// The read is over.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
