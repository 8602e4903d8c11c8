//! The load: calls at a fixed rate whatever the server does, each counted from when it
//! should have begun; or so many at a time, to find out how many it can serve.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::line::{End, Line, PATIENCE, Request};
use crate::calls;

/// Between two looks at the sockets when there is nothing to do.
const NAP: Duration = Duration::from_micros(100);
/// From one key to the next, without a common divisor with [`KEYS`].
const KEY_STRIDE: u64 = 27;
/// Keys of an account.
const KEYS: u64 = 64;

/// One account's part of the load.
pub(super) struct Tenant {
    lines: Vec<Line>,
    next: usize,
    made: u64,
    /// Of a hundred calls.
    writes: u64,
    counts: Counts,
}

/// What came of an account's calls.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    /// From when they should have begun to their answer, of those that were served.
    pub(super) served: Vec<Duration>,
    pub(super) refused: u64,
    pub(super) late: u64,
    pub(super) failed: u64,
}

impl Counts {
    fn add(&mut self, end: End, took: Duration) {
        match end {
            // Nobody waits for it any more.
            End::Served if took > PATIENCE => self.late += 1,
            End::Served => self.served.push(took),
            End::Refused => self.refused += 1,
            End::Late => self.late += 1,
            End::Failed => self.failed += 1,
        }
    }

    /// All calls.
    pub(super) fn offered(&self) -> u64 {
        self.served.len() as u64 + self.refused + self.late + self.failed
    }
}

impl Tenant {
    /// Connects, and stores what it will ask for.
    ///
    /// # Errors
    /// The server does not take that.
    pub(super) fn start(
        address: SocketAddr,
        token: &str,
        lines: usize,
        value_bytes: usize,
        writes: u64,
    ) -> anyhow::Result<Self> {
        let value = vec![b'v'; value_bytes];
        let key = |number: u64| format!("key-{number}");
        let gets = (0..KEYS).map(|n| Request::new(calls::GET, token, calls::get(&key(n))));
        let store = |n| Request::new(calls::STORE, token, calls::store(&key(n), &value));
        let requests: Vec<Request> = gets.chain((0..KEYS).map(store)).collect();
        let lines = (0..lines).map(|_| Line::connect(address, requests.clone()));
        let mut tenant = Self {
            lines: lines.collect::<Result<_, _>>()?,
            next: 0,
            made: 0,
            writes,
            counts: Counts::default(),
        };
        let now = Instant::now();
        for number in 0..KEYS {
            tenant.lines[0].call(usize::try_from(KEYS + number)?, now);
        }
        while tenant.unended() > 0 {
            tenant.turn(Instant::now())?;
            std::thread::park_timeout(NAP);
        }
        let Counts { served, .. } = std::mem::take(&mut tenant.counts);
        anyhow::ensure!(served.len() as u64 == KEYS, "not all keys were stored");
        Ok(tenant)
    }

    /// The next call should have begun at `at`.
    fn call(&mut self, at: Instant) {
        self.made += 1;
        // Writes are spread evenly over the others.
        let is_write = self.made * self.writes % 100 < self.writes;
        let key = self.made.wrapping_mul(KEY_STRIDE) % KEYS;
        let request = if is_write { KEYS + key } else { key };
        self.next = (self.next + 1) % self.lines.len();
        self.lines[self.next].call(usize::try_from(request).unwrap_or(0), at);
    }

    fn turn(&mut self, now: Instant) -> anyhow::Result<()> {
        for line in &mut self.lines {
            line.turn(now, |end, took| self.counts.add(end, took))?;
        }
        Ok(())
    }

    fn unended(&self) -> usize {
        self.lines.iter().map(Line::unended).sum()
    }
}

/// What a run came to.
#[derive(Debug)]
pub(super) struct Run {
    /// By account.
    pub(super) counts: Vec<Counts>,
    /// From its beginning to the last answer.
    pub(super) took: Duration,
}

impl Run {
    /// Calls a second that were served in time.
    pub(super) fn goodput(&self) -> f64 {
        let served: usize = self.counts.iter().map(|counts| counts.served.len()).sum();
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let served = served as f64;
        served / self.took.as_secs_f64()
    }

    /// Of all that `count` counts.
    pub(super) fn sum(&self, count: impl Fn(&Counts) -> u64) -> u64 {
        self.counts.iter().map(count).sum()
    }

    /// A percentile of the latency of calls that were served.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let all = self.counts.iter().flat_map(|counts| &counts.served);
        let mut all: Vec<Duration> = all.copied().collect();
        all.sort_unstable();
        let place = (all.len() * percent).div_ceil(100).saturating_sub(1);
        all.get(place).copied().unwrap_or_default()
    }
}

/// Each account keeps so many calls under way on each connection.
///
/// # Errors
/// The server ends a connection.
pub(super) fn closed(
    tenants: &mut [Tenant],
    each: usize,
    duration: Duration,
) -> anyhow::Result<Run> {
    let start = Instant::now();
    let end = start + duration;
    run(tenants, start, end, |tenants, now| {
        for tenant in tenants {
            while tenant.unended() < each * tenant.lines.len() {
                tenant.call(now);
            }
        }
    })
}

/// Each account makes so many calls a second, in the order of the accounts.
///
/// # Errors
/// The server ends a connection.
pub(super) fn open(
    tenants: &mut [Tenant],
    rates: &[f64],
    duration: Duration,
) -> anyhow::Result<Run> {
    let start = Instant::now();
    let end = start + duration;
    let mut due: Vec<Duration> = vec![Duration::ZERO; tenants.len()];
    run(tenants, start, end, |tenants, now| {
        let elapsed = now.saturating_duration_since(start);
        for ((tenant, rate), due) in tenants.iter_mut().zip(rates).zip(&mut due) {
            while *due < elapsed {
                tenant.call(start + *due);
                *due += Duration::from_secs_f64(1.0 / rate.max(0.001));
            }
        }
    })
}

fn run(
    tenants: &mut [Tenant],
    start: Instant,
    end: Instant,
    mut make: impl FnMut(&mut [Tenant], Instant),
) -> anyhow::Result<Run> {
    let mut at_end = None;
    let give_up = end + 2 * PATIENCE;
    loop {
        let now = Instant::now();
        if now < end {
            make(tenants, now);
        } else if at_end.is_none() {
            at_end = Some(now);
        }
        for tenant in &mut *tenants {
            tenant.turn(now)?;
        }
        let unended: usize = tenants.iter().map(Tenant::unended).sum();
        if now >= end && unended == 0 || now >= give_up {
            break;
        }
        std::thread::park_timeout(NAP);
    }
    let counts = tenants
        .iter_mut()
        .map(|tenant| {
            let counts = std::mem::take(&mut tenant.counts);
            Counts {
                failed: counts.failed + tenant.unended() as u64,
                ..counts
            }
        })
        .collect();
    Ok(Run {
        counts,
        took: at_end.unwrap_or(end).saturating_duration_since(start),
    })
}
