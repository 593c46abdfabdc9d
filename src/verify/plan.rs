//! What is read: which partitions belong together, and which range of each.
//!
//! The order of the questions is what makes it sound beside a running service: the committed offsets
//! first, then where the output ends, then where the input ends. So all that belongs to the
//! committed range is in the output below its end, and the input of all that is in the output is
//! below the input's end. Where the range of an input begins and ends is for [`range`]. Asks the cluster, changes nothing.

mod range;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message;

use super::arguments::Bound;
use super::feeds::{Feeds, Part};
use super::matching::Cut;
use super::progress::Progress;
use crate::config::{Config, PartitionBy, Scope, TopicTemplate};
use crate::demo::interrupt::Interrupt;
use crate::exit::Stop;
use crate::identify::deployment_seed;
use crate::journal;
use crate::kafka;
use crate::kafka::clients::scanner_config;
use crate::kafka::context::Logged;
use crate::kafka::describe::TopicDescription;
use crate::repartition::Passed;
use crate::topics::admin::TIMEOUT;
use crate::topics::survey::Role;
use crate::topics::{Admin, Names, OwnTopics, PrepareError};

/// A leader that moves is back after that.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// What the user asked for.
pub struct Order<'a> {
    pub config: &'a Config,
    pub topic: Option<&'a str>,
    pub partition: Option<i32>,
    pub from: Bound,
    pub to: Bound,
    pub interrupt: &'a Interrupt,
}

/// Partitions that can only be audited together.
pub struct Group {
    pub inputs: Vec<Input>,
    pub strands: Vec<Output>,
    /// Of two hops, by input: positions of what is between them, and not known to be judged.
    pub on_the_way: Vec<(String, i32, i64)>,
}

/// One input partition.
pub struct Input {
    /// From the first record that is needed for the verdicts to the last stable offset.
    pub part: Part,
    /// The range that is audited.
    pub from: i64,
    pub to: i64,
    /// Nothing was let through before the first record that is read.
    pub complete: bool,
    /// Where it is not complete because it is read from the middle: all before it has a stream time
    /// below this (ms).
    pub unknown_until: Option<i64>,
    /// The group began here; records before it without an id may have been the first it received.
    pub begins: i64,
    /// Names of the topics around it, and partitions of the output.
    pub names: Names,
    pub output_partitions: i32,
    /// The window was preloaded before the group began, by runs at the journal's beginning.
    pub preloaded: bool,
    /// The journal's runs of this partition, and whether older ones were trimmed.
    pub journal: Option<(Part, bool)>,
    pub identity: journal::Identity,
    /// What cannot be known, as far as it can be said before anything was read.
    pub doubts: Vec<String>,
    pub compacted: bool,
}

/// One partition of an output, duplicates or rejected topic.
pub struct Output {
    pub role: Role,
    pub part: Part,
    pub cut: Cut,
    pub compacted: bool,
}

/// All that is to be audited, in groups.
///
/// # Errors
/// 64 where the selection cannot be, 69 where Kafka does not answer, 78 where a topic is missing or
/// may not be read, or nothing was committed.
pub fn survey(order: &Order<'_>) -> Result<Vec<Group>, Stop> {
    let survey = Survey::new(order)?;
    let topics = survey.topics()?;
    let inputs = survey.committed(&topics)?;
    // From here on in this order, see above. What the second of two hops has committed by now is in the output.
    let on_the_way = survey.on_the_way(&topics)?;
    let strands = survey.strands(&topics, &inputs)?;
    let inputs = survey.inputs(&topics, inputs)?;
    let mut groups = survey.grouped(inputs, strands);
    for group in &mut groups {
        let is_of = |(input, ..): &&(String, i32, i64)| {
            group.inputs.iter().any(|it| it.part.topic == *input)
        };
        group.on_the_way = on_the_way.iter().filter(is_of).cloned().collect();
    }
    Ok(groups)
}

struct Survey<'a> {
    order: &'a Order<'a>,
    admin: Admin,
    /// read_committed: told the last stable offset.
    stable: BaseConsumer<Logged>,
}

struct Topic {
    name: String,
    id: Option<String>,
    partitions: i32,
    names: Names,
    output: TopicDescription,
    side: Vec<(Role, TopicDescription)>,
    /// Where there are two hops, of the topic between them.
    journal: Option<TopicDescription>,
    /// Between two hops.
    between: Option<TopicDescription>,
}

/// (index of the topic, partition, committed offset)
type Committed = (usize, i32, i64);

impl<'a> Survey<'a> {
    fn new(order: &'a Order<'a>) -> Result<Self, Stop> {
        let stable = scanner_config(order.config)
            .create_with_context(Logged::new())
            .map_err(|error| {
                Stop::usage(format!(
                    "librdkafka refuses the client configuration: {error}. Correct the properties"
                ))
            })?;
        Ok(Self {
            order,
            admin: Admin::new(order.config)?,
            stable,
        })
    }

    fn topics(&self) -> Result<Vec<Topic>, Stop> {
        let own = OwnTopics::new(self.order.config);
        let listed = self.admin.list().map_err(|error| self.unreachable(error))?;
        let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
        let all = own.resolve(&names);
        if let Some(only) = self.order.topic
            && !all.iter().any(|topic| topic == only)
        {
            return Err(match own.resolve(&[only]).is_empty() {
                true => Stop::usage(format!("--topic {only}: it is no input of this config")),
                false => Stop::contradiction(format!("the input topic {only} does not exist")),
            });
        }
        if self.is_shared() && self.order.topic.is_some() && all.len() > 1 {
            return Err(Stop::usage(
                "--topic: the inputs share a topic of the output, and can only be audited together",
            ));
        }
        if self.order.partition.is_some() && !self.is_by_partition() {
            return Err(Stop::usage(
                "--partition: partitions meet in the output (output.partition: key, or a topic that \
                 inputs share), and can only be audited together",
            ));
        }
        let scope = self.order.config.scope;
        if scope == Scope::Topic && self.order.partition.is_some() {
            return Err(Stop::usage(
                "--partition: with scope: topic, partitions can only be audited together",
            ));
        }
        let is_limited = self.order.from != Bound::Natural || self.order.to != Bound::Natural;
        if scope == Scope::Repartition && (is_limited || self.order.partition.is_some()) {
            return Err(Stop::usage(
                "--from, --to, --partition: with scope: repartition records are in no order, and all of a \
                 topic can only be audited together",
            ));
        }
        if scope == Scope::Copartition && self.order.topic.is_some() && all.len() > 1 {
            return Err(Stop::usage(
                "--topic: with scope: copartition, inputs can only be audited together",
            ));
        }
        let wanted = all
            .iter()
            .filter(|name| self.order.topic.is_none_or(|only| only == *name));
        let mut topics = Vec::new();
        for name in wanted {
            topics.extend(self.topic(name, own.for_input(name))?);
        }
        if topics.is_empty() {
            return Err(Stop::contradiction(
                "there is nothing to audit: no topic of input.topics exists and has an output",
            ));
        }
        Ok(topics)
    }

    /// `None` where the service has not prepared anything for it yet.
    fn topic(&self, name: &str, names: Names) -> Result<Option<Topic>, Stop> {
        let Some(output_name) = names.output.as_deref() else {
            return Err(Stop::usage(
                "there is nothing to audit: mode: observe writes no record",
            ));
        };
        let mut asked = vec![name, output_name, &names.journal];
        let sides: Vec<(Role, &String)> = [
            (Role::Duplicates, names.duplicates.as_ref()),
            (Role::Rejected, names.rejected.as_ref()),
        ]
        .into_iter()
        .filter_map(|(role, name)| Some((role, name?)))
        .collect();
        asked.extend(sides.iter().map(|(_, name)| name.as_str()));
        asked.extend(names.repartition.as_deref());
        let found = self
            .admin
            .describe(&asked)
            .map_err(|error| self.unreachable(error))?;
        let mut found = found.into_iter();
        let (input, output, journal) = (
            found.next().flatten(),
            found.next().flatten(),
            found.next().flatten(),
        );
        let Some(input) = input else { return Ok(None) };
        let committed = self
            .admin
            .committed(name, input.partitions)
            .map_err(|error| self.unreachable(error))?;
        let absent = |role: &str, name: &str| {
            Stop::contradiction(format!(
                "the {role} topic {name} does not exist, and the group {} has committed offsets in its \
                 input: was it deleted, or is this another config than the service's?",
                self.order.config.kafka.group_id
            ))
        };
        let Some(output) = output else {
            return match committed.is_empty() {
                true => Ok(None),
                false => Err(absent("output", output_name)),
            };
        };
        let mut side = Vec::new();
        for ((role, name), found) in sides.iter().zip(found.by_ref()) {
            match found {
                Some(found) => side.push((*role, found)),
                None if committed.is_empty() => {}
                None => return Err(absent(role.name(), name)),
            }
        }
        let between = match (&names.repartition, found.next().flatten()) {
            (Some(name), None) if !committed.is_empty() => {
                return Err(absent("repartition", name));
            }
            (_, found) => found,
        };
        Ok(Some(Topic {
            between,
            name: name.to_owned(),
            id: input.id.clone(),
            partitions: input.partitions,
            output,
            side,
            journal,
            names,
        }))
    }

    /// Read at once: the service beside us trims what it has judged.
    fn on_the_way(&self, topics: &[Topic]) -> Result<Vec<(String, i32, i64)>, Stop> {
        let (mut of, mut parts) = (Vec::new(), Vec::new());
        for topic in topics {
            let Some(between) = &topic.between else {
                continue;
            };
            let committed = self
                .admin
                .committed(&between.name, between.partitions)
                .map_err(|error| self.unreachable(error))?;
            for partition in 0..between.partitions {
                // What is still open there is waited for.
                let what = format!("the offsets of {}-{partition}", between.name);
                let (low, end) = patiently(&what, || {
                    let marks = self.admin.watermarks(&between.name, partition);
                    marks.map_err(|error| error.to_string())
                })?;
                let reached = committed.iter().find(|(number, _)| *number == partition);
                let start = reached.map_or(low, |(_, offset)| low.max(*offset));
                let part = Part {
                    topic: between.name.clone(),
                    partition,
                    start,
                    end,
                };
                of.push(&topic.name);
                parts.push(part);
            }
        }
        let mut feeds = Feeds::open(self.order.config, parts, self.order.interrupt)?;
        let mut progress = Progress::new(0);
        let mut positions = Vec::new();
        for (feed, input) in of.into_iter().enumerate() {
            while let Some(message) = feeds.pull(feed, &mut progress)? {
                if let Some((passed, _)) = Passed::open(message.key()) {
                    positions.push((input.clone(), passed.partition, passed.offset));
                }
            }
        }
        Ok(positions)
    }

    fn is_compacted(&self, topic: &Topic) -> Result<bool, Stop> {
        let settings = self.admin.settings(&topic.name);
        let settings = settings.map_err(|error| self.unreachable(error))?;
        let policy = settings
            .as_ref()
            .and_then(|settings| settings.get("cleanup.policy"));
        Ok(policy.is_some_and(|policy| policy.contains("compact")))
    }

    /// Of two hops, whether the window was preloaded before the group began. Where the group began in the input
    /// is told nowhere then.
    fn is_preloaded(&self, topic: &Topic) -> Result<bool, Stop> {
        let (Some(between), Some(journal)) = (&topic.between, &topic.journal) else {
            return Ok(false);
        };
        let seed = deployment_seed(&self.order.config.kafka.group_id);
        for partition in 0..journal.partitions {
            let id = topic.id.as_deref();
            let identity = journal::Identity::of(seed, &between.name, id, partition);
            let (start, end) = self.stable_watermarks(&journal.name, partition)?;
            let part = Part {
                topic: journal.name.clone(),
                partition,
                start,
                end,
            };
            // A preload writes to all of them, and every run after it says so.
            if let Some(known) = self.beginning(&part, identity)? {
                return Ok(known.preloaded.is_some());
            }
        }
        Ok(false)
    }

    fn committed(&self, topics: &[Topic]) -> Result<Vec<Committed>, Stop> {
        let mut all = Vec::new();
        for (index, topic) in topics.iter().enumerate() {
            let committed = self
                .admin
                .committed(&topic.name, topic.partitions)
                .map_err(|error| self.unreachable(error))?;
            all.extend(
                committed
                    .into_iter()
                    .map(|(partition, offset)| (index, partition, offset)),
            );
        }
        if let Some(only) = self.order.partition {
            if !topics.iter().any(|topic| only < topic.partitions) {
                return Err(Stop::usage(format!(
                    "--partition {only}: no input has so many partitions, counted from 0"
                )));
            }
            all.retain(|(_, partition, _)| *partition == only);
        }
        if all.is_empty() {
            return Err(Stop::contradiction(format!(
                "there is nothing to audit: the group {} has committed no offset in {} yet",
                self.order.config.kafka.group_id,
                topics
                    .iter()
                    .map(|topic| topic.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            )));
        }
        Ok(all)
    }

    /// All partitions of the topics around the inputs that something may be in.
    fn strands(&self, topics: &[Topic], inputs: &[Committed]) -> Result<Vec<Output>, Stop> {
        let mut strands: BTreeMap<(String, i32), Output> = BTreeMap::new();
        for (index, topic) in topics.iter().enumerate() {
            let committed: Vec<i32> = inputs
                .iter()
                .filter(|(at, ..)| *at == index)
                .map(|(_, partition, _)| *partition)
                .collect();
            let by_key = self.order.config.output.partition == PartitionBy::Key;
            let topics = [(Role::Output, &topic.output)];
            let sides = topic.side.iter().map(|(role, found)| (*role, found));
            for (role, found) in topics.into_iter().chain(sides) {
                let settings = self
                    .admin
                    .settings(&found.name)
                    .map_err(|error| self.unreachable(error))?
                    .unwrap_or_default();
                let is = |key: &str, value: &str| {
                    settings.get(key).is_some_and(|found| found.contains(value))
                };
                let numbers: Vec<i32> = match role == Role::Output && by_key {
                    true => (0..found.partitions).collect(),
                    false => committed
                        .iter()
                        .copied()
                        .filter(|partition| *partition < found.partitions)
                        .collect(),
                };
                for partition in numbers {
                    let key = (found.name.clone(), partition);
                    if strands.contains_key(&key) {
                        continue;
                    }
                    let what = format!("the offsets of {}-{partition}", found.name);
                    let (low, high) = patiently(&what, || {
                        self.admin
                            .watermarks(&found.name, partition)
                            .map_err(|error| error.to_string())
                    })?;
                    let own_times = is("message.timestamp.type", "LogAppendTime");
                    let compacted = is("cleanup.policy", "compact");
                    let start = match self.warm_up_ms() {
                        Some(from_ms) if !own_times => {
                            let at = self.at_time(&found.name, partition, from_ms)?;
                            at.unwrap_or(high).clamp(low, high)
                        }
                        _ => low,
                    };
                    strands.insert(
                        key,
                        Output {
                            role,
                            part: Part {
                                topic: found.name.clone(),
                                partition,
                                start,
                                end: high,
                            },
                            cut: Cut {
                                strand: start > 0,
                                input: false,
                                own_times,
                            },
                            compacted,
                        },
                    );
                }
            }
        }
        Ok(strands.into_values().collect())
    }

    fn inputs(&self, topics: &[Topic], committed: Vec<Committed>) -> Result<Vec<Input>, Stop> {
        let mut inputs = Vec::with_capacity(committed.len());
        let mut known = BTreeMap::new();
        for (index, partition, committed) in committed {
            let topic = &topics[index];
            let facts = match known.get(&index) {
                Some(facts) => *facts,
                None => {
                    let facts = (self.is_compacted(topic)?, self.is_preloaded(topic)?);
                    known.insert(index, facts);
                    facts
                }
            };
            inputs.push(self.input(topic, partition, committed, facts)?);
        }
        Ok(inputs)
    }

    fn input(
        &self,
        topic: &Topic,
        partition: i32,
        committed: i64,
        (compacted, is_preloaded): (bool, bool),
    ) -> Result<Input, Stop> {
        let config = self.order.config;
        let (low, end) = self.stable_watermarks(&topic.name, partition)?;
        let identity = journal::Identity::of(
            deployment_seed(&config.kafka.group_id),
            &topic.name,
            topic.id.as_deref(),
            partition,
        );
        let journal = match &topic.journal {
            // That of two hops is not by partition of the input.
            Some(journal) if topic.between.is_none() && partition < journal.partitions => {
                let (low, end) = self.stable_watermarks(&journal.name, partition)?;
                Some((
                    Part {
                        topic: journal.name.clone(),
                        partition,
                        start: low,
                        end,
                    },
                    low > 0,
                ))
            }
            _ => None,
        };
        let mut input = Input {
            part: Part {
                topic: topic.name.clone(),
                partition,
                start: low,
                end: end.max(low),
            },
            from: low,
            to: committed.min(end),
            complete: true,
            unknown_until: None,
            begins: low,
            names: topic.names.clone(),
            output_partitions: topic.output.partitions,
            preloaded: false,
            journal,
            identity,
            doubts: Vec::new(),
            compacted,
        };
        self.begin(&mut input)?;
        if is_preloaded {
            input.complete = false;
            input.doubts.push(
                "ids were preloaded before the group began: what is a duplicate of one of them, or came before the \
                 group began, is not known"
                    .to_owned(),
            );
        }
        self.limit(&mut input)?;
        if compacted {
            input.doubts.push(
                "the input is compacted: records that were received may be gone, so nothing there is \
                 called missing or extra"
                    .to_owned(),
            );
        }
        if committed > end {
            input.doubts.push(format!(
                "the group has committed offset {committed}, and the input ends at {end}: was the topic \
                 deleted and made again?"
            ));
        }
        Ok(input)
    }

    fn stable_watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), Stop> {
        patiently(&format!("the offsets of {topic}-{partition}"), || {
            kafka::watermarks(&self.stable, topic, partition, TIMEOUT)
                .map_err(|error| error.to_string())
        })
    }

    /// Every partition has outputs of its own.
    fn is_by_partition(&self) -> bool {
        self.order.config.output.partition == PartitionBy::Same && !self.is_shared()
    }

    /// Inputs share a topic of the output.
    fn is_shared(&self) -> bool {
        let config = self.order.config;
        let templates = [
            Some(&config.output.topic),
            config.duplicates.topic.as_ref(),
            config.rejected.topic.as_ref(),
        ];
        let mut templates = templates.into_iter().flatten();
        templates.any(|template: &TopicTemplate| !template.is_per_topic())
    }

    fn grouped(&self, inputs: Vec<Input>, strands: Vec<Output>) -> Vec<Group> {
        let kin = self.order.config.scope;
        let mut groups: BTreeMap<(String, i32), Group> = BTreeMap::new();
        let mut key_of = BTreeMap::new();
        for input in inputs {
            let part = &input.part;
            let topic = match self.is_shared() || kin == Scope::Copartition {
                true => String::new(),
                false => part.topic.clone(),
            };
            let apart = self.is_by_partition() && !matches!(kin, Scope::Topic | Scope::Repartition);
            let key = (topic, if apart { part.partition } else { 0 });
            let names = [
                input.names.output.as_ref(),
                input.names.duplicates.as_ref(),
                input.names.rejected.as_ref(),
            ];
            for name in names.into_iter().flatten() {
                let partition = if self.is_by_partition() {
                    input.part.partition
                } else {
                    0
                };
                key_of.insert((name.clone(), partition), key.clone());
            }
            let group = groups.entry(key).or_insert_with(|| Group {
                inputs: Vec::new(),
                strands: Vec::new(),
                on_the_way: Vec::new(),
            });
            group.inputs.push(input);
        }
        for strand in strands {
            let partition = if self.is_by_partition() {
                strand.part.partition
            } else {
                0
            };
            let key = key_of.get(&(strand.part.topic.clone(), partition));
            if let Some(group) = key.and_then(|key| groups.get_mut(key)) {
                group.strands.push(strand);
            }
        }
        groups
            .into_values()
            .map(|mut group| {
                // The output may hold what came before the group.
                let cut = group
                    .inputs
                    .iter()
                    .any(|input| !input.complete || input.preloaded);
                let unknown_start = group.inputs.iter().any(|input| {
                    !input.complete && input.part.start == 0 && input.unknown_until.is_none()
                });
                for strand in &mut group.strands {
                    strand.cut.input = cut;
                    strand.cut.strand |= unknown_start;
                }
                group
            })
            .collect()
    }

    fn unreachable(&self, error: PrepareError) -> Stop {
        match error {
            PrepareError::Stop(stop) => stop,
            PrepareError::Retry(why) => Stop::unreachable(format!(
                "Kafka cannot be asked at {}: {why}. Check the bootstrap servers, the network, and the \
                 properties security.protocol and sasl.*",
                self.order.config.kafka.bootstrap_servers
            )),
        }
    }
}

/// Asks until there is an answer: a leader may just move.
fn patiently<T>(what: &str, ask: impl Fn() -> Result<T, String>) -> Result<T, Stop> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= until => {
                return Err(Stop::unreachable(format!(
                    "{what} could not be asked for: {error}. Are all brokers up, and does each partition \
                     have a leader?"
                )));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
