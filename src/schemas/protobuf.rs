//! The id in a Protobuf value, found by field numbers: a schema's text is compiled once, for each
//! message in it, into the numbers that lead to the field.
//!
//! Where a field or a message comes more than once, the last counts, as for every reader of Protobuf;
//! so a value is read to its end, but what the way does not lead into is passed over whole. Pure
//! functions over bytes that anybody may have written.

use std::collections::HashMap;

use protox::file::{File, FileResolver, GoogleFileResolver};
use protox::prost_reflect::{Kind, MessageDescriptor};

use super::plan::{Found, Outlook, Pointer, signed, varint};
use crate::identify::MissingReason;

/// How deep messages may nest in a schema's text, and groups in a value. Bounds the stack.
const DEPTH_MAX: usize = 64;
/// Messages of one schema.
const MESSAGES_MAX: usize = 10_000;
/// Message indexes before a value: how deep the message is nested.
const INDEXES_MAX: usize = 32;
/// The name of the schema's own text among those that it imports.
const ITSELF: &str = "kafka-dedup/value.proto";

/// The way to the id in the messages of one schema, by message index.
#[derive(Debug)]
pub struct Plan {
    ways: HashMap<Vec<u32>, Way>,
}

#[derive(Debug)]
enum Way {
    /// Field numbers, and how the last one is written.
    To(Box<[u32]>, Leaf),
    /// The message has no such field.
    Nothing,
    /// What is there is no id.
    Refused,
}

#[derive(Debug, Clone, Copy)]
enum Leaf {
    Bytes,
    /// A varint of 32 bits, of 64 bits.
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
}

/// Compiles a schema; `references` are the texts that it imports, by name.
///
/// # Errors
/// A part of a sentence that says why no value of this schema has an id.
pub fn compile(
    text: &str,
    references: &[(String, String)],
    pointer: &Pointer,
) -> Result<(Plan, Outlook), String> {
    let texts = references.iter().map(|(_, text)| text.as_str());
    if texts.chain([text]).any(nests_too_deep) {
        return Err(format!("nests deeper than {DEPTH_MAX}"));
    }
    let mut texts: HashMap<String, String> = references.iter().cloned().collect();
    texts.insert(ITSELF.to_owned(), text.to_owned());
    let mut compiler = protox::Compiler::with_file_resolver(Texts(texts));
    compiler.open_file(ITSELF).map_err(|error| {
        // It may quote the schema, line ends and all.
        let error = error.to_string().escape_debug().to_string();
        format!("is not understood: {error}")
    })?;
    let file = compiler.descriptor_pool().get_file_by_name(ITSELF);
    let file = file.ok_or("is not understood")?;
    let mut ways = HashMap::new();
    let mut outlook = Outlook::default();
    let mut refusal = None;
    let mut todo: Vec<(Vec<u32>, MessageDescriptor)> = (0..)
        .zip(file.messages())
        .map(|(n, it)| (vec![n], it))
        .collect();
    while let Some((indexes, message)) = todo.pop() {
        if ways.len() == MESSAGES_MAX {
            return Err(format!("has more than {MESSAGES_MAX} messages"));
        }
        let inner = (0..).zip(message.child_messages());
        todo.extend(inner.map(|(n, inner)| ([indexes.as_slice(), &[n]].concat(), inner)));
        let way = match way(&message, pointer.steps()) {
            Ok(Some((numbers, leaf, name))) => {
                let found = format!("{name} of {}", message.full_name());
                outlook.found.push(found);
                Way::To(numbers, leaf)
            }
            Ok(None) => Way::Nothing,
            Err(why) => {
                refusal = Some(why);
                Way::Refused
            }
        };
        outlook.weight += 64 + 8 * indexes.len();
        ways.insert(indexes, way);
    }
    match refusal {
        Some(why) if outlook.found.is_empty() => Err(why),
        _ => {
            outlook.found.sort();
            Ok((Plan { ways }, outlook))
        }
    }
}

/// Braces and brackets, wherever they stand: an upper bound for what a parser has to remember.
fn nests_too_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'{' | b'[' | b'(' | b'<' => depth += 1,
            b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEPTH_MAX
    })
}

/// The texts that came with a schema, and those that every compiler brings.
struct Texts(HashMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => GoogleFileResolver::new().open_file(name),
        }
    }
}

type Numbers = Box<[u32]>;

fn way(
    message: &MessageDescriptor,
    steps: &[String],
) -> Result<Option<(Numbers, Leaf, &'static str)>, String> {
    let mut numbers = Vec::with_capacity(steps.len());
    let mut message = message.clone();
    let Some((last, steps)) = steps.split_last() else {
        return Err(no_id("the whole message"));
    };
    let plain = |message: &MessageDescriptor, step: &String| {
        let field = message.get_field_by_name(step);
        match field {
            Some(field) if field.is_list() || field.is_map() => {
                Err(no_id(&format!("{step} is repeated")))
            }
            field => Ok(field),
        }
    };
    for step in steps {
        let Some(field) = plain(&message, step)? else {
            return Ok(None);
        };
        // Into what is no message leads no way.
        let Kind::Message(inner) = field.kind() else {
            return Ok(None);
        };
        numbers.push(field.number());
        message = inner;
    }
    let Some(field) = plain(&message, last)? else {
        return Ok(None);
    };
    numbers.push(field.number());
    let (leaf, name) = match field.kind() {
        Kind::String => (Leaf::Bytes, "string"),
        Kind::Bytes => (Leaf::Bytes, "bytes"),
        Kind::Int32 => (Leaf::Int32, "int32"),
        Kind::Enum(_) => (Leaf::Int32, "enum (its number)"),
        Kind::Int64 => (Leaf::Int64, "int64"),
        Kind::Uint32 => (Leaf::Uint32, "uint32"),
        Kind::Uint64 => (Leaf::Uint64, "uint64"),
        Kind::Sint32 => (Leaf::Sint32, "sint32"),
        Kind::Sint64 => (Leaf::Sint64, "sint64"),
        Kind::Fixed32 => (Leaf::Fixed32, "fixed32"),
        Kind::Fixed64 => (Leaf::Fixed64, "fixed64"),
        Kind::Sfixed32 => (Leaf::Sfixed32, "sfixed32"),
        Kind::Sfixed64 => (Leaf::Sfixed64, "sfixed64"),
        Kind::Bool => return Err(no_id(&format!("{last} is a bool"))),
        Kind::Float | Kind::Double => return Err(no_id(&format!("{last} is a floating number"))),
        Kind::Message(_) => return Err(no_id(&format!("{last} is a message"))),
    };
    Ok(Some((numbers.into(), leaf, name)))
}

fn no_id(what: &str) -> String {
    format!("has no id there: {what} (a string, bytes, an enum or a whole number can be one)")
}

const UNPARSABLE: MissingReason = MissingReason::Unparsable;

impl Plan {
    /// What is at the place in a value that begins with its message indexes; `None` where it is absent.
    ///
    /// # Errors
    /// Bytes that no value of this schema has.
    pub fn find<'v>(&self, value: &'v [u8]) -> Result<Option<Found<'v, 'static>>, MissingReason> {
        let mut room = [0; INDEXES_MAX];
        let (indexes, message) = message_indexes(value, &mut room).ok_or(UNPARSABLE)?;
        match self.ways.get(indexes) {
            Some(Way::To(numbers, leaf)) => {
                let mut found = None;
                look(message, numbers, *leaf, &mut found).ok_or(UNPARSABLE)?;
                Ok(found)
            }
            Some(Way::Nothing) => Ok(None),
            Some(Way::Refused) | None => Err(UNPARSABLE),
        }
    }
}

/// Which message of the schema a value is, and the value behind that. A lone 0 is the first message.
fn message_indexes<'v, 'r>(
    value: &'v [u8],
    room: &'r mut [u32; INDEXES_MAX],
) -> Option<(&'r [u32], &'v [u8])> {
    let (count, mut rest) = varint(value)?;
    let count = usize::try_from(signed(count)).ok()?;
    if count == 0 {
        return Some((&room[..1], rest));
    }
    let indexes = room.get_mut(..count)?;
    for index in &mut *indexes {
        let (number, after) = varint(rest)?;
        *index = u32::try_from(signed(number)).ok()?;
        rest = after;
    }
    Some((&*indexes, rest))
}

const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const PREFIXED: u64 = 2;
const GROUP: u64 = 3;
const END_OF_GROUP: u64 = 4;
const FOUR_BYTES: u64 = 5;

/// Reads one message; as deep as the way is long. `None`: no message.
fn look<'v>(
    mut message: &'v [u8],
    way: &[u32],
    leaf: Leaf,
    found: &mut Option<Found<'v, 'static>>,
) -> Option<()> {
    let (wanted, rest_of_way) = way.split_first()?;
    while !message.is_empty() {
        let (number, kind, rest) = tag(message)?;
        let (payload, rest) = field(kind, rest, 0)?;
        if number == *wanted {
            if !rest_of_way.is_empty() {
                if kind == PREFIXED {
                    look(payload, rest_of_way, leaf, found)?;
                }
            } else if let Some(value) = leaf.read(kind, payload) {
                *found = Some(value);
            }
        }
        message = rest;
    }
    Some(())
}

/// A field's number and how it is written.
fn tag(bytes: &[u8]) -> Option<(u32, u64, &[u8])> {
    let (tag, rest) = varint(bytes)?;
    let number = u32::try_from(tag >> 3).ok()?;
    (number > 0).then_some((number, tag & 7, rest))
}

/// What a field holds, and what is behind it.
fn field(kind: u64, bytes: &[u8], depth: usize) -> Option<(&[u8], &[u8])> {
    match kind {
        VARINT => {
            let (_, rest) = varint(bytes)?;
            bytes.split_at_checked(bytes.len() - rest.len())
        }
        EIGHT_BYTES => bytes.split_at_checked(8),
        FOUR_BYTES => bytes.split_at_checked(4),
        PREFIXED => {
            let (length, rest) = varint(bytes)?;
            rest.split_at_checked(usize::try_from(length).ok()?)
        }
        GROUP if depth < DEPTH_MAX => {
            let mut rest = bytes;
            loop {
                let (_, kind, after) = tag(rest)?;
                if kind == END_OF_GROUP {
                    return Some((&[], after));
                }
                rest = field(kind, after, depth + 1)?.1;
            }
        }
        _ => None,
    }
}

impl Leaf {
    /// `None` where it is written as what it is not: another field of that number, which is not known.
    fn read(self, kind: u64, payload: &[u8]) -> Option<Found<'_, 'static>> {
        let number = || varint(payload).map(|(number, _)| number);
        let four = || payload.try_into().ok().map(u32::from_le_bytes);
        let eight = || payload.try_into().ok().map(u64::from_le_bytes);
        Some(match (self, kind) {
            (Self::Bytes, PREFIXED) => Found::Bytes(payload),
            // What is longer than the type is cut, as all readers do.
            (Self::Int32, VARINT) => Found::Signed(i64::from(number()? as i32)),
            (Self::Int64, VARINT) => Found::Signed(number()?.cast_signed()),
            (Self::Uint32, VARINT) => Found::Unsigned(u64::from(number()? as u32)),
            (Self::Uint64, VARINT) => Found::Unsigned(number()?),
            (Self::Sint32, VARINT) => Found::Signed(signed(u64::from(number()? as u32))),
            (Self::Sint64, VARINT) => Found::Signed(signed(number()?)),
            (Self::Fixed32, FOUR_BYTES) => Found::Unsigned(u64::from(four()?)),
            (Self::Fixed64, EIGHT_BYTES) => Found::Unsigned(eight()?),
            (Self::Sfixed32, FOUR_BYTES) => Found::Signed(i64::from(four()?.cast_signed())),
            (Self::Sfixed64, EIGHT_BYTES) => Found::Signed(eight()?.cast_signed()),
            _ => return None,
        })
    }
}

#[cfg(test)]
#[path = "protobuf_tests.rs"]
mod tests;
