//! How many calls were refused, or given up, and why; and which calls that failed the
//! access log tells one by one.

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
}

/// Lines a second of the access log for calls that failed for one reason: enough to see
/// who calls what, and no way to fill a disk. Most errors cost their caller nothing, so
/// that any of them may come in floods.
const LINES_PER_SECOND: u64 = 10;
/// How often it is told how many had no line.
pub(crate) const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// The lines of one reason.
struct Lines {
    rate: RateLimiter,
    /// Calls without a line, since that was last told.
    left_out: AtomicU64,
}

impl Lines {
    fn new() -> Self {
        Self {
            rate: RateLimiter::at_most(LINES_PER_SECOND),
            left_out: AtomicU64::new(0),
        }
    }

    fn take(&self, now: Instant) -> bool {
        let has = !self.rate.is_spent(now) && self.rate.take(now).is_ok();
        if !has {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        has
    }
}

/// The counters, and which errors have a line in the access log. Nothing is touched by
/// a call that goes well.
pub(crate) struct Refusals {
    counts: [AtomicU64; Cause::ALL.len()],
    /// By reason; the last is for calls that failed without one.
    lines: [Lines; Reason::ALL.len() + 1],
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            lines: std::array::from_fn(|_| Lines::new()),
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

    /// Counts calls that were refused for want of time without a look at who makes them.
    /// They have no line.
    pub(crate) fn count_shed(&self, calls: u64) {
        if calls > 0 {
            self.counts[Cause::Overloaded as usize].fetch_add(calls, Ordering::Relaxed);
            let lines = self.lines(Some(Reason::Overloaded));
            lines.left_out.fetch_add(calls, Ordering::Relaxed);
        }
    }

    /// Whether a call that failed has a line in the access log: see [`LINES_PER_SECOND`].
    pub(crate) fn has_line(&self, reason: Option<Reason>, now: Instant) -> bool {
        self.lines(reason).take(now)
    }

    /// Whether [`Self::has_line`] says so of a call that there is no time for. Nothing is
    /// written.
    pub(crate) fn shed_has_line(&self, now: Instant) -> bool {
        !self.lines(Some(Reason::Overloaded)).rate.is_spent(now)
    }

    fn lines(&self, reason: Option<Reason>) -> &Lines {
        &self.lines[reason.map_or(Reason::ALL.len(), |reason| reason as usize)]
    }

    /// Tells how many had none, in a line of the access log for each reason: see
    /// [`TELL_INTERVAL`].
    pub(crate) fn tell_left_out(&self) {
        for (reason, suppressed) in self.take_left_out() {
            tracing::info!(target: ACCESS, reason, suppressed, "calls without a line");
        }
    }

    fn take_left_out(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let reasons = Reason::ALL.iter().copied().map(Some).chain([None]);
        reasons.filter_map(|reason| {
            let left_out = self.lines(reason).left_out.swap(0, Ordering::Relaxed);
            (left_out > 0).then(|| (reason.map_or("-", Reason::name), left_out))
        })
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
    fn errors_of_any_reason_have_few_lines_in_a_flood_and_are_told_together() {
        let refusals = Refusals::default();
        let start = clock::instant();
        let second = Duration::from_secs(1);
        let lines = |reason, calls: u64, after: Duration| {
            let lines = (0..calls).filter(|_| refusals.has_line(reason, start + after));
            lines.count() as u64
        };
        let left_out = || refusals.take_left_out().collect::<Vec<_>>();
        let reasons = Reason::ALL.iter().copied().map(Some).chain([None]);
        for reason in reasons.clone() {
            let told = lines(reason, 1000, second);
            assert_eq!(told, LINES_PER_SECOND, "{reason:?}");
            let name = reason.map_or("-", Reason::name);
            assert_eq!(left_out(), [(name, 1000 - LINES_PER_SECOND)]);
        }
        assert_eq!(left_out(), []);
        // Whatever else is flooded, one that is rare has its lines.
        for reason in reasons {
            for after in 3..6 {
                assert_eq!(lines(reason, 5, after * second), 5, "{reason:?}");
            }
        }
        assert_eq!(left_out(), []);
    }

    #[test]
    fn calls_that_there_is_no_time_for_are_counted_without_a_line() {
        let refusals = Refusals::default();
        let now = clock::instant() + Duration::from_secs(1);
        assert!(refusals.shed_has_line(now));
        let overloaded = Some(Reason::Overloaded);
        assert!((0..LINES_PER_SECOND).all(|_| refusals.has_line(overloaded, now)));
        assert!(!refusals.shed_has_line(now));
        refusals.count_shed(7);
        refusals.count_shed(0);
        assert_eq!(refusals.of(Cause::Overloaded), 7);
        let left_out: Vec<_> = refusals.take_left_out().collect();
        assert_eq!(left_out, [("OVERLOADED", 7)]);
    }
}
