//! Where a partition begins and ends, asked of its leader, also after brokers came and went.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};

/// Low and high watermark of a partition; with `isolation.level=read_committed` the last stable offset
/// in place of the high one. Waits three timeouts at most.
///
/// # Errors
/// What librdkafka answers.
pub fn watermarks<C: ConsumerContext + 'static>(
    client: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    timeout: Duration,
) -> KafkaResult<(i64, i64)> {
    match client.fetch_watermarks(topic, partition, timeout) {
        // So a client answers for as long as it remembers a leader that has left the cluster, up to
        // metadata.max.age.ms, unless it is made to look again.
        Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition) => {
            client.fetch_metadata(Some(topic), timeout)?;
            client.fetch_watermarks(topic, partition, timeout)
        }
        outcome => outcome,
    }
}
