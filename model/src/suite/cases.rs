//! Short stories, each of which shows one promise of [`Store`].

use std::fmt::Debug;

use super::stories::STORIES;
use super::{account, block_on, entry_key};
use crate::quota::{AtLimit, Quota};
use crate::store::{
    Call, Condition, Deleted, ExpiryChange, Increment, Incremented, Set, StoreError, Written,
};
use crate::time::{Expiry, Time};
use crate::{ReadEffect, Store, Usage, Version};

use Outcome::{Bytes, Done, Keys, Not};
use Step::{Add, At, Counts, Delete, Dry, Get, SetIfLast, SetKeep, Touch, Uses};

/// What a write or deletion came to, but for versions and sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// Its condition did not hold: an entry is there (or not).
    Not {
        /// Whether the answer showed a live entry.
        live: bool,
    },
    /// No key is left; the limit.
    Keys(u64),
    /// No bytes are left; the limit.
    Bytes(u64),
}

/// One step of a [`Case`].
#[derive(Debug, Clone)]
pub enum Step {
    /// The time is so many milliseconds from now on.
    At(u64),
    /// The next step is a dry run.
    Dry,
    /// Writes: key, value, end in ms or never, condition.
    Set(&'static str, &'static str, Option<u64>, Condition, Outcome),
    /// Writes, under the version that the last write but `0` was given.
    SetIfLast(&'static str, &'static str, Outcome),
    /// Writes, and keeps the expiry.
    SetKeep(&'static str, &'static str, Outcome),
    /// Reads.
    Get(&'static str, Option<&'static str>),
    /// Reads, and sets the end.
    Touch(&'static str, Option<u64>, Option<&'static str>),
    /// Deletes.
    Delete(&'static str, Condition, Outcome),
    /// Adds: key, delta, initial, lower and upper bound.
    Add(
        &'static str,
        i64,
        i64,
        [Option<i64>; 2],
        Result<(i64, i64), StoreError>,
    ),
    /// Keys and bytes in use.
    Uses(u64, u64),
    /// Hits, misses, evicted, expired.
    Counts([u64; 4]),
    /// Another quota.
    Quota(u64, u64, AtLimit),
}

/// A story.
#[derive(Debug)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    /// Quota at first: keys, bytes, policy.
    pub quota: (u64, u64, AtLimit),
    /// What happens.
    pub steps: &'static [Step],
}

/// The stories.
pub const fn cases() -> &'static [Case] {
    STORIES
}

struct Scene<'s, S: Store> {
    store: &'s S,
    account: S::Account,
    case: &'static str,
    step: usize,
    call: Call,
    last: Version,
}

impl Case {
    /// Plays the story on an account of its own.
    ///
    /// # Panics
    /// If the store does otherwise.
    pub fn check<S: Store>(&self, store: &S) {
        let (max_keys, max_bytes, at_limit) = self.quota;
        let quota = Quota {
            max_keys,
            max_bytes,
            at_limit,
        };
        let mut scene = Scene {
            account: store.open(&account("story", self.name), quota),
            store,
            case: self.name,
            step: 0,
            call: Call::at(Time::ZERO),
            last: Version::new(0),
        };
        for step in self.steps {
            scene.step += 1;
            scene.play(step.clone());
            if !matches!(step, Dry) {
                scene.call = Call::at(scene.call.now);
            }
        }
    }
}

impl<S: Store> Scene<'_, S> {
    fn same<T: PartialEq + Debug>(&self, store: &T, story: &T) {
        assert_eq!(store, story, "{}, step {}", self.case, self.step);
    }

    fn play(&mut self, step: Step) {
        let (store, call) = (self.store, self.call);
        match step {
            At(ms) => self.call = Call::at(Time::from_millis(ms)),
            Dry => self.call = call.dry(),
            Step::Set(key, value, end_ms, condition, outcome) => {
                let expiry = ExpiryChange::To(expiry(end_ms));
                self.set(key, value, expiry, condition, outcome);
            }
            SetIfLast(key, value, outcome) => {
                let condition = Condition::IfVersion(self.last);
                self.set(key, value, ExpiryChange::Keep, condition, outcome);
            }
            SetKeep(key, value, outcome) => {
                self.set(key, value, ExpiryChange::Keep, Condition::Always, outcome);
            }
            Get(key, value) => {
                let at = entry_key("", key.as_bytes());
                let visit = |it: Option<crate::EntryRef<'_>>| it.map(|it| it.value.to_owned());
                let got = block_on(store.get(&self.account, call, at, ReadEffect::Use, visit));
                self.same(&got, &Ok(value.map(|value| value.as_bytes().to_owned())));
            }
            Touch(key, end_ms, value) => {
                let at = entry_key("", key.as_bytes());
                let end = expiry(end_ms);
                let visit = |it: Option<crate::EntryRef<'_>>| {
                    it.map(|it| (it.value.to_owned(), it.meta.expiry))
                };
                let got = block_on(store.get_and_touch(&self.account, call, at, end, visit));
                self.same(
                    &got,
                    &Ok(value.map(|value| (value.as_bytes().to_owned(), end))),
                );
            }
            Delete(key, condition, outcome) => {
                let at = entry_key("", key.as_bytes());
                let deleted = block_on(store.delete(&self.account, call, at, condition));
                let seen = deleted.map(|deleted| match deleted {
                    Deleted::Applied => Done,
                    Deleted::NotApplied(meta) => Not {
                        live: meta.is_some(),
                    },
                });
                self.same(&seen, &Ok(outcome));
            }
            Add(..) => self.add(step),
            _ => self.look(&step),
        }
    }

    fn set(
        &mut self,
        key: &str,
        value: &str,
        expiry: ExpiryChange,
        condition: Condition,
        outcome: Outcome,
    ) {
        let set = Set {
            at: entry_key("", key.as_bytes()),
            value: value.as_bytes(),
            flags: 7,
            expiry,
            condition,
        };
        let seen = match block_on(self.store.set(&self.account, self.call, set)) {
            Ok(Written::Applied(meta)) => {
                self.last = meta.version;
                Ok(Done)
            }
            Ok(Written::NotApplied(meta)) => Ok(Not {
                live: meta.is_some(),
            }),
            Err(StoreError::KeyQuota { limit }) => Ok(Keys(limit)),
            Err(StoreError::ByteQuota { limit }) => Ok(Bytes(limit)),
            Err(other) => Err(other),
        };
        self.same(&seen, &Ok(outcome));
    }

    fn add(&self, step: Step) {
        let Add(key, delta, initial, [lower_bound, upper_bound], sum) = step else {
            return;
        };
        let increment = Increment {
            at: entry_key("", key.as_bytes()),
            delta,
            initial,
            initial_expiry: Expiry::Never,
            upper_bound,
            lower_bound,
        };
        let seen = block_on(self.store.increment(&self.account, self.call, increment));
        let sum = sum.map(|(value, applied_delta)| Incremented {
            value,
            applied_delta,
        });
        self.same(&seen, &sum);
    }

    fn look(&self, step: &Step) {
        let usage = block_on(self.store.usage(&self.account, self.call));
        match step {
            &Uses(keys, bytes) => {
                let seen = usage.map(|it| (it.keys, it.bytes));
                self.same(&seen, &Ok((keys, bytes)));
            }
            Counts(counts) => {
                let seen = |it: Usage| [it.hits, it.misses, it.evicted, it.expired];
                self.same(&usage.map(seen), &Ok(*counts));
            }
            &Step::Quota(max_keys, max_bytes, at_limit) => {
                let quota = Quota {
                    max_keys,
                    max_bytes,
                    at_limit,
                };
                self.store.open(&account("story", self.case), quota);
            }
            _ => {}
        }
    }
}

fn expiry(end_ms: Option<u64>) -> Expiry {
    end_ms.map_or(Expiry::Never, |ms| Expiry::At(Time::from_millis(ms)))
}
