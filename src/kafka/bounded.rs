//! Calls into librdkafka that must come back.
//!
//! The transactional calls take a timeout and do not always keep to it: when the broker that they wait
//! for leaves the cluster, nobody may ever wake them (librdkafka issues 5456 and 5511, in 2.12 as in
//! 2.14). So each runs on a thread of its own, and is given up when it is late; the client is its
//! alone from then on. Touches threads and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

/// How much later than its timeout a call may come back.
const GRACE: Duration = Duration::from_secs(2);

static GIVEN_UP: AtomicUsize = AtomicUsize::new(0);

/// How many calls have been given up and have not come back since: each holds a client and a thread.
pub fn given_up() -> usize {
    GIVEN_UP.load(Ordering::Relaxed)
}

/// Makes a call that was given this timeout, and waits for it that long and 2 s more. About 30 us
/// beside the call itself.
///
/// # Errors
/// The call's own; [`RDKafkaErrorCode::OperationTimedOut`] as a global error when it was given up. What
/// it did then is not known, and its client must not be used again.
pub fn within<C, T>(
    timeout: Duration,
    what: &'static str,
    client: &Arc<C>,
    call: impl FnOnce(&C) -> KafkaResult<T> + Send + 'static,
) -> KafkaResult<T>
where
    C: Send + Sync + 'static,
    T: Send + 'static,
{
    // Without a place in between: an answer is either taken, or known not to be.
    let (answer, answered) = sync_channel(0);
    let client = Arc::clone(client);
    let spawned = thread::Builder::new().name(what.to_owned()).spawn(move || {
        let outcome = call(&client);
        // Before the answer, so that the caller's is the last: whoever drops the last takes the
        // client apart.
        drop(client);
        if answer.send(outcome).is_err() {
            tracing::info!(what, "a call that was given up has come back");
            GIVEN_UP.fetch_sub(1, Ordering::Relaxed);
        }
    });
    let late = KafkaError::Global(RDKafkaErrorCode::OperationTimedOut);
    if let Err(error) = spawned {
        tracing::warn!(what, %error, "no thread for a call");
        return Err(late);
    }
    match answered.recv_timeout(timeout + GRACE) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Disconnected) => Err(late),
        Err(RecvTimeoutError::Timeout) => {
            // Counted before the receiver goes: only then can the thread find that nobody waits.
            GIVEN_UP.fetch_add(1, Ordering::Relaxed);
            drop(answered);
            tracing::warn!(
                what,
                timeout_ms = timeout.as_millis(),
                "the client library has not come back from a call in time; it is given up, and made again where it is needed"
            );
            Err(late)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_back_and_what_is_late_is_given_up_until_it_returns() {
        let client = Arc::new(7);
        let timeout = Duration::from_secs(60);
        let answered = within(timeout, "quick", &client, |client| Ok(client + 1));
        assert_eq!(answered.unwrap(), 8);
        let refused: KafkaResult<()> =
            within(timeout, "refused", &client, |_| Err(KafkaError::Canceled));
        assert!(matches!(refused, Err(KafkaError::Canceled)));

        let (let_go, held) = sync_channel::<()>(0);
        let late: KafkaResult<()> = within(Duration::ZERO, "late", &client, move |_| {
            held.recv().unwrap();
            Ok(())
        });
        let code = late.unwrap_err().rdkafka_error_code();
        assert_eq!(code, Some(RDKafkaErrorCode::OperationTimedOut));
        assert_eq!((given_up(), Arc::strong_count(&client)), (1, 2));
        let_go.send(()).unwrap();
        while given_up() > 0 {
            thread::yield_now();
        }
        assert_eq!(Arc::strong_count(&client), 1);
    }
}
