//! Requests with an id: a repeat after a restart is a repeat.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use larder_engine::Account;
use larder_model::{
    Fingerprint, Increment, Once, OnceError, Outcome, Remembered, Request, RequestId, Write,
};

use super::super::requests::{Offset, Recorded};
use super::*;

/// A future of a store in memory, which is ready at once.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it is not ready at once"),
    }
}

fn request(id: &str, fingerprint: u8) -> Request<'_> {
    Request {
        id: RequestId::parse(id).expect("an id"),
        fingerprint: Fingerprint([fingerprint; 16]),
        item: 0,
    }
}

fn add(engine: &Engine, account: &Account, now: Time, id: &str) -> Once {
    let increment = Write::Increment(Increment {
        at: EntryKey {
            namespace: Namespace::parse("").expect("a namespace"),
            key: Key::parse(b"n", &Limits::default()).expect("a key"),
        },
        delta: 1,
        initial: 0,
        initial_expiry: Expiry::Never,
        upper_bound: None,
        lower_bound: None,
    });
    let once = engine.once(account, Call::at(now), request(id, 1), increment);
    block_on(once).expect("counted")
}

/// An outcome in the account `team-a`.
pub(super) fn record(engine: &Engine, id: &str) {
    let account = engine.open(&super::id("team-a", "1"), Quota::UNLIMITED);
    assert!(!add(engine, &account, Time::ZERO, id).replayed);
}

fn value(once: Once) -> i64 {
    once.outcome.increment().expect("an increment").value
}

#[test]
fn a_repeat_after_a_restart_is_answered_as_the_first_time() {
    let home = Home::new();
    let old = engine(1 << 50);
    let name = id("a", "1");
    let account = old.open(&name, Quota::UNLIMITED);
    let now = home.clock.now();
    for number in 0..300 {
        let _ = add(&old, &account, now, &format!("i{number}"));
    }
    let snapshots = home.open(true);
    home.load(&snapshots, &old);
    assert_eq!(home.save(&snapshots, &old).requests, 300);
    snapshots.directory.mark_ended().expect("it was marked");
    drop(snapshots);

    let snapshots = home.open(true);
    let new = engine(snapshots.end_version());
    let loaded = home.load(&snapshots, &new).expect("it is whole");
    assert_eq!((loaded.entries, loaded.requests), (1, 300));
    let account = new.open(&name, Quota::UNLIMITED);
    let now = home.clock.now();
    let again = add(&new, &account, now, "i7");
    assert_eq!((value(again), again.replayed), (8, true));
    let reused = new.recall(&account, Call::at(now), request("i7", 2));
    assert_eq!(block_on(reused), Err(OnceError::Reused));
    let fresh = add(&new, &account, now, "new");
    assert_eq!((value(fresh), fresh.replayed), (301, false));
    // What came back is saved again.
    assert_eq!(home.save(&snapshots, &new).requests, 301);
}

#[test]
fn after_a_crash_a_request_of_the_snapshot_is_a_repeat_and_a_later_one_is_carried_out_again() {
    let home = Home::new();
    let old = engine(1 << 50);
    let name = id("a", "1");
    let account = old.open(&name, Quota::UNLIMITED);
    let snapshots = home.open(true);
    home.load(&snapshots, &old);
    let _ = add(&old, &account, home.clock.now(), "before");
    home.save(&snapshots, &old);
    let _ = add(&old, &account, home.clock.now(), "after");
    drop(snapshots);

    let snapshots = home.open(true);
    let new = engine(snapshots.end_version());
    home.load(&snapshots, &new).expect("it is whole");
    let account = new.open(&name, Quota::UNLIMITED);
    let check = |id: &str, expected: (i64, bool)| {
        let once = add(&new, &account, home.clock.now(), id);
        assert_eq!((value(once), once.replayed), expected, "{id}");
    };
    check("before", (1, true));
    // Its effect was lost with the crash.
    check("after", (2, false));
}

#[test]
fn the_requests_of_an_account_that_was_made_anew_stay_out() {
    let old = engine(1 << 50);
    let clock = Clock::start();
    for name in ["kept", "gone"] {
        let account = old.open(&id(name, "1"), Quota::UNLIMITED);
        let _ = add(&old, &account, clock.now(), "i");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, bytes(&old, 1)).expect("the disk has room");
    verify(&path, &GOES_ON).expect("it is whole");
    let new = engine(old.end_version());
    let quota = |id: &AccountId, had: Quota| (id.name.as_str() == "kept").then_some(had);
    let target = Target {
        quota: &quota,
        ..target(&new, &clock)
    };
    let loaded = fill(&path, &target, &GOES_ON).expect("it is whole");
    assert_eq!((loaded.requests, loaded.no_account), (1, 1));
    let anew = new.open(&id("gone", "2"), Quota::UNLIMITED);
    assert!(!add(&new, &anew, clock.now(), "i").replayed);
}

/// A snapshot with one request, which is forgotten at a time by the wall clock.
fn with_request(until_unix_ms: u64) -> Vec<u8> {
    let header = Header {
        format: format::FORMAT,
        number: 1,
        begun_unix_ms: 0,
        end_version: 5,
    };
    let mut writer = format::Writer::begin(Vec::new(), &header).expect("memory");
    let (mut accounts, mut requests) = (Vec::new(), Vec::new());
    format::push_account(&mut accounts, &id("a", "1"), Quota::UNLIMITED).expect("it is short");
    let recorded = Recorded {
        account: 0,
        remembered: Remembered {
            request: request("i", 1),
            until: Time::from_millis(until_unix_ms),
            outcome: Outcome::Delete(larder_model::Deleted::Applied),
        },
    };
    recorded
        .push(&mut requests, Offset { unix_ms: 0 })
        .expect("it is short");
    let accounts = writer.block(format::Kind::Accounts, &accounts, 1);
    accounts.expect("memory");
    let requests = writer.block(format::Kind::Requests, &requests, 1);
    requests.expect("memory");
    writer.end().expect("memory").0
}

#[test]
fn a_request_is_known_until_its_time_by_the_wall_clock_and_never_longer_than_the_window() {
    let clock = Clock::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let now_unix_ms = u64::try_from(clock.unix_millis_of(clock.now())).expect("after 1970");
    // How long it is still known, at the most and at the least.
    let check = |until_unix_ms: u64, expected: Option<(u64, u64)>| {
        std::fs::write(&path, with_request(until_unix_ms)).expect("the disk has room");
        verify(&path, &GOES_ON).expect("it is whole");
        let new = engine(1 << 50);
        let loaded = fill(&path, &target(&new, &clock), &GOES_ON).expect("it is whole");
        assert_eq!(loaded.requests, u64::from(expected.is_some()));
        let account = new.open(&id("a", "1"), Quota::UNLIMITED);
        let knows = |after_ms: u64| {
            let at = Time::from_millis(clock.now().as_millis() + after_ms);
            let known = new.recall(&account, Call::at(at), request("i", 1));
            block_on(known).expect("the same request").is_some()
        };
        let (least, most) = expected.unwrap_or((0, 0));
        assert!(!knows(most), "{until_unix_ms}: still known after {most} ms");
        assert!(
            least == 0 || knows(least),
            "{until_unix_ms}: not known after {least} ms"
        );
    };
    check(1, None);
    check(now_unix_ms - 1, None);
    check(now_unix_ms + 60_000, Some((30_000, 60_010)));
    // The clock was set back by a day between the two servers, or to 1970.
    check(now_unix_ms + 86_400_000, Some((500_000, 600_010)));
    check(u64::MAX, Some((500_000, 600_010)));
}

/// Written by larder 0.1, before requests were saved: two entries of `default`.
const FORMAT_1: &[u8] = include_bytes!("../testdata/format-1.snapshot");

#[test]
fn a_snapshot_of_the_first_format_is_still_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, FORMAT_1).expect("the disk has room");
    assert_eq!(verify(&path, &GOES_ON).expect("it is whole").format, 1);
    let new = engine(1 << 60);
    let clock = Clock::start();
    let loaded = fill(&path, &target(&new, &clock), &GOES_ON).expect("it is whole");
    assert_eq!((loaded.entries, loaded.requests), (2, 0));
    let values: Vec<_> = content(&new)
        .into_iter()
        .map(|((account, space, key), (value, ..))| (account, space, key, value))
        .collect();
    let expected = |key: &str, value: &str| {
        let (account, space) = ("default".to_owned(), "default".to_owned());
        (account, space, key.into(), value.into())
    };
    assert_eq!(values, [expected("greeting", "hello"), expected("n", "1")]);
}

#[test]
fn a_format_of_the_future_is_refused_and_says_so() {
    let mut header = Header {
        format: format::FORMAT + 1,
        number: 1,
        begun_unix_ms: 0,
        end_version: 5,
    };
    let check = |header: &Header, known: bool| {
        let read = Header::parse(&header.encode());
        assert_eq!(read.is_ok(), known, "{header:?}");
        if let Err(damage) = read {
            assert!(damage.to_string().contains("does not know"), "{damage}");
        }
    };
    check(&header, false);
    for (number, known) in [(0, false), (1, true), (2, true)] {
        header.format = number;
        check(&header, known);
    }
}
