//! Handing records to a transactional producer in the ways that librdkafka has and its Rust wrapper does not:
//! headers change hands without being copied, and a flush waits without asking again and again.
//!
//! It touches the client it is given and nothing else.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::error::{IsError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_vtype_t as Part;

/// The headers of a record to be sent: any bytes as names and values, nulls, repeated names.
pub struct Headers(NonNull<sys::rd_kafka_headers_t>);

// SAFETY: a list that nobody else knows of; librdkafka hands such lists between its threads as well.
unsafe impl Send for Headers {}

impl Headers {
    /// None yet.
    pub fn new() -> Self {
        // SAFETY: it only allocates, and ends the process where it cannot.
        let list = unsafe { sys::rd_kafka_headers_new(8) };
        Self(NonNull::new(list).unwrap_or_else(|| unreachable!("librdkafka allocates or aborts")))
    }

    /// All headers of a message, as they are; `None` where it has none. Nothing is copied.
    ///
    /// # Safety
    /// Nothing that was borrowed from the headers of this message is used any more.
    pub unsafe fn taken_from(message: &BorrowedMessage<'_>) -> Option<Self> {
        let mut list = ptr::null_mut();
        // SAFETY: the message is alive; afterwards it knows nothing of the list, which is ours.
        let error = unsafe { sys::rd_kafka_message_detach_headers(message.ptr(), &raw mut list) };
        NonNull::new(list).filter(|_| !error.is_error()).map(Self)
    }

    /// Adds one behind the others.
    pub fn add(&mut self, name: &str, value: &str) {
        // SAFETY: the list is alive; name and value are copied, with their lengths. It can only fail for a
        // list that is part of a message.
        unsafe {
            sys::rd_kafka_header_add(
                self.0.as_ptr(),
                name.as_ptr().cast::<c_char>(),
                name.len().cast_signed(),
                value.as_ptr().cast::<c_void>(),
                value.len().cast_signed(),
            );
        }
    }
}

impl Default for Headers {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        // SAFETY: ours alone.
        unsafe { sys::rd_kafka_headers_destroy(self.0.as_ptr()) }
    }
}

/// A topic, as its producer knows it: by its name it would be looked for under a lock that all of the client shares, for
/// each record anew. Only of use with the producer that it was made with, and to be dropped before that is.
pub struct Topic(NonNull<sys::rd_kafka_topic_t>);

// SAFETY: librdkafka counts who uses it, and locks what is in it.
unsafe impl Send for Topic {}

impl Topic {
    /// Asks the brokers for its partitions, where the producer does not know them yet, and does not wait.
    ///
    /// # Errors
    /// No topic can have this name.
    pub fn new<C>(producer: &ThreadedProducer<C>, name: &CStr) -> Result<Self, RDKafkaErrorCode>
    where
        C: ProducerContext<DeliveryOpaque = usize> + 'static,
    {
        let client = producer.client().native_ptr();
        // SAFETY: client and name are alive; without a configuration of its own, a topic has the client's.
        let topic = unsafe { sys::rd_kafka_topic_new(client, name.as_ptr(), ptr::null_mut()) };
        // SAFETY: it tells of the call before, on this thread.
        NonNull::new(topic)
            .map(Self)
            .ok_or_else(|| unsafe { sys::rd_kafka_last_error() }.into())
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: ours, once.
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// What is sent: the parts of a Kafka record. `None` is null, which is not the same as empty.
pub struct Outgoing<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Option<Headers>,
    pub timestamp_ms: Option<i64>,
}

/// Puts a record into the producer's queue; key and value are copied, the headers taken. What is said of its
/// delivery carries `tag`.
///
/// # Errors
/// It was not taken, and nothing will be heard of it; the headers are where they were.
pub fn send<C>(
    producer: &ThreadedProducer<C>,
    topic: &Topic,
    record: &mut Outgoing<'_>,
    tag: usize,
) -> Result<(), RDKafkaErrorCode>
where
    C: ProducerContext<DeliveryOpaque = usize> + 'static,
{
    let bytes = |part: Option<&[u8]>| part.map_or((ptr::null(), 0), |it| (it.as_ptr(), it.len()));
    let (key, key_len) = bytes(record.key);
    let (value, value_len) = bytes(record.value);
    let list = record.headers.as_ref();
    let list = list.map_or(ptr::null_mut(), |list| list.0.as_ptr());
    // SAFETY: all of it lives as long as the call, which copies it, but for the headers: those are librdkafka's
    // when it succeeds. Each part is followed by what its kind says, and the end by nothing.
    let error = unsafe {
        sys::rd_kafka_producev(
            producer.client().native_ptr(),
            kind(Part::RD_KAFKA_VTYPE_RKT),
            topic.0.as_ptr(),
            kind(Part::RD_KAFKA_VTYPE_PARTITION),
            record.partition,
            kind(Part::RD_KAFKA_VTYPE_MSGFLAGS),
            sys::RD_KAFKA_MSG_F_COPY,
            kind(Part::RD_KAFKA_VTYPE_VALUE),
            value,
            value_len,
            kind(Part::RD_KAFKA_VTYPE_KEY),
            key,
            key_len,
            kind(Part::RD_KAFKA_VTYPE_OPAQUE),
            ptr::without_provenance::<c_void>(tag),
            kind(Part::RD_KAFKA_VTYPE_TIMESTAMP),
            record.timestamp_ms.unwrap_or(0),
            kind(Part::RD_KAFKA_VTYPE_HEADERS),
            list,
            kind(Part::RD_KAFKA_VTYPE_END),
        )
    };
    if error.is_error() {
        return Err(error.into());
    }
    std::mem::forget(record.headers.take());
    Ok(())
}

/// As a variadic call passes it.
fn kind(part: Part) -> c_int {
    part as c_int
}

/// Sends what waits, whatever `linger.ms` is, and waits until every record is delivered or failed and has been
/// told so. False when `timeout` was over first.
pub fn flush<C: ProducerContext + 'static>(
    producer: &ThreadedProducer<C>,
    timeout: Duration,
) -> bool {
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the client is alive for the call. Its reports are taken by the producer's own thread, and a record is in
    // flight until that has dealt with its report.
    let error = unsafe { sys::rd_kafka_flush(producer.client().native_ptr(), millis) };
    !error.is_error()
}
