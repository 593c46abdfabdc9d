use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::BaseProducer;

use super::*;
use crate::config::from_str;

fn config(extra: &str) -> Config {
    let text = format!(
        "input: {{topics: [in]}}\nid: {{from: key}}\n{extra}\nkafka:\n  \
         bootstrap_servers: \"127.0.0.1:1\"\n  group_id: g\n  instance_id: i\n"
    );
    from_str(&text, "test", &BTreeMap::new()).expect("a good file")
}

fn with(properties: &[(&str, &str)]) -> Config {
    let mut config = config("");
    for (key, value) in properties {
        config
            .kafka
            .properties
            .insert((*key).to_owned(), (*value).to_owned());
    }
    config
}

#[test]
fn librdkafka_accepts_every_client_as_it_is_and_with_hard_properties() {
    let hard = with(&[
        ("socket.timeout.ms", "120000"),
        ("delivery.timeout.ms", "300000"),
        ("message.max.bytes", "200000000"),
        ("session.timeout.ms", "6000"),
        ("compression.codec", "lz4"),
    ]);
    for config in [config(""), hard, config("transaction: {timeout: 1s}\n")] {
        let _: BaseConsumer = consumer_config(&config, 0).create().expect("a consumer");
        let _: BaseConsumer = journal_reader_config(&config)
            .create()
            .expect("a journal reader");
        let _: BaseConsumer = observer_config(&config).create().expect("an observer");
        let _: BaseConsumer = group_config(&config)
            .create()
            .expect("a client of the group");
        let _: BaseProducer = producer_config(&config, 0).create().expect("a producer");
        let _: BaseProducer = admin_config(&config).create().expect("an admin client");
    }
}

#[test]
fn layers_ours_then_shared_then_special_then_owned() {
    let mut config = with(&[("linger.ms", "7"), ("client.id", "mine")]);
    let special = [("linger.ms", "9"), ("transactional.id", "theirs")];
    for (key, value) in special {
        config
            .kafka
            .producer_properties
            .insert(key.to_owned(), value.to_owned());
    }
    let producer = producer_config(&config, 3);
    assert_eq!(producer.get("linger.ms"), Some("9"));
    assert_eq!(producer.get("client.id"), Some("mine"));
    assert_eq!(producer.get("transactional.id"), Some("g-i-3"));
    assert_eq!(admin_config(&config).get("linger.ms"), Some("7"));
    assert_eq!(
        producer_config(&super::tests::config(""), 0).get("linger.ms"),
        Some("5")
    );
}

#[test]
fn a_property_with_two_names_has_one_value() {
    let producer = producer_config(&with(&[("compression.codec", "zstd")]), 0);
    assert_eq!(producer.get("compression.type"), Some("zstd"));
    assert_eq!(producer.get("compression.codec"), None);
}

#[test]
fn a_delivery_ends_before_its_transaction() {
    let producer = producer_config(&with(&[("delivery.timeout.ms", "300000")]), 0);
    assert_eq!(producer.get("message.timeout.ms"), Some("30000"));
    let producer = producer_config(&with(&[("message.timeout.ms", "5000")]), 0);
    assert_eq!(producer.get("message.timeout.ms"), Some("5000"));
}

#[test]
fn the_largest_record_fits_the_queue() {
    let producer = producer_config(&with(&[("message.max.bytes", "200000000")]), 0);
    let queue = number(&producer, "queue.buffering.max.kbytes").expect("a size");
    assert!(queue * 1024 > 200_000_000);
    let producer = producer_config(&with(&[("queue.buffering.max.kbytes", "1024")]), 0);
    let queue = number(&producer, "queue.buffering.max.kbytes").expect("a size");
    assert!(queue * 1024 > MESSAGE_MAX_BYTES);
}

#[test]
fn a_shorter_session_still_has_three_heartbeats() {
    let heartbeat = |properties: &[(&str, &str)]| {
        let client = consumer_config(&with(properties), 0);
        client.get("heartbeat.interval.ms").map(str::to_owned)
    };
    assert_eq!(heartbeat(&[]).as_deref(), Some("500"));
    assert_eq!(
        heartbeat(&[("session.timeout.ms", "1200")]).as_deref(),
        Some("400")
    );
    assert_eq!(
        heartbeat(&[("session.timeout.ms", "60000")]).as_deref(),
        Some("500")
    );
    let both = [
        ("session.timeout.ms", "1200"),
        ("heartbeat.interval.ms", "3000"),
    ];
    assert_eq!(heartbeat(&both).as_deref(), Some("3000"));
}

#[test]
fn consumers_commit_nothing_by_themselves_and_read_as_they_must() {
    let mut config = config("");
    config.kafka.static_membership = true;
    let consumer = consumer_config(&config, 2);
    assert_eq!(consumer.get("group.instance.id"), Some("i-2"));
    let (reader, observer) = (journal_reader_config(&config), observer_config(&config));
    for client in [&consumer, &reader, &observer] {
        assert_eq!(client.get("enable.auto.commit"), Some("false"));
        assert_eq!(client.get("enable.auto.offset.store"), Some("false"));
        assert_eq!(client.get("auto.offset.reset"), Some("error"));
        assert_eq!(client.get("allow.auto.create.topics"), Some("false"));
    }
    assert_eq!(consumer.get("isolation.level"), Some("read_committed"));
    assert_eq!(reader.get("isolation.level"), Some("read_committed"));
    assert_eq!(reader.get("group.id"), Some("g"));
    assert_eq!(reader.get("group.instance.id"), None);
    assert_eq!(observer.get("isolation.level"), Some("read_uncommitted"));
    assert_eq!(observer.get("group.id"), None);
    let group = group_config(&config);
    assert_eq!(group.get("isolation.level"), Some("read_uncommitted"));
    assert_eq!(group.get("group.id"), Some("g"));
}
