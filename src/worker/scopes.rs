//! The scopes of a worker: those that may be judged, at places that stay what they are, and the partitions still in
//! recovery. Where `scope:` is more than a partition, several scopes are *kin*: each keeps what was let through in
//! it, and all are asked.
//!
//! Nothing here touches Kafka.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::scope::{Judged, Judgement, Scope, Topic};
use crate::config::{self, Conflicts};
use crate::metrics::PartitionMetrics;
use crate::source::Partition;
use crate::store::Damage;
use crate::window::{Recalled, Verdict};

/// The same for partitions that are kin, and for no others.
pub fn kinship(scope: config::Scope, topic: &str, partition: i32) -> (&str, i32) {
    match scope {
        config::Scope::Partition => (topic, partition),
        config::Scope::Copartition => ("", partition),
        // Of two hops, in the first: what is passed on meets in the second.
        config::Scope::Topic | config::Scope::Repartition => (topic, -1),
    }
}

/// The scopes that may be judged, and the partitions still in recovery.
#[derive(Default)]
pub struct Scopes {
    /// Active scopes; a freed place is `None`, so that places stay what they are.
    pub(super) slots: Vec<Option<Scope>>,
    /// topic → place of the scope by partition.
    by_topic: HashMap<String, Vec<Option<usize>>, foldhash::fast::RandomState>,
    recovering: HashMap<Partition, Recovering>,
    last_epoch: u64,
    /// What makes partitions kin.
    kinship: config::Scope,
    /// Places of active scopes that are kin; none where every partition is a scope of its own.
    families: Vec<Vec<usize>>,
    /// place → its family.
    pub(super) family_of: Vec<usize>,
}

/// In `Scopes::family_of`: it is in none.
pub(super) const NO_FAMILY: usize = usize::MAX;

/// A partition that is in recovery.
pub struct Recovering {
    pub topic: Arc<Topic>,
    pub metrics: PartitionMetrics,
    epoch: u64,
    cancelled: Arc<AtomicBool>,
    since: Instant,
}

impl Recovering {
    /// How long it has been.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Scopes {
    /// None yet.
    pub fn new(kinship: config::Scope) -> Self {
        Self {
            kinship,
            ..Self::default()
        }
    }

    /// The verdict on a record of the scope at `place`, whose timestamp its window has taken in: an id
    /// that is remembered by any of its kin is a duplicate. O(kin), each at the cost of
    /// [`SeenWindow::judge`](crate::window::SeenWindow::judge).
    ///
    /// # Errors
    /// As there, with the place of the window.
    pub fn judge(
        &mut self,
        place: usize,
        record: &Judged,
        on_conflict: Conflicts,
    ) -> Result<Judgement, (usize, Damage)> {
        let Judged {
            fingerprint,
            offset,
            payload,
        } = *record;
        let Self {
            slots,
            families,
            family_of,
            ..
        } = self;
        let family = family_of.get(place).and_then(|it| families.get(*it));
        let kin = family.map_or(&[][..], Vec::as_slice);
        let windows = kin.iter().filter_map(|it| slots[*it].as_ref());
        let now = windows.filter_map(|it| it.window.stream_time_ms()).max();
        let mut returned = false;
        for &other in kin.iter().filter(|it| **it != place) {
            let Some(scope) = &mut slots[other] else {
                continue;
            };
            let recalled = scope.window.recall(fingerprint, payload, now);
            match recalled.map_err(|damage| (other, damage))? {
                Recalled::Remembered(duplicate) => {
                    // It may have been renewed there.
                    scope.touched |= scope.window.is_dirty();
                    return Ok(scope.judgement(duplicate));
                }
                Recalled::Over => returned = true,
                Recalled::Unknown => {}
            }
        }
        let Some(Some(scope)) = slots.get_mut(place) else {
            return Ok(Judgement::Forward {
                conflicts: false,
                returned,
            });
        };
        scope.window.advance(now);
        let now = scope.window.stream_time_ms();
        let recalled = scope.window.recall(fingerprint, payload, now);
        let conflicts = match recalled.map_err(|damage| (place, damage))? {
            Recalled::Unknown => false,
            Recalled::Over => {
                returned = true;
                false
            }
            Recalled::Remembered(Verdict::Duplicate {
                conflicts: true, ..
            }) if on_conflict == Conflicts::Forward => true,
            Recalled::Remembered(duplicate) => return Ok(scope.judgement(duplicate)),
        };
        scope.window.let_through(fingerprint, offset, payload);
        Ok(Judgement::Forward {
            conflicts,
            returned: returned && !conflicts,
        })
    }

    /// Families of active scopes that are kin, by their places; none where there is no kinship.
    pub fn families(&self) -> &[Vec<usize>] {
        &self.families
    }

    /// The family of an active scope; `None` where there is no kinship.
    pub fn family_of(&self, place: usize) -> Option<usize> {
        let family = self.family_of.get(place).copied();
        family.filter(|family| *family != NO_FAMILY)
    }

    /// After a scope has come or gone. O(scopes).
    fn regroup(&mut self) {
        let Self {
            slots,
            families,
            family_of,
            ..
        } = self;
        families.clear();
        family_of.clear();
        if self.kinship == config::Scope::Partition {
            return;
        }
        family_of.resize(slots.len(), NO_FAMILY);
        let mut numbers = HashMap::new();
        for (place, scope) in slots.iter().enumerate() {
            let Some(scope) = scope else { continue };
            if self.kinship == config::Scope::Repartition && scope.topic.is_judged() {
                continue;
            }
            let number = *numbers
                .entry(kinship(self.kinship, &scope.topic.name, scope.partition))
                .or_insert(families.len());
            if number == families.len() {
                families.push(Vec::new());
            }
            families[number].push(place);
            family_of[place] = number;
        }
    }

    /// The place of the active scope of a partition. O(1).
    pub fn place(&self, topic: &str, partition: i32) -> Option<usize> {
        let places = self.by_topic.get(topic)?;
        *places.get(usize::try_from(partition).ok()?)?
    }

    /// The active scope at a place.
    pub fn at(&mut self, place: usize) -> Option<&mut Scope> {
        self.slots.get_mut(place)?.as_mut()
    }

    /// All active scopes with their places.
    pub fn active(&mut self) -> impl Iterator<Item = (usize, &mut Scope)> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter_map(|(place, slot)| Some((place, slot.as_mut()?)))
    }

    /// Partitions in recovery.
    pub fn recovering(&self) -> &HashMap<Partition, Recovering> {
        &self.recovering
    }

    /// Marks a partition as in recovery; gives the epoch that its answer must carry, and the flag
    /// that withdraws the question.
    pub fn begin_recovery(
        &mut self,
        topic: Arc<Topic>,
        partition: i32,
        metrics: PartitionMetrics,
    ) -> (u64, Arc<AtomicBool>) {
        self.last_epoch += 1;
        let cancelled = Arc::new(AtomicBool::new(false));
        let key = (topic.name.clone(), partition);
        let entry = Recovering {
            topic,
            metrics,
            epoch: self.last_epoch,
            cancelled: Arc::clone(&cancelled),
            since: Instant::now(),
        };
        if let Some(earlier) = self.recovering.insert(key, entry) {
            earlier.cancelled.store(true, Ordering::Relaxed);
        }
        (self.last_epoch, cancelled)
    }

    /// The partition whose recovery with this epoch has ended, if that is still wanted.
    pub fn end_recovery(&mut self, partition: &Partition, epoch: u64) -> Option<Recovering> {
        if self.recovering.get(partition)?.epoch != epoch {
            return None;
        }
        self.recovering.remove(partition)
    }

    /// Makes a scope active.
    pub fn insert(&mut self, scope: Scope) {
        let place = self
            .slots
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.slots.len());
        let Ok(index) = usize::try_from(scope.partition) else {
            return;
        };
        let places = self.by_topic.entry(scope.topic.name.clone()).or_default();
        if places.len() <= index {
            places.resize(index + 1, None);
        }
        places[index] = Some(place);
        if place == self.slots.len() {
            self.slots.push(Some(scope));
        } else {
            self.slots[place] = Some(scope);
        }
        self.regroup();
    }

    /// Takes a partition away, active or in recovery; gives the scope if it was active.
    pub fn remove(&mut self, partition: &Partition) -> Option<Scope> {
        if let Some(entry) = self.recovering.remove(partition) {
            entry.cancelled.store(true, Ordering::Relaxed);
        }
        let place = self.place(&partition.0, partition.1)?;
        let places = self.by_topic.get_mut(&partition.0)?;
        *places.get_mut(usize::try_from(partition.1).ok()?)? = None;
        let removed = self.slots.get_mut(place)?.take();
        self.regroup();
        removed
    }

    /// Takes all active scopes away.
    pub fn take_active(&mut self) -> Vec<Scope> {
        self.by_topic.clear();
        let slots = std::mem::take(&mut self.slots);
        self.regroup();
        slots.into_iter().flatten().collect()
    }
}
