//! The `larder` command: the server, and every call to it.

mod args;
mod bench;
mod command;
mod config_file;
mod connect;
mod data_dir;
mod dump_file;
mod failure;
mod health;
mod import;
mod local_server;
mod output;
mod serve;
mod supervisor;
mod units;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command};
use crate::failure::{EXIT_USAGE, Failure};
use crate::output::{Format, Output};

/// Entries are many small allocations, made and freed by every thread. It gives huge
/// pages where the system has them, so that a look at an entry seldom misses the TLB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let format = match cli.connection.json {
        true => Format::Json,
        false => Format::Text,
    };
    let mut out = Output::new(format);
    let done = match cli.command {
        Some(Command::Serve(args)) => return ended(serve::run(*args), format),
        Some(Command::Accounts(command)) => return ended(serve::run_accounts(command), format),
        Some(Command::Config(command)) => config_file::run(&command, format, &mut out),
        Some(Command::Health(args)) => health::run(&args, cli.connection.timeout, &mut out),
        Some(Command::Bench(args)) => bench::run(*args, &cli.connection, &mut out),
        Some(Command::Completions { shell }) => command::completions(shell, &mut out),
        Some(Command::Man(args)) => command::man(&args, &mut out),
        Some(command) => call(command, &cli.connection, &mut out),
        None => out
            .line(Cli::command().render_help().to_string().trim_end())
            .map_err(Failure::from),
    };
    // What was printed counts, also when the command failed after it.
    let flushed = out.flush().map_err(Failure::from);
    match done.and(flushed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(format),
    }
}

/// Runs a command that calls a server. The connection is driven by a thread of
/// its own, so that it stays alive while a dump waits for a slow disk.
fn call(command: Command, connection: &args::Connection, out: &mut Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::file("cannot start", &error))?;
    runtime.block_on(command::call(command, connection, out))
}

/// The end of a server.
fn ended(result: anyhow::Result<ExitCode>, format: Format) -> ExitCode {
    result.unwrap_or_else(|error| Failure::Failed(format!("{error:#}")).report(format))
}

/// A command line that cannot be understood, or that asks for help.
fn usage(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader who went away has seen enough.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ if json => {
            let text = error.render().to_string();
            let text = text.trim_start_matches("error: ");
            let text = text.split("\n\n").next().unwrap_or(text).trim();
            Failure::Usage(text.replace('\n', " ")).report(Format::Json)
        }
        _ => {
            let _ = error.print();
            ExitCode::from(EXIT_USAGE)
        }
    }
}
