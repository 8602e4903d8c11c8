//! Creating, verifying and revoking tokens.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_accounts::{
    Action, Actions, NewToken, SECRET_PREFIX, Secret, TokenError, TokenName, UnixMillis,
    VerifyError,
};
use larder_model::{Mode, Namespace};

use crate::fixture::{Fixture, NOW, account_name, create, token, token_name};

#[test]
fn a_token_is_what_was_asked_for() {
    let fixture = Fixture::new(40);
    let accounts = fixture.open();
    create(&accounts, "acme");
    let made = token(&accounts, "acme", NewToken::default());
    let text = made.secret.expose();
    assert!(text.starts_with(SECRET_PREFIX) && text.len() == SECRET_PREFIX.len() + 43);
    assert_eq!(made.token.rights.actions, Actions::READ_WRITE);
    let verified = accounts.verify(text, NOW).expect("it is good");
    assert_eq!(verified.account.name.as_str(), "acme");
    assert_eq!(verified.token, made.token);
    assert_eq!(verified.generation, accounts.generation());

    let new = NewToken {
        actions: [Action::Read, Action::Verify].into_iter().collect(),
        namespaces: ["b", "", "a", "b"].map(str::to_owned).into(),
        key_prefixes: vec![b"user:".into(), b"team:".into(), b"user:".into()],
        ..NewToken::default()
    };
    let rights = token(&accounts, "acme", new).token.rights.clone();
    let allowed: Vec<_> = rights.actions.iter().collect();
    assert_eq!(allowed, [Action::Read, Action::Verify]);
    for (namespace, allowed) in [("a", true), ("b", true), ("", true), ("c", false)] {
        let namespace = Namespace::parse(namespace).expect("it is good");
        assert_eq!(rights.allows_namespace(namespace), allowed);
    }
    for (key, allowed) in [
        ("user:1", true),
        ("team:1", true),
        ("user:", true),
        ("user", false),
        ("", false),
    ] {
        assert_eq!(rights.allows_key(key.as_bytes()), allowed);
        assert_eq!(rights.allows_prefix(key.as_bytes()), allowed);
    }
}

fn check_field(new: &NewToken, refused: Option<(&str, &str)>) {
    let fixture = Fixture::new(41);
    let accounts = fixture.open();
    for mode in [Mode::DryRun, Mode::Apply] {
        let made = accounts.create_token(&account_name("default"), new.clone(), NOW, mode);
        match (made, refused) {
            (Err(TokenError::Field(error)), Some((field, reason))) => {
                assert_eq!((error.field, &*error.reason), (field, reason));
            }
            (made, refused) => assert!(made.is_ok() && refused.is_none(), "{made:?}"),
        }
    }
}

#[test]
fn fields_are_checked_against_their_bounds() {
    for (ms, reason) in [
        (NOW.get() + 1, None),
        (253_402_300_799_999, None),
        (253_402_300_800_000, Some("must be before the year 10000")),
        (NOW.get(), Some("must be in the future")),
        (0, Some("must be in the future")),
    ] {
        let new = NewToken {
            expire_time: Some(UnixMillis::new(ms)),
            ..NewToken::default()
        };
        check_field(&new, reason.map(|reason| ("token.expire_time", reason)));
    }
    for (bytes, reason) in [
        (1_024, None),
        (1_025, Some("has 1025 bytes, more than the limit of 1024")),
    ] {
        let new = NewToken {
            key_prefixes: vec![vec![0; bytes]],
            ..NewToken::default()
        };
        check_field(&new, reason.map(|reason| ("token.key_prefix", reason)));
    }
    for (key_prefixes, refused) in [
        (vec![vec![1]; 8], None),
        (
            vec![vec![1]; 9],
            Some((
                "token.key_prefixes",
                "has 9 elements, more than the limit of 8",
            )),
        ),
        (
            vec![vec![1], vec![]],
            Some(("token.key_prefixes", "must not be empty")),
        ),
    ] {
        let new = NewToken {
            key_prefixes,
            ..NewToken::default()
        };
        check_field(&new, refused);
    }
    let many = |count: usize| (0..count).map(|n| format!("n{n}")).collect();
    for (namespaces, reason) in [
        (many(64), None),
        (many(65), Some("has 65 elements, more than the limit of 64")),
        (
            vec!["UP".to_owned()],
            Some("may hold only a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"),
        ),
    ] {
        let new = NewToken {
            namespaces,
            ..NewToken::default()
        };
        check_field(&new, reason.map(|reason| ("token.namespaces", reason)));
    }
}

#[test]
fn secrets_to_import_are_checked() {
    for (text, good) in [
        ("inconshreveable".to_owned(), true),
        ("8letters".to_owned(), true),
        ("x".repeat(1_024), true),
        ("7letter".to_owned(), false),
        (String::new(), false),
        ("x".repeat(1_025), false),
        ("with a space".to_owned(), false),
        ("line\nfeed".to_owned(), false),
        ("größenwahn".to_owned(), false),
    ] {
        let imported = Secret::import(&text);
        assert_eq!(imported.is_ok(), good, "{text}");
        if let Err(error) = imported {
            assert_eq!(error.field, "secret");
            assert!(text.is_empty() || !error.reason.contains(&text));
        }
    }
}

#[test]
fn an_imported_secret_opens_one_token() {
    let fixture = Fixture::new(42);
    let accounts = fixture.open();
    create(&accounts, "gopher");
    create(&accounts, "other");
    let import = || NewToken {
        secret: Some(Secret::import("inconshreveable").expect("it is good")),
        ..NewToken::default()
    };
    let made = token(&accounts, "gopher", import());
    assert_eq!(made.secret.expose(), "inconshreveable");
    for account in ["gopher", "other"] {
        let again = accounts.create_token(&account_name(account), import(), NOW, Mode::Apply);
        assert!(matches!(again, Err(TokenError::AlreadyExists)));
    }
    let verified = accounts.verify("inconshreveable", NOW).expect("it is good");
    assert_eq!(verified.account.name.as_str(), "gopher");
    let revoked = accounts.revoke_token(&made.token.name, Mode::Apply);
    assert_eq!(revoked.expect("it is there"), made.token);
    token(&accounts, "other", import());
    let verified = accounts.verify("inconshreveable", NOW).expect("it is good");
    assert_eq!(verified.account.name.as_str(), "other");
}

#[test]
fn only_a_living_token_is_verified() {
    let fixture = Fixture::new(43);
    let accounts = fixture.open();
    create(&accounts, "acme");
    let end = UnixMillis::new(NOW.get() + 1_000);
    let new = NewToken {
        expire_time: Some(end),
        ..NewToken::default()
    };
    let made = token(&accounts, "acme", new);
    let secret = made.secret.expose();
    let last = UnixMillis::new(end.get() - 1);
    assert!(accounts.verify(secret, last).is_ok());
    for now in [end, UnixMillis::new(u64::MAX)] {
        let error = accounts.verify(secret, now).expect_err("it has ended");
        assert_eq!(error, VerifyError::Expired);
    }
    accounts
        .revoke_token(&made.token.name, Mode::Apply)
        .expect("it is there");
    let mangled = format!("{secret}x");
    for unknown in [
        secret,
        &mangled,
        &secret[1..],
        "",
        "x",
        &"x".repeat(1_025),
        made.token.name.id(),
    ] {
        let error = accounts.verify(unknown, NOW).expect_err("it is unknown");
        assert_eq!(error, VerifyError::Unknown);
    }
}

#[test]
fn a_token_is_revoked_by_its_own_name_only() {
    let fixture = Fixture::new(44);
    let accounts = fixture.open();
    create(&accounts, "acme");
    create(&accounts, "other");
    let made = token(&accounts, "acme", NewToken::default());
    let foreign = token_name(&format!("accounts/other/tokens/{}", made.token.name.id()));
    let absent = token_name("accounts/acme/tokens/absent");
    for name in [foreign, absent] {
        let error = accounts.revoke_token(&name, Mode::Apply);
        assert!(matches!(error, Err(TokenError::NotFound)), "{name}");
    }
    let nobody = token_name("accounts/nobody/tokens/absent");
    let error = accounts.revoke_token(&nobody, Mode::Apply);
    assert!(matches!(error, Err(TokenError::AccountNotFound)));
    let error = accounts.create_token(
        &account_name("nobody"),
        NewToken::default(),
        NOW,
        Mode::Apply,
    );
    assert!(matches!(error, Err(TokenError::AccountNotFound)));
    assert!(accounts.verify(made.secret.expose(), NOW).is_ok());
}

#[test]
fn every_change_shows_in_the_generation() {
    let fixture = Fixture::new(45);
    let accounts = fixture.open();
    let mut last = accounts.generation();
    let mut check = |what: &str| {
        let now = accounts.generation();
        assert!(now > last, "{what}");
        last = now;
    };
    create(&accounts, "acme");
    check("create account");
    let made = token(&accounts, "acme", NewToken::default());
    check("create token");
    let update = larder_accounts::AccountUpdate::default();
    accounts
        .update_account(&account_name("acme"), update, "", Mode::Apply)
        .expect("it is there");
    check("update");
    accounts
        .revoke_token(&made.token.name, Mode::Apply)
        .expect("it is there");
    check("revoke");
    accounts
        .delete_account(&account_name("acme"), Mode::Apply)
        .expect("it is there");
    check("delete");
}

/// A reader may keep an answer for as long as the generation stands.
#[test]
fn all_answers_of_a_generation_agree() {
    let fixture = Fixture::new(46);
    let accounts = fixture.open();
    let import = || NewToken {
        secret: Some(Secret::import("inconshreveable").expect("it is good")),
        ..NewToken::default()
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let read = || {
            let mut answers = HashMap::new();
            while !done.load(Ordering::Relaxed) {
                let before = accounts.generation();
                let verified = accounts.verify("inconshreveable", NOW);
                let generation = match &verified {
                    Ok(verified) => verified.generation,
                    // Kept under the number read before: it may be old, and is
                    // then asked for again.
                    Err(_) if accounts.generation() != before => continue,
                    Err(_) => before,
                };
                let good = verified.is_ok();
                assert_eq!(*answers.entry(generation).or_insert(good), good);
            }
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for _ in 0..150 {
            let made = token(&accounts, "default", import());
            accounts
                .revoke_token(&made.token.name, Mode::Apply)
                .expect("it is there");
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("all its answers agreed");
        }
    });
}

#[test]
fn resource_names_are_parsed() {
    for (resource, good) in [
        ("accounts/acme/tokens/0a1b", true),
        ("accounts/acme/tokens/-", false),
        ("accounts/acme/tokens/", false),
        ("accounts/acme/tokens/a/b", false),
        ("accounts//tokens/a", false),
        ("accounts/acme", false),
        ("acme/tokens/a", false),
    ] {
        let parsed = TokenName::parse("name", resource);
        assert_eq!(parsed.is_ok(), good, "{resource}");
        match parsed {
            Ok(name) => assert_eq!(name.to_string(), resource),
            Err(error) => assert_eq!(error.field, "name"),
        }
    }
}
