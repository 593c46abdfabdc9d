//! What a client knows without asking a broker: its generation, watermarks of its last fetch, and
//! the headers of a message in its hands.

use std::ffi::{CStr, CString, c_void};
use std::ptr;

use rdkafka::consumer::{Consumer, ConsumerContext};
use rdkafka::message::BorrowedMessage;
use rdkafka_sys as sys;

use super::native::{Owned, no_error, text};

/// The consumer's generation and member id in its group; `None` before it has joined one, when
/// offsets sent by it would not be fenced (I6). Asks the client's own thread, no broker.
pub fn group_generation<C, T>(consumer: &T) -> Option<(i32, String)>
where
    C: ConsumerContext,
    T: Consumer<C>,
{
    // SAFETY: the client lives as long as the borrow of `consumer`; the metadata is ours to free.
    let metadata = unsafe { sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr()) };
    let metadata = Owned::new(metadata, sys::rd_kafka_consumer_group_metadata_destroy).ok()?;
    // SAFETY: not null; the member id belongs to the metadata and is copied before it is freed.
    let (generation, member) = unsafe {
        (
            sys::rd_kafka_consumer_group_metadata_generation_id(metadata.get()),
            text(sys::rd_kafka_consumer_group_metadata_member_id(
                metadata.get(),
            )),
        )
    };
    (generation >= 0 && !member.is_empty()).then_some((generation, member))
}

/// Low and high watermark of a partition as the last fetch answered them, without asking a broker;
/// a watermark not heard of yet makes it `None`. For gauges, never for recovery.
pub fn cached_watermarks<C, T>(consumer: &T, topic: &str, partition: i32) -> Option<(i64, i64)>
where
    C: ConsumerContext,
    T: Consumer<C>,
{
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: client, name and both places are alive for the call.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    (error == no_error() && low >= 0 && high >= 0).then_some((low, high))
}

/// The value of the last header of that name; `None` when there is none or its value is null.
/// Names that are no UTF-8 are fine. O(headers).
pub fn last_header<'a>(message: &'a BorrowedMessage<'_>, name: &CStr) -> Option<&'a [u8]> {
    let mut headers = ptr::null_mut();
    let mut value: *const c_void = ptr::null();
    let mut size = 0;
    // SAFETY: headers and value belong to the message, which the result borrows; librdkafka parses
    // headers once and keeps them until the message is freed.
    unsafe {
        if sys::rd_kafka_message_headers(message.ptr(), &raw mut headers) != no_error() {
            return None;
        }
        let error =
            sys::rd_kafka_header_get_last(headers, name.as_ptr(), &raw mut value, &raw mut size);
        if error != no_error() || value.is_null() {
            return None;
        }
        Some(std::slice::from_raw_parts(value.cast(), size))
    }
}

/// How many headers a message has.
pub fn header_count(message: &BorrowedMessage<'_>) -> usize {
    let mut headers = ptr::null_mut();
    // SAFETY: the headers belong to the message, which is alive for the call.
    unsafe {
        if sys::rd_kafka_message_headers(message.ptr(), &raw mut headers) != no_error() {
            return 0;
        }
        sys::rd_kafka_header_cnt(headers)
    }
}

/// Of a record that was not delivered: whether it may be in its topic all the same. O(1).
pub fn may_be_written(record: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the message is alive for the call.
    let status = unsafe { sys::rd_kafka_message_status(record.ptr()) };
    status != sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// Shows every header of a message in its order: names that are no UTF-8, and values that are null,
/// as they are. O(headers).
pub fn each_header(message: &BorrowedMessage<'_>, mut show: impl FnMut(&CStr, Option<&[u8]>)) {
    let mut headers = ptr::null_mut();
    // SAFETY: headers, names and values belong to the message, which is alive for the whole call;
    // librdkafka ends every name with a NUL.
    unsafe {
        if sys::rd_kafka_message_headers(message.ptr(), &raw mut headers) != no_error() {
            return;
        }
        for index in 0..sys::rd_kafka_header_cnt(headers) {
            let mut name = ptr::null();
            let mut value: *const c_void = ptr::null();
            let mut size = 0;
            let error = sys::rd_kafka_header_get_all(
                headers,
                index,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            );
            if error != no_error() || name.is_null() {
                return;
            }
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast(), size));
            show(CStr::from_ptr(name), value);
        }
    }
}
