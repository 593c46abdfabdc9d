//! What there is around one input topic. Asks the cluster, changes nothing.

use super::{Admin, Names, OwnTopics, PrepareError};
use crate::config::{Config, TopicTemplate};
use crate::kafka::describe::TopicDescription;

/// What a topic of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Output,
    Duplicates,
    Rejected,
    Journal,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Duplicates => "duplicates",
            Self::Rejected => "rejected",
            Self::Journal => "journal",
        }
    }
}

/// One of our topics, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub role: Role,
    pub name: String,
    /// Partitions it is made with, or grown to.
    pub wanted: i32,
    /// `None` where it does not exist.
    pub found: Option<TopicDescription>,
}

/// An input topic and ours around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    pub input: TopicDescription,
    pub names: Names,
    /// Output, duplicates, rejected (where records are written to them), journal, in this order.
    pub own: Vec<Own>,
    /// The group has committed offsets in the input. Asked only where it matters: some topic of
    /// ours is absent or smaller than the input.
    pub worked_before: bool,
}

/// Asks for everything [`super::plan::decide`] needs. An absent input is `Retry`: it may come.
pub fn survey(admin: &Admin, config: &Config, topic: &str) -> Result<Survey, PrepareError> {
    let names = OwnTopics::new(config).for_input(topic);
    let ours: Vec<(Role, &String, Option<&TopicTemplate>)> = vec![
        (
            Role::Output,
            names.output.as_ref(),
            Some(&config.output.topic),
        ),
        (
            Role::Duplicates,
            names.duplicates.as_ref(),
            config.duplicates.topic.as_ref(),
        ),
        (
            Role::Rejected,
            names.rejected.as_ref(),
            config.rejected.topic.as_ref(),
        ),
        (
            Role::Journal,
            Some(&names.journal),
            Some(&config.journal.topic),
        ),
    ]
    .into_iter()
    .filter_map(|(role, name, template)| name.map(|name| (role, name, template)))
    .collect();

    let mut asked = vec![topic];
    asked.extend(ours.iter().map(|(_, name, _)| name.as_str()));
    let mut found = admin.describe(&asked)?.into_iter();
    let Some(input) = found.next().flatten() else {
        return Err(PrepareError::Retry(format!(
            "the input topic {topic} does not exist"
        )));
    };
    let mut own = Vec::with_capacity(ours.len());
    for ((role, name, template), found) in ours.into_iter().zip(found) {
        let too_small = found
            .as_ref()
            .is_none_or(|found| found.partitions < input.partitions);
        let shared = template.is_some_and(|template| !template.is_per_topic());
        let wanted = match too_small && shared {
            true => input.partitions.max(largest_input(admin, config)?),
            false => input.partitions,
        };
        own.push(Own {
            role,
            name: name.clone(),
            wanted,
            found,
        });
    }
    let differs = |own: &Own| {
        own.found
            .as_ref()
            .is_none_or(|f| f.partitions < input.partitions)
    };
    let worked_before =
        own.iter().any(differs) && !admin.committed(topic, input.partitions)?.is_empty();
    Ok(Survey {
        input,
        names,
        own,
        worked_before,
    })
}

/// A topic that several inputs share must hold the partitions of the largest.
fn largest_input(admin: &Admin, config: &Config) -> Result<i32, PrepareError> {
    let listed = admin.list()?;
    let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
    let inputs = OwnTopics::new(config).resolve(&names);
    let counts = listed
        .iter()
        .filter(|(name, _)| inputs.contains(name))
        .map(|(_, count)| *count);
    Ok(counts.max().unwrap_or(0))
}
