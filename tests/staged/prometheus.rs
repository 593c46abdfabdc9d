//! A real Prometheus with the rules of `deploy/prometheus/rules.yaml`, in which time goes sixty times as fast: an
//! hour is a minute, and a minute a second. Ends with its value.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kafka_dedup::demo::ports::free_ports;
use regex::Regex;
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::kit::wait_for;

pub struct Prometheus {
    process: Child,
    url: String,
    dir: TempDir,
    promtool: PathBuf,
}

/// As it is sent to whoever is on call.
#[derive(Debug, Clone, Serialize)]
pub struct Alert {
    pub severity: String,
    pub summary: String,
    pub description: String,
    pub runbook_url: String,
}

impl Prometheus {
    pub fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dir = TempDir::new().expect("a directory");
        let targets = dir.path().join("targets");
        fs::create_dir(&targets).expect("a directory");
        let rules = fs::read_to_string(root.join("deploy/prometheus/rules.yaml")).expect("rules");
        fs::write(dir.path().join("rules.yaml"), sixty_times_as_fast(&rules)).expect("written");
        let config = "
global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: files
    file_sd_configs: [{files: [targets/*.json], refresh_interval: 1s}]
";
        fs::write(dir.path().join("prometheus.yaml"), config).expect("written");

        let found = Command::new("bash").arg(root.join(".ci/promtool")).output();
        let found = found.expect("bash");
        let promtool = String::from_utf8(found.stdout).expect("a path");
        let promtool = PathBuf::from(promtool.lines().last().expect("promtool"));
        let program = promtool.with_file_name("prometheus");
        let port = free_ports(1).expect("a free port")[0];
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        let process = Command::new(program)
            .arg(format!(
                "--config.file={}",
                dir.path().join("prometheus.yaml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            // What is scraped four times a second is looked for no longer than this.
            .arg("--query.lookback-delta=5s")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let started = Self {
            process: process.expect("Prometheus"),
            url: format!("http://127.0.0.1:{port}"),
            dir,
            promtool,
        };
        wait_for("Prometheus", Duration::from_secs(60), || {
            ureq::get(format!("{}/-/ready", started.url)).call().is_ok()
        });
        started
    }

    /// From now on it scrapes these ports, as one job.
    pub fn watch(&self, job: &str, ports: &[u16]) {
        let targets: Vec<String> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let file = serde_json::json!([{"targets": targets, "labels": {"job": job}}]);
        // Moved into its place, so that it is never read half.
        let new = self.dir.path().join(format!("{job}.new"));
        fs::write(&new, file.to_string()).expect("written");
        fs::rename(new, self.dir.path().join(format!("targets/{job}.json"))).expect("moved");
    }

    /// What `promtool check metrics` has against a scrape.
    pub fn lint(&self, scrape: &str) -> String {
        let mut child = Command::new(&self.promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool");
        let mut input = child.stdin.take().expect("its input");
        input.write_all(scrape.as_bytes()).expect("written");
        drop(input);
        let said = child.wait_with_output().expect("its end");
        String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
    }

    /// How many series a query finds now.
    pub fn series(&self, query: &str) -> Result<usize, String> {
        let url = format!("{}/api/v1/query", self.url);
        let asked = ureq::get(url)
            .query("query", query)
            .config()
            .http_status_as_error(false)
            .build();
        let mut answer = asked.call().map_err(|error| error.to_string())?;
        let text = answer
            .body_mut()
            .read_to_string()
            .map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match answer["data"]["result"].as_array() {
            Some(series) => Ok(series.len()),
            None => Err(text),
        }
    }

    /// What fires for a job.
    pub fn firing(&self, job: &str) -> BTreeMap<String, Alert> {
        let answer = ureq::get(format!("{}/api/v1/alerts", self.url)).call();
        let mut answer = answer.expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let alerts = answer["data"]["alerts"].as_array().expect("alerts");
        let ours = alerts
            .iter()
            .filter(|it| it["state"] == "firing" && it["labels"]["job"] == job);
        ours.map(|it| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let alert = Alert {
                severity: text(&it["labels"]["severity"]),
                summary: text(&it["annotations"]["summary"]),
                description: text(&it["annotations"]["description"]),
                runbook_url: text(&it["annotations"]["runbook_url"]),
            };
            (text(&it["labels"]["alertname"]), alert)
        })
        .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!(
                "{}",
                fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
            );
        }
    }
}

/// Every duration; and every number of seconds, of which there are these.
fn sixty_times_as_fast(rules: &str) -> String {
    let mut fast = String::with_capacity(rules.len());
    let duration = Regex::new(r"\b(\d+)([mhd])\b").expect("sound");
    for line in rules.lines() {
        let line = duration.replace_all(line, |found: &regex::Captures<'_>| {
            let number: u32 = found[1].parse().expect("a number");
            match &found[2] {
                "m" => format!("{number}s"),
                "h" => format!("{number}m"),
                _ => format!("{}m", 24 * number),
            }
        });
        let _ = writeln!(fast, "{line}");
    }
    for (seconds, fewer, times) in [
        // What librdkafka says in its own time.
        ("AllBrokersDown\"}[2s]", "AllBrokersDown\"}[15s]", 1),
        ("since_commit:seconds > 120", "since_commit:seconds > 2", 1),
        ("drain_seconds <= 60", "drain_seconds <= 1", 2),
        ("rate15m * 900", "rate15m * 15", 3),
        ("rate30m * 1800", "rate30m * 30", 1),
    ] {
        assert_eq!(
            fast.matches(seconds).count(),
            times,
            "{seconds}: the rules have changed"
        );
        fast = fast.replace(seconds, fewer);
    }
    let left = Regex::new(r"seconds [<>]=? \d{2,}|rate\w* \* \d{3,}").expect("sound");
    if let Some(found) = left.find(&fast) {
        panic!("a number of seconds? {}", found.as_str());
    }
    fast
}
