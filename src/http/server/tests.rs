//! The routes, asked over loopback.

use std::io::{Read, Write};
use std::time::Instant;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::*;
use crate::cli::logging::LogLevel;
use crate::control::Control;
use crate::http::Condition;
use crate::http::page::{History, Problems};

pub(super) struct Running {
    runtime: Runtime,
    pub site: Site,
    public: SocketAddr,
    pub admin: SocketAddr,
    pub control: Arc<Control>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

fn start() -> Running {
    start_with("")
}

/// `more` is what the config says beside the addresses, in its section `http`.
pub(super) fn start_with(more: &str) -> Running {
    let admin = match more.contains("admin:") {
        true => "",
        false => ", admin: \"127.0.0.1:0\"",
    };
    let text = format!(
        "kafka: {{bootstrap_servers: \"b:1\", group_id: g, instance_id: i}}\ninput: {{topics: [t]}}\nid: {{from: key}}\nhttp: {{listen: \"127.0.0.1:0\"{more}{admin}}}\n"
    );
    let config = config::from_str(&text, "c.yaml", &std::collections::BTreeMap::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let site = Site {
        metrics: Metrics::new(),
        health: Health::new(),
        status: Arc::new(Status::new("g", "i", crate::config::Mode::Filter)),
    };
    let listeners = runtime.block_on(bind(&config.http)).unwrap();
    let control = Arc::new(Control::new(
        1,
        Arc::clone(&site.metrics),
        site.health.clone(),
    ));
    let interface = Arc::new(Admin::new(
        &config,
        Arc::clone(&control),
        Arc::clone(&site.status),
        Arc::clone(&site.metrics),
        LogLevel::silent(),
    ));
    let (public, admin) = (listeners.public_address, listeners.admin_address);
    let (stop, stopped) = watch::channel(false);
    let page = Page::new(
        &config,
        site.clone(),
        Arc::clone(&interface),
        History::default(),
        Problems::default(),
    );
    let page = Arc::new(page);
    let server = runtime.spawn(serve(listeners, site.clone(), interface, page, stopped));
    Running {
        runtime,
        site,
        public,
        admin,
        control,
        stop,
        server,
    }
}

/// Code, content type and text of a GET.
fn fetch(address: SocketAddr, path: &str) -> (u16, String, String) {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let mut response = agent.get(format!("http://{address}{path}")).call().unwrap();
    let kind = response
        .headers()
        .get("content-type")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), kind, text)
}

/// What a server says to these bytes.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A server that closes before it has read all resets the connection; what came counts.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn probes_tell_alive_from_ready() {
    let run = start();
    assert_eq!(fetch(run.public, "/livez").0, 200);
    let (code, _, text) = fetch(run.public, "/readyz");
    assert_eq!(
        (code, text.as_str()),
        (503, "not ready: no component has started yet\n")
    );

    run.site.health.set(
        "worker-0",
        Condition::NotReady("waiting for a broker".to_owned()),
    );
    let (code, _, text) = fetch(run.public, "/readyz");
    assert_eq!(
        (code, text.as_str()),
        (503, "not ready: worker-0: waiting for a broker\n")
    );
    let (code, _, text) = fetch(run.admin, "/readyz?verbose");
    assert_eq!(code, 503);
    assert!(text.starts_with("worker-0: not ready since "), "{text}");
    assert_eq!(fetch(run.public, "/livez").0, 200);

    run.site
        .health
        .set("worker-0", Condition::Ready("8 partitions".to_owned()));
    let (code, _, text) = fetch(run.public, "/readyz");
    assert_eq!((code, text.as_str()), (200, "ok\n"));
    let (code, _, text) = fetch(run.public, "/readyz?verbose");
    assert_eq!(code, 200);
    assert!(text.ends_with(": 8 partitions\n"), "{text}");
}

#[test]
fn metrics_and_version_have_their_content_types() {
    let run = start();
    let (code, kind, text) = fetch(run.public, "/metrics");
    assert_eq!(
        (code, kind.as_str()),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(text.contains("kafka_dedup_build_info"));
    let (code, kind, text) = fetch(run.public, "/version");
    assert_eq!((code, kind.as_str()), (200, "application/json"));
    let version: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_status_page_is_on_the_admin_listener_alone() {
    let run = start();
    let (code, kind, text) = fetch(run.admin, "/status");
    assert_eq!((code, kind.as_str()), (200, "application/json"));
    assert!(text.contains("\"ready\": false"), "{text}");
    let (code, _, text) = fetch(run.public, "/status");
    assert_eq!((code, text.as_str()), (404, PUBLIC_PATHS));
    let (code, kind, text) = fetch(run.admin, "/");
    assert_eq!((code, kind.as_str()), (200, "text/html; charset=utf-8"));
    assert!(
        text.contains("No part of the process has started yet."),
        "{text}"
    );
    let (code, _, text) = fetch(run.public, "/");
    assert_eq!((code, text.as_str()), (404, PUBLIC_PATHS));
    let none = (404, "text/plain; charset=utf-8".into(), ADMIN_PATHS.into());
    assert_eq!(fetch(run.admin, "/nothing"), none);
}

/// Somebody else's name that was turned to this address (DNS rebinding) sees nothing, and no page of others may
/// hold ours.
#[test]
fn eight_pages_are_kept_up_to_date_at_a_time() {
    let run = start();
    let open = || {
        let mut stream = std::net::TcpStream::connect(run.admin).unwrap();
        let request = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).unwrap();
        (String::from_utf8_lossy(&begin).into_owned(), stream)
    };
    let mut readers: Vec<_> = (0..8).map(|_| open()).collect();
    assert!(readers.iter().all(|(begin, _)| begin == "HTTP/1.1 200"));
    assert_eq!(open().0, "HTTP/1.1 503");
    // What is not kept up to date is there all the same.
    assert_eq!(fetch(run.admin, "/").0, 200);
    assert_eq!(fetch(run.admin, "/runbook").0, 200);
    assert_eq!(fetch(run.public, "/runbook").0, 404);
    drop(readers.pop());
    let deadline = Instant::now() + Duration::from_secs(30);
    while open().0 != "HTTP/1.1 200" {
        assert!(Instant::now() < deadline, "its place stays taken");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_page_is_for_its_own_hosts_alone() {
    let run = start();
    for path in ["/", "/live"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        let answer = exchange(run.admin, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    let answer = exchange(run.admin, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.contains("frame-ancestors 'none'"), "{answer}");
    let answer = exchange(run.admin, b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.contains("nosniff"), "{answer}");
}

#[test]
fn only_get_and_head_are_answered() {
    let run = start();
    let post = exchange(
        run.admin,
        b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
    );
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    let head = exchange(run.public, b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let run = start();
    let request = format!(
        "GET /livez HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(MAX_HEAD_BYTES)
    );
    let answer = exchange(run.public, request.as_bytes());
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
}

/// File descriptors of this process that are sockets.
fn sockets() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    open.flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

#[test]
fn two_thousand_silent_clients_do_not_silence_the_probes() {
    let run = start();
    // No more than may be open in this process, of which the clients are a part too.
    let clients = 400;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.clear();
        let before = sockets();
        for n in 0..clients {
            let mut stream = std::net::TcpStream::connect(run.public).unwrap();
            if n % 2 == 0 {
                // Half a head is as good as none.
                let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nX-");
            }
            silent.push(stream);
        }
        assert_eq!(fetch(run.public, "/livez").0, 200);
        assert_eq!(fetch(run.admin, "/livez").0, 200);
        let ours = sockets().saturating_sub(before + clients);
        // Tests of other listeners run beside this one.
        assert!(ours <= 3 * MAX_CONNECTIONS, "{ours} sockets of the server");
    }
}

#[test]
fn a_client_that_sends_a_byte_now_and_then_is_cut_off() {
    let run = start();
    let mut stream = std::net::TcpStream::connect(run.public).unwrap();
    let pause = Duration::from_millis(200);
    stream.set_read_timeout(Some(pause)).unwrap();
    let mut drops = b"GET /livez HTTP/1.1\r\n"
        .iter()
        .chain(std::iter::repeat(&b'x'));
    let cut_off = (0..300).any(|_| {
        let sent = stream.write_all(&[*drops.next().unwrap()]);
        let mut answer = [0; 64];
        let closed = match stream.read(&mut answer) {
            Ok(length) => length == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        sent.is_err() || closed
    });
    assert!(cut_off, "a minute of single bytes");
}

#[test]
fn no_body_is_waited_for() {
    let run = start();
    for request in [
        "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let answer = exchange(run.public, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let run = start();
    for request in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n"[..],
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n\0\0\0\0\r\n\r\n",
    ] {
        let answer = exchange(run.public, request);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
        let address = run.public.to_string();
        assert!(!answer.contains(&address), "{answer}");
    }
    assert_eq!(fetch(run.public, "/livez").0, 200);
}

#[test]
fn a_port_in_use_names_address_and_key() {
    let run = start();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let http = config::Http {
        listen: any,
        admin: run.public,
        admin_token: None,
        admin_hosts: Vec::new(),
    };
    let Err(stop) = run.runtime.block_on(bind(&http)) else {
        panic!("bound a port in use")
    };
    assert_eq!(stop.status, crate::exit::Status::Contradiction);
    let start = format!("cannot listen on {} (http.admin): ", run.public);
    assert!(stop.sentence.starts_with(&start), "{stop}");
}

#[test]
fn asked_to_stop_it_closes_the_listeners_and_ends() {
    let run = start();
    assert_eq!(fetch(run.public, "/livez").0, 200);
    run.stop.send(true).unwrap();
    run.runtime.block_on(run.server).unwrap();
    assert!(std::net::TcpStream::connect(run.public).is_err());
}
