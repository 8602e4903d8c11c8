//! One run of a load: what its threads share while it lasts.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// When a run is over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Budget {
    /// After this time.
    Time(Duration),
    /// After so many calls.
    Requests(u64),
}

/// Which calls a run makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Those of the mix, about keys by chance.
    Mix,
    /// One write for each key, in order.
    Preload,
}

/// What a run is told while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// Nothing.
    GoOn,
    /// To begin no more calls.
    Finish,
    /// To drop those under way, too.
    Drop,
}

/// A run. Every field is only counted up, so that no order among them matters.
#[derive(Debug)]
pub(super) struct SharedRun {
    pub(super) start: Instant,
    /// When it is over, if that is a matter of time.
    pub(super) deadline: Option<Instant>,
    pub(super) work: Work,
    /// Another number for each run: each makes other calls than the one before.
    pub(super) seed: u64,
    requests: u64,
    claimed: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    stop: AtomicU8,
}

impl SharedRun {
    pub(super) fn new(budget: Budget, work: Work, seed: u64) -> Self {
        let start = Instant::now();
        let (deadline, requests) = match budget {
            Budget::Time(time) => (start.checked_add(time), u64::MAX),
            Budget::Requests(requests) => (None, requests),
        };
        Self {
            start,
            deadline,
            work,
            seed,
            requests,
            claimed: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stop: AtomicU8::new(0),
        }
    }

    /// Claims one of the calls that there are to make: its number.
    pub(super) fn claim(&self) -> Option<u64> {
        if self.requests == u64::MAX {
            return Some(0);
        }
        // Looked at first, so that it cannot run over.
        if self.claimed.load(Ordering::Relaxed) >= self.requests {
            return None;
        }
        let number = self.claimed.fetch_add(1, Ordering::Relaxed);
        (number < self.requests).then_some(number)
    }

    /// True if no more calls are to begin.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
            || self.claimed.load(Ordering::Relaxed) >= self.requests
            || self.stopped() > Stop::GoOn
    }

    pub(super) fn stop(&self, stop: Stop) {
        self.stop.fetch_max(stop as u8, Ordering::Relaxed);
    }

    pub(super) fn stopped(&self) -> Stop {
        match self.stop.load(Ordering::Relaxed) {
            0 => Stop::GoOn,
            1 => Stop::Finish,
            _ => Stop::Drop,
        }
    }

    /// Adds calls that have ended, for whoever watches.
    pub(super) fn count(&self, done: u64, failed: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
    }

    /// Calls that have ended, and those of them that failed.
    pub(super) fn counted(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.done), load(&self.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_claimed_once() {
        let run = SharedRun::new(Budget::Requests(1_000), Work::Mix, 0);
        let claimed = std::thread::scope(|scope| {
            let claim = || std::iter::from_fn(|| run.claim()).count();
            let threads = [(); 4].map(|()| scope.spawn(claim));
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(claimed.iter().sum::<usize>(), 1_000);
        assert!(run.is_over(run.start));
    }

    #[test]
    fn what_ends_a_run() {
        let run = SharedRun::new(Budget::Time(Duration::from_secs(9)), Work::Mix, 0);
        assert!(!run.is_over(run.start + Duration::from_secs(8)));
        assert!(run.is_over(run.start + Duration::from_secs(9)));
        run.stop(Stop::Drop);
        run.stop(Stop::Finish);
        assert_eq!(run.stopped(), Stop::Drop);
        assert!(run.is_over(run.start));
    }
}
