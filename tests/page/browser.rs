//! A real Chromium, by chromedriver and the W3C WebDriver protocol. Ends with its value.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kafka_dedup::demo::ports::free_ports;
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// Whether there is one to test with. In CI there has to be: false only elsewhere, and then it has said so.
pub fn is_here() -> bool {
    let found = Command::new("chromedriver").arg("--version").output();
    let is_here = found.is_ok() || std::env::var_os("CI").is_some();
    if !is_here {
        eprintln!(
            "no chromedriver here, so no page in a browser (Debian: apt install chromium chromium-driver)"
        );
    }
    is_here
}

pub struct Browser {
    driver: Child,
    /// Of the session.
    url: String,
    /// Its profile, new and empty.
    _profile: TempDir,
}

impl Browser {
    /// `scripts`: whether pages may run any.
    pub fn open(scripts: bool) -> Self {
        let port = free_ports(1).expect("a free port")[0];
        let profile = TempDir::new().expect("a directory");
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver (Debian: chromium-driver)");
        let data = format!("--user-data-dir={}", profile.path().display());
        let mut options = json!({"args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--window-size=1280,1400", data
        ]});
        if !scripts {
            options["prefs"] = json!({"profile.managed_default_content_settings.javascript": 2});
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let root = format!("http://127.0.0.1:{port}/session");
        let deadline = Instant::now() + PATIENCE;
        let session = loop {
            match post(&root, &wanted) {
                Ok(session) => break session,
                Err(error) => assert!(Instant::now() < deadline, "no browser: {error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let id = session["sessionId"].as_str().expect("a session");
        Self {
            driver,
            url: format!("{root}/{id}"),
            _profile: profile,
        }
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        post(&format!("{}/{path}", self.url), body)
            .unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    pub fn go(&self, url: &str) {
        self.command("url", &json!({"url": url}));
    }

    /// Whether somebody answers there.
    pub fn goes(&self, url: &str) -> bool {
        post(&format!("{}/url", self.url), &json!({"url": url})).is_ok()
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text of all that is visible and matches.
    pub fn text(&self, selector: &str) -> String {
        let found = self.command(
            "elements",
            &json!({"using": "css selector", "value": selector}),
        );
        let elements = found.as_array().cloned().unwrap_or_default();
        let texts = elements.iter().filter_map(|element| {
            let id = element.as_object()?.values().next()?.as_str()?;
            // It may have been replaced meanwhile.
            let text = get(&format!("{}/element/{id}/text", self.url)).ok()?;
            Some(text.as_str()?.to_owned())
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    pub fn wait_for(&self, selector: &str, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.text(selector).contains(words) {
            assert!(
                Instant::now() < deadline,
                "no {words:?} in {selector}: {}",
                self.text(selector)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A phone or a desktop, light or dark.
    pub fn look(&self, width: u32, height: u32, scheme: &str) {
        let cdp = |method: &str, params: Value| {
            self.command(
                "goog/cdp/execute",
                &json!({"cmd": method, "params": params}),
            );
        };
        cdp(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}),
        );
        cdp(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
    }

    /// The whole page as PNG.
    pub fn picture(&self) -> Vec<u8> {
        self.captured(&json!({"captureBeyondViewport": true}))
    }

    /// So much of the page, from its top, and smaller by this factor.
    pub fn top(&self, width: u32, height: u32, scale: f64) -> Vec<u8> {
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": scale});
        self.captured(&json!({"clip": clip, "captureBeyondViewport": true}))
    }

    fn captured(&self, params: &Value) -> Vec<u8> {
        use base64::Engine;
        let shot = self.command(
            "goog/cdp/execute",
            &json!({"cmd": "Page.captureScreenshot", "params": params}),
        );
        let text = shot["data"].as_str().expect("a picture");
        let engine = base64::engine::general_purpose::STANDARD;
        engine.decode(text).expect("base64")
    }

    /// What the console has said since it was asked last.
    pub fn console(&self) -> Vec<String> {
        let log = self.command("se/log", &json!({"type": "browser"}));
        let lines = log.as_array().cloned().unwrap_or_default();
        lines.iter().map(Value::to_string).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = agent().delete(&self.url).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}

fn post(url: &str, body: &Value) -> Result<Value, String> {
    let sent = agent()
        .post(url)
        .header("Content-Type", "application/json")
        .send(body.to_string());
    answer(sent)
}

fn get(url: &str) -> Result<Value, String> {
    answer(agent().get(url).call())
}

fn answer(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Value, String> {
    let mut response = response.map_err(|error| error.to_string())?;
    let text = response
        .body_mut()
        .with_config()
        .limit(50_000_000)
        .read_to_string();
    let text = text.map_err(|error| error.to_string())?;
    let json: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    match json["value"]["error"].as_str() {
        Some(error) => Err(format!("{error}: {}", json["value"]["message"])),
        None => Ok(json["value"].clone()),
    }
}
