//! librdkafka's log lines and global errors, forwarded into `tracing` under the target `rdkafka`.
//!
//! A cluster that is away produces hundreds of such lines; the log leaves out what repeats. The last
//! error is kept for sentences such as "Kafka could not be reached; last error: ...".

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, error, info, warn};

/// A client context that logs. Clones share the counter and the last error; other contexts embed
/// one and hand their `log` and `error` calls on.
#[derive(Debug, Clone, Default)]
pub struct Logged {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Logged {
    /// A context with nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Global errors that librdkafka reported since the start.
    pub fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }

    /// The text of the last error that librdkafka reported, if any.
    pub fn last_error(&self) -> Option<String> {
        lock(&self.shared.last_error).clone()
    }

    /// "All brokers are down" follows from what came before it, which says why.
    fn keep(&self, error: &KafkaError, reason: &str) {
        let mut last = lock(&self.shared.last_error);
        let follows = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if !follows || last.is_none() {
            *last = Some(reason.to_owned());
        }
    }
}

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        let log_message = without_secrets(log_message);
        if matches!(level, Debug) {
            debug!(target: "rdkafka", fac, "{log_message}");
            return;
        }
        let line = without_count(log_message);
        // So it is at every start, until the coordinator has looked the transactional id up.
        if fac == "GETPID" && line.ends_with("retrying") {
            info!(target: "rdkafka", fac, "{line}");
            return;
        }
        match level {
            Emerg | Alert | Critical => error!(target: "rdkafka", fac, "{line}"),
            // An error of one connection; librdkafka goes on trying by itself.
            Error | Warning => warn!(target: "rdkafka", fac, "{line}"),
            Notice | Info | Debug => info!(target: "rdkafka", fac, "{line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let reason = without_count(without_secrets(reason));
        self.shared.errors.fetch_add(1, Ordering::Relaxed);
        self.keep(&error, &reason);
        match error.rdkafka_error_code() {
            // There is a line of the log for each of these.
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut,
            ) => debug!(target: "rdkafka", %error, "{reason}"),
            _ => warn!(target: "rdkafka", %error, "{reason}{}", advice(&reason)),
        }
    }
}

impl ConsumerContext for Logged {}

/// librdkafka keeps secrets out of its lines, but for one: it quotes what it does not understand of
/// `sasl.oauthbearer.config`. What follows that name is left out.
fn without_secrets(line: &str) -> &str {
    const QUOTED: &str = "sasl.oauthbearer.config";
    match line.find(QUOTED) {
        Some(at) => &line[..at + QUOTED.len()],
        None => line,
    }
}

/// librdkafka counts by itself what it leaves out, in some lines and not in others that are alike.
fn without_count(line: &str) -> Cow<'_, str> {
    const COUNTED: &str = " identical error(s) suppressed";
    if let Some(end) = line.find(COUNTED)
        && let Some(begin) = line[..end].rfind(", ")
    {
        return Cow::Owned([&line[..begin], &line[end + COUNTED.len()..]].concat());
    }
    Cow::Borrowed(line)
}

/// What a person can do about the last error; empty where nothing more is known.
pub fn advice(last_error: &str) -> &'static str {
    if last_error.contains("certificate verify failed") {
        return ". The broker's certificate is expired, not for this host name, or signed by a CA that \
                is not in ssl.ca.location; openssl s_client -connect HOST:PORT shows it";
    }
    if last_error.contains("uthentication") {
        return ". The broker does not accept this user: check sasl.mechanism, sasl.username and \
                sasl.password";
    }
    ""
}

/// What these locks guard stays whole even where a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_the_client_library_is_not_repeated() {
        let line =
            "Connect failed: refused (after 0ms in state CONNECT, 3 identical error(s) suppressed)";
        let without = "Connect failed: refused (after 0ms in state CONNECT)";
        assert_eq!(without_count(line), without);
        assert_eq!(without_count(without), without);
    }

    #[test]
    fn the_last_error_is_kept_and_shared_by_clones() {
        let logged = Logged::new();
        let clone = logged.clone();
        let error = KafkaError::Global(rdkafka::error::RDKafkaErrorCode::AllBrokersDown);
        clone.error(error, "1/1 brokers are down");
        assert_eq!(logged.last_error().as_deref(), Some("1/1 brokers are down"));
        assert_eq!(logged.errors(), 1);
    }

    #[test]
    fn that_all_brokers_are_down_does_not_hide_why() {
        let logged = Logged::new();
        let why = KafkaError::Global(RDKafkaErrorCode::Authentication);
        logged.error(why, "SASL authentication error");
        let down = KafkaError::Global(RDKafkaErrorCode::AllBrokersDown);
        logged.error(down, "1/1 brokers are down");
        assert_eq!(
            logged.last_error().as_deref(),
            Some("SASL authentication error")
        );
    }
}
