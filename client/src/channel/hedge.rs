//! Hedging, gRFC A6: several attempts of one call at a time, a delay apart, of which the first
//! good answer counts. For calls that only read. Nothing here waits or sends.

use std::time::Duration;

use super::retry::{AttemptEnd, CodeSet, Pushback};
use super::throttle::Throttle;
use larder_api::errors::Code;

/// `hedgingPolicy` of a service config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HedgingPolicy {
    /// With the first, 2 to [`MAX_ATTEMPTS`](super::retry::MAX_ATTEMPTS).
    pub(crate) max_attempts: u32,
    /// Between one attempt and the next; nothing sends all of them at once.
    pub(crate) delay: Duration,
    /// What does not end the call while an attempt is under way or left.
    pub(crate) non_fatal: CodeSet,
}

/// How long an attempt is put off at the least: without a delay it would be tried in a loop.
const SHORTEST_DELAY: Duration = Duration::from_millis(5);

/// The attempts of one hedged call. Time counts from anywhere.
#[derive(Debug)]
pub(crate) struct Hedges<'p> {
    policy: &'p HedgingPolicy,
    started: u32,
    in_flight: u32,
    /// When the next attempt is due; `None` when there is to be none.
    due: Option<Duration>,
    was_refused: bool,
    transparent: u32,
}

/// What an attempt's end means for its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Verdict {
    /// The call ends as this attempt did; cancel the others.
    Done,
    /// The others decide: wait for them, and for [`Hedges::due`].
    Wait,
    /// The same attempt again, at once, which counts for nothing.
    Transparent,
}

impl<'p> Hedges<'p> {
    /// The first attempt is due at once.
    pub(crate) const fn new(policy: &'p HedgingPolicy, now: Duration) -> Self {
        Self {
            policy,
            started: 0,
            in_flight: 0,
            due: Some(now),
            was_refused: false,
            transparent: 0,
        }
    }

    /// When the next attempt is to start.
    pub(crate) const fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Attempts before the next one.
    pub(crate) const fn started(&self) -> u32 {
        self.started
    }

    /// Whether the attempt that is due may start: the first always, a further one unless the
    /// throttle is closed. In any case the one after it is due a delay later.
    pub(crate) fn start(&mut self, now: Duration, throttle: Option<&Throttle>) -> bool {
        if self.started > 0 && throttle.is_some_and(|throttle| !throttle.allows()) {
            // A throttled call makes do with what is under way.
            self.due = None;
            return false;
        }
        self.started += 1;
        self.in_flight += 1;
        self.due = (self.started < self.policy.max_attempts)
            .then(|| now.saturating_add(self.policy.delay));
        true
    }

    /// The attempt that is due has nowhere to go now, and others are under way: it is due a delay
    /// later.
    pub(crate) fn put_off(&mut self, now: Duration) {
        self.due = Some(now.saturating_add(self.policy.delay.max(SHORTEST_DELAY)));
    }

    /// An attempt that was to be made again is not: the others decide.
    pub(crate) const fn give_up(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// An attempt ended.
    pub(crate) fn ended(
        &mut self,
        end: AttemptEnd,
        now: Duration,
        throttle: Option<&Throttle>,
    ) -> Verdict {
        let (code, pushback) = match end {
            AttemptEnd::Ok => {
                if let Some(throttle) = throttle {
                    throttle.succeeded();
                }
                return Verdict::Done;
            }
            AttemptEnd::NotSent => {
                self.transparent += 1;
                return Verdict::Transparent;
            }
            AttemptEnd::Refused if !self.was_refused => {
                self.was_refused = true;
                self.transparent += 1;
                return Verdict::Transparent;
            }
            AttemptEnd::Refused => (Code::Unavailable, Pushback::None),
            AttemptEnd::Failed(code, pushback) => (code, pushback),
        };
        self.in_flight = self.in_flight.saturating_sub(1);
        let is_fatal = !self.policy.non_fatal.contains(code);
        if let Some(throttle) = throttle
            && (!is_fatal || pushback == Pushback::Never)
        {
            throttle.failed();
        }
        if is_fatal {
            return Verdict::Done;
        }
        match (self.due, pushback) {
            (None, _) => {}
            (Some(_), Pushback::Never) => self.due = None,
            (Some(_), Pushback::After(delay)) => self.due = Some(now.saturating_add(delay)),
            // A failure is reason enough not to wait for the delay.
            (Some(_), Pushback::None) => self.due = Some(now),
        }
        if throttle.is_some_and(|throttle| !throttle.allows()) {
            self.due = None;
        }
        match self.in_flight == 0 && self.due.is_none() {
            true => Verdict::Done,
            false => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::super::throttle::ThrottleConfig;
    use super::*;

    const DOWN: AttemptEnd = AttemptEnd::Failed(Code::Unavailable, Pushback::None);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn policy(max_attempts: u32) -> HedgingPolicy {
        HedgingPolicy {
            max_attempts,
            delay: ms(10),
            non_fatal: [Code::Unavailable].into_iter().collect(),
        }
    }

    #[test]
    fn attempts_follow_one_another_by_the_delay() {
        let policy = policy(3);
        let mut hedges = Hedges::new(&policy, ms(5));
        for (at, next) in [(5, Some(15)), (15, Some(25)), (26, None)] {
            assert!(hedges.start(ms(at), None));
            assert_eq!(hedges.due(), next.map(ms), "after {at}");
        }
        assert_eq!(hedges.started(), 3);
        assert_eq!(hedges.ended(AttemptEnd::Ok, ms(30), None), Verdict::Done);
    }

    #[test]
    fn ends_decide_what_follows() {
        let never = AttemptEnd::Failed(Code::Unavailable, Pushback::Never);
        let later = AttemptEnd::Failed(Code::Unavailable, Pushback::After(ms(70)));
        let fatal = AttemptEnd::Failed(Code::NotFound, Pushback::None);
        // attempts under way, the end of one at 7 ms, verdict, when the next is due
        for (running, end, verdict, due) in [
            (1, DOWN, Verdict::Wait, Some(7)),
            (3, DOWN, Verdict::Wait, None),
            (1, never, Verdict::Done, None),
            (2, never, Verdict::Wait, None),
            (1, later, Verdict::Wait, Some(77)),
            (1, fatal, Verdict::Done, Some(10)),
            (1, AttemptEnd::NotSent, Verdict::Transparent, Some(10)),
            (1, AttemptEnd::Refused, Verdict::Transparent, Some(10)),
        ] {
            let policy = policy(3);
            let mut hedges = Hedges::new(&policy, ms(0));
            (0..running).for_each(|_| assert!(hedges.start(ms(0), None)));
            assert_eq!(hedges.ended(end, ms(7), None), verdict, "{running} {end:?}");
            assert_eq!(hedges.due(), due.map(ms), "{running} {end:?}");
        }
    }

    #[test]
    fn a_closed_throttle_lets_only_the_first_start() {
        let throttle = Throttle::new(ThrottleConfig {
            max_tokens: 1,
            ratio_thousandths: 1,
        });
        throttle.failed();
        let policy = policy(3);
        let mut hedges = Hedges::new(&policy, ms(0));
        assert!(hedges.start(ms(0), Some(&throttle)));
        assert!(!hedges.start(ms(10), Some(&throttle)));
        assert_eq!(hedges.due(), None);
        assert_eq!(hedges.ended(DOWN, ms(12), Some(&throttle)), Verdict::Done);
    }

    /// Whatever happens: never more attempts than allowed, always something to wait for, and an
    /// end.
    #[test]
    fn random_calls_end_and_never_hang() {
        let mut rng = SmallRng::seed_from_u64(0x4ED6E);
        let throttle = Throttle::new(ThrottleConfig {
            max_tokens: 100,
            ratio_thousandths: 900,
        });
        for _ in 0..10_000 {
            let policy = policy(rng.random_range(2..=5));
            let mut hedges = Hedges::new(&policy, Duration::ZERO);
            let (mut now, mut running) = (Duration::ZERO, 0);
            loop {
                let due = hedges.due();
                assert!(running > 0 || due.is_some(), "nothing to wait for");
                if let Some(due) = due.filter(|_| running == 0 || rng.random_bool(0.5)) {
                    now = now.max(due);
                    running += u32::from(hedges.start(now, Some(&throttle)));
                } else {
                    now += ms(rng.random_range(0..5));
                    let end = match rng.random_range(0..8) {
                        0 => AttemptEnd::Ok,
                        1 => AttemptEnd::Refused,
                        2 => AttemptEnd::NotSent,
                        3 => AttemptEnd::Failed(Code::Unavailable, Pushback::Never),
                        4 => AttemptEnd::Failed(Code::Unavailable, Pushback::After(ms(3))),
                        _ => DOWN,
                    };
                    match hedges.ended(end, now, Some(&throttle)) {
                        Verdict::Done => break,
                        Verdict::Wait => running -= 1,
                        Verdict::Transparent => {}
                    }
                }
                assert!(hedges.started() <= policy.max_attempts);
            }
        }
    }
}
