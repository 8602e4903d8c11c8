//! Listening sockets. A thread of its own takes connections, and gives each to
//! the thread that has the fewest: so they are even, and stay so while
//! connections come and go.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::Config;
use super::stats::Stats;
use super::workers::{Accepted, Worker, places};

/// Out of descriptors, or of memory: wait for some to come back, rather than
/// spin.
const BACK_OFF: Duration = Duration::from_millis(100);

struct Acceptor {
    workers: Vec<Worker>,
    places: Arc<Semaphore>,
    unproven: Arc<Semaphore>,
    stats: Arc<Stats>,
    seed: u64,
}

/// Starts the thread.
pub(super) fn start(
    listeners: Vec<std::net::TcpListener>,
    workers: Vec<Worker>,
    config: &Config,
    stats: &Arc<Stats>,
    mut drain: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let acceptor = Arc::new(Acceptor {
        workers,
        places: places(config.max_connections),
        unproven: places(config.max_unproven_connections),
        stats: Arc::clone(stats),
        seed: config.seed,
    });
    let mut tasks = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        drop(entered);
        tasks.spawn_on(Arc::clone(&acceptor).accept(listener), runtime.handle());
    }
    drop(acceptor);
    std::thread::Builder::new()
        .name("rpc-accept".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                // Its sender gone: nobody waits for the server any more.
                let _ = drain.wait_for(|drain| *drain).await;
                tasks.shutdown().await;
            });
        })
}

impl Acceptor {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut jitter = self.seed;
        loop {
            // A connection over the limit waits in the kernel's queue.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return;
            };
            let accepted = match listener.accept().await {
                Ok((socket, peer)) => Self::prepare(socket).map(|socket| (socket, peer)),
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => Err(error),
            };
            let Ok((socket, peer)) = accepted else {
                Stats::count(&self.stats.accept_errors);
                tokio::time::sleep(BACK_OFF).await;
                continue;
            };
            let Ok(unproven) = Arc::clone(&self.unproven).try_acquire_owned() else {
                Stats::count(&self.stats.refused);
                continue;
            };
            Stats::count(&self.stats.accepted);
            // Weyl's sequence: any number of them spreads evenly.
            jitter = jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
            if let Some(worker) = self.workers.iter().min_by_key(|each| each.connections()) {
                worker.take(Accepted {
                    socket,
                    peer,
                    place,
                    unproven,
                    jitter: jitter >> 32,
                });
            }
        }
    }

    fn prepare(socket: tokio::net::TcpStream) -> io::Result<std::net::TcpStream> {
        // Without it answers wait for acknowledgements: a fifth of the calls.
        socket.set_nodelay(true)?;
        socket.into_std()
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
