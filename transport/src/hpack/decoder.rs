//! RFC 7541, sections 3 and 6: header block decoding.

use super::dynamic_table::DynamicTable;
use super::fields::Fields;
use super::string::Literal;
use super::{ENTRY_OVERHEAD_BYTES, HpackError, integer, static_table};

/// A list that is too large is decoded for the sake of the table, up to so many
/// times its limit; more is no list of fields, but a bomb: a byte can stand for as
/// many as the table holds.
const MAX_OVERSIZE: usize = 16;
/// Limits below it count as it, bytes.
const SMALLEST_LIST_BYTES: usize = 4096;

/// What is known of a block that was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// The list was larger than allowed. The fields hold those that fitted; the
    /// dynamic table is as the sender has it.
    pub oversize: bool,
    /// The same bytes decode to the same fields as long as
    /// [`Decoder::generation`] stays what it is.
    pub repeatable: bool,
    /// It refers to the dynamic table. If not, the same bytes decode to the same
    /// fields whatever becomes of the table.
    pub dynamic: bool,
    /// It changed the dynamic table's size.
    pub resized: bool,
    /// Entries that it inserted into the dynamic table.
    pub inserted: u64,
}

/// The receiving end of one direction of a connection.
pub struct Decoder {
    pub(super) table: DynamicTable,
    /// Counts the table's changes.
    pub(super) generation: u64,
}

impl Decoder {
    /// A decoder whose dynamic table is at most `table_bytes` large: what
    /// `SETTINGS_HEADER_TABLE_SIZE` tells the peer. Holds at most twice as many
    /// bytes, and none before the first insertion.
    #[must_use]
    pub const fn new(table_bytes: usize) -> Self {
        Self {
            table: DynamicTable::new(table_bytes),
            generation: 0,
        }
    }

    /// Changes whenever the dynamic table does.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes of memory that the dynamic table holds: octets and entries.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.table.held_bytes()
    }

    /// Decodes a whole block into `fields`, which is cleared first and holds at
    /// most `max_list_bytes` (RFC 9113, section 10.5.1) and one field more
    /// while this runs.
    ///
    /// # Errors
    /// The compression state is lost; nothing more can be decoded.
    pub fn decode(
        &mut self,
        block: &[u8],
        fields: &mut Fields,
        max_list_bytes: usize,
    ) -> Result<Decoded, HpackError> {
        fields.clear();
        let mut decoded = Decoded {
            oversize: false,
            repeatable: true,
            dynamic: false,
            resized: false,
            inserted: 0,
        };
        let inserted_before = self.table.inserted();
        let mut rest = block;
        let mut at_beginning = true;
        let mut dropped_bytes = 0;
        let max_dropped_bytes = max_list_bytes
            .max(SMALLEST_LIST_BYTES)
            .saturating_mul(MAX_OVERSIZE);
        while let Some(&first) = rest.first() {
            if first & 0xe0 == 0x20 {
                if !at_beginning {
                    return Err(HpackError::TableSize);
                }
                rest = self.update_size(rest)?;
                decoded.repeatable = false;
                decoded.resized = true;
                continue;
            }
            at_beginning = false;
            if decoded.oversize {
                // What follows is not kept, but may be inserted.
                fields.clear();
            }
            rest = match first {
                0x80.. => self.indexed(rest, fields, &mut decoded)?,
                0x40.. => {
                    decoded.repeatable = false;
                    self.literal_inserted(rest, fields, &mut decoded)?
                }
                _ => self.literal(rest, 4, fields, &mut decoded)?,
            };
            if decoded.oversize {
                dropped_bytes += fields.list_bytes();
                if dropped_bytes > max_dropped_bytes {
                    return Err(HpackError::Bomb);
                }
            } else if fields.list_bytes() > max_list_bytes {
                decoded.oversize = true;
                fields.pop();
            }
        }
        if decoded.oversize {
            fields.clear();
        }
        decoded.inserted = self.table.inserted() - inserted_before;
        Ok(decoded)
    }

    /// Section 6.3.
    fn update_size<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], HpackError> {
        let (size, rest) = integer::decode(input, 5)?;
        if size > self.table.limit() {
            return Err(HpackError::TableSize);
        }
        self.table.resize(size);
        self.generation += 1;
        Ok(rest)
    }

    /// Section 6.1.
    #[inline]
    fn indexed<'a>(
        &self,
        input: &'a [u8],
        fields: &mut Fields,
        decoded: &mut Decoded,
    ) -> Result<&'a [u8], HpackError> {
        let (index, rest) = integer::decode(input, 7)?;
        decoded.dynamic |= index > static_table::LENGTH;
        let (name, value) = self.entry(index)?;
        fields.octets().extend_from_slice(name);
        fields.name_ends();
        fields.octets().extend_from_slice(value);
        fields.value_ends();
        Ok(rest)
    }

    /// Section 6.2.1.
    fn literal_inserted<'a>(
        &mut self,
        input: &'a [u8],
        fields: &mut Fields,
        decoded: &mut Decoded,
    ) -> Result<&'a [u8], HpackError> {
        let rest = self.literal(input, 6, fields, decoded)?;
        if let Some((name, value)) = fields.len().checked_sub(1).and_then(|i| fields.at(i)) {
            self.table.insert(name, value);
            self.generation += 1;
        }
        Ok(rest)
    }

    /// Sections 6.2.2 and 6.2.3: never-indexed literals are like any, as nothing
    /// is sent on.
    #[inline]
    fn literal<'a>(
        &self,
        input: &'a [u8],
        prefix: u32,
        fields: &mut Fields,
        decoded: &mut Decoded,
    ) -> Result<&'a [u8], HpackError> {
        let (index, mut rest) = integer::decode(input, prefix)?;
        decoded.dynamic |= index > static_table::LENGTH;
        if index == 0 {
            let (name, after) = Literal::parse(rest)?;
            name.append_to(fields.octets())?;
            rest = after;
        } else {
            let (name, _) = self.entry(index)?;
            fields.octets().extend_from_slice(name);
        }
        fields.name_ends();
        let (value, rest) = Literal::parse(rest)?;
        value.append_to(fields.octets())?;
        fields.value_ends();
        Ok(rest)
    }

    /// Section 2.3.3.
    #[inline]
    pub(super) fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        match index.checked_sub(static_table::LENGTH + 1) {
            Some(dynamic) => self.table.entry(dynamic),
            None => static_table::entry(index),
        }
        .ok_or(HpackError::Index)
    }

    #[cfg(test)]
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }
}

/// The smallest field has 32 bytes, so a list's limit bounds their number too.
const _: () = assert!(ENTRY_OVERHEAD_BYTES > 0);
