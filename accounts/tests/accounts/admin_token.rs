//! The administrator's token of a data directory, over restarts.

use larder_accounts::{Action, Actions, AdminTokenState, NewToken, UnixMillis, VerifyError};
use larder_model::Mode;

use crate::fixture::{Fixture, NOW, token};

#[test]
fn it_has_every_right_in_the_default_account() {
    let fixture = Fixture::new(20);
    let accounts = fixture.open();
    let verified = accounts
        .verify(&fixture.admin_secret(), NOW)
        .expect("it is good");
    assert_eq!(verified.account.name.as_str(), "default");
    assert_eq!(verified.token.rights.actions, Actions::ALL);
    assert_eq!(verified.token.expire_time, None);
    let quota = verified.account.quota();
    assert_eq!((quota.max_keys, quota.max_bytes), (u64::MAX, u64::MAX));
    assert_eq!(verified.account.max_requests_per_second(), None);
}

/// Opens, lets `change` do something to the directory, opens again, and
/// expects `state`. Whether the first secret still works must be `kept`.
fn check(change: impl FnOnce(&Fixture), state: AdminTokenState, kept: bool) {
    let fixture = Fixture::new(21);
    drop(fixture.open());
    let first = fixture.admin_secret();
    change(&fixture);
    let accounts = fixture.open();
    assert_eq!(accounts.admin_token().state, state);
    assert_eq!(accounts.verify(&first, NOW).is_ok(), kept);
    if state == AdminTokenState::Replaced {
        let second = accounts.verify(&fixture.admin_secret(), NOW);
        let second = second.expect("the new one is good");
        assert!(second.token.rights.allows(Action::Admin));
    }
    drop(accounts);
    // What was settled stays settled.
    if state != AdminTokenState::Retired {
        let again = fixture.open();
        assert_eq!(again.admin_token().state, AdminTokenState::Kept);
    }
}

fn write(fixture: &Fixture, content: &[u8]) {
    std::fs::write(fixture.path("admin-token"), content).expect("it can be written");
}

fn revoke_first(fixture: &Fixture) {
    let accounts = fixture.open();
    let first = accounts
        .verify(&fixture.admin_secret(), NOW)
        .expect("it is good");
    accounts
        .revoke_token(&first.token.name, Mode::Apply)
        .expect("it is there");
}

fn another_admin(fixture: &Fixture, expire_time: Option<UnixMillis>) -> String {
    let new = NewToken {
        actions: Actions::NONE.with(Action::Admin),
        expire_time,
        ..NewToken::default()
    };
    let created = token(&fixture.open(), "default", new);
    created.secret.expose().to_owned()
}

#[test]
fn a_good_file_is_kept() {
    use AdminTokenState::Kept;
    check(|_| {}, Kept, true);
    check(
        |f| write(f, format!("{}\r\n", f.admin_secret()).as_bytes()),
        Kept,
        true,
    );
    check(|f| write(f, f.admin_secret().as_bytes()), Kept, true);
    check(
        |f| {
            let other = another_admin(f, None);
            write(f, other.as_bytes());
        },
        Kept,
        true,
    );
}

#[test]
fn a_lost_or_useless_file_is_replaced_and_its_token_revoked() {
    use AdminTokenState::Replaced;
    let remove = |f: &Fixture| std::fs::remove_file(f.path("admin-token")).expect("it is there");
    check(remove, Replaced, false);
    check(|f| write(f, b""), Replaced, false);
    check(|f| write(f, b"lrd_somebody-elses\n"), Replaced, false);
    check(|f| write(f, &[0xff; 5000]), Replaced, false);
    check(
        |f| {
            let plain = token(&f.open(), "default", NewToken::default());
            write(f, plain.secret.expose().as_bytes());
        },
        Replaced,
        false,
    );
}

#[test]
fn a_file_from_another_database_is_replaced() {
    let database = |f: &Fixture| f.path("accounts.redb");
    check(
        |f| std::fs::remove_file(database(f)).expect("it is there"),
        AdminTokenState::Created,
        false,
    );
    check(
        |f| {
            // A backup from before the token was replaced.
            let backup = f.database_bytes();
            std::fs::remove_file(f.path("admin-token")).expect("it is there");
            drop(f.open());
            std::fs::write(database(f), backup).expect("it can be written");
        },
        AdminTokenState::Replaced,
        false,
    );
}

#[test]
fn a_revoked_one_comes_back_only_if_nobody_else_can_get_in() {
    check(revoke_first, AdminTokenState::Replaced, false);
    check(
        |f| {
            another_admin(f, None);
            revoke_first(f);
        },
        AdminTokenState::Retired,
        false,
    );
    check(
        |f| {
            // It is good when it is made, and the clock of the next open has
            // not moved: so let its end be the present, in the past.
            let early = UnixMillis::new(NOW.get() - 1_000);
            let new = NewToken {
                actions: Actions::ALL,
                expire_time: Some(NOW),
                ..NewToken::default()
            };
            let accounts = f.open();
            let parent = crate::fixture::account_name("default");
            let made = accounts.create_token(&parent, new, early, Mode::Apply);
            let secret = made.expect("it is in the future").secret;
            assert_eq!(
                accounts.verify(secret.expose(), NOW).err(),
                Some(VerifyError::Expired)
            );
            drop(accounts);
            revoke_first(f);
        },
        AdminTokenState::Replaced,
        false,
    );
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_taken_back() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new(22);
    drop(fixture.open());
    let path = fixture.path("admin-token");
    let open_to_all = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&path, open_to_all).expect("it is ours");
    assert_eq!(fixture.open().admin_token().state, AdminTokenState::Kept);
    let mode = std::fs::metadata(&path).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}
