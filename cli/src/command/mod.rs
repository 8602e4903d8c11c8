//! The commands, one file for each kind.

mod account;
mod channelz;
mod entry;
mod keys;
mod shell;
mod token;
mod transfer;

use larder_client::Usage;
use serde_json::json;

use crate::args::{Command, Connection};
use crate::connect::Caller;
use crate::failure::Failure;
use crate::import;
use crate::output::{Format, Output};
use crate::units::show_size;

pub(crate) use shell::{completions, man};

/// Carries out a command that calls a server.
pub(crate) async fn call(
    command: Command,
    connection: &Connection,
    out: &mut Output,
) -> Result<(), Failure> {
    // What can be refused without a server is refused before it is asked.
    transfer::check_terminal(&command)?;
    let caller = match &command {
        Command::Channelz(args) => Caller::connect_admin(&args.admin).await?,
        _ => Caller::connect(connection).await?,
    };
    match command {
        Command::Account(command) => account::run(command, &caller, out).await,
        Command::Token(command) => token::run(command, &caller, out).await,
        Command::Get(args) => entry::get(&args, &caller, out).await,
        Command::Set(args) => entry::set(args, &caller, out).await,
        Command::Del(args) => entry::del(&args, &caller, out).await,
        Command::Touch(args) => entry::touch(&args, &caller, out).await,
        Command::Incr(args) => entry::incr(&args, &caller, out).await,
        Command::Keys(args) => keys::run(&args, &caller, out).await,
        Command::Dump(args) => transfer::dump(&args, &caller, out).await,
        Command::Load(args) => transfer::load(&args, &caller, out).await,
        Command::Import(args) => import::run(&args, &caller, out).await,
        Command::Channelz(args) => channelz::run(&args, &caller, out).await,
        Command::Usage => usage(&caller, out).await,
        Command::Serve(_)
        | Command::Accounts(_)
        | Command::Config(_)
        | Command::Health(_)
        | Command::Completions { .. }
        | Command::Bench(_)
        | Command::Man(_) => Err(Failure::Usage("this command runs by itself".into())),
    }
}

async fn usage(caller: &Caller, out: &mut Output) -> Result<(), Failure> {
    let usage = caller
        .client
        .usage()
        .await
        .map_err(|error| caller.failed(error))?;
    match out.format {
        Format::Json => out.json(&json!({
            "key_count": usage.quota.key_count,
            "max_keys": usage.quota.max_keys,
            "bytes": usage.quota.bytes,
            "max_bytes": usage.quota.max_bytes,
            "hits": usage.hits,
            "misses": usage.misses,
            "evicted": usage.evicted,
            "expired": usage.expired,
            "request_ids": usage.request_ids,
            "forgotten_request_ids": usage.forgotten_request_ids,
        }))?,
        Format::Text => out.pairs(&usage_pairs(&usage))?,
    }
    Ok(())
}

fn usage_pairs(usage: &Usage) -> [(&'static str, String); 9] {
    let quota = usage.quota;
    let reads = usage.hits.saturating_add(usage.misses);
    // Tenths of a percent, in whole numbers.
    let rate = match usage.hits.saturating_mul(1000).checked_div(reads) {
        None => "no reads yet".to_owned(),
        Some(tenths) => format!("{}.{} %", tenths / 10, tenths % 10),
    };
    let of = |limit: Option<String>| {
        limit.map_or_else(|| " (no limit)".into(), |limit| format!(" of {limit}"))
    };
    [
        (
            "keys",
            format!(
                "{}{}",
                quota.key_count,
                of(quota.max_keys.map(|max| max.to_string()))
            ),
        ),
        (
            "bytes",
            format!(
                "{}{}",
                show_size(quota.bytes),
                of(quota.max_bytes.map(show_size))
            ),
        ),
        ("hits", usage.hits.to_string()),
        ("misses", usage.misses.to_string()),
        ("hit rate", rate),
        ("evicted", usage.evicted.to_string()),
        ("expired", usage.expired.to_string()),
        ("request ids", usage.request_ids.to_string()),
        (
            "forgotten request ids",
            usage.forgotten_request_ids.to_string(),
        ),
    ]
}

/// What a dry run puts behind what it says.
pub(crate) fn dry(dry_run: bool) -> &'static str {
    if dry_run { " (dry run)" } else { "" }
}
