//! The counters of an account, exact at every instant.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use larder_model::{AtLimit, Growth, Quota, StoreError, Usage};

use crate::policy::Scarce;

/// Reads and departures, counted by one shard.
///
/// Only ever changed under that shard's lock, so a change is a load and a
/// store, no locked instruction; a cell has a cache line to itself.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Tally {
    hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
    expired: AtomicU64,
}

/// Which figure of a [`Tally`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Hit,
    Miss,
    Evicted,
    Expired,
}

/// What an account may use and does use.
///
/// Room is reserved before an entry is inserted and released when it has gone,
/// both under the lock of the entry's shard, so that `keys` and `bytes` are
/// never below what is there, and never above the quota unless it was lowered.
/// A write that gets a key but no bytes gives the key back; another write may
/// see the account full in between and be refused, as if it had come while
/// that key was there.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Number among the owners of a partition.
    pub(crate) number: u32,
    keys: AtomicU64,
    bytes: AtomicU64,
    max_keys: AtomicU64,
    max_bytes: AtomicU64,
    evicts: AtomicBool,
    /// What [`AtLimit::Evict`] amounts to here.
    may_evict: bool,
    closed: AtomicBool,
    tallies: Box<[Tally]>,
}

/// What is missing for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    Keys { limit: u64, wanted: u64 },
    Bytes { limit: u64, wanted: u64 },
    Memory { limit: u64, wanted: u64 },
}

impl Shortage {
    /// What an eviction that would help has to free.
    pub(crate) const fn scarce(self) -> Scarce {
        match self {
            Self::Keys { .. } => Scarce::Keys,
            Self::Bytes { .. } | Self::Memory { .. } => Scarce::Bytes,
        }
    }
}

impl From<Shortage> for StoreError {
    fn from(shortage: Shortage) -> Self {
        match shortage {
            Shortage::Keys { limit, .. } => Self::KeyQuota { limit },
            Shortage::Bytes { limit, .. } => Self::ByteQuota { limit },
            Shortage::Memory { limit, .. } => Self::MemoryFull { limit },
        }
    }
}

/// Keys and bytes, asked for or given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
}

impl Ledger {
    pub(crate) fn new(number: u32, may_evict: bool, shards: usize) -> Self {
        Self {
            number,
            keys: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            max_keys: AtomicU64::new(0),
            max_bytes: AtomicU64::new(0),
            evicts: AtomicBool::new(false),
            may_evict,
            closed: AtomicBool::new(false),
            tallies: (0..shards).map(|_| Tally::default()).collect(),
        }
    }

    /// Sets the quota, from the next write on. A closed account keeps none.
    pub(crate) fn requota(&self, quota: Quota) {
        if self.is_closed() {
            return;
        }
        self.max_keys.store(quota.max_keys, Relaxed);
        self.max_bytes.store(quota.max_bytes, Relaxed);
        self.evicts.store(quota.at_limit == AtLimit::Evict, Relaxed);
    }

    /// From now on nothing gets in. Whoever visits each shard's lock after
    /// this has seen the last entry.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
        self.max_keys.store(0, Relaxed);
        self.max_bytes.store(0, Relaxed);
        self.evicts.store(false, Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// True when the account makes room by its own entries.
    pub(crate) fn evicts(&self) -> bool {
        self.may_evict && self.evicts.load(Relaxed)
    }

    /// Takes room, all or none. Nothing asked is always there.
    pub(crate) fn reserve(&self, amount: Amount) -> Result<(), Shortage> {
        let Amount { keys, bytes } = amount;
        let limit = self.max_keys.load(Relaxed);
        if !take(&self.keys, keys, limit) {
            return Err(Shortage::Keys {
                limit,
                wanted: keys,
            });
        }
        let limit = self.max_bytes.load(Relaxed);
        if !take(&self.bytes, bytes, limit) {
            self.keys.fetch_sub(keys, Relaxed);
            return Err(Shortage::Bytes {
                limit,
                wanted: bytes,
            });
        }
        Ok(())
    }

    /// What [`reserve`](Self::reserve) would say if there were `expected` more, and
    /// `due` less.
    pub(crate) fn foresee(
        &self,
        amount: Amount,
        expected: Growth,
        due: Amount,
    ) -> Result<(), Shortage> {
        let foreseen = |used: &AtomicU64, due: u64, expected: i64| {
            let used = used.load(Relaxed).saturating_sub(due);
            used.saturating_add_signed(expected)
        };
        let limit = self.max_keys.load(Relaxed);
        if !fits(
            foreseen(&self.keys, due.keys, expected.keys),
            amount.keys,
            limit,
        ) {
            let wanted = amount.keys;
            return Err(Shortage::Keys { limit, wanted });
        }
        let limit = self.max_bytes.load(Relaxed);
        if !fits(
            foreseen(&self.bytes, due.bytes, expected.bytes),
            amount.bytes,
            limit,
        ) {
            let wanted = amount.bytes;
            return Err(Shortage::Bytes { limit, wanted });
        }
        Ok(())
    }

    /// What [`reserve`](Self::reserve) would say, with nothing taken.
    pub(crate) fn probe(&self, amount: Amount) -> Result<(), Shortage> {
        let keys = Shortage::Keys {
            limit: self.max_keys.load(Relaxed),
            wanted: amount.keys,
        };
        let bytes = Shortage::Bytes {
            limit: self.max_bytes.load(Relaxed),
            wanted: amount.bytes,
        };
        match [keys, bytes].into_iter().find(|it| self.lacks(*it)) {
            Some(shortage) => Err(shortage),
            None => Ok(()),
        }
    }

    /// True while there is not the room that a shortage was about. That of
    /// memory is not known here.
    pub(crate) fn lacks(&self, shortage: Shortage) -> bool {
        match shortage {
            Shortage::Keys { limit, wanted } => !fits(self.keys.load(Relaxed), wanted, limit),
            Shortage::Bytes { limit, wanted } => !fits(self.bytes.load(Relaxed), wanted, limit),
            Shortage::Memory { .. } => false,
        }
    }

    /// Of what there is more than a lowered quota allows.
    pub(crate) fn excess(&self) -> Option<Scarce> {
        if self.keys.load(Relaxed) > self.max_keys.load(Relaxed) {
            Some(Scarce::Keys)
        } else if self.bytes.load(Relaxed) > self.max_bytes.load(Relaxed) {
            Some(Scarce::Bytes)
        } else {
            None
        }
    }

    /// Whether one entry of this size fits once all others are gone.
    pub(crate) fn fits_alone(&self, size_bytes: u64) -> Result<(), Shortage> {
        let limit = self.max_keys.load(Relaxed);
        if limit == 0 {
            return Err(Shortage::Keys { limit, wanted: 1 });
        }
        let limit = self.max_bytes.load(Relaxed);
        if size_bytes > limit {
            return Err(Shortage::Bytes {
                limit,
                wanted: size_bytes,
            });
        }
        Ok(())
    }

    /// Gives room back.
    pub(crate) fn release(&self, amount: Amount) {
        self.keys.fetch_sub(amount.keys, Relaxed);
        self.bytes.fetch_sub(amount.bytes, Relaxed);
    }

    /// Counts an event; the caller holds the lock of `shard`.
    pub(crate) fn note(&self, shard: usize, event: Event) {
        let tally = &self.tallies[shard];
        let figure = match event {
            Event::Hit => &tally.hits,
            Event::Miss => &tally.misses,
            Event::Evicted => &tally.evicted,
            Event::Expired => &tally.expired,
        };
        figure.store(figure.load(Relaxed) + 1, Relaxed);
    }

    /// What is reserved now; nothing, for a closed account.
    pub(crate) fn reserved(&self) -> Amount {
        if self.is_closed() {
            return Amount::default();
        }
        Amount {
            keys: self.keys.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let sum = |figure: fn(&Tally) -> &AtomicU64| {
            let figures = self.tallies.iter().map(figure);
            figures.map(|it| it.load(Relaxed)).sum()
        };
        let Amount { keys, bytes } = self.reserved();
        Usage {
            keys,
            bytes,
            quota: Quota {
                max_keys: self.max_keys.load(Relaxed),
                max_bytes: self.max_bytes.load(Relaxed),
                at_limit: if self.evicts.load(Relaxed) {
                    AtLimit::Evict
                } else {
                    AtLimit::Refuse
                },
            },
            hits: sum(|tally| &tally.hits),
            misses: sum(|tally| &tally.misses),
            evicted: sum(|tally| &tally.evicted),
            expired: sum(|tally| &tally.expired),
        }
    }
}

fn fits(used: u64, more: u64, limit: u64) -> bool {
    more == 0 || used.checked_add(more).is_some_and(|sum| sum <= limit)
}

/// Bounded compare-and-swap.
fn take(used: &AtomicU64, more: u64, limit: u64) -> bool {
    let bounded = |now: u64| fits(now, more, limit).then(|| now + more);
    more == 0 || used.fetch_update(Relaxed, Relaxed, bounded).is_ok()
}
