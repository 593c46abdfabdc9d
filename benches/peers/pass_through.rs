//! The floor: records from topic to topic in transactions, with the client library alone. Nothing is
//! judged and nothing remembered. Same properties, interval and records a transaction as the service.

use std::path::Path;
use std::time::{Duration, Instant};

use kafka_dedup::config;
use kafka_dedup::kafka::clients::{consumer_config, producer_config};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(30);

struct Strict;

impl ClientContext for Strict {}

impl ProducerContext for Strict {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            eprintln!("not delivered: {error}");
            std::process::exit(1);
        }
    }
}

/// Runs until it is killed. `config` is a file of the service.
pub fn run(config: &Path, input: &str, output: &str) {
    let config = config::load::load(config, []).expect("a config");
    let consumer: BaseConsumer = consumer_config(&config, 0)
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    let producer: ThreadedProducer<Strict> = producer_config(&config, 0)
        .create_with_context(Strict)
        .expect("a producer");
    producer
        .init_transactions(TIMEOUT)
        .expect("a transactional id");
    consumer.subscribe(&[input]).expect("subscribed");

    let (interval, most) = (config.transaction.interval, config.transaction.records);
    let mut next: Vec<Option<i64>> = Vec::new();
    let (mut begun, mut records) = (Instant::now(), 0);
    loop {
        let patience = match records {
            0 => interval,
            _ => interval.saturating_sub(begun.elapsed()),
        };
        match consumer.poll(patience) {
            Some(Ok(message)) => {
                if records == 0 {
                    producer.begin_transaction().expect("a transaction");
                    begun = Instant::now();
                }
                records += 1;
                send(&producer, output, &message);
                let partition = usize::try_from(message.partition()).expect("a partition");
                if next.len() <= partition {
                    next.resize(partition + 1, None);
                }
                next[partition] = Some(message.offset() + 1);
            }
            Some(Err(error)) => panic!("not read: {error}"),
            None => {}
        }
        if records >= most || records > 0 && begun.elapsed() >= interval {
            // With anything in flight a commit takes 100 ms more.
            while producer.in_flight_count() > 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
            let offsets = offsets(input, &mut next);
            let group = consumer.group_metadata().expect("a member");
            producer
                .send_offsets_to_transaction(&offsets, &group, TIMEOUT)
                .and_then(|()| producer.commit_transaction(TIMEOUT))
                .expect("committed");
            records = 0;
        }
    }
}

fn send(producer: &ThreadedProducer<Strict>, output: &str, message: &BorrowedMessage<'_>) {
    let mut record = BaseRecord::<[u8], [u8]>::to(output).partition(message.partition());
    record.key = message.key();
    record.payload = message.payload();
    record.timestamp = message.timestamp().to_millis();
    record.headers = message.headers().map(|headers| headers.detach());
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => panic!("not sent: {error}"),
        }
    }
}

fn offsets(input: &str, next: &mut [Option<i64>]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, next) in (0..).zip(next) {
        if let Some(offset) = next.take() {
            list.add_partition_offset(input, partition, Offset::Offset(offset))
                .expect("an offset");
        }
    }
    list
}
