//! RFC 7541, sections 2.3 and 6: the header blocks of requests.
//!
//! What is the same for all calls of a method is inserted into the peer's dynamic
//! table by the first of them. From the second on the block is known whole, and is
//! copied: byte for byte the same, which is also what this crate's server knows
//! again without looking into it (`connection/block_cache.rs`). Nothing is ever
//! evicted: when the table is full, what comes after is sent as it is.

use std::sync::Arc;
use std::time::Duration;

use super::head::{Field, Fixed, Indexing, RequestHead, Scheme};
use crate::hpack::{
    ENTRY_OVERHEAD_BYTES, write_indexed, write_inserted, write_literal, write_never_indexed,
    write_table_size,
};

/// Index of the newest entry of a dynamic table.
const FIRST_DYNAMIC: usize = 62;
/// The table that a peer has if it does not say otherwise, bytes.
const TABLE_BYTES: u32 = 4096;
/// `:method POST`, `:scheme http` and `:scheme https` in the static table.
const METHOD_POST: usize = 3;
const SCHEME_HTTP: usize = 6;
const SCHEME_HTTPS: usize = 7;
/// Heads whose block is known. A client of more methods than that at a time writes
/// some of them anew.
const MAX_KNOWN: usize = 64;

/// The encoding end of a connection's requests.
#[derive(Default)]
pub(super) struct HeadEncoder {
    /// What stands in the peer's table, the oldest first.
    inserted: Vec<(Box<str>, Box<[u8]>)>,
    inserted_bytes: usize,
    /// Whole blocks, as long as nothing more is inserted.
    known: Vec<Known>,
    /// The one that was used last.
    last: usize,
    /// The peer's table is smaller than usual, and is not used at all.
    without_table: bool,
    /// It has still to be told so.
    tell_size: bool,
}

struct Known {
    id: u64,
    block: Vec<u8>,
}

impl HeadEncoder {
    /// Takes over the peer's `SETTINGS_HEADER_TABLE_SIZE`.
    pub(super) fn set_table_limit(&mut self, bytes: u32) {
        if bytes < TABLE_BYTES && !self.without_table {
            *self = Self {
                without_table: true,
                tell_size: true,
                ..Self::default()
            };
        }
    }

    /// Appends the block of a call that has `left` until its deadline.
    #[inline]
    pub(super) fn write(&mut self, head: &RequestHead, left: Option<Duration>, out: &mut Vec<u8>) {
        let id = head.fixed.id;
        match self.known.get(self.last) {
            Some(known) if known.id == id => out.extend_from_slice(&known.block),
            _ => self.write_other(&head.fixed, out),
        }
        if let Some(left) = left {
            let mut digits = [0; TIMEOUT_BYTES];
            write_literal(out, b"grpc-timeout", timeout(left, &mut digits));
        }
        for field in &head.metadata {
            let (name, value) = (field.name.as_bytes(), &field.value);
            match field.indexing {
                Indexing::Never => write_never_indexed(out, name, value),
                Indexing::Inserted => write_literal(out, name, value),
            }
        }
    }

    fn write_other(&mut self, fixed: &Arc<Fixed>, out: &mut Vec<u8>) {
        if let Some(place) = self.known.iter().position(|known| known.id == fixed.id) {
            self.last = place;
            out.extend_from_slice(&self.known[place].block);
            return;
        }
        if std::mem::take(&mut self.tell_size) {
            write_table_size(out, 0);
        }
        let (start, before) = (out.len(), self.inserted.len());
        write_indexed(out, METHOD_POST);
        let scheme = match fixed.scheme {
            Scheme::Http => SCHEME_HTTP,
            Scheme::Https => SCHEME_HTTPS,
        };
        write_indexed(out, scheme);
        for field in &fixed.fields {
            self.field(field, out);
        }
        if self.inserted.len() != before {
            // Every index has moved.
            self.known.clear();
            return;
        }
        if self.known.len() == MAX_KNOWN {
            self.known.clear();
        }
        self.last = self.known.len();
        self.known.push(Known {
            id: fixed.id,
            block: out[start..].to_vec(),
        });
    }

    fn field(&mut self, field: &Field, out: &mut Vec<u8>) {
        let (name, value) = (field.name.as_bytes(), &field.value);
        if field.indexing == Indexing::Never {
            write_never_indexed(out, name, value);
            return;
        }
        let is_it = |(n, v): &(Box<str>, Box<[u8]>)| *n == field.name && v == value;
        if let Some(place) = self.inserted.iter().position(is_it) {
            write_indexed(out, FIRST_DYNAMIC + self.inserted.len() - 1 - place);
            return;
        }
        let bytes = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        let fits = self.inserted_bytes + bytes <= TABLE_BYTES as usize;
        if self.without_table || !fits {
            write_literal(out, name, value);
            return;
        }
        write_inserted(out, name, value);
        self.inserted.push((field.name.clone(), value.clone()));
        self.inserted_bytes += bytes;
    }
}

/// Eight digits and a unit.
const TIMEOUT_BYTES: usize = 9;
/// "TimeoutValue": at most eight digits.
const MAX_TIMEOUT: u128 = 99_999_999;

/// gRPC over HTTP/2, "Timeout": what is left, rounded up by at most 1 in 100: to a
/// millisecond from 100 ms on, to 100 µs from 10 ms on, else to a microsecond.
///
/// Rounded up, so that a server never gives up before its client; and coarsely, so
/// that the calls of a client that always waits as long have the same bytes, however
/// many microseconds after its beginning each is written. The client keeps the exact
/// time itself.
fn timeout(left: Duration, digits: &mut [u8; TIMEOUT_BYTES]) -> &[u8] {
    let micros = left.as_nanos().div_ceil(1_000).max(1);
    let (mut value, mut unit) = match micros {
        0..10_000 => (micros, b'u'),
        10_000..100_000 => (micros.div_ceil(100) * 100, b'u'),
        _ => (micros.div_ceil(1_000), b'm'),
    };
    for (longer, times) in [(b'S', 1_000), (b'M', 60), (b'H', 60)] {
        if value > MAX_TIMEOUT {
            (value, unit) = (value.div_ceil(times), longer);
        }
    }
    let mut value = value.min(MAX_TIMEOUT);
    let mut at = digits.len() - 1;
    digits[at] = unit;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 || at == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hpack::{Decoder, Fields};

    fn head(path: &str) -> RequestHead {
        RequestHead::new(Scheme::Http, "host:1", path).unwrap()
    }

    fn read(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Fields::default();
        decoder.decode(block, &mut fields, 1 << 20).unwrap();
        let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
        fields.iter().map(|(n, v)| (text(n), text(v))).collect()
    }

    #[test]
    fn a_peer_reads_what_was_meant_however_its_table_is() {
        for table in [4096, 100_000, 4095, 0] {
            let mut encoder = HeadEncoder::default();
            encoder.set_table_limit(table);
            let mut decoder = Decoder::new(table as usize);
            let heads: Vec<_> = (0..100)
                .map(|number| {
                    let head = head(&format!("/a.Service/Method{number}"));
                    let head = head.with("user-agent", b"tests/1").unwrap();
                    head.with_never_indexed("authorization", b"Bearer x")
                        .unwrap()
                })
                .collect();
            let mut lengths = Vec::new();
            for turn in 0..3 {
                for head in &heads {
                    let mut head = head.clone();
                    if turn == 1 {
                        head.metadata("traceparent", b"00-1").unwrap();
                    }
                    let mut block = Vec::new();
                    encoder.write(&head, Some(Duration::from_secs(5)), &mut block);
                    let fields = read(&mut decoder, &block);
                    let mut expected: Vec<(String, String)> = [
                        (":method", "POST"),
                        (":scheme", "http"),
                        (":path", head.path()),
                        (":authority", "host:1"),
                        ("content-type", "application/grpc"),
                        ("te", "trailers"),
                        ("user-agent", "tests/1"),
                        ("authorization", "Bearer x"),
                        ("grpc-timeout", "5000m"),
                    ]
                    .map(|(n, v)| (n.into(), v.into()))
                    .into();
                    if turn == 1 {
                        expected.push(("traceparent".into(), "00-1".into()));
                    }
                    assert_eq!(fields, expected);
                    lengths.push(block.len());
                }
            }
            let shortest = lengths.iter().min().copied().unwrap();
            assert_eq!(shortest < 60, table >= 4096, "{lengths:?}");
        }
    }

    #[test]
    fn a_method_called_again_has_the_same_bytes() {
        let mut encoder = HeadEncoder::default();
        let heads = [head("/a.B/C"), head("/a.B/D")];
        let mut write = |head| {
            let mut block = Vec::new();
            encoder.write(head, None, &mut block);
            block
        };
        for head in [&heads[0], &heads[1], &heads[0], &heads[1]] {
            write(head);
        }
        let (first, other) = (write(&heads[0]), write(&heads[1]));
        assert_ne!(first, other);
        assert_eq!(first, write(&heads[0]));
        assert_eq!(first.len(), 6);
    }

    #[test]
    fn a_deadline_is_rounded_up_and_by_little() {
        let check = |left: Duration, expected: &str| {
            let mut digits = [0; TIMEOUT_BYTES];
            assert_eq!(timeout(left, &mut digits), expected.as_bytes(), "{left:?}");
        };
        let micros = Duration::from_micros;
        check(Duration::ZERO, "1u");
        check(Duration::from_nanos(1), "1u");
        check(micros(9_999), "9999u");
        check(micros(10_001), "10100u");
        check(micros(99_901), "100000u");
        check(micros(100_000), "100m");
        check(micros(249_990), "250m");
        check(micros(4_999_001), "5000m");
        check(Duration::from_millis(99_999_999), "99999999m");
        check(Duration::from_millis(100_000_000), "100000S");
        check(Duration::from_secs(100_000_000), "1666667M");
        check(Duration::from_secs(60 * 100_000_000), "1666667H");
        check(Duration::MAX, "99999999H");
    }

    #[test]
    fn a_head_takes_what_it_can_have_and_hides_values() {
        assert!(RequestHead::new(Scheme::Http, "a", "no slash").is_err());
        assert!(RequestHead::new(Scheme::Http, "u@a", "/a").is_err());
        for (name, value) in [
            ("Upper", "x"),
            ("a", "b\n"),
            ("te", "x"),
            ("grpc-timeout", "1S"),
        ] {
            assert!(head("/a").with(name, value.as_bytes()).is_err(), "{name}");
            assert!(head("/a").metadata(name, value.as_bytes()).is_err());
        }
        let mut head = head("/a").with("user-agent", b"one").unwrap();
        head.metadata("x", b"1").unwrap();
        head.set_metadata("user-agent", b"two").unwrap();
        head.set_metadata("x", b"2").unwrap();
        assert_eq!(head.value("user-agent"), Some(&b"two"[..]));
        let names = [
            ":path",
            ":authority",
            "content-type",
            "te",
            "user-agent",
            "x",
        ];
        assert_eq!(head.names().collect::<Vec<_>>(), names);
        let mut hidden = head.clone().with_never_indexed("a", b"1").unwrap();
        hidden.set_metadata("a", b"2").unwrap();
        let mut out = Vec::new();
        HeadEncoder::default().write(&hidden, None, &mut out);
        let mut never = Vec::new();
        write_never_indexed(&mut never, b"a", b"2");
        assert!(out.ends_with(&never), "what nobody may keep stays so");
        let secret = head.with("authorization", b"Bearer s3cret").unwrap();
        assert!(!format!("{secret:?}").contains("s3cret"));
    }
}
