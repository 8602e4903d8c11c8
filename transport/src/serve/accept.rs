//! Listening sockets. A thread of its own takes connections, and gives each to
//! the thread that has the fewest: so they are even, and stay so while
//! connections come and go.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::driver::Course;
use super::listener::{Bound, Listener, Peer};
use super::tls::Tls;
use super::unproven::Pool;
use super::workers::{Accepted, Taken, Worker, places};
use super::{Config, Signals};
use crate::shared::Shared;
use crate::stats::Counter;

/// Out of descriptors, or of memory: wait for some to come back, rather than
/// spin.
const BACK_OFF: Duration = Duration::from_millis(100);

struct Acceptor {
    workers: Vec<Worker>,
    places: Arc<Semaphore>,
    unproven: Arc<Pool>,
    shared: Arc<Shared>,
    seed: u64,
}

/// Starts the thread.
pub(super) fn start(
    listeners: Vec<Listener>,
    workers: Vec<Worker>,
    config: &Config,
    shared: &Arc<Shared>,
    mut signals: Signals,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let acceptor = Arc::new(Acceptor {
        workers,
        places: places(config.max_connections),
        unproven: Pool::new(config.max_unproven_connections),
        shared: Arc::clone(shared),
        seed: config.seed,
    });
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let entered = runtime.enter();
        let listener = Listening::new(listener, shared)?;
        drop(entered);
        tasks.spawn_on(Arc::clone(&acceptor).accept(listener), runtime.handle());
    }
    drop(acceptor);
    std::thread::Builder::new()
        .name("rpc-accept".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                // Its sender gone: nobody waits for the server any more.
                let is_over = |course: &Course| *course != Course::Serving;
                let _ = signals.course.wait_for(is_over).await;
                tasks.shutdown().await;
            });
            drop(runtime);
            drop(signals);
        })
}

/// A listener on the runtime of the thread.
struct Listening {
    socket: Polled,
    tls: Option<Tls>,
    /// Its number in the registry.
    id: u64,
}

enum Polled {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    fn new(listener: Listener, shared: &Shared) -> io::Result<Self> {
        let mut local = None;
        let socket = match listener.socket {
            Bound::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                local = listener.local_addr().ok();
                Polled::Tcp(TcpListener::from_std(listener)?)
            }
            Bound::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Polled::Unix(UnixListener::from_std(listener)?)
            }
        };
        Ok(Self {
            socket,
            tls: listener.tls,
            id: shared.registry().listen(local),
        })
    }

    async fn accept(&self) -> io::Result<(Taken, Peer)> {
        match &self.socket {
            Polled::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                // Without it answers wait for acknowledgements: a fifth of the
                // calls.
                socket.set_nodelay(true)?;
                Ok((Taken::Tcp(socket.into_std()?), Peer::Tcp(address)))
            }
            Polled::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok((Taken::Unix(socket.into_std()?), Peer::Unix))
            }
        }
    }
}

impl Acceptor {
    async fn accept(self: Arc<Self>, listener: Listening) {
        let mut jitter = self.seed;
        loop {
            // A connection over the limit waits in the kernel's queue.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return;
            };
            let accepted = match listener.accept().await {
                Err(error) if is_of_one_connection(&error) => continue,
                accepted => accepted,
            };
            let Ok((socket, peer)) = accepted else {
                self.shared.stats().count(Counter::AcceptErrors);
                tokio::time::sleep(BACK_OFF).await;
                continue;
            };
            self.shared.stats().count(Counter::Accepted);
            // Weyl's sequence: any number of them spreads evenly.
            jitter = jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
            if let Some(worker) = self.workers.iter().min_by_key(|each| each.connections()) {
                worker.take(Accepted {
                    socket,
                    tls: listener.tls.clone(),
                    peer,
                    listener: listener.id,
                    place,
                    unproven: self.unproven.enter(),
                    jitter: jitter >> 32,
                });
            }
        }
    }
}

/// Errors of a connection that was gone before it was taken.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
