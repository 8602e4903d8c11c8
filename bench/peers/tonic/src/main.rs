//! `rpc.Cache` on tonic: `Store` and `Get` over a map in shards.
//!
//! ```text
//! peer-tonic ADDRESS [--threads N] [--runtime-per-thread] [--tls CERT KEY]
//! ```
//!
//! Without options it is what tonic's guides show: one runtime of many threads.
//! With `--runtime-per-thread` each thread has a runtime and a listening socket
//! of its own (`SO_REUSEPORT`), so that a connection never leaves its thread.

use std::collections::HashMap;
use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use rpc::cache_server::{Cache, CacheServer};

mod rpc {
    #![allow(missing_docs, reason = "generated")]
    tonic::include_proto!("rpc");
}

#[cfg(feature = "tuned")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHARDS: usize = 64;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

type Failure = Box<dyn Error + Send + Sync>;

/// The map; every thread has the same.
#[derive(Clone)]
struct Store(Arc<Shards>);

struct Shards {
    hasher: RandomState,
    shards: Vec<RwLock<HashMap<String, Bytes>>>,
}

impl Store {
    fn new() -> Self {
        Self(Arc::new(Shards {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
        }))
    }

    fn shard(&self, key: &str) -> &RwLock<HashMap<String, Bytes>> {
        let hash = self.0.hasher.hash_one(key).to_le_bytes();
        &self.0.shards[usize::from(hash[0]) % SHARDS]
    }
}

#[tonic::async_trait]
impl Cache for Store {
    async fn store(
        &self,
        request: Request<rpc::StoreReq>,
    ) -> Result<Response<rpc::StoreResp>, Status> {
        let request = request.into_inner();
        // A view into the read buffer would keep all of it alive.
        let value = Bytes::copy_from_slice(&request.val);
        let shard = self.shard(&request.key);
        let mut entries = shard.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(request.key, value);
        Ok(Response::new(rpc::StoreResp {}))
    }

    async fn get(&self, request: Request<rpc::GetReq>) -> Result<Response<rpc::GetResp>, Status> {
        let key = request.into_inner().key;
        let shard = self.shard(&key);
        let entries = shard.read().unwrap_or_else(PoisonError::into_inner);
        match entries.get(&key) {
            Some(val) => Ok(Response::new(rpc::GetResp { val: val.clone() })),
            None => Err(Status::not_found("no such key")),
        }
    }

    type DumpStream = tokio_stream::Empty<Result<rpc::DumpItem, Status>>;

    async fn dump(&self, _: Request<rpc::DumpReq>) -> Result<Response<Self::DumpStream>, Status> {
        Err(Status::unimplemented("nothing is measured of it"))
    }
}

#[derive(Clone)]
struct Options {
    address: SocketAddr,
    threads: usize,
    runtime_per_thread: bool,
    tls: Option<ServerTlsConfig>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let address = arguments.next().ok_or("where to listen?")?.parse()?;
        let mut options = Self {
            address,
            threads: std::thread::available_parallelism()?.get(),
            runtime_per_thread: false,
            tls: None,
        };
        while let Some(argument) = arguments.next() {
            match &*argument {
                "--threads" => {
                    options.threads = arguments.next().ok_or("how many threads?")?.parse()?;
                }
                "--runtime-per-thread" => options.runtime_per_thread = true,
                "--tls" => {
                    let chain = std::fs::read(arguments.next().ok_or("which certificate?")?)?;
                    let key = std::fs::read(arguments.next().ok_or("which key?")?)?;
                    let identity = Identity::from_pem(chain, key);
                    options.tls = Some(ServerTlsConfig::new().identity(identity));
                }
                other => return Err(format!("{other} means nothing here").into()),
            }
        }
        Ok(options)
    }

    /// A listening socket of its own for each caller.
    fn listen(&self) -> Result<std::net::TcpListener, Failure> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&self.address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    async fn serve(self, listener: std::net::TcpListener, store: Store) -> Result<(), Failure> {
        let listener = TcpListener::from_std(listener)?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let mut server = Server::builder();
        if let Some(tls) = self.tls {
            server = server.tls_config(tls)?;
        }
        let service = CacheServer::new(store);
        Ok(server
            .add_service(service)
            .serve_with_incoming(incoming)
            .await?)
    }
}

fn main() -> Result<(), Failure> {
    let options = Options::parse(std::env::args().skip(1))?;
    let store = Store::new();
    if !options.runtime_per_thread {
        let runtime = Builder::new_multi_thread()
            .worker_threads(options.threads)
            .enable_all()
            .build()?;
        let listener = options.listen()?;
        return runtime.block_on(options.serve(listener, store));
    }
    let mut threads = Vec::new();
    for _ in 0..options.threads {
        let (options, store) = (options.clone(), store.clone());
        let listener = options.listen()?;
        threads.push(std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(options.serve(listener, store))
        }));
    }
    for thread in threads {
        thread.join().map_err(|_| "a thread broke")??;
    }
    Ok(())
}
