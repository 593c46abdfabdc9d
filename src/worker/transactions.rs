//! The worker's transactions: when one is closed, and what is done when that fails. The steps of a
//! commit themselves are in [`crate::commit`].

use std::panic::resume_unwind;
use std::thread;

use super::*;
use crate::broken::{self, Bug};
use crate::kafka::bounded;

/// Transactions aborted in a row, after which it is no passing trouble.
pub(super) const ABORTS_NOT_READY: u32 = 3;
/// How long one record is waited for while a transaction is being committed, and so how much later than it is that
/// may be noticed.
const READ_AHEAD: Duration = Duration::from_millis(1);

impl Worker {
    pub(super) fn commit_is_due(&self) -> bool {
        self.open
            .as_ref()
            .and_then(|open| self.why_due(open))
            .is_some()
    }

    /// Whether the open transaction takes no more records.
    pub(super) fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| self.fills(open))
    }

    fn fills(&self, open: &Open) -> bool {
        open.records >= self.config.transaction.records
            || open.partitions >= PARTITIONS_PER_TRANSACTION
            || open.alone >= ALONE_PER_TRANSACTION
    }

    /// Why a transaction has to be closed now, in one word; `None`: it need not be.
    fn why_due(&self, open: &Open) -> Option<&'static str> {
        if self.fills(open) {
            Some("full")
        } else if Instant::now() >= self.due(open, open.ran_dry) {
            Some("interval")
        } else {
            None
        }
    }

    /// When a transaction is to be closed, where it is not full before. Counted from the last commit, so that a record
    /// that came while that was going on does not wait for it and for a whole interval; but where the source
    /// has more all the time, larger transactions are cheaper, and it stays open for all of the interval.
    pub(super) fn due(&self, open: &Open, dry: bool) -> Instant {
        let interval = self.config.transaction.interval;
        if dry {
            (self.closed_at + interval).max(open.begun + interval / SHORTEST_PART)
        } else {
            open.begun + interval
        }
    }

    /// Commits what is open; if that cannot be, aborts it, so that nothing is open afterwards.
    pub(super) fn close_transaction(&mut self) -> Result<(), Stop> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let why = self.why_due(&open).unwrap_or("early");
        self.closed_at = Instant::now();
        match self.try_commit(&open) {
            Ok(()) => {
                self.aborts_in_a_row = 0;
                self.replacements = 0;
                let metrics = &self.shared.metrics;
                metrics.transaction_committed(why);
                metrics.transaction_records.observe(open.records as f64);
                metrics
                    .last_commit_timestamp_seconds
                    .set(wall_clock_ms() as f64 / 1000.0);
                self.tell("kafka", Condition::Ready("committing".to_owned()));
                self.tell("transactions", Condition::Ready("committing".to_owned()));
                // The coordinator takes offsets from members alone.
                self.stands(Standing::Member);
                Ok(())
            }
            Err(trouble) => {
                self.open = Some(open);
                self.resolve(trouble)
            }
        }
    }

    /// Closes the transaction, see [`commit::close`]. The brokers are waited for on a thread of its own where the source
    /// has more: this one reads ahead meanwhile, and what it reads is judged when the outcome is known.
    pub(super) fn try_commit(&mut self, open: &Open) -> Result<(), Trouble> {
        let Some(sink) = &mut self.sink else {
            return Err(Trouble::InDoubt {
                cause: "no-producer",
                why: "there is no producer".to_owned(),
            });
        };
        let scopes = &mut self.scopes;
        let (config, metrics) = (&self.config, &self.shared.metrics);
        let mut close = |member| commit::close(sink, scopes, member, open, config, metrics);
        if open.ran_dry {
            return close(self.source.as_ref().map(Source::member));
        }
        let Some(source) = &mut self.source else {
            return close(None);
        };
        let (member, mut ahead) = source.while_committing();
        thread::scope(|scope| {
            let closing = thread::Builder::new().name("committing".to_owned());
            let closing = closing.spawn_scoped(scope, || close(Some(member)));
            let closing = closing.map_err(|error| Trouble::Abort {
                cause: "no-thread",
                why: format!("no thread to commit in: {error}"),
            })?;
            let most = config.transaction.records;
            while !closing.is_finished() && ahead.read(READ_AHEAD, most) {}
            closing.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Acts on what went wrong with the open transaction. Afterwards none is open.
    pub(super) fn resolve(&mut self, trouble: Trouble) -> Result<(), Stop> {
        let metrics = Arc::clone(&self.shared.metrics);
        let fatal = self.sink.as_ref().and_then(Sink::fatal_error);
        let trouble = match trouble {
            // Whoever hands a record over is told that the client is of no use any more, and not why.
            Trouble::InDoubt {
                cause: "fatal",
                why,
            } if fatal.is_some_and(commit::is_fence) => Trouble::Fenced { why },
            other => other,
        };
        match trouble {
            Trouble::Stop(stop) | Trouble::Halt(stop) => Err(stop),
            Trouble::Abort { cause, why } => {
                metrics.transaction_aborted(cause);
                tracing::warn!(
                    worker = self.index,
                    cause,
                    "transaction aborted, its records are judged again and nothing is lost: {why}"
                );
                if self.aborts_in_a_row >= ABORTS_NOT_READY {
                    let text = format!("aborted again and again; last: {why}");
                    self.tell("transactions", Condition::NotReady(text));
                    // It may be a permission, which is asked for there.
                    self.next_discovery = self.next_discovery.min(Instant::now() + HOUSEKEEPING);
                }
                self.abort_and_rewind()
            }
            Trouble::InDoubt { cause, why } => {
                metrics.transaction_aborted(cause);
                tracing::warn!(
                    worker = self.index,
                    cause,
                    "the outcome of the transaction is in doubt: the producer is replaced, and Kafka is asked how far it came. Nothing needs to be done: {why}"
                );
                if broken::has(Bug::ProducerKeptAfterUnknownCommit) {
                    self.open = None;
                    self.scopes.active().for_each(|(_, scope)| scope.discard());
                    self.rewind();
                    return Ok(());
                }
                self.replace_producer()
            }
            Trouble::Damaged { scope, damage } => self.rebuild_seen_set(scope, &damage),
            Trouble::Fenced { why } => {
                metrics.transaction_aborted("fenced");
                let overdue = self
                    .open
                    .as_ref()
                    .is_some_and(|open| Instant::now() >= open.deadline(&self.config));
                if overdue {
                    tracing::warn!(
                        worker = self.index,
                        "the transaction took longer than transaction.timeout, and the brokers ended it; the producer is replaced: {why}"
                    );
                } else {
                    self.count_fence(&why)?;
                    tracing::warn!(
                        worker = self.index,
                        "the producer was fenced: another process uses the instance id {}, unless a broker was just lost; replacing it: {why}",
                        self.config.kafka.instance_id
                    );
                }
                self.replace_producer()
            }
        }
    }

    pub(super) fn count_fence(&mut self, why: &str) -> Result<(), Stop> {
        let now = Instant::now();
        self.fenced_at
            .retain(|at| now.duration_since(*at) < FENCE_MEMORY);
        self.fenced_at.push_back(now);
        if self.fenced_at.len() >= FENCES {
            return Err(Stop::restart(format!(
                "fenced {FENCES} times in {} s: another process uses the instance id {} in the group {}. Give every instance its own kafka.instance_id. Last: {why}",
                FENCE_MEMORY.as_secs(),
                self.config.kafka.instance_id,
                self.config.kafka.group_id
            )));
        }
        Ok(())
    }

    /// Of a producer that works: whether somebody else wants to be it.
    pub(super) fn tell_producer(&mut self) {
        let now = Instant::now();
        self.fenced_at
            .retain(|at| now.duration_since(*at) < FENCE_MEMORY);
        let condition = match self.fenced_at.len() {
            0 => Condition::Ready("transactional id is ours".to_owned()),
            times => Condition::Degraded(format!(
                "fenced {} in the last {} s: another process uses the instance id {} in the group {}, unless a broker was just lost. Give every instance its own kafka.instance_id",
                if times == 1 { "once" } else { "twice" },
                FENCE_MEMORY.as_secs(),
                self.config.kafka.instance_id,
                self.config.kafka.group_id
            )),
        };
        self.tell("producer", condition);
    }

    pub(super) fn abort_and_rewind(&mut self) -> Result<(), Stop> {
        let (Some(_), Some(sink)) = (self.open.take(), &self.sink) else {
            // Nothing is open that could be aborted: what the producer means, it alone knows.
            return self.replace_producer();
        };
        if let Err(trouble) = commit::abort(sink, &mut self.scopes, &self.config) {
            return self.resolve(trouble);
        }
        // Not before: of a batch that is refused, the records are reported one by one, and one alone would be blamed.
        if commit::note_refusals(sink, &mut self.scopes)? {
            // It goes differently next time.
            self.rewind();
            return Ok(());
        }
        self.aborts_in_a_row += 1;
        let pause = Duration::from_millis(10)
            .saturating_mul(1 << self.aborts_in_a_row.min(9))
            .min(LONGEST_PAUSE);
        self.resume_at = Instant::now() + pause;
        self.rewind();
        Ok(())
    }

    /// Moves the source back to where the scopes are.
    pub(super) fn rewind(&mut self) {
        let targets: Vec<(Partition, i64)> = self
            .scopes
            .active()
            .map(|(_, scope)| (scope.partition_key(), scope.next_offset))
            .collect();
        let partitions: Vec<Partition> = targets
            .iter()
            .map(|(partition, _)| partition.clone())
            .collect();
        self.pause(&partitions);
        self.to_start = targets;
    }

    /// Stops reading partitions until they are started again at an offset of ours.
    pub(super) fn pause(&mut self, partitions: &[Partition]) {
        if let Some(source) = &mut self.source
            && let Err(error) = source.pause(partitions)
        {
            tracing::debug!(%error, "pausing partitions");
        }
    }

    /// What a scope has stored cannot be read: what is open is aborted, and the scope's seen set is
    /// rebuilt from the journal while the other scopes go on.
    pub(super) fn rebuild_seen_set(&mut self, place: usize, damage: &Damage) -> Result<(), Stop> {
        let Some(partition) = self.scopes.at(place).map(|scope| scope.partition_key()) else {
            return Ok(());
        };
        tracing::warn!(
            worker = self.index,
            topic = partition.0,
            partition = partition.1,
            "{damage}; the seen set is rebuilt from the journal, and the partition waits until it is. Nothing needs to be done"
        );
        // Out first: whatever becomes of the transaction, this window must not be used again.
        let damaged = self.scopes.remove(&partition);
        self.to_start.retain(|(starting, _)| *starting != partition);
        self.awaiting.remove(&partition);
        self.pause(std::slice::from_ref(&partition));
        self.hold_incomplete();
        if self.open.is_some() {
            self.shared.metrics.transaction_aborted("store-damage");
            self.abort_and_rewind()?;
        }
        let Some(damaged) = damaged else {
            return Ok(());
        };
        damaged.window.shelf().set_damaged_aside(damage);
        let Scope {
            topic,
            partition,
            metrics,
            window,
            ..
        } = damaged;
        // Recovery opens the same files.
        drop(window);
        self.request_recovery(topic, partition, metrics, None)
    }

    /// I7: a new producer, which ends whatever the old one left; then position and seen set of
    /// every scope are read from Kafka again.
    pub(super) fn replace_producer(&mut self) -> Result<(), Stop> {
        self.open = None;
        self.replacements += 1;
        if self.replacements > REPLACEMENTS {
            return Err(Stop::restart(format!(
                "{REPLACEMENTS} producers in a row could not commit a single transaction; see the warnings above"
            )));
        }
        self.shared.metrics.producer_rebuilds.inc();
        if let Some(sink) = self.sink.take() {
            retire(sink);
        }
        self.recover_all()
    }

    /// Forgets nothing that is committed, assumes nothing of what is not: all scopes go back to
    /// recovery, which continues from the windows they have.
    pub(super) fn recover_all(&mut self) -> Result<(), Stop> {
        self.to_start.clear();
        self.awaiting.clear();
        let scopes = self.scopes.take_active();
        let partitions: Vec<Partition> = scopes.iter().map(Scope::partition_key).collect();
        self.pause(&partitions);
        for mut scope in scopes {
            scope.discard();
            let known = (scope.window, scope.journal_next);
            self.request_recovery(scope.topic, scope.partition, scope.metrics, Some(known))?;
        }
        Ok(())
    }

    /// Makes a producer and takes the transactional id over. One attempt; the loop comes back.
    /// The group hears from us between attempts.
    pub(super) fn take_over_transactional_id(&mut self) -> Result<(), Stop> {
        if bounded::given_up() > CALLS_GIVEN_UP * self.config.workers {
            return Err(Stop::restart(format!(
                "{} calls into the client library have not come back; a new process has none of them. See the warnings above",
                bounded::given_up()
            )));
        }
        let sink = Sink::create(&self.config, self.index)?;
        match sink.init(INIT_ATTEMPT) {
            Ok(()) => {
                self.sink = Some(sink);
                fail::fail_point!("initialised", |_| crate::exit::die());
                self.tell_producer();
                Ok(())
            }
            Err(error) => {
                let id = sink.transactional_id();
                if let Trouble::Stop(stop) = commit::consequence(&error, "init_transactions", id) {
                    return Err(stop);
                }
                let last = sink.last_error().unwrap_or_default();
                let last = format!("{last}{}", advice(&last));
                retire(sink);
                self.tell(
                    "producer",
                    Condition::NotReady(format!(
                        "taking the transactional id over: {error}; last error: {last}"
                    )),
                );
                tracing::warn!(worker = self.index, %error, last, "the transactional id could not be taken over yet; trying again");
                // What is polled meanwhile is not judged: it must be read again.
                self.rewind();
                let until = Instant::now() + Duration::from_secs(1);
                while Instant::now() < until && !self.shutting_down() {
                    self.serve_group()?;
                }
                Ok(())
            }
        }
    }

    /// Polls without judging: every partition is paused, or will be read again when it is started.
    pub(super) fn serve_group(&mut self) -> Result<(), Stop> {
        match &mut self.source {
            Some(source) => {
                if let Some(Err(error)) = source.poll(POLL) {
                    tracing::debug!(%error, "poll");
                    self.note_unreachable(&error);
                    self.heed_fatal_error()?;
                }
                self.handle_rebalances()?;
            }
            None => std::thread::sleep(POLL),
        }
        Ok(())
    }

    /// Aborts what is open without judging it again: its partitions are going away.
    pub(super) fn abandon_transaction(&mut self) {
        if self.open.take().is_none() {
            return;
        }
        self.shared.metrics.transaction_aborted("abandoned");
        let Some(sink) = &self.sink else { return };
        if let Err(trouble) = commit::abort(sink, &mut self.scopes, &self.config) {
            tracing::warn!(
                worker = self.index,
                ?trouble,
                "abort failed; the next producer with this transactional id ends the transaction"
            );
            if let Some(sink) = self.sink.take() {
                retire(sink);
            }
        }
    }
}

/// Lets go of a producer without waiting: destroying a client waits for its threads, which may wait
/// for a broker.
fn retire(sink: Sink) {
    let retiring = std::thread::Builder::new().name("retired".to_owned());
    if let Err(error) = retiring.spawn(move || drop(sink)) {
        tracing::warn!(%error, "no thread to take a producer apart in");
    }
}
