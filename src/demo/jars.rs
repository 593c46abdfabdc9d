//! The broker's jars: found in a cache, or fetched once with Maven.
//!
//! Touches `$KAFKA_DEDUP_KAFKA_LIBS`, the cache directory, and runs `mvn` and `java -version`.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process;
use crate::exit::Stop;

/// The one place that says which broker is run.
const POM: &str = include_str!("pom.xml");

const MAVEN_MISSING: &str = "`mvn` is needed once, to fetch the broker's jars, and was not found: \
     on Debian or Ubuntu `apt-get install maven`, or set KAFKA_DEDUP_KAFKA_LIBS to the libs \
     directory of a Kafka 4 distribution";
const JAVA_MISSING: &str = "Java 17 or newer is needed to run a broker here and was not found: \
     on Debian or Ubuntu `apt-get install openjdk-17-jre-headless`, or set JAVA_HOME";

/// The broker's version, as `pom.xml` pins it.
pub fn kafka_version() -> Result<&'static str, Stop> {
    POM.split_once("<kafka.version>")
        .and_then(|(_, rest)| rest.split_once("</kafka.version>"))
        .map(|(version, _)| version)
        .ok_or_else(|| Stop::internal("src/demo/pom.xml has no <kafka.version>"))
}

/// The directory that holds the broker's jars: `$KAFKA_DEDUP_KAFKA_LIBS`, else
/// `kafka-dedup/kafka-VERSION` under `$XDG_CACHE_HOME` (or `~/.cache`), fetched with Maven when
/// absent (about 125 MB). Several processes may ask at once: one fetches, the others wait.
///
/// # Errors
/// Usage (64) when `mvn` is missing or the environment names a directory without a broker;
/// unreachable (69) when Maven could not fetch.
pub fn jars(progress: &dyn Fn(&str)) -> Result<PathBuf, Stop> {
    if let Some(dir) = env::var_os("KAFKA_DEDUP_KAFKA_LIBS").map(PathBuf::from) {
        return if holds_a_broker(&dir) {
            Ok(dir)
        } else {
            Err(Stop::usage(format!(
                "KAFKA_DEDUP_KAFKA_LIBS names {}, which holds no kafka_2.13-*.jar; \
                 name the directory of a broker's jars, or unset it to have them fetched",
                dir.display()
            )))
        };
    }
    let version = kafka_version()?;
    let cache = cache_dir();
    let wanted = cache.join(format!("kafka-{version}"));
    if holds_a_broker(&wanted) {
        return Ok(wanted);
    }
    let disk = |error: io::Error| {
        Stop::internal(format!(
            "cannot use {} for the broker's jars: {error}; set XDG_CACHE_HOME to a directory that can be written",
            cache.display()
        ))
    };
    fs::create_dir_all(&cache).map_err(disk)?;
    let lock = File::create(cache.join(format!("kafka-{version}.lock"))).map_err(disk)?;
    lock.lock().map_err(disk)?;
    if !holds_a_broker(&wanted) {
        progress(&format!(
            "fetching Apache Kafka {version} with Maven (once, about 125 MB)"
        ));
        let partial = cache.join(format!("kafka-{version}.partial"));
        // Under the lock, what is there was left by a fetch that died.
        for left in [&partial, &wanted] {
            if left.exists() {
                fs::remove_dir_all(left).map_err(disk)?;
            }
        }
        fs::create_dir_all(&partial).map_err(disk)?;
        fetch(&partial)?;
        fs::rename(&partial, &wanted).map_err(disk)?;
    }
    Ok(wanted)
}

fn cache_dir() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("kafka-dedup")
}

fn holds_a_broker(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("kafka_2.13-")
        })
    })
}

/// Runs Maven; its output goes to a log beside the jars, whose end is shown when it fails.
fn fetch(into: &Path) -> Result<(), Stop> {
    let failed = |what: String| {
        Stop::unreachable(format!(
            "Maven could not fetch the broker's jars: {what}; it needs Maven Central or a mirror named in ~/.m2/settings.xml"
        ))
    };
    let io_failed = |error: io::Error| failed(error.to_string());
    let pom = into.join("pom.xml");
    fs::write(&pom, POM).map_err(io_failed)?;
    let log = into.join("mvn.log");
    let out = File::create(&log).map_err(io_failed)?;
    let mut mvn = Command::new("mvn");
    mvn.args(["--quiet", "--batch-mode", "--file"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", into.display()))
        .stdin(Stdio::null())
        .stderr(out.try_clone().map_err(io_failed)?)
        .stdout(out);
    let mut child = process::spawn(mvn).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Stop::usage(MAVEN_MISSING),
        _ => io_failed(error),
    })?;
    let status = child.wait().map_err(io_failed)?;
    if status.success() && holds_a_broker(into) {
        return Ok(());
    }
    Err(failed(format!("{status}\n{}", last_lines(&log, 15))))
}

/// The end of a log, for a message; empty when it cannot be read.
pub fn last_lines(log: &Path, count: usize) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The Java to run: `$JAVA_HOME/bin/java`, else `java`; 17 or newer.
///
/// # Errors
/// Usage (64), with the package to install.
pub fn java() -> Result<PathBuf, Stop> {
    let java = env::var_os("JAVA_HOME")
        .map(|home| Path::new(&home).join("bin/java"))
        .filter(|java| java.exists())
        .unwrap_or_else(|| PathBuf::from("java"));
    let answer = Command::new(&java)
        .arg("-version")
        .output()
        .map_err(|_| Stop::usage(JAVA_MISSING))?;
    let answer = String::from_utf8_lossy(&answer.stderr);
    match major_version(&answer) {
        Some(major) if major >= 17 => Ok(java),
        Some(major) => Err(Stop::usage(format!(
            "{} is Java {major}, too old for the broker. {JAVA_MISSING}",
            java.display()
        ))),
        None => Err(Stop::usage(format!(
            "`{} -version` did not name a version. {JAVA_MISSING}",
            java.display()
        ))),
    }
}

/// Reads `openjdk version "17.0.15" 2025-04-15`; Java 8 and older call themselves 1.8.
fn major_version(answer: &str) -> Option<u32> {
    let (_, rest) = answer.split_once("version \"")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    let first = numbers.next()?.parse().ok()?;
    if first == 1 {
        numbers.next()?.parse().ok()
    } else {
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pom_names_the_broker_version() {
        let version = kafka_version().unwrap();
        assert!(version.starts_with("4."), "{version}");
    }

    #[test]
    fn java_versions_old_and_new_are_read() {
        for (answer, major) in [
            ("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK", Some(17)),
            (
                "Picked up JAVA_TOOL_OPTIONS: -Xss1m\nopenjdk version \"21\" 2023",
                Some(21),
            ),
            ("openjdk version \"26-ea\" 2026", Some(26)),
            ("java version \"1.8.0_402\"", Some(8)),
            ("bash: java: command not found", None),
        ] {
            assert_eq!(major_version(answer), major, "{answer}");
        }
    }

    #[test]
    fn the_end_of_a_log_is_shown_and_a_missing_log_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "a\nb\nc\n").unwrap();
        assert_eq!(last_lines(&log, 2), "b\nc");
        assert_eq!(last_lines(&log, 9), "a\nb\nc");
        assert_eq!(last_lines(&dir.path().join("none"), 9), "");
    }
}
