//! YAML text to nodes that know their line. What YAML allows but a configuration does not need
//! (anchors, tags, several documents) is refused with its line rather than ignored.
//!
//! Pure functions; touch nothing outside.

use super::keys::shown;
use marked_yaml::{LoadError, LoaderOptions, Node, parse_yaml_with_options};

/// Longest text that is taken, in bytes.
pub(super) const TEXT_MAX_BYTES: usize = 1 << 20;
/// Deepest column at which a line may begin. Nesting is bounded by it, and with it the parser's
/// recursion (I8): a file of dashes must not overflow the stack.
const INDENT_MAX: usize = 200;

/// A line, counted from 1, and what is wrong with it.
pub(super) type Wrong = (usize, String);

/// Parses a text that must be one mapping, or with `list` one list. Faults that still leave
/// something to read (a repeated key: the last one counts) come beside the node, so that the
/// faults of the rest can be shown too.
pub(super) fn parse(text: &str, list: bool) -> (Option<Node>, Vec<Wrong>) {
    if let Some(wrong) = refused(text) {
        return (None, vec![wrong]);
    }
    let options = |unique| {
        let options = LoaderOptions::default()
            .prevent_coercion(true)
            .error_on_duplicate_keys(unique);
        if list {
            options.toplevel_sequence()
        } else {
            options.toplevel_mapping()
        }
    };
    let mut wrong = Vec::new();
    let node = match parse_yaml_with_options(0, text, options(true)) {
        Err(error @ LoadError::DuplicateKey(_)) => {
            wrong.push(explain(&error, text));
            parse_yaml_with_options(0, text, options(false))
        }
        other => other,
    };
    match node {
        Ok(node) => {
            wrong.extend(leftover(&node, text));
            (Some(node), wrong)
        }
        Err(error) => {
            wrong.push(explain(&error, text));
            (None, wrong)
        }
    }
}

/// What the parser must not see: it would stop at a NUL as at the end, and recurse into nesting.
fn refused(text: &str) -> Option<Wrong> {
    if text.len() > TEXT_MAX_BYTES {
        return Some((1, format!("longer than {TEXT_MAX_BYTES} bytes")));
    }
    text.split('\n').zip(1..).find_map(|(line, number)| {
        if line.contains('\0') {
            return Some((
                number,
                "a NUL character; a configuration is plain text".to_owned(),
            ));
        }
        let indent = line.chars().take_while(|c| " \t\r-?:".contains(*c)).count();
        (indent > INDENT_MAX && line.chars().count() > indent).then(|| {
            (
                number,
                format!("begins after column {INDENT_MAX}: nested too deeply"),
            )
        })
    })
}

/// The parser stops after the first document; whatever follows would be ignored in silence.
fn leftover(node: &Node, text: &str) -> Option<Wrong> {
    let end = node.span().end()?.character();
    let skip = |c: char| c == '}' || c == ']';
    let at = text
        .char_indices()
        .nth(end)
        .map_or(text.len(), |(at, _)| at);
    let first_line = text[..at].matches('\n').count() + 1;
    let rest = text[at..].strip_prefix(skip).unwrap_or(&text[at..]);
    let (number, line) = (first_line..).zip(rest.lines()).find(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#') && line != "..."
    })?;
    let what = if line.starts_with("---") {
        "a second document"
    } else {
        "text"
    };
    Some((
        number,
        format!("{what} after the end of the configuration; one document is read"),
    ))
}

fn explain(error: &LoadError, text: &str) -> Wrong {
    let (mark, sentence) = match error {
        LoadError::TopLevelMustBeMapping(mark) => (
            Some(*mark),
            "expected sections such as kafka: and input:, found something else".to_owned(),
        ),
        LoadError::TopLevelMustBeSequence(mark) => {
            (Some(*mark), "expected a list such as [a, b]".to_owned())
        }
        LoadError::UnexpectedAnchor(mark) => (
            Some(*mark),
            "anchors (&name) are not supported; write the value out".to_owned(),
        ),
        LoadError::UnexpectedTag(mark) => (
            Some(*mark),
            "tags (!name) are not supported; leave the tag out".to_owned(),
        ),
        LoadError::MappingKeyMustBeScalar(mark) => (
            Some(*mark),
            "a key must be a plain word; quote a value that has braces".to_owned(),
        ),
        LoadError::ScanError(mark, error) => {
            (Some(*mark), format!("not valid YAML: {}", error.info()))
        }
        LoadError::DuplicateKey(keys) => {
            let first = keys.prev_key.span().start().map_or(0, |mark| mark.line());
            let sentence = format!(
                "the key {:?} is here a second time, after line {first}; remove one of them",
                shown(keys.key.as_str())
            );
            (keys.key.span().start().copied(), sentence)
        }
    };
    // At its end the text has no more lines, but a person needs one to look at.
    let lines = text.lines().count().max(1);
    (mark.map_or(1, |mark| mark.line().clamp(1, lines)), sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Vec<Wrong> {
        parse(text, false).1
    }

    #[test]
    fn a_second_document_is_not_ignored() {
        assert_eq!(wrong("a: 1\n---\nb: 2\n")[0].0, 2);
        assert_eq!(wrong("# c\r\na: {b: é}\r\n\r\n---\r\nb: 2\r\n")[0].0, 4);
        assert_eq!(wrong("{a: 1}\nfoo")[0].0, 2);
        assert!(wrong("---\na: 1\n...\n# the end\n").is_empty());
        assert!(wrong("{a: [1]}\n\n").is_empty());
        assert!(wrong("a:\n  b: 1\n# the end").is_empty());
    }

    #[test]
    fn a_repeated_key_names_both_lines_and_the_rest_is_still_read() {
        let (node, wrong) = parse("a: 1\nb: 2\na: 3\n", false);
        assert!(node.is_some());
        assert_eq!(wrong[0].0, 3);
        assert!(wrong[0].1.contains("after line 1"));
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_is_spent() {
        for text in [
            format!("a:\n  {}x", "- ".repeat(100_000)),
            format!("a: {}", "[".repeat(100_000)),
            format!("a: {}", "{a: ".repeat(100_000)),
            "? ".repeat(100_000) + "x",
            (0..700).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
        ] {
            assert_eq!(wrong(&text).len(), 1);
        }
    }

    #[test]
    fn what_ends_too_early_has_a_line_of_the_file() {
        assert_eq!(wrong("a: {b: 1\n")[0].0, 1);
        assert_eq!(wrong("a: 1\nb: \"c\n")[0].0, 2);
        assert_eq!(wrong("a: 1\0\nb")[0].0, 1);
    }
}
