//! S3-FIFO: "FIFO queues are all you need for cache eviction", Yang, Zhang,
//! Qiu, Yue and Rashmi, SOSP 2023.
//!
//! A new entry enters a small FIFO queue. If it is not used by the time it
//! reaches that queue's end, it goes, and only its fingerprint is remembered;
//! if it is, it moves to the main queue, which gives each use, up to three,
//! one more round. A key that comes back while its fingerprint is remembered
//! enters the main queue at once. A use costs one byte's write, no move.
//!
//! Set here: the small queue has a tenth, one use promotes (the paper's text
//! says more than one), and as many fingerprints are kept as the main queue
//! has entries when it has its full share.
//!
//! # Shares are measured in what is scarce
//! The tenth is a tenth of keys when keys run out, and a tenth of bytes when
//! bytes do. Under a key quota a share in bytes would let small entries crowd
//! the small queue out of its tenth, and one large entry fill it alone, though
//! each takes the one key that counts. Under a byte quota a share in keys
//! would let a scan of large values hold nearly all bytes as a tenth of the
//! entries, while useful small ones leave the main queue to make room for it.
//! Both sums are kept (16 bytes a queue), and the caller says which room it
//! wants.
//!
//! # When it is the wrong choice
//! When most keys are used exactly twice with a gap longer than the small
//! queue and the fingerprints together last, it loses to plain LRU; on a loop
//! a little larger than the cache, to a policy that pins; and it does not know
//! that a large value costs more room than it saves misses, as GDSF does.

use super::Scarce;
use super::ghost::Ghost;
use crate::shard::ring::{ByQueue, Ring};
use crate::shard::slab::{NIL, Slab, Slot};

/// Bytes that the fingerprint of one entry takes; for the memory charge.
pub(crate) const GHOST_BYTES: u64 = Ghost::BYTES_PER_KEY;

/// The small queue is over its share at one in this many.
const SMALL_SHARE: u64 = 10;

/// Entries that one search for a victim may give another round. It ends the
/// search when all are in use: the next goes though it was used. Unlimited,
/// the search could walk three times around the queue under the lock.
const MAX_ROUNDS: u32 = 128;

/// Uses that are remembered.
const MAX_USES: u8 = 3;

const IN_MAIN: u8 = 4;

#[derive(Debug)]
struct Queue {
    ring: Ring<ByQueue>,
    entries: u64,
    bytes: u64,
}

impl Queue {
    const EMPTY: Self = Self {
        ring: Ring::EMPTY,
        entries: 0,
        bytes: 0,
    };

    fn push(&mut self, slab: &mut Slab, at: u32) {
        self.ring.push_front(slab, at);
        self.entries += 1;
        self.bytes += slab[at].weight();
    }

    fn remove(&mut self, slab: &mut Slab, at: u32) {
        self.ring.remove(slab, at);
        self.entries -= 1;
        self.bytes -= slab[at].weight();
    }

    const fn amount(&self, scarce: Scarce) -> u64 {
        match scarce {
            Scarce::Keys => self.entries,
            Scarce::Bytes => self.bytes,
        }
    }
}

/// The order of a shard's entries.
#[derive(Debug)]
pub(crate) struct S3Fifo {
    small: Queue,
    main: Queue,
    ghost: Ghost,
}

impl S3Fifo {
    pub(crate) const fn new() -> Self {
        Self {
            small: Queue::EMPTY,
            main: Queue::EMPTY,
            ghost: Ghost::EMPTY,
        }
    }

    /// A new entry came; `hash` is that of its key.
    pub(crate) fn admit(&mut self, slab: &mut Slab, at: u32, hash: u64) {
        if self.ghost.take(hash, self.remembered()) {
            slab[at].mark = IN_MAIN;
            self.main.push(slab, at);
        } else {
            slab[at].mark = 0;
            self.small.push(slab, at);
        }
    }

    /// An entry was used.
    pub(crate) const fn used(slot: &mut Slot) {
        if slot.mark & MAX_USES < MAX_USES {
            slot.mark += 1;
        }
    }

    /// The weight of an entry changed from `before`.
    pub(crate) fn reweigh(&mut self, slot: &Slot, before: u64) {
        let queue = self.queue_of(slot);
        queue.bytes = queue.bytes - before + slot.weight();
    }

    /// An entry goes, for any reason.
    pub(crate) fn remove(&mut self, slab: &mut Slab, at: u32) {
        if slab[at].mark & IN_MAIN == 0 {
            self.small.remove(slab, at);
        } else {
            self.main.remove(slab, at);
        }
    }

    /// An entry goes because it was the victim; `hash` is that of its key.
    pub(crate) fn evict(&mut self, slab: &mut Slab, at: u32, hash: u64) {
        let remembered = self.remembered();
        let was_small = slab[at].mark & IN_MAIN == 0;
        self.remove(slab, at);
        if was_small {
            self.ghost.insert(hash, remembered);
        }
    }

    /// Chooses who goes next, but never `spare`. `None` if there is nobody
    /// else.
    pub(crate) fn victim(&mut self, slab: &mut Slab, scarce: Scarce, spare: u32) -> Option<u32> {
        for _ in 0..MAX_ROUNDS {
            let from_small = self.takes_from_small(scarce);
            let queue = if from_small {
                &mut self.small
            } else {
                &mut self.main
            };
            let at = queue.ring.tail(slab)?;
            let uses = slab[at].mark & MAX_USES;
            if at != spare && uses == 0 {
                return Some(at);
            }
            if from_small {
                self.small.remove(slab, at);
                slab[at].mark = IN_MAIN;
                self.main.push(slab, at);
            } else {
                queue.ring.rotate(slab);
                slab[at].mark = IN_MAIN | uses.saturating_sub(1);
            }
        }
        let tails = [self.main.ring.tail(slab), self.small.ring.tail(slab)];
        let mut others = tails.into_iter().flatten().filter(|&at| at != spare);
        others.next()
    }

    fn takes_from_small(&self, scarce: Scarce) -> bool {
        let small = self.small.amount(scarce);
        let all = small + self.main.amount(scarce);
        self.main.ring.is_empty() || (!self.small.ring.is_empty() && small * SMALL_SHARE >= all)
    }

    /// Fingerprints to keep: as many as the main queue has entries when it
    /// has its full share.
    const fn remembered(&self) -> u64 {
        (self.small.entries + self.main.entries) * (SMALL_SHARE - 1) / SMALL_SHARE
    }

    const fn queue_of(&mut self, slot: &Slot) -> &mut Queue {
        if slot.mark & IN_MAIN == 0 {
            &mut self.small
        } else {
            &mut self.main
        }
    }

    /// Checks links, marks and sums.
    pub(crate) fn check(&self, slab: &Slab) -> Result<(), String> {
        for (queue, mark) in [(&self.small, 0), (&self.main, IN_MAIN)] {
            let entries = queue.ring.checked(slab)?;
            let bytes: u64 = entries.iter().map(|&at| slab[at].weight()).sum();
            if entries.iter().any(|&at| slab[at].mark & IN_MAIN != mark) {
                return Err("an entry is in the other queue than its mark says".to_owned());
            }
            if (queue.entries, queue.bytes) != (entries.len() as u64, bytes) {
                return Err("a queue's sums are wrong".to_owned());
            }
        }
        if self.small.entries + self.main.entries == u64::from(slab.live()) {
            Ok(())
        } else {
            Err("an entry is in no queue".to_owned())
        }
    }
}

const _: () = assert!(
    NIL == u32::MAX,
    "callers without an entry to spare pass NIL"
);
