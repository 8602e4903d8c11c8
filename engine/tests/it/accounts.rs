//! Accounts come and go; time passes.

use larder_engine::Keyspace;
use larder_model::suite::{account, entry_key};
use larder_model::{
    AtLimit, Condition, Expiry, ExpiryChange, Quota, Set, Store, StoreError, Time, Written,
};

use crate::{MEMORY, Tenant, at, engine, quota};

#[test]
fn another_uid_is_another_account() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let before = Tenant::open(&engine, "a", Quota::UNLIMITED);
    before.set(0, b"k", b"v", None).expect("there is room");
    let account = engine.open(&account("a", "2"), Quota::UNLIMITED);
    let after = Tenant {
        engine: &engine,
        account,
    };
    assert_eq!(after.get(0, b"k"), None);
    assert_eq!(before.get(0, b"k"), None);
    let refused = before.set(0, b"k", b"v", None);
    assert_eq!(refused, Err(StoreError::KeyQuota { limit: 0 }));
    after.set(0, b"k", b"w", None).expect("there is room");
    assert_eq!(before.get(0, b"k"), None);
    assert_eq!(engine.accounts(), 1);
    engine.validate().expect("all in agreement");
}

#[test]
fn a_quota_holds_from_now_on() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", quota(1_000, u64::MAX, AtLimit::Evict));
    for key in 0..1_000_u32 {
        tenant
            .set(0, &key.to_be_bytes(), b"v", None)
            .expect("there is room");
    }
    Tenant::open(&engine, "a", quota(10, u64::MAX, AtLimit::Evict));
    assert_eq!(tenant.usage(0).keys, 1_000);
    tenant.set(0, b"new", b"v", None).expect("it evicts down");
    assert_eq!(tenant.usage(0).keys, 10);
    assert_eq!(tenant.get(0, b"new"), Some(b"v".to_vec()));
    engine.validate().expect("all in agreement");
}

#[test]
fn a_write_at_once_makes_room_in_one_shard_or_leaves_it_to_one_that_may_wait() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", quota(1, u64::MAX, AtLimit::Refuse));
    let set = |key| Set {
        at: entry_key("", key),
        value: b"v",
        flags: 0,
        expiry: ExpiryChange::To(Expiry::Never),
        condition: Condition::Always,
    };
    let set_now = |key| engine.set_now(&tenant.account, at(0), set(key));
    assert!(matches!(set_now(b"a"), Some(Ok(Written::Applied(_)))));
    assert!(matches!(set_now(b"a"), Some(Ok(Written::Applied(_)))));
    assert_eq!(set_now(b"b"), None);
    assert_eq!(tenant.get(0, b"b"), None);
    assert_eq!(tenant.usage(0).keys, 1);
    engine.validate().expect("all in agreement");
}

#[test]
fn sweeps_are_bounded_and_reach_everything() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenants = ["a", "b"].map(|name| Tenant::open(&engine, name, Quota::UNLIMITED));
    for key in 0..5_000_u64 {
        for tenant in &tenants {
            let end = Some(1 + key * 10_000);
            tenant
                .set(0, &key.to_be_bytes(), b"v", end)
                .expect("there is room");
        }
    }
    let (mut expired, mut sweeps) = (0, 0);
    loop {
        let report = engine.sweep(Time::from_millis(5_000 * 10_000), 500);
        assert!(report.expired < 1_000, "{report:?}");
        expired += report.expired;
        sweeps += 1;
        if !report.more {
            break;
        }
    }
    assert_eq!(expired, 10_000);
    assert!(sweeps > 10);
    engine.validate().expect("all in agreement");
}

#[test]
fn idle_accounts_are_forgotten_and_never_repeat_a_version() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let fresh = engine.memory_use().used_bytes;
    let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
    let first = tenant.set(0, b"k", b"v", Some(10)).expect("there is room");
    assert_eq!(first.version.get(), 1 << 48);
    assert_eq!(
        engine.sweep(Time::from_millis(10), 100).forgotten,
        0,
        "it is held"
    );
    drop(tenant);
    assert_eq!(engine.sweep(Time::from_millis(10), 100).forgotten, 1);
    assert_eq!(engine.accounts(), 0);
    assert_eq!(engine.memory_use().used_bytes, fresh);
    let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
    let second = tenant.set(0, b"k", b"v", None).expect("there is room");
    assert!(second.version > first.version);
}

#[test]
fn a_closed_account_gives_its_memory_back() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let fresh = engine.memory_use().used_bytes;
    let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
    for key in 0..20_000_u32 {
        let value = vec![1; if key % 1_000 == 0 { 20_000 } else { 20 }];
        tenant
            .set(0, &key.to_be_bytes(), &value, None)
            .expect("there is room");
    }
    engine.close(&account("a", "").name);
    assert_eq!(tenant.usage(0).keys, 0);
    drop(tenant);
    let mut sweeps = 0;
    while engine.sweep(Time::ZERO, 1_000).more {
        sweeps += 1;
    }
    assert!(sweeps > 5, "not all at once");
    assert_eq!(engine.memory_use().used_bytes, fresh);
    engine.validate().expect("all in agreement");
}
