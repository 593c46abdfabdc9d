//! One id: fingerprinted as the service does it, looked up in the journal, which decides, and in the
//! store, which says where it lies.

use std::ffi::CStr;

use super::cluster::Cluster;
use super::journal::{Place, Read, Reader, Scan};
use super::progress::Progress;
use super::report::{Answer, Sighting};
use super::stored::{self, Found};
use super::{Asked, InspectArgs};
use crate::config::{self, Config, IdSource};
use crate::exit::Stop;
use crate::identify::{Fields, Identifier, Identity, MissingReason, deployment_seed};
use crate::journal::run::NO_OFFSET;
use crate::repartition;
use crate::schemas::Schemas;
use crate::store::{Entry, Fingerprint};
use crate::topics::OwnTopics;
use crate::window::remembers;

/// The fingerprint of the id that is asked for, if one is.
///
/// # Errors
/// 64 for an id that no record can have with this config.
pub(super) fn wanted(
    arguments: &InspectArgs,
    config: &Config,
) -> Result<Option<Fingerprint>, Stop> {
    let text = arguments.id.iter().map(|id| Ok(id.as_bytes().to_vec()));
    let binary = arguments.id_hex.iter().map(|hex| {
        from_hex(hex).ok_or_else(|| {
            Stop::usage(format!(
                "--id-hex {hex}: give an even number of digits 0-9 and a-f, two for each byte"
            ))
        })
    });
    let parts: Vec<Vec<u8>> = text.chain(binary).collect::<Result<_, Stop>>()?;
    if parts.is_empty() {
        return Ok(None);
    }
    let seed = deployment_seed(&config.kafka.group_id);
    wanted_id(&config.id.from, seed, &parts).map(Some)
}

/// The fingerprint of an id that is given by its parts, at least one.
///
/// # Errors
/// 64 for an id that no record can have with this source.
pub(crate) fn wanted_id(
    source: &IdSource,
    seed: u64,
    parts: &[Vec<u8>],
) -> Result<Fingerprint, Stop> {
    let (given, expected) = (parts.len(), parts_of(source));
    if given != expected {
        return Err(Stop::usage(match expected {
            1 => format!(
                "id.from takes one value, and {given} were given: give --id or --id-hex once"
            ),
            _ => format!(
                "id.from puts {expected} values together, and {given} given: give --id or --id-hex for each of them, in their order",
                given = if given == 1 {
                    "1 was".to_owned()
                } else {
                    format!("{given} were")
                },
            ),
        }));
    }
    match fingerprint(source, seed, parts) {
        Identity::Id(fingerprint) => Ok(fingerprint),
        Identity::Missing(_) => Err(Stop::usage(
            "an empty id counts as missing: no record can be known by it",
        )),
    }
}

fn parts_of(source: &IdSource) -> usize {
    match source {
        IdSource::All(sources) => sources.len(),
        // Source and id.
        IdSource::CloudEvents => 2,
        _ => 1,
    }
}

/// A record of which nothing is known but the parts of its id: as its key, and as headers that are
/// named by their numbers. The service's own code puts them together.
struct Parts<'a>(&'a [Vec<u8>]);

impl Fields for Parts<'_> {
    fn key(&self) -> Option<&[u8]> {
        self.0.first().map(Vec::as_slice)
    }

    fn value(&self) -> Option<&[u8]> {
        None
    }

    fn last_header(&self, name: &CStr) -> Option<&[u8]> {
        let number: usize = name.to_str().ok()?.parse().ok()?;
        self.0.get(number).map(Vec::as_slice)
    }
}

fn fingerprint(source: &IdSource, seed: u64, parts: &[Vec<u8>]) -> Identity {
    let source = match source {
        IdSource::All(_) | IdSource::CloudEvents => {
            let numbers = 0..parts_of(source);
            IdSource::All(numbers.map(|n| IdSource::Header(n.to_string())).collect())
        }
        _ => IdSource::Key,
    };
    let identity = Identifier::new(&source, seed, &Schemas::default()).identify(&Parts(parts));
    identity.unwrap_or(Identity::Missing(MissingReason::NoId))
}

/// The bytes that two digits each stand for; `None` where they are none.
pub(crate) fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            let (pairs, _) = digits.as_chunks::<2>();
            Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
        }
        _ => None,
    }
}

/// Looks it up in every selected partition.
pub(super) fn answer(
    asked: &Asked,
    cluster: Option<&Cluster>,
    wanted: &Fingerprint,
    trouble: &mut Option<Stop>,
) -> Answer {
    let config = &asked.config;
    let mut answer = Answer {
        group: config.kafka.group_id.clone(),
        fingerprint: format!("{wanted:032x}"),
        seen: None,
        by: "store",
        partitions: 0,
        whole: cluster.is_some(),
        sightings: Vec::new(),
        notes: Vec::new(),
        missing: cluster.map(|c| c.missing.clone()).unwrap_or_default(),
        kafka: trouble.as_ref().map(ToString::to_string),
    };
    let found = stored::find(asked, cluster, *wanted);
    let found = found.unwrap_or_else(|why| {
        if cluster.is_none() && trouble.is_none() {
            *trouble = Some(Stop::contradiction(why.clone()));
        }
        answer.notes.push(why);
        Vec::new()
    });
    let unread = found.iter().flat_map(|found| &found.unread);
    answer
        .notes
        .extend(unread.map(|why| format!("a slice was not asked: {why}")));
    match cluster {
        Some(cluster) => {
            answer.by = "journal";
            let read = by_journal(asked, cluster, *wanted, &found, &mut answer);
            if let Err(stop) = read {
                answer.kafka = Some(stop.to_string());
                answer.whole = false;
                *trouble = Some(stop);
            }
        }
        None => by_store(config, &found, &mut answer),
    }
    if config.scope == config::Scope::Repartition {
        let own = OwnTopics::new(config);
        for sighting in &mut answer.sightings {
            name_first_in_input(sighting, &own);
        }
    }
    answer
        .sightings
        .sort_by_key(|sighting| !sighting.remembered);
    let remembering = |sighting: &Sighting| sighting.remembered;
    answer.seen = (answer.partitions > 0).then(|| answer.sightings.iter().any(remembering));
    answer
}

/// Of two hops, the second remembers where the first found a record.
fn name_first_in_input(sighting: &mut Sighting, own: &OwnTopics) {
    if sighting.offset == NO_OFFSET {
        return;
    }
    (sighting.partition, sighting.offset) = repartition::unpacked(sighting.offset);
    if let Some(input) = own.input_of(&sighting.topic) {
        sighting.topic = input;
    }
}

fn by_journal(
    asked: &Asked,
    cluster: &Cluster,
    wanted: Fingerprint,
    found: &[Found],
    answer: &mut Answer,
) -> Result<(), Stop> {
    let partitions = cluster.partitions(&asked.selection);
    let mut reader = Reader::new(asked)?;
    let progress = Progress::new(partitions.len() as u64, "journal partitions");
    let silent = Progress::none();
    for (input, partition) in partitions {
        let place = Place {
            cluster,
            input,
            partition,
        };
        progress.at(&format!("{}-{partition}", input.journal));
        let empty = Scan::new(place.identity(), None).wanting(wanted);
        let read = place.whole(&mut reader, &silent, empty)?;
        progress.add(1);
        answer.partitions += 1;
        answer.whole &= read.open_at.is_none();
        let notes = read.open_note().into_iter().chain(read.scan.notes());
        let journal = &input.journal;
        answer
            .notes
            .extend(notes.map(|note| format!("{journal}-{partition}: {note}")));
        let stored = found
            .iter()
            .find(|found| found.topic == input.topic && found.partition == partition);
        answer.sightings.extend(sighting(
            asked.config.window,
            (&input.topic, partition),
            &read,
            stored,
        ));
    }
    Ok(())
}

fn sighting(
    window: config::Window,
    (topic, partition): (&str, i32),
    read: &Read,
    stored: Option<&Found>,
) -> Option<Sighting> {
    let in_store = stored.and_then(|stored| stored.entry.as_ref());
    // A slice may outlive the journal's runs by a little, but never the window.
    let entry = match (&read.scan.found, in_store) {
        (Some((entry, _)), _) | (None, Some((entry, _))) => *entry,
        (None, None) => return None,
    };
    let clock = (read.scan.stream_time_ms, read.scan.next_ordinal);
    let (slice, store) = place_in_store(&entry, stored);
    Some(Sighting {
        journal_offset: read.scan.found.map(|(_, offset)| offset),
        times_in_journal: Some(read.scan.times_found),
        slice,
        store,
        ..remembrance(window, (topic, partition), &entry, clock)
    })
}

fn by_store(config: &Config, found: &[Found], answer: &mut Answer) {
    answer.notes.push(
        "the store alone was asked: what came after its newest checkpoint is not known".to_owned(),
    );
    for stored in found {
        if stored.in_use {
            let place = format!("{}-{}", stored.topic, stored.partition);
            answer.notes.push(format!("{place}: {IN_USE}"));
            continue;
        }
        answer.partitions += 1;
        let (Some((entry, _)), Some(checkpoint)) = (&stored.entry, &stored.checkpoint) else {
            continue;
        };
        let clock = (checkpoint.stream_time_ms, checkpoint.next_ordinal);
        let (slice, store) = place_in_store(entry, Some(stored));
        let place = (stored.topic.as_str(), stored.partition);
        answer.sightings.push(Sighting {
            slice,
            store,
            ..remembrance(config.window, place, entry, clock)
        });
    }
}

const IN_USE: &str = "the store is in use by a running service and was not looked into";

/// The slice that holds this entry, and a sentence about it.
fn place_in_store(entry: &Entry, stored: Option<&Found>) -> (Option<String>, String) {
    let Some(stored) = stored else {
        return (None, "the store has nothing of this partition".to_owned());
    };
    if stored.in_use {
        return (None, IN_USE.to_owned());
    }
    let sealed = |checkpoint: &crate::store::Checkpoint| entry.ordinal < checkpoint.next_ordinal;
    match &stored.entry {
        Some((held, slice)) if held == entry => (Some(slice.clone()), format!("in {slice}")),
        Some((held, slice)) if held.ordinal == entry.ordinal => (
            Some(slice.clone()),
            format!("in {slice}, which contradicts the journal: delete the scope's directory"),
        ),
        Some((held, slice)) => (
            None,
            format!(
                "not sealed yet; {slice} has it with ordinal {}",
                held.ordinal
            ),
        ),
        None if stored.checkpoint.as_ref().is_some_and(sealed) => (
            None,
            "in no slice: the one that held it was over, or is damaged".to_owned(),
        ),
        None => (None, "not sealed yet".to_owned()),
    }
}

/// What the window makes of an entry, with nothing said of where it lies. `clock` is stream time
/// and next ordinal.
fn remembrance(
    window: config::Window,
    (topic, partition): (&str, i32),
    entry: &Entry,
    (stream_time_ms, next_ordinal): (Option<i64>, u64),
) -> Sighting {
    let remembered = remembers(window, entry, stream_time_ms, next_ordinal);
    let now = stream_time_ms.unwrap_or(0);
    let taken_after = next_ordinal.saturating_sub(entry.ordinal).saturating_sub(1);
    Sighting {
        topic: topic.to_owned(),
        partition,
        offset: entry.offset,
        time_seen: entry.time_ms,
        age_ms: if now > entry.time_ms {
            now.abs_diff(entry.time_ms)
        } else {
            0
        },
        ordinal: entry.ordinal,
        journal_offset: None,
        times_in_journal: None,
        remembered,
        forgotten: entry.is_forgotten(),
        remembered_until: window
            .time_ms
            .map(|time| entry.time_ms.saturating_add(time.max(0))),
        forgotten_after_ids: window.ids.map(|ids| ids.max(1).saturating_sub(taken_after)),
        stream_time: stream_time_ms,
        slice: None,
        store: String::new(),
    }
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
