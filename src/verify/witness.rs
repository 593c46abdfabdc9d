//! What the wall clock said when a record was judged, by the journal: the broker stamps each run when
//! it is written, and a run is written with the transaction that judged its records.
//!
//! A witness of time, and of what an operator has told the service: which ids it forgot, and that records were
//! let through by a bypass. What the runs say of other ids is not asked.

use rdkafka::message::Message;

use super::feeds::Feeds;
use super::judge::Wall;
use super::progress::Progress;
use crate::exit::Stop;
use crate::journal::{Identity, Run};
use crate::store::Entry;
use crate::window::Fingerprint;

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
    current: Option<Current>,
    before: Option<i64>,
    now_ms: i64,
    /// The group's offset was set back at least once.
    pub set_back: bool,
    /// Ids that were forgotten before the record that was asked about last.
    forgotten: Vec<Fingerprint>,
}

/// The runs of one transaction.
#[derive(Debug, Clone, Copy)]
struct Current {
    /// Input position after it.
    next: i64,
    /// When it was written, in ms.
    written: i64,
    bypassed: bool,
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
            forgotten: Vec::new(),
        }
    }

    /// Ids that were forgotten since this was asked last, and before the record that [`Self::wall`] was asked
    /// about.
    pub fn take_forgotten(&mut self) -> Vec<Fingerprint> {
        std::mem::take(&mut self.forgotten)
    }

    /// Whether the transaction that judged the record at this offset, which [`Self::wall`] was asked about, let
    /// records through by a bypass.
    pub fn is_bypassed(&self, offset: i64) -> bool {
        self.current
            .is_some_and(|current| current.next > offset && current.bypassed)
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
        while self.current.is_none_or(|current| current.next <= offset)
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
            let ids = run.fingerprints.iter().zip(&run.payloads);
            let forgotten = ids.filter(|(_, payload)| **payload == Entry::FORGOTTEN);
            self.forgotten.extend(forgotten.map(|(id, _)| *id));
            match &mut self.current {
                Some(current) if run.next_offset < current.next => self.set_back = true,
                // The parts of one transaction, or one that moved no position.
                Some(current) if run.next_offset == current.next => {
                    current.written = current.written.max(written);
                    current.bypassed |= run.bypassed;
                }
                current => {
                    self.before = current.map(|it| it.written).or(self.before);
                    *current = Some(Current {
                        next: run.next_offset,
                        written,
                        bypassed: run.bypassed,
                    });
                }
            }
        }
        Ok(self.known(offset))
    }

    fn known(&self, offset: i64) -> Wall {
        let earliest = |written: i64| written - self.transaction_ms - SLACK_MS;
        match self.current {
            Some(Current { next, written, .. }) if next > offset => Wall {
                from: (self.before.is_some() || !self.trimmed).then(|| earliest(written)),
                to: written.saturating_add(SLACK_MS).min(self.now_ms),
            },
            last => Wall {
                from: last.map(|last| earliest(last.written)),
                to: self.now_ms,
            },
        }
    }
}
