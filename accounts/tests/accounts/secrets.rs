//! Secrets are shown once, and stay nowhere.

use larder_accounts::{NewToken, Secret};

use crate::fixture::{Fixture, NOW, create, snapshot, token};

const IMPORTED: &str = "inconshreveable";

fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

#[test]
fn no_secret_is_in_debug_output() {
    let fixture = Fixture::new(60);
    let accounts = fixture.open();
    create(&accounts, "acme");
    let import = NewToken {
        secret: Some(Secret::import(IMPORTED).expect("it is good")),
        ..NewToken::default()
    };
    let mut shown = format!("{import:?} {import:#?}");
    let imported = token(&accounts, "acme", import.clone());
    let fresh = token(&accounts, "acme", NewToken::default());
    let again = accounts
        .create_token(
            &crate::fixture::account_name("acme"),
            import,
            NOW,
            larder_model::Mode::Apply,
        )
        .expect_err("it exists");
    let verified = accounts.verify(IMPORTED, NOW).expect("it is good");
    let unknown = accounts.verify("some-unknown-secret", NOW);
    shown += &format!("{imported:?} {fresh:#?} {again:?} {again} {verified:?} {unknown:?}");
    shown += &format!("{accounts:?} {accounts:#?} {}", snapshot(&accounts));
    for secret in [
        IMPORTED,
        fresh.secret.expose(),
        &fixture.admin_secret(),
        "some-unknown-secret",
    ] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
        let core = &secret[secret.len() - 8..];
        assert!(!shown.contains(core), "{core} is in {shown}");
    }
}

#[test]
fn no_secret_is_in_the_database() {
    let fixture = Fixture::new(61);
    let accounts = fixture.open();
    create(&accounts, "acme");
    let import = NewToken {
        secret: Some(Secret::import(IMPORTED).expect("it is good")),
        ..NewToken::default()
    };
    token(&accounts, "acme", import);
    let fresh = token(&accounts, "acme", NewToken::default());
    let admin = fixture.admin_secret();
    let open = fixture.database_bytes();
    drop(accounts);
    for bytes in [open, fixture.database_bytes()] {
        assert!(holds(&bytes, fresh.token.name.id()), "this is the place");
        for secret in [IMPORTED, fresh.secret.expose(), &admin] {
            assert!(!holds(&bytes, secret));
            assert!(!holds(&bytes, &secret[4..]));
        }
    }
}
