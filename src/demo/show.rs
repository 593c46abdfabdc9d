//! What the demo shows: a bar on a terminal, a line every few seconds elsewhere, a table at the end.
//!
//! Progress goes to standard error, the table to standard output.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(3);
/// Over how long a rate is taken on a terminal.
const RATE_OVER: Duration = Duration::from_secs(1);

/// A moment of the demo.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub sent: u64,
    /// Verdicts committed.
    pub judged: u64,
    pub kills: u32,
    pub service_up: bool,
}

/// The progress display.
#[derive(Debug)]
pub struct Show {
    bar: Option<ProgressBar>,
    total: u64,
    /// When the rate was taken last, with how many verdicts, and what it was.
    rated: (Instant, u64, f64),
}

impl Show {
    /// A display for `total` records, with nothing shown yet.
    pub fn new(total: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let look = "{spinner} [{wide_bar}] {human_pos}/{human_len} judged, {msg}";
            if let Ok(style) = ProgressStyle::with_template(look) {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            total,
            rated: (Instant::now(), 0, 0.0),
        }
    }

    /// One line that stays.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => tell(line),
        }
    }

    /// The state of things now.
    pub fn update(&mut self, now: &Moment) {
        let every = if self.bar.is_some() {
            RATE_OVER
        } else {
            LINE_EVERY
        };
        let (since, judged_then, _) = self.rated;
        let due = since.elapsed() >= every;
        if due {
            let judged = now.judged.saturating_sub(judged_then) as f64;
            let rate = judged / since.elapsed().as_secs_f64();
            self.rated = (Instant::now(), now.judged, rate);
        }
        let (_, _, rate) = self.rated;
        let backlog = now.sent.saturating_sub(now.judged);
        let service = if now.service_up { "up" } else { "KILLED" };
        let rest = format!(
            "{rate:.0}/s, backlog {backlog}, kills {}, service {service}",
            now.kills
        );
        if let Some(bar) = &self.bar {
            bar.set_position(now.judged);
            bar.set_message(rest);
        } else if due {
            tell(&format!("{}/{} judged, {rest}", now.judged, self.total));
        }
    }

    /// Takes the bar away; lines that were said stay.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        self.clear();
    }
}

fn tell(line: &str) {
    // Nobody reading is no reason to stop.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints the table, a name and a value a row.
pub fn table(rows: &[(&str, String)]) {
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let names = width(&mut rows.iter().map(|(name, _)| name.chars().count()));
    let values = width(&mut rows.iter().map(|(_, value)| value.chars().count()));
    let mut out = io::stdout().lock();
    for (name, value) in rows {
        let _ = writeln!(out, "  {name:<names$}  {value:>values$}");
    }
}
