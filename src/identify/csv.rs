//! One column of the first line of a CSV value.

use csv_core::{ReadFieldResult, Reader, ReaderBuilder};

const QUOTE: u8 = b'"';
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Finds a column; keeps the parser and the buffer that quoted fields need.
pub(super) struct CsvColumn {
    /// Columns before the one that is wanted.
    skip: usize,
    delimiter: u8,
    parser: Reader,
    field: Vec<u8>,
}

impl CsvColumn {
    /// `column` counts from 1.
    pub fn new(column: usize, delimiter: u8) -> Self {
        Self {
            skip: column.saturating_sub(1),
            delimiter,
            parser: ReaderBuilder::new().delimiter(delimiter).build(),
            field: Vec::new(),
        }
    }

    /// The column's bytes, unquoted; `None` when the first line has fewer columns. Reads no
    /// further than the column's end. O(bytes up to there).
    pub fn find<'a>(&'a mut self, value: &'a [u8]) -> Option<&'a [u8]> {
        let line = value.strip_prefix(BOM).unwrap_or(value);
        let mut column = 0;
        let mut start = 0;
        for (at, &byte) in line.iter().enumerate() {
            let ends_line = byte == b'\n' || byte == b'\r';
            if byte == self.delimiter || ends_line {
                if column == self.skip {
                    return Some(&line[start..at]);
                }
                if ends_line {
                    return None;
                }
                column += 1;
                start = at + 1;
            } else if byte == QUOTE {
                return self.find_quoted(value);
            }
        }
        (column == self.skip).then(|| &line[start..])
    }

    /// The same by the full rules: a quoted field may hold delimiters, line ends and doubled
    /// quotes.
    pub(super) fn find_quoted(&mut self, mut value: &[u8]) -> Option<&[u8]> {
        self.parser.reset();
        // A field is never longer than what it is read from.
        self.field.resize(value.len(), 0);
        let mut column = 0;
        let mut written = 0;
        loop {
            let (result, read, wrote) = self.parser.read_field(value, &mut self.field[written..]);
            value = &value[read..];
            written += wrote;
            match result {
                // The empty input of the next round says that there is no more.
                ReadFieldResult::InputEmpty => {}
                ReadFieldResult::Field { record_end } => {
                    if column == self.skip {
                        return Some(&self.field[..written]);
                    }
                    if record_end {
                        return None;
                    }
                    column += 1;
                    written = 0;
                }
                ReadFieldResult::OutputFull | ReadFieldResult::End => return None,
            }
        }
    }
}
