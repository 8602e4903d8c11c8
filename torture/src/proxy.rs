//! `larder-torture proxy`: a proxy that breaks connections, for tests in any
//! language.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use larder_faults::{Plan, Proxy, Schedule};

/// The command line.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The server to connect clients to.
    #[arg(long, value_name = "ADDRESS")]
    to: SocketAddr,
    /// Where to listen; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Faults of each connection, by this seed.
    #[arg(long, conflicts_with = "plan")]
    seed: Option<u64>,
    /// The seed's faults include bytes that change: for TLS, which notices.
    #[arg(long, requires = "seed")]
    corrupt: bool,
    /// Faults of the next connection, such as `up:delay=5ms,down:reset=200`; may be
    /// repeated. Connections beyond the last have none.
    #[arg(long, value_name = "FAULTS")]
    plan: Vec<Plan>,
}

/// Says `listening on ADDRESS` once it does, and serves until it is ended.
///
/// # Errors
/// The address cannot be listened at.
#[expect(
    clippy::print_stdout,
    reason = "it is what whoever starts it waits for"
)]
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let schedule = match arguments.seed {
        Some(seed) if arguments.corrupt => Schedule::random_under_tls(seed),
        Some(seed) => Schedule::random(seed),
        None => Schedule::Scripted(arguments.plan.clone()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let proxy = Proxy::start(arguments.listen, arguments.to, schedule)
            .await
            .with_context(|| format!("cannot listen at {}", arguments.listen))?;
        println!("listening on {}", proxy.address());
        std::future::pending::<()>().await;
        Ok(ExitCode::SUCCESS)
    })
}
