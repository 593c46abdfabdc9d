//! Every schedule of a small world: two workers, one partition, three records of which one is repeated,
//! and a few faults. The plain seen set is used, because states are copied and compared.
//!
//! Each state is checked for what [`crate::world`] finds wrong. That a state without a next step has
//! all input committed is checked too: nothing gets stuck for good.

use std::hash::{Hash, Hasher};

use kafka_dedup::config::Window;
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::broker::Bytes;
use crate::seen::Plain;
use crate::truth::Input;
use crate::world::{Action, Bug, Fate, Settings, World};

impl PartialEq for World<Plain> {
    /// As the checker tells states apart: by a hash of all that they hold.
    fn eq(&self, other: &Self) -> bool {
        let hash = |world: &Self| {
            let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
            world.hash(&mut hasher);
            hasher.finish()
        };
        hash(self) == hash(other)
    }
}

impl std::fmt::Debug for World<Plain> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.violation)
    }
}

/// What may happen in the small world.
pub struct Small {
    pub bug: Option<Bug>,
    /// Faults in one schedule.
    pub faults: u8,
    pub records: usize,
    /// Transactions of one producer.
    pub transactions: u16,
}

impl Small {
    fn world(&self) -> World<Plain> {
        let settings = Settings {
            limits: Window {
                time_ms: Some(100),
                ids: None,
                refresh: false,
                max_ahead_ms: 1_000,
            },
            instances: vec![0, 1],
            partitions: 1,
            cooperative: false,
            static_membership: false,
            latest: false,
            retention: false,
            max_ids_per_run: 100,
            bug: self.bug,
        };
        let ids = [0, 0, 1, 0];
        let record = |(at, id): (usize, &u8)| Input {
            offset: at as i64 + 1,
            id: Some(*id),
            timestamp_ms: Some(1_000 + at as i64),
            bytes: Bytes::from(vec![at as u8]),
            refused: false,
        };
        let records = ids.iter().take(self.records).enumerate().map(record);
        let mut world = World::new(settings, vec![records.collect()]);
        for _ in 0..self.records {
            world.step(Action::Append);
        }
        // Both have joined, and the first is the owner.
        for slot in [0, 1] {
            world.step(Action::Restart(slot));
            world.step(Action::TakeOver(slot, Fate::Answered));
            world.step(Action::Heartbeat(slot));
        }
        world.step(Action::Heartbeat(0));
        world.step(Action::CompleteRebalance(0));
        world.step(Action::Heartbeat(0));
        world.step(Action::Heartbeat(1));
        world.take_local_steps();
        world.budget = self.faults;
        world
    }
}

/// The faults of the small world.
fn is_small(fault: Action) -> bool {
    use Fate::{AnswerLost, Late, Refused};
    matches!(
        fault,
        Action::SendOffsets(_, AnswerLost | Late | Refused)
            | Action::Commit(_, AnswerLost | Late)
            | Action::Abort(_, Late)
            | Action::Crash(_)
            | Action::TimeOut(_)
            | Action::ExpireSession(_)
    )
}

impl Model for Small {
    type State = World<Plain>;
    type Action = (Action, bool);

    fn init_states(&self) -> Vec<Self::State> {
        vec![self.world()]
    }

    fn actions(&self, world: &Self::State, actions: &mut Vec<Self::Action>) {
        if world.violation.is_some() {
            return;
        }
        let progress = world.progress();
        actions.extend(progress.iter().map(|action| (*action, false)));
        if !world.is_done() || progress.is_empty() {
            let returns = world.returns().into_iter();
            actions.extend(returns.map(|action| (action, false)));
        }
        if world.budget > 0 {
            let faults = world.faults().into_iter().filter(|fault| is_small(*fault));
            actions.extend(faults.map(|fault| (fault, true)));
        } else {
            // What belongs to nobody any more ends by itself.
            let ends = world.overdue().into_iter();
            actions.extend(ends.map(|action| (action, false)));
        }
    }

    fn next_state(
        &self,
        world: &Self::State,
        (action, fault): Self::Action,
    ) -> Option<Self::State> {
        let mut next = world.clone();
        next.step(action);
        next.take_local_steps();
        // A member that does not hear that it is none any more aborts and judges again for ever.
        if next
            .broker
            .transactions
            .values()
            .any(|t| t.serial > self.transactions)
        {
            return None;
        }
        if fault {
            next.budget -= 1;
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1 to I7", |_, world: &World<Plain>| {
                world.violation.is_none()
            }),
            Property::always("nothing is stuck", |model: &Self, world: &World<Plain>| {
                let mut actions = Vec::new();
                model.actions(world, &mut actions);
                !actions.is_empty() || world.is_done() || world.violation.is_some()
            }),
            Property::sometimes("all input is committed", |_, world: &World<Plain>| {
                world.is_done()
            }),
        ]
    }
}

/// Explores all of it; gives the number of states, and what was found.
pub fn explore(small: Small) -> (usize, Option<String>) {
    let checker = small
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = ["I1 to I7", "nothing is stuck"]
        .into_iter()
        .find_map(|property| {
            let path = checker.discovery(property)?;
            let why = path.last_state().violation.clone();
            let steps: Vec<String> = path
                .into_actions()
                .iter()
                .map(|(action, _)| format!("  {action:?}"))
                .collect();
            Some(format!(
                "{property}: {}\n{}",
                why.unwrap_or_default(),
                steps.join("\n")
            ))
        });
    let complete = checker.discovery("all input is committed").is_some();
    assert!(complete || found.is_some(), "no schedule comes to its end");
    (checker.unique_state_count(), found)
}
