//! What the header blocks of answers mean. Almost all are the same few, which
//! are recognised by their bytes.

use larder_transport::hpack::{Decoder, Fields, HpackError};

use super::super::message;

/// Blocks that are recognised: of a header, of trailers, and what a server may
/// have beside them.
const KNOWN: usize = 4;

/// Largest header list of an answer, bytes.
const MAX_LIST_BYTES: usize = 64 << 10;

/// What counts of a header block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// `:status`, if there is one.
    pub(super) http_status: Option<u16>,
    /// `grpc-status`, if there is one.
    pub(super) grpc_status: Option<u32>,
    /// The reason in `grpc-status-details-bin`.
    pub(super) reason: Option<String>,
}

/// The decoder of one connection.
pub(super) struct Meanings {
    decoder: Decoder,
    fields: Fields,
    known: Vec<Known>,
    next: usize,
}

struct Known {
    generation: u64,
    block: Vec<u8>,
    meaning: Meaning,
}

impl Meanings {
    /// With a table of `table_bytes`, which is what the peer was told.
    pub(super) fn new(table_bytes: usize) -> Self {
        Self {
            decoder: Decoder::new(table_bytes),
            fields: Fields::default(),
            known: Vec::with_capacity(KNOWN),
            next: 0,
        }
    }

    pub(super) fn of(&mut self, block: &[u8]) -> Result<Meaning, HpackError> {
        let generation = self.decoder.generation();
        let known = self
            .known
            .iter()
            .find(|known| known.generation == generation && known.block == block);
        if let Some(known) = known {
            return Ok(known.meaning.clone());
        }
        let decoded = self
            .decoder
            .decode(block, &mut self.fields, MAX_LIST_BYTES)?;
        let meaning = meaning(&self.fields);
        if decoded.repeatable && meaning.reason.is_none() {
            let known = Known {
                generation,
                block: block.to_vec(),
                meaning: meaning.clone(),
            };
            if self.known.len() < KNOWN {
                self.known.push(known);
            } else {
                self.known[self.next] = known;
                self.next = (self.next + 1) % KNOWN;
            }
        }
        Ok(meaning)
    }
}

fn meaning(fields: &Fields) -> Meaning {
    Meaning {
        http_status: fields.value(b":status").and_then(number),
        // A number beyond the table, or none at all, is UNKNOWN.
        grpc_status: fields
            .value(b"grpc-status")
            .map(|value| number(value).unwrap_or(2)),
        reason: fields
            .value(b"grpc-status-details-bin")
            .and_then(message::reason),
    }
}

fn number<N: std::str::FromStr>(value: &[u8]) -> Option<N> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
