//! The id in an Avro value, found without decoding the value: a schema is compiled once into the way
//! to the field, and a walk along it passes over what comes before, and never reads what comes after.
//!
//! Pure functions over bytes that anybody may have written: no panic, no unbounded recursion, and no
//! more work than a small multiple of the value's length.

mod types;

use super::plan::{Found, Outlook, Pointer};
use crate::identify::MissingReason;
use types::{Index, Kind, Run, Skip, Types};

/// How deep a value may nest before it counts as unparsable: a list of records that each hold the
/// next one is read up to this length. Bounds the stack.
const DEPTH_MAX: u32 = 256;
/// Steps of all ways that unions open together.
const WAYS_MAX: usize = 10_000;

/// The way to the id in the values of one schema.
#[derive(Debug)]
pub struct Plan {
    way: Way,
    skips: Box<[Skip]>,
}

#[derive(Debug)]
enum Way {
    /// Fields to pass over, and the one to go into.
    Record {
        before: Box<[Run]>,
        then: Box<Way>,
    },
    /// By branch.
    Union(Box<[Way]>),
    /// Null, or a type without such a field.
    Nothing,
    Integer,
    Bytes,
    Fixed(u64),
    Uuid,
    Symbol(Box<[Box<str>]>),
}

/// Compiles a schema; `references` are the schemas that it names types of, each after those that it
/// refers to itself.
///
/// # Errors
/// A part of a sentence that says why no value of this schema has an id.
pub fn compile<'t>(
    text: &'t str,
    references: impl Iterator<Item = &'t str>,
    pointer: &Pointer,
) -> Result<(Plan, Outlook), String> {
    let mut types = Types::default();
    for reference in references {
        types.add(reference)?;
    }
    let root = types.add(text)?;
    let mut compiling = Compiling {
        types: &types,
        ways: 0,
        found: Vec::new(),
    };
    let way = compiling.way(root, pointer.steps())?;
    let outlook = Outlook {
        found: compiling.found,
        weight: types.len() * size_of::<Skip>(),
    };
    let skips = types.skips();
    Ok((Plan { way, skips }, outlook))
}

struct Compiling<'t> {
    types: &'t Types,
    ways: usize,
    /// The types that ids have, in words.
    found: Vec<String>,
}

impl Compiling<'_> {
    /// As deep as the pointer is long, with a union at each step.
    fn way(&mut self, at: Index, steps: &[String]) -> Result<Way, String> {
        self.ways += 1;
        if self.ways > WAYS_MAX {
            return Err(format!("has more than {WAYS_MAX} ways to that place"));
        }
        let kind = self.types.kind(at);
        match (kind, steps) {
            (Kind::Null, _) => Ok(Way::Nothing),
            (Kind::Union(branches), _) => {
                let branches = branches.iter().map(|branch| self.way(*branch, steps));
                Ok(Way::Union(branches.collect::<Result<_, _>>()?))
            }
            (Kind::Record(fields), [step, rest @ ..]) => {
                let Some(place) = fields.iter().position(|(name, _)| name == step) else {
                    return Ok(Way::Nothing);
                };
                let then = self.way(fields[place].1, rest)?;
                if matches!(then, Way::Nothing) {
                    return Ok(then);
                }
                let before = fields[..place].iter().map(|(_, field)| *field);
                Ok(Way::Record {
                    before: self.types.runs(before)?.into(),
                    then: Box::new(then),
                })
            }
            (Kind::Other(name @ ("array" | "map")), [step, ..]) => Err(format!(
                "has a {name} where {step:?} is to be looked up, and only fields of records can be"
            )),
            (_, [_, ..]) => Ok(Way::Nothing),
            (Kind::Integer(name), []) => Ok(self.leaf(Way::Integer, name)),
            (Kind::Bytes(name), []) => Ok(self.leaf(Way::Bytes, name)),
            (Kind::Fixed { is_uuid: true, .. }, []) => Ok(self.leaf(Way::Uuid, "uuid (fixed)")),
            (Kind::Fixed { bytes, .. }, []) => Ok(self.leaf(Way::Fixed(*bytes), "fixed")),
            (Kind::Enum(symbols), []) => {
                let symbols = symbols.iter().map(|symbol| symbol.as_str().into());
                Ok(self.leaf(Way::Symbol(symbols.collect()), "enum"))
            }
            (Kind::Other(name), []) => Err(no_id(name)),
            (Kind::Record(_) | Kind::Open, []) => Err(no_id("record")),
        }
    }

    fn leaf(&mut self, way: Way, name: &str) -> Way {
        if !self.found.iter().any(|found| found == name) {
            self.found.push(name.to_owned());
        }
        way
    }
}

fn no_id(name: &str) -> String {
    format!(
        "has {} {name} there, which cannot be an id (a string, bytes, fixed, enum, int or long can)",
        if name.starts_with('a') { "an" } else { "a" }
    )
}

impl Plan {
    /// What is at the place; `None` where it is null or absent.
    ///
    /// # Errors
    /// Bytes that no value of this schema has.
    pub fn find<'v>(&self, value: &'v [u8]) -> Result<Option<Found<'v, '_>>, MissingReason> {
        let mut cursor = Cursor { rest: value };
        let mut way = &self.way;
        loop {
            way = match way {
                Way::Record { before, then } => {
                    self.pass_over(&mut cursor, before, 0)?;
                    then
                }
                Way::Union(branches) => {
                    let branch = usize::try_from(cursor.varint()?).map_err(|_| UNPARSABLE)?;
                    branches.get(branch).ok_or(UNPARSABLE)?
                }
                Way::Nothing => return Ok(None),
                Way::Integer => return Ok(Some(Found::Signed(cursor.varint()?))),
                Way::Bytes => {
                    let bytes = cursor.length()?;
                    return Ok(Some(Found::Bytes(cursor.take(bytes)?)));
                }
                Way::Fixed(bytes) => return Ok(Some(Found::Bytes(cursor.take(*bytes)?))),
                Way::Uuid => {
                    let bytes = cursor.take(16)?.try_into().map_err(|_| UNPARSABLE)?;
                    return Ok(Some(Found::Uuid(bytes)));
                }
                Way::Symbol(symbols) => {
                    let symbol = usize::try_from(cursor.varint()?).map_err(|_| UNPARSABLE)?;
                    return match symbols.get(symbol) {
                        Some(symbol) => Ok(Some(Found::Text(symbol))),
                        None => Err(UNPARSABLE),
                    };
                }
            }
        }
    }

    fn pass_over(
        &self,
        cursor: &mut Cursor<'_>,
        runs: &[Run],
        depth: u32,
    ) -> Result<(), MissingReason> {
        for run in runs {
            match run {
                Run::Bytes(bytes) => cursor.pass(*bytes)?,
                Run::One(at) => self.skip(cursor, *at, depth)?,
            }
        }
        Ok(())
    }

    /// At least one byte goes by, or it is an error: what has a fixed size is passed over in one go, so
    /// no count in the value can make it more work than there are bytes.
    fn skip(&self, cursor: &mut Cursor<'_>, at: Index, depth: u32) -> Result<(), MissingReason> {
        if depth == DEPTH_MAX {
            return Err(UNPARSABLE);
        }
        match self.skips.get(at).ok_or(UNPARSABLE)? {
            Skip::Bytes(bytes) => cursor.pass(*bytes)?,
            Skip::Varint => {
                cursor.varint()?;
            }
            Skip::Prefixed => {
                let bytes = cursor.length()?;
                cursor.pass(bytes)?;
            }
            Skip::Union(branches) => {
                let branch = usize::try_from(cursor.varint()?).map_err(|_| UNPARSABLE)?;
                let branch = branches.get(branch).ok_or(UNPARSABLE)?;
                self.skip(cursor, *branch, depth + 1)?;
            }
            // A type that is never more than itself: no value has it.
            Skip::Record(runs) if runs.is_empty() => return Err(UNPARSABLE),
            Skip::Record(runs) => self.pass_over(cursor, runs, depth + 1)?,
            Skip::Array(items) => {
                while let Some(count) = cursor.block()? {
                    match self.skips.get(*items) {
                        Some(Skip::Bytes(bytes)) => {
                            let bytes = bytes.checked_mul(count).ok_or(UNPARSABLE)?;
                            cursor.pass(bytes)?;
                        }
                        _ => {
                            for _ in 0..count {
                                self.skip(cursor, *items, depth + 1)?;
                            }
                        }
                    }
                }
            }
            Skip::Map(values) => {
                while let Some(count) = cursor.block()? {
                    for _ in 0..count {
                        let bytes = cursor.length()?;
                        cursor.pass(bytes)?;
                        self.skip(cursor, *values, depth + 1)?;
                    }
                }
            }
        }
        Ok(())
    }
}

const UNPARSABLE: MissingReason = MissingReason::Unparsable;

struct Cursor<'v> {
    rest: &'v [u8],
}

impl<'v> Cursor<'v> {
    fn take(&mut self, bytes: u64) -> Result<&'v [u8], MissingReason> {
        let bytes = usize::try_from(bytes).map_err(|_| UNPARSABLE)?;
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(UNPARSABLE)?;
        self.rest = rest;
        Ok(taken)
    }

    fn pass(&mut self, bytes: u64) -> Result<(), MissingReason> {
        self.take(bytes).map(|_| ())
    }

    /// Seven bits a byte, the lowest first, the sign in the lowest bit.
    fn varint(&mut self) -> Result<i64, MissingReason> {
        let (number, rest) = super::plan::varint(self.rest).ok_or(UNPARSABLE)?;
        self.rest = rest;
        Ok(super::plan::signed(number))
    }

    fn length(&mut self) -> Result<u64, MissingReason> {
        u64::try_from(self.varint()?).map_err(|_| UNPARSABLE)
    }

    /// The count of the next block of an array or a map whose items are to be passed over one by one;
    /// `None` behind the last. A block that tells its size in bytes is passed over here.
    fn block(&mut self) -> Result<Option<u64>, MissingReason> {
        loop {
            match self.varint()? {
                0 => return Ok(None),
                count @ 1.. => return Ok(Some(count.unsigned_abs())),
                _ => {
                    let bytes = self.length()?;
                    self.pass(bytes)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
