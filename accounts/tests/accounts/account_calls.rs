//! Creating, changing and deleting accounts.

use larder_accounts::{
    AccountError, AccountSettings, AccountUpdate, NewToken, parse_account_resource,
};
use larder_model::{AtLimit, Mode};

use crate::fixture::{Fixture, NOW, account_name, create, token};

fn settings() -> AccountSettings {
    AccountSettings {
        display_name: "Größe".to_owned(),
        max_keys: 10,
        max_bytes: 1_000,
        max_requests_per_second: 5,
        at_limit: AtLimit::Evict,
    }
}

#[test]
fn an_account_is_what_was_asked_for() {
    let fixture = Fixture::new(30);
    let accounts = fixture.open();
    let made = accounts.create_account(account_name("acme"), settings(), Mode::Apply);
    let made = made.expect("there is room");
    assert_eq!(made.settings, settings());
    assert_eq!(made.resource_name(), "accounts/acme");
    let quota = made.quota();
    assert_eq!((quota.max_keys, quota.max_bytes), (10, 1_000));
    assert_eq!(quota.at_limit, AtLimit::Evict);
    assert_eq!(made.max_requests_per_second(), Some(5));
    assert_eq!(accounts.account(&account_name("acme")), Some(made));
    let again = accounts.create_account(account_name("acme"), settings(), Mode::Apply);
    assert!(matches!(again, Err(AccountError::AlreadyExists)));
    assert_eq!(accounts.account(&account_name("other")), None);
}

/// Sets one field on creation and in an update; both refuse it, naming it, or
/// both take it.
fn check_field(update: AccountUpdate, refused: Option<(&str, &str)>) {
    let fixture = Fixture::new(31);
    let accounts = fixture.open();
    create(&accounts, "old");
    let before = accounts.generation();
    let wanted = AccountSettings::default().updated(update.clone());
    let results = [
        accounts.create_account(account_name("new"), wanted, Mode::Apply),
        accounts.update_account(&account_name("old"), update, "", Mode::Apply),
    ];
    for result in results {
        match (result, refused) {
            (Err(AccountError::Field(error)), Some((field, reason))) => {
                assert_eq!((error.field, &*error.reason), (field, reason));
                assert_eq!(accounts.generation(), before);
            }
            (result, refused) => assert!(result.is_ok() && refused.is_none(), "{result:?}"),
        }
    }
}

#[test]
fn fields_are_checked_against_their_bounds() {
    let none = AccountUpdate::default;
    let negative = "must be 0, for no limit, or more; it is -1";
    for limit in [0, 1, i64::MAX] {
        check_field(
            AccountUpdate {
                max_keys: Some(limit),
                max_bytes: Some(limit),
                max_requests_per_second: Some(limit),
                ..none()
            },
            None,
        );
    }
    let mut update = none();
    update.max_keys = Some(-1);
    check_field(update, Some(("account.max_keys", negative)));
    let mut update = none();
    update.max_bytes = Some(-1);
    check_field(update, Some(("account.max_bytes", negative)));
    let mut update = none();
    update.max_requests_per_second = Some(-1);
    check_field(update, Some(("account.max_requests_per_second", negative)));
    for (name, reason) in [
        ("x".repeat(256), None),
        ("é".repeat(128), None),
        (String::new(), None),
        (
            "é".repeat(129),
            Some("has 258 bytes, more than the limit of 256"),
        ),
        (
            "a\u{1b}[2J".to_owned(),
            Some("must not hold control characters"),
        ),
    ] {
        let mut update = none();
        update.display_name = Some(name);
        check_field(
            update,
            reason.map(|reason| ("account.display_name", reason)),
        );
    }
}

#[test]
fn an_update_changes_what_it_names_and_the_etag() {
    let fixture = Fixture::new(32);
    let accounts = fixture.open();
    let name = account_name("acme");
    let first = accounts.create_account(name.clone(), settings(), Mode::Apply);
    let first = first.expect("there is room");
    let update = AccountUpdate {
        max_keys: Some(0),
        ..AccountUpdate::default()
    };
    let second = accounts.update_account(&name, update.clone(), &first.etag, Mode::Apply);
    let second = second.expect("the etag is the current one");
    assert_eq!(second.settings.max_keys, 0);
    assert_eq!(second.quota().max_keys, u64::MAX);
    assert_eq!(second.settings.display_name, first.settings.display_name);
    assert_eq!(second.uid, first.uid);
    assert_ne!(second.etag, first.etag);
    for stale in [first.etag.as_str(), "x", "*"] {
        let refused = accounts.update_account(&name, update.clone(), stale, Mode::Apply);
        let Err(AccountError::EtagMismatch { current }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(current, second.etag);
    }
    let third = accounts.update_account(&name, AccountUpdate::default(), "", Mode::Apply);
    let third = third.expect("no etag was asked for");
    assert_ne!(third.etag, second.etag);
    assert_eq!(third.settings, second.settings);
    let missing = accounts.update_account(&account_name("no"), update, "", Mode::Apply);
    assert!(matches!(missing, Err(AccountError::NotFound)));
}

#[test]
fn a_deleted_account_takes_its_tokens_along() {
    let fixture = Fixture::new(33);
    let accounts = fixture.open();
    let first = create(&accounts, "acme");
    create(&accounts, "acme-2");
    create(&accounts, "acm");
    let gone = token(&accounts, "acme", NewToken::default());
    let near = ["acme-2", "acm"].map(|name| token(&accounts, name, NewToken::default()));
    let name = account_name("acme");
    accounts
        .delete_account(&name, Mode::Apply)
        .expect("it is there");
    let again = accounts.delete_account(&name, Mode::Apply);
    assert!(matches!(again, Err(AccountError::NotFound)));
    let second = create(&accounts, "acme");
    assert_ne!(first.uid, second.uid);
    assert_ne!(first.etag, second.etag);
    drop(accounts);
    let accounts = fixture.open();
    assert!(accounts.verify(gone.secret.expose(), NOW).is_err());
    for token in near {
        assert!(accounts.verify(token.secret.expose(), NOW).is_ok());
    }
    let default = accounts.delete_account(&account_name("default"), Mode::Apply);
    assert!(matches!(default, Err(AccountError::Protected)));
}

#[test]
fn resource_names_are_parsed() {
    for (resource, good) in [
        ("accounts/acme", true),
        ("accounts/a.b_c-1", true),
        ("acme", false),
        ("accounts/", false),
        ("accounts/ACME", false),
        ("accounts/a/b", false),
        ("accounts/../default", false),
    ] {
        let parsed = parse_account_resource("parent", resource);
        assert_eq!(parsed.is_ok(), good, "{resource}");
        if let Err(error) = parsed {
            assert_eq!(error.field, "parent");
        }
    }
}
