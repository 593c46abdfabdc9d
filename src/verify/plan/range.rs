//! Where the range of an input begins and ends: from where on it can be known what was let through, and what the user
//! asked for.

use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::{Input, Survey, patiently};
use crate::config::Start;
use crate::exit::Stop;
use crate::journal::{self, Run};
use crate::topics::admin::TIMEOUT;
use crate::verify::arguments::Bound;
use crate::verify::feeds::{Feeds, Part};
use crate::verify::progress::Progress;

/// How a journal begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    /// The first record of the input that its first run knows of.
    pub first: i64,
    pub first_ordinal: u64,
    /// When that run was written, in ms.
    pub written_ms: i64,
    /// Where the group began after a preload.
    pub preloaded: Option<i64>,
    pub is_preload: bool,
}

impl Survey<'_> {
    /// Where the group began, as far as that can be known.
    pub(super) fn begin(&self, input: &mut Input) -> Result<(), Stop> {
        let config = self.order.config;
        let low = input.part.start;
        let earliest = config.input.start == Start::Earliest;
        let known = match &input.journal {
            Some((part, trimmed)) => {
                let known = self.beginning(part, input.identity)?;
                known.map(|known| (known, *trimmed))
            }
            None => None,
        };
        match known {
            Some((known, trimmed)) if known.preloaded.is_some() => {
                self.preloaded(input, &known, trimmed);
                return Ok(());
            }
            _ if earliest && low == 0 => return Ok(()),
            _ => {}
        }
        match known
            .filter(|(_, trimmed)| !trimmed)
            .map(|(known, _)| known.first)
        {
            Some(first) if low <= first => {
                if !earliest {
                    let records = i64::try_from(config.transaction.records).unwrap_or(i64::MAX);
                    input.begins = first;
                    input.from = first;
                    input.part.start = low.max(first.saturating_sub(records));
                }
            }
            _ => {
                input.complete = false;
                input.doubts.push(if low > 0 {
                    format!(
                        "offsets 0 to {} of the input are gone (retention): they are not audited, and \
                         which ids were let through there is not known",
                        low - 1
                    )
                } else {
                    "where the group began to read is not known: input.start is not earliest, and the \
                     journal no longer holds its first run"
                        .to_owned()
                });
            }
        }
        Ok(())
    }

    /// A window that was preloaded: the group began where the preload said, and what it held by then is
    /// known as long as the journal has it.
    fn preloaded(&self, input: &mut Input, known: &Beginning, trimmed: bool) {
        let low = input.part.start;
        let ahead = self.order.config.window.max_ahead_ms;
        let begins = known.preloaded.unwrap_or(low);
        (input.begins, input.from) = (begins.max(low), begins.max(low));
        input.part.start = begins.max(low);
        input.to = input.to.max(input.from);
        // The first run of a preload has no ids; that it was trimmed takes none away.
        if !known.is_preload || trimmed && known.first_ordinal > 0 {
            input.complete = false;
            // No time that was preloaded is further ahead of the clock than that.
            input.unknown_until = Some(known.written_ms.saturating_add(ahead));
            input.doubts.push(
                "ids were preloaded before the group began, and the journal does not hold them all any \
                 more: what is a duplicate of one of them is not known. With --from, what came a window later \
                 is audited as ever"
                    .to_owned(),
            );
            return;
        }
        input.preloaded = true;
        if low > begins {
            input.complete = false;
            input.doubts.push(format!(
                "offsets {begins} to {} of the input are gone (retention): they are not audited, and which \
                 ids were let through there is not known",
                low - 1
            ));
        }
    }

    /// What the first runs of a journal tell.
    pub(super) fn beginning(
        &self,
        part: &Part,
        identity: journal::Identity,
    ) -> Result<Option<Beginning>, Stop> {
        let mut feeds = Feeds::open(self.order.config, vec![part.clone()], self.order.interrupt)?;
        let mut progress = Progress::new(0);
        let mut beginning: Option<Beginning> = None;
        while let Some(message) = feeds.pull(0, &mut progress)? {
            let run = Run::decode(message.payload().unwrap_or_default());
            let written_ms = message.timestamp().to_millis().unwrap_or(i64::MAX);
            let Some(run) = run.ok().filter(|run| identity.has_written(run)) else {
                continue;
            };
            match &mut beginning {
                // Of several preloads the last one counts.
                Some(known) if known.is_preload && run.preload => known.preloaded = run.preloaded,
                Some(_) => break,
                None => {
                    beginning = Some(Beginning {
                        first: run.offsets.iter().min().copied().unwrap_or(run.next_offset),
                        first_ordinal: run.first_ordinal,
                        written_ms,
                        preloaded: run.preloaded,
                        is_preload: run.preload,
                    });
                    if !run.preload {
                        break;
                    }
                }
            }
        }
        Ok(beginning)
    }

    /// Takes --from and --to into account.
    pub(super) fn limit(&self, input: &mut Input) -> Result<(), Stop> {
        let (topic, partition) = (input.part.topic.clone(), input.part.partition);
        let at = |bound: Bound| -> Result<Option<i64>, Stop> {
            Ok(match bound {
                Bound::Natural | Bound::Ago(_) => None,
                Bound::Offset(offset) => Some(offset),
                Bound::Time(ms) => Some(self.at_time(&topic, partition, ms)?.unwrap_or(i64::MAX)),
            })
        };
        if let Some(to) = at(self.order.to)? {
            input.to = input.to.min(to);
        }
        if let Some(from) = at(self.order.from)? {
            input.from = input.from.max(from).min(input.to.max(input.from));
            if let Some(from_ms) = self.warm_up_ms() {
                let start = self.at_time(&topic, partition, from_ms)?;
                let start = start.unwrap_or(input.from).min(input.from);
                if start > input.part.start {
                    input.part.start = start;
                    input.complete = false;
                    input.unknown_until = Some(from_ms);
                    // What came before does not matter any more.
                    input.doubts.clear();
                }
            }
        }
        input.to = input.to.max(input.from);
        Ok(())
    }

    /// Where --from is a time, and the window has one: what is older than this (ms) is forgotten when
    /// the range begins.
    pub(super) fn warm_up_ms(&self) -> Option<i64> {
        match (self.order.from, self.order.config.window.time_ms) {
            (Bound::Time(from_ms), Some(window)) => {
                Some(from_ms.saturating_sub(window).saturating_sub(1))
            }
            _ => None,
        }
    }

    /// The first offset whose record is not older; `None` where there is none.
    pub(super) fn at_time(
        &self,
        topic: &str,
        partition: i32,
        ms: i64,
    ) -> Result<Option<i64>, Stop> {
        if ms < 0 {
            return Ok(Some(0));
        }
        let what = format!("the offsets of {topic}-{partition} by time");
        patiently(&what, || {
            let mut asked = TopicPartitionList::new();
            asked
                .add_partition_offset(topic, partition, Offset::Offset(ms))
                .map_err(|error| error.to_string())?;
            let found = self
                .stable
                .offsets_for_times(asked, TIMEOUT)
                .map_err(|error| error.to_string())?;
            let element = found.find_partition(topic, partition);
            let element = element.ok_or_else(|| "no answer".to_owned())?;
            element.error().map_err(|error| error.to_string())?;
            Ok(match element.offset() {
                Offset::Offset(offset) if offset >= 0 => Some(offset),
                _ => None,
            })
        })
    }
}
