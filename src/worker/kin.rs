//! Partitions that are kin: their windows are asked together (`scope: copartition` and `topic`). So none is
//! read before the seen sets of all are there (I5), and while they catch up, they are read in about the order
//! of their timestamps: stream time is theirs together, and what is read late would count as late.

use std::collections::HashMap;

use super::scopes::{NO_FAMILY, kinship};
use super::*;
use crate::config;

/// A partition may be ahead of its kin, while they catch up, by this part of the window.
const AHEAD_OF_KIN: i64 = 8;
/// A partition from which nothing comes for this long is not waited for.
const SILENCE: Duration = Duration::from_secs(3);

impl Worker {
    pub(super) fn has_kin(&self) -> bool {
        self.config.scope.has_kin()
    }

    /// Whether partitions that catch up are read side by side. Of two hops, those of the first: what is in
    /// several of them meets in the second, which has a stream time of its own.
    pub(super) fn is_paced(&self) -> bool {
        self.config.scope != config::Scope::Partition
    }

    /// The input that a topic's records are of.
    pub(super) fn input_of<'a>(&'a self, name: &'a str) -> &'a str {
        self.topics.get(name).map_or(name, |topic| topic.input())
    }

    /// What the group's word means for this member: a topic that is one scope has one owner, who has its
    /// partition 0, and reads all of them.
    pub(super) fn of_owner(&self, partitions: Vec<Partition>) -> Vec<Partition> {
        if self.config.scope != config::Scope::Topic {
            return partitions;
        }
        let heads = partitions.into_iter().filter(|(_, number)| *number == 0);
        let all = heads.flat_map(|(name, _)| {
            let count = self.topics.get(&name).map_or(1, |topic| topic.partitions);
            (0..count).map(move |number| (name.clone(), number))
        });
        all.collect()
    }

    /// Of a topic that is one scope, all partitions are read: how many there are now is asked. When it gets more,
    /// the group assigns anew.
    pub(super) fn count_anew(&mut self, partitions: &[Partition]) -> Result<(), Stop> {
        if self.config.scope != config::Scope::Topic {
            return Ok(());
        }
        let heads = partitions.iter().filter(|(_, number)| *number == 0);
        for (name, _) in heads {
            self.topics.remove(name);
            self.topic_with(name, 0)?;
        }
        Ok(())
    }

    /// The same of partitions that go to somebody else: those of them that are here.
    pub(super) fn of_former_owner(&self, partitions: Vec<Partition>) -> Vec<Partition> {
        let mut all = self.of_owner(partitions);
        if self.config.scope == config::Scope::Topic {
            // The client refuses to give back what it never had.
            all.retain(|partition| self.is_here(partition));
        }
        all
    }

    fn is_here(&self, partition: &Partition) -> bool {
        self.scopes.place(&partition.0, partition.1).is_some()
            || self.scopes.recovering().contains_key(partition)
    }

    /// Partitions of which one waits for another stop being read, until [`Self::start_restored`]. To be
    /// called when a scope has come or gone.
    pub(super) fn hold_incomplete(&mut self) {
        if !self.has_kin() {
            return;
        }
        let whole = self.whole_families();
        let scope = self.config.scope;
        let mut held = Vec::new();
        for (_, active) in self.scopes.active() {
            let (name, partition) = active.partition_key();
            if !whole.contains(kinship(scope, &name, partition)) {
                held.push(((name, partition), active.next_offset));
            }
        }
        self.hold(held);
    }

    /// Every turn: partitions that have run ahead of kin that catches up are held, and the others let go.
    pub(super) fn keep_pace(&mut self) {
        if !self.is_paced() {
            return;
        }
        let mut ahead = Vec::new();
        for family in 0..self.scopes.families().len() {
            self.scopes.set_bounds(family, self.config.window);
        }
        for scope in self.scopes.paced() {
            let pace = &mut scope.pace;
            let is_ahead = pace
                .reached_ms
                .is_some_and(|reached| reached > pace.bound_ms);
            let was_held = std::mem::replace(&mut pace.held, is_ahead);
            if is_ahead && !was_held {
                ahead.push((scope.partition_key(), scope.next_offset));
            }
        }
        self.hold(ahead);
    }

    /// The next record of this scope is ahead of its kin: it is read again when they have come near.
    pub(super) fn hold_back(&mut self, place: usize) {
        let Some(scope) = self.scopes.at(place) else {
            return;
        };
        scope.pace.held = true;
        let held = (scope.partition_key(), scope.next_offset);
        self.hold(vec![held]);
    }

    /// Whether a partition may be read: all of its kin is restored, and it is not ahead of them.
    pub(super) fn may_start(&mut self, whole: &Whole, partition: &Partition) -> bool {
        let (name, number) = partition;
        let control = &self.shared.control;
        let topic = self.topics.get(name);
        if topic.is_some_and(|topic| topic.is_paused(control)) {
            return false;
        }
        if self.has_kin() && !whole.contains(kinship(self.config.scope, name, *number)) {
            return false;
        }
        let place = self.scopes.place(name, *number);
        let Some(scope) = place.and_then(|place| self.scopes.at(place)) else {
            return true;
        };
        let (is_held, is_judged) = (scope.pace.held, scope.topic.is_judged());
        // Of a first hop, one that begins alone would be far ahead when the others do. But one that does not
        // come for long is not waited for, as in `set_bounds`.
        let mut recovering = self.scopes.recovering().iter();
        let is_awaited = |((other, _), recovering): (&Partition, &Recovering)| {
            other == name && recovering.elapsed() < SILENCE
        };
        !is_held && (is_judged || !recovering.any(is_awaited))
    }

    /// The families of which every partition is active; nothing where there is no kinship.
    pub(super) fn whole_families(&mut self) -> Whole {
        let kind = self.config.scope;
        let mut counts = HashMap::<(String, i32), usize>::new();
        if !kind.has_kin() {
            return Whole::default();
        }
        for (_, scope) in self.scopes.active() {
            let (name, number) = kinship(kind, &scope.topic.name, scope.partition);
            *counts.entry((name.to_owned(), number)).or_default() += 1;
        }
        let expected = |(name, _): &(String, i32)| match kind {
            config::Scope::Topic => self
                .topics
                .get(name)
                .map_or(0, |topic| usize::try_from(topic.partitions).unwrap_or(0)),
            _ => self.subscribed.len(),
        };
        let whole = counts
            .iter()
            .filter(|(key, count)| expected(key) == **count);
        Whole(whole.map(|(key, _)| key.clone()).collect())
    }

    /// A partition is being read from now on.
    pub(super) fn started(&mut self, partition: &Partition) {
        let place = self.scopes.place(&partition.0, partition.1);
        if let Some(scope) = place.and_then(|place| self.scopes.at(place)) {
            scope.pace.at.1 = Instant::now();
        }
    }

    /// How many partitions wait for kin that is not here, and one of them.
    pub(super) fn incomplete(&mut self) -> Option<(usize, String)> {
        if !self.has_kin() {
            return None;
        }
        let whole = self.whole_families();
        let scope = self.config.scope;
        let mut waiting = self.scopes.active().filter_map(|(_, active)| {
            let (name, number) = active.partition_key();
            let waits = !whole.contains(kinship(scope, &name, number));
            waits.then(|| format!("{name}-{number}"))
        });
        let first = waiting.next()?;
        Some((1 + waiting.count(), first))
    }

    /// Stops reading partitions until they are started again, at these offsets. Whether there are any that were read.
    pub(super) fn hold(&mut self, held: Vec<(Partition, i64)>) -> bool {
        let waiting = |it: &Partition| self.to_start.iter().any(|(partition, _)| partition == it);
        let held: Vec<_> = held.into_iter().filter(|(it, _)| !waiting(it)).collect();
        let partitions: Vec<Partition> = held.iter().map(|(it, _)| it.clone()).collect();
        self.pause(&partitions);
        self.to_start.extend(held);
        !partitions.is_empty()
    }
}

impl Scopes {
    /// Whether a record with this timestamp may be judged now, or is ahead of kin that catches up. Of most
    /// records the bound that was set last tells: O(1), else O(kin).
    pub(super) fn is_in_step(
        &mut self,
        place: usize,
        timestamp_ms: Option<i64>,
        wall_ms: i64,
        window: config::Window,
    ) -> bool {
        if self.family_of(place).is_none() {
            return true;
        }
        let Some(scope) = self.at(place) else {
            return true;
        };
        // Without a timestamp it moves no stream time.
        let timestamp_ms = timestamp_ms.unwrap_or(i64::MIN).min(wall_ms);
        let pace = &mut scope.pace;
        if pace.reached_ms.is_some() && timestamp_ms <= pace.bound_ms {
            return true;
        }
        pace.reached_ms = pace.reached_ms.max(Some(timestamp_ms));
        if let Some(family) = self.family_of(place) {
            self.set_bounds(family, window);
        }
        self.at(place)
            .is_none_or(|scope| timestamp_ms <= scope.pace.bound_ms)
    }

    /// The active scopes that are paced: those of a family.
    fn paced(&mut self) -> impl Iterator<Item = &mut Scope> {
        let Self {
            slots, family_of, ..
        } = self;
        let paced = slots.iter_mut().zip(family_of);
        paced.filter_map(|(slot, family)| slot.as_mut().filter(|_| *family != NO_FAMILY))
    }

    /// Up to which timestamp the members of a family may be judged. O(kin).
    fn set_bounds(&mut self, family: usize, window: config::Window) {
        let now = Instant::now();
        let places = self.families()[family].clone();
        let mut slowest = i64::MAX;
        for &place in &places {
            let Some(Scope {
                pace, next_offset, ..
            }) = self.at(place)
            else {
                continue;
            };
            if pace.at.0 != *next_offset {
                pace.at = (*next_offset, now);
            }
            if *next_offset < pace.end && now.duration_since(pace.at.1) < SILENCE {
                slowest = slowest.min(pace.reached_ms.unwrap_or(i64::MIN));
            }
        }
        let ahead_ms = window.time_ms.map_or(i64::MAX, |ms| ms / AHEAD_OF_KIN);
        let bound_ms = slowest.saturating_add(ahead_ms);
        for place in places {
            if let Some(scope) = self.at(place) {
                scope.pace.bound_ms = bound_ms;
            }
        }
    }
}

/// Families of which every partition is active, by what [`kinship`] says of them.
#[derive(Default)]
pub(super) struct Whole(std::collections::HashSet<(String, i32)>);

impl Whole {
    fn contains(&self, (name, number): (&str, i32)) -> bool {
        self.0.contains(&(name.to_owned(), number))
    }
}
