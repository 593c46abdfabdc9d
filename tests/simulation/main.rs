//! A deterministic simulation of the protocol: workers, their crashes, the network, and a broker that
//! is a model. It checks the invariants I1 to I7 at every step, and that the system comes to its end
//! once faults stop. It touches no Kafka, no clock, and no file.
//!
//! - [`broker`]: logs with transactions, the transaction coordinator, the group coordinator.
//! - [`world`]: processes and their workers, step by step as in `src/`, the network, all faults.
//! - [`seen`]: the seen set: the crate's own, or a plain one that can be copied.
//! - [`truth`]: the checks. They trust the reference model and what the broker holds, nothing else.
//! - [`explore`]: random schedules from a seed. - [`exhaustive`]: every schedule of a small world.
//!
//! `KAFKA_DEDUP_SIMULATION_SEED=n` replays one schedule; `KAFKA_DEDUP_SIMULATION_CASES=n` is how many
//! the random exploration goes through (the long form: a million, in a release build).

mod broker;
mod exhaustive;
mod explore;
#[path = "../model/mod.rs"]
mod model;
mod seen;
mod truth;
mod world;

use world::Bug;

/// Schedules of the short form.
const CASES: u64 = 3_000;
/// A defect must be found within so many.
const CASES_FOR_A_BUG: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

#[test]
fn no_schedule_breaks_an_invariant() {
    let seeds = match number("KAFKA_DEDUP_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KAFKA_DEDUP_SIMULATION_CASES").unwrap_or(CASES),
    };
    let (mut schedules, mut steps) = (0_u64, 0_usize);
    for seed in seeds {
        match explore::explore(seed, None) {
            Ok(taken) => steps += taken,
            Err(found) => panic!("seed {seed}: {found}"),
        }
        schedules += 1;
    }
    println!("{schedules} schedules, {steps} steps before faults end");
}

#[test]
fn every_deliberate_bug_is_found() {
    let mut survivors = Vec::new();
    for bug in Bug::ALL {
        let found = (0..CASES_FOR_A_BUG).find_map(|seed| explore::explore(seed, Some(bug)).err());
        match found {
            Some(found) => println!(
                "{bug:?}: seed {}, {} actions: {}",
                found.seed,
                found.actions.len(),
                found.why
            ),
            None => survivors.push(bug),
        }
    }
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}

#[test]
fn a_small_world_is_explored_whole() {
    // The long form: minutes, and memory by the gigabyte.
    let long = number("KAFKA_DEDUP_SIMULATION_CASES").is_some_and(|cases| cases > 100_000);
    let worlds: &[_] = if long {
        &[(3, 0, 3), (2, 1, 1), (3, 1, 1), (2, 1, 2)]
    } else {
        &[(3, 0, 3), (2, 1, 1)]
    };
    for &(records, faults, transactions) in worlds {
        let started = std::time::Instant::now();
        let small = exhaustive::Small {
            bug: None,
            faults,
            records,
            transactions,
        };
        let (states, found) = exhaustive::explore(small);
        println!(
            "{records} records, {faults} faults: {states} states, {:?}",
            started.elapsed()
        );
        assert!(found.is_none(), "{}", found.unwrap_or_default());
    }
}

#[test]
fn a_small_world_shows_bugs_too() {
    for bug in [
        Bug::ProducerKeptAfterUnknownCommit,
        Bug::RestoreToLastStableOffset,
        Bug::UnstableOffset,
    ] {
        let small = exhaustive::Small {
            bug: Some(bug),
            faults: 1,
            records: 2,
            transactions: 2,
        };
        let (states, found) = exhaustive::explore(small);
        let found = found.unwrap_or_else(|| panic!("{bug:?} was not found in {states} states"));
        println!("{bug:?}, after {states} states: {found}");
    }
}
