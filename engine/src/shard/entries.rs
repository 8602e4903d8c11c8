//! What a shard's lock protects: the entries, and every structure that knows
//! of them. Each method leaves all of them, the ledgers and the memory charge
//! in agreement.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_model::{EntryKey, EntryMeta, EntryRef, Expiry, Time, Version, entry_size_bytes};
use prefetch_index::prefetch_index;

use super::index::Index;
use super::record::{self, Draft, Record};
use super::slab::{CHUNK_SLOTS, LINE_BYTES, NIL, Slab, Slot, U48};
use super::wheel::{Step, Wheel};
use crate::hash::KeyHasher;
use crate::ledger::{Amount, Event, Ledger};
use crate::memory::{self, Memory};
use crate::policy::{S3Fifo, Scarce};

/// Most of a record that is fetched ahead; of a longer one the processor sees by itself that it is
/// read from front to end.
const PREFETCHED_BYTES: usize = 256;

/// What a look-up comes to one after the other: each says where the next is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Index,
    Slot,
    Record,
}

/// Why an entry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Somebody asked for it.
    Deleted,
    Expired,
    Evicted,
}

/// What goes when the lock has been given back: freeing takes time. One entry
/// is kept without an allocation.
#[derive(Debug, Default)]
pub(crate) struct Trash {
    record: Option<Box<[u8]>>,
    /// Empty, and looked at as one, after nearly every call.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    records: Vec<Box<[u8]>>,
    large: Vec<Arc<[u8]>>,
}

impl Trash {
    fn throw(&mut self, record: Box<[u8]>) {
        if let Some(another) = self.record.replace(record) {
            self.more.get_or_insert_default().records.push(another);
        }
    }

    fn throw_large(&mut self, value: Option<Arc<[u8]>>) {
        if let Some(value) = value {
            self.more.get_or_insert_default().large.push(value);
        }
    }
}

/// A live entry, looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Present<'a> {
    pub(super) record: Record<'a>,
    pub(crate) meta: EntryMeta,
    /// The value, if it is kept beside the record.
    pub(crate) large: Option<&'a Arc<[u8]>>,
}

impl<'a> Present<'a> {
    pub(crate) fn value(&self) -> &'a [u8] {
        self.large.map_or(self.record.value(), |value| value)
    }

    pub(crate) const fn record(&self) -> &Record<'a> {
        &self.record
    }

    pub(crate) fn entry(&self) -> EntryRef<'a> {
        EntryRef {
            namespace: self.record.space(),
            key: self.record.key,
            value: self.value(),
            meta: self.meta,
        }
    }
}

/// The entries of a shard.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) slab: Slab,
    pub(super) index: Index,
    pub(super) policy: S3Fifo,
    pub(super) wheel: Wheel,
    /// Values that are kept beside their records.
    pub(super) large: BTreeMap<u32, Arc<[u8]>>,
    /// By number; there from the first entry that the owner put here.
    owners: Vec<Option<Arc<Ledger>>>,
    pub(super) charged: u64,
    pub(super) hasher: KeyHasher,
    memory: Arc<Memory>,
    first_version: u64,
    shard: usize,
    /// Writes, new ends, and entries that went before their time.
    changes: u64,
    /// What the shard's hints are made of may have changed since they were.
    is_stirred: bool,
}

impl Core {
    /// Entries that [`dismantle`](Self::dismantle) drops at a time.
    pub(crate) const CHUNK: usize = CHUNK_SLOTS as usize;

    pub(crate) fn new(
        hasher: KeyHasher,
        memory: Arc<Memory>,
        first_version: u64,
        shard: usize,
    ) -> Self {
        Self {
            slab: Slab::default(),
            index: Index::default(),
            policy: S3Fifo::new(),
            wheel: Wheel::default(),
            large: BTreeMap::new(),
            owners: Vec::new(),
            charged: 0,
            hasher,
            memory,
            first_version,
            shard,
            changes: 0,
            is_stirred: false,
        }
    }

    /// An empty core in the place of this one.
    pub(crate) fn take(&mut self) -> Self {
        let mut empty = Self::new(
            self.hasher,
            Arc::clone(&self.memory),
            self.first_version,
            self.shard,
        );
        empty.changes = self.changes + 1;
        empty.is_stirred = true;
        std::mem::replace(self, empty)
    }

    pub(crate) const fn charged(&self) -> u64 {
        self.charged
    }

    /// How often something was changed here that does not change by itself: entries
    /// that expire do not count.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether the hints that the shard shows without its lock have to be made anew.
    pub(crate) const fn was_stirred(&mut self) -> bool {
        std::mem::replace(&mut self.is_stirred, false)
    }

    pub(crate) const fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    pub(crate) fn due_from_ms(&self) -> u64 {
        self.wheel.due_from_ms()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slab.live() == 0
    }

    /// One more than the highest slot number.
    pub(crate) fn slots(&self) -> u32 {
        self.slab.end()
    }

    /// The first slot number from `at` on that may hold an entry.
    pub(crate) fn skip_empty(&self, at: u32) -> u32 {
        self.slab.skip_empty(at)
    }

    /// Counts an event of `ledger` in this shard.
    pub(crate) fn note(&self, ledger: &Ledger, event: Event) {
        ledger.note(self.shard, event);
    }

    /// Slot of the live entry under the key, whose hash is `hash`. One that
    /// is due goes.
    pub(crate) fn find(
        &mut self,
        at: EntryKey<'_>,
        hash: u64,
        now: Time,
        trash: &mut Trash,
    ) -> Option<u32> {
        let slab = &self.slab;
        let is_it = |slot: u32| record::is_at(slab[slot].parts, &slab[slot].record, at);
        let slot = self.index.find(hash, is_it)?;
        if expiry_of(&self.slab[slot]).is_due(now) {
            self.remove(slot, Gone::Expired, trash);
            return None;
        }
        Some(slot)
    }

    /// As [`find`](Self::find), and leaves one that is due where it is.
    pub(crate) fn find_quietly(&self, at: EntryKey<'_>, hash: u64, now: Time) -> Option<u32> {
        let slab = &self.slab;
        let is_it = |slot: u32| record::is_at(slab[slot].parts, &slab[slot].record, at);
        let slot = self.index.find(hash, is_it)?;
        (!expiry_of(&self.slab[slot]).is_due(now)).then_some(slot)
    }

    /// Has the processor fetch what [`find`](Self::find) and [`look`](Self::look) need of a key
    /// with this hash, as far as it is known by now where that is.
    pub(crate) fn prefetch(&self, hash: u64, part: Part) {
        if part == Part::Index {
            return self.index.prefetch(hash);
        }
        let Some(slot) = self.index.likely(hash) else {
            return;
        };
        if part == Part::Slot {
            return self.slab.prefetch(slot);
        }
        if let Some(slot) = self.slab.entry(slot) {
            for at in (0..slot.record.len().min(PREFETCHED_BYTES)).step_by(LINE_BYTES) {
                prefetch_index(&slot.record, at);
            }
        }
    }

    /// The entry in a slot, if there is one.
    pub(crate) fn peek(&self, slot: u32) -> Option<Present<'_>> {
        self.slab.entry(slot).map(|it| self.present(slot, it))
    }

    /// The entry in a slot that [`find`](Self::find) gave.
    pub(crate) fn look(&self, slot: u32) -> Present<'_> {
        self.present(slot, &self.slab[slot])
    }

    #[inline]
    pub(super) fn present<'a>(&'a self, at: u32, slot: &'a Slot) -> Present<'a> {
        let record = Record::read(slot.parts, &slot.record);
        let large = if slot.parts.is_large() {
            self.large.get(&at)
        } else {
            None
        };
        Present {
            record,
            meta: EntryMeta {
                version: Version::new(self.first_version.saturating_add(slot.version.get())),
                expiry: expiry_of(slot),
                size_bytes: record.size_bytes(),
                flags: record.flags,
            },
            large,
        }
    }

    /// The ledger that the entry in a slot counts on.
    pub(crate) fn owner(&self, slot: u32) -> &Arc<Ledger> {
        let number = self.owner_number(slot);
        let owner = self.owners.get(number as usize).and_then(Option::as_ref);
        owner.expect("an owner stays for as long as it has entries")
    }

    /// The number of that ledger.
    pub(crate) fn owner_number(&self, slot: u32) -> u32 {
        let slot = &self.slab[slot];
        record::owner(slot.parts, &slot.record)
    }

    /// Memory that the entry in a slot is charged with.
    pub(crate) fn charge_of(&self, slot: u32) -> u64 {
        charge_of(&self.slab[slot])
    }

    /// Notes a use for eviction.
    pub(crate) fn used(&mut self, slot: u32) {
        S3Fifo::used(&mut self.slab[slot]);
    }

    /// Puts a new entry in. Its room on `owner` and in memory is reserved, and
    /// belongs to it from now on.
    pub(crate) fn insert(
        &mut self,
        draft: &Draft<'_>,
        hash: u64,
        stamp: Stamp,
        large: Option<Arc<[u8]>>,
        owner: &Arc<Ledger>,
    ) {
        self.changes += 1;
        self.settle_owner(owner);
        let (parts, bytes) = draft.encode();
        let at = self.slab.insert(|slot| {
            slot.record = bytes;
            slot.parts = parts;
            slot.version = U48::saturating(stamp.version);
            slot.expiry_ms = expiry_ms(stamp.expiry);
        });
        if let Some(value) = large {
            self.large.insert(at, value);
        }
        self.charged += charge_of(&self.slab[at]);
        let (slab, hasher) = (&self.slab, &self.hasher);
        let hash_of = |at| slab.entry(at).map(|slot| hash_of(hasher, slot));
        self.index.insert(hash, at, slab.end(), hash_of);
        self.policy.admit(&mut self.slab, at, hash);
        self.time(at);
    }

    /// Puts another value into an entry. Any growth is reserved; what it
    /// shrinks by is released here.
    pub(crate) fn replace(
        &mut self,
        at: u32,
        draft: &Draft<'_>,
        stamp: Stamp,
        large: Option<Arc<[u8]>>,
        trash: &mut Trash,
    ) {
        self.changes += 1;
        self.is_stirred = true;
        let slot = &self.slab[at];
        let before = Record::read(slot.parts, &slot.record).size_bytes();
        let (weight, charged) = (slot.weight(), charge_of(slot));
        if slot.parts.is_large() {
            trash.throw_large(self.large.remove(&at));
        }
        let slot = &mut self.slab[at];
        slot.version = U48::saturating(stamp.version);
        if !record::rewrite(slot.parts, &mut slot.record, draft) {
            let (parts, bytes) = draft.encode();
            slot.parts = parts;
            trash.throw(std::mem::replace(&mut slot.record, bytes));
        }
        if let Some(value) = large {
            self.large.insert(at, value);
        }
        let slot = &mut self.slab[at];
        S3Fifo::used(slot);
        self.policy.reweigh(slot, weight);
        let now_charged = charge_of(slot);
        self.charged = self.charged - charged + now_charged;
        self.memory.release(charged.saturating_sub(now_charged));
        self.owner(at).release(Amount {
            keys: 0,
            bytes: before.saturating_sub(draft.size_bytes()),
        });
        self.expire_at(at, stamp.expiry);
    }

    /// Gives an entry another end.
    pub(crate) fn expire_at(&mut self, at: u32, expiry: Expiry) {
        let end = expiry_ms(expiry);
        if self.slab[at].expiry_ms != end {
            self.changes += 1;
            self.is_stirred = true;
            self.wheel.remove(&mut self.slab, at);
            self.slab[at].expiry_ms = end;
            self.time(at);
        }
    }

    fn time(&mut self, at: u32) {
        self.is_stirred = true;
        let end_ms = self.slab[at].expiry_ms.get();
        if end_ms != U48::MAX {
            self.wheel.insert(&mut self.slab, at, end_ms);
        }
    }

    /// Takes an entry out, and gives its room back.
    pub(crate) fn remove(&mut self, at: u32, gone: Gone, trash: &mut Trash) {
        self.changes += u64::from(gone != Gone::Expired);
        self.is_stirred = true;
        self.wheel.remove(&mut self.slab, at);
        let (slab, hasher) = (&self.slab, &self.hasher);
        let hash_of = |at| slab.entry(at).map(|slot| hash_of(hasher, slot));
        let hash = hash_of(at).unwrap_or_default();
        self.index.remove(hash, at, slab.end(), hash_of);
        if gone == Gone::Evicted {
            self.policy.evict(&mut self.slab, at, hash);
        } else {
            self.policy.remove(&mut self.slab, at);
        }
        let owner = self.owner(at);
        match gone {
            Gone::Deleted => {}
            Gone::Expired => owner.note(self.shard, Event::Expired),
            Gone::Evicted => owner.note(self.shard, Event::Evicted),
        }
        let record = Record::read(self.slab[at].parts, &self.slab[at].record);
        owner.release(Amount {
            keys: 1,
            bytes: entry_size_bytes(record.key.len(), record.value_len()),
        });
        let slot = self.slab.remove(at);
        let charged = charge_of(&slot);
        self.charged -= charged;
        self.memory.release(charged);
        if slot.parts.is_large() {
            trash.throw_large(self.large.remove(&at));
        }
        trash.throw(slot.record);
    }

    /// Removes what is due at `now`, in `steps` steps of the wheel at the
    /// most; counts what went into `expired`. True when nothing due is left.
    pub(crate) fn drain(
        &mut self,
        now: Time,
        steps: usize,
        trash: &mut Trash,
        expired: &mut u64,
    ) -> bool {
        self.is_stirred = true;
        for _ in 0..steps {
            match self.wheel.step(&mut self.slab, now.as_millis()) {
                Step::Idle => return true,
                Step::Moved => {}
                Step::Due(at) => {
                    self.remove(at, Gone::Expired, trash);
                    *expired += 1;
                }
            }
        }
        self.wheel.due_from_ms() > now.as_millis()
    }

    /// Removes the least useful entry, never `spare`. False if there is none.
    pub(crate) fn evict(&mut self, scarce: Scarce, spare: Option<u32>, trash: &mut Trash) -> bool {
        let spare = spare.unwrap_or(NIL);
        let victim = self.policy.victim(&mut self.slab, scarce, spare);
        if let Some(at) = victim {
            self.remove(at, Gone::Evicted, trash);
        }
        victim.is_some()
    }

    fn settle_owner(&mut self, owner: &Arc<Ledger>) {
        let number = owner.number as usize;
        if self.owners.len() <= number {
            self.owners.resize(number + 1, None);
        }
        let seat = &mut self.owners[number];
        if seat.is_none() {
            *seat = Some(Arc::clone(owner));
        }
    }

    /// Forgets an owner that has no entries here, nor ever will again.
    pub(crate) fn forget_owner(&mut self, number: u32) {
        if let Some(seat) = self.owners.get_mut(number as usize) {
            *seat = None;
        }
    }

    /// Drops a chunk of entries, having given back their memory; for a core
    /// that nobody can reach any more. False when none is left.
    pub(crate) fn dismantle(&mut self) -> bool {
        let first = self.slab.last_chunk();
        drop(self.large.split_off(&first));
        let Some(slots) = self.slab.pop_chunk() else {
            return false;
        };
        let filled = slots.iter().filter(|slot| !slot.is_free());
        let freed: u64 = filled.map(charge_of).sum();
        self.charged -= freed;
        self.memory.release(freed);
        true
    }
}

/// What a write gives an entry beside its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    /// Versions given out before.
    pub(crate) version: u64,
    pub(crate) expiry: Expiry,
}

pub(super) fn hash_of(hasher: &KeyHasher, slot: &Slot) -> u64 {
    let (space, key) = record::place(slot.parts, &slot.record);
    hasher.parts(space, key)
}

pub(super) fn charge_of(slot: &Slot) -> u64 {
    let large = slot.parts.is_large();
    let large = large.then(|| record::large_len(&slot.record));
    memory::charge(slot.record.len() as u64, large)
}

fn expiry_of(slot: &Slot) -> Expiry {
    match slot.expiry_ms.get() {
        U48::MAX => Expiry::Never,
        end_ms => Expiry::At(Time::from_millis(end_ms)),
    }
}

/// An end beyond 2^48 - 2 ms, 8,900 years, is taken for that.
fn expiry_ms(expiry: Expiry) -> U48 {
    U48::saturating(match expiry {
        Expiry::Never => U48::MAX,
        Expiry::At(end) => end.as_millis().min(U48::MAX - 1),
    })
}
