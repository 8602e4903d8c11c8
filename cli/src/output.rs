//! What the commands print: text for people, or JSON in a stable shape.
//!
//! In JSON, bytes stand as text under their own name when they are UTF-8, and
//! else as standard base64 under the name with `_base64` at its end. Versions
//! are strings, because they do not fit a double. Times are RFC 3339. What
//! does not exist is `null`. Fields may be added; none changes its meaning.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder_client::{Account, Entry, TokenInfo};
use serde_json::{Map, Value, json};

use crate::units::show_time;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Standard output. Everything goes through it, so that a reader who went
/// away is noticed in one place.
pub(crate) struct Output {
    pub(crate) format: Format,
    writer: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            writer: BufWriter::new(io::stdout()),
        }
    }

    /// Prints `value` in JSON, else `text`, and a line end.
    pub(crate) fn result(&mut self, value: &Value, text: &str) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(value),
            Format::Text => self.line(text),
        }
    }

    /// One JSON value on a line of its own.
    pub(crate) fn json(&mut self, value: &Value) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, value)?;
        self.writer.write_all(b"\n")
    }

    /// One line of text.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes())?;
        self.writer.write_all(b"\n")
    }

    /// Bytes as they are, and a line end only for a person's eyes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)?;
        if is_terminal() && !bytes.ends_with(b"\n") {
            self.writer.write_all(b"\n")?;
        }
        Ok(())
    }

    /// A table with a head, columns aligned; JSON is not its business.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        for line in align(head, rows) {
            self.line(&line)?;
        }
        Ok(())
    }

    /// Names and values, one a line, aligned.
    pub(crate) fn pairs(&mut self, pairs: &[(&str, String)]) -> io::Result<()> {
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in pairs {
            self.line(format!("{name:width$}  {value}").trim_end())?;
        }
        Ok(())
    }

    /// The place for bytes in bulk.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.writer
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// True if standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Adds bytes under `name`, or under `name_base64` if they are no text.
pub(crate) fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.into(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// Bytes in a list: text, or `{"base64": …}` if they are none.
fn bytes_value(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

/// An object that begins with a key.
pub(crate) fn key_object(key: &[u8]) -> Map<String, Value> {
    let mut object = Map::new();
    put_bytes(&mut object, "key", key);
    object
}

/// `key`, `version`, `expire_time`, `size_bytes` and `flags` of an entry.
pub(crate) fn entry_object(entry: &Entry) -> Map<String, Value> {
    let mut object = key_object(&entry.key);
    object.insert("version".into(), entry.version.to_string().into());
    object.insert(
        "expire_time".into(),
        entry.expire_time.map(show_time).into(),
    );
    object.insert("size_bytes".into(), entry.size_bytes.into());
    object.insert("flags".into(), entry.flags.into());
    object
}

/// `name`, `display_name`, limits (`null` for none), `at_limit`, `etag`, `uid`.
pub(crate) fn account_object(account: &Account) -> Value {
    let settings = &account.settings;
    json!({
        "name": account.name,
        "display_name": settings.display_name,
        "max_keys": settings.max_keys,
        "max_bytes": settings.max_bytes,
        "max_requests_per_second": settings.max_requests_per_second,
        "at_limit": settings.at_limit.name(),
        "etag": account.etag,
        "uid": account.uid,
    })
}

/// `name`, `actions`, `namespaces` and `key_prefixes` (both empty for all),
/// `expire_time`.
pub(crate) fn token_object(token: &TokenInfo) -> Map<String, Value> {
    let mut object = Map::new();
    let actions: Vec<_> = token
        .rights
        .actions
        .iter()
        .map(|action| action.name())
        .collect();
    object.insert("name".into(), token.name.clone().into());
    object.insert("actions".into(), actions.into());
    object.insert("namespaces".into(), token.rights.namespaces.clone().into());
    let prefixes = token.rights.key_prefixes.iter();
    let prefixes: Vec<Value> = prefixes.map(|prefix| bytes_value(prefix)).collect();
    object.insert("key_prefixes".into(), prefixes.into());
    object.insert(
        "expire_time".into(),
        token.rights.expire_time.map(show_time).into(),
    );
    object
}

/// Bytes as one line that no terminal misunderstands: control characters,
/// backslashes and what is no UTF-8 are written as `\n`, `\\`, `\xff` and the
/// like.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c.is_control() || is_direction_mark(c) {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// Characters that make a line read otherwise than it is stored.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Pads every column but the last to its widest cell.
fn align(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head = head.iter().map(|&cell| String::from(cell)).collect();
    std::iter::once(&head)
        .chain(rows)
        .map(|row: &Vec<String>| {
            let cells: Vec<_> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_or_base64() {
        let mut object = Map::new();
        put_bytes(&mut object, "key", "gö".as_bytes());
        put_bytes(&mut object, "value", b"\xff\0");
        assert_eq!(
            Value::from(object),
            json!({"key": "gö", "value_base64": "/wA="})
        );
    }

    #[test]
    fn what_a_terminal_sees() {
        for (bytes, shown) in [
            (&b"plain key/1"[..], "plain key/1"),
            ("grün".as_bytes(), "grün"),
            (b"a\nb\x1b[31m", "a\\nb\\u{1b}[31m"),
            (b"\\x41", "\\\\x41"),
            (b"\xffz", "\\xffz"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
        ] {
            assert_eq!(escape(bytes), shown);
        }
    }

    #[test]
    fn columns() {
        let rows = vec![
            vec!["team".into(), "1".into(), String::new()],
            vec!["längerer".into(), "22".into(), "x".into()],
        ];
        assert_eq!(
            align(&["NAME", "KEYS", "NOTE"], &rows),
            ["NAME      KEYS  NOTE", "team      1", "längerer  22    x"]
        );
    }
}
