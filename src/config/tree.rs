//! The configuration as a tree whose values know where they were written, and how sections of it
//! are read: every wrong value becomes a fault, and reading goes on.
//!
//! Touches the outside only through [`interpolate`](super::interpolate).

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::fault::{Fault, Place};
use super::{interpolate, keys, properties};

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub place: Place,
    pub content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    /// `null`, `~` or nothing: as if the key were not there.
    Null,
    /// `shown` is what a message may quote: never the content of a secret file.
    Scalar {
        text: String,
        shown: String,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Its fault is already noted.
    Faulty,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub node: Node,
}

/// Where faults gather while the tree is read.
pub(super) type Gathered = RefCell<Vec<Fault>>;

/// A value that was read, and where it was written, for checks of one value against another.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub value: T,
    pub place: Place,
    /// False where the value only stands in for a wrong or missing one: checks skip it, so that
    /// one mistake makes one fault.
    pub sound: bool,
}

impl Node {
    pub(super) fn scalar(text: &str, place: Place) -> Self {
        let shown = quote(text);
        Self {
            place,
            content: Content::Scalar {
                text: text.to_owned(),
                shown,
            },
        }
    }

    /// What a message says was found.
    pub(super) fn shown(&self) -> &str {
        match &self.content {
            Content::Null => "nothing",
            Content::Scalar { shown, .. } => shown,
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
            Content::Faulty => "a wrong value",
        }
    }
}

/// Quoted and cut to what fits a line of a report.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// How parsed values are filled in, and where faults of doing so go.
pub(super) struct Filling<'a> {
    /// `None`: values are taken as they are.
    pub env: Option<&'a BTreeMap<String, String>>,
    pub faults: &'a Gathered,
}

impl Filling<'_> {
    /// A parsed file as a tree. `path` and `place` are of the key that holds the node. The depth of
    /// the recursion is bounded by [`yaml`](super::yaml).
    pub(super) fn tree(&self, node: &marked_yaml::Node, path: &str, place: Place) -> Node {
        let line = |fallback: &Place| match node.span().start() {
            Some(mark) => Place::Line(mark.line()),
            None => fallback.clone(),
        };
        match node {
            marked_yaml::Node::Scalar(scalar) => {
                let text = scalar.as_str();
                if scalar.may_coerce() && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
                    return Node {
                        place,
                        content: Content::Null,
                    };
                }
                let place = line(&place);
                let content = self.scalar(text, path, &place);
                Node { place, content }
            }
            marked_yaml::Node::Sequence(list) => {
                let nodes = list
                    .iter()
                    .map(|node| self.tree(node, path, line(&place)))
                    .collect();
                Node {
                    place,
                    content: Content::List(nodes),
                }
            }
            marked_yaml::Node::Mapping(map) => {
                let entries = map.iter().map(|(key, node)| {
                    let key_line = key.span().start().map_or(0, |mark| mark.line());
                    let node = self.tree(node, &keys::join(path, key), Place::Line(key_line));
                    Entry {
                        key: key.as_str().to_owned(),
                        node,
                    }
                });
                Node {
                    place,
                    content: Content::Map(entries.collect()),
                }
            }
        }
    }

    fn scalar(&self, raw: &str, path: &str, place: &Place) -> Content {
        let filled = match self.env {
            Some(env) => interpolate::fill(raw, env),
            None => Ok(interpolate::Filled {
                text: raw.to_owned(),
                is_secret: false,
            }),
        };
        let sentence = match filled {
            Err(sentence) => sentence,
            // librdkafka takes C strings: what follows a NUL would be lost in silence.
            Ok(filled) if filled.text.contains('\0') => {
                "holds a NUL character; remove it".to_owned()
            }
            Ok(filled) => {
                let shown = if filled.is_secret || filled.text == raw {
                    quote(raw)
                } else {
                    format!("{} (from {})", quote(&filled.text), quote(raw))
                };
                return Content::Scalar {
                    text: filled.text,
                    shown,
                };
            }
        };
        let fault = Fault {
            place: place.clone(),
            key: path.to_owned(),
            sentence,
        };
        self.faults.borrow_mut().push(fault);
        Content::Faulty
    }
}

/// One mapping of the tree, or its absence, as the place where keys are looked up.
#[derive(Clone)]
pub(super) struct Section<'a> {
    pub path: String,
    pub place: Place,
    pub entries: &'a [Entry],
    pub faults: &'a Gathered,
}

impl<'a> Section<'a> {
    /// A node as a section; faults when it is neither a mapping nor absent.
    pub(super) fn of(node: &'a Node, path: &str, faults: &'a Gathered) -> Self {
        let entries: &[Entry] = match &node.content {
            Content::Map(entries) => entries,
            Content::Null | Content::Faulty => &[],
            Content::Scalar { .. } | Content::List(_) => {
                let found = match node.content {
                    // It may be properties with their secrets, written otherwise.
                    Content::Scalar { .. }
                        if path.is_empty() || path.starts_with("kafka") || path == "schemas" =>
                    {
                        "one value (not shown)"
                    }
                    _ => node.shown(),
                };
                let sentence = format!("found {found}, expected a mapping of keys");
                let place = node.place.clone();
                faults.borrow_mut().push(Fault {
                    place,
                    key: path.to_owned(),
                    sentence,
                });
                &[]
            }
        };
        Self {
            path: path.to_owned(),
            place: node.place.clone(),
            entries,
            faults,
        }
    }

    pub(super) fn section(&self, key: &str) -> Section<'a> {
        let path = keys::join(&self.path, key);
        match self.node(key) {
            Some(node) => Section::of(node, &path, self.faults),
            None => Section {
                path,
                place: self.place.clone(),
                entries: &[],
                faults: self.faults,
            },
        }
    }

    /// A section that is only a part of what stands at a key.
    pub(super) fn section_at(&self, key: &str, entries: &'a [Entry], node: &Node) -> Section<'a> {
        let (path, place) = (keys::join(&self.path, key), node.place.clone());
        Section {
            path,
            place,
            entries,
            faults: self.faults,
        }
    }

    /// The node of a key, `None` where nothing is written.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node)
    }

    pub(super) fn is_null(&self, key: &str) -> bool {
        self.node(key)
            .is_some_and(|node| matches!(node.content, Content::Null))
    }

    pub(super) fn fault(&self, key: &str, place: &Place, sentence: impl Into<String>) {
        let fault = Fault {
            place: place.clone(),
            key: keys::join(&self.path, &keys::shown(key)),
            sentence: sentence.into(),
        };
        self.faults.borrow_mut().push(fault);
    }

    /// A node's value by `parse`, whose error is what would be accepted. `None` where the node is
    /// no scalar or `parse` refuses it; the fault is noted then.
    pub(super) fn parse<T>(
        &self,
        key: &str,
        node: &Node,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let parsed = match &node.content {
            Content::Scalar { text, .. } => parse(text),
            Content::Faulty => return None,
            Content::List(_) | Content::Map(_) | Content::Null => Err("one value".to_owned()),
        };
        match parsed {
            Ok(value) => Some(value),
            Err(expected) => {
                let found = match &node.content {
                    Content::Scalar { text, .. }
                        if properties::looks_secret(text)
                            || key == "password"
                            || (key == "bootstrap_servers" && text.contains('@')) =>
                    {
                        "a value that may hold a password (not shown)"
                    }
                    _ => node.shown(),
                };
                let sentence = format!("found {found}, expected {expected}");
                self.fault(key, &node.place, sentence);
                None
            }
        }
    }

    /// The value of a key, or the default where nothing is written.
    pub(super) fn read<T>(
        &self,
        key: &str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> At<T> {
        match self.node(key) {
            None => At {
                value: default,
                place: self.place.clone(),
                sound: true,
            },
            Some(Node {
                place,
                content: Content::Null,
            }) => At {
                value: default,
                place: place.clone(),
                sound: true,
            },
            Some(node) => {
                let value = self.parse(key, node, parse);
                let sound = value.is_some();
                At {
                    value: value.unwrap_or(default),
                    place: node.place.clone(),
                    sound,
                }
            }
        }
    }

    /// The value of a key that may be absent.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> At<Option<T>> {
        self.read(key, None, |text| parse(text).map(Some))
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&self, key: &str, default: T, words: &[(&str, T)]) -> At<T> {
        self.read(key, default, |text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| *value)
                .ok_or_else(|| {
                    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                    match names.split_last() {
                        Some((last, rest)) if !rest.is_empty() => {
                            format!("{} or {last}", rest.join(", "))
                        }
                        _ => names.join(""),
                    }
                })
        })
    }

    /// The fault of a key that must be there and is not.
    pub(super) fn missing(&self, key: &str, expected: &str) {
        let place = self.node(key).map_or(&self.place, |node| &node.place);
        let variable = keys::variable(&keys::join(&self.path, key));
        let sentence =
            format!("missing, expected {expected}; write it here or set the variable {variable}");
        self.fault(key, place, sentence);
    }
}

/// Notes every key that does not exist, section by section.
pub(super) fn note_unknown_keys(section: &Section<'_>) {
    for entry in section.entries {
        match keys::shape(&keys::join(&section.path, &entry.key)) {
            Some(keys::Shape::Section) => {
                if let Content::Map(entries) = &entry.node.content {
                    let path = keys::join(&section.path, &entry.key);
                    let place = entry.node.place.clone();
                    note_unknown_keys(&Section {
                        path,
                        place,
                        entries,
                        faults: section.faults,
                    });
                }
            }
            Some(_) if !entry.key.contains('.') => {}
            _ => {
                let sentence = keys::unknown_key(&section.path, &entry.key);
                section.fault(&entry.key, &entry.node.place, sentence);
            }
        }
    }
}
