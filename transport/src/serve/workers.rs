//! A current-thread runtime for each core. Nothing is shared between them but
//! what their handlers share.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::driver::{Course, Driver};
use super::listener::{ConnectionInfo, Peer};
use super::sniff::{Protocol, Rewind, sniff};
use super::socket::{Socket, TlsSocket};
use super::tls::{Agreed, HandshakeError, Tls, handshake};
use super::unproven::{Fate, Proof, Unproven, Verdict};
use super::{Config, Serve, Signals, pulse};
use crate::connection::Connection;
use crate::general::GeneralLane;
use crate::limits::Times;
use crate::registry::Registered;
use crate::rpc::Handler;
use crate::shared::Shared;
use crate::stats::Counter;

/// How much is read, and how long, of what a connection that is closed still
/// sends. Reads of at most 1 KiB.
const LINGER_READS: usize = 64;
const LINGER: Duration = Duration::from_secs(1);

/// A connection on its way to its thread.
pub(super) struct Accepted {
    pub(super) socket: Taken,
    pub(super) tls: Option<Tls>,
    pub(super) peer: Peer,
    /// The number of the listener that it came by.
    pub(super) listener: u64,
    /// Its place among all connections.
    pub(super) place: OwnedSemaphorePermit,
    /// Its place among those that have made no request yet.
    pub(super) unproven: (Proof, oneshot::Receiver<Verdict>),
    pub(super) jitter: u64,
}

/// A socket that belongs to no runtime.
pub(super) enum Taken {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// A connection of which it is known what it speaks.
struct Begun {
    io: Socket,
    who: ConnectionInfo,
    /// This end, where it has an address.
    local: Option<SocketAddr>,
    protocol: Protocol,
    /// The bytes that told.
    read: Vec<u8>,
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
    shared: &Arc<Shared>,
    signals: &Signals,
) -> io::Result<(Vec<Worker>, Vec<JoinHandle<()>>)> {
    let handshakes = places(config.max_handshakes.max(1));
    let mut workers = Vec::new();
    let mut threads = Vec::new();
    for number in 0..config.threads.max(1) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_unpark(pulse::woke)
            .build()?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let thread = Thread {
            serve: Arc::clone(serve),
            shared: Arc::clone(shared),
            handshakes: Arc::clone(&handshakes),
            signals: signals.clone(),
            connections: Arc::clone(&connections),
        };
        let handle = std::thread::Builder::new()
            .name(format!("rpc-{number}"))
            .spawn({
                let alive = signals.alive.clone();
                move || {
                    runtime.block_on(thread.run(receiver));
                    drop(runtime);
                    drop(alive);
                }
            })?;
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
    shared: Arc<Shared>,
    /// Places for TLS handshakes.
    handshakes: Arc<Semaphore>,
    signals: Signals,
    connections: Arc<AtomicUsize>,
}

impl<S: Serve> Thread<S> {
    /// Ends when the one that accepts has, and every connection.
    async fn run(self, mut accepted: mpsc::UnboundedReceiver<Accepted>) {
        let thread = Arc::new(self);
        let pacer = tokio::spawn(pulse::pace());
        let mut tasks = JoinSet::new();
        while let Some(accepted) = accepted.recv().await {
            tasks.spawn(Arc::clone(&thread).connection(accepted));
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
        pacer.abort();
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
            tls,
            peer,
            listener,
            place,
            unproven: (proof, verdict),
            jitter,
        } = accepted;
        let limits = Arc::clone(&self.signals.limits.borrow());
        let mut unproven = Unproven::new(verdict, limits.times.first_request);
        let begun = tokio::select! {
            begun = self.begin(socket, tls, peer, &limits.times) => begun?,
            () = self.closes(&mut unproven) => return Ok(()),
            // Nothing was asked: the client is free to ask elsewhere.
            () = self.turns(Course::Draining) => return Ok(()),
        };
        let Some(Begun {
            io,
            who,
            local,
            protocol,
            read,
        }) = begun
        else {
            return Ok(());
        };
        let now = tokio::time::Instant::now().into_std();
        let shared = Arc::clone(&self.shared);
        let registered = Registered::new(shared, listener, local, who.clone(), protocol, now);
        match protocol {
            Protocol::Http1 => {
                self.count(Counter::Http1);
                let io = Rewind::new(read, io);
                let served = self.serve.http1(io, who, proof, self.signals.drain.clone());
                tokio::select! {
                    () = served => {}
                    () = self.closes(&mut unproven) => {}
                    () = self.turns(Course::Ending) => self.count(Counter::Aborted),
                }
                drop(registered);
            }
            Protocol::Http2 => {
                let rpc = self.serve.connection(&who);
                let now = tokio::time::Instant::now().into_std();
                let shared = Arc::clone(&self.shared);
                let connection = Connection::new(rpc, limits, shared, now, jitter);
                let course = self.signals.course.clone();
                // What nearly all have is compiled for itself.
                match io {
                    Socket::Tcp(io) => {
                        let driver = Driver::new(io, connection, read, course);
                        http2(driver.registered(registered), proof, unproven).await;
                    }
                    io => {
                        let driver = Driver::new(io, connection, read, course);
                        http2(driver.registered(registered), proof, unproven).await;
                    }
                }
            }
        }
        drop(place);
        Ok(())
    }

    /// Finds out what a connection speaks. `None`: nothing that is served.
    async fn begin(
        &self,
        socket: Taken,
        tls: Option<Tls>,
        peer: Peer,
        times: &Times,
    ) -> io::Result<Option<Begun>> {
        let mut local = None;
        let mut io = match socket {
            Taken::Tcp(socket) => {
                local = socket.local_addr().ok();
                Socket::Tcp(TcpStream::from_std(socket)?)
            }
            Taken::Unix(socket) => Socket::Unix(UnixStream::from_std(socket)?),
        };
        let mut who = ConnectionInfo { peer, tls: None };
        if let Some(tls) = tls {
            let shaken = handshake(&tls, io, times.handshake, &self.handshakes).await;
            let (stream, agreed, info) = match shaken {
                Ok(shaken) => shaken,
                Err(error) => {
                    if error == HandshakeError::ClearText {
                        self.count(Counter::HandshakesClearText);
                    }
                    self.count(match error {
                        HandshakeError::Failed | HandshakeError::ClearText => {
                            Counter::HandshakesFailed
                        }
                        HandshakeError::TimedOut => Counter::HandshakesTimedOut,
                    });
                    return Ok(None);
                }
            };
            io = Socket::Tls(Box::new(TlsSocket::new(stream)));
            who.tls = Some(Arc::new(info));
            if agreed == Agreed::Http2 {
                // The connection itself insists on the preface.
                let (protocol, read) = (Protocol::Http2, Vec::new());
                return Ok(Some(Begun {
                    io,
                    who,
                    local,
                    protocol,
                    read,
                }));
            }
        }
        match tokio::time::timeout(times.preface, sniff(&mut io)).await {
            Ok(Ok((protocol, read))) => Ok(Some(Begun {
                io,
                who,
                local,
                protocol,
                read,
            })),
            Ok(Err(_)) => close(io).await.map(|()| None),
            Err(_) => {
                self.count(Counter::Preface);
                close(io).await.map(|()| None)
            }
        }
    }

    fn count(&self, counter: Counter) {
        self.shared.stats().count(counter);
    }

    /// Comes when a connection without a request is to be closed.
    async fn closes(&self, unproven: &mut Unproven) {
        match std::future::poll_fn(|cx| unproven.poll(cx)).await {
            Fate::Proven => std::future::pending().await,
            Fate::Evicted => self.count(Counter::UnprovenEvicted),
            Fate::TooLate => self.count(Counter::FirstRequest),
        }
    }

    /// Comes when the server's course is this, or further on.
    async fn turns(&self, course: Course) {
        let mut signal = self.signals.course.clone();
        // Its sender gone: nobody can turn it any more.
        if signal.wait_for(|now| *now >= course).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Serves HTTP/2 until the connection ends, or is to be closed as it makes no
/// request.
pub(super) async fn http2<I, H, L>(mut driver: Driver<I, H, L>, proof: Proof, unproven: Unproven)
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
    L: GeneralLane,
{
    let mut unproven = Some((proof, unproven));
    std::future::poll_fn(|cx| {
        let polled = Pin::new(&mut driver).poll(cx).map(drop);
        let Some((proof, waits)) = &mut unproven else {
            return polled;
        };
        if driver.is_proven() {
            proof.proven();
            unproven = None;
            return polled;
        }
        let (counter, why) = match waits.poll(cx) {
            Poll::Ready(Fate::TooLate) => (Counter::FirstRequest, "no request in time"),
            Poll::Ready(Fate::Evicted) => {
                let why = "too many connections without a request";
                (Counter::UnprovenEvicted, why)
            }
            Poll::Ready(Fate::Proven) | Poll::Pending => return polled,
        };
        if polled.is_pending() {
            driver.close(counter, why);
            // What the socket takes now of the farewell, it takes.
            let _ = Pin::new(&mut driver).poll(cx);
        }
        Poll::Ready(())
    })
    .await;
}

/// Closes a connection that speaks neither protocol. To close before all that it
/// sends is read would be a reset.
async fn close(mut io: Socket) -> io::Result<()> {
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
