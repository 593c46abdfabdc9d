//! The table of partitions that `GET /status` shows. Workers put their rows in; nothing else is
//! touched.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::config::Mode;

/// One assigned partition, as its worker sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionStatus {
    pub topic: String,
    pub partition: i32,
    /// The input that its records are of: another topic in the second of two hops.
    pub input: String,
    /// One word: restoring, active ...
    pub state: &'static str,
    /// Offset of the next record to be consumed.
    pub next_offset: Option<i64>,
    /// Records between the committed position and the end of the partition.
    pub lag: Option<i64>,
    /// How long ago the last record that was committed had its timestamp, while others wait behind it; else 0.
    pub lag_seconds: Option<f64>,
    /// Stream time, in milliseconds since 1970.
    pub stream_time_ms: Option<i64>,
    /// The share of the configured window that the seen set covers, 0 to 1.
    pub coverage: Option<f64>,
    /// When something of the partition was committed last, in milliseconds since 1970.
    pub last_commit_ms: Option<i64>,
    /// Ids remembered.
    pub ids: u64,
    /// Slices of the seen window.
    pub slices: usize,
    /// Journal offsets still to be read; `None` when nothing is being restored.
    pub restore_remaining: Option<i64>,
}

/// The table, and who we are. Shared by the workers and the admin listener.
pub struct Status {
    pub group: String,
    pub instance: String,
    pub mode: &'static str,
    rows: Mutex<BTreeMap<usize, Vec<PartitionStatus>>>,
}

#[derive(Serialize)]
struct Page<'a> {
    version: &'static str,
    group: &'a str,
    instance: &'a str,
    mode: &'static str,
    ready: bool,
    partitions: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    worker: usize,
    #[serde(flatten)]
    partition: PartitionStatus,
}

impl Status {
    /// An empty table for this member of this group.
    #[must_use]
    pub fn new(group: impl Into<String>, instance: impl Into<String>, mode: Mode) -> Self {
        Self {
            group: group.into(),
            instance: instance.into(),
            mode: mode.as_str(),
            rows: Mutex::default(),
        }
    }

    /// Replaces all rows of a worker; an empty list says that it has no partition.
    pub fn update(&self, worker: usize, rows: Vec<PartitionStatus>) {
        self.rows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(worker, rows);
    }

    /// Topics of which there are partitions here, in order.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let topics = rows.values().flatten().map(|row| row.topic.clone());
        topics
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// All rows with their workers, in order of topic and number.
    #[must_use]
    pub fn rows(&self) -> Vec<(usize, PartitionStatus)> {
        let table = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<_> = table
            .iter()
            .flat_map(|(&worker, rows)| rows.iter().map(move |row| (worker, row.clone())))
            .collect();
        rows.sort_by(|(worker, a), (other, b)| {
            (&a.topic, a.partition, worker).cmp(&(&b.topic, b.partition, other))
        });
        rows
    }

    /// The page as JSON, partitions in order of topic and number.
    #[must_use]
    pub fn to_json(&self, ready: bool) -> String {
        let rows = self.rows();
        let row = |(worker, partition)| Row { worker, partition };
        let page = Page {
            version: env!("CARGO_PKG_VERSION"),
            group: &self.group,
            instance: &self.instance,
            mode: self.mode,
            ready,
            partitions: rows.into_iter().map(row).collect(),
        };
        // Strings and numbers always serialize; should they not, the page says why.
        serde_json::to_string_pretty(&page).unwrap_or_else(|error| error.to_string()) + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(topic: &str, partition: i32) -> PartitionStatus {
        PartitionStatus {
            topic: topic.to_owned(),
            partition,
            input: topic.to_owned(),
            lag_seconds: None,
            state: "active",
            next_offset: Some(42),
            lag: Some(0),
            stream_time_ms: None,
            coverage: None,
            last_commit_ms: None,
            ids: 7,
            slices: 2,
            restore_remaining: None,
        }
    }

    #[test]
    fn the_page_shows_the_latest_rows_of_all_workers_in_order() {
        let status = Status::new("g", "i", Mode::Filter);
        status.update(0, vec![row("a", 0), row("a", 10)]);
        status.update(1, vec![row("a", 2)]);
        status.update(0, vec![row("a", 10)]);
        let page: serde_json::Value = serde_json::from_str(&status.to_json(true)).unwrap();
        assert_eq!(page["group"], "g");
        assert_eq!(page["mode"], "filter");
        assert_eq!(page["ready"], true);
        let partitions = page["partitions"].as_array().unwrap();
        assert_eq!(partitions.len(), 2);
        assert_eq!(partitions[0]["partition"], 2);
        assert_eq!(partitions[0]["worker"], 1);
        assert_eq!(partitions[1]["partition"], 10);
        assert_eq!(partitions[1]["next_offset"], 42);
        assert!(partitions[1]["lag"] == 0 && partitions[1]["stream_time_ms"].is_null());
    }
}
