//! The naive model: one account as a sorted map and arithmetic.
//!
//! It is meant to be read at a glance and believed, so it spends time freely:
//! every operation first throws out what is due by looking at every entry.
//! It does not evict: of an account that does, it must be [told](Naive::forget)
//! what went.

use std::collections::BTreeMap;

use crate::entry::{EntryMeta, Version, entry_size_bytes};
use crate::name::EntryKey;
use crate::quota::{AtLimit, Quota, Usage};
use crate::store::{
    Call, Condition, Deleted, ExpiryChange, Increment, Incremented, Mode, ReadEffect, Selection,
    Set, StoreError, Written,
};
use crate::time::{Expiry, Time};

/// Namespace and key, owned; sorts as [`Store::list`](crate::Store::list) does
/// inside a namespace.
pub type Place = (String, Vec<u8>);

/// An entry of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The value.
    pub value: Vec<u8>,
    /// The rest.
    pub meta: EntryMeta,
}

/// One account, as plainly as it can be written down.
///
/// Versions are the store's own choice, so a write is given the version that
/// the store showed.
#[derive(Debug, Clone)]
pub struct Naive {
    entries: BTreeMap<Place, Kept>,
    quota: Quota,
    hits: u64,
    misses: u64,
    expired: u64,
    /// Entries that writes created.
    pub(super) created: u64,
    /// Entries that somebody asked to go.
    pub(super) deleted: u64,
}

/// The place of a key, owned.
pub(super) fn place(at: EntryKey<'_>) -> Place {
    (
        at.namespace.as_str().to_owned(),
        at.key.as_bytes().to_owned(),
    )
}

impl Naive {
    /// An empty account.
    pub const fn new(quota: Quota) -> Self {
        Self {
            entries: BTreeMap::new(),
            quota,
            hits: 0,
            misses: 0,
            expired: 0,
            created: 0,
            deleted: 0,
        }
    }

    /// The entry was evicted, if it was there.
    pub fn forget(&mut self, at: EntryKey<'_>) {
        self.entries.remove(&place(at));
    }

    /// Changes the quota; takes nothing away.
    pub const fn requota(&mut self, quota: Quota) {
        self.quota = quota;
    }

    /// Throws out what is due.
    fn pass(&mut self, now: Time) {
        let before = self.entries.len();
        self.entries.retain(|_, kept| !kept.meta.expiry.is_due(now));
        self.expired += (before - self.entries.len()) as u64;
    }

    fn bytes(&self) -> u64 {
        self.entries.values().map(|kept| kept.meta.size_bytes).sum()
    }

    fn note(&mut self, mode: Mode, hit: bool) {
        match (mode, hit) {
            (Mode::DryRun, _) => {}
            (Mode::Apply, true) => self.hits += 1,
            (Mode::Apply, false) => self.misses += 1,
        }
    }

    /// [`Store::get`](crate::Store::get).
    pub fn get(&mut self, call: Call, at: EntryKey<'_>, _effect: ReadEffect) -> Option<Kept> {
        self.pass(call.now);
        let kept = self.entries.get(&place(at)).cloned();
        self.note(call.mode, kept.is_some());
        kept
    }

    /// [`Store::get_and_touch`](crate::Store::get_and_touch).
    pub fn touch(&mut self, call: Call, at: EntryKey<'_>, expiry: Expiry) -> Option<Kept> {
        let mut kept = self.get(call, at, ReadEffect::Use)?;
        kept.meta.expiry = expiry;
        if call.mode == Mode::Apply {
            if expiry.is_due(call.now) {
                self.remove(&place(at));
            } else {
                self.entries.insert(place(at), kept.clone());
            }
        }
        Some(kept)
    }

    fn remove(&mut self, place: &Place) {
        self.deleted += u64::from(self.entries.remove(place).is_some());
    }

    fn admits(&self, old: Option<&Kept>, size_bytes: u64) -> Result<(), StoreError> {
        // An account that evicts has room for whatever fits alone.
        let evicts = self.quota.at_limit == AtLimit::Evict;
        let (keys, bytes) = if evicts {
            (0, old.map_or(0, |kept| kept.meta.size_bytes))
        } else {
            (self.entries.len() as u64, self.bytes())
        };
        if old.is_none() && keys >= self.quota.max_keys {
            return Err(StoreError::KeyQuota {
                limit: self.quota.max_keys,
            });
        }
        let growth = size_bytes.saturating_sub(old.map_or(0, |kept| kept.meta.size_bytes));
        if growth > 0 && bytes + growth > self.quota.max_bytes {
            return Err(StoreError::ByteQuota {
                limit: self.quota.max_bytes,
            });
        }
        Ok(())
    }

    fn put(&mut self, call: Call, at: EntryKey<'_>, kept: Kept) -> Result<(), StoreError> {
        let gone_at_once = kept.meta.expiry.is_due(call.now);
        if !gone_at_once {
            self.admits(self.entries.get(&place(at)), kept.meta.size_bytes)?;
        }
        match (call.mode, gone_at_once) {
            (Mode::DryRun, _) => {}
            (Mode::Apply, true) => self.remove(&place(at)),
            (Mode::Apply, false) => {
                let before = self.entries.insert(place(at), kept);
                self.created += u64::from(before.is_none());
            }
        }
        Ok(())
    }

    /// [`Store::set`](crate::Store::set), with the version that a write gets.
    ///
    /// # Errors
    /// As the store.
    pub fn set(
        &mut self,
        call: Call,
        set: &Set<'_>,
        version: Version,
    ) -> Result<Written, StoreError> {
        self.pass(call.now);
        let old = self.entries.get(&place(set.at)).map(|kept| kept.meta);
        if !holds(set.condition, old) {
            return Ok(Written::NotApplied(old));
        }
        let meta = EntryMeta {
            version,
            expiry: match set.expiry {
                ExpiryChange::To(expiry) => expiry,
                ExpiryChange::Keep => old.map_or(Expiry::Never, |meta| meta.expiry),
            },
            size_bytes: entry_size_bytes(set.at.key.as_bytes().len(), set.value.len()),
            flags: set.flags,
        };
        let value = set.value.to_owned();
        self.put(call, set.at, Kept { value, meta })?;
        Ok(Written::Applied(meta))
    }

    /// [`Store::delete`](crate::Store::delete).
    pub fn delete(&mut self, call: Call, at: EntryKey<'_>, condition: Condition) -> Deleted {
        self.pass(call.now);
        let old = self.entries.get(&place(at)).map(|kept| kept.meta);
        if old.is_none() || !holds(condition, old) {
            return Deleted::NotApplied(old);
        }
        if call.mode == Mode::Apply {
            self.remove(&place(at));
        }
        Deleted::Applied
    }

    /// [`Store::increment`](crate::Store::increment), with the version that a
    /// write gets.
    ///
    /// # Errors
    /// As the store.
    pub fn increment(
        &mut self,
        call: Call,
        increment: &Increment<'_>,
        version: Version,
    ) -> Result<Incremented, StoreError> {
        self.pass(call.now);
        let old = self.entries.get(&place(increment.at));
        let before = match old {
            None => i128::from(increment.initial),
            Some(kept) => std::str::from_utf8(&kept.value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                // As an increment would write it: no plus sign, no zeros.
                .filter(|number| number.to_string().as_bytes() == kept.value)
                .map(i128::from)
                .ok_or(StoreError::NotANumber)?,
        };
        let wanted = before + i128::from(increment.delta);
        let after = match (increment.upper_bound, increment.lower_bound) {
            (Some(upper), _) if increment.delta > 0 => wanted.min(before.max(upper.into())),
            (_, Some(lower)) if increment.delta < 0 => wanted.max(before.min(lower.into())),
            _ => wanted,
        };
        let value = i64::try_from(after).map_err(|_| StoreError::Overflow)?;
        let text = value.to_string().into_bytes();
        let meta = EntryMeta {
            version,
            expiry: old.map_or(increment.initial_expiry, |kept| kept.meta.expiry),
            size_bytes: entry_size_bytes(increment.at.key.as_bytes().len(), text.len()),
            flags: old.map_or(0, |kept| kept.meta.flags),
        };
        self.put(call, increment.at, Kept { value: text, meta })?;
        let applied_delta = i64::try_from(after - before).map_err(|_| StoreError::Overflow)?;
        Ok(Incremented {
            value,
            applied_delta,
        })
    }

    /// The live entries selected, in key order.
    pub fn select(&mut self, call: Call, selection: Selection<'_>) -> Vec<(Vec<u8>, Kept)> {
        self.pass(call.now);
        self.entries
            .iter()
            .filter(|((space, key), _)| {
                space == selection.namespace.as_str() && key.starts_with(selection.prefix)
            })
            .map(|((_, key), kept)| (key.clone(), kept.clone()))
            .collect()
    }

    /// [`Store::delete_prefix`](crate::Store::delete_prefix).
    pub fn delete_prefix(&mut self, call: Call, selection: Selection<'_>) -> u64 {
        let selected = self.select(call, selection);
        if call.mode == Mode::Apply {
            let space = selection.namespace.as_str();
            for (key, _) in &selected {
                self.remove(&(space.to_owned(), key.clone()));
            }
        }
        selected.len() as u64
    }

    /// [`Store::usage`](crate::Store::usage).
    pub fn usage(&mut self, call: Call) -> Usage {
        self.pass(call.now);
        Usage {
            keys: self.entries.len() as u64,
            bytes: self.bytes(),
            quota: self.quota,
            hits: self.hits,
            misses: self.misses,
            evicted: 0,
            expired: self.expired,
        }
    }
}

/// Whether `condition` holds for the live entry.
fn holds(condition: Condition, live: Option<EntryMeta>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::IfAbsent => live.is_none(),
        Condition::IfPresent => live.is_some(),
        Condition::IfVersion(version) => live.is_some_and(|meta| meta.version == version),
    }
}
