//! Permissions and passwords, changed while the broker runs, in milliseconds: Kafka's own tools take seconds
//! to start. librdkafka can do it and its Rust wrapper does not, so these are calls of C.

use std::ffi::{CStr, CString};
use std::{ptr, slice};

use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_admin_op_t as Request;
use sys::rd_kafka_AclOperation_t as Operation;
use sys::rd_kafka_ResourcePatternType_t as Pattern;
use sys::rd_kafka_ResourceType_t as Resource;

use crate::kit::Kafka;

pub const READ: Operation = Operation::RD_KAFKA_ACL_OPERATION_READ;
pub const WRITE: Operation = Operation::RD_KAFKA_ACL_OPERATION_WRITE;
pub const CREATE: Operation = Operation::RD_KAFKA_ACL_OPERATION_CREATE;
pub const DELETE: Operation = Operation::RD_KAFKA_ACL_OPERATION_DELETE;
pub const DESCRIBE: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE;
pub const DESCRIBE_CONFIGS: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS;

/// How long the broker may take for a change, in milliseconds.
const PATIENCE_MS: i32 = 60_000;

/// One entry of an ACL: an operation on a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    resource: Resource,
    pattern: Pattern,
    name: CString,
    pub operation: Operation,
}

impl Grant {
    pub fn topic(name: &str, operation: Operation) -> Self {
        let literal = Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL;
        Self::of(Resource::RD_KAFKA_RESOURCE_TOPIC, literal, name, operation)
    }

    pub fn group(name: &str, operation: Operation) -> Self {
        let literal = Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL;
        Self::of(Resource::RD_KAFKA_RESOURCE_GROUP, literal, name, operation)
    }

    /// All transactional ids that begin so.
    pub fn transactional_ids(prefix: &str, operation: Operation) -> Self {
        let prefixed = Pattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED;
        let resource = Resource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID;
        Self::of(resource, prefixed, prefix, operation)
    }

    /// What it is on.
    pub fn name(&self) -> &str {
        self.name.to_str().expect("text")
    }

    /// As kafka-acls.sh writes it.
    pub fn word(&self) -> &'static str {
        match self.operation {
            READ => "Read",
            WRITE => "Write",
            CREATE => "Create",
            DELETE => "Delete",
            DESCRIBE => "Describe",
            DESCRIBE_CONFIGS => "DescribeConfigs",
            other => panic!("{other:?} has no word"),
        }
    }

    fn of(resource: Resource, pattern: Pattern, name: &str, operation: Operation) -> Self {
        Self {
            resource,
            pattern,
            name: c_string(name),
            operation,
        }
    }
}

type NewAcl = unsafe extern "C" fn(
    Resource,
    *const std::ffi::c_char,
    Pattern,
    *const std::ffi::c_char,
    *const std::ffi::c_char,
    Operation,
    sys::rd_kafka_AclPermissionType_t,
    *mut std::ffi::c_char,
    usize,
) -> *mut sys::rd_kafka_AclBinding_t;

/// The grants as librdkafka has them, made by one of its two functions; they are the caller's to free.
fn native(make: NewAcl, user: &str, grants: &[Grant]) -> Vec<*mut sys::rd_kafka_AclBinding_t> {
    let principal = c_string(&format!("User:{user}"));
    let native = grants.iter().map(|grant| {
        let allow = sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW;
        // SAFETY: all strings are terminated and alive, and are copied; no place for an error's text is
        // given, and its size is said to be 0.
        let acl = unsafe {
            make(
                grant.resource,
                grant.name.as_ptr(),
                grant.pattern,
                principal.as_ptr(),
                c"*".as_ptr(),
                grant.operation,
                allow,
                ptr::null_mut(),
                0,
            )
        };
        assert!(!acl.is_null(), "librdkafka does not take {grant:?}");
        acl
    });
    native.collect()
}

/// Gives a user permissions.
pub fn allow(kafka: &Kafka, user: &str, grants: &[Grant]) {
    let mut acls = native(sys::rd_kafka_AclBinding_new, user, grants);
    ask(
        kafka,
        Request::RD_KAFKA_ADMIN_OP_CREATEACLS,
        |rk, options, queue| {
            // SAFETY: all are alive; the request copies the ACLs, and they are freed once, here.
            unsafe {
                sys::rd_kafka_CreateAcls(rk, acls.as_mut_ptr(), acls.len(), options, queue);
                sys::rd_kafka_AclBinding_destroy_array(acls.as_mut_ptr(), acls.len());
            }
        },
        |event| {
            let mut count = 0;
            // SAFETY: the event is alive, and with it its results, of which there are `count`.
            unsafe {
                let result = sys::rd_kafka_event_CreateAcls_result(event);
                let first = sys::rd_kafka_CreateAcls_result_acls(result, &raw mut count);
                for acl in slice::from_raw_parts(first, count) {
                    assert_done(sys::rd_kafka_acl_result_error(*acl));
                }
            }
            assert_eq!(count, grants.len());
        },
    );
}

/// Takes permissions away that a user has.
pub fn forbid(kafka: &Kafka, user: &str, grants: &[Grant]) {
    let mut filters = native(sys::rd_kafka_AclBindingFilter_new, user, grants);
    ask(
        kafka,
        Request::RD_KAFKA_ADMIN_OP_DELETEACLS,
        |rk, options, queue| {
            // SAFETY: as in `allow`.
            unsafe {
                sys::rd_kafka_DeleteAcls(rk, filters.as_mut_ptr(), filters.len(), options, queue);
                sys::rd_kafka_AclBinding_destroy_array(filters.as_mut_ptr(), filters.len());
            }
        },
        |event| {
            let mut count = 0;
            // SAFETY: as in `allow`.
            unsafe {
                let result = sys::rd_kafka_event_DeleteAcls_result(event);
                let first = sys::rd_kafka_DeleteAcls_result_responses(result, &raw mut count);
                for response in slice::from_raw_parts(first, count) {
                    assert_done(sys::rd_kafka_DeleteAcls_result_response_error(*response));
                    let mut deleted = 0;
                    sys::rd_kafka_DeleteAcls_result_response_matching_acls(
                        *response,
                        &raw mut deleted,
                    );
                    assert_eq!(deleted, 1, "{grants:?} of {user}");
                }
            }
            assert_eq!(count, grants.len());
        },
    );
}

/// A user's password for SCRAM-SHA-512 from here on.
pub fn set_password(kafka: &Kafka, user: &str, password: &str) {
    let name = c_string(user);
    ask(
        kafka,
        Request::RD_KAFKA_ADMIN_OP_ALTERUSERSCRAMCREDENTIALS,
        |rk, options, queue| {
            // SAFETY: all are alive, and the password has as many bytes as is said; the request copies
            // the alteration, which is freed once, here. Without a salt librdkafka makes one.
            unsafe {
                let mut alteration = sys::rd_kafka_UserScramCredentialUpsertion_new(
                    name.as_ptr(),
                    sys::rd_kafka_ScramMechanism_t::RD_KAFKA_SCRAM_MECHANISM_SHA_512,
                    4096,
                    password.as_ptr(),
                    password.len(),
                    ptr::null(),
                    0,
                );
                sys::rd_kafka_AlterUserScramCredentials(rk, &raw mut alteration, 1, options, queue);
                sys::rd_kafka_UserScramCredentialAlteration_destroy(alteration);
            }
        },
        |event| {
            let mut count = 0;
            // SAFETY: as in `allow`.
            unsafe {
                let result = sys::rd_kafka_event_AlterUserScramCredentials_result(event);
                let first = sys::rd_kafka_AlterUserScramCredentials_result_responses(
                    result,
                    &raw mut count,
                );
                for response in slice::from_raw_parts(first, count) {
                    assert_done(
                        sys::rd_kafka_AlterUserScramCredentials_result_response_error(*response),
                    );
                }
            }
            assert_eq!(count, 1);
        },
    );
}

/// Sends one request and waits for its answer, which is read while it is alive.
fn ask(
    kafka: &Kafka,
    request: Request,
    send: impl FnOnce(
        *mut sys::rd_kafka_t,
        *const sys::rd_kafka_AdminOptions_t,
        *mut sys::rd_kafka_queue_t,
    ),
    read: impl FnOnce(*mut sys::rd_kafka_event_t),
) {
    let admin = kafka.admin();
    let rk = admin.inner().native_ptr();
    // SAFETY: the client is alive for the whole call. Options, queue and event come from it, and each is
    // freed once, at the end; where a test fails in between, they are left to the end of its process.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(rk, request);
        let queue = sys::rd_kafka_queue_new(rk);
        send(rk, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, PATIENCE_MS);
        assert!(!event.is_null(), "{request:?} is not answered");
        let error = sys::rd_kafka_event_error(event);
        let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        assert_eq!(error, none, "{request:?}");
        read(event);
        sys::rd_kafka_event_destroy(event);
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
    }
}

/// # Safety
/// `error` is null or alive.
unsafe fn assert_done(error: *const sys::rd_kafka_error_t) {
    if error.is_null() {
        return;
    }
    // SAFETY: promised by the caller; the text is the error's own, and terminated.
    let (code, text) = unsafe {
        (
            sys::rd_kafka_error_code(error),
            CStr::from_ptr(sys::rd_kafka_error_string(error)),
        )
    };
    let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    assert_eq!(code, none, "{text:?}");
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("no zero byte")
}
