//! SIGTERM and SIGINT: the first asks the workers to commit and leave, the second leaves at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::logging;
use crate::exit::{Stop, leave};
use crate::http::{Condition, Health};

/// Both signals, caught from now on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Must be called within the tokio runtime.
    ///
    /// # Errors
    /// [`Stop::internal`] when the handlers cannot be installed.
    pub fn catch() -> Result<Self, Stop> {
        let catch = |kind| {
            signal(kind)
                .map_err(|error| Stop::internal(format!("signals cannot be caught: {error}")))
        };
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }

    /// Sets `shutdown` on the first signal, from when on the process is not ready, and ends the
    /// process on the second, with 128 and the signal's number.
    pub async fn obey(mut self, shutdown: Arc<AtomicBool>, health: Health) {
        let (name, _) = self.next().await;
        tracing::info!(
            "{name}: the workers commit what is open and leave; a second signal ends the process at once"
        );
        shutdown.store(true, Ordering::SeqCst);
        health.set(
            "process",
            Condition::NotReady(format!("leaving after {name}")),
        );
        let (name, number) = self.next().await;
        tracing::warn!(
            "second signal ({name}): leaving at once; the next start ends the open transaction"
        );
        logging::finish();
        leave(128 + number);
    }

    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", libc::SIGTERM),
            _ = self.interrupt.recv() => ("SIGINT", libc::SIGINT),
        }
    }
}
