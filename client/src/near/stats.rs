//! What a near cache has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of a [`NearCache`](crate::NearCache) since it was made, by all its clones, and what it
/// holds. Read one by one: they need not fit each other to the last get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NearStats {
    /// Gets that were answered without the server.
    pub hits: u64,
    /// Gets that asked the server. Those that did so because what was kept was too old are here
    /// too.
    pub misses: u64,
    /// Gets that waited for the answer to another one.
    pub shared: u64,
    /// Gets that found what was kept too old: past its bound, or its TTL.
    pub stale: u64,
    /// Entries that went for want of room, and those too large to be kept.
    pub evicted: u64,
    /// Entries and misses that went because a write of this client or a source of changes said so.
    pub invalidated: u64,
    /// Answers that were not kept because something was written, or may have been, while they
    /// were under way.
    pub overtaken: u64,
    /// Entries and misses that are held now, also those too old to be given out.
    pub entries: u64,
    /// What they cost: keys, values and what belongs to them, bytes.
    pub bytes: u64,
}

/// Counted while others count.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) hits: Hits,
    pub(super) misses: Count,
    pub(super) shared: Count,
    pub(super) stale: Count,
    pub(super) evicted: Count,
    pub(super) invalidated: Count,
    pub(super) overtaken: Count,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

/// What is counted most, in cells apart from each other, so that threads which hit different keys
/// do not fetch the same cache line.
#[derive(Debug, Default)]
pub(super) struct Hits([Apart; 8]);

/// Two lines of 64 bytes: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart(Count);

impl Count {
    pub(super) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Hits {
    /// Counts one; `place` differs where threads may differ.
    pub(super) fn add(&self, place: usize) {
        self.0[place % self.0.len()].0.add(1);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.iter().map(|cell| cell.0.get()).sum()
    }
}
