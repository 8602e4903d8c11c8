//! Dry runs leave no trace, and say what the real call says right after.
//!
//! The trace is looked for in all that the engine holds, as its `Debug` prints it:
//! entries, index, policy, wheel, ledgers, versions, windows, memory.

use larder_engine::{Engine, Keyspace};
use larder_model::suite::{Random, block_on, entry_key};
use larder_model::{
    AtLimit, Call, Condition, Deleted, EntryMeta, EntryRef, Expiry, ExpiryChange, Fingerprint,
    Increment, Incremented, Namespace, Once, OnceError, Outcome, Quota, Rehearsal, Request,
    RequestId, Selection, Set, Store, StoreError, Time, Version, Write, Written,
};

use crate::{MEMORY, Tenant, engine};

/// A mutation, with all that it needs.
#[derive(Debug, Clone)]
enum Mutation {
    Set(OwnedSet),
    Delete(Vec<u8>, Condition),
    Touch(Vec<u8>, Expiry),
    Increment(Vec<u8>, i64, Expiry),
    DeletePrefix(Vec<u8>),
    /// A set or increment with a request id.
    SetOnce(OwnedSet, String),
    IncrementOnce(Vec<u8>, i64, String),
}

#[derive(Debug, Clone)]
struct OwnedSet {
    key: Vec<u8>,
    value: Vec<u8>,
    expiry: ExpiryChange,
    condition: Condition,
}

impl OwnedSet {
    fn set(&self) -> Set<'_> {
        Set {
            at: entry_key("", &self.key),
            value: &self.value,
            flags: 7,
            expiry: self.expiry,
            condition: self.condition,
        }
    }
}

/// An answer without the version that a dry run cannot know.
#[derive(Debug, PartialEq)]
enum Answer {
    Written(Result<Written, StoreError>),
    Deleted(Result<Deleted, StoreError>),
    Touched(Option<(Vec<u8>, EntryMeta)>),
    Incremented(Result<Incremented, StoreError>),
    Count(u64),
    Once(Result<Once, OnceError>),
}

fn unversioned(written: Written) -> Written {
    match written {
        Written::Applied(meta) => Written::Applied(EntryMeta {
            version: Version::new(0),
            ..meta
        }),
        other @ Written::NotApplied(_) => other,
    }
}

fn increment(key: &[u8], delta: i64, initial_expiry: Expiry) -> Increment<'_> {
    Increment {
        at: entry_key("", key),
        delta,
        initial: 5,
        initial_expiry,
        upper_bound: None,
        lower_bound: None,
    }
}

fn request(id: &str) -> Request<'_> {
    Request {
        id: RequestId::parse(id).expect("an id"),
        fingerprint: Fingerprint([1; 16]),
        item: 0,
    }
}

impl Mutation {
    fn random(random: &mut Random, now: u64, known: &[Version]) -> Self {
        let key = random.below(14).to_string().into_bytes();
        let delta = random.pick(&[1, -3, i64::MAX]);
        let id = format!("id-{}", random.below(6));
        match random.below(9) {
            0..=3 => Self::Set(OwnedSet::random(random, now, known)),
            4 => Self::Delete(key, condition(random, known)),
            5 => Self::Touch(key, expiry(random, now)),
            6 => Self::Increment(key, delta, expiry(random, now)),
            7 if random.once_in(4) => Self::DeletePrefix(key),
            7 => Self::IncrementOnce(key, delta, id),
            _ => Self::SetOnce(OwnedSet::random(random, now, known), id),
        }
    }

    fn run(&self, tenant: &Tenant<'_>, call: Call) -> Answer {
        let (engine, account) = (tenant.engine, &tenant.account);
        let once = |id: &str, write| {
            let once = block_on(engine.once(account, call, request(id), write));
            Answer::Once(once.map(|done| match done.outcome {
                Outcome::Set(written) => Once {
                    outcome: Outcome::Set(unversioned(written)),
                    ..done
                },
                _ => done,
            }))
        };
        match self {
            Self::Set(set) => {
                let written = block_on(engine.set(account, call, set.set()));
                Answer::Written(written.map(unversioned))
            }
            Self::Delete(key, condition) => {
                let at = entry_key("", key);
                Answer::Deleted(block_on(engine.delete(account, call, at, *condition)))
            }
            Self::Touch(key, expiry) => {
                let at = entry_key("", key);
                let show = |it: Option<EntryRef<'_>>| it.map(|it| (it.value.to_vec(), it.meta));
                let touched = engine.get_and_touch(account, call, at, *expiry, show);
                Answer::Touched(block_on(touched).expect("a read does not fail"))
            }
            Self::Increment(key, delta, expiry) => {
                let increment = increment(key, *delta, *expiry);
                Answer::Incremented(block_on(engine.increment(account, call, increment)))
            }
            Self::DeletePrefix(prefix) => {
                let selection = Selection {
                    namespace: Namespace::DEFAULT,
                    prefix,
                };
                let deleted = engine.delete_prefix(account, call, selection);
                Answer::Count(block_on(deleted).expect("a walk does not fail"))
            }
            Self::SetOnce(set, id) => once(id, Write::Set(set.set())),
            Self::IncrementOnce(key, delta, id) => {
                once(id, Write::Increment(increment(key, *delta, Expiry::Never)))
            }
        }
    }
}

impl OwnedSet {
    fn random(random: &mut Random, now: u64, known: &[Version]) -> Self {
        let length = usize::try_from(random.pick(&[0, 1, 20, 200, 20_000])).expect("small");
        Self {
            key: random.below(14).to_string().into_bytes(),
            value: vec![b'7'; length],
            expiry: match random.below(4) {
                0 => ExpiryChange::Keep,
                _ => ExpiryChange::To(expiry(random, now)),
            },
            condition: condition(random, known),
        }
    }
}

fn expiry(random: &mut Random, now: u64) -> Expiry {
    match random.below(3) {
        0 => Expiry::Never,
        _ => Expiry::At(Time::from_millis(now + random.below(60))),
    }
}

fn condition(random: &mut Random, known: &[Version]) -> Condition {
    match random.below(8) {
        0 => Condition::IfAbsent,
        1 => Condition::IfPresent,
        2 if !known.is_empty() => {
            let last = known.len() as u64 - 1;
            let back = usize::try_from(random.below(8).min(last)).expect("small");
            Condition::IfVersion(known[known.len() - 1 - back])
        }
        3 => Condition::IfVersion(Version::new(0)),
        _ => Condition::Always,
    }
}

fn portrait(engine: &Engine) -> String {
    format!("{engine:?}")
}

fn quota(random: &mut Random, at_limit: AtLimit) -> Quota {
    Quota {
        max_keys: random.pick(&[0, 1, 4, 8, 1000]),
        max_bytes: random.pick(&[100, 500, 2_000, 30_000, 1 << 30]),
        at_limit,
    }
}

/// Each step dry first, and then in earnest on what is the same state.
fn each_mutation(seed: u64, at_limit: AtLimit, keyspace: Keyspace) {
    let mut random = Random::new(seed);
    let engine = engine(MEMORY, keyspace);
    let (mut now, mut known) = (1_000, Vec::new());
    let mut limits = [quota(&mut random, at_limit), quota(&mut random, at_limit)];
    for step in 0..250 {
        now += random.pick(&[0, 0, 1, 20]);
        let number = usize::try_from(random.below(2)).expect("small");
        if random.once_in(20) {
            limits[number] = quota(&mut random, at_limit);
        }
        let tenant = Tenant::open(&engine, ["a", "b"][number], limits[number]);
        let mutation = Mutation::random(&mut random, now, &known);
        let call = Call::at(Time::from_millis(now));
        let before = portrait(&engine);
        let dry = mutation.run(&tenant, call.dry());
        let told = format!("seed {seed}, step {step}, {mutation:.200?}");
        assert!(
            before == portrait(&engine),
            "{told}: the dry run left a trace"
        );
        if let Mutation::Set(set) = &mutation {
            // Known versions are those of real writes.
            let real = block_on(engine.set(&tenant.account, call, set.set()));
            known.extend(real.iter().filter_map(|it| match it {
                Written::Applied(meta) => Some(meta.version),
                Written::NotApplied(_) => None,
            }));
            assert_eq!(dry, Answer::Written(real.map(unversioned)), "{told}");
        } else {
            assert_eq!(dry, mutation.run(&tenant, call), "{told}");
        }
    }
    engine.validate().expect("all in agreement");
}

#[test]
fn a_dry_run_leaves_no_trace_and_says_what_the_real_call_says() {
    for seed in 0..5 {
        each_mutation(seed, AtLimit::Refuse, Keyspace::PerAccount);
        each_mutation(seed, AtLimit::Evict, Keyspace::PerAccount);
        each_mutation(seed, AtLimit::Refuse, Keyspace::Shared);
    }
}

/// Sets that belong together, rehearsed one after the other, and then made.
fn each_batch(seed: u64, keyspace: Keyspace) -> usize {
    let mut random = Random::new(seed);
    let engine = engine(MEMORY, keyspace);
    let (mut now, mut refused) = (1_000, 0);
    for step in 0..60 {
        now += random.pick(&[0, 1, 20]);
        let name = random.pick(&["a", "b"]);
        let tenant = Tenant::open(&engine, name, quota(&mut random, AtLimit::Refuse));
        let sets: Vec<_> = (0..random.below(12))
            .map(|_| OwnedSet::random(&mut random, now, &[]))
            .collect();
        // Time passes between two writes of a batch, for the real ones as well.
        let times: Vec<_> = sets
            .iter()
            .map(|_| {
                now += u64::from(random.once_in(5)) * random.below(30);
                Time::from_millis(now)
            })
            .collect();
        let before = portrait(&engine);
        let mut rehearsal = Rehearsal::default();
        let dry: Vec<_> = std::iter::zip(&sets, &times)
            .map(|(set, now)| {
                let call = Call::at(*now).dry();
                let account = &tenant.account;
                block_on(engine.rehearse(account, call, set.set(), &mut rehearsal))
            })
            .collect();
        let told = format!("seed {seed}, step {step}, {sets:.400?}");
        assert!(
            before == portrait(&engine),
            "{told}: the dry run left a trace"
        );
        for ((set, now), dry) in std::iter::zip(&sets, &times).zip(dry) {
            let real = block_on(engine.set(&tenant.account, Call::at(*now), set.set()));
            refused += usize::from(real.is_err());
            let plain = |it: Written| match unversioned(it) {
                // What is in the way may be an entry of the batch.
                Written::NotApplied(Some(meta)) => Written::NotApplied(Some(EntryMeta {
                    version: Version::new(0),
                    ..meta
                })),
                other => other,
            };
            assert_eq!(dry.map(plain), real.map(plain), "{told}: {set:.200?}");
        }
    }
    refused
}

#[test]
fn a_rehearsed_batch_is_judged_entry_after_entry() {
    let mut refused = 0;
    for seed in 0..30 {
        refused += each_batch(seed, Keyspace::PerAccount);
        refused += each_batch(seed, Keyspace::Shared);
    }
    assert!(refused > 1_000, "only {refused} were refused");
}
