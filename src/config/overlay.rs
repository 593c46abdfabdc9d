//! Environment variables over the file: `KAFKA_DEDUP__WINDOW__TIME=1h` is `window: {time: 1h}`.
//!
//! Works on the environment it is given; touches nothing outside.

use std::collections::BTreeMap;

use super::fault::{Fault, Place};
use super::keys::{self, PREFIX, Shape};
use super::tree::{Content, Entry, Filling, Gathered, Node};
use super::yaml;

/// The choice of which a variable replaces the whole: half of it from the file makes no sense.
const CHOICE: &str = "id.from";

/// Puts every `KAFKA_DEDUP__` variable into the tree. The environment wins; its values are taken
/// as they are, without interpolation, and an empty one means null (for a property: empty).
pub(super) fn lay(root: &mut Node, env: &BTreeMap<String, String>, faults: &Gathered) {
    let ours = env.iter().filter(|(name, _)| name.starts_with(PREFIX));
    let mut choice_is_ours = false;
    for (name, value) in ours {
        let place = Place::Variable(name.clone());
        let fault = |sentence: String| {
            let fault = Fault {
                place: place.clone(),
                key: String::new(),
                sentence,
            };
            faults.borrow_mut().push(fault);
        };
        let Some((path, shape)) = target(name) else {
            fault(unknown_variable(name));
            continue;
        };
        if value.contains(['\0', '\u{FFFD}']) {
            fault("not UTF-8 text, or with a NUL character in it".to_owned());
            continue;
        }
        let node = match node(value, shape, &place, faults) {
            Ok(node) => node,
            Err(sentence) => {
                fault(sentence);
                Node {
                    place: place.clone(),
                    content: Content::Faulty,
                }
            }
        };
        let dotted = path.join(".");
        if !choice_is_ours && (dotted == CHOICE || dotted.starts_with("id.from.")) {
            choice_is_ours = true;
            let empty = Node {
                place: place.clone(),
                content: Content::Map(Vec::new()),
            };
            // Fails only where `id` itself is no section, which is a fault of its own.
            let _ = set(root, &["id".to_owned(), "from".to_owned()], empty);
        }
        if let Err(Place::Variable(other)) = set(root, &path, node) {
            fault(format!("contradicts {other}; unset one of them"));
        }
    }
}

/// The path of the key that a variable stands for, and what may be there: `None` for a property,
/// which is taken literally whatever it holds.
fn target(name: &str) -> Option<(Vec<String>, Option<Shape>)> {
    for (section, shape) in keys::KEYS {
        let variable = keys::variable(section);
        let path = || section.split('.').map(str::to_owned);
        if variable == name {
            return Some((path().collect(), Some(*shape)));
        }
        if *shape != Shape::Open {
            continue;
        }
        if let Some(property) = name.strip_prefix(&format!("{variable}__")) {
            let legal = property.split('_').all(|word| {
                !word.is_empty()
                    && word
                        .bytes()
                        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
            });
            let property = property.to_lowercase().replace('_', ".");
            return legal.then(|| (path().chain([property]).collect(), None));
        }
    }
    None
}

fn unknown_variable(name: &str) -> String {
    let all: Vec<String> = keys::KEYS
        .iter()
        .map(|(key, _)| keys::variable(key))
        .collect();
    let rest: Vec<&str> = all.iter().map(|name| &name[PREFIX.len()..]).collect();
    match keys::nearest(&name[PREFIX.len()..], rest.iter().copied()) {
        Some(near) => format!("stands for no key; did you mean {PREFIX}{near}?"),
        None => format!(
            "stands for no key; variables are written as {PREFIX}WINDOW__TIME for window.time, \
             and {PREFIX}KAFKA__PROPERTIES__SASL_PASSWORD for the property sasl.password"
        ),
    }
}

/// The value of a variable as a node. A section or a list may be written as YAML in one line.
fn node(
    value: &str,
    shape: Option<Shape>,
    place: &Place,
    faults: &Gathered,
) -> Result<Node, String> {
    let brackets = value.trim_start().starts_with(['[', '{']);
    match shape {
        Some(Shape::Section | Shape::Open | Shape::Flow) if brackets => {
            let (node, wrong) = yaml::parse(value, value.trim_start().starts_with('['));
            let expected = "expected YAML in one line, such as [a, b] or {key: value}";
            if let Some((_, sentence)) = wrong.into_iter().next() {
                return Err(format!("{sentence}; {expected}"));
            }
            let node = node.ok_or_else(|| expected.to_owned())?;
            let mut tree = Filling { env: None, faults }.tree(&node, "", place.clone());
            relocate(&mut tree, place);
            Ok(tree)
        }
        Some(_) if matches!(value, "" | "~" | "null") => Ok(Node {
            place: place.clone(),
            content: Content::Null,
        }),
        Some(_) | None => Ok(Node::scalar(value, place.clone())),
    }
}

/// Lines inside a variable mean nothing to a reader.
fn relocate(node: &mut Node, place: &Place) {
    node.place = place.clone();
    match &mut node.content {
        Content::List(nodes) => nodes.iter_mut().for_each(|node| relocate(node, place)),
        Content::Map(entries) => {
            entries
                .iter_mut()
                .for_each(|entry| relocate(&mut entry.node, place));
        }
        Content::Null | Content::Scalar { .. } | Content::Faulty => {}
    }
}

/// Puts a node at a path. The error is the place of the value that is in the way.
fn set(node: &mut Node, path: &[String], value: Node) -> Result<(), Place> {
    let [key, rest @ ..] = path else {
        *node = value;
        return Ok(());
    };
    if matches!(node.content, Content::Null) {
        node.content = Content::Map(Vec::new());
    }
    let Content::Map(entries) = &mut node.content else {
        return Err(node.place.clone());
    };
    match entries.iter_mut().find(|entry| entry.key == *key) {
        Some(entry) => set(&mut entry.node, rest, value),
        None => {
            // A section that only variables fill is written nowhere: what it lacks is not theirs.
            let mut node = Node {
                place: Place::File,
                content: Content::Null,
            };
            let done = set(&mut node, rest, value);
            entries.push(Entry {
                key: key.clone(),
                node,
            });
            done
        }
    }
}
