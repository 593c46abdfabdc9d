//! `verify`: is what came out what had to come out? The audit to run in production, or after an
//! incident.
//!
//! In the order of the data: `arguments` → `plan` (which partitions, which range of each) → `feeds`
//! (their records, one by one) → `record` (as they are compared) → `judge` (the rules, replayed; what
//! the wall clock said is asked of the journal, `witness`) → `scope` (what must follow from a record) → `matching`
//! (what should be there, held against what is) → `events` (what that says) → `audit` (the course of it all; `hops`
//! where there are two) → `findings` → `report`. Joins no group, commits and makes nothing.

mod arguments;
mod audit;
mod events;
mod feeds;
mod findings;
mod hops;
mod judge;
mod kin;
mod matching;
mod plan;
mod progress;
mod record;
mod refusals;
mod report;
mod scope;
mod witness;

pub use arguments::VerifyArgs;

use std::io::{self, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::config::{self, Config, Scope};
use crate::demo::interrupt::Interrupt;
use crate::exit::{Status, Stop};
use crate::identify::{Identifier, deployment_seed};
use crate::scan::printable;
use crate::schemas::Schemas;
use audit::Room;
use feeds::{Feeds, Part};
use findings::{Findings, Outcome, Place};
use plan::{Group, Order};
use progress::Progress;
use report::Report;

/// An audit is made so many times at most, where records go away while they are read.
const ATTEMPTS: u32 = 5;

/// Audits, and prints what was found.
///
/// # Errors
/// 1 where there is a difference, or with `--strict` something that cannot be known; 64 bad usage or
/// config, 69 Kafka unreachable, 75 records went away while they were read, 78 a topic is missing or
/// nothing was committed, 130 stopped from outside.
pub fn run(arguments: &VerifyArgs) -> Result<(), Stop> {
    let began = Instant::now();
    let config = config::load(&arguments.config, config::environment())?;
    let interrupt = Interrupt::listen()?;
    let schemas = Schemas::start(&config, None)?;
    let tools = Tools {
        config: &config,
        schemas: &schemas,
        interrupt: &interrupt,
    };
    let mut left = ATTEMPTS;
    let mut findings = loop {
        left -= 1;
        match audited(arguments, &tools) {
            // The service beside us trims its journal, and retention goes on: nothing is wrong with that.
            Err(stop) if stop.status == Status::Restart && left > 0 => {}
            outcome => break outcome?,
        }
    };
    name_ids(&config, &schemas, &mut findings, &interrupt);
    let report = Report {
        group: &config.kafka.group_id,
        findings: &findings,
        elapsed: began.elapsed(),
    };
    print(&if arguments.json {
        report.json()
    } else {
        report.text()
    });
    verdict(&findings, arguments.strict)
}

struct Tools<'a> {
    config: &'a Config,
    schemas: &'a Schemas,
    interrupt: &'a Interrupt,
}

/// The whole audit, once.
fn audited(arguments: &VerifyArgs, tools: &Tools<'_>) -> Result<Findings, Stop> {
    let Tools {
        config,
        schemas,
        interrupt,
    } = *tools;
    let now = SystemTime::now();
    let groups = plan::survey(&Order {
        config,
        topic: arguments.topic.as_deref(),
        partition: arguments.partition,
        from: arguments.from.at(now),
        to: arguments.to.at(now),
        interrupt,
    })?;
    let mut progress = Progress::new(groups.iter().map(offsets).sum());
    let mut findings = Findings::new(arguments.show.into());
    let wall = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    for group in groups {
        if let Some(input) = group.inputs.first() {
            progress.at(&format!("{}-{}", input.part.topic, input.part.partition));
        }
        let mut room = Room {
            config,
            schemas,
            interrupt,
            progress: &mut progress,
            findings: &mut findings,
            memory_bytes: usize::try_from(arguments.memory.as_u64()).unwrap_or(usize::MAX),
            now_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
        };
        match config.scope {
            Scope::Repartition => hops::audit(group, &mut room)?,
            Scope::Partition | Scope::Copartition | Scope::Topic => audit::audit(group, &mut room)?,
        }
    }
    Ok(findings)
}

fn verdict(findings: &Findings, strict: bool) -> Result<(), Stop> {
    let failed = |sentence: String| {
        Err(Stop {
            status: Status::AuditFailed,
            sentence,
        })
    };
    match findings.outcome() {
        Outcome::Failed => failed(format!(
            "the output is not what it must be: {}",
            report::differences(findings.total().differences())
        )),
        Outcome::PassedAsFarAsKnown if strict => failed(
            "there is no difference, but not everything can be known, which --strict asks for"
                .to_owned(),
        ),
        Outcome::Passed | Outcome::PassedAsFarAsKnown => Ok(()),
    }
}

fn offsets(group: &Group) -> u64 {
    let inputs = group.inputs.iter();
    let inputs = inputs.map(|input| {
        input
            .to
            .saturating_sub(input.part.start)
            .max(0)
            .unsigned_abs()
    });
    let journals = group
        .inputs
        .iter()
        .filter_map(|input| input.journal.as_ref());
    let journals = journals.map(|(part, _)| part.offsets());
    let strands = group.strands.iter().map(|strand| strand.part.offsets());
    inputs.chain(journals).chain(strands).sum()
}

/// Reads the records of the described differences again, for their ids. What cannot be read any more
/// stays without.
fn name_ids(config: &Config, schemas: &Schemas, findings: &mut Findings, interrupt: &Interrupt) {
    let seed = deployment_seed(&config.kafka.group_id);
    let mut identifier = Identifier::new(&config.id.from, seed, schemas);
    for difference in &mut findings.differences {
        let place = difference.output.as_ref().or(difference.input.as_ref());
        difference.id = place.and_then(|place| id_at(place, config, &mut identifier, interrupt));
    }
}

fn id_at(
    place: &Place,
    config: &Config,
    identifier: &mut Identifier,
    interrupt: &Interrupt,
) -> Option<String> {
    let part = Part {
        topic: place.topic.clone(),
        partition: place.partition,
        start: place.offset,
        end: place.offset + 1,
    };
    let mut feeds = Feeds::open(config, vec![part], interrupt).ok()?;
    let mut unused = Progress::new(0);
    let message = feeds.pull(0, &mut unused).ok()??;
    identifier.id(&message).ok().map(printable)
}

fn print(text: &str) {
    let mut out = io::stdout().lock();
    // A reader that went away (`verify | head`) is no difference.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
