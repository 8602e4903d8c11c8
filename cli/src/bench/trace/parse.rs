//! From bytes to requests.

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, Read as _};

use super::{Request, TraceFormat};

/// Longest line of a trace, bytes: what is longer is no trace.
const MAX_LINE_BYTES: u64 = 4096;

/// Bytes of a key in [`TraceFormat::I32be`].
const RECORD_BYTES: u64 = 4;

/// How much of a bad line is shown, characters.
const MAX_SHOWN_CHARS: usize = 40;

/// Why a trace cannot be read.
#[derive(Debug)]
pub(in crate::bench) enum TraceError {
    /// The file, or its compression.
    Io(io::Error),
    /// What stands in it.
    Malformed {
        /// Such as `line 7`.
        position: String,
        /// What is wrong.
        problem: String,
    },
}

/// Reads requests of one format.
pub(super) struct Parser<R> {
    from: R,
    format: TraceFormat,
    /// Of the line or record that was read last; the first is 1.
    number: u64,
    line: Vec<u8>,
    /// Keys of a line of [`TraceFormat::Lis`] that are still to come.
    run: std::ops::Range<u64>,
    columns: Columns,
    /// After an error nothing more comes: the rest would be guessed.
    ended: bool,
}

/// Where the fields of [`TraceFormat::Csv`] stand.
#[derive(Debug, Default)]
struct Columns {
    count: usize,
    key: usize,
    size: Option<usize>,
}

impl<R: BufRead> Parser<R> {
    /// # Errors
    ///
    /// If there should be a header, and is none.
    pub(super) fn new(format: TraceFormat, from: R) -> Result<Self, TraceError> {
        let mut parser = Self {
            from,
            format,
            number: 0,
            line: Vec::new(),
            run: 0..0,
            columns: Columns::default(),
            ended: false,
        };
        if format == TraceFormat::Csv {
            parser.read_header()?;
        }
        Ok(parser)
    }

    /// The line or record that was read last.
    fn position(&self) -> String {
        let unit = match self.format {
            TraceFormat::I32be => "record",
            TraceFormat::Lis | TraceFormat::Ids | TraceFormat::Csv => "line",
        };
        format!("{unit} {}", self.number)
    }

    fn read_header(&mut self) -> Result<(), TraceError> {
        if !self.read_line()? {
            return Err(self.malformed("there is no header"));
        }
        let names: Vec<_> = text(&self.line)
            .map_err(|problem| self.malformed(problem))?
            .split(',')
            .map(str::trim)
            .collect();
        let find = |name| names.iter().position(|other| *other == name);
        let Some(key) = find("lbn") else {
            return Err(self.malformed("the header names no column `lbn`"));
        };
        self.columns = Columns {
            count: names.len(),
            key,
            size: find("size"),
        };
        Ok(())
    }

    /// The next request; `None` at the end.
    fn read(&mut self) -> Result<Option<Request>, TraceError> {
        if let Some(key) = self.run.next() {
            return Ok(Some(Request { key, size: None }));
        }
        if self.format == TraceFormat::I32be {
            return self.read_record();
        }
        while self.read_line()? {
            let parsed = text(&self.line).and_then(|line| match self.format {
                TraceFormat::Lis => lis(line).map(|run| {
                    self.run = run;
                    self.run.next().map(|key| Request { key, size: None })
                }),
                TraceFormat::Csv => csv(line, &self.columns).map(Some),
                TraceFormat::Ids | TraceFormat::I32be => ids(line),
            });
            match parsed {
                Ok(Some(request)) => return Ok(Some(request)),
                Ok(None) => {}
                Err(problem) => return Err(self.malformed(problem)),
            }
        }
        Ok(None)
    }

    fn read_record(&mut self) -> Result<Option<Request>, TraceError> {
        self.line.clear();
        self.number += 1;
        (&mut self.from)
            .take(RECORD_BYTES)
            .read_to_end(&mut self.line)
            .map_err(|error| self.broken(&error))?;
        match <[u8; 4]>::try_from(self.line.as_slice()) {
            // Keys are opaque: the sign is a bit like any other.
            Ok(bytes) => Ok(Some(Request {
                key: u32::from_be_bytes(bytes).into(),
                size: None,
            })),
            Err(_) if self.line.is_empty() => Ok(None),
            Err(_) => Err(self.malformed(format!(
                "the file ends after {} of {RECORD_BYTES} bytes",
                self.line.len()
            ))),
        }
    }

    /// Reads the next line that is not empty; false at the end.
    fn read_line(&mut self) -> Result<bool, TraceError> {
        loop {
            self.line.clear();
            self.number += 1;
            let read = (&mut self.from)
                .take(MAX_LINE_BYTES + 1)
                .read_until(b'\n', &mut self.line)
                .map_err(|error| self.broken(&error))?;
            if u64::try_from(read).is_ok_and(|read| read > MAX_LINE_BYTES) {
                return Err(self.malformed(format!("longer than {MAX_LINE_BYTES} bytes")));
            }
            if read == 0 {
                return Ok(false);
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn malformed(&self, problem: impl Into<String>) -> TraceError {
        TraceError::Malformed {
            position: self.position(),
            problem: problem.into(),
        }
    }

    /// A file that breaks off is worth its position too.
    fn broken(&self, error: &io::Error) -> TraceError {
        TraceError::Io(io::Error::new(
            error.kind(),
            format!("{}: {error}", self.position()),
        ))
    }
}

impl<R: BufRead> Iterator for Parser<R> {
    type Item = Result<Request, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Malformed { position, problem } => write!(f, "{position}: {problem}"),
        }
    }
}

impl Error for TraceError {}

impl From<io::Error> for TraceError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn text(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line.trim_ascii()).map_err(|_| "is no text".into())
}

fn lis(line: &str) -> Result<std::ops::Range<u64>, String> {
    let mut fields = line.split_ascii_whitespace();
    let (Some(first), Some(count), Some(_), Some(_), None) = (
        fields.next(),
        fields.next(),
        fields.next(),
        fields.next(),
        fields.next(),
    ) else {
        return Err(format!("{} is not four numbers", shown(line)));
    };
    let (first, count) = (number(first)?, number(count)?);
    let end = first
        .checked_add(count)
        .ok_or("the keys of this line go past 64 bits")?;
    Ok(first..end)
}

fn ids(line: &str) -> Result<Option<Request>, String> {
    if line == "*" {
        return Ok(None);
    }
    Ok(Some(Request {
        key: number(line)?,
        size: None,
    }))
}

fn csv(line: &str, columns: &Columns) -> Result<Request, String> {
    let (mut key, mut size, mut count) = (None, None, 0);
    for (index, field) in line.split(',').enumerate() {
        if index == columns.key {
            key = Some(number(field.trim())?);
        }
        if Some(index) == columns.size {
            size = Some(number(field.trim())?);
        }
        count += 1;
    }
    match key {
        Some(key) if count == columns.count => Ok(Request { key, size }),
        _ => Err(format!(
            "has {count} fields, and the header {}",
            columns.count
        )),
    }
}

fn number(text: &str) -> Result<u64, String> {
    // `parse` would take a sign.
    text.parse()
        .ok()
        .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| format!("{} is no number of 64 bits", shown(text)))
}

fn shown(text: &str) -> String {
    let cut: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("`{cut}{dots}`")
}

#[cfg(test)]
mod tests;
