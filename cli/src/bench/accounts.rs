//! `larder bench accounts`: as many accounts as a load of many callers needs.

use clap::Args;
use larder_client::{AccountSettings, Action, Client, Error, TokenRights};
use tokio::task::JoinSet;

use crate::args::Connection;
use crate::connect::Caller;
use crate::failure::Failure;
use crate::output::{Format, Output};

use super::progress::Progress;

/// Most accounts that are made at once: each is made durable by itself, and
/// those that come together share the wait.
const MAX_IN_FLIGHT: usize = 64;

/// `larder bench accounts`.
///
/// Makes the accounts NAME-0, NAME-1 and so on, which needs an administrator's
/// token, and prints a token of each that reads and writes, one a line.
#[derive(Debug, Args)]
pub(super) struct AccountsArgs {
    /// How many
    #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,

    /// What their names begin with
    #[arg(long, value_name = "NAME", default_value = "bench")]
    name: String,

    /// Keys that each may hold
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_keys: u64,

    /// Requests that each may make a second
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_rps: u64,
}

/// Prints the tokens; with `--json` as `{"tokens": […]}`.
pub(super) async fn run(
    args: &AccountsArgs,
    connection: &Connection,
    out: &mut Output,
) -> Result<(), Failure> {
    let caller = Caller::connect(connection).await?;
    let settings = AccountSettings {
        display_name: "larder bench: may be deleted".into(),
        max_keys: Some(args.max_keys),
        max_requests_per_second: Some(args.max_rps),
        ..AccountSettings::default()
    };
    let progress = Progress::new(Some(args.count), out.format);
    let mut tokens = Vec::new();
    let mut making = JoinSet::new();
    let mut next = 0;
    loop {
        while next < args.count && making.len() < MAX_IN_FLIGHT {
            let name = format!("{}-{next}", args.name);
            making.spawn_local(make(caller.client.clone(), name, settings.clone()));
            next += 1;
        }
        let Some(made) = making.join_next().await else {
            break;
        };
        let made = made.map_err(|error| Failure::Failed(error.to_string()))?;
        let token = made.map_err(|error| caller.failed(error))?;
        tokens.push(token.ok_or_else(|| {
            Failure::Failed("the server made a token and kept its secret".into())
        })?);
        progress.show(next, format!("{} of {} accounts", tokens.len(), args.count));
    }
    drop(progress);
    match out.format {
        Format::Json => out.json(&serde_json::json!({"tokens": tokens}))?,
        Format::Text => {
            for token in &tokens {
                out.line(token)?;
            }
        }
    }
    Ok(())
}

async fn make(
    client: Client,
    name: String,
    settings: AccountSettings,
) -> Result<Option<String>, Error> {
    let accounts = client.accounts();
    accounts.create(&name, &settings, None).await?;
    let rights = TokenRights {
        actions: vec![Action::Read, Action::Write],
        ..TokenRights::default()
    };
    let created = accounts.create_token(&name, &rights, None, None).await?;
    Ok(created.secret.map(|secret| secret.expose().to_owned()))
}
