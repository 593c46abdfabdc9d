use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::super::budget::Sized;
use super::*;

/// A log in memory; each read interleaves the partitions in another way.
struct List {
    partitions: Vec<Vec<Sighting>>,
    reads: usize,
    /// The read, and the record of it, at which somebody asks for the end.
    interrupt: Option<(usize, usize)>,
    /// Records that are gone after the first read.
    lost: usize,
}

impl List {
    /// A record is (partition, id, milliseconds since the partition's last); id 0 is none.
    fn of(partitions: usize, records: &[(usize, u64, i64)]) -> Self {
        let mut list = vec![Vec::new(); partitions];
        let mut clocks = vec![1_700_000_000_000; partitions];
        for (partition, id, gap_ms) in records {
            clocks[*partition] += gap_ms;
            let identity = match id {
                0 => Identity::Missing(MissingReason::NoId),
                id => Identity::Id(xxh3_128(&id.to_le_bytes())),
            };
            let offset = list[*partition].len() as i64;
            list[*partition].push(Sighting {
                partition: *partition,
                offset,
                time_ms: Some(clocks[*partition]),
                identity,
            });
        }
        Self {
            partitions: list,
            reads: 0,
            interrupt: None,
            lost: 0,
        }
    }
}

impl Log for List {
    fn partitions(&self) -> usize {
        self.partitions.len()
    }

    fn records_at_most(&self) -> u64 {
        self.partitions.iter().map(|list| list.len() as u64).sum()
    }

    fn read(
        &mut self,
        _: Purpose,
        see: &mut dyn FnMut(&Sighting) -> ControlFlow<()>,
    ) -> Result<Ended, Stop> {
        self.reads += 1;
        let lost = if self.reads > 1 { self.lost } else { 0 };
        let mut next = vec![lost; self.partitions.len()];
        let mut seen = 0;
        loop {
            let before = seen;
            for turn in 0..next.len() {
                let partition = (turn + self.reads) % next.len();
                let records = &self.partitions[partition]
                    [next[partition].min(self.partitions[partition].len())..];
                for sighting in records.iter().take(self.reads) {
                    if self.interrupt == Some((self.reads, seen)) {
                        return Ok(Ended::Interrupted);
                    }
                    seen += 1;
                    next[partition] += 1;
                    if see(sighting).is_break() {
                        return Ok(Ended::Enough);
                    }
                }
            }
            if seen == before {
                return Ok(Ended::AtTheEnd);
            }
        }
    }
}

/// What a scan must find, counted with all the memory in the world.
fn naive(list: &List, edges: &Edges) -> (Vec<u64>, u64, Ages, BTreeMap<u128, u64>) {
    let mut duplicates = vec![0; list.partitions.len()];
    let mut holders: HashMap<u128, BTreeSet<usize>> = HashMap::new();
    let mut counts: BTreeMap<u128, u64> = BTreeMap::new();
    let mut ages = Ages::new(edges);
    for (partition, records) in list.partitions.iter().enumerate() {
        let mut seen: HashMap<u128, (i64, i64)> = HashMap::new();
        let mut clock = i64::MIN;
        for record in records {
            clock = clock.max(record.time_ms.unwrap_or(clock));
            let Identity::Id(id) = record.identity else {
                continue;
            };
            *counts.entry(id).or_default() += 1;
            holders.entry(id).or_default().insert(partition);
            if let Some((first, last)) = seen.get_mut(&id) {
                duplicates[partition] += 1;
                ages.add(edges, clock - *last, clock - *first);
                *last = clock;
            } else {
                seen.insert(id, (clock, clock));
            }
        }
    }
    let elsewhere = holders.values().map(|set| set.len() as u64 - 1).sum();
    (duplicates, elsewhere, ages, counts)
}

/// A budget by its parts, small enough to be too small.
fn budget(seen_bytes: usize, candidate_bytes: usize, entries: usize, slices: u128) -> Budget {
    let sized = |bytes| Sized {
        bytes,
        items: bytes,
    };
    Budget {
        seen: sized(seen_bytes),
        candidates: sized(candidate_bytes),
        entries,
        slice: Span::WHOLE.width().div_ceil(slices),
    }
}

fn limits(budget: Budget, reads: u32) -> Limits {
    Limits {
        budget,
        reads,
        edges: Edges::with(None),
    }
}

fn records() -> impl Strategy<Value = Vec<(usize, u64, i64)>> {
    let gap = prop_oneof![Just(0), -5000..5000_i64, 0..10_000_000_i64];
    prop::collection::vec((0..4_usize, 0..60_u64, gap), 0..400)
}

proptest! {
    #[test]
    fn two_passes_count_what_a_naive_count_does_whatever_the_memory(
        records in records(),
        seen_bytes in 1..200_usize,
        candidate_bytes in 1..200_usize,
        entries in 4..300_usize,
        slices in 1..5_u128,
    ) {
        let mut list = List::of(4, &records);
        let limits = limits(budget(seen_bytes, candidate_bytes, entries, slices), u32::MAX);
        let (duplicates, elsewhere, ages, counts) = naive(&list, &limits.edges);
        let found = count(&mut list, &limits).unwrap();
        let by_partition: Vec<u64> = found.partitions.iter().map(|part| part.duplicates).collect();
        prop_assert_eq!(by_partition, duplicates);
        prop_assert_eq!(found.elsewhere, elsewhere);
        prop_assert_eq!(found.distinct(), counts.len() as u64);
        prop_assert_eq!(&found.ages, &ages);
        prop_assert_eq!(found.total().records, records.len() as u64);
        let without = records.iter().filter(|(_, id, _)| *id == 0).count() as u64;
        prop_assert_eq!(found.total().no_id, without);
        prop_assert_eq!(found.ids, records.len() as u64 - without);
        let mut most: Vec<u64> = counts.values().copied().filter(|count| *count > 1).collect();
        most.sort_unstable_by(|a, b| b.cmp(a));
        most.truncate(5);
        let found_most: Vec<u64> = found.most.iter().map(|id| id.count).collect();
        prop_assert_eq!(found_most, most);
        for id in &found.most {
            prop_assert_eq!(counts[&id.fingerprint], id.count);
            let first = list.partitions[id.partition].iter().find(|record| record.identity == Identity::Id(id.fingerprint));
            prop_assert_eq!(first.map(|record| record.offset), Some(id.offset));
        }
        prop_assert_eq!(found.outcome, Outcome::Complete);
        prop_assert_eq!(found.vanished, 0);
        prop_assert!((found.share - 1.0).abs() < 1e-9);
    }

    #[test]
    fn with_too_few_reads_the_figures_are_a_lower_bound_and_say_so(
        records in records(),
        entries in 1..20_usize,
        slices in 1..5_u128,
        reads in 2..6_u32,
    ) {
        let mut list = List::of(4, &records);
        let limits = limits(budget(50, 50, entries, slices), reads);
        let (duplicates, elsewhere, ..) = naive(&list, &limits.edges);
        let found = count(&mut list, &limits).unwrap();
        prop_assert!(found.reads <= reads);
        prop_assert_eq!(list.reads, found.reads as usize);
        let complete = found.outcome == Outcome::Complete;
        prop_assert_eq!(complete, found.share == 1.0);
        if complete {
            prop_assert_eq!(found.total().duplicates, duplicates.iter().sum::<u64>());
        }
        prop_assert!(found.total().duplicates <= duplicates.iter().sum::<u64>());
        prop_assert!(found.elsewhere <= elsewhere);
    }

    #[test]
    fn an_interrupted_scan_never_says_too_much(
        records in records(),
        read in 1..4_usize,
        at in 0..400_usize,
    ) {
        let mut list = List::of(4, &records);
        list.interrupt = Some((read, at));
        let limits = limits(budget(200, 200, 30, 1), u32::MAX);
        let (duplicates, elsewhere, ..) = naive(&list, &limits.edges);
        let found = count(&mut list, &limits).unwrap();
        prop_assert!(found.total().duplicates <= duplicates.iter().sum::<u64>());
        prop_assert!(found.elsewhere <= elsewhere);
        if let Outcome::InterruptedInFilter { suspects } = found.outcome {
            let part: Vec<_> = list.partitions.iter().flatten().collect();
            prop_assert!(found.total().records <= part.len() as u64);
            prop_assert!(suspects <= found.total().records);
        }
    }
}

#[test]
fn ids_that_a_full_filter_takes_for_old_are_never_called_duplicates() {
    let records: Vec<_> = (1..5000).map(|id| (0, id, 1)).collect();
    let mut list = List::of(1, &records);
    // One byte for all ids: nearly each is a suspect.
    let found = count(&mut list, &limits(budget(1, 1, 1000, 1), u32::MAX)).unwrap();
    assert!(found.mistaken > 4900, "{}", found.mistaken);
    assert_eq!(found.total().duplicates, 0);
    assert_eq!((found.elsewhere, found.distinct()), (0, 4999));
    assert_eq!(found.most, []);
    assert!((6..12).contains(&found.reads), "{}", found.reads);
}

#[test]
fn a_topic_without_suspects_is_read_once() {
    let records: Vec<_> = (1..1000).map(|id| (0, id, 1)).collect();
    let mut list = List::of(1, &records);
    let found = count(&mut list, &limits(Budget::divide(1 << 28, 1_000_000), 16)).unwrap();
    assert_eq!((found.reads, found.outcome), (1, Outcome::Complete));
    assert_eq!(found.distinct(), 999);
}

#[test]
fn an_empty_log_is_complete_at_once() {
    let mut list = List::of(3, &[]);
    let found = count(&mut list, &limits(Budget::divide(1 << 28, 0), 16)).unwrap();
    assert_eq!(
        (found.outcome, found.total()),
        (Outcome::Complete, Counts::default())
    );
}

#[test]
fn records_that_retention_takes_between_the_reads_are_told() {
    let records: Vec<_> = (0..100).map(|n| (0, n % 10 + 1, 1)).collect();
    let mut list = List::of(1, &records);
    list.lost = 15;
    let found = count(&mut list, &limits(Budget::divide(1 << 28, 100), 16)).unwrap();
    assert_eq!(found.vanished, 15);
    assert_eq!((found.total().duplicates, found.distinct()), (75, 10));
}

#[test]
fn a_late_record_is_as_old_as_stream_time_says() {
    // The second record's own time lies an hour back; stream time does not.
    let mut list = List::of(1, &[(0, 1, 0), (0, 2, 3_600_000), (0, 1, -3_600_000)]);
    let found = count(&mut list, &limits(Budget::divide(1 << 28, 3), 16)).unwrap();
    assert_eq!(found.ages.since_last, [0, 0, 0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn an_id_in_other_partitions_is_counted_apart_from_duplicates() {
    let mut list = List::of(3, &[(0, 7, 5), (1, 7, 0), (2, 7, 9), (1, 7, 1)]);
    let found = count(&mut list, &limits(Budget::divide(1 << 28, 4), 16)).unwrap();
    assert_eq!((found.total().duplicates, found.elsewhere), (1, 2));
    assert_eq!(found.partitions[1].duplicates, 1);
    let [id] = found.most[..] else {
        panic!("{:?}", found.most)
    };
    assert_eq!(
        (id.count, id.partitions, id.partition, id.offset),
        (4, 3, 1, 0)
    );
}
