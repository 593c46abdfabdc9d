//! Permissions that are taken away while records flow, and given back.

use std::time::Duration;

use crate::broker::{PASSWORD, secured};
use crate::kit::stream::Stream;
use crate::kit::wait_for;
use crate::start::by_header;

const PATIENCE: Duration = Duration::from_secs(120);

/// Each permission once. The service says what is missing and by name, or stops with 78; either way,
/// given back, it goes on (started again where it stopped), and the output is what it would have been.
#[test]
fn permissions_taken_away_and_given_back_lose_nothing() {
    let properties = secured().sasl("SCRAM-SHA-512", "service", PASSWORD);
    let deployment = secured().deployment("acls", "SECURED", properties);
    secured().grant("service", &deployment);
    let journal = deployment.journal();
    let transactional = format!("{}-", deployment.group);
    let rounds: [(&str, &[&str], &str); 5] = [
        (
            "input",
            &["--topic", &deployment.input, "--operation", "Read"],
            &deployment.input,
        ),
        (
            "output",
            &["--topic", &deployment.output, "--operation", "Write"],
            &deployment.output,
        ),
        (
            "journal",
            &["--topic", &journal, "--operation", "Delete"],
            &journal,
        ),
        (
            "group",
            &["--group", &deployment.group, "--operation", "Read"],
            &deployment.group,
        ),
        (
            "transactions",
            &[
                "--transactional-id",
                &transactional,
                "--resource-pattern-type",
                "prefixed",
                "--operation",
                "Write",
            ],
            "ransactional",
        ),
    ];
    let stream = Stream::start(
        &deployment.kafka,
        &deployment.input,
        deployment.partitions,
        11,
    );
    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    for (name, permission, says) in rounds {
        let mark = instance.log_text().len();
        let change = |how: &'static str, force: &[&'static str]| {
            let mut arguments = vec![how, "--allow-principal", "User:service"];
            arguments.extend_from_slice(permission);
            arguments.extend_from_slice(force);
            secured().acls(&arguments);
        };
        change("--remove", &["--force"]);
        // The journal is trimmed only as slices age out: its permission is missed at some time.
        if name != "journal" {
            wait_for(&format!("a word about the {name}"), PATIENCE, || {
                let log = instance.log_text();
                let new = &log[mark.min(log.len())..];
                new.lines()
                    .any(|line| line.contains("uthoriz") && line.contains(says))
            });
        }
        change("--add", &[]);
        if name != "journal" && !instance.is_ready() {
            wait_for("its end, or that it goes on", PATIENCE, || {
                instance.has_ended() || instance.is_ready()
            });
        }
        if instance.has_ended() {
            let status = instance.wait(PATIENCE);
            assert_eq!(status.code(), Some(78), "{name}: {}", instance.log_tail());
            eprintln!(
                "{name}: stopped: {}",
                instance.log_tail().lines().last().unwrap_or_default()
            );
            instance = deployment.start("one");
        }
        instance.wait_until_ready();
        let forwarded = instance.metric("kafka_dedup_records_forwarded_total");
        wait_for("records to go on", PATIENCE, || {
            assert!(!instance.has_ended(), "{name}: {}", instance.log_tail());
            instance.metric("kafka_dedup_records_forwarded_total") > forwarded
        });
    }
    assert!(stream.finish() > 0);
    deployment.wait_until_caught_up(PATIENCE);
    deployment.assert_output(|_, input| by_header(input));
    assert!(instance.terminate().success(), "{}", instance.log_tail());
}
