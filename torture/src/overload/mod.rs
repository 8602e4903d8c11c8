//! Overload: several times the calls that the server can serve, at a rate that does not
//! wait for it. What it serves must be nearly as much as ever, and in time; and an
//! account that asks for little must not notice.
//!
//! | file | what |
//! |---|---|
//! | `load.rs` | calls at a rate, counted from when they should have begun |
//! | `line.rs` | one connection of them |

mod line;
mod load;

use std::time::Duration;

use anyhow::ensure;

use self::load::{Run, Tenant};
use crate::quota::{Quota, Share};
use crate::server::{Program, Server};

/// How large the test is, and what it must come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Of each run.
    pub(crate) duration: Duration,
    pub(crate) value_bytes: usize,
    /// Stores in a hundred calls; the others are gets.
    pub(crate) writes: u64,
    /// Connections of each account.
    pub(crate) connections: usize,
    /// Calls under way on each when capacity is measured.
    pub(crate) calls: usize,
    /// Times the calls that can be served.
    pub(crate) times: f64,
    pub(crate) share: Share,
    /// Goodput, as a part of the best.
    pub(crate) least_goodput: f64,
    /// Of the calls of an account that asks for little, so many must be served.
    pub(crate) least_modest: f64,
    /// The 99th percentile of the latency of what is served, in that at 80 % of capacity.
    pub(crate) most_latency: f64,
}

/// Accounts; the last asks for little.
const ACCOUNTS: usize = 5;
/// What that one asks for, as a part of capacity.
const MODEST: f64 = 0.05;
/// The rate is raised by so much while it is found out how many can be served, so often,
/// and as long as so many more are.
const STEP: f64 = 1.5;
const MOST_STEPS: usize = 8;
const LEAST_GAIN: f64 = 1.1;
/// The machine may have other things to do.
const REFUSED_AFTER: u64 = 20;
/// Below this no latency is told from noise.
const GRAIN: Duration = Duration::from_millis(2);

/// Runs the test, and prints what it came to. False if that is not enough.
///
/// # Errors
/// The server cannot be started, or ends.
pub(crate) fn run(program: &Program, size: Size) -> anyhow::Result<bool> {
    let quota = Quota::make(size.share);
    let extra: &[&str] = match quota {
        Quota::Group { .. } => &[],
        Quota::Core | Quota::None => &["--threads", "1"],
    };
    let mut server = Server::start_with(program, 10_000, extra)?;
    let tokens = server.accounts(program, ACCOUNTS)?;
    quota.hold(server.process.id())?;
    quota.hold_self()?;
    say(&format!(
        "the server: {quota}; {ACCOUNTS} accounts with {} connections each, {} % stores, the others gets, of {} bytes",
        size.connections, size.writes, size.value_bytes
    ));
    let tenants = tokens.iter().map(|token| {
        Tenant::start(
            server.address,
            token,
            size.connections,
            size.value_bytes,
            size.writes,
        )
    });
    let mut tenants: Vec<Tenant> = tenants.collect::<Result<_, _>>()?;

    let (capacity, best) = capacity(&mut tenants, &size)?;
    let mut at = |times: f64| -> anyhow::Result<Run> {
        let rates = rates(capacity, times);
        // What it was before is over, and what is new has begun.
        load::open(&mut tenants, &rates, Duration::from_secs(1))?;
        let run = load::open(&mut tenants, &rates, size.duration)?;
        report(&format!("at {times} × capacity"), &run);
        Ok(run)
    };
    let calm = at(0.8)?;
    let full = at(1.0)?;
    let over = at(size.times)?;
    let after = at(0.5)?;
    ensure!(server.is_alive(), "the server has ended");
    Ok(judge(&size, best, [&calm, &full, &over, &after]))
}

/// Calls a second that the server can serve, and the best goodput that was seen.
///
/// With so many calls at a time it is seldom busy all the time, if it waits for its
/// processor time: the rate is raised until more is not served.
fn capacity(tenants: &mut [Tenant], size: &Size) -> anyhow::Result<(f64, f64)> {
    load::closed(tenants, size.calls, size.duration / 2)?;
    let closed = load::closed(tenants, size.calls, size.duration)?;
    report("as many as are served", &closed);
    let mut capacity = closed.goodput();
    for _ in 0..MOST_STEPS {
        let run = load::open(tenants, &rates(capacity, STEP), size.duration)?;
        report(&format!("at {:.0}/s", STEP * capacity), &run);
        if run.goodput() < LEAST_GAIN * capacity {
            return Ok((capacity, capacity.max(run.goodput())));
        }
        capacity = run.goodput();
    }
    Ok((capacity, capacity))
}

/// Calls a second of each account.
fn rates(capacity: f64, times: f64) -> Vec<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let greedy = (ACCOUNTS - 1) as f64;
    let each = capacity * (times - MODEST) / greedy;
    let mut rates = vec![each; ACCOUNTS - 1];
    rates.push(capacity * MODEST);
    rates
}

fn judge(size: &Size, best: f64, runs: [&Run; 4]) -> bool {
    let [calm, _, over, after] = runs;
    let best = runs.iter().map(|run| run.goodput()).fold(best, f64::max);
    let goodput = over.goodput() / best;
    let calm = calm.percentile(99).max(GRAIN);
    let latency = over.percentile(99).as_secs_f64() / calm.as_secs_f64();
    let modest = over.counts.last().map_or(0.0, |counts| {
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let part = counts.served.len() as f64 / counts.offered().max(1) as f64;
        part
    });
    let times = size.times;
    let failed = runs.iter().map(|run| run.sum(|counts| counts.failed));
    let failed: u64 = failed.sum();
    let lines = [
        (
            goodput >= size.least_goodput,
            format!(
                "goodput at {times} ×: {:.1} % of the best (at least {:.0} %)",
                100.0 * goodput,
                100.0 * size.least_goodput
            ),
        ),
        (
            latency <= size.most_latency,
            format!(
                "p99 of what is served: {latency:.2} × that at 80 % (at most {} ×)",
                size.most_latency
            ),
        ),
        (
            modest >= size.least_modest,
            format!(
                "of the calls of the account that asks for {:.0} % of capacity, {:.1} % are served (at least {:.0} %)",
                100.0 * MODEST,
                100.0 * modest,
                100.0 * size.least_modest
            ),
        ),
        (
            after.sum(|counts| counts.refused) * REFUSED_AFTER <= after.sum(load::Counts::offered),
            format!(
                "hardly anything is refused once it is over (at most one call of {REFUSED_AFTER})"
            ),
        ),
        (
            failed == 0,
            format!("calls that failed otherwise: {failed}"),
        ),
    ];
    for (good, line) in &lines {
        say(&format!("{} {line}", if *good { "ok  " } else { "FAIL" }));
    }
    lines.iter().all(|(good, _)| *good)
}

fn report(what: &str, run: &Run) {
    let offered = run.sum(load::Counts::offered);
    say(&format!(
        "{what:<22} {offered:>9} calls: {:>8.0}/s served, {:>8} refused, {:>7} late; p50 {:?}, p99 {:?}",
        run.goodput(),
        run.sum(|counts| counts.refused),
        run.sum(|counts| counts.late),
        run.percentile(50),
        run.percentile(99),
    ));
}

#[allow(clippy::print_stdout, reason = "the output of a command")]
fn say(line: &str) {
    println!("{line}");
}
