//! `larder bench`: load for a running server, and replays of real traces.
//!
//! A load is made by threads that do nothing else, one unless more are asked for:
//! nothing crosses from one to another, and a server on the same machine keeps
//! the other cores. A replay is one call at a time, on a runtime of one thread.

mod accounts;
mod interrupt;
mod key_choice;
mod load;
mod load_report;
mod mix;
mod progress;
mod random;
mod replay;
mod stats;
mod tenant;
mod trace;
mod watch;
mod wire;

use clap::{Args, Parser, Subcommand};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::args::Connection;
use crate::failure::Failure;
use crate::output::Output;
use crate::units::{Limit, parse_size_limit};

use self::accounts::AccountsArgs;
use self::load::LoadArgs;
use self::replay::ReplayArgs;

/// What becomes of the entries of a load.
const ENTRIES: &str = "The entries of a load lie in the namespace `bench`, unless --namespace names \
    another, and stay there; their keys begin with k and c. Latencies are those of calls that \
    succeeded, as this process sees them. A read that finds a value of another length than \
    --value-bytes has failed: --preload writes all values anew.";

/// `larder bench`.
#[derive(Debug, Args)]
#[command(after_help = ENTRIES)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    load: Option<LoadArgs>,
}

/// `larder bench …`.
#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Hit ratio of a real trace, through the running server
    Replay(ReplayArgs),
    /// Make many accounts, and print a token of each, for `--tokens`
    Accounts(AccountsArgs),
}

/// Largest value that a benchmark writes, bytes: more than any server takes,
/// and little enough to hold.
const MAX_VALUE_BYTES: usize = 1 << 30;

/// The options of a load by themselves, for their defaults: without any of
/// them given, there is no [`BenchArgs::load`].
#[derive(Debug, Parser)]
struct LoadAlone {
    #[command(flatten)]
    load: LoadArgs,
}

/// Runs `larder bench` and `larder bench replay`. Builds the runtime that each
/// of them needs, and must therefore be called outside of one.
///
/// # Errors
///
/// If the server cannot be reached, refuses what the benchmark needs, or, in a
/// replay, fails a call. A load counts the calls that fail, and is a failure
/// itself only if none succeeded.
pub(crate) fn run(
    args: BenchArgs,
    connection: &Connection,
    out: &mut Output,
) -> Result<(), Failure> {
    let work = async {
        match (args.command, args.load) {
            (Some(_), Some(_)) => Err(Failure::Usage(
                "options of `larder bench` mean nothing to its commands".into(),
            )),
            (Some(BenchCommand::Replay(args)), None) => replay::run(&args, connection, out).await,
            (Some(BenchCommand::Accounts(args)), None) => {
                accounts::run(&args, connection, out).await
            }
            (None, Some(args)) => load::run(&args, connection, out).await,
            (None, None) => load::run(&default_load(), connection, out).await,
        }
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::file("cannot start", &error))?;
    let done = LocalSet::new().block_on(&runtime, work);
    // Threads that still wait for a server which does not answer are not waited
    // for.
    runtime.shutdown_background();
    done
}

fn default_load() -> LoadArgs {
    LoadAlone::parse_from(["larder bench"]).load
}

/// Parses the size of a value, such as `0`, `100` or `64KiB`.
fn parse_value_bytes(text: &str) -> Result<usize, String> {
    let bytes = match parse_size_limit(text) {
        _ if text == "0" => Some(0),
        Ok(Limit(Some(bytes))) => usize::try_from(bytes).ok(),
        Ok(Limit(None)) | Err(_) => None,
    };
    bytes
        .filter(|&bytes| bytes <= MAX_VALUE_BYTES)
        .ok_or_else(|| format!("`{text}` is no size up to 1GiB, such as 100 or 64KiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(arguments: &[&str]) -> Result<BenchArgs, clap::Error> {
        Alone::try_parse_from([&["bench"], arguments].concat()).map(|alone| alone.bench)
    }

    #[test]
    fn a_load_needs_no_options() {
        let args = parse(&[]).unwrap();
        assert!(args.command.is_none() && args.load.is_none());
        // Ends the process if a default is not one.
        assert_eq!(default_load().mix.to_string(), "get:90,set:10");
    }

    #[test]
    fn command_lines() {
        for (arguments, good) in [
            (&["--connections", "2", "--mix", "get:1"][..], true),
            (&["--requests", "10", "--duration", "5s"], false),
            (&["--zipf", "0.99"], true),
            (&["--zipf", "-1"], false),
            (&["--streams", "0"], false),
            (&["--streams", "1001"], false),
            (&["replay", "oltp.lis", "--capacity", "10"], true),
            (&["replay", "oltp.lis"], false),
            (&["replay", "oltp.lis", "--capacity", "0"], false),
            (
                &["replay", "x.csv", "--capacity", "1", "--trace-sizes"],
                true,
            ),
            (
                &[
                    "replay",
                    "x.csv",
                    "--capacity",
                    "1",
                    "--trace-sizes",
                    "--value-bytes",
                    "2",
                ],
                false,
            ),
        ] {
            assert_eq!(parse(arguments).is_ok(), good, "{arguments:?}");
        }
        let both = parse(&["--seed", "1", "replay", "oltp.lis", "--capacity", "10"]).unwrap();
        assert!(both.command.is_some() && both.load.is_some());
    }

    #[test]
    fn sizes_of_values() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1", Some(1)),
            ("4KiB", Some(4096)),
            ("1GiB", Some(1 << 30)),
            ("1025MiB", None),
            ("none", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(parse_value_bytes(text).ok(), bytes, "{text}");
        }
    }
}
