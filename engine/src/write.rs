//! Writes of one entry.
//!
//! A write is an attempt under one shard's lock: look, check the condition,
//! reserve, change. If room is missing the attempt has changed nothing; the
//! lock is given back, room is made, and it is tried again. Dry runs of writes are
//! in `rehearse`.

use std::sync::Arc;

use larder_model::{
    Call, Condition, Deleted, EntryKey, EntryMeta, Expiry, ExpiryChange, Increment, Incremented,
    Mode, Set, StoreError, Version, Written,
};

use crate::ledger::{Amount, Ledger, Shortage};
use crate::memory;
use crate::number;
use crate::partition::LOCK_STEPS;
use crate::registry::Tenant;
use crate::shard::record::Draft;
use crate::shard::{Core, Gone, Stamp, Trash};

/// Due entries that each write removes from its shard in passing.
const LAZY_STEPS: usize = 4;

/// Why an attempt changed nothing.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Room is missing; trying again after making some may help.
    Short(Shortage),
    /// Trying again does not help.
    Never(StoreError),
}

impl From<Shortage> for Refused {
    fn from(shortage: Shortage) -> Self {
        Self::Short(shortage)
    }
}

/// What is to be written under a key.
pub(crate) struct Plan<'a> {
    pub(crate) draft: Draft<'a>,
    hash: u64,
    pub(crate) expiry: Expiry,
    /// The value, if it is large: copied before the lock is taken.
    large: Option<&'a Arc<[u8]>>,
    /// What it had in an earlier engine; else the next one.
    version: Option<u64>,
}

impl Tenant {
    /// One attempt at [`Store::set`](larder_model::Store::set).
    pub(crate) fn set(
        &self,
        call: Call,
        set: &Set<'_>,
        large: Option<&Arc<[u8]>>,
    ) -> Result<Written, Refused> {
        self.set_as(call, set, large, None)
    }

    /// The same, with a version of an earlier engine.
    pub(crate) fn set_as(
        &self,
        call: Call,
        set: &Set<'_>,
        large: Option<&Arc<[u8]>>,
        version: Option<u64>,
    ) -> Result<Written, Refused> {
        let hash = self.partition.hash(set.at);
        self.partition.shard(hash).with(|core, trash| {
            core.drain(call.now, LAZY_STEPS, trash, &mut 0);
            let slot = self.live(core, call, set.at, hash, trash);
            let before = slot.map(|slot| core.look(slot).meta);
            let live = slot.zip(before.map(|meta| meta.size_bytes));
            if !holds(set.condition, before) {
                return Ok(Written::NotApplied(before));
            }
            let plan = Plan {
                draft: self.draft(set.at, set.flags, set.value),
                hash,
                expiry: match set.expiry {
                    ExpiryChange::To(expiry) => expiry,
                    ExpiryChange::Keep => before.map_or(Expiry::Never, |meta| meta.expiry),
                },
                large,
                version,
            };
            let written = self.put(core, trash, call, live, plan)?;
            Ok(Written::Applied(written))
        })
    }

    /// One attempt at [`Store::increment`](larder_model::Store::increment).
    pub(crate) fn increment(
        &self,
        call: Call,
        increment: &Increment<'_>,
    ) -> Result<Incremented, Refused> {
        let hash = self.partition.hash(increment.at);
        self.partition.shard(hash).with(|core, trash| {
            core.drain(call.now, LAZY_STEPS, trash, &mut 0);
            let slot = self.live(core, call, increment.at, hash, trash);
            let entry = slot.map(|slot| core.look(slot));
            let live = slot.zip(entry.map(|it| it.meta.size_bytes));
            let (before, flags, expiry) = match entry {
                None => (Ok(increment.initial), 0, increment.initial_expiry),
                Some(it) => (number::parse(it.value()), it.meta.flags, it.meta.expiry),
            };
            let sum = before.and_then(|before| number::add(before, increment));
            let sum = sum.map_err(Refused::Never)?;
            let mut text = [0; number::TEXT_BYTES];
            let plan = Plan {
                draft: self.draft(increment.at, flags, number::write(sum.value, &mut text)),
                hash,
                expiry,
                large: None,
                version: None,
            };
            self.put(core, trash, call, live, plan)?;
            Ok(sum)
        })
    }

    /// [`Store::delete`](larder_model::Store::delete).
    pub(crate) fn delete(&self, call: Call, at: EntryKey<'_>, condition: Condition) -> Deleted {
        let hash = self.partition.hash(at);
        self.partition.shard(hash).with(|core, trash| {
            let slot = self.live(core, call, at, hash, trash);
            let Some(slot) = slot else {
                return Deleted::NotApplied(None);
            };
            let meta = core.look(slot).meta;
            if !holds(condition, Some(meta)) {
                return Deleted::NotApplied(Some(meta));
            }
            if call.mode == Mode::Apply {
                core.remove(slot, Gone::Deleted, trash);
            }
            Deleted::Applied
        })
    }

    /// What a write would put under a key; its hash and a large value are not needed
    /// to judge it.
    pub(crate) fn plan<'a>(
        &self,
        at: EntryKey<'a>,
        flags: u32,
        value: &'a [u8],
        expiry: Expiry,
    ) -> Plan<'a> {
        Plan {
            draft: self.draft(at, flags, value),
            hash: 0,
            expiry,
            large: None,
            version: None,
        }
    }

    fn draft<'a>(&self, at: EntryKey<'a>, flags: u32, value: &'a [u8]) -> Draft<'a> {
        Draft {
            at,
            flags,
            owner: self.ledger.number,
            value,
        }
    }

    /// Writes under a key whose live entry is in the slot `live.0`, with a size of
    /// `live.1` bytes for the quota; or not at all.
    fn put(
        &self,
        core: &mut Core,
        trash: &mut Trash,
        call: Call,
        live: Option<(u32, u64)>,
        mut plan: Plan<'_>,
    ) -> Result<EntryMeta, Refused> {
        let slot = live.map(|(slot, _)| slot);
        // The entry stays on the account that created it: nearly always this one.
        let other = slot.filter(|&slot| core.owner_number(slot) != self.ledger.number);
        let other = other.map(|slot| Arc::clone(core.owner(slot)));
        let owner = other.as_ref().unwrap_or(&self.ledger);
        plan.draft.owner = owner.number;
        let mut meta = EntryMeta {
            version: Version::new(0),
            expiry: plan.expiry,
            size_bytes: plan.draft.size_bytes(),
            flags: plan.draft.flags,
        };
        let goes_at_once = plan.expiry.is_due(call.now);
        if self.ledger.is_closed() {
            return Err(Refused::Never(StoreError::KeyQuota { limit: 0 }));
        }
        if !goes_at_once {
            make_fit(core, trash, call, live, &plan, owner)?;
        }
        let stamp = Stamp {
            version: (plan.version).unwrap_or_else(|| self.partition.next_version()),
            expiry: plan.expiry,
        };
        let first = self.partition.first_version();
        meta.version = Version::new(first.saturating_add(stamp.version));
        let large = || plan.large.map(Arc::clone);
        match slot {
            Some(slot) if goes_at_once => core.remove(slot, Gone::Deleted, trash),
            None if goes_at_once => {}
            Some(slot) => {
                core.replace(slot, &plan.draft, stamp, large(), trash);
            }
            None => core.insert(&plan.draft, plan.hash, stamp, large(), &self.ledger),
        }
        Ok(meta)
    }
}

impl Plan<'_> {
    pub(crate) fn charge(&self) -> u64 {
        let large = self.draft.is_large();
        memory::charge(
            self.draft.len() as u64,
            large.then_some(self.draft.value.len() as u64),
        )
    }
}

/// Reserves what the write grows by, evicting from this shard if the
/// account does that.
fn make_fit(
    core: &mut Core,
    trash: &mut Trash,
    call: Call,
    live: Option<(u32, u64)>,
    plan: &Plan<'_>,
    ledger: &Ledger,
) -> Result<(), Refused> {
    let slot = live.map(|(slot, _)| slot);
    let before = live.map_or(0, |(_, size_bytes)| size_bytes);
    let growth = Amount {
        keys: u64::from(slot.is_none()),
        bytes: plan.draft.size_bytes().saturating_sub(before),
    };
    if growth.bytes > 0 && ledger.evicts() {
        let alone = ledger.fits_alone(plan.draft.size_bytes());
        alone.map_err(|shortage| Refused::Never(shortage.into()))?;
    }
    let charged = slot.map_or(0, |slot| core.charge_of(slot));
    let charge = plan.charge();
    let limit = core.memory().limit();
    if charge > charged && charge > limit {
        return Err(Refused::Never(StoreError::MemoryFull { limit }));
    }
    reserve(core, trash, call, slot, ledger, growth)?;
    let wanted = charge.saturating_sub(charged);
    if core.memory().reserve(wanted) {
        return Ok(());
    }
    ledger.release(growth);
    Err(Shortage::Memory { limit, wanted }.into())
}

/// Takes room on the ledger. Of an account that evicts, the entries of this
/// shard go for it: first what is due, then the least useful. A write that
/// needs no room still takes a few away while a lowered quota is not met.
fn reserve(
    core: &mut Core,
    trash: &mut Trash,
    call: Call,
    spare: Option<u32>,
    ledger: &Ledger,
    growth: Amount,
) -> Result<(), Refused> {
    let Err(mut shortage) = ledger.reserve(growth) else {
        for _ in 0..LAZY_STEPS {
            match ledger.excess() {
                Some(scarce) if ledger.evicts() => core.evict(scarce, spare, trash),
                _ => break,
            };
        }
        return Ok(());
    };
    if !ledger.evicts() {
        return Err(shortage.into());
    }
    core.drain(call.now, LOCK_STEPS, trash, &mut 0);
    for _ in 0..LOCK_STEPS {
        match ledger.reserve(growth) {
            Ok(()) => return Ok(()),
            Err(still) => shortage = still,
        }
        if !core.evict(shortage.scarce(), spare, trash) {
            break;
        }
    }
    ledger.reserve(growth).map_err(Refused::Short)
}

/// Whether `condition` holds for the live entry.
pub(crate) fn holds(condition: Condition, live: Option<EntryMeta>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::IfAbsent => live.is_none(),
        Condition::IfPresent => live.is_some(),
        Condition::IfVersion(version) => live.is_some_and(|meta| meta.version == version),
    }
}
