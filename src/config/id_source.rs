//! `id.from`: where a record's id is.
//!
//! Pure functions over the tree; touch nothing outside.

use super::IdSource;
use super::keys;
use super::tree::{Content, Entry, Node, Section};
use super::value;

const EXPECTED: &str = "key, value, cloudevents, {header: NAME}, {json: /pointer}, \
                        {avro: /pointer}, {protobuf: /pointer}, {json_schema: /pointer}, \
                        {csv: {column: 8}} or {all: [{header: tenant}, {header: message-id}]}";
/// Far beyond any record, and small enough that counting to it cannot overflow.
const COLUMN_MAX: u64 = 100_000;

/// Reads `id.from`; `None` where it is missing or wrong, with the fault noted.
pub(super) fn read(id: &Section<'_>) -> Option<IdSource> {
    match id.node("from") {
        None
        | Some(Node {
            content: Content::Null,
            ..
        }) => {
            id.missing("from", EXPECTED);
            None
        }
        Some(node) => source(id, node, false),
    }
}

/// One source. `inner`: it is an element of `all`, which holds no further `all`; so the recursion
/// is two deep at most.
fn source(id: &Section<'_>, node: &Node, inner: bool) -> Option<IdSource> {
    let wrong = |node: &Node, expected: &str| {
        id.fault(
            "from",
            &node.place,
            format!("found {}, expected {expected}", node.shown()),
        );
        None
    };
    let entries = match &node.content {
        Content::Faulty => return None,
        Content::Scalar { text, .. } if text == "key" => return Some(IdSource::Key),
        Content::Scalar { text, .. } if text == "value" => return Some(IdSource::Value),
        Content::Scalar { text, .. } if text == "cloudevents" => {
            if inner {
                let sentence = "cloudevents inside of all; it stands alone, and joins the event's \
                                source and id itself";
                id.fault("from", &node.place, sentence);
                return None;
            }
            return Some(IdSource::CloudEvents);
        }
        Content::Map(entries) => entries,
        Content::Scalar { .. } | Content::List(_) | Content::Null => return wrong(node, EXPECTED),
    };
    let [Entry { key, node }] = entries.as_slice() else {
        let names: Vec<String> = entries
            .iter()
            .map(|entry| keys::shown(&entry.key))
            .collect();
        let sentence = match names.as_slice() {
            [] => format!("found an empty mapping, expected {EXPECTED}"),
            _ => format!(
                "found {} together, expected one of them; {{all: [...]}} joins several",
                names.join(" and ")
            ),
        };
        id.fault("from", &node.place, sentence);
        return None;
    };
    let from = id.section_at("from", std::slice::from_ref(&entries[0]), node);
    match key.as_str() {
        "header" => from.parse("header", node, header).map(IdSource::Header),
        "json" => from.parse("json", node, pointer).map(IdSource::Json),
        "avro" => from.parse("avro", node, pointer).map(IdSource::Avro),
        "protobuf" => {
            let parsed = from.parse("protobuf", node, pointer);
            parsed.map(IdSource::Protobuf)
        }
        "json_schema" => {
            let parsed = from.parse("json_schema", node, pointer);
            parsed.map(IdSource::JsonSchema)
        }
        "csv" => csv(&from),
        "all" if inner => {
            from.fault(
                "all",
                &node.place,
                "an all inside of all; list its sources in one",
            );
            None
        }
        "all" => match &node.content {
            Content::List(nodes) if !nodes.is_empty() => {
                // Every element is read before the first wrong one ends it: all faults at once.
                let sources: Vec<_> = nodes.iter().map(|node| source(id, node, true)).collect();
                sources
                    .into_iter()
                    .collect::<Option<Vec<_>>>()
                    .map(IdSource::All)
            }
            Content::Faulty => None,
            _ => wrong(node, "a list of at least one source for all"),
        },
        other => {
            id.fault("from", &node.place, unknown(other));
            None
        }
    }
}

fn unknown(key: &str) -> String {
    let known = [
        "header",
        "json",
        "avro",
        "protobuf",
        "json_schema",
        "csv",
        "all",
    ];
    match keys::nearest(key, known.into_iter()) {
        Some(near) => format!("unknown source {key:?}; did you mean {near}?"),
        None => format!("unknown source {key:?}, expected {EXPECTED}"),
    }
}

fn header(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err("the name of a header".to_owned());
    }
    Ok(name.to_owned())
}

pub(super) fn pointer(text: &str) -> Result<String, String> {
    // RFC 6901: in a pointer ~ is only written as ~0, and / within a name as ~1.
    let escapes = text
        .split('~')
        .skip(1)
        .all(|rest| rest.starts_with(['0', '1']));
    if escapes && (text.is_empty() || text.starts_with('/')) {
        return Ok(text.to_owned());
    }
    Err("a JSON pointer such as /event/id (RFC 6901; ~ is written ~0)".to_owned())
}

fn csv(from: &Section<'_>) -> Option<IdSource> {
    let csv = from.section("csv");
    for entry in csv.entries {
        if !["column", "delimiter"].contains(&entry.key.as_str()) {
            let sentence = keys::unknown_key(&csv.path, &entry.key);
            csv.fault(&entry.key, &entry.node.place, sentence);
        }
    }
    let column = csv.optional("column", |text| {
        value::count_within(text, 1, COLUMN_MAX)
            .map_err(|expected| format!("{expected}, counted from 1"))
    });
    let delimiter = csv.read("delimiter", b',', delimiter);
    // What is no mapping at all has its fault already.
    let mapping = from
        .node("csv")
        .is_some_and(|node| matches!(node.content, Content::Map(_) | Content::Null));
    if column.sound && column.value.is_none() && mapping {
        csv.missing("column", "the number of a column, counted from 1");
    }
    match column.value.map(usize::try_from) {
        Some(Ok(column)) if delimiter.sound => Some(IdSource::Csv {
            column,
            delimiter: delimiter.value,
        }),
        _ => None,
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        // These end a field's quotes or a record, whatever the delimiter is.
        [b'"' | b'\n' | b'\r'] => Err("a delimiter other than a quote or a line end".to_owned()),
        [byte] => Ok(*byte),
        _ => Err("one character of ASCII, such as \";\" or \"\\t\" in double quotes".to_owned()),
    }
}
