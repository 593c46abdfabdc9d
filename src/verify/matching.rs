//! What should be in one partition of an output, held against what is there, in streaming fashion.
//!
//! A [`Strand`] is one partition of the output, duplicates or rejected topic. What belongs there
//! comes from one input partition, or from several that interleave: each is a lane, and order is kept
//! within a lane. Records that should be there wait in their lane for one that is equal, and records
//! that are there and have no counterpart yet wait as strays, whichever is read first. So one
//! difference stays one difference. Both wait for a bounded number of records; then what waited
//! longest is a difference: of a pair at the same place, or with the same id, `altered`, else
//! `missing` or `extra`. Pure; touches nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::judge::First;
use super::record::{Aside, Body, keeps_time, mixed};
use crate::window::Fingerprint;

/// Records around one that are looked at for what is at the same place.
const AROUND: usize = 64;
/// A stretch of disorder is judged in pieces of so many records.
const STRETCH: usize = 1 << 16;

/// Whether a record must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    Be,
    /// Nobody knows; if it is there, it is no difference.
    MayBe,
    /// It lies outside the range that is audited: it may be there, and does not count.
    Outside,
}

/// A record that should be in the strand.
#[derive(Debug, Clone)]
pub struct Expected {
    pub offset: i64,
    pub id: Option<Fingerprint>,
    pub body: Body,
    /// Of a side topic, or a mark in the output: reason and source; else 0.
    pub place: u64,
    pub first: Option<First>,
    pub must: Must,
}

/// A record that is there.
#[derive(Debug, Clone)]
pub struct Found {
    pub offset: i64,
    pub id: Option<Fingerprint>,
    pub body: Body,
    pub aside: Option<Aside>,
}

impl Found {
    fn place(&self) -> u64 {
        self.aside.as_ref().map_or(0, Aside::place)
    }
}

/// What became of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A record that need not be there is. `aside`: with headers that say why, see [`Aside`].
    Confirmed {
        lane: usize,
        offset: i64,
        time_ms: Option<i64>,
        id: Option<Fingerprint>,
        aside: bool,
    },
    /// A record that need not be there is not.
    Absent {
        lane: usize,
        offset: i64,
        id: Option<Fingerprint>,
        aside: bool,
    },
    Missing {
        lane: usize,
        offset: i64,
    },
    Altered {
        lane: usize,
        offset: i64,
        found: i64,
        parts: String,
    },
    Reordered {
        lane: usize,
        offset: i64,
        found: i64,
    },
    Extra {
        found: i64,
        id: Option<Fingerprint>,
    },
    /// It should be there, but the beginning of the strand is not there any more.
    GoneFromStrand {
        lane: usize,
    },
    /// It is there, but the beginning of the input is not there any more.
    GoneFromInput,
}

/// Which ends are not what they were.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cut {
    /// Records at the beginning of the strand were deleted, or it is not read from there.
    pub strand: bool,
    /// The same, of an input.
    pub input: bool,
    /// Where the strand's timestamps are its broker's own.
    pub own_times: bool,
}

struct Waiting {
    it: Expected,
    state: State,
    /// Another lane has the same record: which of them came out where cannot be told.
    twin: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    At(i64),
    /// Not there, and that has been said.
    Settled,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    /// The number of the first that waits.
    base: u64,
    open: usize,
    /// Of those that wait, already found.
    found: usize,
    may_be_open: usize,
    /// The last that was found and settled.
    last: Option<i64>,
    /// Input and strand offsets since order was judged last.
    run: Vec<(i64, i64)>,
    /// The largest strand offset in it.
    run_to: i64,
    /// The largest strand offset before those.
    judged_to: i64,
}

pub struct Strand {
    cut: Cut,
    ahead: usize,
    times_count: bool,
    lanes: Vec<Lane>,
    /// Open records by what they are: lane and number.
    open: HashMap<u64, VecDeque<(usize, u64)>>,
    strays: BTreeMap<i64, Found>,
    stray_keys: HashMap<u64, BTreeSet<i64>>,
    stray_ids: HashMap<Fingerprint, BTreeSet<i64>>,
    first_match: Option<i64>,
    /// What was matched last, where there are several lanes.
    recent: HashMap<u64, usize>,
    recent_order: VecDeque<u64>,
    events: Vec<Event>,
}

impl Strand {
    /// An empty one, in which at most about `ahead` records a lane wait.
    pub fn new(lanes: usize, ahead: usize, cut: Cut) -> Self {
        Self {
            cut,
            ahead: ahead.max(2),
            times_count: !cut.own_times,
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            open: HashMap::new(),
            strays: BTreeMap::new(),
            stray_keys: HashMap::new(),
            stray_ids: HashMap::new(),
            first_match: None,
            recent: HashMap::new(),
            recent_order: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// What happened since it was asked last.
    pub fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    pub fn open(&self) -> usize {
        self.lanes.iter().map(|lane| lane.open).sum()
    }

    pub fn open_in(&self, lane: usize) -> usize {
        self.lanes[lane].open
    }

    /// Of those, the ones that have to be there.
    pub fn must_be_open_in(&self, lane: usize) -> usize {
        self.lanes[lane].open - self.lanes[lane].may_be_open
    }

    pub fn strays(&self) -> usize {
        self.strays.len()
    }

    /// A record of a lane that should be there, in input order. O(1) where nothing differs.
    pub fn expect(&mut self, lane: usize, expected: Expected) {
        let key = self.key(&expected.body, expected.place);
        let found = self.stray(key).or_else(|| self.timeless_stray(&expected));
        let twin = self.lanes.len() > 1 && self.recent.contains_key(&key);
        let state = match &found {
            Some(found) => State::At(found.offset),
            None => State::Open,
        };
        let at = &mut self.lanes[lane];
        let number = at.base + at.waiting.len() as u64;
        at.open += usize::from(found.is_none());
        at.found += usize::from(found.is_some());
        at.may_be_open += usize::from(found.is_none() && expected.must != Must::Be);
        at.waiting.push_back(Waiting {
            it: expected,
            state,
            twin,
        });
        match found {
            Some(found) => self.matched(lane, number, &found, key),
            None => self.open.entry(key).or_default().push_back((lane, number)),
        }
        // Where none of those comes that need not, as in the duplicates of an input that has none, they are not waited for.
        if self.lanes[lane].may_be_open > self.ahead {
            let need_not = |it: &Waiting| it.state == State::Open && it.it.must != Must::Be;
            if let Some(oldest) = self.lanes[lane].waiting.iter().position(need_not) {
                self.absent(lane, oldest);
                self.settle(lane);
            }
        }
    }

    /// The next record that is there. O(1) where nothing differs.
    pub fn find(&mut self, found: Found) {
        let key = self.key(&found.body, found.place());
        let timeless = Self::timeless_key(&found.body, found.place());
        let open = self.take_open(key).or_else(|| self.take_open(timeless));
        if let Some((lane, number)) = open {
            let at = &mut self.lanes[lane];
            let index = (number - at.base) as usize;
            at.waiting[index].state = State::At(found.offset);
            at.open -= 1;
            at.found += 1;
            at.may_be_open -= usize::from(at.waiting[index].it.must != Must::Be);
            self.matched(lane, number, &found, key);
            return;
        }
        self.stray_keys.entry(key).or_default().insert(found.offset);
        if let Some(id) = found.id {
            self.stray_ids.entry(id).or_default().insert(found.offset);
        }
        let now = found.offset;
        self.strays.insert(found.offset, found);
        // What has waited while much else was read has no counterpart.
        let horizon = now.saturating_sub(self.ahead as i64);
        while let Some((&oldest, _)) = self.strays.first_key_value()
            && oldest < horizon
            && self.strays.len() > 1
        {
            self.give_up_stray();
        }
    }

    /// When the stray that waits longest, and the open record that does, were made; for choosing the
    /// one to give up.
    pub fn oldest_stray_ms(&self) -> Option<i64> {
        self.strays.first_key_value()?.1.body.timestamp_ms
    }

    pub fn oldest_open_ms(&self, lane: usize) -> Option<i64> {
        self.lanes[lane].waiting.front()?.it.body.timestamp_ms
    }

    /// Gives up the stray that has waited longest.
    pub fn give_up_stray(&mut self) {
        let Some((&offset, _)) = self.strays.first_key_value() else {
            return;
        };
        let Some(stray) = self.remove_stray(offset) else {
            return;
        };
        if let Some((lane, number)) = self.counterpart_of(&stray) {
            self.altered(lane, number, &stray);
            return;
        }
        let leading = self.first_match.is_none_or(|first| stray.offset < first);
        self.events.push(if self.cut.input && leading {
            Event::GoneFromInput
        } else {
            Event::Extra {
                found: stray.offset,
                id: stray.id,
            }
        });
    }

    /// Gives up the open record of a lane that has waited longest.
    pub fn give_up_open(&mut self, lane: usize) {
        let at = &self.lanes[lane];
        let Some(index) = at.waiting.iter().position(|w| w.state == State::Open) else {
            return;
        };
        let number = at.base + index as u64;
        let must = at.waiting[index].it.must;
        if must == Must::Be
            && let Some(offset) = self.stray_for(lane, index)
            && let Some(stray) = self.remove_stray(offset)
        {
            self.altered(lane, number, &stray);
            return;
        }
        self.absent(lane, index);
        self.settle(lane);
    }

    /// Both are read to their ends: all that still waits is a difference.
    pub fn finish(&mut self) {
        for lane in 0..self.lanes.len() {
            while self.lanes[lane].open > 0 {
                self.give_up_open(lane);
            }
        }
        while !self.strays.is_empty() {
            self.give_up_stray();
        }
        for lane in 0..self.lanes.len() {
            self.judge_order(lane);
        }
    }

    fn key(&self, body: &Body, place: u64) -> u64 {
        // What librdkafka sends as "now" has no timestamp to compare.
        let comparable = self.times_count && keeps_time(body.timestamp_ms);
        let time = body.timestamp_ms.filter(|_| comparable);
        mixed(&[
            body.without_time(),
            time.unwrap_or(0).cast_unsigned(),
            place,
        ])
    }

    /// As [`Self::key`], whatever the timestamp.
    fn timeless_key(body: &Body, place: u64) -> u64 {
        mixed(&[body.without_time(), 0, place])
    }

    /// The stray that an expected record without a comparable timestamp was sent as. O(strays).
    fn timeless_stray(&mut self, expected: &Expected) -> Option<Found> {
        if !self.times_count || keeps_time(expected.body.timestamp_ms) {
            return None;
        }
        let body = expected.body.without_time();
        let mut strays = self.strays.iter();
        let (offset, _) = strays.find(|(_, stray)| {
            stray.body.without_time() == body && stray.place() == expected.place
        })?;
        self.remove_stray(*offset)
    }

    fn stray(&mut self, key: u64) -> Option<Found> {
        let offset = *self.stray_keys.get(&key)?.first()?;
        self.remove_stray(offset)
    }

    fn remove_stray(&mut self, offset: i64) -> Option<Found> {
        let stray = self.strays.remove(&offset)?;
        let key = self.key(&stray.body, stray.place());
        if let Some(all) = self.stray_keys.get_mut(&key) {
            all.remove(&offset);
            if all.is_empty() {
                self.stray_keys.remove(&key);
            }
        }
        if let Some(id) = stray.id
            && let Some(all) = self.stray_ids.get_mut(&id)
        {
            all.remove(&offset);
            if all.is_empty() {
                self.stray_ids.remove(&id);
            }
        }
        Some(stray)
    }

    /// The open record that is such: of several lanes' the one that is next in its lane.
    fn take_open(&mut self, key: u64) -> Option<(usize, u64)> {
        let all = self.open.get_mut(&key)?;
        let next = all.iter().position(|(lane, number)| {
            let lane = &self.lanes[*lane];
            lane.base == *number
        });
        let taken = all.remove(next.unwrap_or(0))?;
        let several = all.iter().any(|(lane, _)| *lane != taken.0);
        if several {
            for (lane, number) in all.iter().chain([&taken]) {
                let lane = &mut self.lanes[*lane];
                lane.waiting[(number - lane.base) as usize].twin = true;
            }
        }
        if all.is_empty() {
            self.open.remove(&key);
        }
        Some(taken)
    }

    fn forget_open(&mut self, lane: usize, number: u64) {
        let at = &self.lanes[lane];
        let it = &at.waiting[(number - at.base) as usize].it;
        let key = self.key(&it.body, it.place);
        if let Some(all) = self.open.get_mut(&key) {
            all.retain(|place| *place != (lane, number));
            if all.is_empty() {
                self.open.remove(&key);
            }
        }
    }

    /// A record was found where something equal was expected.
    fn matched(&mut self, lane: usize, number: u64, found: &Found, key: u64) {
        if self.lanes.len() > 1 {
            *self.recent.entry(key).or_default() += 1;
            self.recent_order.push_back(key);
            if self.recent_order.len() > self.ahead
                && let Some(old) = self.recent_order.pop_front()
                && let Some(count) = self.recent.get_mut(&old)
            {
                *count -= 1;
                if *count == 0 {
                    self.recent.remove(&old);
                }
            }
        }
        self.first_match = Some(
            self.first_match
                .map_or(found.offset, |first| first.min(found.offset)),
        );
        let at = &self.lanes[lane];
        let index = (number - at.base) as usize;
        let it = &at.waiting[index].it;
        match it.must {
            Must::MayBe | Must::Outside => self.events.push(Event::Confirmed {
                lane,
                offset: it.offset,
                time_ms: it.body.timestamp_ms,
                id: it.id,
                aside: it.place != 0,
            }),
            Must::Be => {
                let misnamed = it.first.as_ref().zip(found.aside.as_ref());
                if let Some(part) = misnamed.and_then(|(first, aside)| aside.misnames(first)) {
                    self.events.push(Event::Altered {
                        lane,
                        offset: it.offset,
                        found: found.offset,
                        parts: part.to_owned(),
                    });
                }
            }
        }
        // What might have come before it has not.
        if self.lanes[lane].may_be_open > 0 {
            for before in 0..index {
                let waiting = &self.lanes[lane].waiting[before];
                if waiting.state == State::Open && waiting.it.must != Must::Be {
                    self.absent(lane, before);
                }
            }
        }
        self.settle(lane);
    }

    fn altered(&mut self, lane: usize, number: u64, stray: &Found) {
        self.forget_open(lane, number);
        let times_count = self.times_count;
        let at = &mut self.lanes[lane];
        let waiting = &mut at.waiting[(number - at.base) as usize];
        waiting.state = State::At(stray.offset);
        at.open -= 1;
        at.found += 1;
        let it = &waiting.it;
        let times_count = times_count && keeps_time(it.body.timestamp_ms);
        let mut parts = it.body.differs_from(&stray.body, times_count);
        if it.place != stray.place() {
            parts.push("headers that name its source");
        }
        if let Some((first, aside)) = it.first.as_ref().zip(stray.aside.as_ref()) {
            parts.extend(aside.misnames(first));
        }
        if !parts.is_empty() {
            self.events.push(Event::Altered {
                lane,
                offset: it.offset,
                found: stray.offset,
                parts: parts.join(", "),
            });
        }
        self.first_match = Some(
            self.first_match
                .map_or(stray.offset, |first| first.min(stray.offset)),
        );
        self.settle(lane);
    }

    /// An open record is not there.
    fn absent(&mut self, lane: usize, index: usize) {
        let number = self.lanes[lane].base + index as u64;
        self.forget_open(lane, number);
        let at = &mut self.lanes[lane];
        let waiting = &mut at.waiting[index];
        waiting.state = State::Settled;
        at.open -= 1;
        at.may_be_open -= usize::from(waiting.it.must != Must::Be);
        let Expected {
            offset,
            id,
            must,
            place,
            ..
        } = waiting.it;
        let is_found = |waiting: &Waiting| matches!(waiting.state, State::At(_));
        let nothing_yet = at.last.is_none() && !at.waiting.range(..index).any(is_found);
        match (must, self.cut.strand && nothing_yet) {
            (Must::Be, true) => self.events.push(Event::GoneFromStrand { lane }),
            (Must::Be, false) => self.events.push(Event::Missing { lane, offset }),
            (Must::MayBe | Must::Outside, true) => {}
            (Must::MayBe | Must::Outside, false) => {
                self.events.push(Event::Absent {
                    lane,
                    offset,
                    id,
                    aside: place != 0,
                });
            }
        }
    }

    /// Lets go of what is decided at the front of a lane.
    fn settle(&mut self, lane: usize) {
        loop {
            let at = &mut self.lanes[lane];
            while let Some(front) = at.waiting.front()
                && front.state != State::Open
            {
                if let State::At(found) = front.state {
                    at.found -= 1;
                    at.last = at.last.max(Some(found));
                    if !front.twin {
                        at.run.push((front.it.offset, found));
                        at.run_to = at.run_to.max(found);
                    }
                }
                at.waiting.pop_front();
                at.base += 1;
            }
            // A stray among them may belong to what comes next.
            let to = at.run_to;
            let strays = self.strays.keys().next();
            let is_whole = at.found == 0 && strays.is_none_or(|stray| *stray > to);
            if is_whole || at.run.len() >= STRETCH {
                self.judge_order(lane);
            }
            // What has waited while much else of its lane was read is not there.
            if self.lanes[lane].waiting.len() <= self.ahead || self.lanes[lane].found == 0 {
                return;
            }
            let Some(front) = self.lanes[lane].waiting.front() else {
                return;
            };
            let number = self.lanes[lane].base;
            let stray = match front.it.must {
                Must::Be => self.stray_for(lane, 0),
                _ => None,
            };
            match stray.and_then(|offset| self.remove_stray(offset)) {
                Some(stray) => self.altered(lane, number, &stray),
                None => self.absent(lane, 0),
            }
        }
    }

    /// Of a stretch in input order, the fewest records that must have moved to make it what it is.
    fn judge_order(&mut self, lane: usize) {
        let mut run = std::mem::take(&mut self.lanes[lane].run);
        let judged_to = self.lanes[lane].judged_to;
        let events = &mut self.events;
        run.retain(|&(offset, found)| {
            if found < judged_to {
                events.push(Event::Reordered {
                    lane,
                    offset,
                    found,
                });
            }
            found >= judged_to
        });
        let Some(last) = run.iter().map(|(_, found)| *found).max() else {
            return;
        };
        self.lanes[lane].judged_to = last;
        if run.is_sorted_by_key(|(_, found)| *found) {
            return;
        }
        let found: Vec<i64> = run.iter().map(|(_, found)| *found).collect();
        let kept = longest_rising(&found);
        for (index, (offset, found)) in run.into_iter().enumerate() {
            if kept.binary_search(&index).is_err() {
                self.events.push(Event::Reordered {
                    lane,
                    offset,
                    found,
                });
            }
        }
    }

    /// The stray that stands where this open record should, with other bytes.
    fn stray_for(&self, lane: usize, index: usize) -> Option<i64> {
        if self.strays.is_empty() {
            return None;
        }
        let waiting = &self.lanes[lane].waiting;
        let it = &waiting[index].it;
        if let Some(offsets) = it.id.and_then(|id| self.stray_ids.get(&id)) {
            return offsets.first().copied();
        }
        let (after, before) = self.around(lane, index);
        let between = self
            .strays
            .range(after.saturating_add(1)..before.max(after.saturating_add(1)));
        let mut between = between.take(AROUND);
        between
            .find(|(_, stray)| self.is_like(it, stray))
            .map(|(offset, _)| *offset)
    }

    /// The open record in whose place a stray stands.
    fn counterpart_of(&self, stray: &Found) -> Option<(usize, u64)> {
        let mut by_place = None;
        for (number_of_lane, lane) in self.lanes.iter().enumerate() {
            if lane.open == 0 {
                continue;
            }
            let must = |w: &&Waiting| w.state == State::Open && w.it.must == Must::Be;
            for (index, waiting) in lane.waiting.iter().enumerate().take(AROUND) {
                if !must(&waiting) {
                    continue;
                }
                let place = (number_of_lane, lane.base + index as u64);
                if stray.id.is_some() && stray.id == waiting.it.id {
                    return Some(place);
                }
                if by_place.is_none() && self.is_like(&waiting.it, stray) {
                    let (after, before) = self.around(number_of_lane, index);
                    by_place = (after < stray.offset && stray.offset < before).then_some(place);
                }
            }
        }
        by_place
    }

    /// The strand offsets between which a record of a lane must stand.
    fn around(&self, lane: usize, index: usize) -> (i64, i64) {
        let at = &self.lanes[lane];
        let found = |w: &Waiting| match w.state {
            State::At(offset) => Some(offset),
            _ => None,
        };
        let after = at.waiting.range(..index).rev().take(AROUND).find_map(found);
        let before = at.waiting.range(index + 1..).take(AROUND).find_map(found);
        (after.or(at.last).unwrap_or(-1), before.unwrap_or(i64::MAX))
    }

    /// Whether two records have half of their parts in common: the same record, altered.
    fn is_like(&self, expected: &Expected, stray: &Found) -> bool {
        expected.place == stray.place() && expected.body.differs_from(&stray.body, true).len() <= 2
    }
}

/// Indices of a longest strictly rising part of a list, ascending. O(n log n).
fn longest_rising(values: &[i64]) -> Vec<usize> {
    // By length less one: the index of the smallest value that ends so long a part.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; values.len()];
    for (index, value) in values.iter().enumerate() {
        let at = ends.partition_point(|end| values[*end] < *value);
        before[index] = at.checked_sub(1).map(|at| ends[at]);
        if at == ends.len() {
            ends.push(index);
        } else {
            ends[at] = index;
        }
    }
    let mut rising = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(index) = next {
        rising.push(index);
        next = before[index];
    }
    rising.reverse();
    rising
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
