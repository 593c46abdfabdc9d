//! A run: the ids that one transaction let through (or renewed) in one scope, packed. One format
//! for journal, store and restore. Bytes in, bytes out; nothing here touches Kafka.
//!
//! All integers are little-endian. For `n` ids:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic, `KDRN` |
//! | 4 | 1 | version: 3 where payloads are known, else 2; 1 is read too |
//! | 5 | 1 | flags, see below |
//! | 6 | 8 | identity (u64): whose run this is |
//! | 14 | 8 | stream time after the transaction in ms (i64); 0 when there is none |
//! | 22 | 8 | input offset committed with the transaction, the next one to read (i64) |
//! | 30 | 8 | ordinal of the first id (u64); the others follow one by one |
//! | 38 | 4 | `n` (u32) |
//! | 42 | 4 | `t`, length of the times in bytes (u32) |
//! | 46 | `h` | from version 2 on: the terms, see below; in version 1 `h` is 0 |
//! | 46 + `h` | 16 `n` | fingerprints (u128) |
//! | … | 8 `n` | in version 3 alone: hashes of the payloads (u64); 0 where one is not known, 2^64 - 1 where the id was forgotten |
//! | … | `t` | times in ms, as varints |
//! | … | the rest | input offsets of the first records, as varints |
//! | end - 8 | 8 | xxh3_64 of all bytes before it (u64) |
//!
//! Flags: bit 0, there is a stream time; from version 2 on also bit 1, the seen set begins here; bit 2, the
//! run was written by `preload`; bit 3, the
//! group began after a preload; bit 4, records were let through by a bypass; bit 5, it is not whole from the
//! beginning. All others are 0.
//!
//! Terms: their length without these two bytes (u16), `window.time` in ms and one more (varint, not
//! zigzag; 0 for none), `window.ids` (the same; 0 for none), with flag bit 3 the input offset at which the
//! group began (the same), with flag bit 5 the ordinal from which on the seen set is whole (the same) and the stream time
//! (zigzag, and one more; 0 for not known yet), and the rest is the text of `id.from`.
//!
//! A column of varints holds the difference of each value to the one before it (to 0 for the
//! first), wrapping, in zigzag (0, -1, 1, -2 ... as 0, 1, 2, 3 ...), seven bits a byte, lowest
//! first, with the high bit set on every byte but the last of a value.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 4] = b"KDRN";
const VERSION: u8 = 2;
const WITH_PAYLOADS: u8 = 3;
/// What was written before runs named the terms under which they were.
const WITHOUT_TERMS: u8 = 1;
const HAS_STREAM_TIME: u8 = 1;
const BEGINS: u8 = 1 << 1;
const PRELOAD: u8 = 1 << 2;
const PRELOADED: u8 = 1 << 3;
const BYPASSED: u8 = 1 << 4;
const PARTIAL: u8 = 1 << 5;
const HEADER_BYTES: usize = 46;
const CHECKSUM_BYTES: usize = 8;
const FINGERPRINT_BYTES: usize = 16;
const PAYLOAD_BYTES: usize = 8;
const MAX_VARINT_BYTES: usize = 10;
/// No part has more ids, whatever the caller asks for: counts and lengths fit their 32 bits.
const MAX_IDS: usize = 1 << 24;

/// What one transaction did to a scope's seen set. The three columns have the same length, and
/// ordinals rise by one along them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// Whose run this is; its meaning is the journal's.
    pub identity: u64,
    /// Stream time after the transaction; `None` until a record had a timestamp.
    pub stream_time_ms: Option<i64>,
    /// Input position committed with the transaction.
    pub next_offset: i64,
    /// Ordinal of the first id (of the next one to come, in a run without ids).
    pub first_ordinal: u64,
    pub fingerprints: Vec<u128>,
    /// Stream time when each was let through or renewed.
    pub times_ms: Vec<i64>,
    /// Input offset of each id's first record; [`NO_OFFSET`] where it is none of the input's.
    pub offsets: Vec<i64>,
    /// Hash of what was let through with each id, 0 where it is not known; empty where none is. Of runs that
    /// have terms.
    pub payloads: Vec<u64>,
    /// Under which it was written; `None` in version 1, which has none of the three below.
    pub terms: Option<Terms>,
    /// What the journal holds before this run does not count any more, ids and stream time alike.
    pub begins: bool,
    /// It was written by `preload`, before the service ran.
    pub preload: bool,
    /// Its transaction let through what was no first letting-through, by an operator's word.
    pub bypassed: bool,
    /// The input offset at which the group began after a preload, whose runs may have been trimmed.
    pub preloaded: Option<i64>,
    /// From where on the seen set is whole; `None` where it is from the beginning of the input. Of runs that have
    /// terms.
    pub since: Option<Since>,
}

/// A place in the life of a seen set: what was let through from there on is remembered, as far as it is in the
/// window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    pub ordinal: u64,
    /// Stream time in ms; `None` until there is one.
    pub time_ms: Option<i64>,
}

/// The offset of an id that was preloaded: its first record is not one of the input.
pub const NO_OFFSET: i64 = -1;

/// What of the configuration decides which ids a seen set remembers, and by which bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// `window.time` in ms.
    pub time_ms: Option<u64>,
    /// `window.ids`, 1 or more.
    pub ids: Option<u64>,
    /// `id.from`, as text; see [`crate::config::IdSource::mark`].
    pub id_from: String,
}

impl Terms {
    /// Whether a window under these terms may remember what one under `earlier` has forgotten.
    pub fn remember_more_than(&self, earlier: &Self) -> bool {
        let longer = |now: Option<u64>, then: Option<u64>| {
            now.unwrap_or(u64::MAX) > then.unwrap_or(u64::MAX)
        };
        longer(self.time_ms, earlier.time_ms) || longer(self.ids, earlier.ids)
    }
}

/// Why bytes are no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error(
        "not a run of kafka-dedup: something else writes to this journal; find out what, and give each its own topic"
    )]
    Foreign,
    #[error(
        "a run of format version {0}, and this build reads versions up to {WITH_PAYLOADS}: use a build that reads it"
    )]
    Version(u8),
    #[error("a damaged run: {0}")]
    Damaged(&'static str),
}

impl Run {
    /// Packs the run into consecutive parts of at most `max_ids` ids (at least 1), each a full
    /// run with its own first ordinal, all with the same stream time and next offset. A run
    /// without ids gives one part. O(ids).
    pub fn encode(&self, max_ids: usize) -> Vec<Vec<u8>> {
        let max_ids = max_ids.clamp(1, MAX_IDS);
        let len = self
            .fingerprints
            .len()
            .min(self.times_ms.len())
            .min(self.offsets.len());
        let parts = len.div_ceil(max_ids).max(1);
        (0..parts)
            .map(|part| {
                let start = part * max_ids;
                self.encode_part(start, len.min(start + max_ids))
            })
            .collect()
    }

    fn encode_part(&self, start: usize, end: usize) -> Vec<u8> {
        let count = end - start;
        let mut times = Vec::with_capacity(2 * count);
        put_column(&mut times, &self.times_ms[start..end]);

        let mut bytes = Vec::with_capacity(
            HEADER_BYTES
                + count * (FINGERPRINT_BYTES + 2)
                + self.payloads.len().min(count) * PAYLOAD_BYTES
                + times.len()
                + CHECKSUM_BYTES,
        );
        bytes.extend_from_slice(MAGIC);
        let payloads = self.payloads.get(start..end).filter(|_| end > start);
        let payloads = payloads.filter(|_| self.terms.is_some());
        bytes.push(match (&self.terms, payloads) {
            (Some(_), Some(_)) => WITH_PAYLOADS,
            (Some(_), None) => VERSION,
            (None, _) => WITHOUT_TERMS,
        });
        bytes.push(self.flags(start == 0));
        bytes.extend_from_slice(&self.identity.to_le_bytes());
        bytes.extend_from_slice(&self.stream_time_ms.unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&self.next_offset.to_le_bytes());
        let first_ordinal = self.first_ordinal.saturating_add(start as u64);
        bytes.extend_from_slice(&first_ordinal.to_le_bytes());
        bytes.extend_from_slice(&(count as u32).to_le_bytes());
        bytes.extend_from_slice(&(times.len() as u32).to_le_bytes());
        if let Some(terms) = &self.terms {
            put_terms(&mut bytes, terms, self.preloaded, self.since);
        }
        for fingerprint in &self.fingerprints[start..end] {
            bytes.extend_from_slice(&fingerprint.to_le_bytes());
        }
        for payload in payloads.into_iter().flatten() {
            bytes.extend_from_slice(&payload.to_le_bytes());
        }
        bytes.extend_from_slice(&times);
        put_column(&mut bytes, &self.offsets[start..end]);
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    fn flags(&self, first_part: bool) -> u8 {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let has_terms = self.terms.is_some();
        flag(self.stream_time_ms.is_some(), HAS_STREAM_TIME)
            // The later parts do not count for less than the first.
            | flag(self.begins && first_part && has_terms, BEGINS)
            | flag(self.preload && has_terms, PRELOAD)
            | flag(self.bypassed && has_terms, BYPASSED)
            | flag(self.preloaded.is_some() && has_terms, PRELOADED)
            | flag(self.since.is_some() && has_terms, PARTIAL)
    }

    /// Unpacks one part. Allocates no more than the columns that the bytes really hold. O(bytes).
    ///
    /// # Errors
    /// [`RunError`] for anything that [`Run::encode`] did not write so, byte for byte.
    pub fn decode(bytes: &[u8]) -> Result<Run, RunError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(RunError::Foreign)?;
        let known_flags = match rest.first() {
            Some(&(VERSION | WITH_PAYLOADS)) => {
                HAS_STREAM_TIME | BEGINS | PRELOAD | PRELOADED | BYPASSED | PARTIAL
            }
            Some(&WITHOUT_TERMS) => HAS_STREAM_TIME,
            Some(&version) => return Err(RunError::Version(version)),
            None => return Err(RunError::Damaged("it is shorter than a header")),
        };
        let has_payloads = rest.first() == Some(&WITH_PAYLOADS);
        let has_terms = rest.first() == Some(&VERSION) || has_payloads;
        let (body, checksum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(RunError::Damaged("it is shorter than a header"))?;
        if xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err(RunError::Damaged("its checksum does not match"));
        }
        let mut body = Reader(&body[MAGIC.len() + 1..]);
        let flags = body.array::<1>()?[0];
        let identity = u64::from_le_bytes(body.array()?);
        let stream_time_ms = i64::from_le_bytes(body.array()?);
        let next_offset = i64::from_le_bytes(body.array()?);
        let first_ordinal = u64::from_le_bytes(body.array()?);
        let count = u32::from_le_bytes(body.array()?) as usize;
        let times_bytes = u32::from_le_bytes(body.array()?) as usize;
        if flags & !known_flags != 0 {
            return Err(RunError::Damaged(
                "it has flags that this version does not know",
            ));
        }
        if first_ordinal.checked_add(count as u64).is_none() {
            return Err(RunError::Damaged("its ordinals overflow"));
        }
        let (terms, preloaded, since) = match has_terms {
            true => {
                let known = body.terms(flags & PRELOADED != 0, flags & PARTIAL != 0)?;
                (Some(known.0), known.1, known.2)
            }
            false => (None, None, None),
        };
        let (fingerprints, odd) = body
            .take(count.saturating_mul(FINGERPRINT_BYTES))?
            .as_chunks::<FINGERPRINT_BYTES>();
        debug_assert!(odd.is_empty());
        let payload_bytes = count.saturating_mul(PAYLOAD_BYTES * usize::from(has_payloads));
        let (payloads, _) = body.take(payload_bytes)?.as_chunks::<PAYLOAD_BYTES>();
        let times = Reader(body.take(times_bytes)?);
        Ok(Run {
            identity,
            stream_time_ms: (flags & HAS_STREAM_TIME != 0).then_some(stream_time_ms),
            next_offset,
            first_ordinal,
            fingerprints: fingerprints
                .iter()
                .map(|chunk| u128::from_le_bytes(*chunk))
                .collect(),
            times_ms: times.column(count)?,
            offsets: body.column(count)?,
            payloads: payloads
                .iter()
                .map(|chunk| u64::from_le_bytes(*chunk))
                .collect(),
            terms,
            begins: flags & BEGINS != 0,
            preload: flags & PRELOAD != 0,
            bypassed: flags & BYPASSED != 0,
            preloaded,
            since,
        })
    }
}

/// The checksum that an encoded run ends with, by which it can be told from all others; 0 for what is
/// too short to be a run.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .last_chunk::<CHECKSUM_BYTES>()
        .map_or(0, |checksum| u64::from_le_bytes(*checksum))
}

fn put_terms(bytes: &mut Vec<u8>, terms: &Terms, preloaded: Option<i64>, since: Option<Since>) {
    let mut block = Vec::with_capacity(5 * MAX_VARINT_BYTES + terms.id_from.len());
    put_varint(
        &mut block,
        terms.time_ms.map_or(0, |ms| ms.saturating_add(1)),
    );
    put_varint(&mut block, terms.ids.unwrap_or(0));
    if let Some(offset) = preloaded {
        put_varint(&mut block, offset.cast_unsigned());
    }
    if let Some(Since { ordinal, time_ms }) = since {
        put_varint(&mut block, ordinal);
        let time = time_ms.map_or(0, |ms| zigzag(ms).saturating_add(1));
        put_varint(&mut block, time);
    }
    block.extend_from_slice(terms.id_from.as_bytes());
    // A mark is far shorter.
    let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&block[..usize::from(len)]);
}

fn put_column(bytes: &mut Vec<u8>, values: &[i64]) {
    let mut previous = 0_i64;
    for value in values {
        put_varint(bytes, zigzag(value.wrapping_sub(previous)));
        previous = *value;
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// The bytes that are left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], RunError> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(RunError::Damaged("it is shorter than it says"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RunError> {
        let (array, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(RunError::Damaged("it is shorter than it says"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn terms(
        &mut self,
        preloaded: bool,
        partial: bool,
    ) -> Result<(Terms, Option<i64>, Option<Since>), RunError> {
        let len = u16::from_le_bytes(self.array()?);
        let mut block = Reader(self.take(usize::from(len))?);
        let (time, ids) = (block.varint()?, block.varint()?);
        let preloaded = match preloaded {
            true => Some(block.varint()?.cast_signed()),
            false => None,
        };
        let since = match partial {
            true => Some(Since {
                ordinal: block.varint()?,
                time_ms: block.varint()?.checked_sub(1).map(unzigzag),
            }),
            false => None,
        };
        let id_from = std::str::from_utf8(block.0)
            .map_err(|_| RunError::Damaged("the text of id.from is no UTF-8"))?;
        let terms = Terms {
            time_ms: time.checked_sub(1),
            ids: (ids > 0).then_some(ids),
            id_from: id_from.to_owned(),
        };
        Ok((terms, preloaded, since))
    }

    /// All that is left, as a column of `count` values.
    fn column(mut self, count: usize) -> Result<Vec<i64>, RunError> {
        // A value takes a byte at least: a count beyond that is a lie that must not allocate.
        if count > self.0.len() {
            return Err(RunError::Damaged("a column is shorter than its count"));
        }
        let mut values = Vec::with_capacity(count);
        let mut previous = 0_i64;
        for _ in 0..count {
            previous = previous.wrapping_add(unzigzag(self.varint()?));
            values.push(previous);
        }
        if !self.0.is_empty() {
            return Err(RunError::Damaged("a column is longer than its count"));
        }
        Ok(values)
    }

    fn varint(&mut self) -> Result<u64, RunError> {
        let mut value = 0_u64;
        for index in 0..MAX_VARINT_BYTES {
            let [byte] = self.array::<1>()?;
            // The tenth byte has room for the one bit that is left of 64.
            if index == MAX_VARINT_BYTES - 1 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RunError::Damaged("a number has more than 64 bits"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_run() -> impl Strategy<Value = Run> {
        let entry = (any::<u128>(), any::<i64>(), any::<i64>());
        let entries = prop::collection::vec(entry, 0..40);
        let head = (
            any::<u64>(),
            any::<Option<i64>>(),
            any::<i64>(),
            0..u64::MAX - 40,
        );
        let terms =
            (0..u64::MAX, any::<u64>(), "[a-zé]{0,9}").prop_map(|(time, ids, text)| Terms {
                time_ms: (time > 9).then_some(time),
                ids: (ids > 0).then_some(ids),
                id_from: text,
            });
        let terms = prop::option::of((terms, any::<bool>(), any::<bool>()));
        (head, entries, terms, any::<bool>()).prop_map(
            |((identity, stream_time_ms, next_offset, first_ordinal), ids, terms, payloads)| {
                let (begins, preload) = terms
                    .as_ref()
                    .map_or((false, false), |(_, begins, preload)| (*begins, *preload));
                let mut run = Run {
                    identity,
                    stream_time_ms,
                    next_offset,
                    first_ordinal,
                    terms: terms.map(|(terms, ..)| terms),
                    begins,
                    preload,
                    preloaded: (begins != preload).then_some(next_offset),
                    since: begins.then_some(Since {
                        ordinal: first_ordinal / 2,
                        time_ms: stream_time_ms.map(|ms| ms / 2),
                    }),
                    ..Run::default()
                };
                for (fingerprint, time_ms, offset) in ids {
                    run.fingerprints.push(fingerprint);
                    run.times_ms.push(time_ms);
                    run.offsets.push(offset);
                    if payloads && run.terms.is_some() {
                        run.payloads.push(fingerprint as u64);
                    }
                }
                run
            },
        )
    }

    proptest! {
        #[test]
        fn parts_put_together_are_the_run(run in any_run(), max_ids in 0_usize..50) {
            let mut whole = Run {
                fingerprints: vec![],
                times_ms: vec![],
                offsets: vec![],
                payloads: vec![],
                ..run.clone()
            };
            for (index, bytes) in run.encode(max_ids).iter().enumerate() {
                let part = Run::decode(bytes).unwrap();
                prop_assert!(part.fingerprints.len() <= max_ids.max(1));
                prop_assert!(index == 0 || !part.fingerprints.is_empty());
                prop_assert_eq!(part.identity, run.identity);
                prop_assert_eq!(part.stream_time_ms, run.stream_time_ms);
                prop_assert_eq!(part.next_offset, run.next_offset);
                prop_assert_eq!(&part.terms, &run.terms);
                prop_assert_eq!((part.preloaded, part.since), (run.preloaded, run.since));
                prop_assert_eq!((part.begins, part.preload), (run.begins && index == 0, run.preload));
                prop_assert_eq!(part.first_ordinal, run.first_ordinal + whole.fingerprints.len() as u64);
                whole.fingerprints.extend(part.fingerprints);
                whole.times_ms.extend(part.times_ms);
                whole.offsets.extend(part.offsets);
                whole.payloads.extend(part.payloads);
            }
            prop_assert_eq!(whole, run);
        }

        #[test]
        fn a_flipped_bit_is_noticed(run in any_run(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
            let mut bytes = run.encode(usize::MAX).remove(0);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(Run::decode(&bytes).is_err());
        }

        #[test]
        fn a_cut_off_run_is_noticed(run in any_run(), at in any::<prop::sample::Index>()) {
            let bytes = run.encode(usize::MAX).remove(0);
            prop_assert!(Run::decode(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Run::decode(&bytes).is_err());
        }

        /// What a checksum cannot stop: a body made with intent, or by a defect.
        #[test]
        fn an_arbitrary_body_with_a_right_checksum_does_no_harm(
            body in prop::collection::vec(any::<u8>(), 0..200),
            count in prop_oneof![Just(u32::MAX), 0_u32..8],
            times_bytes in prop_oneof![Just(u32::MAX), 0_u32..60],
            version in VERSION..=WITH_PAYLOADS,
        ) {
            let mut bytes = [MAGIC.as_slice(), &[version, 1], &[7; 32]].concat();
            bytes.extend(count.to_le_bytes());
            bytes.extend(times_bytes.to_le_bytes());
            bytes.extend(body);
            bytes.extend(xxh3_64(&bytes).to_le_bytes());
            if let Ok(run) = Run::decode(&bytes) {
                prop_assert_eq!(run.fingerprints.len(), count as usize);
                prop_assert_eq!(run.times_ms.len(), count as usize);
                prop_assert_eq!(run.offsets.len(), count as usize);
            }
        }
    }

    #[test]
    fn every_kind_of_refusal_has_its_name() {
        let bytes = Run::default().encode(1).remove(0);
        assert_eq!(bytes.len(), HEADER_BYTES + CHECKSUM_BYTES);
        assert_eq!(Run::decode(&bytes), Ok(Run::default()));
        assert_eq!(Run::decode(b""), Err(RunError::Foreign));
        assert_eq!(Run::decode(b"{\"a\":1}"), Err(RunError::Foreign));
        assert_eq!(Run::decode(b"KDRN\x04"), Err(RunError::Version(4)));
        assert!(matches!(Run::decode(b"KDRN"), Err(RunError::Damaged(_))));
        assert!(matches!(
            Run::decode(b"KDRN\x01"),
            Err(RunError::Damaged(_))
        ));
    }

    #[test]
    fn a_run_of_the_first_version_is_read_and_has_no_terms() {
        let mut bytes = [MAGIC.as_slice(), &[1, 1]].concat();
        for word in [7_u64, 1000, 4, 3] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([1, 0, 0, 0, 2, 0, 0, 0]);
        bytes.extend(5_u128.to_le_bytes());
        bytes.extend([0xd0, 0x0f, 6]);
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        let run = Run {
            identity: 7,
            stream_time_ms: Some(1000),
            next_offset: 4,
            first_ordinal: 3,
            fingerprints: vec![5],
            times_ms: vec![1000],
            offsets: vec![3],
            ..Run::default()
        };
        assert_eq!(Run::decode(&bytes), Ok(run.clone()));
        assert_eq!(run.encode(1), [bytes]);
    }

    #[test]
    fn a_window_is_grown_where_it_may_remember_what_another_forgot() {
        let terms = |time_ms, ids| Terms {
            time_ms,
            ids,
            id_from: String::new(),
        };
        let hour = terms(Some(3_600_000), None);
        assert!(terms(None, Some(5)).remember_more_than(&hour));
        assert!(!terms(Some(60_000), None).remember_more_than(&hour));
        assert!(!hour.remember_more_than(&hour));
        assert!(!terms(Some(3_600_000), Some(5)).remember_more_than(&hour));
        assert!(hour.remember_more_than(&terms(Some(3_600_000), Some(5))));
    }

    #[test]
    fn an_id_takes_twenty_bytes_at_most() {
        let ids = 20_000_i64;
        let run = Run {
            stream_time_ms: Some(1_700_000_000_000),
            fingerprints: (0..ids).map(|id| (id as u128) << 64).collect(),
            times_ms: (0..ids).map(|id| 1_700_000_000_000 + id / 7).collect(),
            offsets: (0..ids).map(|id| 5_000_000_000 + id * 3 / 2).collect(),
            ..Run::default()
        };
        let bytes = run.encode(usize::MAX).remove(0).len();
        assert!(bytes <= 20 * ids as usize, "{bytes}");
    }
}
