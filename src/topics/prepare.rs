//! Makes the topics around an input ready: there, large enough, led.
//!
//! Other instances do the same at the same moment; whoever comes second finds the work done.

use std::time::{Duration, Instant};

use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode as Code;
use tracing::{info, warn};

use super::admin::{CREATION, Settings, is_forbidden};
use super::plan::{Decision, decide};
use super::settings;
use super::survey::{Own, Role, Survey, survey};
use super::{Admin, Names, PrepareError};
use crate::config::Config;
use crate::exit::Stop;
use crate::repartition;

/// A new topic is looked for this often until its partitions have leaders.
const LOOK: Duration = Duration::from_millis(100);

/// An input topic whose own topics are ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Partitions of the input, and so of the journal where there is one hop.
    pub partitions: i32,
    /// Partitions of the output; 0 where none is written.
    pub output_partitions: i32,
    pub names: Names,
    /// The topic between two hops, where there are two.
    pub repartition: Option<Between>,
    /// Id of the input topic; `None` on brokers before 2.8.
    pub input_id: Option<String>,
    /// Id of the journal topic; `None` on brokers before 2.8.
    pub journal_id: Option<String>,
}

/// The topic between the two hops of `scope: repartition`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Between {
    pub name: String,
    /// And so of the journal.
    pub partitions: i32,
    pub id: Option<String>,
}

/// Makes sure that output, duplicates, rejected and journal topic of `topic` exist, are as large as
/// they must be, and have leaders. Creates and grows what is ours to; warns in the log of settings
/// that may harm. Blocks for some requests, and up to half a minute where it made a topic.
///
/// # Errors
/// `Retry` where Kafka did not answer, or not in time, or the input is not there (yet). `Stop` (78)
/// where what is there contradicts the config or the ACLs forbid what is needed.
pub fn prepare(admin: &Admin, config: &Config, topic: &str) -> Result<Prepared, PrepareError> {
    let before = survey(admin, config, topic)?;
    refuse_to_leave_behind(config, &before)?;
    refuse_too_many(&before)?;
    let decisions = decisions(config, &before)?;
    warn_of_lost_journal(config, &before);
    if decisions
        .iter()
        .any(|(_, decision)| *decision != Decision::Fits)
    {
        carry_out(admin, config, &before, &decisions)?;
        let after = wait_for_leaders(admin, config, topic)?;
        judge_settings(admin, config, &after)?;
        return prepared(after);
    }
    judge_settings(admin, config, &before)?;
    prepared(before)
}

/// All decisions, or the first contradiction: nothing is changed where the whole cannot work.
fn decisions<'a>(config: &Config, survey: &'a Survey) -> Result<Vec<(&'a Own, Decision)>, Stop> {
    let decided = survey
        .own
        .iter()
        .map(|own| (own, decide(config, survey, own)));
    decided
        .map(|(own, decision)| match decision {
            Decision::Contradiction(sentence) => Err(Stop::contradiction(sentence)),
            other => Ok((own, other)),
        })
        .collect()
}

/// Positions in more partitions than that cannot be told apart.
fn refuse_too_many(survey: &Survey) -> Result<(), Stop> {
    let (input, most) = (&survey.input, repartition::MAX_PARTITIONS);
    match survey.repartition() {
        Some(_) if input.partitions > most => Err(Stop::contradiction(format!(
            "the input {} has {} partitions, and scope: repartition takes {most} at most",
            input.name, input.partitions
        ))),
        _ => Ok(()),
    }
}

/// Records that a first hop has passed on would never be judged.
fn refuse_to_leave_behind(config: &Config, survey: &Survey) -> Result<(), Stop> {
    match &survey.left_behind {
        None => Ok(()),
        Some((name, waiting)) => Err(Stop::contradiction(left_behind(config, name, *waiting))),
    }
}

/// What is said of a repartition topic in which records wait, where the scope is another one now.
pub fn left_behind(config: &Config, name: &str, waiting: i64) -> String {
    format!(
        "{waiting} offsets of the repartition topic {name} have not been judged, and with scope: {} nobody \
         would. Run with scope: repartition until its lag is 0 (10 s after its last record); or delete {name} \
         if they may be lost",
        config.scope.as_str()
    )
}

/// A group that has committed has written runs; where they are, ids of the window are (I5).
fn warn_of_lost_journal(config: &Config, survey: &Survey) {
    // Of the first hop nothing is journalled.
    let direct = survey.repartition().is_none();
    let lost = |own: &&Own| direct && own.role == Role::Journal && own.found.is_none();
    if let Some(journal) = survey
        .own
        .iter()
        .find(lost)
        .filter(|_| survey.worked_before)
    {
        warn!(
            journal = journal.name,
            topic = survey.input.name,
            "group {} has committed offsets in {}, but the journal {} does not exist: the ids seen \
             before are not known",
            config.kafka.group_id,
            survey.input.name,
            journal.name
        );
    }
}

fn carry_out(
    admin: &Admin,
    config: &Config,
    survey: &Survey,
    decisions: &[(&Own, Decision)],
) -> Result<(), PrepareError> {
    let creating = decisions
        .iter()
        .any(|(_, d)| matches!(d, Decision::Create(_)));
    let input_settings = if creating {
        settings_of_input(admin, survey)?
    } else {
        None
    };
    for (own, decision) in decisions {
        match decision {
            Decision::Create(partitions) => {
                let settings = settings::initial(config, own.role, input_settings.as_ref());
                create(admin, survey, own, *partitions, &settings)?;
            }
            Decision::Grow(partitions) => grow(admin, survey, own, *partitions)?,
            Decision::Fits | Decision::Contradiction(_) => {}
        }
    }
    Ok(())
}

fn settings_of_input(admin: &Admin, survey: &Survey) -> Result<Option<Settings>, PrepareError> {
    let settings = admin.settings(&survey.input.name)?;
    if settings.is_none() {
        let input = &survey.input.name;
        warn!(
            topic = input,
            "the settings of {input} may not be read, so its new topics are made with the broker's \
             defaults, which may delete or refuse old records: grant DescribeConfigs on topic {input}"
        );
    }
    Ok(settings)
}

fn create(
    admin: &Admin,
    survey: &Survey,
    own: &Own,
    partitions: i32,
    settings: &Settings,
) -> Result<(), PrepareError> {
    let (name, role) = (own.name.as_str(), own.role.name());
    match admin.create(&new_topic(survey, own, partitions, settings), false)? {
        Ok(()) => {
            info!(topic = name, partitions, "created the {role} topic {name}");
            Ok(())
        }
        // Another instance was faster; what it made is looked at next.
        Err(Code::TopicAlreadyExists) => Ok(()),
        Err(code) => Err(refusal(
            &format!("the {role} topic {name} could not be created"),
            code,
            &|| {
                format!(
                    "Grant Create on topic {name} to this user, or create it with {partitions} \
                 partitions, replication factor {} and {}",
                    survey.input.replication,
                    sentence_of(settings)
                )
            },
        )),
    }
}

fn grow(admin: &Admin, survey: &Survey, own: &Own, partitions: i32) -> Result<(), PrepareError> {
    let (name, role, input) = (own.name.as_str(), own.role.name(), &survey.input.name);
    match admin.grow(name, partitions, false)? {
        Ok(()) => {
            info!(
                topic = name,
                partitions, "input {input} grew, and so did its {role} topic {name}"
            );
            Ok(())
        }
        // Another instance was faster; what it did is looked at next.
        Err(Code::InvalidPartitions) => Ok(()),
        Err(code) => Err(refusal(
            &format!("input {input} grew, but its {role} topic {name} could not be grown"),
            code,
            &|| {
                format!(
                    "Grant Alter on topic {name} to this user, or give it {partitions} partitions \
                     (kafka-topics --alter --partitions {partitions})"
                )
            },
        )),
    }
}

/// The request that makes a topic of ours.
pub fn new_topic<'a>(
    survey: &Survey,
    own: &'a Own,
    partitions: i32,
    settings: &'a Settings,
) -> NewTopic<'a> {
    let replication = TopicReplication::Fixed(survey.input.replication);
    let topic = NewTopic::new(&own.name, partitions, replication);
    settings
        .iter()
        .fold(topic, |topic, (key, value)| topic.set(key, value))
}

/// `key=value` of each setting, for a person.
pub fn sentence_of(settings: &Settings) -> String {
    let pairs = settings.iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(" ")
}

/// Whether asking again can help.
fn refusal(what: &str, code: Code, remedy: &dyn Fn() -> String) -> PrepareError {
    let for_good = is_forbidden(code)
        || matches!(
            code,
            Code::PolicyViolation
                | Code::InvalidConfig
                | Code::InvalidTopic
                | Code::InvalidPartitions
                | Code::InvalidReplicationFactor
                | Code::InvalidReplicaAssignment
                | Code::UnsupportedVersion
        );
    match for_good {
        true => Stop::contradiction(format!("{what}: {code}. {}", remedy())).into(),
        false => PrepareError::Retry(format!("{what}: {code}")),
    }
}

/// Until every topic fits and is led: brokers learn of a new topic one after the other.
fn wait_for_leaders(admin: &Admin, config: &Config, topic: &str) -> Result<Survey, PrepareError> {
    let until = Instant::now() + CREATION;
    loop {
        let now = survey(admin, config, topic)?;
        let fits = decisions(config, &now)?
            .iter()
            .all(|(_, d)| *d == Decision::Fits);
        if fits
            && now
                .own
                .iter()
                .all(|own| own.found.as_ref().is_some_and(|found| found.led))
        {
            return Ok(now);
        }
        if Instant::now() >= until {
            return Err(PrepareError::Retry(format!(
                "the new topics of {topic} are not led after {} s",
                CREATION.as_secs()
            )));
        }
        std::thread::sleep(LOOK);
    }
}

fn judge_settings(admin: &Admin, config: &Config, survey: &Survey) -> Result<(), PrepareError> {
    for own in &survey.own {
        let Some(found) = admin.settings(&own.name)? else {
            continue;
        };
        for warning in settings::judge(config, own.role, &own.name, &found)? {
            warn!(topic = own.name, "{warning}");
        }
    }
    Ok(())
}

fn prepared(survey: Survey) -> Result<Prepared, PrepareError> {
    let found = |role: Role| {
        let own = survey.own.iter().find(|own| own.role == role);
        own.and_then(|own| own.found.as_ref())
    };
    let is_written = survey.names.output.is_some();
    let two_hops = survey.names.repartition.is_some();
    let (Some(journal), true, true) = (
        found(Role::Journal),
        found(Role::Output).is_some() == is_written,
        found(Role::Repartition).is_some() == two_hops,
    ) else {
        let input = &survey.input.name;
        return Err(PrepareError::Retry(format!(
            "the topics of {input} are not there yet"
        )));
    };
    Ok(Prepared {
        partitions: survey.input.partitions,
        output_partitions: found(Role::Output).map_or(0, |output| output.partitions),
        repartition: found(Role::Repartition).map(|found| Between {
            name: found.name.clone(),
            partitions: found.partitions,
            id: found.id.clone(),
        }),
        input_id: survey.input.id.clone(),
        journal_id: journal.id.clone(),
        names: survey.names.clone(),
    })
}
