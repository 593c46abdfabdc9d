//! Which topics the worker reads: found, prepared, subscribed to.

use super::transactions::ABORTS_NOT_READY;
use super::*;
use crate::config::{Changed, Scope};
use crate::demo::interrupt::Interrupt;
use crate::exit::Status;
use crate::inspect::{JournalEnd, journal_end};
use crate::journal::Terms;
use crate::kafka::describe::Permission;
use crate::recovery::locate::{between_lost, is_another, made_anew};
use crate::recovery::restored::{preload_unfinished, taken_from_elsewhere};
use crate::topics::prepare::{Between, Prepared};

impl Worker {
    /// Looks which input topics there are, prepares new ones, and subscribes to all.
    pub(super) fn discover_topics(&mut self) -> Result<(), Stop> {
        self.next_discovery = Instant::now() + discovery_interval(&self.config);
        let listed = match topics::list(&self.admin) {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "topics cannot be listed");
                let text = format!("{error}; trying again");
                self.tell("kafka", Condition::NotReady(text));
                self.next_discovery = Instant::now() + Duration::from_secs(1);
                return Ok(());
            }
        };
        self.tell("kafka", Condition::Ready("connected".to_owned()));
        let names: Vec<String> = listed.iter().map(|(name, _)| name.clone()).collect();
        let mut inputs = self.own.resolve(&names);
        inputs.sort();
        self.inputs_are_the_same()?;
        for (name, partitions) in &listed {
            if inputs.contains(name)
                && self
                    .topics
                    .get(name)
                    .is_none_or(|t| t.partitions < *partitions)
            {
                self.at("preparing topics");
                match self.prepare_topic(name) {
                    Ok(_) => {}
                    Err(PrepareError::Stop(stop)) => return Err(stop),
                    Err(PrepareError::Retry(why)) => {
                        tracing::warn!(topic = name, "the topic cannot be prepared yet: {why}");
                        self.next_discovery = Instant::now() + Duration::from_secs(1);
                    }
                }
            }
        }
        let listed = inputs.len();
        inputs.retain(|name| self.topics.contains_key(name));
        // The windows of all inputs are asked for each record then. So none is read before all are there, and one that has gone,
        // or may not be seen any more, keeps its place.
        let is_one_scope = self.config.scope == Scope::Copartition;
        let are_all = inputs.len() == listed && self.absent(&inputs).is_empty();
        let may_not_join = is_one_scope && !are_all;
        // Before the inputs speak: then nothing else holds the latch any more.
        if self.subscribed.is_empty() {
            let waits_for = match inputs.is_empty() {
                true => "no input topic to join the group with",
                false if may_not_join => "joined when all inputs are there (scope: copartition)",
                false => {
                    "joining the group; a predecessor that was killed keeps its partitions until its session.timeout.ms has passed"
                }
            };
            self.tell("group", Condition::NotReady(waits_for.to_owned()));
        }
        self.tell_inputs(&inputs);
        self.tell_permissions();
        let second = self
            .topics
            .values()
            .filter(|topic| topic.name != topic.input());
        inputs.extend(second.map(|topic| topic.name.clone()));
        if may_not_join {
            inputs.clone_from(&self.subscribed);
        } else if is_one_scope {
            inputs.extend(self.subscribed.iter().cloned());
        }
        inputs.sort();
        inputs.dedup();
        if inputs.is_empty() || inputs == self.subscribed {
            return Ok(());
        }
        if self.source.is_none() {
            self.source = Some(Source::create(&self.config, self.index)?);
        }
        let Some(source) = &self.source else {
            return Ok(());
        };
        source.subscribe(&inputs).map_err(|error| {
            Stop::restart(format!(
                "the topics {} cannot be subscribed to: {error}",
                inputs.join(", ")
            ))
        })?;
        tracing::info!(worker = self.index, topics = inputs.join(","), "subscribed");
        fail::fail_point!("subscribed");
        self.subscribed = inputs;
        Ok(())
    }

    /// A topic that is deleted and made again between two looks keeps its name, and the client may read
    /// on in the new one where it was in the old.
    fn inputs_are_the_same(&self) -> Result<(), Stop> {
        let known: Vec<&Arc<Topic>> = self.topics.values().collect();
        let names: Vec<&str> = known.iter().map(|topic| topic.name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        // What cannot be described now is looked at again next time.
        let Ok(found) = self.admin.describe(&names) else {
            return Ok(());
        };
        for (topic, found) in known.iter().zip(found) {
            if found.is_some_and(|found| is_another(&found.id, &topic.id)) {
                let group = &self.config.kafka.group_id;
                return Err(match &topic.hop {
                    Hop::Second { input, .. } => between_lost(&topic.name, input, group),
                    _ => made_anew(&topic.name, &topic.to_begin_anew(group)),
                });
            }
        }
        self.own_are_there(&known)
    }

    /// To a topic that has gone nothing can be delivered: better an end than time-outs for minutes.
    fn own_are_there(&self, known: &[&Arc<Topic>]) -> Result<(), Stop> {
        let group = &self.config.kafka.group_id;
        let mut asked = Vec::new();
        for topic in known.iter().filter(|topic| topic.is_judged()) {
            let names = &topic.names;
            asked.push((names.journal.as_str(), Some(*topic)));
            asked.extend(names.of_records().map(|name| (name, None)));
            if let Hop::Second { .. } = topic.hop {
                asked.push((topic.name.as_str(), None));
            }
        }
        let names: Vec<&str> = asked.iter().map(|(name, _)| *name).collect();
        let Ok(found) = self.admin.describe(&names) else {
            return Ok(());
        };
        for ((name, journal_of), found) in asked.into_iter().zip(found) {
            match (journal_of, found) {
                (Some(topic), found)
                    if found
                        .as_ref()
                        .is_none_or(|journal| is_another(&journal.id, &topic.journal_id)) =>
                {
                    return Err(Stop::contradiction(format!(
                        "the journal {name} was deleted while the service ran: what was let through is no longer known to a restart. To begin anew: {}",
                        topic.to_begin_anew(group)
                    )));
                }
                (None, None) if known.iter().any(|topic| topic.name == name) => {
                    let input = self.input_of(name);
                    return Err(between_lost(name, input, group));
                }
                (None, None) => {
                    return Err(Stop::restart(format!(
                        "the topic {name} was deleted while the service ran. Start again: it is created anew where output.create allows that"
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where something cannot be done, the client often says that it is not authorized and not to what:
    /// so the cluster is asked what is missing.
    fn tell_permissions(&mut self) {
        let suspected = self.read_refused
            || self.aborts_in_a_row >= ABORTS_NOT_READY
            || !self.scopes.recovering().is_empty();
        let missing = match suspected.then(|| self.missing_permissions()) {
            Some(Err(error)) => {
                tracing::debug!(%error, "permissions cannot be asked for");
                return;
            }
            Some(Ok(missing)) => missing,
            None => Vec::new(),
        };
        if missing.is_empty() {
            self.read_refused = false;
            let text = "nothing is known to be missing".to_owned();
            return self.tell("permissions", Condition::Ready(text));
        }
        let text = format!(
            "this user may not do all it has to; trying again. Allow {} (kafka-acls)",
            missing.join(", ")
        );
        self.tell("permissions", Condition::NotReady(text));
        self.next_discovery = self.next_discovery.min(Instant::now() + HOUSEKEEPING);
    }

    /// `Write on topic orders_dedup`, of all that is needed on topics while records flow.
    fn missing_permissions(&self) -> Result<Vec<String>, PrepareError> {
        use Permission::{Read, Write};
        let mut needed: Vec<(&str, &[Permission])> = Vec::new();
        for topic in self.topics.values().map(Arc::as_ref) {
            let Topic { name, names, .. } = topic;
            if let Hop::First { to, .. } = &topic.hop {
                needed.extend([(name.as_str(), &[Read][..]), (to, &[Read, Write])]);
                continue;
            }
            needed.push((name, &[Read]));
            needed.extend(names.of_records().map(|name| (name, &[Write][..])));
            needed.push((&names.journal, &[Read, Write]));
        }
        let names: Vec<&str> = needed.iter().map(|(name, _)| *name).collect();
        let permitted = self.admin.permitted(&names)?;
        let mut missing = Vec::new();
        for ((name, needed), permitted) in needed.iter().zip(permitted) {
            let Some(permitted) = permitted else { continue };
            let without = needed.iter().filter(|it| !permitted.contains(it));
            missing.extend(without.map(|it| format!("{it:?} on topic {name}")));
        }
        Ok(missing)
    }

    /// Prepares an input and what is around it, or the input that a repartition topic belongs to; gives
    /// the topic that was asked for.
    pub(super) fn prepare_topic(&mut self, name: &str) -> Result<Arc<Topic>, PrepareError> {
        let input = self.input_of(name).to_owned();
        let prepared = prepare(&self.admin, &self.config, &input)?;
        if prepared.repartition.is_some() && !self.topics.contains_key(&input) {
            self.may_pass_on(&input, &prepared)?;
        }
        let window_ms = self.config.window.time_ms;
        let metrics = &self.shared.metrics;
        let sentinel = self.shared.sentinels.of(&input, window_ms, metrics);
        let mut topic = Topic {
            name: input.clone(),
            hop: Hop::Only,
            names: prepared.names,
            partitions: prepared.partitions,
            output_partitions: prepared.output_partitions,
            id: prepared.input_id,
            journal_id: prepared.journal_id,
            metrics: metrics.topic(&input),
            sentinel,
        };
        if let Some(between) = prepared.repartition {
            let second = Topic {
                name: between.name.clone(),
                hop: Hop::Second {
                    input,
                    input_id: topic.id.clone(),
                },
                partitions: between.partitions,
                id: between.id,
                ..topic.clone()
            };
            topic.hop = Hop::First {
                to: between.name,
                partitions: between.partitions,
            };
            self.topics.insert(second.name.clone(), Arc::new(second));
        }
        self.topics.insert(topic.name.clone(), Arc::new(topic));
        let asked_for = self.topics.get(name).map(Arc::clone);
        asked_for.ok_or_else(|| PrepareError::Retry(format!("{name} is not read any more")))
    }

    /// A first hop remembers nothing, and what it has passed on cannot be taken back. So before it begins, the
    /// journal is asked what recovery asks it of a partition that is judged: are the group's offsets there, in
    /// both topics, and are the ids the same?
    fn may_pass_on(&self, input: &str, prepared: &Prepared) -> Result<(), PrepareError> {
        let interrupt = Interrupt::of(Arc::clone(&self.shared.shutdown));
        // The journal first: where it holds a run, an offset was committed before.
        let end = match journal_end(&self.config, input, &interrupt) {
            Ok(Some(end)) => end,
            Ok(None) => return Ok(()),
            Err(stop) if stop.status == Status::Contradiction || stop.status == Status::Usage => {
                return Err(stop.into());
            }
            Err(stop) => return Err(PrepareError::Retry(stop.sentence)),
        };
        let journal = &prepared.names.journal;
        let begun = !self.admin.committed(input, prepared.partitions)?.is_empty();
        if !begun && end.is_preload {
            return Err(preload_unfinished(input, journal).into());
        }
        if !begun {
            let group = &self.config.kafka.group_id;
            return Err(Stop::contradiction(format!(
                "{input}: the journal {journal} holds runs, but the group {group} has no committed offset in the input: it expired or was deleted. To go on, set it to a time before the last record was read, within the window, as what was judged is known: kafka-consumer-groups --reset-offsets --to-datetime TIME --topic {input} --group {group} --execute; to begin anew, delete {journal} and {} (kafka-topics --delete)",
                prepared.names.repartition.as_deref().unwrap_or_default()
            ))
            .into());
        }
        if let Some(between) = &prepared.repartition {
            self.may_be_judged(input, between, (journal, &end))?;
        }
        let now = Terms::from(self.config.as_ref());
        match end.terms {
            Some(earlier)
                if earlier.id_from != now.id_from && self.config.id.changed == Changed::Refuse =>
            {
                Err(taken_from_elsewhere(journal, &earlier.id_from, &now.id_from).into())
            }
            _ => Ok(()),
        }
    }

    /// The same of the topic that records would be passed on to.
    fn may_be_judged(
        &self,
        input: &str,
        between: &Between,
        (journal, end): (&str, &JournalEnd),
    ) -> Result<(), PrepareError> {
        let name = &between.name;
        if !self.admin.committed(name, between.partitions)?.is_empty() {
            return Ok(());
        }
        let group = &self.config.kafka.group_id;
        let JournalEnd {
            partition,
            input_offset,
            ..
        } = end;
        let (_, high) = self.admin.watermarks(name, *partition)?;
        Err(match *input_offset > high {
            true => between_lost(name, input, group),
            false => Stop::contradiction(format!(
                "the journal {journal} holds runs up to offset {input_offset} of {name}-{partition}, but the group {group} has no committed offset in {name}: it expired or was deleted. To go on, commit where {name} begins, as what was judged is known: kafka-consumer-groups --reset-offsets --to-earliest --topic {name} --group {group} --execute"
            )),
        }
        .into())
    }

    /// The topic, prepared for at least this partition. The group may know of new partitions before
    /// we have looked.
    pub(super) fn topic_with(&mut self, name: &str, partition: i32) -> Result<Arc<Topic>, Stop> {
        loop {
            if let Some(topic) = self.topics.get(name)
                && topic.partitions > partition
            {
                return Ok(Arc::clone(topic));
            }
            self.at("preparing topics");
            match self.prepare_topic(name) {
                Ok(topic) if topic.partitions > partition => return Ok(topic),
                Err(PrepareError::Stop(stop)) => return Err(stop),
                Ok(_) => {}
                Err(PrepareError::Retry(why)) => {
                    tracing::warn!(topic = name, "the topic cannot be prepared yet: {why}");
                    let text = format!(
                        "{name} was assigned and cannot be prepared yet; nothing is read meanwhile: {why}"
                    );
                    self.tell("inputs", Condition::NotReady(text));
                    // Which says that they are there.
                    self.next_discovery = Instant::now();
                }
            }
            std::thread::sleep(POLL);
            if self.shutting_down() {
                return Err(Stop {
                    status: crate::exit::Status::Done,
                    sentence: "stopped while a topic was prepared".to_owned(),
                });
            }
        }
    }
}
