//! A current-thread runtime for each core. Nothing is shared between them but
//! what their handlers share.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::sniff::{Protocol, Rewind, sniff};
use super::stats::Stats;
use super::{Config, Driver, Serve};
use crate::connection::Connection;
use crate::limits::Limits;

/// How much is read, and how long, of what a connection that is closed still
/// sends. Reads of at most 1 KiB.
const LINGER_READS: usize = 64;
const LINGER: Duration = Duration::from_secs(1);

/// A connection on its way to its thread.
pub(super) struct Accepted {
    pub(super) socket: std::net::TcpStream,
    pub(super) peer: SocketAddr,
    /// Its place among all connections.
    pub(super) place: OwnedSemaphorePermit,
    /// Its place among those that nothing was answered on yet.
    pub(super) unproven: OwnedSemaphorePermit,
    pub(super) jitter: u64,
}

/// A thread, as the one that accepts sees it.
pub(super) struct Worker {
    /// Connections come one by one, and each has a place.
    sender: mpsc::UnboundedSender<Accepted>,
    connections: Arc<AtomicUsize>,
}

impl Worker {
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, accepted: Accepted) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        // A thread that has ended: the connection is closed.
        let _ = self.sender.send(accepted);
    }
}

/// Starts the threads.
pub(super) fn start<S: Serve>(
    serve: &Arc<S>,
    config: &Config,
    stats: &Arc<Stats>,
    drain: &watch::Receiver<bool>,
) -> io::Result<(Vec<Worker>, Vec<JoinHandle<()>>)> {
    let limits = Arc::new(config.limits.clone());
    let mut workers = Vec::new();
    let mut threads = Vec::new();
    for number in 0..config.threads.max(1) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let thread = Thread {
            serve: Arc::clone(serve),
            limits: Arc::clone(&limits),
            stats: Arc::clone(stats),
            drain: drain.clone(),
            connections: Arc::clone(&connections),
        };
        let handle = std::thread::Builder::new()
            .name(format!("rpc-{number}"))
            .spawn(move || runtime.block_on(thread.run(receiver)))?;
        workers.push(Worker {
            sender,
            connections,
        });
        threads.push(handle);
    }
    Ok((workers, threads))
}

struct Thread<S> {
    serve: Arc<S>,
    limits: Arc<Limits>,
    stats: Arc<Stats>,
    drain: watch::Receiver<bool>,
    connections: Arc<AtomicUsize>,
}

impl<S: Serve> Thread<S> {
    /// Ends when the one that accepts has, and every connection.
    async fn run(self, mut accepted: mpsc::UnboundedReceiver<Accepted>) {
        let thread = Arc::new(self);
        let mut tasks = JoinSet::new();
        while let Some(accepted) = accepted.recv().await {
            tasks.spawn(Arc::clone(&thread).connection(accepted));
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn connection(self: Arc<Self>, accepted: Accepted) {
        let counted = Counted(Arc::clone(&self.connections));
        // A connection that fails here says nothing, and neither do we.
        let _ = self.speak(accepted).await;
        drop(counted);
    }

    async fn speak(&self, accepted: Accepted) -> io::Result<()> {
        let Accepted {
            socket,
            peer,
            place,
            unproven,
            jitter,
        } = accepted;
        let mut io = TcpStream::from_std(socket)?;
        let preface = self.limits.times.preface;
        let sniffed = tokio::time::timeout(preface, sniff(&mut io)).await?;
        let Ok((protocol, read)) = sniffed else {
            return close(io).await;
        };
        if protocol == Protocol::Http1 {
            drop(unproven);
            Stats::count(&self.stats.http1);
            let io = Rewind::new(read, io);
            self.serve.http1(io, peer, self.drain.clone()).await;
            drop(place);
            return Ok(());
        }
        let rpc = self.serve.connection(peer);
        let now = tokio::time::Instant::now().into_std();
        let connection = Connection::new(rpc, Arc::clone(&self.limits), now, jitter);
        let mut driver = Driver::new(io, connection, read, self.drain.clone());
        let mut unproven = Some(unproven);
        let failure = std::future::poll_fn(|cx| {
            let polled = std::pin::Pin::new(&mut driver).poll(cx);
            if unproven.is_some() && driver.is_proven() {
                unproven = None;
            }
            polled
        });
        if let Some(failure) = failure.await {
            self.stats.failed(failure);
        }
        drop(place);
        Ok(())
    }
}

/// Closes a connection that speaks neither protocol. To close before all that it
/// sends is read would be a reset.
async fn close(mut io: TcpStream) -> io::Result<()> {
    io.shutdown().await?;
    let mut dropped = [0; 1024];
    let read = async {
        for _ in 0..LINGER_READS {
            if !matches!(io.read(&mut dropped).await, Ok(1..)) {
                break;
            }
        }
    };
    // Whatever the outcome, it is closed now.
    let _ = tokio::time::timeout(LINGER, read).await;
    Ok(())
}

/// Takes a connection out of its thread's count.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Places for connections.
pub(super) fn places(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
}
