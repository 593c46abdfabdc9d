//! The page as HTML. Pure; everything that is not ours is escaped by the template.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use maud::{DOCTYPE, Markup, html};

use super::findings::Finding;
use super::history::{EVERY, Rates};
use super::problems::Problem;
use super::view::{Found, MOST_ROWS, View, Wanted};
use crate::control::{Answer, What};
use crate::http::health::Condition;
use crate::http::status::PartitionStatus;
use crate::inspect::time;
use crate::metrics::Totals;

/// Width and height of the chart, in its own units.
const CHART: (f64, f64) = (720.0, 160.0);

/// The whole page.
pub fn page(
    view: &View,
    config: &str,
    wanted: Option<&Wanted>,
    found: &Found,
    may_ask: Result<(), &str>,
) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "kafka-dedup " (view.instance) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/page.css";
                script src="/page.js" defer {}
                @if wanted.is_none() {
                    noscript { meta http-equiv="refresh" content="10"; }
                }
            }
            body {
                header {
                    h1 { "kafka-dedup" }
                    p.faint {
                        "group " strong { (view.group) } ", instance " strong { (view.instance) }
                        ", mode " (view.mode) ", version " (env!("CARGO_PKG_VERSION"))
                    }
                    p.faint #told role="status" aria-live="polite" { "As of " (stamp(view.now)) ", and not live." }
                }
                main {
                    (live(view))
                    (look_up(view, wanted, found, may_ask))
                    section aria-labelledby="config" {
                        h2 #config { "Configuration" }
                        details {
                            summary { "Effective values, without secrets" }
                            pre tabindex="0" { (config) }
                        }
                    }
                    p.faint { "What a state or a sentence means and what to type: " a href="/runbook" { "runbook" } ". As JSON: "
                        a href="/status" { "/status" } ", " a href="/metrics" { "/metrics" } ", "
                        a href="/readyz?verbose" { "/readyz?verbose" } "." }
                }
            }
        }
    }
}

/// The part that is replaced while it is looked at.
pub fn live(view: &View) -> Markup {
    html! {
        div #live {
            section aria-labelledby="state" {
                h2 #state { "State" }
                (state(view))
                p.faint { "What a state means and what to do: " a href="/runbook#readyzverbose" { "runbook" } "." }
                details {
                    summary { "By component" }
                    div.wide { table.stack {
                        caption { "What each part of the process says of itself" }
                        thead { tr { th scope="col" { "part" } th scope="col" { "state" } th scope="col" { "since" } th scope="col" { "says" } } }
                        tbody {
                            @for (name, held) in &view.components { tr {
                                th scope="row" data-name="part" { (name) }
                                td data-name="state" class=(class_of(&held.condition)) { (held.condition.word()) }
                                td data-name="since" { (stamp(held.since)) }
                                td.word data-name="says" { (held.condition.text()) }
                            } }
                        }
                    } }
                }
            }
            (findings(&view.findings))
            (throughput(view))
            (problems(&view.problems, &view.log_level))
            (partitions(view))
            (ages(view))
        }
    }
}

fn class_of(condition: &Condition) -> &'static str {
    match condition {
        Condition::Ready(_) => "",
        Condition::Degraded(_) => "warn-text",
        Condition::NotReady(_) => "bad-text",
    }
}

/// The state in a sentence.
fn state(view: &View) -> Markup {
    let says = |wanted: fn(&Condition) -> bool| {
        let of = view
            .components
            .iter()
            .filter(move |(_, held)| wanted(&held.condition));
        let mut of: Vec<_> = of.collect();
        // Where Kafka is away, the rest follows from that.
        of.sort_by_key(|(name, _)| !name.ends_with("/kafka"));
        of.iter()
            .map(|(name, held)| format!("{name}: {}", held.condition.text()))
            .collect::<Vec<_>>()
            .join("; ")
    };
    let not_ready = says(|it| matches!(it, Condition::NotReady(_)));
    let degraded = says(|it| matches!(it, Condition::Degraded(_)));
    html! {
        @if !view.ready && not_ready.is_empty() {
            p.state.bad { strong { "Not ready." } " No part of the process has started yet." }
        } @else if !view.ready {
            p.state.bad { strong { "Not ready." } " " (not_ready) }
        } @else if !degraded.is_empty() {
            p.state.warn { strong { "Ready, and somebody should look." } " " (degraded) }
        } @else {
            p.state { strong { "Ready." } " "
                @match view.partitions { 1 => "1 partition", several => { (several) " partitions" } }
                ", " (grouped(view.behind)) " records behind."
            }
        }
    }
}

fn findings(findings: &[Finding]) -> Markup {
    html! {
        section aria-labelledby="findings" {
            h2 #findings { "What stands out" }
            @if findings.is_empty() {
                p { "Nothing, of records and partitions." }
            } @else {
                ul.problems { @for finding in findings { li {
                    (finding.sentence) " "
                    a href={ "/runbook#" (finding.section.to_ascii_lowercase()) } { "What to do" }
                } } }
            }
        }
    }
}

fn throughput(view: &View) -> Markup {
    let Totals {
        received,
        duplicates,
        ..
    } = view.sum;
    let last = view.rates.last().copied().unwrap_or_default();
    let span = seconds(EVERY * u32::try_from(view.rates.len()).unwrap_or(u32::MAX));
    let most = view.rates.iter().map(|it| it.received).fold(0.0, f64::max);
    html! {
        section aria-labelledby="throughput" {
            h2 #throughput { "Throughput and duplicates" }
            p {
                "Now " strong { (rate(last.received)) } " records a second, "
                strong { (percent(last.duplicates, last.received)) } " of them duplicates. "
                "In the last " (span) " " strong { (grouped(received)) } " records, "
                strong { (percent(duplicates as f64, received as f64)) } " duplicates."
            }
            svg.chart viewBox={ "0 0 " (CHART.0) " " (CHART.1) } role="img" aria-labelledby="chart-title" {
                title #chart-title {
                    "Records and duplicates a second over the last " (span) "; at most " (rate(most)) " records a second."
                }
                line.axis x1="0" y1=(CHART.1 - 1.0) x2=(CHART.0) y2=(CHART.1 - 1.0) {}
                polyline.new points=(points(&view.rates, most, |it| it.received)) {}
                polyline.dup points=(points(&view.rates, most, |it| it.duplicates)) {}
            }
            p.faint {
                "One hour up to now; at most " (rate(most)) " records a second."
                span.key {} "records" span.key.dup {} "duplicates"
            }
        }
    }
}

/// The newest at the right; an hour is the whole width.
fn points(rates: &[Rates], most: f64, of: fn(&Rates) -> f64) -> String {
    const HOUR: f64 = 3600.0;
    let step = CHART.0 * EVERY.as_secs_f64() / HOUR;
    let mut text = String::new();
    for (back, rates) in rates.iter().rev().enumerate() {
        let x = CHART.0 - step * back as f64;
        let y = (CHART.1 - 2.0) * (1.0 - of(rates) / most.max(1.0)) + 1.0;
        let _ = write!(text, "{x:.1},{y:.1} ");
    }
    text
}

fn problems(problems: &[Problem], log_level: &str) -> Markup {
    html! {
        section aria-labelledby="problems" {
            h2 #problems { "Last problems" }
            p.faint { "Warnings and errors of the log; more of what they mean in the " a href="/runbook" { "runbook" } "." }
            @if problems.is_empty() {
                p { "No warning or error in the log since the process started, as far as log.level lets them through (" (log_level) ")." }
            } @else {
                ul.problems { @for problem in problems { li {
                    strong class=(if problem.is_error { "bad-text" } else { "warn-text" }) {
                        (if problem.is_error { "Error" } else { "Warning" })
                    }
                    " " (problem.sentence)
                    div.faint {
                        (stamp(problem.last))
                        @if problem.times > 1 { ", " (grouped(problem.times)) " times since " (stamp(problem.first)) }
                    }
                } } }
            }
        }
    }
}

fn partitions(view: &View) -> Markup {
    let (restoring, left) = view.restoring;
    html! {
        section aria-labelledby="partitions" {
            h2 #partitions { "Partitions" }
            @if restoring > 0 {
                p.warn-text {
                    (restoring) " of " (view.partitions) " are being restored: "
                    (grouped(left)) " journal offsets to go. They are not read meanwhile."
                }
            }
            @if view.rows.is_empty() {
                p { "This process has no partition." }
            } @else {
                div.wide tabindex="0" { table.stack {
                    caption {
                        @if view.partitions > MOST_ROWS {
                            (view.rows.len()) " of " (view.partitions) ": those that are not read, and those with the largest lag. /status has all."
                        } @else { "Those that this process has" }
                    }
                    thead { tr {
                        th scope="col" { "partition" } th scope="col" { "state" }
                        th.number scope="col" { "lag" } th.number scope="col" { "behind" }
                        th scope="col" { "stream time" } th.number scope="col" { "ids" }
                        th.number scope="col" { "covered" } th scope="col" { "last commit" }
                        th.number scope="col" { "worker" }
                    } }
                    tbody { @for (worker, row) in &view.rows { (partition(*worker, row)) } }
                } }
            }
        }
    }
}

fn partition(worker: usize, row: &PartitionStatus) -> Markup {
    let class = match row.state {
        "active" => "",
        "restoring" | "ahead" => "warn-text",
        _ => "bad-text",
    };
    let behind = row
        .lag_seconds
        .map(|it| seconds(Duration::from_secs_f64(it.max(0.0))));
    let covered = row
        .coverage
        .map(|it| format!("{:.0} %", (100.0 * it).floor()));
    html! {
        tr {
            th.word scope="row" data-name="partition" { (row.topic) "-" (row.partition) }
            td data-name="state" class=(class) {
                (row.state)
                @if let Some(left) = row.restore_remaining { ", " (grouped(left.unsigned_abs())) " to go" }
            }
            td.number data-name="lag" { (or_dash(row.lag.map(|it| grouped(it.unsigned_abs())))) }
            td.number data-name="behind" { (or_dash(behind)) }
            td data-name="stream time" { (or_dash(row.stream_time_ms.map(to_seconds))) }
            td.number data-name="ids" { (grouped(row.ids)) }
            td.number data-name="covered" { (or_dash(covered)) }
            td data-name="last commit" { (or_dash(row.last_commit_ms.map(to_seconds))) }
            td.number data-name="worker" { (worker) }
        }
    }
}

fn ages(view: &View) -> Markup {
    let all: u64 = view.ages.iter().map(|it| it.count).sum();
    let last = view.ages.iter().rposition(|it| it.count > 0);
    let shown = &view.ages[..last.map_or(0, |last| last + 1)];
    html! {
        section aria-labelledby="ages" {
            h2 #ages { "How old duplicates are" }
            @if all == 0 {
                p { "No duplicate since the process started." }
            } @else {
                div.wide { table.bars {
                    caption { "Duplicates by the stream time since their id was let through, since the process started. The window has to be longer than the oldest that matter." }
                    thead { tr { th scope="col" { "up to" } th.number scope="col" { "duplicates" } th.number scope="col" { "share" } th scope="col" { "" } } }
                    tbody { @for bucket in shown { tr {
                        th scope="row" { (match bucket.up_to { Some(limit) => seconds(limit), None => "longer".to_owned() }) }
                        td.number { (grouped(bucket.count)) }
                        td.number { (percent(bucket.count as f64, all as f64)) }
                        td { svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
                            rect.bar x="0" y="0" height="8" width=(format!("{:.1}", 100.0 * bucket.count as f64 / all as f64)) {}
                        } }
                    } } }
                } }
            }
        }
    }
}

fn look_up(
    view: &View,
    wanted: Option<&Wanted>,
    found: &Found,
    may_ask: Result<(), &str>,
) -> Markup {
    let is_chosen = |topic: &str| wanted.is_some_and(|it| it.topic == topic);
    html! {
        section aria-labelledby="look-up" {
            h2 #look-up { "Is an id remembered?" }
            @if let Err(sentence) = may_ask {
                p { "The workers are not asked from here: " (sentence) ". " code { "kafka-dedup admin -c dedup.yaml seen --topic T --id ID" } " does." }
            } @else {
                form action="/#look-up" method="get" {
                    @if view.topics.is_empty() {
                        label { "topic" input name="topic" required maxlength="249" autocomplete="off" value=[wanted.map(|it| &it.topic)]; }
                    } @else {
                        label { "topic" select name="topic" {
                            @for topic in &view.topics { option value=(topic) selected[is_chosen(topic)] { (topic) } }
                        } }
                    }
                    label { "id" input name="id" required maxlength="4096" autocomplete="off" value=[wanted.map(|it| &it.id)]; }
                    label { "as" select name="as" {
                        option value="text" { "text" }
                        option value="hex" selected[wanted.is_some_and(|it| it.hex)] { "hexadecimal" }
                    } }
                    button { "Look up" }
                }
            }
            @match found {
                Found::NotAsked => {}
                Found::Refused(sentence) => p.found.bad-text role="alert" { (sentence) },
                Found::Answers(answers) => (answered(answers)),
            }
        }
    }
}

fn answered(answers: &[Answer]) -> Markup {
    let known = |answer: &&Answer| matches!(answer.what, What::Remembered { .. });
    let restoring = answers.iter().any(|it| it.what == What::Restoring);
    html! {
        div.found role="status" {
            @for answer in answers.iter().filter(known) {
                @if let What::Remembered { first_partition, first_offset, seen_at_ms, age_ms } = answer.what {
                    p {
                        strong { "Remembered" } " in " (answer.topic) "-" (answer.partition) " since " (time(seen_at_ms))
                        " (" (seconds(Duration::from_millis(age_ms))) " of stream time). "
                        @if first_offset < 0 { "It was preloaded." }
                        @else { "First record: partition " (first_partition) ", offset " (first_offset) "." }
                    }
                }
            }
            @if !answers.iter().any(|it| known(&it)) {
                p { strong { "Not remembered" } " in any of the " (answers.len()) " partitions that this process has of it." }
            }
            @if restoring { p.warn-text { "Some partitions are being restored, and do not know yet." } }
        }
    }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

/// Without the milliseconds.
fn to_seconds(ms: i64) -> String {
    let text = time(ms);
    match text.rsplit_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

fn stamp(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// The largest two units.
pub(super) fn seconds(duration: Duration) -> String {
    let rounded = match duration.as_secs() {
        0 => Duration::from_millis(u64::from(duration.subsec_millis())),
        secs @ 1..3600 => Duration::from_secs(secs),
        secs @ 3600..86_400 => Duration::from_secs(secs / 60 * 60),
        secs => Duration::from_secs(secs / 3600 * 3600),
    };
    humantime::format_duration(rounded).to_string()
}

fn rate(per_second: f64) -> String {
    match per_second < 10.0 {
        true => format!("{per_second:.1}"),
        false => grouped(per_second.round() as u64),
    }
}

pub(super) fn percent(part: f64, whole: f64) -> String {
    match whole > 0.0 {
        true => format!("{:.1} %", 100.0 * part / whole),
        false => "0 %".to_owned(),
    }
}

/// 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
