//! One account at both: what is done to the store is done to the model.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::driver::Driven;
use super::naive::{Kept, Naive, Place, place};
use super::operation::{self, Operation};
use super::random::Random;
use super::{account, block_on, entry_key};
use crate::entry::{EntryMeta, EntryRef, Version};
use crate::name::EntryKey;
use crate::quota::{AtLimit, Quota, Usage};
use crate::store::{
    Call, Cursor, Increment, Listed, Mode, Page, ReadEffect, ScanBudget, Selection, Set, Store,
    StoreError, Written,
};

/// What differs, what the store said, what the model says.
pub(super) type Differs = (&'static str, String, String);

pub(super) type Compared = Result<(), Differs>;

pub(super) fn same<T: PartialEq + Debug>(what: &'static str, store: &T, model: &T) -> Compared {
    if store == model {
        Ok(())
    } else {
        Err((what, format!("{store:.300?}"), format!("{model:.300?}")))
    }
}

pub(super) fn promise(what: &'static str, holds: bool, seen: &impl Debug) -> Compared {
    if holds {
        Ok(())
    } else {
        Err((what, format!("{seen:.300?}"), "otherwise".to_owned()))
    }
}

/// One account, in the store and in the model.
pub(super) struct Side<'s, S: Store> {
    pub(super) store: &'s S,
    pub(super) account: S::Account,
    pub(super) name: &'static str,
    pub(super) life: u64,
    pub(super) model: Naive,
    pub(super) at_limit: AtLimit,
    pub(super) quota: Quota,
    /// The version that each key had last, live or not.
    pub(super) versions: BTreeMap<Place, Version>,
    pub(super) greatest: Version,
    pub(super) last_usage: Option<Usage>,
    pub(super) past_expired: u64,
    pub(super) past_evicted: u64,
    /// Usage when the quota was last lowered: what may stay above it.
    pub(super) grace: (u64, u64),
}

impl<'s, S: Store> Side<'s, S> {
    pub(super) fn new(
        store: &'s S,
        name: &'static str,
        random: &mut Random,
        at_limit: AtLimit,
    ) -> Self {
        let quota = operation::quota(random, at_limit);
        Self {
            store,
            account: store.open(&account(name, "0"), quota),
            name,
            life: 0,
            model: Naive::new(quota),
            at_limit,
            quota,
            versions: BTreeMap::new(),
            greatest: Version::new(0),
            last_usage: None,
            past_expired: 0,
            past_evicted: 0,
            grace: (0, 0),
        }
    }

    pub(super) const fn evicts(&self) -> bool {
        matches!(self.at_limit, AtLimit::Evict)
    }

    /// With eviction, tells the model whether the key is still there.
    pub(super) fn learn(&mut self, call: Call, at: EntryKey<'_>) -> Compared {
        if !self.evicts() {
            return Ok(());
        }
        let found = self.read(call.dry(), at, ReadEffect::Peek)?;
        let kept = self.model.get(call.dry(), at, ReadEffect::Peek);
        if found.is_none() {
            self.model.forget(at);
            return Ok(());
        }
        same("what was last written", &found, &kept)
    }

    pub(super) fn operate(
        &mut self,
        call: Call,
        at: EntryKey<'_>,
        prefix: &[u8],
        operation: &Operation,
        driven: &mut Driven,
    ) -> Compared {
        let selection = Selection {
            namespace: at.namespace,
            prefix,
        };
        match operation {
            Operation::Get(effect) => {
                let found = self.read(call, at, *effect)?;
                same("get", &found, &self.model.get(call, at, *effect))
            }
            Operation::Touch(expiry) => {
                let touch = self
                    .store
                    .get_and_touch(&self.account, call, at, *expiry, |it| keep(at, it));
                let found = shown_once(block_on(touch))?;
                same("touch", &found, &self.model.touch(call, at, *expiry))
            }
            Operation::Set { .. } | Operation::Increment { .. } => {
                self.write(call, at, operation, driven)
            }
            Operation::Delete(condition) => {
                let store = block_on(self.store.delete(&self.account, call, at, *condition));
                same(
                    "delete",
                    &store,
                    &Ok(self.model.delete(call, at, *condition)),
                )
            }
            Operation::List { after, limit } => {
                let after = after.then(|| at.key.as_bytes());
                self.list(call, selection, after, *limit)
            }
            Operation::Scan { bytes, entries } => {
                let budget = ScanBudget {
                    bytes: *bytes,
                    entries: *entries,
                };
                self.scan(call, selection, budget)
            }
            Operation::DeletePrefix => {
                self.learn_selected(call, selection)?;
                let store = block_on(self.store.delete_prefix(&self.account, call, selection));
                same(
                    "deleted",
                    &store,
                    &Ok(self.model.delete_prefix(call, selection)),
                )
            }
            Operation::Requota(quota) => {
                self.open(*quota);
                Ok(())
            }
            Operation::Reopen => {
                self.retire();
                self.life += 1;
                self.open(self.quota);
                Ok(())
            }
            Operation::Close => self.close(call, at),
        }
    }

    pub(super) fn read(
        &self,
        call: Call,
        at: EntryKey<'_>,
        effect: ReadEffect,
    ) -> Result<Option<Kept>, Differs> {
        let get = self
            .store
            .get(&self.account, call, at, effect, |it| keep(at, it));
        shown_once(block_on(get))
    }

    /// Writes in one of the two ways, which do the same.
    fn set(&self, call: Call, set: Set<'_>) -> Result<Written, StoreError> {
        let at_once = call.now.as_millis().is_multiple_of(2);
        at_once
            .then(|| self.store.set_now(&self.account, call, set))
            .flatten()
            .unwrap_or_else(|| block_on(self.store.set(&self.account, call, set)))
    }

    fn write(
        &mut self,
        call: Call,
        at: EntryKey<'_>,
        operation: &Operation,
        driven: &mut Driven,
    ) -> Compared {
        let refused = match operation {
            Operation::Set {
                value,
                flags,
                expiry,
                condition,
            } => {
                let set = Set {
                    at,
                    value,
                    flags: *flags,
                    expiry: *expiry,
                    condition: *condition,
                };
                let store = self.set(call, set);
                let shown = match &store {
                    Ok(Written::Applied(meta)) => meta.version,
                    _ => Version::new(0),
                };
                let model = self.model.set(call, &set, shown);
                same("set", &store, &model)?;
                if let Ok(Written::Applied(meta)) = store {
                    self.check_version(call, at, meta)?;
                }
                store.is_err()
            }
            Operation::Increment {
                delta,
                initial,
                expiry,
                upper,
                lower,
            } => {
                let increment = Increment {
                    at,
                    delta: *delta,
                    initial: *initial,
                    initial_expiry: *expiry,
                    upper_bound: *upper,
                    lower_bound: *lower,
                };
                let store = block_on(self.store.increment(&self.account, call, increment));
                let peeked = self.read(call.dry(), at, ReadEffect::Peek)?;
                let shown = peeked.map_or(Version::new(0), |it| it.meta.version);
                let model = self.model.increment(call, &increment, shown);
                same("increment", &store, &model)?;
                let kept = self.model.get(call.dry(), at, ReadEffect::Peek);
                if let (Ok(_), Some(kept)) = (&store, kept) {
                    self.check_version(call, at, kept.meta)?;
                }
                matches!(
                    store,
                    Err(StoreError::KeyQuota { .. } | StoreError::ByteQuota { .. })
                )
            }
            _ => false,
        };
        driven.refused += u64::from(refused);
        Ok(())
    }

    fn check_version(&mut self, call: Call, at: EntryKey<'_>, meta: EntryMeta) -> Compared {
        if call.mode == Mode::DryRun {
            return Ok(());
        }
        promise("versions grow", meta.version > self.greatest, &meta.version)?;
        self.greatest = meta.version;
        self.versions.insert(place(at), meta.version);
        Ok(())
    }

    fn list(
        &mut self,
        call: Call,
        selection: Selection<'_>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Compared {
        self.learn_selected(call, selection)?;
        let list = self
            .store
            .list(&self.account, call, selection, after, limit);
        let store = block_on(list);
        let all = self.model.select(call, selection).into_iter();
        let mut entries: Vec<_> = all
            .filter(|(key, _)| after.is_none_or(|after| key.as_slice() > after))
            .map(|(key, kept)| Listed {
                key: key.into(),
                meta: kept.meta,
            })
            .collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        same("list", &store, &Ok(Page { entries, more }))
    }

    fn scan(&mut self, call: Call, selection: Selection<'_>, budget: ScanBudget) -> Compared {
        self.learn_selected(call, selection)?;
        let seen = self.walk(call, selection, budget)?;
        same("scan", &seen, &self.model.select(call, selection))
    }

    /// A whole walk, in key order.
    pub(super) fn walk(
        &self,
        call: Call,
        selection: Selection<'_>,
        budget: ScanBudget,
    ) -> Result<Vec<(Vec<u8>, Kept)>, Differs> {
        let mut seen = Vec::new();
        let mut cursor = Cursor::default();
        loop {
            let before = seen.len();
            let visit = |it: EntryRef<'_>| {
                let value = it.value.to_owned();
                let meta = it.meta;
                seen.push((it.key.to_owned(), Kept { value, meta }));
            };
            let scan = self
                .store
                .scan(&self.account, call, selection, cursor, budget, visit);
            let next =
                block_on(scan).map_err(|error| ("scan", error.to_string(), String::new()))?;
            let shown = seen.len() - before;
            promise("entries of a step", shown <= budget.entries.max(1), &shown)?;
            match next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(seen)
    }

    /// With eviction, tells the model which of the selected are still there.
    fn learn_selected(&mut self, call: Call, selection: Selection<'_>) -> Compared {
        if !self.evicts() {
            return Ok(());
        }
        let all = ScanBudget {
            bytes: usize::MAX,
            entries: usize::MAX,
        };
        let seen = self.walk(call, selection, all)?;
        for (key, kept) in self.model.select(call, selection) {
            match seen.binary_search_by(|it| it.0.cmp(&key)) {
                Ok(found) => same("what was last written", &seen[found].1, &kept)?,
                Err(_) => self
                    .model
                    .forget(entry_key(selection.namespace.as_str(), &key)),
            }
        }
        Ok(())
    }
}

fn keep(at: EntryKey<'_>, entry: Option<EntryRef<'_>>) -> Option<(bool, Kept)> {
    entry.map(|it| {
        let is_at = it.namespace == at.namespace.as_str() && it.key == at.key.as_bytes();
        let value = it.value.to_owned();
        let meta = it.meta;
        (is_at, Kept { value, meta })
    })
}

type Shown = Result<Option<(bool, Kept)>, StoreError>;

fn shown_once(shown: Shown) -> Result<Option<Kept>, Differs> {
    match shown {
        Ok(None) => Ok(None),
        Ok(Some((true, kept))) => Ok(Some(kept)),
        other => Err(("the entry shown", format!("{other:.300?}"), String::new())),
    }
}
