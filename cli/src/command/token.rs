//! `larder token`.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_client::{Action, Token, TokenInfo, TokenRights};
use serde_json::{Value, json};

use super::dry;
use crate::args::{ActionArgs, TokenCommand, TokenCreateArgs};
use crate::connect::{Caller, read_secret, read_secret_from};
use crate::failure::Failure;
use crate::output::{Format, Output, escape, token_object};
use crate::units::show_time;

/// `create` prints the token with `secret` and `dry_run`, `list` prints
/// `{"tokens": […]}`, `revoke` prints `{"name", "revoked", "dry_run"}`.
pub(super) async fn run(
    command: TokenCommand,
    caller: &Caller,
    out: &mut Output,
) -> Result<(), Failure> {
    match command {
        TokenCommand::Create(args) => create(args, caller, out).await,
        TokenCommand::List { account } => list(&account, caller, out).await,
        TokenCommand::Revoke {
            token_name,
            dry_run,
        } => {
            let dry_run = dry_run.dry_run;
            let accounts = caller.mutating(dry_run).accounts();
            accounts
                .revoke_token(&token_name)
                .await
                .map_err(|error| caller.failed(error))?;
            let object = json!({"name": token_name, "revoked": !dry_run, "dry_run": dry_run});
            let said = if dry_run {
                "would be revoked"
            } else {
                "revoked"
            };
            out.result(&object, &format!("{token_name} {said}{}", dry(dry_run)))?;
            Ok(())
        }
    }
}

async fn create(args: TokenCreateArgs, caller: &Caller, out: &mut Output) -> Result<(), Failure> {
    let secret = args.secret_file.as_deref().map(import).transpose()?;
    let rights = TokenRights {
        actions: actions(&args.actions),
        namespaces: args.namespace_scope,
        key_prefixes: args
            .prefix
            .into_iter()
            .map(|prefix| Bytes::from(prefix.into_encoded_bytes()))
            .collect(),
        expire_time: args.expires.map(from_now).transpose()?,
    };
    let dry_run = args.dry_run.dry_run;
    let created = caller
        .mutating(dry_run)
        .accounts()
        .create_token(&args.account, &rights, secret.as_ref(), None)
        .await
        .map_err(|error| caller.failed(error))?;
    let secret = created.secret.as_ref().map(Token::expose);
    match out.format {
        Format::Json => {
            let mut object = token_object(&created.token);
            object.insert("secret".into(), secret.into());
            object.insert("dry_run".into(), dry_run.into());
            out.json(&object.into())?;
        }
        Format::Text => {
            let mut pairs = pairs(&created.token);
            if let Some(secret) = secret {
                pairs.push(("secret", format!("{secret}  (shown only now)")));
            }
            out.pairs(&pairs)?;
        }
    }
    Ok(())
}

async fn list(account: &str, caller: &Caller, out: &mut Output) -> Result<(), Failure> {
    let mut pages = caller.client.accounts().token_pages(account);
    let mut found: Vec<TokenInfo> = Vec::new();
    while let Some(page) = pages
        .next_page()
        .await
        .map_err(|error| caller.failed(error))?
    {
        found.extend(page);
    }
    match out.format {
        Format::Json => {
            let tokens: Vec<Value> = found
                .iter()
                .map(|token| token_object(token).into())
                .collect();
            out.json(&json!({"tokens": tokens}))?;
        }
        Format::Text => {
            let rows: Vec<Vec<String>> = found
                .iter()
                .map(|token| pairs(token).into_iter().map(|(_, value)| value).collect())
                .collect();
            out.table(
                &["NAME", "RIGHTS", "NAMESPACES", "PREFIX", "EXPIRES"],
                &rows,
            )?;
        }
    }
    Ok(())
}

fn pairs(token: &TokenInfo) -> Vec<(&'static str, String)> {
    let rights = &token.rights;
    let actions: Vec<_> = rights.actions.iter().map(|action| action.name()).collect();
    let namespaces = match rights.namespaces.is_empty() {
        true => "all".into(),
        false => rights.namespaces.join(", "),
    };
    let prefix = match rights.key_prefixes.is_empty() {
        true => "any".into(),
        false => {
            let all: Vec<_> = rights.key_prefixes.iter().map(|own| escape(own)).collect();
            all.join(", ")
        }
    };
    let expires = rights.expire_time.map_or_else(|| "never".into(), show_time);
    vec![
        ("name", token.name.clone()),
        ("rights", actions.join(", ")),
        ("namespaces", namespaces),
        ("prefix", prefix),
        ("expires", expires),
    ]
}

/// The rights named, or what most clients need.
fn actions(args: &ActionArgs) -> Vec<Action> {
    let named: Vec<Action> = [
        (args.read, Action::Read),
        (args.write, Action::Write),
        (args.admin, Action::Admin),
        (args.verify, Action::Verify),
    ]
    .into_iter()
    .filter_map(|(named, action)| named.then_some(action))
    .collect();
    if named.is_empty() {
        vec![Action::Read, Action::Write]
    } else {
        named
    }
}

fn import(path: &Path) -> Result<Token, Failure> {
    let text = if path == Path::new("-") {
        read_secret_from(io::stdin().lock())
    } else {
        read_secret(path)
    };
    let what = format!("--secret-file {}", path.display());
    let text = text.map_err(|error| Failure::Usage(format!("{what}: {error}")))?;
    Token::new(text).map_err(|error| Failure::Usage(format!("{what}: {error}")))
}

#[allow(
    clippy::disallowed_methods,
    reason = "a person says `30d` and means from now; nothing here decides by the clock"
)]
fn from_now(after: Duration) -> Result<SystemTime, Failure> {
    SystemTime::now()
        .checked_add(after)
        .ok_or_else(|| Failure::Usage("--expires is beyond the end of time".into()))
}
