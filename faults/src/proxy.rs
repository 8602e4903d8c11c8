//! The proxy: a listener, and a task for each connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::pipe::{End, pipe};
use crate::plan::{Plan, Schedule};

/// A proxy that serves until it is dropped; its connections then end.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    schedule: Schedule,
    connections: AtomicU64,
    resets: AtomicU64,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
}

/// What a proxy has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Served {
    /// Connections taken.
    pub connections: u64,
    /// Of them, ended by a reset of the proxy's own.
    pub resets: u64,
    /// Bytes passed on to the server, on connections that have ended.
    pub up_bytes: u64,
    /// Bytes passed on to clients, on connections that have ended.
    pub down_bytes: u64,
}

impl Proxy {
    /// Listens at `listen` (port 0 picks a free one), and connects each client to
    /// `target`. Runs on the runtime that this is called on.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub async fn start(
        listen: SocketAddr,
        target: SocketAddr,
        schedule: Schedule,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            schedule,
            connections: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            up_bytes: AtomicU64::new(0),
            down_bytes: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// Where clients connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has done so far.
    pub fn served(&self) -> Served {
        Served {
            connections: self.shared.connections.load(Relaxed),
            resets: self.shared.resets.load(Relaxed),
            up_bytes: self.shared.up_bytes.load(Relaxed),
            down_bytes: self.shared.down_bytes.load(Relaxed),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Before the next try to take a connection, when one could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Ends with this task, and its connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // Out of files, for example: the next one may find some.
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let plan = shared
            .schedule
            .plan(shared.connections.fetch_add(1, Relaxed));
        connections.spawn(serve(client, plan, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

/// Carries one connection to its end. That of either side, or of the network, is
/// none of the proxy's business.
async fn serve(mut client: TcpStream, plan: Plan, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(shared.target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut up_bytes, mut down_bytes) = (0, 0);
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pipe(from_client, to_server, &plan.up, &mut up_bytes);
        let down = pipe(from_server, to_client, &plan.down, &mut down_bytes);
        both(up, down).await
    };
    shared.up_bytes.fetch_add(up_bytes, Relaxed);
    shared.down_bytes.fetch_add(down_bytes, Relaxed);
    if matches!(end, Ok(End::Reset)) {
        shared.resets.fetch_add(1, Relaxed);
        // Closed with bytes that linger for no time, a socket sends RST.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Waits for both directions to close, or for the first that does anything else.
async fn both(
    up: impl Future<Output = io::Result<End>>,
    down: impl Future<Output = io::Result<End>>,
) -> io::Result<End> {
    tokio::pin!(up, down);
    let (first, is_up) = tokio::select! {
        end = &mut up => (end, true),
        end = &mut down => (end, false),
    };
    match first {
        Ok(End::Closed) if is_up => down.await,
        Ok(End::Closed) => up.await,
        other => other,
    }
}
