//! What the wall clock said when a record was judged, by the journal: the broker stamps each run when
//! it is written, and a run is written with the transaction that judged its records.
//!
//! A witness of time alone: what the runs say of ids is not asked.

use rdkafka::message::Message;

use super::feeds::Feeds;
use super::judge::Wall;
use super::progress::Progress;
use crate::exit::Stop;
use crate::journal::{Identity, Run};

/// How far the clocks of broker and service may be apart.
const SLACK_MS: i64 = 60_000;

/// The runs of one input partition, read as its records are.
pub struct Witness {
    /// The journal's feed, if there is a journal.
    feed: Option<usize>,
    identity: Identity,
    /// How long before its run a record may have been judged, in ms.
    transaction_ms: i64,
    /// Older runs were trimmed: the first that is there may not be the next one.
    trimmed: bool,
    /// Input position after the current run, and when it was written.
    current: Option<(i64, i64)>,
    before: Option<i64>,
    now_ms: i64,
    /// The group's offset was set back at least once.
    pub set_back: bool,
}

impl Witness {
    pub fn new(
        feed: Option<usize>,
        identity: Identity,
        trimmed: bool,
        transaction_ms: i64,
        now_ms: i64,
    ) -> Self {
        Self {
            feed,
            identity,
            transaction_ms,
            trimmed,
            current: None,
            before: None,
            now_ms,
            set_back: false,
        }
    }

    /// For the record at this offset; offsets must not fall.
    ///
    /// # Errors
    /// As of [`Feeds::pull`].
    pub fn wall(
        &mut self,
        offset: i64,
        feeds: &mut Feeds,
        progress: &mut Progress,
    ) -> Result<Wall, Stop> {
        while self.current.is_none_or(|(next, _)| next <= offset)
            && let Some(feed) = self.feed
        {
            let Some(message) = feeds.pull(feed, progress)? else {
                self.feed = None;
                break;
            };
            let run = Run::decode(message.payload().unwrap_or_default());
            let written = message.timestamp().to_millis();
            let (Ok(run), Some(written)) = (run, written) else {
                continue;
            };
            if run.preload || !self.identity.has_written(&run) {
                // What was preloaded was not judged.
                continue;
            }
            match self.current {
                Some((next, _)) if run.next_offset < next => self.set_back = true,
                // The parts of one transaction.
                Some((next, at)) if run.next_offset == next => {
                    self.current = Some((next, at.max(written)));
                }
                current => {
                    self.before = current.map(|(_, written)| written).or(self.before);
                    self.current = Some((run.next_offset, written));
                }
            }
        }
        Ok(self.known(offset))
    }

    fn known(&self, offset: i64) -> Wall {
        let earliest = |written: i64| written - self.transaction_ms - SLACK_MS;
        match self.current {
            Some((next, written)) if next > offset => Wall {
                from: (self.before.is_some() || !self.trimmed).then(|| earliest(written)),
                to: written.saturating_add(SLACK_MS).min(self.now_ms),
            },
            last => Wall {
                from: last.map(|(_, written)| earliest(written)),
                to: self.now_ms,
            },
        }
    }
}
