//! One input topic: its size, where the group would go on, and what stands around it.

use indicatif::HumanCount;

use super::report::{Report, count};
use super::scope;
use crate::config::{Config, Mode, Start};
use crate::topics::admin::Settings;
use crate::topics::plan::{Decision, decide};
use crate::topics::prepare::sentence_of;
use crate::topics::settings;
use crate::topics::survey::{Own, Role, Survey};
use crate::topics::{Admin, PrepareError};

/// Reports one input; changes nothing.
pub fn report(
    out: &mut Report,
    admin: &Admin,
    config: &Config,
    survey: &Survey,
) -> Result<(), PrepareError> {
    let input = &survey.input;
    let marks = watermarks(admin, &input.name, input.partitions)?;
    let records: i64 = marks.iter().map(|(low, high)| high - low).sum();
    out.ok(&format!(
        "{}, replication factor {}, at most {} records now",
        count(input.partitions, "partition"),
        input.replication,
        HumanCount(records.unsigned_abs())
    ));
    match config.mode {
        Mode::Filter => {}
        Mode::Mark => out.ok("mode mark: all records would go to the output, duplicates with headers that say so"),
        Mode::Observe => out.ok("mode observe: no record would be written; verdicts are counted, and ids remembered in the journal"),
    }
    scope::report(out, config, survey);
    let committed = admin.committed(&input.name, input.partitions)?;
    report_offsets(out, config, survey, &marks, &committed);
    let input_settings = admin.settings(&input.name)?;
    for own in &survey.own {
        report_own(out, admin, config, survey, own, input_settings.as_ref())?;
    }
    let judged = match survey.repartition() {
        Some(own) if own.found.is_some() => admin.committed(&own.name, own.partitions())?,
        Some(_) => Vec::new(),
        None => committed,
    };
    report_journal(out, admin, config, survey, &judged)
}

fn watermarks(
    admin: &Admin,
    topic: &str,
    partitions: i32,
) -> Result<Vec<(i64, i64)>, PrepareError> {
    (0..partitions)
        .map(|partition| admin.watermarks(topic, partition))
        .collect()
}

/// Where the group would go on, and whether what it would read next is still there.
fn report_offsets(
    out: &mut Report,
    config: &Config,
    survey: &Survey,
    marks: &[(i64, i64)],
    committed: &[(i32, i64)],
) {
    let (group, topic) = (&config.kafka.group_id, &survey.input.name);
    let mut behind = 0;
    for (partition, offset) in committed {
        let index = usize::try_from(*partition).unwrap_or(usize::MAX);
        let Some((low, high)) = marks.get(index) else {
            continue;
        };
        if offset < low {
            out.fail(&format!(
                "{topic} partition {partition}: group {group} has committed offset {offset}, but \
                 the topic begins at {low}: retention has deleted records that were not read. To go \
                 on without them: kafka-consumer-groups --reset-offsets --to-earliest --topic \
                 {topic}:{partition} --group {group} --execute"
            ));
        }
        if offset > high {
            out.fail(&format!(
                "{topic} partition {partition}: group {group} has committed offset {offset}, but \
                 the topic ends at {high}: it was deleted and made again, or lost data. Delete the \
                 journal {} and the group's offsets in {topic} to begin anew",
                survey.names.journal
            ));
        }
        behind += (high - offset).max(0);
    }
    if !committed.is_empty() {
        out.ok(&format!(
            "group {group} has committed offsets in {} of {}, and is {} offsets behind \
             in these",
            committed.len(),
            count(marks.len(), "partition"),
            HumanCount(behind.unsigned_abs())
        ));
    }
    if committed.len() < marks.len() {
        let which = match committed.len() {
            0 => format!("group {group} has no committed offsets"),
            some => format!(
                "no committed offset in {}",
                count(marks.len() - some, "partition")
            ),
        };
        match config.input.start {
            Start::Earliest => out.ok(&format!("{which}: would begin with the earliest record")),
            Start::Latest => out.ok(&format!("{which}: would begin with records yet to come")),
            Start::Fail => out.fail(&format!(
                "{which}, and input.start is fail: commit them with kafka-consumer-groups \
                 --reset-offsets, or set input.start to earliest or latest"
            )),
        }
    }
}

/// One of our topics: there and fitting, to be made or grown, or in the way.
fn report_own(
    out: &mut Report,
    admin: &Admin,
    config: &Config,
    survey: &Survey,
    own: &Own,
    input_settings: Option<&Settings>,
) -> Result<(), PrepareError> {
    let (role, name) = (own.role.name(), &own.name);
    let has = own.found.as_ref().map_or(0, |found| found.partitions);
    match decide(config, survey, own) {
        Decision::Fits => out.ok(&format!("{role} {name}: {}", count(has, "partition"))),
        Decision::Grow(wanted) => {
            out.ok(&format!(
                "{role} {name}: would grow from {has} to {}",
                count(wanted, "partition")
            ));
        }
        Decision::Create(partitions) => {
            let wanted = settings::initial(config, own.role, input_settings);
            out.ok(&format!(
                "{role} {name}: would be created with {}, replication factor {}",
                count(partitions, "partition"),
                survey.input.replication
            ));
            out.text(&sentence_of(&wanted));
        }
        Decision::Contradiction(sentence) => out.fail(&sentence),
    }
    if own.found.is_some()
        && let Some(found) = admin.settings(name)?
    {
        match settings::judge(config, own.role, name, &found) {
            Ok(warnings) => warnings.iter().for_each(|warning| out.warn(warning)),
            Err(stop) => out.fail(&stop.sentence),
        }
    }
    Ok(())
}

/// The journal must hold runs where the group has committed, and only there (I5).
fn report_journal(
    out: &mut Report,
    admin: &Admin,
    config: &Config,
    survey: &Survey,
    committed: &[(i32, i64)],
) -> Result<(), PrepareError> {
    let group = &config.kafka.group_id;
    let (topic, partitions) = survey.judged();
    let journal = &survey.names.journal;
    let found = survey.own.iter().find(|own| own.role == Role::Journal);
    let found = found.and_then(|own| own.found.as_ref());
    let marks = watermarks(admin, journal, found.map_or(0, |found| found.partitions))?;
    let (mut lost, mut foreign) = (Vec::new(), Vec::new());
    for (partition, index) in (0..partitions).zip(0..) {
        let empty = marks
            .get::<usize>(index)
            .is_none_or(|(low, high)| low == high);
        let is_committed = committed.iter().any(|(one, _)| *one == partition);
        match (is_committed, empty) {
            // With a retention of its own, a journal may well have become empty.
            (true, true) if config.journal.retention.is_none() => lost.push(partition.to_string()),
            (false, false) => foreign.push(partition.to_string()),
            (true, _) | (false, true) => {}
        }
    }
    if !lost.is_empty() {
        out.fail(&format!(
            "group {group} has committed offsets in {topic}, but the journal {journal} holds \
             nothing for partitions {}: which ids were let through is not known. Choose a new \
             kafka.group_id, or delete the group's offsets in {topic} to begin anew",
            lost.join(", ")
        ));
    }
    if !foreign.is_empty() {
        out.warn(&format!(
            "the journal {journal} is not empty for partitions {} of {topic}, but group {group} \
             has no committed offset there: if it holds runs, the offsets have expired or were \
             deleted, and run would stop. To begin anew, delete the journal",
            foreign.join(", ")
        ));
    }
    Ok(())
}
