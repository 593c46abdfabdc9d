//! How far the service is: a look at Kafka from outside, which asks the service nothing.
//!
//! Reads the group's committed offsets; never joins the group.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::exit::Stop;

const ASK: Duration = Duration::from_secs(5);

/// A client that sees open transactions: it is answered at once, with the offsets that were
/// committed last, where a read_committed one would wait for a killed service's transaction.
pub struct Watch {
    client: BaseConsumer,
    partitions: TopicPartitionList,
    /// What was committed when last an answer came.
    judged: u64,
}

impl Watch {
    /// Of this group, on all partitions of this topic.
    ///
    /// # Errors
    /// Internal (70) when the client cannot be made.
    pub fn new(bootstrap: &str, group: &str, topic: &str, partitions: i32) -> Result<Self, Stop> {
        let client = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_uncommitted")
            .create()
            .map_err(|error| Stop::internal(format!("no client to watch the group: {error}")))?;
        let mut watched = TopicPartitionList::new();
        watched.add_partition_range(topic, 0, partitions - 1);
        Ok(Self {
            client,
            partitions: watched,
            judged: 0,
        })
    }

    /// Input records whose verdicts are committed. The input has no transactions and starts at
    /// offset 0, so here offsets are counts. While the coordinator does not answer: the last answer.
    pub fn judged(&mut self) -> u64 {
        let asked = self.partitions.clone();
        if let Ok(committed) = self.client.committed_offsets(asked, ASK) {
            let offset = |offset| {
                if let Offset::Offset(raw) = offset {
                    raw
                } else {
                    0
                }
            };
            let sum: i64 = committed
                .elements()
                .iter()
                .map(|part| offset(part.offset()))
                .sum();
            self.judged = self.judged.max(sum.unsigned_abs());
        }
        self.judged
    }
}
