//! Watches over the workers: the first that fails takes the others with it, and its reason becomes
//! the process's.
//!
//! ```text
//! running --signal--------------> leaving --all ended--> exit 0
//!    |                               |
//!    |--a worker fails------------>  '--all ended--> exit with the first failure
//!    |                               '--30 s-------> exit with the first failure, else 75
//!    '--a worker does not go on, or the wall clock was set back--> exit 75 at once
//! ```

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cli::clock::WallClock;
use crate::cli::logging;
use crate::cli::watchdog::Watchdog;
use crate::exit::Stop;

/// How long workers may take to commit and leave.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the shutdown flag, and threads that died without a word, are looked for.
pub const LOOK: Duration = Duration::from_millis(100);

/// What a worker says when it ends: its index, and how.
pub type Ended = (usize, Result<(), Stop>);

/// Waits until all workers have ended, or `leave_timeout` after `shutdown` was set, by a signal or
/// by a worker's failure. Worker `i` is `workers[i]`.
///
/// # Errors
/// The first worker's failure; else [`Stop::restart`] when some did not leave in time. Restart, at
/// once, when the wall clock was set back or the watchdog barks: workers may not hear of anything then.
pub fn supervise(
    workers: Vec<JoinHandle<()>>,
    ended: &Receiver<Ended>,
    shutdown: &AtomicBool,
    leave_timeout: Duration,
    mut watchdog: Watchdog,
) -> Result<(), Stop> {
    let mut workers: Vec<Option<JoinHandle<()>>> = workers.into_iter().map(Some).collect();
    let mut running: BTreeSet<usize> = (0..workers.len()).collect();
    let mut first_failure: Option<Stop> = None;
    let mut deadline: Option<Instant> = None;
    let mut clock = WallClock::now();
    while !running.is_empty() {
        clock.look()?;
        watchdog.look(&running)?;
        logging::catch_up();
        let news = match ended.recv_timeout(LOOK) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            // All senders are gone: the threads have ended, with or without a word.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(LOOK);
                None
            }
        };
        let news = news.or_else(|| died_silently(&mut workers, &running, ended));
        if let Some((worker, result)) = news {
            running.remove(&worker);
            let result = result.and_then(|()| asked_to_leave(worker, shutdown));
            if let Err(stop) = result {
                if first_failure.is_some() {
                    tracing::error!(worker, "worker {worker} also failed: {stop}");
                } else {
                    // Of a single one the last line says it all.
                    if !running.is_empty() {
                        tracing::error!(
                            worker,
                            "worker {worker} failed, the others commit what is open and leave: {stop}"
                        );
                    }
                    first_failure = Some(stop);
                }
                shutdown.store(true, Ordering::SeqCst);
            }
        }
        if shutdown.load(Ordering::SeqCst) {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + leave_timeout);
            if Instant::now() >= deadline {
                return Err(first_failure.unwrap_or_else(|| stuck(&running, leave_timeout)));
            }
        }
    }
    // All have said their last word; what is left of the threads is their end.
    for worker in workers.into_iter().flatten() {
        let _ = worker.join();
    }
    first_failure.map_or(Ok(()), Err)
}

/// A thread that ended without a word. Its word may have come between the last look and its end.
fn died_silently(
    workers: &mut [Option<JoinHandle<()>>],
    running: &BTreeSet<usize>,
    ended: &Receiver<Ended>,
) -> Option<Ended> {
    let dead = |worker: &JoinHandle<()>| worker.is_finished();
    let worker = *running
        .iter()
        .find(|&&worker| workers[worker].as_ref().is_some_and(dead))?;
    if let Ok(word) = ended.try_recv() {
        return Some(word);
    }
    let result = workers[worker].take()?.join();
    let how = match result {
        Ok(()) => "without a reason".to_owned(),
        Err(panic) => format!("in a panic ({})", panic_text(panic.as_ref())),
    };
    Some((
        worker,
        Err(Stop::internal(format!(
            "worker {worker} ended {how}; please report it"
        ))),
    ))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn asked_to_leave(worker: usize, shutdown: &AtomicBool) -> Result<(), Stop> {
    if shutdown.load(Ordering::SeqCst) {
        return Ok(());
    }
    Err(Stop::internal(format!(
        "worker {worker} left although nobody asked; please report it"
    )))
}

fn stuck(running: &BTreeSet<usize>, leave_timeout: Duration) -> Stop {
    let names: Vec<String> = running.iter().map(ToString::to_string).collect();
    Stop::restart(format!(
        "worker {} did not leave within {}; nothing is lost, the next start ends its open transaction",
        names.join(", "),
        humantime::format_duration(leave_timeout),
    ))
}

#[cfg(test)]
mod tests;
