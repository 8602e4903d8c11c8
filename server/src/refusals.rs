//! How many calls were refused, or given up, and why; and which of them the access log
//! tells one by one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_api::errors::Reason;

use crate::layers::finish::ACCESS;
use crate::rate::RateLimiter;

/// Defines the counters with their names, once.
macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $cause:ident => $name:literal,)+) => {
        /// Why a call was refused before it was carried out, or not carried out to its
        /// end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Cause {
            $($(#[doc = $doc])+ $cause,)+
        }

        impl Cause {
            /// All of them.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$cause),+];

            /// The name, for a metrics endpoint.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$cause => $name,)+
                }
            }
        }
    };
}

causes! {
    /// No time for it (`layers::shed`), or no place or memory.
    Overloaded => "overloaded",
    /// The account's rate.
    RateLimited => "rate_limited",
    /// As many calls or streams in flight as an account may have.
    ConcurrencyLimited => "concurrency_limited",
    /// Its deadline passed.
    Deadline => "deadline",
    /// Its caller went away, or took it back.
    Cancelled => "cancelled",
}

impl Cause {
    const fn of(reason: Reason) -> Option<Self> {
        Some(match reason {
            Reason::Overloaded => Self::Overloaded,
            Reason::RateLimited => Self::RateLimited,
            Reason::ConcurrencyLimited => Self::ConcurrencyLimited,
            Reason::NotStarted | Reason::MaybeApplied => Self::Deadline,
            Reason::Cancelled => Self::Cancelled,
            _ => return None,
        })
    }

    /// True for refusals that cost their caller nothing, so that they come in floods.
    const fn floods(self) -> bool {
        matches!(
            self,
            Self::Overloaded | Self::RateLimited | Self::ConcurrencyLimited
        )
    }
}

/// Lines a second of the access log for refusals that come in floods: enough to see who
/// calls what.
const LINES_PER_SECOND: u64 = 10;
/// How often it is told how many had no line.
pub(crate) const TELL_INTERVAL: Duration = Duration::from_secs(1);

type Counts = [AtomicU64; Cause::ALL.len()];

/// The counters, and which refusals have a line in the access log. Nothing is touched by
/// a call that goes well.
pub(crate) struct Refusals {
    counts: Counts,
    lines: RateLimiter,
    /// Those without a line, since that was last told.
    left_out: Counts,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            lines: RateLimiter::at_most(LINES_PER_SECOND),
            left_out: Counts::default(),
        }
    }
}

impl Refusals {
    /// Counts a call that ended for a reason of the catalogue, if it is one of these.
    pub(crate) fn count(&self, reason: Option<Reason>) {
        if let Some(cause) = reason.and_then(Cause::of) {
            self.counts[cause as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts calls that were refused without a look at who makes them. They have no line.
    pub(crate) fn count_unseen(&self, cause: Cause, calls: u64) {
        if calls > 0 {
            self.counts[cause as usize].fetch_add(calls, Ordering::Relaxed);
            self.left_out[cause as usize].fetch_add(calls, Ordering::Relaxed);
        }
    }

    /// Whether a call that failed has a line in the access log. Every error has, but for
    /// refusals that come in floods.
    pub(crate) fn has_line(&self, reason: Option<Reason>, now: Instant) -> bool {
        let Some(cause) = reason.and_then(Cause::of).filter(|cause| cause.floods()) else {
            return true;
        };
        let has = self.lines_are_left(now) && self.lines.take(now).is_ok();
        if !has {
            self.left_out[cause as usize].fetch_add(1, Ordering::Relaxed);
        }
        has
    }

    /// Whether [`Self::has_line`] says so of any. Nothing is written.
    pub(crate) fn lines_are_left(&self, now: Instant) -> bool {
        !self.lines.is_spent(now)
    }

    /// Tells, in one line of the access log, how many had none: see [`TELL_INTERVAL`].
    pub(crate) fn tell_left_out(&self) {
        let take = |cause: Cause| self.left_out[cause as usize].swap(0, Ordering::Relaxed);
        let overloaded = take(Cause::Overloaded);
        let rate_limited = take(Cause::RateLimited);
        let concurrency_limited = take(Cause::ConcurrencyLimited);
        let suppressed = overloaded + rate_limited + concurrency_limited;
        if suppressed > 0 {
            tracing::info!(
                target: ACCESS,
                suppressed,
                overloaded,
                rate_limited,
                concurrency_limited,
                "calls refused",
            );
        }
    }

    /// What was counted.
    pub(crate) fn of(&self, cause: Cause) -> u64 {
        self.counts[cause as usize].load(Ordering::Relaxed)
    }

    /// What was counted, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Cause::ALL
            .iter()
            .map(|&cause| (cause.name(), self.of(cause)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn refusals_that_come_in_floods_have_few_lines_and_are_told_together() {
        let refusals = Refusals::default();
        let start = clock::instant();
        let lines = |reason: Reason, calls: u64, after: Duration| {
            let lines = (0..calls).filter(|_| refusals.has_line(Some(reason), start + after));
            lines.count() as u64
        };
        let left_out = || {
            let of = |cause: &Cause| refusals.left_out[*cause as usize].load(Ordering::Relaxed);
            Cause::ALL.iter().map(of).collect::<Vec<_>>()
        };
        let second = Duration::from_secs(1);
        assert_eq!(lines(Reason::RateLimited, 1000, second), LINES_PER_SECOND);
        assert!(!refusals.lines_are_left(start + second));
        assert_eq!(lines(Reason::Overloaded, 5, second), 0);
        // Other errors have theirs, however many there are.
        for reason in [Reason::NotStarted, Reason::TokenInvalid, Reason::Internal] {
            assert_eq!(lines(reason, 1000, second), 1000);
        }
        refusals.count_unseen(Cause::Overloaded, 7);
        assert_eq!(refusals.of(Cause::Overloaded), 7);
        assert_eq!(left_out(), [12, 1000 - LINES_PER_SECOND, 0, 0, 0]);
        refusals.tell_left_out();
        assert_eq!(left_out(), [0; Cause::ALL.len()]);
        assert_eq!(lines(Reason::Overloaded, 5, 3 * second), 5);
    }
}
