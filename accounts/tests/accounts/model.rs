//! Random operations against a naive model, with restarts.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_accounts::{
    Account, AccountSettings, AccountUpdate, Accounts, Action, Actions, CreatedToken, NewToken,
    Secret, Token, TokenName, UnixMillis, VerifyError,
};
use larder_model::{AtLimit, Mode};

use crate::fixture::{Fixture, NOW, Random, account_name, all_accounts, all_tokens, token_name};

/// One mutation.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    CreateAccount {
        name: String,
        settings: AccountSettings,
    },
    UpdateAccount {
        name: String,
        update: AccountUpdate,
        etag: String,
    },
    DeleteAccount {
        name: String,
    },
    CreateToken {
        parent: String,
        new: NewToken,
    },
    RevokeToken {
        name: TokenName,
    },
}

/// What it led to.
#[derive(Debug)]
pub(crate) enum Answer {
    Account(Arc<Account>),
    Token(CreatedToken),
    Revoked(Arc<Token>),
    Refused(String),
}

impl Op {
    /// An operation that has a fair chance of being refused.
    pub(crate) fn random(random: &Random, accounts: &Accounts, tokens: &[TokenName]) -> Self {
        let names = ["default", "a", "b", "c", "d"];
        let name = names[random.below(names.len())].to_owned();
        match random.below(10) {
            0 | 1 => Self::CreateAccount {
                name,
                settings: AccountSettings {
                    max_keys: limit(random),
                    max_bytes: limit(random),
                    ..AccountSettings::default()
                },
            },
            2 | 3 => Self::UpdateAccount {
                etag: match (random.below(3), accounts.account(&account_name(&name))) {
                    (0, Some(account)) => account.etag.clone(),
                    (1, _) => "stale".to_owned(),
                    _ => String::new(),
                },
                name,
                update: AccountUpdate {
                    max_keys: random.once_in(2).then(|| limit(random)),
                    display_name: random.once_in(2).then(|| format!("n{}", random.below(9))),
                    at_limit: random.once_in(2).then_some(AtLimit::Evict),
                    ..AccountUpdate::default()
                },
            },
            4 => Self::DeleteAccount { name },
            5..=7 => Self::CreateToken {
                parent: name,
                new: new_token(random),
            },
            _ if tokens.is_empty() => Self::RevokeToken {
                name: token_name("accounts/a/tokens/absent"),
            },
            _ => Self::RevokeToken {
                name: tokens[random.below(tokens.len())].clone(),
            },
        }
    }
}

/// Rarely a bad one.
fn limit(random: &Random) -> i64 {
    [0, 1, 1_000, i64::MAX, -1][random.below(5)]
}

fn new_token(random: &Random) -> NewToken {
    let imported = || format!("imported-{}", random.below(6));
    NewToken {
        actions: [Actions::NONE, Actions::READ_WRITE.with(Action::Admin)][random.below(2)],
        namespaces: (0..random.below(3)).map(|n| format!("n{n}")).collect(),
        key_prefixes: (0..random.below(4))
            .map(|more| vec![0xff; more + 1])
            .collect(),
        expire_time: random
            .once_in(3)
            .then(|| UnixMillis::new(NOW.get() + random.next() % 1_000)),
        secret: random
            .once_in(3)
            .then(|| Secret::import(&imported()).expect("it is good")),
    }
}

/// Runs an operation.
pub(crate) fn run(accounts: &Accounts, op: &Op, mode: Mode) -> Answer {
    let refused = |error: &dyn std::error::Error| Answer::Refused(error.to_string());
    match op.clone() {
        Op::CreateAccount { name, settings } => accounts
            .create_account(account_name(&name), settings, mode)
            .map_or_else(|error| refused(&error), Answer::Account),
        Op::UpdateAccount { name, update, etag } => accounts
            .update_account(&account_name(&name), update, &etag, mode)
            .map_or_else(|error| refused(&error), Answer::Account),
        Op::DeleteAccount { name } => accounts
            .delete_account(&account_name(&name), mode)
            .map_or_else(|error| refused(&error), Answer::Account),
        Op::CreateToken { parent, new } => accounts
            .create_token(&account_name(&parent), new, NOW, mode)
            .map_or_else(|error| refused(&error), Answer::Token),
        Op::RevokeToken { name } => accounts
            .revoke_token(&name, mode)
            .map_or_else(|error| refused(&error), Answer::Revoked),
    }
}

/// What should be there, told without any of the code under test.
#[derive(Debug, Default)]
struct Model {
    accounts: BTreeMap<String, Arc<Account>>,
    tokens: BTreeMap<String, (String, Arc<Token>)>,
    /// Secrets that once opened something.
    gone: Vec<String>,
}

impl Model {
    /// What the operation must be refused with.
    fn refusal(&self, op: &Op) -> Option<&'static str> {
        let missing = |name: &str, error| (!self.accounts.contains_key(name)).then_some(error);
        match op {
            Op::CreateAccount { name, settings } => {
                if settings.max_keys < 0 {
                    Some("account.max_keys must be")
                } else if settings.max_bytes < 0 {
                    Some("account.max_bytes must be")
                } else {
                    self.accounts
                        .contains_key(name)
                        .then_some("the account exists already")
                }
            }
            Op::UpdateAccount { name, update, etag } => missing(name, "no such account")
                .or_else(|| {
                    let stale = !etag.is_empty() && *etag != self.accounts[name].etag;
                    stale.then_some("the account was changed meanwhile")
                })
                .or_else(|| {
                    let negative = update.max_keys.is_some_and(|limit| limit < 0);
                    negative.then_some("account.max_keys must be")
                }),
            Op::DeleteAccount { name } if name == "default" => {
                Some("the account default cannot be deleted")
            }
            Op::DeleteAccount { name } => missing(name, "no such account"),
            Op::CreateToken { parent, new } => {
                if new.expire_time.is_some_and(|end| end <= NOW) {
                    return Some("token.expire_time must be");
                }
                missing(parent, "no such account").or_else(|| {
                    let secret = new.secret.as_ref()?.expose();
                    let known = self.tokens.values().any(|(own, _)| own == secret);
                    known.then_some("a token with this secret exists already")
                })
            }
            Op::RevokeToken { name } => missing(name.account().as_str(), "no such account")
                .or_else(|| {
                    let known = self.tokens.contains_key(&name.to_string());
                    (!known).then_some("no such token")
                }),
        }
    }

    fn apply(&mut self, op: &Op, answer: &Answer) {
        match (op, answer) {
            (Op::DeleteAccount { name }, _) => {
                self.accounts.remove(name);
                let (gone, kept) = std::mem::take(&mut self.tokens)
                    .into_iter()
                    .partition(|(_, (_, token))| token.name.account().as_str() == name);
                self.tokens = kept;
                let gone: BTreeMap<String, (String, Arc<Token>)> = gone;
                self.gone
                    .extend(gone.into_values().map(|(secret, _)| secret));
            }
            (_, Answer::Account(account)) => {
                self.accounts
                    .insert(account.name.to_string(), Arc::clone(account));
            }
            (_, Answer::Token(made)) => {
                let secret = made.secret.expose().to_owned();
                self.gone.retain(|gone| *gone != secret);
                let name = made.token.name.to_string();
                self.tokens.insert(name, (secret, Arc::clone(&made.token)));
            }
            (_, Answer::Revoked(token)) => {
                let own = self.tokens.remove(&token.name.to_string());
                self.gone.extend(own.map(|(secret, _)| secret));
            }
            (_, Answer::Refused(_)) => {}
        }
    }

    /// The API shows this and nothing else.
    fn check(&self, accounts: &Accounts) {
        let shown = all_accounts(accounts);
        assert!(shown.iter().eq(self.accounts.values()));
        let mut count = 0;
        for account in &shown {
            for token in all_tokens(accounts, &account.name) {
                let (_, expected) = &self.tokens[&token.name.to_string()];
                assert_eq!(&token, expected);
                count += 1;
            }
        }
        assert_eq!(count, self.tokens.len());
        for (secret, token) in self.tokens.values() {
            let verified = accounts.verify(secret, NOW).expect("it is good");
            assert_eq!(&verified.token, token);
            assert_eq!(
                verified.account,
                self.accounts[token.name.account().as_str()]
            );
            if let Some(end) = token.expire_time {
                let error = accounts.verify(secret, end).expect_err("it has ended");
                assert_eq!(error, VerifyError::Expired);
            }
        }
        for secret in &self.gone {
            assert!(accounts.verify(secret, NOW).is_err());
        }
    }
}

/// The model of a directory that was just made.
fn first_model(fixture: &Fixture, accounts: &Accounts) -> Model {
    let mut model = Model::default();
    let secret = fixture.admin_secret();
    let verified = accounts.verify(&secret, NOW).expect("it is good");
    let name = verified.token.name.to_string();
    model.tokens.insert(name, (secret, verified.token));
    model
        .accounts
        .insert("default".to_owned(), verified.account);
    model
}

#[test]
fn random_operations_agree_with_a_naive_model() {
    for seed in 0..3 {
        let fixture = Fixture::new(80 + seed);
        let script = Random::seeded(1_000 + seed);
        let mut accounts = fixture.open();
        let mut model = first_model(&fixture, &accounts);
        let mut names = Vec::new();
        for step in 0..400 {
            let op = Op::random(&script, &accounts, &names);
            let refusal = model.refusal(&op);
            let answer = run(&accounts, &op, Mode::Apply);
            match (&answer, refusal) {
                (Answer::Refused(error), Some(expected)) if error.starts_with(expected) => {}
                (Answer::Refused(_), _) | (_, Some(_)) => {
                    panic!("seed {seed} step {step}: {op:?}: {answer:?}, not {refusal:?}")
                }
                _ => model.apply(&op, &answer),
            }
            if let Answer::Token(made) = &answer {
                names.push(made.token.name.clone());
            }
            model.check(&accounts);
            if script.once_in(25) {
                drop(accounts);
                accounts = fixture.open();
                model.check(&accounts);
            }
            if script.once_in(25) {
                let image = fixture.crash_image();
                model.check(&fixture.open_at(&image).expect("the image is good"));
            }
        }
    }
}
