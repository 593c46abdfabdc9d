//! kafka-dedup removes duplicate messages from Kafka topics exactly once.
//!
//! The rooms, in the order in which a record passes through them:
//! [`source`] (poll) → [`identify`] (id bytes → fingerprint) → [`window`] (verdict) →
//! [`sink`] (produce) → [`commit`] (one transaction). [`worker`] is the loop that walks a record
//! through them; [`recovery`] brings a partition's seen set up to date from the local [`store`] and
//! the [`journal`] before the worker may touch it. [`schemas`] are what some ids are found by. [`config`], [`topics`], [`metrics`], [`http`] and
//! [`cli`] surround them; [`scan`] counts, before anything is deployed, what a topic holds, [`plan`] what
//! a deployment takes, [`preload`] fills its memory before it starts, [`mod@inspect`] says what it remembers, and
//! [`verify`] whether what came out is what had to.
//!
//! Comments cite the invariants I1-I8; `docs/design.md` states them.

mod allocator;
pub mod broken;
pub mod cli;
pub mod commit;
pub mod config;
pub mod control;
pub mod demo;
pub mod exit;
pub mod http;
pub mod identify;
pub mod inspect;
pub mod journal;
pub mod kafka;
pub mod metrics;
pub mod partitioner;
pub mod plan;
pub mod preload;
pub mod recovery;
pub mod repartition;
pub mod scan;
pub mod schemas;
pub mod sink;
pub mod source;
pub mod store;
pub mod topics;
pub mod verify;
pub mod window;
pub mod worker;
