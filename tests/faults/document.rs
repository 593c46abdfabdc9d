//! The table of docs/guarantees.md, from what the last run of every fault wrote down.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::campaign::{Fault, Outcome, results};

const BEGIN: &str = "<!-- campaign: begin -->\n";
const END: &str = "<!-- campaign: end -->";

/// Panics where a fault has no result of the long form: the table would claim too much.
pub fn write(faults: &[Fault]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/guarantees.md");
    let mut text = fs::read_to_string(&path).expect("docs/guarantees.md");
    let from = text.find(BEGIN).expect("a place for the table") + BEGIN.len();
    let to = from + text[from..].find(END).expect("the table's end");
    text.replace_range(from..to, &table(faults));
    fs::write(&path, text).expect("docs/guarantees.md is written");
}

fn table(faults: &[Fault]) -> String {
    let mut out = String::from(
        "| fault | rounds | records compared | minutes | seed |\n|---|---:|---:|---:|---:|\n",
    );
    let (mut rounds, mut records) = (0, 0);
    for fault in faults {
        let path = results().join(format!("{}.json", fault.name));
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: run make faults", path.display()));
        let outcome: Outcome = serde_json::from_str(&text).expect("a result");
        assert_eq!(outcome.form, "long", "{}: run make faults", fault.name);
        rounds += outcome.rounds;
        records += outcome.records;
        let _ = writeln!(
            out,
            "| **{}**: {} | {} | {} | {} | {} |",
            fault.name,
            fault.what,
            outcome.rounds,
            outcome.records,
            outcome.seconds.div_ceil(60),
            outcome.seed
        );
    }
    let _ = writeln!(out, "| all | {rounds} | {records} | | |");
    out
}
