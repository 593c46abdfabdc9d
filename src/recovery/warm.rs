//! Step 2 of recovery: the seen set that the store holds, if it is one of this journal. Reads the
//! store's files, and asks Kafka nothing.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{Located, Request};
use crate::config::Config;
use crate::journal::Terms;
use crate::store::{Loaded, Store};
use crate::window::{Fit, SeenWindow, Sizing};

/// The window to go on with: what is in the store, or an empty one. The run that its checkpoint
/// names has to be the first one that is read from the journal. Besides, the terms under which the
/// store held it.
pub(super) fn start(
    request: &Request,
    located: &Located,
    store: &Arc<Store>,
    config: &Config,
    stopping: &AtomicBool,
) -> (SeenWindow, Option<Terms>) {
    let started = Instant::now();
    let shelf = store.shelf(request.lineage.clone());
    let ours = Terms::from(config);
    let terms = Cell::new(None);
    let fits = |loaded: &Loaded| {
        terms.set(loaded.terms.clone());
        if !located.fits(&loaded.checkpoint) {
            return Fit::NotOfThisJournal;
        }
        // A narrower window has dropped ids that this one remembers, and the journal may still have
        // them: then it tells more than the store.
        let narrower = loaded
            .terms
            .as_ref()
            .is_none_or(|t| ours.remember_more_than(t));
        let from = loaded
            .slices
            .first()
            .map(|oldest| oldest.span().journal_from);
        match narrower && from.is_some_and(|from| located.journal_low <= from) {
            true => Fit::Narrower,
            false => Fit::Fits,
        }
    };
    let awaited =
        || !stopping.load(Ordering::Relaxed) && !request.cancelled.load(Ordering::Relaxed);
    let window = SeenWindow::load(
        config.window,
        Sizing::from(&config.store),
        &shelf,
        fits,
        awaited,
    );
    if window.checkpoint().is_some() {
        tracing::info!(
            topic = request.topic,
            partition = request.partition,
            ids = window.ids(),
            slices = window.slices(),
            millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "seen ids were read from the store"
        );
    }
    (window, terms.into_inner())
}
