//! The limits on numbers, and a database made by hand: the format's record.

use larder_accounts::limits::{MAX_ACCOUNTS, MAX_TOKENS_PER_ACCOUNT};
use larder_accounts::{
    AccountError, AccountSettings, Accounts, Action, AdminTokenState, NewToken, OpenError,
    TokenError,
};
use larder_model::{AtLimit, Mode};
use redb::TableDefinition;

use crate::fixture::{Fixture, NOW, account_name, all_tokens};

const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("accounts");
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");

/// SHA-256 of `inconshreveable`.
const DIGEST: &str = "SxO9-li2aI-jp9xQl25wbMXng9OUE-MRi7_3HQMRkzA";

/// Adds rows to the database of a new directory, and opens it.
fn open_with(
    fixture: &Fixture,
    table: TableDefinition<'_, &str, &[u8]>,
    rows: impl Iterator<Item = (String, String)>,
) -> Result<Accounts, OpenError> {
    if !fixture.dir().exists() {
        drop(fixture.open());
    }
    let redb = redb::Database::open(fixture.path("accounts.redb")).expect("it is good");
    let transaction = redb.begin_write().expect("it is free");
    {
        let mut table = transaction.open_table(table).expect("it is there");
        for (key, value) in rows {
            table
                .insert(key.as_str(), value.as_bytes())
                .expect("there is room");
        }
    }
    transaction.commit().expect("it is written");
    drop(redb);
    fixture.try_open()
}

fn account_row(name: &str) -> (String, String) {
    let value = r#"{"uid":"u","revision":3,"display_name":"Acme","max_keys":1,"max_bytes":2,
        "max_requests_per_second":3,"at_limit":"evict"}"#;
    (name.to_owned(), value.to_owned())
}

fn token_row(name: &str, digest: &str) -> (String, String) {
    let value = format!(
        r#"{{"digest":"{digest}","actions":5,"namespaces":["n"],"key_prefix":"dXNlcjo",
        "expire_time_ms":null}}"#
    );
    (name.to_owned(), value)
}

#[test]
fn format_1_is_read() {
    let fixture = Fixture::new(100);
    open_with(&fixture, ACCOUNTS, [account_row("acme")].into_iter()).expect("it is good");
    let rows = [token_row("acme/t1", DIGEST)].into_iter();
    let accounts = open_with(&fixture, TOKENS, rows).expect("it is good");
    let verified = accounts.verify("inconshreveable", NOW).expect("it is good");
    let settings = AccountSettings {
        display_name: "Acme".to_owned(),
        max_keys: 1,
        max_bytes: 2,
        max_requests_per_second: 3,
        at_limit: AtLimit::Evict,
    };
    assert_eq!(verified.account.settings, settings);
    assert_eq!(verified.account.uid.as_str(), "u");
    let rights = &verified.token.rights;
    let actions: Vec<_> = rights.actions.iter().collect();
    assert_eq!(actions, [Action::Read, Action::Admin]);
    assert_eq!(&*rights.key_prefixes, [Box::from(*b"user:")]);
    assert_eq!(verified.token.name.to_string(), "accounts/acme/tokens/t1");
}

/// One row that breaks a rule.
fn check_row(table: TableDefinition<'_, &str, &[u8]>, row: (String, String), reason: &str) {
    let fixture = Fixture::new(101);
    let error = open_with(&fixture, table, [row].into_iter()).expect_err("it breaks a rule");
    let text = error.to_string();
    assert!(matches!(error, OpenError::Damaged { .. }), "{text}");
    assert!(text.contains(reason), "{text}");
}

#[test]
fn a_row_that_breaks_a_rule_is_damage() {
    let with = |from: &str, to: &str| {
        let (name, value) = account_row("acme");
        (name, value.replace(from, to))
    };
    check_row(ACCOUNTS, account_row("ACME"), "a name may hold only");
    check_row(ACCOUNTS, with(r#""u""#, r#""""#), "the uid is missing");
    check_row(ACCOUNTS, with(":1,", ":-1,"), "account.max_keys must be 0");
    check_row(ACCOUNTS, with("evict", "explode"), "unknown variant");
    check_row(ACCOUNTS, with("revision", "revisions"), "unknown field");
    check_row(ACCOUNTS, with("Acme", &"x".repeat(40_000)), "a record has");
    check_row(ACCOUNTS, ("acme".to_owned(), "{".to_owned()), "EOF");
    let token = |digest| token_row("default/t", digest);
    check_row(TOKENS, token("short"), "a digest is malformed");
    check_row(TOKENS, token_row("default", DIGEST), "has no slash");
    check_row(TOKENS, token_row("absent/t", DIGEST), "has no account");
    let (name, value) = token(DIGEST);
    let actions = |to| (name.clone(), value.replace(":5,", to));
    check_row(TOKENS, actions(":0,"), "actions are unknown");
    check_row(TOKENS, actions(":16,"), "actions are unknown");
    let fixture = Fixture::new(102);
    let twice = [token(DIGEST), token_row("default/u", DIGEST)];
    let error = open_with(&fixture, TOKENS, twice.into_iter()).expect_err("it breaks a rule");
    assert!(error.to_string().contains("the secret of another token"));
}

#[test]
fn accounts_stop_at_their_limit() {
    let fixture = Fixture::new(103);
    let rows = (1..MAX_ACCOUNTS - 1).map(|n| account_row(&format!("a{n}")));
    let accounts = open_with(&fixture, ACCOUNTS, rows).expect("it is good");
    let make =
        |name, mode| accounts.create_account(account_name(name), AccountSettings::default(), mode);
    make("last", Mode::Apply).expect("there is room for one");
    for mode in [Mode::DryRun, Mode::Apply] {
        let error = make("more", mode).expect_err("there is none");
        assert!(matches!(error, AccountError::TooMany { limit } if limit == MAX_ACCOUNTS));
        let error = make("last", mode).expect_err("there is one");
        assert!(matches!(error, AccountError::AlreadyExists));
    }
    drop(accounts);
    let rows = [account_row("more")].into_iter();
    let error = open_with(&fixture, ACCOUNTS, rows).expect_err("it is over the limit");
    assert!(matches!(error, OpenError::Damaged { .. }));
}

#[test]
fn tokens_stop_at_their_limit_but_not_the_administrators() {
    let fixture = Fixture::new(104);
    // The administrator's is one more.
    let rows = (1..MAX_TOKENS_PER_ACCOUNT).map(|n| {
        let (name, row) = token_row(&format!("default/t{n}"), &format!("{n:0>42}A"));
        (name, row.replace(":5,", ":1,"))
    });
    let accounts = open_with(&fixture, TOKENS, rows).expect("it is good");
    let default = account_name("default");
    for mode in [Mode::DryRun, Mode::Apply] {
        let error = accounts
            .create_token(&default, NewToken::default(), NOW, mode)
            .expect_err("there is no room");
        assert!(matches!(
            error,
            TokenError::TooMany {
                limit: MAX_TOKENS_PER_ACCOUNT
            }
        ));
    }
    let admin = accounts.verify(&fixture.admin_secret(), NOW);
    let admin = admin.expect("it is good").token;
    accounts
        .revoke_token(&admin.name, Mode::Apply)
        .expect("it is there");
    accounts
        .create_token(&default, NewToken::default(), NOW, Mode::Apply)
        .expect("there is room for one");
    drop(accounts);
    let accounts = fixture.open();
    assert_eq!(accounts.admin_token().state, AdminTokenState::Replaced);
    assert_eq!(
        all_tokens(&accounts, &default).len(),
        MAX_TOKENS_PER_ACCOUNT
    );
    drop(accounts);
    assert_eq!(fixture.open().admin_token().state, AdminTokenState::Kept);
}
