//! What was found, as data: the JSON document is these types as they stand, and `text` prints them.
//! Times are strings (RFC 3339), ages are in milliseconds of stream time, sizes in bytes.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    pub group: String,
    pub store: Store,
    /// `None` where Kafka was not asked, or did not answer.
    pub journal: Option<Vec<JournalPartition>>,
    /// Topics that should be there.
    pub missing: Vec<String>,
    /// Why Kafka did not answer.
    pub kafka: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Store {
    pub path: String,
    /// Why it could not be read.
    pub trouble: Option<String>,
    pub scopes: Vec<Scope>,
    /// Directories that no input of this config has.
    pub foreign: Vec<Foreign>,
    pub total: Total,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Total {
    pub scopes: u64,
    pub slices: u64,
    pub ids: u64,
    /// Of all slices, foreign and set aside ones included.
    pub bytes: u64,
    pub damaged: u64,
    pub set_aside: u64,
}

/// The directory of a partition of ours.
#[derive(Debug, Serialize)]
pub(super) struct Scope {
    pub directory: String,
    pub topic: String,
    pub partition: i32,
    /// By a running service; then only names and sizes are known.
    pub in_use: bool,
    /// Starts in a row that ended while the slices were opened.
    pub unfinished_starts: u32,
    /// Oldest first.
    pub slices: Vec<Slice>,
    /// Slices that the newest one names and that are not there.
    pub missing_slices: u64,
    /// What the next start goes on from.
    pub checkpoint: Option<Checkpoint>,
    /// The run that the checkpoint names.
    #[serde(skip)]
    pub anchor: Option<crate::store::Anchor>,
    pub set_aside: Vec<Aside>,
    /// Of sound slices.
    pub ids: u64,
    pub bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Slice {
    pub name: String,
    pub bytes: u64,
    /// When its files were changed last, by the wall clock.
    #[serde(serialize_with = "serialize_some_time")]
    pub changed: Option<i64>,
    pub state: State,
    /// What is wrong with it.
    pub why: Option<String>,
    /// Whether the newest slice's checkpoint names it; `None` where that is not known.
    pub on_chain: Option<bool>,
    /// Whether the next start would take it: on the chain, and no gap before it.
    pub used_at_start: Option<bool>,
    /// What it says of itself, where it is sound.
    pub seal: Option<Seal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    Sound,
    Damaged,
    /// Of another cluster, topic, journal or build.
    Foreign,
    /// Without a seal record: a write that did not end.
    Unfinished,
    /// Not looked into.
    Unread,
}

#[derive(Debug, Serialize)]
pub(super) struct Seal {
    pub ids: u64,
    pub chunks: u32,
    pub first_ordinal: u64,
    /// One more than the last.
    pub end_ordinal: u64,
    #[serde(serialize_with = "serialize_time")]
    pub oldest_time: i64,
    #[serde(serialize_with = "serialize_time")]
    pub newest_time: i64,
    /// Behind the scope's stream time.
    pub oldest_age_ms: Option<u64>,
    pub newest_age_ms: Option<u64>,
    /// The journal from here on rebuilds it and all newer ones.
    pub journal_from: i64,
    pub seal: String,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Checkpoint {
    /// The next input offset to judge.
    pub input_offset: i64,
    /// Journal offset of the last run that was taken in.
    pub journal_offset: i64,
    /// Of that run.
    pub checksum: String,
    #[serde(serialize_with = "serialize_some_time")]
    pub stream_time: Option<i64>,
    pub next_ordinal: u64,
}

impl Checkpoint {
    pub fn of(checkpoint: &crate::store::Checkpoint) -> Self {
        Self {
            input_offset: checkpoint.next_offset,
            journal_offset: checkpoint.anchor.offset,
            checksum: hex(checkpoint.anchor.checksum),
            stream_time: checkpoint.stream_time_ms,
            next_ordinal: checkpoint.next_ordinal,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Aside {
    pub name: String,
    pub reason: String,
    #[serde(serialize_with = "serialize_some_time")]
    pub since: Option<i64>,
    /// By the wall clock.
    pub age_ms: Option<u64>,
    pub bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Foreign {
    pub directory: String,
    pub why: String,
    pub slices: u64,
    pub bytes: u64,
}

/// A partition of a journal.
#[derive(Debug, Serialize)]
pub(super) struct JournalPartition {
    pub topic: String,
    pub partition: i32,
    pub journal: String,
    pub low: i64,
    /// True high watermark: open and aborted transactions count.
    pub high: i64,
    /// Counts; `None` where only the ends were read.
    pub held: Option<Held>,
    pub first_run: Option<Run>,
    pub last_run: Option<Run>,
    /// The group's committed input offset.
    pub committed: Option<i64>,
    /// Whether the store's checkpoint fits: its last run is there, with the same checksum.
    pub store: Fit,
    /// What a person should know.
    pub notes: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Held {
    /// Committed records; markers and aborted ones do not count.
    pub records: u64,
    /// Of their values.
    pub bytes: u64,
    pub runs: u64,
    /// Letting-through and renewals.
    pub ids: u64,
    /// Records that are no runs.
    pub foreign: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Run {
    pub offset: i64,
    #[serde(serialize_with = "serialize_some_time")]
    pub written: Option<i64>,
    pub ids: u64,
    pub first_ordinal: u64,
    pub next_ordinal: u64,
    #[serde(serialize_with = "serialize_some_time")]
    pub stream_time: Option<i64>,
    /// The input offset that was committed with it.
    pub input_offset: i64,
    pub checksum: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "fit", content = "why", rename_all = "kebab-case")]
pub(super) enum Fit {
    /// The store has no checkpoint, or it is not known.
    None,
    Fits,
    Misfit(String),
}

/// What is known of one id.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub group: String,
    pub fingerprint: String,
    /// Whether any partition has it and remembers it; `None` where none could be looked into.
    pub seen: Option<bool>,
    /// `journal`, or `store` where Kafka was not asked.
    pub by: &'static str,
    /// How many partitions were looked into.
    pub partitions: u64,
    /// Whether all that could know of it was read; else "not seen" holds for what was.
    pub whole: bool,
    /// Those that know it.
    pub sightings: Vec<Sighting>,
    /// What a person should know.
    pub notes: Vec<String>,
    pub missing: Vec<String>,
    /// Why Kafka did not answer.
    pub kafka: Option<String>,
}

/// A partition that knows the id.
#[derive(Debug, Serialize)]
pub(super) struct Sighting {
    /// Of the first record.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Stream time when it was let through (or renewed last).
    #[serde(serialize_with = "serialize_time")]
    pub time_seen: i64,
    pub age_ms: u64,
    pub ordinal: u64,
    /// The run that says so; `None` where the store alone was asked.
    pub journal_offset: Option<i64>,
    /// Letting-through and renewals that the journal holds.
    pub times_in_journal: Option<u64>,
    pub remembered: bool,
    /// By an operator's word.
    pub forgotten: bool,
    /// The last stream time at which it is remembered, where the window has a time.
    #[serde(serialize_with = "serialize_some_time")]
    pub remembered_until: Option<i64>,
    /// After so many more letting-through (or renewals) it is forgotten, where the window has a count;
    /// 0 where that is over.
    pub forgotten_after_ids: Option<u64>,
    #[serde(serialize_with = "serialize_some_time")]
    pub stream_time: Option<i64>,
    pub slice: Option<String>,
    /// Where in the store it is, or why that is not known.
    pub store: String,
}

/// A checksum.
pub(super) fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// RFC 3339 in UTC; a count of milliseconds where no calendar reaches.
pub(crate) fn time(ms: i64) -> String {
    const YEAR_10000_MS: u64 = 253_402_300_800_000;
    match u64::try_from(ms) {
        Ok(ms) if ms < YEAR_10000_MS => {
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
        }
        _ => format!("{ms} ms since 1970"),
    }
}

/// RFC 3339 in UTC, to the second.
pub(super) fn time_in_seconds(ms: i64) -> String {
    let whole = time(ms);
    match whole.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => whole,
    }
}

fn serialize_time<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time(*ms))
}

pub(crate) fn serialize_some_time<S: Serializer>(
    ms: &Option<i64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match ms {
        Some(ms) => serialize_time(ms, serializer),
        None => serializer.serialize_none(),
    }
}
