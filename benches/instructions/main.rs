//! How many instructions the hot path takes, stretch by stretch: a guard against losses that a clock on a shared machine
//! does not show. This program runs itself under callgrind, which counts the same whatever else the machine does.
//!
//! ```text
//! make instructions            counts, and compares with the table of docs/benchmarks.md: fails where more are needed
//! make instructions-write      counts, and writes that table
//! ```
//!
//! The table is the reference: whoever makes the hot path cheaper or dearer writes it anew, and the change shows what for.
//! Each run proves first that it would notice: it counts the shortest stretch with a tenth more work, which has to be refused.

mod callgrind;
mod hot_path;
#[allow(dead_code, reason = "the questions need more of it")]
#[path = "../stream.rs"]
mod stream;
mod table;

use std::process::ExitCode;

use table::{Table, judged};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["child", "whole", dir] => hot_path::walk(dir.as_ref()),
        ["child", "with-a-loss", _] => hot_path::begin_with_a_loss(),
        ["write"] => Table::of(&callgrind::count("whole")).write(),
        [] => return compare(),
        _ => {
            eprintln!("usage: instructions [write]");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

fn compare() -> ExitCode {
    if !cfg!(target_arch = "x86_64") {
        println!(
            "the counts of docs/benchmarks.md are of x86-64: there is nothing to compare with"
        );
        return ExitCode::SUCCESS;
    }
    let reference = Table::read();
    let counted = Table::of(&callgrind::count("whole"));
    let lossy = Table::of(&callgrind::count("with-a-loss"));
    let noticed = judged(&lossy, &counted).next();
    assert!(
        noticed.is_some_and(|it| it.is_loss()),
        "{lossy:?} is a tenth more than {counted:?}, and was not refused"
    );
    let mut lost = false;
    println!("instructions, beside those of docs/benchmarks.md (a loss of a tenth was refused)");
    for judgement in judged(&counted, &reference) {
        println!("  {judgement}");
        lost |= judgement.is_loss();
    }
    match lost {
        true => {
            eprintln!(
                "the hot path takes more instructions than docs/benchmarks.md says. If it has to, say why and write them \
                 down: make instructions-write"
            );
            ExitCode::FAILURE
        }
        false => ExitCode::SUCCESS,
    }
}
