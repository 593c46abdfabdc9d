//! The payload of a record, as a hash: two records with the same id and another payload contradict each
//! other. What counts is `id.payload`. Reads records of the client library where they lie.

use rdkafka::message::{BorrowedMessage, Message};
use serde_json::Value;
use xxhash_rust::xxh3::{Xxh3Builder, xxh3_64_with_seed};

use crate::config::{Conflicts, Id, Payload};
use crate::kafka::describe;
use crate::store::Entry;

/// Null is not empty.
const NULL: u64 = 0x6e75_6c6c;

/// Hashes payloads.
pub struct PayloadHash {
    seed: u64,
    /// `None` where payloads are not compared.
    payload: Option<Payload>,
}

impl PayloadHash {
    pub fn new(id: &Id, seed: u64) -> Self {
        Self {
            seed,
            payload: (id.conflicts != Conflicts::Ignore).then(|| id.payload.clone()),
        }
    }

    /// The hash of what counts of a record, neither 0 nor [`Entry::FORGOTTEN`]; or 0, where payloads are not compared. O(bytes); JSON
    /// is parsed, and what is none counts byte by byte.
    pub fn of(&self, message: &BorrowedMessage<'_>) -> u64 {
        let Some(payload) = &self.payload else {
            return 0;
        };
        let value = message.payload();
        let hash = match payload {
            Payload::Value => self.bytes(value),
            Payload::ValueAndHeaders => {
                let mut hash = Xxh3Builder::new().with_seed(self.seed).build();
                hash.update(&self.bytes(value).to_le_bytes());
                describe::each_header(message, |name, value| {
                    hash.update(name.to_bytes_with_nul());
                    hash.update(&self.bytes(value).to_le_bytes());
                });
                hash.digest()
            }
            Payload::JsonWithout(pointers) => value
                .and_then(|value| without(value, pointers))
                .map_or_else(|| self.bytes(value), |text| self.bytes(Some(&text))),
        };
        hash.clamp(1, Entry::FORGOTTEN - 1)
    }

    fn bytes(&self, bytes: Option<&[u8]>) -> u64 {
        bytes.map_or(NULL, |bytes| xxh3_64_with_seed(bytes, self.seed))
    }
}

/// A JSON document without what the pointers lead to, its members in the order of their names. `None` where it
/// is no JSON.
fn without(document: &[u8], pointers: &[String]) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(document).ok()?;
    for pointer in pointers {
        let (parent, member) = pointer.rsplit_once('/')?;
        let member = member.replace("~1", "/").replace("~0", "~");
        match document.pointer_mut(parent) {
            Some(Value::Object(members)) => {
                members.remove(&member);
            }
            Some(Value::Array(elements)) => {
                // Others keep their places.
                let index = member.parse::<usize>().ok();
                if let Some(element) = index.and_then(|index| elements.get_mut(index)) {
                    *element = Value::Null;
                }
            }
            _ => {}
        }
    }
    serde_json::to_vec(&document).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(document: &str, pointers: &[&str]) -> Option<String> {
        let pointers: Vec<String> = pointers.iter().map(|it| (*it).to_owned()).collect();
        let left = without(document.as_bytes(), &pointers)?;
        Some(String::from_utf8(left).unwrap())
    }

    #[test]
    fn what_the_pointers_lead_to_and_the_order_of_members_do_not_count() {
        let document = r#"{"b": 1.50, "a": {"sent/at": 1, "x": [1, 2]}, "t": 9}"#;
        let expected = r#"{"a":{"x":[null,2]},"b":1.50}"#;
        let pointers = ["/t", "/a/sent~1at", "/a/x/0", "/none/of/it", "/b/c"];
        assert_eq!(left(document, &pointers).unwrap(), expected);
        assert_eq!(
            left(r#"{"a":1,"b":2}"#, &[]),
            left(r#"{ "b":2, "a":1 }"#, &[])
        );
        assert_ne!(left("1.0", &[]), left("1.00", &[]));
        assert_eq!(left("no json", &["/t"]), None);
    }
}
