//! The seeded driver: the same operations on a store and on the model.

use super::entry_key;
use super::naive::place;
use super::operation;
use super::random::Random;
use super::side::Side;
use crate::quota::AtLimit;
use crate::store::{Call, Store};
use crate::time::Time;

/// What to drive a store with.
#[derive(Debug, Clone, Copy)]
pub struct Drive {
    /// Seed of the sequence.
    pub seed: u64,
    /// How many operations.
    pub operations: u64,
    /// Different keys in each namespace.
    pub keys: u64,
    /// Policy of the accounts. With [`AtLimit::Evict`] the model cannot say
    /// what goes, so it is told by a dry read before each operation whether
    /// the key is still there; all else is compared as strictly.
    pub at_limit: AtLimit,
}

/// What was driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Driven {
    /// Operations, each with all its comparisons.
    pub operations: u64,
    /// Of them, dry runs.
    pub dry_runs: u64,
    /// Writes that were refused for want of room.
    pub refused: u64,
    /// Entries that expired.
    pub expired: u64,
    /// Entries that were evicted.
    pub evicted: u64,
}

/// Where a store did something else than the model.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}, step {step}, {operation}: {what}: store {store}, model {model}")]
pub struct Difference {
    /// Seed of the sequence.
    pub seed: u64,
    /// The operation's number.
    pub step: u64,
    /// The operation.
    pub operation: String,
    /// What differs.
    pub what: &'static str,
    /// What the store said.
    pub store: String,
    /// What the model says.
    pub model: String,
}

/// Does `drive.operations` operations on three accounts of `store`, and on the
/// model, and compares.
///
/// # Errors
/// The first difference.
pub fn drive<S: Store>(store: &S, drive: Drive) -> Result<Driven, Box<Difference>> {
    let mut random = Random::new(drive.seed);
    let mut now = Time::from_millis(random.below(1 << 42));
    let mut sides: Vec<_> = ["first", "second", "third"]
        .into_iter()
        .map(|name| Side::new(store, name, &mut random, drive.at_limit))
        .collect();
    let mut driven = Driven::default();
    for step in 0..drive.operations {
        now = later(&mut random, now);
        let number = usize::try_from(random.below(3)).unwrap_or_default();
        let side = &mut sides[number];
        let (namespace, key) = operation::place(&mut random, drive.keys);
        let at = entry_key(namespace, &key);
        let known = side.versions.get(&place(at)).copied();
        let operation = operation::operation(&mut random, now, known, drive.at_limit);
        let mut call = Call::at(now);
        if random.once_in(8) {
            call = call.dry();
            driven.dry_runs += 1;
        }
        let prefix = operation::prefix(&mut random, &key);
        let compared = side
            .learn(call, at)
            .and_then(|()| side.operate(call, at, &prefix, &operation, &mut driven))
            .and_then(|()| side.compare_counters(now, step));
        compared.map_err(|(what, store, model)| {
            Box::new(Difference {
                seed: drive.seed,
                step,
                operation: format!("{operation:.300?} of {at:?} at {call:?}"),
                what,
                store,
                model,
            })
        })?;
        driven.operations += 1;
    }
    for side in &mut sides {
        side.retire();
        driven.expired += side.past_expired;
        driven.evicted += side.past_evicted;
    }
    Ok(driven)
}

/// Mostly the same millisecond or a few on; now and then far away.
fn later(random: &mut Random, now: Time) -> Time {
    let ms = match random.below(1000) {
        0..=599 => 0,
        600..=989 => random.below(6),
        990..=996 => random.below(5_000),
        997..=998 => random.below(10_000_000),
        _ => random.below(365 * 24 * 3600 * 1000),
    };
    Time::from_millis(now.as_millis() + ms)
}
