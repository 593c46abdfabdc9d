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
    let Some(found) = &own.found else {
        return if own.role == Role::Journal || config.output.create {
            Decision::Create(own.wanted)
        } else {
            Decision::Contradiction(absent(survey, own))
        };
    };
    let (input, has) = (survey.input.partitions, found.partitions);
    let by_key = own.role == Role::Output && config.output.partition == PartitionBy::Key;
    let fits = match own.role {
        Role::Journal => has == input,
        Role::Output | Role::Duplicates | Role::Rejected => has >= input || by_key,
    };
    if fits {
        return Decision::Fits;
    }
    let ours = own.role == Role::Journal || config.output.create;
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
