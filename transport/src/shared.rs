//! What all connections of a server share: counters, a register of themselves, and a budget of
//! memory.
//!
//! None is touched by a call that is answered at once to a client that takes
//! its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::registry::Registry;
use crate::stats::Stats;

/// What all connections of a server share.
#[derive(Debug)]
pub struct Shared {
    stats: Stats,
    registry: Registry,
    /// Bytes that connections keep from turn to turn.
    buffered: AtomicUsize,
    max_buffered_bytes: usize,
}

impl Shared {
    /// `max_buffered_bytes` is what all connections together may keep of answers
    /// that are not taken, and of requests that are not complete.
    #[must_use]
    pub fn new(max_buffered_bytes: usize) -> Self {
        Self {
            stats: Stats::default(),
            registry: Registry::default(),
            buffered: AtomicUsize::new(0),
            max_buffered_bytes,
        }
    }

    /// What was counted.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The connections themselves, for who looks at them.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Bytes that connections keep, as far as they have told: each tells a
    /// change of 4 KiB, and when it keeps nothing.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffered.load(Ordering::Relaxed)
    }

    /// What they may keep.
    #[must_use]
    pub const fn max_buffered_bytes(&self) -> usize {
        self.max_buffered_bytes
    }

    /// True if the connections keep more than they may.
    #[inline]
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.buffered_bytes() > self.max_buffered_bytes
    }
}

/// One connection's part of what is kept.
#[derive(Debug)]
pub(crate) struct Buffered {
    shared: Arc<Shared>,
    told: usize,
}

impl Buffered {
    /// A smaller change is not told, unless it is to nothing.
    pub(crate) const GRAIN_BYTES: usize = 4096;

    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, told: 0 }
    }

    /// The connection keeps `bytes` now.
    #[inline]
    pub(crate) fn tell(&mut self, bytes: usize) {
        if self.told == bytes {
            return;
        }
        let Self { shared, .. } = self;
        if bytes == 0 || bytes.abs_diff(self.told) >= Self::GRAIN_BYTES {
            if bytes > self.told {
                let more = bytes - self.told;
                shared.buffered.fetch_add(more, Ordering::Relaxed);
            } else {
                let less = self.told - bytes;
                shared.buffered.fetch_sub(less, Ordering::Relaxed);
            }
            self.told = bytes;
        }
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.tell(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_by_the_grain_and_nothing_always() {
        let shared = Arc::new(Shared::new(10_000));
        let mut buffered = Buffered::new(Arc::clone(&shared));
        let mut check = |bytes: usize, told: usize, over: bool| {
            buffered.tell(bytes);
            assert_eq!(shared.buffered_bytes(), told, "{bytes}");
            assert_eq!(shared.is_overloaded(), over, "{bytes}");
        };
        check(4095, 0, false);
        check(4096, 4096, false);
        check(8191, 4096, false);
        check(10_001, 10_001, true);
        check(6000, 10_001, true);
        check(5000, 5000, false);
        check(0, 0, false);
        check(5000, 5000, false);
        drop(buffered);
        assert_eq!(shared.buffered_bytes(), 0);
    }
}
