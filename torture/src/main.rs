//! Attacks on a running server, and what they do to its other clients:
//! `cargo xtask torture http2`; and `larder-torture proxy`.
//!
//! | module | what |
//! |---|---|
//! | `server` | the program under attack: its start, memory, processor time and end |
//! | `victim` | a client that makes calls all the while, at a fixed rate |
//! | `wire` | one connection of an attacker: frames, without any of the rules |
//! | `calls` | the calls that both make |
//! | `proxy` | a proxy that breaks connections, for tests in any language |
//! | `http2` | the attacks, and what each must come to |

mod calls;
mod http2;
mod proxy;
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
    /// A proxy that breaks connections, until it is ended.
    Proxy(proxy::Arguments),
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
    let arguments = match Arguments::parse().kind {
        Kind::Http2(arguments) => arguments,
        Kind::Proxy(arguments) => return proxy::run(&arguments),
    };
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
