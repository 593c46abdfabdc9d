//! librdkafka properties: which ones the service must own and why, and which values are secrets.
//! Everything else is passed on verbatim.
//!
//! Pure functions over the tree; librdkafka is asked which names it knows.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::fault::Place;
use super::tree::{At, Content, Section};
use super::value::render_duration;

/// Refused, with what to do instead.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is set by kafka.bootstrap_servers"),
    (
        "metadata.broker.list",
        "it is set by kafka.bootstrap_servers",
    ),
    ("group.id", "it is set by kafka.group_id"),
    ("group.instance.id", "use kafka.static_membership"),
    (
        "group.protocol",
        "only the classic group protocol is supported",
    ),
    (
        "group.remote.assignor",
        "only the classic group protocol is supported",
    ),
    ("enable.auto.commit", OFFSETS),
    ("auto.commit.enable", OFFSETS),
    ("enable.auto.offset.store", OFFSETS),
    ("auto.commit.interval.ms", OFFSETS),
    ("offset.store.method", OFFSETS),
    ("auto.offset.reset", "use input.start"),
    (
        "isolation.level",
        "exactly once needs it to differ by client, and the service sets it",
    ),
    (
        "transactional.id",
        "it is made from kafka.group_id and kafka.instance_id",
    ),
    ("transaction.timeout.ms", "use transaction.timeout"),
    (
        "enable.idempotence",
        "a transactional producer is always idempotent",
    ),
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    (
        "enable.gapless.guarantee",
        "a failed delivery aborts the transaction, which leaves no gap",
    ),
    ("queuing.strategy", "records must keep their order"),
    (
        "delivery.report.only.error",
        "a commit waits for the report of every delivery",
    ),
    (
        "enable.partition.eof",
        "the end of a partition is no event for the service",
    ),
    ("topic.blacklist", "topics are chosen by input.topics"),
    ("partitioner", "use output.partition"),
    ("allow.auto.create.topics", "use output.create"),
    (
        "plugin.library.paths",
        "foreign code in the client could break what the service promises",
    ),
];
const OFFSETS: &str = "offsets are committed only inside the transactions of the service";
const ACKS: &str = "a transactional producer always waits for all in-sync replicas";

/// Beyond this many requests in flight an idempotent producer could lose order.
const MAX_IN_FLIGHT: u64 = 5;
const IN_FLIGHT: [&str; 2] = ["max.in.flight.requests.per.connection", "max.in.flight"];
const DELIVERY: [&str; 2] = ["message.timeout.ms", "delivery.timeout.ms"];

/// One of the three `properties` sections.
pub(super) fn read(kafka: &Section<'_>, key: &str) -> BTreeMap<String, String> {
    let section = kafka.section(key);
    let mut properties = BTreeMap::new();
    for entry in section.entries {
        let (name, node) = (entry.key.as_str(), &entry.node);
        if let Some((_, reason)) = OWNED.iter().find(|(owned, _)| *owned == name) {
            let sentence = format!("refused, as the service owns this property: {reason}");
            section.fault(name, &node.place, sentence);
            continue;
        }
        if name.is_empty() || !name.bytes().all(is_of_a_name) {
            // What follows the name may be its value.
            let sentence = "not the name of a property; properties are written as name: value";
            section.fault(name, &node.place, sentence);
            continue;
        }
        match &node.content {
            Content::Scalar { text, .. } => {
                if IN_FLIGHT.contains(&name)
                    && !text
                        .parse::<u64>()
                        .is_ok_and(|n| (1..=MAX_IN_FLIGHT).contains(&n))
                {
                    let sentence = format!(
                        "found {}, expected 1 to {MAX_IN_FLIGHT}: more would break idempotence",
                        node.shown()
                    );
                    section.fault(name, &node.place, sentence);
                }
                properties.insert(name.to_owned(), text.clone());
            }
            Content::Null => section.fault(
                name,
                &node.place,
                "found nothing, expected a value; leave the property out for its default",
            ),
            Content::List(_) | Content::Map(_) => section.fault(
                name,
                &node.place,
                format!(
                    "found {}, expected one value, as librdkafka takes it",
                    node.shown()
                ),
            ),
            Content::Faulty => {}
        }
    }
    properties
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// A delivery that may be tried for longer than its transaction can live fails the transaction at
/// the broker instead of in its delivery report.
pub(super) fn check_delivery_timeouts(kafka: &Section<'_>, timeout: &At<Duration>) {
    if !timeout.sound {
        return;
    }
    for key in ["properties", "consumer_properties", "producer_properties"] {
        // Its own fault, if it is no mapping, was noted when it was read.
        let Some(Content::Map(entries)) = kafka.node(key).map(|node| &node.content) else {
            continue;
        };
        for entry in entries
            .iter()
            .filter(|entry| DELIVERY.contains(&entry.key.as_str()))
        {
            let Content::Scalar { text, .. } = &entry.node.content else {
                continue;
            };
            let fits = text
                .parse::<u64>()
                .is_ok_and(|ms| ms > 0 && u128::from(ms) <= timeout.value.as_millis());
            if !fits {
                let sentence = format!(
                    "found {}, expected milliseconds from 1 to those of transaction.timeout ({})",
                    entry.node.shown(),
                    render_duration(timeout.value)
                );
                let place: &Place = &entry.node.place;
                kafka.fault(&format!("{key}.{}", entry.key), place, sentence);
            }
        }
    }
}

/// Whether the value of a property must not be shown: it is named like a secret, or librdkafka does
/// not know the name, which may be that of a secret with a slip of the hand. Locations of files may
/// be shown.
pub(crate) fn is_secret(name: &str) -> bool {
    is_named_like_a_secret(name) || !is_known(name)
}

/// A key that could not even be a property's name is judged by its words alone.
pub(super) fn is_named_like_a_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let location = [".location", ".file", ".keytab"]
        .iter()
        .any(|end| name.ends_with(end));
    let marked = [
        "password",
        "passphrase",
        "secret",
        "key",
        "token",
        "credential",
        "jaas",
        "oauthbearer.config",
        // A command line, which may hold a password.
        "kinit.cmd",
    ];
    !location && marked.iter().any(|mark| name.contains(mark))
}

/// Whether librdkafka has a property of this name. Asks it; connects to nothing.
fn is_known(name: &str) -> bool {
    let asked = ClientConfig::new().set(name, "").create_native_config();
    let unknown = RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
    !matches!(&asked, Err(KafkaError::ClientConfig(answer, ..)) if *answer == unknown)
}

/// Whether a value gives itself away, wherever it was put: a private key beside its certificate, a
/// URL with a user and a password.
pub(super) fn looks_secret(value: &str) -> bool {
    value.contains("PRIVATE KEY") || (value.contains("://") && value.contains('@'))
}

/// What stands in for a secret.
pub(super) const REDACTED: &str = "<redacted>";

/// Properties as they may be shown.
pub(super) fn redacted(
    properties: &BTreeMap<String, String>,
) -> impl Iterator<Item = (&str, &str)> + '_ {
    properties.iter().map(|(name, value)| {
        (
            name.as_str(),
            if is_secret(name) || looks_secret(value) {
                REDACTED
            } else {
                value.as_str()
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_from_locations_and_names() {
        for name in [
            "sasl.password",
            "SSL.KEY.PEM",
            "ssl_key",
            "ssl.key.password",
            "ssl.keystore.password",
            "sasl.jaas.config",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.client.credentials.client.secret",
            "some.credential",
            "sasl.pasword",
            "ssl.kye.pem",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "sasl.username",
            "ssl.key.location",
            "ssl.keystore.location",
            "sasl.oauthbearer.assertion.private.key.file",
            "sasl.kerberos.keytab",
            "security.protocol",
            "linger.ms",
            "message.timeout.ms",
            "compression.type",
            "sasl.mechanism",
            "ssl.endpoint.identification.algorithm",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
