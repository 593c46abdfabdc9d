//! Commit: the life of one transaction, in named steps that read top to bottom.
//!
//! begin → (records are produced by the worker) → prepare → commit → publish, or abort.
//!
//! - [`begin`] opens the transaction.
//! - [`close`] is the three steps that make it one:
//! - [`prepare`] writes the runs of new ids to the journal and drains all deliveries.
//! - [`commit`] adds the input offsets, fenced by the group membership, and commits.
//! - [`publish`] takes the overlays into the windows: nothing is remembered before (I4).
//! - [`abort`] ends it as if it had never been.
//!
//! What goes wrong is named by its consequence, [`Trouble`]; the worker acts on that alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{IsError, KafkaError, RDKafkaErrorCode};

use crate::broken::{self, Bug};
use crate::config::Config;
use crate::exit::Stop;
use crate::journal::{MAX_IDS_PER_RUN, Terms, run};
use crate::metrics::Metrics;
use crate::sink::{Failure, Origin, Outgoing, Sink, Target};
use crate::source::Member;
use crate::store::Damage;
use crate::worker::scope::{Rejection, Scope};
use crate::worker::scopes::Scopes;

/// Why a transaction cannot be committed, by what has to be done about it.
#[derive(Debug)]
pub enum Trouble {
    /// Abort it and judge its records again: its outcome is certain.
    Abort { cause: &'static str, why: String },
    /// Its outcome is unknown, or the producer is of no use any more: replace the producer and read
    /// positions and seen sets from Kafka again (I7).
    InDoubt { cause: &'static str, why: String },
    /// The stored ids of a scope cannot be read: abort, and rebuild that scope from the journal.
    Damaged { scope: usize, damage: Damage },
    /// Another producer has taken over our transactional id, or the coordinator has.
    Fenced { why: String },
    /// Commit what came before this record, of which there is no trace yet; then end the process.
    Halt(Stop),
    /// End the process; what is open is aborted.
    Stop(Stop),
}

/// The open transaction.
pub struct Open {
    /// When it began.
    pub begun: Instant,
    /// Records judged in it.
    pub records: usize,
    /// Partitions that it holds something of.
    pub partitions: usize,
    /// The source had nothing more for it at least once: it does not hold up larger transactions.
    pub ran_dry: bool,
    /// Records sent alone, to find out which one of a batch the output refuses.
    pub alone: usize,
}

impl Open {
    /// When the coordinator ends it for us; no step waits longer.
    pub fn deadline(&self, config: &Config) -> Instant {
        self.begun + config.transaction.timeout
    }
}

/// Opens a transaction.
pub fn begin(sink: &mut Sink) -> Result<Open, Trouble> {
    sink.begin()
        .map_err(|error| consequence(&error, "begin", sink.transactional_id()))?;
    fail::fail_point!("begin", |_| crate::exit::die());
    Ok(Open {
        begun: Instant::now(),
        records: 0,
        partitions: 0,
        ran_dry: false,
        alone: 0,
    })
}

/// prepare → commit → publish. Afterwards the transaction is committed, or there is [`Trouble`].
pub fn close(
    sink: &mut Sink,
    scopes: &mut Scopes,
    member: Option<Member<'_>>,
    open: &Open,
    config: &Config,
    metrics: &Metrics,
) -> Result<(), Trouble> {
    let started = Instant::now();
    prepare(sink, scopes, open, config)?;
    metrics.observe_step("drain", started.elapsed());
    if broken::has(Bug::StoreBeforeCommit) {
        publish(sink, scopes);
        // Their offsets still go with the transaction.
        scopes.active().for_each(|(_, scope)| scope.touched = true);
    }
    #[cfg(feature = "broken")]
    if let Some(member) = member.filter(|_| broken::has(Bug::OffsetsOutsideTransaction)) {
        member.commit_beside(&offsets_of(scopes)?);
    }
    let membership = member.and_then(|member| member.metadata());
    #[cfg(feature = "broken")]
    let membership = if broken::has(Bug::NoGeneration) {
        broken::as_nobody(config)
    } else {
        membership
    };
    commit(sink, scopes, membership, open, config, metrics)?;
    let started = Instant::now();
    if !broken::has(Bug::StoreBeforeCommit) {
        publish(sink, scopes);
    }
    metrics.observe_step("publish", started.elapsed());
    Ok(())
}

/// Writes a run for every scope that has something to remember, then waits until all that was sent
/// is delivered: librdkafka commits slowly while anything is in flight.
pub fn prepare(
    sink: &mut Sink,
    scopes: &mut Scopes,
    open: &Open,
    config: &Config,
) -> Result<(), Trouble> {
    fail::fail_point!("prepare", |_| crate::exit::die());
    let deadline = open.deadline(config);
    let terms = Terms::from(config);
    for (place, scope) in scopes.active() {
        let bypassed = scope.tally.bypassed > 0;
        let has_run = scope.must_write_run || scope.window.is_dirty() || bypassed;
        let has_run = has_run && scope.topic.is_judged();
        if !(scope.touched && has_run) {
            continue;
        }
        let mut pending = scope.window.pending_run(scope.identity, scope.next_offset);
        pending.bypassed = bypassed;
        pending.terms = Some(terms.clone());
        for part in pending.encode(MAX_IDS_PER_RUN) {
            scope.last_run_checksum = run::checksum(&part);
            let outgoing = Outgoing {
                topic: &scope.topic.names.journal,
                partition: scope.partition,
                key: None,
                value: Some(&part),
                headers: None,
                timestamp_ms: None,
            };
            let origin = Origin {
                scope: place,
                offset: scope.next_offset,
                target: Target::Journal,
            };
            sink.send(outgoing, origin, deadline)
                .map_err(|error| not_sent(&error, Target::Journal, &scope.topic.names.journal))?;
        }
    }
    fail::fail_point!("produced", |_| crate::exit::die());
    fail::fail_point!("in-flight-refused", |_| Err(refused_on_purpose()));
    drain(sink, scopes, deadline)?;
    fail::fail_point!("drained", |_| crate::exit::die());
    Ok(())
}

/// Waits until all that was sent is delivered, and finds out what became of what was not.
pub fn drain(sink: &Sink, scopes: &mut Scopes, deadline: Instant) -> Result<(), Trouble> {
    let drained = sink.drain(deadline);
    let failures = sink.failures();
    if !failures.is_empty() {
        return Err(undelivered(scopes, &failures, drained));
    }
    if sink.is_unsure() {
        return Err(Trouble::InDoubt {
            cause: "unconfirmed",
            why: "the client takes records for delivered that no broker has confirmed".to_owned(),
        });
    }
    if !drained {
        return Err(Trouble::InDoubt {
            cause: "delivery-timeout",
            why: format!(
                "records were not delivered within transaction.timeout{}",
                sink.last_error()
                    .map_or_else(String::new, |error| format!("; last error: {error}"))
            ),
        });
    }
    Ok(())
}

/// Of a transaction that was aborted, which leaves nothing in flight: remembers the records that were refused. Whether
/// that is news of any of them.
///
/// # Errors
/// A record can be delivered nowhere.
pub fn note_refusals(sink: &Sink, scopes: &mut Scopes) -> Result<bool, Stop> {
    let known = |scopes: &mut Scopes| -> usize {
        let scopes = scopes.active().map(|(_, scope)| scope);
        scopes.map(|it| it.refused.len() + it.suspects.len()).sum()
    };
    let before = known(scopes);
    match undelivered(scopes, &sink.failures(), true) {
        Trouble::Stop(stop) => Err(stop),
        _ => Ok(known(scopes) > before),
    }
}

/// Adds the input offsets and commits. Only `Ok` means that it is committed. Once the offsets are
/// added, or may have been, no error is taken to mean that it is not (I7).
pub fn commit(
    sink: &Sink,
    scopes: &mut Scopes,
    membership: Option<ConsumerGroupMetadata>,
    open: &Open,
    config: &Config,
    metrics: &Metrics,
) -> Result<(), Trouble> {
    let offsets = offsets_of(scopes)?;
    fail::fail_point!("offsets-refused", |_| Err(refused_on_purpose()));
    let Some(membership) = membership else {
        // Offsets sent without a generation are not fenced at all (I6).
        return Err(Trouble::Abort {
            cause: "not-a-member",
            why: "this consumer is not a member of its group at the moment".to_owned(),
        });
    };
    let started = Instant::now();
    let deadline = open.deadline(config);
    send_offsets(sink, &offsets, &Arc::new(membership), deadline)?;
    fail::fail_point!("offsets-sent", |_| crate::exit::die());
    metrics.observe_step("offsets", started.elapsed());
    let started = Instant::now();
    sink.commit(remaining(deadline).max(Duration::from_secs(1)))
        .map_err(|error| {
            certain_or_in_doubt(consequence(&error, "commit", sink.transactional_id()))
        })?;
    fail::fail_point!("committed", |_| crate::exit::die());
    fail::fail_point!("commit-unknown", |_| Err(Trouble::InDoubt {
        cause: "commit",
        why: "a failpoint hides the outcome".to_owned(),
    }));
    metrics.observe_step("commit", started.elapsed());
    Ok(())
}

/// In the transaction, so that output, journal and offsets become visible together.
fn send_offsets(
    sink: &Sink,
    offsets: &TopicPartitionList,
    membership: &Arc<ConsumerGroupMetadata>,
    deadline: Instant,
) -> Result<(), Trouble> {
    if broken::has(Bug::OffsetsOutsideTransaction) {
        return Ok(());
    }
    loop {
        let left = remaining(deadline);
        match sink.send_offsets(offsets, membership, left) {
            Ok(()) => return Ok(()),
            // The same call again is what librdkafka asks for here.
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !left.is_zero() => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(offsets_not_added(&error, sink.transactional_id())),
        }
    }
}

/// After the commit: the overlays become part of the windows, and the counters move (I2, I4).
pub fn publish(sink: &Sink, scopes: &mut Scopes) {
    let mut runs = std::collections::HashMap::<usize, (i64, i64)>::new();
    for (place, offset) in sink.journalled() {
        let span = runs.entry(place).or_insert((offset, offset));
        *span = (span.0.min(offset), span.1.max(offset));
    }
    for (place, scope) in scopes.active() {
        if scope.touched {
            scope.publish(runs.get(&place).copied());
        }
    }
    fail::fail_point!("published", |_| crate::exit::die());
}

/// Ends the transaction as if it had never been. The scopes are back at their committed offsets;
/// the caller moves the source there.
pub fn abort(sink: &Sink, scopes: &mut Scopes, config: &Config) -> Result<(), Trouble> {
    let outcome = sink.abort(config.transaction.timeout);
    for (_, scope) in scopes.active() {
        scope.discard();
    }
    // An abort that cannot be aborted leaves a producer of no use.
    outcome.map_err(|error| {
        certain_or_in_doubt(consequence(&error, "abort", sink.transactional_id()))
    })?;
    if sink.is_unsure() {
        // The client gives their sequence numbers to the records to come, and a broker that has them takes those for
        // repetitions: it confirms them and drops them.
        return Err(Trouble::InDoubt {
            cause: "unconfirmed",
            why: "records were given up that a broker may have written".to_owned(),
        });
    }
    Ok(())
}

/// Once the request that ends a transaction may have been sent, no error is one after which the same
/// producer can go on: the request may arrive late, and end the next transaction instead (I7).
fn certain_or_in_doubt(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Abort { cause, why } => Trouble::InDoubt { cause, why },
        other => other,
    }
}

/// librdkafka says of offsets that were not answered in time that the transaction can be aborted. It
/// can, but the request may be on its way still. It names producer and epoch and not the transaction:
/// arriving late, it would move the offsets in the next one. So the epoch must end with it (I7).
fn offsets_not_added(error: &KafkaError, transactional_id: &str) -> Trouble {
    let trouble = consequence(error, "offsets", transactional_id);
    match error.rdkafka_error_code() {
        Some(code) if is_unanswered(code) => certain_or_in_doubt(trouble),
        _ => trouble,
    }
}

/// Whether a request with this outcome may have been carried out, or be so later.
fn is_unanswered(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::NetworkException
    )
}

/// What a failed call to the producer of this transactional id means for the transaction.
pub fn consequence(error: &KafkaError, step: &'static str, transactional_id: &str) -> Trouble {
    let code = error.rdkafka_error_code();
    let why = match error {
        KafkaError::Transaction(native) => {
            format!("{step}: {}", native.string().trim_end_matches('.'))
        }
        other => format!("{step}: {other}"),
    };
    match (code, error) {
        (Some(code), _) if is_fence(code) => Trouble::Fenced { why },
        (
            Some(
                RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed,
            ),
            _,
        ) => Trouble::Stop(Stop::contradiction(format!(
            "{why}. Allow Write on the transactional id {transactional_id} (kafka-acls --transactional-id), then start again"
        ))),
        (_, KafkaError::Transaction(native)) if native.is_error() && native.is_fatal() => {
            Trouble::InDoubt {
                cause: "fatal",
                why,
            }
        }
        (_, KafkaError::Transaction(native)) if native.txn_requires_abort() => {
            let hint = code.map_or("", offsets_hint);
            let why = format!("{why}{hint}");
            Trouble::Abort { cause: step, why }
        }
        _ => Trouble::InDoubt { cause: step, why },
    }
}

/// What it means that a record could not be handed to the producer.
fn not_sent(error: &KafkaError, target: Target, to: &str) -> Trouble {
    let code = error.rdkafka_error_code();
    let hint = code.map_or_else(String::new, |code| write_hint(code, to));
    let why = format!("produce to the {target} topic {to}: {error}{hint}");
    match error.rdkafka_error_code() {
        Some(code) if is_fence(code) => Trouble::Fenced { why },
        Some(RDKafkaErrorCode::Fatal) => Trouble::InDoubt {
            cause: "fatal",
            why,
        },
        _ => Trouble::Abort {
            cause: "produce",
            why,
        },
    }
}

/// Whether it says that another producer has taken the transactional id over.
pub fn is_fence(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
    )
}

/// What a person can do about it, where the ACLs are in the way of the input offsets. Which topic it is,
/// the client does not say.
fn offsets_hint(code: RDKafkaErrorCode) -> &'static str {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            ". Allow Read on the input topics, and Write on the others (kafka-acls)"
        }
        RDKafkaErrorCode::GroupAuthorizationFailed => {
            ". Allow Read on the consumer group (kafka-acls)"
        }
        _ => "",
    }
}

/// The same, of a record that was sent to this topic.
fn write_hint(code: RDKafkaErrorCode, topic: &str) -> String {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            format!(". Allow Write on topic {topic} (kafka-acls)")
        }
        _ => String::new(),
    }
}

/// Given up by the client because something else had failed.
fn is_purge(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::PurgeQueue | Code::PurgeInflight)
}

/// Why a broker refuses a record for good, if that is what the code says.
fn refusal(code: RDKafkaErrorCode) -> Option<Rejection> {
    match code {
        RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge => {
            Some(Rejection::TooLarge)
        }
        RDKafkaErrorCode::InvalidTimestamp => Some(Rejection::Timestamp),
        RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::InvalidMessage => {
            Some(Rejection::Invalid)
        }
        _ => None,
    }
}

/// Deliveries failed: were records refused, or was it Kafka's trouble? A refusal falls on a whole
/// batch. A record refused alone is the culprit; of several, each is sent alone the next time.
fn undelivered(scopes: &mut Scopes, failures: &[Failure], are_all: bool) -> Trouble {
    let refused: Vec<(&Failure, Rejection)> = failures
        .iter()
        .filter_map(|failure| refusal(failure.code).map(|rejection| (failure, rejection)))
        .collect();
    // A batch is of one partition, and a journal's is of one scope.
    let is_alone = |failure: &Failure| {
        let of_journal = |it: &Failure| it.origin.target == Target::Journal;
        let kin = refused.iter().filter(|(other, _)| {
            of_journal(failure) && of_journal(other) && other.origin.scope == failure.origin.scope
        });
        refused.len() == 1 || kin.count() == 1
    };
    for (failure, rejection) in &refused {
        let Origin {
            scope: place,
            offset,
            target,
        } = failure.origin;
        let Some(scope) = scopes.at(place) else {
            continue;
        };
        if are_all && is_alone(failure) {
            return refused_record(scope, offset, target, failure.code, *rejection);
        }
        // A run cannot be sent alone.
        if target != Target::Journal {
            scope.suspects.insert(offset);
        }
    }
    if let Some((failure, _)) = refused.first() {
        return Trouble::Abort {
            cause: "refused",
            why: format!(
                "{} of the records were refused: {}",
                refused.len(),
                failure.code
            ),
        };
    }
    // The records behind the one that failed are purged: that says nothing.
    let telling = failures.iter().find(|failure| !is_purge(failure.code));
    let why = match telling.or(failures.first()) {
        Some(failure) => {
            let Origin { scope, target, .. } = failure.origin;
            let topic = scopes.at(scope).map_or("", |scope| scope.topic_of(target));
            format!(
                "{} records were not delivered, one of them to the {target} topic {topic}: {}{}",
                failures.len(),
                failure.code,
                write_hint(failure.code, topic)
            )
        }
        None => "records were not delivered".to_owned(),
    };
    if failures.iter().any(|failure| is_fence(failure.code)) {
        return Trouble::Fenced { why };
    }
    let timed_out = failures
        .iter()
        .any(|f| f.code == RDKafkaErrorCode::MessageTimedOut);
    if timed_out {
        // Whether the broker has them is not known, and the sequence numbers are in doubt with it.
        return Trouble::InDoubt {
            cause: "delivery-timeout",
            why,
        };
    }
    Trouble::Abort {
        cause: "delivery",
        why,
    }
}

/// One record is refused for good. By the output: it is rejected when it comes again. By one of our
/// own topics: nowhere is left to put it.
fn refused_record(
    scope: &mut Scope,
    offset: i64,
    target: Target,
    code: RDKafkaErrorCode,
    rejection: Rejection,
) -> Trouble {
    let (topic, partition) = scope.partition_key();
    if target != Target::Output {
        return Trouble::Stop(Stop::contradiction(format!(
            "the {target} topic refused what belongs to {topic}-{partition} offset {offset}: {code}. To have it taken, {}; then start again",
            rejection.remedy()
        )));
    }
    scope.refused.insert(offset, rejection);
    Trouble::Abort {
        cause: "refused",
        why: format!("{topic}-{partition} offset {offset} was refused: {code}"),
    }
}

/// What it means that a record of a scope could not be handed to the producer.
pub fn not_taken(error: &KafkaError, scope: &mut Scope, offset: i64, target: Target) -> Trouble {
    let code = error.rdkafka_error_code();
    match code.and_then(|code| Some((code, refusal(code)?))) {
        Some((code, rejection)) => refused_record(scope, offset, target, code, rejection),
        None => not_sent(error, target, scope.topic_of(target)),
    }
}

/// The input positions that the transaction commits.
pub fn offsets_of(scopes: &mut Scopes) -> Result<TopicPartitionList, Trouble> {
    let mut offsets = TopicPartitionList::new();
    for (_, scope) in scopes.active() {
        if scope.touched {
            offsets
                .add_partition_offset(
                    &scope.topic.name,
                    scope.partition,
                    rdkafka::Offset::Offset(scope.next_offset),
                )
                .map_err(|error| {
                    Trouble::Stop(Stop::internal(format!(
                        "an offset cannot be written: {error}"
                    )))
                })?;
        }
    }
    Ok(offsets)
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// What a failpoint makes of a transaction that could have been committed.
#[cfg(feature = "failpoints")]
fn refused_on_purpose() -> Trouble {
    Trouble::Abort {
        cause: "failpoint",
        why: "a failpoint refuses to go on".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abortable() -> Trouble {
        Trouble::Abort {
            cause: "offsets",
            why: String::new(),
        }
    }

    #[test]
    fn an_unanswered_request_is_never_taken_for_one_that_failed() {
        use RDKafkaErrorCode as Code;
        for code in [
            Code::OperationTimedOut,
            Code::RequestTimedOut,
            Code::TimedOutQueue,
            Code::BrokerTransportFailure,
        ] {
            assert!(is_unanswered(code), "{code}");
        }
        // What the group coordinator answers is certain: the transaction is aborted and goes on.
        for code in [
            Code::IllegalGeneration,
            Code::UnknownMemberId,
            Code::FencedInstanceId,
        ] {
            assert!(!is_unanswered(code), "{code}");
        }
        let doubt = certain_or_in_doubt(abortable());
        assert!(matches!(
            doubt,
            Trouble::InDoubt {
                cause: "offsets",
                ..
            }
        ));
        let fenced = certain_or_in_doubt(Trouble::Fenced { why: String::new() });
        assert!(matches!(fenced, Trouble::Fenced { .. }));
    }

    #[test]
    fn what_the_acls_forbid_is_named() {
        use RDKafkaErrorCode as Code;
        let error = KafkaError::Global(Code::TransactionalIdAuthorizationFailed);
        let trouble = consequence(&error, "begin", "orders-dedup-a-0");
        let Trouble::Stop(stop) = trouble else {
            panic!("{trouble:?}")
        };
        let named = "Allow Write on the transactional id orders-dedup-a-0 ";
        assert!(stop.sentence.contains(named), "{stop}");
        let error = KafkaError::MessageProduction(Code::TopicAuthorizationFailed);
        let trouble = not_sent(&error, Target::Output, "orders_dedup");
        let Trouble::Abort { why, .. } = trouble else {
            panic!("{trouble:?}")
        };
        assert!(why.contains("Allow Write on topic orders_dedup "), "{why}");
    }
}
