//! Ids of a file: one a line, or CSV with a head. Read twice: once to find its faults, before anything
//! is written.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::LeftOut;
use super::arguments::{Order, is_single, time_ms};
use super::writer::Writer;
use crate::config::Scope;
use crate::exit::Stop;
use crate::identify::{deployment_seed, fingerprint};
use crate::inspect::{Progress, deployment, from_hex};
use crate::window::Fingerprint;

/// A line is never longer, in bytes (I8).
const LINE_MAX_BYTES: u64 = 1 << 20;

/// What a line says.
struct Line {
    /// `None` is every partition.
    partition: Option<usize>,
    time_ms: Option<i64>,
    /// `None` where the line tells of time alone, or has an empty id.
    id: Option<Fingerprint>,
    is_time_alone: bool,
}

/// Finds the faults of a file.
///
/// # Errors
/// 64 where it cannot be read, or a line is wrong.
pub fn check(path: &Path, hex: bool, order: &Order, partitions: usize) -> Result<(), Stop> {
    each(path, hex, order, partitions, "bytes checked", |_| Ok(())).map(drop)
}

/// Lets the ids of all lines through.
///
/// # Errors
/// As of [`Writer::put`], and as of [`check`].
pub fn read(
    path: &Path,
    hex: bool,
    order: &Order,
    writer: &mut Writer<'_>,
) -> Result<LeftOut, Stop> {
    let partitions = writer.partitions();
    each(path, hex, order, partitions, "bytes read", |line| {
        let chosen = match (line.id.and_then(|id| writer.place_of(id)), line.partition) {
            (Some(partition), _) | (None, Some(partition)) => partition..partition + 1,
            (None, None) => 0..partitions,
        };
        for partition in chosen {
            // A line without a time counts as now.
            if let Some(time_ms) = line
                .time_ms
                .or((!line.is_time_alone).then_some(order.wall_ms))
            {
                writer.observe(partition, time_ms);
            }
            if let Some(id) = line.id {
                writer.put(partition, id)?;
            }
        }
        Ok(())
    })
}

fn each(
    path: &Path,
    hex: bool,
    order: &Order,
    partitions: usize,
    what: &'static str,
    mut see: impl FnMut(&Line) -> Result<(), Stop>,
) -> Result<LeftOut, Stop> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Stop::usage(format!("--from-file {}: {error}", path.display()))
    };
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let bytes = file.metadata().map_or(0, |data| data.len());
    let progress = Progress::new(bytes, what);
    let mut input = Lines {
        input: BufReader::new(file),
        number: 0,
        line: Vec::new(),
    };
    let mut left_out = LeftOut::default();
    let mut columns = None;
    while input.next().map_err(|why| unreadable(&why))? {
        progress.add(input.line.len() as u64 + 1);
        let wrong = |why: String| {
            Stop::usage(format!(
                "--from-file {}:{}: {why}",
                path.display(),
                input.number
            ))
        };
        if input.number == 1 {
            columns = Columns::of(&input.line, order).map_err(&wrong)?;
            if columns.is_some() {
                continue;
            }
            if !is_single(&order.config.id.from) {
                return Err(wrong(PUT_TOGETHER.to_owned()));
            }
        }
        let line = match &columns {
            None => Some(Line {
                partition: None,
                time_ms: None,
                id: id(&input.line, hex, order).map_err(&wrong)?,
                is_time_alone: false,
            }),
            Some(columns) => columns
                .read(&input.line, hex, order, partitions)
                .map_err(&wrong)?,
        };
        match line {
            None => left_out.of_other_topics += 1,
            Some(line) => {
                left_out.without_id += u64::from(line.id.is_none() && !line.is_time_alone);
                see(&line)?;
            }
        }
    }
    Ok(left_out)
}

const PUT_TOGETHER: &str = "id.from puts several values together, and a file has one: only an export, with its fingerprints, can be preloaded";

fn id(bytes: &[u8], hex: bool, order: &Order) -> Result<Option<Fingerprint>, String> {
    let bytes = match hex {
        false => bytes.to_vec(),
        true => str::from_utf8(bytes)
            .ok()
            .and_then(from_hex)
            .ok_or("an id is no even number of digits 0-9 and a-f (--hex)")?,
    };
    let seed = deployment_seed(&order.config.kafka.group_id);
    Ok((!bytes.is_empty()).then(|| fingerprint(&bytes, seed)))
}

/// Lines, with neither their ends nor a mark of the byte order.
struct Lines {
    input: BufReader<File>,
    number: u64,
    line: Vec<u8>,
}

impl Lines {
    fn next(&mut self) -> Result<bool, String> {
        use std::io::Read;
        self.line.clear();
        let mut bounded = self.input.by_ref().take(LINE_MAX_BYTES);
        let read = bounded
            .read_until(b'\n', &mut self.line)
            .map_err(|error| error.to_string())?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read as u64 == LINE_MAX_BYTES {
            return Err(format!(
                "line {} is longer than {LINE_MAX_BYTES} bytes",
                self.number
            ));
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        if self.number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
            self.line.drain(..3);
        }
        Ok(true)
    }
}

/// Where the columns of a CSV file are.
struct Columns {
    id: Option<usize>,
    fingerprint: Option<usize>,
    time: Option<usize>,
    partition: Option<usize>,
    topic: Option<usize>,
    deployment: Option<usize>,
    count: usize,
}

impl Columns {
    /// `None` where the line is no head, so that the file has an id a line.
    fn of(line: &[u8], order: &Order) -> Result<Option<Self>, String> {
        let names = fields(line)?;
        let at = |wanted: &[&str]| {
            names
                .iter()
                .position(|name| wanted.iter().any(|wanted| name == wanted.as_bytes()))
        };
        let columns = Self {
            id: at(&["id"]),
            fingerprint: at(&["fingerprint"]),
            time: at(&["time", "time_seen"]),
            partition: at(&["partition"]),
            topic: at(&["topic"]),
            deployment: at(&["deployment"]),
            count: names.len(),
        };
        match (columns.id, columns.fingerprint) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err("the head names id and fingerprint: give one of them".to_owned())
            }
            (Some(_), None) if !is_single(&order.config.id.from) => Err(PUT_TOGETHER.to_owned()),
            (None, Some(_)) if columns.deployment.is_none() => Err(
                "a fingerprint without the column deployment, which export writes: whose it is cannot be told".to_owned(),
            ),
            _ => Ok(Some(columns)),
        }
    }

    /// `None` for a line of another topic.
    fn read(
        &self,
        line: &[u8],
        hex: bool,
        order: &Order,
        partitions: usize,
    ) -> Result<Option<Line>, String> {
        let fields = fields(line)?;
        if fields.len() != self.count {
            return Err(format!(
                "found {} columns, and the head has {}",
                fields.len(),
                self.count
            ));
        }
        let text = |column: Option<usize>| -> Result<Option<&str>, String> {
            let field = column.map(|column| &fields[column][..]).unwrap_or_default();
            let text = str::from_utf8(field).map_err(|_| "not UTF-8 text".to_owned())?;
            Ok(Some(text.trim()).filter(|text| !text.is_empty()))
        };
        if text(self.topic)?.is_some_and(|topic| topic != order.topic) {
            return Ok(None);
        }
        // Where ids have a partition of their own, that of the input says nothing.
        let by_id = order.config.scope == Scope::Repartition;
        let partition = match text(self.partition)? {
            None => None,
            Some(number) => Some(
                number
                    .parse::<usize>()
                    .ok()
                    .filter(|number| *number < partitions || by_id)
                    .ok_or_else(|| {
                        format!(
                            "found partition {number}, expected 0 to {}, as {} has",
                            partitions.saturating_sub(1),
                            order.topic
                        )
                    })?,
            ),
        };
        let partition = partition.filter(|_| !by_id);
        let time_ms = match text(self.time)? {
            None => None,
            Some(time) => Some(time_ms(time).ok_or_else(|| {
                format!("found the time {time}, expected milliseconds since 1970, or 2026-01-31T12:00:00Z")
            })?),
        };
        let (id, is_time_alone) = match (self.id, self.fingerprint) {
            (Some(column), _) => (id(&fields[column], hex, order)?, false),
            (None, column) => {
                let ours = deployment(&order.config);
                let theirs = text(self.deployment)?.unwrap_or_default();
                if theirs != ours {
                    return Err(format!(
                        "the fingerprint is of the deployment {theirs:?}, and this config's is {ours}: kafka.group_id and id.from must be those of the export"
                    ));
                }
                match text(column)? {
                    None => (None, true),
                    Some(digits) => {
                        let parsed = Fingerprint::from_str_radix(digits, 16).ok();
                        let id = parsed.filter(|_| digits.len() == 32);
                        let id = id.ok_or("a fingerprint is not 32 digits 0-9 and a-f")?;
                        (Some(id), false)
                    }
                }
            }
        };
        Ok(Some(Line {
            partition,
            time_ms,
            id,
            is_time_alone,
        }))
    }
}

/// The fields of one line of CSV, by the rules of RFC 4180 (but a field holds no line end).
fn fields(line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    use csv_core::{ReadFieldResult, Reader};
    let mut reader = Reader::new();
    // A field is never longer than what it is read from.
    let mut field = vec![0; line.len() + 1];
    let (mut fields, mut rest, mut written) = (Vec::new(), line, 0);
    loop {
        let (result, read, wrote) = reader.read_field(rest, &mut field[written..]);
        rest = &rest[read..];
        written += wrote;
        match result {
            ReadFieldResult::InputEmpty => {}
            ReadFieldResult::Field { record_end } => {
                fields.push(field[..written].to_vec());
                written = 0;
                if record_end {
                    return Ok(fields);
                }
            }
            ReadFieldResult::End => return Ok(fields),
            ReadFieldResult::OutputFull => return Err("the line cannot be read as CSV".to_owned()),
        }
    }
}
