//! A server of one's own making: every connection is counted, and every call is answered as the
//! test says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What becomes of a call.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// This message.
    Ok(Vec<u8>),
    /// This content, under this `grpc-encoding`.
    Content(&'static str, Vec<u8>),
    /// This message, late.
    Slow(Duration, Vec<u8>),
    /// Messages of a stream that does not end.
    Stream(Vec<Vec<u8>>),
    /// This status, with these trailers.
    Status(u8, Vec<(&'static str, &'static str)>),
    /// `RST_STREAM`.
    Reset(h2::Reason),
    /// Nothing, ever.
    Silence,
    /// The end of the connection, without a word.
    HangUp,
}

/// A call as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) authority: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

pub(super) type Script = dyn Fn(usize, &Seen) -> Reply + Send + Sync;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// HTTP/2, with so many streams at a time.
    Speaks(u32),
    /// Never says a word.
    Mute,
    /// `GOAWAY` at once.
    GoesAway,
    /// Closed as soon as it is there.
    Closes,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    calls: Arc<Mutex<Vec<Seen>>>,
    cancelled: Arc<AtomicUsize>,
    away: watch::Sender<()>,
    tasks: Option<JoinSet<()>>,
}

#[derive(Clone)]
struct Shared {
    calls: Arc<Mutex<Vec<Seen>>>,
    cancelled: Arc<AtomicUsize>,
    away: watch::Sender<()>,
    script: Arc<Script>,
}

impl Server {
    pub(super) async fn start(
        manner: Manner,
        script: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), manner, script).await
    }

    pub(super) async fn at(
        address: SocketAddr,
        manner: Manner,
        script: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(128).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared {
            calls: Arc::default(),
            cancelled: Arc::default(),
            away: watch::Sender::new(()),
            script: Arc::new(script),
        };
        let (calls, cancelled) = (Arc::clone(&shared.calls), Arc::clone(&shared.cancelled));
        let away = shared.away.clone();
        let connections = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, manner, Arc::clone(&connections), shared));
        Self {
            address,
            connections,
            calls,
            cancelled,
            away,
            tasks: Some(tasks),
        }
    }

    /// One that answers each call with its own request, over TLS.
    pub(super) async fn secure(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared {
            calls: Arc::default(),
            cancelled: Arc::default(),
            away: watch::Sender::new(()),
            script: Arc::new(|_, seen| Reply::Ok(seen.body.clone())),
        };
        let (calls, cancelled) = (Arc::clone(&shared.calls), Arc::clone(&shared.cancelled));
        let away = shared.away.clone();
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut handshakes = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (acceptor, shared) = (acceptor.clone(), shared.clone());
                handshakes.spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        connection(stream, 100, shared).await;
                    }
                });
            }
        });
        Self {
            address,
            connections,
            calls,
            cancelled,
            away,
            tasks: Some(tasks),
        }
    }

    /// One that answers each call with its own request.
    pub(super) async fn echo() -> Self {
        Self::start(Manner::Speaks(100), |_, seen| Reply::Ok(seen.body.clone())).await
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Calls that were reset by their client.
    pub(super) fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Sends its clients away, as the end of a connection's age does: calls under way end well.
    pub(super) fn send_away(&self) {
        self.away.send_replace(());
    }

    pub(super) fn calls(&self) -> Vec<Seen> {
        self.calls.lock().unwrap().clone()
    }

    /// Ends it and its connections, and waits until it is gone.
    pub(super) async fn kill(&mut self) {
        if let Some(mut tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
    }
}

async fn accept(
    listener: TcpListener,
    manner: Manner,
    connections: Arc<AtomicUsize>,
    shared: Shared,
) {
    let mut tasks = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        connections.fetch_add(1, Ordering::SeqCst);
        let shared = shared.clone();
        match manner {
            Manner::Speaks(streams) => drop(tasks.spawn(connection(socket, streams, shared))),
            Manner::Mute => drop(tasks.spawn(async move {
                let _socket = socket;
                std::future::pending::<()>().await;
            })),
            Manner::GoesAway => drop(tasks.spawn(async move {
                let Ok(mut connection) = h2::server::handshake(socket).await else {
                    return;
                };
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                while let Some(Ok(_)) = connection.accept().await {}
            })),
            Manner::Closes => drop(socket),
        }
    }
}

async fn connection<I>(socket: I, streams: u32, shared: Shared)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams);
    let Ok(mut connection) = builder.handshake::<I, Bytes>(socket).await else {
        return;
    };
    let mut tasks = JoinSet::new();
    // A state and no event: a call that comes in the same turn may not hide it.
    let mut away = shared.away.subscribe();
    let (hang_up, mut hung_up) = tokio::sync::mpsc::channel::<()>(1);
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    tasks.spawn(call(request, respond, shared.clone(), hang_up.clone()));
                }
                _ => return,
            },
            _ = hung_up.recv() => return,
            _ = away.changed() => connection.graceful_shutdown(),
        }
    }
}

async fn call(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Shared,
    hang_up: tokio::sync::mpsc::Sender<()>,
) {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    let seen = Seen {
        path: head.uri.path().to_owned(),
        authority: head.uri.authority().unwrap().to_string(),
        headers: head.headers,
        body: bytes.split_off(5.min(bytes.len())),
    };
    let number = {
        let mut calls = shared.calls.lock().unwrap();
        calls.push(seen.clone());
        calls.len()
    };
    let reply = (shared.script)(number, &seen);
    let (message, late) = match reply {
        Reply::Ok(message) => (message, Duration::ZERO),
        Reply::Slow(late, message) => (message, late),
        Reply::Status(code, trailers) => return status(&mut respond, code, &trailers),
        Reply::Reset(reason) => return respond.send_reset(reason),
        Reply::HangUp => {
            let _ = hang_up.send(()).await;
            // Until it is dropped with the connection: before, that would be a reset.
            return std::future::pending().await;
        }
        Reply::Stream(messages) => {
            let mut stream = respond.send_response(ok_head(), false).unwrap();
            for message in messages {
                stream.send_data(framed(&message), false).unwrap();
            }
            return std::future::pending().await;
        }
        Reply::Content(encoding, content) => return raw(&mut respond, encoding, content),
        Reply::Silence => (Vec::new(), Duration::from_secs(3600)),
    };
    if !late.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(late) => {}
            _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => {
                shared.cancelled.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
    let Ok(mut stream) = respond.send_response(ok_head(), false) else {
        return;
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    if stream.send_data(framed(&message), false).is_ok() {
        let _ = stream.send_trailers(trailers);
    }
}

fn status(respond: &mut SendResponse<Bytes>, code: u8, trailers: &[(&'static str, &'static str)]) {
    let mut head = ok_head();
    let headers = head.headers_mut();
    headers.insert("grpc-status", code.to_string().parse().unwrap());
    for (name, value) in trailers {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    let _ = respond.send_response(head, true);
}

fn raw(respond: &mut SendResponse<Bytes>, encoding: &'static str, content: Vec<u8>) {
    let mut head = ok_head();
    let value = HeaderValue::from_static(encoding);
    head.headers_mut().insert("grpc-encoding", value);
    let Ok(mut stream) = respond.send_response(head, false) else {
        return;
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    if stream.send_data(content.into(), false).is_ok() {
        let _ = stream.send_trailers(trailers);
    }
}

fn ok_head() -> Response<()> {
    let head = Response::builder().header("content-type", "application/grpc");
    head.body(()).unwrap()
}

fn framed(message: &[u8]) -> Bytes {
    let mut out = vec![0];
    out.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    out.extend_from_slice(message);
    out.into()
}
