//! Limits at every instant, under many threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, ScopedJoinHandle};

use larder_engine::Keyspace;
use larder_model::suite::Random;
use larder_model::{AtLimit, Store};

use crate::{MEMORY, Tenant, engine, quota};

const THREADS: u64 = 64;

/// Runs `work` on many threads, while another sees to it that `tenant` is
/// never above its limits.
fn run_watched(tenant: &Tenant<'_>, now: &AtomicU64, work: impl Fn(u64) + Sync) {
    let done = AtomicBool::new(false);
    let limits = tenant.usage(0).quota;
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut samples = 0_u64;
            while !done.load(SeqCst) || samples == 0 {
                let usage = tenant.usage(now.load(SeqCst));
                assert!(usage.keys <= limits.max_keys, "{usage:?}");
                assert!(usage.bytes <= limits.max_bytes, "{usage:?}");
                samples += 1;
            }
        });
        let work = &work;
        let workers = (0..THREADS).map(|number| scope.spawn(move || work(number)));
        let workers: Vec<_> = workers.collect();
        let ended: Vec<_> = workers.into_iter().map(ScopedJoinHandle::join).collect();
        // Before any of them is judged, or the sampler would go on for ever.
        done.store(true, SeqCst);
        sampler.join().expect("never above the limits");
        assert!(ended.iter().all(Result::is_ok));
    });
}

#[test]
fn writers_of_new_keys_get_just_as_many_as_there_is_room_for() {
    const LIMIT: u64 = 10_000;
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", quota(LIMIT, u64::MAX, AtLimit::Refuse));
    let written = AtomicU64::new(0);
    run_watched(&tenant, &AtomicU64::new(0), |number| {
        for key in 0..400 {
            let key = format!("{number}/{key}");
            if tenant.set(0, key.as_bytes(), b"v", None).is_ok() {
                written.fetch_add(1, SeqCst);
            }
        }
    });
    assert_eq!(written.load(SeqCst), LIMIT);
    assert_eq!(tenant.usage(0).keys, LIMIT);
    assert_eq!(tenant.recount(0).0, LIMIT);
    engine.validate().expect("all in agreement");
}

/// Everything at once on one account, and then a count.
fn mix(at_limit: AtLimit, keyspace: Keyspace) {
    let engine = engine(MEMORY, keyspace);
    let tenant = Tenant::open(&engine, "a", quota(4_000, 400_000, at_limit));
    let now = AtomicU64::new(1);
    run_watched(&tenant, &now, |number| {
        let mut random = Random::new(number);
        for _ in 0..1_500 {
            let time = now.fetch_add(random.below(2), SeqCst);
            let key = random.below(8_000).to_string();
            // What is read must be something that was written under that key.
            let value = [
                key.as_bytes(),
                &[b'.'; 60][..usize::try_from(random.below(60)).expect("small")],
            ]
            .concat();
            match random.below(10) {
                0..=3 => drop(tenant.set(time, key.as_bytes(), &value, None)),
                4..=5 => {
                    let end = time + random.below(500);
                    drop(tenant.set(time, key.as_bytes(), &value, Some(end)));
                }
                6 => drop(tenant.delete(time, key.as_bytes())),
                _ => {
                    if let Some(value) = tenant.get(time, key.as_bytes()) {
                        assert!(value.starts_with(key.as_bytes()));
                    }
                }
            }
        }
    });
    let now = now.load(SeqCst) + 1_000;
    let usage = tenant.usage(now);
    assert_eq!((usage.keys, usage.bytes), tenant.recount(now));
    assert!(usage.expired > 0, "{usage:?}");
    assert_eq!(usage.evicted > 0, at_limit == AtLimit::Evict, "{usage:?}");
    engine.validate().expect("all in agreement");
}

#[test]
fn counts_agree_after_everything_at_once() {
    mix(AtLimit::Refuse, Keyspace::PerAccount);
}

#[test]
fn counts_agree_after_everything_at_once_with_eviction() {
    mix(AtLimit::Evict, Keyspace::PerAccount);
}

#[test]
fn counts_agree_after_everything_at_once_in_a_shared_key_space() {
    mix(AtLimit::Refuse, Keyspace::Shared);
}

#[test]
fn memory_is_never_above_its_limit() {
    let engine = engine(400_000, Keyspace::PerAccount);
    let limit = engine.memory_use().limit_bytes;
    let names = ["a", "b", "c", "d"];
    let tenants = names.map(|name| Tenant::open(&engine, name, larder_model::Quota::UNLIMITED));
    run_watched(&tenants[0], &AtomicU64::new(0), |number| {
        let mut random = Random::new(number);
        let tenant = &tenants[usize::try_from(number % 4).expect("below 4")];
        for _ in 0..300 {
            let key = random.below(5_000).to_string();
            let value = vec![1; usize::try_from(random.below(600)).expect("small")];
            tenant
                .set(0, key.as_bytes(), &value, None)
                .expect("something can go");
            assert!(engine.memory_use().used_bytes <= limit);
        }
    });
    engine.validate().expect("all in agreement");
}

#[test]
fn accounts_come_and_go_under_writers() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    thread::scope(|scope| {
        for number in 0..8 {
            let engine = &engine;
            scope.spawn(move || {
                let mut random = Random::new(number);
                for _ in 0..400 {
                    let name = format!("account-{}", random.below(6));
                    let tenant = Tenant::open(engine, &name, quota(50, u64::MAX, AtLimit::Evict));
                    for key in 0..20 {
                        // A closed account refuses.
                        drop(tenant.set(0, &[key], b"v", random.once_in(2).then_some(1)));
                    }
                    if random.once_in(4) {
                        engine.close(&larder_model::suite::account(&name, "").name);
                    }
                    if random.once_in(4) {
                        engine.sweep(larder_model::Time::from_millis(random.below(2)), 64);
                    }
                }
            });
        }
    });
    engine.validate().expect("all in agreement");
}
