//! What happened to the records of an audit, counted; and described where it is a difference.

use super::findings::{Difference, Findings, Kind, Place};
use super::kin::Kin;
use super::matching::{Event, Must, Strand};
use super::plan::Output;
use super::scope::Scope;
use crate::journal::run::NO_OFFSET;
use crate::topics::survey::Role;
use crate::window::Fingerprint;

/// A partition of the output or a side topic, held against the inputs.
pub struct There {
    pub it: Output,
    pub feed: usize,
    pub strand: Strand,
    pub gone_from_input: u64,
    pub uncounted: u64,
}

/// The same between partitions, of a record that may be in the output.
pub fn note_kin(kin: &mut Kin, event: &Event, scopes: &[Scope]) {
    match *event {
        Event::Confirmed {
            id: Some(id),
            time_ms,
            aside: false,
            ..
        } => kin.forwarded(id, time_ms),
        Event::Absent {
            lane,
            offset,
            id: Some(id),
            aside: false,
        } if scopes[lane].must(offset) == Must::Be => kin.absent(id, lane, offset),
        _ => {}
    }
}

/// Counts what happened, and describes it where it is a difference.
pub fn note(event: Event, there: &mut There, scopes: &mut [Scope], findings: &mut Findings) {
    let Output {
        role,
        part,
        compacted,
        ..
    } = &there.it;
    let found_at = |offset: i64| {
        Some(Place {
            topic: part.topic.clone(),
            partition: part.partition,
            offset,
        })
    };
    let difference = |kind: Kind, input: Option<Place>, output: Option<Place>, parts| Difference {
        kind,
        role: role.name(),
        input,
        output,
        output_topic: part.topic.clone(),
        parts,
        id: None,
    };
    match event {
        Event::Confirmed {
            lane,
            offset,
            id,
            aside,
            ..
        } => {
            let scope = &mut scopes[lane];
            let counts = u64::from(scope.must(offset) == Must::Be).min(scope.row.unknown);
            scope.row.unknown -= counts;
            match (role, aside) {
                (Role::Output, false) => {
                    scope.row.forwarded += counts;
                    if let Some(id) = id {
                        scope.judge.was_forwarded(id, offset);
                    }
                }
                (Role::Output, true) | (Role::Duplicates, _) => scope.row.duplicates += counts,
                (Role::Rejected, _) => scope.row.rejected += counts,
                (Role::Repartition | Role::Journal, _) => {}
            }
        }
        Event::Absent {
            lane,
            offset,
            id,
            aside,
        } => {
            if let (Role::Output, false, Some(id)) = (*role, aside, id) {
                scopes[lane].judge.was_not_forwarded(id, offset);
            }
        }
        Event::Missing { lane, offset } => {
            let scope = &mut scopes[lane];
            let open = *compacted
                || scope.input.compacted
                || (*role == Role::Output && offset < scope.refusals_from);
            if open {
                scope.uncounted += 1;
                return;
            }
            scope.row.missing += 1;
            findings.describe(|| difference(Kind::Missing, Some(scope.at(offset)), None, None));
        }
        Event::Altered {
            lane,
            offset,
            found,
            parts,
        } => {
            let scope = &mut scopes[lane];
            scope.row.altered += 1;
            let input = Some(scope.at(offset));
            findings.describe(|| difference(Kind::Altered, input, found_at(found), Some(parts)));
        }
        Event::Reordered {
            lane,
            offset,
            found,
        } => {
            let scope = &mut scopes[lane];
            if scope.must(offset) != Must::Be {
                return;
            }
            scope.row.reordered += 1;
            let input = Some(scope.at(offset));
            findings.describe(|| difference(Kind::Reordered, input, found_at(found), None));
        }
        Event::Extra { found, id } => {
            if scopes.iter().any(|scope| scope.input.compacted) {
                there.uncounted += 1;
                return;
            }
            let input = id.and_then(|id| first_seen(id, scopes));
            let own = |scope: &&mut Scope| scope.input.part.partition == part.partition;
            let row = match scopes.iter_mut().find(own) {
                Some(scope) => scope,
                None => &mut scopes[0],
            };
            row.row.extra += 1;
            findings.describe(|| difference(Kind::Extra, input, found_at(found), None));
        }
        Event::GoneFromStrand { lane } => scopes[lane].gone_from_strand += 1,
        Event::GoneFromInput => {
            // Read from the middle on purpose: what came before is not asked for.
            let asked = scopes
                .iter()
                .all(|scope| scope.input.complete || scope.input.unknown_until.is_some());
            there.gone_from_input += u64::from(!asked);
        }
    }
}

fn first_seen(id: Fingerprint, scopes: &[Scope]) -> Option<Place> {
    scopes.iter().find_map(|scope| {
        let first = scope
            .judge
            .first_seen(id)
            .filter(|first| *first != NO_OFFSET)?;
        Some(scope.at(first))
    })
}
