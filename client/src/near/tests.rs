//! What a near cache gives out, step by step.

mod handle;
mod model;
mod simulated;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::config::NearConfig;
use super::core::{Boarded, Core, Nanos, Settled, Ticket};
use super::stats::NearStats;
use crate::types::Entry;

use Step::{
    Answer, AnswerFor, Asks, At, Changed, Doubtful, Gives, GivesUp, InTouch, LostTrack, Miss,
    Misses, NewSource, Prefix, Waits, Written,
};

/// What happens, with the names of keys and the versions of entries.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// It is so late.
    At(Nanos),
    /// A get asks the server.
    Asks(&'static str),
    /// A get waits for one that asks.
    Waits(&'static str),
    /// A get is given this version from here.
    Gives(&'static str, u64),
    /// A get is given a miss from here.
    Misses(&'static str),
    /// The server answers the get that asked first.
    Answer(&'static str, u64),
    /// The same, with a TTL.
    AnswerFor(&'static str, u64, Nanos),
    /// The server has no such entry.
    Miss(&'static str),
    /// The get that asked first is dropped.
    GivesUp(&'static str),
    /// A write has ended, or a source tells of one.
    Changed(&'static str),
    /// A write has ended, and may be carried out until then.
    Doubtful(&'static str, Nanos),
    Prefix(&'static str),
    Written(&'static str, u64),
    NewSource,
    LostTrack,
    InTouch(Nanos),
}

/// Bounds of 1000 for entries and 100 for misses, and a skew of 10.
fn check(name: &str, steps: &[Step]) -> NearStats {
    let nanos = Duration::from_nanos;
    let config = NearConfig::new(nanos(1000), 1 << 20)
        .with_misses(nanos(100))
        .with_clock_skew(nanos(10));
    let core = Arc::new(Core::new(&config, "default".into()));
    let mut asked: HashMap<&str, Vec<Ticket>> = HashMap::new();
    let (mut now, mut source) = (0, 0);
    let wall = SystemTime::UNIX_EPOCH;
    for (number, step) in steps.iter().enumerate() {
        let place = format!("{name}: step {number}, {step:?}");
        let mut land = |key, found| {
            asked
                .get_mut(key)
                .unwrap()
                .remove(0)
                .land(&found, now, wall);
        };
        let entry = |key: &'static str, version| Entry {
            key: key.into(),
            version,
            ..Entry::default()
        };
        match *step {
            At(time) => now = time,
            Asks(key) | Waits(key) => {
                assert_eq!(core.look(key.as_bytes(), now), None, "{place}");
                match core.board(Bytes::from(key), now) {
                    Boarded::Leads(ticket) => {
                        assert!(matches!(step, Asks(_)), "{place}");
                        asked.entry(key).or_default().push(ticket);
                    }
                    Boarded::Follows(_) => assert!(matches!(step, Waits(_)), "{place}"),
                }
            }
            Gives(key, version) => {
                let found = core.look(key.as_bytes(), now).expect(&place);
                assert_eq!(found.unwrap().version, version, "{place}");
            }
            Misses(key) => assert_eq!(core.look(key.as_bytes(), now), Some(None), "{place}"),
            Answer(key, version) => land(key, Some(entry(key, version))),
            AnswerFor(key, version, ttl) => {
                let entry = entry(key, version).with_expire_time(Some(wall + nanos(ttl)));
                land(key, Some(entry));
            }
            Miss(key) => land(key, None),
            GivesUp(key) => drop(asked.get_mut(key).unwrap().remove(0)),
            Changed(key) => core.forget(key.as_bytes(), Settled::Yes, now),
            Doubtful(key, until) => {
                core.forget(key.as_bytes(), Settled::NotBefore(until), now);
            }
            Prefix(prefix) => core.forget_prefix(prefix.as_bytes(), Settled::Yes),
            Written(key, version) => core.forget_below(key.as_bytes(), version),
            NewSource => source = core.new_source(),
            LostTrack => core.lost_track(source),
            InTouch(until) => core.in_touch(source, until, now),
        }
    }
    core.stats()
}

#[test]
fn age_counts_from_the_request() {
    check(
        "an entry",
        &[
            Asks("k"),
            At(400),
            Answer("k", 1),
            At(999),
            Gives("k", 1),
            At(1000),
            Asks("k"),
        ],
    );
    check(
        "a miss",
        &[
            Asks("k"),
            At(40),
            Miss("k"),
            At(99),
            Misses("k"),
            At(100),
            Asks("k"),
        ],
    );
    check(
        "a get that is older than the bound is not waited for, nor is its answer kept",
        &[
            Asks("k"),
            At(999),
            Waits("k"),
            At(1000),
            Asks("k"),
            Waits("k"),
            Answer("k", 1),
            Waits("k"),
            Answer("k", 2),
            Gives("k", 2),
        ],
    );
}

#[test]
fn an_entry_ends_with_its_ttl() {
    check(
        "less the skew",
        &[
            Asks("k"),
            At(100),
            AnswerFor("k", 1, 300),
            At(389),
            Gives("k", 1),
            At(390),
            Asks("k"),
        ],
    );
    check(
        "one that is shorter than the skew",
        &[Asks("k"), AnswerFor("k", 1, 9), Asks("k")],
    );
    check(
        "also while a source is in touch",
        &[
            NewSource,
            InTouch(0),
            Asks("k"),
            AnswerFor("k", 1, 2000),
            At(1989),
            InTouch(1989),
            Gives("k", 1),
            At(1990),
            Asks("k"),
        ],
    );
}

#[test]
fn a_write_is_not_hidden_by_what_was_read_before_it() {
    for write in [
        Changed("k1"),
        Doubtful("k1", 0),
        Written("k1", 2),
        Prefix("k"),
        Prefix(""),
        LostTrack,
    ] {
        check(
            "kept before",
            &[Asks("k1"), Answer("k1", 1), write, Asks("k1")],
        );
        check(
            "kept before as a miss",
            &[Asks("k1"), Miss("k1"), write, Asks("k1")],
        );
        check(
            "under way, alone",
            &[Asks("k1"), write, Answer("k1", 1), Asks("k1")],
        );
        let stats = check(
            "under way, and another one after it",
            &[
                Asks("k1"),
                write,
                Asks("k1"),
                Waits("k1"),
                Answer("k1", 1),
                Waits("k1"),
                Answer("k1", 2),
                Gives("k1", 2),
            ],
        );
        assert_eq!(stats.overtaken, 1, "{write:?}");
    }
    let stats = check(
        "of another key",
        &[
            Asks("a"),
            Answer("a", 1),
            Asks("b"),
            Changed("k"),
            Prefix("k"),
            Doubtful("k", 100),
            Answer("b", 1),
            Gives("a", 1),
            Gives("b", 1),
        ],
    );
    assert_eq!((stats.invalidated, stats.overtaken), (0, 0));
}

#[test]
fn what_a_source_knows_by_its_version_stays() {
    check(
        "as new, or newer",
        &[
            Asks("k"),
            Answer("k", 7),
            Written("k", 6),
            Written("k", 7),
            Gives("k", 7),
            Written("k", 8),
            Asks("k"),
        ],
    );
}

#[test]
fn a_write_that_may_yet_be_carried_out_keeps_its_key_away() {
    check(
        "until it cannot",
        &[
            Doubtful("k", 50),
            Asks("k"),
            Answer("k", 1),
            At(49),
            Asks("k"),
            Waits("k"),
            Answer("k", 1),
            At(50),
            Asks("k"),
            Answer("k", 1),
            Gives("k", 1),
        ],
    );
}

#[test]
fn a_get_that_is_given_up_leaves_its_place() {
    check(
        "to another",
        &[
            Asks("k"),
            Waits("k"),
            GivesUp("k"),
            Asks("k"),
            Answer("k", 1),
            Gives("k", 1),
        ],
    );
    check(
        "and not that of another",
        &[Asks("k"), Changed("k"), Asks("k"), GivesUp("k"), Waits("k")],
    );
}

#[test]
fn a_source_in_touch_stands_for_age() {
    let kept = |key| [Asks(key), Answer(key, 1)];
    let touch = [NewSource, InTouch(0)];
    let after = |first: &[Step], rest: &[Step]| [first, &touch, &kept("k"), rest].concat();
    for (name, steps) in [
        (
            "as long as it is",
            after(
                &[],
                &[
                    At(900),
                    InTouch(900),
                    At(1899),
                    Gives("k", 1),
                    At(1900),
                    Asks("k"),
                ],
            ),
        ),
        (
            "up to when it says, which is not in the future",
            after(
                &[],
                &[
                    At(900),
                    InTouch(5000),
                    InTouch(10),
                    At(1899),
                    Gives("k", 1),
                    At(1900),
                    Asks("k"),
                ],
            ),
        ),
        (
            "for what was asked for since it is",
            after(
                &kept("old"),
                &[At(900), InTouch(900), At(1000), Gives("k", 1), Asks("old")],
            ),
        ),
        (
            "and not for what was under way before",
            after(
                &[Asks("old")],
                &[
                    Answer("old", 1),
                    At(900),
                    InTouch(900),
                    At(1000),
                    Asks("old"),
                ],
            ),
        ),
        (
            "not across a loss",
            after(
                &[],
                &[
                    LostTrack,
                    Asks("k"),
                    Answer("k", 1),
                    At(900),
                    InTouch(900),
                    At(1000),
                    Asks("k"),
                ],
            ),
        ),
        (
            "nor from one source to the next",
            after(
                &[],
                &[NewSource, At(900), InTouch(900), At(1000), Asks("k")],
            ),
        ),
        (
            "nor for a newer answer that is not kept",
            after(
                &[],
                &[
                    At(1000),
                    Asks("k"),
                    AnswerFor("k", 2, 5),
                    InTouch(500),
                    Asks("k"),
                ],
            ),
        ),
    ] {
        check(name, &steps);
    }
}
