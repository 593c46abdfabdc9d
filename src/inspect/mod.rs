//! `inspect`: what the store and the journal hold, and whether an id was seen. Reads, and changes
//! nothing.
//!
//! In the order of the data: arguments (here) → `cluster` (which topics there are, and whose store
//! would be theirs) → `stored` (the store's directories) → `journal` (the runs, which are the
//! truth) → `lookup` (one id in both) → `report` (what was found) → `text` (for a person). The same
//! journal as a table is `export`, a command of its own.

mod cluster;
mod export;
mod journal;
mod lookup;
mod progress;
mod report;
mod stored;
mod text;

pub(crate) use export::deployment;
pub use export::{ExportArgs, run as export};
pub(crate) use lookup::{from_hex, wanted_id};
pub(crate) use progress::Progress;
pub(crate) use report::{serialize_some_time, time};

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::config::{self, Config};
use crate::demo::interrupt::Interrupt;
use crate::exit::{Status, Stop};
use crate::journal::Terms;
use crate::topics::OwnTopics;
use cluster::Cluster;

const NOTES: &str = "\
What it reads, and how:
  The store's slices are copied to the directory for temporary files (TMPDIR), one at a time, and
  the copy is read, every id of it; no file of the store is changed. The directories of a running
  service are not read, only listed: its /status page, or stopping it, says more.
  The journal is read as the service reads it at a start, committed runs only, in the consumer
  group's name but without joining or committing. With --no-journal-scan only its ends are read.
  With --id the journal decides; the store says which slice holds the id. A record in a transaction
  that is open now is not seen yet.

Examples:
  kafka-dedup inspect -c dedup.yaml
  kafka-dedup inspect -c dedup.yaml --id 4711 --topic truck_position
  kafka-dedup inspect -c dedup.yaml --json | jq '.store.scopes[] | {topic, partition, ids}'

Exit status: 0 done (seen or not), 64 bad usage or config, 69 Kafka unreachable,
78 a topic or journal is missing, or nothing could be read, 130 stopped before the answer.";

/// `kafka-dedup inspect`
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = NOTES)]
pub struct InspectArgs {
    /// Configuration file (YAML)
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// Only this input topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only this partition
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Look up this id, as text; once for each part where id.from is {all: [...]}, source and id where it is cloudevents
    #[arg(
        long,
        value_name = "VALUE",
        allow_hyphen_values = true,
        conflicts_with = "id_hex"
    )]
    pub id: Vec<String>,
    /// Look up this id, as bytes in hexadecimal
    #[arg(long, value_name = "HEX")]
    pub id_hex: Vec<String>,
    /// Read the store alone, without Kafka
    #[arg(long)]
    pub offline: bool,
    /// Read only the first and the last run of each journal partition
    #[arg(long, conflicts_with_all = ["id", "id_hex", "offline"])]
    pub no_journal_scan: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Which of the scopes are asked about.
#[derive(Debug, Clone, Default)]
struct Selection {
    topic: Option<String>,
    partition: Option<i32>,
}

impl Selection {
    fn has(&self, topic: &str, partition: i32) -> bool {
        self.topic.as_deref().is_none_or(|only| only == topic)
            && self.partition.is_none_or(|only| only == partition)
    }

    fn is_all(&self) -> bool {
        self.topic.is_none() && self.partition.is_none()
    }
}

/// What is asked, of which deployment, and whether the answer is still awaited.
struct Asked {
    config: Config,
    selection: Selection,
    interrupt: Interrupt,
}

impl Asked {
    /// Of all partitions of one input.
    fn of_topic(config: &Config, topic: &str, interrupt: &Interrupt) -> Self {
        Self {
            config: config.clone(),
            selection: Selection {
                topic: Some(topic.to_owned()),
                partition: None,
            },
            interrupt: interrupt.clone(),
        }
    }

    /// # Errors
    /// Somebody has asked the command to end (130).
    fn go_on(&self) -> Result<(), Stop> {
        match self.interrupt.is_asked() {
            true => Err(Stop::interrupted(
                "stopped before the answer was there, as asked: nothing was changed, and no file is left half written",
            )),
            false => Ok(()),
        }
    }
}

/// Says what there is; the answer goes to standard output, also where it is not whole.
///
/// # Errors
/// 64 where usage or config is bad, 69 where Kafka does not answer, 78 where a topic or a journal is
/// missing or nothing could be read, 130 where it was stopped.
pub fn run(arguments: &InspectArgs) -> Result<(), Stop> {
    let config = config::load(&arguments.config, config::environment())?;
    let selection = select(arguments.topic.as_ref(), arguments.partition, &config)?;
    let wanted = lookup::wanted(arguments, &config)?;
    let asked = Asked {
        config,
        selection,
        interrupt: Interrupt::listen()?,
    };
    let cluster = match arguments.offline {
        true => Ok(None),
        false => Cluster::look(&asked.config, &asked.selection).map(Some),
    };
    // A cluster that does not answer is no reason to keep quiet about the store.
    let (cluster, mut trouble) = match cluster {
        Ok(cluster) => (cluster, None),
        Err(stop) if stop.status == Status::Usage => return Err(stop),
        Err(stop) => (None, Some(stop)),
    };
    let (json, text) = match wanted {
        None => {
            let scan = !arguments.no_journal_scan;
            let overview = overview(&asked, cluster.as_ref(), scan, &mut trouble);
            (json(&overview), text::overview(&overview))
        }
        Some(wanted) => {
            let answer = lookup::answer(&asked, cluster.as_ref(), &wanted, &mut trouble);
            (json(&answer), text::answer(&answer))
        }
    };
    asked.go_on()?;
    let out = if arguments.json { json? } else { text };
    // A reader that went away (`inspect | head`) is no fault.
    let _ = io::stdout().write_all(out.as_bytes());
    let missing = cluster.and_then(|cluster| cluster.missing.first().cloned());
    match trouble.or(missing.map(Stop::contradiction)) {
        Some(stop) => Err(stop),
        None => Ok(()),
    }
}

fn select(
    topic: Option<&String>,
    partition: Option<i32>,
    config: &Config,
) -> Result<Selection, Stop> {
    if let Some(topic) = topic
        && OwnTopics::new(config).resolve(&[topic]).is_empty()
    {
        let inputs: Vec<&str> = config.input.topics.iter().map(|t| t.as_str()).collect();
        return Err(Stop::usage(format!(
            "--topic {topic}: it is no input of this config, whose input.topics are {}",
            inputs.join(", ")
        )));
    }
    Ok(Selection {
        topic: topic.cloned(),
        partition,
    })
}

/// Store and journal. `trouble` is why the answer is not whole, where it is not.
fn overview(
    asked: &Asked,
    cluster: Option<&Cluster>,
    scan: bool,
    trouble: &mut Option<Stop>,
) -> report::Overview {
    let mut store = stored::look(asked, cluster);
    let journal = cluster.and_then(
        |cluster| match journal::look(asked, cluster, &store, scan) {
            Ok(partitions) => Some(partitions),
            Err(stop) => {
                *trouble = Some(stop);
                None
            }
        },
    );
    let kafka = trouble.as_ref().map(ToString::to_string);
    store.tell_ages(journal.as_deref().unwrap_or_default());
    if cluster.is_none() && trouble.is_none() {
        *trouble = store.nothing_read();
    }
    report::Overview {
        group: asked.config.kafka.group_id.clone(),
        store,
        journal,
        missing: cluster
            .map(|cluster| cluster.missing.clone())
            .unwrap_or_default(),
        kafka,
    }
}

/// The end of one journal partition, as far as it is committed.
pub(crate) struct JournalEnd {
    pub partition: i32,
    /// The input offset that its last run was committed with.
    pub input_offset: i64,
    /// The last run was written by `preload`.
    pub is_preload: bool,
    /// Under which it was written.
    pub terms: Option<Terms>,
}

/// The ends of the journal of one input; partitions without a run are left out. Reads all of it.
///
/// # Errors
/// 69 where Kafka does not answer, 75 where an open transaction is in the way, 78 where the journal
/// cannot be trusted, 130 where it was stopped.
pub(crate) fn journal_ends(
    config: &Config,
    topic: &str,
    interrupt: &Interrupt,
) -> Result<Vec<JournalEnd>, Stop> {
    let asked = Asked::of_topic(config, topic, interrupt);
    let cluster = Cluster::look(&asked.config, &asked.selection)?;
    let mut reader = journal::Reader::new(&asked)?;
    let mut ends = Vec::new();
    for place in places(&cluster, &asked.selection) {
        let empty = journal::Scan::new(place.identity(), None);
        let read = place.whole(&mut reader, &Progress::none(), empty)?;
        if let Some(open) = read.open_note() {
            return Err(Stop::restart(format!("{}: {open}", place.name())));
        }
        ends.extend(JournalEnd::of(&place, read.scan)?);
    }
    Ok(ends)
}

/// The end of some partition of the journal of one input, as far as it can be read now; `None` where none of
/// them holds a run. Reads the ends alone.
///
/// # Errors
/// 69 where Kafka does not answer, 75 where nothing but an open transaction was found, 78 where the journal
/// cannot be trusted, 130 where it was stopped.
pub(crate) fn journal_end(
    config: &Config,
    topic: &str,
    interrupt: &Interrupt,
) -> Result<Option<JournalEnd>, Stop> {
    let asked = Asked::of_topic(config, topic, interrupt);
    let cluster = Cluster::look(&asked.config, &asked.selection)?;
    let mut reader = journal::Reader::hasty(&asked)?;
    let mut open = None;
    for place in places(&cluster, &asked.selection) {
        let read = place.ends(&mut reader, place.watermarks()?, None)?;
        open = read.open_note().map(|note| (place.name(), note)).or(open);
        if let Some(end) = JournalEnd::of(&place, read.scan)? {
            return Ok(Some(end));
        }
    }
    match open {
        Some((journal, note)) => Err(Stop::restart(format!("{journal}: {note}"))),
        None => Ok(None),
    }
}

fn places<'a>(
    cluster: &'a Cluster,
    selection: &Selection,
) -> impl Iterator<Item = journal::Place<'a>> {
    let partitions = cluster.partitions(selection).into_iter();
    partitions.map(move |(input, partition)| journal::Place {
        cluster,
        input,
        partition,
    })
}

impl JournalEnd {
    /// `None` where there is no run.
    ///
    /// # Errors
    /// 78 where what was read cannot be trusted.
    fn of(place: &journal::Place<'_>, scan: journal::Scan) -> Result<Option<Self>, Stop> {
        if !scan.is_sound() {
            return Err(Stop::contradiction(format!(
                "the journal {} cannot be trusted: {}",
                place.name(),
                scan.notes().join("; ")
            )));
        }
        Ok(scan.next_offset().map(|input_offset| Self {
            partition: place.partition,
            input_offset,
            is_preload: scan.is_preload,
            terms: scan.terms,
        }))
    }
}

fn json(report: &impl Serialize) -> Result<String, Stop> {
    serde_json::to_string_pretty(report)
        .map(|text| text + "\n")
        .map_err(|error| Stop::internal(format!("the report is no JSON: {error}")))
}
