//! As a user of no rights, on a file system of which only the store can be written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::broker::secured;
use crate::kit::{BINARY, Deployment, Instance};
use crate::start::{by_header, send_some};

/// Everything that is mounted becomes read-only, but the store; then root is given up for good.
const READ_ONLY: &str = r#"
set -e
store=$1; shift
mount --make-rprivate /
mount --bind "$store" "$store"
awk '{print $2}' /proc/self/mounts | sort -u | while read -r at; do
    case "$at" in "$store"|/proc*|/sys*|/dev*) continue ;; esac
    mount -o remount,bind,ro "$at"
done
if touch /tmp/written 2>/dev/null || touch "$0" 2>/dev/null; then exit 99; fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs -- "$@"
"#;

fn may_unshare() -> bool {
    let done = Command::new("unshare")
        .args([
            "-m",
            "sh",
            "-c",
            "mount --make-rprivate / && command -v setpriv",
        ])
        .output();
    done.is_ok_and(|output| output.status.success())
}

fn start(deployment: &Deployment, store: &Path) -> Instance {
    // The directory of a test is its owner's alone.
    open(deployment.dir.path());
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", READ_ONLY, "/tmp/written-too"])
        .arg(store)
        .arg(BINARY);
    deployment.start_on("one", store.to_owned(), &[], command)
}

fn open(dir: &Path) {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}

#[test]
fn only_the_store_is_written_and_root_is_not_needed() {
    if !may_unshare() {
        eprintln!("skipped: needs root, to mount everything read-only in a namespace of its own");
        return;
    }
    let deployment = secured().deployment("read-only", "MUTUAL", Vec::new());
    let deployment = Deployment {
        env: Vec::new(),
        ..deployment
    };
    send_some(&deployment);
    let store = deployment.dir.path().join("store");
    std::fs::create_dir(&store).expect("a directory");
    std::os::unix::fs::chown(&store, Some(65534), Some(65534)).expect("its owner");
    let mut instance = start(&deployment, &store);
    instance.wait_until_ready();
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| by_header(input));
    let (_, health) = instance.get("/readyz?verbose").expect("an answer");
    assert!(!health.contains("degraded"), "{health}");
    assert!(instance.terminate().success(), "{}", instance.log_tail());
    let mut scopes = 0;
    for entry in std::fs::read_dir(&store).expect("the store").flatten() {
        let mode = entry.metadata().expect("its mode").permissions().mode();
        assert_eq!(
            mode & 0o077,
            0,
            "{:?} is its owner's alone: {mode:o}",
            entry.path()
        );
        scopes += 1;
    }
    assert_eq!(scopes, 2, "a directory for each partition");

    // A store that cannot be written: it works from memory and journal, and says so.
    std::os::unix::fs::chown(&store, Some(0), Some(0)).expect("its owner");
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o700)).expect("permissions");
    send_some(&deployment);
    let mut instance = start(&deployment, &store);
    instance.wait_until_ready();
    deployment.wait_until_caught_up(Duration::from_secs(60));
    deployment.assert_output(|_, input| by_header(input));
    let (_, health) = instance.get("/readyz?verbose").expect("an answer");
    assert!(
        health.contains("degraded") && health.contains("ermission denied"),
        "{health}"
    );
    assert!(instance.terminate().success(), "{}", instance.log_tail());
}
