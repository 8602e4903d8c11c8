//! Removals of the control plane that are sent again, because nobody knows what became of
//! them.

use larder_accounts::{AccountSettings, Action, Actions, NewToken};
use larder_model::Mode;

use super::*;

/// A server with an account `gone`, and the secret of an administrator.
fn server_of(account: &AccountName) -> (Server, String, String) {
    let server = server();
    let accounts = server.core.accounts.as_ref().expect("accounts");
    let now = UnixMillis::new(0);
    let admin = NewToken {
        actions: Actions::NONE.with(Action::Admin),
        ..NewToken::default()
    };
    let default = AccountName::parse("default").expect("a name");
    let admin = accounts
        .create_token(&default, admin, now, Mode::Apply)
        .expect("a token");
    accounts
        .create_account(account.clone(), AccountSettings::default(), Mode::Apply)
        .expect("an account");
    let token = accounts
        .create_token(account, NewToken::default(), now, Mode::Apply)
        .expect("a token");
    let secret = admin.secret.expose().to_owned();
    (server, secret, token.token.name.to_string())
}

#[tokio::test]
async fn a_removal_that_is_sent_again_is_not_told_that_nothing_is_there() {
    let account = AccountName::parse("gone").expect("a name");
    let (server, secret, token) = server_of(&account);
    let call = |method: &str, name: &str, more: &str, tries: &str| {
        let path = format!("/larder.accounts.v1.AccountService/{method}");
        let body = format!("{{\"name\":\"{name}\"{more}}}").into_bytes();
        let request = request("application/json", &path, body);
        let request = with(request, "authorization", &format!("Bearer {secret}"));
        ended(&server, with(request, "grpc-previous-rpc-attempts", tries))
    };
    let dry = ",\"validateOnly\":true";
    let removals = [
        ("RevokeToken", token, Reason::TokenNotFound),
        (
            "DeleteAccount",
            "accounts/gone".to_owned(),
            Reason::AccountNotFound,
        ),
    ];
    for (method, name, reason) in removals {
        let identified = &*format!(",\"requestId\":\"{method}\"");
        let named_anew = &*format!(",\"requestId\":\"{method}-anew\"");
        // The first is carried out; the id says of the second that it was.
        assert_eq!(call(method, &name, identified, "0").await, OK, "{method}");
        assert_eq!(call(method, &name, identified, "1").await, OK, "{method}");
        // Without one, what is asked for is as it should be.
        assert_eq!(call(method, &name, "", "1").await, OK, "{method}");
        // Whoever asks for the first time is told, as is one whose id says that no attempt
        // before had its effect, and one that could have had none.
        for (more, tries) in [("", "0"), (named_anew, "1"), (dry, "1")] {
            let ended = call(method, &name, more, tries).await;
            assert_eq!(ended, failed(reason), "{method} {more} {tries}");
        }
    }
}
