//! One request of librdkafka's admin interface: options, a queue of its own, the event that answers,
//! and pointers that are freed when they go out of scope.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_admin_op_t as Op;

use super::{NoAnswer, Permission};

/// librdkafka answers every request when its timeout ends; it is waited for this much longer.
const SLACK: Duration = Duration::from_secs(5);

/// Sends one request on a queue of its own and waits for its answer.
pub(super) fn ask<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
    send: impl FnOnce(*mut sys::rd_kafka_t, *mut sys::rd_kafka_queue_t),
) -> Result<Owned<sys::rd_kafka_event_t>, NoAnswer> {
    let rk = client.native_ptr();
    // SAFETY: the client is alive for the whole call; queue and event are freed on return. An
    // answer that comes later than the queue is freed by librdkafka.
    unsafe {
        let queue = Owned::new(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy)?;
        send(rk, queue.get());
        let event = sys::rd_kafka_queue_poll(queue.get(), millis(timeout + SLACK));
        if event.is_null() {
            return Err(no_answer(
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT,
            ));
        }
        let event = Owned::new(event, sys::rd_kafka_event_destroy)?;
        let error = sys::rd_kafka_event_error(event.get());
        if error == no_error() {
            return Ok(event);
        }
        Err(NoAnswer {
            code: error.into(),
            text: text(sys::rd_kafka_event_error_string(event.get())),
        })
    }
}

/// A pointer that librdkafka gave us to free.
pub(super) struct Owned<T> {
    pointer: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    pub(super) fn new(
        pointer: *mut T,
        free: unsafe extern "C" fn(*mut T),
    ) -> Result<Self, NoAnswer> {
        let pointer = NonNull::new(pointer).ok_or_else(unexpected)?;
        Ok(Self { pointer, free })
    }

    pub(super) fn get(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came with this destructor and is freed here alone.
        unsafe { (self.free)(self.pointer.as_ptr()) }
    }
}

/// Options of one request.
pub(super) struct Options(Owned<sys::rd_kafka_AdminOptions_t>);

impl Options {
    pub(super) fn new<C: ClientContext>(
        client: &Client<C>,
        op: Op,
        timeout: Duration,
    ) -> Result<Self, NoAnswer> {
        // SAFETY: the client is alive; the options are ours to free.
        let options = unsafe { sys::rd_kafka_AdminOptions_new(client.native_ptr(), op) };
        let options = Owned::new(options, sys::rd_kafka_AdminOptions_destroy)?;
        // SAFETY: the options are alive; no place for an error text is given.
        let error = unsafe {
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options.get(),
                millis(timeout),
                ptr::null_mut(),
                0,
            )
        };
        if error == no_error() {
            Ok(Self(options))
        } else {
            Err(no_answer(error))
        }
    }

    /// Also asks what this client may do; older brokers leave it out of their answer.
    pub(super) fn with_permissions(&self) {
        // SAFETY: the options are alive; an error that comes back is ours to free.
        unsafe {
            let error = sys::rd_kafka_AdminOptions_set_include_authorized_operations(self.get(), 1);
            if !error.is_null() {
                sys::rd_kafka_error_destroy(error);
            }
        }
    }

    /// Which offset counts as the end of a partition.
    pub(super) fn with_isolation(
        &self,
        level: sys::rd_kafka_IsolationLevel_t,
    ) -> Result<(), NoAnswer> {
        // SAFETY: the options are alive; an error that comes back is ours to free.
        unsafe {
            let error = sys::rd_kafka_AdminOptions_set_isolation_level(self.get(), level);
            let refused = failure(error);
            if !error.is_null() {
                sys::rd_kafka_error_destroy(error);
            }
            refused.map_or(Ok(()), Err)
        }
    }

    pub(super) fn get(&self) -> *mut sys::rd_kafka_AdminOptions_t {
        self.0.get()
    }
}

/// # Safety
/// `first` is null or the first of `count` elements that live for `'a`.
pub(super) unsafe fn elements<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// # Safety
/// `first` is null or the first of `count` operations.
pub(super) unsafe fn permissions(
    first: *const sys::rd_kafka_AclOperation_t,
    count: usize,
) -> Option<BTreeSet<Permission>> {
    if first.is_null() {
        return None;
    }
    // SAFETY: promised by the caller; read as numbers, as a broker's number need not be one that
    // the enumeration of this version has.
    let numbers = unsafe { elements(first.cast::<u32>(), count) };
    Some(
        numbers
            .iter()
            .filter_map(|number| permission(*number))
            .collect(),
    )
}

fn permission(number: u32) -> Option<Permission> {
    match number {
        3 => Some(Permission::Read),
        4 => Some(Permission::Write),
        5 => Some(Permission::Create),
        6 => Some(Permission::Delete),
        7 => Some(Permission::Alter),
        8 => Some(Permission::Describe),
        10 => Some(Permission::DescribeConfigs),
        _ => None,
    }
}

/// # Safety
/// `error` is null or alive.
pub(super) unsafe fn failure(error: *const sys::rd_kafka_error_t) -> Option<NoAnswer> {
    if error.is_null() {
        return None;
    }
    // SAFETY: promised by the caller.
    let (code, text) = unsafe {
        (
            sys::rd_kafka_error_code(error),
            text(sys::rd_kafka_error_string(error)),
        )
    };
    (code != no_error()).then(|| NoAnswer {
        code: code.into(),
        text,
    })
}

/// # Safety
/// `pointer` is null or a C string.
pub(super) unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

pub(super) fn c_strings(names: &[&str]) -> Result<Vec<CString>, NoAnswer> {
    let invalid = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__INVALID_ARG;
    names
        .iter()
        .map(|name| CString::new(*name).map_err(|_| no_answer(invalid)))
        .collect()
}

fn millis(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}

pub(super) fn no_error() -> sys::rd_kafka_resp_err_t {
    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

pub(super) fn no_answer(error: sys::rd_kafka_resp_err_t) -> NoAnswer {
    let code = RDKafkaErrorCode::from(error);
    NoAnswer {
        code,
        text: code.to_string(),
    }
}

pub(super) fn unexpected() -> NoAnswer {
    no_answer(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__FAIL)
}
