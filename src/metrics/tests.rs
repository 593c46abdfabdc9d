//! What a scrape shows.

use super::*;

/// The names of all families a scrape shows, in order.
fn families(metrics: &Metrics) -> Vec<String> {
    let text = metrics.encode();
    let types = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE kafka_dedup_"));
    types.map(str::to_owned).collect()
}

#[test]
fn a_scrape_shows_every_metric_with_its_type() {
    let metrics = Metrics::new();
    metrics.set_mode(Mode::Observe);
    let _ = metrics.topic("a");
    let _ = metrics.sentinel("a");
    let _ = metrics.partition("a", 3);
    metrics.admin_requests.with_label_values(&["state", "done"]);
    metrics
        .client_errors
        .with_label_values(&["BrokerTransportFailure"])
        .inc();
    assert_eq!(
        families(&metrics),
        [
            "admin_requests_total counter",
            "build_info gauge",
            "bypass gauge",
            "client_errors_total counter",
            "commit_step_duration_seconds histogram",
            "duplicate_age_seconds histogram",
            "filter_checks_total counter",
            "filter_expected_false_positive_ratio gauge",
            "filter_false_positive_ratio gauge",
            "filter_false_positives_total counter",
            "filter_positives_total counter",
            "journal_foreign_records_total counter",
            "journal_trim_failures_total counter",
            "lag_records gauge",
            "lag_seconds gauge",
            "last_commit_timestamp_seconds gauge",
            "latency_seconds histogram",
            "mode gauge",
            "partition_active gauge",
            "partition_last_commit_timestamp_seconds gauge",
            "paused gauge",
            "producer_rebuilds_total counter",
            "ready gauge",
            "rebalances_total counter",
            "records_bypassed_total counter",
            "records_conflicting_total counter",
            "records_dropped_total counter",
            "records_duplicate_total counter",
            "records_forwarded_total counter",
            "records_missing_id_total counter",
            "records_passed_on_total counter",
            "records_received_total counter",
            "records_rejected_total counter",
            "records_returned_total counter",
            "restore_remaining_offsets gauge",
            "restored_ids gauge",
            "restores_total counter",
            "schema_requests_total counter",
            "scope_crossing_ids_total counter",
            "scope_sampled_ids_total counter",
            "store_degraded gauge",
            "store_errors_total counter",
            "store_memory_bytes gauge",
            "store_set_aside_total counter",
            "stream_timestamp_seconds gauge",
            "transaction_records histogram",
            "transactions_total counter",
            "window_bytes gauge",
            "window_configured_ids gauge",
            "window_configured_seconds gauge",
            "window_coverage_ratio gauge",
            "window_ids gauge",
            "window_oldest_timestamp_seconds gauge",
            "window_stored_slices gauge",
        ]
    );
    let text = metrics.encode();
    assert!(text.contains("process_resident_memory_bytes"));
    for (mode, value) in [("filter", 0), ("mark", 0), ("observe", 1)] {
        let line = format!("kafka_dedup_mode{{mode=\"{mode}\"}} {value}");
        assert!(text.contains(&line), "{line}");
    }
}

#[test]
fn verdicts_and_outcomes_carry_their_labels_and_start_at_zero() {
    let metrics = Metrics::new();
    let topic = metrics.topic("a");
    topic.received.inc_by(3);
    topic.duplicates_transaction.inc();
    metrics.transaction_committed("interval");
    metrics.transaction_aborted("rebalance");
    let text = metrics.encode();
    for line in [
        "kafka_dedup_records_received_total{topic=\"a\"} 3",
        "kafka_dedup_records_duplicate_total{reason=\"transaction\",topic=\"a\"} 1",
        "kafka_dedup_records_duplicate_total{reason=\"window\",topic=\"a\"} 0",
        "kafka_dedup_records_rejected_total{reason=\"refused\",topic=\"a\"} 0",
        "kafka_dedup_transactions_total{cause=\"interval\",outcome=\"committed\"} 1",
        "kafka_dedup_transactions_total{cause=\"rebalance\",outcome=\"aborted\"} 1",
        "kafka_dedup_rebalances_total{event=\"lost\"} 0",
        "kafka_dedup_restores_total{kind=\"warm\"} 0",
        "kafka_dedup_store_set_aside_total{reason=\"damaged\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
    }
}

#[test]
fn a_partition_that_was_given_back_is_shown_no_longer() {
    let metrics = Metrics::new();
    metrics.partition("a", 3).lag.set(7);
    assert!(
        metrics
            .encode()
            .contains("kafka_dedup_lag_records{partition=\"3\",topic=\"a\"} 7")
    );
    metrics.forget_partition("a", 3);
    metrics.forget_partition("a", 3);
    assert!(!metrics.encode().contains("partition=\"3\""));
}

#[test]
fn a_partition_lost_by_one_worker_stays_shown_for_the_next_one() {
    let metrics = Metrics::new();
    let _loser = metrics.partition("a", 3);
    let owner = metrics.partition("a", 3);
    metrics.forget_partition("a", 3);
    owner.lag.set(9);
    assert!(
        metrics
            .encode()
            .contains("kafka_dedup_lag_records{partition=\"3\",topic=\"a\"} 9")
    );
    metrics.forget_partition("a", 3);
    assert!(!metrics.encode().contains("partition=\"3\""));
}

/// All families in a table, as docs/metrics.md has it.
fn table() -> String {
    let metrics = Metrics::new();
    metrics.set_mode(Mode::Filter);
    let _ = metrics.topic("a");
    let _ = metrics.sentinel("a");
    let _ = metrics.partition("a", 3);
    metrics.admin_requests.with_label_values(&["state", "done"]);
    metrics.client_errors.with_label_values(&["code"]);
    metrics.transaction_aborted("cause");
    let mut out = String::from("| metric | type | labels | what it says |\n|---|---|---|---|\n");
    for family in metrics.registry.gather() {
        let labels = family.get_metric().first().map(|metric| {
            let labels = metric.get_label().iter().map(|label| label.name());
            labels.map(|name| format!("`{name}`")).collect::<Vec<_>>()
        });
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        let labels = labels.unwrap_or_default().join(", ");
        let (name, help) = (family.name(), family.help());
        out += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
    }
    out
}

/// `KAFKA_DEDUP_WRITE_DOCS=1` writes it anew.
#[test]
fn the_documented_table_is_what_is_exported() {
    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let (begin, end) = ("<!-- metrics: begin -->\n", "<!-- metrics: end -->");
    let page = std::fs::read_to_string(PATH).expect("the page");
    let (before, rest) = page.split_once(begin).expect("where the table begins");
    let (found, after) = rest.split_once(end).expect("where the table ends");
    let wanted = table();
    if std::env::var_os("KAFKA_DEDUP_WRITE_DOCS").is_some() {
        let page = format!("{before}{begin}{wanted}{end}{after}");
        return std::fs::write(PATH, page).expect("written");
    }
    assert_eq!(
        found, wanted,
        "docs/metrics.md is old: KAFKA_DEDUP_WRITE_DOCS=1 cargo test --lib documented_table"
    );
}
