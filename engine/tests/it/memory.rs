//! When memory is short.

use larder_engine::Keyspace;
use larder_model::{AtLimit, Quota, StoreError};

use crate::{Tenant, engine, quota};

#[test]
fn the_account_that_uses_most_gives() {
    let engine = engine(1 << 20, Keyspace::PerAccount);
    let small = Tenant::open(&engine, "small", Quota::UNLIMITED);
    for key in 0..100_u32 {
        small
            .set(0, &key.to_be_bytes(), &[1; 100], None)
            .expect("there is room");
    }
    // Its own policy rules its quota, not the store's memory.
    let large = Tenant::open(&engine, "large", Quota::UNLIMITED);
    for key in 0..20_000_u32 {
        large
            .set(0, &key.to_be_bytes(), &[2; 100], None)
            .expect("it gives way to itself");
    }
    assert_eq!(small.usage(0).evicted, 0);
    assert_eq!(small.usage(0).keys, 100);
    assert!(large.usage(0).evicted > 10_000);
    assert_eq!(large.recount(0).0, large.usage(0).keys);
    let memory = engine.memory_use();
    assert!(
        memory.used_bytes > memory.limit_bytes / 10 * 9,
        "{memory:?}"
    );
    engine.validate().expect("all in agreement");
}

#[test]
fn one_large_value_takes_the_room_of_many_small_ones() {
    let engine = engine(4 << 20, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
    for key in 0..40_000_u32 {
        tenant
            .set(0, &key.to_be_bytes(), b"", None)
            .expect("something can go");
    }
    tenant
        .set(0, b"large", &vec![1; 3 << 20], None)
        .expect("much can go");
    assert_eq!(
        tenant.get(0, b"large").map(|value| value.len()),
        Some(3 << 20)
    );
    // It grows, and does not go for that itself.
    tenant
        .set(0, b"large", &vec![1; 7 << 19], None)
        .expect("the rest can go");
    assert_eq!(
        tenant.get(0, b"large").map(|value| value.len()),
        Some(7 << 19)
    );
    engine.validate().expect("all in agreement");
}

#[test]
fn what_cannot_fit_alone_is_refused_and_moves_nothing() {
    let engine = engine(100_000, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", quota(100, u64::MAX, AtLimit::Evict));
    tenant.set(0, b"k", b"v", None).expect("there is room");
    let refused = tenant.set(0, b"large", &vec![0; 200_000], None);
    assert_eq!(refused, Err(StoreError::MemoryFull { limit: 100_000 }));
    assert_eq!(tenant.get(0, b"k"), Some(b"v".to_vec()));
    assert_eq!(tenant.usage(0).keys, 1);
    engine.validate().expect("all in agreement");
}

#[test]
fn what_is_due_goes_first() {
    let engine = engine(200_000, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
    for key in 0..300_u32 {
        let end = (key % 2 == 0).then_some(10);
        tenant
            .set(0, &key.to_be_bytes(), &[0; 350], end)
            .expect("there is room");
    }
    for key in 300..400_u32 {
        tenant
            .set(10, &key.to_be_bytes(), &[0; 350], None)
            .expect("what is due goes");
    }
    let usage = tenant.usage(10);
    assert_eq!((usage.evicted, usage.expired), (0, 150), "{usage:?}");
}
