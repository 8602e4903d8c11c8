//! Attacks on a running server, and what they do to its other clients, and ends of a
//! server while clients write: `cargo xtask torture http2`, `drain`, `crash`, `isolation`,
//! `rotate`, `overload`, `slow-readers` and `neighbour`; and `larder-torture proxy`.
//!
//! | module | what |
//! |---|---|
//! | `server` | the program under attack: its start, memory, processor time and end |
//! | `victim` | a client that makes calls all the while, at a fixed rate |
//! | `wire` | one connection of an attacker: frames, without any of the rules |
//! | `calls` | the calls that both make |
//! | `proxy` | a proxy that breaks connections, for tests in any language |
//! | `http2` | the attacks, and what each must come to |
//! | `restart` | ends by SIGTERM and SIGKILL, and what is there after the next start |
//! | `isolation` | attempts to reach the data of another account |
//! | `rotate` | certificates that are exchanged under load |
//! | `client` | calls of a client that keeps to the rules |
//! | `random` | numbers that a seed repeats |
//! | `overload` | more calls than can be served |
//! | `quota` | bounds on the server's processor time |
//! | `neighbour` | another account that goes through more than fits |
//! | `slow_readers` | dumps that are read slowly |

mod calls;
mod client;
mod http2;
mod isolation;
mod neighbour;
mod overload;
mod proxy;
mod quota;
mod random;
mod restart;
mod rotate;
mod server;
mod slow_readers;
mod victim;
mod wire;

use std::path::{Path, PathBuf};
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
    /// Ends by SIGTERM under load: no call cut, nothing acknowledged lost.
    Drain(Restart),
    /// Ends by SIGKILL under load, a third in the middle of a snapshot: every snapshot is whole.
    Crash(Restart),
    /// What an account, or a token that is confined, can reach of another's data.
    Isolation(Isolation),
    /// Whether calls fail while the server's certificate is exchanged.
    Rotate(Rotate),
    /// More calls than can be served: what is served of them, and when.
    Overload(Overload),
    /// Dumps whose clients read 1 KiB a second: their memory, and what others notice.
    SlowReaders(SlowReaders),
    /// A neighbour that goes through more than fits: the hits of another account.
    Neighbour(Neighbour),
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
struct Overload {
    /// How long each run goes on.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 65_536)]
    value_bytes: usize,
    /// Stores in a hundred calls; the others are gets.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100))]
    writes: u64,
    /// Connections of each account.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Calls under way on each of them when it is found out how many can be served.
    #[arg(long, default_value_t = 2)]
    calls: usize,
    /// Times the calls that can be served.
    #[arg(long, default_value_t = 4.0)]
    times: f64,
    /// The server's processor time in each period, milliseconds.
    #[arg(long, default_value_t = 2.5)]
    quota_ms: f64,
    /// The period, milliseconds.
    #[arg(long, default_value_t = 10.0)]
    period_ms: f64,
    /// Goodput that must be reached, as a part of the best.
    #[arg(long, default_value_t = 0.9)]
    least_goodput: f64,
    /// Of the calls of an account that asks for little, so many must be served.
    #[arg(long, default_value_t = 0.95)]
    least_modest: f64,
    /// The 99th percentile of what is served, in that at 80 % of capacity.
    #[arg(long, default_value_t = 3.0)]
    most_latency: f64,
    /// The `larder` to overload [default: the one that was built with this program].
    #[arg(long, value_name = "PROGRAM")]
    larder: Option<PathBuf>,
}

impl Overload {
    fn run(self, own: &Path) -> anyhow::Result<bool> {
        let larder = self.larder.unwrap_or_else(|| own.with_file_name("larder"));
        let millis = |ms: f64| Duration::from_secs_f64(ms / 1000.0);
        let size = overload::Size {
            duration: Duration::from_secs_f64(self.seconds),
            value_bytes: self.value_bytes,
            writes: self.writes,
            connections: self.connections.max(1),
            calls: self.calls.max(1),
            times: self.times,
            share: quota::Share {
                quota: millis(self.quota_ms),
                period: millis(self.period_ms),
            },
            least_goodput: self.least_goodput,
            least_modest: self.least_modest,
            most_latency: self.most_latency,
        };
        overload::run(&Program::Larder(larder), size)
    }
}

#[derive(Args)]
struct SlowReaders {
    /// How many.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    readers: u16,
    /// How long they go on, in each of the ways that they can be slow.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Memory that each may cost the server, KiB.
    #[arg(long, default_value_t = 512)]
    most_kib: u64,
    /// The 99th percentile of another account's calls, in that without readers.
    #[arg(long, default_value_t = 1.2)]
    most_latency: f64,
    /// The `larder` to attack [default: the one that was built with this program].
    #[arg(long, value_name = "PROGRAM")]
    larder: Option<PathBuf>,
}

impl SlowReaders {
    fn run(self, own: &Path) -> anyhow::Result<bool> {
        let larder = self.larder.unwrap_or_else(|| own.with_file_name("larder"));
        let size = slow_readers::Size {
            readers: self.readers.into(),
            duration: Duration::from_secs_f64(self.seconds),
            most_bytes: self.most_kib << 10,
            most_latency: self.most_latency,
        };
        slow_readers::run(&larder, size)
    }
}

#[derive(Args)]
struct Neighbour {
    /// How long the victim is watched, alone and beside the neighbour.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Calls of the victim each second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// The neighbour's rate, in that of the victim.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
    /// Points of a hundred that the victim's hit ratio may fall by.
    #[arg(long, default_value_t = 0.5)]
    most_points: f64,
    /// The 99th percentile of the victim's latency, in that alone.
    #[arg(long, default_value_t = 2.0)]
    most_latency: f64,
    /// Repeats what the victim asks for.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The `larder` to attack [default: the one that was built with this program].
    #[arg(long, value_name = "PROGRAM")]
    larder: Option<PathBuf>,
}

impl Neighbour {
    fn run(self, own: &Path) -> anyhow::Result<bool> {
        let larder = self.larder.unwrap_or_else(|| own.with_file_name("larder"));
        let size = neighbour::Size {
            duration: Duration::from_secs_f64(self.seconds),
            rate: self.rate,
            times: self.times,
            most_points: self.most_points,
            most_latency: self.most_latency,
        };
        neighbour::run(&larder, size, self.seed)
    }
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

#[derive(Args)]
struct Isolation {
    /// Attempts to make.
    #[arg(long, default_value_t = 10_000)]
    attempts: u64,
    /// Repeats a run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The `larder` to attack [default: the one that was built with this program].
    #[arg(long, value_name = "PROGRAM")]
    larder: Option<PathBuf>,
}

#[derive(Args)]
struct Rotate {
    /// Times that the certificate is exchanged.
    #[arg(long, default_value_t = 20)]
    rotations: u64,
    /// The `larder` to call [default: the one that was built with this program].
    #[arg(long, value_name = "PROGRAM")]
    larder: Option<PathBuf>,
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
    let own = std::env::current_exe()?;
    let larder = |given: Option<PathBuf>| given.unwrap_or_else(|| own.with_file_name("larder"));
    let restart = |arguments: Restart, end| {
        restart::run(&restart::Plan {
            larder: larder(arguments.larder),
            end,
            rounds: arguments.rounds,
            seed: arguments.seed,
            connections: arguments.connections.max(1),
        })
    };
    let good = match Arguments::parse().kind {
        Kind::Http2(arguments) => return torture_http2(arguments, &own),
        Kind::Overload(arguments) => arguments.run(&own)?,
        Kind::SlowReaders(arguments) => arguments.run(&own)?,
        Kind::Neighbour(arguments) => arguments.run(&own)?,
        Kind::Proxy(arguments) => return proxy::run(&arguments),
        Kind::Drain(arguments) => restart(arguments, restart::End::Drain)?,
        Kind::Crash(arguments) => restart(arguments, restart::End::Crash)?,
        Kind::Isolation(arguments) => {
            let larder = larder(arguments.larder);
            isolation::run(&larder, arguments.attempts, arguments.seed)?
        }
        Kind::Rotate(arguments) => rotate::run(&larder(arguments.larder), arguments.rotations)?,
    };
    Ok(ExitCode::from(u8::from(!good)))
}

fn torture_http2(arguments: Http2, own: &Path) -> anyhow::Result<ExitCode> {
    if arguments.list {
        http2::list();
        return Ok(ExitCode::SUCCESS);
    }
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
