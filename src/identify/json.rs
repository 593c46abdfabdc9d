//! One scalar of a JSON value, found by RFC 6901 pointer.
//!
//! One pass over the document, which builds nothing: what the pointer does not lead to is checked
//! and skipped (without recursion, so no nesting can exhaust the stack).

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::MissingReason;

/// A compiled pointer, and the buffer for a string that holds escapes.
pub(super) struct JsonPointer {
    tokens: Vec<Token>,
    unescaped: String,
}

/// One step down: a member's name, which is an element's index too where it looks like one.
struct Token {
    name: String,
    index: Option<usize>,
}

impl JsonPointer {
    /// `""` is the whole document; any other pointer begins with `/`.
    pub fn new(pointer: &str) -> Self {
        Self {
            tokens: pointer.split('/').skip(1).map(Token::new).collect(),
            unescaped: String::new(),
        }
    }

    /// The bytes of the string, the literal text of the number, or `true` or `false`; `None` when
    /// the place is absent or null. Of members with the same name the last counts. O(bytes).
    pub fn find<'a>(&'a mut self, value: &'a [u8]) -> Result<Option<&'a [u8]>, MissingReason> {
        let unparsable = MissingReason::Unparsable;
        let text = str::from_utf8(value).map_err(|_| unparsable)?;
        let mut document = serde_json::Deserializer::from_str(text);
        let found = Descent(&self.tokens)
            .deserialize(&mut document)
            .map_err(|_| unparsable)?;
        document.end().map_err(|_| unparsable)?;
        let Some(found) = found else {
            return Ok(None);
        };
        match found.as_bytes() {
            b"null" => Ok(None),
            [b'{' | b'[', ..] => Err(unparsable),
            [b'"', plain @ .., b'"'] if !plain.contains(&b'\\') => Ok(Some(plain)),
            [b'"', ..] => {
                self.unescaped = serde_json::from_str(found).map_err(|_| unparsable)?;
                Ok(Some(self.unescaped.as_bytes()))
            }
            literal => Ok(Some(literal)),
        }
    }
}

impl Token {
    fn new(escaped: &str) -> Self {
        let name = escaped.replace("~1", "/").replace("~0", "~");
        let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = digits && (name == "0" || !name.starts_with('0'));
        Self {
            index: canonical.then(|| name.parse().ok()).flatten(),
            name,
        }
    }
}

/// Walks down the tokens that are left, and answers the text of what is there.
struct Descent<'t>(&'t [Token]);

impl<'de> DeserializeSeed<'de> for Descent<'_> {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => {
                let raw: &'de RawValue = serde::Deserialize::deserialize(value)?;
                Ok(Some(raw.get()))
            }
            [token, rest @ ..] => value.deserialize_any(Step {
                token,
                rest: Descent(rest),
            }),
        }
    }
}

/// One step down, where there is something to step into.
struct Step<'t> {
    token: &'t Token,
    rest: Descent<'t>,
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(wanted) = members.next_key_seed(NameIs(&self.token.name))? {
            if wanted {
                found = members.next_value_seed(Descent(self.rest.0))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        if let Some(index) = self.token.index {
            for _ in 0..index {
                if elements.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(None);
                }
            }
            let found = elements.next_element_seed(Descent(self.rest.0))?.flatten();
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(found);
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    // Numbers come as maps or as one of these, by their form.
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Compares a member's name without keeping it.
struct NameIs<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for NameIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<bool, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for NameIs<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}
