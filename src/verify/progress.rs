//! A bar on standard error, by offsets read, where that is a terminal; nothing elsewhere.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Offsets between two updates.
const UPDATE_EVERY: u64 = 4096;

pub struct Progress {
    bar: Option<ProgressBar>,
    behind: u64,
}

impl Progress {
    /// A bar of so many offsets; input beyond the committed offsets may come on top.
    pub fn new(offsets: u64) -> Self {
        let bar = (io::stderr().is_terminal() && offsets > 0).then(|| {
            let bar = ProgressBar::with_draw_target(Some(offsets), ProgressDrawTarget::stderr());
            let look =
                "{spinner} [{wide_bar}] {percent} % of {human_len} offsets, {per_sec}, {eta} left, {msg}";
            if let Ok(style) = ProgressStyle::with_template(look) {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, behind: 0 }
    }

    /// What is read now.
    pub fn at(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    pub fn add(&mut self, offsets: i64) {
        let Some(bar) = &self.bar else { return };
        self.behind += offsets.max(0).unsigned_abs();
        if self.behind >= UPDATE_EVERY {
            bar.inc(std::mem::take(&mut self.behind));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
