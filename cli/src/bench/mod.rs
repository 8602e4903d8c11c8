//! `larder bench`: load for a running server, and replays of real traces.
//!
//! Both run on a runtime of their own: a load wants all cores, and a replay is
//! quickest when nothing has to cross from one thread to another.

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

use clap::{Args, Parser, Subcommand};
use tokio::runtime;

use crate::args::Connection;
use crate::failure::Failure;
use crate::output::Output;

use self::load::LoadArgs;
use self::replay::ReplayArgs;

/// `larder bench`.
#[derive(Debug, Args)]
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
}

/// The options of a load by themselves, for their defaults.
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
    let cannot_start = |error| Failure::file("cannot start", &error);
    match (args.command, args.load) {
        (Some(_), Some(_)) => Err(Failure::Usage(
            "options of `larder bench` mean nothing to `larder bench replay`".into(),
        )),
        (Some(BenchCommand::Replay(args)), None) => runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(cannot_start)?
            .block_on(replay::run(&args, connection, out)),
        (None, load) => {
            let args = load.unwrap_or_else(|| LoadAlone::parse_from(["larder bench"]).load);
            let mut builder = runtime::Builder::new_multi_thread();
            if let Some(threads) = args.threads {
                builder.worker_threads(threads.get());
            }
            let runtime = builder.enable_all().build().map_err(cannot_start)?;
            runtime.block_on(load::run(args, connection, out))
        }
    }
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
        let load = LoadAlone::parse_from(["larder bench"]).load;
        assert_eq!(load.mix.to_string(), "get:90,set:10");
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
            (&["replay", "x.csv", "--capacity", "1", "--trace-sizes", "--value-bytes", "2"], false),
        ] {
            assert_eq!(parse(arguments).is_ok(), good, "{arguments:?}");
        }
        let both = parse(&["--seed", "1", "replay", "oltp.lis", "--capacity", "10"]).unwrap();
        assert!(both.command.is_some() && both.load.is_some());
    }
}
