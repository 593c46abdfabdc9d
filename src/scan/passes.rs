//! The order of the reads: pass one over as much of the fingerprints' space as its filter can hold,
//! then pass two over as much of that as its map can hold, until all is counted.
//!
//! Most topics take two reads. Memory is bounded by [`Budget`], time by [`Limits::reads`]: where they
//! do not suffice, the figures are exact for a share of the ids, which a hash has chosen.

use std::ops::ControlFlow;

use super::ages::{Ages, Edges};
use super::budget::Budget;
use super::exact::{Exact, Repeated, Tally, keep_most};
use super::filter::{Candidates, Filter};
use super::log::{Ended, Log, Purpose, Sighting};
use super::span::Span;
use crate::exit::Stop;
use crate::identify::{Identity, MissingReason};

/// How full the map may be by expectation; what is beyond costs a read more.
const FILL: f64 = 0.85;

/// What a scan may use.
#[derive(Debug, Clone)]
pub struct Limits {
    pub budget: Budget,
    /// How often the log may be read; 2 at least.
    pub reads: u32,
    pub edges: Edges,
}

/// What is known of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// Records of each partition.
    pub partitions: Vec<Counts>,
    /// Records with an id among those that were looked at, exactly.
    pub ids: u64,
    /// Repetitions of an id in another partition than its first one.
    pub elsewhere: u64,
    pub ages: Ages,
    pub most: Vec<Repeated>,
    /// Of all fingerprints, how much was counted: 1 where all is.
    pub share: f64,
    /// Reads that were begun.
    pub reads: u32,
    /// New ids that pass one took for repetitions, and pass two found out.
    pub mistaken: u64,
    /// Records of the first read that a later one did not find.
    pub vanished: u64,
    pub outcome: Outcome,
}

/// One partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    pub no_id: u64,
    pub unparsable: u64,
    pub duplicates: u64,
}

/// How far the scan came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is counted.
    Complete,
    /// As far as the limit of reads let it.
    ReadsUsedUp,
    /// Asked to end during pass one: nothing is counted of that span; of the records read so far no
    /// more than `suspects` can be repetitions.
    InterruptedInFilter { suspects: u64 },
    /// Asked to end during pass two: what is counted is of the records read so far.
    InterruptedInCount,
}

impl Findings {
    fn new(partitions: usize, edges: &Edges) -> Self {
        Self {
            partitions: vec![Counts::default(); partitions],
            ids: 0,
            elsewhere: 0,
            ages: Ages::new(edges),
            most: Vec::new(),
            share: 0.0,
            reads: 0,
            mistaken: 0,
            vanished: 0,
            outcome: Outcome::Complete,
        }
    }

    /// The sum over all partitions.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in &self.partitions {
            total.records += counts.records;
            total.no_id += counts.no_id;
            total.unparsable += counts.unparsable;
            total.duplicates += counts.duplicates;
        }
        total
    }

    /// Different ids among those that were counted.
    pub fn distinct(&self) -> u64 {
        let repetitions = self.total().duplicates + self.elsewhere;
        self.ids.saturating_sub(repetitions)
    }

    fn add(&mut self, tally: &Tally) {
        for (counts, duplicates) in self.partitions.iter_mut().zip(&tally.duplicates) {
            counts.duplicates += duplicates;
        }
        self.ids += tally.ids;
        self.elsewhere += tally.elsewhere;
        self.mistaken += tally.mistaken;
        self.ages.merge(&tally.ages);
        for repeated in &tally.most {
            keep_most(&mut self.most, *repeated);
        }
    }
}

/// Reads the log as often as needed, and counts.
///
/// # Errors
/// Where the log cannot be read any further, or memory is not to be had.
pub fn count<L: Log>(log: &mut L, limits: &Limits) -> Result<Findings, Stop> {
    let findings = Findings::new(log.partitions(), &limits.edges);
    let mut scan = Scan {
        log,
        limits,
        findings,
    };
    scan.walk()?;
    Ok(scan.findings)
}

struct Scan<'a, L> {
    log: &'a mut L,
    limits: &'a Limits,
    findings: Findings,
}

impl<L: Log> Scan<'_, L> {
    fn walk(&mut self) -> Result<(), Stop> {
        let mut rest = Span::WHOLE;
        while !rest.is_empty() {
            let slice = rest.front(self.limits.budget.slice);
            if self.reads_left() < 2 {
                self.findings.outcome = Outcome::ReadsUsedUp;
                return Ok(());
            }
            let Some(filter) = self.filter(slice)? else {
                return Ok(());
            };
            if filter.suspects() == 0 {
                // A filter never takes an old id for new: there is nothing to count.
                self.findings.ids += filter.ids();
                self.findings.share += slice.share();
            } else if !self.count_slice(slice, &filter.into_candidates())? {
                return Ok(());
            }
            rest = rest.after(&slice);
        }
        self.findings.share = 1.0;
        Ok(())
    }

    fn reads_left(&self) -> u32 {
        self.limits.reads.saturating_sub(self.findings.reads)
    }

    /// Pass one over a slice; `None` when it was interrupted.
    fn filter(&mut self, slice: Span) -> Result<Option<Filter>, Stop> {
        let mut filter = Filter::new(&self.limits.budget, slice);
        let first = self.findings.reads == 0;
        let mut partitions = vec![Counts::default(); self.findings.partitions.len()];
        let ended = self.read(Purpose::Filter, |sighting| {
            if first && let Some(counts) = partitions.get_mut(sighting.partition) {
                counts.records += 1;
                match sighting.identity {
                    Identity::Id(_) => {}
                    Identity::Missing(MissingReason::NoId) => counts.no_id += 1,
                    Identity::Missing(MissingReason::Unparsable) => counts.unparsable += 1,
                }
            }
            if let Identity::Id(id) = sighting.identity {
                filter.see(id);
            }
            ControlFlow::Continue(())
        })?;
        if first {
            self.findings.partitions = partitions;
        }
        if ended == Ended::Interrupted {
            let suspects = filter.suspects();
            self.findings.outcome = Outcome::InterruptedInFilter { suspects };
            return Ok(None);
        }
        Ok(Some(filter))
    }

    /// Pass two over a slice, in as many reads as its candidates need; whether all of it could be
    /// counted.
    fn count_slice(&mut self, slice: Span, candidates: &Candidates) -> Result<bool, Stop> {
        let (limits, partitions) = (self.limits, self.findings.partitions.len());
        let room = limits.budget.entries as f64 * FILL;
        let mut density = candidates.count() as f64 / slice.width() as f64;
        let mut rest = slice;
        while !rest.is_empty() {
            if self.reads_left() == 0 {
                self.findings.outcome = Outcome::ReadsUsedUp;
                return Ok(false);
            }
            // Saturates where nothing is expected.
            let span = rest.front((room / density) as u128);
            let capacity = limits.budget.entries;
            let mut exact = Exact::new(candidates, &limits.edges, span, capacity, partitions)?;
            let ended = self.read(Purpose::Count, |sighting| exact.see(sighting))?;
            let tally = exact.finish();
            self.findings.add(&tally);
            self.findings.share += tally.span.share();
            if ended == Ended::Interrupted {
                self.findings.outcome = Outcome::InterruptedInCount;
                return Ok(false);
            }
            rest = rest.after(&tally.span);
            density = if tally.span.is_empty() {
                // The map was too small for the least part of the span.
                limits.budget.entries as f64 / (span.width() as f64 / 256.0)
            } else {
                tally.entries as f64 / tally.span.width() as f64
            };
        }
        Ok(true)
    }

    /// One read, and whether records are gone since the first.
    fn read(
        &mut self,
        purpose: Purpose,
        mut see: impl FnMut(&Sighting) -> ControlFlow<()>,
    ) -> Result<Ended, Stop> {
        self.findings.reads += 1;
        let mut records = 0_u64;
        let ended = self.log.read(purpose, &mut |sighting| {
            records += 1;
            see(sighting)
        })?;
        if ended == Ended::AtTheEnd && self.findings.reads > 1 {
            let gone = self.findings.total().records.saturating_sub(records);
            self.findings.vanished = self.findings.vanished.max(gone);
        }
        Ok(ended)
    }
}

#[cfg(test)]
#[path = "passes_tests.rs"]
mod tests;
