//! Writes with a request id: a window beside each account's entries.
//!
//! Claim, write and record are three locks one after the other, never two
//! together. Between them the claim stands, so no copy of the write gets in; and a
//! future that is dropped has not written, because an attempt that writes ends
//! its future in the same poll that records the outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use larder_model::{
    Call, Claimed, Mode, Once, OnceError, Outcome, Remembered, ReplayLimits, ReplayUse, Request,
    Store as _, Time, Window, Write,
};
use parking_lot::Mutex;

use crate::engine::{Account, Engine};
use crate::memory::Memory;

/// Charged for a claim or outcome: its id twice counted and kept once, its place
/// in the map and in the order, its list of items.
const ENTRY_BYTES: u64 = 320;

/// Of the memory limit, what all windows may take: a server with little memory
/// keeps it for entries.
const MEMORY_SHARE: u64 = 16;

/// What the windows of all accounts share.
#[derive(Debug)]
pub(crate) struct Replay {
    limits: ReplayLimits,
    /// Claims and outcomes of all accounts.
    entries: AtomicUsize,
    memory: Arc<Memory>,
}

/// The window of one account, in one life of it.
#[derive(Debug)]
pub(crate) struct Requests {
    shared: Arc<Replay>,
    window: Mutex<Window<Outcome>>,
}

impl Replay {
    pub(crate) fn new(limits: ReplayLimits, memory: Arc<Memory>) -> Self {
        let by_memory = memory.limit() / MEMORY_SHARE / ENTRY_BYTES;
        let by_memory = usize::try_from(by_memory).unwrap_or(usize::MAX);
        let max_total = limits.max_total.min(by_memory).max(1);
        let limits = ReplayLimits {
            max_total,
            max_per_account: limits.max_per_account.clamp(1, max_total),
            ..limits
        };
        Self {
            limits,
            entries: AtomicUsize::new(0),
            memory,
        }
    }

    pub(crate) const fn limits(&self) -> ReplayLimits {
        self.limits
    }

    fn is_full(&self) -> bool {
        self.entries.load(Relaxed) >= self.limits.max_total
    }

    /// Counts what a window has more or less than `before`.
    fn settle(&self, before: usize, after: usize) {
        if after > before {
            self.entries.fetch_add(after - before, Relaxed);
            self.memory.fix((after - before) as u64 * ENTRY_BYTES);
        } else if before > after {
            self.entries.fetch_sub(before - after, Relaxed);
            self.memory.unfix((before - after) as u64 * ENTRY_BYTES);
        }
    }
}

impl Requests {
    /// An empty window. Allocates nothing.
    pub(crate) fn new(shared: &Arc<Replay>) -> Self {
        let ReplayLimits {
            window,
            max_per_account,
            ..
        } = shared.limits;
        Self {
            shared: Arc::clone(shared),
            window: Mutex::new(Window::new(window, max_per_account)),
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Window<Outcome>) -> R) -> R {
        let mut window = self.window.lock();
        let before = window.len();
        let result = work(&mut window);
        self.shared.settle(before, window.len());
        result
    }

    /// Forgets what is over; true if nothing is left.
    pub(crate) fn sweep(&self, now: Time) -> bool {
        self.with(|window| {
            window.expire(now);
            window.is_empty()
        })
    }

    /// Looks at the window, under its lock.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&Window<Outcome>) -> R) -> R {
        look(&self.window.lock())
    }

    pub(crate) fn restore(&self, now: Time, remembered: Remembered<'_, Outcome>) {
        self.with(|window| window.restore(now, remembered));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.window.lock().is_empty()
    }

    /// Gives up the oldest eighth, at least one.
    fn shrink(&self) {
        self.with(|window| window.shrink(window.settled().div_ceil(8)));
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.shared.settle(self.window.get_mut().len(), 0);
    }
}

/// A claim, given back unless it is recorded.
struct Claim<'a> {
    requests: &'a Requests,
    request: Request<'a>,
    is_open: bool,
}

impl Claim<'_> {
    fn record(mut self, now: Time, outcome: Outcome) {
        self.is_open = false;
        let Self {
            requests, request, ..
        } = &self;
        requests.with(|window| window.record(now, *request, outcome));
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.is_open {
            let Self {
                requests, request, ..
            } = self;
            requests.with(|window| window.abandon(*request));
        }
    }
}

impl Engine {
    pub(crate) async fn carry_out_once(
        &self,
        account: &Account,
        call: Call,
        request: Request<'_>,
        write: Write<'_>,
    ) -> Result<Once, OnceError> {
        let requests = &account.0.requests;
        let replay = |outcome| Once {
            outcome,
            replayed: true,
        };
        let fresh = |outcome| Once {
            outcome,
            replayed: false,
        };
        if call.mode == Mode::DryRun {
            let known = requests.window.lock().look(call.now, request)?;
            return match known {
                Some(outcome) => Ok(replay(outcome)),
                None => Ok(fresh(self.carry_out(account, call, write).await?)),
            };
        }
        self.make_room_for_requests();
        let claimed = requests.with(|window| window.claim(call.now, request))?;
        if let Claimed::Known(outcome) = claimed {
            return Ok(replay(outcome));
        }
        let claim = Claim {
            requests,
            request,
            is_open: true,
        };
        let outcome = self.carry_out(account, call, write).await?;
        claim.record(call.now, outcome);
        Ok(fresh(outcome))
    }

    async fn carry_out(
        &self,
        account: &Account,
        call: Call,
        write: Write<'_>,
    ) -> Result<Outcome, OnceError> {
        Ok(match write {
            Write::Set(set) => Outcome::Set(self.set(account, call, set).await?),
            Write::Delete { at, condition } => {
                Outcome::Delete(self.delete(account, call, at, condition).await?)
            }
            Write::Increment(increment) => {
                Outcome::Increment(self.increment(account, call, increment).await?)
            }
        })
    }

    /// Lets one more claim or outcome in, below the limit of all windows together.
    pub(crate) fn make_room_for_requests(&self) {
        if self.replay().is_full() {
            self.relieve();
        }
    }

    /// Makes room in the windows: each gives up its oldest eighth, so the next
    /// time is as many claims away as went.
    fn relieve(&self) {
        let registry = self.registry().read();
        for tenant in registry.tenants() {
            tenant.requests.shrink();
        }
    }
}

impl Account {
    pub(crate) fn recall(
        &self,
        call: Call,
        request: Request<'_>,
    ) -> Result<Option<Outcome>, OnceError> {
        self.0.requests.window.lock().look(call.now, request)
    }

    pub(crate) fn replay_use(&self, call: Call) -> ReplayUse {
        self.0.requests.window.lock().usage(call.now)
    }
}
