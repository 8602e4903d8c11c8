//! The seeded driver: the same operations on a store and on the model.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::naive::{Kept, Naive, Place, place};
use super::operation::{self, Operation};
use super::random::Random;
use super::{account, block_on, entry_key};
use crate::entry::{EntryMeta, EntryRef, Version};
use crate::name::EntryKey;
use crate::quota::{AtLimit, Quota, Usage};
use crate::store::{
    Call, Condition, Cursor, Increment, Listed, Mode, Page, ReadEffect, ScanBudget, Selection, Set,
    Store, StoreError, Written,
};
use crate::time::{Expiry, Time};
use crate::{Deleted, ExpiryChange, Namespace};

/// What to drive a store with.
#[derive(Debug, Clone, Copy)]
pub struct Drive {
    /// Seed of the sequence.
    pub seed: u64,
    /// How many operations.
    pub operations: u64,
    /// Different keys in each namespace.
    pub keys: u64,
    /// Policy of the accounts. With [`AtLimit::Evict`] the model cannot say
    /// what goes, so it is told by a dry read before each operation whether
    /// the key is still there; all else is compared as strictly.
    pub at_limit: AtLimit,
}

/// What was driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Driven {
    /// Operations, each with all its comparisons.
    pub operations: u64,
    /// Of them, dry runs.
    pub dry_runs: u64,
    /// Writes that were refused for want of room.
    pub refused: u64,
    /// Entries that expired.
    pub expired: u64,
    /// Entries that were evicted.
    pub evicted: u64,
}

/// Where a store did something else than the model.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}, step {step}, {operation}: {what}: store {store}, model {model}")]
pub struct Difference {
    /// Seed of the sequence.
    pub seed: u64,
    /// The operation's number.
    pub step: u64,
    /// The operation.
    pub operation: String,
    /// What differs.
    pub what: &'static str,
    /// What the store said.
    pub store: String,
    /// What the model says.
    pub model: String,
}

type Compared = Result<(), (&'static str, String, String)>;

fn same<T: PartialEq + Debug>(what: &'static str, store: &T, model: &T) -> Compared {
    if store == model {
        Ok(())
    } else {
        Err((what, format!("{store:.300?}"), format!("{model:.300?}")))
    }
}

fn promise(what: &'static str, holds: bool, seen: &impl Debug) -> Compared {
    if holds {
        Ok(())
    } else {
        Err((what, format!("{seen:.300?}"), "otherwise".to_owned()))
    }
}

/// Does `drive.operations` operations on three accounts of `store`, and on the
/// model, and compares.
///
/// # Errors
/// The first difference.
pub fn drive<S: Store>(store: &S, drive: Drive) -> Result<Driven, Box<Difference>> {
    let mut random = Random::new(drive.seed);
    let mut now = Time::from_millis(random.below(1 << 42));
    let mut sides: Vec<_> = ["first", "second", "third"]
        .into_iter()
        .map(|name| Side::new(store, name, &mut random, drive.at_limit))
        .collect();
    let mut driven = Driven::default();
    for step in 0..drive.operations {
        now = later(&mut random, now);
        let number = usize::try_from(random.below(3)).unwrap_or_default();
        let side = &mut sides[number];
        let (namespace, key) = operation::place(&mut random, drive.keys);
        let at = entry_key(namespace, &key);
        let known = side.versions.get(&place(at)).copied();
        let operation = operation::operation(&mut random, now, known, drive.at_limit);
        let mut call = Call::at(now);
        if random.once_in(8) {
            call = call.dry();
            driven.dry_runs += 1;
        }
        let prefix = operation::prefix(&mut random, &key);
        let compared = side
            .learn(call, at)
            .and_then(|()| side.operate(call, at, &prefix, &operation, &mut driven))
            .and_then(|()| side.compare_counters(now, step));
        compared.map_err(|(what, store, model)| {
            Box::new(Difference {
                seed: drive.seed,
                step,
                operation: format!("{operation:.300?} of {at:?} at {call:?}"),
                what,
                store,
                model,
            })
        })?;
        driven.operations += 1;
    }
    for side in &mut sides {
        side.retire();
        driven.expired += side.past_expired;
        driven.evicted += side.past_evicted;
    }
    Ok(driven)
}

/// Mostly the same millisecond or a few on; now and then far away.
fn later(random: &mut Random, now: Time) -> Time {
    let ms = match random.below(1000) {
        0..=599 => 0,
        600..=989 => random.below(6),
        990..=996 => random.below(5_000),
        997..=998 => random.below(10_000_000),
        _ => random.below(365 * 24 * 3600 * 1000),
    };
    Time::from_millis(now.as_millis() + ms)
}

/// One account, in the store and in the model.
struct Side<'s, S: Store> {
    store: &'s S,
    account: S::Account,
    name: &'static str,
    life: u64,
    model: Naive,
    at_limit: AtLimit,
    quota: Quota,
    /// The version that each key had last, live or not.
    versions: BTreeMap<Place, Version>,
    greatest: Version,
    last_usage: Option<Usage>,
    past_expired: u64,
    past_evicted: u64,
    /// Usage when the quota was last lowered: what may stay above it.
    grace: (u64, u64),
}

impl<'s, S: Store> Side<'s, S> {
    fn new(store: &'s S, name: &'static str, random: &mut Random, at_limit: AtLimit) -> Self {
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

    const fn evicts(&self) -> bool {
        matches!(self.at_limit, AtLimit::Evict)
    }

    /// With eviction, tells the model whether the key is still there.
    fn learn(&mut self, call: Call, at: EntryKey<'_>) -> Compared {
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

    fn operate(
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

    fn read(
        &self,
        call: Call,
        at: EntryKey<'_>,
        effect: ReadEffect,
    ) -> Result<Option<Kept>, (&'static str, String, String)> {
        let get = self
            .store
            .get(&self.account, call, at, effect, |it| keep(at, it));
        shown_once(block_on(get))
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
                let store = block_on(self.store.set(&self.account, call, set));
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
    fn walk(
        &self,
        call: Call,
        selection: Selection<'_>,
        budget: ScanBudget,
    ) -> Result<Vec<(Vec<u8>, Kept)>, (&'static str, String, String)> {
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

    fn open(&mut self, quota: Quota) {
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
    fn close(&mut self, call: Call, at: EntryKey<'_>) -> Compared {
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
    fn retire(&mut self) {
        if let Some(usage) = self.last_usage.take() {
            self.past_expired += usage.expired;
            self.past_evicted += usage.evicted;
        }
        self.model = Naive::new(self.quota);
        self.grace = (0, 0);
    }

    fn compare_counters(&mut self, now: Time, step: u64) -> Compared {
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

fn keep(at: EntryKey<'_>, entry: Option<EntryRef<'_>>) -> Option<(bool, Kept)> {
    entry.map(|it| {
        let is_at = it.namespace == at.namespace.as_str() && it.key == at.key.as_bytes();
        let value = it.value.to_owned();
        let meta = it.meta;
        (is_at, Kept { value, meta })
    })
}

type Shown = Result<Option<(bool, Kept)>, StoreError>;

fn shown_once(shown: Shown) -> Result<Option<Kept>, (&'static str, String, String)> {
    match shown {
        Ok(None) => Ok(None),
        Ok(Some((true, kept))) => Ok(Some(kept)),
        other => Err(("the entry shown", format!("{other:.300?}"), String::new())),
    }
}
