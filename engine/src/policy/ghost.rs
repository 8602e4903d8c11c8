//! The fingerprints of keys that left the small queue unused.
//!
//! The paper keeps them in buckets beside the index; here they have a table of
//! their own, of sets of eight four-byte cells: a fingerprint, and the time at
//! which it came, counted in insertions. One is forgotten when `capacity`
//! others have come after it, or before, if its set has filled up: with five
//! cells of eight in use on average that hits about one in twenty, the oldest
//! of its set. A lookup is one cache line; nothing is linked, nothing rehashes.
//!
//! Two keys share a set and an 18-bit fingerprint about once in 50,000
//! lookups; the second is then taken for the first and enters the main queue,
//! which is harmless.

/// Cells in a set; 32 bytes.
const WAYS: usize = 8;

/// Cells of a set that are in use when all is as planned.
const FILL: u64 = 5;

const STAMP_BITS: u32 = 14;
const STAMP_MASK: u32 = (1 << STAMP_BITS) - 1;

/// A stamp unit is `planned capacity / STAMPS` insertions, so a stamp comes
/// round again after eight times the capacity; by then its set has filled
/// five times over.
const STAMPS: u64 = (STAMP_MASK as u64 + 1) / 8;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Ghost {
    /// An empty cell is 0: no fingerprint is.
    sets: Vec<[u32; WAYS]>,
    /// The capacity that the table was made for.
    planned: u64,
    inserted: u64,
}

impl Ghost {
    pub(super) const BYTES_PER_KEY: u64 = (WAYS as u64 * 4).div_ceil(FILL);

    pub(super) const EMPTY: Self = Self {
        sets: Vec::new(),
        planned: 0,
        inserted: 0,
    };

    /// Remembers a key.
    pub(super) fn insert(&mut self, hash: u64, capacity: u64) {
        self.fit(capacity);
        let stamp = self.stamp();
        self.inserted += 1;
        let print = fingerprint(hash);
        let Some(set) = self.set_of(hash) else {
            return;
        };
        let age = |cell: u32| stamp.wrapping_sub(cell) & STAMP_MASK;
        let rank = |cell: u32| match cell {
            0 => u32::MAX,
            same if same >> STAMP_BITS == print => u32::MAX - 1,
            other => age(other),
        };
        if let Some(cell) = set.iter_mut().max_by_key(|cell| rank(**cell)) {
            *cell = print << STAMP_BITS | stamp;
        }
    }

    /// Forgets a key, and says whether it was among the last `capacity`.
    pub(super) fn take(&mut self, hash: u64, capacity: u64) -> bool {
        let stamp = self.stamp();
        let unit = self.unit();
        let print = fingerprint(hash);
        let Some(set) = self.set_of(hash) else {
            return false;
        };
        let Some(cell) = set.iter_mut().find(|cell| **cell >> STAMP_BITS == print) else {
            return false;
        };
        let age = u64::from(stamp.wrapping_sub(*cell) & STAMP_MASK);
        *cell = 0;
        age * unit <= capacity
    }

    /// Makes the table anew when the capacity has left what it was planned
    /// for; what it remembered is forgotten, which is cheap at a doubling.
    fn fit(&mut self, capacity: u64) {
        let is_planned = self.planned / 4 <= capacity && capacity <= self.planned;
        if is_planned && !self.sets.is_empty() {
            return;
        }
        self.planned = capacity.max(1).saturating_mul(5) / 4 + 8;
        let sets = usize::try_from(self.planned.div_ceil(FILL)).unwrap_or(usize::MAX);
        self.sets = vec![[0; WAYS]; sets];
    }

    const fn unit(&self) -> u64 {
        self.planned.div_ceil(STAMPS)
    }

    fn stamp(&self) -> u32 {
        let stamp = (self.inserted / self.unit().max(1)) & u64::from(STAMP_MASK);
        u32::try_from(stamp).expect("it is masked to 14 bits")
    }

    fn set_of(&mut self, hash: u64) -> Option<&mut [u32; WAYS]> {
        // Bits that neither the fingerprint nor the choice of a shard uses.
        let spread = u128::from(hash.rotate_left(20));
        let set = (spread * self.sets.len() as u128) >> 64;
        self.sets.get_mut(usize::try_from(set).ok()?)
    }
}

/// 18 bits, never 0.
fn fingerprint(hash: u64) -> u32 {
    let low = u32::try_from(hash & u64::from(u32::MAX >> STAMP_BITS));
    low.expect("it is masked to 18 bits").max(1)
}
