//! Topics: patterns and templates one by one, and the checks of all names against each other, so
//! that the service never reads what it writes and never writes two things to one topic.
//!
//! Pure functions over the tree; touch nothing outside.

use super::fault::Place;
use super::tree::{At, Content, Node, Section, quote};
use super::{Scope, TopicPattern, TopicTemplate};

/// Kafka's own limit.
const NAME_MAX_CHARS: usize = 249;
/// Bounds the subscription and the checks of every name against every other (I8).
const PATTERNS_MAX: usize = 1_000;
const LEGAL: &str = "letters, digits, '.', '_' and '-'";

/// A pattern of `input.topics`, and where it stands.
pub(super) type Pattern = (TopicPattern, Place);

/// Reads `input.topics`; wrong ones are left out, with their faults noted.
pub(super) fn read_inputs(input: &Section<'_>) -> Vec<Pattern> {
    let expected = "a list of topic names such as [truck_position]";
    let Some(node) = input.node("topics") else {
        input.missing("topics", expected);
        return Vec::new();
    };
    let nodes: Vec<Node> = match (&node.content, &node.place) {
        (Content::Faulty, _) => return Vec::new(),
        (Content::Null, _) => {
            input.missing("topics", expected);
            return Vec::new();
        }
        (Content::Map(_), _) => {
            input.fault(
                "topics",
                &node.place,
                format!("found a mapping, expected {expected}"),
            );
            return Vec::new();
        }
        (Content::Scalar { text, .. }, Place::Variable(_)) => split(text)
            .iter()
            .map(|name| Node::scalar(name, node.place.clone()))
            .collect(),
        (Content::Scalar { .. }, _) => vec![node.clone()],
        (Content::List(nodes), _) => nodes.clone(),
    };
    if nodes.is_empty() || nodes.len() > PATTERNS_MAX {
        let sentence = format!("found {} topics, expected 1 to {PATTERNS_MAX}", nodes.len());
        input.fault("topics", &node.place, sentence);
        return Vec::new();
    }
    let mut patterns: Vec<Pattern> = Vec::new();
    for node in &nodes {
        match input.parse("topics", node, pattern) {
            None => {}
            Some(pattern) if patterns.iter().any(|(other, _)| *other == pattern) => {
                let sentence = format!("{} is listed twice; remove one", node.shown());
                input.fault("topics", &node.place, sentence);
            }
            Some(pattern) => patterns.push((pattern, node.place.clone())),
        }
    }
    patterns
}

/// The value of a variable: comma separated, where a comma inside of brackets (`^a{1,2}`) belongs
/// to a regular expression.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c: char| {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .collect()
}

fn pattern(text: &str) -> Result<TopicPattern, String> {
    if !text.starts_with('^') {
        return match illegal(text) {
            None => Ok(TopicPattern::Name(text.to_owned())),
            Some(why) => Err(format!(
                "a topic name ({why}), or a regular expression that starts with ^"
            )),
        };
    }
    if has_top_level_alternative(text) {
        return Err("its alternatives in brackets, ^(a|b): ^ counts only for the first".to_owned());
    }
    regex::Regex::new(text)
        .map(TopicPattern::Regex)
        .map_err(|error| {
            // The library draws the expression over several lines; the last one says what is wrong.
            let error = error.to_string();
            let last = error
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            format!("a regular expression ({last})")
        })
}

fn has_top_level_alternative(regex: &str) -> bool {
    let (mut depth, mut class, mut escaped) = (0_usize, false, false);
    for c in regex.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => class = false,
            _ if class => {}
            '[' => class = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

/// Why a name cannot be that of a topic; `None` where it can.
fn illegal(name: &str) -> Option<String> {
    if let Some(c) = name.chars().find(|c| !legal(*c)) {
        return Some(format!("{c:?} is not one of {LEGAL}"));
    }
    match name.len() {
        0 => Some("it is empty".to_owned()),
        n if n > NAME_MAX_CHARS => {
            Some(format!("{n} characters, and {NAME_MAX_CHARS} are allowed"))
        }
        _ if matches!(name, "." | "..") => Some("'.' and '..' are reserved".to_owned()),
        _ => None,
    }
}

fn legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Reads a template: legal characters, `{topic}` and `{group}`.
fn template(text: &str) -> Result<TopicTemplate, String> {
    let mut rest = text.replace("{topic}", "").replace("{group}", "");
    if let Some(at) = rest.find(['{', '}']) {
        let end = rest[at..].find('}').map_or(rest.len(), |end| at + end + 1);
        rest.truncate(end);
        let unknown = quote(&rest[at..]);
        return Err(format!(
            "only the placeholders {{topic}} and {{group}}, not {unknown}"
        ));
    }
    match rest.chars().find(|c| !legal(*c)) {
        Some(c) => Err(format!("a topic name: {c:?} is not one of {LEGAL}")),
        None if text.is_empty() => Err("a topic name, or null".to_owned()),
        None => Ok(TopicTemplate(text.to_owned())),
    }
}

/// One topic that the service writes, by the section that configures it.
struct Written<'a> {
    section: Section<'a>,
    template: At<Option<TopicTemplate>>,
}

/// Reads the templates of output, duplicates, rejected, repartition and journal, from their sections in
/// that order, and checks all names against each other.
pub(super) fn read_written(
    sections: [Section<'_>; 5],
    patterns: &[Pattern],
    group: &At<String>,
    scope: Scope,
) -> [Option<TopicTemplate>; 5] {
    let written = sections.map(|section| {
        let default = match section.path.as_str() {
            "output" => Some(TopicTemplate("{topic}_dedup".to_owned())),
            "repartition" => Some(TopicTemplate("{topic}-{group}-by-id".to_owned())),
            "journal" => Some(TopicTemplate("{topic}-{group}-seen".to_owned())),
            _ => None,
        };
        let template = section.read("topic", default, |text| template(text).map(Some));
        Written { section, template }
    });
    check(patterns, group, &written, scope);
    written.map(|written| written.template.value)
}

/// Checks all names against each other. O(inputs^2) string comparisons, one fault for each template and kind of mistake.
fn check(inputs: &[Pattern], group: &At<String>, written: &[Written<'_>], scope: Scope) {
    let named: Vec<(&str, bool)> = inputs
        .iter()
        .map(|(pattern, _)| match pattern {
            TopicPattern::Name(name) => (name.as_str(), true),
            // What a regular expression will match is not known; one letter is the least it can be.
            TopicPattern::Regex(_) => ("x", false),
        })
        .collect();
    let by_id = written
        .iter()
        .find(|it| it.section.path == "repartition" && scope == Scope::Repartition);
    let by_id = by_id.and_then(|it| it.template.value.as_ref());
    // Name of a written topic -> the place in `written` that claims it.
    let mut claimed: std::collections::BTreeMap<String, usize> = Default::default();
    for (n, Written { section, template }) in written.iter().enumerate() {
        let Some(pattern) = template.value.as_ref().filter(|_| template.sound) else {
            continue;
        };
        if section.path == "repartition"
            && scope != Scope::Repartition
            && section.node("topic").is_none()
        {
            continue;
        }
        let fault = |sentence: String| section.fault("topic", &template.place, sentence);
        if pattern.0.contains("{group}") {
            if !group.sound {
                continue;
            }
            if let Some(c) = group.value.chars().find(|c| !legal(*c)) {
                let place = match section.node("topic") {
                    Some(_) => &template.place,
                    None => &group.place,
                };
                let sentence = format!(
                    "the group id {} has {c:?}, which no topic name may have: set {}.topic \
                     without {{group}}",
                    quote(&group.value),
                    section.path
                );
                section.fault("topic", place, sentence);
                continue;
            }
        }
        // The journal is that of the topic whose records are judged.
        let hop = by_id.filter(|_| section.path == "journal");
        let rendered = || {
            named.iter().map(|(topic, _)| {
                let hop = hop.map(|hop| hop.render(topic, &group.value));
                pattern.render(hop.as_deref().unwrap_or(topic), &group.value)
            })
        };
        if let Some((name, why)) = rendered().find_map(|name| illegal(&name).map(|why| (name, why)))
        {
            fault(format!(
                "gives {}, which is no topic name: {why}",
                quote(&name)
            ));
            continue;
        }
        // A name made from the stand-in for a regular expression is no name that will be written.
        let looping = rendered()
            .zip(&named)
            .filter(|(_, (_, known))| *known || !pattern.is_per_topic())
            .find_map(|(name, _)| {
                let read = named
                    .iter()
                    .position(|(topic, known)| *known && *topic == name)?;
                Some((name, &inputs[read].1))
            });
        if let Some((name, read)) = looping {
            let place = match section.node("topic") {
                Some(_) => &template.place,
                None => read,
            };
            let sentence = format!(
                "gives {name:?}, which is also an input topic: the service would read what it \
                 writes; choose another name"
            );
            section.fault("topic", place, sentence);
        }
        // All that a regular expression matches would be taken for what the service writes.
        let of_all = rendered()
            .zip(&named)
            .zip(inputs)
            .find(|((name, (topic, known)), _)| !known && pattern.is_per_topic() && name == topic);
        if let Some((_, (TopicPattern::Regex(regex), _))) = of_all {
            fault(format!(
                "gives every topic that {} matches its own name: the service would read what it \
                 writes; choose another name",
                quote(regex.as_str())
            ));
        }
        let shared = rendered().find_map(|name| claimed.get(&name).map(|other| (name, *other)));
        if let Some((name, other)) = shared {
            fault(format!(
                "gives {name:?}, which is also what {}.topic gives; choose another name",
                written[other].section.path
            ));
        }
        for name in rendered() {
            claimed.entry(name).or_insert(n);
        }
        let several = named.len() > 1 || named.iter().any(|(_, known)| !known);
        let is_apart = matches!(section.path.as_str(), "journal" | "repartition");
        if is_apart && several && !pattern.is_per_topic() {
            fault(format!(
                "found {}, expected {{topic}} in it: each input topic needs a {} topic of its own",
                quote(&pattern.0),
                section.path
            ));
        }
    }
}
