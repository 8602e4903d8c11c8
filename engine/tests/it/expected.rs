//! A store that is told what comes does just what one does that is not.

use larder_model::suite::Random;
use larder_model::{EntryKey, MAX_EXPECTED};

use super::*;

/// Two engines do the same; one of them is told beforehand of keys that come, of others, and of
/// none that there are. The account grows above what is fetched ahead for, and empties again.
fn check(seed: u64, keyspace: Keyspace) {
    let mut random = Random::new(seed);
    let engines = [engine(MEMORY, keyspace), engine(MEMORY, keyspace)];
    let quota = quota(2_500, 1 << 30, AtLimit::Evict);
    let tenants = engines.each_ref().map(|it| Tenant::open(it, "a", quota));
    let key = |number: u64| number.to_be_bytes();
    let mut largest = 0;
    for step in 0..12_000 {
        let grows = step < 8_000;
        let number = random.below(4_000);
        let others = random.below(20);
        let coming: Vec<_> = (number..number + others).map(key).collect();
        let coming: Vec<EntryKey<'_>> = coming.iter().map(|key| entry_key("", key)).collect();
        engines[0].expect(&tenants[0].account, coming.into_iter());
        let value = vec![7; usize::try_from(random.below(3_000)).expect("it is small")];
        let deed = random.below(4);
        let [told, untold] = tenants.each_ref().map(|tenant| match deed {
            0 => format!("{:?}", tenant.get(step, &key(number))),
            1 if !grows => format!("{:?}", tenant.delete(step, &key(number))),
            2 if !grows => format!("{:?}", tenant.delete(step, &key(number / 2))),
            _ if grows => {
                let end = (deed == 3).then_some(step + 900);
                format!("{:?}", tenant.set(step, &key(number), &value, end))
            }
            _ => format!("{:?}", tenant.usage(step)),
        });
        assert_eq!(told, untold, "seed {seed}, step {step}");
        if step % 1_000 == 999 {
            assert_eq!(tenants[0].usage(step), tenants[1].usage(step));
            let bytes = tenants[0].recount(step).1;
            assert_eq!(tenants[1].recount(step).1, bytes);
            largest = bytes.max(largest);
            assert_eq!(engines[0].validate(), Ok(()));
        }
    }
    assert!(
        largest > 2 << 20,
        "{largest} bytes: nothing was fetched ahead"
    );
}

#[test]
fn what_is_expected_changes_nothing() {
    for seed in 0..3 {
        check(seed, Keyspace::PerAccount);
        check(seed, Keyspace::Shared);
    }
}

#[test]
fn no_more_is_looked_at_than_can_be_fetched_at_once_and_nothing_of_a_small_account() {
    let engine = engine(MEMORY, Keyspace::PerAccount);
    let tenant = Tenant::open(&engine, "a", quota(10_000, 1 << 30, AtLimit::Refuse));
    let looked_at = || {
        let mut count = 0;
        let keys = std::iter::repeat_with(|| {
            count += 1;
            entry_key("", b"k")
        });
        engine.expect(&tenant.account, keys.take(100));
        count
    };
    tenant.set(1, b"k", b"v", None).unwrap();
    assert_eq!(looked_at(), 0);
    for number in 0..300_u64 {
        tenant
            .set(1, &number.to_be_bytes(), &[7; 10_000], None)
            .unwrap();
    }
    assert_eq!(looked_at(), MAX_EXPECTED);
}
