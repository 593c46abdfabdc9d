//! Quix Streams, installed with pip into a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = include_str!("quix/requirements.txt");

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers-quix")
}

pub fn python() -> PathBuf {
    dir().join("bin/python")
}

pub fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/quix/dedup.py")
}

/// `quixstreams 3.28.1`, as it is pinned.
pub fn version() -> String {
    let pinned = REQUIREMENTS
        .lines()
        .find(|line| line.starts_with("quixstreams"));
    pinned.unwrap_or("quixstreams==?").replace("==", " ")
}

/// Installs it, where that was not done for these requirements.
pub fn install() {
    let installed = dir().join("installed");
    if fs::read_to_string(&installed).is_ok_and(|what| what == REQUIREMENTS) {
        return;
    }
    println!("installing Quix Streams with pip (the first time it fetches 40 MB)");
    let _ = fs::remove_dir_all(dir());
    run(Command::new("python3").args(["-m", "venv"]).arg(dir()));
    let requirements = program().with_file_name("requirements.txt");
    run(Command::new(python())
        .args(["-m", "pip", "install", "--quiet", "--requirement"])
        .arg(requirements));
    fs::write(installed, REQUIREMENTS).expect("a note of what is installed");
}

fn run(command: &mut Command) {
    let hint = "it needs Python 3.9 or newer with venv (bash .ci/deps python3 venv) and PyPI";
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; {hint}"));
    assert!(
        output.status.success(),
        "{command:?} failed; {hint}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
