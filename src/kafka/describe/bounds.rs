//! Where many partitions begin and end, in as many requests as for one.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_IsolationLevel_t as IsolationLevel;
use rdkafka_sys::rd_kafka_admin_op_t as Op;

use super::NoAnswer;
use super::native::{Options, ask, elements, no_error, text, unexpected};

/// What counts as the end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The high watermark, whatever the client's own `isolation.level` is.
    High,
    /// The last stable offset.
    Stable,
}

/// Beginning and end of each partition, in their order, without repetitions; `None` of one that was not
/// answered: ask for it alone. Two requests to each broker, whatever the number of partitions.
pub fn bounds<C: ClientContext>(
    client: &Client<C>,
    partitions: &[(&str, i32)],
    end: End,
    timeout: Duration,
) -> Result<Vec<Option<(i64, i64)>>, NoAnswer> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let begins = offsets(client, partitions, Offset::Beginning, end, timeout)?;
    let ends = offsets(client, partitions, Offset::End, end, timeout)?;
    let both = |partition: &(&str, i32)| {
        let key = (partition.0.to_owned(), partition.1);
        begins.get(&key).copied().zip(ends.get(&key).copied())
    };
    Ok(partitions.iter().map(both).collect())
}

/// The offsets at this place of all partitions that were answered.
fn offsets<C: ClientContext>(
    client: &Client<C>,
    partitions: &[(&str, i32)],
    place: Offset,
    end: End,
    timeout: Duration,
) -> Result<HashMap<(String, i32), i64>, NoAnswer> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, place)
            .map_err(|_| unexpected())?;
    }
    let options = Options::new(client, Op::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout)?;
    options.with_isolation(match end {
        End::High => IsolationLevel::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        End::Stable => IsolationLevel::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
    })?;
    let event = ask(client, timeout, |rk, queue| {
        // SAFETY: all four are alive; the request copies list and options.
        unsafe { sys::rd_kafka_ListOffsets(rk, list.ptr(), options.get(), queue) }
    })?;
    let mut count = 0;
    // SAFETY: the event is alive and of the kind asked for (null otherwise, see `elements`); the
    // result and all it points to live as long as the event.
    let found = unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(event.get());
        if result.is_null() {
            return Err(unexpected());
        }
        elements(
            sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count),
            count,
        )
    };
    let answered = found.iter().filter_map(|info| {
        // SAFETY: as above; a partition of a result is never null.
        let partition = unsafe { &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info) };
        // SAFETY: as above.
        let topic = unsafe { text(partition.topic) };
        let is_answered = partition.err == no_error() && partition.offset >= 0;
        is_answered.then_some(((topic, partition.partition), partition.offset))
    });
    Ok(answered.collect())
}
