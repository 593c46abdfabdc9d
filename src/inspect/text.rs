//! The report for a person: a subject, then what belongs to it, indented.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};

use super::report::{
    Answer, Fit, JournalPartition, Overview, Run, Scope, Seal, Sighting, Slice, State, Store, time,
    time_in_seconds,
};
use crate::journal::run::NO_OFFSET;

pub(super) fn overview(overview: &Overview) -> String {
    let mut out = String::new();
    store(&mut out, &overview.store);
    if overview.kafka.is_some() && overview.journal.is_none() {
        line(&mut out, "\njournal: could not be read");
    }
    if let Some(journal) = &overview.journal {
        let mut topic = "";
        for partition in journal {
            if partition.journal != topic {
                topic = &partition.journal;
                line(
                    &mut out,
                    &format!("\njournal {topic} of {}", partition.topic),
                );
            }
            journal_partition(&mut out, partition, &overview.group);
        }
    }
    missing(&mut out, &overview.missing);
    out
}

fn store(out: &mut String, store: &Store) {
    let total = &store.total;
    match &store.trouble {
        Some(trouble) => line(out, &format!("store {}: {trouble}", store.path)),
        None => {
            // What is in use could not be counted.
            let ids = match store.scopes.iter().any(|scope| scope.in_use) {
                true if total.ids == 0 => String::new(),
                true => format!(", {} besides those in use", counted(total.ids, "id")),
                false => format!(", {}", counted(total.ids, "id")),
            };
            line(
                out,
                &format!(
                    "store {}: {}, {}{ids}, {}",
                    store.path,
                    counted(total.scopes, "partition"),
                    counted(total.slices, "slice"),
                    HumanBytes(total.bytes)
                ),
            );
        }
    }
    for found in &store.scopes {
        scope(out, found);
    }
    if !store.foreign.is_empty() {
        line(out, "\n  directories of others, left alone");
    }
    for foreign in &store.foreign {
        line(
            out,
            &format!(
                "    {}: {}; {}, {}",
                foreign.directory,
                foreign.why,
                counted(foreign.slices, "slice"),
                HumanBytes(foreign.bytes)
            ),
        );
    }
}

fn scope(out: &mut String, scope: &Scope) {
    let (topic, partition) = (&scope.topic, scope.partition);
    line(
        out,
        &format!("\n  {topic}-{partition} in {}", scope.directory),
    );
    if scope.in_use {
        line(
            out,
            "    in use by a running service, and not looked into: see its /status page, or stop it",
        );
    }
    if scope.slices.is_empty() && scope.in_use {
        line(out, "    no slices");
    } else if scope.slices.is_empty() {
        line(
            out,
            "    no slices, as few ids are not worth a file; the next start reads the journal",
        );
    } else {
        table(out, scope.slices.iter().map(row).collect());
    }
    for slice in scope.slices.iter().filter(|slice| slice.why.is_some()) {
        let why = slice.why.as_deref().unwrap_or_default();
        line(out, &format!("    {}: {why}", slice.name));
    }
    if scope.missing_slices > 0 {
        let text = "that the newest one names cannot be had: the next start goes on before the gap, and \
                    reads the journal from there";
        line(
            out,
            &format!("    {} {text}", counted(scope.missing_slices, "slice")),
        );
    }
    if scope.unfinished_starts > 0 {
        let starts = counted(u64::from(scope.unfinished_starts), "start");
        line(
            out,
            &format!(
                "    {starts} in a row ended while the slices were opened; after 3 they are set aside"
            ),
        );
    }
    match &scope.checkpoint {
        Some(checkpoint) => line(
            out,
            &format!(
                "    checkpoint: input offset {}, last run at journal offset {}, stream time {}, next ordinal {}",
                checkpoint.input_offset,
                checkpoint.journal_offset,
                maybe_time(checkpoint.stream_time),
                HumanCount(checkpoint.next_ordinal)
            ),
        ),
        None if scope.in_use || scope.slices.is_empty() => {}
        None => line(
            out,
            "    no checkpoint: the next start reads the journal alone",
        ),
    }
    for aside in &scope.set_aside {
        line(
            out,
            &format!(
                "    set aside as {} {} ago: {}, {}",
                aside.reason,
                aside.age_ms.map_or_else(|| "some time".to_owned(), age),
                aside.name,
                HumanBytes(aside.bytes)
            ),
        );
    }
}

const HEADER: [&str; 9] = [
    "slice",
    "ids",
    "size",
    "chunks",
    "ordinals",
    "oldest seen, age",
    "newest seen, age",
    "changed",
    "state",
];

fn row(slice: &Slice) -> [String; 9] {
    let state = match (slice.state, slice.on_chain, slice.used_at_start) {
        (State::Damaged, ..) => "damaged",
        (State::Foreign, ..) => "foreign",
        (State::Unfinished, ..) => "without a seal",
        (State::Unread, ..) => "not read",
        (State::Sound, _, Some(true)) => "on the chain",
        (State::Sound, Some(true), _) => "on the chain, behind a gap",
        (State::Sound, ..) => "over",
    };
    let seal = slice.seal.as_ref();
    let told = |tell: &dyn Fn(&Seal) -> String| seal.map_or_else(String::new, tell);
    let with_age = |ms: i64, behind: Option<u64>| match behind {
        Some(behind) => format!("{}, {}", time_in_seconds(ms), age(behind)),
        None => time_in_seconds(ms),
    };
    let changed = slice.changed.filter(|_| slice.state == State::Unread);
    [
        slice.name.clone(),
        told(&|seal| HumanCount(seal.ids).to_string()),
        HumanBytes(slice.bytes).to_string(),
        told(&|seal| HumanCount(u64::from(seal.chunks)).to_string()),
        told(&|seal| {
            let last = seal.end_ordinal.saturating_sub(1);
            format!("{}-{last}", seal.first_ordinal)
        }),
        told(&|seal| with_age(seal.oldest_time, seal.oldest_age_ms)),
        told(&|seal| with_age(seal.newest_time, seal.newest_age_ms)),
        changed.map_or_else(String::new, time_in_seconds),
        state.to_owned(),
    ]
}

/// Columns as wide as what is in them; those that are empty throughout are left out.
fn table(out: &mut String, rows: Vec<[String; 9]>) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEADER.len())
        .map(|column| match width(column) {
            Some(0) | None => 0,
            Some(width) => width.max(HEADER[column].len()),
        })
        .collect();
    let header = HEADER.map(str::to_owned);
    for row in std::iter::once(&header).chain(&rows) {
        let mut text = "   ".to_owned();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let written = match (width, column) {
                (0, _) => Ok(()),
                (_, 1..=3) => write!(text, " {cell:>width$} "),
                _ => write!(text, " {cell:<width$} "),
            };
            // A String takes whatever is written.
            let _ = written;
        }
        line(out, text.trim_end());
    }
}

fn journal_partition(out: &mut String, partition: &JournalPartition, group: &str) {
    let offsets = match partition.high - partition.low {
        0 => "no offsets".to_owned(),
        _ => format!("offsets {} to {}", partition.low, partition.high - 1),
    };
    let held = partition.held.map_or_else(String::new, |held| {
        let foreign = match held.foreign {
            0 => String::new(),
            some => format!(", {} foreign", HumanCount(some)),
        };
        format!(
            ", {} ({}), {}, {}{foreign}",
            counted(held.records, "record"),
            HumanBytes(held.bytes),
            counted(held.runs, "run"),
            counted(held.ids, "id")
        )
    });
    line(
        out,
        &format!("  partition {}: {offsets}{held}", partition.partition),
    );
    if let Some(run) = &partition.first_run {
        line(out, &format!("    first run {}", run_text(run)));
    }
    if let Some(run) = &partition.last_run {
        line(out, &format!("    last run  {}", run_text(run)));
        line(
            out,
            &format!(
                "              stream time {}, input offset {}, next ordinal {}",
                maybe_time(run.stream_time),
                run.input_offset,
                HumanCount(run.next_ordinal)
            ),
        );
    }
    let committed = partition
        .committed
        .map_or_else(|| "none".to_owned(), |offset| offset.to_string());
    line(
        out,
        &format!("    committed input offset of {group}: {committed}"),
    );
    match &partition.store {
        Fit::None => {}
        Fit::Fits => line(
            out,
            "    the store fits: its last run is there, with the same checksum",
        ),
        Fit::Misfit(why) => line(out, &format!("    the store does not fit: {why}")),
    }
    for note in &partition.notes {
        line(out, &format!("    note: {note}"));
    }
}

fn run_text(run: &Run) -> String {
    format!(
        "at {}, written {}, {} from ordinal {}",
        run.offset,
        maybe_time(run.written),
        counted(run.ids, "id"),
        run.first_ordinal
    )
}

pub(super) fn answer(answer: &Answer) -> String {
    let mut out = String::new();
    let partitions = counted(answer.partitions, "partition");
    let remembering = answer
        .sightings
        .iter()
        .filter(|found| found.remembered)
        .count();
    let by = answer.by;
    let verdict = match (remembering, answer.sightings.len()) {
        (0, 0) if answer.partitions == 0 => "not known: nothing could be looked into".to_owned(),
        (0, 0) if !answer.whole => {
            format!("not seen in what could be read of {partitions}, by the {by}")
        }
        (0, 0) => format!("not seen in {partitions}, by the {by}: its next record is let through"),
        (0, some) => format!(
            "forgotten in {some} of {partitions}, by the {by}: its next record is let through"
        ),
        (some, _) => {
            format!(
                "seen in {some} of {partitions}, by the {by}: its next record there is a duplicate"
            )
        }
    };
    line(&mut out, &verdict);
    line(
        &mut out,
        &format!(
            "fingerprint {} in group {}",
            answer.fingerprint, answer.group
        ),
    );
    for found in &answer.sightings {
        sighting(&mut out, found);
    }
    if !answer.notes.is_empty() {
        line(&mut out, "");
    }
    for note in &answer.notes {
        line(&mut out, &format!("note: {note}"));
    }
    missing(&mut out, &answer.missing);
    out
}

fn sighting(out: &mut String, sighting: &Sighting) {
    line(out, &format!("\n{}-{}", sighting.topic, sighting.partition));
    let mut row = |name: &str, value: String| line(out, &format!("  {name:<13} {value}"));
    row(
        "first record",
        match sighting.offset {
            NO_OFFSET if sighting.forgotten => "not known any more".to_owned(),
            NO_OFFSET => "none of this topic: it was preloaded".to_owned(),
            offset => format!("offset {offset}"),
        },
    );
    row(
        "time seen",
        format!(
            "{}, {} before stream time {}",
            time(sighting.time_seen),
            age(sighting.age_ms),
            maybe_time(sighting.stream_time)
        ),
    );
    row("remembered", remembered(sighting));
    row("ordinal", sighting.ordinal.to_string());
    if let (Some(offset), Some(times)) = (sighting.journal_offset, sighting.times_in_journal) {
        let times = match times {
            1 => String::new(),
            more => format!(", which is the newest of {more} that have it"),
        };
        row("journal", format!("in the run at offset {offset}{times}"));
    } else if sighting.times_in_journal.is_some() {
        row("journal", "no run has it any more".to_owned());
    }
    row("store", sighting.store.clone());
}

fn remembered(sighting: &Sighting) -> String {
    let time_is_over = |until: &i64| sighting.stream_time.is_some_and(|now| now > *until);
    let until = sighting.remembered_until;
    let ids = sighting.forgotten_after_ids;
    let limits: Vec<String> = if sighting.remembered {
        let until = until.map(|until| format!("until stream time passes {}", time(until)));
        let ids = ids.map(|ids| format!("until {} more have been let through", counted(ids, "id")));
        until.into_iter().chain(ids).collect()
    } else {
        let until = until
            .filter(time_is_over)
            .map(|until| format!("since stream time passed {}", time(until)));
        let ids = ids.filter(|ids| *ids == 0);
        let ids = ids.map(|_| "since as many ids as the window has were let through".to_owned());
        until.into_iter().chain(ids).collect()
    };
    if sighting.forgotten {
        return "no, an operator had it forgotten then".to_owned();
    }
    match sighting.remembered {
        true => format!("yes, {}", limits.join(" or ")),
        false => format!("no, forgotten {}", limits.join(" and ")),
    }
}

fn missing(out: &mut String, missing: &[String]) {
    for missing in missing {
        line(out, &format!("\nmissing: {missing}"));
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", HumanCount(number))
}

fn maybe_time(ms: Option<i64>) -> String {
    ms.map_or_else(|| "unknown".to_owned(), time)
}

/// The two largest units of it.
fn age(ms: u64) -> String {
    // A fraction of a second is of interest where there are few of them.
    let ms = if ms < 10_000 { ms } else { ms / 1000 * 1000 };
    let whole = humantime::format_duration(Duration::from_millis(ms)).to_string();
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
