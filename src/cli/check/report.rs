//! What `check` finds: a heading for each subject, a mark in a column, a sentence beside it; or all of it
//! as one JSON document.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::cli::colours;
use crate::exit::Stop;

/// Prints as it goes, unless it is to be JSON, and keeps all.
pub struct Report {
    /// `None` where it is JSON, which is printed at the end.
    out: Option<Box<dyn Write>>,
    colours: bool,
    subject: String,
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Finding {
    subject: String,
    mark: Mark,
    sentence: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    /// As it should be.
    Ok,
    /// Works, but a person should know.
    Warn,
    /// `run` would not work.
    Fail,
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    /// Whether `run` would work, as far as was asked; `null` where the check did not come to its end.
    works: Option<bool>,
    warnings: usize,
    failures: usize,
    /// The last line on standard error, where the exit status is not 0.
    error: Option<&'a str>,
    findings: &'a [Finding],
    /// Every value in effect, as YAML.
    config: &'a str,
}

impl Report {
    /// To standard output, in colours where they are wanted there.
    pub fn to_stdout() -> Self {
        let colours = colours::wanted_on(&io::stdout());
        Self {
            out: Some(Box::new(io::stdout())),
            colours,
            ..Self::as_json()
        }
    }

    /// One document on standard output, at the end.
    pub fn as_json() -> Self {
        Self {
            out: None,
            colours: false,
            subject: String::new(),
            findings: Vec::new(),
        }
    }

    /// The sentence of each mark that stands in the way.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        let stands = |finding: &&Finding| finding.mark == Mark::Fail;
        self.findings
            .iter()
            .filter(stands)
            .map(|finding| finding.sentence.as_str())
    }

    pub fn warnings(&self) -> usize {
        let warns = |finding: &&Finding| finding.mark == Mark::Warn;
        self.findings.iter().filter(warns).count()
    }

    /// A new subject.
    pub fn heading(&mut self, subject: &str) {
        subject.clone_into(&mut self.subject);
        let (bold, plain) = if self.colours {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        self.print(format_args!("\n{bold}{subject}{plain}"));
    }

    pub fn ok(&mut self, sentence: &str) {
        self.mark(Mark::Ok, sentence);
    }

    pub fn warn(&mut self, sentence: &str) {
        self.mark(Mark::Warn, sentence);
    }

    pub fn fail(&mut self, sentence: &str) {
        self.mark(Mark::Fail, sentence);
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
        if let Some(out) = &mut self.out {
            // As in `print`.
            let _ = out.flush();
        }
    }

    /// Prints the document, where it is one.
    ///
    /// # Errors
    /// [`Stop::internal`] where it is no JSON.
    pub fn finish(&self, config: &str, outcome: &Result<(), Stop>) -> Result<(), Stop> {
        if self.out.is_some() {
            return Ok(());
        }
        let failures = self.failures().count();
        let document = Document {
            works: match outcome {
                Ok(()) => Some(true),
                Err(_) if failures > 0 => Some(false),
                Err(_) => None,
            },
            warnings: self.warnings(),
            failures,
            error: outcome.as_ref().err().map(|stop| stop.sentence.as_str()),
            findings: &self.findings,
            config,
        };
        let text = serde_json::to_string_pretty(&document)
            .map_err(|error| Stop::internal(format!("the report is no JSON: {error}")))?;
        // As in `print`.
        let _ = writeln!(io::stdout(), "{text}");
        Ok(())
    }

    fn mark(&mut self, mark: Mark, sentence: &str) {
        let (word, colour) = match mark {
            Mark::Ok => ("ok  ", "32"),
            Mark::Warn => ("warn", "33"),
            Mark::Fail => ("FAIL", "31"),
        };
        if self.colours {
            self.print(format_args!("  \x1b[{colour}m{word}\x1b[0m  {sentence}"));
        } else {
            self.print(format_args!("  {word}  {sentence}"));
        }
        self.findings.push(Finding {
            subject: self.subject.clone(),
            mark,
            sentence: sentence.to_owned(),
        });
    }

    fn print(&mut self, line: std::fmt::Arguments<'_>) {
        if let Some(out) = &mut self.out {
            // A reader that went away (`check | head`) is no fault of the deployment.
            let _ = writeln!(out, "{line}");
        }
    }
}

/// `1 node`, `3 nodes`.
pub fn count<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
