//! Makes the topics around an input ready: there, large enough, led.

/// An input topic whose own topics are ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Partitions of the input, and so of the journal.
    pub partitions: i32,
    /// Partitions of the output.
    pub output_partitions: i32,
    pub names: super::Names,
    /// Id of the input topic; `None` on brokers before 2.8.
    pub input_id: Option<String>,
    /// Id of the journal topic; `None` on brokers before 2.8.
    pub journal_id: Option<String>,
    /// The group has committed offsets in the input, but its journal was absent and had to be made:
    /// the ids seen before are not known (I5 cannot be kept for them). Said in the log, too.
    pub journal_was_lost: bool,
}
