//! What becomes of one record whose id is known: window → sink. It touches the record's scope and the
//! producer, nothing else; whether the transaction is committed is decided elsewhere.

use std::time::Instant;

use rdkafka::message::{BorrowedMessage, Message};

use crate::commit::{Open, Trouble, drain, not_taken};
use crate::config::{Changed, Config, Conflicts, Missing, Mode, PartitionBy};
use crate::exit::Stop;
use crate::identify::payload::PayloadHash;
use crate::identify::{Identifier, Identity, MissingReason};
use crate::kafka::produce::Headers;
use crate::partitioner::murmur2_partition;
use crate::repartition::{Mark, Passed};
use crate::schemas::Unresolved;
use crate::sink::{Origin, Outgoing, Sink, Target};
use crate::worker::scope::{First, Hop, Judged, Judgement, Rejection, Scope, Tally, Topic};
use crate::worker::scopes::Scopes;
use crate::worker::sentinel;

/// What a record passes through: borrowed for one record at a time.
pub struct Room<'a> {
    pub scopes: &'a mut Scopes,
    pub sink: &'a mut Sink,
    pub open: &'a mut Open,
    pub config: &'a Config,
    pub payloads: &'a PayloadHash,
    /// What the fingerprints of this deployment are.
    pub mark: Mark,
    /// Everything is let through, by an operator's word.
    pub bypass: bool,
}

impl Room<'_> {
    /// Judges a record of the scope at `place` and produces what follows from it, in the open
    /// transaction; of a first hop, passes it on. Every record ends in exactly one count of its scope's
    /// tally (I2).
    pub fn judge(
        &mut self,
        message: &BorrowedMessage<'_>,
        place: usize,
        record: &Passed<'_>,
        wall_ms: i64,
    ) -> Result<(), Trouble> {
        let offset = message.offset();
        let deadline = self.open.deadline(self.config);
        let Some(scope) = self.scopes.at(place) else {
            return Ok(());
        };
        if offset < scope.next_offset {
            // Judged before: a record fetched before a seek can never count twice (I1).
            return Ok(());
        }
        let alone = scope.suspects.contains(&offset);
        if alone {
            drain(self.sink, self.scopes, deadline)?;
            self.open.alone += 1;
        }
        let Some(scope) = self.scopes.at(place) else {
            return Ok(());
        };
        // A record that ends the process leaves no trace: what came before it can be committed.
        forbid(scope, offset, record, self.config, self.bypass)?;
        self.open.partitions += usize::from(!scope.touched);
        scope.touched = true;
        scope.next_offset = offset + 1;
        scope.judged_ms = record.timestamp_ms.or(scope.judged_ms);
        self.open.records += 1;
        let counted = scope.window.observe(record.timestamp_ms, wall_ms);
        scope.pace.reached_ms = scope.pace.reached_ms.max(counted);
        if scope.topic.is_judged() {
            self.deal_with(message, place, record, deadline)?;
        } else {
            scope.tally.passed_on += 1;
            pass_on(
                message,
                place,
                scope,
                (self.sink, self.mark),
                record,
                deadline,
            )?;
        }
        if alone {
            drain(self.sink, self.scopes, deadline)?;
        }
        Ok(())
    }

    fn deal_with(
        &mut self,
        message: &BorrowedMessage<'_>,
        place: usize,
        record: &Passed<'_>,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        let offset = message.offset();
        let payload = match record.identity {
            Identity::Id(_) => self.payloads.of(message),
            Identity::Missing(_) => 0,
        };
        let mut fate = fate(self.scopes, place, offset, (record, payload), self.config)?;
        let Some(scope) = self.scopes.at(place) else {
            return Ok(());
        };
        // What the output has refused once, it refuses again.
        let bypass = self.bypass && !scope.refused.contains_key(&offset);
        if bypass && !matches!(fate, Fate::Forward) {
            scope.tally.bypassed += 1;
            fate = Fate::Forward;
        }
        scope.tally.received += 1;
        count(&mut scope.tally, &fate);
        if let Fate::Forward = fate {
            let first_ms = &mut scope.tally.first_forwarded_ms;
            *first_ms = first_ms.or(record.timestamp_ms);
        }
        send(
            message,
            place,
            scope,
            (self.sink, record),
            &fate,
            self.config,
            deadline,
        )
    }
}

/// Why a record cannot be dealt with yet, or at all.
pub enum Unread {
    Schema(Unresolved),
    /// Of a second hop: it has not come from a first of this group.
    Foreign,
    /// Of a second hop: its id was taken from something else than `id.from` says.
    OtherIds,
}

/// A record of a topic, with its id and where it was in the input.
///
/// # Errors
/// A schema that is needed and not there; a record that nobody passed on, or with another id.
pub fn read<'a>(
    topic: &Topic,
    message: &'a BorrowedMessage<'_>,
    identifier: &mut Identifier,
    (own, changed): (Mark, Changed),
) -> Result<Passed<'a>, Unread> {
    if let Hop::Second { .. } = topic.hop {
        return match Passed::open(message.key()) {
            Some((_, mark)) if !mark.is_of_group(&own) => Err(Unread::Foreign),
            Some((_, mark)) if mark != own && changed == Changed::Refuse => Err(Unread::OtherIds),
            Some((passed, _)) => Ok(passed),
            None => Err(Unread::Foreign),
        };
    }
    Ok(Passed {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        identity: identifier.identify(message).map_err(Unread::Schema)?,
        key: message.key(),
    })
}

/// What is done with a record.
enum Fate {
    Forward,
    Duplicate {
        first: First,
        age_ms: i64,
        in_overlay: bool,
        conflicts: bool,
    },
    Reject(Rejection),
    Drop,
}

/// The records at which the config says to stop.
fn forbid(
    scope: &Scope,
    offset: i64,
    record: &Passed<'_>,
    config: &Config,
    bypass: bool,
) -> Result<(), Trouble> {
    if let Some(&rejection) = scope.refused.get(&offset)
        && config.rejected.topic.is_none()
    {
        return Err(Trouble::Halt(refused_without_topic(
            scope, record, rejection,
        )));
    }
    match (record.identity, config.id.missing) {
        (Identity::Missing(reason), Missing::Fail) if !bypass => {
            Err(Trouble::Halt(without_id(scope, record, reason)))
        }
        _ => Ok(()),
    }
}

/// What the windows and the config say.
fn fate(
    scopes: &mut Scopes,
    place: usize,
    offset: i64,
    (record, payload): (&Passed<'_>, u64),
    config: &Config,
) -> Result<Fate, Trouble> {
    let Some(scope) = scopes.at(place) else {
        return Ok(Fate::Drop);
    };
    if let Some(&rejection) = scope.refused.get(&offset) {
        // It was let through once and refused: its id is not remembered, as it has not gone out.
        return Ok(Fate::Reject(rejection));
    }
    let fingerprint = match record.identity {
        Identity::Id(fingerprint) => fingerprint,
        Identity::Missing(reason) => {
            scope.tally.missing_id += 1;
            return Ok(fate_without_id(reason, config));
        }
    };
    let record = Judged {
        fingerprint,
        offset: match scope.topic.hop {
            Hop::Second { .. } => record.position(),
            Hop::Only | Hop::First { .. } => offset,
        },
        payload,
    };
    let judgement = scopes.judge(place, &record, config.id.conflicts);
    let Some(Scope { tally, .. }) = scopes.at(place) else {
        return Ok(Fate::Drop);
    };
    // Of most records two of its bytes are looked at: as a whole it would be waited for until all is in memory that was
    // written before it.
    Ok(match judgement {
        Err((scope, damage)) => return Err(Trouble::Damaged { scope, damage }),
        Ok(Judgement::Forward {
            conflicts,
            returned,
        }) => {
            tally.conflicts += u64::from(conflicts);
            tally.returned += u64::from(returned);
            if sentinel::is_sampled(fingerprint) {
                tally.samples.push(fingerprint);
            }
            Fate::Forward
        }
        Ok(Judgement::Duplicate {
            first,
            age_ms,
            in_overlay,
            conflicts,
        }) => {
            tally.conflicts += u64::from(conflicts);
            match config.id.conflicts {
                Conflicts::Reject if conflicts => Fate::Reject(Rejection::Conflict),
                _ => Fate::Duplicate {
                    first,
                    age_ms,
                    in_overlay,
                    conflicts,
                },
            }
        }
    })
}

fn fate_without_id(reason: MissingReason, config: &Config) -> Fate {
    match (config.id.missing, reason) {
        (Missing::Forward, _) => Fate::Forward,
        (Missing::Reject, MissingReason::NoId) => Fate::Reject(Rejection::MissingId),
        (Missing::Reject, MissingReason::Unparsable) => Fate::Reject(Rejection::Unparsable),
        // Fail has ended the process before it came here.
        (Missing::Drop | Missing::Fail, _) => Fate::Drop,
    }
}

/// Every record once (I2).
fn count(tally: &mut Tally, fate: &Fate) {
    let counter = match fate {
        Fate::Forward => &mut tally.forwarded,
        Fate::Duplicate {
            age_ms, in_overlay, ..
        } => {
            tally.duplicate_ages_ms.push(*age_ms);
            match in_overlay {
                true => &mut tally.duplicates_transaction,
                false => &mut tally.duplicates_window,
            }
        }
        Fate::Reject(rejection) => match rejection {
            Rejection::MissingId => &mut tally.rejected_missing_id,
            Rejection::Unparsable => &mut tally.rejected_unparsable,
            Rejection::Conflict => &mut tally.rejected_conflict,
            Rejection::TooLarge | Rejection::Timestamp | Rejection::Invalid => {
                &mut tally.rejected_refused
            }
        },
        Fate::Drop => &mut tally.dropped,
    };
    *counter += 1;
}

/// Produces the record where its fate says: unchanged (I1), at its own partition number (I3).
fn send(
    message: &BorrowedMessage<'_>,
    place: usize,
    scope: &mut Scope,
    (sink, record): (&mut Sink, &Passed<'_>),
    fate: &Fate,
    config: &Config,
    deadline: Instant,
) -> Result<(), Trouble> {
    let names = &scope.topic.names;
    let (topic, target) = match fate {
        Fate::Forward => (names.output.as_ref(), Target::Output),
        Fate::Duplicate { .. } if config.mode == Mode::Mark => {
            (names.output.as_ref(), Target::Output)
        }
        Fate::Duplicate { .. } => (names.duplicates.as_ref(), Target::Duplicates),
        Fate::Reject(_) => (names.rejected.as_ref(), Target::Rejected),
        Fate::Drop => (None, Target::Rejected),
    };
    let Some(topic) = topic else { return Ok(()) };
    let partition = match (target, config.output.partition, record.key) {
        (Target::Output, PartitionBy::Key, Some(key)) => {
            murmur2_partition(key, scope.topic.output_partitions)
        }
        // The Java client spreads records without a key at random; this keeps their order (I3).
        (Target::Output, PartitionBy::Key, None) => {
            record.partition % scope.topic.output_partitions.max(1)
        }
        _ => record.partition,
    };
    let outgoing = Outgoing {
        topic,
        partition,
        key: record.key,
        value: message.payload(),
        headers: explained(headers_of(message), fate, &scope.topic, record),
        timestamp_ms: record.timestamp_ms,
    };
    let origin = Origin {
        scope: place,
        offset: message.offset(),
        target,
    };
    sink.send(outgoing, origin, deadline)
        .map_err(|error| not_taken(&error, scope, message.offset(), target))
}

/// The first hop: to the partition that its id has, in an envelope.
fn pass_on(
    message: &BorrowedMessage<'_>,
    place: usize,
    scope: &mut Scope,
    (sink, mark): (&mut Sink, Mark),
    record: &Passed<'_>,
    deadline: Instant,
) -> Result<(), Trouble> {
    let Hop::First { to, partitions } = &scope.topic.hop else {
        return Ok(());
    };
    let envelope = record.envelope(mark);
    let outgoing = Outgoing {
        topic: to,
        partition: record.to_partition(*partitions),
        key: Some(&envelope),
        value: message.payload(),
        headers: headers_of(message),
        timestamp_ms: record.timestamp_ms,
    };
    let target = Target::Repartition;
    let origin = Origin {
        scope: place,
        offset: record.offset,
        target,
    };
    sink.send(outgoing, origin, deadline)
        .map_err(|error| not_taken(&error, scope, record.offset, target))
}

/// Natively, so that names and values that are no strings, and nulls, stay what they are.
#[allow(unsafe_code)]
fn headers_of(message: &BorrowedMessage<'_>) -> Option<Headers> {
    // SAFETY: the id was hashed and the payload compared before; of the record only the key is borrowed still.
    unsafe { Headers::taken_from(message) }
}

/// Adds the headers that say why a record is not in the output, or is marked there.
fn explained(
    headers: Option<Headers>,
    fate: &Fate,
    topic: &Topic,
    record: &Passed<'_>,
) -> Option<Headers> {
    let reason = match fate {
        Fate::Forward | Fate::Drop => return headers,
        Fate::Duplicate {
            conflicts: true, ..
        } => "conflict",
        Fate::Duplicate { .. } => "duplicate",
        Fate::Reject(rejection) => rejection.as_str(),
    };
    let mut headers = headers.unwrap_or_default();
    let mut add = |name: &str, value: &str| headers.add(name, value);
    add("dedup-reason", reason);
    add("dedup-source-topic", topic.input());
    add("dedup-source-partition", &record.partition.to_string());
    add("dedup-source-offset", &record.offset.to_string());
    if let Fate::Duplicate { first, age_ms, .. } = fate {
        add("dedup-first-topic", first.topic.input());
        add("dedup-first-partition", &first.partition.to_string());
        add("dedup-first-offset", &first.offset.to_string());
        add("dedup-age-ms", &age_ms.to_string());
    }
    Some(headers)
}

fn refused_without_topic(scope: &Scope, record: &Passed<'_>, rejection: Rejection) -> Stop {
    Stop::contradiction(format!(
        "the record {} is refused by {} ({}). To have it taken, {}; or set rejected.topic, so that such records go there",
        named(scope, record),
        scope.topic_of(Target::Output),
        rejection.as_str(),
        rejection.remedy()
    ))
}

fn without_id(scope: &Scope, record: &Passed<'_>, reason: MissingReason) -> Stop {
    Stop::contradiction(format!(
        "the record {} has no id ({}), and id.missing is fail. Set id.missing to forward, reject or drop, or correct id.from",
        named(scope, record),
        reason.as_str()
    ))
}

fn named(scope: &Scope, record: &Passed<'_>) -> String {
    let topic = scope.topic.input();
    format!("{topic}-{} offset {}", record.partition, record.offset)
}

/// A repartition topic is one deployment's own.
pub fn foreign(message: &BorrowedMessage<'_>) -> Stop {
    let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
    Stop::contradiction(format!(
        "the record {topic}-{partition} offset {offset} has not been passed on by this group, and nothing else may write to a repartition topic. Find out what does (another group needs a repartition.topic of its own); to go on without the record, move the offset of the group with kafka-consumer-groups --reset-offsets --to-offset {}",
        offset + 1
    ))
}

/// An instance with another `id.from` has passed it on.
pub fn other_ids(message: &BorrowedMessage<'_>, config: &Config) -> Stop {
    let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
    Stop::contradiction(format!(
        "the record {topic}-{partition} offset {offset} was passed on with an id from something else than {}, which id.from is now: it might not be known again. Give all instances the same id.from, or the earlier one until the lag of {topic} is 0; if both give a message the same bytes, set id.changed: keep; to begin with nothing remembered, set id.changed: forget",
        config.id.from.mark()
    ))
}
