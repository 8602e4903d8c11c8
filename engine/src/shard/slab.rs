//! Slots with a stable number.
//!
//! A walk over an account goes by slot number, and queues, wheel and index
//! hold slot numbers, so an entry keeps its slot for as long as it lives.
//! Slots come in chunks: growing never copies what is there, which under a
//! lock would stop the shard for as long as the copy takes; and a chunk that
//! has emptied is given back. New entries go to the lowest chunk that has
//! room, so that what turns over leaves the high chunks.

use std::collections::BTreeSet;

use prefetch_index::prefetch_index;
use smallvec::SmallVec;

use super::record::{self, Parts};
use larder_model::ENTRY_OVERHEAD_BYTES;

/// No slot.
pub(crate) const NIL: u32 = u32::MAX;

/// Slots in a chunk; 12 KiB.
pub(crate) const CHUNK_SLOTS: u32 = 256;

/// Neighbours in a ring of slots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Links {
    pub(crate) prev: u32,
    pub(crate) next: u32,
}

impl Links {
    const NONE: Self = Self {
        prev: NIL,
        next: NIL,
    };
}

/// A number below 2^48; two of them save four bytes an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct U48([u16; 3]);

impl U48 {
    pub(crate) const MAX: u64 = (1 << 48) - 1;

    /// `n`, or the greatest if `n` is beyond.
    pub(crate) fn saturating(n: u64) -> Self {
        let [a, b, c, d, e, f, ..] = n.min(Self::MAX).to_le_bytes();
        Self([[a, b], [c, d], [e, f]].map(u16::from_le_bytes))
    }

    pub(crate) fn get(self) -> u64 {
        let [low, mid, high] = self.0.map(u64::from);
        low | mid << 16 | high << 32
    }
}

/// One entry, but for its bytes. A slot without bytes is free.
///
/// What a read needs stands in front: of every four slots three have it in one
/// cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slot {
    /// Key and value; see [`record`].
    pub(crate) record: Box<[u8]>,
    /// Versions given out by the partition before this one.
    pub(crate) version: U48,
    /// Milliseconds; [`U48::MAX`] is never.
    pub(crate) expiry_ms: U48,
    /// The policy's note of what it knows.
    pub(crate) mark: u8,
    pub(crate) parts: Parts,
    /// The wheel's note of where the entry is.
    pub(crate) timer_at: u16,
    /// In the policy's queue; of a free slot, `next` is the next free one.
    pub(crate) queue: Links,
    /// In the wheel, if it is timed.
    pub(crate) timer: Links,
}

/// What a slot takes; the figure that the memory charge counts with.
pub(crate) const SLOT_BYTES: u64 = size_of::<Slot>() as u64;
const _: () = assert!(SLOT_BYTES == 48, "the charge and the docs say 48");

/// What of a slot a read needs, from its beginning.
const READ_BYTES: usize = std::mem::offset_of!(Slot, timer_at);
/// Of the processor's cache.
pub(crate) const LINE_BYTES: usize = 64;

impl Slot {
    fn free(next: u32) -> Self {
        Self {
            record: Box::default(),
            queue: Links { prev: NIL, next },
            timer: Links::NONE,
            version: U48([0; 3]),
            expiry_ms: U48([0; 3]),
            timer_at: u16::MAX,
            mark: 0,
            parts: Parts::default(),
        }
    }

    pub(crate) const fn is_free(&self) -> bool {
        self.record.is_empty()
    }

    /// What the policy's byte shares count: about the quota's bytes, known
    /// without touching the record.
    pub(crate) fn weight(&self) -> u64 {
        let aside = if self.parts.is_large() {
            record::large_len(&self.record)
        } else {
            0
        };
        self.record.len() as u64 + aside + ENTRY_OVERHEAD_BYTES
    }
}

#[derive(Debug)]
struct Chunk {
    slots: Vec<Slot>,
    first_free: u32,
    live: u32,
}

impl Chunk {
    const EMPTY: Self = Self {
        slots: Vec::new(),
        first_free: NIL,
        live: 0,
    };

    const fn is_full(&self) -> bool {
        self.live == CHUNK_SLOTS
    }
}

/// The slots of a shard.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    /// Small accounts have one: it is found without one step more.
    chunks: SmallVec<[Chunk; 1]>,
    /// Chunks with room.
    open: BTreeSet<u32>,
    live: u32,
}

impl Slab {
    /// Entries.
    pub(crate) const fn live(&self) -> u32 {
        self.live
    }

    /// One more than the highest slot number in use may be.
    pub(crate) fn end(&self) -> u32 {
        number(self.chunks.len()) * CHUNK_SLOTS
    }

    /// The entry in a slot, if there is one.
    pub(crate) fn entry(&self, at: u32) -> Option<&Slot> {
        let chunk = self.chunks.get((at / CHUNK_SLOTS) as usize)?;
        let slot = chunk.slots.get((at % CHUNK_SLOTS) as usize)?;
        (!slot.is_free()).then_some(slot)
    }

    /// Has the processor fetch what a read needs of a slot.
    pub(crate) fn prefetch(&self, at: u32) {
        if let Some(chunk) = self.chunks.get((at / CHUNK_SLOTS) as usize) {
            let within = (at % CHUNK_SLOTS) as usize;
            prefetch_index(&chunk.slots, within);
            let address = chunk.slots.as_ptr().wrapping_add(within).addr();
            if address % LINE_BYTES > LINE_BYTES - READ_BYTES {
                // What a read needs ends in the line in which the next slot begins.
                prefetch_index(&chunk.slots, within + 1);
            }
        }
    }

    /// The first slot at or after `at` that may hold an entry: skips chunks
    /// without any.
    pub(crate) fn skip_empty(&self, at: u32) -> u32 {
        let first = (at / CHUNK_SLOTS) as usize;
        match self.chunks.get(first) {
            Some(chunk) if chunk.live > 0 => at,
            _ => self
                .chunks
                .iter()
                .skip(first + 1)
                .position(|chunk| chunk.live > 0)
                .map_or(self.end(), |more| number(first + 1 + more) * CHUNK_SLOTS),
        }
    }

    /// Fills a free slot; `fill` gets it as a free slot is.
    pub(crate) fn insert(&mut self, fill: impl FnOnce(&mut Slot)) -> u32 {
        let open = self.open.first().copied();
        let chunk_at = open.unwrap_or_else(|| self.add_chunk());
        let chunk = &mut self.chunks[chunk_at as usize];
        let mut within = chunk.first_free;
        if within == NIL {
            within = number(chunk.slots.len());
            chunk.slots.push(Slot::free(NIL));
        }
        let slot = &mut chunk.slots[within as usize];
        chunk.first_free = slot.queue.next;
        fill(slot);
        debug_assert!(!slot.is_free(), "an entry has a key, so it has bytes");
        chunk.live += 1;
        if chunk.is_full() {
            self.open.remove(&chunk_at);
        }
        self.live += 1;
        chunk_at * CHUNK_SLOTS + within
    }

    fn add_chunk(&mut self) -> u32 {
        let at = number(self.chunks.len());
        assert!(
            at < NIL / CHUNK_SLOTS,
            "a shard has fewer than 2^32 entries"
        );
        let mut chunk = Chunk::EMPTY;
        if at > 0 {
            chunk.slots.reserve_exact(CHUNK_SLOTS as usize);
        }
        self.chunks.push(chunk);
        self.open.insert(at);
        at
    }

    /// Frees a slot, and gives back what it held.
    pub(crate) fn remove(&mut self, at: u32) -> Slot {
        let (chunk_at, within) = (at / CHUNK_SLOTS, at % CHUNK_SLOTS);
        let chunk = &mut self.chunks[chunk_at as usize];
        let free = Slot::free(chunk.first_free);
        let slot = std::mem::replace(&mut chunk.slots[within as usize], free);
        chunk.first_free = within;
        chunk.live -= 1;
        self.live -= 1;
        self.open.insert(chunk_at);
        // One chunk with room is kept, so that an entry that comes and goes
        // does not take and give a chunk each time.
        if chunk.live == 0 && self.open.len() > 1 {
            self.chunks[chunk_at as usize] = Chunk::EMPTY;
            while self.chunks.last().is_some_and(|last| last.slots.is_empty()) {
                self.chunks.pop();
                self.open.remove(&number(self.chunks.len()));
            }
        }
        slot
    }

    /// Number of the first slot of the last chunk.
    pub(crate) fn last_chunk(&self) -> u32 {
        self.end().saturating_sub(CHUNK_SLOTS)
    }

    /// Takes a whole chunk of entries out, the last one; for an account that
    /// is gone.
    pub(crate) fn pop_chunk(&mut self) -> Option<Vec<Slot>> {
        let chunk = self.chunks.pop()?;
        self.open.remove(&number(self.chunks.len()));
        self.live -= chunk.live;
        Some(chunk.slots)
    }
}

impl std::ops::Index<u32> for Slab {
    type Output = Slot;

    fn index(&self, at: u32) -> &Slot {
        &self.chunks[(at / CHUNK_SLOTS) as usize].slots[(at % CHUNK_SLOTS) as usize]
    }
}

impl std::ops::IndexMut<u32> for Slab {
    fn index_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.chunks[(at / CHUNK_SLOTS) as usize].slots[(at % CHUNK_SLOTS) as usize]
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("a shard has fewer than 2^32 slots")
}
