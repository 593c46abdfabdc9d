//! The filter in front of the sealed slices: the [`Ring`], which slice owns which of its planes, and
//! the work that keeps both up to date in small steps, so that no worker stands still.
//!
//! The planes' life:
//! ```text
//!   free --> being fed (not asked yet) --> live --> dying (not asked any more) --> free
//!            absorb, or rebuild                     sweep, or rebuild
//! ```
//! One piece of work is under way at a time. A rebuild feeds all sealed slices to a table of another
//! size; it is how the ring grows and shrinks.

use std::collections::VecDeque;
use std::ops::AddAssign;

use super::ring::{Geometry, Ring};
use super::slices::Kept;
use crate::broken::{self, Bug};
use crate::store::{Damage, Sealed};

/// More than a window is ever cut into.
pub(super) const MAX_PLANES: u32 = 128;
/// Ids of all slices together in one segment of the ring.
const IDS_PER_SEGMENT: u64 = 262_144;
/// Ids that a step feeds to the ring: about a millisecond, where their chunks are in memory.
const IDS_PER_STEP: u64 = 32_768;
/// Bytes of the ring that a step clears a plane in.
const BYTES_PER_STEP: u64 = 4 * 1024 * 1024;
/// Room in a new table beyond the largest slice of now.
const ROOM: f64 = 1.1;
/// A table this much larger than it need be is rebuilt.
const WASTEFUL: u64 = 2;

pub(super) struct Filter {
    ring: Ring,
    /// False positives a check that the ring is sized for, over all planes together.
    target: f64,
    live: u128,
    dying: u128,
    /// A slice is over since the size was looked at last.
    may_be_wasteful: bool,
    work: Option<Work>,
    counts: Counts,
}

/// The table for so many slices of at most so many ids.
pub(super) fn table_for(slices: u32, largest: u64, target: f64) -> Geometry {
    let planes = slices.next_multiple_of(8).min(MAX_PLANES);
    let ids_per_plane = (largest as f64 * ROOM) as u64;
    Geometry::fitting(planes, ids_per_plane.max(1), target, IDS_PER_SEGMENT)
}

enum Work {
    /// Sets the bits of one slice.
    Absorb(Feed),
    /// Feeds all sealed slices, one after the other, to a ring of another shape, which does not know
    /// the `clean` ones of the dying planes.
    Rebuild(Box<Rebuild>),
    /// Clears a plane, from this segment on.
    Sweep { plane: u32, segment: u32 },
}

struct Rebuild {
    ring: Ring,
    feeds: Vec<Feed>,
    /// How many of them are done.
    done: usize,
    clean: u128,
}

/// A slice that is being fed to a ring.
struct Feed {
    first_ordinal: u64,
    plane: u32,
    /// The next segment, and ids fed so far.
    segment: u32,
    ids: u64,
}

/// What the filter has answered since it was asked last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ids that it was asked for.
    pub checks: u64,
    /// Answers that sent the look-up to a slice.
    pub positives: u64,
    /// Slices that were looked into in vain.
    pub false_positives: u64,
}

impl Counts {
    /// False positives a look-up of an id that was not seen; 0 before there was one.
    pub fn false_positive_rate(&self) -> f64 {
        // Every look-up in vain was of such an id, or of one that another slice held.
        let absent = self.checks.saturating_sub(self.positives) + self.false_positives;
        self.false_positives as f64 / absent.max(1) as f64
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.checks += more.checks;
        self.positives += more.positives;
        self.false_positives += more.false_positives;
    }
}

impl Filter {
    pub fn new(target: f64) -> Self {
        Self {
            ring: Ring::empty(),
            target,
            live: 0,
            dying: 0,
            may_be_wasteful: false,
            work: None,
            counts: Counts::default(),
        }
    }

    /// The planes of slices that may hold the id. O(1).
    pub fn check(&mut self, fingerprint: u128) -> u128 {
        let planes = self.ring.check(fingerprint) & self.live;
        self.counts.checks += 1;
        self.counts.positives += u64::from(planes != 0);
        planes
    }

    /// A slice that may have held an id did not.
    pub fn note_false_positive(&mut self) {
        self.counts.false_positives += 1;
    }

    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// False positives that one check of an absent id is expected to have. O(slices).
    pub fn expected_false_positive_rate(&self, kept: &VecDeque<Kept>) -> f64 {
        let Some(geometry) = self.ring.geometry() else {
            return 0.0;
        };
        let live = kept.iter().filter(|kept| kept.plane.is_some());
        expected(geometry, live.filter_map(|kept| kept.sealed.as_deref()))
    }

    pub fn memory_bytes(&self) -> u64 {
        self.ring.memory_bytes()
    }

    /// The slice that owned this plane is over. O(1).
    pub fn release(&mut self, plane: u32) {
        self.live &= !(1 << plane);
        self.dying |= 1 << plane;
        self.may_be_wasteful = true;
    }

    /// One step, of about a millisecond; false when there is nothing to do.
    ///
    /// # Errors
    /// A slice cannot be read.
    pub fn step(&mut self, kept: &mut VecDeque<Kept>) -> Result<bool, Damage> {
        match self.work.take().or_else(|| self.next_work(kept)) {
            None => Ok(false),
            Some(Work::Sweep { plane, segment }) => {
                self.sweep(plane, segment);
                Ok(true)
            }
            Some(Work::Absorb(feed)) => {
                self.absorb(kept, feed)?;
                Ok(true)
            }
            Some(Work::Rebuild(rebuild)) => {
                self.rebuild(kept, rebuild)?;
                Ok(true)
            }
        }
    }

    /// Sweeps come first: they free planes.
    fn next_work(&mut self, kept: &VecDeque<Kept>) -> Option<Work> {
        let sealed = || kept.iter().filter_map(|kept| kept.sealed.as_deref());
        if sealed().next().is_none() {
            // Nothing to answer for: no memory, and nothing to sweep.
            self.ring = Ring::empty();
            (self.live, self.dying, self.may_be_wasteful) = (0, 0, false);
            return None;
        }
        if self.dying != 0 {
            return Some(Work::Sweep {
                plane: self.dying.trailing_zeros(),
                segment: 0,
            });
        }
        let geometry = self.ring.geometry();
        if let Some(next) = kept.iter().find(|kept| is_waiting(kept)) {
            let plane = (!self.live).trailing_zeros();
            let fits = geometry.is_some_and(|geometry| {
                plane < geometry.planes && expected(geometry, sealed()) <= self.target
            });
            return Some(if fits {
                Work::Absorb(Feed::new(next, plane))
            } else {
                self.begin_rebuild(kept)
            });
        }
        let may_be_wasteful = std::mem::take(&mut self.may_be_wasteful);
        let wasteful = geometry
            .filter(|_| may_be_wasteful)
            .is_some_and(|geometry| {
                geometry.positions() > WASTEFUL * self.fitting(kept).positions()
            });
        wasteful.then(|| self.begin_rebuild(kept))
    }

    /// The table that all sealed slices need, with some room.
    fn fitting(&self, kept: &VecDeque<Kept>) -> Geometry {
        let sealed = || kept.iter().filter_map(|kept| kept.sealed.as_deref());
        let count = u32::try_from(sealed().count()).unwrap_or(MAX_PLANES);
        // Live planes keep their numbers.
        let highest = 128 - self.live.leading_zeros();
        let largest = sealed().map(Sealed::len).max().unwrap_or(0);
        table_for(count.max(highest), largest, self.target)
    }

    fn begin_rebuild(&mut self, kept: &VecDeque<Kept>) -> Work {
        let geometry = self.fitting(kept);
        let mut taken = self.live;
        let mut feeds = Vec::new();
        for kept in kept.iter().filter(|kept| kept.sealed.is_some()) {
            let plane = kept.plane.unwrap_or_else(|| (!taken).trailing_zeros());
            if plane < geometry.planes {
                taken |= 1 << plane;
                feeds.push(Feed::new(kept, plane));
            }
        }
        tracing::debug!(
            ?geometry,
            slices = feeds.len(),
            bytes = geometry.bytes(),
            "rebuilding a filter"
        );
        Work::Rebuild(Box::new(Rebuild {
            ring: Ring::new(geometry),
            feeds,
            done: 0,
            clean: self.dying,
        }))
    }

    fn sweep(&mut self, plane: u32, mut segment: u32) {
        let segments = self.ring.segments();
        let a_segment = self.ring.memory_bytes() / u64::from(segments.max(1));
        let mut cleared = 0;
        while segment < segments && cleared < BYTES_PER_STEP {
            if !broken::has(Bug::RingBitKept) {
                self.ring.clear(segment, plane);
            }
            cleared += a_segment;
            segment += 1;
        }
        if segment < segments {
            self.work = Some(Work::Sweep { plane, segment });
        } else {
            self.dying &= !(1 << plane);
        }
    }

    fn absorb(&mut self, kept: &mut VecDeque<Kept>, mut feed: Feed) -> Result<(), Damage> {
        if feed.step(kept, &mut self.ring)? {
            self.join(kept, &feed)
        } else {
            self.work = Some(Work::Absorb(feed));
            Ok(())
        }
    }

    /// Slice by slice, so that each database is opened once. Both rings are there until it is done.
    fn rebuild(
        &mut self,
        kept: &mut VecDeque<Kept>,
        mut rebuild: Box<Rebuild>,
    ) -> Result<(), Damage> {
        if let Some(feed) = rebuild.feeds.get_mut(rebuild.done) {
            rebuild.done += usize::from(feed.step(kept, &mut rebuild.ring)?);
            self.work = Some(Work::Rebuild(rebuild));
            return Ok(());
        }
        self.ring = rebuild.ring;
        self.dying &= !rebuild.clean;
        let mut feeds = rebuild.feeds.iter();
        feeds.try_for_each(|feed| self.join(kept, feed))
    }

    /// All of a slice has been fed: from now on the filter answers for it, and it is needed in memory
    /// no longer. Where it is over by now, what it has set must go.
    fn join(&mut self, kept: &mut VecDeque<Kept>, feed: &Feed) -> Result<(), Damage> {
        let found = kept
            .iter_mut()
            .find(|kept| kept.span.first_ordinal == feed.first_ordinal);
        let Some((kept, sealed)) = found.and_then(|kept| {
            let sealed = kept.sealed.clone()?;
            Some((kept, sealed))
        }) else {
            self.dying |= 1 << feed.plane;
            return Ok(());
        };
        sealed.verify_count(feed.ids)?;
        kept.plane = Some(feed.plane);
        kept.ram = None;
        self.live |= 1 << feed.plane;
        Ok(())
    }
}

impl Feed {
    fn new(kept: &Kept, plane: u32) -> Self {
        Self {
            first_ordinal: kept.span.first_ordinal,
            plane,
            segment: 0,
            ids: 0,
        }
    }

    /// Feeds some thousands of ids; true when there are none left, or the slice is over by now.
    fn step(&mut self, kept: &VecDeque<Kept>, ring: &mut Ring) -> Result<bool, Damage> {
        let found = kept
            .iter()
            .find(|kept| kept.span.first_ordinal == self.first_ordinal);
        let Some(sealed) = found.and_then(|kept| kept.sealed.as_ref()) else {
            return Ok(true);
        };
        let most = self.ids + IDS_PER_STEP;
        while self.segment < ring.segments() && self.ids < most {
            sealed.chunks(ring.segment_range(self.segment), |chunk| {
                self.ids += ring.set_all(self.segment, self.plane, chunk.fingerprints());
            })?;
            self.segment += 1;
        }
        Ok(self.segment == ring.segments())
    }
}

/// Sealed, and not in the filter yet.
fn is_waiting(kept: &Kept) -> bool {
    kept.sealed.is_some() && kept.plane.is_none()
}

fn expected<'a>(geometry: Geometry, slices: impl Iterator<Item = &'a Sealed>) -> f64 {
    slices
        .map(|sealed| geometry.expected_false_positive_rate(sealed.len()))
        .sum()
}
