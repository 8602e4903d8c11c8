//! A shard: one short lock around a part of an account's entries.

mod check;
mod entries;
pub(crate) mod index;
pub(crate) mod record;
pub(crate) mod ring;
pub(crate) mod slab;
mod table;
mod wheel;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

pub(crate) use entries::{Core, Gone, Part, Present, Stamp, Trash};

/// A lock, and two hints that can be read without it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Shard {
    due_from_ms: AtomicU64,
    charged: AtomicU64,
    core: Mutex<Core>,
}

impl Shard {
    pub(crate) fn new(core: Core) -> Self {
        Self {
            due_from_ms: AtomicU64::new(u64::MAX),
            charged: AtomicU64::new(0),
            core: Mutex::new(core),
        }
    }

    /// Runs `work` under the lock. What `work` throws away is dropped after.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Core, &mut Trash) -> R) -> R {
        let mut trash = Trash::default();
        let mut core = self.core.lock();
        let result = work(&mut core, &mut trash);
        // Not after a look: the wheel is large, and a read has no other use for it.
        if core.was_stirred() {
            self.due_from_ms.store(core.due_from_ms(), Relaxed);
            self.charged.store(core.charged(), Relaxed);
        }
        drop(core);
        drop(trash);
        result
    }

    /// Has the processor fetch a part of what a look-up with this hash needs, unless somebody else
    /// has the lock.
    pub(crate) fn prefetch(&self, hash: u64, part: Part) {
        if let Some(core) = self.core.try_lock() {
            core.prefetch(hash, part);
        }
    }

    /// False when no entry is due at `now_ms`; true when one may be.
    pub(crate) fn may_be_due(&self, now_ms: u64) -> bool {
        self.due_from_ms.load(Relaxed) <= now_ms
    }

    /// Bytes of memory that the entries are charged with.
    pub(crate) fn charged(&self) -> u64 {
        self.charged.load(Relaxed)
    }
}
