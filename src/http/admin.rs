//! The admin interface, on `http.admin` alone: what an operator may ask of the running process, and tell it.
//! JSON in, JSON out; `openapi.json` describes it.
//!
//! A page in the operator's own browser must not be able to use it: names of hosts are checked (DNS rebinding),
//! origins are (requests from other sites), and what changes something is a POST of JSON. Beyond loopback it
//! wants a token.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::logging::LogLevel;
use crate::config::{Config, IdSource};
use crate::control::{Answer, Ask, Control, Target, What};
use crate::http::Status;
use crate::identify::deployment_seed;
use crate::inspect::{from_hex, wanted_id};
use crate::metrics::Metrics;
use crate::topics::OwnTopics;
use crate::window::Fingerprint;

/// Where everything of it is.
pub const BASE: &str = "/admin/v1";
/// Bytes of a request's body.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// How long the workers have to answer: less than a connection may live.
const PATIENCE: Duration = Duration::from_secs(8);
const DESCRIPTION: &str = include_str!("openapi.json");

/// What the admin interface works with.
pub struct Admin {
    pub control: Arc<Control>,
    pub status: Arc<Status>,
    pub metrics: Arc<Metrics>,
    pub level: LogLevel,
    access: Access,
    seed: u64,
    id_from: IdSource,
    own: OwnTopics,
}

/// Who may use it.
struct Access {
    token: Option<String>,
    /// Names of this listener, beside `localhost` and addresses.
    hosts: Vec<String>,
    loopback: bool,
}

impl Admin {
    pub fn new(
        config: &Config,
        control: Arc<Control>,
        status: Arc<Status>,
        metrics: Arc<Metrics>,
        level: LogLevel,
    ) -> Self {
        Self {
            control,
            status,
            metrics,
            level,
            access: Access {
                token: config.http.admin_token.clone(),
                hosts: config.http.admin_hosts.clone(),
                loopback: config.http.admin.ip().is_loopback(),
            },
            seed: deployment_seed(&config.kafka.group_id),
            id_from: config.id.from.clone(),
            own: OwnTopics::new(config),
        }
    }
}

/// The routes, behind their checks.
pub fn routes(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/state", get(state))
        .route("/seen", get(seen))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/bypass", post(bypass))
        .route("/forget", post(forget))
        .route("/rebuild", post(rebuild))
        .route("/log-level", post(log_level))
        .route("/openapi.json", get(description))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), guard))
        .with_state(admin)
}

/// An answer that is no success, with a sentence that says what to do.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        answer(self.0, &json!({"error": self.1}))
    }
}

fn answer(code: StatusCode, body: &impl Serialize) -> Response {
    // What is serialized here always can be.
    let text = serde_json::to_string_pretty(body).unwrap_or_default() + "\n";
    (code, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn done(body: &impl Serialize) -> Response {
    answer(StatusCode::OK, body)
}

/// Checks every request, and counts it.
async fn guard(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let command = path.rsplit('/').next().unwrap_or_default();
    // The label is one of a few words, whatever is asked for.
    let command = COMMANDS
        .iter()
        .find(|it| **it == command)
        .unwrap_or(&"other");
    let response = match admin.access.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    admin.count(command, response.status());
    response
}

pub(super) const COMMANDS: [&str; 9] = [
    "state",
    "seen",
    "pause",
    "resume",
    "bypass",
    "forget",
    "rebuild",
    "log-level",
    "openapi.json",
];

impl Access {
    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let forbidden = |sentence: String| Err(Refusal(StatusCode::FORBIDDEN, sentence));
        let host = self.check_host(headers)?;
        if let Some(origin) = headers.get(header::ORIGIN)
            && origin.as_bytes() != format!("http://{host}").as_bytes()
        {
            return forbidden("requests from pages of other sites are refused".to_owned());
        }
        let Some(token) = &self.token else {
            return match self.loopback {
                true => Ok(()),
                false => forbidden(
                    "http.admin is open beyond this machine, and http.admin_token is not set: set it, or bind http.admin to 127.0.0.1"
                        .to_owned(),
                ),
            };
        };
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|it| it.to_str().ok()?.strip_prefix("Bearer "));
        match given.is_some_and(|given| are_equal(given, token)) {
            true => Ok(()),
            false => Err(Refusal(
                StatusCode::UNAUTHORIZED,
                "send the header Authorization: Bearer TOKEN, with the token of http.admin_token"
                    .to_owned(),
            )),
        }
    }

    /// The host that was asked for, if it is this listener.
    fn check_host<'a>(&self, headers: &'a HeaderMap) -> Result<&'a str, Refusal> {
        let host = headers.get(header::HOST).and_then(|it| it.to_str().ok());
        let host = host.unwrap_or_default();
        match self.knows(host) {
            true => Ok(host),
            false => Err(Refusal(
                StatusCode::FORBIDDEN,
                format!(
                    "the host {host:?} is none of this listener's names: ask by its address, or add the name to http.admin_hosts"
                ),
            )),
        }
    }

    /// Whether a Host header names this listener: an address, `localhost`, or a name of the config.
    fn knows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || address.parse::<std::net::IpAddr>().is_ok()
            || self.hosts.iter().any(|it| it.eq_ignore_ascii_case(name))
    }
}

/// In a time that does not tell how much of it is right: of hashes, not of the texts.
fn are_equal(given: &str, token: &str) -> bool {
    use std::hash::{BuildHasher, RandomState};
    use xxhash_rust::xxh3::xxh3_128_with_seed;
    let seed = RandomState::new().hash_one(0);
    let hash = |text: &str| xxh3_128_with_seed(text.as_bytes(), seed);
    hash(given) == hash(token) && given == token
}

/// The body of a POST, as JSON; an empty one counts as `{}`.
fn body<'a, T: Deserialize<'a>>(headers: &HeaderMap, bytes: &'a Bytes) -> Result<T, Refusal> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map(|kind| kind.as_bytes());
    // A form of another site can send other kinds without asking.
    if !kind.is_some_and(|kind| kind.starts_with(b"application/json")) {
        return Err(Refusal(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send JSON, with the header Content-Type: application/json".to_owned(),
        ));
    }
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(text).map_err(|error| {
        Refusal(
            StatusCode::BAD_REQUEST,
            format!("the body is not what this command takes: {error}; see {BASE}/openapi.json"),
        )
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfTopic {
    topic: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    on: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfPartition {
    topic: String,
    partition: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfId {
    topic: String,
    partition: Option<i32>,
    /// One, or several parts where `id.from` is `all`.
    #[serde(default)]
    id: Vec<String>,
    #[serde(default)]
    id_hex: Vec<String>,
}

impl OfId {
    fn target(self) -> Target {
        Target {
            topic: self.topic,
            partition: self.partition,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    /// `null`: as configured.
    level: Option<String>,
}

async fn state(State(admin): State<Arc<Admin>>) -> Response {
    done(&json!({
        "paused": admin.control.state().paused,
        "bypass": admin.control.is_bypassed(),
        "log_level": admin.level.current(),
    }))
}

async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}

async fn pause(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let OfTopic { topic } = body(&headers, &bytes)?;
    if let Some(topic) = &topic {
        admin.reads(topic)?;
        if admin.own.is_own(topic) {
            let sentence = format!(
                "{topic} is between the two hops, and what is in it is judged: pause its input instead"
            );
            return Err(Refusal(StatusCode::BAD_REQUEST, sentence));
        }
    }
    admin.control.pause(topic);
    Ok(state(State(admin)).await)
}

async fn resume(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let OfTopic { topic } = body(&headers, &bytes)?;
    if !admin.control.resume(topic.as_deref()) {
        let what = topic.unwrap_or_else(|| "nothing".to_owned());
        let sentence = match what.as_str() {
            "nothing" => "nothing is paused".to_owned(),
            topic => format!("{topic} is not paused by its name; see {BASE}/state"),
        };
        return Err(Refusal(StatusCode::CONFLICT, sentence));
    }
    Ok(state(State(admin)).await)
}

async fn bypass(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let Switch { on } = body(&headers, &bytes)?;
    admin.control.set_bypass(on);
    Ok(state(State(admin)).await)
}

async fn log_level(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let Level { level } = body(&headers, &bytes)?;
    admin
        .level
        .set(level.as_deref())
        .map_err(|stop| Refusal(StatusCode::BAD_REQUEST, stop.sentence))?;
    Ok(state(State(admin)).await)
}

async fn seen(
    State(admin): State<Arc<Admin>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let answers = admin.seen(query.as_deref().unwrap_or_default()).await?;
    Ok(done(&json!({"partitions": answers})))
}

async fn forget(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let of: OfId = body(&headers, &bytes)?;
    let id = admin.id(&of)?;
    let target = of.target();
    admin.ask(|| Ask::Forget(target.clone(), id), &target).await
}

async fn rebuild(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let OfPartition { topic, partition } = body(&headers, &bytes)?;
    let target = Target { topic, partition };
    admin.ask(|| Ask::Rebuild(target.clone()), &target).await
}

impl Admin {
    /// Whether this process has partitions of a topic.
    fn reads(&self, topic: &str) -> Result<(), Refusal> {
        let topics = self.status.topics();
        match topics.iter().any(|it| it == topic) {
            true => Ok(()),
            false => Err(Refusal(
                StatusCode::NOT_FOUND,
                format!(
                    "this process has no partition of {topic:?}; it has some of: {}",
                    if topics.is_empty() {
                        "none".to_owned()
                    } else {
                        topics.join(", ")
                    }
                ),
            )),
        }
    }

    fn id(&self, of: &OfId) -> Result<Fingerprint, Refusal> {
        let bad = |sentence: String| Refusal(StatusCode::BAD_REQUEST, sentence);
        let text = of.id.iter().map(|id| Ok(id.as_bytes().to_vec()));
        let binary = of.id_hex.iter().map(|hex| {
            from_hex(hex).ok_or_else(|| {
                bad(format!(
                    "id_hex {hex:?}: an even number of digits 0-9 and a-f"
                ))
            })
        });
        let parts: Vec<Vec<u8>> = text.chain(binary).collect::<Result<_, _>>()?;
        if parts.is_empty() {
            return Err(bad("say which: id, or id_hex".to_owned()));
        }
        wanted_id(&self.id_from, self.seed, &parts).map_err(|stop| bad(stop.sentence))
    }

    /// For the page: whether a request may ask the workers, without a token that a browser does not send.
    ///
    /// # Errors
    /// Why it may not.
    pub fn may_ask(&self, headers: &HeaderMap) -> Result<(), String> {
        let checked = self.access.check(headers);
        checked.map_err(|Refusal(_, sentence)| sentence)
    }

    /// For the page: a host that is none of ours is a name that somebody has turned to this address.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check_host(&self, headers: &HeaderMap) -> Result<(), String> {
        let checked = self.access.check_host(headers).map(drop);
        checked.map_err(|Refusal(_, sentence)| sentence)
    }

    /// For the page: the answers to a query as `seen` takes it, or a sentence.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn look_up(&self, query: &str) -> Result<Vec<Answer>, String> {
        let answers = self.seen(query).await;
        let status = answers.as_ref().map_or_else(|it| it.0, |_| StatusCode::OK);
        self.count("seen", status);
        answers.map_err(|Refusal(_, sentence)| sentence)
    }

    fn count(&self, command: &str, status: StatusCode) {
        let outcome = match status {
            code if code.is_success() => "done",
            code if code.is_client_error() => "refused",
            _ => "failed",
        };
        let count = &self.metrics.admin_requests;
        count.with_label_values(&[command, outcome]).inc();
    }

    async fn seen(&self, query: &str) -> Result<Vec<Answer>, Refusal> {
        let of = from_query(query)?;
        let id = self.id(&of)?;
        let target = of.target();
        let ask = || Ask::Seen(target.clone(), id);
        self.answers(ask, &target).await
    }

    /// All workers are asked, as partitions move between them.
    async fn answers(
        &self,
        ask: impl Fn() -> Ask,
        target: &Target,
    ) -> Result<Vec<Answer>, Refusal> {
        let workers = 0..self.control.workers();
        let asked: Vec<_> = workers
            .map(|worker| self.control.order(worker, ask()))
            .collect();
        let busy = |what: &str| {
            Refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "{what}; it may be starting, or waiting for Kafka: see /readyz?verbose, and ask again"
                ),
            )
        };
        let mut answers: Vec<Answer> = Vec::new();
        let all = async {
            for answered in asked {
                let answered = answered.ok_or_else(|| busy("a worker has too many orders"))?;
                answers.extend(answered.await.map_err(|_| busy("a worker has gone"))?);
            }
            Ok::<(), Refusal>(())
        };
        tokio::time::timeout(PATIENCE, all)
            .await
            .map_err(|_| busy("a worker did not answer within 8 s"))??;
        if answers.is_empty() {
            self.reads(&target.topic)?;
            return Err(Refusal(
                StatusCode::NOT_FOUND,
                format!(
                    "this process does not have that partition of {}; ask the instance that has it, or kafka-dedup inspect",
                    target.topic
                ),
            ));
        }
        answers.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(answers)
    }

    /// The same, as an answer.
    async fn ask(&self, ask: impl Fn() -> Ask, target: &Target) -> Result<Response, Refusal> {
        let answers = self.answers(ask, target).await?;
        let failed = answers.iter().any(|it| it.what == What::NotForgotten);
        let code = if failed {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        Ok(answer(code, &json!({"partitions": answers})))
    }
}

/// `topic=orders&partition=3&id=4711`, percent-encoded.
fn from_query(query: &str) -> Result<OfId, Refusal> {
    let bad = |sentence: String| Refusal(StatusCode::BAD_REQUEST, sentence);
    let mut of = OfId {
        topic: String::new(),
        partition: None,
        id: Vec::new(),
        id_hex: Vec::new(),
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "topic" => of.topic = value.into_owned(),
            "partition" => {
                let number = value.parse().ok().filter(|number| *number >= 0);
                of.partition = Some(
                    number
                        .ok_or_else(|| bad(format!("partition {value:?}: a number from 0 on")))?,
                );
            }
            "id" => of.id.push(value.into_owned()),
            "id_hex" => of.id_hex.push(value.into_owned()),
            other => {
                return Err(bad(format!(
                    "{other:?} is not known; there is topic, partition, id, id_hex"
                )));
            }
        }
    }
    if of.topic.is_empty() {
        return Err(bad("say which topic".to_owned()));
    }
    Ok(of)
}
