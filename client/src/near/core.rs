//! What a near cache holds, and what it may give out: a state machine that is told the time.
//!
//! Two things are held. `kept` has the entries, bounded. `air` has the gets that are under way:
//! whatever says that an entry has changed takes the gets of its key out of it *before* it takes
//! the entry out of `kept`, and an answer goes into `kept` only while its get is still in `air`,
//! under the same lock. So no answer that was read before a change is kept after it.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::NearConfig;
use super::doubts::Doubts;
use super::stats::{Counts, NearStats};
use crate::types::Entry;

/// Nanoseconds since the near cache was made.
pub(super) type Nanos = u64;

/// An entry or a miss; `None` is a miss.
pub(super) type Found = Option<Entry>;

/// What an entry costs beside its key and value, bytes: its slot and those kept free, its share of
/// the table, what it says of itself, and the allocator's part in five allocations.
/// `examples/near.rs` measures 322 where the slots are three quarters full; they may be half full.
const OVERHEAD_BYTES: u64 = 384;

/// A part of the room, bytes: the largest entry of a server's default limits fits into it.
const PART_BYTES: u64 = 4 << 20;

/// Most parts, each with a lock of its own.
const MAX_PARTS: u64 = 64;

/// What an entry is taken to have, to size what is remembered of those that went.
const TYPICAL_BYTES: u64 = 1 << 10;

pub(super) struct Core {
    pub(super) namespace: Arc<str>,
    born: Instant,
    max_staleness: Nanos,
    /// 0: misses are not kept.
    max_miss_staleness: Nanos,
    clock_skew: Duration,
    kept: Cache<Bytes, Arc<Kept>, Weigh, RandomState, Evicted>,
    air: Mutex<Air>,
    counts: Arc<Counts>,
}

/// What is under way, and who vouches for what comes of it.
#[derive(Default)]
struct Air {
    flights: HashMap<Bytes, Flight>,
    last_id: u64,
    doubts: Doubts,
    /// The source whose word counts, by its number.
    source: u64,
    /// Its word, if it is in touch.
    word: Option<Arc<Word>>,
}

/// A get whose answer may be kept, and shared.
struct Flight {
    id: u64,
    sent: Nanos,
    answer: watch::Receiver<Option<Found>>,
}

struct Kept {
    found: Found,
    /// When it was asked for, at the earliest: the server had it later than that.
    sent: Nanos,
    /// When its TTL has ended.
    expires: Nanos,
    /// Whose changes it would have gone by.
    word: Option<Arc<Word>>,
}

/// A source's word that it has told all changes up to a time, from before what it is given to was
/// asked for. One that lost track begins another, so that an old entry never profits from it.
struct Word(AtomicU64);

/// What becomes of a get.
pub(super) enum Boarded {
    /// It asks the server.
    Leads(Ticket),
    /// It waits for one that does.
    Follows(watch::Receiver<Option<Found>>),
}

/// A get that asks the server. Dropped without an answer, it lets one of those who wait go in its
/// place.
pub(super) struct Ticket {
    core: Arc<Core>,
    key: Bytes,
    id: u64,
    sent: Nanos,
    word: Option<Arc<Word>>,
    answer: watch::Sender<Option<Found>>,
}

/// Whether what has changed may change once more by the same write.
#[derive(Debug, Clone, Copy)]
pub(super) enum Settled {
    Yes,
    /// It may come to pass until then.
    NotBefore(Nanos),
}

#[derive(Clone)]
struct Weigh;

#[derive(Clone)]
struct Evicted(Arc<Counts>);

impl Core {
    pub(super) fn new(config: &NearConfig, namespace: Arc<str>) -> Self {
        let counts = Arc::<Counts>::default();
        let parts = (config.max_bytes / PART_BYTES).clamp(1, MAX_PARTS);
        // The greatest power of two within: the cache would take the next above.
        let parts = 1 << parts.ilog2();
        let typical = config.max_bytes / TYPICAL_BYTES;
        let options = OptionsBuilder::new()
            .shards(parts)
            .weight_capacity(config.max_bytes)
            .estimated_items_capacity(usize::try_from(typical).unwrap_or(usize::MAX))
            .build()
            .expect("capacity and number of entries were given");
        let evicted = Evicted(Arc::clone(&counts));
        Self {
            namespace,
            born: Instant::now(),
            max_staleness: nanos(config.max_staleness),
            max_miss_staleness: config.max_miss_staleness.map_or(0, nanos),
            clock_skew: config.clock_skew,
            kept: Cache::with_options(options, Weigh, RandomState::new(), evicted),
            air: Mutex::default(),
            counts,
        }
    }

    /// By the clock, in this cache's time.
    pub(super) fn now(&self) -> Nanos {
        self.time_of(Instant::now())
    }

    /// 0 for what was before it was made.
    pub(super) fn time_of(&self, instant: Instant) -> Nanos {
        nanos(instant.saturating_duration_since(self.born))
    }

    /// What is kept under a key, if it is fresh enough for a get that begins now.
    pub(super) fn look(&self, key: &[u8], now: Nanos) -> Option<Found> {
        let kept = self.kept.get(key)?;
        if !self.is_fresh(&kept, now) {
            self.counts.stale.add(1);
            return None;
        }
        self.counts.hits.add(place(&kept));
        Some(kept.found.clone())
    }

    fn is_fresh(&self, kept: &Kept, now: Nanos) -> bool {
        let bound = match kept.found {
            Some(_) => self.max_staleness,
            None => self.max_miss_staleness,
        };
        let word = kept.word.as_ref().map_or(0, |word| word.until());
        let true_at = kept.sent.max(word);
        now < kept.expires && now.saturating_sub(true_at) < bound
    }

    /// Asks the server for a key from now on, or waits for a get that does. One that has been
    /// under way for `max_staleness` may bring what is older than that, and is not waited for.
    pub(super) fn board(self: &Arc<Self>, key: Bytes, now: Nanos) -> Boarded {
        let mut air = self.air();
        if let Some(flight) = air.flights.get(&key)
            && now.saturating_sub(flight.sent) < self.max_staleness
        {
            self.counts.shared.add(1);
            return Boarded::Follows(flight.answer.clone());
        }
        self.counts.misses.add(1);
        air.last_id += 1;
        let (answer, receiver) = watch::channel(None);
        let flight = Flight {
            id: air.last_id,
            sent: now,
            answer: receiver,
        };
        let ticket = Ticket {
            core: Arc::clone(self),
            key: key.clone(),
            id: flight.id,
            sent: now,
            word: air.word.clone(),
            answer,
        };
        air.flights.insert(key, flight);
        Boarded::Leads(ticket)
    }

    /// Something is written under a key, or may be.
    pub(super) fn forget(&self, key: &[u8], settled: Settled, now: Nanos) {
        let mut air = self.air();
        air.flights.remove(key);
        if let Settled::NotBefore(until) = settled {
            air.doubts.add(key, until, now);
        }
        drop(air);
        self.counts
            .invalidated
            .add(self.kept.remove(key).map_or(0, |_| 1));
    }

    /// What is below a version under a key, or a miss, is no longer so.
    pub(super) fn forget_below(&self, key: &[u8], version: u64) {
        // The answer that is under way may be as new, or not.
        self.air().flights.remove(key);
        let gone = self.kept.remove_if(key, |kept| {
            let found = kept.found.as_ref();
            found.is_none_or(|entry| entry.version < version)
        });
        self.counts.invalidated.add(gone.map_or(0, |_| 1));
    }

    /// Something is written under keys with a prefix, or may be. A walk over all that is kept.
    pub(super) fn forget_prefix(&self, prefix: &[u8], settled: Settled) {
        let mut air = self.air();
        air.flights.retain(|key, _| !key.starts_with(prefix));
        if let Settled::NotBefore(until) = settled {
            air.doubts.add_all(until);
        }
        drop(air);
        let gone = AtomicU64::new(0);
        self.kept.retain(|key, _| {
            let goes = key.starts_with(prefix);
            gone.fetch_add(goes.into(), Ordering::Relaxed);
            !goes
        });
        self.counts.invalidated.add(gone.into_inner());
    }

    /// A new source, whose word counts from now on. What an earlier one vouched for stays by that
    /// one's word.
    pub(super) fn new_source(&self) -> u64 {
        let mut air = self.air();
        air.word = None;
        air.source += 1;
        air.source
    }

    /// A source does not know what has changed.
    pub(super) fn lost_track(&self, source: u64) {
        let mut air = self.air();
        if air.source == source {
            air.word = None;
        }
        drop(air);
        self.forget_prefix(b"", Settled::Yes);
    }

    /// A source has told all that changed up to a time.
    pub(super) fn in_touch(&self, source: u64, until: Nanos, now: Nanos) {
        let mut air = self.air();
        if air.source == source {
            let until = until.min(now);
            let word = air.word.get_or_insert_with(|| Arc::new(Word(0.into())));
            word.0.fetch_max(until, Ordering::Relaxed);
        }
    }

    pub(super) fn stats(&self) -> NearStats {
        let counts = &self.counts;
        NearStats {
            hits: counts.hits.get(),
            misses: counts.misses.get(),
            shared: counts.shared.get(),
            stale: counts.stale.get(),
            evicted: counts.evicted.get(),
            invalidated: counts.invalidated.get(),
            overtaken: counts.overtaken.get(),
            entries: self.kept.len() as u64,
            bytes: self.kept.weight(),
        }
    }

    /// What is to be kept of an answer that is here now, if anything.
    fn keep(&self, ticket: &Ticket, found: &Found, now: Nanos, wall: SystemTime) -> Option<Kept> {
        let mut found = found.clone();
        let mut expires = Nanos::MAX;
        match &mut found {
            None if self.max_miss_staleness == 0 => return None,
            None => {}
            Some(entry) => {
                if let Some(time) = entry.expire_time {
                    let left = time.duration_since(wall).ok()?;
                    let left = left.checked_sub(self.clock_skew)?;
                    expires = now.saturating_add(nanos(left));
                }
                // One copy of the key is enough.
                if entry.key == ticket.key {
                    entry.key = ticket.key.clone();
                }
            }
        }
        Some(Kept {
            found,
            sent: ticket.sent,
            expires,
            word: ticket.word.clone(),
        })
    }

    fn air(&self) -> MutexGuard<'_, Air> {
        self.air.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// The server's answer is here: it is handed to those who wait, and kept unless something was
    /// written meanwhile.
    pub(super) fn land(self, found: &Found, now: Nanos, wall: SystemTime) {
        let core = &self.core;
        let kept = core.keep(&self, found, now, wall);
        let mut air = core.air();
        if air.is_under_way(&self) {
            air.flights.remove(&self.key);
            let in_doubt = air.doubts.has(&self.key, self.sent);
            match kept {
                Some(kept) if !in_doubt => core.kept.insert(self.key.clone(), Arc::new(kept)),
                // What was there before is older than this answer.
                _ => drop(core.kept.remove(&self.key)),
            }
            core.counts.overtaken.add(in_doubt.into());
        } else {
            core.counts.overtaken.add(1);
        }
        drop(air);
        self.answer.send_replace(Some(found.clone()));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Before the sender goes: whoever then finds no answer finds no flight either.
        let mut air = self.core.air();
        if air.is_under_way(self) {
            air.flights.remove(&self.key);
        }
    }
}

impl Air {
    fn is_under_way(&self, ticket: &Ticket) -> bool {
        let flight = self.flights.get(&ticket.key);
        flight.is_some_and(|flight| flight.id == ticket.id)
    }
}

impl Word {
    fn until(&self) -> Nanos {
        self.0.load(Ordering::Relaxed)
    }
}

impl Weighter<Bytes, Arc<Kept>> for Weigh {
    fn weight(&self, key: &Bytes, kept: &Arc<Kept>) -> u64 {
        let value = kept.found.as_ref().map_or(0, |entry| entry.value.len());
        key.len() as u64 + value as u64 + OVERHEAD_BYTES
    }
}

impl Lifecycle<Bytes, Arc<Kept>> for Evicted {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Bytes, _: Arc<Kept>) {
        self.0.evicted.add(1);
    }
}

/// Differs between keys.
fn place(kept: &Arc<Kept>) -> usize {
    // Allocations of this size are some hundred bytes apart.
    Arc::as_ptr(kept).addr() >> 8
}

/// 584 years at most.
pub(super) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}
