//! [`Engine`] as a [`Store`]: what to do when room is missing.

use std::sync::Arc;

use larder_model::{
    AccountId, AccountName, Call, Condition, Cursor, Deleted, EntryKey, EntryRef, Expiry,
    Increment, Incremented, Mode, Once, OnceError, Outcome, Page, Quota, ReadEffect, Rehearsal,
    ReplayLimits, ReplayUse, Request, ScanBudget, Selection, Set, Store, StoreError, Usage, Write,
    Written,
};

use crate::engine::{Account, Engine};
use crate::ledger::Shortage;
use crate::partition::LOCK_STEPS;
use crate::registry::Tenant;
use crate::shard::record::LARGE_VALUE_BYTES;
use crate::turn::turn;
use crate::write::Refused;

/// Times that one write makes room for itself before it is refused: with the
/// entries that go each time, enough to free 3 MiB from the smallest entries,
/// or to bring an account of 500,000 keys down to a quota of one.
const MAX_EFFORTS: usize = 4096;

/// Efforts between which other tasks get a turn: for most writes, none.
const EFFORTS_PER_TURN: usize = 4;

impl Store for Engine {
    type Account = Account;

    /// A hash look-up under a lock for reading, if the account is there; else
    /// 1 to 16 shards are made, as many as its quota fills with a thousand
    /// entries each. They stay as many if the quota changes.
    fn open(&self, id: &AccountId, quota: Quota) -> Account {
        self.enter(id, quota)
    }

    /// Takes the entries away in one step for each shard; they are freed by
    /// later sweeps, and first of all when memory is short. In a shared key
    /// space, walks all entries instead.
    fn close(&self, name: &AccountName) {
        self.leave(name);
    }

    /// For an account that is larger than a processor's cache, three locks for each key, none of
    /// them waited for.
    fn expect<'k>(&self, account: &Account, keys: impl Iterator<Item = EntryKey<'k>>) {
        if account.0.is_large() {
            account.0.expect(keys);
        }
    }

    /// One lock, no allocation. A value up to 16 KiB is visited under the
    /// lock; a larger one without, its bytes held by a count meanwhile.
    async fn get<R: Send>(
        &self,
        account: &Account,
        call: Call,
        at: EntryKey<'_>,
        effect: ReadEffect,
        visit: impl FnOnce(Option<EntryRef<'_>>) -> R + Send,
    ) -> Result<R, StoreError> {
        Ok(account.0.get(call, at, effect, visit))
    }

    /// As `get`.
    async fn get_and_touch<R: Send>(
        &self,
        account: &Account,
        call: Call,
        at: EntryKey<'_>,
        expiry: Expiry,
        visit: impl FnOnce(Option<EntryRef<'_>>) -> R + Send,
    ) -> Result<R, StoreError> {
        Ok(account.0.get_and_touch(call, at, expiry, visit))
    }

    /// One lock; an allocation, unless the value is as long as the one
    /// before. At a limit, as many locks more as it takes to make room.
    async fn set(
        &self,
        account: &Account,
        call: Call,
        set: Set<'_>,
    ) -> Result<Written, StoreError> {
        if call.mode == Mode::DryRun {
            // In a box: most sets are none, and should not make room for this.
            let mut alone = Rehearsal::default();
            return Box::pin(self.rehearse(account, call, set, &mut alone)).await;
        }
        let large = (set.value.len() > LARGE_VALUE_BYTES).then(|| Arc::from(set.value));
        let tenant = &*account.0;
        self.persist(tenant, call, set.at, || {
            tenant.set(call, &set, large.as_ref())
        })
        .await
    }

    /// One lock; at a limit, a look at every entry of the account, for those that
    /// are due.
    async fn rehearse(
        &self,
        account: &Account,
        call: Call,
        set: Set<'_>,
        rehearsal: &mut Rehearsal,
    ) -> Result<Written, StoreError> {
        account.0.rehearse_set(call, &set, rehearsal).await
    }

    /// One attempt: it makes room in the shard of the key alone. A dry run is left
    /// to `set`.
    fn set_now(
        &self,
        account: &Account,
        call: Call,
        set: Set<'_>,
    ) -> Option<Result<Written, StoreError>> {
        if call.mode == Mode::DryRun {
            return None;
        }
        let large = (set.value.len() > LARGE_VALUE_BYTES).then(|| Arc::from(set.value));
        match account.0.set(call, &set, large.as_ref()) {
            Ok(written) => Some(Ok(written)),
            Err(Refused::Never(error)) => Some(Err(error)),
            Err(Refused::Short(_)) => None,
        }
    }

    /// One lock.
    async fn delete(
        &self,
        account: &Account,
        call: Call,
        at: EntryKey<'_>,
        condition: Condition,
    ) -> Result<Deleted, StoreError> {
        Ok(account.0.delete(call, at, condition))
    }

    /// As `set`. A counter is the decimal text that an increment writes: no
    /// plus sign, no zeros in front.
    async fn increment(
        &self,
        account: &Account,
        call: Call,
        increment: Increment<'_>,
    ) -> Result<Incremented, StoreError> {
        let tenant = &*account.0;
        if call.mode == Mode::DryRun {
            return Box::pin(tenant.rehearse_increment(call, &increment)).await;
        }
        self.persist(tenant, call, increment.at, || {
            tenant.increment(call, &increment)
        })
        .await
    }

    /// As the write, and two locks of the account's window.
    async fn once(
        &self,
        account: &Account,
        call: Call,
        request: Request<'_>,
        write: Write<'_>,
    ) -> Result<Once, OnceError> {
        self.carry_out_once(account, call, request, write).await
    }

    /// One lock of the account's window.
    async fn recall(
        &self,
        account: &Account,
        call: Call,
        request: Request<'_>,
    ) -> Result<Option<Outcome>, OnceError> {
        account.recall(call, request)
    }

    /// One lock of the account's window; looks at every id in it.
    async fn replay_use(&self, account: &Account, call: Call) -> Result<ReplayUse, StoreError> {
        Ok(account.replay_use(call))
    }

    fn replay_limits(&self) -> ReplayLimits {
        self.replay().limits()
    }

    /// Walks all entries of the account, about 100 ns each, in steps that hold
    /// a lock for 100 µs at the most; allocates the page, once more a key that
    /// a smaller one drives out. There is no ordered index, so nobody else pays
    /// for order, and a page costs the same wherever it begins.
    async fn list(
        &self,
        account: &Account,
        call: Call,
        selection: Selection<'_>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        Ok(account.0.list(call, selection, after, limit).await)
    }

    /// Holds a lock for 256 slots or 64 KiB at a time. A cursor is good until
    /// the account is closed, emptied by another uid, or the engine is gone.
    async fn scan(
        &self,
        account: &Account,
        call: Call,
        selection: Selection<'_>,
        from: Cursor,
        budget: ScanBudget,
        visit: impl FnMut(EntryRef<'_>) + Send,
    ) -> Result<Option<Cursor>, StoreError> {
        let scan = account.0.scan(call, selection, from, budget, visit);
        scan.await
    }

    /// As `list`; no allocation.
    async fn delete_prefix(
        &self,
        account: &Account,
        call: Call,
        selection: Selection<'_>,
    ) -> Result<u64, StoreError> {
        Ok(account.0.delete_prefix(call, selection).await)
    }

    /// A load for each counter of each shard, once what is due has gone.
    async fn usage(&self, account: &Account, call: Call) -> Result<Usage, StoreError> {
        account.0.drain_all(call).await;
        Ok(account.0.ledger.usage())
    }
}

impl Engine {
    /// Tries a write, makes room, and tries again, until it is done or no more
    /// room can be made.
    async fn persist<T>(
        &self,
        tenant: &Tenant,
        call: Call,
        at: EntryKey<'_>,
        mut attempt: impl FnMut() -> Result<T, Refused> + Send,
    ) -> Result<T, StoreError> {
        let mut drained = false;
        let mut shard = 0;
        for effort in 0..MAX_EFFORTS {
            let shortage = match attempt() {
                Ok(done) => return Ok(done),
                Err(Refused::Never(error)) => return Err(error),
                Err(Refused::Short(shortage)) => shortage,
            };
            let made = match shortage {
                Shortage::Memory { wanted, .. } => self.reclaim(tenant, call, at, wanted),
                _ if !drained => {
                    tenant.drain_all(call).await;
                    drained = true;
                    true
                }
                _ => tenant.evict_elsewhere(shortage, call, at, &mut shard),
            };
            if !made {
                return Err(shortage.into());
            }
            if effort % EFFORTS_PER_TURN == EFFORTS_PER_TURN - 1 {
                turn().await;
            }
        }
        match attempt() {
            Ok(done) => Ok(done),
            Err(Refused::Never(error)) => Err(error),
            Err(Refused::Short(shortage)) => Err(shortage.into()),
        }
    }

    /// Frees memory, a bounded amount; false if there is none to free.
    fn reclaim(&self, tenant: &Tenant, call: Call, at: EntryKey<'_>, wanted: u64) -> bool {
        if self.bury(LOCK_STEPS) > 0 {
            return true;
        }
        for _ in 0..2 {
            while let Some(heavy) = self.reclaim.heaviest() {
                let own = std::ptr::eq(&raw const *heavy.partition, &raw const *tenant.partition);
                let spare = own.then(|| (at, heavy.partition.hash(at)));
                if heavy.partition.give(wanted, call.now, spare) {
                    return true;
                }
                self.reclaim.forget_heaviest();
            }
            let found = self.reclaim.search(&self.registry().read());
            self.reclaim.remember(found);
        }
        self.memory().has_room(wanted)
    }
}

impl Tenant {
    /// Removes all that is due from every shard.
    async fn drain_all(&self, call: Call) {
        for shard in self.partition.shards() {
            while !self.partition.drain_some(shard, call.now, &mut 0) {
                turn().await;
            }
        }
    }

    /// Evicts from the first shard, from `shard` on, that has entries, once
    /// the written key's own shard has none left; false if none has.
    /// Never the written key itself.
    fn evict_elsewhere(
        &self,
        shortage: Shortage,
        call: Call,
        at: EntryKey<'_>,
        shard: &mut usize,
    ) -> bool {
        if !self.ledger.evicts() {
            return false;
        }
        let hash = self.partition.hash(at);
        let own = self.partition.shard_number(hash);
        while let Some(it) = self.partition.shards().get(*shard) {
            let evicted = it.with(|core, trash| {
                let spare = if *shard == own {
                    core.find(at, hash, call.now, trash)
                } else {
                    None
                };
                let steps = (0..LOCK_STEPS).take_while(|_| {
                    self.ledger.lacks(shortage) && core.evict(shortage.scarce(), spare, trash)
                });
                steps.count()
            });
            if evicted > 0 || !self.ledger.lacks(shortage) {
                return true;
            }
            *shard += 1;
        }
        false
    }
}
