//! What the input holds is the fault: records at the output's limit, transactions of others.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::producer::Producer;

use crate::campaign::Rounds;
use crate::kit::kafka::Client;
use crate::kit::{Deployment, Kafka, Rec, now_ms, send, unique};
use crate::rig::{Plan, Rig, assert_counts_add_up};

const PATIENCE: Duration = Duration::from_secs(120);
/// `max.message.bytes` of the output.
const LIMIT: usize = 20_000;

/// Records of the limit, a byte less and a byte more, each followed by a small one of the same id:
/// what went out before makes it a duplicate, what was refused does not.
pub fn at_the_limit(rounds: &mut Rounds) {
    let extra = "rejected: {topic: \"{topic}_rej\"}\ntransaction: {interval: 50ms}\n";
    while let Some(round) = rounds.next() {
        let mut deployment = Deployment::new("limit", 1, extra);
        let kafka = deployment.kafka.clone();
        // What compression makes of a record nobody can tell to the byte.
        let compression = "KAFKA_DEDUP__KAFKA__PRODUCER_PROPERTIES__COMPRESSION_TYPE";
        deployment
            .env
            .push((compression.to_owned(), "none".to_owned()));
        let limit = LIMIT.to_string();
        kafka.create_topic(&deployment.output, 1, &[("max.message.bytes", &limit)]);
        let begins_ms = now_ms() - 60_000;
        let records: Vec<Rec> = (0..400_i64)
            .flat_map(|number| {
                let small = Rec::with_id(format!("{round}-{number}"), begins_ms + number);
                let bytes = match rounds.dice.roll(24) {
                    0 => LIMIT - 1,
                    1 => LIMIT,
                    2 => LIMIT + 1,
                    _ => return vec![small],
                };
                vec![of_size(&small, bytes), small]
            })
            .collect();
        kafka.produce(&deployment.input, 0, &records);
        let mut instance = deployment.start("one");
        if round % 2 == 1 {
            instance.wait_until_ready();
            std::thread::sleep(Duration::from_millis(rounds.dice.roll(400)));
            instance.kill();
            instance = deployment.start("one");
        }
        deployment.wait_until_caught_up(PATIENCE);
        let mut refused = Vec::new();
        deployment.assert_output(|_, input| {
            let mut seen = HashSet::new();
            let mut forwarded = Vec::new();
            for (_, record) in input {
                if batch_bytes(record) > LIMIT {
                    refused.push(record.clone());
                } else if seen.insert(record.header("message-id").map(<[u8]>::to_vec)) {
                    forwarded.push(record.clone());
                }
            }
            forwarded
        });
        let rejected = kafka.read_partition(&format!("{}_rej", deployment.input), 0);
        assert!(!refused.is_empty(), "some were too large");
        assert_eq!(rejected.len(), refused.len(), "count of rejected records");
        for ((_, got), want) in rejected.iter().zip(&refused) {
            assert_eq!(got.header("dedup-reason"), Some(&b"too-large"[..]));
            assert!(
                got.value == want.value && got.header("message-id") == want.header("message-id")
            );
        }
        assert_counts_add_up(&instance);
        assert!(instance.terminate().success(), "{}", instance.log_tail());
        rounds.compared(u64::try_from(records.len()).expect("a count"));
    }
}

/// The same record with a value that makes its batch so large.
fn of_size(record: &Rec, bytes: usize) -> Rec {
    let with = |length: usize| Rec {
        value: Some(vec![b'x'; length]),
        ..record.clone()
    };
    // A longer length may itself take a byte more.
    let mut length = bytes - batch_bytes(&with(0));
    while batch_bytes(&with(length)) > bytes {
        length -= 1;
    }
    assert_eq!(batch_bytes(&with(length)), bytes, "to the byte");
    with(length)
}

/// Bytes of a record batch (magic 2, Kafka protocol guide) that holds this record alone.
fn batch_bytes(record: &Rec) -> usize {
    // Zigzag, seven bits a byte; a null is as long as -1.
    let varint = |value: usize| {
        (usize::BITS - (value << 1).leading_zeros())
            .max(1)
            .div_ceil(7) as usize
    };
    let part = |bytes: Option<&[u8]>| bytes.map_or(1, |bytes| varint(bytes.len()) + bytes.len());
    let headers: usize = record
        .headers
        .iter()
        .map(|(name, value)| part(Some(name.as_bytes())) + part(value.as_deref()))
        .sum();
    // Attributes, and the deltas of timestamp and offset, which are 0.
    let body = 3
        + part(record.key.as_deref())
        + part(record.value.as_deref())
        + varint(record.headers.len())
        + headers;
    61 + varint(body) + body
}

/// In turn, while other records flow: two transactions interleave, one is aborted; one stays open for
/// seconds; one is left open by a producer that dies; one is fenced by its successor. Then the ids of
/// all that were aborted come again, twice.
pub fn upstream(rounds: &mut Rounds) {
    let mut rig = Rig::of(Plan::new("upstream", rounds.seed));
    let mut instance = rig.deployment.start("one");
    instance.wait_until_ready();
    while let Some(round) = rounds.next() {
        rig.flow();
        let kafka = rig.deployment.kafka.clone();
        let input = rig.deployment.input.clone();
        let names = (0..60).map(|number| format!("up-{round}-{number}"));
        let names: Vec<String> = names.collect();
        let id = unique("transactions");
        // Only what is left open is to be ended by its coordinator.
        let first = begun(&kafka, &id, if round % 4 == 2 { "5000" } else { "60000" });
        let (ours, others) = names.split_at(40);
        match round % 4 {
            0 => {
                let second = begun(&kafka, &unique("transactions"), "60000");
                for (ours, others) in ours.iter().zip(others.iter().cycle()) {
                    put(&first, &input, ours);
                    put(&second, &input, others);
                    rig.let_flow(1);
                }
                second.commit_transaction(PATIENCE).expect("committed");
                first.abort_transaction(PATIENCE).expect("aborted");
            }
            1 => {
                ours.iter().for_each(|name| put(&first, &input, name));
                first.flush(PATIENCE).expect("delivered");
                let held = Duration::from_secs(1 + rounds.dice.roll(4));
                std::thread::sleep(held);
                if rounds.dice.roll(2) == 0 {
                    first.commit_transaction(PATIENCE).expect("committed");
                } else {
                    first.abort_transaction(PATIENCE).expect("aborted");
                }
            }
            2 => {
                ours.iter().for_each(|name| put(&first, &input, name));
                first.flush(PATIENCE).expect("delivered");
                drop(first);
            }
            _ => {
                ours.iter().for_each(|name| put(&first, &input, name));
                first.flush(PATIENCE).expect("delivered");
                let successor = begun(&kafka, &id, "60000");
                others.iter().for_each(|name| put(&successor, &input, name));
                successor.commit_transaction(PATIENCE).expect("committed");
                first
                    .commit_transaction(PATIENCE)
                    .expect_err("it was fenced");
            }
        }
        rig.let_flow(100);
        let plain = kafka.producer(&[]);
        for name in names.iter().chain(&names) {
            put(&plain, &input, name);
        }
        crate::kit::flush(&plain);
        if rounds.dice.roll(2) == 0 {
            instance.kill();
            instance = rig.deployment.start("one");
        }
        let tally = rig.settle(&mut [&mut instance]);
        rounds.compared(tally.received);
    }
    assert!(instance.terminate().success(), "{}", instance.log_tail());
}

/// A producer with an open transaction, which its coordinator ends after so long, and up to 10 s more.
fn begun(kafka: &Kafka, id: &str, timeout_ms: &str) -> Client {
    let producer = kafka.producer(&[
        ("transactional.id", id),
        ("transaction.timeout.ms", timeout_ms),
        ("message.timeout.ms", timeout_ms),
    ]);
    producer.init_transactions(PATIENCE).expect("initialised");
    producer.begin_transaction().expect("begun");
    producer
}

/// An id's partition is always the same.
fn put(producer: &Client, input: &str, id: &str) {
    let partition = i32::try_from(id.len() % 2).expect("0 or 1");
    send(
        producer,
        input,
        partition,
        &Rec::with_id(id, now_ms() - 60_000),
    );
}
