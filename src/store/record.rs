//! The seal record: what makes a directory of chunks a slice. It is written once all chunks are on
//! the disk, in one atomic write that brings the ids of the slice and the checkpoint into the store
//! together (I4); a directory without one is a slice that was never finished.
//!
//! JSON, so that a person can read it, preceded by its xxh3_64 (8 bytes, little-endian). Bytes in,
//! bytes out; nothing here touches a file.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::journal::Terms;

/// Changes whenever an older build could not read what is written, or would misread it.
pub const FORMAT: u32 = 1;

/// Whose seen set it is. A slice of any other is foreign: its fingerprints or its offsets mean
/// something else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// `None` where the cluster does not tell.
    pub cluster_id: Option<String>,
    pub group: String,
    pub topic: String,
    pub partition: i32,
    /// Id of the input topic; a topic that was deleted and made again has another. `None` on
    /// brokers before 2.8.
    pub topic_id: Option<String>,
    pub journal: String,
    pub journal_id: Option<String>,
    /// Seed of the fingerprints.
    pub seed: u64,
}

/// A run in the journal by which a seen set can be told to belong to that journal: the last one
/// that it has taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Journal offset of the run.
    pub offset: i64,
    /// The checksum that the run carries.
    pub checksum: u64,
}

/// How far a seen set has come: the state after a run of a committed transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub anchor: Anchor,
    /// Input position that was committed with that run: the next offset to judge.
    pub next_offset: i64,
    pub stream_time_ms: Option<i64>,
    /// The ordinal that the next letting-through takes.
    pub next_ordinal: u64,
}

/// What a slice spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The journal from here on rebuilds this slice and all newer ones.
    pub journal_from: i64,
    /// It holds no ordinal before this one ...
    pub first_ordinal: u64,
    /// ... nor from this one on.
    pub end_ordinal: u64,
    /// The largest time seen in it: once that is forgotten, all of it is.
    pub newest_time_ms: i64,
    pub oldest_time_ms: i64,
}

/// One slice in a chain, named by the checksum of its seal record, which covers all that it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub first_ordinal: u64,
    pub seal: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealRecord {
    pub format: u32,
    pub lineage: Lineage,
    /// Under which it was held; `None` where a build wrote it that did not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    pub span: Span,
    pub entries: u64,
    pub chunks: u32,
    /// The seen set when the slice was closed: what it and the slices before it amount to.
    pub checkpoint: Checkpoint,
    /// The live slices before this one, oldest first. All of them are needed: a chain with a link
    /// missing has forgotten ids.
    pub chain: Vec<Link>,
}

/// Why bytes are no seal record of this build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("its seal record is damaged: {0}")]
    Damaged(String),
    #[error("it has format {0}, and this build reads format {FORMAT}")]
    Format(u64),
}

impl SealRecord {
    /// The bytes, and the checksum by which a chain names the slice.
    pub fn encode(&self) -> (Vec<u8>, u64) {
        // Strings and numbers always serialize.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let seal = xxh3_64(&json);
        let mut bytes = seal.to_le_bytes().to_vec();
        bytes.extend_from_slice(&json);
        (bytes, seal)
    }

    /// The record, and its checksum.
    ///
    /// # Errors
    /// Bytes that [`Self::encode`] did not write so, or another format.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u64), RecordError> {
        let damaged = |why: &str| RecordError::Damaged(why.to_owned());
        let (seal, json) = bytes
            .split_first_chunk::<8>()
            .ok_or_else(|| damaged("it is too short"))?;
        let seal = u64::from_le_bytes(*seal);
        if xxh3_64(json) != seal {
            return Err(damaged("its checksum does not match"));
        }
        // The format first: a later one may have other fields.
        let value: serde_json::Value =
            serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(RecordError::Format(format)),
            None => return Err(damaged("it names no format")),
        }
        let record = serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))?;
        Ok((record, seal))
    }

    /// This slice as a link of a chain.
    pub fn link(&self, seal: u64) -> Link {
        Link {
            first_ordinal: self.span.first_ordinal,
            seal,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn lineage() -> Lineage {
        Lineage {
            cluster_id: Some("c".to_owned()),
            group: "g".to_owned(),
            topic: "t".to_owned(),
            partition: 3,
            topic_id: None,
            journal: "t-g-seen".to_owned(),
            journal_id: Some("j".to_owned()),
            seed: u64::MAX,
        }
    }

    fn record() -> SealRecord {
        SealRecord {
            format: FORMAT,
            lineage: lineage(),
            terms: None,
            span: Span {
                journal_from: 1,
                first_ordinal: 2,
                end_ordinal: u64::MAX,
                newest_time_ms: i64::MAX,
                oldest_time_ms: i64::MIN,
            },
            entries: 5,
            chunks: 1,
            checkpoint: Checkpoint {
                anchor: Anchor {
                    offset: 9,
                    checksum: u64::MAX - 1,
                },
                next_offset: 11,
                stream_time_ms: None,
                next_ordinal: 7,
            },
            chain: vec![Link {
                first_ordinal: 0,
                seal: 1,
            }],
        }
    }

    #[test]
    fn a_record_comes_back_whole_and_any_flipped_bit_is_noticed() {
        let (bytes, seal) = record().encode();
        assert_eq!(SealRecord::decode(&bytes), Ok((record(), seal)));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(SealRecord::decode(&damaged).is_err(), "{at}");
        }
        assert!(SealRecord::decode(&bytes[..5]).is_err());
    }

    #[test]
    fn terms_come_back_and_a_record_without_them_is_read() {
        let terms = Some(Terms {
            time_ms: Some(5),
            ids: None,
            id_from: "key".to_owned(),
        });
        let record = SealRecord { terms, ..record() };
        let (bytes, seal) = record.encode();
        assert_eq!(SealRecord::decode(&bytes), Ok((record, seal)));
        let (without, _) = self::record().encode();
        assert!(!String::from_utf8_lossy(&without).contains("terms"));
    }

    #[test]
    fn another_format_is_named() {
        let record = SealRecord {
            format: 9,
            ..record()
        };
        let (bytes, _) = record.encode();
        assert_eq!(SealRecord::decode(&bytes), Err(RecordError::Format(9)));
    }
}
