//! Random schedules: a seed draws a deployment, an input and the faults that may come, then one action
//! after another. What is found is shortened by leaving actions out for as long as it is still found.

use kafka_dedup::config::Window;
use kafka_dedup::window::SeenWindow;

use crate::broker::Bytes;
use crate::seen::Seen;
use crate::truth::{IDS, Input};
use crate::world::{Action, Bug, Settings, World};

/// SplitMix64: the same numbers for a seed, in every build.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// What was found, and how to find it again.
pub struct Found {
    pub seed: u64,
    pub why: String,
    pub settings: Settings,
    pub inputs: Vec<Vec<Input>>,
    pub actions: Vec<Action>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.why)?;
        writeln!(
            f,
            "replay: KAFKA_DEDUP_SIMULATION_SEED={} cargo test --test simulation",
            self.seed
        )?;
        writeln!(f, "{:?}", self.settings)?;
        for record in self.inputs.iter().flatten() {
            writeln!(
                f,
                "  input {} id {:?} at {:?} ms, refused: {}",
                record.offset, record.id, record.timestamp_ms, record.refused
            )?;
        }
        for action in &self.actions {
            writeln!(f, "  {action:?}")?;
        }
        write!(f, "  then all faults end")
    }
}

fn deployment(dice: &mut Dice, bug: Option<Bug>) -> Settings {
    let retention = dice.chance(8);
    let limits = Window {
        time_ms: dice.of(&[None, Some(5), Some(15), Some(40)]),
        ids: dice.of(&[None, None, Some(1), Some(3)]),
        refresh: dice.chance(30),
        max_ahead_ms: 30,
    };
    Settings {
        limits,
        instances: match retention {
            true => vec![0],
            false => dice
                .of(&[&[0][..], &[0, 1], &[0, 1], &[0, 1, 2], &[0, 1, 0]])
                .to_vec(),
        },
        partitions: 1 + dice.below(2),
        cooperative: dice.chance(50),
        static_membership: dice.chance(25),
        latest: dice.chance(10),
        retention,
        max_ids_per_run: dice.of(&[1, 2, 100]),
        bug,
    }
}

fn input(dice: &mut Dice, partition: usize) -> Vec<Input> {
    let (mut offset, mut at) = (0, 1_000_i64);
    (0..2 + dice.below(9))
        .map(|index| {
            offset += dice.of(&[1, 1, 1, 2, 3]);
            at += dice.of(&[0, 0, 1, 2, 5, 6, -4, 15, 16]);
            Input {
                offset,
                id: (!dice.chance(10)).then(|| dice.below(IDS.len()) as u8),
                timestamp_ms: match dice.below(20) {
                    0 => None,
                    1 => Some(at + 1_000),
                    2 => Some(at - 30),
                    _ => Some(at),
                },
                bytes: Bytes::from(format!("{partition}/{index}").into_bytes()),
                refused: dice.chance(4),
            }
        })
        .collect()
}

/// Faults come in kinds, and a seed draws which of them there are: few kinds together go deeper.
fn kind(action: Action) -> usize {
    use crate::world::Fate::{AnswerLost, Late, Refused};
    match action {
        Action::Judge(_, _, AnswerLost) | Action::Prepare(_, AnswerLost) => 0,
        Action::SendOffsets(_, AnswerLost) | Action::Commit(_, AnswerLost) => 1,
        Action::Judge(_, _, Late) | Action::Prepare(_, Late) => 2,
        Action::SendOffsets(_, Late) => 3,
        Action::Commit(_, Late) | Action::Abort(_, Late) => 4,
        Action::Judge(_, _, Refused)
        | Action::Prepare(_, Refused)
        | Action::SendOffsets(_, Refused) => 5,
        Action::Crash(_) => 6,
        Action::Freeze(_) => 7,
        Action::ExpireSession(_) => 8,
        Action::TimeOut(_) => 9,
        Action::Damage(..) | Action::LoseStore(_) => 10,
        Action::Leave(_) | Action::CompleteRebalance(_) => 11,
        _ => 12,
    }
}

/// Whose step it is, where it is a process's.
fn slot(action: Action) -> Option<usize> {
    match action {
        Action::TakeOver(slot, _)
        | Action::HandleRebalance(slot)
        | Action::Judge(slot, ..)
        | Action::Prepare(slot, _)
        | Action::SendOffsets(slot, _)
        | Action::Commit(slot, _)
        | Action::Publish(slot)
        | Action::Abort(slot, _)
        | Action::Activate(slot, _)
        | Action::PinStart(slot)
        | Action::Locate(slot, _)
        | Action::Watermark(slot, _)
        | Action::Read(slot, _)
        | Action::Heartbeat(slot) => Some(slot),
        _ => None,
    }
}

/// Draws one schedule and carries it out, to its quiet end.
fn run<W: Seen>(seed: u64, bug: Option<Bug>) -> (World<W>, Vec<Action>) {
    let mut dice = Dice::new(seed);
    let settings = deployment(&mut dice, bug);
    let inputs = (0..settings.partitions)
        .map(|partition| input(&mut dice, partition))
        .collect();
    let mut world = World::new(settings, inputs);
    let kinds = dice.next() | dice.next();
    let fault = dice.of(&[0, 3, 8, 20]);
    let (back, chore) = (dice.of(&[3, 10, 30]), dice.of(&[0, 5, 15]));
    // How long one process is ahead of the others: those are slow then, not dead.
    let ahead = dice.of(&[0, 70, 95]);
    let mut first = 0;
    let steps = 60 + dice.below(200);
    let mut actions = Vec::new();
    while actions.len() < steps && world.violation.is_none() {
        let roll = dice.below(100);
        let mut choices = match roll {
            _ if roll < fault => world.faults(),
            _ if roll < fault + back => world.returns(),
            _ if roll < fault + back + chore => world.chores(),
            _ => Vec::new(),
        };
        choices.retain(|action| roll >= fault || kinds >> kind(*action) & 1 == 1);
        if roll < fault && !choices.is_empty() {
            // Each kind alike, however many places there are for it.
            let mut there: Vec<usize> = choices.iter().map(|action| kind(*action)).collect();
            there.sort_unstable();
            there.dedup();
            let drawn = dice.of(&there);
            choices.retain(|action| kind(*action) == drawn);
        }
        if choices.is_empty() {
            choices = world.progress();
            if dice.chance(6) {
                first = dice.below(world.settings.instances.len());
            }
            if dice.chance(ahead) && choices.iter().any(|action| slot(*action) == Some(first)) {
                choices.retain(|action| slot(*action).is_none_or(|slot| slot == first));
            }
        }
        if choices.is_empty() {
            choices = world.returns();
        }
        if choices.is_empty() {
            break;
        }
        let action = choices[dice.below(choices.len())];
        world.step(action);
        actions.push(action);
    }
    if world.violation.is_none() {
        world.drain();
    }
    (world, actions)
}

/// The same actions again, as far as they are possible; what is found then.
pub fn replay<W: Seen>(
    settings: &Settings,
    inputs: &[Vec<Input>],
    actions: &[Action],
) -> Option<String> {
    let mut world: World<W> = World::new(settings.clone(), inputs.to_vec());
    for action in actions {
        let possible = [
            world.progress(),
            world.faults(),
            world.returns(),
            world.chores(),
        ];
        if possible.iter().flatten().any(|one| one == action) {
            world.step(*action);
        }
        if world.violation.is_some() {
            return world.violation;
        }
    }
    world.drain();
    world.violation
}

/// Leaves out actions for as long as something is still found.
fn shorten(found: Found) -> Found {
    let mut found = found;
    let mut size = found.actions.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < found.actions.len() {
            let mut fewer = found.actions.clone();
            fewer.drain(at..(at + size).min(fewer.len()));
            match replay::<SeenWindow>(&found.settings, &found.inputs, &fewer) {
                Some(why) => (found.actions, found.why) = (fewer, why),
                None => at += size,
            }
        }
        size /= 2;
    }
    found
}

/// One schedule with the crate's own window; what it finds, shortened.
pub fn explore(seed: u64, bug: Option<Bug>) -> Result<usize, Box<Found>> {
    let (world, actions) = run::<SeenWindow>(seed, bug);
    let steps = actions.len();
    let Some(why) = world.violation else {
        return Ok(steps);
    };
    Err(Box::new(shorten(Found {
        seed,
        why,
        settings: world.settings,
        inputs: world.truth.inputs.to_vec(),
        actions,
    })))
}
