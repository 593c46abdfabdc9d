//! Partitions that have come to a record whose schema is not known: they are paused, and read on from
//! that record when it is. Nothing is judged by guess, no transaction stays open for it, the other
//! partitions go on, and the group hears from us.

use super::*;

impl Worker {
    /// The next record of this scope cannot be judged before this schema is there.
    pub(super) fn await_schema(&mut self, place: usize, schema: u32) {
        let Some(scope) = self.scopes.at(place) else {
            return;
        };
        let (partition, next_offset) = (scope.partition_key(), scope.next_offset);
        self.pause(std::slice::from_ref(&partition));
        if !self.to_start.iter().any(|(it, _)| *it == partition) {
            self.to_start.push((partition.clone(), next_offset));
        }
        self.awaiting.insert(partition, schema);
    }

    /// Lets partitions go on whose schemas have been had, or have been found not to exist.
    pub(super) fn release_awaiting(&mut self) {
        if self.awaiting.is_empty() {
            return;
        }
        let schemas = &self.shared.schemas;
        self.awaiting
            .retain(|_, schema| matches!(schemas.look_up(*schema), Err(Unresolved::Awaited(_))));
        if self.awaiting.is_empty() {
            self.tell_schemas();
        }
    }

    /// Whether a schema is awaited of which nothing says that it will take long.
    pub(super) fn schema_is_near(&self) -> bool {
        let schemas = &self.shared.schemas;
        let mut awaited = self.awaiting.values();
        awaited.any(|schema| schemas.trouble(*schema).is_none())
    }

    pub(super) fn tell_schemas(&self) {
        let schemas = &self.shared.schemas;
        let Some(url) = schemas.url() else { return };
        let mut waiting = self.awaiting.iter().map(|((topic, partition), schema)| {
            let trouble = schemas.trouble(*schema)?;
            Some((format!("{topic}-{partition}"), trouble))
        });
        let first = waiting.find_map(|it| it);
        let condition = match first {
            None => Condition::Ready(format!("schemas of {url}")),
            Some((partition, trouble)) => Condition::NotReady(format!(
                "partitions that wait for a schema: {}, {partition} among them; {trouble}; trying again",
                self.awaiting.len(),
            )),
        };
        self.tell("schemas", condition);
    }
}
