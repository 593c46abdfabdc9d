//! Counts rounds, keeps their time, and writes down what was done.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use serde::{Deserialize, Serialize};

use crate::kit::Dice;

/// One kind of fault.
pub struct Fault {
    pub name: &'static str,
    /// What is done, in a sentence.
    pub what: &'static str,
    /// Rounds of the short and of the long form.
    pub rounds: (u64, u64),
    pub inject: fn(&mut Rounds),
}

/// The rounds of one fault: `while let Some(round) = rounds.next()`.
pub struct Rounds {
    pub dice: Dice,
    pub seed: u64,
    name: &'static str,
    of: u64,
    done: u64,
    /// Records that were judged and compared.
    records: u64,
    until: Option<Instant>,
}

impl Rounds {
    /// The number of the next round, from 0; `None` when all are done, or the time is up.
    pub fn next(&mut self) -> Option<u64> {
        let late = self.until.is_some_and(|until| Instant::now() > until);
        (self.done < self.of && !late).then(|| {
            self.done += 1;
            self.done - 1
        })
    }

    /// Notes what a round compared.
    pub fn compared(&mut self, records: u64) {
        self.records += records;
        if self.done.is_multiple_of(20) {
            eprintln!(
                "{}: round {} of {}, {} records compared",
                self.name, self.done, self.of, self.records
            );
        }
    }
}

/// Runs the faults that the command line asks for, three at a time unless told otherwise: most of a
/// round is waiting.
pub fn run(faults: &'static [Fault]) {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(3);
    let trials = faults
        .iter()
        .map(|fault| {
            Trial::test(fault.name, move || {
                inject(fault);
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn inject(fault: &'static Fault) {
    let long = std::env::var("KAFKA_DEDUP_FAULTS").is_ok_and(|form| form == "long");
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let minutes = number("KAFKA_DEDUP_FAULTS_MINUTES");
    let seed = number("KAFKA_DEDUP_FAULTS_SEED").unwrap_or(if long {
        u64::from(std::process::id()) * 2_654_435_761
    } else {
        2026
    });
    let path = results().join(format!("{}.json", fault.name));
    // A fault that fails leaves none of an earlier run.
    let _ = fs::remove_file(&path);
    let started = Instant::now();
    let mut rounds = Rounds {
        // Of seed 0 the dice would always show 0.
        dice: Dice(seed | 1),
        seed,
        name: fault.name,
        of: if long { fault.rounds.1 } else { fault.rounds.0 },
        done: 0,
        records: 0,
        until: minutes.map(|minutes| started + Duration::from_secs(60 * minutes)),
    };
    eprintln!("{}: {} rounds, seed {seed}", fault.name, rounds.of);
    (fault.inject)(&mut rounds);
    assert!(rounds.records > 0, "nothing was compared");
    let outcome = Outcome {
        fault: fault.name.to_owned(),
        rounds: rounds.done,
        records: rounds.records,
        seconds: started.elapsed().as_secs(),
        form: if long { "long" } else { "short" }.to_owned(),
        seed,
    };
    fs::create_dir_all(results()).expect("a directory for results");
    let text = serde_json::to_string_pretty(&outcome).expect("JSON");
    fs::write(path, text + "\n").expect("the result is written");
}

/// What a fault did, for the table of docs/guarantees.md.
#[derive(Serialize, Deserialize)]
pub struct Outcome {
    pub fault: String,
    pub rounds: u64,
    pub records: u64,
    pub seconds: u64,
    pub form: String,
    pub seed: u64,
}

pub fn results() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/fault-results")
}
