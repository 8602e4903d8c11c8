//! The transport on tokio: sockets, one thread for each core, and connections
//! spread evenly over them.
//!
//! | file | what |
//! |---|---|
//! | `driver.rs` | one connection on one socket |
//! | `sniff.rs` | RFC 9113, section 3.3: HTTP/2 with prior knowledge, or HTTP/1.1 |
//! | `accept.rs` | listening sockets |
//! | `workers.rs` | a current-thread runtime for each core |
//! | `stats.rs` | what is counted |

mod accept;
mod driver;
mod sniff;
mod stats;
mod workers;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::sync::watch;

pub use self::driver::Driver;
pub use self::sniff::{Protocol, Rewind, sniff};
pub use self::stats::Stats;
use crate::general::GeneralLane;
use crate::limits::Limits;
use crate::rpc::{Handler, Rpc};

/// Makes what answers the calls of a connection.
pub trait Serve: Send + Sync + 'static {
    /// The typed lane.
    type Handler: Handler<Method: Send, Waiting: Send> + Send + 'static;
    /// The general lane.
    type General: GeneralLane<Body: Send, Future: Send> + Send + 'static;

    /// A connection begins.
    fn connection(&self, peer: SocketAddr) -> Rpc<Self::Handler, Self::General>;

    /// A connection of HTTP/1.1, with all its bytes; it ends with the future.
    /// When `drain` turns true, it should.
    fn http1(
        &self,
        io: Rewind<TcpStream>,
        peer: SocketAddr,
        drain: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// Threads, each with a runtime of its own. Default: one for each core.
    pub threads: usize,
    /// Connections at a time, over all threads; more wait in the kernel's queue.
    /// Default 20,000.
    pub max_connections: usize,
    /// Connections that no answer was sent on yet, among them: those above are
    /// closed at once. Default 1,000.
    pub max_unproven_connections: usize,
    /// Of each connection.
    pub limits: Limits,
    /// Any number: spreads what happens at times over connections.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            max_connections: 20_000,
            max_unproven_connections: 1000,
            limits: Limits::default(),
            seed: 0,
        }
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    drain: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    stats: Arc<Stats>,
}

impl Running {
    /// Takes no more connections, and has those there are end with their calls,
    /// or after `drain_grace`.
    pub fn drain(&self) {
        self.drain.send_replace(true);
    }

    /// Waits until every connection has ended after [`Self::drain`]. Blocks.
    pub fn join(self) {
        for thread in self.threads {
            // A thread that panicked has ended, too.
            let _ = thread.join();
        }
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// Serves on `listeners` until drained.
///
/// # Errors
/// A listener or a thread that cannot be used.
pub fn serve<S: Serve>(
    listeners: Vec<std::net::TcpListener>,
    serve: &Arc<S>,
    config: Config,
) -> io::Result<Running> {
    let config = Config {
        limits: config.limits.in_range(),
        ..config
    };
    let (drain, drained) = watch::channel(false);
    let stats = Arc::new(Stats::default());
    let (workers, mut threads) = workers::start(serve, &config, &stats, &drained)?;
    threads.push(accept::start(listeners, workers, &config, &stats, drained)?);
    Ok(Running {
        drain,
        threads,
        stats,
    })
}

#[cfg(test)]
mod tests;
