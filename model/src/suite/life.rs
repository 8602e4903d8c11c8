//! The life of an account at both, and its counters.

use super::naive::Naive;
use super::side::{Compared, Side, promise, same};
use super::{account, block_on, entry_key};
use crate::name::{EntryKey, Namespace};
use crate::quota::{Quota, Usage};
use crate::store::{
    Call, Condition, Cursor, Deleted, ExpiryChange, ReadEffect, ScanBudget, Selection, Set, Store,
    StoreError,
};
use crate::time::{Expiry, Time};

impl<S: Store> Side<'_, S> {
    pub(super) fn open(&mut self, quota: Quota) {
        let id = account(self.name, &self.life.to_string());
        self.account = self.store.open(&id, quota);
        self.quota = quota;
        self.model.requota(quota);
        if let Some(usage) = self.last_usage {
            self.grace = (usage.keys, usage.bytes);
        }
    }

    /// Closes the account, looks at what an old handle sees, and opens it
    /// again.
    pub(super) fn close(&mut self, call: Call, at: EntryKey<'_>) -> Compared {
        let cursor = self.store.scan(
            &self.account,
            call,
            Selection {
                namespace: Namespace::DEFAULT,
                prefix: &[],
            },
            Cursor::default(),
            ScanBudget {
                bytes: 1,
                entries: 1,
            },
            |_| {},
        );
        let cursor = block_on(cursor);
        self.store.close(&account(self.name, "").name);
        self.retire();
        same(
            "get when closed",
            &self.read(call, at, ReadEffect::Use)?,
            &None,
        )?;
        let set = Set {
            at,
            value: b"x",
            flags: 0,
            expiry: ExpiryChange::To(Expiry::Never),
            condition: Condition::Always,
        };
        let written = block_on(self.store.set(&self.account, call, set));
        let refused = Err(StoreError::KeyQuota { limit: 0 });
        same("set when closed", &written, &refused)?;
        let deleted = block_on(
            self.store
                .delete(&self.account, call, at, Condition::Always),
        );
        same(
            "delete when closed",
            &deleted,
            &Ok(Deleted::NotApplied(None)),
        )?;
        let usage = block_on(self.store.usage(&self.account, call));
        let usage = usage.map(|usage| (usage.keys, usage.bytes, usage.quota.max_keys));
        same("usage when closed", &usage, &Ok((0, 0, 0)))?;
        self.open(self.quota);
        if let Ok(Some(cursor)) = cursor {
            let selection = Selection {
                namespace: Namespace::DEFAULT,
                prefix: &[],
            };
            let budget = ScanBudget {
                bytes: 1,
                entries: 1,
            };
            let scan = self
                .store
                .scan(&self.account, call, selection, cursor, budget, |_| {});
            same(
                "an old cursor",
                &block_on(scan),
                &Err(StoreError::CursorExpired),
            )?;
        }
        Ok(())
    }

    /// The account's life ends; the model begins another.
    pub(super) fn retire(&mut self) {
        if let Some(usage) = self.last_usage.take() {
            self.past_expired += usage.expired;
            self.past_evicted += usage.evicted;
        }
        self.model = Naive::new(self.quota);
        self.grace = (0, 0);
    }

    pub(super) fn compare_counters(&mut self, now: Time, step: u64) -> Compared {
        let call = Call::at(now);
        let store = block_on(self.store.usage(&self.account, call));
        let store = store.map_err(|error| ("usage", error.to_string(), String::new()))?;
        self.last_usage = Some(store);
        let model = self.model.usage(call);
        if !self.evicts() {
            return same("usage", &store, &model);
        }
        let figures = |usage: &Usage| (usage.hits, usage.misses);
        same("hits and misses", &figures(&store), &figures(&model))?;
        same("quota", &store.quota, &self.quota)?;
        let (keys, bytes) = self.grace;
        promise("keys", store.keys <= self.quota.max_keys.max(keys), &store)?;
        promise(
            "bytes",
            store.bytes <= self.quota.max_bytes.max(bytes),
            &store,
        )?;
        // What stays above a lowered quota never grows.
        self.grace = (keys.min(store.keys), bytes.min(store.bytes));
        let created = self.model.created - self.model.deleted;
        let gone = created - store.keys;
        same("gone", &(store.expired + store.evicted), &gone)?;
        if step.is_multiple_of(16) {
            self.recount(call, &store)?;
        }
        Ok(())
    }

    /// Counts by looking.
    fn recount(&self, call: Call, usage: &Usage) -> Compared {
        let all = ScanBudget {
            bytes: usize::MAX,
            entries: usize::MAX,
        };
        let (mut keys, mut bytes) = (0, 0);
        for namespace in ["", "other", "a.longer-name_of.a-namespace"] {
            let selection = Selection {
                namespace: entry_key(namespace, b"k").namespace,
                prefix: &[],
            };
            for (_, kept) in self.walk(call, selection, all)? {
                keys += 1;
                bytes += kept.meta.size_bytes;
            }
        }
        same("recounted", &(usage.keys, usage.bytes), &(keys, bytes))
    }
}
