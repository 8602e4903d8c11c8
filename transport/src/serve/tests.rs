//! With sockets, or what stands for them, and the `h2` crate as the client.

mod differential;
mod ends;
mod overload;
mod sockets;
mod tls;
mod unproven;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request as HttpRequest;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;
use crate::connection::{Connection, Failure};
use crate::testing::service::{Methods, Mirror};
use crate::testing::shared;

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: Option<String>,
    content: Vec<u8>,
}

/// Serves one end of a pipe until its connection ends.
fn drive(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    methods: Methods,
    limits: Limits,
) -> (
    watch::Sender<Course>,
    tokio::task::JoinHandle<Option<Failure>>,
) {
    drive_in(io, methods, limits, shared())
}

/// The same, as one of the connections of a server.
fn drive_in(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    methods: Methods,
    limits: Limits,
    shared: Arc<Shared>,
) -> (
    watch::Sender<Course>,
    tokio::task::JoinHandle<Option<Failure>>,
) {
    let (drain, drained) = watch::channel(Course::Serving);
    let rpc = Rpc::new(methods, Mirror);
    let now = tokio::time::Instant::now().into_std();
    let connection = Connection::new(rpc, Arc::new(limits.in_range()), shared, now, 0);
    let driver = Driver::new(io, connection, Vec::new(), drained);
    (drain, tokio::spawn(driver))
}

fn prefixed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    out.extend_from_slice(message);
    out
}

fn request(method: &str) -> HttpRequest<()> {
    HttpRequest::post(format!("http://host/t.T/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

async fn read_answer(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let response = response.await?;
    let status_of = |fields: &http::HeaderMap| {
        let status = fields.get("grpc-status")?;
        Some(status.to_str().unwrap().to_owned())
    };
    let mut status = status_of(response.headers());
    let mut body = response.into_body();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        content.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    if let Some(trailers) = body.trailers().await? {
        status = status_of(&trailers);
    }
    Ok(Answer { status, content })
}

async fn call(
    client: &SendRequest<Bytes>,
    method: &str,
    message: &[u8],
) -> Result<Answer, h2::Error> {
    let mut client = client.clone().ready().await?;
    let (response, mut body) = client.send_request(request(method), false)?;
    body.send_data(prefixed(message).into(), true)?;
    read_answer(response).await
}

/// A whole server, and what it saw.
#[derive(Default)]
struct Service {
    methods: Methods,
    /// The connections, with the names of their threads.
    connections: Mutex<Vec<(String, ConnectionInfo)>>,
    /// The same of HTTP/1.1.
    http1: Mutex<Vec<ConnectionInfo>>,
}

impl Serve for Service {
    type Handler = Methods;
    type General = Mirror;

    fn connection(&self, who: &ConnectionInfo) -> Rpc<Methods, Mirror> {
        let thread = std::thread::current().name().unwrap().to_owned();
        let mut connections = self.connections.lock().unwrap();
        connections.push((thread, who.clone()));
        Rpc::new(self.methods.clone(), Mirror)
    }

    /// 14 bytes are a request, and sent back; so is what follows them.
    fn http1(
        &self,
        mut io: Rewind<Socket>,
        who: ConnectionInfo,
        proof: Proof,
        _: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.http1.lock().unwrap().push(who);
        Box::pin(async move {
            let mut line = [0; 14];
            // The client may leave.
            if io.read_exact(&mut line).await.is_err() {
                return;
            }
            proof.proven();
            io.write_all(&line).await.unwrap();
            io.flush().await.unwrap();
            let mut byte = [0];
            while let Ok(1) = io.read(&mut byte).await {
                io.write_all(&byte).await.unwrap();
                io.flush().await.unwrap();
            }
            // It may have gone.
            let _ = io.shutdown().await;
        })
    }
}

fn listening() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server of clear text on TCP.
fn started(config: Config) -> (Running, SocketAddr, Arc<Service>) {
    let (listener, address) = listening();
    let service = Arc::new(Service::default());
    let running = serve(vec![listener.into()], &service, config).unwrap();
    (running, address, service)
}

async fn greeted(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn connected(address: SocketAddr) -> SendRequest<Bytes> {
    greeted(TcpStream::connect(address).await.unwrap()).await
}

/// Waits for what other threads do.
async fn until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon(waited).await;
}

/// What is to come, or the test fails.
async fn soon<T>(coming: impl Future<Output = T>) -> T {
    let most = Duration::from_secs(20);
    tokio::time::timeout(most, coming).await.unwrap()
}
