//! Sockets: bound here, served by the transport. HTTP/2 is the transport's own;
//! HTTP/1.1 is hyper's, on the same connections and threads.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use buffa::DecodeOptions;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use larder_model::Store;
use larder_transport::general;
use larder_transport::rpc::Rpc;
use larder_transport::serve::{self, ConnectionInfo, Listener, Proof, Rewind, Serve, Tls};
use tokio::sync::watch;

use crate::config::{Listen, Role};
use crate::connection::Connection;
use crate::core::Core;
use crate::edge::{Edge, Protocols};
use crate::http1;
use crate::layers::finish::CallBody;
use crate::typed::TypedLane;

/// Not yet accepted connections.
const BACKLOG: u32 = 1024;

/// A bound socket.
pub(crate) enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, SocketFile),
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
                socket.listen(BACKLOG)?.into_std().map(Self::Tcp)
            }
            Listen::Unix(path) => {
                if is_stale(path).await? {
                    std::fs::remove_file(path)?;
                }
                let listener = std::os::unix::net::UnixListener::bind(path)?;
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

/// What makes the lanes of a connection.
pub(crate) struct Listening<S: Store> {
    pub(crate) core: Arc<Core<S>>,
    pub(crate) protocols: Protocols,
    pub(crate) decode: DecodeOptions,
    pub(crate) role: Role,
}

impl<S: Store> Serve for Listening<S> {
    type Handler = TypedLane<S>;
    type General = General<S>;

    fn connection(&self, who: &ConnectionInfo) -> Rpc<TypedLane<S>, General<S>> {
        let connection = Connection::accepted(&self.core, who);
        let edge = Edge::new(self.protocols.clone(), Arc::clone(&connection));
        let typed = TypedLane::new(connection, self.decode.clone(), self.role);
        Rpc::new(typed, General(Arc::new(edge)))
    }

    fn http1(
        &self,
        io: Rewind<serve::Socket>,
        who: ConnectionInfo,
        proof: Proof,
        drain: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let connection = Connection::accepted(&self.core, &who);
        let edge = Arc::new(Edge::new(self.protocols.clone(), connection));
        let max_metadata_bytes = self.core.transport.limits.max_header_list_bytes;
        let proof = Arc::new(proof);
        let answer = move |request: Request<Incoming>| {
            let (edge, proof) = (Arc::clone(&edge), Arc::clone(&proof));
            async move {
                let response = edge.serve(request).await;
                proof.proven();
                response
            }
        };
        Box::pin(async move {
            if let Err(error) = http1::serve(io, max_metadata_bytes, answer, drain).await {
                tracing::debug!(peer = %who.peer, %error, "connection ended");
            }
        })
    }
}

/// The general lane of a connection.
pub(crate) struct General<S: Store>(Arc<Edge<S>>);

impl<S: Store> Clone for General<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Store> tower::Service<Request<general::Body>> for General<S> {
    type Response = Response<CallBody<S>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<general::Body>) -> Self::Future {
        let edge = Arc::clone(&self.0);
        async move { Ok(edge.serve(request).await) }.boxed()
    }
}

/// Serves what was bound, on threads of the transport's own.
pub(crate) fn start<S: Store>(
    sockets: Vec<Socket>,
    tls: Option<&Tls>,
    listening: Listening<S>,
    config: serve::Config,
) -> io::Result<(serve::Running, Vec<SocketFile>)> {
    let (mut listeners, mut files) = (Vec::new(), Vec::new());
    for socket in sockets {
        listeners.push(match (socket, tls) {
            (Socket::Tcp(listener), None) => Listener::from(listener),
            (Socket::Tcp(listener), Some(tls)) => Listener::from(listener).with_tls(tls.clone()),
            (Socket::Unix(listener, file), _) => {
                files.push(file);
                Listener::from(listener)
            }
        });
    }
    let running = serve::serve(listeners, &Arc::new(listening), config)?;
    Ok((running, files))
}

#[cfg(test)]
mod tests;
