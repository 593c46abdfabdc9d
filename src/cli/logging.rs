//! Logs to standard error, as text for a person or JSON for a collector, and turns panics into log
//! events. What repeats is written once a minute.

mod once_a_minute;

use std::io::stderr;
use std::panic::{self, PanicHookInfo};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::colours;
use crate::config::{Log, LogFormat};
use crate::exit::Stop;
use crate::http::page::Problems;
use once_a_minute::{Lines, OnceAMinute};

/// Of the process, as its log is.
static LINES: LazyLock<Lines> = LazyLock::new(Lines::default);
/// How the log is written; none is before [`start`].
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

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
    pub fn silent() -> Self {
        Self {
            configured: "info".to_owned(),
            current: Mutex::new("info".to_owned()),
            reload: Box::new(|_| Ok(())),
        }
    }
}

/// Starts logging for the rest of the process; warnings and errors are kept in `problems` too.
///
/// # Errors
/// [`Stop::usage`] when `log.level` is no filter; [`Stop::internal`] when logging was started
/// before.
pub fn start(log: &Log, problems: Problems) -> Result<LogLevel, Stop> {
    let format = log.format;
    let coloured = format == LogFormat::Text && colours::wanted_on(&stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&log.level)?)
        .with_ansi(coloured)
        // Told on standard error, which is what just failed: that would be a panic.
        .log_internal_errors(false)
        .with_writer(stderr);
    let reload: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;
    match format {
        LogFormat::Text => {
            let builder = builder
                .map_event_format(|inner| OnceAMinute {
                    inner: inner.with_ansi(coloured),
                    format,
                    coloured,
                    lines: &LINES,
                })
                .with_filter_reloading();
            let handle = builder.reload_handle();
            reload = Box::new(move |filter| handle.reload(filter).map_err(|it| it.to_string()));
            builder.finish().with(problems).try_init()
        }
        LogFormat::Json => {
            let builder = builder
                .json()
                .flatten_event(true)
                .map_event_format(|inner| OnceAMinute {
                    inner,
                    format,
                    coloured: false,
                    lines: &LINES,
                })
                .with_filter_reloading();
            let handle = builder.reload_handle();
            reload = Box::new(move |filter| handle.reload(filter).map_err(|it| it.to_string()));
            builder.finish().with(problems).try_init()
        }
    }
    .map_err(|error| Stop::internal(format!("logging cannot be started: {error}")))?;
    FORMAT.get_or_init(|| format);
    panic::set_hook(Box::new(log_panic));
    Ok(LogLevel {
        configured: log.level.clone(),
        current: Mutex::new(log.level.clone()),
        reload,
    })
}

/// Writes lines that were left out when their minute is over. To be called now and then: no other line
/// may come. Costs a lock.
pub fn catch_up() {
    if let Some(format) = FORMAT.get() {
        LINES.catch_up(*format);
    }
}

/// Says how many lines were left out of the last minute; before the last line.
pub fn finish() {
    let left_out = LINES.untold();
    if left_out > 0 {
        tracing::info!(left_out, "lines like those above were left out lately");
    }
}

/// Why the process ends: the last line, written whatever the level is.
pub fn last_line(status: u8, sentence: &str) {
    finish();
    if tracing::event_enabled!(tracing::Level::ERROR) {
        tracing::error!(status, "{sentence}");
        return;
    }
    match FORMAT.get() {
        Some(LogFormat::Json) => eprintln!(
            "{}",
            serde_json::json!({
                "timestamp": humantime::format_rfc3339_micros(std::time::SystemTime::now()).to_string(),
                "level": "ERROR",
                "target": module_path!(),
                "message": sentence,
                "status": status,
            })
        ),
        _ => eprintln!("kafka-dedup: {sentence}"),
    }
}

fn filter(level: &str) -> Result<EnvFilter, Stop> {
    let no_filter = |expected| {
        Stop::usage(format!(
            "log.level: {level:?} is no log filter; use {expected}"
        ))
    };
    let level = crate::config::log_level(level).map_err(no_filter)?;
    EnvFilter::builder()
        .parse(level)
        .map_err(|error| Stop::internal(format!("log.level: {error}")))
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
        // The second would be taken for the name of a module, and nothing else be logged.
        for level in ["info,rdkafka=loud", "wran"] {
            let stop = filter(level).expect_err("no filter");
            assert_eq!(stop.status, Status::Usage);
            let words = format!("log.level: {level:?} is no log filter; use error, warn");
            assert!(stop.sentence.starts_with(&words), "{stop}");
        }
    }
}
