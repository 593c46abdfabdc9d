//! What it costs the partitions when members come, go, or are replaced: how long each stands.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::audit;
use crate::cluster::{Broker, Progress};
use crate::feeder::Feeder;
use crate::group::{DEFAULTS, Setup, group_on, owned, stop, wait_until_shared};
use crate::kit::{Deployment, Instance, now_ms, unique};
use crate::measure::Samples;
use crate::pauses::{Commits, Pauses, Stretch};
use crate::results::{self, Case, Reach, Size};
use crate::shape::Sent;
use crate::throughput::until;

/// Records with a new id that come to each partition in a second.
pub const PER_SECOND: u32 = 5;
/// How long the partitions of a member that is replaced may stand.
const REACH: Reach = Reach::AtMost(1000.0);

/// A group while records come.
pub struct Scene<'a> {
    pub broker: &'a Broker,
    pub group: Deployment,
    pub setup: Setup,
    pub members: Vec<Instance>,
    pub feeder: Feeder,
}

/// Partitions of which something is told, and when.
pub struct Told {
    pub what: &'static str,
    pub partitions: BTreeSet<i32>,
    pub stretch: Stretch,
}

impl<'a> Scene<'a> {
    /// On an input that is there, in which `earlier` has been written.
    pub fn on(
        broker: &'a Broker,
        input: &str,
        partitions: i32,
        setup: Setup,
        names: &[&str],
        earlier: Sent,
    ) -> Self {
        let kafka = &broker.kafka;
        let group = group_on(kafka, input, partitions, setup);
        let mut members: Vec<Instance> = names.iter().map(|name| group.start(name)).collect();
        wait_until_shared(&mut members, setup, partitions);
        let progress = Progress::of(kafka, &group.group, input, partitions);
        until(&progress, earlier.records, &mut members);
        let feeder = Feeder::start(kafka, input, partitions, PER_SECOND);
        // Records were long in coming to each partition.
        thread::sleep(Duration::from_secs(1));
        Self {
            broker,
            group,
            setup,
            members,
            feeder,
        }
    }

    pub fn all(&self) -> BTreeSet<i32> {
        (0..self.group.partitions).collect()
    }

    pub fn wait_until_shared(&mut self) {
        wait_until_shared(&mut self.members, self.setup, self.group.partitions);
    }

    /// Nothing happens but that records come.
    pub fn quiet(&self, how_long: Duration) -> Stretch {
        let from_ms = now_ms();
        thread::sleep(how_long);
        Stretch {
            from_ms,
            to_ms: now_ms(),
        }
    }

    /// Something happens; and a second more, in which all partitions have come again.
    pub fn while_it(&mut self, happens: impl FnOnce(&mut Self)) -> Stretch {
        let from_ms = now_ms();
        happens(self);
        thread::sleep(Duration::from_secs(1));
        Stretch {
            from_ms,
            to_ms: now_ms(),
        }
    }

    /// Another member comes. Gives the partitions that have another owner then.
    pub fn joins(&mut self, name: &str) -> (BTreeSet<i32>, Stretch) {
        let stretch = self.while_it(|scene| {
            let new = scene.group.start(name);
            scene.members.push(new);
            scene.wait_until_shared();
        });
        let new = self.members.last().expect("the new one");
        (owned(new), stretch)
    }

    /// The member that came last leaves. Gives the partitions that it had.
    pub fn leaves(&mut self) -> (BTreeSet<i32>, Stretch) {
        let had = owned(self.members.last().expect("a member"));
        let stretch = self.while_it(|scene| {
            let mut leaving = scene.members.pop().expect("a member");
            stop(&mut leaving);
            scene.wait_until_shared();
        });
        (had, stretch)
    }

    /// Ends it. Its commits, and whether its output is right.
    pub fn end(self, earlier: Sent) -> (Commits, Result<(), String>) {
        let Self {
            broker,
            group,
            mut members,
            feeder,
            ..
        } = self;
        let kafka = &broker.kafka;
        let sent = earlier.plus(feeder.finish());
        let progress = Progress::of(kafka, &group.group, &group.input, group.partitions);
        until(&progress, sent.records, &mut members);
        members.iter_mut().for_each(stop);
        let verdict =
            audit::read(kafka, &group.output, group.partitions, sent.ids).check(sent.ids, &sent);
        let commits = Commits::read(kafka, &group.journal(), group.partitions);
        broker.delete_all_but("");
        (commits, verdict)
    }
}

/// False where an output was not what it is to be.
pub fn measure(broker: &Broker, partitions: i32, size: Size) -> bool {
    results::begin("scaling-rebalance", size);
    let right = join_and_leave(broker, partitions, size);
    results::begin("scaling-rolling", size);
    right & rolling(broker, partitions, size)
}

fn join_and_leave(broker: &Broker, partitions: i32, size: Size) -> bool {
    let input = unique("input");
    broker.kafka.create_topic(&input, partitions, &[]);
    let mut scene = Scene::on(
        broker,
        &input,
        partitions,
        DEFAULTS,
        &["first", "second"],
        Sent::default(),
    );
    let quiet = scene.quiet(size.pick(Duration::from_secs(2), Duration::from_secs(10)));
    let (joined, joins) = scene.joins("third");
    let (left, leaves) = scene.leaves();
    let others = |some: &BTreeSet<i32>| &scene.all() - some;
    let told = [
        Told {
            what: "nothing happens",
            partitions: scene.all(),
            stretch: quiet,
        },
        Told {
            what: "a third joins: the partitions it gets",
            partitions: joined.clone(),
            stretch: joins,
        },
        Told {
            what: "a third joins: the others",
            partitions: others(&joined),
            stretch: joins,
        },
        Told {
            what: "it leaves: the partitions it had",
            partitions: left.clone(),
            stretch: leaves,
        },
        Told {
            what: "it leaves: the others",
            partitions: others(&left),
            stretch: leaves,
        },
    ];
    let (commits, verdict) = scene.end(Sent::default());
    let case = format!(
        "{partitions} partitions, {} records/s, two members",
        partitions.unsigned_abs() * PER_SECOND
    );
    tell(&case, &commits, &told);
    is_right(verdict)
}

/// What a person would say of an output that is wrong is said.
pub fn is_right(verdict: Result<(), String>) -> bool {
    if let Err(wrong) = &verdict {
        println!("  WRONG OUTPUT: {wrong}");
    }
    verdict.is_ok()
}

/// A row for each.
pub fn tell(case: &str, commits: &Commits, told: &[Told]) {
    type Figure = fn(&Pauses) -> f64;
    let figures: [(&'static str, Figure); 3] = [
        ("partitions", |it| it.partitions as f64),
        ("ms from commit to commit, half of them", |it| it.median_ms),
        ("ms, the longest", |it| it.longest_ms),
    ];
    for (unit, figure) in figures {
        let mut of_case = Case::new(case, unit);
        for Told {
            what,
            partitions,
            stretch,
        } in told
        {
            let pauses = commits.pauses(partitions.iter().copied(), *stretch);
            of_case = of_case.side(what, Samples(vec![figure(&pauses)]));
        }
        of_case.tell();
    }
}

/// Three members with names are replaced one after the other, each by one that has its name and store.
fn rolling(broker: &Broker, partitions: i32, size: Size) -> bool {
    let input = unique("input");
    broker.kafka.create_topic(&input, partitions, &[]);
    let setup = Setup {
        static_members: true,
        ..DEFAULTS
    };
    let names = ["pod-0", "pod-1", "pod-2"];
    let mut scene = Scene::on(broker, &input, partitions, setup, &names, Sent::default());
    let quiet = scene.quiet(size.pick(Duration::from_secs(2), Duration::from_secs(10)));
    let mut replaced = Vec::new();
    let (mut to_end, mut to_ready) = (Samples::default(), Samples::default());
    for (turn, name) in names.into_iter().enumerate() {
        let had = owned(&scene.members[turn]);
        let stretch = scene.while_it(|scene| {
            let begun = Instant::now();
            stop(&mut scene.members[turn]);
            to_end.push(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            scene.members[turn] = scene.group.start(name);
            scene.wait_until_shared();
            to_ready.push(begun.elapsed().as_secs_f64());
        });
        assert_eq!(
            owned(&scene.members[turn]),
            had,
            "{name} has its partitions"
        );
        replaced.push((had, stretch));
    }
    let all = scene.all();
    let (commits, verdict) = scene.end(Sent::default());
    let longest = |partitions: &BTreeSet<i32>, stretch: Stretch| {
        let pauses = commits.pauses(partitions.iter().copied(), stretch);
        pauses.longest_ms
    };
    let median = |partitions: &BTreeSet<i32>, stretch: Stretch| {
        let pauses = commits.pauses(partitions.iter().copied(), stretch);
        pauses.median_ms
    };
    let of = |figure: &dyn Fn(&BTreeSet<i32>, Stretch) -> f64, own: bool| {
        let of_turn = replaced.iter().map(|(had, stretch)| match own {
            true => figure(had, *stretch),
            false => figure(&(&all - had), *stretch),
        });
        Samples(of_turn.collect())
    };
    let quiet = Samples(vec![longest(&all, quiet)]);
    let case = |what: &str| format!("three members of {partitions} partitions replaced, {what}");
    Case::new(case("the longest from commit to commit"), "ms")
        .side_with(
            "partitions of the member",
            of(&longest, true),
            Some(REACH),
            "",
        )
        .side("partitions of the others", of(&longest, false))
        .side("nothing happens", quiet)
        .tell();
    Case::new(case("half of the partitions"), "ms")
        .side("partitions of the member", of(&median, true))
        .side("partitions of the others", of(&median, false))
        .tell();
    Case::new(case("where the time goes"), "s")
        .side("from SIGTERM to its end", to_end)
        .side("from its start until all is restored", to_ready)
        .tell();
    is_right(verdict)
}
