//! The one place that asks the machine for the time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use larder_model::Time;

/// Monotonic time for the store, and its relation to the wall clock.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    /// Wall clock less monotonic time, milliseconds. Followed when the wall
    /// clock steps or drifts, but not for the jitter of reading two clocks one
    /// after the other: an entry's `expire_time` must not change from one read
    /// to the next.
    offset_ms: AtomicI64,
    /// Differences up to this are jitter.
    jitter_ms: u64,
}

/// Two readings one after the other differ by less.
const JITTER_MS: u64 = 5;

impl Clock {
    /// A clock whose [`Time`] begins now.
    pub(crate) fn start() -> Self {
        let clock = Self {
            origin: instant(),
            offset_ms: AtomicI64::new(i64::MIN),
            jitter_ms: JITTER_MS,
        };
        clock.offset_ms();
        clock
    }

    /// A clock that never follows the wall clock once it has started: for tests
    /// whose monotonic time is paused, while that of the wall goes on.
    #[cfg(test)]
    pub(crate) fn start_steady() -> Self {
        Self {
            jitter_ms: u64::MAX,
            ..Self::start()
        }
    }

    /// Now, for the store.
    pub(crate) fn now(&self) -> Time {
        self.time_of(instant())
    }

    /// The store's time of an instant.
    pub(crate) fn time_of(&self, instant: Instant) -> Time {
        let elapsed = instant.saturating_duration_since(self.origin).as_millis();
        Time::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Milliseconds since 1970 at a point of the store's time.
    pub(crate) fn unix_millis_of(&self, time: Time) -> i64 {
        signed(time.as_millis()).saturating_add(self.offset_ms())
    }

    fn offset_ms(&self) -> i64 {
        let held = self.offset_ms.load(Ordering::Relaxed);
        let seen = signed(unix_millis()) - signed(self.now().as_millis());
        if held.abs_diff(seen) <= self.jitter_ms {
            return held;
        }
        self.offset_ms.store(seen, Ordering::Relaxed);
        seen
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// Now, for deadlines and durations; a test's paused clock is obeyed.
pub(crate) fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Nanoseconds since 1970, for traces.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is where the clock is asked"
)]
pub(crate) fn unix_nanos() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970; a wall clock set before that reads 0.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is where the clock is asked"
)]
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
