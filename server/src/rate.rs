//! How often something may happen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;

/// The generic cell rate algorithm (ITU-T I.371): one atomic, no timer. Lets a
/// second's worth of calls through in a burst.
pub(crate) struct RateLimiter {
    origin: Instant,
    /// Nanoseconds between two calls at the full rate; 0 means no limit.
    interval_ns: AtomicU64,
    /// Theoretical arrival time of the next call, nanoseconds since `origin`.
    next_ns: AtomicU64,
}

/// An interval that lets nothing through.
const NOTHING: u64 = u64::MAX;
/// What may come at once.
const BURST: Duration = Duration::from_secs(1);

impl Default for RateLimiter {
    fn default() -> Self {
        Self {
            origin: clock::instant(),
            interval_ns: AtomicU64::new(0),
            next_ns: AtomicU64::new(0),
        }
    }
}

impl RateLimiter {
    /// A limiter that lets so many through, also none.
    pub(crate) fn at_most(per_second: u64) -> Self {
        let limiter = Self::default();
        limiter.set_most(per_second);
        limiter
    }

    /// Lets so many through from now on, also none.
    pub(crate) fn set_most(&self, per_second: u64) {
        match per_second {
            0 => self.interval_ns.store(NOTHING, Ordering::Relaxed),
            rate => self.set_rate(Some(rate)),
        }
    }

    /// `None` means no limit.
    pub(crate) fn set_rate(&self, per_second: Option<u64>) {
        let interval = per_second.map_or(0, |rate| (nanos(BURST) / rate.max(1)).max(1));
        self.interval_ns.store(interval, Ordering::Relaxed);
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long to wait before the next try.
    #[inline]
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        let interval_ns = self.interval_ns.load(Ordering::Relaxed);
        if interval_ns == 0 {
            return Ok(());
        }
        let now_ns = nanos(now.saturating_duration_since(self.origin));
        self.take_at(now_ns, interval_ns)
    }

    /// True if none can be taken at `now`, nor earlier: what was taken is never
    /// given back.
    pub(crate) fn is_spent(&self, now: Instant) -> bool {
        let interval_ns = self.interval_ns.load(Ordering::Relaxed);
        let now_ns = nanos(now.saturating_duration_since(self.origin));
        let burst_ns = nanos(BURST).saturating_sub(interval_ns);
        let next_ns = self.next_ns.load(Ordering::Relaxed);
        interval_ns == NOTHING || interval_ns > 0 && next_ns.saturating_sub(now_ns) > burst_ns
    }

    fn take_at(&self, now_ns: u64, interval_ns: u64) -> Result<(), Duration> {
        if interval_ns == NOTHING {
            return Err(Duration::MAX);
        }
        // At least one call fits, however low the rate.
        let burst_ns = nanos(BURST).saturating_sub(interval_ns);
        let step = |next: u64| {
            let arrival = next.max(now_ns);
            (arrival - now_ns <= burst_ns).then(|| arrival.saturating_add(interval_ns))
        };
        self.next_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .map(|_| ())
            .map_err(|next| Duration::from_nanos(next - now_ns - burst_ns))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(per_second: u64, takes: &[(u64, Result<(), u64>)]) {
        let limiter = RateLimiter::default();
        limiter.set_rate(Some(per_second));
        for (at_ms, expected) in takes {
            let at = limiter.origin + Duration::from_millis(*at_ms);
            assert_eq!(limiter.is_spent(at), expected.is_err());
            let got = limiter.take(at);
            let got = got.map_err(|wait| u64::try_from(wait.as_millis()).expect("short"));
            assert_eq!(got, *expected, "{per_second} a second, at {at_ms} ms");
        }
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_through_until_it_is_another() {
        let limiter = RateLimiter::at_most(0);
        let now = limiter.origin + Duration::from_secs(9);
        assert!(limiter.is_spent(now) && limiter.take(now).is_err());
        limiter.set_most(1);
        assert!(!limiter.is_spent(now) && limiter.take(now).is_ok());
        limiter.set_most(0);
        let later = now + Duration::from_secs(60);
        assert!(limiter.is_spent(later) && limiter.take(later).is_err());
    }

    #[test]
    fn rate_limit_lets_a_second_of_calls_through_and_then_the_rate() {
        check(
            2,
            &[
                (0, Ok(())),
                (0, Ok(())),
                (0, Err(500)),
                (400, Err(100)),
                (500, Ok(())),
            ],
        );
        check(
            1,
            &[(0, Ok(())), (1, Err(999)), (1000, Ok(())), (1001, Err(999))],
        );
        // A long silence saves up no more than the burst.
        check(1, &[(0, Ok(())), (60_000, Ok(())), (60_000, Err(1000))]);
    }
}
