//! The suite, and the seeded driver.

use std::env;

use larder_engine::Keyspace;
use larder_model::AtLimit;
use larder_model::suite::{Drive, Driven, check_cases, drive};

use crate::{MEMORY, engine};

#[test]
fn does_as_every_case_says() {
    check_cases(|| engine(MEMORY, Keyspace::PerAccount));
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
