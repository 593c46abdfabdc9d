//! What the runs of a partition amount to, taken in one after another. Bytes in, numbers out; it
//! asks nobody.

use std::collections::HashMap;

use std::ops::Range;

use super::reader::Record;
use crate::inspect::report::{self, Fit, Held, hex};
use crate::journal::{Identity, Run, RunError, Terms, run};
use crate::store::{Anchor, Entry, Fingerprint};

/// Sentences about records that cannot be used, at most (I8).
const NOTES: usize = 5;

#[derive(Debug, Clone, Default)]
pub struct Scan {
    identity: Identity,
    /// The run that a store's checkpoint names.
    anchor: Option<Anchor>,
    /// What was found where it should be.
    at_anchor: Option<Anchor>,
    wanted: Option<Fingerprint>,
    /// The newest entry of the id that is wanted, with the offset of its run, and how many there are.
    pub found: Option<(Entry, i64)>,
    pub times_found: u64,
    pub held: Held,
    pub first_run: Option<report::Run>,
    pub last_run: Option<report::Run>,
    /// The largest of all runs.
    pub stream_time_ms: Option<i64>,
    pub next_ordinal: u64,
    /// The last run was written by `preload`.
    pub is_preload: bool,
    /// Under which it was written.
    pub terms: Option<Terms>,
    /// The run before which nothing counts any more, where there is one.
    pub begins_at: Option<i64>,
    /// Ids that an operator had forgotten, with the ordinal of the last time.
    pub forgotten: HashMap<Fingerprint, u64>,
    notes: Vec<String>,
    notes_left_out: u64,
}

impl Scan {
    /// Runs with this identity; where a store's checkpoint names a run, that is looked for.
    pub fn new(identity: Identity, anchor: Option<Anchor>) -> Self {
        Self {
            identity,
            anchor,
            ..Self::default()
        }
    }

    /// Looks for an id besides.
    pub fn wanting(self, fingerprint: Fingerprint) -> Self {
        Self {
            wanted: Some(fingerprint),
            ..self
        }
    }

    /// Takes in the next record. O(its bytes).
    pub fn take(&mut self, record: &Record<'_>) {
        self.held.records += 1;
        self.held.bytes += record.value.len() as u64;
        let checksum = run::checksum(record.value);
        if self
            .anchor
            .is_some_and(|anchor| anchor.offset == record.offset)
        {
            self.at_anchor = Some(Anchor {
                offset: record.offset,
                checksum,
            });
        }
        match Run::decode(record.value) {
            Ok(run) if !self.identity.has_written(&run) => self.note(format!(
                "the run at offset {} was written for another group, topic or partition, or for a topic of this name that was deleted: run would stop (78)",
                record.offset
            )),
            Ok(run) => self.take_run(record, &run, checksum),
            Err(RunError::Foreign) => self.held.foreign += 1,
            Err(error) => self.note(format!("offset {}: {error}", record.offset)),
        }
    }

    fn take_run(&mut self, record: &Record<'_>, run: &Run, checksum: u64) {
        let ids = run.fingerprints.len() as u64;
        if self.last_run.is_some() && !run.begins && run.first_ordinal != self.next_ordinal {
            self.note(format!(
                "the run at offset {} begins with ordinal {}, but {} comes next: a run is missing or repeated",
                record.offset, run.first_ordinal, self.next_ordinal
            ));
        }
        self.held.runs += 1;
        self.held.ids += ids;
        if run.begins {
            // What was before does not count any more.
            (self.found, self.times_found, self.stream_time_ms) = (None, 0, None);
            self.begins_at = Some(record.offset);
        }
        self.is_preload = run.preload;
        self.terms.clone_from(&run.terms);
        self.stream_time_ms = self.stream_time_ms.max(run.stream_time_ms);
        self.next_ordinal = run.first_ordinal + ids;
        self.find(record.offset, run);
        let entries = run.fingerprints.iter().zip(&run.payloads);
        for ((id, payload), ordinal) in entries.zip(run.first_ordinal..) {
            if *payload == Entry::FORGOTTEN {
                self.forgotten.insert(*id, ordinal);
            }
        }
        let report = report::Run {
            offset: record.offset,
            written: record.written,
            ids,
            first_ordinal: run.first_ordinal,
            next_ordinal: self.next_ordinal,
            stream_time: run.stream_time_ms,
            input_offset: run.next_offset,
            checksum: hex(checksum),
        };
        self.first_run.get_or_insert_with(|| report.clone());
        self.last_run = Some(report);
    }

    fn find(&mut self, journal_offset: i64, run: &Run) {
        let Some(wanted) = self.wanted else { return };
        let here = |(_, fingerprint): &(usize, &Fingerprint)| **fingerprint == wanted;
        for (at, _) in run.fingerprints.iter().enumerate().filter(here) {
            let entry = Entry {
                time_ms: run.times_ms[at],
                offset: run.offsets[at],
                ordinal: run.first_ordinal + at as u64,
                payload: run.payloads.get(at).copied().unwrap_or(0),
            };
            self.found = Some((entry, journal_offset));
            self.times_found += 1;
        }
    }

    fn note(&mut self, sentence: String) {
        if self.notes.len() < NOTES {
            self.notes.push(sentence);
        } else {
            self.notes_left_out += 1;
        }
    }

    /// Whether a start could go on with all of it.
    pub fn is_sound(&self) -> bool {
        self.notes.is_empty()
    }

    /// What a person should know of the records.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        if self.notes_left_out > 0 {
            notes.push(format!("and {} more like this", self.notes_left_out));
        }
        if self.held.foreign > 0 {
            notes.push(
                "records that are no runs are skipped; nothing but kafka-dedup should write there"
                    .to_owned(),
            );
        }
        notes
    }

    /// The input position that the last run was committed with.
    pub fn next_offset(&self) -> Option<i64> {
        self.last_run.as_ref().map(|run| run.input_offset)
    }

    pub fn has_anchor(&self) -> bool {
        self.at_anchor.is_some()
    }

    /// Takes over what another scan has found where the store's checkpoint points.
    pub fn note_anchor(&mut self, other: &Self) {
        self.at_anchor = self.at_anchor.or(other.at_anchor);
    }

    /// Whether a store that ends with this run is one of this journal, which holds these offsets.
    pub fn fit(&self, anchor: Anchor, held: Range<i64>) -> Fit {
        let at = anchor.offset;
        match self.at_anchor {
            Some(found) if found == anchor => Fit::Fits,
            Some(_) => Fit::Misfit(format!(
                "the journal's record at offset {at} is not the run that the store ends with: the next start sets the store aside"
            )),
            None if held.contains(&at) => Fit::Misfit(format!(
                "the journal has no run at offset {at}, with which the store ends: the next start sets the store aside"
            )),
            None => Fit::Misfit(format!(
                "the store ends with the run at offset {at}, and the journal holds {} to {}: the next start sets the store aside",
                held.start, held.end
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::of(7, "orders", Some("id"), 0)
    }

    fn run(first_ordinal: u64, fingerprints: &[u128], time_ms: i64) -> Run {
        Run {
            identity: identity().own,
            stream_time_ms: Some(time_ms),
            next_offset: time_ms + 1,
            first_ordinal,
            fingerprints: fingerprints.to_vec(),
            times_ms: vec![time_ms; fingerprints.len()],
            offsets: (0..fingerprints.len() as i64)
                .map(|at| time_ms * 10 + at)
                .collect(),
            ..Run::default()
        }
    }

    fn take(scan: &mut Scan, offset: i64, value: &[u8]) {
        let written = Some(offset);
        scan.take(&Record {
            offset,
            written,
            value,
        });
    }

    fn take_run(scan: &mut Scan, offset: i64, run: &Run) -> Anchor {
        let bytes = run.encode(100).remove(0);
        take(scan, offset, &bytes);
        let checksum = run::checksum(&bytes);
        Anchor { offset, checksum }
    }

    #[test]
    fn the_newest_entry_of_an_id_is_found_and_all_are_counted() {
        let mut scan = Scan::new(identity(), None).wanting(5);
        take_run(&mut scan, 3, &run(10, &[4, 5], 1));
        take_run(&mut scan, 5, &run(12, &[6], 2));
        take_run(&mut scan, 7, &run(13, &[5], 3));
        let entry = Entry {
            time_ms: 3,
            offset: 30,
            ordinal: 13,
            ..Entry::default()
        };
        assert_eq!((scan.found, scan.times_found), (Some((entry, 7)), 2));
        assert_eq!((scan.stream_time_ms, scan.next_ordinal), (Some(3), 14));
        assert_eq!((scan.held.runs, scan.held.ids), (3, 4));
        assert_eq!(scan.first_run.as_ref().map(|run| run.offset), Some(3));
        assert_eq!(scan.next_offset(), Some(4));
        assert!(scan.notes().is_empty());
    }

    #[test]
    fn what_was_before_a_beginning_does_not_count() {
        let mut scan = Scan::new(identity(), None).wanting(5);
        take_run(&mut scan, 3, &run(10, &[4, 5], 9));
        let begins = Run {
            begins: true,
            terms: Some(crate::journal::Terms::default()),
            ..run(12, &[6], 2)
        };
        take_run(&mut scan, 5, &begins);
        assert_eq!((scan.found, scan.times_found), (None, 0));
        assert_eq!((scan.stream_time_ms, scan.begins_at), (Some(2), Some(5)));
        assert!(scan.notes().is_empty());
    }

    #[test]
    fn what_is_no_run_of_ours_is_told_and_not_taken_in() {
        let mut scan = Scan::new(identity(), None);
        take_run(&mut scan, 0, &run(0, &[1], 1));
        take(&mut scan, 1, b"hello");
        let other = Run {
            identity: 8,
            ..run(1, &[2], 2)
        };
        take_run(&mut scan, 2, &other);
        let mut damaged = run(1, &[2], 2).encode(100).remove(0);
        damaged[50] ^= 1;
        take(&mut scan, 3, &damaged);
        take_run(&mut scan, 4, &run(9, &[3], 3));
        assert_eq!((scan.held.records, scan.held.runs), (5, 2));
        assert_eq!(scan.held.foreign, 1);
        let notes = scan.notes();
        for (note, words) in notes.iter().zip([
            "another group",
            "damaged",
            "a run is missing or repeated",
            "no runs are skipped",
        ]) {
            assert!(note.contains(words), "{note}");
        }
        assert_eq!(notes.len(), 4);
    }

    #[test]
    fn a_journal_full_of_rubbish_is_told_of_in_few_sentences() {
        let mut scan = Scan::new(identity(), None);
        (0..1000).for_each(|offset| take(&mut scan, offset, b"KDRN\x02"));
        assert_eq!(scan.notes().len(), NOTES + 1);
        assert_eq!(scan.notes()[NOTES], "and 995 more like this");
    }

    #[test]
    fn a_store_fits_where_its_last_run_is_and_nowhere_else() {
        let bytes = run(0, &[1], 1);
        let anchor = take_run(&mut Scan::new(identity(), None), 4, &bytes);
        let mut scan = Scan::new(identity(), Some(anchor));
        let misfit = |scan: &Scan, held, words: &str| match scan.fit(anchor, held) {
            Fit::Misfit(why) => assert!(why.contains(words), "{why}"),
            other => panic!("{other:?}"),
        };
        misfit(&scan, 0..5, "no run at offset 4");
        misfit(&scan, 5..9, "holds 5 to 9");
        take_run(&mut scan, 4, &bytes);
        assert_eq!(scan.fit(anchor, 0..9), Fit::Fits);
        let mut scan = Scan::new(identity(), Some(anchor));
        take_run(&mut scan, 4, &run(0, &[2], 1));
        misfit(&scan, 0..9, "is not the run");
    }
}
