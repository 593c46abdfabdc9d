//! A program that a scene starts, kills, starts again and ends, with its log.
//!
//! Touches its log and its process.

use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::jars::last_lines;
use super::process;
use crate::exit::Stop;

/// How long a program may take to end when asked: longer than the service's transaction time-out.
const END_WITHIN: Duration = Duration::from_secs(45);

/// One program, up or down. Dropped: it is killed.
#[derive(Debug)]
pub struct Program {
    /// What sentences call it: "the service".
    name: &'static str,
    executable: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    /// Starts nothing yet. What it prints is added to `log`, over all its starts.
    pub fn new<A: Into<OsString>>(
        name: &'static str,
        executable: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = A>,
        log: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name,
            executable: executable.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            log: log.into(),
            child: None,
        }
    }

    /// With these variables beside the inherited ones. Of the service's own none is inherited: a
    /// shell set up for another deployment must not lead it there.
    #[must_use]
    pub fn with_environment(mut self, variables: Vec<(String, String)>) -> Self {
        self.environment = variables;
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    /// Internal (70) when it cannot be started.
    pub fn start(&mut self) -> Result<(), Stop> {
        let failed =
            |error: io::Error| Stop::internal(format!("cannot start {}: {error}", self.name));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(failed)?;
        let mut run = Command::new(&self.executable);
        run.args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"KAFKA_DEDUP__") {
                run.env_remove(name);
            }
        }
        let environment = self.environment.iter();
        run.envs(environment.map(|(name, value)| (name, value)));
        self.child = Some(process::spawn(run).map_err(failed)?);
        Ok(())
    }

    /// Whether it was started and not killed since.
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// What it printed, over all its starts.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Kills it with SIGKILL, in the middle of whatever it does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::kill(&mut child);
        }
    }

    /// That it has not ended by itself.
    ///
    /// # Errors
    /// Internal (70) with the end of its log when it has.
    pub fn must_run(&mut self) -> Result<(), Stop> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => Err(self.complain(&format!("ended by itself ({status})"))),
            _ => Ok(()),
        }
    }

    /// Asks it to end (SIGTERM), as a supervisor does; it must exit with 0.
    ///
    /// # Errors
    /// Internal (70) with the end of its log when it exits with anything else, or not at all.
    pub fn stop(&mut self) -> Result<(), Stop> {
        if let Some(child) = &mut self.child {
            process::ask_to_end(child);
        }
        self.must_end(END_WITHIN, "after SIGTERM")
    }

    /// Waits for it to end; it must exit with 0. Does nothing where it is down.
    ///
    /// # Errors
    /// Internal (70) with the end of its log when it exits with anything else, or not in time; it is
    /// killed then.
    pub fn must_end(&mut self, within: Duration, after: &str) -> Result<(), Stop> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        match process::wait_until(&mut child, Instant::now() + within) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(self.complain(&format!("ended with {status} {after}"))),
            Ok(None) | Err(_) => {
                process::kill(&mut child);
                let seconds = within.as_secs();
                Err(self.complain(&format!("did not end within {seconds} s {after}")))
            }
        }
    }

    /// A sentence about it, with the end of its log.
    pub fn complain(&self, what: &str) -> Stop {
        Stop::internal(format!(
            "{} {what}; {} ends with:\n{}",
            self.name,
            self.log.display(),
            last_lines(&self.log, 20)
        ))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
