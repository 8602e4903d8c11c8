//! Dry runs: what a write would come to, with nothing touched.
//!
//! A dry write takes the locks that it needs to look, and nothing else: no due
//! entry goes, no use is noted, no counter moves, no version is given out. Due
//! entries that are still there are not in its way, as they would not be in that
//! of a write.
//!
//! Not foreseen is what eviction and memory would do: an account that evicts has
//! room for whatever fits alone, and of the server's memory only what one entry
//! can never have is refused. Nor what others write meanwhile.

use std::sync::Arc;

use larder_model::{
    Call, Condition, EntryKey, EntryMeta, Expiry, ExpiryChange, Increment, Incremented, Rehearsal,
    Rehearsed, Set, StoreError, Time, Version, Written,
};

use crate::ledger::{Amount, Ledger};
use crate::number;
use crate::registry::Tenant;
use crate::shard::Core;
use crate::turn::turn;
use crate::write::{Plan, holds};

/// Slots that are looked at under one holding of a lock; see `walk`.
const STEP_SLOTS: u32 = 256;

/// What is under a key before a write.
struct Before {
    entry: Option<Rehearsed>,
    /// Whose quota it counts on; the caller's, if there is none.
    owner: Arc<Ledger>,
    /// Memory charged for it.
    charged: u64,
}

impl Tenant {
    /// [`Store::rehearse`](larder_model::Store::rehearse).
    pub(crate) async fn rehearse_set(
        &self,
        call: Call,
        set: &Set<'_>,
        rehearsal: &mut Rehearsal,
    ) -> Result<Written, StoreError> {
        let before = self.before(call, set.at, rehearsal);
        let meta = before.entry.map(|it| it.meta);
        // No entry has the version 0, which stands here for one not yet given out.
        let is_none = set.condition == Condition::IfVersion(Version::new(0));
        if is_none || !holds(set.condition, meta) {
            return Ok(Written::NotApplied(meta));
        }
        let expiry = match set.expiry {
            ExpiryChange::To(expiry) => expiry,
            ExpiryChange::Keep => meta.map_or(Expiry::Never, |meta| meta.expiry),
        };
        let plan = self.plan(set.at, set.flags, set.value, expiry);
        let meta = self.judge(call, &plan, &before, rehearsal).await?;
        let after = Rehearsed {
            meta,
            owner: before.owner.number,
        };
        let after = Some(after).filter(|_| !expiry.is_due(call.now));
        rehearsal.put(set.at, before.entry, after);
        Ok(Written::Applied(meta))
    }

    /// A dry [`Store::increment`](larder_model::Store::increment).
    pub(crate) async fn rehearse_increment(
        &self,
        call: Call,
        increment: &Increment<'_>,
    ) -> Result<Incremented, StoreError> {
        let mut rehearsal = Rehearsal::default();
        let before = self.before(call, increment.at, &mut rehearsal);
        let hash = self.partition.hash(increment.at);
        let sum = self.partition.shard(hash).with(|core, _| {
            let slot = core.find_quietly(increment.at, hash, call.now);
            let number = slot.filter(|_| before.entry.is_some()).map_or_else(
                || Ok(increment.initial),
                |slot| number::parse(core.look(slot).value()),
            );
            number.and_then(|number| number::add(number, increment))
        })?;
        let (flags, expiry) = match before.entry {
            None => (0, increment.initial_expiry),
            Some(it) => (it.meta.flags, it.meta.expiry),
        };
        let mut text = [0; number::TEXT_BYTES];
        let text = number::write(sum.value, &mut text);
        let plan = self.plan(increment.at, flags, text, expiry);
        self.judge(call, &plan, &before, &mut rehearsal).await?;
        Ok(sum)
    }

    fn before(&self, call: Call, at: EntryKey<'_>, rehearsal: &mut Rehearsal) -> Before {
        let hash = self.partition.hash(at);
        let live = self.partition.shard(hash).with(|core, _| {
            let slot = core.find_quietly(at, hash, call.now)?;
            let owner = Arc::clone(core.owner(slot));
            Some((core.look(slot).meta, owner, core.charge_of(slot)))
        });
        let live = live.filter(|_| !self.ledger.is_closed());
        let own = || Arc::clone(&self.ledger);
        match (rehearsal.get(at, call.now), live) {
            (None, None) => Before {
                entry: None,
                owner: own(),
                charged: 0,
            },
            (None, Some((meta, owner, charged))) => Before {
                entry: Some(Rehearsed {
                    meta,
                    owner: owner.number,
                }),
                owner,
                charged,
            },
            (Some(entry), live) => {
                let live = live.map(|(_, owner, _)| owner);
                let kept = live.filter(|it| entry.is_some_and(|entry| entry.owner == it.number));
                Before {
                    entry,
                    owner: kept.unwrap_or_else(own),
                    charged: 0,
                }
            }
        }
    }

    /// What a write that may take place would say of the room that it needs.
    async fn judge(
        &self,
        call: Call,
        plan: &Plan<'_>,
        before: &Before,
        rehearsal: &mut Rehearsal,
    ) -> Result<EntryMeta, StoreError> {
        let meta = EntryMeta {
            version: Version::new(0),
            expiry: plan.expiry,
            size_bytes: plan.draft.size_bytes(),
            flags: plan.draft.flags,
        };
        if self.ledger.is_closed() {
            return Err(StoreError::KeyQuota { limit: 0 });
        }
        if plan.expiry.is_due(call.now) {
            return Ok(meta);
        }
        let size_before = before.entry.map_or(0, |it| it.meta.size_bytes);
        let growth = Amount {
            keys: u64::from(before.entry.is_none()),
            bytes: meta.size_bytes.saturating_sub(size_before),
        };
        let ledger = &*before.owner;
        if growth.bytes > 0 && ledger.evicts() {
            ledger.fits_alone(meta.size_bytes)?;
        }
        let limit = self.partition.memory_limit();
        if plan.charge() > before.charged && plan.charge() > limit {
            return Err(StoreError::MemoryFull { limit });
        }
        if ledger.evicts() || ledger.probe(growth).is_ok() && rehearsal.is_empty() {
            return Ok(meta);
        }
        let expected = rehearsal.growth(ledger.number, call.now);
        if ledger.foresee(growth, expected, Amount::default()).is_err() {
            let due = self.due(call.now, ledger.number, rehearsal).await;
            ledger.foresee(growth, expected, due)?;
        }
        Ok(meta)
    }

    /// What entries that are due still count on an owner, but for those that a
    /// rehearsed write took the place of while they lived.
    async fn due(&self, now: Time, owner: u32, rehearsal: &Rehearsal) -> Amount {
        let mut due = Amount::default();
        let mut count = |core: &Core, slot: u32| {
            let Some(present) = core.peek(slot) else {
                return;
            };
            let is_it = present.meta.expiry.is_due(now) && core.owner_number(slot) == owner;
            let record = present.record();
            if is_it && !rehearsal.has_taken(record.space(), record.key) {
                due.keys += 1;
                due.bytes += present.meta.size_bytes;
            }
        };
        for shard in self.partition.shards() {
            let mut slot: u32 = 0;
            while shard.may_be_due(now.as_millis()) {
                let end = slot.saturating_add(STEP_SLOTS);
                let more = shard.with(|core, _| {
                    (slot..end.min(core.slots())).for_each(|slot| count(core, slot));
                    core.slots() > end
                });
                if !more {
                    break;
                }
                slot = end;
                turn().await;
            }
        }
        due
    }
}
