//! Record → id → fingerprint. Reads a record's fields through [`Fields`], asks [`Schemas`] where only a
//! schema can find the id, and touches nothing else.
//!
//! The source of the id is chosen once, in [`Identifier::new`]. Null and empty count as missing,
//! wherever the id comes from.

mod cloud_events;
mod csv;
mod json;
pub mod payload;
mod record;
mod schema;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, CString};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use crate::config::IdSource;
use crate::exit::Stop;
use crate::schemas::{Schemas, Unresolved, unframe};
use crate::window::Fingerprint;
use cloud_events::CloudEvent;
use csv::CsvColumn;
use json::JsonPointer;
use schema::SchemaField;

/// The fields of a record that an id can come from.
pub trait Fields {
    fn key(&self) -> Option<&[u8]>;
    fn value(&self) -> Option<&[u8]>;
    /// The value of the last header of that name; `None` when there is none, or its value is null.
    fn last_header(&self, name: &CStr) -> Option<&[u8]>;
}

/// What a record's id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    Id(Fingerprint),
    Missing(MissingReason),
}

/// Why a record has no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingReason {
    /// The place is absent, null or empty.
    NoId,
    /// The value is not what the configuration or its schema says, so the place cannot be looked up,
    /// or what is there is no id (an object, an array).
    Unparsable,
}

/// Why there are no bytes of an id, or none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    Missing(MissingReason),
    /// Only a schema can tell, and it is not there.
    Schema(Unresolved),
}

impl From<MissingReason> for Without {
    fn from(reason: MissingReason) -> Self {
        Self::Missing(reason)
    }
}

impl MissingReason {
    /// The name in metrics, headers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoId => "missing-id",
            Self::Unparsable => "unparsable",
        }
    }
}

/// The seed of a deployment's fingerprints: instances of one consumer group agree on it.
pub fn deployment_seed(group_id: &str) -> u64 {
    xxh3_64(format!("kafka-dedup/{group_id}").as_bytes())
}

/// The fingerprint of an id, which must not be empty.
pub fn fingerprint(id: &[u8], seed: u64) -> Fingerprint {
    xxh3_128_with_seed(id, seed)
}

/// Finds and fingerprints the id of a record.
pub struct Identifier {
    seed: u64,
    id: Part,
}

impl Identifier {
    /// `schemas` are those that were started, or given, for this source.
    pub fn new(source: &IdSource, seed: u64, schemas: &Schemas) -> Self {
        Self {
            seed,
            id: Part::new(source, schemas),
        }
    }

    /// The fingerprint of the record's id. O(bytes that have to be read); allocates nothing once
    /// its buffers have grown, except for JSON strings that hold escapes. Never waits.
    ///
    /// # Errors
    /// A schema that is needed and not there.
    pub fn identify(&mut self, fields: &impl Fields) -> Result<Identity, Unresolved> {
        let seed = self.seed;
        match self.id(fields) {
            Ok(bytes) => Ok(Identity::Id(fingerprint(bytes, seed))),
            Err(Without::Missing(reason)) => Ok(Identity::Missing(reason)),
            Err(Without::Schema(unresolved)) => Err(unresolved),
        }
    }

    /// The same, for a command that has nothing else to do than to wait for a schema.
    ///
    /// # Errors
    /// As of [`Schemas::wait_for`].
    pub fn identify_in_time(
        &mut self,
        fields: &impl Fields,
        schemas: &Schemas,
        go_on: impl Fn() -> bool,
    ) -> Result<Identity, Stop> {
        loop {
            match self.identify(fields) {
                Ok(identity) => return Ok(identity),
                Err(Unresolved::Awaited(id) | Unresolved::Unknown(id)) => {
                    schemas.wait_for(id, &go_on)?;
                }
            }
        }
    }

    /// The bytes that are fingerprinted, never empty: the id itself, or where it has several parts
    /// all of them, each after its length. Cost as of [`Identifier::identify`].
    pub fn id<'a>(&'a mut self, fields: &'a impl Fields) -> Result<&'a [u8], Without> {
        self.id.bytes(fields)
    }
}

/// Where an id, or a part of one, comes from.
enum Part {
    Key,
    Value,
    /// `None`: a name with a NUL in it, which no header can be asked for.
    Header(Option<CString>),
    Json(JsonPointer),
    Csv(Box<CsvColumn>),
    CloudEvents(Box<CloudEvent>),
    /// JSON in the wire format of schema registries. Its schema is not needed to find anything in it.
    FramedJson(JsonPointer),
    Schema(Box<SchemaField>),
    All(Joined),
}

impl Part {
    fn new(source: &IdSource, schemas: &Schemas) -> Self {
        match source {
            IdSource::Key => Self::Key,
            IdSource::Value => Self::Value,
            IdSource::Header(name) => Self::Header(CString::new(name.as_str()).ok()),
            IdSource::Json(pointer) => Self::Json(JsonPointer::new(pointer)),
            IdSource::Csv { column, delimiter } => {
                Self::Csv(Box::new(CsvColumn::new(*column, *delimiter)))
            }
            IdSource::CloudEvents => Self::CloudEvents(Box::default()),
            IdSource::JsonSchema(pointer) => Self::FramedJson(JsonPointer::new(pointer)),
            IdSource::Avro(_) | IdSource::Protobuf(_) => {
                Self::Schema(Box::new(SchemaField::new(source, schemas)))
            }
            IdSource::All(sources) => Self::All(Joined::new(sources, schemas)),
        }
    }

    /// The id's bytes, never empty.
    fn bytes<'a>(&'a mut self, fields: &'a impl Fields) -> Result<&'a [u8], Without> {
        let found = match self {
            Self::Key => fields.key(),
            Self::Value => fields.value(),
            Self::Header(name) => name.as_ref().and_then(|name| fields.last_header(name)),
            Self::Json(pointer) => match fields.value() {
                Some(value) if !value.is_empty() => pointer.find(value)?,
                _ => None,
            },
            Self::Csv(column) => fields.value().and_then(|value| column.find(value)),
            Self::CloudEvents(event) => Some(event.bytes(fields)?),
            Self::FramedJson(pointer) => match fields.value() {
                Some(value) if !value.is_empty() => {
                    let (_, document) = unframe(value).ok_or(MissingReason::Unparsable)?;
                    pointer.find(document)?
                }
                _ => None,
            },
            Self::Schema(field) => match fields.value() {
                Some(value) if !value.is_empty() => field.find(value)?,
                _ => None,
            },
            Self::All(joined) => Some(joined.bytes(fields)?),
        };
        found
            .filter(|bytes| !bytes.is_empty())
            .ok_or(Without::Missing(MissingReason::NoId))
    }
}

/// Several parts, all of which must be there.
struct Joined {
    parts: Vec<Part>,
    bytes: Vec<u8>,
}

impl Joined {
    fn new(sources: &[IdSource], schemas: &Schemas) -> Self {
        let parts = sources.iter().map(|source| Part::new(source, schemas));
        Self {
            parts: parts.collect(),
            bytes: Vec::new(),
        }
    }

    /// Each part after its length.
    fn bytes<'a>(&'a mut self, fields: &'a impl Fields) -> Result<&'a [u8], Without> {
        self.bytes.clear();
        for part in &mut self.parts {
            let bytes = part.bytes(fields)?;
            // The length keeps ("a", "bc") apart from ("ab", "c"). Kafka has no field that needs
            // more than 32 bits.
            self.bytes
                .extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            self.bytes.extend_from_slice(bytes);
        }
        Ok(&self.bytes)
    }
}
