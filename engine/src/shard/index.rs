//! From key to slot: a table of slot numbers that never stops to rehash.
//!
//! A plain table rehashes all at once when it is full or clogged with
//! tombstones: tens of milliseconds under the lock at a million entries. Here
//! a new table is put in front of the old one, and every change moves a few
//! entries over, so that no change does more than a bounded number of moves.
//! It holds no hashes: the caller can always compute one from a slot, and a
//! move is rarer than an entry.

use super::table::Table;

/// Slots that one change looks at while entries move. With room for half as many
/// again, the new table cannot fill up before the old one is empty unless fewer
/// than an eighth of all slots are in use; then the rest moves at once.
const MOVES: u32 = 16;

/// Below this many entries a table is never too big.
const SHRINK_FROM: usize = 1 << 10;

/// Bytes that the index takes for an entry, between 7.6 (full) and 11.4 (just
/// grown); the figure that the memory charge counts with.
pub(crate) const INDEX_BYTES: u64 = 8;

/// The index of a shard.
#[derive(Debug, Default)]
pub(crate) struct Index {
    table: Table,
    /// What has not moved yet.
    old: Table,
    /// Slots below this have moved.
    moved: u32,
}

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.table.len() + self.old.len()
    }

    /// The slot with this hash for which `is_it` holds.
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let found = self.table.find(hash, &mut is_it);
        if found.is_some() || self.old.is_empty() {
            return found;
        }
        self.old.find(hash, is_it)
    }

    /// Has the processor fetch what [`find`](Self::find) looks at first.
    pub(crate) fn prefetch(&self, hash: u64) {
        self.table.prefetch(hash);
        if !self.old.is_empty() {
            self.old.prefetch(hash);
        }
    }

    /// The slot that [`find`](Self::find) most likely asks for first.
    pub(crate) fn likely(&self, hash: u64) -> Option<u32> {
        let likely = self.table.likely(hash);
        likely.or_else(|| self.old.likely(hash))
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
        // What has not moved yet needs its room too.
        if self.len() >= self.table.capacity() {
            self.migrate(u32::MAX, slots, &hash_of);
            self.renew();
        }
        self.table.insert(hash, at);
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
        let was_there = self.table.remove(hash, at) || self.old.remove(hash, at);
        debug_assert!(was_there, "slot {at} is not in the index");
        self.migrate(MOVES, slots, &hash_of);
        let is_sparse = self.table.capacity() > SHRINK_FROM.max(8 * self.table.len());
        if self.old.is_empty() && is_sparse {
            self.renew();
        }
    }

    /// Puts an empty table in front, with room for half as many again: so each entry
    /// moves twice for each that comes to stay.
    fn renew(&mut self) {
        let room = self.table.len() + self.table.len() / 2 + 3;
        self.old = std::mem::replace(&mut self.table, Table::with_capacity(room));
        self.moved = 0;
    }

    fn migrate(&mut self, moves: u32, slots: u32, hash_of: impl Fn(u32) -> Option<u64>) {
        if self.old.is_empty() {
            return;
        }
        let end = slots.min(self.moved.saturating_add(moves));
        while self.moved < end {
            let first = self.moved;
            self.moved = end.min(first + MOVES);
            // What one move waits for is fetched for the others meanwhile.
            let mut hashes = [None; MOVES as usize];
            for (hash, at) in hashes.iter_mut().zip(first..self.moved) {
                *hash = hash_of(at).inspect(|&hash| self.prefetch(hash));
            }
            for (hash, at) in hashes.into_iter().zip(first..) {
                if let Some(hash) = hash
                    && self.old.remove(hash, at)
                {
                    self.table.insert(hash, at);
                }
            }
        }
        if self.old.is_empty() {
            self.old = Table::default();
        }
    }
}
