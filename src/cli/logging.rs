//! Logs to standard error, as text for a person or JSON for a collector, and turns panics into log
//! events.

use std::io::{IsTerminal, stderr};
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};
use crate::exit::Stop;

/// What is logged, which can be changed while the process runs.
pub struct LogLevel {
    configured: String,
    current: Mutex<String>,
    reload: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl LogLevel {
    /// A filter, or the configured one.
    ///
    /// # Errors
    /// [`Stop::usage`] when it is no filter.
    pub fn set(&self, level: Option<&str>) -> Result<(), Stop> {
        let level = level.unwrap_or(&self.configured);
        (self.reload)(filter(level)?)
            .map_err(|error| Stop::internal(format!("the log cannot be changed: {error}")))?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        level.clone_into(&mut current);
        tracing::warn!("log.level is {level:?} now");
        Ok(())
    }

    pub fn current(&self) -> String {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Of a process that logs nothing.
    #[cfg(test)]
    pub fn of_test() -> Self {
        Self {
            configured: "info".to_owned(),
            current: Mutex::new("info".to_owned()),
            reload: Box::new(|_| Ok(())),
        }
    }
}

/// Starts logging for the rest of the process.
///
/// # Errors
/// [`Stop::usage`] when `log.level` is no filter; [`Stop::internal`] when logging was started
/// before.
pub fn start(log: &Log) -> Result<LogLevel, Stop> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&log.level)?)
        .with_ansi(stderr().is_terminal())
        // Told on standard error, which is what just failed: that would be a panic.
        .log_internal_errors(false)
        .with_writer(stderr);
    let reload: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;
    match log.format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            reload = Box::new(move |filter| handle.reload(filter).map_err(|it| it.to_string()));
            builder.finish().try_init()
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            reload = Box::new(move |filter| handle.reload(filter).map_err(|it| it.to_string()));
            builder.finish().try_init()
        }
    }
    .map_err(|error| Stop::internal(format!("logging cannot be started: {error}")))?;
    panic::set_hook(Box::new(log_panic));
    Ok(LogLevel {
        configured: log.level.clone(),
        current: Mutex::new(log.level.clone()),
        reload,
    })
}

fn filter(level: &str) -> Result<EnvFilter, Stop> {
    EnvFilter::builder().parse(level).map_err(|error| {
        Stop::usage(format!(
            "log.level: {level:?} is no log filter ({error}); use error, warn, info, debug, trace, or for instance \"info,rdkafka=debug\""
        ))
    })
}

/// The one place where a panic still knows where it came from.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let what = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(place, thread, "panic in thread {thread} at {place}: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;

    #[test]
    fn levels_and_filters_are_taken() {
        for level in ["info", "warn", "info,rdkafka=debug", "off"] {
            assert!(filter(level).is_ok(), "{level}");
        }
    }

    #[test]
    fn a_level_that_is_no_filter_is_bad_config() {
        let stop = filter("info,rdkafka=loud").expect_err("no filter");
        assert_eq!(stop.status, Status::Usage);
        assert!(
            stop.sentence
                .starts_with("log.level: \"info,rdkafka=loud\""),
            "{stop}"
        );
    }
}
