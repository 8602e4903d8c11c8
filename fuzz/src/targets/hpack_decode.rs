//! RFC 7541 as a receiver: the decoder against a plain model of sections 2.3, 4
//! and 6, block after block, and within its memory.
//!
//! The model leaves two things to the decoder, each with a decoder of its own and
//! one field at a time: the static table, and strings with their Huffman code.

use std::collections::VecDeque;

use larder_transport::hpack::{Decoder, ENTRY_OVERHEAD_BYTES, Fields, HpackError};

use crate::features::{note, note_size};
use crate::input::Input;

const STATIC_LENGTH: usize = 61;
/// More than any field of an input has.
const ANY_LIST_BYTES: usize = 1 << 24;

type Field = (Vec<u8>, Vec<u8>);

#[derive(Debug, PartialEq, Eq)]
struct Wrong;

/// The table and the blocks as the RFC describes them.
struct Model {
    entries: VecDeque<Field>,
    max_size: usize,
    limit: usize,
}

/// Limits, and then blocks, each after its length.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let limit = input.pick(&[4096, 0, 64, 256, 65_536]);
    let max_list = input.pick(&[16_384, 100, 4096, 0]);
    let mut decoder = Decoder::new(limit);
    let mut model = Model {
        entries: VecDeque::new(),
        max_size: limit,
        limit,
    };
    let mut fields = Fields::default();
    while !input.is_empty() {
        let length = usize::from(input.word() & 0x3ff);
        let block = input.take(length);
        let expected = model.decode(block);
        let decoded = decoder.decode(block, &mut fields, max_list);
        note(format!("{decoded:?}"));
        check_memory(&decoder, &fields, limit, max_list, block);
        let (expected, decoded) = match (expected, decoded) {
            (Ok(expected), Ok(decoded)) => (expected, decoded),
            (Err(Wrong), Err(_)) => return,
            // The model has no limit of its own.
            (Ok(expected), Err(HpackError::Bomb)) => {
                let size: usize = expected.iter().map(size_of_field).sum();
                assert!(size > 16 * max_list.max(4096), "{size} is no bomb");
                return;
            }
            (expected, decoded) => unreachable!("{expected:?}, and {decoded:?}"),
        };
        let size: usize = expected.iter().map(size_of_field).sum();
        assert_eq!(decoded.oversize, size > max_list, "{size}");
        if decoded.oversize {
            assert!(fields.is_empty());
        } else {
            check_fields(&fields, &expected);
            assert_eq!(fields.list_bytes(), size);
        }
        note_size("fields", fields.len());
        note_size("entries", model.entries.len());
        check_table(&mut decoder, &model);
        if decoded.repeatable {
            let generation = decoder.generation();
            let mut again = Fields::default();
            let decoded = decoder.decode(block, &mut again, ANY_LIST_BYTES);
            assert!(decoded.is_ok());
            check_fields(&again, &expected);
            assert_eq!(decoder.generation(), generation);
        }
    }
}

fn size_of_field((name, value): &Field) -> usize {
    name.len() + value.len() + ENTRY_OVERHEAD_BYTES
}

fn check_fields(fields: &Fields, expected: &[Field]) {
    let expected = expected.iter().map(|(name, value)| (&name[..], &value[..]));
    assert!(fields.iter().eq(expected), "{fields:?}");
}

/// Every entry, and none after the last.
fn check_table(decoder: &mut Decoder, model: &Model) {
    let mut fields = Fields::default();
    let generation = decoder.generation();
    for (place, entry) in model.entries.iter().enumerate() {
        let mut block = Vec::new();
        write_integer(&mut block, STATIC_LENGTH + 1 + place, 7, 0x80);
        assert!(decoder.decode(&block, &mut fields, ANY_LIST_BYTES).is_ok());
        check_fields(&fields, std::slice::from_ref(entry));
    }
    let mut block = Vec::new();
    let after = STATIC_LENGTH + 1 + model.entries.len();
    write_integer(&mut block, after, 7, 0x80);
    assert!(decoder.decode(&block, &mut fields, ANY_LIST_BYTES).is_err());
    assert_eq!(decoder.generation(), generation);
}

fn check_memory(decoder: &Decoder, fields: &Fields, limit: usize, max_list: usize, block: &[u8]) {
    // Twice the table, and an entry's place for each 32 bytes of it; vectors may
    // have grown to twice what they need.
    let table = 2 * limit + 2 * (limit / ENTRY_OVERHEAD_BYTES + 4) * 24;
    let held = decoder.held_bytes();
    assert!(held <= table, "{held} bytes for a table of {limit}");
    // One field more than the list takes, which may be an entry or come of the
    // block at 8/5 of its length; vectors as above.
    let list = 2 * (2 * max_list + limit + 2 * block.len() + 256);
    let held = fields.held_bytes();
    assert!(held <= list, "{held} bytes for a list of {max_list}");
}

fn write_integer(out: &mut Vec<u8>, value: usize, prefix: u32, pattern: u8) {
    let mask = (1_usize << prefix) - 1;
    let low = |value: usize| value.to_le_bytes()[0];
    if value < mask {
        out.push(pattern | low(value));
        return;
    }
    out.push(pattern | low(mask));
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(low(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low(rest));
}

impl Model {
    fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, Wrong> {
        let mut list = Vec::new();
        let mut rest = block;
        while let Some(&first) = rest.first() {
            if first & 0x80 != 0 {
                let index = take_integer(&mut rest, 7)?;
                list.push(self.at(index)?);
            } else if first & 0x40 != 0 {
                let field = self.literal(&mut rest, 6)?;
                self.insert(&field);
                list.push(field);
            } else if first & 0x20 != 0 {
                let size = take_integer(&mut rest, 5)?;
                // Section 4.2: at the block's beginning, and within the limit.
                if !list.is_empty() || size > self.limit {
                    return Err(Wrong);
                }
                self.max_size = size;
                self.evict(0);
            } else {
                list.push(self.literal(&mut rest, 4)?);
            }
        }
        Ok(list)
    }

    fn literal(&self, rest: &mut &[u8], prefix: u32) -> Result<Field, Wrong> {
        let index = take_integer(rest, prefix)?;
        let name = if index == 0 {
            take_string(rest)?
        } else {
            self.at(index)?.0
        };
        Ok((name, take_string(rest)?))
    }

    fn at(&self, index: usize) -> Result<Field, Wrong> {
        match index.checked_sub(STATIC_LENGTH + 1) {
            Some(place) => self.entries.get(place).cloned().ok_or(Wrong),
            None => {
                let mut block = Vec::new();
                write_integer(&mut block, index, 7, 0x80);
                alone(&block)
            }
        }
    }

    fn insert(&mut self, field: &Field) {
        let size = size_of_field(field);
        self.evict(size);
        if size <= self.max_size {
            self.entries.push_front(field.clone());
        }
    }

    /// Makes room for `size` bytes.
    fn evict(&mut self, size: usize) {
        let held = |entries: &VecDeque<Field>| entries.iter().map(size_of_field).sum::<usize>();
        while !self.entries.is_empty() && held(&self.entries) + size > self.max_size {
            self.entries.pop_back();
        }
    }
}

/// A field that needs no dynamic table.
fn alone(block: &[u8]) -> Result<Field, Wrong> {
    let mut fields = Fields::default();
    Decoder::new(0)
        .decode(block, &mut fields, ANY_LIST_BYTES)
        .map_err(|_| Wrong)?;
    let (name, value) = fields.at(0).ok_or(Wrong)?;
    Ok((name.to_vec(), value.to_vec()))
}

fn take_integer(rest: &mut &[u8], prefix: u32) -> Result<usize, Wrong> {
    let mask = (1_usize << prefix) - 1;
    let (&first, mut after) = rest.split_first().ok_or(Wrong)?;
    let mut value = usize::from(first) & mask;
    if value == mask {
        // Four bytes of seven bits are the most that the decoder takes.
        for place in 0..=4 {
            let (&byte, next) = after.split_first().ok_or(Wrong)?;
            after = next;
            if place == 4 {
                return Err(Wrong);
            }
            value += usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = after;
    Ok(value)
}

fn take_string(rest: &mut &[u8]) -> Result<Vec<u8>, Wrong> {
    let before = *rest;
    let length = take_integer(rest, 7)?;
    let prefix = before.len() - rest.len();
    let (_, after) = rest.split_at_checked(length).ok_or(Wrong)?;
    *rest = after;
    // As the value of a literal whose name is one octet.
    let block = [b"\0\x01n", &before[..prefix + length]].concat();
    alone(&block).map(|(_, value)| value)
}
