//! What the worker does once a second: lag, status, trimming; and what it tells of its health.

use super::*;
use crate::config;

impl Worker {
    pub(super) fn keep_house(&mut self) -> Result<(), Stop> {
        self.next_housekeeping = Instant::now() + HOUSEKEEPING;
        let trim = Instant::now() >= self.next_trim;
        if trim {
            self.next_trim = Instant::now() + TRIM_INTERVAL;
        }
        let wall_ms = wall_clock_ms();
        let mut rows = Vec::new();
        let mut unseen = Vec::new();
        for (_, scope) in self.scopes.active() {
            let (name, partition) = (&scope.topic.name, scope.partition);
            let high = self
                .source
                .as_ref()
                .and_then(|source| source.cached_high_watermark(name, partition));
            // Markers at the end are no records that wait.
            let passed = scope.passed.filter(|_| !scope.touched);
            let from = passed.map_or(scope.committed_offset, |(position, _)| position);
            let lag = high.map(|high| (high - from).max(0));
            let since = scope.unseen_since.get_or_insert_with(Instant::now);
            if high.is_some() || since.elapsed() >= UNSEEN {
                scope.unseen_since = None;
            }
            if high.is_none() && scope.unseen_since.is_none() {
                unseen.push((scope.partition_key(), scope.next_offset));
            }
            if let Some(lag) = lag {
                scope.metrics.lag.set(lag);
                scope
                    .metrics
                    .lag_seconds
                    .set(behind_seconds(scope, lag, wall_ms));
            }
            // Not before a run says under which terms the ids are held: a start under others must learn of what is gone.
            if trim
                && scope.has_written_run
                && let Some(keep_from) = scope.window.keep_journal_from()
                && keep_from > scope.trimmed_to
            {
                fail::fail_point!("trim", |_| crate::exit::die());
                self.trimmer
                    .trim(&scope.topic.names.journal, partition, keep_from);
                scope.trimmed_to = keep_from;
            }
            if trim
                && let Hop::Second { .. } = scope.topic.hop
                && scope.committed_offset > scope.passed_trimmed_to
            {
                // What was judged is not read again.
                self.trimmer.trim(name, partition, scope.committed_offset);
                scope.passed_trimmed_to = scope.committed_offset;
            }
            // Slices are sealed and filters built also where no transaction says so.
            scope.report_window();
            let (metrics, window) = (&scope.metrics, &scope.window);
            metrics
                .slices_on_disk
                .set(i64::try_from(window.slices_on_disk()).unwrap_or(i64::MAX));
            metrics
                .filter_measured
                .set(scope.filter_counts.false_positive_rate());
            metrics
                .filter_expected
                .set(window.expected_false_positive_rate());
            rows.push(PartitionStatus {
                topic: name.clone(),
                partition,
                input: scope.topic.input().to_owned(),
                lag_seconds: lag.map(|lag| behind_seconds(scope, lag, wall_ms)),
                state: match (scope.topic.is_paused(&self.shared.control), scope.pace.held) {
                    (true, _) => "paused",
                    (false, true) => "ahead",
                    (false, false) => "active",
                },
                next_offset: Some(scope.committed_offset),
                lag,
                stream_time_ms: scope.window.stream_time_ms(),
                coverage: Some(scope.window.coverage()),
                last_commit_ms: scope.last_commit_ms,
                ids: scope.window.ids(),
                slices: scope.window.slices(),
                restore_remaining: None,
            });
        }
        for ((name, partition), recovering) in self.scopes.recovering() {
            rows.push(PartitionStatus {
                topic: name.clone(),
                partition: *partition,
                input: recovering.topic.input().to_owned(),
                lag_seconds: None,
                state: "restoring",
                next_offset: None,
                lag: None,
                stream_time_ms: None,
                coverage: None,
                last_commit_ms: None,
                ids: 0,
                slices: 0,
                restore_remaining: Some(recovering.metrics.restore_remaining.get()),
            });
        }
        // The client forgets the end of a partition that it gives up, and its word for that may be lost: whether it still reads
        // the partition shows when it is started again.
        self.hold(unseen);
        self.shared.status.update(self.index, rows);
        let memory = self.shared.store.memory_bytes();
        self.shared
            .metrics
            .store_memory_bytes
            .set(i64::try_from(memory).unwrap_or(i64::MAX));
        self.tell_recovery();
        if self.sink.is_some() && !self.fenced_at.is_empty() {
            self.tell_producer();
        }
        self.heed_fatal_error()?;
        self.look_at_membership();
        self.shared.control.remind();
        self.tell_schemas();
        Ok(())
    }

    /// Where an input ends in markers or aborted records, no record will ever tell that they have been
    /// passed. When nothing else has come for so long, the position itself is committed: retention can
    /// then take all of the input, and nothing that looks unread.
    pub(super) fn commit_idle_positions(&mut self, idle: Duration) -> Result<(), Stop> {
        let (Some(source), Some(sink)) = (&self.source, &mut self.sink) else {
            return Ok(());
        };
        let positions = source.positions();
        let now = Instant::now();
        let mut any = false;
        for (_, scope) in self.scopes.active() {
            let key = scope.partition_key();
            // What was delivered has been judged, unless it is to be read again.
            let read_again = self.to_start.iter().any(|(partition, _)| *partition == key);
            let position = positions.get(&key).copied();
            let Some(position) = position.filter(|it| !read_again && *it > scope.next_offset)
            else {
                scope.passed = None;
                continue;
            };
            let (passed, since) = *scope.passed.get_or_insert((position, now));
            if passed != position {
                scope.passed = Some((position, now));
            } else if now.duration_since(since) >= idle {
                scope.passed = None;
                scope.next_offset = position;
                scope.touched = true;
                any = true;
            }
        }
        if any && self.open.is_none() {
            match commit::begin(sink) {
                Ok(open) => self.open = Some(open),
                Err(trouble) => return self.resolve(trouble),
            }
        }
        Ok(())
    }

    /// Some of the windows' work beside the verdicts: slices to the store, the filter's size. Windows
    /// take turns, and all together take a few milliseconds.
    pub(super) fn tend_windows(&mut self) -> Result<(), Stop> {
        let started = Instant::now();
        let mut next_turn = None;
        let mut damaged = None;
        let turn = self.tending_turn;
        for (place, scope) in self.scopes.active() {
            let has_turn = place >= turn && started.elapsed() < TENDING;
            if place >= turn && !has_turn {
                next_turn.get_or_insert(place);
            }
            // Without a turn, slices are handed over and taken back all the same.
            let mut steps = scope.window.tend(usize::from(has_turn));
            while has_turn && matches!(steps, Ok(1)) {
                if started.elapsed() >= TENDING {
                    next_turn.get_or_insert(place);
                    break;
                }
                steps = scope.window.tend(1);
            }
            if let Err(damage) = steps {
                damaged = Some((place, damage));
                break;
            }
        }
        self.tending = next_turn.is_some() || turn > 0;
        self.tending_turn = next_turn.unwrap_or(0);
        match damaged {
            Some((place, damage)) => self.rebuild_seen_set(place, &damage),
            None => Ok(()),
        }
    }

    pub(super) fn tell(&self, component: &str, condition: Condition) {
        self.shared
            .health
            .set(&format!("worker-{}/{component}", self.index), condition);
    }

    pub(super) fn tell_recovery(&mut self) {
        let left = self.scopes.recovering().len();
        let active = self.scopes.active().count();
        let condition = if let Some((waiting, one)) = self.incomplete().filter(|_| left == 0) {
            Condition::NotReady(format!(
                "scope: {}: {waiting} partitions wait for others that this worker has not been given, {one} among them",
                self.config.scope.as_str()
            ))
        } else if left == 0 && active == 0 && self.config.scope == config::Scope::Topic {
            Condition::Ready("standing by: another member reads".to_owned())
        } else if left == 0 {
            Condition::Ready(match active {
                1 => "1 partition active".to_owned(),
                several => format!("{several} partitions active"),
            })
        } else {
            let sum = |gauge: fn(&PartitionMetrics) -> i64| -> i64 {
                let recovering = self.scopes.recovering().values();
                recovering
                    .map(|recovering| gauge(&recovering.metrics))
                    .sum()
            };
            Condition::NotReady(format!(
                "{left} of {} partitions are being restored: {} journal offsets to go, {} ids so far",
                left + active,
                sum(|metrics| metrics.restore_remaining.get()),
                sum(|metrics| metrics.restored_ids.get())
            ))
        };
        self.tell("partitions", condition);
    }

    /// What was configured and is not among these inputs.
    pub(super) fn absent(&self, inputs: &[String]) -> Vec<&str> {
        let patterns = self.config.input.topics.iter();
        patterns
            .filter(|pattern| !inputs.iter().any(|input| pattern.matches(input)))
            .map(|pattern| pattern.as_str())
            .collect()
    }

    pub(super) fn tell_inputs(&self, inputs: &[String]) {
        let absent = self.absent(inputs);
        let condition = if absent.is_empty() {
            Condition::Ready(format!("reading {}", inputs.join(", ")))
        } else {
            Condition::NotReady(format!(
                "no topic yet for {}, or none that this user may read; waiting for it",
                absent.join(", ")
            ))
        };
        self.tell("inputs", condition);
        // From here on the parts speak for the worker.
        self.shared.health.clear(&worker_component(self.index));
    }
}

/// How long ago the last record that was committed had its timestamp, while others wait behind it.
fn behind_seconds(scope: &Scope, lag: i64, wall_ms: i64) -> f64 {
    let waits_ms = scope.committed_ms.filter(|_| lag > 0);
    let behind_ms = waits_ms.map_or(0, |ms| wall_ms.saturating_sub(ms).max(0));
    behind_ms as f64 / 1000.0
}
