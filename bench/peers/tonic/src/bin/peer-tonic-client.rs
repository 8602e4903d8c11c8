//! Calls of `rpc.Cache/Get` on tonic's client, and what they cost this process: the same
//! program as larder's `client/examples/load.rs`.
//!
//! ```text
//! peer-tonic-client URL [--connections N] [--in-flight N] [--keys N] [--warmup-ms N] [--measure-ms N]
//! ```
//!
//! `LARDER_TOKEN` has the credential. It prints one line: calls, and the nanoseconds of the
//! processor and of the clock that they took.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;

use rpc::cache_client::CacheClient;

mod rpc {
    #![allow(missing_docs, dead_code, reason = "generated")]
    tonic::include_proto!("rpc");
}

#[cfg(feature = "tuned")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error + Send + Sync>;

/// As long as those of the other benchmarks.
const VALUE_BYTES: usize = 100;
/// As larder's client has it by default.
const TIMEOUT: Duration = Duration::from_secs(5);

struct Options {
    url: String,
    connections: u64,
    in_flight: u64,
    keys: u64,
    warmup: Duration,
    measured: Duration,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            url: arguments.next().ok_or("which server?")?,
            connections: 1,
            in_flight: 32,
            keys: 10_000,
            warmup: Duration::from_millis(200),
            measured: Duration::from_secs(1),
        };
        while let Some(argument) = arguments.next() {
            let number: u64 = arguments.next().ok_or("how many?")?.parse()?;
            match &*argument {
                "--connections" => options.connections = number,
                "--in-flight" => options.in_flight = number,
                "--keys" => options.keys = number,
                "--warmup-ms" => options.warmup = Duration::from_millis(number),
                "--measure-ms" => options.measured = Duration::from_millis(number),
                other => return Err(format!("{other} means nothing here").into()),
            }
        }
        Ok(options)
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::parse(std::env::args().skip(1))?;
    let bearer: Option<MetadataValue<Ascii>> = match std::env::var("LARDER_TOKEN") {
        Ok(token) => Some(format!("Bearer {token}").parse()?),
        Err(_) => None,
    };
    let mut clients = Vec::new();
    for _ in 0..options.connections {
        let endpoint = Endpoint::from_shared(options.url.clone())?.tcp_nodelay(true);
        clients.push(CacheClient::new(endpoint.connect().await?));
    }
    let (done, over) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut tasks = JoinSet::new();
    let seeds = 0..options.connections * options.in_flight;
    for (client, seed) in clients.iter().cycle().zip(seeds) {
        let (mut client, done, over) = (client.clone(), Arc::clone(&done), Arc::clone(&over));
        let (keys, bearer) = (options.keys, bearer.clone());
        tasks.spawn(async move {
            let mut number = seed;
            while !over.load(Ordering::Relaxed) {
                number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let mut request = Request::new(rpc::GetReq {
                    key: key((number >> 33) % keys),
                    ..rpc::GetReq::default()
                });
                request.set_timeout(TIMEOUT);
                if let Some(bearer) = &bearer {
                    let metadata = request.metadata_mut();
                    metadata.insert("authorization", bearer.clone());
                }
                let value = client.get(request).await?.into_inner().val;
                if value.len() != VALUE_BYTES {
                    return Err("a wrong answer".into());
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), Failure>(())
        });
    }
    tokio::time::sleep(options.warmup).await;
    let (start, cpu, before) = (Instant::now(), cpu_ns()?, done.load(Ordering::Relaxed));
    tokio::time::sleep(options.measured).await;
    let calls = done.load(Ordering::Relaxed) - before;
    let (cpu, elapsed) = (cpu_ns()? - cpu, start.elapsed().as_nanos());
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    println!("{calls} calls {cpu} cpu_ns {elapsed} elapsed_ns");
    Ok(())
}

fn key(number: u64) -> String {
    format!("k{number:015}")
}

/// What all threads of this process have run, as the kernel counts it.
fn cpu_ns() -> Result<u64, Failure> {
    let mut sum = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let run = text.split_whitespace().next().ok_or("no schedstat")?;
        sum += run.parse::<u64>()?;
    }
    Ok(sum)
}
