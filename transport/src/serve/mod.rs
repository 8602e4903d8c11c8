//! The transport on tokio: sockets, one thread for each core, and connections
//! spread evenly over them.
//!
//! | file | what |
//! |---|---|
//! | `driver.rs` | one connection on one socket |
//! | `sniff.rs` | RFC 9113, section 3.3: HTTP/2 with prior knowledge, or HTTP/1.1 |
//! | `listener.rs` | where connections come from, and who they say they are |
//! | `socket.rs` | TCP, Unix sockets, and TLS on either |
//! | `tls.rs` | handshakes; RFC 7301, ALPN |
//! | `accept.rs` | listening sockets |
//! | `pulse.rs` | how late a thread is |
//! | `unproven.rs` | connections that have made no request yet |
//! | `workers.rs` | a current-thread runtime for each core |

mod accept;
mod driver;
mod listener;
mod pulse;
mod sniff;
mod socket;
mod tls;
mod unproven;
mod workers;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

pub use self::driver::{Course, Driver};
pub use self::listener::{ConnectionInfo, Listener, Peer, TlsInfo};
pub use self::pulse::{Pulse, pulse};
pub use self::sniff::{Protocol, REQUEST_LINE_BYTES, Rewind, sniff};
pub use self::socket::{Socket, TlsSocket};
pub use self::tls::Tls;
pub use self::unproven::Proof;
use crate::general::GeneralLane;
use crate::limits::Limits;
use crate::rpc::{Handler, Rpc};
use crate::shared::Shared;
use crate::stats::Stats;

/// Makes what answers the calls of a connection.
pub trait Serve: Send + Sync + 'static {
    /// The typed lane.
    type Handler: Handler<Method: Send, Waiting: Send> + Send + 'static;
    /// The general lane.
    type General: GeneralLane<Body: Send, Future: Send> + Send + 'static;

    /// A connection begins.
    fn connection(&self, who: &ConnectionInfo) -> Rpc<Self::Handler, Self::General>;

    /// A connection of HTTP/1.1, with all its bytes; it ends with the future.
    ///
    /// With its first whole request it is to call [`Proof::proven`], or it is
    /// dropped after `Times::first_request`, or for a newer one. When `drain`
    /// turns true, it should end with the requests in flight. It is dropped when
    /// the server ends at once.
    fn http1(
        &self,
        io: Rewind<Socket>,
        who: ConnectionInfo,
        proof: Proof,
        drain: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// How to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Threads, each with a runtime of its own. Default: one for each core.
    pub threads: usize,
    /// Connections at a time, over all threads; more wait in the kernel's queue.
    /// Default 20,000.
    pub max_connections: usize,
    /// Connections among them that have made no whole request yet, at least 1:
    /// one more closes the oldest of them. Default 1,000.
    pub max_unproven_connections: usize,
    /// TLS handshakes in flight, over all threads, each counted from its whole
    /// `ClientHello`; more wait. Default 256.
    pub max_handshakes: usize,
    /// What all connections together may keep of answers that their clients do
    /// not take and of requests that are not complete, bytes. Above it, calls are
    /// refused, and no more than 16 KiB are produced for a client that does not
    /// take them. Default 1 GiB.
    pub max_buffered_bytes: usize,
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
            max_handshakes: 256,
            max_buffered_bytes: 1024 * 1024 * 1024,
            limits: Limits::default(),
            seed: 0,
        }
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    course: watch::Sender<Course>,
    drain: watch::Sender<bool>,
    limits: watch::Sender<Arc<Limits>>,
    /// Each thread has a receiver until it ends.
    alive: watch::Sender<()>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Running {
    /// Takes no more connections, and has those there are end with their calls,
    /// or after `drain_grace`.
    pub fn drain(&self) {
        self.course.send_if_modified(|course| {
            let serving = *course == Course::Serving;
            if serving {
                *course = Course::Draining;
            }
            serving
        });
        self.drain.send_replace(true);
    }

    /// Ends all that is left, at once: calls in flight are answered with what
    /// their handlers make of [`Refusal::Draining`](crate::rpc::Refusal), and
    /// connections are closed with what they can write within a second.
    pub fn abort(&self) {
        self.course.send_replace(Course::Ending);
        self.drain.send_replace(true);
    }

    /// Waits until every connection and thread has ended after [`Self::drain`]
    /// or [`Self::abort`].
    pub async fn ended(&self) {
        self.alive.closed().await;
    }

    /// The same, and blocks.
    pub fn join(self) {
        for thread in self.threads {
            // A thread that panicked has ended, too.
            let _ = thread.join();
        }
    }

    /// Gives the connections that begin from now on these limits.
    pub fn set_limits(&self, limits: &Limits) {
        let limits = Arc::new(limits.clone().in_range());
        self.limits.send_replace(limits);
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.shared.stats()
    }

    /// What the connections share: [`Self::stats`], and the memory that they
    /// keep. For a metrics endpoint that outlives the borrow.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

/// Serves on `listeners` until drained.
///
/// # Errors
/// A listener or a thread that cannot be used.
pub fn serve<S: Serve>(
    listeners: Vec<Listener>,
    serve: &Arc<S>,
    config: Config,
) -> io::Result<Running> {
    let config = Config {
        limits: config.limits.in_range(),
        ..config
    };
    let shared = Arc::new(Shared::new(config.max_buffered_bytes));
    let (course, courses) = watch::channel(Course::Serving);
    let (drain, drained) = watch::channel(false);
    let (alive, lives) = watch::channel(());
    let (limits, limited) = watch::channel(Arc::new(config.limits.clone()));
    let signals = Signals {
        course: courses,
        drain: drained,
        limits: limited,
        alive: lives,
    };
    let (workers, mut threads) = workers::start(serve, &config, &shared, &signals)?;
    threads.push(accept::start(
        listeners, workers, &config, &shared, signals,
    )?);
    Ok(Running {
        course,
        drain,
        limits,
        alive,
        threads,
        shared,
    })
}

/// What a thread is told from outside, and how it tells that it lives.
#[derive(Clone)]
struct Signals {
    course: watch::Receiver<Course>,
    drain: watch::Receiver<bool>,
    /// Of connections that begin.
    limits: watch::Receiver<Arc<Limits>>,
    alive: watch::Receiver<()>,
}

#[cfg(test)]
mod tests;
