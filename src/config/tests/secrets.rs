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
    // Nor in a fault about it, however it was meant to be written.
    for wrong in [
        "sasl.password=hunter2",
        "sasl.password=hunter2: x",
        "'sasl.password: hunter2': x",
        "sasl.password: 'a${hunter2'",
        "sasl.password: '${hunter2 !}'",
        "ssl.key.pem: '${A:-${hunter2}}'",
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
        "schemas:",
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

#[test]
fn no_secret_is_shown_from_where_it_does_not_belong() {
    let password = [("KAFKA_PASSWORD", "hunter2"), ("A", "hunter2")];
    for wrong in [
        "window: {time: '${KAFKA_PASSWORD}'}\n",
        "sasl.password=hunter2: x\n",
        "\"a\\nhunter2\": x\n",
        "\"a\\nhunter2\": '${'\n",
        "sasl.password=hunter2: '${'\n",
        "sasl.password=hunter2: 1\nsasl.password=hunter2: 2\n",
    ] {
        let faults = faults_of(&format!("{LEAST}{wrong}"), &password).join("|");
        assert!(!faults.contains("hunter2"), "{faults}");
        assert!(!faults.contains('\n'), "{faults}");
    }
    let sources = LEAST.replace("{from: key}", "{from: {\"a\\nb\": x, key: y}}");
    let faults = faults_of(&sources, &[]).join("|");
    assert!(!faults.contains('\n'), "{faults}");
    for kafka in [
        "sasl.password=hunter2",
        "{bootstrap_servers: 'SASL_SSL://me:hunter2@b:9092', group_id: g}",
        "{bootstrap_servers: 'me:hunter2@b:9092', group_id: g}",
        "{bootstrap_servers: 'b:9092', group_id: g, properties: 'sasl.password=hunter2'}",
        "{bootstrap_servers: 'b:9092', group_id: g, properties: ['sasl.password=hunter2']}",
        "{bootstrap_servers: 'b:9092', group_id: g, sasl.password=hunter2: x}",
    ] {
        let text = format!("kafka: {kafka}\ninput: {{topics: [t]}}\nid: {{from: key}}\n");
        let faults = faults_of(&text, &[]).join("|");
        assert!(!faults.contains("hunter2"), "{faults}");
    }
    for (name, value) in [
        ("KAFKA_DEDUP__KAFKA__PROPERTIES", "sasl.password=hunter2"),
        ("KAFKA_DEDUP__KAFKA__PROPERTIES", "{sasl.password: [hunter2"),
        ("KAFKA_DEDUP__KAFKA__PROPERTIES", "{sasl.password=hunter2}"),
        ("KAFKA_DEDUP__KAFKA__SASL_PASSWORD", "hunter2"),
        ("KAFKA_DEDUP__KAFKA__PROPERTIES__SASL__PASSWORD", "hunter2"),
        ("KAFKA_DEDUP__KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2\0"),
        ("KAFKA_DEDUP__KAFKA", "hunter2"),
    ] {
        let faults = faults_of(LEAST, &[(name, value)]).join("|");
        assert!(!faults.contains("hunter2"), "{faults}");
    }
    // A slip of the hand in the name, a key beside its certificate, a URL with a password.
    let sly = "sasl.pasword: hunter2, ssl.certificate.pem: '-----BEGIN PRIVATE KEY-----hunter2', \
               sasl.oauthbearer.token.endpoint.url: 'https://me:hunter2@idp/'";
    let config = with_properties("properties", sly).unwrap();
    let shown = format!("{} {config:?}", config.to_yaml_redacted());
    assert!(!shown.contains("hunter2"), "{shown}");
}
