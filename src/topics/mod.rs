//! The topics around an input topic: which there are, what they are called, whether they fit.
//!
//! [`names`] decides what is an input and what is ours, [`admin`] asks and changes the cluster,
//! [`survey`] gathers what there is, [`plan`] decides what must be done (pure), [`prepare`](mod@prepare) does it,
//! [`trim`] keeps the journal as small as the window. Nothing here reads or writes a record.

pub mod admin;
pub mod names;
pub mod plan;
pub mod prepare;
pub mod settings;
pub mod survey;
pub mod trim;

use crate::exit::Stop;

pub use admin::Admin;
pub use names::{Names, OwnTopics};
pub use prepare::{Prepared, prepare};

pub use trim::Trimmer;

/// Why a topic could not be made ready.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PrepareError {
    /// Kafka could not be reached, or did not finish in time: ask again later.
    #[error("{0}")]
    Retry(String),
    /// Asking again cannot help: the process must end and a person must act.
    #[error(transparent)]
    Stop(#[from] Stop),
}

/// Every topic of the cluster that this client may see, with its partition count, sorted by name.
/// One metadata request; a topic whose partitions are not known yet is left out.
pub fn list(admin: &Admin) -> Result<Vec<(String, i32)>, PrepareError> {
    admin.list()
}
