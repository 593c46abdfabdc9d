#!/usr/bin/env python3
"""Prints kafka-dedup.json, the Grafana dashboard: deploy/grafana/dashboard.py > deploy/grafana/kafka-dedup.json

The panels are the table below, in the order in which they are shown. They ask the metrics of the service
itself and no recording rules, so the dashboard is of use without rules.yaml. `make check-deploy` holds the
names against src/metrics.rs, and kafka-dedup.json against what this prints.
"""

import json

# What every query is narrowed to by the variables at the top of the page.
PROCESS = 'job=~"$job", instance=~"$instance"'
TOPIC = PROCESS + ', topic=~"$topic"'
RATE = "[$__rate_interval]"

COLUMNS = 24
STAT = {"w": 3, "h": 4}
GRAPH = {"w": 12, "h": 8}
THIRD = {"w": 8, "h": 8}


def rate(metric, by, labels=TOPIC):
    return f"sum by ({by}) (rate({metric}{{{labels}}}{RATE}))"


def total_rate(metric, labels=TOPIC):
    return f"sum(rate({metric}{{{labels}}}{RATE}))"


def quantile(share, metric, by, labels=TOPIC):
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket{{{labels}}}{RATE})))"


def since(metric, labels):
    """Seconds since the moment that a metric tells, at the time of its scrape; nothing where it tells none."""
    asked = f"{metric}{{{labels}}}"
    return f"(timestamp({asked}) - ({asked} > 0))"


def mean(metric, by, labels):
    return f"{rate(metric + '_sum', by, labels)} / {rate(metric + '_count', by, labels)}"


def panel(kind, title, unit, description, *queries, size=GRAPH, **defaults):
    """`queries` are pairs of an expression and the legend of its series."""
    return {
        "kind": kind,
        "title": title,
        "unit": unit,
        "description": description,
        "queries": queries,
        "size": size,
        "defaults": defaults,
    }


def graph(title, unit, description, *queries, size=GRAPH, **defaults):
    return panel("timeseries", title, unit, description, *queries, size=size, **defaults)


def stat(title, unit, description, expression, *thresholds, mappings=()):
    """`thresholds` are pairs of a value and the colour from it on."""
    steps = [{"color": "green", "value": None}]
    steps += [{"color": colour, "value": value} for value, colour in thresholds]
    return panel(
        "stat",
        title,
        unit,
        description,
        (expression, ""),
        size=STAT,
        thresholds={"mode": "absolute", "steps": steps},
        mappings=list(mappings),
    )


ROWS = [
    (
        "Overview",
        [
            stat(
                "Processes",
                "short",
                "Processes that are scraped and answer.",
                f"count(kafka_dedup_build_info{{{PROCESS}}}) or vector(0)",
            ),
            stat(
                "Processes down",
                "short",
                "Processes that do not answer their scrape. The panels of such a process are empty, which looks like rest.",
                f"count(up{{{PROCESS}}} == 0) or vector(0)",
                (1, "red"),
            ),
            stat(
                "Duplicates",
                "percentunit",
                "Share of duplicates among the records received. Empty while nothing is received.",
                f"{total_rate('kafka_dedup_records_duplicate_total')} / ({total_rate('kafka_dedup_records_received_total')} > 0)",
            ),
            stat(
                "Forwarded",
                "recps",
                "Records let through to the output in a second, counted after their transaction has committed.",
                total_rate("kafka_dedup_records_forwarded_total"),
            ),
            stat(
                "Lag",
                "short",
                "Records between the committed positions and the ends of the partitions.",
                f"sum(kafka_dedup_lag_records{{{TOPIC}}})",
            ),
            stat(
                "Last commit",
                "s",
                "Seconds since it, of the process that has not committed for the longest time. It is long while nothing comes; together with a lag it means trouble.",
                f"max{since('kafka_dedup_last_commit_timestamp_seconds', PROCESS)}",
            ),
            stat(
                "Partitions restored",
                "short",
                "Partitions whose seen set is being restored; they are not read until that is done.",
                f"count(kafka_dedup_partition_active{{{TOPIC}}} == 0) or vector(0)",
                (1, "orange"),
            ),
            stat(
                "Needs a person",
                "short",
                "Processes that are paused, in bypass, or cannot use their store, added up. /readyz?verbose has the reasons.",
                f"sum(kafka_dedup_paused{{{PROCESS}}}) + sum(kafka_dedup_bypass{{{PROCESS}}}) + sum(kafka_dedup_store_degraded{{{PROCESS}}})",
                (1, "red"),
            ),
            graph(
                "Records by verdict",
                "recps",
                "What became of the records received: forwarded, duplicate, rejected or dropped. They add up to received (invariant I2).",
                (total_rate("kafka_dedup_records_received_total"), "received"),
                (total_rate("kafka_dedup_records_forwarded_total"), "forwarded"),
                (total_rate("kafka_dedup_records_duplicate_total"), "duplicate"),
                (total_rate("kafka_dedup_records_rejected_total"), "rejected"),
                (total_rate("kafka_dedup_records_dropped_total"), "dropped"),
            ),
            graph(
                "Duplicates by topic",
                "percentunit",
                "Share of duplicates among the records of each topic. A jump up: somebody sends again. A jump down: a source rests, or ids are no longer recognized.",
                (
                    f"{rate('kafka_dedup_records_duplicate_total', 'topic')} / ({rate('kafka_dedup_records_received_total', 'topic')} > 0)",
                    "{{topic}}",
                ),
            ),
            graph(
                "Lag by topic",
                "short",
                "Records between the committed position and the end, of all partitions of a topic.",
                (f"sum by (topic) (kafka_dedup_lag_records{{{TOPIC}}})", "{{topic}}"),
            ),
            graph(
                "Age of the last record, where others wait",
                "s",
                "How long ago the last committed record of a partition had its timestamp, while others wait behind it: the largest of each topic. Old records make it large whoever is to blame.",
                (f"max by (topic) (kafka_dedup_lag_seconds{{{TOPIC}}})", "{{topic}}"),
            ),
            graph(
                "Latency, from a record's timestamp to its commit",
                "s",
                "Of the first record that each transaction forwards of a partition. Where producers set timestamps, their clocks are in it.",
                (quantile(0.5, "kafka_dedup_latency_seconds", "topic"), "{{topic}} 50 %"),
                (quantile(0.99, "kafka_dedup_latency_seconds", "topic"), "{{topic}} 99 %"),
            ),
            graph(
                "Partitions with the largest lag",
                "short",
                "The ten partitions that are furthest behind. One alone is a hot partition, or one that stands still.",
                (
                    f"topk(10, sum by (topic, partition) (kafka_dedup_lag_records{{{TOPIC}}}))",
                    "{{topic}}-{{partition}}",
                ),
            ),
            graph(
                "Rejected, by reason",
                "recps",
                "missing_id and unparsable: no id can be read. refused: the output does not take the record. conflict: the id is remembered with another payload.",
                (rate("kafka_dedup_records_rejected_total", "topic, reason"), "{{topic}} {{reason}}"),
            ),
            graph(
                "Records that are out of the ordinary",
                "recps",
                "Without an id, with a known id and another payload, with an id that came again just after its window, forwarded because of a bypass alone, or passed on by the first hop of scope: repartition. Each but the last is also in a verdict.",
                (rate("kafka_dedup_records_missing_id_total", "topic"), "{{topic}} without id"),
                (rate("kafka_dedup_records_conflicting_total", "topic"), "{{topic}} conflicting"),
                (rate("kafka_dedup_records_returned_total", "topic"), "{{topic}} after its window"),
                (rate("kafka_dedup_records_bypassed_total", "topic"), "{{topic}} bypassed"),
                (rate("kafka_dedup_records_passed_on_total", "topic"), "{{topic}} passed on"),
            ),
        ],
    ),
    (
        "Window and ages",
        [
            panel(
                "heatmap",
                "Age of the duplicates",
                "s",
                "Stream time between a duplicate and the letting-through of its id. Duplicates older than the window are not known as such: where the top of it is well filled, the window may be too short.",
                (
                    f"sum by (le) (increase(kafka_dedup_duplicate_age_seconds_bucket{{{TOPIC}}}{RATE}))",
                    "{{le}}",
                ),
            ),
            graph(
                "Age that 50, 90 and 99 of 100 duplicates stay below",
                "s",
                "Hold it against window.time: what the window has to be to catch that many. Estimated from buckets.",
                (quantile(0.5, "kafka_dedup_duplicate_age_seconds", "topic"), "{{topic}} 50 %"),
                (quantile(0.9, "kafka_dedup_duplicate_age_seconds", "topic"), "{{topic}} 90 %"),
                (quantile(0.99, "kafka_dedup_duplicate_age_seconds", "topic"), "{{topic}} 99 %"),
            ),
            graph(
                "Window covered",
                "percentunit",
                "Share of the configured window of which the seen set remembers all that was let through: the least of each topic. Below 100 % while a group has not read for a whole window yet, after the window was grown, and after ids were forgotten: an older id would be let through once more.",
                (
                    f"min by (topic) (kafka_dedup_window_coverage_ratio{{{TOPIC}}})",
                    "{{topic}}",
                ),
                size=THIRD,
                min=0,
                max=1,
            ),
            graph(
                "Span of the ids held",
                "s",
                "From the oldest id that is held to stream time, the longest of each topic, beside window.time. Longer by up to an eighth; shorter where ids are rare.",
                (
                    f"max by (topic) (kafka_dedup_stream_timestamp_seconds{{{TOPIC}}} - (kafka_dedup_window_oldest_timestamp_seconds{{{TOPIC}}} > 0))",
                    "{{topic}}",
                ),
                (f"max(kafka_dedup_window_configured_seconds{{{PROCESS}}} > 0)", "window.time"),
                size=THIRD,
            ),
            graph(
                "Largest number of ids in a partition",
                "short",
                "Beside window.ids, where that is set.",
                (f"max by (topic) (kafka_dedup_window_ids{{{TOPIC}}})", "{{topic}}"),
                (f"max(kafka_dedup_window_configured_ids{{{PROCESS}}} > 0)", "window.ids"),
                size=THIRD,
            ),
            graph(
                "Ids remembered",
                "short",
                "Of all partitions of a topic. After the first window has passed it follows the rate of new ids.",
                (f"sum by (topic) (kafka_dedup_window_ids{{{TOPIC}}})", "{{topic}}"),
                size=THIRD,
            ),
            graph(
                "Memory of the seen windows",
                "bytes",
                "Newest ids and filters, of all partitions of a topic; without the open databases of the store.",
                (f"sum by (topic) (kafka_dedup_window_bytes{{{TOPIC}}})", "{{topic}}"),
                size=THIRD,
            ),
            graph(
                "Slices in the store",
                "short",
                "Stretches of the window that are on the disk.",
                (f"sum by (topic) (kafka_dedup_window_stored_slices{{{TOPIC}}})", "{{topic}}"),
                size=THIRD,
            ),
            graph(
                "Stream time behind the clock",
                "s",
                "Wall clock less the largest record timestamp of a partition: the ten largest. Windows go by stream time, so a partition that rests forgets nothing.",
                (
                    f"topk(10, min by (topic, partition) {since('kafka_dedup_stream_timestamp_seconds', TOPIC)})",
                    "{{topic}}-{{partition}}",
                ),
            ),
            graph(
                "Ids in several partitions",
                "percentunit",
                "Share of the sampled new ids that another partition had let through before: duplicates that the scope does not see. One in 100,000 is mistaken.",
                (
                    f"{rate('kafka_dedup_scope_crossing_ids_total', 'topic')} / ({rate('kafka_dedup_scope_sampled_ids_total', 'topic')} > 0)",
                    "{{topic}}",
                ),
            ),
            graph(
                "Filter: checks and what they lead to",
                "cps",
                "Ids that the filter was asked for, answers that sent a look-up to the store, and slices that were looked into in vain.",
                (total_rate("kafka_dedup_filter_checks_total"), "checks"),
                (total_rate("kafka_dedup_filter_positives_total"), "positives"),
                (total_rate("kafka_dedup_filter_false_positives_total"), "false positives"),
            ),
            graph(
                "Filter: false positives, measured and expected",
                "percentunit",
                "Look-ups in vain for each id that was not there: since the assignment, and as size and contents of the filter promise. The worst partition of each topic.",
                (
                    f"max by (topic) (kafka_dedup_filter_false_positive_ratio{{{TOPIC}}})",
                    "{{topic}} measured",
                ),
                (
                    f"max by (topic) (kafka_dedup_filter_expected_false_positive_ratio{{{TOPIC}}})",
                    "{{topic}} expected",
                ),
            ),
        ],
    ),
    (
        "Transactions and steps",
        [
            graph(
                "Transactions by outcome",
                "cps",
                "Committed, and aborted by cause. What was in an aborted transaction is judged again.",
                (rate("kafka_dedup_transactions_total", "outcome, cause", PROCESS), "{{outcome}} {{cause}}"),
            ),
            graph(
                "Records a transaction",
                "short",
                "Consumed records of each committed transaction. At transaction.records, transactions end by number and not by transaction.interval.",
                (mean("kafka_dedup_transaction_records", "instance", PROCESS), "{{instance}} mean"),
                (quantile(0.99, "kafka_dedup_transaction_records", "instance", PROCESS), "{{instance}} 99 %"),
            ),
            graph(
                "Steps of a commit, mean",
                "s",
                "drain: deliveries of the output. offsets: input offsets to the transaction. commit: its end. publish: window and store.",
                (mean("kafka_dedup_commit_step_duration_seconds", "step", PROCESS), "{{step}}"),
            ),
            graph(
                "Steps of a commit, 99 %",
                "s",
                "What 99 of 100 commits stay below in each step. Estimated from buckets.",
                (quantile(0.99, "kafka_dedup_commit_step_duration_seconds", "step", PROCESS), "{{step}}"),
            ),
            graph(
                "Since the last commit",
                "s",
                "By process. It grows while nothing comes.",
                (
                    since("kafka_dedup_last_commit_timestamp_seconds", PROCESS),
                    "{{instance}}",
                ),
                size=THIRD,
            ),
            graph(
                "Producers replaced",
                "short",
                "Transactional producers replaced after an unknown or fatal outcome (invariant I7). Each broker that leaves may cost one a worker; many in a row are a loop.",
                (
                    f"increase(kafka_dedup_producer_rebuilds_total{{{PROCESS}}}{RATE})",
                    "{{instance}}",
                ),
                size=THIRD,
            ),
            graph(
                "Rebalances",
                "short",
                "assigned, revoked, and lost: the group went on without the process.",
                (
                    f"sum by (event) (increase(kafka_dedup_rebalances_total{{{PROCESS}}}{RATE}))",
                    "{{event}}",
                ),
                size=THIRD,
            ),
            graph(
                "Errors of the Kafka clients",
                "short",
                "By librdkafka's code. Most are retried: they explain an outage, and are none by themselves.",
                (
                    f"sum by (code) (increase(kafka_dedup_client_errors_total{{{PROCESS}}}{RATE}))",
                    "{{code}}",
                ),
                noValue="none",
            ),
            graph(
                "Questions to the schema registry",
                "short",
                "answered; unknown: it has no such schema; failed; refused: a schema that is too large. Partitions whose next record needs a schema wait for it.",
                (
                    f"sum by (outcome) (increase(kafka_dedup_schema_requests_total{{{PROCESS}}}{RATE}))",
                    "{{outcome}}",
                ),
            ),
        ],
    ),
    (
        "Store and restore",
        [
            graph(
                "Partitions",
                "short",
                "Judged, and being restored, by process. Together they are all partitions of the topics, while every one has an owner.",
                (f"sum by (instance) (kafka_dedup_partition_active{{{TOPIC}}})", "{{instance}} active"),
                (
                    f"count by (instance) (kafka_dedup_partition_active{{{TOPIC}}} == 0)",
                    "{{instance}} restored",
                ),
            ),
            graph(
                "Restore: journal offsets left",
                "short",
                "What is still to be read before the partitions may be judged (invariant I5). It falls, or the restore is stuck.",
                (
                    f"sum by (instance) (kafka_dedup_restore_remaining_offsets{{{TOPIC}}})",
                    "{{instance}}",
                ),
            ),
            graph(
                "Restores",
                "short",
                "warm: from the store and the journal's tail. cold: from the journal alone.",
                (
                    f"sum by (kind) (increase(kafka_dedup_restores_total{{{PROCESS}}}{RATE}))",
                    "{{kind}}",
                ),
                size=THIRD,
            ),
            graph(
                "Ids brought back",
                "short",
                "By the latest restore of each partition, from store and journal together.",
                (f"sum by (topic) (kafka_dedup_restored_ids{{{TOPIC}}})", "{{topic}}"),
                size=THIRD,
            ),
            graph(
                "Memory of the store",
                "bytes",
                "Open databases, estimated; bounded by store.memory.",
                (f"kafka_dedup_store_memory_bytes{{{PROCESS}}}", "{{instance}}"),
                size=THIRD,
            ),
            graph(
                "Store cannot be used",
                "short",
                "1 while seen ids are held in memory because the disk is full, read-only, damaged or in use by another process.",
                (f"kafka_dedup_store_degraded{{{PROCESS}}}", "{{instance}}"),
                size=THIRD,
                min=0,
                max=1,
            ),
            graph(
                "Operations of the store that failed",
                "short",
                "write: slices stay in memory and are tried again. remove: files of old slices that could not be deleted.",
                (
                    f"sum by (instance, operation) (increase(kafka_dedup_store_errors_total{{{PROCESS}}}{RATE}))",
                    "{{instance}} {{operation}}",
                ),
                size=THIRD,
            ),
            graph(
                "Slices set aside",
                "short",
                "Slices that could not be used and were rebuilt from the journal: damaged, foreign, stale or suspect.",
                (
                    f"sum by (instance, reason) (increase(kafka_dedup_store_set_aside_total{{{PROCESS}}}{RATE}))",
                    "{{instance}} {{reason}}",
                ),
                size=THIRD,
            ),
            graph(
                "Journal: trims that failed",
                "short",
                "Requests to delete what has aged out. The journal grows meanwhile; nothing else is wrong.",
                (
                    f"increase(kafka_dedup_journal_trim_failures_total{{{PROCESS}}}{RATE})",
                    "{{instance}}",
                ),
            ),
            graph(
                "Journal: records of others",
                "short",
                "Journal records that are no run of this deployment, since the start of the process. Should stay 0.",
                (f"kafka_dedup_journal_foreign_records_total{{{PROCESS}}}", "{{instance}}"),
            ),
        ],
    ),
    (
        "Process",
        [
            graph(
                "CPU",
                "percentunit",
                "100 % is one core. The counter moves by whole seconds, so the mean of five minutes is shown.",
                (f"rate(process_cpu_seconds_total{{{PROCESS}}}[5m])", "{{instance}}"),
                size=THIRD,
            ),
            graph(
                "Memory",
                "bytes",
                "Resident, and the address space.",
                (f"process_resident_memory_bytes{{{PROCESS}}}", "{{instance}} resident"),
                (f"process_virtual_memory_bytes{{{PROCESS}}}", "{{instance}} virtual"),
                size=THIRD,
            ),
            graph(
                "Open files and sockets",
                "percentunit",
                "Share of what the process may have open.",
                (
                    f"process_open_fds{{{PROCESS}}} / process_max_fds{{{PROCESS}}}",
                    "{{instance}}",
                ),
                size=THIRD,
            ),
            graph(
                "Threads",
                "short",
                "They do not depend on the number of records.",
                (f"process_threads{{{PROCESS}}}", "{{instance}}"),
                size=THIRD,
            ),
            graph(
                "Since the start",
                "s",
                "Counters begin at 0 with each start.",
                (f"time() - process_start_time_seconds{{{PROCESS}}}", "{{instance}}"),
                size=THIRD,
            ),
            graph(
                "Ready",
                "short",
                "1 while /readyz says ready. A process that restores, is paused or out of reach of Kafka is not.",
                (f"kafka_dedup_ready{{{PROCESS}}}", "{{instance}}"),
                size=THIRD,
                min=0,
                max=1,
            ),
            graph(
                "Partitions without a commit for the longest time",
                "s",
                "The ten that have committed nothing for longest, while records wait in them.",
                (
                    f"topk(10, min by (topic, partition) {since('kafka_dedup_partition_last_commit_timestamp_seconds', TOPIC)} and sum by (topic, partition) (kafka_dedup_lag_records{{{TOPIC}}}) > 0)",
                    "{{topic}}-{{partition}}",
                ),
            ),
            graph(
                "Switches",
                "short",
                "1 while an operator has paused a topic or all, or has switched the bypass on.",
                (f"kafka_dedup_paused{{{PROCESS}}}", "{{instance}} paused"),
                (f"kafka_dedup_bypass{{{PROCESS}}}", "{{instance}} bypass"),
                min=0,
                max=1,
            ),
            graph(
                "Admin requests",
                "short",
                "By command and outcome: done, refused, failed.",
                (
                    f"sum by (command, outcome) (increase(kafka_dedup_admin_requests_total{{{PROCESS}}}{RATE}))",
                    "{{command}} {{outcome}}",
                ),
                noValue="none",
            ),
            graph(
                "Versions and modes",
                "short",
                "Processes by version of the program, and by mode: filter, mark, observe.",
                (f"sum by (version) (kafka_dedup_build_info{{{PROCESS}}})", "version {{version}}"),
                (f"sum by (mode) (kafka_dedup_mode{{{PROCESS}}}) > 0", "mode {{mode}}"),
            ),
        ],
    ),
]

# How far an axis goes at least. Where all values are 0, Grafana draws it up to 100 else, which is 10000 %.
ZERO_AXIS = {"short": 1, "cps": 1, "recps": 1, "percentunit": 0.01, "bytes": 1 << 20}

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def target(number, kind, expression, legend):
    shown = {
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": expression,
        "legendFormat": legend,
        "refId": chr(ord("A") + number),
    }
    if kind == "stat":
        shown["instant"] = True
    if kind == "heatmap":
        shown["format"] = "heatmap"
    return shown


def options(kind, size):
    if kind == "stat":
        reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"colorMode": "value", "graphMode": "none", "reduceOptions": reduced}
    if kind == "heatmap":
        return {
            "calculate": False,
            "color": {"mode": "scheme", "scheme": "Blues", "steps": 64},
            "tooltip": {"mode": "single", "yHistogram": True},
            "yAxis": {"unit": "s"},
        }
    # Beside it where there is room: below, rows beyond the third are cut off.
    placement = "right" if size == GRAPH else "bottom"
    return {
        "legend": {"calcs": ["mean", "max", "lastNotNull"], "displayMode": "table", "placement": placement},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def shown_panel(number, at, described):
    kind = described["kind"]
    defaults = {"unit": described["unit"], **described["defaults"]}
    if kind == "timeseries":
        # Ten areas over each other are mud.
        many = any(expression.startswith("topk") for expression, _ in described["queries"])
        custom = {"fillOpacity": 0 if many else 10, "showPoints": "never"}
        if described["unit"] in ZERO_AXIS and "max" not in defaults:
            custom["axisSoftMax"] = ZERO_AXIS[described["unit"]]
        defaults = {"min": 0, **defaults, "custom": custom}
    queries = described["queries"]
    return {
        "datasource": SOURCE,
        "description": described["description"],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "gridPos": {**described["size"], **at},
        "id": number,
        "options": options(kind, described["size"]),
        "targets": [target(place, kind, *query) for place, query in enumerate(queries)],
        "title": described["title"],
        "type": kind,
    }


def panels():
    shown, number, y = [], 0, 0
    for title, row in ROWS:
        number += 1
        at = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        shown.append({"collapsed": False, "gridPos": at, "id": number, "panels": [], "title": title, "type": "row"})
        x, y, height = 0, y + 1, 0
        for described in row:
            size = described["size"]
            if x + size["w"] > COLUMNS:
                x, y, height = 0, y + height, 0
            number += 1
            shown.append(shown_panel(number, {"x": x, "y": y}, described))
            x, height = x + size["w"], max(height, size["h"])
        y += height
    return shown


def variable(name, label, query, **all_of_it):
    """All are the values that were found, as `up` and `process_…` have those of other programs as well."""
    return {
        **all_of_it,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "datasource": SOURCE,
        "definition": query,
        "includeAll": True,
        "label": label,
        "multi": True,
        "name": name,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "type": "query",
    }


DASHBOARD = {
    "annotations": {"list": []},
    "description": "What kafka-dedup forwards, discards, remembers and waits for.",
    "editable": True,
    "graphTooltip": 1,
    "links": [],
    "panels": panels(),
    "refresh": "30s",
    "schemaVersion": 39,
    "tags": ["kafka", "kafka-dedup"],
    "templating": {
        "list": [
            {"label": "Data source", "name": "datasource", "query": "prometheus", "refresh": 1, "type": "datasource"},
            variable("job", "Job", "label_values(kafka_dedup_build_info, job)"),
            variable("instance", "Instance", 'label_values(kafka_dedup_build_info{job=~"$job"}, instance)'),
            variable("topic", "Topic", f"label_values(kafka_dedup_records_received_total{{{PROCESS}}}, topic)", allValue=".*"),
        ]
    },
    "time": {"from": "now-6h", "to": "now"},
    "timezone": "",
    "title": "kafka-dedup",
    "uid": "kafka-dedup",
}

if __name__ == "__main__":
    print(json.dumps(DASHBOARD, indent=2, ensure_ascii=False))
