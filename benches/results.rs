//! Figures, as a table for people and as JSON lines for [`crate::document`].

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::measure::Samples;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Small,
    Heavy,
}

impl Size {
    pub fn pick<T>(self, small: T, heavy: T) -> T {
        match self {
            Self::Small => small,
            Self::Heavy => heavy,
        }
    }
}

/// `count`, or what `KAFKA_DEDUP_BENCH_MOST_IDS` allows: for machines with less memory or patience.
pub fn allowed(count: u64) -> u64 {
    std::env::var("KAFKA_DEDUP_BENCH_MOST_IDS")
        .ok()
        .and_then(|most| most.parse().ok())
        .map_or(count, |most: u64| count.min(most))
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Reach {
    AtMost(f64),
    AtLeast(f64),
}

impl Reach {
    pub fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// When the run of the question began, in seconds since 1970: what belongs together.
    pub run: u64,
    pub heavy: bool,
    pub optimized: bool,
    pub question: String,
    /// What was measured of, such as "10 M ids".
    pub case: String,
    /// Of what, such as "ns a check".
    pub unit: String,
    pub side: String,
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub rounds: usize,
    pub reach: Option<Reach>,
    pub note: String,
}

pub const OURS: &str = "kafka-dedup";

struct Begun {
    question: &'static str,
    run: u64,
    size: Size,
}

static BEGUN: Mutex<Option<Begun>> = Mutex::new(None);

pub fn begin(question: &'static str, size: Size) {
    let run = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    println!("\n{question}");
    *BEGUN.lock().expect("no panic") = Some(Begun {
        question,
        run,
        size,
    });
}

pub fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench-results")
}

/// A place for files, removed when dropped.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// One case: sides that were measured in turns. The first is ours, and the ratios are to it.
pub struct Case {
    name: String,
    unit: &'static str,
    sides: Vec<(String, Samples, Option<Reach>, String)>,
}

impl Case {
    pub fn new(name: impl Into<String>, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            unit,
            sides: Vec::new(),
        }
    }

    #[must_use]
    pub fn side(self, name: &str, samples: Samples) -> Self {
        self.side_with(name, samples, None, "")
    }

    #[must_use]
    pub fn side_with(
        mut self,
        name: &str,
        samples: Samples,
        reach: Option<Reach>,
        note: &str,
    ) -> Self {
        self.sides
            .push((name.to_owned(), samples, reach, note.to_owned()));
        self
    }

    /// Prints it, and adds it to the results.
    pub fn tell(self) {
        let begun = BEGUN.lock().expect("no panic");
        let begun = begun.as_ref().expect("a question was begun");
        fs::create_dir_all(dir()).expect("a directory for results");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir().join(format!("{}.jsonl", begun.question)))
            .expect("a file for results");
        println!("  {} ({})", self.name, self.unit);
        let ours = self.sides.first().map_or(f64::NAN, |side| side.1.median());
        for (side, samples, reach, note) in self.sides {
            let figure = Figure {
                run: begun.run,
                heavy: begun.size == Size::Heavy,
                optimized: !cfg!(debug_assertions),
                question: begun.question.to_owned(),
                case: self.name.clone(),
                unit: self.unit.to_owned(),
                median: samples.median(),
                least: samples.least(),
                most: samples.most(),
                rounds: samples.0.len(),
                side,
                reach,
                note,
            };
            println!(
                "    {:<22} {:>14} [{} .. {}]  x{:<8} {} {}",
                figure.side,
                number(figure.median),
                number(figure.least),
                number(figure.most),
                number(figure.median / ours),
                judgement(&figure),
                figure.note
            );
            let line = serde_json::to_string(&figure).expect("plain values");
            writeln!(file, "{line}").expect("results are written");
        }
    }
}

fn judgement(figure: &Figure) -> String {
    match figure.reach {
        None => String::new(),
        Some(reach) => {
            let (sign, bound) = match reach {
                Reach::AtMost(most) => ("<=", most),
                Reach::AtLeast(least) => (">=", least),
            };
            let met = if reach.is_met(figure.median) {
                "met"
            } else {
                "missed"
            };
            format!("{sign} {}: {met}", number(bound))
        }
    }
}

/// Three digits that count, and thin separators in large numbers.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    let digits = match magnitude {
        _ if magnitude >= 100.0 || magnitude == 0.0 => 0,
        _ if magnitude >= 10.0 => 1,
        _ if magnitude >= 1.0 => 2,
        _ => 3,
    };
    let plain = format!("{value:.digits$}");
    if digits > 0 || magnitude < 10_000.0 || !value.is_finite() {
        return plain;
    }
    let mut out = String::new();
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count of ids, such as "10 M ids".
pub fn ids(count: u64) -> String {
    match count {
        millions if millions % 1_000_000 == 0 => format!("{} M ids", millions / 1_000_000),
        thousands => format!("{} k ids", thousands / 1000),
    }
}

/// The figures of the last run of each case of each question, heavy ones before small ones: what takes hours can be
/// measured in pieces.
pub fn last_runs() -> BTreeMap<String, Vec<Figure>> {
    let mut found: BTreeMap<String, Vec<Figure>> = BTreeMap::new();
    for entry in fs::read_dir(dir()).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        for line in text.lines() {
            let figure: Figure = serde_json::from_str(line).expect("a line of results");
            found
                .entry(figure.question.clone())
                .or_default()
                .push(figure);
        }
    }
    for figures in found.values_mut() {
        let rank = |figure: &Figure| (figure.heavy, figure.optimized, figure.run);
        let mut last = HashMap::new();
        for figure in &*figures {
            let last = last.entry(figure.case.clone()).or_insert(rank(figure));
            *last = rank(figure).max(*last);
        }
        figures.retain(|figure| last[&figure.case] == rank(figure));
    }
    found
}
