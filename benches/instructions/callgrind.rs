//! This program under valgrind's callgrind, and what that has counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::hot_path::COUNTED;

/// What a stretch took.
#[derive(Debug)]
pub struct Count {
    pub stretch: String,
    /// Records, ids or transactions that it dealt with.
    pub times: u64,
    pub instructions: u64,
}

/// Runs a child of this program, and gives what its stretches took, in their order. What callgrind wrote is left in
/// `target/callgrind`: `callgrind_annotate` shows where the instructions are.
pub fn count(child: &str) -> Vec<Count> {
    let this = std::env::current_exe().expect("this program");
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("target/callgrind")
        .join(child);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory");
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--zero-before={COUNTED}"))
        .arg(format!("--dump-after={COUNTED}"))
        .args([
            "--separate-threads=yes",
            "--compress-strings=no",
            "--compress-pos=no",
        ])
        .arg(format!(
            "--callgrind-out-file={}",
            dir.join("counts").display()
        ))
        .arg(&this)
        .args(["child", child])
        .arg(&dir)
        // The allocator does nothing by the clock, and this thread shares no memory with others.
        .env(
            "MALLOC_CONF",
            "background_thread:false,narenas:64,dirty_decay_ms:-1,muzzy_decay_ms:-1",
        )
        .output()
        .expect("valgrind, which `bash .ci/deps valgrind` installs");
    assert!(
        output.status.success(),
        "valgrind: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let told = String::from_utf8_lossy(&output.stdout);
    let mut counts: Vec<Count> = Vec::new();
    for (at, line) in told.lines().enumerate() {
        let (times, stretch) = line.split_once(' ').expect("times and a stretch");
        let times: u64 = times.parse().expect("times");
        // Of the first thread, numbered from 1.
        let written = dir.join(format!("counts.{}-01", at + 1));
        let text = fs::read_to_string(&written).expect("what callgrind wrote");
        let instructions = own(&text, &this);
        match counts.iter_mut().find(|it| it.stretch == stretch) {
            Some(count) => {
                count.times += times;
                count.instructions += instructions;
            }
            None => counts.push(Count {
                stretch: stretch.to_owned(),
                times,
                instructions,
            }),
        }
    }
    counts
}

/// Instructions of the program itself. Those of the C library (nearly all of them copy or compare bytes) are left out: it
/// takes other ones on another processor, and in another version.
fn own(text: &str, program: &Path) -> u64 {
    let program = program.to_str().expect("a path");
    let mut sum = 0;
    let mut is_own = false;
    let mut is_of_a_call = false;
    for line in text.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_own = object == program;
        } else if line.starts_with("calls=") {
            // The next line has what was called, which is counted where it is.
            is_of_a_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let instructions = line.split(' ').nth(1).and_then(|it| it.parse().ok());
            let counts = is_own && !is_of_a_call;
            sum += if counts {
                instructions.unwrap_or(0)
            } else {
                0_u64
            };
            is_of_a_call = false;
        }
    }
    assert!(sum > 0, "callgrind has counted nothing");
    sum
}
