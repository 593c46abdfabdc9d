//! Partitions that share what they have seen, under all that can become of a process and its store. Which of
//! two partitions is read first is not said, so each round has a deployment of its own, and is held against
//! what must be so in any case.

use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::campaign::Rounds;
use crate::kit::kin::{assert_duplicates, assert_each, let_through, let_through_in_any_order};
use crate::kit::stream::Stream;
use crate::kit::{Deployment, Instance, unique, wait_for};
use crate::spoil::{self, Spoiler};

const PATIENCE: Duration = Duration::from_secs(90);
const STEPS: [(&str, u64); 8] = [
    ("restored", 5),
    ("begin", 20),
    ("produced", 20),
    ("drained", 20),
    ("offsets-sent", 20),
    ("committed", 20),
    ("published", 20),
    ("sealed", 6),
];

pub fn disturbed(rounds: &mut Rounds) {
    let mut runner = TestRunner::deterministic();
    while let Some(round) = rounds.next() {
        let kin = Kin::new(round % 3);
        let stream = kin.stream(rounds.seed + round);
        let (step, passes) = STEPS[usize::try_from(rounds.dice.roll(8)).expect("small")];
        let at_step = format!("{}*off->return", rounds.dice.roll(passes));
        let unreadable = format!("{}*off->1*return->off", rounds.dice.roll(400));
        // Whoever is killed at a step has to be at work for that: of a topic, one is.
        let points: &[(&str, &str)] = match round / 3 % 6 {
            1 => &[(step, &at_step)],
            5 => &[("chunk-unreadable", &unreadable)],
            _ => &[],
        };
        let mut two = ["a", "b"].map(|name| kin.it.start_with(name, points));
        std::thread::sleep(Duration::from_millis(1500 + rounds.dice.roll(1500)));
        let victim = usize::try_from(rounds.dice.roll(2)).expect("small");
        match round / 3 % 6 {
            0 => two[victim].end(),
            1 => wait_for("one to die at its step", PATIENCE, || {
                two.iter_mut().any(Instance::has_ended)
            }),
            2 => {
                let status = two[victim].terminate();
                assert!(status.success(), "{}", two[victim].log_tail());
            }
            3 => {
                two[victim].freeze();
                std::thread::sleep(Duration::from_millis(2500 + rounds.dice.roll(2000)));
                two[victim].thaw();
            }
            4 => {
                two[victim].end();
                let spoils = spoil::any()
                    .new_tree(&mut runner)
                    .expect("a value")
                    .current();
                if two[victim].store.exists() {
                    Spoiler::new(&two[victim].store).spoil(&spoils);
                }
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(rounds.dice.roll(1000)));
        for (name, instance) in ["a", "b"].into_iter().zip(&mut two) {
            if instance.has_ended() {
                *instance = kin.it.start(name);
            }
        }
        std::thread::sleep(Duration::from_millis(rounds.dice.roll(1000)));
        let sent = stream.finish();
        kin.assert_once();
        rounds.compared(sent);
        for instance in &two {
            assert!(
                !instance.log_text().contains("panicked"),
                "{}",
                instance.log_tail()
            );
        }
    }
}

struct Kin {
    scope: &'static str,
    it: Deployment,
    inputs: Vec<String>,
}

impl Kin {
    /// One topic that is a scope, by one owner or in two hops; or two whose partitions of one number are.
    fn new(round: u64) -> Self {
        let scope = ["topic", "copartition", "repartition"][usize::try_from(round).expect("small")];
        let mut it = Deployment::new("kin", 3, "transaction: {interval: 30ms, timeout: 10s}\n");
        it.extra += "duplicates: {topic: \"{topic}_dups\"}\n";
        let mut inputs = vec![it.input.clone()];
        it.extra += &format!("scope: {scope}\n");
        if scope == "copartition" {
            let other = unique("kin");
            it.kafka.create_topic(&other, 3, &[]);
            inputs.push(other);
            it.output = unique("joined");
            it.extra += &format!(
                "input: {{topics: {inputs:?}}}\noutput: {{topic: {}}}\n",
                it.output
            );
        }
        Self { scope, it, inputs }
    }

    fn stream(&self, seed: u64) -> Stream {
        let inputs = self.inputs.clone();
        Stream::placed(&self.it.kafka, seed, move |dice, id| {
            let partition = if inputs.len() == 1 {
                dice.roll(3)
            } else {
                id % 3
            };
            let side = dice.roll(inputs.len() as u64);
            (
                inputs[usize::try_from(side).expect("small")].clone(),
                i32::try_from(partition).expect("small"),
            )
        })
    }

    fn assert_once(&self) {
        let inputs: Vec<&str> = self.inputs.iter().map(String::as_str).collect();
        for input in &inputs {
            self.it.wait_until_read(input, PATIENCE);
        }
        let count = match self.scope {
            "repartition" => {
                self.it.wait_until_caught_up(PATIENCE);
                let_through_in_any_order(&self.it)
            }
            _ => let_through(&self.it, &inputs, &self.it.output),
        };
        assert_each(&count, 1);
        let elsewhere = assert_duplicates(&self.it, &inputs, &self.it.output);
        assert!(elsewhere > 0, "the round says nothing of kin");
    }
}
