//! Lists, scans and deletions by prefix over more than one step.

use std::collections::BTreeSet;

use larder_engine::Keyspace;
use larder_model::suite::{Random, block_on, entry_key};
use larder_model::{Condition, Cursor, Quota, ScanBudget, Selection, Set, Store, StoreError};

use crate::{MEMORY, Tenant, at, cursor, engine, everything};

fn filled(tenant: &Tenant<'_>, keys: u32) -> BTreeSet<Vec<u8>> {
    let mut all = BTreeSet::new();
    for key in 0..keys {
        let key = format!("{:02}/{key}", key % 50).into_bytes();
        let value = vec![1; if key.ends_with(b"77") { 20_000 } else { 30 }];
        tenant.set(0, &key, &value, None).expect("there is room");
        all.insert(key);
    }
    all
}

#[test]
fn pages_show_every_key_once_in_order() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
    let all = filled(&tenant, 5_000);
    let selection = Selection {
        prefix: b"4",
        ..everything()
    };
    let mut seen: Vec<Vec<u8>> = Vec::new();
    loop {
        let after = seen.last().map(Vec::as_slice);
        let list = engine.list(&tenant.account, at(0), selection, after, 70);
        let page = block_on(list).expect("a list does not fail");
        seen.extend(page.entries.into_iter().map(|it| it.key.into_vec()));
        if !page.more {
            break;
        }
    }
    let expected = all.into_iter().filter(|key| key.starts_with(b"4"));
    assert_eq!(seen, expected.collect::<Vec<_>>());
}

#[test]
fn a_scan_shows_what_lives_throughout_once_while_others_come_and_go() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
    let mut random = Random::new(3);
    let all = filled(&tenant, 5_000);
    for key in 0..2_000_u32 {
        let key = format!("passing/{key}");
        tenant
            .set(0, key.as_bytes(), b"v", None)
            .expect("there is room");
    }
    let mut seen = Vec::new();
    let mut from = cursor();
    loop {
        let budget = ScanBudget {
            bytes: 4_000,
            entries: 90,
        };
        let visit = |it: larder_model::EntryRef<'_>| {
            if !it.key.starts_with(b"passing/") {
                seen.push(it.key.to_owned());
            }
        };
        let scan = engine.scan(&tenant.account, at(0), everything(), from, budget, visit);
        match block_on(scan).expect("the cursor is good") {
            Some(next) => from = next,
            None => break,
        }
        for _ in 0..40 {
            let key = format!("passing/{}", random.below(6_000));
            if random.once_in(2) {
                tenant
                    .set(0, key.as_bytes(), &[1; 9], None)
                    .expect("there is room");
            } else {
                tenant.delete(0, key.as_bytes());
            }
            // An overwrite does not move an entry, whatever its size.
            let key = &seen[usize::try_from(random.below(seen.len() as u64)).expect("small")];
            let value = vec![2; usize::try_from(random.below(100)).expect("small")];
            tenant.set(0, key, &value, None).expect("there is room");
        }
    }
    let times = seen.len();
    let seen: BTreeSet<_> = seen.into_iter().collect();
    assert_eq!(times, seen.len(), "once");
    assert_eq!(seen, all);
    engine.validate().expect("all in agreement");
}

#[test]
fn a_cursor_is_good_in_one_life_of_one_account() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let [a, b] = ["a", "b"].map(|name| Tenant::open(&engine, name, Quota::UNLIMITED));
    filled(&a, 100);
    filled(&b, 100);
    let one = ScanBudget {
        bytes: 1,
        entries: 1,
    };
    let scan = |tenant: &Tenant<'_>, from| {
        block_on(engine.scan(&tenant.account, at(0), everything(), from, one, |_| {}))
    };
    let of_a = scan(&a, cursor())
        .expect("it begins")
        .expect("there is more");
    assert!(scan(&a, of_a).is_ok());
    assert_eq!(scan(&b, of_a), Err(StoreError::CursorExpired));
    let made_up = Cursor([of_a.0[0], u64::MAX]);
    assert_eq!(scan(&a, made_up), Err(StoreError::CursorExpired));
    let too_far = Cursor([of_a.0[0], u64::from(u32::MAX)]);
    assert!(scan(&a, too_far).is_ok());
}

#[test]
fn deleting_by_prefix_leaves_all_else() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", Quota::UNLIMITED);
    let all = filled(&tenant, 5_000);
    let elsewhere = Set {
        at: entry_key("elsewhere", b"01/1"),
        value: b"v",
        flags: 0,
        expiry: larder_model::ExpiryChange::Keep,
        condition: Condition::Always,
    };
    block_on(engine.set(&tenant.account, at(0), elsewhere)).expect("there is room");
    let selection = Selection {
        prefix: b"0",
        ..everything()
    };
    let dry = engine.delete_prefix(&tenant.account, at(0).dry(), selection);
    assert_eq!(block_on(dry), Ok(1_000));
    let deleted = engine.delete_prefix(&tenant.account, at(0), selection);
    assert_eq!(block_on(deleted), Ok(1_000));
    assert_eq!(tenant.usage(0).keys, all.len() as u64 - 1_000 + 1);
    engine.validate().expect("all in agreement");
}
