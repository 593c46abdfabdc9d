//! Of log lines that are alike, one a minute is written, with the count of those that were left out.
//!
//! It sits between the events and the text that is made of them, so it holds for every line of the
//! process, librdkafka's too, and no place that logs needs to know of it. Lines at debug and trace are
//! all written: who asks for them wants each.
//!
//! Lines are alike when they come from the same place in the code and speak of the same things (the
//! fields of [`EXACT`]), whatever numbers are in them. The last one that was left out is kept, and is
//! written when its minute is over, with the time at which it happened; what is left at the end is
//! counted.

use std::collections::HashMap;
use std::fmt::{self, Debug, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::mem::take;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// A line that is like another is written again after this long.
const QUIET: Duration = Duration::from_secs(60);
/// Kinds of lines that are remembered at a time (I8).
const KINDS: usize = 1024;
/// How often it is looked for lines whose minute is over, and how often the text of one that is left
/// out is made.
const LOOK: Duration = Duration::from_secs(1);
/// Lines that differ in one of these are not alike; whatever else they hold may differ in its digits.
const EXACT: &[&str] = &[
    "cause",
    "component",
    "how",
    "journal",
    "partition",
    "partitions",
    "schema",
    "slice",
    "step",
    "topic",
    "what",
    "worker",
];

/// What was written lately, and what was left out of it; of one process.
#[derive(Default)]
pub struct Lines {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    kinds: HashMap<u64, Kind>,
    looked: Option<Instant>,
}

struct Kind {
    written: Instant,
    /// Since then.
    left_out: u64,
    /// The text of one of those, and when it was made.
    kept: Option<(Instant, String)>,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is written, after so many were left out.
    Written {
        left_out: u64,
    },
    /// It is counted, and its text is wanted.
    Kept,
    Counted,
}

impl Lines {
    fn fate(&self, kind: u64, now: Instant) -> (Fate, Vec<(String, u64)>) {
        let mut seen = self.lock();
        let mut untold = Vec::new();
        let fate = match seen.kinds.get_mut(&kind) {
            Some(known) if now.duration_since(known.written) < QUIET => {
                known.left_out += 1;
                let fresh = |(made, _): &(Instant, String)| now.duration_since(*made) < LOOK;
                match known.kept.as_ref().is_some_and(fresh) {
                    true => Fate::Counted,
                    false => Fate::Kept,
                }
            }
            Some(known) => {
                known.written = now;
                known.kept = None;
                let left_out = take(&mut known.left_out);
                Fate::Written { left_out }
            }
            None => {
                if seen.kinds.len() >= KINDS {
                    untold.extend(seen.forget_oldest());
                }
                let fresh = Kind {
                    written: now,
                    left_out: 0,
                    kept: None,
                };
                seen.kinds.insert(kind, fresh);
                Fate::Written { left_out: 0 }
            }
        };
        untold.extend(seen.overdue(now));
        (fate, untold)
    }

    fn keep(&self, kind: u64, now: Instant, text: String) {
        if let Some(known) = self.lock().kinds.get_mut(&kind)
            && known.left_out > 0
        {
            known.kept = Some((now, text));
        }
    }

    /// Writes what was left out and whose minute is over; for a process that logs nothing else.
    pub fn catch_up(&self, format: LogFormat) {
        let overdue = self.lock().overdue(Instant::now());
        print(overdue, format);
    }

    /// How many lines were left out and not told of.
    pub fn untold(&self) -> u64 {
        let seen = self.lock();
        seen.kinds.values().map(|kind| kind.left_out).sum()
    }

    /// Whole even where a holder panicked: a panic is itself logged.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// The texts of those whose minute is over, and how many more there were. O(kinds), once a second.
    fn overdue(&mut self, now: Instant) -> Vec<(String, u64)> {
        if self.looked.is_some_and(|at| now.duration_since(at) < LOOK) {
            return Vec::new();
        }
        self.looked = Some(now);
        let over = |kind: &&mut Kind| now.duration_since(kind.written) >= QUIET;
        let mut untold = Vec::new();
        for kind in self.kinds.values_mut().filter(over) {
            if let Some((made, text)) = kind.kept.take() {
                untold.push((made, text, take(&mut kind.left_out).saturating_sub(1)));
                kind.written = now;
            }
        }
        untold.sort_by_key(|(made, _, _)| *made);
        untold
            .into_iter()
            .map(|(_, text, left_out)| (text, left_out))
            .collect()
    }

    fn forget_oldest(&mut self) -> Option<(String, u64)> {
        let oldest = self.kinds.iter().min_by_key(|(_, kind)| kind.written);
        let oldest = *oldest?.0;
        self.kinds.remove(&oldest)?.untold()
    }
}

impl Kind {
    fn untold(self) -> Option<(String, u64)> {
        let (_, text) = self.kept?;
        Some((text, self.left_out.saturating_sub(1)))
    }
}

fn print(untold: impl IntoIterator<Item = (String, u64)>, format: LogFormat) {
    for (text, left_out) in untold {
        // Nobody can be told where this fails.
        let _ = std::io::stderr().write_all(with_count(text, left_out, format).as_bytes());
    }
}

/// A format of which lines that repeat are left out. Each line is one line, whatever is in it.
pub struct OnceAMinute<E> {
    pub inner: E,
    pub format: LogFormat,
    pub coloured: bool,
    pub lines: &'static Lines,
}

impl<S, N, E> FormatEvent<S, N> for OnceAMinute<E>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    E: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let text = || {
            let mut text = String::new();
            let made = self
                .inner
                .format_event(context, Writer::new(&mut text), event);
            made.map(|()| one_line(&text, self.coloured))
        };
        if *event.metadata().level() > Level::INFO {
            return writer.write_str(&text()?);
        }
        let (kind, now) = (kind(event), Instant::now());
        let (fate, untold) = self.lines.fate(kind, now);
        for (text, left_out) in untold {
            writer.write_str(&with_count(text, left_out, self.format))?;
        }
        match fate {
            Fate::Written { left_out } => {
                writer.write_str(&with_count(text()?, left_out, self.format))
            }
            Fate::Kept => {
                self.lines.keep(kind, now, text()?);
                Ok(())
            }
            Fate::Counted => Ok(()),
        }
    }
}

/// Line breaks and other control characters within an event come from texts of others: brokers, the
/// client library, panics. Colours are left as they are where they are `coloured`.
fn one_line(text: &str, coloured: bool) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    let mut line = String::with_capacity(text.len() + 1);
    for (at, c) in text.char_indices() {
        if c.is_control() && !(coloured && is_colour(&text[at..])) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

/// `ESC [ 31 m` and the like.
fn is_colour(text: &str) -> bool {
    text.strip_prefix("\x1b[")
        .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'))
        .is_some_and(|rest| rest.starts_with('m'))
}

/// As the last field of the line.
fn with_count(text: String, left_out: u64, format: LogFormat) -> String {
    if left_out == 0 {
        return text;
    }
    let line = text.trim_end();
    match (format, line.strip_suffix('}')) {
        (LogFormat::Json, Some(fields)) => format!("{fields},\"left_out\":{left_out}}}\n"),
        _ => format!("{line} left_out={left_out}\n"),
    }
}

/// The same of all events that are alike.
fn kind(event: &Event<'_>) -> u64 {
    let mut likeness = Likeness::default();
    event.metadata().callsite().hash(&mut likeness.hasher);
    event.record(&mut likeness);
    likeness.hasher.finish()
}

#[derive(Default)]
struct Likeness {
    hasher: DefaultHasher,
    text: String,
}

impl Likeness {
    fn number(&mut self, field: &Field, value: i128) {
        if EXACT.contains(&field.name()) {
            (field.name(), value).hash(&mut self.hasher);
        }
    }
}

impl Visit for Likeness {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value.into());
    }

    fn record_f64(&mut self, _: &Field, _: f64) {}

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text.clear();
        // A String takes all.
        let _ = write!(self.text, "{value:?}");
        field.name().hash(&mut self.hasher);
        if EXACT.contains(&field.name()) {
            self.text.hash(&mut self.hasher);
        } else {
            // What is between the numbers.
            let between = self.text.split(|c: char| c.is_ascii_digit());
            between
                .filter(|it| !it.is_empty())
                .for_each(|it| it.hash(&mut self.hasher));
        }
    }
}

#[cfg(test)]
#[path = "once_a_minute_tests.rs"]
mod tests;
