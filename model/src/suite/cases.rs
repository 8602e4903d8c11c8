//! Short stories, each of which shows one promise of [`Store`].

use std::fmt::Debug;

use super::{account, block_on, entry_key};
use crate::quota::{AtLimit, Quota};
use crate::store::{
    Call, Condition, Deleted, ExpiryChange, Increment, Incremented, Set, StoreError, Written,
};
use crate::time::{Expiry, Time};
use crate::{ReadEffect, Store, Usage, Version};

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

use AtLimit::{Evict, Refuse};
use Condition::{Always, IfAbsent, IfPresent};
use Outcome::{Bytes, Done, Keys, Not};
use Step::{Add, At, Counts, Delete, Dry, Get, SetIfLast, SetKeep, Touch, Uses};

const MANY: u64 = 1 << 40;
const NO_BOUNDS: [Option<i64>; 2] = [None, None];

const fn set(key: &'static str, value: &'static str, outcome: Outcome) -> Step {
    Step::Set(key, value, None, Always, outcome)
}

/// The stories.
pub const fn cases() -> &'static [Case] {
    CASES
}

const CASES: &[Case] = &[
    Case {
        name: "what was written last is read",
        quota: (MANY, MANY, Refuse),
        steps: &[
            Get("k", None),
            set("k", "one", Done),
            Get("k", Some("one")),
            set("k", "another", Done),
            Get("k", Some("another")),
            set("k", "", Done),
            Get("k", Some("")),
            Delete("k", Always, Done),
            Get("k", None),
            Delete("k", Always, Not { live: false }),
            Counts([3, 2, 0, 0]),
        ],
    },
    Case {
        name: "overwriting never counts a key twice, and reserves only its growth",
        quota: (2, 2 * 64 + 10, Refuse),
        steps: &[
            set("a", "1234", Done),
            set("b", "1234", Done),
            Uses(2, 138),
            set("c", "", Keys(2)),
            set("a", "4321", Done),
            set("a", "12345", Bytes(138)),
            Get("a", Some("4321")),
            set("b", "123", Done),
            set("a", "12345", Done),
            Uses(2, 138),
        ],
    },
    Case {
        name: "an entry is gone from the millisecond that its expiry names",
        quota: (1, MANY, Refuse),
        steps: &[
            At(1_000),
            Step::Set("k", "v", Some(1_100), Always, Done),
            At(1_099),
            Get("k", Some("v")),
            set("new", "", Keys(1)),
            At(1_100),
            Get("k", None),
            Uses(0, 0),
            set("new", "", Done),
            Counts([1, 1, 0, 1]),
        ],
    },
    Case {
        name: "an expired key never blocks a new one",
        quota: (1, MANY, Refuse),
        steps: &[
            Step::Set("old", "v", Some(5_000), Always, Done),
            At(5_000),
            set("new", "v", Done),
            Uses(1, 64 + 4),
        ],
    },
    Case {
        name: "an end that has passed is in effect a delete",
        quota: (1, MANY, Refuse),
        steps: &[
            At(50),
            set("k", "v", Done),
            Step::Set("other", "v", Some(50), Always, Done),
            Step::Set("k", "v", Some(50), Always, Done),
            Get("k", None),
            Uses(0, 0),
            Counts([0, 1, 0, 0]),
        ],
    },
    Case {
        name: "a write keeps the expiry if it is told to",
        quota: (MANY, MANY, Refuse),
        steps: &[
            Step::Set("k", "v", Some(10), Always, Done),
            SetKeep("k", "w", Done),
            SetKeep("new", "w", Done),
            At(9),
            Get("k", Some("w")),
            At(10),
            Get("k", None),
            Get("new", Some("w")),
        ],
    },
    Case {
        name: "a touch moves the end, and shows the entry a last time if it has passed",
        quota: (MANY, MANY, Refuse),
        steps: &[
            Step::Set("k", "v", Some(10), Always, Done),
            Touch("k", Some(20), Some("v")),
            At(19),
            Get("k", Some("v")),
            Touch("k", None, Some("v")),
            At(1 << 40),
            Touch("k", Some(3), Some("v")),
            Get("k", None),
            Touch("k", None, None),
            Counts([4, 2, 0, 0]),
        ],
    },
    Case {
        name: "conditions look at the live entry",
        quota: (MANY, MANY, Refuse),
        steps: &[
            Step::Set("k", "1", None, IfPresent, Not { live: false }),
            Step::Set("k", "1", None, IfAbsent, Done),
            Step::Set("k", "2", None, IfAbsent, Not { live: true }),
            SetIfLast("k", "3", Done),
            Step::Set(
                "k",
                "4",
                None,
                Condition::IfVersion(Version::new(u64::MAX)),
                Not { live: true },
            ),
            Get("k", Some("3")),
            Step::Set("k", "5", Some(10), IfPresent, Done),
            At(10),
            SetIfLast("k", "6", Not { live: false }),
            Delete("k", IfPresent, Not { live: false }),
            Step::Set("k", "7", None, IfAbsent, Done),
            Delete("k", IfAbsent, Not { live: true }),
            Delete("k", IfPresent, Done),
        ],
    },
    Case {
        name: "a condition comes before the quota",
        quota: (0, MANY, Refuse),
        steps: &[
            Step::Set("k", "", None, IfPresent, Not { live: false }),
            Step::Set("k", "", None, IfAbsent, Keys(0)),
        ],
    },
    Case {
        name: "a dry run answers as the call would, and leaves no trace",
        quota: (1, 64 + 1 + 4, Refuse),
        steps: &[
            Dry,
            set("k", "1234", Done),
            Uses(0, 0),
            Dry,
            set("k", "12345", Bytes(69)),
            set("k", "1234", Done),
            Dry,
            set("other", "", Keys(1)),
            Dry,
            Delete("k", Always, Done),
            Dry,
            Touch("k", Some(0), Some("1234")),
            Dry,
            Get("k", Some("1234")),
            Dry,
            Add("k", 1, 0, NO_BOUNDS, Ok((1235, 1))),
            Uses(1, 69),
            Counts([0, 0, 0, 0]),
            Get("k", Some("1234")),
        ],
    },
    Case {
        name: "a counter adds within its bounds",
        quota: (MANY, MANY, Refuse),
        steps: &[
            Add("n", 5, 10, NO_BOUNDS, Ok((15, 5))),
            Get("n", Some("15")),
            Add("n", 10, 0, [None, Some(20)], Ok((20, 5))),
            Add("n", 1, 0, [None, Some(3)], Ok((20, 0))),
            Add("n", -30, 0, [Some(-5), None], Ok((-5, -25))),
            Get("n", Some("-5")),
            Add("n", -1, 0, [Some(0), None], Ok((-5, 0))),
            Add("n", 0, 0, [Some(0), Some(0)], Ok((-5, 0))),
            Add("max", 0, i64::MAX, NO_BOUNDS, Ok((i64::MAX, 0))),
            Add("max", 1, 0, NO_BOUNDS, Err(StoreError::Overflow)),
            Add(
                "max",
                i64::MAX,
                0,
                [None, Some(i64::MAX)],
                Ok((i64::MAX, 0)),
            ),
            Add("max", i64::MIN, 0, NO_BOUNDS, Ok((-1, i64::MIN))),
            Get("max", Some("-1")),
        ],
    },
    Case {
        name: "only decimal 64-bit numbers are counters",
        quota: (MANY, MANY, Refuse),
        steps: &[
            set("n", "", Done),
            Add("n", 1, 0, NO_BOUNDS, Err(StoreError::NotANumber)),
            set("n", " 1", Done),
            Add("n", 1, 0, NO_BOUNDS, Err(StoreError::NotANumber)),
            set("n", "1.5", Done),
            Add("n", 1, 0, NO_BOUNDS, Err(StoreError::NotANumber)),
            set("n", "9223372036854775808", Done),
            Add("n", 1, 0, NO_BOUNDS, Err(StoreError::NotANumber)),
            set("n", "-9223372036854775808", Done),
            Add("n", 1, 0, NO_BOUNDS, Ok((-9_223_372_036_854_775_807, 1))),
        ],
    },
    Case {
        name: "a counter counts, and its digits too",
        quota: (1, 64 + 1 + 1, Refuse),
        steps: &[
            Add("n", 9, 0, NO_BOUNDS, Ok((9, 9))),
            Add("m", 1, 0, NO_BOUNDS, Err(StoreError::KeyQuota { limit: 1 })),
            Add(
                "n",
                1,
                0,
                NO_BOUNDS,
                Err(StoreError::ByteQuota { limit: 66 }),
            ),
            Get("n", Some("9")),
            Uses(1, 66),
        ],
    },
    Case {
        name: "a lowered quota takes nothing away, and lets nothing more in",
        quota: (3, MANY, Refuse),
        steps: &[
            set("a", "1", Done),
            set("b", "1", Done),
            set("c", "1", Done),
            Step::Quota(1, 10, Refuse),
            Uses(3, 3 * 66),
            set("d", "", Keys(1)),
            set("a", "2", Done),
            set("a", "22", Bytes(10)),
            set("a", "", Done),
            Delete("b", Always, Done),
            set("b", "", Keys(1)),
            Get("c", Some("1")),
        ],
    },
    Case {
        name: "an account that evicts makes room, within its limits",
        quota: (2, 200, Evict),
        steps: &[
            set("a", "1", Done),
            set("b", "1", Done),
            set("c", "1", Done),
            Uses(2, 2 * 66),
            Get("c", Some("1")),
            Counts([1, 0, 1, 0]),
            Step::Set("d", "long", None, Always, Done),
            Uses(2, 66 + 69),
            Get("d", Some("long")),
        ],
    },
    Case {
        name: "what can never fit evicts nothing",
        quota: (2, 100, Evict),
        steps: &[
            set("a", "1", Done),
            set(
                "k",
                "................................................",
                Bytes(100),
            ),
            Get("a", Some("1")),
            Uses(1, 66),
        ],
    },
    Case {
        name: "an entry that grows never evicts itself",
        quota: (4, 64 * 2 + 4, Evict),
        steps: &[
            set("a", "1", Done),
            set("b", "1", Done),
            Step::Set("a", "12345", None, IfPresent, Done),
            Get("a", Some("12345")),
            Uses(1, 70),
        ],
    },
];

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
                self.set(key, value, ExpiryChange::Keep, Always, outcome);
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
            _ => self.look(step),
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

    fn look(&self, step: Step) {
        let usage = block_on(self.store.usage(&self.account, self.call));
        match step {
            Uses(keys, bytes) => {
                let seen = usage.map(|it| (it.keys, it.bytes));
                self.same(&seen, &Ok((keys, bytes)));
            }
            Counts(counts) => {
                let seen = |it: Usage| [it.hits, it.misses, it.evicted, it.expired];
                self.same(&usage.map(seen), &Ok(counts));
            }
            Step::Quota(max_keys, max_bytes, at_limit) => {
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
