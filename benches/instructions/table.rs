//! The table of docs/benchmarks.md, which is the reference, and what is said of counts beside it.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use crate::callgrind::Count;

/// In parts of the count. Two builds of the same sources count the same within a tenth of this.
const TOLERANCE: f64 = 0.03;
const BEGIN: &str = "<!-- instructions: begin -->\n";
const END: &str = "<!-- instructions: end -->";

/// Stretches with the instructions that each takes a record, an id or a transaction.
#[derive(Debug)]
pub struct Table(Vec<(String, f64)>);

impl Table {
    pub fn of(counts: &[Count]) -> Self {
        let each = |count: &Count| count.instructions as f64 / count.times as f64;
        Self(
            counts
                .iter()
                .map(|it| (it.stretch.clone(), each(it)))
                .collect(),
        )
    }

    pub fn read() -> Self {
        let text = fs::read_to_string(page()).expect("docs/benchmarks.md");
        let (from, to) = place(&text);
        let row = |line: &str| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let (stretch, instructions) = (cells.next()?, cells.next()?);
            Some((stretch.to_owned(), instructions.parse().ok()?))
        };
        Self(text[from..to].lines().filter_map(row).collect())
    }

    pub fn write(&self) {
        let mut text = fs::read_to_string(page()).expect("docs/benchmarks.md");
        let (from, to) = place(&text);
        let mut table = "| | instructions |\n|---|---:|\n".to_owned();
        for (stretch, instructions) in &self.0 {
            table += &format!("| {stretch} | {instructions:.1} |\n");
        }
        print!("{table}");
        text.replace_range(from..to, &table);
        fs::write(page(), text).expect("docs/benchmarks.md is written");
    }
}

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md")
}

/// Where the table is in the page.
fn place(text: &str) -> (usize, usize) {
    let from = text.find(BEGIN).expect("a place for the counts") + BEGIN.len();
    let length = text[from..].find(END).expect("its end");
    (from, from + length)
}

/// A stretch beside the reference.
pub struct Judgement<'a> {
    stretch: &'a str,
    /// `None` where one of the two does not have it.
    counted: Option<f64>,
    reference: Option<f64>,
}

impl Judgement<'_> {
    /// More than 1 where more instructions are needed than before.
    fn ratio(&self) -> Option<f64> {
        Some(self.counted? / self.reference?)
    }

    /// Also a stretch that is new or gone, until the table says so.
    pub fn is_loss(&self) -> bool {
        self.ratio().is_none_or(|ratio| ratio > 1.0 + TOLERANCE)
    }
}

impl fmt::Display for Judgement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stretch, ratio) = (self.stretch, self.ratio());
        match (self.counted, self.reference, ratio) {
            (Some(counted), Some(reference), Some(ratio)) => {
                let percent = 100.0 * (ratio - 1.0);
                write!(
                    f,
                    "{stretch}: {counted:.1}, was {reference:.1} ({percent:+.1} %)"
                )?;
                match ratio {
                    _ if self.is_loss() => write!(f, ": A LOSS"),
                    gain if gain < 1.0 - TOLERANCE => {
                        write!(f, ": a gain, to be written down: make instructions-write")
                    }
                    _ => Ok(()),
                }
            }
            (Some(counted), ..) => write!(f, "{stretch}: {counted:.1}, NOT IN THE TABLE"),
            _ => write!(f, "{stretch}: NOT COUNTED ANY MORE"),
        }
    }
}

/// All that is counted or in the reference.
pub fn judged<'a>(counted: &'a Table, reference: &'a Table) -> impl Iterator<Item = Judgement<'a>> {
    let of = |table: &Table, stretch: &str| {
        let mut rows = table.0.iter();
        rows.find(|(it, _)| it == stretch).map(|(_, each)| *each)
    };
    let counted_rows = counted.0.iter().map(move |(stretch, each)| Judgement {
        stretch,
        counted: Some(*each),
        reference: of(reference, stretch),
    });
    let gone = reference.0.iter().filter_map(move |(stretch, each)| {
        of(counted, stretch).is_none().then_some(Judgement {
            stretch,
            counted: None,
            reference: Some(*each),
        })
    });
    counted_rows.chain(gone)
}
