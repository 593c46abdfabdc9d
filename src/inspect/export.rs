//! `export`: the seen window as CSV, by the journal. Reads Kafka and changes nothing there; writes one
//! file, or standard output.
//!
//! Each partition is read twice: to find how far it has come, and what is remembered there. So memory
//! is bounded, whatever the window holds.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::cluster::Cluster;
use super::journal::{End, Place, Reader, Record};
use super::progress::Progress;
use super::{Asked, select};
use crate::config::{self, Config, Scope};
use crate::demo::interrupt::Interrupt;
use crate::exit::Stop;
use crate::identify::deployment_seed;
use crate::journal::Run;
use crate::journal::run::NO_OFFSET;
use crate::repartition;
use crate::store::Entry;
use crate::window::{Fingerprint, remembers};

const HEAD: &str = "topic,partition,fingerprint,time_seen,first_offset,expires,deployment";

const NOTES: &str = "\
What it writes: one row for each id that is remembered, oldest first, in CSV.
  topic, partition  of the input
  fingerprint       of the id, in hexadecimal. Ids themselves are kept nowhere, neither in the journal
                    nor in the store: the fingerprint of an id that is known is what
                    `kafka-dedup inspect --id` prints
  time_seen         stream time when it was let through, or renewed last (UTC)
  first_offset      of the record that was let through
  expires           the last stream time at which it is remembered, where window.time is set
  deployment        a hash of kafka.group_id and id.from, which the fingerprints follow from
Each partition ends with a row without a fingerprint: its stream time. With window.refresh an id has a
row for each renewal, and the last one counts.

The journal decides, read as far as it is committed when the export begins; the service may run
meanwhile. It is read twice, in the consumer group's name but without joining or committing. A file is
written under another name first, so that half of one is never taken for the whole.

Examples:
  kafka-dedup export -c dedup.yaml --output seen.csv
  kafka-dedup export -c dedup.yaml --topic orders --partition 3 | gzip > seen-3.csv.gz

Exit status: 0 done, 64 bad usage or config, 69 Kafka unreachable, 70 the file cannot be written,
78 a topic or journal is missing, or cannot be trusted, 130 stopped before the end.";

/// `kafka-dedup export`
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = NOTES)]
pub struct ExportArgs {
    /// Configuration file (YAML)
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// Only this input topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only this partition
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Write to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print what was written, to standard output, as one JSON document
    #[arg(long, requires = "output")]
    pub json: bool,
}

/// What was written of one partition.
#[derive(Debug, Serialize)]
struct Exported {
    topic: String,
    partition: i32,
    rows: u64,
    #[serde(serialize_with = "super::report::serialize_some_time")]
    stream_time: Option<i64>,
}

/// Writes the window.
///
/// # Errors
/// 64 where usage or config is bad, 69 where Kafka does not answer, 70 where the file cannot be
/// written, 78 where a topic or journal is missing or cannot be trusted, 130 where it was stopped.
pub fn run(arguments: &ExportArgs) -> Result<(), Stop> {
    let config = config::load(&arguments.config, config::environment())?;
    let selection = select(arguments.topic.as_ref(), arguments.partition, &config)?;
    let asked = Asked {
        config,
        selection,
        interrupt: Interrupt::listen()?,
    };
    let cluster = Cluster::look(&asked.config, &asked.selection)?;
    if let Some(missing) = cluster.missing.first() {
        return Err(Stop::contradiction(missing.clone()));
    }
    let mut target = Target::open(arguments.output.as_deref())?;
    let exported = match export(&asked, &cluster, &mut target) {
        Ok(exported) => exported,
        // A reader that went away (`export | head`) is no fault.
        Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(Trouble::Io(error)) => return Err(target.failed(&error)),
        Err(Trouble::Stop(stop)) => return Err(stop),
    };
    target.finish()?;
    tell(arguments, &exported)
}

enum Trouble {
    Stop(Stop),
    Io(io::Error),
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn export(asked: &Asked, cluster: &Cluster, target: &mut Target) -> Result<Vec<Exported>, Trouble> {
    writeln!(target.out, "{HEAD}")?;
    let mut reader = Reader::new(asked)?;
    let partitions = cluster.partitions(&asked.selection);
    let progress = Progress::new(
        2 * partitions.len() as u64,
        "readings of journal partitions",
    );
    let mut exported = Vec::with_capacity(partitions.len());
    for (input, partition) in partitions {
        progress.at(&format!("{}-{partition}", input.journal));
        let place = Place {
            cluster,
            input,
            partition,
        };
        exported.push(one(asked, &place, &mut reader, target, &progress)?);
    }
    Ok(exported)
}

/// Writes what one partition remembers.
fn one(
    asked: &Asked,
    place: &Place<'_>,
    reader: &mut Reader<'_>,
    target: &mut Target,
    progress: &Progress,
) -> Result<Exported, Trouble> {
    let (topic, journal, partition) = (&place.input.topic, &place.input.journal, place.partition);
    let read = place.whole(
        reader,
        &Progress::none(),
        super::journal::Scan::new(place.identity(), None),
    )?;
    progress.add(1);
    let notes: Vec<String> = read
        .open_note()
        .into_iter()
        .chain(read.scan.notes())
        .collect();
    if !read.scan.is_sound() {
        return Err(Trouble::Stop(Stop::contradiction(format!(
            "the journal {journal}-{partition} cannot be trusted: {}",
            notes.join("; ")
        ))));
    }
    for note in notes {
        // Nobody reading is no reason to stop.
        let _ = writeln!(io::stderr(), "{journal}-{partition}: {note}");
    }
    let rows = Rows {
        config: &asked.config,
        before: format!("{topic},{partition}"),
        deployment: deployment(&asked.config),
        stream_time_ms: read.scan.stream_time_ms,
        next_ordinal: read.scan.next_ordinal,
        forgotten: read.scan.forgotten,
    };
    let (mut at, end) = (
        read.scan.begins_at.unwrap_or(read.low),
        read.open_at.unwrap_or(read.high),
    );
    let mut count = 0;
    let mut written = Ok(());
    let mut attempts = 0;
    while at < end && written.is_ok() {
        let ended = reader.read(journal, partition, at..end, |record| {
            at = record.offset + 1;
            written = rows.write(&record, &mut target.out, &mut count);
            written.is_ok()
        })?;
        match ended {
            End::Reached | End::Enough => break,
            // What is trimmed meanwhile is remembered no longer.
            End::Trimmed if attempts < ATTEMPTS => {
                attempts += 1;
                at = at.max(place.watermarks()?.0);
            }
            End::Trimmed | End::Open(_) => {
                return Err(Trouble::Stop(Stop::unreachable(format!(
                    "the journal {journal}-{partition} changed faster than it was read: try again"
                ))));
            }
        }
    }
    written?;
    let end = read.scan.stream_time_ms.map(stamp).unwrap_or_default();
    writeln!(
        target.out,
        "{topic},{partition},,{end},,,{}",
        rows.deployment
    )?;
    progress.add(1);
    Ok(Exported {
        topic: topic.clone(),
        partition,
        rows: count,
        stream_time: read.scan.stream_time_ms,
    })
}

/// How often a reading goes on where the journal was trimmed meanwhile.
const ATTEMPTS: u32 = 20;

/// How rows are told from what is over, and written.
struct Rows<'a> {
    config: &'a Config,
    /// Topic and partition.
    before: String,
    deployment: String,
    stream_time_ms: Option<i64>,
    next_ordinal: u64,
    /// Ids that were forgotten, and when last.
    forgotten: HashMap<Fingerprint, u64>,
}

impl Rows<'_> {
    /// What of a run is remembered. O(its bytes).
    fn write(&self, record: &Record<'_>, out: &mut dyn Write, count: &mut u64) -> io::Result<()> {
        // The first reading has told of all that is no run.
        let Ok(run) = Run::decode(record.value) else {
            return Ok(());
        };
        let columns = run.fingerprints.iter().zip(&run.times_ms).zip(&run.offsets);
        let payloads = run.payloads.iter().copied().chain(std::iter::repeat(0));
        for (ordinal, (((fingerprint, time_ms), offset), payload)) in
            (run.first_ordinal..).zip(columns.zip(payloads))
        {
            let entry = Entry {
                time_ms: *time_ms,
                offset: *offset,
                ordinal,
                payload,
            };
            let window = self.config.window;
            let is_hidden = self
                .forgotten
                .get(fingerprint)
                .is_some_and(|then| ordinal <= *then);
            if is_hidden || !remembers(window, &entry, self.stream_time_ms, self.next_ordinal) {
                continue;
            }
            let expires = window.time_ms.map(|ms| stamp(time_ms.saturating_add(ms)));
            let first = (*offset != NO_OFFSET).then(|| match self.config.scope {
                Scope::Repartition => {
                    let (partition, offset) = repartition::unpacked(*offset);
                    format!("{partition}/{offset}")
                }
                Scope::Partition | Scope::Copartition | Scope::Topic => offset.to_string(),
            });
            writeln!(
                out,
                "{},{fingerprint:032x},{},{},{},{}",
                self.before,
                stamp(*time_ms),
                first.unwrap_or_default(),
                expires.unwrap_or_default(),
                self.deployment
            )?;
            *count += 1;
        }
        Ok(())
    }
}

/// What fingerprints follow from, beside the ids: two deployments that differ in it have none in common.
pub(crate) fn deployment(config: &Config) -> String {
    let seed = deployment_seed(&config.kafka.group_id);
    let hash = xxh3_64_with_seed(config.id.from.mark().as_bytes(), seed);
    format!("{hash:016x}")
}

/// RFC 3339 in UTC; milliseconds since 1970 where no calendar reaches.
fn stamp(ms: i64) -> String {
    const YEAR_10000_MS: u64 = 253_402_300_800_000;
    match u64::try_from(ms) {
        Ok(since) if since < YEAR_10000_MS => {
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(since)).to_string()
        }
        _ => ms.to_string(),
    }
}

/// Where rows go.
struct Target {
    out: Box<dyn Write>,
    /// The file, and its name until it is whole.
    file: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(path: Option<&Path>) -> Result<Self, Stop> {
        let Some(path) = path else {
            return Ok(Self {
                out: Box::new(BufWriter::new(io::stdout().lock())),
                file: None,
            });
        };
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial)
            .map_err(|error| Stop::usage(format!("--output {}: {error}", path.display())))?;
        Ok(Self {
            out: Box::new(BufWriter::new(file)),
            file: Some((path.to_owned(), partial)),
        })
    }

    /// All rows are written: the file gets its name.
    fn finish(mut self) -> Result<(), Stop> {
        self.out.flush().map_err(|error| self.failed(&error))?;
        let Some((path, partial)) = self.file.take() else {
            return Ok(());
        };
        let named = File::open(&partial)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&partial, &path));
        named.map_err(|error| unwritten(&path.display().to_string(), &error))
    }

    fn failed(&self, error: &io::Error) -> Stop {
        let name = self.file.as_ref().map_or_else(
            || "standard output".to_owned(),
            |(path, _)| path.display().to_string(),
        );
        unwritten(&name, error)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((_, partial)) = &self.file {
            let _ = fs::remove_file(partial);
        }
    }
}

fn unwritten(name: &str, error: &io::Error) -> Stop {
    Stop::internal(format!("{name} cannot be written: {error}"))
}

/// What was written, where that does not stand on a person's terminal already.
fn tell(arguments: &ExportArgs, exported: &[Exported]) -> Result<(), Stop> {
    if arguments.json {
        print(&mut io::stdout(), &super::json(&exported)?);
        return Ok(());
    }
    let mut text = String::new();
    for it in exported {
        let rows = indicatif::HumanCount(it.rows);
        let time = it.stream_time.map_or("not known".to_owned(), stamp);
        text += &format!(
            "{}-{}: {rows} ids, stream time {time}\n",
            it.topic, it.partition
        );
    }
    match &arguments.output {
        Some(_) => print(&mut io::stdout(), &text),
        None if io::stdout().is_terminal() => {}
        None => print(&mut io::stderr(), &text),
    }
    Ok(())
}

fn print(to: &mut dyn Write, text: &str) {
    // Nobody reading is no reason to fail: the rows are written.
    let _ = to.write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_so_that_they_can_be_read_again() {
        assert_eq!(stamp(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(stamp(-1), "-1");
        assert_eq!(stamp(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn a_file_that_was_not_finished_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen.csv");
        let mut target = Target::open(Some(&path)).unwrap();
        writeln!(target.out, "x").unwrap();
        drop(target);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut target = Target::open(Some(&path)).unwrap();
        writeln!(target.out, "x").unwrap();
        target.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "x\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
