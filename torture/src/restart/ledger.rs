//! What each key may hold after a restart.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One key: its writes are numbered, and made one after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Key {
    /// The last write that was tried.
    pub(super) tried: u64,
    /// Those that were acknowledged since the last start, and when, ms since 1970.
    pub(super) acknowledged: Vec<(u64, u64)>,
    /// What it held at that start; 0 for nothing.
    pub(super) settled: u64,
    /// What it may hold after the next.
    expected: (u64, u64),
}

/// All keys, by writer.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) writers: Vec<Vec<Key>>,
}

/// Failures of one restart that are told one by one.
const TOLD: usize = 5;

impl Ledger {
    pub(super) fn new(writers: usize, keys: usize) -> Self {
        Self {
            writers: vec![vec![Key::default(); keys]; writers],
        }
    }

    /// What the writers did.
    pub(super) fn merge(&mut self, writes: Vec<Vec<Key>>) {
        self.writers = writes;
    }

    /// After a drain: everything, and nothing that was not acknowledged.
    pub(super) fn expect_all_acknowledged(&mut self) {
        self.expect(|key| (key.last(u64::MAX), key.last(u64::MAX)));
    }

    /// After a crash: no less than was acknowledged before the newest snapshot, and no
    /// more than was ever written.
    pub(super) fn expect_what_was_acknowledged_before(&mut self, unix_ms: u64) {
        self.expect(|key| (key.last(unix_ms), key.tried));
    }

    /// After a crash before the first snapshot.
    pub(super) fn expect_nothing(&mut self) {
        self.expect(|_| (0, 0));
    }

    fn expect(&mut self, range: impl Fn(&Key) -> (u64, u64)) {
        for key in self.writers.iter_mut().flatten() {
            key.expected = range(key);
        }
    }

    /// What is wrong with what was found, in the order of the keys.
    pub(super) fn check(&self, found: &[u64]) -> Vec<String> {
        let keys = self.writers.iter().flatten().enumerate();
        let wrong = keys.zip(found).filter(|((_, key), found)| {
            let (least, most) = key.expected;
            **found < least || **found > most
        });
        let told = wrong.map(|((number, key), found)| {
            let (least, most) = key.expected;
            format!("key {number} holds write {found}, not {least} to {most}")
        });
        let mut told: Vec<_> = told.collect();
        if told.len() > TOLD {
            let more = told.len() - TOLD;
            told.truncate(TOLD);
            told.push(format!("and {more} more"));
        }
        told
    }

    /// What was found is where the next round begins.
    pub(super) fn settle(&mut self, found: &[u64]) {
        for (key, found) in self.writers.iter_mut().flatten().zip(found) {
            key.settled = *found;
            key.acknowledged.clear();
        }
    }
}

impl Key {
    /// The last write that was acknowledged before `unix_ms`.
    fn last(&self, unix_ms: u64) -> u64 {
        let mut before = self.acknowledged.iter().filter(|(_, at)| *at < unix_ms);
        before
            .next_back()
            .map_or(self.settled, |(number, _)| *number)
    }
}

/// Milliseconds since 1970.
#[allow(
    clippy::disallowed_methods,
    reason = "snapshots bear the time of the wall clock"
)]
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u64::MAX)
}
