//! The command line of `verify`: which partitions, which range of each. Touches nothing.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;

const NOTES: &str = "\
What it does: reads input, output and (where configured) the duplicates and rejected topics, read_committed,
replays the rules of the file over the range that the group has committed, and compares record by record:
key, value, headers, timestamp, partition and order. It may run beside the service. It joins no group,
commits nothing and makes nothing. The rules are those of the file as it is now: audit what was judged
under another id.from, id.missing or window with that file, and --from and --to.

What it calls what:
  missing    it should be there, and is not
  extra      it is there, and should not be (a duplicate let through, another writer, an older output)
  altered    it is there with another key, value, headers or timestamp
  reordered  it is there, and not in its place (the fewest records that must have moved are counted)
  unknown    whether it should be there cannot be known any more, and nothing speaks against it
A record more than some 16,000 records away from its place is missing there, and extra here.

What cannot be known is said in a line \"cannot know\": where retention has taken the beginning of the input,
ids that were let through before are not known until stream time is one window further; where it has taken
the beginning of the output, what should be there is only counted; the wall clock at which a record far in
the future was judged is known from the journal, as far as that reaches back.

Memory: the ids of a window, about 60 to 130 bytes each, of one partition at a time; of all partitions of a
topic with output.partition: key, and of all topics where they share an output.

Examples:
  kafka-dedup verify -c dedup.yaml
  kafka-dedup verify -c dedup.yaml --topic orders --partition 3 --from 6h
  kafka-dedup verify -c dedup.yaml --strict --json | jq .verdict

Exit status: 0 no difference (with --strict: and nothing that cannot be known), 1 differences, 64 bad usage
or config, 69 Kafka unreachable, 70 defect, 75 records were deleted while they were read: run it again,
78 a topic is missing, may not be read, or nothing was committed yet, 130 ended by Ctrl-C or SIGTERM.";

/// `kafka-dedup verify`
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = NOTES)]
pub struct VerifyArgs {
    /// Configuration file (YAML), that of the service
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// Only this input topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only this partition of the input
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Where to begin in the input: earliest, an offset, a time (2026-01-31T12:00:00Z), or how long ago (24h)
    #[arg(long, value_name = "WHERE", default_value = "earliest")]
    pub from: Bound,
    /// Where to end in the input: committed, or as --from
    #[arg(long, value_name = "WHERE", default_value = "committed")]
    pub to: Bound,
    /// Memory for the ids of a window
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = memory)]
    pub memory: ByteSize,
    /// How many differences are described
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub show: u16,
    /// Exit with 1 also where something cannot be known
    #[arg(long)]
    pub strict: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// An end of the range, the same for all partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// As far as there is something to audit.
    Natural,
    Offset(i64),
    /// Milliseconds since 1970: the first record that is not older.
    Time(i64),
    Ago(Duration),
}

impl Bound {
    /// With a duration made a time.
    pub fn at(self, now: SystemTime) -> Self {
        let ms = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        };
        match self {
            Self::Ago(ago) => now
                .checked_sub(ago)
                .map_or(Self::Time(0), |time| Self::Time(ms(time))),
            other => other,
        }
    }
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "earliest" | "committed") {
            return Ok(Self::Natural);
        }
        if let Ok(offset) = text.parse::<u32>().map(i64::from).or(text.parse::<i64>())
            && offset >= 0
        {
            return Ok(Self::Offset(offset));
        }
        if let Ok(time) = humantime::parse_rfc3339_weak(text) {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            return Ok(Self::Time(
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            ));
        }
        humantime::parse_duration(text).map(Self::Ago).map_err(|_| {
            "expected an offset, a time in UTC such as 2026-01-31T12:00:00Z, or a duration such as 24h \
             or 7d"
                .to_owned()
        })
    }
}

fn memory(text: &str) -> Result<ByteSize, String> {
    let bare = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<ByteSize>() {
        Ok(size) if !bare && (ByteSize::mib(1)..=ByteSize::tib(1)).contains(&size) => Ok(size),
        _ => Err("expected a size with a unit from 1MiB to 1TiB, such as 512MB or 4GiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_offsets_times_and_durations() {
        let bound = |text: &str| text.parse::<Bound>();
        assert_eq!(bound("earliest"), Ok(Bound::Natural));
        assert_eq!(bound("committed"), Ok(Bound::Natural));
        assert_eq!(bound("0"), Ok(Bound::Offset(0)));
        assert_eq!(bound("12345678901"), Ok(Bound::Offset(12_345_678_901)));
        assert_eq!(bound("1970-01-01T00:00:01Z"), Ok(Bound::Time(1000)));
        assert_eq!(bound("2h"), Ok(Bound::Ago(Duration::from_secs(7200))));
        for text in ["-1", "yesterday", "", "1.5"] {
            assert!(bound(text).is_err(), "{text}");
        }
        let now = UNIX_EPOCH + Duration::from_secs(10);
        assert_eq!(
            Bound::Ago(Duration::from_secs(4)).at(now),
            Bound::Time(6000)
        );
        assert_eq!(Bound::Ago(Duration::from_secs(99)).at(now), Bound::Time(0));
    }

    #[test]
    fn sizes_have_units_and_bounds() {
        assert_eq!(memory("2GiB"), Ok(ByteSize::gib(2)));
        for text in ["1024", "1KB", "2TiB", "much"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }
}
