//! What an audit has found: counts for each input partition, the first differences, and what cannot
//! be known. Numbers and names; touches nothing.

use serde::Serialize;

/// What became of the records of one input partition. Extra records are counted at the partition of
/// the output in which they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    pub topic: String,
    pub partition: i32,
    /// The range that was audited: `[from, to)`.
    pub from: i64,
    pub to: i64,
    pub received: u64,
    pub forwarded: u64,
    pub duplicates: u64,
    pub rejected: u64,
    pub dropped: u64,
    /// Forwarded or a duplicate: nobody knows.
    pub unknown: u64,
    pub missing: u64,
    pub extra: u64,
    pub altered: u64,
    pub reordered: u64,
}

impl Row {
    pub fn differences(&self) -> u64 {
        self.missing + self.extra + self.altered + self.reordered
    }

    /// Adds the figures of another.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.forwarded += other.forwarded;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.dropped += other.dropped;
        self.unknown += other.unknown;
        self.missing += other.missing;
        self.extra += other.extra;
        self.altered += other.altered;
        self.reordered += other.reordered;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Missing,
    Extra,
    Altered,
    Reordered,
}

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// One way in which what is there is not what should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub kind: Kind,
    /// Which of the topics it is about.
    pub role: &'static str,
    /// The input record: that which should be there, or of an extra one that with the same id.
    pub input: Option<Place>,
    /// The record that is there; of a missing one its topic and partition only.
    pub output: Option<Place>,
    pub output_topic: String,
    /// What is altered.
    pub parts: Option<String>,
    /// The id, as far as it can be shown.
    pub id: Option<String>,
}

/// What cannot be known, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doubt {
    pub topic: String,
    pub partition: i32,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Passed,
    /// No difference, and something that cannot be known.
    PassedAsFarAsKnown,
    Failed,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Findings {
    pub rows: Vec<Row>,
    pub differences: Vec<Difference>,
    pub doubts: Vec<Doubt>,
    /// How many differences are described.
    show: usize,
}

impl Findings {
    pub fn new(show: usize) -> Self {
        Self {
            show,
            ..Self::default()
        }
    }

    /// Describes a difference, unless enough of them are. `describe` is not asked in vain.
    pub fn describe(&mut self, describe: impl FnOnce() -> Difference) {
        if self.differences.len() < self.show {
            self.differences.push(describe());
        }
    }

    pub fn doubt(&mut self, topic: &str, partition: i32, why: String) {
        self.doubts.push(Doubt {
            topic: topic.to_owned(),
            partition,
            why,
        });
    }

    pub fn total(&self) -> Row {
        let mut total = Row::default();
        self.rows.iter().for_each(|row| total.add(row));
        total
    }

    pub fn outcome(&self) -> Outcome {
        let total = self.total();
        if total.differences() > 0 {
            Outcome::Failed
        } else if self.doubts.is_empty() && total.unknown == 0 {
            Outcome::Passed
        } else {
            Outcome::PassedAsFarAsKnown
        }
    }
}
