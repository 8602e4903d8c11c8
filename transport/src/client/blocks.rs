//! RFC 7541, section 3: the header blocks of answers. Nearly all are one of two,
//! which are known again by their bytes: no list of fields is made of them.

use super::answer;
use super::answer::Trailers;
use crate::hpack::{Decoder, Fields, HpackError};
use crate::message::{check_field, check_trailers};
use crate::rpc::Code;

/// `SETTINGS_HEADER_TABLE_SIZE` of this end: what a peer takes for granted.
const TABLE_BYTES: usize = 4096;
/// Blocks that are known.
const MAX_KNOWN: usize = 4;

/// What a block says.
pub(super) enum Block<'a> {
    /// `:status: 200` and gRPC's content type, and no more.
    PlainHead,
    /// `grpc-status: 0`, and no more.
    PlainOk,
    /// Anything else.
    Fields(&'a Fields),
    /// More than is taken.
    TooLarge,
}

/// What a known block says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    Head,
    Ok,
}

/// The decoding end of a connection's answers.
pub(super) struct Blocks {
    decoder: Decoder,
    fields: Fields,
    known: Vec<Known>,
    next: usize,
    max_list_bytes: usize,
}

struct Known {
    block: Vec<u8>,
    /// `None`: for ever.
    generation: Option<u64>,
    says: Plain,
}

impl Blocks {
    pub(super) fn new(max_list_bytes: usize) -> Self {
        Self {
            decoder: Decoder::new(TABLE_BYTES),
            fields: Fields::default(),
            known: Vec::new(),
            next: 0,
            max_list_bytes,
        }
    }

    /// Reads a block.
    ///
    /// # Errors
    /// The compression state is lost (RFC 9113, section 4.3).
    #[inline]
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Block<'_>, HpackError> {
        let generation = self.decoder.generation();
        let is_it = |known: &&Known| {
            known.block == block && known.generation.is_none_or(|then| then == generation)
        };
        match self.known.iter().find(is_it).map(|known| known.says) {
            Some(Plain::Head) => Ok(Block::PlainHead),
            Some(Plain::Ok) => Ok(Block::PlainOk),
            None => self.decode(block),
        }
    }

    /// The fields of the block that was read last, if it says [`Block::Fields`].
    pub(super) const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Bytes of memory that it holds.
    #[cfg(feature = "fuzzing")]
    pub(super) fn held_bytes(&self) -> usize {
        let known = self.known.iter().map(|known| known.block.capacity());
        self.decoder.held_bytes() + self.fields.held_bytes() + known.sum::<usize>()
    }

    fn decode(&mut self, block: &[u8]) -> Result<Block<'_>, HpackError> {
        let decoded = self
            .decoder
            .decode(block, &mut self.fields, self.max_list_bytes)?;
        if decoded.oversize {
            return Ok(Block::TooLarge);
        }
        let Some(says) = plain(&self.fields) else {
            return Ok(Block::Fields(&self.fields));
        };
        if decoded.repeatable {
            let known = Known {
                block: block.to_vec(),
                generation: decoded.dynamic.then(|| self.decoder.generation()),
                says,
            };
            match self.known.get_mut(self.next) {
                Some(place) => *place = known,
                None => self.known.push(known),
            }
            self.next = (self.next + 1) % MAX_KNOWN;
        }
        Ok(match says {
            Plain::Head => Block::PlainHead,
            Plain::Ok => Block::PlainOk,
        })
    }
}

fn plain(fields: &Fields) -> Option<Plain> {
    match (fields.len(), fields.at(0)?) {
        (1, (b"grpc-status", b"0")) => Some(Plain::Ok),
        (2, (b":status", b"200")) => {
            let (name, value) = fields.at(1)?;
            (name == b"content-type" && is_grpc(value)).then_some(Plain::Head)
        }
        _ => None,
    }
}

/// gRPC over HTTP/2, "Content-Type".
fn is_grpc(value: &[u8]) -> bool {
    let rest = value.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// What the first block of an answer comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Section 8.1 of RFC 9113: another head follows.
    Interim,
    /// An answer of gRPC begins.
    Grpc,
    /// An answer of HTTP alone.
    Http { status: u16, content_type: Box<str> },
}

/// Reads the head of an answer (RFC 9113, section 8.3.2).
///
/// # Errors
/// It is malformed.
pub(super) fn head(fields: &Fields) -> Result<Head, &'static str> {
    let mut rest = fields.iter();
    let status = match rest.next() {
        Some((b":status", value)) => status(value).ok_or("a :status that is no number")?,
        _ => return Err("an answer that does not begin with :status"),
    };
    for (name, value) in rest {
        if name.first() == Some(&b':') {
            return Err("an answer with more than one pseudo-header field");
        }
        check_field(name, value)?;
    }
    if (100..200).contains(&status) {
        return match status {
            101 => Err("an answer that changes the protocol"),
            _ => Ok(Head::Interim),
        };
    }
    let content_type = fields.value(b"content-type").unwrap_or_default();
    if status == 200 && is_grpc(content_type) {
        return Ok(Head::Grpc);
    }
    let content_type = std::str::from_utf8(content_type).unwrap_or_default();
    Ok(Head::Http {
        status,
        content_type: content_type.into(),
    })
}

/// Reads the end of an answer; `headers` says that it is a head as well
/// ("Trailers-Only").
///
/// # Errors
/// It is malformed, or has no status.
pub(super) fn end(fields: &Fields, headers: bool) -> Result<Trailers, &'static str> {
    if !headers {
        check_trailers(fields)?;
    }
    let code = answer::code(fields).ok_or("an answer that ends without grpc-status")?;
    Ok(Trailers {
        code,
        fields: match (fields.len(), code) {
            (1, Code::OK) => Fields::default(),
            _ => fields.clone(),
        },
    })
}

fn status(value: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(value).ok()?;
    let digits = text.len() == 3 && text.bytes().all(|digit| digit.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}
