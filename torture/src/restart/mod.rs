//! Servers that end while clients write to them, and start again on the same data
//! directory: by SIGTERM, or by SIGKILL.
//!
//! | file | what |
//! |---|---|
//! | `process.rs` | one run of the server on a data directory |
//! | `writers.rs` | clients that write all the while, and know what was acknowledged |
//! | `ledger.rs` | what each key may hold after a restart |

mod ledger;
mod process;
mod writers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::ledger::Ledger;
use self::process::{Process, newest_snapshot};
use self::writers::Writers;

/// How the server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// SIGTERM: it drains, and saves all that it acknowledged.
    Drain,
    /// SIGKILL: what it has saved before counts.
    Crash,
}

/// What is done.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) larder: PathBuf,
    pub(crate) end: End,
    pub(crate) rounds: u64,
    pub(crate) seed: u64,
    pub(crate) connections: usize,
}

/// Calls in flight on each connection.
const STREAMS: usize = 8;
/// Keys of each of them.
const KEYS: usize = 40;
/// Longest drain: the server's grace is 10 s, and nobody needs it here.
const MAX_DRAIN: Duration = Duration::from_secs(8);
/// One round in so many leaves half a head of HTTP/1.1 on a connection.
const HALF_HEADS: u64 = 4;
/// Longest wait for a snapshot to begin.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(20);

/// What all rounds came to.
#[derive(Debug, Default)]
struct Sum {
    acknowledged: u64,
    not_taken: u64,
    in_snapshot: u64,
    checked: u64,
    longest: Duration,
    failures: Vec<String>,
}

/// Runs all rounds, and prints what they came to. False if a promise was broken.
///
/// # Errors
/// The server cannot be started.
#[allow(clippy::print_stdout, reason = "the output of a command")]
pub(crate) fn run(plan: &Plan) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let home = tempfile::tempdir()?;
    let mut ledger = Ledger::new(plan.connections * STREAMS, KEYS);
    let mut sum = Sum::default();
    let begun = Instant::now();
    for round in 0..=plan.rounds {
        let before = sum.failures.len();
        let done = runtime.block_on(one(plan, home.path(), round, &mut ledger, &mut sum));
        done.with_context(|| format!("round {round}"))?;
        for failure in &sum.failures[before..] {
            println!("round {round}: {failure}");
        }
    }
    let Sum {
        acknowledged,
        not_taken,
        in_snapshot,
        checked,
        longest,
        failures,
    } = sum;
    println!(
        "{:?}: {} rounds in {:.0} s with seed {}, {acknowledged} writes acknowledged, {not_taken} not taken, \
         {in_snapshot} ends while a snapshot was written, {checked} keys checked after restarts, \
         longest end {:.2} s, {} failures",
        plan.end,
        plan.rounds,
        begun.elapsed().as_secs_f64(),
        plan.seed,
        longest.as_secs_f64(),
        failures.len(),
    );
    Ok(failures.is_empty())
}

/// Starts the server, checks what it has of the round before, writes, and ends it;
/// the last round only checks.
async fn one(
    plan: &Plan,
    home: &Path,
    round: u64,
    ledger: &mut Ledger,
    sum: &mut Sum,
) -> anyhow::Result<()> {
    let interval = match plan.end {
        End::Drain => "off",
        End::Crash => "1s",
    };
    let mut process = Process::start(&plan.larder, home, interval)?;
    if process.log()?.contains("NOT LOADED") {
        sum.failures
            .push(format!("a snapshot is not whole:\n{}", process.log()?));
    }
    let found = writers::read_all(process.address, ledger).await?;
    sum.checked += found.len() as u64;
    sum.failures.extend(ledger.check(&found));
    ledger.settle(&found);
    if round == plan.rounds {
        return process.kill();
    }
    let writers = Writers::start(process.address, ledger, plan.connections, STREAMS).await?;
    let mut random = Random(plan.seed.wrapping_add(round));
    match plan.end {
        End::Drain => {
            tokio::time::sleep(Duration::from_millis(20 + random.below(200))).await;
            let half = match round % HALF_HEADS {
                0 => Some(half_a_head(&process).await?),
                _ => None,
            };
            sum.longest = sum.longest.max(drain(&mut process, sum).await?);
            drop(half);
        }
        End::Crash => {
            let folder = home.join("data/snapshots");
            if round.is_multiple_of(3) {
                wait_for_part(&folder).await?;
                sum.in_snapshot += 1;
            } else {
                tokio::time::sleep(Duration::from_millis(random.below(2_500))).await;
            }
            process.kill()?;
        }
    }
    let ended = writers.end().await;
    sum.acknowledged += ended.acknowledged;
    sum.not_taken += ended.not_taken;
    ledger.merge(ended.writes);
    match plan.end {
        End::Drain => {
            sum.failures.extend(ended.cut);
            ledger.expect_all_acknowledged();
        }
        End::Crash => match newest_snapshot(&home.join("data/snapshots"))? {
            Some(begun_unix_ms) => ledger.expect_what_was_acknowledged_before(begun_unix_ms),
            None => ledger.expect_nothing(),
        },
    }
    Ok(())
}

/// SIGTERM, and how long it takes.
async fn drain(process: &mut Process, sum: &mut Sum) -> anyhow::Result<Duration> {
    process.signal("TERM")?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = process.ended()? {
            break status;
        }
        if begun.elapsed() > MAX_DRAIN {
            sum.failures
                .push(format!("it drains for {MAX_DRAIN:?}:\n{}", process.log()?));
            process.kill()?;
            return Ok(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let log = process.log()?;
    if !status.success() || !log.contains("wrote a snapshot") {
        sum.failures.push(format!("it ended with {status}:\n{log}"));
    }
    Ok(begun.elapsed())
}

/// A connection of HTTP/1.1 that is in the middle of a head.
async fn half_a_head(process: &Process) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(process.address).await?;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: loc")
        .await?;
    Ok(stream)
}

/// Waits until a snapshot is being written.
async fn wait_for_part(folder: &Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < SNAPSHOT_PATIENCE {
        for file in std::fs::read_dir(folder)? {
            if file?.path().extension().is_some_and(|it| it == "part") {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bail!("no snapshot is written")
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
