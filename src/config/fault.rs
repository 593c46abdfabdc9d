//! What is wrong with a configuration: every fault with its place, so that one run shows them all.
//!
//! Pure data; touches nothing outside.

use std::fmt;

use super::keys::shown;
use crate::exit::Stop;

/// Where a value was written. The order is the order of the report: the file as a whole, its
/// lines from the top, then environment variables by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Nowhere in particular: the key is absent, or the file cannot be read.
    File,
    /// Counted from 1.
    Line(usize),
    Variable(String),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub place: Place,
    /// Dotted, such as `window.time`; empty where the fault is not about one key.
    pub key: String,
    /// What was found and what would be accepted. Never the value of a secret.
    pub sentence: String,
}

/// All that is wrong with one configuration; never empty. Displays as one line a fault, sorted by
/// line; faults of environment variables come last and name the variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    file: String,
    faults: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(file: &str, mut faults: Vec<Fault>) -> Self {
        debug_assert!(!faults.is_empty(), "a refusal that does not say why");
        // A key is whatever the file has there: also line ends, or a value with its secret.
        for fault in &mut faults {
            fault.key = shown(&fault.key);
        }
        // Stable: faults of one line keep the order in which the keys are read.
        faults.sort_by(|a, b| a.place.cmp(&b.place));
        Self {
            file: file.to_owned(),
            faults,
        }
    }

    /// The same faults, found elsewhere.
    pub(super) fn placed(self, elsewhere: impl Fn(Place) -> Place) -> Self {
        let faults = self.faults.into_iter().map(|fault| Fault {
            place: elsewhere(fault.place),
            ..fault
        });
        Self::new(&self.file, faults.collect())
    }

    /// One sentence a fault, each with its place, in the order of the file.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.faults.iter().map(|fault| {
            let place = match &fault.place {
                Place::File => self.file.clone(),
                Place::Line(line) => format!("{}:{line}", self.file),
                Place::Variable(name) => name.clone(),
            };
            match fault.key.as_str() {
                "" => format!("{place}: {}", fault.sentence),
                key => format!("{place}: {key}: {}", fault.sentence),
            }
        })
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, line) in self.lines().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl From<Faults> for Stop {
    /// A person must change the file or a variable: status 64.
    fn from(faults: Faults) -> Self {
        Stop::usage(faults.to_string())
    }
}
