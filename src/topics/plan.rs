//! What must be done about one of our own topics: nothing, make it, grow it, or stop. Pure.

use super::survey::{Own, Role, Survey};
use crate::config::{Config, PartitionBy};

/// What must be done about one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// There, and large enough.
    Fits,
    /// Absent: make it with this many partitions.
    Create(i32),
    /// Too small because the input grew: grow it to this many partitions.
    Grow(i32),
    /// Cannot work, and is not ours to change: the sentence for the person who can.
    Contradiction(String),
}

/// Decides for one of the survey's own topics.
pub fn decide(config: &Config, survey: &Survey, own: &Own) -> Decision {
    let internal = matches!(own.role, Role::Journal | Role::Repartition);
    let Some(found) = &own.found else {
        return if internal || config.output.create {
            Decision::Create(own.wanted)
        } else {
            Decision::Contradiction(absent(survey, own))
        };
    };
    let (input, has) = (survey.input.partitions, found.partitions);
    let by_key = own.role == Role::Output && config.output.partition == PartitionBy::Key;
    let fits = match own.role {
        Role::Journal => has == own.wanted,
        // Which partition an id is in follows from their number: it stays what it was made with.
        Role::Repartition => config.repartition.partitions.is_none_or(|it| it == has),
        Role::Output | Role::Duplicates | Role::Rejected => has >= input || by_key,
    };
    if fits {
        return Decision::Fits;
    }
    let judged_directly = survey.repartition().is_none();
    let ours = match own.role {
        Role::Repartition => false,
        Role::Journal => judged_directly,
        _ => config.output.create,
    };
    if has < input && survey.worked_before && ours {
        // Only a group that has worked here can have outlived a growth of the input; to a new one,
        // a smaller topic is somebody else's.
        return Decision::Grow(own.wanted);
    }
    Decision::Contradiction(misfit(config, survey, own, has))
}

fn absent(survey: &Survey, own: &Own) -> String {
    let (role, name, input) = (own.role.name(), &own.name, &survey.input.name);
    format!(
        "the {role} topic {name} of input {input} does not exist and output.create is false: create \
         it with {} partitions, or set output.create: true",
        own.wanted
    )
}

fn misfit(config: &Config, survey: &Survey, own: &Own, has: i32) -> String {
    let input = &survey.input;
    let (name, role, count) = (&own.name, own.role.name(), input.partitions);
    let what = format!(
        "the {role} topic {name} has {has} partitions, but its input {} has {count}",
        input.name
    );
    let group = &config.kafka.group_id;
    if own.role == Role::Repartition {
        return format!(
            "the repartition topic {name} has {has} partitions, and repartition.partitions is {}: with \
             another number ids would be looked for where they are not remembered. Leave \
             repartition.partitions out, or set it to {has}; to begin anew with another number, set \
             repartition.topic to a name that is free when all of {name} has been judged",
            own.wanted
        );
    }
    if own.role == Role::Journal && survey.repartition().is_some() {
        return format!(
            "the journal {name} has {has} partitions, but the repartition topic {} has {}: a journal has \
             exactly as many, and neither may be grown. Set repartition.topic and journal.topic to names \
             that are free to begin anew",
            survey.judged().0,
            survey.judged().1
        );
    }
    if own.role == Role::Journal {
        // More partitions than the input, or fewer before this group ever committed.
        return format!(
            "{what}: a journal has exactly as many. It belongs to another deployment or to an input \
             that was made anew: set journal.topic or kafka.group_id (now {group}) to a name that is \
             free, or delete {name} if nothing needs it"
        );
    }
    let grow =
        format!("give {name} {count} partitions (kafka-topics --alter --partitions {count})");
    match own.role {
        Role::Output => format!("{what}: {grow}, or set output.partition: key"),
        _ => format!("{what}, and records keep their partition number there: {grow}"),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
