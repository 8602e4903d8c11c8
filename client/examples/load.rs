//! Calls of `rpc.Cache/Get`, as many as a server answers, and what they cost this process:
//! `cargo xtask bench client` runs it beside the same program on another client.
//!
//! ```text
//! load URL [--connections N] [--in-flight N] [--keys N] [--fill] [--warmup-ms N] [--measure-ms N]
//! ```
//!
//! `LARDER_TOKEN` has the credential. It prints one line: calls, and the nanoseconds of the
//! processor and of the clock that they took.

#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder_client::{Client, ClientConfig, Token};
use tokio::task::JoinSet;
use tokio::time::Instant;

type Failure = Box<dyn Error + Send + Sync>;

/// As long as those of the other benchmarks.
const VALUE_BYTES: usize = 100;

struct Options {
    url: String,
    connections: u64,
    in_flight: u64,
    keys: u64,
    fill: bool,
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
            fill: false,
            warmup: Duration::from_millis(200),
            measured: Duration::from_secs(1),
        };
        while let Some(argument) = arguments.next() {
            if argument == "--fill" {
                options.fill = true;
                continue;
            }
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
    let mut config = ClientConfig::new(&options.url)?;
    if let Ok(token) = std::env::var("LARDER_TOKEN") {
        config = config.with_token(Token::new(token)?);
    }
    let mut clients = Vec::new();
    for _ in 0..options.connections {
        clients.push(Client::connect(config.clone()).await?);
    }
    if options.fill {
        return fill(&clients[0], options.keys).await;
    }
    let (done, over) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut tasks = JoinSet::new();
    for (client, seed) in clients
        .iter()
        .cycle()
        .zip(0..options.connections * options.in_flight)
    {
        let (client, done, over) = (client.clone(), Arc::clone(&done), Arc::clone(&over));
        let keys = options.keys;
        tasks.spawn(async move {
            let talk = client.talk();
            let mut number = seed;
            while !over.load(Ordering::Relaxed) {
                number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let value = talk.get(&key((number >> 33) % keys)).await?;
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

async fn fill(client: &Client, keys: u64) -> Result<(), Failure> {
    let talk = client.talk();
    for number in 0..keys {
        talk.store(&key(number), vec![b'v'; VALUE_BYTES]).await?;
    }
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
