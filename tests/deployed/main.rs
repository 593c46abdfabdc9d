//! Starts what the manifests would start, without Kubernetes: the same arguments, environment, config, user, read-only
//! root, volumes and probes, against a broker with TLS, SCRAM, certificates of clients and an authorizer that allows what
//! SECURITY.md lists. What differs is where Kafka is. Not played: the memory limit, seccomp, the network policy.
//!
//! ```text
//! make check-configs          renders the manifests (which takes helm and kustomize), and runs this on what comes of it
//! ```

#[path = "../kit/mod.rs"]
mod kit;
mod pod;
mod scene;
#[allow(dead_code, reason = "it is another test's broker too")]
#[path = "../kit/secured/mod.rs"]
mod secured;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pod::{Files, Pod};
use scene::{Scene, scenes};
use secured::access::allow;
use secured::{PASSWORD, Secured, Way, least_privilege};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);

/// A user with a password, and one with a certificate.
const USER: &str = "dedup";
const CERTIFIED: &str = "fleet";

fn config_of(member: &Value) -> &str {
    member["config"].as_str().unwrap_or_default()
}

#[test]
#[ignore = "make check-configs runs it: it needs what helm and kustomize make"]
fn what_the_manifests_start_works() {
    let file =
        std::env::var("KAFKA_DEDUP_MEMBERS").expect("KAFKA_DEDUP_MEMBERS, see make check-configs");
    let mut members: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(file).expect("read")).expect("JSON");
    // A static member keeps its partitions for its session: it comes last.
    members.sort_by_key(|member| config_of(member).contains("static_membership: true"));

    let way = |listener, protocol| Way {
        listener,
        protocol,
        certificate: "good",
        proxied: false,
    };
    let ways = [way("PASSWORDS", "SASL_SSL"), way("CERTIFICATES", "SSL")];
    let mutual = ("listener.name.certificates.ssl.client.auth", "required");
    let secured = Secured::start(&ways, &[mutual], &[USER]);
    let files = secrets(&secured);
    let mut scenes = scenes(&secured.plain);
    for member in &members {
        let config = config_of(member);
        let of_group = |scene: &&mut Scene| config.contains(&format!("group_id: {}", scene.group));
        let scene = scenes.iter_mut().find(of_group);
        let scene = scene.unwrap_or_else(|| panic!("a group that no scene is of:\n{config}"));
        let (listener, user) = if config.contains("SASL_SSL") {
            ("PASSWORDS", USER.to_owned())
        } else {
            ("CERTIFICATES", format!("CN={CERTIFIED}"))
        };
        for it in &scene.inputs {
            let beside = scene.beside(it);
            let grants = least_privilege(it, beside.as_deref().as_slice());
            allow(&secured.plain, &user, &grants);
        }
        let broker = format!("127.0.0.1:{}", secured.ports(listener).1);
        eprintln!("{}", member["way"]);
        play(&Pod::new(member, &broker, &files), scene);
    }
    assert!(scenes.iter().all(|scene| scene.sent > 0));
    assert!(members.len() >= 7, "only {} ways", members.len());
}

/// A pod at work, and again with what its volume holds.
fn play(pod: &Pod<'_>, scene: &mut Scene) {
    pod.check_config();
    for _ in 0..2 {
        let mut running = pod.start();
        pod.wait_until_ready(PATIENCE);
        scene.send();
        scene.wait_until_caught_up(PATIENCE);
        pod.assert_alive_and_not_degraded();
        running.end_in_time();
    }
    (scene.assert_outputs)(&scene.inputs);
}

/// What Secrets and ConfigMaps have in them.
fn secrets(secured: &Secured) -> Files {
    let certificate = secured.authority.sign(CERTIFIED, &[], false);
    let read = |path: &Path| fs::read(path).expect("read");
    let authority = read(&secured.authority.certificate);
    [
        ("password", PASSWORD.as_bytes().to_vec()),
        ("ca.crt", authority.clone()),
        ("ca.pem", authority),
        ("tls.crt", read(&certificate.with_extension("crt"))),
        ("tls.key", lock(&certificate.with_extension("key"))),
    ]
    .into()
}

/// A key that takes the password to be read.
fn lock(key: &Path) -> Vec<u8> {
    let done = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-v2", "aes256", "-passout"])
        .arg(format!("pass:{PASSWORD}"))
        .arg("-in")
        .arg(key)
        .output()
        .expect("openssl");
    assert!(done.status.success(), "{done:?}");
    done.stdout
}
