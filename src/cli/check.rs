//! `check`: what `run` would do with this configuration, and what stands in its way.
//!
//! Reads the file, asks the cluster, creates and changes nothing.

mod around;
mod clients;
mod permissions;
mod report;
mod schemas;
mod scope;

use std::path::PathBuf;

use crate::config::{self, Config, Scope, TopicPattern};
use crate::exit::Stop;
use crate::store::Store;
use crate::topics::survey::{Survey, survey};
use crate::topics::{self, Admin, OwnTopics, PrepareError};
use report::{Report, count};

/// `kafka-dedup check`
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct CheckArgs {
    /// Configuration file (YAML)
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the file and the store alone, without Kafka
    #[arg(long)]
    pub offline: bool,
    /// Print one JSON document, at the end
    #[arg(long)]
    pub json: bool,
}

const NOTES: &str = "\
What it does: reads the file, prints every value in effect (secrets redacted), asks the cluster
for what `run` would need, and says what stands in its way. It creates and changes nothing.
Marks: ok, warn (it works, but a person should know), FAIL (run would not work).

Examples:
  kafka-dedup check -c dedup.yaml
  kafka-dedup check -c dedup.yaml --offline
  kafka-dedup check -c dedup.yaml --json | jq '.findings[] | select(.mark != \"ok\")'

Exit status: 0 run would work, 64 bad usage or config, 69 Kafka unreachable, 78 run would not work.";

/// Checks the file, and unless it is to be offline all that it speaks of.
///
/// # Errors
/// 64 where the file is wrong, 69 where Kafka does not answer within 10 s, 78 where `run` would not
/// work.
pub fn run(arguments: &CheckArgs) -> Result<(), Stop> {
    let config = config::load(&arguments.config, config::environment())?;
    let mut out = match arguments.json {
        true => Report::as_json(),
        false => Report::to_stdout(),
    };
    let outcome = look(&mut out, arguments, &config);
    out.finish(&config.to_yaml_redacted(), &outcome)?;
    outcome
}

fn look(out: &mut Report, arguments: &CheckArgs, config: &Config) -> Result<(), Stop> {
    out.heading(&format!("config {}", arguments.config.display()));
    out.ok("every value is understood; in effect:");
    out.text(&config.to_yaml_redacted());
    clients::report(out, config)?;
    out.heading("store");
    let path = config.store.path.display();
    match Store::probe(&config.store.path) {
        Ok(()) => out.ok(&format!("{path}: nothing is known to stand in the way")),
        Err(why) => out.warn(&format!(
            "{path} cannot be used ({why}): run would hold seen ids in memory, and read the whole \
             journal at each start"
        )),
    }
    if arguments.offline {
        out.end("The file is good; Kafka was not asked (--offline).");
        return Ok(());
    }
    let admin = Admin::new(config)?;
    check_cluster(out, &admin, config)?;
    verdict(out)
}

fn verdict(out: &mut Report) -> Result<(), Stop> {
    if let Some(first) = out.failures().next() {
        let things = match out.failures().count() {
            1 => "one thing stands",
            _ => "several things stand",
        };
        return Err(Stop::contradiction(format!(
            "run would not work, {things} in its way: {first}"
        )));
    }
    let sentence = match out.warnings() {
        0 => "All is well: run would work.".to_owned(),
        some => format!("Run would work; {} above.", count(some, "warning")),
    };
    out.end(&sentence);
    Ok(())
}

fn check_cluster(out: &mut Report, admin: &Admin, config: &Config) -> Result<(), Stop> {
    let servers = &config.kafka.bootstrap_servers;
    out.heading(&format!("kafka {servers}"));
    let listed = topics::list(admin).map_err(|error| {
        Stop::unreachable(format!(
            "Kafka cannot be reached at {servers}: {error}. Check kafka.bootstrap_servers, the \
             network, and security.protocol and sasl.* in kafka.properties"
        ))
    })?;
    let cluster = admin.cluster().map_err(lost)?;
    let id = cluster.id.as_deref().unwrap_or("of an unknown id");
    let (count, nodes) = (count(cluster.nodes.len(), "node"), cluster.nodes.join(", "));
    out.ok(&format!("cluster {id}, {count}: {nodes}"));

    let all: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
    let inputs = OwnTopics::new(config).resolve(&all);
    report_patterns(out, admin, config, &inputs)?;
    let mut surveys = Vec::new();
    for input in &inputs {
        out.heading(&format!("input {input}"));
        if let Some(survey) = go_on(out, survey(admin, config, input))? {
            let around = around::report(out, admin, config, &survey);
            go_on(out, around)?;
            surveys.push(survey);
        }
    }
    schemas::report(out, config, &inputs)?;
    scope::report_kin(out, config, &surveys);
    report_workers(out, config, &surveys);
    out.heading("permissions");
    for survey in &surveys {
        let permissions = permissions::report_topics(out, admin, config, survey);
        go_on(out, permissions)?;
    }
    permissions::report_absent(out, &surveys, &cluster.permitted);
    permissions::report_group(out, admin, config);
    permissions::report_transactions(out, config)
}

/// What was asked for and matches nothing that this user may see.
fn report_patterns(
    out: &mut Report,
    admin: &Admin,
    config: &Config,
    inputs: &[String],
) -> Result<(), Stop> {
    for pattern in &config.input.topics {
        if inputs.iter().any(|input| pattern.matches(input)) {
            continue;
        }
        match pattern {
            TopicPattern::Regex(regex) => out.warn(&format!(
                "no topic that this user may Describe matches {regex}: run would wait for one"
            )),
            // Asked for by name, the cluster tells a topic that is forbidden from one that is absent.
            TopicPattern::Name(name) => {
                if go_on(out, admin.describe(&[name.as_str()]))?.is_some() {
                    out.warn(&format!(
                        "the input topic {name} does not exist: run would wait for it"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn report_workers(out: &mut Report, config: &Config, surveys: &[Survey]) {
    // A topic that is one scope is read by one worker.
    let read_apart = |survey: &Survey| match config.scope {
        Scope::Topic => 1,
        Scope::Repartition => i64::from(survey.input.partitions) + i64::from(survey.judged().1),
        _ => i64::from(survey.input.partitions),
    };
    let partitions = surveys.iter().map(read_apart).sum::<i64>();
    let workers = i64::try_from(config.workers).unwrap_or(i64::MAX);
    if !surveys.is_empty() && workers > partitions {
        out.heading("workers");
        out.warn(&format!(
            "workers is {workers}, but of all inputs together only {partitions} can be at work: {} would \
             be idle",
            workers - partitions
        ));
    }
}

/// A fault of one topic is reported and the rest is checked; a cluster that went away ends it.
fn go_on<T>(out: &mut Report, result: Result<T, PrepareError>) -> Result<Option<T>, Stop> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(PrepareError::Stop(stop)) => {
            out.fail(&stop.sentence);
            Ok(None)
        }
        Err(error @ PrepareError::Retry(_)) => Err(lost(error)),
    }
}

fn lost(error: PrepareError) -> Stop {
    match error {
        PrepareError::Stop(stop) => stop,
        PrepareError::Retry(why) => Stop::unreachable(format!("Kafka stopped answering: {why}")),
    }
}
