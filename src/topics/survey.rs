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
    /// Between the two hops of `scope: repartition`.
    Repartition,
    Journal,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Duplicates => "duplicates",
            Self::Rejected => "rejected",
            Self::Repartition => "repartition",
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
    /// Output, duplicates, rejected (where records are written to them), repartition (where there is one),
    /// journal, in this order.
    pub own: Vec<Own>,
    /// A repartition topic of an earlier `scope: repartition` in which records still wait, and how many
    /// offsets.
    pub left_behind: Option<(String, i64)>,
    /// The group has committed offsets in the input. Asked only where it matters: some topic of
    /// ours is absent or smaller than the input.
    pub worked_before: bool,
}

/// Asks for everything [`super::plan::decide`] needs. An absent input is `Retry`: it may come.
pub fn survey(admin: &Admin, config: &Config, topic: &str) -> Result<Survey, PrepareError> {
    let own_topics = OwnTopics::new(config);
    let names = own_topics.for_input(topic);
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
            Role::Repartition,
            names.repartition.as_ref(),
            Some(&config.repartition.topic),
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
        let judged = |own: &[Own]| by_id(own).map(|own| own.partitions());
        let wanted = match role {
            Role::Repartition => config.repartition.partitions.unwrap_or(input.partitions),
            Role::Journal => judged(&own).unwrap_or(input.partitions),
            _ if too_small && shared => input.partitions.max(largest_input(admin, config)?),
            _ => input.partitions,
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
            .is_none_or(|f| f.partitions < own.wanted.min(input.partitions))
    };
    let left_behind = match own_topics.repartition_before(topic) {
        Some(name) => left_behind(admin, name)?,
        None => None,
    };
    let worked_before =
        own.iter().any(differs) && !admin.committed(topic, input.partitions)?.is_empty();
    Ok(Survey {
        input,
        names,
        own,
        left_behind,
        worked_before,
    })
}

impl Own {
    /// What it has, or is to be made with.
    pub fn partitions(&self) -> i32 {
        self.found
            .as_ref()
            .map_or(self.wanted, |found| found.partitions)
    }
}

fn by_id(own: &[Own]) -> Option<&Own> {
    own.iter().find(|own| own.role == Role::Repartition)
}

impl Survey {
    /// The topic between two hops, where there are two.
    pub fn repartition(&self) -> Option<&Own> {
        by_id(&self.own)
    }

    /// The topic whose records are judged: its name and partitions.
    pub fn judged(&self) -> (&str, i32) {
        match self.repartition() {
            Some(own) => (&own.name, own.partitions()),
            None => (&self.input.name, self.input.partitions),
        }
    }
}

/// Offsets that wait in a topic that was between two hops; `None` where it is not there, or all was judged.
fn left_behind(admin: &Admin, name: String) -> Result<Option<(String, i64)>, PrepareError> {
    // Among those that may be seen: one that was never ours need not be.
    let listed = admin.list()?;
    let Some((_, partitions)) = listed.into_iter().find(|(listed, _)| *listed == name) else {
        return Ok(None);
    };
    let committed = admin.committed(&name, partitions)?;
    let mut waiting = 0;
    for partition in 0..partitions {
        let (low, high) = admin.watermarks(&name, partition)?;
        let committed = committed.iter().find(|(number, _)| *number == partition);
        let reached = committed.map_or(low, |(_, offset)| low.max(*offset));
        waiting += (high - reached).max(0);
    }
    Ok((waiting > 0).then_some((name, waiting)))
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
