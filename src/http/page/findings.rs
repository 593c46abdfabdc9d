//! What stands out of the numbers: what somebody who knows the service would see at once, in a sentence each, with the
//! section of the runbook. Pure. The thresholds are those of the alerts in `deploy/prometheus/rules.yaml`; the spans are
//! shorter, as a reader is there already, and a process too young to know what is usual says of duplicates what they are.

use super::history::Recent;
use super::render::{grouped, percent};
use crate::config::{Config, Mode};
use crate::http::status::PartitionStatus;
use crate::metrics::Totals;

/// Fewer say nothing.
const FEW: u64 = 100;
/// Records that may wait without a word.
const LAG: i64 = 1000;
/// So long may it take to be read, at the pace of the topic.
const MUCH_SECONDS: f64 = 60.0;
/// Findings of one kind; with hundreds of topics the first say enough.
const MOST: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub sentence: String,
    /// Of the runbook.
    pub section: &'static str,
}

/// What of the config is spoken of.
#[derive(Debug, Clone)]
pub struct Terms {
    pub id_from: String,
    pub id_missing: &'static str,
    pub window: String,
    /// What becomes of duplicates.
    pub fate: &'static str,
}

impl Terms {
    pub fn of(config: &Config) -> Self {
        Self {
            id_from: config.id.from.to_string(),
            id_missing: config.id.missing.as_str(),
            window: config.window.to_string(),
            fate: match config.mode {
                Mode::Filter => "it is removed, and consumers see none of it",
                Mode::Mark => "consumers get it, marked as duplicate",
                Mode::Observe => "it is counted, and nothing else, as mode is observe",
            },
        }
    }
}

/// In the order in which they matter.
pub fn findings(
    terms: &Terms,
    recent: &[Recent],
    rows: &[(usize, PartitionStatus)],
) -> Vec<Finding> {
    let mut all = Vec::new();
    let by_topic: [fn(&Terms, &Recent) -> Option<Finding>; 6] = [
        without_id,
        rejected,
        more_duplicates,
        fewer_duplicates,
        returned,
        crossing,
    ];
    for look in by_topic {
        all.extend(recent.iter().filter_map(|it| look(terms, it)).take(MOST));
    }
    all.extend(hot(recent, rows));
    all.extend(not_covered(terms, rows));
    all
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn without_id(terms: &Terms, it: &Recent) -> Option<Finding> {
    let Totals {
        missing_id,
        received,
        ..
    } = it.now;
    (missing_id >= FEW && share(missing_id, received) > 0.1).then(|| Finding {
        sentence: format!(
            "{} of the records of {} have no id where id.from looks for it ({}). They are not deduplicated; \
             id.missing: {} says what becomes of them. Does id.from fit what producers write?",
            percent(missing_id as f64, received as f64),
            it.topic,
            terms.id_from,
            terms.id_missing,
        ),
        section: "KafkaDedupRecordsWithoutId",
    })
}

fn rejected(_: &Terms, it: &Recent) -> Option<Finding> {
    let rejected = it.now.rejected;
    (rejected > 0).then(|| Finding {
        sentence: match rejected {
            1 => format!("A record of {} was rejected.", it.topic),
            several => format!(
                "{} records of {} were rejected.",
                grouped(several),
                it.topic
            ),
        },
        section: "KafkaDedupRecordsRejected",
    })
}

fn more_duplicates(terms: &Terms, it: &Recent) -> Option<Finding> {
    let (now, before) = (it.now, it.before);
    let (is, was) = it.duplicate_shares();
    let jumped = before.received >= FEW && is > 3.0 * was && is - was > 0.02;
    let most = before.received < FEW && is > 0.5;
    (now.duplicates >= FEW && (jumped || most)).then(|| Finding {
        sentence: format!(
            "{} of the records of {} are duplicates{}. Somebody sends again what was sent before; {}. How old the \
             duplicates are tells what is sent again.",
            percent(now.duplicates as f64, now.received as f64),
            it.topic,
            match before.received >= FEW {
                true => format!(", {} before that", percent(before.duplicates as f64, before.received as f64)),
                false => String::new(),
            },
            terms.fate,
        ),
        section: "KafkaDedupDuplicatesUp",
    })
}

fn fewer_duplicates(_: &Terms, it: &Recent) -> Option<Finding> {
    let (now, before) = (it.now, it.before);
    let (is, was) = it.duplicate_shares();
    (was * now.received as f64 > FEW as f64 && is < 0.25 * was).then(|| Finding {
        sentence: format!(
            "{} of the records of {} are duplicates, {} before that: a source has come to rest, or duplicates are \
             no longer known as such.",
            percent(now.duplicates as f64, now.received as f64),
            it.topic,
            percent(before.duplicates as f64, before.received as f64),
        ),
        section: "KafkaDedupDuplicatesDown",
    })
}

fn returned(terms: &Terms, it: &Recent) -> Option<Finding> {
    let of_hour = it.now.plus(it.before);
    let known = of_hour.duplicates + of_hour.returned;
    (of_hour.returned >= 10 && share(of_hour.returned, known) > 0.01).then(|| Finding {
        sentence: format!(
            "The window ({}) is too short for {}: {} records came again just after their id was forgotten, and were \
             forwarded once more. Of what came again later than that nothing is known.",
            terms.window,
            it.topic,
            grouped(of_hour.returned),
        ),
        section: "KafkaDedupWindowTooShort",
    })
}

fn crossing(_: &Terms, it: &Recent) -> Option<Finding> {
    let Totals {
        crossing, sampled, ..
    } = it.now.plus(it.before);
    (crossing >= 3 && share(crossing, sampled) > 0.001).then(|| Finding {
        sentence: format!(
            "{} of the ids of {} come in several partitions, as far as sampled: such duplicates are forwarded, as the scope \
             does not see them.",
            percent(crossing as f64, sampled as f64),
            it.topic,
        ),
        section: "KafkaDedupCrossingScopes",
    })
}

/// A partition that waits where the others do not, with more than a minute's worth.
fn hot(recent: &[Recent], rows: &[(usize, PartitionStatus)]) -> Option<Finding> {
    let lag = |row: &PartitionStatus| row.lag.unwrap_or(0).max(0);
    let (_, most) = rows.iter().max_by_key(|(_, row)| lag(row))?;
    let kin = rows.iter().filter(|(_, row)| row.topic == most.topic);
    let (several, sum) = kin.fold((0, 0), |(n, sum), (_, row)| (n + 1, sum + lag(row)));
    let known = recent.iter().find(|it| it.topic == most.input);
    let a_second = known.map_or(0.0, |it| {
        it.now.received as f64 / it.span.as_secs_f64().max(1.0)
    });
    let is_much = lag(most) > LAG && sum as f64 > MUCH_SECONDS * a_second;
    let stands_out = several > 2 && is_much && 2 * lag(most) > sum;
    (stands_out && most.state == "active").then(|| Finding {
        sentence: format!(
            "{}-{} holds {} of the {} records of its topic that wait, and it is one of {several} partitions here: a hot \
             partition. One partition is judged by one worker; more of them do not help.",
            most.topic,
            most.partition,
            percent(lag(most) as f64, sum as f64),
            grouped(sum.unsigned_abs()),
        ),
        section: "KafkaDedupHotPartition",
    })
}

fn not_covered(terms: &Terms, rows: &[(usize, PartitionStatus)]) -> Option<Finding> {
    let known = rows
        .iter()
        .filter_map(|(_, row)| Some((row.coverage?, row)));
    let short = known.filter(|(coverage, _)| *coverage < 1.0);
    let (least, row) = short.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
    Some(Finding {
        sentence: format!(
            "Of the window ({}) {:.0} % are covered in {}-{}, where it is least: an id that was let through before that \
             would be let through once more.",
            terms.window,
            (100.0 * least).floor(),
            row.topic,
            row.partition,
        ),
        section: "KafkaDedupWindowNotCovered",
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::page::runbook;
    use crate::http::page::tests::row;

    fn terms() -> Terms {
        Terms {
            id_from: "header message-id".to_owned(),
            id_missing: "forward",
            window: "1day".to_owned(),
            fate: "it is removed",
        }
    }

    fn recent(now: Totals, before: Totals) -> Vec<Recent> {
        let topic = "orders".to_owned();
        let span = Duration::from_secs(300);
        vec![Recent {
            topic,
            now,
            span,
            before,
        }]
    }

    /// What is said of these, held against the runbook.
    fn said(recent: &[Recent], rows: &[(usize, PartitionStatus)]) -> Vec<String> {
        let all = findings(&terms(), recent, rows);
        for finding in &all {
            assert!(runbook::has(finding.section), "{}", finding.section);
        }
        all.into_iter()
            .map(|it| format!("{}: {}", it.section, it.sentence))
            .collect()
    }

    #[test]
    fn nothing_stands_out_of_what_is_as_ever() {
        let usual = Totals {
            received: 100_000,
            duplicates: 5_000,
            missing_id: 500,
            returned: 9,
            sampled: 1500,
            crossing: 1,
            ..Totals::default()
        };
        assert!(said(&recent(usual, usual), &[]).is_empty());
        assert!(said(&recent(usual, Totals::default()), &[]).is_empty());
        let mut rows: Vec<_> = (0..4).map(|it| (0, row("orders", it))).collect();
        rows.iter_mut()
            .for_each(|(_, row)| row.coverage = Some(1.0));
        assert!(said(&[], &rows).is_empty());
        // At 333 a second, 15,000 are less than a minute's worth; and what is always so is usual.
        rows[2].1.lag = Some(15_000);
        assert!(said(&recent(usual, usual), &rows).is_empty());
        let many = Totals {
            duplicates: 60_000,
            ..usual
        };
        assert!(said(&recent(many, many), &[]).is_empty());
    }

    #[test]
    fn each_finding_says_what_and_where() {
        let of = |set: fn(&mut Totals)| {
            let mut totals = Totals {
                received: 10_000,
                duplicates: 500,
                ..Totals::default()
            };
            set(&mut totals);
            totals
        };
        let usual = of(|_| {});
        let cases = [
            (
                of(|it| it.missing_id = 9_800),
                usual,
                "RecordsWithoutId: 98.0 % of the records of orders have no id where id.from looks for it (header message-id)",
            ),
            (
                of(|it| it.rejected = 1),
                usual,
                "RecordsRejected: A record of orders was rejected",
            ),
            (
                of(|it| it.duplicates = 9_300),
                usual,
                "DuplicatesUp: 93.0 % of the records of orders are duplicates, 5.0 % before that.",
            ),
            (
                of(|it| it.duplicates = 9_300),
                Totals::default(),
                "DuplicatesUp: 93.0 % of the records of orders are duplicates. Somebody",
            ),
            (
                of(|it| it.duplicates = 3),
                usual,
                "DuplicatesDown: 0.0 % of the records of orders are duplicates, 5.0 % before that",
            ),
            (
                of(|it| it.returned = 40),
                usual,
                "WindowTooShort: The window (1day) is too short for orders: 40 records came again",
            ),
            (
                of(|it| (it.sampled, it.crossing) = (150, 3)),
                usual,
                "CrossingScopes: 2.0 % of the ids of orders",
            ),
        ];
        for (now, before, words) in cases {
            let all = said(&recent(now, before), &[]);
            assert!(
                all.len() == 1 && all[0].starts_with(&format!("KafkaDedup{words}")),
                "{words}: {all:?}"
            );
        }
        let mut rows: Vec<_> = (0..4).map(|it| (0, row("orders", it))).collect();
        rows.iter_mut()
            .for_each(|(_, row)| row.coverage = Some(1.0));
        rows[2].1.lag = Some(90_000);
        rows[3].1.coverage = Some(0.257);
        let all = said(&[], &rows);
        assert!(
            all[0]
                .starts_with("KafkaDedupHotPartition: orders-2 holds 96.0 % of the 93,702 records"),
            "{all:?}"
        );
        assert!(
            all[1].starts_with(
                "KafkaDedupWindowNotCovered: Of the window (1day) 25 % are covered in orders-3"
            ),
            "{all:?}"
        );
    }
}
