//! How values are said to people, in logs and on pages; files have them as `render` writes them.

use std::fmt;
use std::time::Duration;

use super::{IdSource, Missing, Window};

impl fmt::Display for IdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("key"),
            Self::Value => f.write_str("value"),
            Self::CloudEvents => f.write_str("CloudEvents source + id"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Json(pointer) => write!(f, "JSON {pointer}"),
            Self::Avro(pointer) => write!(f, "Avro {pointer}"),
            Self::Protobuf(pointer) => write!(f, "Protobuf {pointer}"),
            Self::JsonSchema(pointer) => write!(f, "JSON (framed) {pointer}"),
            Self::Csv { column, delimiter } => {
                let delimiter = char::from(*delimiter);
                write!(f, "CSV column {column} (delimiter {delimiter:?})")
            }
            Self::All(parts) => {
                let parts: Vec<String> = parts.iter().map(Self::to_string).collect();
                f.write_str(&parts.join(" + "))
            }
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time_ms.map(|ms| {
            let time = Duration::from_millis(ms.unsigned_abs());
            humantime::format_duration(time).to_string()
        });
        let ids = self.ids.map(|ids| format!("{ids} ids"));
        let limits: Vec<String> = [time, ids].into_iter().flatten().collect();
        f.write_str(&limits.join(" or "))
    }
}

impl Missing {
    /// Each with its word.
    pub const ALL: [(&'static str, Self); 4] = [
        ("forward", Self::Forward),
        ("reject", Self::Reject),
        ("drop", Self::Drop),
        ("fail", Self::Fail),
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Fail => "fail",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_window_are_said_in_words() {
        let parts = vec![
            IdSource::Header("ce-source".to_owned()),
            IdSource::Json("/id".to_owned()),
        ];
        assert_eq!(
            IdSource::All(parts).to_string(),
            "header ce-source + JSON /id"
        );
        let csv = IdSource::Csv {
            column: 8,
            delimiter: b'\t',
        };
        assert_eq!(csv.to_string(), "CSV column 8 (delimiter '\\t')");
        let mut limits = Window {
            time_ms: Some(86_400_000),
            ids: None,
            refresh: false,
            max_ahead_ms: 0,
        };
        assert_eq!(limits.to_string(), "1day");
        limits.ids = Some(50);
        assert_eq!(limits.to_string(), "1day or 50 ids");
    }
}
