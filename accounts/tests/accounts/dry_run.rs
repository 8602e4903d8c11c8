//! A dry run answers as the real call would, and leaves no trace.

use larder_accounts::{Accounts, TokenName};
use larder_model::Mode;

use crate::fixture::{Fixture, Random, snapshot};
use crate::model::{Answer, Op, run};

/// What two answers have in common: all but what randomness made.
fn comparable(answer: &Answer) -> String {
    match answer {
        Answer::Account(account) => format!("{} {:?}", account.name, account.settings),
        Answer::Token(made) => format!(
            "{} {:?} {:?}",
            made.token.name.account(),
            made.token.rights,
            made.token.expire_time
        ),
        Answer::Revoked(token) => format!("{token:?}"),
        Answer::Refused(error) => error.clone(),
    }
}

/// Runs `op` dry and then for real.
fn check(fixture: &Fixture, accounts: &Accounts, op: &Op) -> Answer {
    let trace = || {
        (
            snapshot(accounts),
            accounts.generation(),
            fixture.random.position(),
            fixture.database_bytes(),
        )
    };
    let before = trace();
    let dry = run(accounts, op, Mode::DryRun);
    assert!(trace() == before, "{op:?} left a trace");
    let real = run(accounts, op, Mode::Apply);
    assert_eq!(comparable(&dry), comparable(&real), "{op:?}");
    if let (Answer::Token(dry), Answer::Token(real)) = (&dry, &real) {
        assert!(dry.secret.is_empty() && !real.secret.is_empty());
        assert_eq!(dry.token.name.id(), TokenName::DRY_RUN_ID);
    }
    if let (Op::CreateAccount { .. }, Answer::Account(dry)) = (op, &dry) {
        assert_eq!((dry.uid.as_str(), dry.etag.as_str()), ("", ""));
    }
    if let (Op::UpdateAccount { .. }, Answer::Account(dry), Answer::Account(real)) =
        (op, &dry, &real)
    {
        assert_eq!(dry, real, "an update has nothing random");
    }
    real
}

#[test]
fn no_trace_in_any_state() {
    for seed in 0..4 {
        let fixture = Fixture::new(70 + seed);
        let script = Random::seeded(seed);
        let accounts = fixture.open();
        let mut tokens = Vec::new();
        for _ in 0..80 {
            let op = Op::random(&script, &accounts, &tokens);
            if let Answer::Token(made) = check(&fixture, &accounts, &op) {
                tokens.push(made.token.name.clone());
            }
        }
    }
}
