//! The shards that hold an account's entries, or in a shared key space those
//! of all accounts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use larder_model::{EntryKey, Quota, Time};

use crate::hash::KeyHasher;
use crate::ledger::{Amount, Ledger};
use crate::memory::Memory;
use crate::policy::Scarce;
use crate::shard::{Core, Shard};

/// Most shards of a partition.
const MAX_SHARDS: u64 = 16;

/// Objects that a shard should have: with fewer, chance makes some shards
/// fuller than others, and their entries go too early.
const SHARD_OBJECTS: u64 = 1000;

/// What an object is taken to weigh when only bytes are limited.
const OBJECT_BYTES: u64 = 4096;

/// Steps of expiry or eviction under one holding of a lock; some 20 to 50 µs.
pub(crate) const LOCK_STEPS: usize = 128;

/// Memory charged for a shard by itself: its structures while nearly empty.
const SHARD_BYTES: u64 = 1024;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Partition {
    shards: Box<[Shard]>,
    hasher: KeyHasher,
    memory: Arc<Memory>,
    /// Tells a cursor of this partition from any other's; never 0.
    life: u64,
    first_version: u64,
    versions: AtomicU64,
    /// The shard that gives up the next entry when memory is short.
    giving: AtomicUsize,
}

impl Partition {
    pub(crate) fn new(
        hasher: KeyHasher,
        memory: Arc<Memory>,
        (first_version, births): (u64, u64),
        shards: usize,
    ) -> Self {
        memory.fix(SHARD_BYTES * shards as u64);
        let core = |shard| Core::new(hasher, Arc::clone(&memory), first_version, shard);
        Self {
            shards: (0..shards).map(|shard| Shard::new(core(shard))).collect(),
            hasher,
            life: hasher.number([first_version, births]).max(1),
            first_version,
            versions: AtomicU64::new(0),
            giving: AtomicUsize::new(0),
            memory,
        }
    }

    /// Gives out versions from `next` on.
    pub(crate) fn counting_from(self, next: u64) -> Self {
        let given_out = next.saturating_sub(self.first_version);
        self.versions.store(given_out, Relaxed);
        self
    }

    /// The number by which an entry bears a version of an earlier engine; `None` if
    /// it is out of reach, or not below those given out here.
    pub(crate) fn old_version(&self, version: u64) -> Option<u64> {
        let number = version.checked_sub(self.first_version)?;
        (number < self.versions.load(Relaxed)).then_some(number)
    }

    /// Shards for an account: a power of two, so that each has some
    /// [`SHARD_OBJECTS`] when the account is full.
    pub(crate) fn shards_for(quota: Quota, memory: &Memory) -> usize {
        let by_bytes = quota.max_bytes.min(memory.limit()) / OBJECT_BYTES;
        let shards = quota.max_keys.min(by_bytes) / SHARD_OBJECTS;
        1 << shards.clamp(1, MAX_SHARDS).ilog2()
    }

    pub(crate) const fn shards(&self) -> &[Shard] {
        &self.shards
    }

    pub(crate) fn memory_limit(&self) -> u64 {
        self.memory.limit()
    }

    pub(crate) const fn life(&self) -> u64 {
        self.life
    }

    pub(crate) fn hash(&self, at: EntryKey<'_>) -> u64 {
        self.hasher.at(at)
    }

    pub(crate) fn shard_number(&self, hash: u64) -> usize {
        // Bits that the table in a shard goes by for nothing else.
        let bits = usize::from(hash.to_le_bytes()[6]);
        bits & (self.shards.len() - 1)
    }

    pub(crate) fn shard(&self, hash: u64) -> &Shard {
        &self.shards[self.shard_number(hash)]
    }

    /// Gives out a version: how many were given out before. Called under the
    /// lock of the entry's shard, so an entry's versions grow.
    pub(crate) fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Relaxed)
    }

    pub(crate) const fn first_version(&self) -> u64 {
        self.first_version
    }

    /// Above every version given out.
    pub(crate) fn end_version(&self) -> u64 {
        self.first_version
            .saturating_add(self.versions.load(Relaxed))
    }

    /// Memory charged for the entries.
    pub(crate) fn charged(&self) -> u64 {
        self.shards.iter().map(Shard::charged).sum()
    }

    /// Removes what is due in a shard, a bounded number; true when nothing due
    /// is left.
    pub(crate) fn drain_some(&self, shard: &Shard, now: Time, expired: &mut u64) -> bool {
        !shard.may_be_due(now.as_millis())
            || shard.with(|core, trash| core.drain(now, LOCK_STEPS, trash, expired))
    }

    /// Evicts for memory until `wanted` bytes are free, or a bounded number of
    /// entries went, or there is none; true if
    /// there is reason to try again. Never the entry under
    /// `spare`.
    pub(crate) fn give(&self, wanted: u64, now: Time, spare: Option<(EntryKey<'_>, u64)>) -> bool {
        let turn = self.giving.fetch_add(1, Relaxed);
        for offset in 0..self.shards.len() {
            let number = (turn + offset) % self.shards.len();
            let spare = spare.filter(|&(_, hash)| self.shard_number(hash) == number);
            let gave = self.shards[number].with(|core, trash| {
                let spare = spare.and_then(|(at, hash)| core.find(at, hash, now, trash));
                let mut gone = 0;
                core.drain(now, LOCK_STEPS, trash, &mut gone);
                for _ in 0..LOCK_STEPS {
                    if self.memory.has_room(wanted) || !core.evict(Scarce::Bytes, spare, trash) {
                        break;
                    }
                    gone += 1;
                }
                gone > 0 || self.memory.has_room(wanted)
            });
            if gave {
                return true;
            }
        }
        false
    }

    /// Makes every shard forget an owner that has gone.
    pub(crate) fn forget(&self, ledger: &Ledger) {
        for shard in &self.shards {
            shard.with(|core, _| core.forget_owner(ledger.number));
        }
    }

    /// Takes all entries out.
    pub(crate) fn empty(&self) -> Vec<Core> {
        let taken = self
            .shards
            .iter()
            .map(|shard| shard.with(|core, _| core.take()));
        taken.filter(|core| !core.is_empty()).collect()
    }

    /// Checks every shard, and returns what each owner has.
    pub(crate) fn check(&self) -> Result<BTreeMap<u32, Amount>, String> {
        let mut sums = BTreeMap::new();
        for shard in &self.shards {
            shard.with(|core, _| core.check(&mut sums))?;
        }
        Ok(sums)
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        // Entries too: whoever closed the account took those it cared for.
        let fixed = SHARD_BYTES * self.shards.len() as u64;
        self.memory.unfix(fixed);
        self.memory.release(self.charged());
    }
}
