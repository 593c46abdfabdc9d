//! A field that is found by the schema that a value names.

use std::sync::Arc;

use super::{MissingReason, Without};
use crate::config::IdSource;
use crate::schemas::{Plan, Schemas, Unresolved, places, unframe};

pub(super) struct SchemaField {
    schemas: Schemas,
    /// Which of a schema's plans is this field's.
    place: usize,
    /// The schema of the last record, which is most often that of the next.
    last: Option<(u32, Arc<[Plan]>)>,
    text: Vec<u8>,
}

impl SchemaField {
    /// `source` is one that needs a schema.
    pub fn new(source: &IdSource, schemas: &Schemas) -> Self {
        let place = places(source);
        let place = place.first().and_then(|place| schemas.place(place));
        Self {
            schemas: schemas.clone(),
            // Beyond all of them where the schemas were not started for it: then there are none.
            place: place.unwrap_or(usize::MAX),
            last: None,
            text: Vec::new(),
        }
    }

    /// The id's bytes; `None` where the place is absent or null. A value that is not in the wire
    /// format, or does not fit its schema, is unparsable.
    pub fn find<'a>(&'a mut self, value: &'a [u8]) -> Result<Option<&'a [u8]>, Without> {
        let (id, body) = unframe(value).ok_or(MissingReason::Unparsable)?;
        if self.last.as_ref().is_none_or(|(last, _)| *last != id) {
            self.last = Some((id, self.plans(id)?));
        }
        let plans = self.last.as_ref().map(|(_, plans)| plans);
        let plan = plans.and_then(|plans| plans.get(self.place));
        let plan = plan.ok_or(Without::Schema(Unresolved::Unknown(id)))?;
        Ok(plan.find(body, &mut self.text)?)
    }

    fn plans(&self, id: u32) -> Result<Arc<[Plan]>, Without> {
        self.schemas
            .look_up(id)
            .map_err(|unresolved| match unresolved {
                Unresolved::Unknown(_) if self.schemas.unknown_is_missing() => {
                    MissingReason::Unparsable.into()
                }
                unresolved => Without::Schema(unresolved),
            })
    }
}
