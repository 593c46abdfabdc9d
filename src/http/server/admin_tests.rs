//! The admin interface, asked as its own command asks it, and as a page of another site would.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::tests::{Running, start_with};
use crate::control::{Answer, Ask, What};
use crate::http::PartitionStatus;

/// Status and body of a request whose head is as it is given here.
fn raw(address: SocketAddr, head: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let request = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let code = answer
        .split(' ')
        .nth(1)
        .and_then(|it| it.parse().ok())
        .unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (code, serde_json::from_str(body).unwrap_or(Value::Null))
}

const JSON: &str = "Content-Type: application/json\r\n";

fn post(run: &Running, path: &str, headers: &str, body: &str) -> (u16, Value) {
    let head = format!(
        "POST /admin/v1/{path} HTTP/1.1\r\nHost: {}\r\n{JSON}{headers}",
        run.admin
    );
    raw(run.admin, &head, body)
}

fn get(run: &Running, path: &str, headers: &str) -> (u16, Value) {
    let head = format!(
        "GET /admin/v1/{path} HTTP/1.1\r\nHost: {}\r\n{headers}",
        run.admin
    );
    raw(run.admin, &head, "")
}

#[test]
fn pause_bypass_and_log_level_are_told_and_taken_back() {
    let run = start_with("");
    run.site.status.update(0, vec![row("orders")]);
    let (code, state) = post(&run, "pause", "", "{}");
    assert_eq!((code, state["paused"][0]["topic"].is_null()), (200, true));
    assert!(run.control.is_paused("orders"));
    assert_eq!(post(&run, "pause", "", r#"{"topic":"orders"}"#).0, 200);
    let (code, said) = post(&run, "pause", "", r#"{"topic":"ordres"}"#);
    assert_eq!(code, 404);
    assert!(
        said["error"]
            .as_str()
            .unwrap()
            .contains("it has some of: orders"),
        "{said}"
    );
    assert_eq!(post(&run, "resume", "", r#"{"topic":"ordres"}"#).0, 409);
    assert_eq!(post(&run, "resume", "", "").0, 200);
    assert!(!run.control.pauses());
    assert_eq!(post(&run, "bypass", "", r#"{"on":true}"#).1["bypass"], true);
    assert!(run.control.is_bypassed());
    assert_eq!(
        post(&run, "log-level", "", r#"{"level":"debug"}"#).1["log_level"],
        "debug"
    );
    assert_eq!(
        post(&run, "log-level", "", r#"{"level":"info,x=loud"}"#).0,
        400
    );
    assert_eq!(post(&run, "log-level", "", "{}").1["log_level"], "info");
    assert_eq!(get(&run, "state", "").1["bypass"], true);
    let text = run.site.metrics.encode();
    for line in [
        "kafka_dedup_bypass 1",
        "kafka_dedup_paused 0",
        "kafka_dedup_admin_requests_total{command=\"pause\",outcome=\"done\"} 2",
        "kafka_dedup_admin_requests_total{command=\"pause\",outcome=\"refused\"} 1",
    ] {
        assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
    }
}

#[test]
fn what_another_site_could_send_is_refused() {
    let run = start_with(", admin_hosts: [dedup.ops]");
    let port = run.admin.port();
    let with_host = |host: &str| {
        let head = format!("POST /admin/v1/bypass HTTP/1.1\r\nHost: {host}\r\n{JSON}");
        raw(run.admin, &head, r#"{"on":true}"#).0
    };
    for host in [
        "evil.example",
        "evil.example:9465",
        "127.0.0.1.evil.example",
        "",
        "localhost.evil:1",
    ] {
        assert_eq!(with_host(host), 403, "{host}");
    }
    assert!(!run.control.is_bypassed());
    for host in [
        "localhost",
        "[::1]:1",
        "10.1.2.3",
        "DEDUP.ops:80",
        &format!("127.0.0.1:{port}"),
    ] {
        assert_eq!(with_host(host), 200, "{host}");
    }
    run.control.set_bypass(false);
    let on = r#"{"on":true}"#;
    assert_eq!(
        post(&run, "bypass", "Origin: http://evil.example\r\n", on).0,
        403
    );
    assert_eq!(post(&run, "bypass", "Origin: null\r\n", on).0, 403);
    let own = format!("Origin: http://{}\r\n", run.admin);
    assert_eq!(post(&run, "bypass", &own, on).0, 200);
    run.control.set_bypass(false);
    // What a form can send, and what changes nothing by a link.
    let head = format!(
        "POST /admin/v1/bypass HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\n",
        run.admin
    );
    assert_eq!(raw(run.admin, &head, on).0, 415);
    assert_eq!(get(&run, "bypass?on=true", "").0, 405);
    assert_eq!(post(&run, "state", "", "").0, 405);
    for body in ["", "{}", "[]", "{", r#"{"on":1}"#, r#"{"on":true,"x":1}"#] {
        assert_eq!(post(&run, "bypass", "", body).0, 400, "{body}");
    }
    let huge = format!(r#"{{"on":true,"x":"{}"}}"#, "y".repeat(70_000));
    assert_eq!(post(&run, "bypass", "", &huge).0, 413);
    assert!(!run.control.is_bypassed());
}

#[test]
fn a_token_is_wanted_where_one_is_set() {
    let run = start_with(", admin_token: 0123456789abcdef");
    assert_eq!(post(&run, "pause", "", "").0, 401);
    assert_eq!(
        get(&run, "state", "Authorization: Bearer 0123456789abcdeg\r\n").0,
        401
    );
    assert_eq!(
        get(&run, "state", "Authorization: 0123456789abcdef\r\n").0,
        401
    );
    assert_eq!(
        get(&run, "state", "Authorization: Bearer 0123456789abcdef\r\n").0,
        200
    );
    // Beyond loopback nothing is told without one.
    let run = start_with(", admin: \"0.0.0.0:0\"");
    let address = SocketAddr::from(([127, 0, 0, 1], run.admin.port()));
    let head = format!("POST /admin/v1/pause HTTP/1.1\r\nHost: {address}\r\n{JSON}");
    let (code, said) = raw(address, &head, "");
    assert_eq!(code, 403);
    assert!(
        said["error"]
            .as_str()
            .unwrap()
            .contains("http.admin_token is not set"),
        "{said}"
    );
    assert!(!run.control.pauses());
}

#[test]
fn workers_are_asked_for_ids() {
    let run = start_with("");
    run.site.status.update(0, vec![row("orders")]);
    let (control, ended) = (Arc::clone(&run.control), Arc::new(AtomicBool::new(false)));
    let end = Arc::clone(&ended);
    let worker = std::thread::spawn(move || {
        while !end.load(Ordering::Relaxed) {
            let Some(order) = control.next_order(0) else {
                std::thread::sleep(std::time::Duration::from_millis(5));
                continue;
            };
            let answers = match &order.ask {
                Ask::Seen(target, _) if target.partition == Some(9) => vec![],
                Ask::Seen(target, _) if target.topic == "orders" => {
                    vec![answer(What::Remembered {
                        first_partition: 0,
                        first_offset: 7,
                        seen_at_ms: 1000,
                        age_ms: 5,
                    })]
                }
                Ask::Forget(..) => vec![answer(What::NotForgotten)],
                Ask::Rebuild(_) => vec![answer(What::Rebuilding)],
                Ask::Seen(..) => vec![],
            };
            let _ = order.answer.send(answers);
        }
    });
    let (code, said) = get(&run, "seen?topic=orders&id=a%20b", "");
    assert_eq!(
        (code, &said["partitions"][0]["first_offset"]),
        (200, &7.into())
    );
    assert_eq!(said["partitions"][0]["answer"], "remembered");
    assert_eq!(
        get(&run, "seen?topic=orders&partition=9&id_hex=61", "").0,
        404
    );
    assert_eq!(get(&run, "seen?topic=other&id=a", "").0, 404);
    for bad in [
        "seen",
        "seen?topic=t",
        "seen?topic=t&id=",
        "seen?topic=t&id=a&id=b",
        "seen?topic=t&id_hex=6",
        "seen?topic=t&id=a&partition=-1",
        "seen?topic=t&id=a&x=1",
    ] {
        assert_eq!(get(&run, bad, "").0, 400, "{bad}");
    }
    assert_eq!(
        post(&run, "forget", "", r#"{"topic":"orders","id":["a"]}"#).0,
        503
    );
    assert_eq!(
        post(&run, "forget", "", r#"{"topic":"orders","id":"a"}"#).0,
        400
    );
    assert_eq!(post(&run, "rebuild", "", r#"{"topic":"orders"}"#).0, 200);
    ended.store(true, Ordering::Relaxed);
    worker.join().unwrap();
}

/// The description has every route with its method, and no other.
#[test]
fn the_description_is_that_of_the_routes() {
    let run = start_with("");
    let (code, description) = get(&run, "openapi.json", "");
    assert_eq!((code, &description["openapi"]), (200, &"3.1.0".into()));
    let paths = description["paths"].as_object().unwrap();
    let described: Vec<&str> = paths.keys().map(|path| &path[1..]).collect();
    let mut routes = super::admin::COMMANDS.to_vec();
    routes.sort_unstable();
    assert_eq!(described, routes);
    for (path, methods) in paths {
        let path = &path[1..];
        // An order would wait for a worker; what is wrong with it is said before.
        let (got, posted) = (get(&run, path, "").0, post(&run, path, "", "[]").0);
        match methods.get("get") {
            Some(_) => assert!(got != 405 && posted == 405, "{path}"),
            None => assert!(
                got == 405 && posted != 405 && methods.get("post").is_some(),
                "{path}"
            ),
        }
    }
}

fn answer(what: What) -> Answer {
    Answer {
        topic: "orders".to_owned(),
        partition: 0,
        what,
    }
}

fn row(topic: &str) -> PartitionStatus {
    PartitionStatus {
        topic: topic.to_owned(),
        partition: 0,
        input: topic.to_owned(),
        lag_seconds: None,
        state: "active",
        next_offset: None,
        lag: None,
        stream_time_ms: None,
        coverage: None,
        last_commit_ms: None,
        ids: 0,
        slices: 0,
        restore_remaining: None,
    }
}
