//! RFC 7541, sections 2.3 and 6: blocks that differ from a known one in the
//! values of few fields.
//!
//! Calls of one client mostly differ in a deadline and a trace: all other fields
//! are entries of the tables, or literals that come again. A client that inserts
//! each new value moves the index of every other field, so that no two of its
//! blocks have the same bytes; but the entries that they refer to are the same. An
//! entry never changes, and has a number that is never given out again: so a field
//! is known by the number of its entry, and a whole list of them by comparing
//! numbers, without a copy or a check of what they stand for.

use super::decoder::{Decoded, Decoder};
use super::fields::Fields;
use super::string::Literal;
use super::{ENTRY_OVERHEAD_BYTES, integer, static_table};

/// Fields whose values may change in one pattern.
const MAX_CHANGES: usize = 4;

/// A field of a pattern.
#[derive(Debug, Clone, Copy)]
struct Part {
    is: Is,
    /// Another value of the same name fits as well.
    may_vary: bool,
}

/// What stands in a block for a field.
#[derive(Debug, Clone, Copy)]
enum Is {
    /// An entry of the tables.
    Entry(Entry),
    /// A literal that is not inserted. Its value, as it is on the wire, stands
    /// here in [`Pattern::literals`].
    Literal { start: usize, end: usize },
}

/// An entry of the tables, by what never changes: its index if it is static; above
/// those, in the order in which they were inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u64);

/// The first that is not static.
const FIRST_DYNAMIC: u64 = static_table::LENGTH as u64 + 1;

impl Entry {
    /// What was inserted after `before` others.
    const fn inserted_after(before: u64) -> Self {
        // A connection does not live to insert 2^64.
        Self(FIRST_DYNAMIC.saturating_add(before))
    }

    /// What `index` stands for when `inserted` entries have been inserted.
    #[inline]
    const fn at(index: u64, inserted: u64) -> Self {
        if index < FIRST_DYNAMIC {
            Self(index)
        } else {
            // 0, which stands for nothing, if there were not so many.
            Self((2 * FIRST_DYNAMIC + inserted).saturating_sub(index + 1))
        }
    }
}

/// How a block that was decoded is put together.
#[derive(Debug, Clone, Default)]
pub struct Pattern {
    parts: Vec<Part>,
    literals: Vec<u8>,
}

/// The values in which a block differs from the pattern's.
#[derive(Debug, Default)]
pub struct Changes {
    octets: Vec<u8>,
    /// How many of `changed` are in use.
    len: usize,
    changed: [Change; MAX_CHANGES],
}

#[derive(Debug, Clone, Copy, Default)]
struct Change {
    field: usize,
    end: usize,
    is_inserted: bool,
}

impl Changes {
    fn clear(&mut self) {
        self.octets.clear();
        self.len = 0;
    }

    /// The fields that changed, in their order, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let starts = std::iter::once(0).chain(self.changed.iter().map(|change| change.end));
        let changed = self.changed[..self.len].iter();
        changed
            .zip(starts)
            .map(|(change, start)| (change.field, &self.octets[start..change.end]))
    }

    fn add(&mut self, field: usize, is_inserted: bool) -> Option<()> {
        *self.changed.get_mut(self.len)? = Change {
            field,
            end: self.octets.len(),
            is_inserted,
        };
        self.len += 1;
        Some(())
    }
}

/// The dynamic table as it will be once what a block inserts is in it.
struct Ahead {
    inserted: u64,
    inserted_bytes: usize,
    /// The oldest dynamic entry that is left.
    oldest: Entry,
}

impl Ahead {
    /// What `index` stands for. `None` if that is not in the table for as long as
    /// the block lasts.
    #[inline]
    fn entry(&self, index: u64) -> Option<Entry> {
        let entry = Entry::at(index, self.inserted);
        (index < FIRST_DYNAMIC || entry >= self.oldest).then_some(entry)
    }
}

impl Decoder {
    /// The pattern of the block that was just decoded into `fields`: that of the
    /// next block, if its client inserts what it has not, and refers to what it
    /// has. `varies` names the fields whose values may differ. `None` if there
    /// is no use in one.
    #[must_use]
    pub fn pattern(
        &self,
        block: &[u8],
        fields: &Fields,
        decoded: Decoded,
        varies: impl Fn(&[u8]) -> bool,
    ) -> Option<Pattern> {
        if decoded.resized || decoded.oversize {
            return None;
        }
        let mut pattern = Pattern::default();
        let before = self.table.inserted() - decoded.inserted;
        let (mut rest, mut inserted, mut free) = (block, before, 0);
        for (name, _) in fields.iter() {
            let &first = rest.first()?;
            let is = if first >= INDEXED {
                let (index, after) = integer::decode(rest, 7).ok()?;
                rest = after;
                Is::Entry(Entry::at(index as u64, inserted))
            } else {
                let is_inserted = first >= INSERTED;
                rest = skip_name(rest, is_inserted)?;
                let (_, after) = Literal::parse(rest).ok()?;
                let raw = &rest[..rest.len() - after.len()];
                rest = after;
                if is_inserted {
                    inserted += 1;
                    Is::Entry(Entry::inserted_after(inserted - 1))
                } else {
                    let start = pattern.literals.len();
                    pattern.literals.extend_from_slice(raw);
                    let end = pattern.literals.len();
                    Is::Literal { start, end }
                }
            };
            let may_vary = varies(name);
            free += usize::from(may_vary);
            pattern.parts.push(Part { is, may_vary });
        }
        // An entry that is larger than the table is not in it.
        let all_stayed = inserted == self.table.inserted();
        (all_stayed && free <= MAX_CHANGES).then_some(pattern)
    }

    /// Decodes a block that has the pattern of `known`: into `fields`, the same but
    /// for `changes`. `None` changes nothing: the block has another pattern, or is
    /// none, or its list would have more than `max_list_bytes`.
    #[must_use]
    pub fn decode_like(
        &mut self,
        block: &[u8],
        (pattern, known): (&Pattern, &Fields),
        changes: &mut Changes,
        fields: &mut Fields,
        max_list_bytes: usize,
    ) -> Option<()> {
        changes.clear();
        self.compare(block, (pattern, known), changes)?;
        fields.copy_but(known, changes.iter());
        if fields.list_bytes() > max_list_bytes {
            return None;
        }
        for (change, (field, value)) in changes.changed.iter().zip(changes.iter()) {
            if change.is_inserted
                && let Some((name, _)) = known.at(field)
            {
                self.table.insert(name, value);
                self.generation += 1;
            }
        }
        Some(())
    }

    /// Compares a block with a pattern, and takes down the values that differ. What
    /// the block inserts is only counted: it may have another pattern yet.
    #[inline]
    fn compare(
        &self,
        block: &[u8],
        (pattern, known): (&Pattern, &Fields),
        changes: &mut Changes,
    ) -> Option<()> {
        let mut table = Ahead {
            inserted: self.table.inserted(),
            inserted_bytes: 0,
            oldest: Entry::inserted_after(self.table.oldest_after(0)?),
        };
        let mut rest = block;
        for (field, part) in pattern.parts.iter().enumerate() {
            let &first = rest.first()?;
            if first >= INDEXED {
                let (index, after) = integer::decode(rest, 7).ok()?;
                rest = after;
                let entry = table.entry(index as u64)?;
                if !matches!(part.is, Is::Entry(known) if known == entry) {
                    let (name, value) = self.stands_for(entry)?;
                    if !part.may_vary || name != known.at(field)?.0 {
                        return None;
                    }
                    changes.octets.extend_from_slice(value);
                    changes.add(field, false)?;
                }
                continue;
            }
            let is_inserted = first >= INSERTED;
            let (name, _) = known.at(field)?;
            rest = self.same_name(rest, is_inserted, name, &table)?;
            let (value, after) = Literal::parse(rest).ok()?;
            let raw = &rest[..rest.len() - after.len()];
            let is_same = !is_inserted
                && matches!(part.is, Is::Literal { start, end } if pattern.literals[start..end] == *raw);
            if !is_same {
                if !part.may_vary {
                    return None;
                }
                let start = changes.octets.len();
                value.append_to(&mut changes.octets).ok()?;
                changes.add(field, is_inserted)?;
                if is_inserted {
                    let octets = name.len() + changes.octets.len() - start;
                    table.inserted += 1;
                    table.inserted_bytes += octets + ENTRY_OVERHEAD_BYTES;
                    let oldest = self.table.oldest_after(table.inserted_bytes)?;
                    table.oldest = Entry::inserted_after(oldest);
                }
            }
            rest = after;
        }
        rest.is_empty().then_some(())
    }

    /// What follows a literal's name, if it is `name`.
    #[inline]
    fn same_name<'a>(
        &self,
        input: &'a [u8],
        is_inserted: bool,
        name: &[u8],
        table: &Ahead,
    ) -> Option<&'a [u8]> {
        if !is_inserted && input.first()? & 0xe0 == SIZE_UPDATE {
            return None;
        }
        let (index, rest) = integer::decode(input, name_prefix(is_inserted)).ok()?;
        if index == 0 {
            let (literal, after) = Literal::parse(rest).ok()?;
            return literal.is_plain(name).then_some(after);
        }
        let entry = table.entry(index as u64)?;
        (self.stands_for(entry)?.0 == name).then_some(rest)
    }

    /// The field of an entry. `None` if it is yet to be inserted.
    #[inline]
    fn stands_for(&self, entry: Entry) -> Option<(&[u8], &[u8])> {
        match entry.0.checked_sub(FIRST_DYNAMIC) {
            Some(number) => self.table.numbered(number),
            None => static_table::entry(usize::try_from(entry.0).ok()?),
        }
    }
}

/// First octets of the representations (sections 6.1, 6.2.1 and 6.3).
const INDEXED: u8 = 0x80;
const INSERTED: u8 = 0x40;
const SIZE_UPDATE: u8 = 0x20;

const fn name_prefix(is_inserted: bool) -> u32 {
    if is_inserted { 6 } else { 4 }
}

fn skip_name(input: &[u8], is_inserted: bool) -> Option<&[u8]> {
    let (index, rest) = integer::decode(input, name_prefix(is_inserted)).ok()?;
    if index == 0 {
        return Some(Literal::parse(rest).ok()?.1);
    }
    Some(rest)
}
