//! Every secret place holds a marker, every command runs well and badly, and all that comes out is
//! searched for the markers.

use std::process::Command;
use std::time::Duration;

use crate::broker::{PASSWORD, secured};
use crate::kit::{BINARY, Deployment};
use crate::start::send_some;

const WRONG: &str = "wrong-marker-0815";
const OTHERS: [(&str, &str); 3] = [
    ("ssl.key.password", "key-marker-2342"),
    ("sasl.oauthbearer.config", "config-marker-9999"),
    ("debug", "all"),
];

fn secretive(password: &str) -> (Deployment, Vec<String>) {
    let key = std::fs::read_to_string(secured().dir.path().join("mutual.key")).expect("a key");
    let certificate =
        std::fs::read_to_string(secured().dir.path().join("mutual.crt")).expect("a certificate");
    let mut properties = secured().sasl("SCRAM-SHA-512", "watched", password);
    for (name, value) in OTHERS {
        properties.push((name.to_owned(), value.to_owned()));
    }
    let mut markers = vec![
        key.lines().nth(1).expect("base64").to_owned(),
        password.to_owned(),
    ];
    markers.extend(
        OTHERS
            .iter()
            .filter(|(_, v)| v.contains("marker"))
            .map(|(_, v)| (*v).to_owned()),
    );
    properties.push(("ssl.key.pem".to_owned(), key));
    properties.push(("ssl.certificate.pem".to_owned(), certificate));
    let mut deployment = secured().deployment("watched", "SECURED", properties);
    deployment.extra = "log: {level: debug}\n".to_owned();
    (deployment, markers)
}

fn assert_silent(what: &str, text: &str, markers: &[String]) {
    for marker in markers {
        if let Some(at) = text.find(marker.as_str()) {
            let from = text[..at].rfind('\n').map_or(0, |line| line + 1);
            panic!("{what} shows {marker}: {}", &text[from..at]);
        }
    }
}

/// What a command prints, and its exit status.
pub fn printed(deployment: &Deployment, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(BINARY)
        .args(arguments)
        .envs(deployment.env.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("the program");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn config_of(deployment: &Deployment) -> String {
    let files = std::fs::read_dir(deployment.dir.path()).expect("the directory");
    let file = files
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "yaml"))
        .expect("a config");
    file.display().to_string()
}

#[test]
fn no_secret_comes_out_of_a_service_that_works() {
    let (deployment, markers) = secretive(PASSWORD);
    secured().grant("watched", &deployment);
    send_some(&deployment);
    let mut instance = deployment.start("one");
    instance.wait_until_ready();
    deployment.wait_until_caught_up(Duration::from_secs(60));
    let file = config_of(&deployment);
    let text = std::fs::read_to_string(&file).expect("the config");
    let admin = text
        .split("admin: \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("admin");
    let status = ureq::get(format!("http://{admin}/status"))
        .call()
        .expect("the status page")
        .body_mut()
        .read_to_string()
        .expect("text");
    assert!(status.contains(&deployment.group), "{status}");
    assert_silent("/status", &status, &markers);
    for path in ["/metrics", "/readyz?verbose", "/version", "/nothing"] {
        let (_, answer) = instance.get(path).expect("an answer");
        assert_silent(path, &answer, &markers);
    }
    for arguments in [
        &["check", "-c", &file][..],
        &["check", "-c", &file, "--offline"],
        &["scan", &deployment.input, "-c", &file],
        &["inspect", "-c", &file, "--id", "1"],
    ] {
        let (status, text) = printed(&deployment, arguments);
        assert_eq!(status, Some(0), "{arguments:?}: {text}");
        assert_silent(arguments[0], &text, &markers);
    }
    let (_, shown) = printed(&deployment, &["check", "-c", &file, "--offline"]);
    assert!(
        shown.contains("\"sasl.password\": \"<redacted>\""),
        "{shown}"
    );
    assert!(instance.terminate().success(), "{}", instance.log_tail());
    let log = instance.log_text();
    assert!(
        log.contains("rdkafka") && log.contains("sasl.password"),
        "librdkafka's debug log is in it"
    );
    assert_silent("the log", &log, &markers);
}

#[test]
fn no_secret_comes_out_of_a_service_that_does_not() {
    let (deployment, mut markers) = secretive(WRONG);
    let mut instance = deployment.start("one");
    let file = config_of(&deployment);
    for arguments in [
        &["check", "-c", &file][..],
        &["scan", &deployment.input, "-c", &file],
        &["inspect", "-c", &file],
    ] {
        let (status, text) = printed(&deployment, arguments);
        assert_ne!(status, Some(0), "{arguments:?}: {text}");
        assert_silent(arguments[0], &text, &markers);
    }
    assert_eq!(instance.wait(Duration::from_secs(90)).code(), Some(69));
    assert_silent("the log", &instance.log_text(), &markers);
    // Values that the client library refuses, and names that it does not know.
    markers.push("slip-marker-5555".to_owned());
    for (name, value) in [
        ("SASL_PASWORD", "slip-marker-5555"),
        ("SASL_OAUTHBEARER_CLIENT_SECRET", "slip-marker-5555"),
        ("SSL_KEY_PEM", "slip-marker-5555"),
        ("SSL_KEYSTORE_PASSWORD", "slip-marker-5555"),
        (
            "SSL_CERTIFICATE_PEM",
            "-----BEGIN PRIVATE KEY-----slip-marker-5555",
        ),
        ("SASL_OAUTHBEARER_CONFIG", "slip-marker-5555"),
    ] {
        let (mut broken, _) = secretive(WRONG);
        let name = format!("KAFKA_DEDUP__KAFKA__PROPERTIES__{name}");
        broken.env.retain(|(other, _)| *other != name);
        broken.env.push((name.clone(), value.to_owned()));
        if name.contains("OAUTHBEARER") {
            broken
                .env
                .retain(|(other, _)| !other.ends_with("SASL_MECHANISM"));
            for (name, value) in [
                ("SASL_MECHANISM", "OAUTHBEARER"),
                ("ENABLE_SASL_OAUTHBEARER_UNSECURE_JWT", "true"),
            ] {
                broken.env.push((
                    format!("KAFKA_DEDUP__KAFKA__PROPERTIES__{name}"),
                    value.to_owned(),
                ));
            }
        }
        // `run` tries for half a minute where the broker refuses; those that fail at once do.
        let commands = match name.ends_with("_PEM") {
            true => &["check", "run"][..],
            false => &["check"],
        };
        for command in commands {
            let (status, text) = printed(&broken, &[command, "-c", &file]);
            assert_ne!(status, Some(0), "{command} with {name}: {text}");
            assert_silent(&format!("{command} with {name}"), &text, &markers);
        }
    }
    let flags = [
        "scan",
        "t",
        "-b",
        "127.0.0.1:1",
        "--id",
        "key",
        "-X",
        "sasl.password:slip-marker-5555",
    ];
    let (status, text) = printed(&deployment, &flags);
    assert_eq!(status, Some(64), "{text}");
    assert_silent("scan -X", &text, &markers);
}
