//! Attacks on a running server, and what they do to its other clients, and ends of a
//! server while clients write: `cargo xtask torture http2`, `drain` and `crash`.
//!
//! | module | what |
//! |---|---|
//! | `server` | the program under attack: its start, memory, processor time and end |
//! | `victim` | a client that makes calls all the while, at a fixed rate |
//! | `wire` | one connection of an attacker: frames, without any of the rules |
//! | `calls` | the calls that both make |
//! | `http2` | the attacks, and what each must come to |
//! | `restart` | ends by SIGTERM and SIGKILL, and what is there after the next start |

mod calls;
mod http2;
mod restart;
mod server;
mod victim;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use self::server::Program;

/// Attacks a server, and says what that did to its other clients.
#[derive(Parser)]
#[command(name = "cargo xtask torture", bin_name = "cargo xtask torture")]
struct Arguments {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// What a client can do with HTTP/2 (RFC 9113, section 10.5).
    Http2(Http2),
    /// Ends by SIGTERM under load: no call cut, nothing acknowledged lost.
    Drain(Restart),
    /// Ends by SIGKILL under load, a third in the middle of a snapshot: every snapshot is whole.
    Crash(Restart),
}

#[derive(Args)]
struct Restart {
    /// How often.
    #[arg(long, default_value_t = 500)]
    rounds: u64,
    /// When each comes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections that write, with 8 calls in flight each.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// The `larder` to run [default: the one that was built with this program].
    #[arg(long, value_name = "PROGRAM")]
    larder: Option<PathBuf>,
}

#[derive(Args)]
struct Http2 {
    /// How long each attack goes on.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Only this attack; may be repeated.
    #[arg(long, value_name = "NAME")]
    attack: Vec<String>,
    /// List the attacks.
    #[arg(long)]
    list: bool,
    /// Connections of the attacks that make many.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// The `larder` to attack [default: the one that was built with this program].
    #[arg(long, value_name = "PROGRAM", conflicts_with = "echo_cache")]
    larder: Option<PathBuf>,
    /// Attack the transport's example `echo_cache` instead.
    #[arg(long)]
    echo_cache: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=86_400.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("not between 0.1 and 86,400".to_owned())
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().kind {
        Kind::Http2(arguments) => http2(arguments),
        Kind::Drain(arguments) => restart(arguments, restart::End::Drain),
        Kind::Crash(arguments) => restart(arguments, restart::End::Crash),
    }
}

fn restart(arguments: Restart, end: restart::End) -> anyhow::Result<ExitCode> {
    let own = std::env::current_exe()?;
    let plan = restart::Plan {
        larder: arguments
            .larder
            .unwrap_or_else(|| own.with_file_name("larder")),
        end,
        rounds: arguments.rounds,
        seed: arguments.seed,
        connections: arguments.connections.max(1),
    };
    let good = restart::run(&plan)?;
    Ok(ExitCode::from(u8::from(!good)))
}

fn http2(arguments: Http2) -> anyhow::Result<ExitCode> {
    if arguments.list {
        http2::list();
        return Ok(ExitCode::SUCCESS);
    }
    let own = std::env::current_exe()?;
    let program = match arguments.larder {
        Some(path) => Program::Larder(path),
        None if arguments.echo_cache => {
            Program::EchoCache(own.with_file_name("examples/echo_cache"))
        }
        None => Program::Larder(own.with_file_name("larder")),
    };
    let size = http2::Size {
        duration: Duration::from_secs_f64(arguments.seconds),
        connections: arguments.connections.max(1),
    };
    let good = http2::run(&program, size, &arguments.attack)?;
    Ok(ExitCode::from(u8::from(!good)))
}
