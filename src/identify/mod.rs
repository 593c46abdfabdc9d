//! Record → id → fingerprint. Reads a record's fields through [`Fields`] and touches nothing else.
//!
//! The source of the id is chosen once, in [`Identifier::new`]. Null and empty count as missing,
//! wherever the id comes from.

mod csv;
mod json;
mod record;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, CString};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use crate::config::IdSource;
use crate::window::Fingerprint;
use csv::CsvColumn;
use json::JsonPointer;

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
    /// The value is not what the configuration says, so the place cannot be looked up, or what is
    /// there is no id (an object, an array).
    Unparsable,
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
    pub fn new(source: &IdSource, seed: u64) -> Self {
        Self {
            seed,
            id: Part::new(source),
        }
    }

    /// The fingerprint of the record's id. O(bytes that have to be read); allocates nothing once
    /// its buffers have grown, except for JSON strings that hold escapes.
    pub fn identify(&mut self, fields: &impl Fields) -> Identity {
        let seed = self.seed;
        match self.id(fields) {
            Ok(bytes) => Identity::Id(fingerprint(bytes, seed)),
            Err(reason) => Identity::Missing(reason),
        }
    }

    /// The bytes that are fingerprinted, never empty: the id itself, or where it has several parts
    /// all of them, each after its length. Cost as of [`Identifier::identify`].
    pub fn id<'a>(&'a mut self, fields: &'a impl Fields) -> Result<&'a [u8], MissingReason> {
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
    All {
        parts: Vec<Part>,
        joined: Vec<u8>,
    },
}

impl Part {
    fn new(source: &IdSource) -> Self {
        match source {
            IdSource::Key => Self::Key,
            IdSource::Value => Self::Value,
            IdSource::Header(name) => Self::Header(CString::new(name.as_str()).ok()),
            IdSource::Json(pointer) => Self::Json(JsonPointer::new(pointer)),
            IdSource::Csv { column, delimiter } => {
                Self::Csv(Box::new(CsvColumn::new(*column, *delimiter)))
            }
            IdSource::All(sources) => Self::All {
                parts: sources.iter().map(Self::new).collect(),
                joined: Vec::new(),
            },
        }
    }

    /// The id's bytes, never empty.
    fn bytes<'a>(&'a mut self, fields: &'a impl Fields) -> Result<&'a [u8], MissingReason> {
        let found = match self {
            Self::Key => fields.key(),
            Self::Value => fields.value(),
            Self::Header(name) => name.as_ref().and_then(|name| fields.last_header(name)),
            Self::Json(pointer) => match fields.value() {
                Some(value) if !value.is_empty() => pointer.find(value)?,
                _ => None,
            },
            Self::Csv(column) => fields.value().and_then(|value| column.find(value)),
            Self::All { parts, joined } => {
                joined.clear();
                for part in parts {
                    let bytes = part.bytes(fields)?;
                    // The length keeps ("a", "bc") apart from ("ab", "c"). Kafka has no field
                    // that needs more than 32 bits.
                    joined.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                    joined.extend_from_slice(bytes);
                }
                Some(joined.as_slice())
            }
        };
        found
            .filter(|bytes| !bytes.is_empty())
            .ok_or(MissingReason::NoId)
    }
}
