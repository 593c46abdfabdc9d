//! The status page, on `http.admin` alone: what somebody who is woken at three has to know, in one place. Made on
//! the server, whole without scripts; a small one keeps it up to date.
//!
//! In the order of the data: `history` and `problems` collect while the process runs; `view` takes everything
//! together at one moment, with what stands out of it (`findings`); `render` makes HTML of it, and the `runbook` is beside
//! it. It reads the shared tables; only looking up an id asks the
//! workers, as the [`admin`](super::admin) interface does, and by its rules.

mod findings;
pub mod history;
pub mod problems;
mod render;
mod runbook;
mod view;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::http::admin::Admin;
use crate::http::server::Site;
use findings::Terms;
pub use history::History;
pub use problems::Problems;
use view::Found;

/// Readers that are kept up to date at a time; others are refused, and their page says that it is not live.
const STREAMS: usize = 8;
/// Between two states of the page.
const EVERY: Duration = Duration::from_secs(2);
/// Events of one stream: it ends before the connection must, and the browser asks again.
const EVENTS: usize = 4;
/// How soon it does.
const RETRY: Duration = Duration::from_millis(200);

/// No script, style or picture but ours; nobody may put the page into theirs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the page shows, beside the tables of [`Site`].
pub struct Page {
    site: Site,
    admin: Arc<Admin>,
    history: History,
    problems: Problems,
    /// As YAML, without secrets.
    config: String,
    terms: Terms,
    streams: Arc<Semaphore>,
}

impl Page {
    pub fn new(
        config: &Config,
        site: Site,
        admin: Arc<Admin>,
        history: History,
        problems: Problems,
    ) -> Self {
        Self {
            site,
            admin,
            history,
            problems,
            config: config.to_yaml_redacted(),
            terms: Terms::of(config),
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }
}

pub fn routes(page: Arc<Page>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/live", get(live))
        .route("/runbook", get(read_runbook))
        .route("/page.css", get(style))
        .route("/page.js", get(script))
        .with_state(page)
}

async fn index(
    State(page): State<Arc<Page>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Err(sentence) = page.admin.check_host(&headers) {
        return (StatusCode::FORBIDDEN, sentence + "\n").into_response();
    }
    let wanted = view::Wanted::of(query.as_deref().unwrap_or_default());
    let may_ask = page.admin.may_ask(&headers);
    let may_ask = may_ask.as_ref().copied().map_err(String::as_str);
    let found = match &wanted {
        Some(wanted) if may_ask.is_ok() => page.look_up(wanted).await,
        _ => Found::NotAsked,
    };
    let view = page.view();
    let whole = render::page(&view, &page.config, wanted.as_ref(), &found, may_ask);
    guarded(typed("text/html; charset=utf-8", whole.into_string()))
}

/// The page again every two seconds, for the script to replace what differs.
async fn live(State(page): State<Arc<Page>>, headers: HeaderMap) -> Response {
    if let Err(sentence) = page.admin.check_host(&headers) {
        return (StatusCode::FORBIDDEN, sentence + "\n").into_response();
    }
    let Ok(permit) = Arc::clone(&page.streams).try_acquire_owned() else {
        let sentence = format!("{STREAMS} pages are kept up to date already\n");
        return (StatusCode::SERVICE_UNAVAILABLE, sentence).into_response();
    };
    let events = stream::unfold((page, permit, 0), |(page, permit, sent)| async move {
        if sent == EVENTS {
            return None;
        }
        if sent > 0 {
            tokio::time::sleep(EVERY).await;
        }
        let text = render::live(&page.view()).into_string();
        let event = Event::default().retry(RETRY).data(text);
        Some((Ok::<Event, Infallible>(event), (page, permit, sent + 1)))
    });
    guarded(Sse::new(events))
}

async fn read_runbook() -> Response {
    guarded(typed("text/html; charset=utf-8", runbook::page()))
}

async fn style() -> Response {
    guarded(typed("text/css; charset=utf-8", include_str!("page.css")))
}

async fn script() -> Response {
    guarded(typed(
        "text/javascript; charset=utf-8",
        include_str!("page.js"),
    ))
}

fn typed(kind: &'static str, body: impl IntoResponse) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], body)
}

fn guarded(answer: impl IntoResponse) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 4] = [
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let mut response = answer.into_response();
    response.headers_mut().extend(HEADERS);
    response
}

#[cfg(test)]
mod tests;
