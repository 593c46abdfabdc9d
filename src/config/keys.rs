//! The names of all keys, in the order of the sample file: the one list from which unknown keys,
//! suggestions and environment variables are told.
//!
//! Pure data; touches nothing outside.

use Shape::{Flow, Open, Section, Text};

/// What may stand at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A mapping of known keys.
    Section,
    /// A mapping of any keys: librdkafka properties.
    Open,
    /// One value, taken literally when it comes from a variable.
    Text,
    /// A list or a choice; a variable may hold it as YAML between brackets or braces.
    Flow,
}

/// Prefix of the variables that override keys.
pub(super) const PREFIX: &str = "KAFKA_DEDUP__";

/// Every key, dotted.
pub(super) const KEYS: &[(&str, Shape)] = &[
    ("kafka", Section),
    ("kafka.bootstrap_servers", Text),
    ("kafka.group_id", Text),
    ("kafka.instance_id", Text),
    ("kafka.static_membership", Text),
    ("kafka.properties", Open),
    ("kafka.consumer_properties", Open),
    ("kafka.producer_properties", Open),
    ("input", Section),
    ("input.topics", Flow),
    ("input.start", Text),
    ("output", Section),
    ("output.topic", Text),
    ("output.partition", Text),
    ("output.create", Text),
    ("id", Section),
    ("id.from", Flow),
    ("id.from.header", Text),
    ("id.from.json", Text),
    ("id.from.avro", Text),
    ("id.from.protobuf", Text),
    ("id.from.json_schema", Text),
    ("id.from.csv", Flow),
    ("id.from.csv.column", Text),
    ("id.from.csv.delimiter", Text),
    ("id.from.all", Flow),
    ("id.missing", Text),
    ("id.changed", Text),
    ("id.conflicts", Text),
    ("id.payload", Flow),
    ("id.payload.json_without", Flow),
    ("schemas", Section),
    ("schemas.registry", Text),
    ("schemas.username", Text),
    ("schemas.password", Text),
    ("schemas.ca", Text),
    ("schemas.timeout", Text),
    ("schemas.unknown", Text),
    ("window", Section),
    ("window.time", Text),
    ("window.ids", Text),
    ("window.refresh", Text),
    ("window.max_ahead", Text),
    ("scope", Text),
    ("repartition", Section),
    ("repartition.topic", Text),
    ("repartition.partitions", Text),
    ("mode", Text),
    ("duplicates", Section),
    ("duplicates.topic", Text),
    ("rejected", Section),
    ("rejected.topic", Text),
    ("journal", Section),
    ("journal.topic", Text),
    ("journal.retention", Text),
    ("store", Section),
    ("store.path", Text),
    ("store.active_ids", Text),
    ("store.memory", Text),
    ("store.false_positive_rate", Text),
    ("transaction", Section),
    ("transaction.interval", Text),
    ("transaction.records", Text),
    ("transaction.timeout", Text),
    ("workers", Text),
    ("http", Section),
    ("http.listen", Text),
    ("http.admin", Text),
    ("http.admin_token", Text),
    ("http.admin_hosts", Flow),
    ("log", Section),
    ("log.level", Text),
    ("log.format", Text),
];

/// What may stand at this dotted key; `None` where there is no such key.
pub(super) fn shape(path: &str) -> Option<Shape> {
    KEYS.iter()
        .find(|(key, _)| *key == path)
        .map(|(_, shape)| *shape)
}

/// The variable that overrides a key.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_uppercase().replace('.', "__"))
}

/// `section.key`, or `key` at the top.
pub(super) fn join(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

/// A key as a message may name it: up to the first character that no key has, as what follows it may
/// be a value (`sasl.password=...`), or more than one line.
pub(super) fn shown(key: &str) -> String {
    let foreign = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    match key.find(foreign) {
        Some(end) => format!("{}...", &key[..end]),
        None => key.to_owned(),
    }
}

/// What to say of a key that does not exist: the nearest one of its section, or the key of that
/// name in another section, or all that the section knows.
pub(super) fn unknown_key(section: &str, key: &str) -> String {
    let siblings: Vec<&str> = KEYS
        .iter()
        .filter_map(|(path, _)| match section {
            "" => (!path.contains('.')).then_some(*path),
            _ => path
                .strip_prefix(section)?
                .strip_prefix('.')
                .filter(|rest| !rest.contains('.')),
        })
        .collect();
    let elsewhere = || {
        let wanted = normal(key);
        KEYS.iter().map(|(path, _)| *path).find(|path| {
            let last = path.rsplit('.').next().unwrap_or(path);
            wanted == normal(last) || wanted == normal(path)
        })
    };
    match nearest(key, siblings.iter().copied()).or_else(elsewhere) {
        Some(name) if siblings.contains(&name) => format!("unknown key; did you mean {name}?"),
        Some(path) => format!("unknown key here; did you mean {path}?"),
        None => format!("unknown key; known here: {}", siblings.join(", ")),
    }
}

/// The candidate that differs from `word` by a slip of the hand: at most a third of its letters,
/// and at most 2. O(candidates x 64^2).
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = normal(word);
    if word.chars().count() > 64 {
        return None;
    }
    candidates
        .map(|candidate| (slips(&word, &normal(candidate)), candidate))
        .filter(|(slips, candidate)| *slips <= (candidate.len() / 3).min(2))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// Spellings that people mix up read the same: `group.id`, `group-id`, `Group_Id`.
fn normal(word: &str) -> String {
    word.to_lowercase().replace(['-', '.', ' '], "_")
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn slips(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_recognised() {
        assert_eq!(
            unknown_key("window", "tmie"),
            "unknown key; did you mean time?"
        );
        assert_eq!(
            unknown_key("kafka", "group.id"),
            "unknown key; did you mean group_id?"
        );
    }

    #[test]
    fn a_key_in_the_wrong_section_is_found_in_the_right_one() {
        assert_eq!(
            unknown_key("", "bootstrap.servers"),
            "unknown key here; did you mean kafka.bootstrap_servers?"
        );
    }

    #[test]
    fn a_key_like_no_other_brings_the_list() {
        assert_eq!(
            unknown_key("log", "colour"),
            "unknown key; known here: level, format"
        );
    }

    #[test]
    fn variables_are_upper_case_with_double_underscores() {
        assert_eq!(
            variable("window.max_ahead"),
            "KAFKA_DEDUP__WINDOW__MAX_AHEAD"
        );
    }
}
