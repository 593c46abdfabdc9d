//! A record as the client library hands it over, read where it lies.

use std::ffi::CStr;

use rdkafka::message::{BorrowedMessage, Message};

use super::Fields;
use crate::kafka::describe;

impl Fields for BorrowedMessage<'_> {
    fn key(&self) -> Option<&[u8]> {
        Message::key(self)
    }

    fn value(&self) -> Option<&[u8]> {
        self.payload()
    }

    fn last_header(&self, name: &CStr) -> Option<&[u8]> {
        describe::last_header(self, name)
    }
}
