//! What a driver may do to an account, chosen at random.

use super::random::Random;
use crate::quota::{AtLimit, Quota};
use crate::store::{Condition, ExpiryChange};
use crate::time::{Expiry, Time};
use crate::{ReadEffect, Version};

/// An operation on one key or one prefix.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Get(ReadEffect),
    Touch(Expiry),
    Set {
        value: Vec<u8>,
        flags: u32,
        expiry: ExpiryChange,
        condition: Condition,
    },
    Delete(Condition),
    Increment {
        delta: i64,
        initial: i64,
        expiry: Expiry,
        upper: Option<i64>,
        lower: Option<i64>,
    },
    List {
        after: bool,
        limit: usize,
    },
    Scan {
        bytes: usize,
        entries: usize,
    },
    DeletePrefix,
    Requota(Quota),
    /// The account in its next life.
    Reopen,
    Close,
}

/// A place: one of few, so that operations meet.
pub(super) fn place(random: &mut Random, keys: u64) -> (&'static str, Vec<u8>) {
    let namespace = random.pick(&[
        "",
        "",
        "",
        "default",
        "other",
        "a.longer-name_of.a-namespace",
    ]);
    let number = random.below(keys);
    let key = match number % 5 {
        0 => format!("user/{number}").into_bytes(),
        1 => vec![0xff, 0, number.to_le_bytes()[0]],
        2 => format!("a-key-of-more-than-128-bytes/{number:0110}").into_bytes(),
        3 => format!("u{number}").into_bytes(),
        _ => number.to_string().into_bytes(),
    };
    (namespace, key)
}

/// What a list, scan or deletion selects by.
pub(super) fn prefix(random: &mut Random, key: &[u8]) -> Vec<u8> {
    let len = random.pick(&[0, 1, 1, 2, 5, key.len()]);
    key[..len.min(key.len())].to_vec()
}

fn expiry(random: &mut Random, now: Time) -> Expiry {
    let now_ms = now.as_millis();
    let ttl_ms = match random.below(12) {
        0..=3 => return Expiry::Never,
        // Has passed, or passes now.
        4 => return Expiry::At(Time::from_millis(now_ms.saturating_sub(random.below(3)))),
        5..=7 => 1 + random.below(8),
        8 => 1 + random.below(70),
        9 => random.pick(&[63, 64, 65, 4095, 4096, 4097]),
        10 => 1 + random.below(100_000),
        _ => 1 + random.below(10 * 365 * 24 * 3600 * 1000),
    };
    Expiry::At(Time::from_millis(now_ms + ttl_ms))
}

fn condition(random: &mut Random, known: Option<Version>) -> Condition {
    match random.below(8) {
        0 => Condition::IfAbsent,
        1 => Condition::IfPresent,
        2 => Condition::IfVersion(known.unwrap_or(Version::new(u64::MAX))),
        3 => Condition::IfVersion(Version::new(1 + random.below(64))),
        _ => Condition::Always,
    }
}

fn value(random: &mut Random) -> Vec<u8> {
    let number = random.number();
    match random.below(16) {
        0 => Vec::new(),
        1..=4 => (number.cast_signed() >> random.below(64))
            .to_string()
            .into_bytes(),
        5 => random
            .pick(&[i64::MAX, i64::MIN, 0])
            .to_string()
            .into_bytes(),
        // Just over and under where a store may begin to keep values apart.
        6 => vec![number.to_le_bytes()[0]; random.pick(&[16_383, 16_384, 16_385, 20_000])],
        _ => vec![number.to_le_bytes()[0]; random.pick(&[1, 7, 8, 15, 40, 90])],
    }
}

fn bound(random: &mut Random) -> Option<i64> {
    random
        .once_in(3)
        .then(|| random.below(200).cast_signed() - 100)
}

/// A quota that is met now and then; never so small that nothing ever fits.
pub(super) fn quota(random: &mut Random, at_limit: AtLimit) -> Quota {
    Quota {
        max_keys: random.pick(&[1, 5, 20, 20, 40, 1000]),
        max_bytes: random.pick(&[100, 2_000, 4_000, 20_000, 60_000, 1 << 30]),
        at_limit,
    }
}

/// The next operation, on a key whose version, if it was ever written, is
/// `known`.
pub(super) fn operation(
    random: &mut Random,
    now: Time,
    known: Option<Version>,
    at_limit: AtLimit,
) -> Operation {
    match random.below(1000) {
        0..=249 => Operation::Get(random.pick(&[ReadEffect::Use, ReadEffect::Peek])),
        250..=299 => Operation::Touch(expiry(random, now)),
        300..=649 => Operation::Set {
            value: value(random),
            flags: random.pick(&[0, 0, 1, u32::MAX]),
            expiry: if random.once_in(5) {
                ExpiryChange::Keep
            } else {
                ExpiryChange::To(expiry(random, now))
            },
            condition: condition(random, known),
        },
        650..=789 => Operation::Delete(condition(random, known)),
        790..=919 => Operation::Increment {
            delta: random.pick(&[1, -1, 0, 7, -50, i64::MAX, i64::MIN]),
            initial: random.pick(&[0, 0, 99, -100, i64::MAX]),
            expiry: expiry(random, now),
            upper: bound(random),
            lower: bound(random),
        },
        920..=944 => Operation::List {
            after: random.once_in(2),
            limit: random.pick(&[0, 1, 2, 10, 1000, usize::MAX]),
        },
        945..=969 => Operation::Scan {
            bytes: random.pick(&[0, 1, 200, 1 << 20]),
            entries: random.pick(&[0, 1, 3, 1000]),
        },
        970..=979 => Operation::DeletePrefix,
        980..=997 => Operation::Requota(quota(random, at_limit)),
        998 => Operation::Reopen,
        _ => Operation::Close,
    }
}
