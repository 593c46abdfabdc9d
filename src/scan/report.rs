//! What a scan found, as text for a person or as JSON for a program. Pure: it writes strings.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::ages::{Edges, shown};
use super::passes::{Findings, Outcome};
use super::ranges::Range;

/// A window that catches so many hundredths of the duplicates is recommended.
const ENOUGH_PERCENT: f64 = 99.0;
/// More partitions than that are not listed one by one in text.
const LISTED: usize = 32;
/// An id is shown up to here, in characters.
const ID_CHARS: usize = 60;
const BAR_CHARS: u64 = 24;
/// Sentences are folded to it.
const LINE_CHARS: usize = 100;

/// Everything there is to say.
pub struct Report<'a> {
    pub topic: &'a str,
    pub ranges: &'a [Range],
    pub findings: &'a Findings,
    pub edges: &'a Edges,
    /// The window of the configuration file, where there is one.
    pub window_ms: Option<i64>,
    /// The ids of the most repeated, as far as they could be read again.
    pub ids: &'a [Option<Vec<u8>>],
    pub memory_bytes: u64,
    pub elapsed: Duration,
    /// `--max-records` ended the ranges.
    pub cut: bool,
}

impl Report<'_> {
    /// For a terminal or a file, ending in a line end.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (found, total) = (self.findings, self.findings.total());
        let partitions = plural(self.ranges.len() as u64, "partition");
        let reads = plural(found.reads.into(), "read");
        let seconds = self.elapsed.as_secs_f64();
        writeln!(
            out,
            "{}: {partitions}, {reads} in {seconds:.1} s",
            self.topic
        )?;
        if let Some(partial) = self.partial() {
            paragraph(out, &format!("PARTIAL: {partial}"))?;
        }
        let mut rows = vec![
            (
                "records",
                HumanCount(total.records).to_string(),
                String::new(),
            ),
            (
                "without an id",
                HumanCount(total.no_id).to_string(),
                String::new(),
            ),
        ];
        if total.unparsable > 0 {
            let count = HumanCount(total.unparsable).to_string();
            rows.push(("with a value that cannot be parsed", count, String::new()));
        }
        if !self.nothing_counted() {
            let of_ids = |part| format!("{} of the records with an id", percent(part, found.ids));
            rows.extend([
                (
                    "distinct ids",
                    HumanCount(found.distinct()).to_string(),
                    String::new(),
                ),
                (
                    "duplicates within a partition",
                    HumanCount(total.duplicates).to_string(),
                    of_ids(total.duplicates),
                ),
                (
                    "the same id in another partition",
                    HumanCount(found.elsewhere).to_string(),
                    of_ids(found.elsewhere),
                ),
            ]);
        }
        out.push('\n');
        table(out, &rows)?;
        self.write_ages(out)?;
        self.write_most(out)?;
        self.write_partitions(out)?;
        let notes = self.notes();
        if !notes.is_empty() {
            out.push('\n');
        }
        for note in notes {
            paragraph(out, &format!("Note: {note}"))?;
        }
        Ok(())
    }

    fn write_ages(&self, out: &mut String) -> std::fmt::Result {
        let ages = &self.findings.ages;
        let Some(last) = ages.since_last.iter().rposition(|count| *count > 0) else {
            return match self.partial() {
                None => writeln!(out, "\n{}", self.no_duplicates()),
                Some(_) => Ok(()),
            };
        };
        writeln!(
            out,
            "\nAge of the duplicates: time since the id was last seen in the partition"
        )?;
        let most = ages.since_last.iter().copied().max().unwrap_or(1).max(1);
        let mut rows = vec![["up to", "duplicates", "share", "", "so far"].map(str::to_owned)];
        let mut so_far = 0;
        for (bucket, count) in ages.since_last.iter().enumerate().take(last + 1) {
            so_far += count;
            rows.push([
                self.edges
                    .upper_ms()
                    .get(bucket)
                    .map_or("more".to_owned(), |edge| shown(*edge)),
                HumanCount(*count).to_string(),
                percent(*count, ages.total()),
                bar(*count, most),
                percent(so_far, ages.total()),
            ]);
        }
        columns(out, &rows, &[false, true, true, false, true])?;
        out.push('\n');
        paragraph(out, &self.verdict())
    }

    fn no_duplicates(&self) -> &'static str {
        match (self.findings.total().records, self.findings.ids) {
            (0, _) => "There are no records.",
            (_, 0) => "No record has an id: is it somewhere else than --id or id.from says?",
            _ => "No id occurs twice in one partition: there is nothing to remove.",
        }
    }

    /// The sentence that matters.
    fn verdict(&self) -> String {
        let ages = &self.findings.ages;
        let total = ages.total();
        let windows: Vec<(i64, (u64, u64))> = self
            .edges
            .upper_ms()
            .iter()
            .copied()
            .zip(ages.caught())
            .collect();
        let catches = |(edge_ms, (least, most)): &(i64, (u64, u64))| {
            let (window, at_least, at_most) = (
                shown(*edge_ms),
                percent(*least, total),
                percent(*most, total),
            );
            if at_least == at_most {
                format!("window of {window} would catch {at_least} of them")
            } else {
                format!(
                    "window of {window} would catch at least {at_least} of them ({at_most} with window.refresh)"
                )
            }
        };
        let enough = |(_, (least, _)): &&(i64, (u64, u64))| ratio(*least, total) >= ENOUGH_PERCENT;
        let mut sentences = Vec::new();
        match (windows.iter().find(enough), windows.last()) {
            (Some(window), _) => sentences.push(format!("A {}.", catches(window))),
            (None, Some(longest)) => sentences.push(format!(
                "No window up to {} would catch {ENOUGH_PERCENT} % of them; a {}.",
                shown(longest.0),
                catches(longest)
            )),
            (None, None) => {}
        }
        let configured = windows
            .iter()
            .find(|(edge_ms, _)| Some(*edge_ms) == self.window_ms);
        if let Some(window) = configured {
            sentences.push(format!("The configured {}.", catches(window)));
        }
        sentences.join(" ")
    }

    fn write_most(&self, out: &mut String) -> std::fmt::Result {
        if self.findings.most.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nIds with the most records, and where each is first")?;
        let mut rows = vec![["records", "partition", "offset", "id"].map(str::to_owned)];
        for (repeated, id) in self.findings.most.iter().zip(self.ids) {
            let also = match repeated.partitions {
                1 => String::new(),
                more => format!("  (in {more} partitions)"),
            };
            let id = id
                .as_deref()
                .map_or("(not read again)".to_owned(), printable);
            rows.push([
                HumanCount(repeated.count).to_string(),
                self.ranges
                    .get(repeated.partition)
                    .map_or(String::new(), |range| range.partition.to_string()),
                repeated.offset.to_string(),
                format!("{id}{also}"),
            ]);
        }
        columns(out, &rows, &[true, true, true, false])
    }

    fn write_partitions(&self, out: &mut String) -> std::fmt::Result {
        if self.ranges.len() < 2 || self.ranges.len() > LISTED || self.nothing_counted() {
            return Ok(());
        }
        let header = [
            "partition",
            "offsets",
            "records",
            "without an id",
            "duplicates",
            "",
        ];
        let mut rows = vec![header.map(str::to_owned)];
        for (range, counts) in self.ranges.iter().zip(&self.findings.partitions) {
            let with_id = counts.records - counts.no_id - counts.unparsable;
            // Of a share of the ids, per partition, nobody counted how many records there are.
            let share = match self.findings.outcome {
                Outcome::Complete => percent(counts.duplicates, with_id),
                _ => String::new(),
            };
            rows.push([
                range.partition.to_string(),
                format!("{}-{}", range.start, range.end),
                HumanCount(counts.records).to_string(),
                HumanCount(counts.no_id + counts.unparsable).to_string(),
                HumanCount(counts.duplicates).to_string(),
                share,
            ]);
        }
        out.push('\n');
        columns(out, &rows, &[true, true, true, true, true, true])
    }

    /// Why the figures are not those of the whole range; `None` where they are.
    fn partial(&self) -> Option<String> {
        match self.findings.outcome {
            Outcome::Complete => None,
            Outcome::ReadsUsedUp => Some(format!(
                "{} reads with {} of memory were enough for {} of the ids, chosen by a hash; the \
                 figures are exact for these, and a lower bound for the topic. Give more --memory, or \
                 more --reads",
                self.findings.reads,
                HumanBytes(self.memory_bytes),
                percent_of(100.0 * self.findings.share),
            )),
            Outcome::InterruptedInFilter { suspects } => Some(format!(
                "stopped before anything was counted; of the records read so far, at most {} repeat \
                 an id",
                HumanCount(suspects)
            )),
            Outcome::InterruptedInCount => Some(
                "stopped while counting; the figures are those of the records read so far"
                    .to_owned(),
            ),
        }
    }

    /// Nothing is known but how many records there are.
    fn nothing_counted(&self) -> bool {
        self.findings.ids == 0 && self.partial().is_some()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.findings.elsewhere > 0 {
            notes.push(
                "what has the same id in another partition is not seen by scope: partition. Producers \
                 have to send records with the same id to the same partition, for instance by a key \
                 that follows from the id; or scope: topic sees them, with one reader for all partitions, or scope: repartition, in two hops"
                    .to_owned(),
            );
        }
        if self.cut {
            notes.push("--max-records ended the scan before the end of the topic".to_owned());
        }
        let open: i64 = self.ranges.iter().map(|range| range.open).sum();
        if open > 0 {
            notes.push(format!(
                "{} at the end of the topic are behind a transaction that was open, and were left out",
                plural(open.unsigned_abs(), "offset")
            ));
        }
        if self.findings.vanished > 0 {
            notes.push(format!(
                "{} went away between two reads (retention or compaction): duplicates among them are \
                 not counted",
                plural(self.findings.vanished, "record")
            ));
        }
        notes
    }

    /// One document, ending in a line end.
    pub fn json(&self) -> String {
        let (found, total) = (self.findings, self.findings.total());
        let ages = &found.ages;
        let at_most = match found.outcome {
            Outcome::InterruptedInFilter { suspects } => Some(suspects),
            _ => None,
        };
        let document = Document {
            topic: self.topic,
            complete: found.outcome == Outcome::Complete,
            partial: self.partial(),
            counted_share: found.share,
            reads: found.reads,
            seconds: self.elapsed.as_secs_f64(),
            records: total.records,
            without_id: total.no_id,
            unparsable: total.unparsable,
            counted_ids: found.ids,
            distinct_ids: found.distinct(),
            duplicates: total.duplicates,
            duplicates_percent: ratio(total.duplicates, found.ids),
            across_partitions: found.elsewhere,
            across_partitions_percent: ratio(found.elsewhere, found.ids),
            repetitions_at_most: at_most,
            false_candidates: found.mistaken,
            ages: (ages.since_last.iter().zip(ages.caught()).enumerate())
                .map(|(bucket, (count, (least, most)))| Age {
                    up_to_ms: self.edges.upper_ms().get(bucket).copied(),
                    duplicates: *count,
                    caught_percent: ratio(least, ages.total()),
                    caught_percent_with_refresh: ratio(most, ages.total()),
                })
                .collect(),
            most_repeated: (found.most.iter().zip(self.ids))
                .map(|(repeated, id)| Most {
                    records: repeated.count,
                    partition: self
                        .ranges
                        .get(repeated.partition)
                        .map(|range| range.partition),
                    offset: repeated.offset,
                    partitions: repeated.partitions,
                    id: id.as_deref().map(printable),
                })
                .collect(),
            partitions: (self.ranges.iter().zip(&found.partitions))
                .map(|(range, counts)| Partition {
                    partition: range.partition,
                    start: range.start,
                    end: range.end,
                    records: counts.records,
                    without_id: counts.no_id,
                    unparsable: counts.unparsable,
                    duplicates: counts.duplicates,
                })
                .collect(),
            notes: self.notes(),
        };
        // Strings, numbers and lists only: there is nothing that JSON cannot hold.
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    }
}

#[derive(Serialize)]
struct Document<'a> {
    topic: &'a str,
    complete: bool,
    partial: Option<String>,
    counted_share: f64,
    reads: u32,
    seconds: f64,
    records: u64,
    without_id: u64,
    unparsable: u64,
    counted_ids: u64,
    distinct_ids: u64,
    duplicates: u64,
    duplicates_percent: f64,
    across_partitions: u64,
    across_partitions_percent: f64,
    /// Known where a scan was interrupted before anything was counted.
    repetitions_at_most: Option<u64>,
    /// Ids that the first pass took for repetitions, and the second found to occur once.
    false_candidates: u64,
    ages: Vec<Age>,
    most_repeated: Vec<Most>,
    partitions: Vec<Partition>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Age {
    /// `null`: older than all windows.
    up_to_ms: Option<i64>,
    duplicates: u64,
    caught_percent: f64,
    caught_percent_with_refresh: f64,
}

#[derive(Serialize)]
struct Most {
    records: u64,
    partition: Option<i32>,
    offset: i64,
    partitions: usize,
    id: Option<String>,
}

#[derive(Serialize)]
struct Partition {
    partition: i32,
    start: i64,
    end: i64,
    records: u64,
    without_id: u64,
    unparsable: u64,
    duplicates: u64,
}

/// In hundredths; 0 of nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => 100.0 * part as f64 / whole as f64,
    }
}

fn percent(part: u64, whole: u64) -> String {
    percent_of(ratio(part, whole))
}

/// Rounded down: what is not all is never called 100 %.
fn percent_of(percent: f64) -> String {
    if percent > 0.0 && percent < 0.1 {
        return "<0.1 %".to_owned();
    }
    // The least above any error of the division.
    format!("{:.1} %", (percent * 10.0 + 1e-9).floor() / 10.0)
}

fn plural(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", HumanCount(count))
}

/// Sentences, on as many lines as they need.
fn paragraph(out: &mut String, text: &str) -> std::fmt::Result {
    let mut line = 0;
    for word in text.split(' ') {
        let width = word.chars().count();
        let between = match line {
            0 => "",
            _ if line + 1 + width > LINE_CHARS => "\n",
            _ => " ",
        };
        line = if between == " " { line + 1 } else { 0 } + width;
        write!(out, "{between}{word}")?;
    }
    writeln!(out)
}

/// Something, however little, is at least one mark.
fn bar(count: u64, most: u64) -> String {
    let length = (count.saturating_mul(BAR_CHARS) / most).max(u64::from(count > 0));
    "█".repeat(usize::try_from(length).unwrap_or(0))
}

/// An id as it may be shown on a terminal: bounded, and with nothing in it that acts.
pub fn printable(id: &[u8]) -> String {
    let text = match str::from_utf8(id) {
        Ok(text) => text.chars().take(ID_CHARS + 1).map(escaped).collect(),
        Err(_) => id[..id.len().min(ID_CHARS + 1)].escape_ascii().to_string(),
    };
    let mut shown: String = text.chars().take(ID_CHARS).collect();
    if shown.len() < text.len() {
        let _ = write!(shown, "... ({} bytes)", id.len());
    }
    shown
}

fn escaped(c: char) -> String {
    match c {
        '"' | '\'' => c.to_string(),
        c => c.escape_debug().to_string(),
    }
}

fn table(out: &mut String, rows: &[(&str, String, String)]) -> std::fmt::Result {
    let rows: Vec<[String; 3]> = rows
        .iter()
        .map(|(name, value, more)| [(*name).to_owned(), value.clone(), more.clone()])
        .collect();
    columns(out, &rows, &[false, true, false])
}

/// Rows with their cells below each other, to the right where `right` says so.
fn columns<const N: usize>(
    out: &mut String,
    rows: &[[String; N]],
    right: &[bool; N],
) -> std::fmt::Result {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(&widths).zip(right) {
            if *right {
                write!(line, "  {cell:>width$}")?;
            } else {
                write!(line, "  {cell:<width$}")?;
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
