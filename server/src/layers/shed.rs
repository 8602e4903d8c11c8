//! What a thread does with calls when it is late: which are served, and which are
//! refused before their requests are decoded.
//!
//! The threads of this server answer calls where they read them. Concurrency is then no
//! measure of load, as the limiters of Netflix (gradient) and Envoy take it: it is one,
//! always. What grows is how long sockets wait to be read, which the transport tells
//! ([`Pulse`]), also when the processor was taken away by a quota. CoDel's rule
//! (RFC 8289) says when that is overload: not once, but in every look of a whole
//! interval.
//!
//! From then on the thread's rounds have a budget: it serves for [`target`], refuses the
//! rest, and looks at its sockets again, so that what it serves has not waited longer
//! than two rounds. It never refuses while it has nothing to do. What there is no time
//! for is chosen as in `WeChat`'s DAGOR, by a level that follows what was refused: calls
//! of few entries come before those of many, and calls of accounts that ask for no more
//! than their fair share before those of the others. Shares are max-min fair: what one
//! account leaves is for those that ask for more.
//!
//! Nothing is shared between threads. A thread that is in time pays a comparison for
//! each turn of a connection, and holds no memory for it; one that was late once holds
//! 6 KiB, whatever the number of accounts: they are told apart by 256 slots.
//!
//! [`target`]: Shedding::target

use std::cell::RefCell;
use std::time::{Duration, Instant};

use larder_transport::serve::Pulse;

/// How a server sheds load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shedding {
    /// Calls may wait so long, all the time, without anything being refused.
    pub late: Duration,
    /// For how long they must have waited longer than that for calls to be refused.
    pub interval: Duration,
    /// How long a thread that refuses calls serves others before it looks at its
    /// sockets again: calls that it serves have not waited much longer.
    pub target: Duration,
}

impl Default for Shedding {
    /// The interval and the target are CoDel's (RFC 8289, section 4.4). It takes more to
    /// be late (DAGOR has 20 ms): clients with a bounded number of calls in flight may
    /// keep a thread busy all the time without any of them being refused.
    fn default() -> Self {
        Self {
            late: Duration::from_millis(25),
            interval: Duration::from_millis(100),
            target: Duration::from_millis(5),
        }
    }
}

/// How much a call is likely to cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// One entry, or none.
    Light,
    /// Many.
    Heavy,
}

/// How much of a call is there when it is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its head: it is asked about again when the rest is there, and counts then.
    Head,
    /// All that is asked about.
    Whole,
}

/// Accounts are told apart by so many slots. Those of one slot share a share.
pub(crate) const SLOTS: usize = 256;

/// The slot of callers who are not known yet, and of no account: else whoever shows bad
/// credentials could use up the share of one.
pub(crate) const UNKNOWN: u8 = 0;

/// What comes first when not all can be served: calls of accounts that ask for no more
/// than their share, those of the others within it, and those beyond; first of one
/// entry, then of many.
const RANKS: usize = 6;
/// The level moves in parts of a rank.
const PARTS: u32 = 64;
/// All ranks are served.
const TOP: u32 = 6 * PARTS;
const _: () = assert!(TOP as usize == RANKS * PARTS as usize);
/// The first rank is served in any case.
const BOTTOM: u32 = PARTS;
/// How much the level gives way at the least when a call was refused that should go
/// before others, and how much it comes back.
const DOWN: u32 = PARTS / 4;
const UP: u32 = PARTS / 8;
/// Calls that are decided on between two looks at the clock.
const CALLS_PER_LOOK: u32 = 8;

/// Nothing waits longer that is served.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What one slot asked for in a window, and got.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    offered: u32,
    served: u32,
    /// In the window before, it asked for more than its share.
    is_greedy: bool,
}

/// The state of one thread.
pub(crate) struct Shedder {
    settings: Shedding,
    /// Since when no look found the thread in time.
    late_since: Option<Instant>,
    /// While it sheds.
    over: Option<Box<Over>>,
}

/// A thread that sheds.
struct Over {
    slots: [Slot; SLOTS],
    window_began: Instant,
    /// See [`TOP`].
    level: u32,
    /// Calls of each account that are within its share in this window.
    share: u32,
    /// Calls that have waited longer are refused.
    stale_after: Duration,
    /// In this window: all calls, those that had waited too long, and those that were
    /// refused although they had not.
    offered: u32,
    stale: u32,
    refused: [u32; RANKS],
    /// When a call was last refused.
    refused_at: Instant,
    /// As of the last look.
    now: Instant,
    /// The round, and the time that was spent in it. A pause in which the thread was not
    /// given the processor counts for little: it has not served anybody.
    round: Instant,
    spent: Duration,
    /// In this window, nothing waited for the thread at some time.
    was_free: bool,
    /// A call that may take long was served since the last look.
    is_heavy: bool,
    until_look: u32,
}

impl Shedder {
    pub(crate) const fn new(settings: Shedding) -> Self {
        Self {
            settings,
            late_since: None,
            over: None,
        }
    }

    /// Looks how late the thread is, at the beginning of a connection's turn. True if
    /// [`Self::admits`] is to be asked about its calls.
    #[inline]
    pub(crate) fn look(&mut self, pulse: Option<Pulse>, now: Instant) -> bool {
        let waited = pulse.map_or(Duration::ZERO, |pulse| pulse.waited(now));
        if waited <= self.settings.late && self.over.is_none() {
            self.late_since = None;
            return false;
        }
        self.look_closely(waited, now)
    }

    #[cold]
    fn look_closely(&mut self, waited: Duration, now: Instant) -> bool {
        let interval = self.settings.interval;
        if let Some(over) = &mut self.over {
            over.pass(now, self.settings.target);
            over.until_look = CALLS_PER_LOOK;
            over.was_free |= waited < self.settings.target / 4;
            // Nobody had to be refused for a while.
            if now.saturating_duration_since(over.refused_at) > 2 * interval {
                self.over = None;
                self.late_since = None;
            }
            return self.over.is_some();
        }
        debug_assert!(waited > self.settings.late);
        let since = *self.late_since.get_or_insert(now);
        if now.saturating_duration_since(since) < interval {
            return false;
        }
        self.over = Some(Box::new(Over::new(now, self.settings.target)));
        true
    }

    /// Whether a call is served, while the thread sheds. `clock` tells the time.
    pub(crate) fn admits(
        &mut self,
        pulse: Option<Pulse>,
        slot: u8,
        weight: Weight,
        stage: Stage,
        clock: impl FnOnce() -> Instant,
    ) -> bool {
        let (Some(over), Some(pulse)) = (&mut self.over, pulse) else {
            return true;
        };
        over.until_look = match over.until_look {
            0 => {
                over.pass(clock(), self.settings.target);
                CALLS_PER_LOOK
            }
            left if weight == Weight::Light => left - 1,
            _ => 0,
        };
        over.admits(&self.settings, &pulse, slot, weight, stage)
    }
}

impl Over {
    fn new(now: Instant, target: Duration) -> Self {
        Self {
            slots: [Slot {
                offered: 0,
                served: 0,
                is_greedy: false,
            }; SLOTS],
            window_began: now,
            level: TOP,
            share: u32::MAX,
            stale_after: 2 * target,
            offered: 0,
            stale: 0,
            refused: [0; RANKS],
            refused_at: now,
            now,
            round: now,
            spent: Duration::ZERO,
            was_free: false,
            is_heavy: false,
            until_look: CALLS_PER_LOOK,
        }
    }

    /// The clock says `now`.
    fn pass(&mut self, now: Instant, target: Duration) {
        let passed = now.saturating_duration_since(self.now);
        let most = match std::mem::take(&mut self.is_heavy) {
            true => 4 * target,
            false => target / 4,
        };
        self.spent += passed.min(most);
        self.now = now;
    }

    fn admits(
        &mut self,
        settings: &Shedding,
        pulse: &Pulse,
        slot: u8,
        weight: Weight,
        stage: Stage,
    ) -> bool {
        let Shedding {
            target, interval, ..
        } = *settings;
        let now = self.now;
        if now.saturating_duration_since(self.window_began) >= interval {
            self.next_window(target);
        }
        let rank = self.slots[usize::from(slot)].rank(self.share, weight);
        // Those who keep within their share have not caused what makes them wait.
        let most = match rank {
            0 => self.stale_after.max(interval),
            _ => self.stale_after,
        };
        let is_stale = pulse.waited(now) > most;
        if self.round != pulse.began {
            (self.round, self.spent) = (pulse.began, Duration::ZERO);
        }
        let admits = !is_stale && self.spent < self.time_of(rank, settings);
        if admits && stage == Stage::Head {
            return true;
        }
        let asked = &mut self.slots[usize::from(slot)];
        asked.offered = asked.offered.saturating_add(1);
        self.offered += 1;
        if admits {
            asked.served = asked.served.saturating_add(1);
            self.is_heavy |= weight == Weight::Heavy;
        } else {
            self.refused_at = now;
            match is_stale {
                true => self.stale += 1,
                false => self.refused[rank] += 1,
            }
        }
        admits
    }

    /// How much of a round calls of a rank have.
    fn time_of(&self, rank: usize, settings: &Shedding) -> Duration {
        let target = settings.target;
        if rank == 0 {
            return settings.interval.max(2 * target);
        }
        let below = u32::try_from(rank)
            .unwrap_or(u32::MAX)
            .saturating_mul(PARTS);
        let parts = self.level.saturating_sub(below).min(PARTS);
        target * parts / PARTS
    }

    /// Follows what was asked for and refused in a window, and begins the next.
    fn next_window(&mut self, target: Duration) {
        let was_free = std::mem::take(&mut self.was_free);
        let mut refused = self.refused.iter().zip(1..);
        let first = refused.find_map(|(calls, above)| (*calls > 0).then_some(above * PARTS));
        self.level = match first {
            // Calls were refused that go before others.
            Some(above) if above <= self.level => {
                let down = DOWN.max((self.level - above) / 2);
                self.level.saturating_sub(down).max(BOTTOM)
            }
            _ => (self.level + UP).min(TOP),
        };
        // A thread that is not given the processor for a while can do nothing about what
        // came meanwhile. If that is most of what comes, or if there is time for it, it is
        // better late than refused.
        self.stale_after = if self.stale > self.offered / 2 || (was_free && self.stale > 0) {
            (2 * self.stale_after).min(LONGEST_WAIT)
        } else if self.stale < self.offered / 4 {
            (self.stale_after * 3 / 4).max(2 * target)
        } else {
            self.stale_after
        };
        self.share = fair_share(&self.slots);
        for slot in &mut self.slots {
            *slot = Slot {
                is_greedy: slot.offered > self.share,
                ..Slot::default()
            };
        }
        self.refused = [0; RANKS];
        (self.offered, self.stale) = (0, 0);
        self.window_began = self.now;
    }
}

impl Slot {
    /// What comes first: see [`RANKS`].
    fn rank(&self, share: u32, weight: Weight) -> usize {
        let of_share = match (self.is_greedy, self.served >= share) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => 2,
        };
        match weight {
            Weight::Light => of_share,
            Weight::Heavy => RANKS / 2 + of_share,
        }
    }
}

/// Max-min fairness: the most that any slot should get if as many calls are served as
/// were, so that those who ask for less get what they ask for.
fn fair_share(slots: &[Slot; SLOTS]) -> u32 {
    let mut left: u64 = slots.iter().map(|slot| u64::from(slot.served)).sum();
    let mut offered: Vec<u32> = slots.iter().map(|slot| slot.offered).collect();
    offered.retain(|offered| *offered > 0);
    offered.sort_unstable();
    let mut asking = offered.len() as u64;
    for asked in offered {
        let share = left / asking;
        if u64::from(asked) > share {
            return u32::try_from(share).unwrap_or(u32::MAX);
        }
        left -= u64::from(asked);
        asking -= 1;
    }
    u32::MAX
}

thread_local! {
    static SHEDDER: RefCell<Option<Shedder>> = const { RefCell::new(None) };
}

/// Asks the shedder of this thread.
pub(crate) fn of_thread<T>(settings: Shedding, ask: impl FnOnce(&mut Shedder) -> T) -> T {
    SHEDDER.with_borrow_mut(|shedder| {
        let shedder = shedder.get_or_insert_with(|| Shedder::new(settings));
        ask(shedder)
    })
}

#[cfg(test)]
mod tests;
