//! Writes with a request id: stories of [`Store::once`], and a seeded driver that
//! compares a store's window with a list of all that happened.

use std::collections::BTreeMap;

use super::random::Random;
use super::{account, block_on, entry_key};
use crate::once::{Fingerprint, Once, OnceError, Outcome, Request, RequestId, Write};
use crate::quota::{AtLimit, Quota};
use crate::store::{
    Call, Condition, Deleted, ExpiryChange, Increment, Mode, ReadEffect, Set, Store, StoreError,
    Written,
};
use crate::time::{Expiry, Time};

/// What a write comes to, but for what a store chooses itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Set or deleted.
    Done,
    /// A condition did not hold.
    Not,
    /// The counter is at this value.
    At(i64),
}

impl Came {
    const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Set(Written::Applied(_)) | Outcome::Delete(Deleted::Applied) => Self::Done,
            Outcome::Set(Written::NotApplied(_)) | Outcome::Delete(Deleted::NotApplied(_)) => {
                Self::Not
            }
            Outcome::Increment(sum) => Self::At(sum.value),
        }
    }
}

/// A write that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Adds to a counter.
    Add(i64),
    /// Sets to 0, if there is no entry.
    Create,
    /// Deletes, if there is an entry.
    Erase,
}

impl Act {
    fn write(self, key: &str) -> Write<'_> {
        let at = entry_key("", key.as_bytes());
        match self {
            Self::Add(delta) => Write::Increment(Increment {
                at,
                delta,
                initial: 0,
                initial_expiry: Expiry::Never,
                upper_bound: None,
                lower_bound: None,
            }),
            Self::Create => Write::Set(Set {
                at,
                value: b"0",
                flags: 0,
                expiry: ExpiryChange::To(Expiry::Never),
                condition: Condition::IfAbsent,
            }),
            Self::Erase => Write::Delete {
                at,
                condition: Condition::IfPresent,
            },
        }
    }
}

/// A request: id, what it asks for, which write of it.
type Asked = (&'static str, u8, u32);

/// How a write with an id, or a look at it, ends: what it came to, and whether that
/// was before.
type Answer = Result<(Came, bool), OnceError>;

#[derive(Debug, Clone)]
enum Step {
    /// So many milliseconds after the beginning.
    At(u64),
    /// The window's length after the beginning, less so many milliseconds.
    WindowLess(u64),
    /// A write.
    Do(Asked, &'static str, Act, Answer),
    /// The same, dry.
    Dry(Asked, &'static str, Act, Answer),
    /// A look at what is known.
    Recall(Asked, Result<Option<Came>, OnceError>),
    /// A write without an id.
    Remove(&'static str),
    /// A read.
    Reads(&'static str, Option<&'static str>),
    /// Outcomes that are recorded.
    Holds(u64),
    /// So many keys are allowed.
    Keys(u64),
    /// The account is closed and made anew.
    Anew,
}

use Act::{Add, Create, Erase};
use Step::{At, Do, Dry, Holds, Reads, Recall, Remove, WindowLess};

const A: Asked = ("a", 1, 0);

const fn new(came: Came) -> Answer {
    Ok((came, false))
}

const fn again(came: Came) -> Answer {
    Ok((came, true))
}

const FULL: Answer = Err(OnceError::Store(StoreError::KeyQuota { limit: 1 }));

const STORIES: &[(&str, &[Step])] = &[
    (
        "a repeat is answered as the first time, and has no effect",
        &[
            Do(A, "n", Add(5), new(Came::At(5))),
            Do(A, "n", Add(5), again(Came::At(5))),
            Do(("b", 1, 0), "n", Add(5), new(Came::At(10))),
            Do(A, "n", Add(5), again(Came::At(5))),
            Reads("n", Some("10")),
            Holds(2),
        ],
    ),
    (
        "an outcome is replayed whatever became of the entry since",
        &[
            Do(A, "k", Create, new(Came::Done)),
            Remove("k"),
            Do(A, "k", Create, again(Came::Done)),
            Reads("k", None),
            Do(("b", 1, 0), "k", Erase, new(Came::Not)),
            Do(("c", 1, 0), "k", Create, new(Came::Done)),
            Do(("b", 1, 0), "k", Erase, again(Came::Not)),
            Reads("k", Some("0")),
        ],
    ),
    (
        "an outcome is forgotten at the millisecond that the window's length names",
        &[
            Do(A, "n", Add(1), new(Came::At(1))),
            WindowLess(1),
            Do(A, "n", Add(1), again(Came::At(1))),
            WindowLess(0),
            Recall(A, Ok(None)),
            Holds(0),
            // It may now stand for something else.
            Do(("a", 2, 0), "n", Add(2), new(Came::At(3))),
        ],
    ),
    (
        "an id stands for one request, whichever write of it is asked for",
        &[
            Do(A, "n", Add(1), new(Came::At(1))),
            Do(("a", 2, 0), "n", Add(1), Err(OnceError::Reused)),
            Do(("a", 2, 7), "n", Add(1), Err(OnceError::Reused)),
            Recall(("a", 2, 7), Err(OnceError::Reused)),
            Reads("n", Some("1")),
        ],
    ),
    (
        "each write of a batch is carried out once, and known for as long as its first",
        &[
            Do(("a", 1, 3), "n", Add(1), new(Came::At(1))),
            At(100),
            Do(("a", 1, 0), "n", Add(1), new(Came::At(2))),
            Do(("a", 1, 3), "n", Add(1), again(Came::At(1))),
            Recall(("a", 1, 0), Ok(Some(Came::At(2)))),
            Recall(("a", 1, 1), Ok(None)),
            Holds(2),
            WindowLess(0),
            Holds(0),
        ],
    ),
    (
        "an error is not recorded, and leaves the id free",
        &[
            Step::Keys(1),
            Do(A, "one", Create, new(Came::Done)),
            Do(("b", 1, 0), "two", Create, FULL),
            Recall(("b", 1, 0), Ok(None)),
            Remove("one"),
            Do(("b", 2, 0), "two", Create, new(Came::Done)),
            Do(("b", 2, 0), "two", Create, again(Came::Done)),
        ],
    ),
    (
        "a dry write is told what the real one would be, and claims nothing",
        &[
            Dry(A, "n", Add(1), new(Came::At(1))),
            Holds(0),
            Do(("a", 2, 0), "n", Add(2), new(Came::At(2))),
            Dry(("a", 2, 0), "n", Add(2), again(Came::At(2))),
            Dry(A, "n", Add(1), Err(OnceError::Reused)),
            Reads("n", Some("2")),
            Holds(1),
        ],
    ),
    (
        "an account that is made anew knows nothing of the one before",
        &[
            Do(A, "n", Add(1), new(Came::At(1))),
            Step::Anew,
            Holds(0),
            Recall(A, Ok(None)),
            Do(("a", 2, 0), "n", Add(1), new(Came::At(1))),
        ],
    ),
];

/// Plays the stories, each on a store of its own.
pub(super) fn check_stories<S: Store>(make: &mut impl FnMut() -> S) {
    for (name, steps) in STORIES {
        let store = make();
        let mut scene = Scene {
            account: store.open(&account("once", "1"), Quota::UNLIMITED),
            store: &store,
            now: Time::ZERO,
            lives: 1,
        };
        for (number, step) in (1..).zip(*steps) {
            scene.play(step, &format!("{name}, step {number}"));
        }
    }
}

struct Scene<'s, S: Store> {
    store: &'s S,
    account: S::Account,
    now: Time,
    lives: u64,
}

impl<S: Store> Scene<'_, S> {
    fn play(&mut self, step: &Step, at: &str) {
        let call = Call::at(self.now);
        match step {
            At(ms) => self.now = Time::from_millis(*ms),
            WindowLess(ms) => {
                let window = self.store.replay_limits().window.as_millis();
                let window = u64::try_from(window).expect("a window is short");
                self.now = Time::from_millis(window - ms);
            }
            Do(asked, key, act, answer) => {
                assert_eq!(self.once(call, *asked, key, *act), *answer, "{at}");
            }
            Dry(asked, key, act, answer) => {
                assert_eq!(self.once(call.dry(), *asked, key, *act), *answer, "{at}");
            }
            Recall(asked, known) => {
                let seen = block_on(self.store.recall(&self.account, call, request(*asked)));
                assert_eq!(seen.map(|it| it.map(Came::of)), *known, "{at}");
            }
            Remove(key) => {
                let key = entry_key("", key.as_bytes());
                let deleted = self
                    .store
                    .delete(&self.account, call, key, Condition::Always);
                assert_eq!(block_on(deleted), Ok(Deleted::Applied), "{at}");
            }
            Reads(key, value) => {
                let seen = read(self.store, &self.account, call, key);
                assert_eq!(seen.as_deref(), value.map(str::as_bytes), "{at}");
            }
            Holds(recorded) => {
                let held = block_on(self.store.replay_use(&self.account, call));
                assert_eq!(held.map(|it| it.recorded), Ok(*recorded), "{at}");
            }
            Step::Keys(max_keys) => {
                let quota = Quota {
                    max_keys: *max_keys,
                    ..Quota::UNLIMITED
                };
                self.store.open(&account("once", "1"), quota);
            }
            Step::Anew => {
                self.lives += 1;
                let id = account("once", &self.lives.to_string());
                self.account = self.store.open(&id, Quota::UNLIMITED);
            }
        }
    }

    fn once(&self, call: Call, asked: Asked, key: &str, act: Act) -> Answer {
        let once = self
            .store
            .once(&self.account, call, request(asked), act.write(key));
        block_on(once).map(|it| (Came::of(it.outcome), it.replayed))
    }
}

fn request((id, fingerprint, item): (&str, u8, u32)) -> Request<'_> {
    Request {
        id: RequestId::parse(id).expect("the suite's ids are ids"),
        fingerprint: Fingerprint([fingerprint; 16]),
        item,
    }
}

fn read<S: Store>(store: &S, account: &S::Account, call: Call, key: &str) -> Option<Vec<u8>> {
    let key = entry_key("", key.as_bytes());
    let copy = |entry: Option<crate::EntryRef<'_>>| entry.map(|it| it.value.to_owned());
    block_on(store.get(account, call, key, ReadEffect::Peek, copy)).expect("a read does not fail")
}

/// What was driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OnceDriven {
    /// Writes that were carried out.
    pub fresh: u64,
    /// Repeats that were answered from the window.
    pub replayed: u64,
    /// Writes that were refused.
    pub refused: u64,
    /// Outcomes that were forgotten before their time.
    pub forgotten_early: u64,
}

/// What a list says of one account: every outcome, in the order of the ids.
#[derive(Default)]
struct Plain {
    counters: BTreeMap<String, i64>,
    ids: Vec<PlainId>,
    forgotten_early: u64,
}

struct PlainId {
    id: String,
    fingerprint: u8,
    until: Time,
    items: BTreeMap<u32, Outcome>,
}

const MAX_KEYS: u64 = 4;

impl Plain {
    fn recorded(&self) -> usize {
        self.ids.iter().map(|id| id.items.len()).sum()
    }

    fn look(&self, (id, fingerprint, item): (&str, u8, u32)) -> Result<Option<Outcome>, OnceError> {
        match self.ids.iter().find(|known| known.id == id) {
            Some(known) if known.fingerprint != fingerprint => Err(OnceError::Reused),
            Some(known) => Ok(known.items.get(&item).copied()),
            None => Ok(None),
        }
    }

    /// The effect, or why there is none.
    fn act(&mut self, mode: Mode, key: &str, act: Act) -> Result<Came, OnceError> {
        let has = self.counters.get(key).copied();
        let is_full = has.is_none() && self.counters.len() as u64 >= MAX_KEYS;
        let (after, came) = match act {
            Add(_) | Create if is_full => {
                return Err(OnceError::Store(StoreError::KeyQuota { limit: MAX_KEYS }));
            }
            Add(delta) => {
                let sum = has.unwrap_or(0) + delta;
                (Some(sum), Came::At(sum))
            }
            Create if has.is_some() => (has, Came::Not),
            Create => (Some(0), Came::Done),
            Erase if has.is_none() => (has, Came::Not),
            Erase => (None, Came::Done),
        };
        if mode == Mode::Apply {
            match after {
                Some(value) => self.counters.insert(key.to_owned(), value),
                None => self.counters.remove(key),
            };
        }
        Ok(came)
    }

    /// Room for one more: the oldest ids go.
    fn make_room(&mut self, most: usize) {
        while self.recorded() >= most {
            self.forgotten_early += self.ids.remove(0).items.len() as u64;
        }
    }

    fn record(&mut self, (id, fingerprint, item): (&str, u8, u32), until: Time, outcome: Outcome) {
        if let Some(known) = self.ids.iter_mut().find(|known| known.id == id) {
            known.items.insert(item, outcome);
            return;
        }
        self.ids.push(PlainId {
            id: id.to_owned(),
            fingerprint,
            until,
            items: BTreeMap::from([(item, outcome)]),
        });
    }
}

/// Sends `operations` writes with ids to one account, one after the other: new ones,
/// repeats, ids that were used for something else, some of them dry. Compares every
/// answer, every entry and the use of the window with those of a list.
///
/// Where the window is full, room is made before a write is tried.
///
/// # Errors
/// The first difference, with seed and step.
pub fn drive_once<S: Store>(store: &S, seed: u64, operations: u64) -> Result<OnceDriven, String> {
    let limits = store.replay_limits();
    let window = u64::try_from(limits.window.as_millis()).expect("a window is short");
    let quota = Quota {
        max_keys: MAX_KEYS,
        at_limit: AtLimit::Refuse,
        ..Quota::UNLIMITED
    };
    let account = store.open(&account("driven-once", "1"), quota);
    let (mut random, mut plain) = (Random::new(seed), Plain::default());
    let (mut driven, mut now) = (OnceDriven::default(), Time::ZERO);
    for step in 0..operations {
        let passes = random.pick(&[0, 0, 0, window / 200, window / 10]);
        now = Time::from_millis(now.as_millis() + passes);
        plain.ids.retain(|known| known.until > now);
        let id = format!("id-{}", random.below(24));
        let fingerprint = u8::from(random.once_in(12));
        let item = u32::try_from(random.below(3)).unwrap_or(0);
        let asked = (id.as_str(), fingerprint, item);
        let key = format!("key-{}", random.below(MAX_KEYS + 2));
        let act = random.pick(&[Add(1), Add(-7), Create, Erase]);
        let mut call = Call::at(now);
        if random.once_in(8) {
            call = call.dry();
        }
        let seen = block_on(store.once(&account, call, request(asked), act.write(&key)));
        let until = Time::from_millis(now.as_millis() + window);
        let most = limits.max_per_account;
        let expected = judge(&mut plain, call, asked, (&key, act), most);
        let told =
            |what: &str| format!("seed {seed}, step {step}, {asked:?} {act:?} {key}: {what}");
        match (&seen, &expected) {
            (Ok(it), Ok((Expected::Known(outcome), _)))
                if it.replayed && it.outcome == *outcome =>
            {
                driven.replayed += 1;
            }
            (
                Ok(Once {
                    outcome,
                    replayed: false,
                }),
                Ok((Expected::New, came)),
            ) if Some(Came::of(*outcome)) == *came => {
                driven.fresh += 1;
                if call.mode == Mode::Apply {
                    plain.record(asked, until, *outcome);
                }
            }
            (Err(seen), Err(expected)) if seen == expected => driven.refused += 1,
            _ => return Err(told(&format!("store {seen:?}, model {expected:?}"))),
        }
        let value = plain
            .counters
            .get(&key)
            .map(|it| it.to_string().into_bytes());
        if read(store, &account, Call::at(now), &key) != value {
            return Err(told("the entry is another one"));
        }
        let held = block_on(store.replay_use(&account, Call::at(now)));
        let held = held.map(|it| (it.recorded, it.forgotten_early));
        if held != Ok((plain.recorded() as u64, plain.forgotten_early)) {
            return Err(told(&format!("the window holds {held:?}")));
        }
    }
    driven.forgotten_early = plain.forgotten_early;
    Ok(driven)
}

#[derive(Debug)]
enum Expected {
    Known(Outcome),
    New,
}

/// What the list says of a write: the recorded outcome, or what it comes to now.
fn judge(
    plain: &mut Plain,
    call: Call,
    asked: (&str, u8, u32),
    (key, act): (&str, Act),
    most: usize,
) -> Result<(Expected, Option<Came>), OnceError> {
    if let Some(outcome) = plain.look(asked)? {
        return Ok((Expected::Known(outcome), None));
    }
    if call.mode == Mode::Apply {
        plain.make_room(most);
    }
    let came = plain.act(call.mode, key, act)?;
    Ok((Expected::New, Some(came)))
}
