//! The stories themselves.

use super::cases::{Case, Outcome, Step};
use crate::Version;
use crate::quota::AtLimit;
use crate::store::{Condition, StoreError};

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
pub(super) const STORIES: &[Case] = &[
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
