//! What the cluster says of the inputs: partitions, journals, committed offsets, and by which ids a
//! store would be known to belong to them. Asks; changes nothing.

use std::collections::BTreeMap;

use super::Selection;
use crate::config::{Config, TopicPattern};
use crate::exit::Stop;
use crate::identify::deployment_seed;
use crate::journal::Identity;
use crate::store::Lineage;
use crate::topics::{Admin, OwnTopics, PrepareError};

pub(super) struct Cluster {
    pub admin: Admin,
    pub inputs: Vec<Input>,
    /// A sentence for each topic that should be there and is not.
    pub missing: Vec<String>,
}

/// A topic whose records are judged, with its journal: an input, or the one between two hops.
pub(super) struct Input {
    /// The input that its records are of, and its id.
    pub input: String,
    input_id: Option<String>,
    pub topic: String,
    pub partitions: i32,
    pub journal: String,
    /// By partition; not the stable ones.
    pub committed: BTreeMap<i32, i64>,
    /// That of partition 0.
    lineage: Lineage,
}

impl Input {
    /// What a slice of this partition says of itself.
    pub fn lineage(&self, partition: i32) -> Lineage {
        Lineage {
            partition,
            ..self.lineage.clone()
        }
    }

    /// What a run of this partition says of itself.
    pub fn identity(&self, partition: i32) -> Identity {
        let id = self.input_id.as_deref();
        Identity::of(self.lineage.seed, &self.topic, id, partition)
    }
}

impl Cluster {
    /// Asks for the selected inputs and their journals.
    ///
    /// # Errors
    /// 64 where no input has the selected partition, 69 where Kafka does not answer, 78 where it
    /// does not permit.
    pub fn look(config: &Config, selection: &Selection) -> Result<Self, Stop> {
        let admin = Admin::new(config)?;
        let servers = &config.kafka.bootstrap_servers;
        let unreachable = |error| match error {
            PrepareError::Stop(stop) => stop,
            PrepareError::Retry(why) => Stop::unreachable(format!(
                "Kafka cannot be asked at {servers}: {why}. With --offline the store alone is read"
            )),
        };
        let listed = admin.list().map_err(unreachable)?;
        let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
        let own = OwnTopics::new(config);
        let cluster_id = admin.cluster_id();
        let mut cluster = Self {
            admin,
            inputs: Vec::new(),
            missing: absent_inputs(config, selection, &names),
        };
        for input_name in own.resolve(&names) {
            if selection
                .topic
                .as_ref()
                .is_some_and(|only| *only != input_name)
            {
                continue;
            }
            let topic = own.judged(&input_name);
            let journal = own.journal_of(&topic);
            let mut asked = vec![topic.as_str(), journal.as_str()];
            if topic != input_name {
                asked.push(&input_name);
            }
            let found = cluster.admin.describe(&asked).map_err(unreachable)?;
            let [Some(input), journal_found, of_two_hops @ ..] = &found[..] else {
                continue;
            };
            let input_id = match of_two_hops {
                [Some(first)] => first.id.clone(),
                [None] => continue,
                _ => input.id.clone(),
            };
            let Some(journal_found) = journal_found else {
                cluster.missing.push(format!(
                    "the journal {journal} of input {topic} does not exist: nothing was let through yet, or it was deleted"
                ));
                continue;
            };
            let committed = cluster
                .admin
                .committed(&topic, input.partitions)
                .map_err(unreachable)?;
            cluster.inputs.push(Input {
                input: input_name,
                input_id,
                partitions: input.partitions.min(journal_found.partitions),
                committed: committed.into_iter().collect(),
                lineage: Lineage {
                    cluster_id: cluster_id.clone(),
                    group: config.kafka.group_id.clone(),
                    topic: topic.clone(),
                    partition: 0,
                    topic_id: input.id.clone(),
                    journal: journal.clone(),
                    journal_id: journal_found.id.clone(),
                    seed: deployment_seed(&config.kafka.group_id),
                },
                topic,
                journal,
            });
        }
        cluster.selected_partition_exists(selection)?;
        Ok(cluster)
    }

    fn selected_partition_exists(&self, selection: &Selection) -> Result<(), Stop> {
        let most = self.inputs.iter().map(|input| input.partitions).max();
        match (selection.partition, most) {
            (Some(partition), Some(most)) if partition >= most => Err(Stop::usage(format!(
                "--partition {partition}: the largest of these inputs has {most} partitions, counted from 0"
            ))),
            _ => Ok(()),
        }
    }

    /// All selected partitions.
    pub fn partitions(&self, selection: &Selection) -> Vec<(&Input, i32)> {
        self.inputs
            .iter()
            .flat_map(|input| (0..input.partitions).map(move |partition| (input, partition)))
            .filter(|(input, partition)| selection.has(&input.input, *partition))
            .collect()
    }

    pub fn input(&self, topic: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.topic == topic)
    }
}

fn absent_inputs(config: &Config, selection: &Selection, listed: &[&str]) -> Vec<String> {
    let named = config
        .input
        .topics
        .iter()
        .filter_map(|pattern| match pattern {
            TopicPattern::Name(name) => Some(name.as_str()),
            TopicPattern::Regex(_) => None,
        });
    let asked = selection.topic.as_deref();
    let mut absent: Vec<&str> = named
        .filter(|name| asked.is_none_or(|asked| asked == *name))
        .chain(asked)
        .filter(|name| !listed.contains(name))
        .collect();
    absent.dedup();
    let mut sentences: Vec<String> = absent
        .iter()
        .map(|name| format!("the input topic {name} does not exist"))
        .collect();
    if sentences.is_empty() && OwnTopics::new(config).resolve(listed).is_empty() {
        sentences.push("no topic matches input.topics".to_owned());
    }
    sentences
}
