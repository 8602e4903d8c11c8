//! The suite, and the seeded driver.

use std::env;

use larder_engine::Keyspace;
use larder_model::suite::{Drive, Driven, check_cases, drive, drive_once};
use larder_model::{AtLimit, ReplayLimits};

use crate::{MEMORY, engine};

#[test]
fn does_as_every_case_says() {
    check_cases(|| engine(MEMORY, Keyspace::PerAccount));
}

#[test]
fn remembers_requests_as_a_list_of_all_that_happened() {
    let check = |max_per_account: usize, keyspace: Keyspace| {
        for seed in 0..8 {
            let store = engine(MEMORY, keyspace).remembering(ReplayLimits {
                max_per_account,
                ..ReplayLimits::default()
            });
            let driven = drive_once(&store, seed, 20_000).expect("as the list does");
            assert!(driven.fresh > 2_000, "{driven:?}");
            assert!(driven.replayed > 100, "{driven:?}");
            assert!(driven.refused > 200, "{driven:?}");
            assert_eq!(
                driven.forgotten_early > 0,
                max_per_account < 100,
                "{driven:?}"
            );
            store.validate().expect("all in agreement");
        }
    };
    check(8, Keyspace::PerAccount);
    check(1, Keyspace::PerAccount);
    check(1_000, Keyspace::PerAccount);
    check(8, Keyspace::Shared);
}

/// Operations in all; the same on every run, unless the environment asks for
/// more.
fn operations() -> u64 {
    let asked = env::var("LARDER_MODEL_OPS").ok();
    asked.map_or(1_000_000, |text| {
        text.parse().expect("LARDER_MODEL_OPS is a number")
    })
}

/// Drives engines with eight seeds, and validates each in the end.
fn drive_seeds(at_limit: AtLimit, operations: u64) -> Driven {
    let mut sum = Driven::default();
    for (seed, keys) in (0..).zip([8, 30, 30, 100, 8, 30, 30, 100]) {
        let store = engine(MEMORY, Keyspace::PerAccount);
        let driven = drive(
            &store,
            Drive {
                seed,
                operations: operations / 8,
                keys,
                at_limit,
            },
        );
        let driven = driven.expect("the store does as the model does");
        store.validate().expect("all in agreement");
        sum.operations += driven.operations;
        sum.dry_runs += driven.dry_runs;
        sum.refused += driven.refused;
        sum.expired += driven.expired;
        sum.evicted += driven.evicted;
    }
    sum
}

#[test]
fn does_as_the_model_does() {
    let driven = drive_seeds(AtLimit::Refuse, operations());
    // The driver must have been where it hurts.
    assert!(driven.refused > driven.operations / 100, "{driven:?}");
    assert!(driven.expired > driven.operations / 100, "{driven:?}");
}

#[test]
fn does_as_the_model_does_while_it_evicts() {
    let driven = drive_seeds(AtLimit::Evict, operations() / 8);
    assert!(driven.evicted > driven.operations / 100, "{driven:?}");
}
