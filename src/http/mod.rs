//! What the process tells about itself over HTTP: probes, metrics, version and status.
//!
//! Readiness is a latch that components hold ([`health`]); the partitions' table is [`status`];
//! [`server`] answers, [`page`] shows all of it to a person, [`admin`] takes orders. Nothing here touches Kafka.

pub mod admin;
pub mod health;
pub mod page;
pub mod server;
pub mod status;

pub use health::{Condition, Health};
pub use status::{PartitionStatus, Status};
