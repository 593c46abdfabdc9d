//! Step 1 of recovery: where a partition's input goes on, and how far its journal must be read.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::time::Instant;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::{Key, Located, PATIENCE, Request, Room, Stage, Trouble};
use crate::broken::{self, Bug};
use crate::config::Start;
use crate::exit::Stop;
use crate::kafka;
use crate::kafka::describe::{self, End, NoAnswer};

/// By topic.
type TopicIds = HashMap<String, Result<Option<String>, NoAnswer>>;

/// Low and high watermark, by topic and partition.
type Bounds = HashMap<(String, i32), (i64, i64)>;

impl Room {
    /// Step 1 for every partition that is due.
    pub(super) fn locate(&mut self) {
        let now = Instant::now();
        let due: Vec<Key> = self
            .jobs
            .iter()
            .filter(
                |(_, job)| matches!(job.stage, Stage::Locate { not_before } if not_before <= now),
            )
            .map(|(key, _)| key.clone())
            .collect();
        if due.is_empty() {
            return;
        }
        let committed = self.committed_offsets(&due);
        // After that: see the module's description. Of all partitions together, as what is asked of each
        // alone takes longer than all of the rest where there are many.
        let ids = self.topic_ids(&due);
        let bounds = self.bounds(&due);
        self.introduce_reader(&due);
        for (key, answer) in due.iter().zip(committed) {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            // What nobody waits for holds stores that others may.
            self.drop_cancelled();
            let Some(job) = self.jobs.get(key) else {
                continue;
            };
            let request = &job.request;
            let located = answer.and_then(|committed| {
                is_same_topic(
                    request,
                    ids.get(&request.topic),
                    &self.config.kafka.group_id,
                )?;
                self.locate_one(request, committed, &bounds)
            });
            match located {
                Ok(located) => self.begin_reading(key, located),
                Err(Trouble::Later(why)) => self.postpone(key, &why),
                Err(Trouble::Stop(stop)) => self.finish(key, Err(stop)),
            }
        }
    }

    /// The stable committed offsets of our group. A time-out means that a transaction has offsets
    /// pending for one of the partitions: then each is asked for alone, so that one does not hold
    /// up all.
    fn committed_offsets(&self, keys: &[Key]) -> Vec<Result<Option<i64>, Trouble>> {
        let ask = |keys: &[Key]| -> Result<TopicPartitionList, KafkaError> {
            let mut list = TopicPartitionList::with_capacity(keys.len());
            for key in keys {
                if let Some(job) = self.jobs.get(key) {
                    list.add_partition(&job.request.topic, job.request.partition);
                }
            }
            self.reader.committed_offsets(list, PATIENCE)
        };
        let read = |list: &TopicPartitionList, key: &Key| {
            let request = self.jobs.get(key).map(|job| &job.request);
            let element =
                request.and_then(|request| list.find_partition(&request.topic, request.partition));
            match element {
                None => Err(Trouble::Later(
                    "the committed offset was not answered".to_owned(),
                )),
                Some(element) => match (element.error(), element.offset()) {
                    (Err(error), _) => Err(Trouble::Later(format!("committed offset: {error}"))),
                    (Ok(()), Offset::Offset(offset)) => Ok(Some(offset)),
                    (Ok(()), _) => Ok(None),
                },
            }
        };
        match ask(keys) {
            Ok(list) => keys.iter().map(|key| read(&list, key)).collect(),
            Err(_) if keys.len() > 1 => keys
                .iter()
                .map(|key| {
                    if self.stopping.load(Ordering::Relaxed) {
                        return Err(Trouble::Later("stopping".to_owned()));
                    }
                    match ask(std::slice::from_ref(key)) {
                        Ok(list) => read(&list, key),
                        Err(error) => Err(in_doubt(&error)),
                    }
                })
                .collect(),
            Err(error) => keys.iter().map(|_| Err(in_doubt(&error))).collect(),
        }
    }

    /// The rest of step 1: where to begin in the input and in the journal, and where the journal
    /// ends. Finds out whether Kafka still has what the committed offset stands for.
    fn locate_one(
        &self,
        request: &Request,
        committed: Option<i64>,
        bounds: &Bounds,
    ) -> Result<Located, Trouble> {
        let (topic, partition) = (&request.topic, request.partition);
        let watermarks = |topic: &str| {
            if let Some(bounds) = bounds.get(&(topic.to_owned(), partition)) {
                return Ok(*bounds);
            }
            let observer = if broken::has(Bug::RestoreToStableOffset) {
                &self.reader
            } else {
                &self.observer
            };
            kafka::watermarks(observer, topic, partition, PATIENCE * 5).map_err(|error| {
                Trouble::Later(format!("watermarks of {topic}-{partition}: {error}"))
            })
        };
        let (journal_low, journal_high) = match &request.journal {
            Some(journal) => watermarks(journal)?,
            None => (0, 0),
        };
        let (input_low, input_high) = watermarks(topic)?;
        let group = &self.config.kafka.group_id;
        let input_offset = match (committed, request.start) {
            (Some(offset), _) if offset < input_low => {
                return Err(Trouble::Stop(Stop::contradiction(format!(
                    "{topic}-{partition}: the group {group} has committed offset {offset}, but the topic begins at {input_low}: retention has deleted {} offsets that were not read. To go on without them: kafka-consumer-groups --reset-offsets --to-earliest --topic {topic}:{partition} --group {group} --execute, then start again",
                    input_low - offset
                ))));
            }
            (Some(offset), _) if offset > input_high && request.is_between_hops() => {
                return Err(Trouble::Stop(between_lost(topic, &request.input, group)));
            }
            (Some(offset), _) if offset > input_high => {
                return Err(Trouble::Stop(Stop::contradiction(format!(
                    "{topic}-{partition}: the group {group} has committed offset {offset}, but the topic ends at {input_high}: it was deleted and created again, or lost data. To begin anew: {}",
                    request.to_begin_anew
                ))));
            }
            (Some(offset), _) => offset,
            (None, Start::Earliest) => input_low,
            (None, Start::Latest) => input_high,
            (None, Start::Fail) => {
                return Err(Trouble::Stop(Stop::contradiction(format!(
                    "{topic}-{partition}: the group {group} has no committed offset, and input.start is fail. Commit one with kafka-consumer-groups --reset-offsets, or set input.start to earliest or latest"
                ))));
            }
        };
        Ok(Located {
            input_offset,
            input_end: input_high,
            committed: committed.is_some(),
            journal_low,
            journal_high,
        })
    }
}

impl Room {
    /// The ids of all topics of these partitions as they are now, or why they are not known.
    fn topic_ids(&self, keys: &[Key]) -> TopicIds {
        let topics = keys.iter().filter_map(|key| self.jobs.get(key));
        let topics: BTreeSet<&str> = topics.map(|job| job.request.topic.as_str()).collect();
        let names: Vec<&str> = topics.iter().copied().collect();
        match describe::topics(self.observer.client(), &names, PATIENCE * 5) {
            Ok(answers) => answers
                .into_iter()
                .map(|(name, answer)| (name, answer.map(|found| found.id)))
                .collect(),
            Err(error) => {
                let unknown = |name: &str| (name.to_owned(), Err(error.clone()));
                names.into_iter().map(unknown).collect()
            }
        }
    }

    /// A partition is fetched at once where the reader knows who leads it; else only after it has looked for
    /// that by itself, some 100 ms later.
    fn introduce_reader(&self, keys: &[Key]) {
        let jobs = keys.iter().filter_map(|key| self.jobs.get(key));
        let journals: BTreeSet<&String> = jobs
            .filter_map(|job| job.request.journal.as_ref())
            .collect();
        for journal in journals {
            if let Err(error) = self.reader.fetch_metadata(Some(journal), PATIENCE) {
                tracing::debug!(journal, %error, "the reader asks again by itself");
            }
        }
    }

    /// Where these partitions and those of their journals begin and end, as far as that was answered.
    fn bounds(&self, keys: &[Key]) -> Bounds {
        let requests = keys.iter().filter_map(|key| self.jobs.get(key));
        let asked: BTreeSet<(&str, i32)> = requests
            .flat_map(|job| {
                let Request {
                    topic,
                    journal,
                    partition,
                    ..
                } = &job.request;
                let topics = [Some(topic), journal.as_ref()].into_iter().flatten();
                topics.map(|topic| (topic.as_str(), *partition))
            })
            .collect();
        let asked: Vec<(&str, i32)> = asked.into_iter().collect();
        let end = if broken::has(Bug::RestoreToStableOffset) {
            End::Stable
        } else {
            End::High
        };
        let answers = describe::bounds(self.observer.client(), &asked, end, PATIENCE * 5);
        let answers = answers.unwrap_or_else(|error| {
            tracing::debug!(%error, "watermarks of many partitions; each is asked for alone");
            Vec::new()
        });
        asked
            .into_iter()
            .zip(answers)
            .filter_map(|((topic, partition), bounds)| {
                Some(((topic.to_owned(), partition), bounds?))
            })
            .collect()
    }
}

/// A committed offset says nothing about a topic of the same name that was made later; where that one is
/// longer, going on there would pass over its first records.
fn is_same_topic(
    request: &Request,
    found: Option<&Result<Option<String>, NoAnswer>>,
    group: &str,
) -> Result<(), Trouble> {
    let name = request.topic.as_str();
    let later = |why: String| Trouble::Later(format!("topic {name} is not described: {why}"));
    match found {
        Some(Ok(id)) if is_another(id, &request.lineage.topic_id) => {
            Err(Trouble::Stop(match request.is_between_hops() {
                true => between_lost(name, &request.input, group),
                false => made_anew(name, &request.to_begin_anew),
            }))
        }
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(later(error.to_string())),
        None => Err(later("no answer".to_owned())),
    }
}

/// Whether these are ids of two topics. Brokers before 2.8 know none: then nobody can tell.
pub(crate) fn is_another(found: &Option<String>, known: &Option<String>) -> bool {
    matches!((found, known), (Some(found), Some(known)) if found != known)
}

/// An input was deleted, and there is another one of its name (78).
pub(crate) fn made_anew(topic: &str, to_begin_anew: &str) -> Stop {
    Stop::contradiction(format!(
        "the input topic {topic} was deleted and created again: what the group and the journal know belongs to the topic that is gone. To begin anew: {to_begin_anew}"
    ))
}

/// The same of the topic between two hops, or it is gone (78). What was judged is known all the same.
pub(crate) fn between_lost(topic: &str, input: &str, group: &str) -> Stop {
    Stop::contradiction(format!(
        "the repartition topic {topic} was deleted: records that were on their way in it are lost. To have them judged again, set the group's offsets of the input back to a time before they came, within the window, as what was judged is known: kafka-consumer-groups --reset-offsets --to-datetime TIME --topic {input} --group {group} --execute. In any case, when {topic} is there again (a start makes it): kafka-consumer-groups --reset-offsets --to-earliest --topic {topic} --group {group} --execute, then start again"
    ))
}

fn in_doubt(error: &KafkaError) -> Trouble {
    let why = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut) => {
            "an earlier transaction still has offsets pending; it ends by its transaction.timeout at the latest".to_owned()
        }
        _ => format!("committed offset: {error}"),
    };
    Trouble::Later(why)
}
