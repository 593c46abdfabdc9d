//! The broker as a model: logs with transactional visibility, the transaction coordinator, the group
//! coordinator. Every call is atomic; what a network does to calls and answers is the world's matter.
//!
//! A commit is what Kafka makes of it: accepted first, answered then, and carried to each log and to
//! the group's offsets by a marker of its own, in any order, later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub type Bytes = Arc<[u8]>;
pub type MemberId = u32;

/// Which of a scope's topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    Output,
    Duplicates,
    Rejected,
    Journal,
}

/// A topic and a partition of it.
pub type LogId = (Topic, usize);

/// Who writes: producer id (here: the transactional id), epoch, and the transaction's number within
/// the epoch, which stands for the sequence numbers of its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Writer {
    pub id: u8,
    pub epoch: u16,
    pub serial: u16,
}

/// A record's value, with what the checks want to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// A copy of the input record at this offset, judged at this wall clock; a duplicate says of
    /// which offset, and how old.
    Copy {
        source: i64,
        bytes: Bytes,
        wall_ms: i64,
        duplicate_of: Option<(i64, i64)>,
    },
    Run(Bytes),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
    Record { by: Writer, value: Value },
    Marker { id: u8, commit: bool },
}

/// One partition. Offsets are indexes; what is deleted stays, below `low`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Log {
    pub low: i64,
    pub entries: Vec<Entry>,
    /// The newest epoch that a marker of a producer has brought here.
    epochs: BTreeMap<u8, u16>,
}

/// What a read_committed reader finds at its position.
pub enum Next {
    Record(i64, Value),
    /// The last stable offset: an open transaction, or the end.
    Blocked,
    OutOfRange,
}

impl Log {
    pub fn high(&self) -> i64 {
        self.entries.len() as i64
    }

    /// Whether the transaction of the record there was committed; `None` while it is open.
    fn outcome(&self, at: usize) -> Option<bool> {
        let Entry::Record { by, .. } = &self.entries[at] else {
            return Some(false);
        };
        self.entries[at..].iter().find_map(|entry| match entry {
            Entry::Marker { id, commit } if *id == by.id => Some(*commit),
            _ => None,
        })
    }

    pub fn last_stable(&self) -> i64 {
        let open = (0..self.entries.len()).find(|at| self.outcome(*at).is_none());
        open.map_or(self.high(), |at| at as i64)
    }

    /// The next committed record from `position` on.
    pub fn next(&self, position: i64) -> (i64, Next) {
        if position < self.low {
            return (position, Next::OutOfRange);
        }
        for at in position as usize..self.last_stable() as usize {
            if let (Entry::Record { value, .. }, Some(true)) = (&self.entries[at], self.outcome(at))
            {
                return (at as i64 + 1, Next::Record(at as i64, value.clone()));
            }
        }
        (self.last_stable().max(position), Next::Blocked)
    }

    /// All committed records, deleted ones included.
    pub fn committed(&self) -> impl Iterator<Item = &Value> {
        let records = self.entries.iter().enumerate();
        records.filter_map(|(at, entry)| match entry {
            Entry::Record { value, .. } if self.outcome(at) == Some(true) => Some(value),
            _ => None,
        })
    }
}

/// Where a marker goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Log(LogId),
    Offsets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Empty,
    Ongoing,
    /// Decided; markers are on their way.
    Ending {
        commit: bool,
    },
    Ended {
        commit: bool,
    },
}

/// A transactional id at its coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transaction {
    pub epoch: u16,
    pub serial: u16,
    pub state: State,
    pub targets: BTreeSet<Target>,
}

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// A newer epoch of the same transactional id.
    Fenced,
    InvalidState,
    /// The transaction before is still being ended: try again.
    Concurrent,
    /// Illegal generation, unknown member, fenced instance.
    NotAMember,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    pub slot: usize,
    pub instance: Option<u8>,
    /// Has joined the rebalance that goes on.
    pub joined: bool,
    /// What it said to own when it joined.
    pub owned: BTreeSet<usize>,
    /// An assignment that it has not heard of yet.
    pub news: Option<BTreeSet<usize>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Group {
    pub generation: i32,
    pub members: BTreeMap<MemberId, Member>,
    pub rebalancing: bool,
    pub assignment: BTreeMap<usize, MemberId>,
    pub committed: BTreeMap<usize, i64>,
    pub pending: BTreeMap<u8, BTreeMap<usize, i64>>,
    /// Static members whose instance id another has taken over.
    pub fenced: BTreeSet<MemberId>,
    epochs: BTreeMap<u8, u16>,
    last_member: MemberId,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Broker {
    pub logs: BTreeMap<LogId, Log>,
    pub transactions: BTreeMap<u8, Transaction>,
    pub group: Group,
}

impl Broker {
    pub fn log(&self, id: LogId) -> &Log {
        &self.logs[&id]
    }

    /// InitProducerId: ends what is open, then gives a newer epoch.
    pub fn init(&mut self, id: u8) -> Result<u16, Refused> {
        let entry = self.transactions.entry(id).or_insert(Transaction {
            epoch: 0,
            serial: 0,
            state: State::Empty,
            targets: BTreeSet::new(),
        });
        match entry.state {
            State::Ongoing => {
                self.time_out(id);
                Err(Refused::Concurrent)
            }
            State::Ending { .. } => Err(Refused::Concurrent),
            State::Empty | State::Ended { .. } => {
                entry.epoch += 1;
                entry.serial = 0;
                entry.state = State::Empty;
                Ok(entry.epoch)
            }
        }
    }

    /// AddPartitionsToTxn and Produce: all records or none, as they are one producer's next batches.
    pub fn produce(&mut self, by: Writer, records: &[(LogId, Value)]) -> Result<Vec<i64>, Refused> {
        self.enter(by, records.iter().map(|(log, _)| Target::Log(*log)))?;
        let mut offsets = Vec::new();
        for (id, value) in records {
            let log = self.logs.entry(*id).or_default();
            if log
                .epochs
                .get(&by.id)
                .is_some_and(|newest| *newest > by.epoch)
            {
                return Err(Refused::Fenced);
            }
            offsets.push(log.high());
            log.entries.push(Entry::Record {
                by,
                value: value.clone(),
            });
        }
        Ok(offsets)
    }

    /// AddOffsetsToTxn.
    pub fn add_offsets(&mut self, by: Writer) -> Result<(), Refused> {
        self.enter(by, [Target::Offsets].into_iter())
    }

    fn enter(&mut self, by: Writer, targets: impl Iterator<Item = Target>) -> Result<(), Refused> {
        let transaction = self.transactions.get_mut(&by.id).ok_or(Refused::Fenced)?;
        if transaction.epoch != by.epoch {
            return Err(Refused::Fenced);
        }
        match transaction.state {
            State::Ending { .. } => return Err(Refused::Concurrent),
            State::Ongoing if transaction.serial == by.serial => {}
            // A transaction that was ended from elsewhere, or batches of one before.
            State::Ongoing => return Err(Refused::InvalidState),
            State::Empty | State::Ended { .. } if by.serial <= transaction.serial => {
                return Err(Refused::InvalidState);
            }
            State::Empty | State::Ended { .. } => {
                transaction.state = State::Ongoing;
                transaction.serial = by.serial;
                transaction.targets.clear();
            }
        }
        transaction.targets.extend(targets);
        Ok(())
    }

    /// TxnOffsetCommit. It carries producer id and epoch, and not which transaction it belongs to.
    /// `member` is checked unless the request names none.
    pub fn offsets(
        &mut self,
        by: Writer,
        member: Option<(MemberId, i32)>,
        offsets: &BTreeMap<usize, i64>,
    ) -> Result<(), Refused> {
        let group = &mut self.group;
        if let Some((member, generation)) = member
            && (!group.members.contains_key(&member) || generation != group.generation)
        {
            return Err(Refused::NotAMember);
        }
        if group
            .epochs
            .get(&by.id)
            .is_some_and(|newest| *newest > by.epoch)
        {
            return Err(Refused::Fenced);
        }
        // Brokers verify with the coordinator that a transaction with offsets is open.
        let open = self.transactions.get(&by.id).is_some_and(|transaction| {
            transaction.epoch == by.epoch
                && transaction.state == State::Ongoing
                && transaction.targets.contains(&Target::Offsets)
        });
        if !open {
            return Err(Refused::InvalidState);
        }
        let pending = group.pending.entry(by.id).or_default();
        pending.extend(
            offsets
                .iter()
                .map(|(partition, offset)| (*partition, *offset)),
        );
        Ok(())
    }

    /// EndTxn. It does not say which transaction either.
    pub fn end(&mut self, id: u8, epoch: u16, commit: bool) -> Result<(), Refused> {
        let transaction = self.transactions.get_mut(&id).ok_or(Refused::Fenced)?;
        if transaction.epoch != epoch {
            return Err(Refused::Fenced);
        }
        match transaction.state {
            State::Ongoing => {
                transaction.state = State::Ending { commit };
                self.complete(id);
                Ok(())
            }
            State::Ending { commit: decided } if decided == commit => Err(Refused::Concurrent),
            State::Ended { commit: decided } if decided == commit => Ok(()),
            _ => Err(Refused::InvalidState),
        }
    }

    /// The coordinator gives up on an open transaction, and fences whoever it belongs to.
    pub fn time_out(&mut self, id: u8) {
        if let Some(transaction) = self.transactions.get_mut(&id)
            && transaction.state == State::Ongoing
        {
            transaction.epoch += 1;
            transaction.state = State::Ending { commit: false };
            self.complete(id);
        }
    }

    /// A marker arrives.
    pub fn mark(&mut self, id: u8, target: Target) {
        let Some(transaction) = self.transactions.get_mut(&id) else {
            return;
        };
        let State::Ending { commit } = transaction.state else {
            return;
        };
        if !transaction.targets.remove(&target) {
            return;
        }
        let epoch = transaction.epoch;
        match target {
            Target::Log(log) => {
                let log = self.logs.entry(log).or_default();
                log.entries.push(Entry::Marker { id, commit });
                log.epochs.insert(id, epoch);
            }
            Target::Offsets => {
                self.group.epochs.insert(id, epoch);
                let pending = self.group.pending.remove(&id).unwrap_or_default();
                if commit {
                    self.group.committed.extend(pending);
                }
            }
        }
        self.complete(id);
    }

    fn complete(&mut self, id: u8) {
        if let Some(transaction) = self.transactions.get_mut(&id)
            && let State::Ending { commit } = transaction.state
            && transaction.targets.is_empty()
        {
            transaction.state = State::Ended { commit };
        }
    }

    /// OffsetFetch with require_stable; `Err` while a transaction has an offset pending.
    pub fn stable_offset(&self, partition: usize) -> Result<Option<i64>, Refused> {
        let pending = self.group.pending.values();
        if pending.flatten().any(|(p, _)| *p == partition) {
            return Err(Refused::Concurrent);
        }
        Ok(self.group.committed.get(&partition).copied())
    }

    /// DeleteRecords.
    pub fn delete(&mut self, id: LogId, before: i64) {
        let log = self.logs.entry(id).or_default();
        log.low = log.low.max(before.min(log.high()));
    }
}

impl Group {
    /// JoinGroup of a member without an id. A static one takes its instance's place, as it is.
    pub fn join_new(&mut self, slot: usize, instance: Option<u8>, partitions: usize) -> MemberId {
        self.last_member += 1;
        let id = self.last_member;
        let mut member = Member {
            slot,
            instance,
            joined: true,
            owned: BTreeSet::new(),
            news: None,
        };
        let same = |other: &Member| instance.is_some() && other.instance == instance;
        let earlier = self.members.iter().find(|(_, other)| same(other));
        if let Some((earlier, _)) = earlier.map(|(id, other)| (*id, other.clone())) {
            self.members.remove(&earlier);
            self.fenced.insert(earlier);
            for owner in self
                .assignment
                .values_mut()
                .filter(|owner| **owner == earlier)
            {
                *owner = id;
            }
            // What is nobody's just now would stay so.
            if !self.rebalancing && self.assignment.len() < partitions {
                self.rebalance();
            } else if !self.rebalancing {
                let its = self.assignment.iter().filter(|(_, owner)| **owner == id);
                member.news = Some(its.map(|(partition, _)| *partition).collect());
            }
        } else {
            self.rebalance();
        }
        self.members.insert(id, member);
        id
    }

    /// JoinGroup of a member that is known.
    pub fn rejoin(&mut self, id: MemberId, owned: BTreeSet<usize>) {
        if let Some(member) = self.members.get_mut(&id) {
            (member.joined, member.owned) = (true, owned);
        }
    }

    /// A rebalance begins: all must join.
    pub fn rebalance(&mut self) {
        self.rebalancing = true;
        for member in self.members.values_mut() {
            (member.joined, member.news) = (false, None);
        }
    }

    /// A member left, or its session ended.
    pub fn remove(&mut self, id: MemberId) {
        if self.members.remove(&id).is_some() {
            self.rebalance();
        }
    }

    pub fn can_complete(&self) -> bool {
        self.rebalancing && !self.members.is_empty() && self.members.values().all(|m| m.joined)
    }

    /// All have joined: a new generation, with partitions dealt out from `shift` on. What another
    /// member still owns is nobody's until it has let go.
    pub fn complete(&mut self, partitions: usize, shift: usize) {
        self.generation += 1;
        self.rebalancing = false;
        self.assignment.clear();
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        for partition in 0..partitions {
            let wanted = ids[(partition + shift) % ids.len()];
            let owner = self
                .members
                .iter()
                .find(|(_, m)| m.owned.contains(&partition));
            if owner.is_none_or(|(owner, _)| *owner == wanted) {
                self.assignment.insert(partition, wanted);
            }
        }
        for (id, member) in &mut self.members {
            let its = self.assignment.iter().filter(|(_, owner)| *owner == id);
            member.news = Some(its.map(|(partition, _)| *partition).collect());
        }
    }
}
