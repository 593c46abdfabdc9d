//! How a worker stands to its group, as /readyz tells it. What it may commit is decided elsewhere (I6).

use super::*;

#[derive(Debug, Clone, Copy)]
pub(super) enum Standing {
    /// The group has not said yet what this worker's partitions are.
    Joining,
    Member,
    /// Since this time, at least, the group may not count on it.
    Lost(Instant),
    /// The same, and the ACLs are why.
    KeptOut(Instant),
}

impl Worker {
    pub(super) fn stands(&mut self, standing: Standing) {
        let standing = match (self.standing, standing) {
            // The reason is known.
            (Standing::KeptOut(_), Standing::Lost(since)) => Standing::KeptOut(since),
            (_, standing) => standing,
        };
        self.standing = standing;
        let group = &self.config.kafka.group_id;
        let condition = match standing {
            // Discovery has a word for this.
            Standing::Joining => return,
            Standing::Member => Condition::Ready("member of the group".to_owned()),
            Standing::Lost(_) => Condition::NotReady(format!(
                "no longer a member of the group {group}; joining again"
            )),
            Standing::KeptOut(_) => Condition::NotReady(format!(
                "not authorized to be a member of the group {group}; trying again. Allow Read on group {group} (kafka-acls)"
            )),
        };
        self.tell("group", condition);
    }

    /// Once a second. The client says once that it is kept out, and never that it is not any more: a
    /// membership that lasts for a whole session is one.
    pub(super) fn look_at_membership(&mut self) {
        let source = self.source.as_ref();
        let is_member = source.is_some_and(|source| source.membership().is_some());
        let now = Instant::now();
        let standing = match self.standing {
            Standing::Member if !is_member => Standing::Lost(now),
            Standing::Lost(_) if !is_member => Standing::Lost(now),
            Standing::KeptOut(_) if !is_member => Standing::KeptOut(now),
            Standing::Lost(since) | Standing::KeptOut(since)
                if now.duration_since(since) > session(&self.config) =>
            {
                Standing::Member
            }
            as_before => as_before,
        };
        self.stands(standing);
    }
}

/// How long the group waits for a member that it does not hear of.
fn session(config: &Config) -> Duration {
    let configured = consumer_property_ms(config, "session.timeout.ms");
    Duration::from_millis(configured.unwrap_or(10_000))
}
