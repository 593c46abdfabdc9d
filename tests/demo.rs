//! The demo keeps its own promises: it passes on this machine, and leaves nothing running behind it.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

fn demo(dir: &Path, more: &[&str]) -> Command {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_kafka-dedup"));
    demo.args(["demo", "--records", "10000", "--seconds", "5", "--dir"])
        .arg(dir)
        .args(more)
        // A shell's settings must not lead the demo's service anywhere else.
        .env("KAFKA_DEDUP__KAFKA__GROUP_ID", "production")
        .stdin(Stdio::null());
    demo
}

#[test]
fn the_demo_survives_its_kills_passes_its_audit_and_exits_0() {
    let dir = tempfile::tempdir().unwrap();
    let ended = demo(dir.path(), &["--kills", "2", "--duplicates", "30"])
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&ended.stdout);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{}\n{table}\n{said}", ended.status);
    let row = |name: &str| {
        let line = table
            .lines()
            .find(|line| line.trim_start().starts_with(name));
        line.and_then(|line| line.split_whitespace().last())
            .unwrap_or_else(|| panic!("no {name} in\n{table}"))
            .to_owned()
    };
    assert_eq!(row("sent"), "13000");
    assert_eq!(row("unique"), "10000");
    assert_eq!(row("forwarded"), "10000");
    assert_eq!(row("kill -9 survived"), "2");
    assert_eq!(row("audit"), "passed");
}

#[test]
fn a_demo_that_is_killed_takes_its_broker_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = demo(dir.path(), &[]).stderr(Stdio::null()).spawn().unwrap();
    let broker = broker_address(dir.path(), &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(broker).is_ok() {
        assert!(
            Instant::now() < deadline,
            "the broker at {broker} outlives the demo"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_demo_that_is_interrupted_ends_with_130_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = demo(dir.path(), &[])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let broker = broker_address(dir.path(), &mut child);
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: kill takes two plain integers; the child has not been waited for, so the id is its.
    unsafe { libc::kill(pid, libc::SIGINT) };
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("nothing is left running"), "{said}");
    assert!(TcpStream::connect(broker).is_err(), "the broker is");
}

/// Waits until the demo has configured the service, which it does when the broker is up.
fn broker_address(dir: &Path, demo: &mut Child) -> SocketAddr {
    loop {
        let config = std::fs::read_to_string(dir.join("kafka-dedup.yaml")).unwrap_or_default();
        let named = config.split("bootstrap_servers: \"").nth(1);
        if let Some(address) = named.and_then(|rest| rest.split('"').next()) {
            return address.parse().unwrap();
        }
        assert!(
            demo.try_wait().unwrap().is_none(),
            "the demo ended before its broker was up"
        );
        thread::sleep(Duration::from_millis(50));
    }
}
