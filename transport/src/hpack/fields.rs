//! RFC 7541, section 1.3: the header list that a block decodes to.

use super::ENTRY_OVERHEAD_BYTES;

/// Names and values in the order in which they came, all octets in one buffer
/// that is kept from block to block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    octets: Vec<u8>,
    ends: Vec<(u32, u32)>,
    list_bytes: usize,
}

impl Fields {
    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// RFC 9113, section 10.5.1: octets of names and values, and 32 for each
    /// field.
    #[must_use]
    pub const fn list_bytes(&self) -> usize {
        self.list_bytes
    }

    /// The field at `index`.
    #[inline]
    #[must_use]
    pub fn at(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let start = match index.checked_sub(1) {
            Some(before) => self.ends.get(before)?.1,
            None => 0,
        };
        let &(name_end, end) = self.ends.get(index)?;
        let name = &self.octets[start as usize..name_end as usize];
        Some((name, &self.octets[name_end as usize..end as usize]))
    }

    /// Every field.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..self.len()).map_while(|index| self.at(index))
    }

    /// The first value of a name, which is in lower case.
    #[must_use]
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter()
            .find_map(|(each, value)| (each == name).then_some(value))
    }

    /// Empties the list, and keeps its memory.
    pub fn clear(&mut self) {
        self.octets.clear();
        self.ends.clear();
        self.list_bytes = 0;
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.octets.capacity() + self.ends.capacity() * size_of::<(u32, u32)>()
    }

    /// Becomes a copy of `known` but for some values, which come in the order of
    /// their fields.
    #[inline]
    pub(super) fn copy_but<'a>(
        &mut self,
        known: &Self,
        values: impl Iterator<Item = (usize, &'a [u8])>,
    ) {
        self.clear();
        self.ends.extend_from_slice(&known.ends);
        let mut from = 0;
        for (index, value) in values {
            let (name_end, end) = known.ends[index];
            self.octets
                .extend_from_slice(&known.octets[from..name_end as usize]);
            self.octets.extend_from_slice(value);
            from = end as usize;
            // Nearly always as long as the one before.
            let shift = position(&self.octets).wrapping_sub(self.ends[index].1);
            if shift != 0 {
                self.ends[index].1 = self.ends[index].1.wrapping_add(shift);
                for (name_end, end) in &mut self.ends[index + 1..] {
                    *name_end = name_end.wrapping_add(shift);
                    *end = end.wrapping_add(shift);
                }
            }
        }
        self.octets.extend_from_slice(&known.octets[from..]);
        self.list_bytes = self.octets.len() + self.ends.len() * ENTRY_OVERHEAD_BYTES;
    }

    /// Where the next field's octets go. [`Self::name_ends`] and
    /// [`Self::value_ends`] close them.
    pub(super) const fn octets(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }

    /// The octets since the last field are a name.
    pub(super) fn name_ends(&mut self) {
        let end = position(&self.octets);
        self.ends.push((end, end));
    }

    /// The octets since the last name are its value.
    pub(super) fn value_ends(&mut self) {
        let end = position(&self.octets);
        let start = match self.ends.len().checked_sub(2) {
            Some(before) => self.ends[before].1,
            None => 0,
        };
        if let Some(last) = self.ends.last_mut() {
            last.1 = end;
        }
        self.list_bytes += (end - start) as usize + ENTRY_OVERHEAD_BYTES;
    }

    /// Takes the last field back.
    pub(super) fn pop(&mut self) {
        if let Some((name, value)) = self.ends.len().checked_sub(1).and_then(|i| self.at(i)) {
            let octets = name.len() + value.len();
            self.list_bytes -= octets + ENTRY_OVERHEAD_BYTES;
            self.ends.pop();
            self.octets.truncate(self.octets.len() - octets);
        }
    }
}

/// A list is bounded far below 4 GiB.
fn position(octets: &[u8]) -> u32 {
    u32::try_from(octets.len()).unwrap_or(u32::MAX)
}
