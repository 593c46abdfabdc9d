//! `scope: repartition`: what the first of two hops tells the second. A record is passed on to the partition
//! of the repartition topic that its id has. Value and headers are as they were; its key is an *envelope*,
//! which says where the record was in the input and what its id is, and ends with the key itself. The second
//! hop judges it and writes it as if it came from there. Pure: touches no Kafka.
//!
//! The envelope, little-endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 2 | magic, `KD` |
//! | 2 | 1 | version, 1 |
//! | 3 | 1 | flags: bit 0, there is a key; bit 1, there is no id; bit 2, because it cannot be parsed |
//! | 4 | 16 | fingerprint of the id (u128); 0 where there is none |
//! | 20 | 4 | partition of the input (i32) |
//! | 24 | 8 | offset in it (i64) |
//! | 32 | 8 | timestamp in ms (i64); -1 where there is none, which Kafka could not pass on |
//! | 40 | 4 | hash of the group (u32), by which a record of another deployment is told |
//! | 44 | 4 | hash of `id.from` (u32), by which a fingerprint of another source is told |
//! | 48 | the rest | the key |

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::identify::{Identity, MissingReason};
use crate::window::Fingerprint;

/// Input partitions beyond which a position does not fit 64 bits.
pub const MAX_PARTITIONS: i32 = 1 << 15;
const OFFSET_BITS: u32 = 48;
const MAGIC: &[u8; 2] = b"KD";
const VERSION: u8 = 1;
const HAS_KEY: u8 = 1;
const NO_ID: u8 = 1 << 1;
const UNPARSABLE: u8 = 1 << 2;
/// Bytes of an envelope before the key.
const FIXED_BYTES: usize = 48;

/// A record that was passed on, as it was in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed<'a> {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub identity: Identity,
    pub key: Option<&'a [u8]>,
}

/// Whose fingerprints those of an envelope are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    group: u32,
    id_from: u32,
}

impl Mark {
    /// Of the deployment with this seed, and of the source of its ids as text (`IdSource::mark`).
    pub fn of(seed: u64, id_from: &str) -> Self {
        let half = |text: &[u8]| (xxh3_64_with_seed(text, seed) >> 32) as u32;
        Self {
            group: half(b""),
            id_from: half(id_from.as_bytes()),
        }
    }

    /// Whether it is the same group, whatever its ids are taken from.
    pub fn is_of_group(&self, other: &Self) -> bool {
        self.group == other.group
    }
}

/// The partition of the repartition topic, of `partitions`, that an id has. Not by the fingerprint's own bits:
/// filter and slices go by these, and would find those of one partition alike.
pub fn partition_of(id: Fingerprint, partitions: i32) -> i32 {
    let hash = u128::from(xxh3_64(&id.to_le_bytes()));
    let count = u128::from(partitions.max(1).unsigned_abs());
    // Multiplication instead of a remainder: D. Lemire, "Fast Random Integer Generation in an Interval", 2019.
    i32::try_from((hash * count) >> 64).unwrap_or(0)
}

impl<'a> Passed<'a> {
    /// Where it is passed on to: by its id; what has none stays together with its partition.
    pub fn to_partition(&self, partitions: i32) -> i32 {
        match self.identity {
            Identity::Id(id) => partition_of(id, partitions),
            Identity::Missing(_) => self.partition % partitions.max(1),
        }
    }

    /// The envelope. O(key).
    pub fn envelope(&self, mark: Mark) -> Vec<u8> {
        let (id, without) = match self.identity {
            Identity::Id(id) => (id, 0),
            Identity::Missing(MissingReason::NoId) => (0, NO_ID),
            Identity::Missing(MissingReason::Unparsable) => (0, NO_ID | UNPARSABLE),
        };
        let has_key = if self.key.is_some() { HAS_KEY } else { 0 };
        let key = self.key.unwrap_or_default();
        let mut bytes = Vec::with_capacity(FIXED_BYTES + key.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, has_key | without]);
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&self.partition.to_le_bytes());
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&self.timestamp_ms.unwrap_or(-1).to_le_bytes());
        bytes.extend_from_slice(&mark.group.to_le_bytes());
        bytes.extend_from_slice(&mark.id_from.to_le_bytes());
        bytes.extend_from_slice(key);
        bytes
    }

    /// Opens an envelope; `None` of what is none. O(1).
    pub fn open(envelope: Option<&'a [u8]>) -> Option<(Self, Mark)> {
        let (fixed, key) = envelope?.split_first_chunk::<FIXED_BYTES>()?;
        let (head, rest) = fixed.split_first_chunk::<4>()?;
        let [m0, m1, VERSION, flags] = *head else {
            return None;
        };
        let known = flags & !(HAS_KEY | NO_ID | UNPARSABLE) == 0;
        if [m0, m1] != *MAGIC || !known {
            return None;
        }
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (partition, rest) = rest.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (timestamp_ms, rest) = rest.split_first_chunk::<8>()?;
        let timestamp_ms = i64::from_le_bytes(*timestamp_ms);
        let (group, rest) = rest.split_first_chunk::<4>()?;
        let mark = Mark {
            group: u32::from_le_bytes(*group),
            id_from: u32::from_le_bytes(*rest.first_chunk()?),
        };
        let passed = Self {
            partition: i32::from_le_bytes(*partition),
            offset: i64::from_le_bytes(*offset),
            timestamp_ms: (timestamp_ms != -1).then_some(timestamp_ms),
            identity: match flags & (NO_ID | UNPARSABLE) {
                0 => Identity::Id(u128::from_le_bytes(*id)),
                NO_ID => Identity::Missing(MissingReason::NoId),
                _ => Identity::Missing(MissingReason::Unparsable),
            },
            key: (flags & HAS_KEY != 0).then_some(key),
        };
        Some((passed, mark))
    }

    /// Partition and offset in one number, which a seen set keeps beside the id: 15 bits and 48 bits.
    pub fn position(&self) -> i64 {
        (i64::from(self.partition) << OFFSET_BITS) | (self.offset & ((1 << OFFSET_BITS) - 1))
    }
}

/// Partition and offset of [`Passed::position`]; as it is where it is negative, of an id whose first record is
/// none of the input.
pub fn unpacked(position: i64) -> (i32, i64) {
    match i32::try_from(position >> OFFSET_BITS) {
        Ok(partition) if partition >= 0 => (partition, position & ((1 << OFFSET_BITS) - 1)),
        _ => (-1, position),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(identity: Identity, key: Option<&[u8]>) -> Passed<'_> {
        Passed {
            partition: 7,
            offset: 1 << 40,
            timestamp_ms: None,
            identity,
            key,
        }
    }

    #[test]
    fn an_envelope_says_what_was_put_in() {
        let identities = [
            Identity::Id(1 << 100 | 5),
            Identity::Missing(MissingReason::NoId),
            Identity::Missing(MissingReason::Unparsable),
        ];
        for identity in identities {
            for key in [None, Some(&b""[..]), Some(b"key"), Some(b"KD\x01\x00\xff")] {
                for timestamp_ms in [None, Some(0), Some(1_700_000_000_000), Some(-5)] {
                    let passed = Passed {
                        timestamp_ms,
                        ..passed(identity, key)
                    };
                    let mark = Mark::of(7, "header message-id");
                    let envelope = passed.envelope(mark);
                    assert_eq!(Passed::open(Some(&envelope)), Some((passed, mark)));
                }
            }
        }
    }

    #[test]
    fn what_is_no_envelope_is_not_opened() {
        let whole = passed(Identity::Id(1), Some(b"key")).envelope(Mark::of(7, "key"));
        assert_eq!(Passed::open(None), None);
        for end in 0..FIXED_BYTES {
            assert_eq!(Passed::open(Some(&whole[..end])), None);
        }
        for (at, value) in [(0, b'k'), (1, 0), (2, 2), (3, 1 << 3)] {
            let mut other = whole.clone();
            other[at] = value;
            assert_eq!(Passed::open(Some(&other)), None, "byte {at}");
        }
    }

    #[test]
    fn another_group_and_another_source_are_told() {
        let mark = Mark::of(7, "key");
        assert_eq!(mark, Mark::of(7, "key"));
        assert!(mark.is_of_group(&Mark::of(7, "value")));
        assert_ne!(mark, Mark::of(7, "value"));
        assert!(!mark.is_of_group(&Mark::of(8, "key")));
    }

    #[test]
    fn a_position_is_one_number() {
        for (partition, offset) in [(0, 0), (1, 5), (MAX_PARTITIONS - 1, (1 << 48) - 1)] {
            let passed = Passed {
                partition,
                offset,
                ..passed(Identity::Id(1), None)
            };
            assert!(passed.position() >= 0);
            assert_eq!(unpacked(passed.position()), (partition, offset));
        }
        assert_eq!(unpacked(crate::journal::run::NO_OFFSET), (-1, -1));
    }

    #[test]
    fn ids_are_spread_and_stay_where_they_are() {
        let mut counts = [0; 5];
        for id in 0..10_000_u128 {
            let partition = partition_of(id << 64, 5);
            counts[usize::try_from(partition).expect("in range")] += 1;
        }
        let even = |count: &i32| (1_800..2_200).contains(count);
        assert!(counts.iter().all(even), "{counts:?}");
        // For ever: with another function, ids would be looked for where they are not remembered.
        let places: Vec<i32> = (0..8).map(|id| partition_of(id, 10)).collect();
        assert_eq!(places, [8, 1, 8, 4, 9, 4, 0, 2]);
        assert_eq!(partition_of(1, 0), 0);
        let without = passed(Identity::Missing(MissingReason::NoId), None);
        assert_eq!(without.to_partition(4), 3);
    }
}
