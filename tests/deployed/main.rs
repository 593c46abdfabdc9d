//! Starts what the manifests would start, without Kubernetes: the same arguments, environment, config, user, read-only
//! root, volumes and probes, against a broker with TLS, SCRAM and an authorizer that allows what SECURITY.md lists.
//! What differs is where Kafka is. Not played: the memory limit, seccomp, the network policy.
//!
//! ```text
//! make check-configs          renders the manifests (which takes helm and kustomize), and runs this on what comes of it
//! ```

#[path = "../kit/mod.rs"]
mod kit;
mod pod;
#[allow(dead_code, reason = "it is another test's broker too")]
#[path = "../kit/secured/mod.rs"]
mod secured;

use std::fs;
use std::time::Duration;

use kit::{Deployment, Kafka, Rec, now_ms};
use pod::Pod;
use secured::{PASSWORD, Secured, Way};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);

fn send(kafka: &Kafka, from: i64) {
    for partition in 0..3 {
        // One in four is the one before it.
        let numbers = from..from + 400;
        let record = |n: i64| Rec::with_id(format!("{}", n - i64::from(n % 4 == 3)), now_ms());
        kafka.produce(
            "truck_position",
            partition,
            &numbers.map(record).collect::<Vec<_>>(),
        );
    }
}

fn by_header(input: &[(i64, Rec)]) -> Vec<Rec> {
    kit::expected::expect_forwarded(kit::expected::Limits::time(86_400_000), input, |record| {
        record.header("message-id").map(<[u8]>::to_vec)
    })
}

#[test]
#[ignore = "make check-configs runs it: it needs what helm and kustomize make"]
fn what_the_manifests_start_works() {
    let file =
        std::env::var("KAFKA_DEDUP_MEMBERS").expect("KAFKA_DEDUP_MEMBERS, see make check-configs");
    let members: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(file).expect("read")).expect("JSON");
    let way = Way {
        listener: "SECURED",
        protocol: "SASL_SSL",
        certificate: "good",
        proxied: false,
    };
    let secured = Secured::start(&[way], &[], &["dedup"]);
    secured.plain.create_topic("truck_position", 3, &[]);
    let mut it = Deployment::of(&secured.plain, "truck_position".to_owned(), 3, "");
    it.group = "trucks-dedup".to_owned();
    secured.grant("dedup", &it);
    let broker = format!("127.0.0.1:{}", secured.ports("SECURED").1);

    // The others speak to brokers without passwords, or with certificates of their own.
    let config_of = |member: &Value| member["config"].as_str().unwrap_or_default().to_owned();
    let mut ours: Vec<&Value> = members
        .iter()
        .filter(|member| {
            let config = config_of(member);
            config.contains("group_id: trucks-dedup") && config.contains("SCRAM-SHA-512")
        })
        .collect();
    // A static member keeps its partitions for its session: it comes last.
    ours.sort_by_key(|member| config_of(member).contains("static_membership: true"));
    let mut from = 0;
    let mut played = Vec::new();
    for member in ours {
        let way = member["way"].as_str().expect("its name");
        eprintln!("{way}");
        let pod = Pod::new(member, &broker, &secured.authority.certificate, PASSWORD);
        pod.check_config();
        let mut running = pod.start();
        pod.wait_until_ready(PATIENCE);
        send(&secured.plain, from);
        it.wait_until_caught_up(PATIENCE);
        pod.assert_alive_and_not_degraded();
        running.end_in_time();
        // The pod's volume is there again after a restart of its container.
        let mut running = pod.start();
        pod.wait_until_ready(PATIENCE);
        send(&secured.plain, from + 200);
        it.wait_until_caught_up(PATIENCE);
        running.end_in_time();
        from += 600;
        it.assert_output(|_, input| by_header(input));
        played.push(way);
    }
    assert!(
        played.len() >= 5,
        "only {played:?} of {} ways",
        members.len()
    );
}
