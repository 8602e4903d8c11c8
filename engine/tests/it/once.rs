//! Writes with a request id: counted once, by many threads, within bounds.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use larder_engine::{Engine, Keyspace};
use larder_model::suite::{Random, account, block_on, entry_key};
use larder_model::{
    AtLimit, Call, Condition, Expiry, ExpiryChange, Fingerprint, Increment, Incremented, Once,
    OnceError, Outcome, Quota, ReplayLimits, Request, RequestId, Set, Store, StoreError, Time,
    Write,
};

use crate::{MEMORY, Tenant, at, engine, quota};

fn request(id: &str) -> Request<'_> {
    Request {
        id: RequestId::parse(id).expect("an id"),
        fingerprint: Fingerprint([1; 16]),
        item: 0,
    }
}

fn add(key: &[u8], delta: i64) -> Write<'_> {
    Write::Increment(Increment {
        at: entry_key("", key),
        delta,
        initial: 0,
        initial_expiry: Expiry::Never,
        upper_bound: None,
        lower_bound: None,
    })
}

fn create<'a>(key: &'a [u8], value: &'a [u8]) -> Write<'a> {
    Write::Set(Set {
        at: entry_key("", key),
        value,
        flags: 0,
        expiry: ExpiryChange::To(Expiry::Never),
        condition: Condition::IfAbsent,
    })
}

impl Tenant<'_> {
    fn once(&self, call: Call, id: &str, write: Write<'_>) -> Result<Once, OnceError> {
        block_on(self.engine.once(&self.account, call, request(id), write))
    }

    fn recorded(&self, now: u64) -> (u64, u64) {
        let used = block_on(self.engine.replay_use(&self.account, at(now))).expect("its use");
        (used.recorded, used.forgotten_early)
    }
}

fn remembering(max_per_account: usize, max_total: usize) -> Engine {
    engine(MEMORY, Keyspace::PerAccount).remembering(ReplayLimits {
        window: Duration::from_secs(600),
        max_per_account,
        max_total,
    })
}

#[test]
fn sixteen_threads_that_retry_the_same_increments_count_each_once() {
    const THREADS: usize = 16;
    const INCREMENTS: i64 = 500;
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
    let together = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                together.wait();
                for number in 0..INCREMENTS {
                    let id = format!("increment-{number}");
                    let outcome = loop {
                        match tenant.once(at(0), &id, add(b"counter", 1)) {
                            Ok(done) => break done.outcome,
                            Err(OnceError::InProgress) => thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    };
                    let Outcome::Increment(Incremented { applied_delta, .. }) = outcome else {
                        panic!("{outcome:?}")
                    };
                    assert_eq!(applied_delta, 1);
                }
            });
        }
    });
    assert_eq!(
        tenant.get(0, b"counter"),
        Some(INCREMENTS.to_string().into_bytes())
    );
    engine.validate().expect("all in agreement");
}

#[test]
fn a_repeat_answers_as_the_first_time_whatever_happened_since() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
    let first = tenant.once(at(0), "c", create(b"k", b"v")).expect("made");
    assert!(!first.replayed);
    assert!(tenant.delete(1, b"k"), "deleted");
    let again = tenant.once(at(2), "c", create(b"k", b"v")).expect("known");
    assert_eq!((again.outcome, again.replayed), (first.outcome, true));
    assert_eq!(tenant.get(2, b"k"), None, "it is not made again");
    // A dry run is told the same, and claims nothing.
    let dry = tenant.once(at(2).dry(), "c", create(b"k", b"v"));
    assert_eq!(dry, Ok(again));
    let dry = tenant
        .once(at(2).dry(), "d", create(b"k", b"v"))
        .expect("judged");
    assert!(!dry.replayed);
    assert_eq!(tenant.recorded(2), (1, 0));
    // Ten minutes later, to the millisecond, it is a request like any other.
    assert!(
        tenant
            .once(at(599_999), "c", create(b"k", b"v"))
            .expect("known")
            .replayed
    );
    assert!(
        !tenant
            .once(at(600_000), "c", create(b"k", b"v"))
            .expect("made")
            .replayed
    );
}

#[test]
fn errors_are_not_recorded() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", quota(1, u64::MAX, AtLimit::Refuse));
    tenant.set(0, b"full", b"v", None).expect("set");
    let full = Err(OnceError::Store(StoreError::KeyQuota { limit: 1 }));
    assert_eq!(tenant.once(at(0), "c", create(b"k", b"v")), full);
    assert_eq!(tenant.recorded(0), (0, 0));
    tenant.delete(0, b"full");
    assert!(
        !tenant
            .once(at(0), "c", create(b"k", b"v"))
            .expect("made")
            .replayed
    );
}

#[test]
fn an_account_in_its_next_life_knows_no_requests() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
    tenant.once(at(0), "i", add(b"n", 1)).expect("counted");
    let next = engine.open(&account("a", "2"), Quota::UNLIMITED);
    let next = Tenant {
        engine: &engine,
        account: next,
    };
    assert!(
        !next
            .once(at(0), "i", add(b"n", 1))
            .expect("counted")
            .replayed
    );
    let other = Tenant::open(&engine, "b", Quota::UNLIMITED);
    assert!(
        !other
            .once(at(0), "i", add(b"n", 1))
            .expect("counted")
            .replayed
    );
}

#[test]
fn windows_are_bounded_for_each_account_and_for_all() {
    let engine = remembering(50, 100);
    let tenants: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| Tenant::open(&engine, name, Quota::UNLIMITED))
        .into();
    let mut random = Random::new(1);
    for number in 0..2_000_u64 {
        let tenant = &tenants[usize::try_from(random.below(4)).expect("small")];
        tenant
            .once(at(0), &format!("i{number}"), add(b"n", 1))
            .expect("counted");
        let recorded: Vec<_> = tenants.iter().map(|it| it.recorded(0).0).collect();
        assert!(recorded.iter().all(|it| *it <= 50), "{recorded:?}");
        assert!(recorded.iter().sum::<u64>() <= 100, "{recorded:?}");
    }
    let (kept, lost): (Vec<_>, Vec<_>) = tenants.iter().map(|it| it.recorded(0)).unzip();
    assert_eq!(kept.iter().sum::<u64>() + lost.iter().sum::<u64>(), 2_000);
    // A quiet account is not emptied by the others.
    assert!(kept.iter().all(|it| *it > 0), "{kept:?}");
    engine.validate().expect("all in agreement");
    // When their time is over, sweeping forgets them, and what they took.
    let before = engine.memory_use().used_bytes;
    engine.sweep(Time::from_millis(600_000), 1_000);
    let freed = before - engine.memory_use().used_bytes;
    assert_eq!(freed, kept.iter().sum::<u64>() * 320);
}
