//! RFC 7541, section 5.2: string literal representation.

use super::{HpackError, huffman, integer};

/// A string as it stands in a block.
#[derive(Clone, Copy)]
pub(super) struct Literal<'a> {
    bytes: &'a [u8],
    huffman: bool,
}

impl<'a> Literal<'a> {
    /// Finds a string's bounds. Returns it with what follows.
    #[inline]
    pub(super) fn parse(input: &'a [u8]) -> Result<(Self, &'a [u8]), HpackError> {
        let first = *input.first().ok_or(HpackError::Truncated)?;
        let (length, rest) = integer::decode(input, 7)?;
        let (bytes, rest) = rest.split_at_checked(length).ok_or(HpackError::Truncated)?;
        let huffman = first & 0x80 != 0;
        Ok((Self { bytes, huffman }, rest))
    }

    /// True if it stands for `octets` without Huffman code.
    #[inline]
    pub(super) fn is_plain(&self, octets: &[u8]) -> bool {
        !self.huffman && self.bytes == octets
    }

    /// Appends the string's octets, at most 8/5 of its bytes on the wire.
    #[inline]
    pub(super) fn append_to(self, out: &mut Vec<u8>) -> Result<(), HpackError> {
        if self.huffman {
            huffman::decode(self.bytes, out)
        } else {
            out.extend_from_slice(self.bytes);
            Ok(())
        }
    }
}

/// Writes a string without Huffman code: the few that a server sends are short,
/// and are sent once.
pub(super) fn write(out: &mut Vec<u8>, octets: &[u8]) {
    integer::encode(out, octets.len(), 7, 0);
    out.extend_from_slice(octets);
}
