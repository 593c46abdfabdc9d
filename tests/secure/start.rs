//! TLS, SCRAM, PLAIN and client certificates: what works, and what a start says that does not.

use std::time::Duration;

use crate::broker::{PASSWORD, secured};
use crate::kit::expected::{Limits, expect_forwarded};
use crate::kit::stream::Stream;
use crate::kit::{Deployment, Instance, Rec, now_ms, wait_for};
use crate::secured::access::set_password;

const PATIENCE: Duration = Duration::from_secs(90);

pub fn by_header(input: &[(i64, Rec)]) -> Vec<Rec> {
    expect_forwarded(Limits::time(86_400_000), input, |record| {
        record.header("message-id").map(<[u8]>::to_vec)
    })
}

pub fn send_some(deployment: &Deployment) {
    let t = now_ms() - 10_000;
    for partition in 0..deployment.partitions {
        let records: Vec<Rec> = (0..300)
            .map(|n| Rec::with_id((n % 200).to_string(), t + n))
            .collect();
        deployment
            .kafka
            .produce(&deployment.input, partition, &records);
    }
}

fn works(deployment: &Deployment) {
    send_some(deployment);
    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    deployment.wait_until_caught_up(PATIENCE);
    deployment.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success(), "{}", instance.log_tail());
}

#[test]
fn scram_and_plain_with_exactly_the_documented_acls() {
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let properties = secured().sasl(mechanism, "service", PASSWORD);
        let deployment = secured().deployment("sasl", "SECURED", properties);
        secured().grant("service", &deployment);
        works(&deployment);
    }
}

#[test]
fn client_certificates() {
    let file = |name: &str| secured().dir.path().join(name).display().to_string();
    let properties = [
        ("security.protocol", "SSL".to_owned()),
        ("ssl.ca.location", file("authority.ca.pem")),
        ("ssl.certificate.location", file("mutual.crt")),
        ("ssl.key.location", file("mutual.key")),
    ];
    let properties = properties
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
    works(&secured().deployment("mutual", "MUTUAL", properties));
}

/// Four services that cannot start, side by side, as each tries for half a minute.
#[test]
fn a_start_that_cannot_be_says_why_and_what_to_do() {
    let tls = |ca: &std::path::Path| {
        [
            ("security.protocol", "SSL".to_owned()),
            ("ssl.ca.location", ca.display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    };
    let ca = &secured().authority.certificate;
    let cases = [
        (
            "SECURED",
            secured().sasl("SCRAM-SHA-512", "service", "wrong-marker-0815"),
            &["uthentication", "sasl.*"][..],
        ),
        ("EXPIRED", tls(ca), &["certificate", "expired"]),
        ("ELSEWHERE", tls(ca), &["certificate", "host name"]),
        (
            "MUTUAL",
            tls(&secured().stranger.certificate),
            &["certificate", "ssl.ca.location"],
        ),
    ];
    let running: Vec<(Deployment, Instance, &str, &[&str])> = cases
        .into_iter()
        .map(|(listener, properties, words)| {
            let deployment = secured().deployment("bad", listener, properties);
            let instance = deployment.start("one");
            (deployment, instance, listener, words)
        })
        .collect();
    for (_deployment, mut instance, listener, words) in running {
        let status = instance.wait(PATIENCE);
        let log = instance.log_text();
        let last = log.trim_end().lines().last().unwrap_or_default();
        assert_eq!(status.code(), Some(69), "{listener}: {last}");
        for word in words {
            assert!(last.contains(word), "{listener}: no {word:?} in {last}");
        }
        assert!(!log.contains("wrong-marker-0815"), "{log}");
    }
}

/// The password is changed under a running service: it says that it is not ready and why, and goes
/// on by itself when it is set right again.
#[test]
fn a_password_that_is_changed_stops_nothing_for_good() {
    let properties = secured().sasl("SCRAM-SHA-512", "changed", PASSWORD);
    let deployment = secured().deployment("changed", "SECURED", properties);
    secured().grant("changed", &deployment);
    let stream = Stream::start(
        &deployment.kafka,
        &deployment.input,
        deployment.partitions,
        7,
    );
    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    set_password(&secured().plain, "changed", "another");
    wait_for("it to say that it is not ready", PATIENCE, || {
        assert!(!instance.has_ended(), "{}", instance.log_tail());
        instance
            .get("/readyz")
            .is_some_and(|(status, text)| status == 503 && text.contains("uthentication"))
    });
    set_password(&secured().plain, "changed", PASSWORD);
    instance.wait_until_ready();
    assert!(stream.finish() > 0);
    deployment.wait_until_caught_up(PATIENCE);
    deployment.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success(), "{}", instance.log_tail());
}
