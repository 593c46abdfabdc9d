//! Partitions that are kin (`scope: topic`, `scope: copartition`): nobody knows afterwards which of them was
//! read first, so their verdicts are not replayed. What must hold all the same, and is held against what was
//! found: what is in the output is, in order, what its input partition has (see [`super::matching`]); every id is
//! there; and what is not there is in the duplicates topic, where there is one. An id that is there twice too
//! near to each other is told. Numbers alone; touches nothing.

use hashbrown::HashMap;

use crate::window::Fingerprint;

/// What is known of an id, in any of the partitions.
#[derive(Debug, Clone, Copy)]
enum Sighting {
    /// In the output, last with this timestamp.
    Forwarded(Option<i64>),
    /// Not there so far; the first record that is not, by lane and offset.
    Absent { lane: usize, offset: i64 },
}

/// The ids of one group of partitions. Memory: about 50 bytes an id.
#[derive(Default)]
pub struct Kin {
    /// Two records of an id that are nearer to each other are not both forwarded, unless one is late.
    apart_ms: i64,
    seen: HashMap<Fingerprint, Sighting, foldhash::fast::RandomState>,
    /// Records in the output whose id was there before, too near to them.
    near: u64,
}

impl Kin {
    /// `window_ms` is the window's time.
    pub fn new(window_ms: Option<i64>) -> Self {
        Self {
            // While partitions catch up, they are an eighth of the window apart.
            apart_ms: window_ms.map_or(0, |ms| ms - ms / 8),
            ..Self::default()
        }
    }

    /// A record with this id is in the output. O(1).
    pub fn forwarded(&mut self, id: Fingerprint, time_ms: Option<i64>) {
        let before = self.seen.insert(id, Sighting::Forwarded(time_ms));
        if let (Some(Sighting::Forwarded(Some(before))), Some(now)) = (before, time_ms) {
            self.near += u64::from(now.abs_diff(before) < self.apart_ms.unsigned_abs());
        }
    }

    /// A record with this id, of the audited range, is not in the output. O(1).
    pub fn absent(&mut self, id: Fingerprint, lane: usize, offset: i64) {
        self.seen
            .entry(id)
            .or_insert(Sighting::Absent { lane, offset });
    }

    /// Whatever is to be said of this id is said: it is not lost besides. O(1).
    pub fn is_told(&mut self, id: Fingerprint) {
        let sighting = self.seen.entry(id).or_insert(Sighting::Forwarded(None));
        if matches!(sighting, Sighting::Absent { .. }) {
            *sighting = Sighting::Forwarded(None);
        }
    }

    /// See [`Self::forwarded`].
    pub fn near(&self) -> u64 {
        self.near
    }

    /// Lane and offset of the first record of each id that is nowhere in the output, in order. O(ids).
    pub fn lost(&self) -> Vec<(usize, i64)> {
        let absent = self.seen.values().filter_map(|sighting| match sighting {
            Sighting::Absent { lane, offset } => Some((*lane, *offset)),
            Sighting::Forwarded(_) => None,
        });
        let mut lost: Vec<(usize, i64)> = absent.collect();
        lost.sort_unstable();
        lost
    }

    /// Memory of the table, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.seen.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_lost_where_none_of_its_records_is_there() {
        let mut kin = Kin::new(Some(800));
        kin.absent(1, 0, 5);
        kin.forwarded(1, Some(10));
        kin.forwarded(2, Some(20));
        kin.absent(2, 1, 6);
        kin.absent(3, 1, 9);
        kin.absent(3, 0, 2);
        kin.absent(4, 0, 3);
        kin.absent(5, 0, 4);
        kin.is_told(5);
        kin.absent(5, 0, 6);
        assert_eq!(kin.lost(), [(0, 3), (1, 9)]);
        assert_eq!(kin.near(), 0);
    }

    #[test]
    fn an_id_that_is_there_twice_has_to_be_apart_by_most_of_the_window() {
        let mut kin = Kin::new(Some(800));
        kin.forwarded(1, Some(0));
        kin.forwarded(1, Some(700));
        assert_eq!(kin.near(), 0);
        kin.forwarded(1, Some(1));
        kin.forwarded(1, None);
        assert_eq!(kin.near(), 1);
    }
}
