//! How this program speaks to Kafka: client configurations, their log lines, and the few calls that
//! librdkafka offers and its Rust wrapper does not.
//!
//! [`clients`] decides every client property in one place, [`context`] turns librdkafka's own log
//! into ours, [`describe`] and [`produce`] hold the foreign function calls, [`ahead`] keeps records until they can be
//! used, [`bounded`] gives up the calls that do not come back, [`watermarks`] asks for a partition's bounds. Nothing
//! here knows what a duplicate is.

pub mod ahead;
pub mod bounded;
pub mod clients;
pub mod context;
pub mod describe;
pub mod produce;
mod watermarks;

pub use watermarks::watermarks;
