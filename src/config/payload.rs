//! `id.conflicts` and `id.payload`: what becomes of the same id with another payload.
//!
//! Pure functions over the tree; touch nothing outside.

use super::id_source::pointer;
use super::tree::{At, Content, Entry, Section};
use super::{Conflicts, Payload};

const EXPECTED: &str = "value, value_and_headers or {json_without: [/sent_at]}";
/// Pointers of `json_without` at most.
const POINTERS: usize = 64;

/// Reads `id.conflicts`.
pub(super) fn conflicts(id: &Section<'_>) -> At<Conflicts> {
    id.choice("conflicts", Conflicts::default(), &Conflicts::ALL)
}

/// Reads `id.payload`; the default where it is wrong, with the fault noted.
pub(super) fn read(id: &Section<'_>) -> Payload {
    let Some(node) = id.node("payload") else {
        return Payload::Value;
    };
    let wrong = || {
        let sentence = format!("found {}, expected {EXPECTED}", node.shown());
        id.fault("payload", &node.place, sentence);
        Payload::Value
    };
    let entries = match &node.content {
        Content::Faulty | Content::Null => return Payload::Value,
        Content::Scalar { text, .. } if text == "value" => return Payload::Value,
        Content::Scalar { text, .. } if text == "value_and_headers" => {
            return Payload::ValueAndHeaders;
        }
        Content::Map(entries) => entries,
        Content::Scalar { .. } | Content::List(_) => return wrong(),
    };
    let [Entry { key, node: list }] = entries.as_slice() else {
        return wrong();
    };
    let Content::List(nodes) = &list.content else {
        return wrong();
    };
    if key != "json_without" || nodes.is_empty() || nodes.len() > POINTERS {
        return wrong();
    }
    let payload = id.section_at("payload", entries, node);
    let pointers = nodes.iter().filter_map(|node| {
        payload.parse("json_without", node, |text| match text.is_empty() {
            true => Err("a JSON pointer to a part of the value, such as /sent_at".to_owned()),
            false => pointer(text),
        })
    });
    Payload::JsonWithout(pointers.collect())
}
