//! From key to slot: a table of slot numbers that never stops to rehash.
//!
//! A plain table rehashes all at once when it is full or clogged with
//! tombstones: tens of milliseconds under the lock at a million entries. Here
//! a new table is put in front of the old one, and every change moves a few
//! entries over, so that no change does more than a bounded number of moves.
//! It holds no hashes: the caller can always compute one from a slot, and a
//! move is rarer than an entry.

use hashbrown::HashTable;

/// Slots that one change looks at while entries move. With room for a quarter
/// more, the new table cannot fill up before the old one is empty unless fewer
/// than a quarter of all slots are in use; then the rest moves at once.
const MOVES: u32 = 16;

/// Below this many entries a table is never too big.
const SHRINK_FROM: usize = 1 << 10;

/// Bytes that the index takes for an entry, between 5.7 (full) and 11.4 (just
/// grown); the figure that the memory charge counts with.
pub(crate) const INDEX_BYTES: u64 = 8;

/// The index of a shard.
#[derive(Debug, Default)]
pub(crate) struct Index {
    table: HashTable<u32>,
    /// What has not moved yet.
    old: HashTable<u32>,
    /// Slots below this have moved.
    moved: u32,
}

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.table.len() + self.old.len()
    }

    /// The slot with this hash for which `is_it` holds.
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let found = self.table.find(hash, |&at| is_it(at));
        let found = found.or_else(|| {
            if self.old.is_empty() {
                None
            } else {
                self.old.find(hash, |&at| is_it(at))
            }
        });
        found.copied()
    }

    /// Adds a slot that is not there. `hash_of` gives the hash of any slot
    /// that is, `None` for a free one; `slots` is the end of their numbers.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        at: u32,
        slots: u32,
        hash_of: impl Fn(u32) -> Option<u64>,
    ) {
        if self.table.len() == self.table.capacity() {
            self.migrate(u32::MAX, slots, &hash_of);
            self.renew();
        }
        self.put(hash, at, &hash_of);
        self.migrate(MOVES, slots, &hash_of);
    }

    /// Removes a slot that is there.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        at: u32,
        slots: u32,
        hash_of: impl Fn(u32) -> Option<u64>,
    ) {
        let entry = match self.table.find_entry(hash, |&it| it == at) {
            Ok(entry) => Ok(entry),
            Err(_) => self.old.find_entry(hash, |&it| it == at),
        };
        if let Ok(entry) = entry {
            entry.remove();
        } else {
            debug_assert!(false, "slot {at} is not in the index");
        }
        self.migrate(MOVES, slots, &hash_of);
        let is_sparse = self.table.capacity() > SHRINK_FROM.max(8 * self.table.len());
        if self.old.is_empty() && is_sparse {
            self.renew();
        }
    }

    /// Puts an empty table in front, with room for a quarter more.
    fn renew(&mut self) {
        let room = self.table.len() + self.table.len() / 4 + 3;
        self.old = std::mem::replace(&mut self.table, HashTable::with_capacity(room));
        self.moved = 0;
    }

    fn put(&mut self, hash: u64, at: u32, hash_of: impl Fn(u32) -> Option<u64>) {
        // There is room, so the table does not ask for hashes.
        let rehash = |&at: &u32| hash_of(at).unwrap_or_default();
        self.table.insert_unique(hash, at, rehash);
    }

    fn migrate(&mut self, moves: u32, slots: u32, hash_of: impl Fn(u32) -> Option<u64>) {
        if self.old.is_empty() {
            return;
        }
        let end = slots.min(self.moved.saturating_add(moves));
        for at in self.moved..end {
            let Some(hash) = hash_of(at) else { continue };
            if let Ok(entry) = self.old.find_entry(hash, |&it| it == at) {
                entry.remove();
                self.put(hash, at, &hash_of);
            }
        }
        self.moved = end;
        if self.old.is_empty() {
            self.old = HashTable::new();
        }
    }
}
