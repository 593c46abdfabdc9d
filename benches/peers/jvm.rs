//! The programs on the JVM, built with Maven where their sources have changed since.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kafka_dedup::demo::kafka_version;

const SOURCES: [(&str, &str); 4] = [
    ("pom.xml", include_str!("java/pom.xml")),
    (
        "src/main/java/peers/Settings.java",
        include_str!("java/src/main/java/peers/Settings.java"),
    ),
    (
        "src/main/java/peers/StreamsDedup.java",
        include_str!("java/src/main/java/peers/StreamsDedup.java"),
    ),
    (
        "src/main/java/peers/ClientDedup.java",
        include_str!("java/src/main/java/peers/ClientDedup.java"),
    ),
];

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers-java")
}

pub fn class_path() -> String {
    format!("{0}/classes:{0}/jars/*", dir().display())
}

/// Builds them. The jars come from Maven's cache, or from Maven Central the first time.
pub fn build() {
    let version = kafka_version().expect("the broker's version");
    assert!(
        SOURCES[0].1.contains(&format!("<kafka.version>{version}<")),
        "benches/peers/java/pom.xml does not have the broker's version {version} of src/demo/pom.xml: set kafka.version to it"
    );
    let dir = dir();
    let sources: String = SOURCES.iter().map(|(_, text)| *text).collect();
    let built = dir.join("built");
    if fs::read_to_string(&built).is_ok_and(|of| of == sources) {
        return;
    }
    println!("building the programs on the JVM with Maven (the first time it fetches 70 MB)");
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/java/pom.xml");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory for classes");
    let output = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(&pom)
        .args([
            "compile",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
        ])
        .arg(format!("-DoutputDirectory={}", dir.join("jars").display()))
        .arg(format!("-Dpeers.build={}", dir.display()))
        .output()
        .expect("mvn runs: install Maven and a JDK of 17 or newer (bash .ci/deps javac)");
    assert!(
        output.status.success(),
        "Maven could not build {}: it needs a JDK of 17 or newer (bash .ci/deps javac) and Maven Central\n{}{}",
        pom.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(built, sources).expect("a note of what was built");
}
