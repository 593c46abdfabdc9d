//! Ids from schemas, with a real schema registry and a real broker: what is in the values is written
//! by hand or by other libraries, byte by byte, and each record says in a header what its id is.

#[path = "../kit/secured/certificates.rs"]
mod certificates;
#[path = "../kit/mod.rs"]
mod kit;
mod registry;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use certificates::Authority;
use kit::expected::{Limits, expect_forwarded};
use kit::{Deployment, Rec, broker, now_ms, unique, wait_for};
use registry::Registry;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

struct Shared {
    registry: Registry,
    ca: PathBuf,
    _dir: TempDir,
}

/// The one registry of these tests, which take turns, as one of them kills it.
fn registry() -> MutexGuard<'static, Shared> {
    static SHARED: OnceLock<Mutex<Shared>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        // Broker and registry start side by side.
        let broker = std::thread::spawn(broker);
        let dir = TempDir::new().expect("a directory for the registry");
        let authority = Authority::new(dir.path(), "schemas");
        let both = authority.sign("registry", &["localhost", "127.0.0.1"], false);
        let (certificate, key) = (both.with_extension("crt"), both.with_extension("key"));
        let registry = Registry::start(dir.path(), &certificate, &key);
        broker.join().expect("a broker");
        Mutex::new(Shared {
            registry,
            ca: authority.certificate.clone(),
            _dir: dir,
        })
    });
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value in the wire format.
fn framed(schema: u32, body: &[u8]) -> Vec<u8> {
    [&[0], schema.to_be_bytes().as_slice(), body].concat()
}

/// Length and bytes, as Avro and Protobuf write short ones: Avro's lengths are doubled.
fn avro_text(text: &str) -> Vec<u8> {
    [&[2 * text.len() as u8], text.as_bytes()].concat()
}

/// A record whose id is what the header says; without one it has none.
fn record(value: Vec<u8>, id: Option<&str>) -> Rec {
    Rec {
        key: Some(b"k".to_vec()),
        value: Some(value),
        headers: vec![("message-id".to_owned(), id.map(|id| id.as_bytes().to_vec()))],
        timestamp: now_ms(),
    }
}

fn id(record: &Rec) -> Option<Vec<u8>> {
    record.header("message-id").map(<[u8]>::to_vec)
}

/// What is let through where records without an id are rejected.
fn with_ids(_: i32, input: &[(i64, Rec)]) -> Vec<Rec> {
    let mut records = expect_forwarded(Limits::time(86_400_000), input, id);
    records.retain(|record| id(record).is_some());
    records
}

fn run(deployment: &Deployment, arguments: &[&str]) -> (String, Output) {
    let config = deployment.config_file();
    let output = Command::new(kit::BINARY)
        .args(arguments)
        .arg("-c")
        .arg(config)
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (text, output)
}

fn passes_verify(deployment: &Deployment) {
    let (text, output) = run(deployment, &["verify", "--strict"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
    assert!(text.contains("passed"), "{text}");
}

/// The reasons in the rejected topic, sorted.
fn rejected(deployment: &Deployment) -> Vec<String> {
    let topic = format!("{}_rejected", deployment.input);
    let records = (0..deployment.partitions)
        .flat_map(|partition| deployment.kafka.read_partition(&topic, partition));
    let mut reasons: Vec<String> = records
        .map(|(_, record)| {
            let reason = record.header("dedup-reason").expect("a reason");
            String::from_utf8_lossy(reason).into_owned()
        })
        .collect();
    reasons.sort();
    reasons
}

const REJECT: &str = "rejected: {topic: \"{topic}_rejected\"}\n";

#[test]
fn avro_ids_are_found_in_each_version_of_a_schema_and_what_has_none_is_set_aside() {
    let shared = registry();
    let extra = format!(
        "id: {{from: {{avro: /event/id}}, missing: reject}}\n{REJECT}schemas: {{registry: \"{}\", ca: {}, timeout: 30s, unknown: missing}}\n",
        shared.registry.https_url(),
        shared.ca.display()
    );
    let deployment = Deployment::new("avro", 1, &extra);
    let subject = format!("{}-value", deployment.input);
    let address = unique("address");
    shared.registry.register(
        &address,
        "AVRO",
        r#"{"type":"record","name":"Address","namespace":"geo","fields":[{"name":"street","type":"string"}]}"#,
        &[],
    );
    let first = shared.registry.register(
        &subject,
        "AVRO",
        r#"{"type":"record","name":"Order","fields":[{"name":"event","type":
            {"type":"record","name":"Event","fields":[{"name":"id","type":"string"}]}}]}"#,
        &[],
    );
    let second = shared.registry.register(
        &subject,
        "AVRO",
        r#"{"type":"record","name":"Order","fields":[
            {"name":"to","type":["null","geo.Address"],"default":null},
            {"name":"tags","type":{"type":"array","items":"string"},"default":[]},
            {"name":"event","type":{"type":"record","name":"Event","fields":[
                {"name":"weight","type":"double","default":0},{"name":"id","type":["string","null"]}]}}]}"#,
        &[("geo.Address", &address, 1)],
    );
    let of_first = |id: &str| record(framed(first, &avro_text(id)), Some(id));
    let of_second = |id: &str| {
        let body = [
            b"\x02\x06elm\x02\x02t\0".as_slice(),
            &[0; 8],
            b"\0",
            &avro_text(id),
        ];
        record(framed(second, &body.concat()), Some(id))
    };
    let mut records = Vec::new();
    for n in 0..200 {
        // Each comes in both versions, now this one first and now the other.
        let name = format!("order-{n}");
        let mut pair = [of_first(&name), of_second(&name)];
        pair.rotate_left(n % 2);
        records.extend(pair);
        records.push(of_first(&format!("alone-{n}")));
    }
    let null = [b"\0\0".as_slice(), &[0; 8], b"\x02"].concat();
    records.push(record(framed(second, &null), None));
    records.push(record(Vec::new(), None));
    let sound = framed(first, &avro_text("order-1"));
    let mut bad_magic = sound.clone();
    bad_magic[0] = 1;
    let unparsable = [
        bad_magic,
        b"plain text".to_vec(),
        sound[..3].to_vec(),
        sound[..8].to_vec(),
        framed(999_999, &avro_text("order-1")),
    ];
    records.extend(unparsable.map(|value| record(value, None)));
    records.push(of_second("order-1"));
    records.push(of_first("the end"));
    deployment.kafka.produce(&deployment.input, 0, &records);

    let (text, output) = run(&deployment, &["check"]);
    assert!(output.status.success(), "{text}");
    for part in [
        format!("schema registry {}", shared.registry.https_url()),
        format!("{subject} version 2, schema id {second}, AVRO"),
        format!("{subject}: the id is at /event/id: string"),
    ] {
        assert!(text.contains(&part), "no {part:?} in {text}");
    }
    let mut service = deployment.start("a");
    deployment.wait_until_caught_up(PATIENCE);
    deployment.assert_output(with_ids);
    let reasons = [&["missing-id"; 2][..], &["unparsable"; 5]].concat();
    assert_eq!(rejected(&deployment), reasons);
    assert_eq!(
        service.metric("kafka_dedup_schema_requests_total{outcome=\"answered\"}"),
        2.0
    );
    assert!(service.terminate().success());
    passes_verify(&deployment);
    let (text, output) = run(&deployment, &["scan", &deployment.input, "--json"]);
    assert!(output.status.success(), "{text}");
    let scanned: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let want = deployment.kafka.read_partition(&deployment.input, 0);
    let forwarded = with_ids(0, &want).len();
    assert_eq!(scanned["distinct_ids"], forwarded, "{text}");

    // A certificate of somebody else is no registry's.
    let dir = TempDir::new().expect("a directory");
    let other = Authority::new(dir.path(), "other");
    let extra = extra.replace(
        shared.ca.to_str().expect("a path"),
        other.certificate.to_str().expect("a path"),
    );
    let stranger = Deployment::on(deployment.input.clone(), 1, &extra);
    let (text, output) = run(&stranger, &["check"]);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("the registry cannot be asked"), "{text}");
}

#[test]
fn protobuf_ids_are_found_in_nested_messages_by_their_numbers() {
    let shared = registry();
    let extra = format!(
        "id: {{from: {{protobuf: /event/id}}, missing: reject}}\n{REJECT}schemas: {{registry: \"{}\"}}\n",
        shared.registry.url()
    );
    let deployment = Deployment::new("protobuf", 1, &extra);
    let common = unique("common");
    shared.registry.register(
        &common,
        "PROTOBUF",
        "syntax = \"proto3\";\npackage common;\nmessage Event { double weight = 1; string id = 20; }\n",
        &[],
    );
    let schema = shared.registry.register(
        &format!("{}-value", deployment.input),
        "PROTOBUF",
        "syntax = \"proto3\";\nimport \"common/event.proto\";\nmessage Other { string id = 1; }\nmessage Order {\n  repeated string tags = 1;\n  common.Event event = 7;\n  message Line { common.Event event = 2; }\n}\n",
        &[("common/event.proto", &common, 1)],
    );
    // Field 20, a string; inside of field 7 of the second message, or of field 2 of its first inner one.
    let event = |id: &str| [b"\xa2\x01".as_slice(), &[id.len() as u8], id.as_bytes()].concat();
    let within = |tag: u8, event: &[u8]| [&[tag, event.len() as u8], event].concat();
    let order = |id: &str| {
        let body = [b"\x02\x02\x0a\x01t".as_slice(), &within(0x3a, &event(id))];
        record(framed(schema, &body.concat()), Some(id))
    };
    let line = |id: &str| {
        let body = [b"\x04\x02\0".as_slice(), &within(0x12, &event(id))];
        record(framed(schema, &body.concat()), Some(id))
    };
    let mut records: Vec<Rec> = (0..100)
        .flat_map(|n| {
            let (one, two) = (format!("p-{}", n % 60), format!("p-{}", n % 45));
            [order(&one), line(&two)]
        })
        .collect();
    records.push(record(framed(schema, b"\0\x0a\x01x"), None));
    records.push(record(framed(schema, b"\x02\x02\x0a\x01t"), None));
    records.push(record(framed(schema, b"\x02\x06\x0a\x01t"), None));
    records.push(record(framed(schema, b"\x02\x02\x3a\x7ft"), None));
    records.push(order("the end"));
    deployment.kafka.produce(&deployment.input, 0, &records);
    let (text, output) = run(&deployment, &["check"]);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("string of Order or string of Order.Line"),
        "{text}"
    );
    let mut service = deployment.start("a");
    deployment.wait_until_caught_up(PATIENCE);
    deployment.assert_output(with_ids);
    let reasons = ["missing-id", "missing-id", "unparsable", "unparsable"];
    assert_eq!(rejected(&deployment), reasons);
    assert!(service.terminate().success());
    passes_verify(&deployment);
}

#[test]
fn framed_json_needs_no_registry_and_an_unknown_schema_stops_the_service_where_it_is_to() {
    let shared = registry();
    let strict = Deployment::new(
        "strict",
        1,
        &format!(
            "id: {{from: {{avro: /id}}}}\nschemas: {{registry: \"{}\"}}\n",
            shared.registry.url()
        ),
    );
    let schema = shared.registry.register(
        &format!("{}-value", strict.input),
        "AVRO",
        r#"{"type":"record","name":"R","fields":[{"name":"id","type":"string"}]}"#,
        &[],
    );
    let known = |id: &str| record(framed(schema, &avro_text(id)), Some(id));
    let unknown = record(framed(999_999, &avro_text("a")), Some("a"));
    let records = [known("a"), known("b"), known("a"), unknown, known("c")];
    strict.kafka.produce(&strict.input, 0, &records);
    let mut stops = strict.start("a");

    let json = Deployment::new("json", 1, "id: {from: {json_schema: /event/id}}\n");
    let event = |schema: u32, id: &str| {
        let text = format!("{{\"event\":{{\"x\":1,\"id\":\"{id}\"}}}}");
        record(framed(schema, text.as_bytes()), Some(id))
    };
    let mut records: Vec<Rec> = (0..100)
        .map(|n| event(1 + n % 2, &format!("j-{}", n % 30)))
        .collect();
    records.push(record(b"{\"event\":{\"id\":\"j-1\"}}".to_vec(), None));
    json.kafka.produce(&json.input, 0, &records);
    let mut service = json.start("a");
    json.wait_until_caught_up(PATIENCE);
    json.assert_output(|_, input| expect_forwarded(Limits::time(86_400_000), input, id));
    assert!(service.terminate().success());

    // The registry has to say no for ten seconds; what came before is in the output by then.
    let status = stops.wait(PATIENCE);
    assert_eq!(status.code(), Some(78), "{}", stops.log_tail());
    let last = stops.log_text();
    let place = format!("{}-0 offset 3 was written with schema 999999", strict.input);
    assert!(last.contains(&place), "{last}");
    assert_eq!(
        strict.kafka.committed(&strict.group, &strict.input, 0),
        Some(3)
    );
    let output = strict.kafka.read_partition(&strict.output, 0);
    assert_eq!(output.len(), 2);
}

#[test]
fn while_the_registry_is_down_nothing_is_guessed_and_nothing_is_lost() {
    let mut shared = registry();
    let extra = format!(
        "id: {{from: {{avro: /id}}}}\nduplicates: {{topic: \"{{topic}}_duplicates\"}}\nschemas: {{registry: \"{}\", timeout: 1s}}\n",
        shared.registry.url()
    );
    let deployment = Deployment::new("outage", 2, &extra);
    let subject = format!("{}-value", deployment.input);
    let old = shared.registry.register(
        &subject,
        "AVRO",
        r#"{"type":"record","name":"R","fields":[{"name":"id","type":"string"}]}"#,
        &[],
    );
    let new = shared.registry.register(
        &subject,
        "AVRO",
        r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long","default":0},{"name":"id","type":"string"}]}"#,
        &[],
    );
    let of_old = |id: &str| record(framed(old, &avro_text(id)), Some(id));
    let of_new = |id: &str| {
        let body = [b"\x0e".as_slice(), &avro_text(id)].concat();
        record(framed(new, &body), Some(id))
    };
    let olds = |range: std::ops::Range<u32>| -> Vec<Rec> {
        range.map(|n| of_old(&format!("id-{}", n / 2))).collect()
    };
    let (kafka, input) = (&deployment.kafka, &deployment.input);
    for partition in 0..2 {
        kafka.produce(input, partition, &olds(0..100));
    }
    let mut service = deployment.start("a");
    service.wait_until_ready();
    deployment.wait_until_caught_up(PATIENCE);

    shared.registry.kill();
    // In one partition a record of a schema that was never seen; in the other none.
    kafka.produce(
        input,
        0,
        &[
            of_old("before"),
            of_new("id-3"),
            of_new("new"),
            of_old("new"),
        ],
    );
    kafka.produce(input, 1, &olds(80..300));
    wait_for("not being ready", PATIENCE, || {
        let answer = service.get("/readyz?verbose");
        answer.is_some_and(|(status, text)| {
            status == 503
                && text.contains("/schemas: not ready")
                && text.contains(&format!("{input}-0"))
        })
    });
    wait_for("the other partition", PATIENCE, || {
        kafka.committed(&deployment.group, input, 1) == Some(320)
    });
    // Longer than a member that does not speak may be silent.
    std::thread::sleep(Duration::from_secs(3));
    let committed = kafka
        .committed(&deployment.group, input, 0)
        .expect("an offset");
    let before = kafka.read_partition(input, 0)[100].0;
    assert_eq!(committed, before + 1, "what cannot be judged was passed");
    assert!(kafka.nothing_hangs(&deployment.output, 0));
    assert!(!service.has_ended());

    shared.registry.start_again();
    deployment.wait_until_caught_up(PATIENCE);
    service.wait_until_ready();
    deployment.assert_output(|_, input| expect_forwarded(Limits::time(86_400_000), input, id));
    let lost = service.metric("kafka_dedup_rebalances_total{event=\"lost\"}");
    assert_eq!(lost, 0.0, "the group was not kept");
    assert!(service.terminate().success());
    passes_verify(&deployment);
}
