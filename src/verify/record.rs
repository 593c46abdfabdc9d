//! A record as it is compared: hashes of its parts, whatever their size, and what a side topic's
//! headers say of where it came from.
//!
//! Reads records of the client library where they lie.

use std::ffi::CStr;

use rdkafka::Timestamp;
use rdkafka::message::{BorrowedMessage, Message};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use super::judge::{First, Span};
use crate::kafka::describe;

/// Null is not empty.
const NULL: u64 = 0x6e75_6c6c;
/// Headers that name the record which a duplicate repeats.
const DUPLICATE_HEADERS: usize = 8;
const REJECTED_HEADERS: usize = 4;

/// The parts of a record that must stay what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    pub key: u64,
    pub value: u64,
    pub headers: u64,
    /// `None` where the record has none that could be compared.
    pub timestamp_ms: Option<i64>,
}

impl Body {
    /// The record without its last `without` headers.
    pub fn of(message: &BorrowedMessage<'_>, without: usize) -> Self {
        Self {
            key: part(message.key()),
            value: part(message.payload()),
            headers: headers(message, without),
            timestamp_ms: message.timestamp().to_millis(),
        }
    }

    /// Everything but the timestamp.
    pub fn without_time(&self) -> u64 {
        mixed(&[self.key, self.value, self.headers])
    }

    /// What differs, by name.
    pub fn differs_from(&self, other: &Self, times_count: bool) -> Vec<&'static str> {
        [
            ("key", self.key != other.key),
            ("value", self.value != other.value),
            ("headers", self.headers != other.headers),
            (
                "timestamp",
                times_count && self.timestamp_ms != other.timestamp_ms,
            ),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}

/// Whether the broker's clock made the timestamp.
pub fn is_append_time(message: &BorrowedMessage<'_>) -> bool {
    matches!(message.timestamp(), Timestamp::LogAppendTime(_))
}

/// librdkafka sends 0, and no timestamp, as "now".
pub fn keeps_time(timestamp_ms: Option<i64>) -> bool {
    timestamp_ms.is_some_and(|time| time != 0)
}

/// What the headers of a record in the duplicates or rejected topic say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    pub reason: Vec<u8>,
    pub topic: Vec<u8>,
    pub partition: i32,
    pub offset: i64,
    /// Of a duplicate: topic, partition and offset of the first record, and the age.
    pub first: Option<AsideFirst>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsideFirst {
    pub topic: Vec<u8>,
    pub partition: i32,
    pub offset: i64,
    pub age_ms: i64,
}

impl Aside {
    /// Where the record came from; `None` where its last headers are not the service's. Gives how
    /// many headers these are.
    pub fn of(message: &BorrowedMessage<'_>) -> Option<(Self, usize)> {
        let mut last: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        describe::each_header(message, |name, value| {
            if last.len() == DUPLICATE_HEADERS {
                last.remove(0);
            }
            let value = value.unwrap_or_default();
            last.push((name.to_bytes().to_vec(), value.to_vec()));
        });
        let duplicate = read(&last, DUPLICATE_HEADERS).filter(|aside| aside.first.is_some());
        match duplicate {
            Some(aside) => Some((aside, DUPLICATE_HEADERS)),
            None => Some((read(&last, REJECTED_HEADERS)?, REJECTED_HEADERS)),
        }
    }

    /// One number for what must be as it is: reason and source.
    pub fn place(&self) -> u64 {
        place(&self.reason, &self.topic, self.partition, self.offset)
    }

    /// What is said wrongly of the first record, where it is known.
    pub fn misnames(&self, known: &First) -> Option<&'static str> {
        let Some(said) = &self.first else {
            return Some("header dedup-first-offset");
        };
        let Span { from, to } = known.age_ms;
        if said.topic != self.topic {
            Some("header dedup-first-topic")
        } else if said.partition != self.partition {
            Some("header dedup-first-partition")
        } else if known.offset.is_some_and(|offset| offset != said.offset) {
            Some("header dedup-first-offset")
        } else if !(from..=to).contains(&said.age_ms) {
            Some("header dedup-age-ms")
        } else {
            None
        }
    }
}

/// See [`Aside::place`].
pub fn place(reason: &[u8], topic: &[u8], partition: i32, offset: i64) -> u64 {
    mixed(&[
        xxh3_64(reason),
        xxh3_64(topic),
        u64::from(partition.cast_unsigned()),
        offset.cast_unsigned(),
    ])
}

/// One number for several.
pub fn mixed(numbers: &[u64]) -> u64 {
    let mut hash = Xxh3::new();
    for number in numbers {
        hash.update(&number.to_le_bytes());
    }
    hash.digest()
}

fn read(last: &[(Vec<u8>, Vec<u8>)], count: usize) -> Option<Aside> {
    let mut own = last.get(last.len().checked_sub(count)?..)?.iter();
    let mut take = |wanted: &str| {
        let (name, value) = own.next()?;
        (name == wanted.as_bytes()).then_some(value)
    };
    let text = |value: &Vec<u8>| str::from_utf8(value).ok().map(str::to_owned);
    let reason = take("dedup-reason")?.clone();
    let topic = take("dedup-source-topic")?.clone();
    let partition = text(take("dedup-source-partition")?)?.parse().ok()?;
    let offset = text(take("dedup-source-offset")?)?.parse().ok()?;
    let mut aside = Aside {
        reason,
        topic,
        partition,
        offset,
        first: None,
    };
    if count == DUPLICATE_HEADERS {
        aside.first = Some(AsideFirst {
            topic: take("dedup-first-topic")?.clone(),
            partition: text(take("dedup-first-partition")?)?.parse().ok()?,
            offset: text(take("dedup-first-offset")?)?.parse().ok()?,
            age_ms: text(take("dedup-age-ms")?)?.parse().ok()?,
        });
    }
    Some(aside)
}

fn part(bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(NULL, xxh3_64)
}

/// All headers but the last `without`, in their order, with repeats and nulls. No headers at all
/// and an empty list are the same on the wire.
fn headers(message: &BorrowedMessage<'_>, without: usize) -> u64 {
    let mut hash = Xxh3::new();
    let kept = describe::header_count(message).saturating_sub(without);
    let mut at = 0;
    describe::each_header(message, |name: &CStr, value| {
        if at < kept {
            hash.update(&xxh3_64_with_seed(name.to_bytes(), 1).to_le_bytes());
            hash.update(&part(value).to_le_bytes());
        }
        at += 1;
    });
    hash.digest()
}
