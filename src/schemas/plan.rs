//! How the id is found in the values of one schema, and what an id is as bytes.

use std::io::Write;

use super::{avro, protobuf};
use crate::identify::MissingReason;

/// Steps of a pointer.
const STEPS_MAX: usize = 32;

/// Which kind of schema, and where in its values the id is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub format: Format,
    pub pointer: Pointer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Avro,
    Protobuf,
}

impl Format {
    /// As registries write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
        }
    }
}

/// The names of fields, from the outermost in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// From an RFC 6901 pointer that is well-formed: `/event/id`; `""` is the whole value.
    pub fn new(pointer: &str) -> Self {
        let steps = pointer.split('/').skip(1);
        Self(
            steps
                .map(|step| step.replace("~1", "/").replace("~0", "~"))
                .collect(),
        )
    }

    pub(super) fn steps(&self) -> &[String] {
        &self.0
    }
}

impl std::fmt::Display for Pointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let steps = self.0.iter();
        steps
            .map(|step| step.replace('~', "~0").replace('/', "~1"))
            .try_for_each(|step| write!(f, "/{}", step.escape_debug()))
    }
}

/// A schema as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// `AVRO`, `PROTOBUF`, `JSON`, or what else a registry may know.
    pub format: String,
    pub text: String,
    /// By the names under which they are imported, each after those that it refers to itself.
    pub references: Vec<(String, String)>,
}

/// How the id is found in the values of one schema.
#[derive(Debug)]
pub struct Plan {
    /// `None`: no value has an id.
    ways: Option<Ways>,
    outlook: Outlook,
    sentence: String,
}

#[derive(Debug)]
enum Ways {
    Avro(avro::Plan),
    Protobuf(protobuf::Plan),
}

/// What compiling a schema has shown.
#[derive(Debug, Default)]
pub struct Outlook {
    /// The types of ids there, in words; empty where the schema has no such place.
    pub found: Vec<String>,
    /// Bytes of memory, about.
    pub weight: usize,
}

/// What is known before the first record is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// Values may have an id.
    Ids,
    /// None has: the schema has no such place. They count as without an id.
    Absent,
    /// None has, as what is there is no id, or the schema is not understood. They count as unparsable.
    Refused,
}

impl Plan {
    /// Compiles a schema. O(bytes of its text and its references).
    pub fn new(place: &Place, schema: &Schema) -> Self {
        let compiled = compile(place, schema);
        let at = match place.pointer.to_string() {
            at if at.is_empty() => "the whole value".to_owned(),
            at => at,
        };
        match compiled {
            Ok((ways, outlook)) => {
                let sentence = match outlook.found.as_slice() {
                    [] => format!(
                        "it has nothing at {at}: its records count as without an id (id.missing)"
                    ),
                    found => format!("the id is at {at}: {}", cut(&found.join(" or "))),
                };
                Self {
                    ways: Some(ways),
                    outlook,
                    sentence,
                }
            }
            Err(why) => Self {
                ways: None,
                outlook: Outlook::default(),
                sentence: format!(
                    "it {} (looking for {at}): its records count as unparsable",
                    cut(&why)
                ),
            },
        }
    }

    /// The plan of a schema that was not even looked at.
    pub(super) fn refused(why: &str) -> Self {
        Self {
            ways: None,
            outlook: Outlook::default(),
            sentence: format!("it {why}: its records count as unparsable"),
        }
    }

    pub fn prospect(&self) -> Prospect {
        match (&self.ways, self.outlook.found.as_slice()) {
            (None, _) => Prospect::Refused,
            (Some(_), []) => Prospect::Absent,
            (Some(_), _) => Prospect::Ids,
        }
    }

    /// What is at the place, or why there is no id, for a person.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    pub(super) fn weight(&self) -> usize {
        self.outlook.weight + self.sentence.len()
    }

    /// The id in a value, without its frame; `text` is room for one that has to be written out. `None`
    /// where the place is absent or null.
    ///
    /// # Errors
    /// Bytes that no value of the schema has, or a schema whose values have no ids.
    pub fn find<'v>(
        &self,
        value: &'v [u8],
        text: &'v mut Vec<u8>,
    ) -> Result<Option<&'v [u8]>, MissingReason> {
        let found = match &self.ways {
            Some(Ways::Avro(plan)) => plan.find(value)?,
            Some(Ways::Protobuf(plan)) => plan.find(value)?,
            None => return Err(MissingReason::Unparsable),
        };
        Ok(found.map(move |found| found.bytes(text)))
    }
}

/// Names in a schema may be of any length, and a sentence is to be read.
fn cut(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn compile(place: &Place, schema: &Schema) -> Result<(Ways, Outlook), String> {
    let wanted = place.format.as_str();
    if schema.format != wanted {
        let format = &schema.format;
        return Err(format!("is of type {format:?}, and {wanted} was expected"));
    }
    if place.pointer.steps().len() > STEPS_MAX {
        return Err(format!("was not looked at: more than {STEPS_MAX} steps"));
    }
    let references = &schema.references;
    match place.format {
        Format::Avro => {
            let references = references.iter().map(|(_, text)| text.as_str());
            let (plan, outlook) = avro::compile(&schema.text, references, &place.pointer)?;
            Ok((Ways::Avro(plan), outlook))
        }
        Format::Protobuf => {
            let (plan, outlook) = protobuf::compile(&schema.text, references, &place.pointer)?;
            Ok((Ways::Protobuf(plan), outlook))
        }
    }
}

/// What a walk has found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Found<'v, 'p> {
    Bytes(&'v [u8]),
    Text(&'p str),
    Signed(i64),
    Unsigned(u64),
    Uuid([u8; 16]),
}

impl<'v> Found<'v, '_> {
    /// Numbers as decimal text, a UUID as its text form in lower case: what a JSON event would say.
    pub(super) fn bytes(self, text: &'v mut Vec<u8>) -> &'v [u8] {
        text.clear();
        // Writing to a vector cannot fail.
        let _ = match self {
            Self::Bytes(bytes) => return bytes,
            Self::Text(symbol) => text.write_all(symbol.as_bytes()),
            Self::Signed(number) => write!(text, "{number}"),
            Self::Unsigned(number) => write!(text, "{number}"),
            Self::Uuid(bytes) => bytes.iter().enumerate().try_for_each(|(at, byte)| {
                let dash = if matches!(at, 4 | 6 | 8 | 10) {
                    "-"
                } else {
                    ""
                };
                write!(text, "{dash}{byte:02x}")
            }),
        };
        text
    }
}

/// A number of seven bits a byte, the lowest first; and what follows it. At most ten bytes.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if at == 9 && bits > 1 {
            return None;
        }
        number |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}

/// The sign is in the lowest bit.
pub(super) fn signed(zigzag: u64) -> i64 {
    (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed()
}

/// The id of a schema, and the value behind it, of a record's value in the wire format of schema
/// registries: a zero byte, and four bytes of the id. `None` where it is not in that form.
pub fn unframe(value: &[u8]) -> Option<(u32, &[u8])> {
    match value {
        [0, a, b, c, d, rest @ ..] => Some((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
        _ => None,
    }
}
