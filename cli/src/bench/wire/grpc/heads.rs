//! The header blocks of requests, encoded once: what is the same for all calls
//! of a method is put into the peer's dynamic table (RFC 7541) by the first of
//! them, and is a byte a field from then on, as with any client that keeps to one
//! server.

use larder_transport::hpack::{
    ENTRY_OVERHEAD_BYTES, write_indexed, write_inserted, write_literal, write_table_size,
};

use super::super::super::mix::Operation;
use super::super::api::{Calls, Scheme, Tokens};

/// Index of the first entry of a dynamic table.
const FIRST_DYNAMIC: usize = 62;

/// The table that a peer has if it does not say otherwise, bytes.
const DEFAULT_TABLE_BYTES: u32 = 4096;

/// `:method POST`, `:scheme http` and `:scheme https` in the static table.
const METHOD_POST: usize = 3;
const SCHEME_HTTP: usize = 6;
const SCHEME_HTTPS: usize = 7;

/// How clients of gRPC name themselves.
const USER_AGENT: &str = concat!("grpc-larder-bench/", env!("CARGO_PKG_VERSION"));

/// The encoder of one connection.
#[derive(Default)]
pub(super) struct Heads {
    /// What stands in the peer's table, the oldest first.
    inserted: Vec<(&'static str, String)>,
    inserted_bytes: usize,
    /// Whole blocks of methods, as long as nothing more is inserted.
    templates: [Option<Vec<u8>>; Operation::COUNT],
    /// The peer's table is smaller than usual, and is not used at all.
    without_table: bool,
    /// It has still to be told so.
    tell_size: bool,
}

impl Heads {
    /// Takes over the peer's `SETTINGS_HEADER_TABLE_SIZE`.
    pub(super) fn set_table_limit(&mut self, bytes: u32) {
        if bytes < DEFAULT_TABLE_BYTES && !self.without_table {
            *self = Self {
                without_table: true,
                tell_size: true,
                ..Self::default()
            };
        }
    }

    /// Appends the block of a call: what is the same each time, the token if
    /// there are many, and the deadline.
    pub(super) fn write(
        &mut self,
        calls: &Calls,
        operation: Operation,
        index: u64,
        random: u64,
        out: &mut Vec<u8>,
    ) {
        match &self.templates[operation as usize] {
            Some(template) => out.extend_from_slice(template),
            None => self.learn(calls, operation, out),
        }
        if let Some(token) = calls.token_of(index) {
            write_literal(out, b"authorization", bearer(token).as_bytes());
        }
        if calls.deadline.is_some() {
            let mut value = Vec::with_capacity(9);
            calls.timeout(random, &mut value);
            write_literal(out, b"grpc-timeout", &value);
        }
    }

    fn learn(&mut self, calls: &Calls, operation: Operation, out: &mut Vec<u8>) {
        if self.tell_size {
            self.tell_size = false;
            write_table_size(out, 0);
        }
        let start = out.len();
        let before = self.inserted.len();
        write_indexed(out, METHOD_POST);
        write_indexed(
            out,
            match calls.scheme {
                Scheme::Http => SCHEME_HTTP,
                Scheme::Https => SCHEME_HTTPS,
            },
        );
        let path = calls.api.path(operation).unwrap_or_default();
        self.field(":path", path, out);
        self.field(":authority", &calls.authority, out);
        self.field("content-type", "application/grpc", out);
        self.field("user-agent", USER_AGENT, out);
        self.field("te", "trailers", out);
        if let Tokens::One(token) = &calls.tokens {
            self.field("authorization", &bearer(token), out);
        }
        if self.inserted.len() == before {
            self.templates[operation as usize] = Some(out[start..].to_vec());
        } else {
            // Every index has moved.
            self.templates = Default::default();
        }
    }

    fn field(&mut self, name: &'static str, value: &str, out: &mut Vec<u8>) {
        let place = self
            .inserted
            .iter()
            .position(|(n, v)| *n == name && v == value);
        if let Some(place) = place {
            write_indexed(out, FIRST_DYNAMIC + self.inserted.len() - 1 - place);
            return;
        }
        let bytes = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        let fits = self.inserted_bytes + bytes <= DEFAULT_TABLE_BYTES as usize;
        if self.without_table || !fits {
            write_literal(out, name.as_bytes(), value.as_bytes());
            return;
        }
        write_inserted(out, name.as_bytes(), value.as_bytes());
        self.inserted.push((name, value.to_owned()));
        self.inserted_bytes += bytes;
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[cfg(test)]
mod tests {
    use larder_transport::hpack::{Decoder, Fields};

    use super::super::super::api::Api;
    use super::super::super::api::tests::calls;
    use super::*;

    /// Each block means the same, however the table stands.
    #[test]
    fn a_peer_reads_what_was_meant() {
        for table in [4096, 100_000, 4095, 0] {
            let mut calls = calls(Api::V1);
            calls.tokens = Tokens::One("t".repeat(if table == 0 { 5_000 } else { 50 }));
            let mut heads = Heads::default();
            heads.set_table_limit(table);
            let mut decoder = Decoder::new(usize::try_from(table).unwrap());
            let mut lengths = Vec::new();
            for turn in 0..4 {
                for operation in [Operation::Get, Operation::Set, Operation::Incr] {
                    let mut block = Vec::new();
                    heads.write(&calls, operation, 0, turn, &mut block);
                    let mut fields = Fields::default();
                    decoder.decode(&block, &mut fields, 1 << 20).unwrap();
                    let value = |name: &str| {
                        let value = fields.value(name.as_bytes()).unwrap_or_default();
                        String::from_utf8(value.to_vec()).unwrap()
                    };
                    assert_eq!(value(":method"), "POST");
                    assert_eq!(value(":path"), calls.api.path(operation).unwrap());
                    assert_eq!(value("te"), "trailers");
                    assert!(value("authorization").starts_with("Bearer ttt"));
                    assert_eq!(value("grpc-timeout"), format!("{}u", 5_000_000 - turn));
                    assert_eq!(fields.len(), 9);
                    lengths.push(block.len());
                }
            }
            let last = lengths.last().copied().unwrap();
            assert_eq!(last < 40, table >= 4096, "{lengths:?}");
        }
    }

    #[test]
    fn many_tokens_are_sent_as_they_are() {
        let mut calls = calls(Api::Rpc);
        calls.tokens = Tokens::Many(vec!["a".into(), "b".into()]);
        let mut heads = Heads::default();
        let mut decoder = Decoder::new(4096);
        for (index, token) in [(0, "Bearer a"), (1, "Bearer b"), (2, "Bearer a")] {
            let mut block = Vec::new();
            heads.write(&calls, Operation::Get, index, 0, &mut block);
            let mut fields = Fields::default();
            decoder.decode(&block, &mut fields, 1 << 20).unwrap();
            assert_eq!(fields.value(b"authorization"), Some(token.as_bytes()));
        }
    }
}
