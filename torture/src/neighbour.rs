//! A neighbour that goes through far more data than fits, at many times the rate of a
//! victim whose data fits: how often the victim still finds what it asks for, and when.
//!
//! Both ask for an entry and store it where it is missing, as clients of caches do. With
//! one order of eviction for all accounts the neighbour would push out all that the victim
//! does not ask for in time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::random::Random;
use crate::server::{Program, Server, pause};
use crate::victim::{Sample, failed, p99};
use crate::{calls, client};

/// How large the test is, and what it must come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Of each run: alone, and beside the neighbour.
    pub(crate) duration: Duration,
    /// Calls of the victim each second.
    pub(crate) rate: u32,
    /// The neighbour's rate, in that of the victim.
    pub(crate) times: u32,
    /// Points of a hundred that the victim's hit ratio may fall by.
    pub(crate) most_points: f64,
    /// The 99th percentile of the victim's latency, in that alone.
    pub(crate) most_latency: f64,
}

/// Memory of the server.
const MEMORY: &str = "16MiB";
/// What the victim asks for: a sixteenth of that.
const VICTIM: Data = Data {
    keys: 1024,
    value_bytes: 1024,
};
/// What the neighbour goes through: four times that.
const NEIGHBOUR: Data = Data {
    keys: 16_384,
    value_bytes: 4096,
};
/// Calls of the neighbour at a time.
const CONCURRENCY: usize = 32;
/// Of the rate that is meant, so much must be reached for a run to show anything.
const LEAST_PRESSURE: f64 = 0.5;
/// A call that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Below this no latency is told from noise.
const GRAIN: Duration = Duration::from_millis(2);

#[derive(Clone, Copy)]
struct Data {
    keys: u64,
    value_bytes: usize,
}

/// Who asks for entries, and stores those that are missing.
#[derive(Clone)]
struct Caller {
    client: SendRequest<Bytes>,
    bearer: Arc<str>,
    data: Data,
}

impl Caller {
    async fn connect(server: &Server, token: &str, data: Data) -> anyhow::Result<Self> {
        let io = TcpStream::connect(server.address).await?;
        io.set_nodelay(true)?;
        Ok(Self {
            client: client::connect(io).await?,
            bearer: format!("Bearer {token}").into(),
            data,
        })
    }

    /// Makes a call; its status.
    async fn call(&self, path: &str, message: Vec<u8>) -> anyhow::Result<String> {
        let metadata = [("authorization", &self.bearer[..])];
        let call = client::call(self.client.clone(), path, &metadata, message);
        Ok(tokio::time::timeout(PATIENCE, call).await??.status)
    }

    /// True if the entry is there.
    async fn get(&self, key: u64) -> anyhow::Result<bool> {
        let get = calls::get(&format!("key-{key}"));
        match &self.call(calls::GET, get).await?[..] {
            "0" => Ok(true),
            // NOT_FOUND.
            "5" => Ok(false),
            status => bail!("a get: grpc-status {status}"),
        }
    }

    async fn store(&self, key: u64) -> anyhow::Result<()> {
        let value = vec![b'v'; self.data.value_bytes];
        let store = calls::store(&format!("key-{key}"), &value);
        let status = self.call(calls::STORE, store).await?;
        ensure!(status == "0", "a store: grpc-status {status}");
        Ok(())
    }
}

/// What came of the victim's calls.
#[derive(Default)]
struct Run {
    samples: Vec<Sample>,
    hits: u64,
}

impl Run {
    /// Hits of a hundred.
    fn hit_ratio(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let ratio = self.hits as f64 / self.samples.len().max(1) as f64;
        100.0 * ratio
    }
}

/// Runs the test, and prints what it came to. False if that is not enough.
///
/// # Errors
/// The server cannot be used.
pub(crate) fn run(larder: &Path, size: Size, seed: u64) -> anyhow::Result<bool> {
    let mut server = Server::start_watched(larder, 1024, &["--max-memory", MEMORY])?;
    let tokens = server.accounts(&Program::Larder(larder.into()), 2)?;
    let [victim, neighbour] = &tokens[..] else {
        bail!("there are not two accounts");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut random = Random(seed);
    let victim = runtime.block_on(prepare(&server, victim))?;
    let alone = runtime.block_on(ask(&victim, &size, &mut random));
    let pressure = Pressure::start(&server, neighbour, size.rate * size.times)?;
    // What fits of its data is there by then.
    pause(size.duration / 4);
    let (made, began) = (pressure.made(), Instant::now());
    let beside = runtime.block_on(ask(&victim, &size, &mut random));
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let rate = (pressure.made() - made) as f64 / began.elapsed().as_secs_f64();
    pressure.end()?;
    let evictions: f64 = server
        .metrics()?
        .iter()
        .filter(|(name, _)| name.starts_with("larder_cache_evictions_total"))
        .map(|(_, evictions)| evictions)
        .sum();
    ensure!(server.is_alive(), "the server has ended");
    let times = rate / f64::from(size.rate);
    say(&format!(
        "seed {seed}: a victim of {} calls a second, {:.2} % hits and p99 {:?} alone; a neighbour of {times:.1} × as many, {evictions} evictions",
        size.rate,
        alone.hit_ratio(),
        p99(&alone.samples),
    ));
    Ok(judge(&size, &alone, &beside, times, evictions))
}

fn judge(size: &Size, alone: &Run, beside: &Run, times: f64, evictions: f64) -> bool {
    let fell = alone.hit_ratio() - beside.hit_ratio();
    let calm = p99(&alone.samples).max(GRAIN);
    let latency = p99(&beside.samples).max(GRAIN).as_secs_f64() / calm.as_secs_f64();
    let broken = failed(&alone.samples) + failed(&beside.samples);
    let lines = [
        (
            fell <= size.most_points,
            format!(
                "hit ratio beside it: {:.2} %, {fell:.2} points less (at most {})",
                beside.hit_ratio(),
                size.most_points
            ),
        ),
        (
            latency <= size.most_latency,
            format!(
                "p99 beside it: {latency:.2} × that alone (at most {} ×)",
                size.most_latency
            ),
        ),
        (
            times >= LEAST_PRESSURE * f64::from(size.times) && evictions > 0.0,
            format!(
                "the neighbour pressed: of {} × it reached {times:.1} ×",
                size.times
            ),
        ),
        (broken == 0, format!("calls that failed: {broken}")),
    ];
    for (good, line) in &lines {
        say(&format!("{} {line}", if *good { "ok  " } else { "FAIL" }));
    }
    lines.iter().all(|(good, _)| *good)
}

/// Stores all that the victim will ask for.
async fn prepare(server: &Server, token: &str) -> anyhow::Result<Caller> {
    let victim = Caller::connect(server, token, VICTIM).await?;
    for key in 0..VICTIM.keys {
        victim.store(key).await?;
    }
    Ok(victim)
}

/// Calls at a fixed rate, whatever the server does.
async fn ask(victim: &Caller, size: &Size, random: &mut Random) -> Run {
    let interval = Duration::from_secs(1) / size.rate.max(1);
    let (mut at, end) = (Instant::now(), Instant::now() + size.duration);
    let mut calls = JoinSet::new();
    while at < end {
        tokio::time::sleep_until(at).await;
        let (victim, key) = (victim.clone(), random.next() % VICTIM.keys);
        calls.spawn(async move {
            let got = victim.get(key).await;
            let took = at.elapsed();
            // Not part of what it waited for.
            let kept = match got {
                Ok(false) => victim.store(key).await,
                _ => Ok(()),
            };
            let took = (got.is_ok() && kept.is_ok()).then_some(took);
            (Sample { at, took }, got.is_ok_and(|hit| hit))
        });
        at += interval;
    }
    let mut run = Run::default();
    while let Some(done) = calls.join_next().await {
        // Nothing in there panics; a call that did would be missing among the hits.
        if let Ok((sample, hit)) = done {
            run.samples.push(sample);
            run.hits += u64::from(hit);
        }
    }
    run
}

/// The neighbour at work.
struct Pressure {
    made: Arc<AtomicU64>,
    stop: Arc<Semaphore>,
    thread: std::thread::JoinHandle<anyhow::Result<()>>,
}

impl Pressure {
    fn start(server: &Server, token: &str, rate: u32) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let neighbour = runtime.block_on(Caller::connect(server, token, NEIGHBOUR))?;
        let made = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(Semaphore::new(0));
        let told = (Arc::clone(&made), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("neighbour".to_owned())
            .spawn(move || {
                let (made, stop) = told;
                runtime.block_on(async {
                    tokio::select! {
                        pressed = press(neighbour, rate, made) => pressed,
                        _ = stop.acquire() => Ok(()),
                    }
                })
            })?;
        Ok(Self { made, stop, thread })
    }

    /// Calls that it made.
    fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// A call of it had failed.
    fn end(self) -> anyhow::Result<()> {
        self.stop.close();
        let ended = self.thread.join();
        ended
            .ok()
            .context("the neighbour panicked")?
            .context("the neighbour")
    }
}

/// Goes through its data, again and again, with so many calls a second.
async fn press(neighbour: Caller, rate: u32, made: Arc<AtomicU64>) -> anyhow::Result<()> {
    let start = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (neighbour, next, made) = (neighbour.clone(), Arc::clone(&next), Arc::clone(&made));
        workers.spawn(async move {
            loop {
                let key = next.fetch_add(1, Ordering::Relaxed) % NEIGHBOUR.keys;
                due(start, rate, &made).await;
                if !neighbour.get(key).await? {
                    due(start, rate, &made).await;
                    neighbour.store(key).await?;
                }
            }
        });
    }
    let ended: Option<Result<anyhow::Result<()>, _>> = workers.join_next().await;
    ended.context("there were workers")??
}

/// Waits until the next call is due. A server that is slow is not asked for more later.
async fn due(start: Instant, rate: u32, made: &AtomicU64) {
    let number = made.fetch_add(1, Ordering::Relaxed);
    let after = Duration::from_secs_f64(1.0 / f64::from(rate.max(1)));
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let after = after.mul_f64(number as f64);
    tokio::time::sleep_until(start + after).await;
}

#[allow(clippy::print_stdout, reason = "the output of a command")]
fn say(line: &str) {
    println!("{line}");
}
