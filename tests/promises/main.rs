//! The promises, kept on a real Apache Kafka that these tests start themselves.
//!
//! One file a promise; one broker for all; every test has topics, groups and directories of its
//! own. `KAFKA_DEDUP_TEST_ROUNDS` multiplies the rounds of the fault tests.

mod admin;
mod conflicts;
mod crash;
mod exactly_once;
mod life;
mod modes;
mod rebalance;
mod refused;
mod repartition;
mod scopes;
mod source;
mod store;
mod topics;

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../window/spoil.rs"]
mod spoil;
