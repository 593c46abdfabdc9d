//! The consumer's background thread: heartbeats, and what they bring.

use super::*;

impl<W: Seen> World<W> {
    pub(super) fn heartbeat_is_due(&self, slot: usize) -> bool {
        let (process, group) = (&self.processes[slot], &self.broker.group);
        let source = &process.source;
        let Some(member) = source.member else {
            // Joined once the transactional id was ours, and only then.
            return source.noted.is_empty()
                && source.owned.is_empty()
                && (process.producer.is_some() || source.generation < 0)
                && !process.leaving;
        };
        match group.members.get(&member) {
            None => true,
            Some(member) => {
                member.news.is_some()
                    || (group.rebalancing && !member.joined && source.noted.is_empty())
            }
        }
    }

    pub(super) fn heartbeat(&mut self, slot: usize) {
        let instance = self
            .settings
            .static_membership
            .then_some(self.processes[slot].instance);
        let Settings {
            cooperative,
            partitions,
            ..
        } = self.settings;
        let group = &mut self.broker.group;
        let source = &mut self.processes[slot].source;
        let Some(id) = source.member else {
            source.member = Some(group.join_new(slot, instance, partitions));
            source.generation = -1;
            return;
        };
        if group.fenced.contains(&id) {
            // A fatal error of the consumer.
            return self.end_process(slot);
        }
        let generation = group.generation;
        let Some(member) = group.members.get_mut(&id) else {
            (source.member, source.generation) = (None, -1);
            source.noted.push_back(Rebalance::Lost);
            return;
        };
        if let Some(assigned) = member.news.take() {
            source.generation = generation;
            let revoked: BTreeSet<usize> = source.owned.difference(&assigned).copied().collect();
            let added: BTreeSet<usize> = assigned.difference(&source.owned).copied().collect();
            if !revoked.is_empty() {
                source.noted.push_back(Rebalance::Revoked(revoked));
            }
            if !added.is_empty() {
                source.noted.push_back(Rebalance::Assigned(added));
            }
        } else if !cooperative && !source.owned.is_empty() {
            source
                .noted
                .push_back(Rebalance::Revoked(source.owned.clone()));
        } else {
            let owned = source.owned.clone();
            group.rejoin(id, owned);
        }
    }
}
