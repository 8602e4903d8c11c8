//! One key space for all accounts, each with its own quota.

use larder_engine::Keyspace;
use larder_model::suite::{Random, account};
use larder_model::{AtLimit, Quota, Store, StoreError};

use crate::{MEMORY, Tenant, engine, quota};

#[test]
fn an_entry_counts_on_the_account_that_created_it() {
    let engine = engine(MEMORY, Keyspace::Shared);
    let a = Tenant::open(&engine, "a", quota(1, 70, AtLimit::Evict));
    let b = Tenant::open(&engine, "b", quota(1, u64::MAX, AtLimit::Refuse));
    a.set(0, b"k", b"1", None).expect("there is room");
    assert_eq!(b.get(0, b"k"), Some(b"1".to_vec()));
    b.set(0, b"k", b"12345", None).expect("a has room for five");
    assert_eq!((a.usage(0).keys, a.usage(0).bytes), (1, 70));
    assert_eq!((b.usage(0).keys, b.usage(0).bytes), (0, 0));
    let refused = b.set(0, b"k", b"123456", None);
    assert_eq!(refused, Err(StoreError::ByteQuota { limit: 70 }));
    // Evicting acts as refusing.
    let refused = a.set(0, b"new", b"", None);
    assert_eq!(refused, Err(StoreError::KeyQuota { limit: 1 }));
    assert!(b.delete(0, b"k"));
    assert_eq!((a.usage(0).keys, a.usage(0).bytes), (0, 0));
    b.set(0, b"k", b"1", Some(5)).expect("there is room");
    assert_eq!((a.usage(4).keys, b.usage(4).keys), (0, 1));
    assert_eq!((a.usage(5).expired, b.usage(5).expired), (0, 1));
    engine.validate().expect("all in agreement");
}

#[test]
fn closing_an_account_removes_its_entries_only() {
    let engine = engine(MEMORY, Keyspace::Shared);
    let names = ["a", "b", "c"];
    let mut tenants = names.map(|name| Tenant::open(&engine, name, Quota::UNLIMITED));
    let mut random = Random::new(1);
    for round in 0..6 {
        for _ in 0..3_000 {
            let tenant = &tenants[usize::try_from(random.below(3)).expect("below 3")];
            let key = random.below(2_000).to_string();
            if random.once_in(3) {
                tenant.delete(0, key.as_bytes());
            } else {
                let value = vec![0; usize::try_from(random.below(40)).expect("small")];
                tenant
                    .set(0, key.as_bytes(), &value, None)
                    .expect("there is room");
            }
        }
        engine.validate().expect("all in agreement");
        let [a, b, c] = tenants.each_ref().map(|tenant| tenant.usage(0).keys);
        assert!(a > 0 && b > 0 && c > 0);
        let goes = round % 3;
        engine.close(&account(names[goes], "").name);
        engine.validate().expect("all in agreement");
        assert_eq!(tenants[goes].usage(0).keys, 0);
        assert_eq!(tenants[goes].get(0, b"1"), None);
        let refused = tenants[goes].set(0, b"1", b"", None);
        assert_eq!(refused, Err(StoreError::KeyQuota { limit: 0 }));
        let others = (goes + 1) % 3;
        assert_eq!(tenants[others].recount(0).0, a + b + c - [a, b, c][goes]);
        tenants[goes] = Tenant::open(&engine, names[goes], Quota::UNLIMITED);
    }
}
