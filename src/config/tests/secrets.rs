//! Properties: what is refused, what is passed on, and what is never shown.

use super::*;

fn with_properties(section: &str, properties: &str) -> Result<Config, Faults> {
    let more = format!("i, {section}: {{{properties}}}}}");
    from_str(&LEAST.replace("i}", &more), "c.yaml", &env(&[]))
}

fn refused(properties: &str, part: &str) {
    for section in ["properties", "consumer_properties", "producer_properties"] {
        let faults = with_properties(section, properties).expect_err(properties);
        let found: Vec<String> = faults.lines().collect();
        assert_eq!(found.len(), 1, "{properties}: {found:#?}");
        assert!(
            found[0].starts_with(&format!("c.yaml:1: kafka.{section}")),
            "{found:#?}"
        );
        assert!(found[0].contains(part), "{part:?} is not in {:?}", found[0]);
    }
}

#[test]
fn properties_that_the_service_owns_are_refused_with_the_reason() {
    refused(
        "bootstrap.servers: 'x:1'",
        "it is set by kafka.bootstrap_servers",
    );
    refused("group.instance.id: x", "use kafka.static_membership");
    refused(
        "group.protocol: consumer",
        "only the classic group protocol",
    );
    refused("enable.auto.commit: true", "only inside the transactions");
    refused("auto.offset.reset: latest", "use input.start");
    refused("isolation.level: read_uncommitted", "refused");
    refused("transaction.timeout.ms: 1000", "use transaction.timeout");
    refused("acks: 1", "all in-sync replicas");
    refused("partitioner: random", "use output.partition");
    refused("allow.auto.create.topics: true", "use output.create");
    refused("plugin.library.paths: /tmp/x.so", "foreign code");
    refused("max.in.flight: 6", "expected 1 to 5");
    refused("message.timeout.ms: 30001", "transaction.timeout (30s)");
    refused("delivery.timeout.ms: 0", "transaction.timeout (30s)");
}

#[test]
fn everything_else_is_passed_verbatim() {
    let properties = "linger.ms: 007, x.y: 'a b', max.in.flight: 5, message.timeout.ms: 30000";
    let config = with_properties("producer_properties", properties).unwrap();
    assert_eq!(config.kafka.producer_properties["linger.ms"], "007");
    assert_eq!(config.kafka.producer_properties["x.y"], "a b");
    refused("sasl.username: null", "found nothing, expected a value");
    refused("a: [b]", "found a list");
    refused("a: {b: c}", "found a mapping");
    refused("'a b': c", "not the name of a property");
}

#[test]
fn no_secret_is_ever_shown() {
    let properties = "sasl.username: alice, sasl.password: hunter2, ssl.key.pem: hunter2, \
                      ssl.key.location: /etc/key.pem, sasl.oauthbearer.config: hunter2, \
                      sasl.oauthbearer.client.secret: hunter2, sasl.jaas.config: hunter2";
    for section in ["properties", "consumer_properties", "producer_properties"] {
        let config = with_properties(section, properties).unwrap();
        let yaml = config.to_yaml_redacted();
        let debug = format!("{config:?} {:#?}", config.kafka);
        for shown in [&yaml, &debug] {
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(
                shown.contains("alice") && shown.contains("/etc/key.pem"),
                "{shown}"
            );
        }
        assert!(yaml.contains("\"sasl.password\": \"<redacted>\""), "{yaml}");
        assert!(from_str(&yaml, "c.yaml", &env(&[])).is_ok());
    }
    // Nor in a fault about it.
    for wrong in [
        "sasl.password: [hunter2]",
        "sasl.password: \"hunter2\\0\"",
        "acks: hunter2",
    ] {
        let faults = with_properties("properties", wrong)
            .unwrap_err()
            .to_string();
        assert!(!faults.contains("hunter2"), "{faults}");
    }
}

#[test]
fn the_rendering_is_in_the_order_of_the_sample_and_loads_again() {
    let config = from_str(SAMPLE, "kafka-dedup.yaml", &env(&[("HOSTNAME", "h")])).unwrap();
    let yaml = config.to_yaml_redacted();
    let mut last = 0;
    for section in [
        "kafka:",
        "input:",
        "output:",
        "id:",
        "window:",
        "scope:",
        "duplicates:",
        "rejected:",
        "journal:",
        "store:",
        "transaction:",
        "workers:",
        "http:",
        "log:",
    ] {
        let at = yaml.find(&format!("\n{section}")).unwrap_or(0);
        assert!(at >= last, "{section} in {yaml}");
        last = at;
    }
    assert_eq!(from_str(&yaml, "c.yaml", &env(&[])).unwrap(), config);
    let rich = with(
        "output: {topic: '{group}.out', partition: key, create: false}\n\
         window: {ids: 7, refresh: true, max_ahead: 0s}\njournal: {retention: 36h}\n\
         duplicates: {topic: d}\nrejected: {topic: r}\nworkers: 64\n\
         log: {level: 'info,rdkafka=debug', format: json}\nstore: {path: 'null'}\n",
    );
    let yaml = rich.to_yaml_redacted();
    assert_eq!(
        from_str(&yaml, "c.yaml", &env(&[])).unwrap(),
        rich,
        "{yaml}"
    );
}
