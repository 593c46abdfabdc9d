//! Step 2 of recovery: the seen set that the store holds, if it is one of this journal. Reads the
//! store's files, and asks Kafka nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{Located, Request};
use crate::config::Config;
use crate::store::Store;
use crate::window::{SeenWindow, Sizing};

/// The window to go on with: what is in the store, or an empty one. The run that its checkpoint
/// names has to be the first one that is read from the journal.
pub(super) fn start(
    request: &Request,
    located: &Located,
    store: &Arc<Store>,
    config: &Config,
    stopping: &AtomicBool,
) -> SeenWindow {
    let started = Instant::now();
    let shelf = store.shelf(request.lineage.clone());
    let awaited =
        || !stopping.load(Ordering::Relaxed) && !request.cancelled.load(Ordering::Relaxed);
    let window = SeenWindow::load(
        config.window,
        Sizing::from(&config.store),
        &shelf,
        |checkpoint| located.fits(checkpoint),
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
    window
}
