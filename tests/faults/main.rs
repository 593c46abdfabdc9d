//! The fault campaign: real brokers, the real program, hostile input, and one fault after another
//! while records flow. After every round the outputs are held against the reference model.
//!
//! ```text
//! cargo test --features failpoints,broken --test faults                 the short form, as in CI
//! cargo test --features failpoints,broken --test faults -- kill         some of the faults
//! KAFKA_DEDUP_FAULTS=long ...                                    the long form
//! KAFKA_DEDUP_FAULTS_MINUTES=30 ...                              no fault goes on for longer than this
//! KAFKA_DEDUP_FAULTS_SEED=7 ...                                  other dice than the form's own
//! KAFKA_DEDUP_FAULTS_HOLD=1 ...                                  a difference stops there, with brokers up
//! ```
//!
//! Every fault tells what it did in `target/fault-results/<fault>.json`; with `document` as its only
//! argument the test writes the table of docs/guarantees.md from these.
//!
//! One file a family of faults. [`rig`] is what a round works with, [`campaign`] counts rounds.

mod access;
mod brokers;
mod campaign;
mod clock;
mod disk;
mod document;
mod kills;
mod kin;
mod members;
mod network;
mod proxy;
mod records;
mod rig;
mod store;
mod topics;

#[path = "../kit/mod.rs"]
mod kit;
#[allow(dead_code, reason = "it is another test's broker too")]
#[path = "../kit/secured/mod.rs"]
mod secured;
#[allow(dead_code, reason = "it spoils for other tests too")]
#[path = "../window/spoil.rs"]
mod spoil;

use campaign::Fault;

fn main() {
    if std::env::args().skip(1).eq(["document".to_owned()]) {
        document::write(FAULTS);
    } else {
        campaign::run(FAULTS);
    }
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "kill",
        what: "kill -9 at random, and at each named step of a commit, of sealing, trimming and restoring",
        rounds: (60, 1000),
        inject: kills::killed,
    },
    Fault {
        name: "terminate",
        what: "SIGTERM in mid-transaction",
        rounds: (20, 200),
        inject: kills::terminated,
    },
    Fault {
        name: "freeze",
        what: "SIGSTOP past the session, and past the transaction time-out; takeover; SIGCONT",
        rounds: (10, 100),
        inject: members::frozen,
    },
    Fault {
        name: "twins",
        what: "two processes with the same instance id, and so the same transactional id",
        rounds: (5, 50),
        inject: members::twins,
    },
    Fault {
        name: "rebalance",
        what: "members join, leave and die, partitions are added; cooperative and eager assignors, static members",
        rounds: (30, 500),
        inject: members::rebalanced,
    },
    Fault {
        name: "store",
        what: "the local store: bit flip, zeroed page, truncation, file removed, directory from a backup, directory of another instance, all of it gone",
        rounds: (240, 2400),
        inject: store::spoiled,
    },
    Fault {
        name: "disk",
        what: "the local store's disk: full, full at start, read-only, out of inodes, write errors",
        rounds: (5, 50),
        inject: disk::troubled,
    },
    Fault {
        name: "brokers",
        what: "three brokers: a partition's leader, the transaction coordinator, the group coordinator killed; a freeze past the broker's session; a clean roll; two away",
        rounds: (12, 150),
        inject: brokers::away,
    },
    Fault {
        name: "network",
        what: "the network: cut, black hole both ways and one way, 200 ms delay, 5 % loss; requests and answers of each step of a commit, and of joining the group, lost and late (EndTxn answered late, EndTxn arriving late)",
        rounds: (21, 200),
        inject: network::disturbed,
    },
    Fault {
        name: "access",
        what: "TLS and SCRAM with the least ACLs: each permission taken away and given back, alone and with others; the password changed; the certificate expired, or of another host; while it runs and at its start",
        rounds: (5, 20),
        inject: access::taken_away,
    },
    Fault {
        name: "kin",
        what: "scope: topic, copartition and repartition, two instances: kill -9 at random and at a step, SIGTERM, SIGSTOP past the session, the store spoiled, a slice that cannot be read",
        rounds: (12, 120),
        inject: kin::disturbed,
    },
    Fault {
        name: "clock",
        what: "the wall clock jumps by up to 5 days, either way; timestamps up to 5 years off",
        rounds: (10, 100),
        inject: clock::jumped,
    },
    Fault {
        name: "topics",
        what: "the input deleted and created again (longer and shorter than before), retention overtaking the group, the output deleted",
        rounds: (5, 20),
        inject: topics::taken_away,
    },
    Fault {
        name: "journal",
        what: "the journal deleted, with the service up and down, with and without the store",
        rounds: (5, 20),
        inject: topics::journal_taken_away,
    },
    Fault {
        name: "size",
        what: "records at the size limit of the output topic, one byte below and above",
        rounds: (5, 20),
        inject: records::at_the_limit,
    },
    Fault {
        name: "upstream",
        what: "upstream transactions interleaved, aborted, long open, left open, fenced",
        rounds: (5, 20),
        inject: records::upstream,
    },
];
