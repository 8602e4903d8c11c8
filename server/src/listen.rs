//! Sockets: bound, accepted, and served as HTTP/1.1 or HTTP/2.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use larder_api::wire::{
    CONNECTION_WINDOW_BYTES, FIRST_REQUEST_TIMEOUT, MAX_METADATA_BYTES, MAX_STREAMS_PER_CONNECTION,
    STREAM_WINDOW_BYTES,
};
use larder_model::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Listen;
use crate::connection::{Connection, Peer};
use crate::core::Core;
use crate::edge::{Edge, Protocols};
use crate::tls::HANDSHAKE_TIMEOUT;

/// HTTP/1.1: longest time for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2: a silent connection is asked for a sign of life this often, and
/// closed if none comes in the second time.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// HTTP/2: most streams that the peer reset and the server still remembers
/// (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 1000;
/// Out of file descriptors: wait for some to come back, rather than spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Not yet accepted connections.
const BACKLOG: u32 = 1024;

/// A bound socket.
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Takes the socket's file away with the listener.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed by hand already.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Socket {
    /// Binds. A Unix socket whose server is gone is replaced; one that answers
    /// is in use.
    pub(crate) async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let socket = if address.is_ipv4() {
                    tokio::net::TcpSocket::new_v4()?
                } else {
                    tokio::net::TcpSocket::new_v6()?
                };
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                socket.listen(BACKLOG).map(Self::Tcp)
            }
            Listen::Unix(path) => {
                if is_stale(path).await? {
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                Ok(Self::Unix(listener, SocketFile(path.clone())))
            }
        }
    }

    /// The address as `--server` takes it.
    pub(crate) fn address(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Self::Unix(_, file) => Ok(format!("unix:{}", file.0.display())),
        }
    }
}

async fn is_stale(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            Ok(tokio::net::UnixStream::connect(path).await.is_err())
        }
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "is a file, not a socket",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What every listener needs.
pub(crate) struct Listening<S: Store> {
    pub(crate) core: Arc<Core<S>>,
    pub(crate) protocols: Protocols,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) tracker: TaskTracker,
    /// Cancelled when no new connections are taken, and those there are finish.
    pub(crate) drain: CancellationToken,
}

/// Accepts connections until the server drains.
pub(crate) async fn accept<S: Store>(socket: Socket, shared: Arc<Listening<S>>) {
    loop {
        // A connection over the limit waits in the kernel's queue.
        let permit = tokio::select! {
            permit = Arc::clone(&shared.connections).acquire_owned() => permit,
            () = shared.drain.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = accept_one(&socket) => accepted,
            () = shared.drain.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let connection = Arc::clone(&shared);
        shared.tracker.spawn(async move {
            connection.serve(stream, peer).await;
            drop(permit);
        });
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn accept_one(socket: &Socket) -> io::Result<(Stream, Peer)> {
    match socket {
        Socket::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            // Answers are small and must not wait for one another.
            stream.set_nodelay(true)?;
            Ok((Stream::Tcp(stream), Peer::Tcp(address)))
        }
        Socket::Unix(listener, _) => {
            let (stream, _) = listener.accept().await?;
            Ok((Stream::Unix(stream), Peer::Unix))
        }
    }
}

impl<S: Store> Listening<S> {
    async fn serve(&self, stream: Stream, peer: Peer) {
        match (stream, &self.tls) {
            (Stream::Tcp(stream), None) => self.http(stream, peer).await,
            (Stream::Unix(stream), _) => self.http(stream, peer).await,
            (Stream::Tcp(stream), Some(tls)) => {
                let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
                match handshake.await {
                    Ok(Ok(stream)) => self.http(stream, peer).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                }
            }
        }
    }

    async fn http<I>(&self, stream: I, peer: Peer)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Connection::new(Arc::clone(&self.core), peer);
        let edge = Arc::new(Edge::new(self.protocols.clone(), connection));
        let spoke = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&spoke);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            heard.store(true, Ordering::Relaxed);
            let edge = Arc::clone(&edge);
            async move { Ok::<_, std::convert::Infallible>(edge.serve(request).await) }
        });
        let builder = http_builder();
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let silent = async {
            tokio::time::sleep(FIRST_REQUEST_TIMEOUT).await;
            if spoke.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = silent => {
                tracing::debug!(%peer, "a connection without a request was closed");
                return;
            }
            () = self.drain.cancelled() => {
                // GOAWAY, or `connection: close`; calls in flight end.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }
}

fn http_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_METADATA_BYTES as usize * 4);
    builder
        .http2()
        .timer(TokioTimer::new())
        // Adaptive windows drop connections under bursts of small calls.
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .max_header_list_size(MAX_METADATA_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}
