//! A cache in a hash map, served as `rpc.Cache`: `Store` and `Get`, with their
//! four fields decoded and encoded by hand. For measuring the transport, and for
//! h2spec. Says where it listens once it does.
//!
//! ```text
//! cargo run --release --example echo_cache -- 127.0.0.1:5051 2
//! ```
//!
//! The second argument is the number of threads; a third is a PEM file with a
//! certificate and its key, and has it serve TLS.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use http_body_util::{BodyExt as _, Full};
use larder_transport::general::Body;
use larder_transport::message::Head;
use larder_transport::rpc::{Code, Handler, Outcome, Reply, Request, Rpc, Status, Step, Waiting};
use larder_transport::serve::{
    Config, ConnectionInfo, Listener, Proof, Rewind, Serve, Socket, Tls, serve,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

const SHARDS: usize = 64;

/// The store: every connection of every thread has the same.
struct Store {
    hasher: RandomState,
    shards: Vec<RwLock<HashMap<Vec<u8>, Vec<u8>>>>,
}

impl Store {
    fn shard(&self, key: &[u8]) -> &RwLock<HashMap<Vec<u8>, Vec<u8>>> {
        let hash = self.hasher.hash_one(key).to_le_bytes();
        &self.shards[usize::from(hash[0]) % SHARDS]
    }
}

#[derive(Clone, Copy)]
enum Method {
    Get,
    Store,
}

struct Cache(Arc<Store>);

/// No call of this server waits.
enum Never {}

impl Waiting for Never {
    fn poll(&mut self, _: &mut Context<'_>, _: &mut Reply<'_>) -> Poll<Step> {
        match *self {}
    }
}

impl Handler for Cache {
    type Method = Method;
    type Waiting = Never;

    fn route(&mut self, head: &Head) -> Option<Method> {
        match head.path() {
            b"/rpc.Cache/Get" => Some(Method::Get),
            b"/rpc.Cache/Store" => Some(Method::Store),
            _ => None,
        }
    }

    fn call(&mut self, request: Request<'_, Method>, reply: &mut Reply<'_>) -> Outcome<Never> {
        let Some([key, value]) = fields(request.message) else {
            let why = "the message cannot be decoded";
            return Outcome::Done(Status::new(Code::INVALID_ARGUMENT, why));
        };
        let shard = self.0.shard(key);
        match request.method {
            Method::Get => {
                let entries = shard.read().unwrap_or_else(PoisonError::into_inner);
                let Some(value) = entries.get(key) else {
                    return Outcome::Done(Status::new(Code::NOT_FOUND, "no such key"));
                };
                reply.message(|out| {
                    out.push(1 << 3 | 2);
                    write_varint(out, value.len());
                    out.extend_from_slice(value);
                });
            }
            Method::Store => {
                let mut entries = shard.write().unwrap_or_else(PoisonError::into_inner);
                entries.insert(key.to_vec(), value.to_vec());
                reply.message(|_| {});
            }
        }
        Outcome::Done(Status::OK)
    }
}

/// Fields 1 and 2 of a message, both of bytes; others are passed over.
fn fields(mut message: &[u8]) -> Option<[&[u8]; 2]> {
    let mut fields: [&[u8]; 2] = [&[], &[]];
    while !message.is_empty() {
        let (tag, rest) = read_varint(message)?;
        let (length, rest) = match tag & 7 {
            2 => read_varint(rest)?,
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        if let 1 | 2 = tag >> 3 {
            fields[(tag >> 3) - 1] = value;
        }
        message = rest;
    }
    Some(fields)
}

fn read_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (turn, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * turn);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[turn + 1..]));
        }
    }
    None
}

fn write_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// The general lane: a line of text for whatever is asked, once it was asked.
#[derive(Clone, Copy)]
struct Hello;

impl tower_service::Service<http::Request<Body>> for Hello {
    type Response = http::Response<Full<bytes::Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            // A body that is cut short is answered to nobody.
            let _ = request.into_body().collect().await;
            let line = bytes::Bytes::from_static(b"a cache speaks gRPC here\n");
            Ok(http::Response::new(Full::new(line)))
        })
    }
}

struct EchoCache(Arc<Store>);

impl Serve for EchoCache {
    type Handler = Cache;
    type General = Hello;

    fn connection(&self, _: &ConnectionInfo) -> Rpc<Cache, Hello> {
        Rpc::new(Cache(Arc::clone(&self.0)), Hello)
    }

    fn http1(
        &self,
        mut io: Rewind<Socket>,
        _: ConnectionInfo,
        _: Proof,
        _: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let answer = b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-length: 0\r\n\r\n";
            // The caller may have gone.
            let _ = io.write_all(answer).await;
        })
    }
}

fn tls(path: &str) -> io::Result<Tls> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_file(path).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(path).map_err(io::Error::other)?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            config
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
        });
    Ok(Tls::new(Arc::new(config.map_err(io::Error::other)?)))
}

fn main() -> io::Result<Infallible> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:5051".to_owned());
    let threads = arguments.next().and_then(|threads| threads.parse().ok());
    let mut config = Config::default();
    config.threads = threads.unwrap_or(config.threads);
    let store = Arc::new(Store {
        hasher: RandomState::new(),
        shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
    });
    let socket = TcpListener::bind(address)?;
    let bound = socket.local_addr()?;
    let mut listener = Listener::from(socket);
    if let Some(path) = arguments.next() {
        listener = listener.with_tls(tls(&path)?);
    }
    let running = serve(vec![listener], &Arc::new(EchoCache(store)), config)?;
    writeln!(io::stdout(), "listening on {bound}")?;
    running.join();
    Err(io::Error::other("the server has ended"))
}
