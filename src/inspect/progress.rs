//! A bar on standard error while much is read, where that is a terminal; nothing elsewhere.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// A bar of so many steps of this kind.
    pub fn new(steps: u64, kind: &'static str) -> Self {
        if !io::stderr().is_terminal() || steps == 0 {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        let look = format!(
            "{{spinner}} [{{wide_bar}}] {{human_pos}}/{{human_len}} {kind}, {{per_sec}}, {{eta}} left, {{msg}}"
        );
        if let Ok(style) = ProgressStyle::with_template(&look) {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    /// Shows nothing.
    pub fn none() -> Self {
        Self(None)
    }

    /// What is read now.
    pub fn at(&self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what.to_owned());
        }
    }

    pub fn add(&self, steps: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(steps);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
