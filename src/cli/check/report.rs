//! What `check` prints: a heading for each subject, a mark in a column, a sentence beside it.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Prints as it goes, and counts.
pub struct Report {
    out: Box<dyn Write>,
    colours: bool,
    /// The sentence of each mark that stands in the way.
    pub failures: Vec<String>,
    pub warnings: usize,
}

impl Report {
    /// To standard output; colours only on a terminal, and not where `NO_COLOR` is set.
    pub fn to_stdout() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colours = io::stdout().is_terminal() && !no_colour;
        Self::new(Box::new(io::stdout()), colours)
    }

    pub fn new(out: Box<dyn Write>, colours: bool) -> Self {
        Self {
            out,
            colours,
            failures: Vec::new(),
            warnings: 0,
        }
    }

    /// A new subject.
    pub fn heading(&mut self, subject: &str) {
        let (bold, plain) = if self.colours {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        self.print(format_args!("\n{bold}{subject}{plain}"));
    }

    /// As it should be.
    pub fn ok(&mut self, sentence: &str) {
        self.mark("ok  ", "32", sentence);
    }

    /// Works, but a person should know.
    pub fn warn(&mut self, sentence: &str) {
        self.warnings += 1;
        self.mark("warn", "33", sentence);
    }

    /// `run` would not work.
    pub fn fail(&mut self, sentence: &str) {
        self.failures.push(sentence.to_owned());
        self.mark("FAIL", "31", sentence);
    }

    /// Text without a mark, indented like a sentence.
    pub fn text(&mut self, text: &str) {
        for line in text.lines() {
            self.print(format_args!("        {line}"));
        }
    }

    /// The last line.
    pub fn end(&mut self, sentence: &str) {
        self.print(format_args!("\n{sentence}"));
        // As in `print`.
        let _ = self.out.flush();
    }

    fn mark(&mut self, mark: &str, colour: &str, sentence: &str) {
        if self.colours {
            self.print(format_args!("  \x1b[{colour}m{mark}\x1b[0m  {sentence}"));
        } else {
            self.print(format_args!("  {mark}  {sentence}"));
        }
    }

    fn print(&mut self, line: std::fmt::Arguments<'_>) {
        // A reader that went away (`check | head`) is no fault of the deployment.
        let _ = writeln!(self.out, "{line}");
    }
}

/// `1 node`, `3 nodes`.
pub fn count<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
