//! Keeps the journal as small as the window: DeleteRecords below what has aged out.
//!
//! Trimming is best effort. A journal that keeps more than the window is slower to read, never
//! wrong, so nothing here stops or blocks a worker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tracing::{debug, warn};

use super::Admin;
use super::admin::is_forbidden;
use crate::kafka::context::Logged;

/// One request may take this long.
const TIMEOUT: Duration = Duration::from_secs(30);

type OnFailure = dyn Fn(&str) + Send + Sync;

/// Hands trims to the runtime. Clones share one state.
#[derive(Clone)]
pub struct Trimmer {
    shared: Arc<Shared>,
}

struct Shared {
    client: Arc<AdminClient<Logged>>,
    runtime: Handle,
    on_failure: Box<OnFailure>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    partitions: HashMap<(String, i32), Partition>,
}

/// One partition's trims: at most one on its way (I8).
#[derive(Debug, Default)]
struct Partition {
    in_flight: Option<i64>,
    next: Option<i64>,
    done: Option<i64>,
}

impl Partition {
    /// Takes note of a wish; the offset to send now, if none is on its way.
    fn wish(&mut self, offset: i64) -> Option<i64> {
        if self
            .done
            .max(self.in_flight)
            .max(self.next)
            .is_some_and(|newest| offset <= newest)
        {
            return None;
        }
        if self.in_flight.is_some() {
            self.next = Some(offset);
            return None;
        }
        self.in_flight = Some(offset);
        Some(offset)
    }

    /// Takes note of an answer; the offset to send next, if a newer one was wished for meanwhile.
    fn answered(&mut self, succeeded: bool) -> Option<i64> {
        let sent = self.in_flight.take();
        if succeeded {
            self.done = sent;
        }
        self.in_flight = self.next.take();
        self.in_flight
    }
}

impl Trimmer {
    /// `on_failure` is called with a sentence for each request that failed, on a runtime thread.
    pub fn new(
        admin: &Admin,
        runtime: Handle,
        on_failure: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            client: admin.client(),
            runtime,
            on_failure: Box::new(on_failure),
            state: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Deletes the records of the partition before `before_offset`, some time soon. Returns at once;
    /// a newer offset supersedes one that waits, and one that is not newer is ignored.
    pub fn trim(&self, journal: &str, partition: i32, before_offset: i64) {
        let key = (journal.to_owned(), partition);
        let first = self
            .shared
            .state()
            .partitions
            .entry(key.clone())
            .or_default()
            .wish(before_offset);
        if let Some(offset) = first {
            let shared = Arc::clone(&self.shared);
            self.shared
                .runtime
                .spawn(async move { shared.send(key, offset).await });
        }
    }
}

impl Shared {
    async fn send(&self, key: (String, i32), first: i64) {
        let mut next = Some(first);
        while let Some(offset) = next {
            let result = self.delete(&key, offset).await;
            if let Err(error) = &result {
                self.report(&key, offset, error);
            } else {
                debug!(
                    journal = key.0,
                    partition = key.1,
                    offset,
                    "journal trimmed"
                );
            }
            let mut state = self.state();
            next = state
                .partitions
                .entry(key.clone())
                .or_default()
                .answered(result.is_ok());
        }
    }

    async fn delete(
        &self,
        (journal, partition): &(String, i32),
        offset: i64,
    ) -> Result<(), KafkaError> {
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let answer = {
            let mut wanted = TopicPartitionList::new();
            wanted.add_partition_offset(journal, *partition, Offset::Offset(offset))?;
            self.client.delete_records(&wanted, &options)
        };
        answer
            .await?
            .elements()
            .iter()
            .try_for_each(|element| element.error())
    }

    fn report(&self, (journal, partition): &(String, i32), offset: i64, error: &KafkaError) {
        let remedy = match error.rdkafka_error_code() {
            Some(code) if is_forbidden(code) => format!(
                "grant Delete on topic {journal} (a journal can do without, where journal.retention is set, longer than the window)"
            ),
            _ => "it is tried again with the next slice that is over".to_owned(),
        };
        let sentence = format!(
            "{journal} partition {partition} could not be trimmed before offset {offset}: \
             {error}. Nothing is wrong but its size: {remedy}"
        );
        (self.on_failure)(&sentence);
        warn!(journal, partition, offset, %error, "{sentence}");
    }

    /// Whole even where a holder panicked: each change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Partition;

    #[test]
    fn one_request_is_on_its_way_and_the_newest_offset_waits() {
        let mut partition = Partition::default();
        assert_eq!(partition.wish(10), Some(10));
        assert_eq!(partition.wish(20), None);
        assert_eq!(partition.wish(30), None);
        assert_eq!(partition.answered(true), Some(30));
        assert_eq!(partition.answered(true), None);
        assert_eq!(partition.wish(40), Some(40));
    }

    #[test]
    fn an_offset_that_is_not_newer_is_ignored() {
        let mut partition = Partition::default();
        assert_eq!(partition.wish(10), Some(10));
        assert_eq!(partition.wish(10), None);
        assert_eq!(partition.answered(true), None);
        assert_eq!(partition.wish(9), None);
        assert_eq!(partition.wish(10), None);
    }

    #[test]
    fn what_failed_may_be_wished_for_again() {
        let mut partition = Partition::default();
        assert_eq!(partition.wish(10), Some(10));
        assert_eq!(partition.answered(false), None);
        assert_eq!(partition.wish(10), Some(10));
    }
}
