//! The worker's partitions: assigned, in recovery, active, revoked or lost.

use super::*;

impl Worker {
    pub(super) fn handle_rebalances(&mut self) -> Result<(), Stop> {
        while let Some(event) = self.source.as_ref().and_then(Source::next_rebalance) {
            match event {
                Rebalance::Assigned(partitions) => self.assigned(partitions)?,
                Rebalance::Revoked(partitions) => {
                    let partitions = self.of_former_owner(partitions);
                    self.shared
                        .metrics
                        .rebalances
                        .with_label_values(&["revoked"])
                        .inc();
                    self.close_transaction()?;
                    self.forget(&partitions, "revoked");
                }
                Rebalance::Lost(partitions) => {
                    let partitions = self.of_former_owner(partitions);
                    self.shared
                        .metrics
                        .rebalances
                        .with_label_values(&["lost"])
                        .inc();
                    self.abandon_transaction();
                    self.rewind();
                    self.forget(&partitions, "lost");
                    self.stands(Standing::Lost(Instant::now()));
                }
            }
        }
        Ok(())
    }

    pub(super) fn assigned(&mut self, partitions: Vec<Partition>) -> Result<(), Stop> {
        self.shared
            .metrics
            .rebalances
            .with_label_values(&["assigned"])
            .inc();
        fail::fail_point!("assigned");
        for (name, partition) in &partitions {
            self.topic_with(name, *partition)?;
        }
        self.count_anew(&partitions)?;
        self.take(&self.of_owner(partitions))?;
        // Last: the partitions hold the latch now.
        self.stands(Standing::Member);
        Ok(())
    }

    /// Begins with partitions that nobody else reads from now on.
    pub(super) fn take(&mut self, partitions: &[Partition]) -> Result<(), Stop> {
        // Cooperative rebalances also bring nothing, which has to be acknowledged all the same.
        if !partitions.is_empty() {
            tracing::info!(
                worker = self.index,
                count = partitions.len(),
                partitions = %listed(partitions),
                "assigned: their seen sets are brought up to date before anything is read"
            );
        }
        let Some(source) = &mut self.source else {
            return Ok(());
        };
        if let Err(error) = source.acknowledge_assigned(partitions) {
            return Err(Stop::restart(format!(
                "the assignment could not be taken: {error}"
            )));
        }
        for (name, partition) in partitions {
            let topic = self.topic_with(name, *partition)?;
            let metrics = self.shared.metrics.partition(name, *partition);
            self.request_recovery(topic, *partition, metrics, None)?;
        }
        self.hold_incomplete();
        self.tell_recovery();
        Ok(())
    }

    pub(super) fn forget(&mut self, partitions: &[Partition], how: &str) {
        tracing::info!(
            worker = self.index,
            count = partitions.len(),
            partitions = %listed(partitions),
            how,
            "partitions are gone"
        );
        for partition in partitions {
            self.scopes.remove(partition);
            self.shared
                .metrics
                .forget_partition(&partition.0, partition.1);
        }
        self.to_start
            .retain(|(partition, _)| !partitions.contains(partition));
        if self.scopes.active().next().is_none() {
            self.aborts_in_a_row = 0;
            self.tell(
                "transactions",
                Condition::Ready("nothing to commit".to_owned()),
            );
        }
        self.awaiting
            .retain(|partition, _| !partitions.contains(partition));
        self.refusals
            .retain(|partition, _| !partitions.contains(partition));
        if let Some(source) = &mut self.source
            && let Err(error) = source.acknowledge_revoked(partitions)
        {
            tracing::warn!(%error, "giving partitions back");
        }
        self.tell_recovery();
    }

    pub(super) fn request_recovery(
        &mut self,
        topic: Arc<Topic>,
        partition: i32,
        metrics: PartitionMetrics,
        known: Option<(SeenWindow, i64)>,
    ) -> Result<(), Stop> {
        metrics.state.set(0);
        let (epoch, cancelled) =
            self.scopes
                .begin_recovery(Arc::clone(&topic), partition, metrics.clone());
        self.recovery.request(Request {
            topic: topic.name.clone(),
            partition,
            journal: topic.is_judged().then(|| topic.names.journal.clone()),
            start: match topic.hop {
                // All that was passed on is to be judged.
                Hop::Second { .. } => Start::Earliest,
                Hop::Only | Hop::First { .. } => self.config.input.start,
            },
            identity: topic.identity(self.seed, partition),
            input: topic.input().to_owned(),
            to_begin_anew: topic.to_begin_anew(&self.config.kafka.group_id),
            lineage: Lineage {
                cluster_id: self.cluster_id.clone(),
                group: self.config.kafka.group_id.clone(),
                topic: topic.name.clone(),
                partition,
                topic_id: topic.id.clone(),
                journal: topic.names.journal.clone(),
                journal_id: topic.journal_id.clone(),
                seed: self.seed,
            },
            known,
            epoch,
            cancelled,
            metrics,
        })
    }

    pub(super) fn take_recovered(&mut self) -> Result<(), Stop> {
        let mut any = false;
        while let Some(Recovered {
            topic,
            partition,
            epoch,
            outcome,
        }) = self.recovery.next()
        {
            let key = (topic, partition);
            let Some(recovering) = self.scopes.end_recovery(&key, epoch) else {
                continue;
            };
            self.activate(recovering, partition, outcome?);
            any = true;
        }
        if any {
            self.tell_recovery();
        }
        Ok(())
    }

    /// The seen set covers the journal up to the committed offset: the partition may be judged (I5).
    pub(super) fn activate(&mut self, recovering: Recovering, partition: i32, restored: Restored) {
        let Recovering { topic, metrics, .. } = recovering;
        metrics.state.set(1);
        fail::fail_point!("restored", |_| crate::exit::die());
        let Restored {
            window,
            input_offset,
            input_end,
            committed,
            journal_next,
        } = restored;
        let scope = Scope {
            identity: topic.identity(self.seed, partition).own,
            metrics,
            topic,
            partition,
            window,
            next_offset: input_offset,
            committed_offset: input_offset,
            journal_next,
            last_run_checksum: 0,
            has_written_run: false,
            unseen_since: None,
            filter_counts: Counts::default(),
            touched: false,
            must_write_run: !committed,
            tally: Tally::default(),
            refused: std::collections::BTreeMap::new(),
            suspects: std::collections::BTreeSet::new(),
            trimmed_to: 0,
            passed_trimmed_to: 0,
            judged_ms: None,
            committed_ms: None,
            last_commit_ms: None,
            passed: None,
            pace: Pace::new(input_offset, input_end),
        };
        scope.report_window();
        self.to_start.push((scope.partition_key(), input_offset));
        self.scopes.insert(scope);
    }

    /// Lets the source read what has been restored or rewound.
    ///
    /// # Errors
    /// The client will not read a partition again.
    pub(super) fn start_restored(&mut self) -> Result<(), Stop> {
        if self.to_start.is_empty() || Instant::now() < self.resume_at {
            return Ok(());
        }
        let whole = self.whole_families();
        for (partition, offset) in std::mem::take(&mut self.to_start) {
            let may_start =
                !self.awaiting.contains_key(&partition) && self.may_start(&whole, &partition);
            if !may_start || !self.start_at(&partition, offset)? {
                self.to_start.push((partition, offset));
            }
        }
        Ok(())
    }

    /// Whether the source reads a partition from here on now.
    fn start_at(&mut self, partition: &Partition, offset: i64) -> Result<bool, Stop> {
        let Some(source) = &mut self.source else {
            return Ok(false);
        };
        let Err(error) = source.start(partition, offset) else {
            self.refusals.remove(partition);
            self.started(partition);
            return Ok(true);
        };
        let (topic, number) = partition;
        // It may have waited for seconds, and there may be many.
        let pulse = self.shared.pulses.get(self.index);
        pulse.inspect(|pulse| pulse.beat("starting restored partitions"));
        tracing::debug!(topic, partition = number, %error, "cannot seek yet");
        // At first it is not ready yet. A partition whose offset was out of range it gives up, until it is assigned anew;
        // and that error may be lost, with what a pause drops.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::State) {
            let now = Instant::now();
            let (since, times) = self.refusals.entry(partition.clone()).or_insert((now, 0));
            *times += 1;
            if *times > REFUSALS && since.elapsed() > REFUSED {
                return Err(Stop::restart(format!(
                    "{topic}-{number} is not read any more: the client has given it up, as it does where an offset is out of range. Start the service again: it goes on at offset {offset}, and if that is not there it says what to do"
                )));
            }
        }
        Ok(false)
    }

    /// Where a partition starts at its end, that place is committed before anything is judged:
    /// records that come while the service restarts are not skipped then.
    pub(super) fn pin_start_positions(&mut self) -> Result<(), Stop> {
        if self.config.input.start != Start::Latest {
            return Ok(());
        }
        let to_pin = |scope: &Scope| {
            let is_input = !matches!(scope.topic.hop, Hop::Second { .. });
            is_input && scope.must_write_run && !scope.touched
        };
        let has_one = self.scopes.active().any(|(_, scope)| to_pin(scope));
        let Some(sink) = self.sink.as_mut().filter(|_| has_one) else {
            return Ok(());
        };
        let open = match &mut self.open {
            Some(open) => open,
            None => match commit::begin(sink) {
                Ok(open) => self.open.insert(open),
                Err(trouble) => return self.resolve(trouble),
            },
        };
        // The others come with the next one.
        let room = PARTITIONS_PER_TRANSACTION.saturating_sub(open.partitions);
        let scopes = self.scopes.active().map(|(_, scope)| scope);
        for scope in scopes.filter(|scope| to_pin(scope)).take(room) {
            scope.touched = true;
            open.partitions += 1;
        }
        Ok(())
    }
}
