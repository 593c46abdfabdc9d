//! `${NAME}`, `${NAME:-default}` and `${file:/path}` inside the values of the file.
//!
//! Reads the environment it is given, and the files that the configuration names.

use std::collections::BTreeMap;
use std::io::Read;

use super::properties::is_named_like_a_secret;

/// Longest file that `${file:...}` takes, in bytes; certificates chains and tokens are far below.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// A value after interpolation.
pub(super) struct Filled {
    pub text: String,
    /// The content of a file is in it, or of a variable that is named like a secret: not to be shown
    /// in any message.
    pub is_secret: bool,
}

/// Fills in a value; `$${` is a literal `${`. The error says what is wrong with which part, and
/// never holds the content of a file. O(length).
pub(super) fn fill(raw: &str, env: &BTreeMap<String, String>) -> Result<Filled, String> {
    let mut filled = Filled {
        text: String::with_capacity(raw.len()),
        is_secret: false,
    };
    let mut rest = raw;
    while let Some(at) = rest.find('$') {
        filled.text.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            filled.text.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let end = closing_brace(after).ok_or_else(|| {
                // Not quoted: it may be a password.
                "a ${ has no closing brace; write $${ for a literal ${".to_owned()
            })?;
            let inner = &after[..end];
            match inner.strip_prefix("file:") {
                Some(path) => {
                    filled.text.push_str(&content(path)?);
                    filled.is_secret = true;
                }
                None => {
                    filled.text.push_str(&variable(inner, env)?);
                    filled.is_secret |= is_named_like_a_secret(inner);
                }
            }
            rest = &after[end + 1..];
        } else {
            filled.text.push('$');
            rest = &rest[1..];
        }
    }
    filled.text.push_str(rest);
    Ok(filled)
}

/// Where the brace ends that was opened before `text`: a default may hold `{topic}`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn variable(inner: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let legal = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !legal {
        return Err(
            "found ${...} with something else in it (not shown), expected ${NAME}, \
             ${NAME:-default} or ${file:/path}; write $${ for a literal ${"
                .to_owned(),
        );
    }
    if default.is_some_and(|default| default.contains("${")) {
        return Err(format!(
            "the default of ${{{name}}} may not itself hold ${{...}}"
        ));
    }
    // As in a shell, `:-` also stands in for a variable that is set but empty.
    match (env.get(name), default) {
        (Some(value), _) if value.contains('\u{FFFD}') => {
            Err(format!("the environment variable {name} is not UTF-8 text"))
        }
        (Some(value), None) if !value.is_empty() || name != "HOSTNAME" => Ok(value.clone()),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value.clone()),
        (_, Some(default)) => Ok(default.to_owned()),
        // A shell sets HOSTNAME without exporting it: the kernel knows it just as well.
        (_, None) if name == "HOSTNAME" => {
            host_name(env).ok_or_else(|| "the host name is not known; set HOSTNAME".to_owned())
        }
        (_, None) => Err(format!(
            "the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
        )),
    }
}

/// The text of a file without one newline at its end, as editors and secret stores leave one.
fn content(path: &str) -> Result<String, String> {
    let wrong = |what: String| format!("${{file:{path}}}: {what}");
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(wrong(format!("longer than {FILE_MAX_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8 text".to_owned()))?;
    let text = match text.strip_suffix('\n') {
        Some(cut) => cut.strip_suffix('\r').unwrap_or(cut),
        None => &text,
    };
    Ok(text.to_owned())
}

/// `HOSTNAME`, or else what the kernel calls this host; `None` when neither is known.
pub(super) fn host_name(env: &BTreeMap<String, String>) -> Option<String> {
    if let Some(name) = env.get("HOSTNAME").filter(|name| !name.is_empty()) {
        return Some(name.clone());
    }
    let mut buffer = [0_u8; 256];
    // SAFETY: the pointer and the length are those of `buffer`, which outlives the call; the last
    // byte is kept back, so the name ends with a NUL even where the kernel cuts it.
    let status = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) };
    let name = std::ffi::CStr::from_bytes_until_nul(&buffer)
        .ok()?
        .to_str()
        .ok()?;
    (status == 0 && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(raw: &str) -> Result<String, String> {
        let env = [("A", "alpha"), ("EMPTY", "")];
        let env = env
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        fill(raw, &env).map(|filled| filled.text)
    }

    #[test]
    fn variables_defaults_and_literals() {
        assert_eq!(
            filled("x-${A}-${B:-b}-${EMPTY:-e}-$${A}-$5").unwrap(),
            "x-alpha-b-e-${A}-$5"
        );
        assert_eq!(filled("${EMPTY}").unwrap(), "");
    }

    #[test]
    fn template_braces_are_left_alone_even_inside_a_default() {
        assert_eq!(filled("${T:-{topic}_dedup}!").unwrap(), "{topic}_dedup!");
        assert_eq!(filled("{topic}").unwrap(), "{topic}");
    }

    #[test]
    fn a_missing_variable_is_named() {
        assert!(filled("${NOPE}").unwrap_err().contains("NOPE is not set"));
    }

    #[test]
    fn half_written_interpolations_are_faults() {
        for raw in ["${", "${A", "${}", "${a b}", "${A:-${B}}", "${A:-{}"] {
            assert!(filled(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn hostname_is_known_without_the_variable() {
        assert!(!filled("${HOSTNAME}").unwrap().is_empty());
    }

    #[test]
    fn a_file_loses_one_newline_and_no_more() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret \n\n").unwrap();
        let raw = format!("${{file:{}}}", file.path().display());
        assert_eq!(filled(&raw).unwrap(), "s3cret \n");
        assert!(
            filled("${file:/nowhere/at/all}")
                .unwrap_err()
                .contains("/nowhere/at/all")
        );
        assert!(filled("${file:/dev/zero}").unwrap_err().contains("longer"));
    }
}
