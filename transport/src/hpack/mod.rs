//! RFC 7541: header compression.
//!
//! | file | section |
//! |---|---|
//! | `integer.rs` | 5.1 integer representation |
//! | `string.rs` | 5.2 string literal representation |
//! | `huffman.rs` | 5.2 and appendix B, Huffman code |
//! | `static_table.rs` | 2.3.1 and appendix A, static table |
//! | `dynamic_table.rs` | 2.3.2 and 4, dynamic table |
//! | `decoder.rs` | 3 and 6, header block decoding |
//! | `pattern.rs` | 2.3 and 6, blocks that differ from a known one in few values |
//! | `encoder.rs` | 6, the few representations that a server of RPCs writes, or a client of one |
//! | `fields.rs` | 1.3, the header list that a block decodes to |

mod decoder;
mod dynamic_table;
mod encoder;
mod fields;
mod huffman;
mod integer;
mod pattern;
mod static_table;
mod string;

pub use decoder::{Decoded, Decoder};
pub use encoder::{
    Encoder, Repeated, write_indexed, write_inserted, write_literal, write_never_indexed,
    write_table_size,
};
pub(crate) use encoder::{STATUS_200, write_status};
pub use fields::Fields;
pub use pattern::{Changes, Pattern};

/// Section 4.1: what an entry costs beside its name and value, in bytes.
pub const ENTRY_OVERHEAD_BYTES: usize = 32;

/// Why a block cannot be decoded. The compression state is lost with it: the
/// connection ends (RFC 9113, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends inside a representation.
    Truncated,
    /// An integer that no length or index can be (section 5.1).
    IntegerTooLarge,
    /// A Huffman code with wrong padding, or with EOS in it (section 5.2).
    Huffman,
    /// An index that stands for nothing (section 2.3.3).
    Index,
    /// A table size above the limit, or not at the block's beginning
    /// (sections 4.2 and 6.3).
    TableSize,
    /// The list is so much over its limit that it is decoded no further.
    Bomb,
}

impl std::fmt::Display for HpackError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "a header block that ends too early",
            Self::IntegerTooLarge => "an integer too large in a header block",
            Self::Huffman => "a wrong Huffman code in a header block",
            Self::Index => "an index that stands for no header",
            Self::TableSize => "a wrong dynamic table size update",
            Self::Bomb => "a header list far over its limit",
        })
    }
}

impl std::error::Error for HpackError {}

#[cfg(test)]
mod tests;
