//! What entries take from the machine, as one number.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::policy::GHOST_BYTES;
use crate::shard::index::INDEX_BYTES;
use crate::shard::slab::SLOT_BYTES;

/// Charged for an entry beside its bytes: slot, index and fingerprint.
pub(crate) const ENTRY_BYTES: u64 = SLOT_BYTES + INDEX_BYTES + GHOST_BYTES;

/// Charged for a value that is kept beside its record: reference counts, and
/// the place in the map that leads to it.
const LARGE_BYTES: u64 = 64;

/// The memory that all accounts share.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicU64,
    /// Of that, what accounts take by being.
    fixed: AtomicU64,
    limit: u64,
}

impl Memory {
    pub(crate) const fn new(limit: u64) -> Self {
        Self {
            used: AtomicU64::new(0),
            fixed: AtomicU64::new(0),
            limit,
        }
    }

    pub(crate) const fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Takes `bytes` if they are there.
    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        let bounded = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        bytes == 0 || self.used.fetch_update(Relaxed, Relaxed, bounded).is_ok()
    }

    /// Takes `bytes` even if they are not there: what an account takes by
    /// being. The next write makes room.
    pub(crate) fn fix(&self, bytes: u64) {
        self.fixed.fetch_add(bytes, Relaxed);
        self.used.fetch_add(bytes, Relaxed);
    }

    /// Gives back what [`fix`](Self::fix) took.
    pub(crate) fn unfix(&self, bytes: u64) {
        self.fixed.fetch_sub(bytes, Relaxed);
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// What entries take, without what accounts do.
    pub(crate) fn of_entries(&self) -> u64 {
        self.used().saturating_sub(self.fixed.load(Relaxed))
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// True when `bytes` could be taken now.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        bytes <= self.limit.saturating_sub(self.used())
    }
}

/// Charge for an entry whose record has `record` bytes, and whose value, if it
/// is kept beside, has `large`.
pub(crate) fn charge(record: u64, large: Option<u64>) -> u64 {
    let large = large.map_or(0, |len| LARGE_BYTES + size_class(len));
    ENTRY_BYTES + size_class(record) + large
}

/// What an allocator hands out for `len` bytes: multiples of 16 up to 128,
/// then eight classes for each doubling, so at most an eighth is lost. That
/// is how mimalloc and jemalloc (four classes for each doubling) cut, within
/// a class; glibc's 8 bytes of head come to about the same.
fn size_class(len: u64) -> u64 {
    let step = if len <= 128 {
        16
    } else {
        (1 << (len - 1).ilog2()) / 8
    };
    len.max(1).next_multiple_of(step)
}
