//! What must hold where partitions share what they have seen: which of two comes first is not said, but each id
//! is let through once in all of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::stream::Stream;
use super::{Deployment, Instance, Rec, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// Of each id, how often it was let through. What is in a partition of the output is, in order, what a
/// partition of an input has: of each id its first record there, and of each record at most one.
pub fn let_through(it: &Deployment, inputs: &[&str], output: &str) -> BTreeMap<Vec<u8>, usize> {
    let mut count = BTreeMap::<Vec<u8>, usize>::new();
    for partition in 0..it.partitions {
        let mut sources: Vec<Vec<Rec>> = inputs
            .iter()
            .map(|input| {
                let records = it.kafka.read_partition(input, partition);
                records.into_iter().map(|(_, record)| record).collect()
            })
            .collect();
        for source in &mut sources {
            for record in &*source {
                count.entry(id_of(record)).or_default();
            }
            source.reverse();
        }
        for (offset, record) in it.kafka.read_partition(output, partition) {
            // The one that has it next.
            let skips = |source: &Vec<Rec>| source.iter().rev().position(|it| *it == record);
            let nearest = sources.iter_mut().filter_map(|it| Some((skips(it)?, it)));
            let Some((skipped, source)) = nearest.min_by_key(|(skips, _)| *skips) else {
                panic!("{output}-{partition}@{offset} has {record:?}, and no input has it next");
            };
            source.truncate(source.len() - skipped - 1);
            *count.get_mut(&id_of(&record)).expect("an id of the input") += 1;
        }
    }
    count
}

/// The same where records of different ids are in no order. What is in a partition of the output is, each once, what the same
/// partition of the input has.
pub fn let_through_in_any_order(it: &Deployment) -> BTreeMap<Vec<u8>, usize> {
    let mut count = BTreeMap::new();
    for partition in 0..it.partitions {
        let mut left: HashMap<String, usize> = HashMap::new();
        for (_, record) in it.kafka.read_partition(&it.input, partition) {
            count.entry(id_of(&record)).or_default();
            *left.entry(format!("{record:?}")).or_default() += 1;
        }
        for (offset, record) in it.kafka.read_partition(&it.output, partition) {
            let place = || format!("{}-{partition}@{offset} has {record:?}", it.output);
            match left.get_mut(&format!("{record:?}")) {
                Some(times) if *times > 0 => *times -= 1,
                _ => panic!("{}, and the input's partition has not", place()),
            }
            *count.get_mut(&id_of(&record)).expect("an id of the input") += 1;
        }
    }
    count
}

pub fn id_of(record: &Rec) -> Vec<u8> {
    record.header("message-id").expect("an id").to_vec()
}

pub fn assert_each(count: &BTreeMap<Vec<u8>, usize>, times: usize) {
    let mut wrong = count.iter().filter(|(_, count)| **count != times);
    if let Some((id, count)) = wrong.next() {
        let id = String::from_utf8_lossy(id);
        panic!(
            "{id} was let through {count} times; so were {} others",
            wrong.count()
        );
    }
}

/// Records whose ids come in any of three partitions.
pub fn crossing(it: &Deployment, seed: u64) -> Stream {
    let topic = it.input.clone();
    Stream::placed(&it.kafka, seed, move |dice, _| {
        (topic.clone(), i32::try_from(dice.roll(3)).expect("small"))
    })
}

/// Partitions that it reads.
pub fn reads(instance: &Instance) -> usize {
    let (_, text) = instance.get("/metrics").unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with("kafka_dedup_partition_active{") && line.ends_with(" 1"))
        .count()
}

/// The one that reads, when it reads all; and the other.
pub fn owner_first(partitions: usize, [a, b]: [Instance; 2]) -> [Instance; 2] {
    let mut owner = None;
    wait_for("one to read all", PATIENCE, || {
        let counts = [reads(&a), reads(&b)];
        owner = counts.iter().position(|it| *it == partitions);
        owner.is_some() && counts.iter().sum::<usize>() == partitions
    });
    if owner == Some(0) { [a, b] } else { [b, a] }
}

/// What was not let through is in the duplicates topic of its input, once, and names a record with its id that
/// was. Gives how many are of another partition or topic than that.
pub fn assert_duplicates(it: &Deployment, inputs: &[&str], output: &str) -> usize {
    let mut input = HashMap::new();
    let mut let_through = 0;
    for partition in 0..it.partitions {
        for topic in inputs {
            for (offset, record) in it.kafka.read_partition(topic, partition) {
                input.insert(((*topic).to_owned(), partition, offset), record);
            }
        }
        let_through += it.kafka.read_partition(output, partition).len();
    }
    let (mut sources, mut firsts, mut elsewhere) = (HashSet::new(), HashSet::new(), 0);
    for topic in inputs {
        for partition in 0..it.partitions {
            for (_, record) in it.kafka.read_partition(&format!("{topic}_dups"), partition) {
                let position = |kind: &str| {
                    let text = |part: &str| {
                        let header = record.header(&format!("dedup-{kind}-{part}"));
                        String::from_utf8_lossy(header.expect("a header")).into_owned()
                    };
                    let partition: i32 = text("partition").parse().expect("a number");
                    let offset: i64 = text("offset").parse().expect("a number");
                    (text("topic"), partition, offset)
                };
                let (source, first) = (position("source"), position("first"));
                let [repeated, original] = [&source, &first].map(|at| &input[at]);
                assert_eq!(
                    id_of(repeated),
                    id_of(original),
                    "{source:?} repeats {first:?}"
                );
                assert_eq!(repeated.value, record.value);
                elsewhere += usize::from((&source.0, source.1) != (&first.0, first.1));
                assert!(sources.insert(source.clone()), "{source:?} is there twice");
                firsts.insert(first);
            }
        }
    }
    assert!(
        sources.is_disjoint(&firsts),
        "what is a duplicate was not let through"
    );
    assert_eq!(
        let_through + sources.len(),
        input.len(),
        "each record is somewhere"
    );
    elsewhere
}
