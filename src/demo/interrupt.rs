//! Ctrl-C and SIGTERM as a flag that the steps of a command look at.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Stop, leave};

/// Whether somebody asked the command to end.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on. A second signal ends the process at once; its children die with it.
    ///
    /// # Errors
    /// Internal (70) when signals cannot be listened to.
    pub fn listen() -> Result<Self, Stop> {
        let asked = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&asked);
        let failed =
            |error: io::Error| Stop::internal(format!("cannot listen for Ctrl-C: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(failed)?;
        let (mut ctrl_c, mut term) = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind).map_err(failed);
            (
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
            )
        };
        let wait = move || {
            runtime.block_on(async {
                loop {
                    tokio::select! { _ = ctrl_c.recv() => (), _ = term.recv() => () }
                    if flag.swap(true, Relaxed) {
                        leave(130);
                    }
                }
            });
        };
        thread::Builder::new()
            .name("interrupt".into())
            .spawn(wait)
            .map_err(failed)?;
        Ok(Self(asked))
    }

    /// Of a process that hears signals otherwise: it is asked when this is set.
    pub fn of(asked: Arc<AtomicBool>) -> Self {
        Self(asked)
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Stops the demo when it was asked to.
    ///
    /// # Errors
    /// Interrupted (130): nothing has been proved then.
    pub fn check(&self) -> Result<(), Stop> {
        match self.is_asked() {
            true => Err(Stop::interrupted(
                "stopped before the audit, as asked: nothing is proved, and nothing is left running",
            )),
            false => Ok(()),
        }
    }
}
