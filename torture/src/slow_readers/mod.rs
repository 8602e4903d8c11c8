//! Dumps whose clients read 1 KiB a second: what each of them costs the server, what
//! the calls of another account notice of it, and whether anything is left of them.
//!
//! | file | what |
//! |---|---|
//! | `reader.rs` | one such client, and how it is slow |

mod reader;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::reader::{BYTES_PER_SECOND, Crowd, Lane, Way};
use crate::server::{Program, Server, pause};
use crate::victim::{self, Victim};
use crate::{calls, client};

/// How large the test is, and what it must come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) readers: usize,
    /// That they go on, and of the calls without them that those beside them are compared
    /// with.
    pub(crate) duration: Duration,
    /// Memory of each.
    pub(crate) most_bytes: u64,
    /// The 99th percentile of the calls of another account, in that without readers.
    pub(crate) most_latency: f64,
}

/// Readers that share an account: it may have no more streams than this at a time.
const READERS_PER_ACCOUNT: usize = 500;
/// Bytes of a value, and values of an account: more than the sockets on the way keep. Five
/// fill a part of a dump, and go beyond its bound as far as values of 64 KiB can.
const VALUE_BYTES: usize = 65_000;
const VALUES: usize = 256;
/// What the server's threads and its allocator keep, however many readers there are.
const FIXED_BYTES: u64 = 8 << 20;
/// Stores at a time.
const STORES: usize = 8;
/// For the readers to begin, and for the server to be rid of them.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the server to fill the sockets, and between two looks whether it has.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks at what the server counts.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Below this no latency is told from noise.
const GRAIN: Duration = Duration::from_millis(2);

const CONNECTIONS: &str = "larder_transport_connections";
const IN_FLIGHT: &str = "larder_calls_in_flight";
const BUFFERED: &str = "larder_transport_buffered_bytes";
const CANCELLED: &str = "larder_calls_refused_total{reason=\"cancelled\"}";

/// Runs the test in each way that a reader can be slow, and prints what it came to. False
/// if that is not enough.
///
/// # Errors
/// The server cannot be used.
pub(crate) fn run(larder: &Path, size: Size) -> anyhow::Result<bool> {
    say(&format!(
        "{} dumps in values of {VALUE_BYTES} bytes, each read at {} KiB a second for {:?}",
        size.readers,
        BYTES_PER_SECOND >> 10,
        size.duration
    ));
    let mut good = true;
    for lane in [Lane::Typed, Lane::General] {
        for way in [Way::Windows, Way::Socket] {
            good &= trial(larder, size, way, lane)?;
        }
    }
    Ok(good)
}

fn trial(larder: &Path, size: Size, way: Way, lane: Lane) -> anyhow::Result<bool> {
    // Of each connection there are two, and some files.
    let mut server = Server::start_watched(larder, 2 * size.readers + 1024, &[])?;
    let accounts = size.readers.div_ceil(READERS_PER_ACCOUNT);
    let program = Program::Larder(larder.into());
    let mut tokens = server.accounts(&program, accounts + 1)?;
    let Some(other) = tokens.pop() else {
        bail!("there is no other account");
    };
    for token in &tokens {
        fill(&server, token)?;
    }
    let victim = Victim::start(server.address, &other)?;
    let (from, idle) = (Instant::now(), server.process.cpu_seconds());
    pause(size.duration);
    let without = victim.samples(from, Instant::now());
    let idle = (server.process.cpu_seconds() - idle) / size.duration.as_secs_f64();

    let before = server.metrics()?;
    server.take_peak_rss_bytes();
    let rss_before = server.process.rss_bytes();
    let readers = (0..size.readers).map(|number| tokens[number % accounts].clone());
    let from = Instant::now();
    let crowd = Crowd::start(server.address, readers.collect(), way, lane)?;
    let until = Instant::now() + PATIENCE;
    while crowd.reading() < size.readers && Instant::now() < until {
        pause(LOOK_INTERVAL);
    }
    let reading = crowd.reading();
    settle(&server, idle);
    let began = victim.samples(from, Instant::now());
    let from = Instant::now();
    pause(size.duration);
    let with = victim.samples(from, Instant::now());
    let during = server.metrics()?;
    let grown = server.take_peak_rss_bytes().saturating_sub(rss_before);
    let outcomes = crowd.go();
    let gone = gone(&server, &before, size.readers)?;
    ensure!(server.is_alive(), "the server has ended");

    let readers = size.readers.max(1) as u64;
    let found = Found {
        reading,
        broken: outcomes
            .iter()
            .filter_map(|it| it.as_ref().err())
            .map(|error| format!("{error:#}"))
            .collect(),
        grown_bytes: grown,
        told_bytes: rise(&before, &during, BUFFERED) / readers,
        without: victim::p99(&without).max(GRAIN),
        with: victim::p99(&with).max(GRAIN),
        failed: [&without, &began, &with]
            .map(|it| victim::failed(it))
            .iter()
            .sum(),
        gone,
    };
    say(&format!(
        "{lane}, {way}: {} calls of another account while the sockets were filled, p99 {:?}",
        began.len(),
        victim::p99(&began)
    ));
    Ok(found.judge(&size))
}

/// Waits until the server is hardly busier than it was without readers, which took so much
/// processor time each second: it first sends as much as the sockets hold, which may be
/// megabytes for each.
fn settle(server: &Server, idle: f64) {
    let until = Instant::now() + SETTLE_PATIENCE;
    let mut busy = f64::INFINITY;
    while busy > 2.0 * idle + 0.1 && Instant::now() < until {
        let before = server.process.cpu_seconds();
        pause(SETTLE_INTERVAL);
        busy = (server.process.cpu_seconds() - before) / SETTLE_INTERVAL.as_secs_f64();
    }
}

/// What a trial came to.
struct Found {
    /// Readers that began.
    reading: usize,
    /// Why others did not go on.
    broken: Vec<String>,
    /// Memory that the process took more, as the kernel counts it.
    grown_bytes: u64,
    /// Memory of each, as the server does.
    told_bytes: u64,
    without: Duration,
    with: Duration,
    /// Calls of the other account.
    failed: usize,
    /// How long it took until nothing was left of them, or what was.
    gone: Result<Duration, String>,
}

impl Found {
    fn judge(&self, size: &Size) -> bool {
        let readers = size.readers.max(1) as u64;
        let kib = |bytes: u64| bytes.div_ceil(1024);
        let latency = self.with.as_secs_f64() / self.without.as_secs_f64();
        let lines = [
            (
                self.reading == size.readers && self.broken.is_empty(),
                format!(
                    "{} readers began, {} broke off {}",
                    self.reading,
                    self.broken.len(),
                    self.broken.first().map_or("", String::as_str)
                ),
            ),
            (
                self.told_bytes <= size.most_bytes
                    && self.grown_bytes <= readers * size.most_bytes + FIXED_BYTES,
                format!(
                    "memory of each: {} KiB of the process, {} KiB as the server counts (at most {}, and {} MiB in all)",
                    kib(self.grown_bytes / readers),
                    kib(self.told_bytes),
                    kib(size.most_bytes),
                    FIXED_BYTES >> 20
                ),
            ),
            (
                latency <= size.most_latency,
                format!(
                    "p99 of another account: {latency:.2} × the {:?} without them (at most {} ×)",
                    self.without, size.most_latency
                ),
            ),
            (
                self.failed == 0,
                format!("its calls that failed: {}", self.failed),
            ),
            match &self.gone {
                Ok(took) => (
                    true,
                    format!("all were gone {took:.1?} after their clients"),
                ),
                Err(left) => (
                    false,
                    format!("{PATIENCE:?} after their clients went: {left}"),
                ),
            },
        ];
        for (good, line) in &lines {
            say(&format!("{} {line}", if *good { "ok  " } else { "FAIL" }));
        }
        lines.iter().all(|(good, _)| *good)
    }
}

/// Waits until the server counts as it did before there were readers, but for their calls.
fn gone(
    server: &Server,
    before: &HashMap<String, f64>,
    readers: usize,
) -> anyhow::Result<Result<Duration, String>> {
    let from = Instant::now();
    loop {
        let after = server.metrics()?;
        let left = |name| rise(before, &after, name);
        // One call of the other account may be under way.
        if left(CONNECTIONS) == 0 && left(IN_FLIGHT) <= 1 && left(CANCELLED) >= readers as u64 {
            return Ok(Ok(from.elapsed()));
        }
        if from.elapsed() > PATIENCE {
            return Ok(Err(format!(
                "{} connections and {} calls are left, {} of {readers} calls ended as given up",
                left(CONNECTIONS),
                left(IN_FLIGHT),
                left(CANCELLED)
            )));
        }
        pause(LOOK_INTERVAL);
    }
}

/// By how much more a figure is than before.
fn rise(before: &HashMap<String, f64>, after: &HashMap<String, f64>, name: &str) -> u64 {
    let of = |page: &HashMap<String, f64>| page.get(name).copied().unwrap_or(0.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole numbers below 2^52, and none below 0"
    )]
    let rise = (of(after) - of(before)).max(0.0) as u64;
    rise
}

/// Stores what is dumped, and reads it once: what it takes to serve a first dump at all is
/// not due to its readers.
fn fill(server: &Server, token: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = client::connect(TcpStream::connect(server.address).await?).await?;
        let bearer = format!("Bearer {token}");
        let value = vec![b'v'; VALUE_BYTES];
        let mut stores = JoinSet::new();
        for number in 0..VALUES {
            if stores.len() == STORES {
                stores.join_next().await.transpose()?.transpose()?;
            }
            let (client, bearer) = (client.clone(), bearer.clone());
            let message = calls::store(&format!("key-{number}"), &value);
            stores.spawn(async move {
                let metadata = [("authorization", &bearer[..])];
                let reply = client::call(client, calls::STORE, &metadata, message).await?;
                ensure!(reply.status == "0", "a store: {}", reply.status);
                Ok(())
            });
        }
        while let Some(stored) = stores.join_next().await {
            stored??;
        }
        let dump = calls::prefixed(&[]);
        let metadata = [("authorization", &bearer[..])];
        let dump = client::call(client, calls::DUMP, &metadata, dump).await?;
        ensure!(
            dump.content.len() > VALUES * VALUE_BYTES,
            "a dump is not whole"
        );
        Ok(())
    })
}

#[allow(clippy::print_stdout, reason = "the output of a command")]
fn say(line: &str) {
    println!("{line}");
}
