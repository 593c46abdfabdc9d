//! The one directory in which a scene keeps all its data and logs.
//!
//! Touches that directory.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::interrupt::Interrupt;
use crate::exit::Stop;

/// Plays a scene in the directory that was named, which stays, or in a new temporary one, which stays
/// only where the scene failed: then the sentence ends with where it is.
///
/// # Errors
/// Usage (64) when the directory cannot be used or is not empty; else what the scene says.
pub fn within(
    named: Option<&Path>,
    name: &str,
    interrupt: &Interrupt,
    play: impl FnOnce(&Path) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let dir = prepare(named, name)?;
    let result = play(&dir);
    // An empty directory goes too: what failed before anything was written has nothing to show.
    if named.is_none() && fs::remove_dir(&dir).is_ok() {
        return result;
    }
    if named.is_none() && (result.is_ok() || interrupt.is_asked()) {
        // What cannot be removed stays in the system's directory for temporary files.
        let _ = fs::remove_dir_all(&dir);
        return result;
    }
    result.map_err(|stop| Stop {
        sentence: format!("{stop}\ndata and logs are in {}", dir.display()),
        ..stop
    })
}

/// A directory that is empty: the one that was named, or a new one.
fn prepare(named: Option<&Path>, name: &str) -> Result<PathBuf, Stop> {
    let dir = match named {
        Some(dir) => dir.to_path_buf(),
        None => env::temp_dir().join(format!("{name}-{}", std::process::id())),
    };
    let unusable = |what: String| {
        let dir = dir.display();
        Stop::usage(format!("cannot use {dir}: {what}; name another with --dir"))
    };
    fs::create_dir_all(&dir).map_err(|error| unusable(error.to_string()))?;
    let mut entries = fs::read_dir(&dir).map_err(|error| unusable(error.to_string()))?;
    if entries.next().is_some() {
        return Err(unusable("it is not empty".to_owned()));
    }
    // The broker wants to find its files from wherever it is.
    fs::canonicalize(&dir).map_err(|error| unusable(error.to_string()))
}
