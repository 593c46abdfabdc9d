//! Single values with units: durations, counts, addresses, and how a duration is written back.
//!
//! Pure functions; touch nothing outside.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;

pub(super) const DURATION: &str = "a duration with a unit, such as 90s, 15m or 24h";

const UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A duration of one or more numbers with units (`100ms`, `24h`, `1h30m`, `1d 12h`). A bare number
/// is none: nobody can see whether it means seconds or milliseconds. The error is what was expected.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
        return Err(format!("{DURATION}: a bare number does not say of what"));
    }
    total_ms(text)
        .map(Duration::from_millis)
        .ok_or_else(|| DURATION.to_owned())
}

fn total_ms(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let (_, unit_ms) = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters])?;
        total = total.checked_add(number.checked_mul(*unit_ms)?)?;
        rest = rest[letters..].trim_start();
    }
    Some(total)
}

/// A duration between two bounds, both included.
pub(super) fn duration_within(
    text: &str,
    least: Duration,
    most: Duration,
) -> Result<Duration, String> {
    let value = duration(text)?;
    if value < least || value > most {
        return Err(format!(
            "{} to {}",
            render_duration(least),
            render_duration(most)
        ));
    }
    Ok(value)
}

/// The shortest exact spelling with one unit: `100ms`, `90m`, `24h`, `7d`.
pub fn render_duration(value: Duration) -> String {
    let ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    // A day is easily read as 24h, and that is how windows are written.
    let fits =
        |unit: &str, unit_ms: u64| ms.is_multiple_of(unit_ms) && (unit != "d" || ms > unit_ms);
    match UNITS
        .iter()
        .rev()
        .find(|(unit, unit_ms)| ms > 0 && fits(unit, *unit_ms))
    {
        Some((unit, unit_ms)) => format!("{}{unit}", ms / unit_ms),
        None => format!("{ms}ms"),
    }
}

/// A whole number between two bounds, both included; `50_000_000` is one.
pub(super) fn count_within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let shape = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let value = digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten();
    value
        .filter(|value| shape && (least..=most).contains(value))
        .ok_or_else(|| format!("a whole number from {least} to {most}"))
}

/// A size in bytes between two bounds, both included: `64MiB`, `1GB`. A bare number is none.
pub(super) fn size_within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let has_unit = text.ends_with(['b', 'B']);
    text.parse::<ByteSize>()
        .ok()
        .filter(|_| has_unit)
        .map(|size| size.as_u64())
        .filter(|size| (least..=most).contains(size))
        .ok_or_else(|| {
            let (least, most) = (render_size(least), render_size(most));
            format!("a size with a unit from {least} to {most}, such as 128MiB or 1GB")
        })
}

/// The largest binary unit that is exact: `128MiB`.
pub(super) fn render_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let exact = (bytes.trailing_zeros() as usize / 10).min(UNITS.len() - 1);
    format!("{}{}", bytes >> (10 * exact), UNITS[exact])
}

/// A share between two bounds, both included: `0.001`, or `0.1%`.
pub(super) fn share_within(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let (number, of) = match text.strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 100.0),
        None => (text, 1.0),
    };
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    number
        .parse::<f64>()
        .ok()
        .filter(|_| plain)
        .map(|number| number / of)
        .filter(|share| (least..=most).contains(share))
        .ok_or_else(|| format!("a share from {least} to {most}, such as 0.001 or 0.1%"))
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "an IP address and a port, such as 0.0.0.0:9464".to_owned())
}

/// `host:port`, comma separated; each port is needed, as a forgotten one shows only as a time-out.
pub(super) fn bootstrap_servers(text: &str) -> Result<String, String> {
    let one = |server: &str| {
        let server = server.split_once("://").map_or(server, |(_, rest)| rest);
        server.rsplit_once(':').is_some_and(|(host, port)| {
            let host_ok = !host.is_empty() && !host.contains([' ', '/', '@']);
            // More than one colon is an IPv6 address, which needs brackets to have a port.
            let host_ok = host_ok && (!host.contains(':') || host.ends_with(']'));
            host_ok && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    if text.split(',').all(|server| one(server.trim())) {
        return Ok(text.to_owned());
    }
    Err("host:port, comma separated, such as broker-1:9092,broker-2:9092".to_owned())
}

pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("something that is not empty".to_owned());
    }
    Ok(text.to_owned())
}

/// A tracing filter. A bare word that is no level would silently be taken for a module.
pub(crate) fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let bare = |part: &str| !part.contains(['=', '[']);
    let known = |part: &str| LEVELS.contains(&part.to_lowercase().as_str());
    let parts_ok = text
        .split(',')
        .map(str::trim)
        .all(|part| !bare(part) || known(part));
    if parts_ok && tracing_subscriber::EnvFilter::builder().parse(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err("error, warn, info, debug or trace, or a filter such as info,rdkafka=debug".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units() {
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("1d 12h").unwrap(), Duration::from_secs(129_600));
        assert_eq!(duration("100ms").unwrap(), Duration::from_millis(100));
        assert!(duration("30").unwrap_err().contains("bare number"));
        for text in [
            "",
            " ",
            "24 hours ago",
            "1.5h",
            "-1s",
            "h",
            "1h30",
            "1M",
            "µs",
            "1 h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration("99999999999999999999d").is_err());
        assert!(duration("9999999999999999999d").is_err());
    }

    #[test]
    fn durations_are_written_back_with_one_unit() {
        for text in ["0ms", "1ms", "1500ms", "90s", "90m", "24h", "36h", "7d"] {
            assert_eq!(render_duration(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn counts_may_be_grouped() {
        assert_eq!(count_within("50_000_000", 1, u64::MAX).unwrap(), 50_000_000);
        for text in ["", "_1", "1_", "1__0", "+1", "-1", "1.0", "1e3", "0", "101"] {
            assert!(count_within(text, 1, 100).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_need_units_and_are_written_back() {
        assert_eq!(size_within("64MiB", 1, u64::MAX), Ok(64 << 20));
        assert_eq!(size_within("1 GB", 1, u64::MAX), Ok(1_000_000_000));
        for text in ["", "64", "64M", "MiB", "-1MiB", "2GiB"] {
            assert!(size_within(text, 1, 1 << 30).is_err(), "{text}");
        }
        for text in ["1B", "1000B", "1KiB", "128MiB", "3GiB", "1TiB", "1024TiB"] {
            assert_eq!(render_size(size_within(text, 1, u64::MAX).unwrap()), text);
        }
    }

    #[test]
    fn shares_may_be_percentages() {
        assert_eq!(
            share_within("0.1%", 0.0, 1.0),
            share_within("0.001", 0.0, 1.0)
        );
        assert_eq!(share_within("1 %", 0.0, 1.0), Ok(0.01));
        for text in ["", "%", "-0.1", "1e-3", "NaN", "inf", "2", "0.1%%", "0,1"] {
            assert!(share_within(text, 0.0001, 1.0).is_err(), "{text}");
        }
    }

    #[test]
    fn servers_need_ports() {
        for text in ["a:1", "a:1, b:2", "SASL_SSL://a:9093", "[::1]:9092"] {
            assert!(bootstrap_servers(text).is_ok(), "{text}");
        }
        for text in [
            "", "a", "a:", ":9", "a:0", "a:99999", "a:1,,b:2", "::1:9092", "a b:1",
        ] {
            assert!(bootstrap_servers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_module() {
        assert!(log_level("info,rdkafka=debug").is_ok());
        assert!(log_level("inf").is_err());
        assert!(log_level("rdkafka=loud").is_err());
    }
}
