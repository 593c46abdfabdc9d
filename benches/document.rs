//! A page of the docs from the results: what stands between its markers, and its plots.

// Three programs have this file, two of them from another directory.
#[path = "document/plot.rs"]
mod plot;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::results::{Figure, OURS, Reach, last_runs, number};
use plot::{Plot, Scale};

struct Drawing {
    /// Its name, without an extension.
    file: &'static str,
    question: &'static str,
    /// What is drawn of it.
    unit: &'static str,
    cases: Cases,
    title: &'static str,
    scale: Scale,
}

enum Cases {
    All,
    First,
    /// All of them, and of the sides these alone.
    Of(&'static [&'static str]),
}

const GROWTH_BESIDE: Cases = Cases::Of(&[OURS, "pass-through", "Kafka Streams, 1 thread"]);

const DRAWINGS: [Drawing; 10] = [
    Drawing {
        file: "filter",
        question: "filter",
        unit: "ns a check",
        cases: Cases::All,
        title: "An id that was not seen: ns until all slices have said no",
        scale: Scale::Log,
    },
    Drawing {
        file: "verdict",
        question: "verdict",
        unit: "us CPU an id",
        cases: Cases::All,
        title: "A whole verdict: CPU microseconds",
        scale: Scale::Log,
    },
    Drawing {
        file: "lookup",
        question: "lookup",
        unit: "look-ups/s",
        cases: Cases::All,
        title: "A duplicate in a sealed slice: look-ups a second",
        scale: Scale::Log,
    },
    Drawing {
        file: "growth",
        question: "growth",
        unit: "ns CPU a verdict",
        cases: Cases::All,
        title: "A verdict as the window grows: CPU nanoseconds",
        scale: Scale::Linear,
    },
    Drawing {
        file: "memory",
        question: "memory",
        unit: "MiB",
        cases: Cases::All,
        title: "Memory of the process: MiB",
        scale: Scale::Log,
    },
    Drawing {
        file: "disk",
        question: "disk",
        unit: "B a live id",
        cases: Cases::All,
        title: "Disk: bytes a live id",
        scale: Scale::Log,
    },
    Drawing {
        file: "peers",
        question: "peers",
        unit: "us CPU a record",
        cases: Cases::First,
        title: "The whole job: CPU microseconds a record",
        scale: Scale::Linear,
    },
    Drawing {
        file: "peers-growth",
        question: "peers",
        unit: "us CPU a record",
        cases: GROWTH_BESIDE,
        title: "The whole job, by shape: CPU microseconds a record",
        scale: Scale::Linear,
    },
    Drawing {
        file: "peers-memory",
        question: "peers",
        unit: "MiB at its peak",
        cases: GROWTH_BESIDE,
        title: "The whole job, by shape: MiB at its peak",
        scale: Scale::Linear,
    },
    Drawing {
        file: "peers-latency",
        question: "peers-latency",
        unit: "ms, 99 %",
        cases: Cases::All,
        title: "From the producer to a consumer of committed records: ms, 99 %",
        scale: Scale::Linear,
    },
];

/// Whose tables have a row for each side and a column for each unit: one case has many units.
const WIDE: [&str; 8] = [
    "peers",
    "peers-latency",
    "peers-pinned",
    "watched",
    "scaling-throughput",
    "scaling-process",
    "scaling-rebalance",
    "scaling-standby",
];

/// The tables and plots of these questions in this page, and the machine with `versions` between its markers.
pub fn run(page: &str, questions: &[&str], machine_marker: &str, versions: &str) {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs");
    let path = docs.join(page);
    let mut text = fs::read_to_string(&path).expect("the page");
    let mut results = last_runs();
    results.retain(|question, _| questions.contains(&question.as_str()));
    replace(&mut text, machine_marker, &machine(versions));
    for (question, figures) in &results {
        let body = if WIDE.contains(&question.as_str()) {
            wide_table(figures)
        } else {
            table(figures)
        };
        replace(&mut text, question, &body);
    }
    fs::write(&path, text).expect("the page is written");
    let plots = docs.join("benchmarks");
    fs::create_dir_all(&plots).expect("a directory for plots");
    for drawing in DRAWINGS {
        let figures = results.get(drawing.question).into_iter().flatten();
        let mut chosen: Vec<&Figure> = figures
            .filter(|figure| figure.unit == drawing.unit)
            .collect();
        match drawing.cases {
            Cases::All => {}
            Cases::First => {
                let first = chosen.first().map(|figure| figure.case.clone());
                chosen.retain(|figure| Some(&figure.case) == first.as_ref());
            }
            Cases::Of(sides) => chosen.retain(|figure| sides.contains(&figure.side.as_str())),
        }
        if !chosen.is_empty() {
            let svg = Plot::new(drawing.title, drawing.scale, &chosen).svg();
            let path = plots.join(format!("{}.svg", drawing.file));
            fs::write(path, svg).expect("a plot is written");
        }
    }
    println!("docs/{page}: {} questions", results.len());
}

/// What stands between the markers of this name becomes `body`.
fn replace(text: &mut String, name: &str, body: &str) {
    let (begin, end) = (
        format!("<!-- {name}: begin -->\n"),
        format!("<!-- {name}: end -->"),
    );
    let found = text
        .find(&begin)
        .map(|at| at + begin.len())
        .and_then(|from| Some((from, from + text[from..].find(&end)?)));
    let (from, to) = found.unwrap_or_else(|| panic!("the page has no place for {name}"));
    text.replace_range(from..to, body);
}

fn worthless(figures: &[Figure]) -> &'static str {
    let is_of_worth = |figure: &Figure| figure.heavy && figure.optimized;
    if figures.iter().all(is_of_worth) {
        ""
    } else {
        "**Of a run at small size or without optimizations: of no worth.**\n\n"
    }
}

/// A table for each case: sides down, units across; medians, and the spread where there is one.
fn wide_table(figures: &[Figure]) -> String {
    let mut out = worthless(figures).to_owned();
    for of_case in figures.chunk_by(|a, b| a.case == b.case) {
        let units: Vec<&[Figure]> = of_case.chunk_by(|a, b| a.unit == b.unit).collect();
        let rounds = match of_case[0].rounds {
            1 => "1 round".to_owned(),
            more => format!("{more} rounds"),
        };
        let _ = write!(out, "{} ({rounds})\n\n| |", of_case[0].case);
        for unit in &units {
            let _ = write!(out, " {} |", unit[0].unit);
        }
        let _ = writeln!(out, " |\n|---|{}---|", "---:|".repeat(units.len()));
        for (at, side) in units[0].iter().enumerate() {
            let _ = write!(out, "| {} |", side.side);
            for unit in &units {
                let _ = write!(out, " {} |", with_spread(&unit[at]));
            }
            let _ = writeln!(out, " {} |", side.note);
        }
        out.push('\n');
    }
    out
}

fn with_spread(figure: &Figure) -> String {
    let [least, median, most] = [figure.least, figure.median, figure.most].map(number);
    if least == most {
        median
    } else {
        format!("{median} ({least} to {most})")
    }
}

fn table(figures: &[Figure]) -> String {
    let mut out = worthless(figures).to_owned();
    out.push_str("| case | | median | least to most | rounds | reach | |\n");
    out.push_str("|---|---|---:|---:|---:|---|---|\n");
    let mut before = "";
    for figure in figures {
        let case = format!("{} ({})", figure.case, figure.unit);
        let shown = if figure.case == before { "" } else { &case };
        before = &figure.case;
        let _ = writeln!(
            out,
            "| {shown} | {} | {} | {} to {} | {} | {} | {} |",
            figure.side,
            number(figure.median),
            number(figure.least),
            number(figure.most),
            figure.rounds,
            reach(figure),
            figure.note
        );
    }
    out
}

fn reach(figure: &Figure) -> String {
    let Some(reach) = figure.reach else {
        return String::new();
    };
    let (sign, bound) = match reach {
        Reach::AtMost(most) => ("≤", most),
        Reach::AtLeast(least) => ("≥", least),
    };
    let factor = match reach {
        Reach::AtMost(_) => bound / figure.median,
        Reach::AtLeast(_) => figure.median / bound,
    };
    if reach.is_met(figure.median) {
        format!(
            "{sign} {}: met {} times over",
            number(bound),
            number(factor)
        )
    } else {
        format!(
            "{sign} {}: **missed by a factor of {}**",
            number(bound),
            number(1.0 / factor)
        )
    }
}

/// The machine in general words, and the versions of all that was measured.
fn machine(others: &str) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split(':').nth(1));
        value.unwrap_or("?").trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field(&meminfo, "MemTotal");
    let memory: f64 = memory
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0.0);
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map_or_else(
        |_| "?".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    format!(
        "{cores} cores of an {} (model {}), {:.0} GB of memory, Linux; {}; {}; {}.\n",
        field(&cpuinfo, "model name"),
        field(&cpuinfo, "model\t"),
        memory * 1024.0 / 1e9,
        versions_of(&["kafka-dedup"]),
        rustc.split(" (").next().unwrap_or("?"),
        others
    )
}

/// Of these packages, as the lock file has them.
pub fn versions_of(names: &[&str]) -> String {
    let locked = locked();
    let version = |name: &&str| format!("{name} {}", locked.get(*name).map_or("?", String::as_str));
    names.iter().map(version).collect::<Vec<_>>().join(", ")
}

fn locked() -> BTreeMap<String, String> {
    let lock = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let text = fs::read_to_string(lock).unwrap_or_default();
    let quoted = |line: &str, key: &str| {
        let rest = line.strip_prefix(key)?.strip_prefix(" = \"")?;
        rest.strip_suffix('"').map(str::to_owned)
    };
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .filter_map(|pair| Some((quoted(pair[0], "name")?, quoted(pair[1], "version")?)))
        .collect()
}
