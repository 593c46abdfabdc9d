//! A real schema registry for a test: Apicurio Registry, by the interface that Confluent's has, on
//! this machine, with its schemas in a file, so that it can be killed and started again.
//!
//! Fetched once with Maven into the target directory (about 110 MB).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kafka_dedup::demo::ports::free_ports;
use kafka_dedup::demo::process;
use serde_json::{Value, json};

use crate::kit::wait_for;

/// The last one that Java 17 runs.
const VERSION: &str = "3.0.9";

pub struct Registry {
    dir: PathBuf,
    port: u16,
    https_port: u16,
    management_port: u16,
    child: Option<Child>,
}

impl Registry {
    /// Starts one with an empty store; `certificate` and `key` are PEM files of its HTTPS listener.
    pub fn start(dir: &Path, certificate: &Path, key: &Path) -> Self {
        let ports = free_ports(3).expect("free ports");
        let mut registry = Self {
            dir: dir.to_owned(),
            port: ports[0],
            https_port: ports[1],
            management_port: ports[2],
            child: None,
        };
        fs::write(
            dir.join("application.properties"),
            format!(
                "quarkus.http.ssl.certificate.files={}\nquarkus.http.ssl.certificate.key-files={}\n",
                certificate.display(),
                key.display()
            ),
        )
        .expect("written");
        registry.start_again();
        registry
    }

    /// Where the machine is busy it may give up waiting for its own database; then it is started anew.
    pub fn start_again(&mut self) {
        self.spawn();
        let mut starts = 1;
        wait_for("the registry", Duration::from_secs(240), || {
            let child = self.child.as_mut().expect("a child");
            if child.try_wait().expect("its state").is_some() {
                starts += 1;
                assert!(starts < 5, "the registry ends: {}", self.log());
                self.spawn();
            }
            get(&format!("{}/subjects", self.url())).is_some()
        });
    }

    fn spawn(&mut self) {
        let app = installed();
        let config = self.dir.join("application.properties");
        let log = File::create(self.dir.join("registry.log")).expect("a log file");
        let mut command = Command::new(java());
        command
            .current_dir(&app)
            .args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .arg(format!("-Dsmallrye.config.locations={}", config.display()))
            .arg(format!("-Djava.io.tmpdir={}", self.dir.display()))
            .arg("-jar")
            .arg(format!("apicurio-registry-app-{VERSION}-runner.jar"))
            .env("QUARKUS_HTTP_HOST", "127.0.0.1")
            .env("QUARKUS_HTTP_PORT", self.port.to_string())
            .env("QUARKUS_HTTP_SSL_PORT", self.https_port.to_string())
            .env("QUARKUS_MANAGEMENT_HOST", "127.0.0.1")
            .env("QUARKUS_MANAGEMENT_PORT", self.management_port.to_string())
            .env("APICURIO_STORAGE_KIND", "sql")
            .env("APICURIO_STORAGE_SQL_KIND", "h2")
            .env(
                "APICURIO_DATASOURCE_URL",
                format!("jdbc:h2:file:{}", self.dir.join("schemas").display()),
            )
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a log file"))
            .stdout(log);
        self.child = Some(process::spawn(command).expect("the registry starts"));
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("its end");
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("registry.log")).unwrap_or_default()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.port)
    }

    pub fn https_url(&self) -> String {
        format!("https://127.0.0.1:{}/apis/ccompat/v7", self.https_port)
    }

    /// Adds a version to a subject; `references` are name, subject and version. Its id.
    pub fn register(
        &self,
        subject: &str,
        format: &str,
        schema: &str,
        references: &[(&str, &str, u32)],
    ) -> u32 {
        let references: Vec<Value> = references
            .iter()
            .map(|(name, subject, version)| {
                json!({"name": name, "subject": subject, "version": version})
            })
            .collect();
        let body = json!({"schemaType": format, "schema": schema, "references": references});
        let url = format!("{}/subjects/{subject}/versions", self.url());
        let mut response = agent()
            .post(url)
            .header("content-type", "application/json")
            .send(body.to_string())
            .expect("an answer");
        let answer = response.body_mut().read_to_string().expect("text");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let id = answer["id"].as_u64();
        let id = id.unwrap_or_else(|| panic!("{subject} was refused: {answer}"));
        u32::try_from(id).expect("an id")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The broker's Java, which is there when the broker is.
fn java() -> PathBuf {
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    home.filter(|java| java.exists())
        .unwrap_or_else(|| PathBuf::from("java"))
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into()
}

fn get(url: &str) -> Option<String> {
    let mut response = agent().get(url).call().ok()?;
    let is_good = response.status() == 200;
    let text = response.body_mut().read_to_string().ok()?;
    is_good.then_some(text)
}

/// Where the registry's jars are; fetched where they are not.
fn installed() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let wanted = target.join(format!("apicurio-registry-{VERSION}"));
    let jar = format!("apicurio-registry-app-{VERSION}-runner.jar");
    if wanted.join(&jar).exists() {
        return wanted;
    }
    let partial = target.join(format!("apicurio-registry-{VERSION}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).expect("removed");
    }
    fs::create_dir_all(&partial).expect("a directory");
    let run = |command: &mut Command| {
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(
            output.status.success(),
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    };
    // A repository of its own, with a parent of the artifact's description: it is asked for, nothing in it
    // is of use here, and it need not be fetched.
    let repository = partial.join("repository");
    let parent = repository.join(format!("io/apicurio/apicurio-registry/{VERSION}"));
    fs::create_dir_all(&parent).expect("a directory");
    let text = format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>io.apicurio</groupId>\
         <artifactId>apicurio-registry</artifactId><version>{VERSION}</version>\
         <packaging>pom</packaging></project>"
    );
    fs::write(
        parent.join(format!("apicurio-registry-{VERSION}.pom")),
        text,
    )
    .expect("written");
    run(Command::new("mvn")
        .arg(format!("-Dmaven.repo.local={}", repository.display()))
        .args([
            "--quiet",
            "--batch-mode",
            "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy",
        ])
        .arg(format!(
            "-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
        ))
        .arg(format!("-DoutputDirectory={}", partial.display())));
    let archive = partial.join(format!("apicurio-registry-app-{VERSION}-all.tar.gz"));
    run(Command::new("tar")
        .arg("xzf")
        .arg(&archive)
        .arg("-C")
        .arg(&partial));
    fs::remove_file(archive).expect("removed");
    fs::remove_dir_all(repository).expect("removed");
    assert!(partial.join(&jar).exists(), "no {jar} in {partial:?}");
    fs::rename(&partial, &wanted).expect("renamed");
    wanted
}
