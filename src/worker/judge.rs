//! What becomes of one record whose id is known: window → sink. It touches the record's scope and the
//! producer, nothing else; whether the transaction is committed is decided elsewhere.

use std::time::Instant;

use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};

use crate::commit::{Open, Trouble, drain, not_taken};
use crate::config::{Config, Conflicts, Missing, Mode, PartitionBy};
use crate::exit::Stop;
use crate::identify::payload::PayloadHash;
use crate::identify::{Identity, MissingReason};
use crate::partitioner::murmur2_partition;
use crate::sink::{Origin, Outgoing, Sink, Target};
use crate::worker::scope::{First, Judged, Judgement, Rejection, Scope, Scopes, Tally};
use crate::worker::sentinel;

/// What a record passes through: borrowed for one record at a time.
pub struct Room<'a> {
    pub scopes: &'a mut Scopes,
    pub sink: &'a mut Sink,
    pub open: &'a mut Open,
    pub config: &'a Config,
    pub payloads: &'a PayloadHash,
    /// Everything is let through, by an operator's word.
    pub bypass: bool,
}

impl Room<'_> {
    /// Judges a record of the scope at `place` and produces what follows from it, in the open
    /// transaction. Every record ends in exactly one count of its scope's tally (I2).
    pub fn judge(
        &mut self,
        message: &BorrowedMessage<'_>,
        place: usize,
        identity: Identity,
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
        forbid(scope, offset, &identity, self.config, self.bypass)?;
        scope.touched = true;
        scope.tally.received += 1;
        self.open.records += 1;
        let counted = scope
            .window
            .observe(message.timestamp().to_millis(), wall_ms);
        scope.pace.reached_ms = scope.pace.reached_ms.max(counted);
        let payload = match identity {
            Identity::Id(_) => self.payloads.of(message),
            Identity::Missing(_) => 0,
        };
        let fate = fate(self.scopes, place, offset, (identity, payload), self.config)?;
        let Some(scope) = self.scopes.at(place) else {
            return Ok(());
        };
        let fate = match fate {
            Fate::Forward => Fate::Forward,
            // What the output has refused once, it refuses again.
            _ if self.bypass && !scope.refused.contains_key(&offset) => {
                scope.tally.bypassed += 1;
                Fate::Forward
            }
            fate => fate,
        };
        count(&mut scope.tally, &fate);
        let sent = send(
            message,
            place,
            scope,
            self.sink,
            &fate,
            self.config,
            deadline,
        );
        scope.next_offset = offset + 1;
        sent?;
        if alone {
            drain(self.sink, self.scopes, deadline)?;
        }
        Ok(())
    }
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
    identity: &Identity,
    config: &Config,
    bypass: bool,
) -> Result<(), Trouble> {
    if let Some(&rejection) = scope.refused.get(&offset)
        && config.rejected.topic.is_none()
    {
        return Err(Trouble::Halt(refused_without_topic(
            scope, offset, rejection,
        )));
    }
    match (identity, config.id.missing) {
        (Identity::Missing(reason), Missing::Fail) if !bypass => {
            Err(Trouble::Halt(without_id(scope, offset, *reason)))
        }
        _ => Ok(()),
    }
}

/// What the windows and the config say.
fn fate(
    scopes: &mut Scopes,
    place: usize,
    offset: i64,
    (identity, payload): (Identity, u64),
    config: &Config,
) -> Result<Fate, Trouble> {
    let Some(scope) = scopes.at(place) else {
        return Ok(Fate::Drop);
    };
    if let Some(&rejection) = scope.refused.get(&offset) {
        // It was let through once and refused: its id is not remembered, as it has not gone out.
        return Ok(Fate::Reject(rejection));
    }
    let fingerprint = match identity {
        Identity::Id(fingerprint) => fingerprint,
        Identity::Missing(reason) => {
            scope.tally.missing_id += 1;
            return Ok(fate_without_id(reason, config));
        }
    };
    let record = Judged {
        fingerprint,
        offset,
        payload,
    };
    let judgement = scopes.judge(place, &record, config.id.conflicts);
    let judgement = judgement.map_err(|(scope, damage)| Trouble::Damaged { scope, damage })?;
    let Some(Scope { tally, .. }) = scopes.at(place) else {
        return Ok(Fate::Drop);
    };
    Ok(match judgement {
        Judgement::Forward { conflicts } => {
            tally.conflicts += u64::from(conflicts);
            if sentinel::is_sampled(fingerprint) {
                tally.samples.push(fingerprint);
            }
            Fate::Forward
        }
        Judgement::Duplicate {
            first,
            age_ms,
            in_overlay,
            conflicts,
        } => {
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
    sink: &mut Sink,
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
    let partition = match (target, config.output.partition, message.key()) {
        (Target::Output, PartitionBy::Key, Some(key)) => {
            murmur2_partition(key, scope.topic.output_partitions)
        }
        // The Java client spreads records without a key at random; this keeps their order (I3).
        (Target::Output, PartitionBy::Key, None) => {
            scope.partition % scope.topic.output_partitions.max(1)
        }
        _ => scope.partition,
    };
    // Copied natively: names and values that are no strings, and nulls, stay what they are.
    let headers = message.headers().map(|headers| headers.detach());
    let outgoing = Outgoing {
        topic,
        partition,
        key: message.key(),
        value: message.payload(),
        headers: explained(headers, fate, scope, message.offset()),
        timestamp_ms: message.timestamp().to_millis(),
    };
    let origin = Origin {
        scope: place,
        offset: message.offset(),
        target,
    };
    sink.send(outgoing, origin, deadline)
        .map_err(|error| not_taken(&error, scope, message.offset(), target))
}

/// Adds the headers that say why a record is not in the output, or is marked there.
fn explained(
    headers: Option<OwnedHeaders>,
    fate: &Fate,
    scope: &Scope,
    offset: i64,
) -> Option<OwnedHeaders> {
    let reason = match fate {
        Fate::Forward | Fate::Drop => return headers,
        Fate::Duplicate {
            conflicts: true, ..
        } => "conflict",
        Fate::Duplicate { .. } => "duplicate",
        Fate::Reject(rejection) => rejection.as_str(),
    };
    let mut headers = headers.unwrap_or_default();
    let mut add = |key: &str, value: &str| {
        let with = std::mem::take(&mut headers).insert(Header {
            key,
            value: Some(value),
        });
        headers = with;
    };
    add("dedup-reason", reason);
    add("dedup-source-topic", &scope.topic.name);
    add("dedup-source-partition", &scope.partition.to_string());
    add("dedup-source-offset", &offset.to_string());
    if let Fate::Duplicate { first, age_ms, .. } = fate {
        add("dedup-first-topic", &first.topic.name);
        add("dedup-first-partition", &first.partition.to_string());
        add("dedup-first-offset", &first.offset.to_string());
        add("dedup-age-ms", &age_ms.to_string());
    }
    Some(headers)
}

fn refused_without_topic(scope: &Scope, offset: i64, rejection: Rejection) -> Stop {
    let (topic, partition) = scope.partition_key();
    Stop::contradiction(format!(
        "the record {topic}-{partition} offset {offset} is refused by {} ({}). To have it taken, {}; or set rejected.topic, so that such records go there",
        scope.topic_of(Target::Output),
        rejection.as_str(),
        rejection.remedy()
    ))
}

fn without_id(scope: &Scope, offset: i64, reason: MissingReason) -> Stop {
    let (topic, partition) = scope.partition_key();
    Stop::contradiction(format!(
        "the record {topic}-{partition} offset {offset} has no id ({}), and id.missing is fail. Set id.missing to forward, reject or drop, or correct id.from",
        reason.as_str()
    ))
}
