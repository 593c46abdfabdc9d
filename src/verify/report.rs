//! Findings as a text for a person, or as JSON for a program. Writes nothing by itself.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::HumanCount;
use serde::Serialize;

use super::findings::{Difference, Doubt, Findings, Kind, Outcome, Place, Row};

pub struct Report<'a> {
    pub group: &'a str,
    pub findings: &'a Findings,
    pub elapsed: Duration,
}

#[derive(Serialize)]
struct Document<'a> {
    verdict: Outcome,
    group: &'a str,
    total: Figures,
    partitions: &'a [Row],
    /// The first of them.
    differences: &'a [Difference],
    cannot_know: &'a [Doubt],
    seconds: f64,
}

#[derive(Serialize)]
struct Figures {
    received: u64,
    forwarded: u64,
    duplicates: u64,
    rejected: u64,
    dropped: u64,
    unknown: u64,
    missing: u64,
    extra: u64,
    altered: u64,
    reordered: u64,
}

impl Report<'_> {
    /// One document, ending in a line end.
    pub fn json(&self) -> String {
        let total = self.findings.total();
        let document = Document {
            verdict: self.findings.outcome(),
            group: self.group,
            total: Figures {
                received: total.received,
                forwarded: total.forwarded,
                duplicates: total.duplicates,
                rejected: total.rejected,
                dropped: total.dropped,
                unknown: total.unknown,
                missing: total.missing,
                extra: total.extra,
                altered: total.altered,
                reordered: total.reordered,
            },
            partitions: &self.findings.rows,
            differences: &self.findings.differences,
            cannot_know: &self.findings.doubts,
            seconds: self.elapsed.as_secs_f64(),
        };
        // Strings, numbers and lists only: there is nothing that JSON cannot hold.
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        // A string takes everything.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Findings {
            rows,
            differences,
            doubts,
            ..
        } = self.findings;
        let total = self.findings.total();
        self.write_rows(out, rows, &total)?;
        if !differences.is_empty() {
            writeln!(
                out,
                "\nDifferences{}",
                shown(differences.len() as u64, total.differences())
            )?;
            for difference in differences {
                writeln!(out, "  {}", sentence(difference))?;
            }
        }
        if !doubts.is_empty() {
            out.push('\n');
        }
        for doubt in doubts {
            let Doubt {
                topic,
                partition,
                why,
            } = doubt;
            writeln!(out, "cannot know: {topic}-{partition}: {why}")?;
        }
        let seconds = self.elapsed.as_secs_f64();
        writeln!(out, "\n{} ({seconds:.1} s)", self.verdict(&total))
    }

    fn write_rows(&self, out: &mut String, rows: &[Row], total: &Row) -> std::fmt::Result {
        let names = [
            "offsets",
            "received",
            "forwarded",
            "duplicates",
            "rejected",
            "dropped",
            "unknown",
            "missing",
            "extra",
            "altered",
            "reordered",
        ];
        let count = |number: u64| HumanCount(number).to_string();
        let figures = |row: &Row| {
            [
                row.received,
                row.forwarded,
                row.duplicates,
                row.rejected,
                row.dropped,
                row.unknown,
                row.missing,
                row.extra,
                row.altered,
                row.reordered,
            ]
            .map(count)
        };
        let line = |name: String, offsets: String, row: &Row| {
            let mut cells = vec![name, offsets];
            cells.extend(figures(row));
            cells
        };
        let mut lines = vec![
            ["partition"]
                .into_iter()
                .chain(names)
                .map(str::to_owned)
                .collect(),
        ];
        for row in rows {
            let (from, to) = (row.from, row.to);
            lines.push(line(
                format!("{}-{}", row.topic, row.partition),
                format!("{from}-{to}"),
                row,
            ));
        }
        if rows.len() > 1 {
            lines.push(line("total".to_owned(), String::new(), total));
        }
        let width = |column: usize| {
            let cells = lines
                .iter()
                .map(|line: &Vec<String>| line[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..=names.len()).map(width).collect();
        for line in &lines {
            let mut text = format!("{:<width$}", line[0], width = widths[0]);
            for (cell, width) in line.iter().zip(&widths).skip(1) {
                write!(text, "  {cell:>width$}")?;
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }

    fn verdict(&self, total: &Row) -> String {
        match self.findings.outcome() {
            Outcome::Passed => "passed: the output is what it must be, record by record".to_owned(),
            Outcome::PassedAsFarAsKnown => {
                "passed as far as can be known: no difference, and see \"cannot know\" above"
                    .to_owned()
            }
            Outcome::Failed => format!("FAILED: {}", differences(total.differences())),
        }
    }
}

/// A count in words.
pub fn differences(count: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} difference{plural}", HumanCount(count))
}

fn shown(shown: u64, all: u64) -> String {
    match shown < all {
        true => format!(", the first {shown} of {}", HumanCount(all)),
        false => String::new(),
    }
}

fn sentence(difference: &Difference) -> String {
    let at = |place: &Option<Place>| {
        place.as_ref().map_or(String::new(), |place| {
            format!(
                "{}-{} offset {}",
                place.topic, place.partition, place.offset
            )
        })
    };
    let (input, output) = (at(&difference.input), at(&difference.output));
    let id = difference
        .id
        .as_ref()
        .map_or(String::new(), |id| format!(", id {id}"));
    match difference.kind {
        Kind::Missing => format!("missing: {input} is not in {}{id}", difference.output_topic),
        Kind::Extra if input.is_empty() => {
            format!("extra: {output}{id}: its id is not in the window")
        }
        Kind::Extra => format!("extra: {output}{id}: its id was first seen at {input}"),
        Kind::Altered => format!(
            "altered: {output} is {input} with another {}{id}",
            difference.parts.as_deref().unwrap_or_default()
        ),
        Kind::Reordered => format!("reordered: {output} is {input}, not in its place{id}"),
    }
}
