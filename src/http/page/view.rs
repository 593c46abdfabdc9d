//! Everything that the page shows, as it is at one moment.

use std::time::SystemTime;

use super::Page;
use super::findings::{Finding, findings};
use super::history::Rates;
use super::problems::Problem;
use crate::control::Answer;
use crate::http::health::Held;
use crate::http::status::PartitionStatus;
use crate::metrics::{AgeBucket, Totals};

/// Partitions that are shown; `/status` has all.
pub const MOST_ROWS: usize = 200;

pub struct View {
    pub now: SystemTime,
    pub group: String,
    pub instance: String,
    pub mode: &'static str,
    pub ready: bool,
    pub components: Vec<(String, Held)>,
    pub rates: Vec<Rates>,
    /// Of the last hour.
    pub sum: Totals,
    pub ages: Vec<AgeBucket>,
    /// With their workers; those that are restored or paused and those with the largest lag where there are
    /// too many.
    pub rows: Vec<(usize, PartitionStatus)>,
    /// Of all partitions, shown or not: how many, records that wait, those that are restored with the journal
    /// offsets that are left, and their inputs.
    pub partitions: usize,
    pub behind: u64,
    pub restoring: (usize, u64),
    pub topics: Vec<String>,
    /// Beyond which nothing is among the problems.
    pub log_level: String,
    pub problems: Vec<Problem>,
    pub findings: Vec<Finding>,
}

impl Page {
    pub(super) fn view(&self) -> View {
        let mut rows = self.site.status.rows();
        let partitions = rows.len();
        let sum = |of: fn(&PartitionStatus) -> Option<i64>| -> u64 {
            let known = rows.iter().filter_map(|(_, row)| of(row));
            known.sum::<i64>().max(0).unsigned_abs()
        };
        let findings = findings(&self.terms, &self.history.recent(), &rows);
        let behind = sum(|row| row.lag);
        let is_restored = |(_, row): &&(usize, PartitionStatus)| row.restore_remaining.is_some();
        let restoring = (
            rows.iter().filter(is_restored).count(),
            sum(|row| row.restore_remaining),
        );
        let mut topics: Vec<String> = rows.iter().map(|(_, row)| row.input.clone()).collect();
        topics.sort_unstable();
        topics.dedup();
        if partitions > MOST_ROWS {
            rows.sort_by_key(|(_, row)| (row.state == "active", std::cmp::Reverse(row.lag)));
            rows.truncate(MOST_ROWS);
            rows.sort_by(|(_, a), (_, b)| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        }
        View {
            now: SystemTime::now(),
            group: self.site.status.group.clone(),
            instance: self.site.status.instance.clone(),
            mode: self.site.status.mode,
            ready: self.site.health.is_ready(),
            components: self.site.health.held(),
            rates: self.history.rates(),
            sum: self.history.sum(),
            ages: self.site.metrics.ages(),
            rows,
            partitions,
            behind,
            restoring,
            topics,
            log_level: self.admin.level.current(),
            problems: self.problems.latest(),
            findings,
        }
    }

    pub(super) async fn look_up(&self, wanted: &Wanted) -> Found {
        match self.admin.look_up(&wanted.query()).await {
            Ok(answers) => Found::Answers(answers),
            Err(sentence) => Found::Refused(sentence),
        }
    }
}

/// An id that is looked up, as the form has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub topic: String,
    pub id: String,
    pub hex: bool,
}

impl Wanted {
    /// `topic=orders&id=4711&as=text`; `None` where no id is asked for.
    pub fn of(query: &str) -> Option<Self> {
        let value = |wanted: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
        };
        let id = value("id").filter(|id| !id.is_empty())?;
        Some(Self {
            topic: value("topic").unwrap_or_default(),
            id,
            hex: value("as").is_some_and(|it| it == "hex"),
        })
    }

    /// As the admin interface has it.
    fn query(&self) -> String {
        let name = if self.hex { "id_hex" } else { "id" };
        form_urlencoded::Serializer::new(String::new())
            .append_pair("topic", &self.topic)
            .append_pair(name, &self.id)
            .finish()
    }
}

/// What came of looking up an id.
pub enum Found {
    NotAsked,
    Refused(String),
    Answers(Vec<Answer>),
}
