//! Each of the permissions that SECURITY.md lists: with all of them `check` finds nothing, and of each that is taken away
//! it says which it is.

use std::time::Duration;

use crate::broker::{PASSWORD, secured};
use crate::kit::Deployment;
use crate::secrets::printed;
use crate::secured::access::{CREATE, DELETE, DESCRIBE_CONFIGS, Grant, allow, forbid};
use crate::secured::least_privilege;
use crate::start::send_some;

const USER: &str = "checked";

fn check(deployment: &Deployment) -> (Option<i32>, String) {
    let file = deployment.config_file().display().to_string();
    printed(deployment, &["check", "-c", &file])
}

/// What `check` does not say of those, one taken away at a time.
fn not_named(deployment: &Deployment, grants: &[Grant]) -> Vec<String> {
    let mut silent = Vec::new();
    for grant in grants {
        forbid(&secured().plain, USER, std::slice::from_ref(grant));
        // Without these it runs, worse.
        let fails = ![DELETE, DESCRIBE_CONFIGS].contains(&grant.operation);
        let is_named = |line: &str| {
            line.contains("missing") && line.contains(grant.word()) && line.contains(grant.name())
        };
        // A change is there for good a moment after the answer.
        let mut wrong = None;
        for _ in 0..5 {
            let (status, text) = check(deployment);
            let is_right = fails != (status == Some(0)) && text.lines().any(is_named);
            wrong = (!is_right)
                .then(|| format!("{} on {}: {status:?}\n{text}", grant.word(), grant.name()));
            if is_right {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        allow(&secured().plain, USER, std::slice::from_ref(grant));
        silent.extend(wrong);
    }
    silent
}

#[test]
fn each_permission_that_is_missing_is_named() {
    let properties = secured().sasl("SCRAM-SHA-512", USER, PASSWORD);
    let deployment = secured().deployment("permitted", "SECURED", properties);
    let grants = least_privilege(&deployment, &[]);
    allow(&secured().plain, USER, &grants);
    // An ACL is there for good a moment after the answer.
    std::thread::sleep(Duration::from_secs(1));
    let (status, text) = check(&deployment);
    assert_eq!(status, Some(0), "{text}");
    // Before its topics are there, it may have to make them, like the input.
    let makes = |it: &Grant| {
        it.operation == CREATE
            || (it.operation == DESCRIBE_CONFIGS && it.name() == deployment.input)
    };
    let (making, others): (Vec<Grant>, Vec<Grant>) = grants.into_iter().partition(makes);
    let mut silent = not_named(&deployment, &making);

    send_some(&deployment);
    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    deployment.wait_until_caught_up(Duration::from_secs(60));
    assert!(instance.terminate().success());
    silent.extend(not_named(&deployment, &others));
    assert!(silent.is_empty(), "{}", silent.join("\n\n"));
    std::thread::sleep(Duration::from_secs(1));
    let (status, text) = check(&deployment);
    assert_eq!(status, Some(0), "{text}");
}
