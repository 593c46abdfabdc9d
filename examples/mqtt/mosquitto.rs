//! A real mosquitto on this machine.
//!
//! Touches the directory it is given, one loopback port, and its own process.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kafka_dedup::demo::program::Program;
use kafka_dedup::exit::Stop;

/// The settings to be copied; what the scene adds is its own.
const SETTINGS: &str = include_str!("mosquitto.conf");
const READY_WITHIN: Duration = Duration::from_secs(20);
const MISSING: &str = "`mosquitto` was not found: on Debian or Ubuntu `apt-get install mosquitto`";

/// Where mosquitto is: in the PATH, or where Debian puts it, which is not in every user's.
///
/// # Errors
/// Usage (64) with what to install.
pub fn find() -> Result<PathBuf, Stop> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join("mosquitto"))
        .find(|file| file.is_file())
        .ok_or_else(|| Stop::usage(MISSING))
}

/// Starts it, with everything it writes under `dir`, and waits until it accepts connections.
///
/// # Errors
/// Internal (70) when it does not, with the end of its log.
pub fn start(executable: &Path, dir: &Path, port: u16) -> Result<Program, Stop> {
    let failed = |error| Stop::internal(format!("cannot write {}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(failed)?;
    let settings = dir.join("mosquitto.conf");
    // Started by root it would become another user, who may not write here.
    let ours = format!(
        "{SETTINGS}\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence_location {}/\nuser root\n",
        dir.display()
    );
    fs::write(&settings, ours).map_err(failed)?;
    let arguments = ["-c".as_ref(), settings.as_os_str()];
    let mut mosquitto = Program::new("mosquitto", executable, arguments, dir.join("log"));
    mosquitto.start()?;
    let deadline = Instant::now() + READY_WITHIN;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    while TcpStream::connect(address).is_err() {
        mosquitto.must_run()?;
        if Instant::now() >= deadline {
            return Err(mosquitto.complain("does not accept connections"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(mosquitto)
}
