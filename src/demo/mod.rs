//! `kafka-dedup demo`: the whole thing on a real broker on this machine.

pub mod broker;
mod jars;
pub mod process;
