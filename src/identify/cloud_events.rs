//! The id of a CloudEvent: its `source` and its `id`, which together are unique by its specification.
//!
//! The Kafka protocol binding has two modes, and the header `content-type` tells them apart: in binary
//! mode the attributes are headers (`ce_source`), in structured mode the value is the whole event. Both
//! give the same bytes, so an event that comes once each way is one event.

use super::{Fields, Joined, MissingReason, Without};
use crate::config::IdSource;
use crate::schemas::Schemas;

/// What a media type of an event as a whole begins with, in any case.
const EVENT: &[u8] = b"application/cloudevents";

pub(super) struct CloudEvent {
    binary: Joined,
    structured: Joined,
}

impl Default for CloudEvent {
    fn default() -> Self {
        let header = |name: &str| IdSource::Header(name.to_owned());
        let none = Schemas::default();
        let member = |pointer: &str| IdSource::Json(pointer.to_owned());
        Self {
            binary: Joined::new(&[header("ce_source"), header("ce_id")], &none),
            structured: Joined::new(&[member("/source"), member("/id")], &none),
        }
    }
}

impl CloudEvent {
    /// Source and id, each after its length. O(1) in binary mode, O(bytes of the value) in structured.
    pub fn bytes<'a>(&'a mut self, fields: &'a impl Fields) -> Result<&'a [u8], Without> {
        let content_type = fields.last_header(c"content-type").unwrap_or_default();
        match event_format(content_type) {
            None => self.binary.bytes(fields),
            Some(format) if format.eq_ignore_ascii_case(b"+json") => self.structured.bytes(fields),
            // Batches, which the binding does not know, and formats that nobody reads here.
            Some(_) => Err(MissingReason::Unparsable.into()),
        }
    }
}

/// What follows `application/cloudevents`, without parameters; `None` for any other media type.
fn event_format(content_type: &[u8]) -> Option<&[u8]> {
    let media_type = content_type.split(|byte| *byte == b';').next()?;
    let (event, format) = media_type.trim_ascii().split_at_checked(EVENT.len())?;
    event.eq_ignore_ascii_case(EVENT).then_some(format)
}
