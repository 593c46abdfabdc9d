//! The service under demonstration: this same program, as a process of its own.
//!
//! Touches its config file, log and store under the demo's directory, and the process.

use std::env;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::jars::last_lines;
use super::ports::free_ports;
use super::process;
use super::watch::GROUP;
use super::{INPUT, OUTPUT};
use crate::exit::Stop;

/// How long the service may take to end when asked: longer than its transaction time-out.
const END_WITHIN: Duration = Duration::from_secs(45);

/// `kafka-dedup run`, up or down. Dropped: it is killed.
#[derive(Debug)]
pub struct Service {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// Where metrics and readiness are served, and where the admin interface is.
    pub http: String,
    pub admin: String,
    child: Option<Child>,
}

impl Service {
    /// Writes the config under `dir`; starts nothing yet.
    ///
    /// # Errors
    /// Internal (70) when the file cannot be written or no port is free.
    pub fn configure(dir: &Path, bootstrap: &str) -> Result<Self, Stop> {
        let failed =
            |error: io::Error| Stop::internal(format!("cannot configure the service: {error}"));
        let ports = free_ports(2).map_err(failed)?;
        let [http, admin] = [0, 1].map(|which| format!("127.0.0.1:{}", ports[which]));
        let store = dir.join("store").display().to_string();
        let config = dir.join("kafka-dedup.yaml");
        fs::write(&config, yaml(bootstrap, &store, &http, &admin)).map_err(failed)?;
        let program = env::current_exe().map_err(failed)?;
        Ok(Self {
            program,
            config,
            log: dir.join("service.log"),
            http,
            admin,
            child: None,
        })
    }

    /// Starts the process; its output is added to its log.
    ///
    /// # Errors
    /// Internal (70) when it cannot be started.
    pub fn start(&mut self) -> Result<(), Stop> {
        let failed =
            |error: io::Error| Stop::internal(format!("cannot start the service: {error}"));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(failed)?;
        let mut run = Command::new(&self.program);
        run.args(["run", "-c"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        // Here the file alone counts: a shell set up for another deployment must not lead it there.
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"KAFKA_DEDUP__") {
                run.env_remove(name);
            }
        }
        self.child = Some(process::spawn(run).map_err(failed)?);
        Ok(())
    }

    /// Whether it was started and not killed since.
    pub fn is_up(&self) -> bool {
        self.child.is_some()
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
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        process::ask_to_end(&mut child);
        match process::wait_until(&mut child, Instant::now() + END_WITHIN) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(self.complain(&format!("ended with {status} after SIGTERM"))),
            Ok(None) | Err(_) => {
                process::kill(&mut child);
                let seconds = END_WITHIN.as_secs();
                Err(self.complain(&format!("did not end within {seconds} s of SIGTERM")))
            }
        }
    }

    /// A sentence about the service, with the end of its log.
    pub fn complain(&self, what: &str) -> Stop {
        Stop::internal(format!(
            "the service {what}; {} ends with:\n{}",
            self.log.display(),
            last_lines(&self.log, 20)
        ))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The config, as a person would write it.
fn yaml(bootstrap: &str, store: &str, http: &str, admin: &str) -> String {
    format!(
        r#"kafka:
  bootstrap_servers: "{bootstrap}"
  group_id: {GROUP}
  instance_id: demo-1
  # A member that is killed with -9 keeps its partitions until its session ends. As a static member
  # it is known again when it comes back, and goes on at once instead of waiting for its own ghost.
  static_membership: true
  consumer_properties:
    session.timeout.ms: "6000"
input:
  topics: [{INPUT}]
  start: earliest
output:
  topic: {OUTPUT}
id:
  from: {{csv: {{column: 8}}}}
window:
  time: 24h
store:
  path: "{store}"
http:
  listen: "{http}"
  admin: "{admin}"
"#
    )
}
