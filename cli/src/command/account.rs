//! `larder account`.

use larder_client::{Account, AccountChange, AccountSettings, AtLimit};
use serde_json::{Value, json};

use super::dry;
use crate::args::{AccountCommand, AccountCreateArgs, AccountSetArgs, AtLimitArg};
use crate::connect::Caller;
use crate::failure::Failure;
use crate::output::{Format, Output, account_object};
use crate::units::{Limit, show_size};

/// `create`, `show` and `set` print the account, `list` prints
/// `{"accounts": […]}`, `delete` prints `{"name", "deleted", "dry_run"}`.
pub(super) async fn run(
    command: AccountCommand,
    caller: &Caller,
    out: &mut Output,
) -> Result<(), Failure> {
    match command {
        AccountCommand::Create(args) => create(args, caller, out).await,
        AccountCommand::List => list(caller, out).await,
        AccountCommand::Show { name } => {
            let accounts = caller.client.accounts();
            let account = accounts
                .get(&name)
                .await
                .map_err(|error| caller.failed(error))?;
            show(&account, out)
        }
        AccountCommand::Set(args) => set(args, caller, out).await,
        AccountCommand::Delete { name, dry_run } => {
            let dry_run = dry_run.dry_run;
            let accounts = caller.mutating(dry_run).accounts();
            accounts
                .delete(&name)
                .await
                .map_err(|error| caller.failed(error))?;
            let object = json!({"name": name, "deleted": !dry_run, "dry_run": dry_run});
            let said = if dry_run {
                "would be deleted"
            } else {
                "deleted"
            };
            out.result(&object, &format!("{name} {said}{}", dry(dry_run)))?;
            Ok(())
        }
    }
}

async fn create(args: AccountCreateArgs, caller: &Caller, out: &mut Output) -> Result<(), Failure> {
    let asked = args.settings;
    let settings = AccountSettings {
        display_name: asked.display_name.unwrap_or_default(),
        max_keys: asked.max_keys.and_then(|limit| limit.0),
        max_bytes: asked.max_bytes.and_then(|limit| limit.0),
        max_requests_per_second: asked.max_rps.and_then(|limit| limit.0),
        at_limit: asked.at_limit.map_or(AtLimit::Refuse, at_limit),
    };
    let accounts = caller.mutating(args.dry_run.dry_run).accounts();
    let account = accounts
        .create(&args.name, &settings, None)
        .await
        .map_err(|error| caller.failed(error))?;
    show(&account, out)
}

async fn set(args: AccountSetArgs, caller: &Caller, out: &mut Output) -> Result<(), Failure> {
    let asked = args.settings;
    let inner = |limit: Option<Limit>| limit.map(|limit| limit.0);
    let change = AccountChange {
        display_name: asked.display_name,
        max_keys: inner(asked.max_keys),
        max_bytes: inner(asked.max_bytes),
        max_requests_per_second: inner(asked.max_rps),
        at_limit: asked.at_limit.map(at_limit),
        etag: args.etag,
    };
    let accounts = caller.mutating(args.dry_run.dry_run).accounts();
    let account = accounts
        .update(&args.name, &change)
        .await
        .map_err(|error| caller.failed(error))?;
    show(&account, out)
}

async fn list(caller: &Caller, out: &mut Output) -> Result<(), Failure> {
    let mut pages = caller.client.accounts().pages();
    let mut found: Vec<Account> = Vec::new();
    while let Some(page) = pages
        .next_page()
        .await
        .map_err(|error| caller.failed(error))?
    {
        found.extend(page);
    }
    match out.format {
        Format::Json => {
            let accounts: Vec<Value> = found.iter().map(account_object).collect();
            out.json(&json!({"accounts": accounts}))?;
        }
        Format::Text => {
            let rows: Vec<_> = found.iter().map(row).collect();
            let head = [
                "NAME",
                "MAX KEYS",
                "MAX BYTES",
                "MAX RPS",
                "AT LIMIT",
                "DISPLAY NAME",
            ];
            out.table(&head, &rows)?;
        }
    }
    Ok(())
}

fn show(account: &Account, out: &mut Output) -> Result<(), Failure> {
    match out.format {
        Format::Json => out.json(&account_object(account))?,
        Format::Text => {
            let settings = &account.settings;
            out.pairs(&[
                ("name", account.name.clone()),
                ("display name", settings.display_name.clone()),
                ("max keys", shown(settings.max_keys)),
                ("max bytes", shown_size(settings.max_bytes)),
                ("max rps", shown(settings.max_requests_per_second)),
                ("at limit", settings.at_limit.to_string()),
                ("etag", account.etag.clone()),
                ("uid", account.uid.clone()),
            ])?;
        }
    }
    Ok(())
}

fn row(account: &Account) -> Vec<String> {
    let settings = &account.settings;
    vec![
        account.name.clone(),
        shown(settings.max_keys),
        shown_size(settings.max_bytes),
        shown(settings.max_requests_per_second),
        settings.at_limit.to_string(),
        settings.display_name.clone(),
    ]
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "none".into(), |limit| limit.to_string())
}

fn shown_size(limit: Option<u64>) -> String {
    limit.map_or_else(|| "none".into(), show_size)
}

fn at_limit(argument: AtLimitArg) -> AtLimit {
    match argument {
        AtLimitArg::Refuse => AtLimit::Refuse,
        AtLimitArg::Evict => AtLimit::Evict,
    }
}
