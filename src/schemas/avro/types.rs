//! An Avro schema's text becomes a table of types, each with how a value of it is passed over.
//!
//! Own code, and not a library's model of a schema, for two reasons: what an id is must not change with
//! a library's notion of a valid schema, and all of it is bounded here. Pure functions.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Types of one schema, all that it refers to included.
const TYPES_MAX: usize = 50_000;

/// A place in [`Types`].
pub(super) type Index = usize;

/// All types of a schema.
#[derive(Debug, Default)]
pub(super) struct Types {
    kinds: Vec<Kind>,
    /// How a value of the type at the same place is passed over.
    skips: Vec<Skip>,
    names: HashMap<String, Index>,
}

/// A type as far as an id can be in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Its definition has begun: a record may hold itself.
    Open,
    Null,
    /// The name of what can never be an id: boolean, float, double, array, map.
    Other(&'static str),
    /// int and long, which are written alike.
    Integer(&'static str),
    /// bytes and string.
    Bytes(&'static str),
    Fixed {
        bytes: u64,
        is_uuid: bool,
    },
    Enum(Vec<String>),
    Union(Vec<Index>),
    Record(Vec<(String, Index)>),
}

/// How a value is passed over.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Skip {
    /// So many bytes, whatever the value is.
    Bytes(u64),
    Varint,
    /// A length, and so many bytes.
    Prefixed,
    Array(Index),
    Map(Index),
    Union(Box<[Index]>),
    /// In this order.
    Record(Box<[Run]>),
}

/// Fields in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Run {
    Bytes(u64),
    One(Index),
}

impl Types {
    pub fn kind(&self, at: Index) -> &Kind {
        &self.kinds[at]
    }

    pub fn skips(self) -> Box<[Skip]> {
        self.skips.into()
    }

    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Adds a schema's text, which may name types of those that were added before; its outermost
    /// type. The error is a part of a sentence. O(bytes); the JSON reader bounds how deep it nests.
    pub fn add(&mut self, text: &str) -> Result<Index, String> {
        let schema: Value =
            serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
        self.parse(&schema, "")
    }

    fn parse(&mut self, schema: &Value, space: &str) -> Result<Index, String> {
        match schema {
            Value::String(name) => self.named(name, space),
            Value::Array(branches) => self.union(branches, space),
            Value::Object(members) => match members.get("type") {
                Some(Value::String(name)) => self.complex(name, members, space),
                Some(inner) => self.parse(inner, space),
                None => Err("has a type without \"type\"".to_owned()),
            },
            _ => Err("has a type that is no name, list or mapping".to_owned()),
        }
    }

    fn complex(
        &mut self,
        name: &str,
        members: &Map<String, Value>,
        space: &str,
    ) -> Result<Index, String> {
        let logical = members.get("logicalType").and_then(Value::as_str);
        match name {
            "record" | "error" => self.record(members, space),
            "enum" => {
                let symbols = members.get("symbols").and_then(Value::as_array);
                let symbols = symbols.ok_or("has an enum without symbols")?.iter();
                let symbols = symbols.map(|symbol| symbol.as_str().map(str::to_owned));
                let symbols: Option<Vec<String>> = symbols.collect();
                let symbols = symbols.ok_or("has an enum with a symbol that is no text")?;
                let at = self.begin(members, space)?;
                Ok(self.put(at, Kind::Enum(symbols), Skip::Varint))
            }
            "fixed" => {
                let bytes = members.get("size").and_then(Value::as_u64);
                let bytes = bytes.ok_or("has a fixed without a size")?;
                let at = self.begin(members, space)?;
                let is_uuid = logical == Some("uuid") && bytes == 16;
                Ok(self.put(at, Kind::Fixed { bytes, is_uuid }, Skip::Bytes(bytes)))
            }
            "array" => {
                let items = members.get("items").ok_or("has an array without items")?;
                let items = self.parse(items, space)?;
                self.push(Kind::Other("array"), Skip::Array(items))
            }
            "map" => {
                let values = members.get("values").ok_or("has a map without values")?;
                let values = self.parse(values, space)?;
                self.push(Kind::Other("map"), Skip::Map(values))
            }
            name => self.named(name, space),
        }
    }

    fn record(&mut self, members: &Map<String, Value>, space: &str) -> Result<Index, String> {
        let fields = members.get("fields").and_then(Value::as_array);
        let fields = fields.ok_or("has a record without fields")?;
        let at = self.begin(members, space)?;
        let space = space_within(members, space);
        let mut named = Vec::with_capacity(fields.len());
        for field in fields {
            let name = field.get("name").and_then(Value::as_str);
            let name = name.ok_or("has a field without a name")?;
            let schema = field.get("type");
            let schema = schema.ok_or_else(|| format!("has a field {name:?} without a type"))?;
            named.push((name.to_owned(), self.parse(schema, &space)?));
        }
        let runs = self.runs(named.iter().map(|(_, field)| *field))?;
        let skip = match runs.as_slice() {
            [] => Skip::Bytes(0),
            [Run::Bytes(bytes)] => Skip::Bytes(*bytes),
            _ => Skip::Record(runs.into()),
        };
        Ok(self.put(at, Kind::Record(named), skip))
    }

    /// Types that follow each other; those of a fixed size in a row are one run.
    pub fn runs(&self, types: impl Iterator<Item = Index>) -> Result<Vec<Run>, String> {
        let mut runs: Vec<Run> = Vec::new();
        for at in types {
            match (&self.skips[at], runs.last_mut()) {
                (Skip::Bytes(more), Some(Run::Bytes(bytes))) => {
                    *bytes = bytes.checked_add(*more).ok_or("is of an impossible size")?;
                }
                (Skip::Bytes(bytes), _) => runs.push(Run::Bytes(*bytes)),
                _ => runs.push(Run::One(at)),
            }
        }
        Ok(runs)
    }

    fn union(&mut self, branches: &[Value], space: &str) -> Result<Index, String> {
        if branches.iter().any(Value::is_array) {
            return Err("has a union inside of a union".to_owned());
        }
        let branches = branches.iter().map(|branch| self.parse(branch, space));
        let branches: Vec<Index> = branches.collect::<Result<_, _>>()?;
        self.push(Kind::Union(branches.clone()), Skip::Union(branches.into()))
    }

    /// A primitive type, or one that was defined before.
    fn named(&mut self, name: &str, space: &str) -> Result<Index, String> {
        let (kind, skip) = match name {
            "null" => (Kind::Null, Skip::Bytes(0)),
            "boolean" => (Kind::Other("boolean"), Skip::Bytes(1)),
            "float" => (Kind::Other("float"), Skip::Bytes(4)),
            "double" => (Kind::Other("double"), Skip::Bytes(8)),
            "int" => (Kind::Integer("int"), Skip::Varint),
            "long" => (Kind::Integer("long"), Skip::Varint),
            "bytes" => (Kind::Bytes("bytes"), Skip::Prefixed),
            "string" => (Kind::Bytes("string"), Skip::Prefixed),
            _ => {
                let found = self.names.get(&full_name(name, space));
                let found = found.or_else(|| self.names.get(name)).copied();
                return found.ok_or_else(|| format!("names a type {name:?} that it does not have"));
            }
        };
        self.push(kind, skip)
    }

    /// A named type, from here on known by its name.
    fn begin(&mut self, members: &Map<String, Value>, space: &str) -> Result<Index, String> {
        let name = members.get("name").and_then(Value::as_str);
        let name = name.ok_or("has a named type without a name")?;
        let name = full_name(name, &namespace(members, space));
        // Passed over, it would have to hold itself: no value does.
        let at = self.push(Kind::Open, Skip::Record(Box::default()))?;
        match self.names.insert(name.clone(), at) {
            None => Ok(at),
            Some(_) => Err(format!("defines {name:?} twice")),
        }
    }

    fn put(&mut self, at: Index, kind: Kind, skip: Skip) -> Index {
        self.kinds[at] = kind;
        self.skips[at] = skip;
        at
    }

    fn push(&mut self, kind: Kind, skip: Skip) -> Result<Index, String> {
        if self.kinds.len() == TYPES_MAX {
            return Err(format!("has more than {TYPES_MAX} types"));
        }
        self.kinds.push(kind);
        self.skips.push(skip);
        Ok(self.kinds.len() - 1)
    }
}

fn namespace(members: &Map<String, Value>, space: &str) -> String {
    let own = members.get("namespace").and_then(Value::as_str);
    own.unwrap_or(space).to_owned()
}

/// The namespace of what a named type holds: that of its full name.
fn space_within(members: &Map<String, Value>, space: &str) -> String {
    let name = members.get("name").and_then(Value::as_str);
    match name.and_then(|name| name.rsplit_once('.')) {
        Some((before, _)) => before.to_owned(),
        None => namespace(members, space),
    }
}

fn full_name(name: &str, space: &str) -> String {
    if name.contains('.') || space.is_empty() {
        name.to_owned()
    } else {
        format!("{space}.{name}")
    }
}
