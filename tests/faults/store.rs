//! What the local store holds is spoiled between two starts: it is a cache, so nothing may follow.

use proptest::arbitrary::any;
use proptest::sample::Index;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::campaign::Rounds;
use crate::rig::{Plan, Rig};
use crate::spoil::{Spoiler, Spoils, copy};

pub fn spoiled(rounds: &mut Rounds) {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&rounds.seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut index = || {
        let drawn = any::<Index>().new_tree(&mut runner).expect("an index");
        drawn.current()
    };

    let mut rig = Rig::of(Plan::new("spoiled", rounds.seed));
    let store = rig.deployment.dir.path().join("store-one");
    let mut spoiler = Spoiler::new(&store);
    let stranger = strangers_store(rounds);

    let mut instance = rig.deployment.start("one");
    let mut set_aside = 0.0;
    while let Some(round) = rounds.next() {
        rig.flow();
        rig.let_flow(300);
        if rounds.dice.roll(2) == 0 {
            instance.kill();
        } else {
            assert!(instance.terminate().success(), "{}", instance.log_tail());
        }
        let spoils = match round % 8 {
            0 => Spoils::Flip(index(), index(), (round % 7) as u8),
            1 => Spoils::Zero(index(), index()),
            2 => Spoils::Truncate(index(), index()),
            3 => Spoils::LoseFile(index()),
            4 => Spoils::Backup,
            5 => Spoils::BackupOfOne(index()),
            6 => Spoils::Lose,
            _ => Spoils::LoseSlice(index()),
        };
        if round % 24 == 22 {
            std::fs::remove_dir_all(&store).expect("removed");
            copy(stranger.path(), &store);
        } else {
            // It takes a backup where there is none.
            spoiler.spoil(&spoils);
        }
        instance = rig.deployment.start("one");
        let tally = rig.settle(&mut [&mut instance]);
        set_aside += instance.metric("kafka_dedup_store_set_aside_total");
        rounds.compared(tally.received);
    }
    assert!(set_aside > 0.0, "damage was found");
    assert!(instance.terminate().success(), "{}", instance.log_tail());
}

/// The store of a deployment with a topic of its own.
fn strangers_store(rounds: &Rounds) -> tempfile::TempDir {
    let mut rig = Rig::of(Plan::new("stranger", rounds.seed));
    let mut instance = rig.deployment.start("one");
    rig.flow();
    rig.let_flow(1_000);
    rig.settle(&mut [&mut instance]);
    assert!(instance.terminate().success(), "{}", instance.log_tail());
    let kept = tempfile::tempdir().expect("a directory");
    copy(&rig.deployment.dir.path().join("store-one"), kept.path());
    kept
}
