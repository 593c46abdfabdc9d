//! Ids of a topic's records, partition by partition. Reads one topic, as `scan` does; joins no group
//! for it.

use std::ops::ControlFlow;

use super::LeftOut;
use super::arguments::{FromTopic, Order};
use super::writer::Writer;
use crate::demo::interrupt::Interrupt;
use crate::exit::Stop;
use crate::identify::Identity;
use crate::scan::source::{Ended, Log, Purpose, Range, Topic, survey};

/// The ranges of the topic that are read.
///
/// # Errors
/// 69 where Kafka does not answer, 78 where there is no such topic, it does not fit the input, or it
/// has nothing to read.
pub fn look(from: &FromTopic, order: &Order, partitions: usize) -> Result<Vec<Range>, Stop> {
    let ranges = survey(&scan(from, order))?;
    if ranges.len() != partitions {
        return Err(Stop::contradiction(format!(
            "{} has {} partitions, and the input {} has {partitions}: ids are remembered by partition, so partition p of one must hold what partition p of the other does. Use --from-file instead, where ids can go to every partition",
            from.name,
            ranges.len(),
            order.topic
        )));
    }
    if ranges.iter().all(|range| range.offsets() == 0) {
        return Err(Stop::contradiction(format!(
            "{} has no record within the last window.time: nothing would be preloaded. With --from it is read from further back",
            from.name
        )));
    }
    Ok(ranges)
}

/// Lets the ids of all records through.
///
/// # Errors
/// As of [`Writer::put`], and where the topic cannot be read.
pub fn read(
    from: &FromTopic,
    ranges: Vec<Range>,
    order: &Order,
    interrupt: &Interrupt,
    writer: &mut Writer<'_>,
) -> Result<LeftOut, Stop> {
    let mut topic = Topic::new(&scan(from, order), ranges, order.wall_ms, interrupt.clone())?;
    let mut left_out = LeftOut::default();
    let mut failed = None;
    let ended = topic.read(Purpose::Preload, &mut |sighting| {
        if let Some(time_ms) = sighting.time_ms {
            writer.observe(sighting.partition, time_ms);
        }
        match sighting.identity {
            Identity::Missing(_) => left_out.without_id += 1,
            Identity::Id(id) => {
                if let Err(stop) = writer.put(sighting.partition, id) {
                    failed = Some(stop);
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    match (failed, ended) {
        (Some(stop), _) => Err(stop),
        (None, Ended::Interrupted) => Err(super::writer::stopped()),
        (None, Ended::AtTheEnd | Ended::Enough) => Ok(left_out),
    }
}

fn scan(from: &FromTopic, order: &Order) -> crate::scan::source::Order {
    crate::scan::source::Order::whole(order.config.clone(), from.name.clone(), from.from_ms)
}
