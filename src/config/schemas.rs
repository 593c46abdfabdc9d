//! `schemas:` where the registry is that knows the schemas of values, and who we are there.
//!
//! Pure functions over the tree; touch nothing outside.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::properties::REDACTED;
use super::tree::Section;
use super::{IdSource, Schemas, UnknownSchema, value};

const URL: &str = "the URL of a schema registry, such as https://registry:8081";

/// Reads the section; `None` where there is no registry. `from` is where ids come from: some need one.
pub(super) fn read(section: &Section<'_>, from: Option<&IdSource>) -> Option<Schemas> {
    let registry = section.optional("registry", url);
    let name = section.optional("username", |text| {
        let sound = value::not_empty(text)?;
        match sound.contains(':') {
            true => Err("a name without a colon, which HTTP cannot tell from the password".into()),
            false => Ok(sound),
        }
    });
    let password = section.optional("password", value::not_empty);
    let ca = section.optional("ca", |text| {
        value::not_empty(text).map_err(|_| "the path of a file of certificates".to_owned())
    });
    let timeout = section.read("timeout", Duration::from_secs(5), |text| {
        value::duration_within(text, Duration::from_millis(100), Duration::from_secs(60))
    });
    let unknown = section.choice(
        "unknown",
        UnknownSchema::Fail,
        &[
            ("fail", UnknownSchema::Fail),
            ("missing", UnknownSchema::Missing),
            ("wait", UnknownSchema::Wait),
        ],
    );
    if name.sound && password.sound && name.value.is_some() != password.value.is_some() {
        let absent = match name.value {
            Some(_) => "password",
            None => "username",
        };
        section.missing(
            absent,
            "both schemas.username and schemas.password, or neither",
        );
    }
    if let (Some(url), Some(_)) = (&registry.value, &ca.value)
        && url.starts_with("http://")
    {
        let sentence =
            "set for a registry that is not asked over https: take it out, or write https";
        section.fault("ca", &ca.place, sentence);
    }
    if registry.sound && registry.value.is_none() {
        let needed = from.and_then(needs_registry);
        if let Some(source) = needed {
            section.missing("registry", &format!("{URL}, as id.from has {source}"));
        } else if !section
            .entries
            .iter()
            .all(|entry| section.is_null(&entry.key))
        {
            section.missing("registry", URL);
        }
    }
    Some(Schemas {
        registry: registry.value?,
        username: name.value,
        password: password.value,
        ca: ca.value.map(PathBuf::from),
        timeout: timeout.value,
        unknown: unknown.value,
    })
}

/// The first source that finds nothing without a schema.
fn needs_registry(from: &IdSource) -> Option<&'static str> {
    match from {
        IdSource::Avro(_) => Some("avro"),
        IdSource::Protobuf(_) => Some("protobuf"),
        IdSource::All(sources) => sources.iter().find_map(needs_registry),
        _ => None,
    }
}

fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| {
        let rest = text.strip_prefix("https://")?;
        cfg!(feature = "tls").then_some(rest)
    });
    let Some(rest) = rest else {
        return Err(match text.starts_with("https://") {
            true => "http://, as this build is one without TLS".to_owned(),
            false => URL.to_owned(),
        });
    };
    let host = rest.split('/').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '@' | '"' | '<' | '>');
    if host.is_empty() || !rest.chars().all(plain) || text.parse::<ureq::http::Uri>().is_err() {
        return Err(format!("{URL}, without user, query and fragment"));
    }
    Ok(text.to_owned())
}

impl fmt::Debug for Schemas {
    /// As derived, except that the password is not printed, however it gets into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schemas")
            .field("registry", &self.registry)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| REDACTED))
            .field("ca", &self.ca)
            .field("timeout", &self.timeout)
            .field("unknown", &self.unknown)
            .finish()
    }
}
