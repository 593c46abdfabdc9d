//! The journal, read as recovery reads it: committed runs only, from where is asked up to the true
//! high watermark, and it is the reader's position that says how far it has come.

mod reader;
mod scan;

use super::Asked;
use super::cluster::{Cluster, Input};
use super::progress::Progress;
use super::report::{Fit, JournalPartition, Store};
use crate::exit::Stop;
use crate::journal::Identity;
use crate::store::Anchor;
use crate::topics::PrepareError;
pub(super) use reader::{End, Reader, Record};
pub(super) use scan::Scan;

/// Reading begins again where the journal is trimmed meanwhile, at most so often.
const ATTEMPTS: u32 = 5;

/// All selected journal partitions; whole, or with `scan` off only their ends.
///
/// # Errors
/// 69 where Kafka stops answering, 130 where it was stopped.
pub(super) fn look(
    asked: &Asked,
    cluster: &Cluster,
    store: &Store,
    scan: bool,
) -> Result<Vec<JournalPartition>, Stop> {
    let mut wanted = Vec::new();
    for (input, partition) in cluster.partitions(&asked.selection) {
        wanted.push((input, partition, watermarks(cluster, input, partition)?));
    }
    let offsets: i64 = wanted.iter().map(|(_, _, (low, high))| high - low).sum();
    let progress = Progress::new(offsets.unsigned_abs(), "journal offsets");
    let mut reader = Reader::new(asked)?;
    let mut partitions = Vec::with_capacity(wanted.len());
    for (input, partition, (low, high)) in wanted {
        progress.at(&format!("{}-{partition}", input.journal));
        let anchor = store
            .scopes
            .iter()
            .find(|scope| scope.topic == input.topic && scope.partition == partition)
            .and_then(|scope| scope.anchor);
        let place = Place {
            cluster,
            input,
            partition,
        };
        let found = match scan {
            true => place.whole(&mut reader, &progress, Scan::new(place.identity(), anchor))?,
            false => place.ends(&mut reader, (low, high), anchor)?,
        };
        partitions.push(found.report(input, partition, anchor, scan));
    }
    Ok(partitions)
}

fn watermarks(cluster: &Cluster, input: &Input, partition: i32) -> Result<(i64, i64), Stop> {
    let watermarks = cluster.admin.watermarks(&input.journal, partition);
    watermarks.map_err(|error| match error {
        PrepareError::Stop(stop) => stop,
        PrepareError::Retry(why) => Stop::unreachable(format!("Kafka stopped answering: {why}")),
    })
}

/// One partition of a journal.
pub(super) struct Place<'a> {
    pub cluster: &'a Cluster,
    pub input: &'a Input,
    pub partition: i32,
}

/// What was read of it.
pub(super) struct Read {
    pub low: i64,
    pub high: i64,
    pub scan: Scan,
    /// The reading ended before the end, at this offset.
    pub open_at: Option<i64>,
}

impl Place<'_> {
    pub fn identity(&self) -> Identity {
        self.input.identity(self.partition)
    }

    /// Journal and partition, for a person.
    pub fn name(&self) -> String {
        format!("{}-{}", self.input.journal, self.partition)
    }

    /// Where it begins and ends now.
    ///
    /// # Errors
    /// 69 where Kafka does not answer.
    pub fn watermarks(&self) -> Result<(i64, i64), Stop> {
        watermarks(self.cluster, self.input, self.partition)
    }

    /// Reads all of it into a scan.
    ///
    /// # Errors
    /// 69 where Kafka stops answering.
    pub fn whole(
        &self,
        reader: &mut Reader<'_>,
        progress: &Progress,
        empty: Scan,
    ) -> Result<Read, Stop> {
        for _ in 0..ATTEMPTS {
            let (low, high) = self.watermarks()?;
            let mut scan = empty.clone();
            let mut at = low;
            let end = reader.read(&self.input.journal, self.partition, low..high, |record| {
                progress.add((record.offset + 1 - at).max(0).unsigned_abs());
                at = record.offset + 1;
                scan.take(&record);
                true
            })?;
            progress.add((high - at).max(0).unsigned_abs());
            let open_at = match end {
                End::Reached | End::Enough => None,
                End::Open(at) => Some(at),
                // What was read is no longer the beginning: begin again.
                End::Trimmed => continue,
            };
            return Ok(Read {
                low,
                high,
                scan,
                open_at,
            });
        }
        Err(self.trimmed())
    }

    /// Reads the first run, the last one, and the one that the store's checkpoint names.
    ///
    /// # Errors
    /// 69 where Kafka stops answering.
    pub fn ends(
        &self,
        reader: &mut Reader<'_>,
        (low, high): (i64, i64),
        anchor: Option<Anchor>,
    ) -> Result<Read, Stop> {
        let (journal, partition) = (&self.input.journal, self.partition);
        let mut first = Scan::new(self.identity(), anchor);
        let end = reader.read(journal, partition, low..high, |record| {
            first.take(&record);
            first.first_run.is_none()
        })?;
        let mut open_at = match end {
            End::Open(at) => Some(at),
            End::Reached | End::Enough | End::Trimmed => None,
        };
        // What comes last may be markers and aborted runs, of unknown number.
        let mut last = Scan::new(self.identity(), anchor);
        let mut back = 8;
        while last.last_run.is_none() && first.first_run.is_some() {
            let from = high.saturating_sub(back).max(low);
            let end = reader.read(journal, partition, from..high, |record| {
                last.take(&record);
                true
            })?;
            if let End::Open(at) = end {
                open_at = Some(at);
            }
            if from == low {
                break;
            }
            back *= 8;
        }
        let mut scan = last;
        scan.note_anchor(&first);
        scan.first_run = first.first_run;
        if let Some(anchor) = anchor
            && !scan.has_anchor()
            && (low..high).contains(&anchor.offset)
        {
            let mut there = Scan::new(self.identity(), Some(anchor));
            let only = anchor.offset..anchor.offset + 1;
            reader.read(journal, partition, only, |record| {
                there.take(&record);
                false
            })?;
            scan.note_anchor(&there);
        }
        Ok(Read {
            low,
            high,
            scan,
            open_at,
        })
    }

    fn trimmed(&self) -> Stop {
        Stop::unreachable(format!(
            "the journal {} is trimmed faster than it is read: try again",
            self.name()
        ))
    }
}

impl Read {
    /// A sentence where the end was not reached.
    pub fn open_note(&self) -> Option<String> {
        let at = self.open_at?;
        Some(format!(
            "an open transaction ends the reading at offset {at}, {} before the end: look again when it has ended",
            self.high - at
        ))
    }

    fn report(
        self,
        input: &Input,
        partition: i32,
        anchor: Option<Anchor>,
        whole: bool,
    ) -> JournalPartition {
        let committed = input.committed.get(&partition).copied();
        let mut notes: Vec<String> = self.open_note().into_iter().collect();
        notes.extend(self.scan.notes());
        notes.extend(agreement(self.scan.next_offset(), committed, &self));
        let store = match anchor {
            None => Fit::None,
            Some(anchor) => self.scan.fit(anchor, self.low..self.high),
        };
        JournalPartition {
            topic: input.topic.clone(),
            partition,
            journal: input.journal.clone(),
            low: self.low,
            high: self.high,
            held: whole.then_some(self.scan.held),
            first_run: self.scan.first_run,
            last_run: self.scan.last_run,
            committed,
            store,
            notes,
        }
    }
}

/// Both change in one transaction, so one without the other is worth a sentence.
fn agreement(last: Option<i64>, committed: Option<i64>, read: &Read) -> Option<String> {
    match (last, committed) {
        (Some(last), None) => Some(format!(
            "the group has no committed offset, and the last run was committed with {last}: run would stop (78)"
        )),
        (None, Some(committed)) if read.open_at.is_none() => Some(format!(
            "the group has committed offset {committed}, and the journal holds no run: run would stop (78) unless journal.retention is set"
        )),
        (Some(last), Some(committed)) if committed < last => Some(format!(
            "the group's offset {committed} was set back behind the last run's {last}: what is judged again is remembered"
        )),
        _ => None,
    }
}
