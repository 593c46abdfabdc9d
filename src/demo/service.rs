//! The service under demonstration: this same program, as a process of its own.
//!
//! Touches its config file under the demo's directory.

use std::env;
use std::fs;
use std::io;
use std::path::Path;

use super::ports::free_ports;
use super::program::Program;
use super::{GROUP, INPUT, OUTPUT};
use crate::exit::Stop;

/// `kafka-dedup run`, and where it is reached.
#[derive(Debug)]
pub struct Service {
    pub program: Program,
    /// Where metrics and readiness are served, and where the admin interface is.
    pub http: String,
    pub admin: String,
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
        let executable = env::current_exe().map_err(failed)?;
        let arguments = ["run".as_ref(), "-c".as_ref(), config.as_os_str()];
        Ok(Self {
            program: Program::new(
                "the service",
                executable,
                arguments,
                dir.join("service.log"),
            ),
            http,
            admin,
        })
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
