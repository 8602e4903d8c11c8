//! What a walk over everything shows, and what comes back of it.

use std::collections::BTreeMap;
use std::time::Duration;

use larder_engine::{Engine, EngineConfig, Keyspace, Restored};
use larder_model::suite::{Random, account, block_on, entry_key};
use larder_model::{
    AccountId, AtLimit, Call, Condition, EntryKey, Expiry, ExpiryChange, Fingerprint, Increment,
    Key, Limits, Namespace, Once, Outcome, Quota, ReplayLimits, Request, RequestId, Set, Store,
    Time, Version, Write,
};

use crate::{MEMORY, Tenant, engine, quota};

type Seen = BTreeMap<(String, String, Vec<u8>), (Vec<u8>, u64, Expiry, u32)>;

fn seen(engine: &Engine, now: u64) -> Seen {
    let mut seen = Seen::new();
    let mut walk = engine.walk();
    while walk.step(Time::from_millis(now), |owner, entry| {
        let at = (
            owner.id.name.to_string(),
            entry.namespace.to_owned(),
            entry.key.to_vec(),
        );
        let meta = entry.meta;
        let what = (
            entry.value.to_vec(),
            meta.version.get(),
            meta.expiry,
            meta.flags,
        );
        assert!(seen.insert(at, what).is_none(), "shown twice");
    }) {}
    seen
}

fn set<'a>(space: &'a str, key: &'a [u8], value: &'a [u8], expiry: Expiry, flags: u32) -> Set<'a> {
    Set {
        at: EntryKey {
            namespace: Namespace::parse(space).expect("a namespace"),
            key: Key::parse(key, &Limits::default()).expect("a key"),
        },
        value,
        flags,
        expiry: ExpiryChange::To(expiry),
        condition: Condition::Always,
    }
}

/// Three accounts with entries of all kinds.
fn filled(keyspace: Keyspace) -> Engine {
    let engine = engine(MEMORY, keyspace);
    let mut random = Random::new(7);
    for name in ["a", "b", "c"] {
        let handle = engine.open(&account(name, "1"), Quota::UNLIMITED);
        for number in 0..3_000_u64 {
            let size = *[0, 10, 200, 20_000]
                .get(usize::try_from(random.below(100) / 33).expect("small"))
                .expect("one of four");
            let value = vec![number.to_le_bytes()[0]; size];
            let key = format!("{name}-{number}");
            let space = random.pick(&["", "other"]);
            let expiry = match random.below(3) {
                0 => Expiry::At(Time::from_millis(random.below(100) + 1)),
                _ => Expiry::Never,
            };
            let flags = u32::try_from(random.below(3)).expect("small");
            let set = set(space, key.as_bytes(), &value, expiry, flags);
            block_on(engine.set(&handle, Call::at(Time::ZERO), set)).expect("there is room");
        }
    }
    engine
}

fn restored(old: &Engine, keyspace: Keyspace, first_version: u64, keep: bool) -> Engine {
    let new = Engine::restoring(EngineConfig {
        max_memory_bytes: MEMORY,
        hash_seed: *b"another of them.",
        first_version,
        keyspace,
    });
    let mut walk = old.walk();
    let ids: Vec<AccountId> = walk.accounts().map(|(id, _)| id.clone()).collect();
    let handles: Vec<_> = ids
        .iter()
        .map(|id| new.open(id, Quota::UNLIMITED))
        .collect();
    while walk.step(Time::from_millis(50), |owner, entry| {
        let meta = entry.meta;
        let set = set(
            entry.namespace,
            entry.key,
            entry.value,
            meta.expiry,
            meta.flags,
        );
        let version = keep.then_some(meta.version);
        let call = Call::at(Time::from_millis(50));
        let put = new.restore(&handles[owner.number], call, &set, version);
        assert_eq!(put, Restored::Kept);
    }) {}
    new.validate().expect("all in agreement");
    new
}

#[test]
fn what_was_walked_comes_back_as_it_was() {
    for keyspace in [Keyspace::PerAccount, Keyspace::Shared] {
        let old = filled(keyspace);
        let before = seen(&old, 50);
        assert!(before.len() > 7_000 && before.len() < 9_000, "some expired");
        let first = old.end_version();
        let new = restored(&old, keyspace, first, true);
        assert_eq!(seen(&new, 50), before);
        // The next write has a version above all there were.
        let handle = new.open(&account("a", "1"), Quota::UNLIMITED);
        let call = Call::at(Time::from_millis(50));
        let set = set("", b"a-1", b"new", Expiry::Never, 0);
        block_on(new.set(&handle, call, set)).expect("there is room");
        let version = seen(&new, 50)[&("a".into(), "default".into(), b"a-1".to_vec())].1;
        assert!(version >= first, "{version} < {first}");
    }
}

#[test]
fn a_version_that_cannot_be_kept_is_a_new_one() {
    let old = filled(Keyspace::PerAccount);
    let end = old.end_version();
    let check = |first: u64, keep: bool| {
        let new = restored(&old, Keyspace::PerAccount, first, keep);
        let mut versions = seen(&new, 50).into_values().map(|(_, version, ..)| version);
        assert!(versions.all(|version| version >= first), "{first}");
        assert!(new.end_version() > first);
    };
    check(end, false);
    // So long ago that the number no longer reaches.
    check(end + (1 << 48), true);
}

#[test]
fn what_does_not_fit_is_left_out() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", quota(2, u64::MAX, AtLimit::Refuse));
    let check = |key: &[u8], expected: Restored| {
        let set = set("", key, b"value", Expiry::Never, 0);
        let call = Call::at(Time::ZERO);
        let put = engine.restore(&tenant.account, call, &set, Some(Version::new(5)));
        assert_eq!(put, expected, "{key:?}");
    };
    check(b"1", Restored::Kept);
    check(b"2", Restored::Kept);
    check(b"3", Restored::NoRoom);
    // The same key again: the later one counts.
    check(b"2", Restored::Kept);
    assert_eq!(tenant.usage(0).keys, 2);
    engine.validate().expect("all in agreement");
}

#[test]
fn what_lives_throughout_a_walk_is_shown_once_whatever_happens_meanwhile() {
    for keyspace in [Keyspace::PerAccount, Keyspace::Shared] {
        let engine = engine(MEMORY, keyspace);
        let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
        let mut random = Random::new(11);
        for number in 0..5_000 {
            for kind in ["stays", "goes"] {
                let key = format!("{kind}-{number}");
                tenant
                    .set(0, key.as_bytes(), b"1", None)
                    .expect("there is room");
            }
        }
        let mut shown: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut walk = engine.walk();
        let mut others = 0;
        while walk.step(Time::ZERO, |_, entry| {
            let stays = entry.key.starts_with(b"stays");
            let before = shown.insert(entry.key.to_vec(), entry.value.to_vec());
            assert!(before.is_none() || !stays, "{:?} is shown twice", entry.key);
            others += usize::from(!stays);
        }) {
            for _ in 0..50 {
                let number = random.below(5_000);
                let (stays, goes) = (format!("stays-{number}"), format!("goes-{number}"));
                // Overwritten, longer and shorter, it stays what it is.
                let value = vec![b'2'; usize::try_from(random.below(40_000)).expect("small")];
                tenant
                    .set(0, stays.as_bytes(), &value, None)
                    .expect("there is room");
                tenant.delete(0, goes.as_bytes());
                let new = format!("new-{}", random.number());
                tenant
                    .set(0, new.as_bytes(), b"3", None)
                    .expect("there is room");
            }
        }
        let stayed = shown.keys().filter(|key| key.starts_with(b"stays"));
        assert_eq!(stayed.count(), 5_000);
        assert!(others > 1_000, "{others}");
        engine.validate().expect("all in agreement");
    }
}

fn add_once(engine: &Engine, account: &larder_engine::Account, now: u64, id: &str) -> Once {
    let request = Request {
        id: RequestId::parse(id).expect("an id"),
        fingerprint: Fingerprint([1; 16]),
        item: 0,
    };
    let add = Write::Increment(Increment {
        at: entry_key("", b"n"),
        delta: 1,
        initial: 0,
        initial_expiry: Expiry::Never,
        upper_bound: None,
        lower_bound: None,
    });
    let call = Call::at(Time::from_millis(now));
    block_on(engine.once(account, call, request, add)).expect("counted")
}

/// The requests of an engine, by account and id: as a snapshot has them.
fn requests(engine: &Engine, now: u64) -> Vec<(AccountId, String, Time, Outcome)> {
    let mut seen = Vec::new();
    let mut walk = engine.walk();
    while walk.step_requests(Time::from_millis(now), |owner, it| {
        let id = it.request.id.as_str().to_owned();
        seen.push((owner.id.clone(), id, it.until, it.outcome));
    }) {}
    seen
}

#[test]
fn a_request_that_was_walked_is_a_repeat_in_the_next_engine() {
    for keyspace in [Keyspace::PerAccount, Keyspace::Shared] {
        let old = engine(MEMORY, keyspace);
        let new = engine(MEMORY, keyspace);
        for name in ["a", "b"] {
            let account = old.open(&account(name, "1"), Quota::UNLIMITED);
            for number in 0..1000 {
                let _ = add_once(&old, &account, number, &format!("i{number}"));
            }
        }
        let mut walk = old.walk();
        while walk.step_requests(Time::from_millis(600_100), |owner, it| {
            let account = new.open(owner.id, Quota::UNLIMITED);
            new.restore_request(&account, Time::from_millis(600_100), it);
        }) {}
        assert_eq!(requests(&new, 600_100), requests(&old, 600_100));
        assert_eq!(requests(&new, 600_100).len(), 2 * 899, "a hundred are over");
        let account = new.open(&account("b", "1"), Quota::UNLIMITED);
        let check = |now: u64, id: &str, replayed: bool| {
            let once = add_once(&new, &account, now, id);
            assert_eq!(once.replayed, replayed, "{id}");
        };
        check(600_100, "i100", false);
        check(600_100, "i101", true);
        check(600_101, "i101", false);
        check(600_998, "i999", true);
        check(600_998, "new", false);
        new.validate().expect("all in agreement");
    }
}

#[test]
fn what_is_put_back_of_requests_is_bounded_as_what_is_recorded() {
    let limits = |max_per_account, max_total| ReplayLimits {
        window: Duration::from_secs(600),
        max_per_account,
        max_total,
    };
    let old = engine(MEMORY, Keyspace::PerAccount);
    for name in ["a", "b", "c"] {
        let account = old.open(&account(name, "1"), Quota::UNLIMITED);
        for number in 0..200 {
            let _ = add_once(&old, &account, 0, &format!("i{number}"));
        }
    }
    let new = engine(MEMORY, Keyspace::PerAccount).remembering(limits(80, 120));
    let mut walk = old.walk();
    while walk.step_requests(Time::ZERO, |owner, it| {
        let account = new.open(owner.id, Quota::UNLIMITED);
        new.restore_request(&account, Time::ZERO, it);
    }) {}
    let kept = requests(&new, 0);
    assert!((100..=120).contains(&kept.len()), "{}", kept.len());
    for name in ["a", "b", "c"] {
        let of_it: Vec<_> = kept
            .iter()
            .filter(|it| it.0 == account(name, "1"))
            .collect();
        assert!((1..=80).contains(&of_it.len()), "{name}: {}", of_it.len());
        assert_eq!(of_it.last().expect("one").1, "i199", "the newest stay");
    }
    let _held = ["a", "b", "c"].map(|name| new.open(&account(name, "1"), Quota::UNLIMITED));
    let before = new.memory_use().used_bytes;
    new.sweep(Time::from_millis(600_000), 1_000);
    let freed = before - new.memory_use().used_bytes;
    assert_eq!(freed, kept.len() as u64 * 320);
}

#[test]
fn a_walk_over_requests_ends_however_many_come_meanwhile() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let account = engine.open(&account("a", "1"), Quota::UNLIMITED);
    for number in 0..500 {
        let _ = add_once(&engine, &account, 0, &format!("i{number}"));
    }
    let (mut walk, mut more, mut shown) = (engine.walk(), 0, 0);
    while walk.step_requests(Time::ZERO, |_, _| shown += 1) {
        for _ in 0..300 {
            more += 1;
            let _ = add_once(&engine, &account, 0, &format!("more{more}"));
        }
    }
    assert_eq!(shown, 500);
}

#[test]
fn a_mark_differs_after_every_change_and_after_nothing_else() {
    for keyspace in [Keyspace::PerAccount, Keyspace::Shared] {
        let engine = engine(MEMORY, keyspace);
        let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
        let mut last = engine.mark();
        let mut check = |what: &str, changes: bool, act: &mut dyn FnMut()| {
            act();
            let mark = engine.mark();
            assert_eq!(mark != last, changes, "{what}");
            last = mark;
        };
        let key = |key| entry_key("", key);
        check("a write", true, &mut || {
            drop(tenant.set(0, b"k", b"v", None));
        });
        check("the same write", true, &mut || {
            drop(tenant.set(0, b"k", b"v", None));
        });
        check("another key", true, &mut || {
            drop(tenant.set(0, b"due", b"v", Some(50)));
        });
        check("a read", false, &mut || drop(tenant.get(0, b"k")));
        check("a miss", false, &mut || drop(tenant.get(0, b"none")));
        check("a dry write", false, &mut || {
            let set = set("", b"k", b"dry", Expiry::Never, 0);
            let written = engine.set(&tenant.account, Call::at(Time::ZERO).dry(), set);
            block_on(written).expect("there is room");
        });
        let touch = |end: Expiry| {
            let touched = engine.get_and_touch(
                &tenant.account,
                Call::at(Time::ZERO),
                key(b"k"),
                end,
                |it| it.is_some(),
            );
            assert_eq!(block_on(touched), Ok(true));
        };
        let end = Expiry::At(Time::from_millis(90));
        check("another end", true, &mut || touch(end));
        check("the same end", false, &mut || touch(end));
        check("no end", true, &mut || touch(Expiry::Never));
        check("a request with an id", true, &mut || {
            let _ = add_once(&engine, &tenant.account, 0, "i");
        });
        check("a repeat", false, &mut || {
            let _ = add_once(&engine, &tenant.account, 0, "i");
        });
        check("time that passes", false, &mut || {
            engine.sweep(Time::from_millis(60), 1_000);
        });
        check("an account that looks", false, &mut || {
            let other = Tenant::open(&engine, "other", Quota::UNLIMITED);
            assert_eq!(other.get(60, b"none"), None);
        });
        check("another quota", true, &mut || {
            let _ = Tenant::open(&engine, "a", quota(9, 999, AtLimit::Refuse));
        });
        check("a delete", true, &mut || assert!(tenant.delete(60, b"k")));
        check("a delete of nothing", false, &mut || {
            assert!(!tenant.delete(60, b"k"));
        });
        check("an account that goes", true, &mut || {
            engine.close(&account("a", "1").name);
        });
    }
}
