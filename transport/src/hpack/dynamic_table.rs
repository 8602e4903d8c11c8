//! RFC 7541, sections 2.3.2 and 4: dynamic table.
//!
//! The octets of all entries stand in one ring of at most twice the table's
//! size, so that an insertion allocates nothing once the ring has grown, and an
//! entry is always one slice.
//!
//! That twice the size is enough: let the size be M, and let an entry of L
//! octets come when at most M - L live. Live octets are one run, or a run at the
//! ring's end and one at its beginning. One run that ends at w with 2M - w < L
//! began at M or later, so at the ring's beginning M ≥ L octets are free. Of two
//! runs, the one at the end began at M or later, and the one at the beginning is
//! at most M - L long, so L are free between them.

use std::collections::VecDeque;

use super::ENTRY_OVERHEAD_BYTES;

struct Entry {
    start: usize,
    name: usize,
    value: usize,
}

impl Entry {
    const fn octets(&self) -> usize {
        self.name + self.value
    }
}

/// Entries, the newest first.
pub(super) struct DynamicTable {
    ring: Vec<u8>,
    /// Where the next entry goes.
    write: usize,
    entries: VecDeque<Entry>,
    /// Section 4.1: octets and overhead of all entries.
    size: usize,
    /// Section 4.2: what `size` may reach now.
    max_size: usize,
    /// The largest `max_size` ever: half of what the ring may grow to.
    limit: usize,
    /// Entries that were ever inserted.
    inserted: u64,
}

impl DynamicTable {
    /// An empty table. `limit` is what the peer may set its size to.
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            ring: Vec::new(),
            write: 0,
            entries: VecDeque::new(),
            size: 0,
            max_size: limit,
            limit,
            inserted: 0,
        }
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// The entry at `index`, counted from 0.
    #[inline]
    pub(super) fn entry(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entries.get(index)?;
        let octets = &self.ring[entry.start..entry.start + entry.octets()];
        Some(octets.split_at(entry.name))
    }

    /// Entries that were ever inserted: the newest has this number, less one. An
    /// entry's index changes with each insertion, its number never does.
    #[inline]
    pub(super) const fn inserted(&self) -> u64 {
        self.inserted
    }

    /// The entry of a number.
    #[inline]
    pub(super) fn numbered(&self, number: u64) -> Option<(&[u8], &[u8])> {
        let newer = self.inserted.checked_sub(number + 1)?;
        self.entry(usize::try_from(newer).ok()?)
    }

    /// Number of the oldest entry that is left once entries of `size` bytes in all
    /// are inserted (section 4.4). `None` if one of them would not stay itself.
    #[inline]
    pub(super) fn oldest_after(&self, size: usize) -> Option<u64> {
        let most = self.max_size.checked_sub(size)?;
        let mut left = self.size;
        let mut oldest = self.inserted - self.entries.len() as u64;
        for entry in self.entries.iter().rev() {
            if left <= most {
                break;
            }
            left -= entry.octets() + ENTRY_OVERHEAD_BYTES;
            oldest += 1;
        }
        Some(oldest)
    }

    /// Section 4.3. `max_size` is at most the limit.
    pub(super) fn resize(&mut self, max_size: usize) {
        self.max_size = max_size.min(self.limit);
        self.evict_to(self.max_size);
    }

    /// Section 4.4. An entry that does not fit empties the table.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let octets = name.len() + value.len();
        let size = octets + ENTRY_OVERHEAD_BYTES;
        self.evict_to(self.max_size.saturating_sub(size));
        if size > self.max_size {
            return;
        }
        if self.entries.is_empty() || self.write + octets > 2 * self.limit {
            self.write = 0;
        }
        let start = self.write;
        let end = start + octets;
        if self.ring.len() < end {
            if self.ring.capacity() < end {
                // A vector that grows by itself may hold twice what it can need.
                let capacity = (2 * end).min(2 * self.limit);
                self.ring.reserve_exact(capacity - self.ring.len());
            }
            self.ring.resize(end, 0);
        }
        self.ring[start..start + name.len()].copy_from_slice(name);
        self.ring[start + name.len()..end].copy_from_slice(value);
        self.write = end;
        self.size += size;
        self.inserted += 1;
        self.entries.push_front(Entry {
            start,
            name: name.len(),
            value: value.len(),
        });
    }

    fn evict_to(&mut self, most: usize) {
        while self.size > most {
            let Some(oldest) = self.entries.pop_back() else {
                break;
            };
            self.size -= oldest.octets() + ENTRY_OVERHEAD_BYTES;
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.ring.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same table, as the RFC describes it.
    #[derive(Default)]
    struct Model(VecDeque<(Vec<u8>, Vec<u8>)>);

    impl Model {
        fn size(&self) -> usize {
            self.0.iter().map(|(n, v)| n.len() + v.len() + 32).sum()
        }

        fn evict_to(&mut self, most: usize) {
            while self.size() > most {
                self.0.pop_back();
            }
        }
    }

    #[test]
    fn it_is_the_table_that_the_rfc_describes() {
        let mut random = crate::testing::Random::new(7);
        for limit in [4096, 100, 0, 33] {
            let (mut table, mut model) = (DynamicTable::new(limit), Model::default());
            let mut max = limit;
            for _ in 0..20_000 {
                if random.below(50) == 0 {
                    max = random.below(limit + 1);
                    table.resize(max);
                    model.evict_to(max);
                } else {
                    let most = if random.below(20) == 0 { limit + 2 } else { 60 };
                    let (n, v) = (random.below(most + 1), random.below(most + 1));
                    let (name, value) = (random.bytes(n), random.bytes(v));
                    table.insert(&name, &value);
                    model.evict_to(max.saturating_sub(n + v + 32));
                    if n + v + 32 <= max {
                        model.0.push_front((name, value));
                    }
                }
                assert_eq!(table.size(), model.size());
                for (index, (name, value)) in model.0.iter().enumerate() {
                    assert_eq!(table.entry(index), Some((&name[..], &value[..])));
                }
                assert_eq!(table.entry(model.0.len()), None);
                assert!(table.ring.capacity() <= 2 * limit);
            }
        }
    }
}
