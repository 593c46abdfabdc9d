//! Answers on two listeners: probes, metrics and version for everybody (`http.listen`), the same
//! and the status page for the operator (`http.admin`), beside the [`admin`] interface. Reads the
//! shared tables; only that changes anything.
//!
//! Everything a client may use up is bounded (I8): connections, the size of a request's head and body, and
//! the life of a connection, which is one request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::config;
use crate::exit::Stop;
use crate::http::admin::{self, Admin};
use crate::http::page::{self, Page};
use crate::http::{Health, Status};
use crate::metrics::Metrics;

/// Connections at a time, on each listener; with one more, the oldest is closed.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// From accepting a connection to the last byte of its answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a shutdown waits for answers under way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed accept (out of file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// What the listeners show.
#[derive(Clone)]
pub struct Site {
    /// `/metrics`.
    pub metrics: Arc<Metrics>,
    /// `/readyz`.
    pub health: Health,
    /// `/status`.
    pub status: Arc<Status>,
}

/// Both listeners, bound but not yet answering.
pub struct Listeners {
    public: TcpListener,
    admin: TcpListener,
    /// Bound address of `http.listen`; its port is known even where port 0 was configured.
    pub public_address: SocketAddr,
    /// Bound address of `http.admin`.
    pub admin_address: SocketAddr,
}

/// Binds both listeners and logs their addresses. To be done before any worker starts, so that a
/// port that is in use ends the process before it has taken a partition.
///
/// # Errors
/// [`Stop::contradiction`] that names address and key.
pub async fn bind(http: &config::Http) -> Result<Listeners, Stop> {
    let (public, public_address) = bind_one("http.listen", http.listen).await?;
    let (admin, admin_address) = bind_one("http.admin", http.admin).await?;
    tracing::info!(
        listen = %public_address,
        admin = %admin_address,
        "probes and metrics on http://{public_address}, status on http://{admin_address}"
    );
    Ok(Listeners {
        public,
        admin,
        public_address,
        admin_address,
    })
}

async fn bind_one(key: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Stop> {
    let refused = |error: std::io::Error| {
        Stop::contradiction(format!(
            "cannot listen on {address} ({key}): {error}; stop what holds that address, or set {key} to another one"
        ))
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Answers on both listeners until `stop` is true or its sender is gone, then lets answers that are
/// under way end, for 2 s at most.
pub async fn serve(
    listeners: Listeners,
    site: Site,
    admin: Arc<Admin>,
    page: Arc<Page>,
    stop: watch::Receiver<bool>,
) {
    let public = routes(PUBLIC_PATHS).with_state(site.clone());
    let admin = routes(ADMIN_PATHS)
        .route("/status", get(status))
        .with_state(site)
        .nest(admin::BASE, admin::routes(admin))
        .merge(page::routes(page));
    tokio::join!(
        accept(listeners.public, public, stop.clone()),
        accept(listeners.admin, admin, stop)
    );
}

const PUBLIC_PATHS: &str = "there is /livez /readyz /readyz?verbose /metrics /version\n";
const ADMIN_PATHS: &str = "there is / (the status page) /status /admin/v1/openapi.json /livez /readyz /readyz?verbose /metrics /version\n";

/// `get` also answers HEAD; axum answers 405 to every other method.
fn routes(paths: &'static str) -> Router<Site> {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .fallback(move || async move { (StatusCode::NOT_FOUND, paths) })
}

/// Never depends on Kafka: a restart does not mend a broker.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(site): State<Site>, RawQuery(query): RawQuery) -> Response {
    // Code and text come from one look at the latch, so they cannot contradict each other.
    let reason = site.health.reason();
    let code = if reason.is_none() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let verbose = query.is_some_and(|query| query.split('&').any(is_verbose));
    let text = match reason {
        _ if verbose => site.health.report(),
        None => "ok\n".to_owned(),
        Some(reason) => format!("not ready: {reason}\n"),
    };
    (code, text).into_response()
}

fn is_verbose(parameter: &str) -> bool {
    matches!(
        parameter,
        "verbose" | "verbose=" | "verbose=1" | "verbose=true"
    )
}

async fn metrics(State(site): State<Site>) -> Response {
    site.metrics.ready.set(i64::from(site.health.is_ready()));
    let text_format = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, text_format)], site.metrics.encode()).into_response()
}

async fn version() -> Response {
    json(concat!(
        "{\"name\":\"kafka-dedup\",\"version\":\"",
        env!("CARGO_PKG_VERSION"),
        "\"}\n"
    ))
}

async fn status(State(site): State<Site>) -> Response {
    json(site.status.to_json(site.health.is_ready()))
}

fn json(text: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Accepts at once, whoever is connected already: a client that says nothing must not keep a probe
/// waiting. Beyond [`MAX_CONNECTIONS`] the oldest goes, which has had its time.
async fn accept(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router);
    let mut connections = JoinSet::new();
    let mut oldest_first = VecDeque::new();
    let mut stopping = std::pin::pin!(async move {
        // An error says that the sender is gone, which ends us as well.
        let _ = stop.wait_for(|&stop| stop).await;
    });
    loop {
        let stream = tokio::select! {
            () = &mut stopping => break,
            stream = next_connection(&listener) => stream,
        };
        make_room(&mut connections, &mut oldest_first).await;
        oldest_first.push_back(connections.spawn(answer(stream, service.clone())));
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, ended).await;
}

/// Forgets connections that have ended, and ends the oldest where there are as many as may be.
async fn make_room(connections: &mut JoinSet<()>, oldest_first: &mut VecDeque<AbortHandle>) {
    while connections.try_join_next().is_some() {}
    oldest_first.retain(|connection| !connection.is_finished());
    if connections.len() < MAX_CONNECTIONS {
        return;
    }
    if let Some(oldest) = oldest_first.pop_front() {
        tracing::debug!("more than {MAX_CONNECTIONS} HTTP connections: the oldest is closed");
        oldest.abort();
    }
    connections.join_next().await;
}

async fn next_connection(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted; trying again. Records are not held up. If it goes on, look at the limit of open files");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request, one answer. Without keep-alive no idle client stays.
async fn answer(stream: TcpStream, service: TowerToHyperService<Router>) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended early"),
        Err(_) => tracing::debug!("an HTTP connection took longer than {CONNECTION_TIMEOUT:?}"),
    }
}

#[cfg(test)]
mod admin_tests;
#[cfg(test)]
mod tests;
