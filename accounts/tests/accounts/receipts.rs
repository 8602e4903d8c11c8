//! What changes with a request id leave behind.

use larder_accounts::limits::MAX_RECEIPT_BYTES;
use larder_accounts::{AccountSettings, Accounts, Effect, Made, Receipt, UnixMillis};
use larder_model::{AccountName, Mode};

use crate::fixture::{Fixture, NOW};

const WINDOW_MS: u64 = 600_000;

fn at(after_ms: u64) -> UnixMillis {
    UnixMillis::new(NOW.get() + after_ms)
}

/// Makes an account with a receipt, whose answer names it.
fn create(accounts: &Accounts, name: &str, id: &str, after_ms: u64, mode: Mode) {
    let receipt = |made: Made<'_>| {
        let Made::Account(account) = made else {
            unreachable!("{made:?}");
        };
        Receipt {
            id: id.to_owned(),
            fingerprint: [7; 16],
            made_at: at(after_ms),
            until: at(after_ms + WINDOW_MS),
            answer: account.name.as_str().into(),
        }
    };
    let effect = Effect {
        mode,
        receipt: Some(&receipt),
    };
    let name = AccountName::parse(name).expect("a name");
    let made = accounts.create_account(name, AccountSettings::default(), effect);
    made.expect("there is room");
}

/// Ids and answers that the next process is told of.
fn told(fixture: &Fixture) -> Vec<(String, String)> {
    let accounts = fixture.open();
    let told = accounts.take_receipts().into_iter();
    let told = told.map(|it| (it.id, String::from_utf8(it.answer).expect("a name")));
    let told = told.collect();
    assert_eq!(accounts.take_receipts(), [], "once");
    told
}

fn pair(id: &str, name: &str) -> (String, String) {
    (id.to_owned(), name.to_owned())
}

#[test]
fn the_next_process_is_told_of_changes_in_their_order() {
    let fixture = Fixture::new(1);
    let accounts = fixture.open();
    create(&accounts, "a", "first", 0, Mode::Apply);
    create(&accounts, "b", "second", 10, Mode::Apply);
    create(&accounts, "c", "dry", 10, Mode::DryRun);
    let image = fixture.crash_image();
    drop(accounts);
    let expected = [pair("first", "a"), pair("second", "b")];
    assert_eq!(told(&fixture), expected);
    // And the one after it, also if this one ends without a word.
    assert_eq!(told(&fixture), expected);
    let crashed = fixture.open_at(&image).expect("the image is good");
    let [first, _] = &crashed.take_receipts()[..] else {
        panic!("not two");
    };
    let times = (first.made_at, first.until);
    assert_eq!(times, (at(0), at(WINDOW_MS)));
    assert_eq!(first.fingerprint, [7; 16]);
}

#[test]
fn what_is_over_goes_with_the_next_change_and_an_id_may_be_used_again() {
    let fixture = Fixture::new(2);
    let accounts = fixture.open();
    create(&accounts, "a", "over", 0, Mode::Apply);
    create(&accounts, "b", "again", 1, Mode::Apply);
    create(&accounts, "c", "later", WINDOW_MS, Mode::Apply);
    create(&accounts, "d", "again", WINDOW_MS + 1, Mode::Apply);
    drop(accounts);
    assert_eq!(told(&fixture), [pair("later", "c"), pair("again", "d")]);
    let accounts = fixture.open();
    create(&accounts, "e", "last", WINDOW_MS + 5, Mode::Apply);
    drop(accounts);
    let expected = [pair("later", "c"), pair("again", "d"), pair("last", "e")];
    assert_eq!(told(&fixture), expected);
}

#[test]
fn an_answer_that_is_too_long_is_not_kept_and_the_change_is_made() {
    let fixture = Fixture::new(3);
    let accounts = fixture.open();
    for (name, bytes) in [("fits", MAX_RECEIPT_BYTES), ("not", MAX_RECEIPT_BYTES + 1)] {
        let receipt = |_: Made<'_>| Receipt {
            id: name.to_owned(),
            fingerprint: [0; 16],
            made_at: at(0),
            until: at(WINDOW_MS),
            answer: vec![b'x'; bytes],
        };
        let effect = Effect {
            mode: Mode::Apply,
            receipt: Some(&receipt),
        };
        let name = AccountName::parse(name).expect("a name");
        let made = accounts.create_account(name, AccountSettings::default(), effect);
        made.expect("there is room");
    }
    drop(accounts);
    let accounts = fixture.open();
    let kept: Vec<_> = accounts
        .take_receipts()
        .into_iter()
        .map(|it| it.id)
        .collect();
    assert_eq!(kept, ["fits"]);
    for name in ["fits", "not"] {
        let name = AccountName::parse(name).expect("a name");
        assert!(accounts.account(&name).is_some(), "{name}");
    }
}
