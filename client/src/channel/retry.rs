//! Whether a call is tried again, and when: gRFC A6. Nothing here waits or sends; what happened and
//! a random number go in, a decision comes out.

use std::time::Duration;

use larder_api::errors::Code;

use super::throttle::Throttle;

/// Most attempts of a call, whatever a service config says (gRFC A6); transparent retries are not
/// counted.
pub(crate) const MAX_ATTEMPTS: u32 = 5;

/// Longest wait that a server's pushback is given; one that asks for more wants no more tries.
const MAX_PUSHBACK: Duration = Duration::from_secs(3600);

/// A set of status codes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CodeSet(u32);

/// `retryPolicy` of a service config.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RetryPolicy {
    /// With the first, 2 to [`MAX_ATTEMPTS`].
    pub(crate) max_attempts: u32,
    pub(crate) initial_backoff: Duration,
    pub(crate) max_backoff: Duration,
    pub(crate) backoff_multiplier: f64,
    pub(crate) retryable: CodeSet,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptEnd {
    Ok,
    /// No byte of it left the client.
    NotSent,
    /// The server says that it did not look at it: REFUSED_STREAM, or above the last stream of a
    /// GOAWAY.
    Refused,
    /// A status, the server's or one made of what happened to the connection.
    Failed(Code, Pushback),
}

/// What the server says about trying again: `grpc-retry-pushback-ms`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Pushback {
    #[default]
    None,
    After(Duration),
    Never,
}

/// Whether more than one attempt of a call may reach a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Safety {
    /// A repeat does no harm: it reads, writes the same, or carries a request id.
    Repeatable,
    /// A repeat could have the effect twice.
    AtMostOnce,
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Next {
    /// The call ends as the attempt did.
    Stop,
    /// Another attempt at once, which counts for nothing (gRFC A6, "Transparent Retries").
    Transparent,
    /// Another attempt after this time.
    Again(Duration),
}

/// One call's attempts. It is committed (A6) by the end of one, for a unary call hands nothing up
/// before; streams are not tried again by the channel, but taken up by who reads them.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    safety: Safety,
    /// Attempts that a server may have seen.
    seen: u32,
    /// Retries since the last pushback, which begins the backoff anew.
    backoffs: u32,
    transparent: u32,
    was_refused: bool,
}

impl CodeSet {
    pub(crate) fn insert(&mut self, code: Code) {
        self.0 |= 1 << code.number();
    }

    pub(crate) const fn contains(self, code: Code) -> bool {
        self.0 & (1 << code.number()) != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Code> for CodeSet {
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        let mut set = Self::default();
        codes.into_iter().for_each(|code| set.insert(code));
        set
    }
}

impl Pushback {
    /// Of the metadata's text. What is no whole number of milliseconds means never, as a negative
    /// one does (gRFC A6).
    pub(crate) fn parse(text: &str) -> Self {
        match text.parse().map(Duration::from_millis) {
            Ok(delay) if delay <= MAX_PUSHBACK => Self::After(delay),
            _ => Self::Never,
        }
    }
}

impl RetryPolicy {
    /// The wait before retry number `retry`, which counts from 1: exponential, bounded, and
    /// between 0.8 and 1.2 of that by `draw`, which is from 0 to 1.
    fn backoff(&self, retry: u32, draw: f64) -> Duration {
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial_backoff.as_secs_f64() * self.backoff_multiplier.powi(exponent);
        let bounded = grown.min(self.max_backoff.as_secs_f64());
        Duration::try_from_secs_f64(bounded * (0.8 + 0.4 * draw)).unwrap_or(self.max_backoff)
    }
}

impl Attempts {
    pub(crate) const fn new(safety: Safety) -> Self {
        Self {
            safety,
            seen: 0,
            backoffs: 0,
            transparent: 0,
            was_refused: false,
        }
    }

    /// What goes into `grpc-previous-rpc-attempts`: attempts before this one that a server may
    /// have seen. Transparent ones are not among them.
    pub(crate) const fn previous(&self) -> u32 {
        self.seen
    }

    /// Attempts that counted for nothing.
    pub(crate) const fn transparent(&self) -> u32 {
        self.transparent
    }

    /// Decides after an attempt. `draw` is from 0 to 1.
    pub(crate) fn after(
        &mut self,
        end: AttemptEnd,
        policy: Option<&RetryPolicy>,
        throttle: Option<&Throttle>,
        draw: f64,
    ) -> Next {
        let (code, pushback) = match end {
            AttemptEnd::Ok => {
                if let Some(throttle) = throttle {
                    throttle.succeeded();
                }
                return Next::Stop;
            }
            AttemptEnd::NotSent => {
                self.transparent = self.transparent.saturating_add(1);
                return Next::Transparent;
            }
            AttemptEnd::Refused if !self.was_refused => {
                self.was_refused = true;
                self.transparent = self.transparent.saturating_add(1);
                return Next::Transparent;
            }
            // A second refusal is a failure like any other, though one that had no effect.
            AttemptEnd::Refused => (Code::Unavailable, Pushback::None),
            AttemptEnd::Failed(code, pushback) => (code, pushback),
        };
        self.seen = self.seen.saturating_add(1);
        let Some(policy) = policy else {
            return Next::Stop;
        };
        let is_retryable = policy.retryable.contains(code);
        if let Some(throttle) = throttle
            && (is_retryable || pushback == Pushback::Never)
        {
            throttle.failed();
        }
        let had_no_effect = end == AttemptEnd::Refused;
        let is_safe = self.safety == Safety::Repeatable || had_no_effect;
        if !is_retryable
            || !is_safe
            || self.seen >= policy.max_attempts
            || throttle.is_some_and(|throttle| !throttle.allows())
        {
            return Next::Stop;
        }
        match pushback {
            Pushback::Never => Next::Stop,
            Pushback::After(delay) => {
                self.backoffs = 0;
                Next::Again(delay)
            }
            Pushback::None => {
                self.backoffs += 1;
                Next::Again(policy.backoff(self.backoffs, draw))
            }
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

    fn policy(max_attempts: u32) -> RetryPolicy {
        RetryPolicy {
            max_attempts,
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_millis(500),
            backoff_multiplier: 2.0,
            retryable: [Code::Unavailable].into_iter().collect(),
        }
    }

    fn pushed(pushback: Pushback) -> AttemptEnd {
        AttemptEnd::Failed(Code::Unavailable, pushback)
    }

    fn again(ms: u64) -> Next {
        Next::Again(Duration::from_millis(ms))
    }

    #[track_caller]
    fn check(safety: Safety, ends: &[(AttemptEnd, Next)]) {
        let policy = policy(4);
        let mut attempts = Attempts::new(safety);
        for (at, (end, next)) in ends.iter().enumerate() {
            // In the middle, where the jitter is 1.
            let decided = attempts.after(*end, Some(&policy), None, 0.5);
            assert_eq!(decided, *next, "after attempt {at}");
        }
    }

    #[test]
    fn a_retryable_failure_is_tried_again_with_backoff_until_the_most() {
        check(
            Safety::Repeatable,
            &[
                (DOWN, again(100)),
                (DOWN, again(200)),
                (DOWN, again(400)),
                (DOWN, Next::Stop),
            ],
        );
        check(Safety::Repeatable, &[(AttemptEnd::Ok, Next::Stop)]);
        let other = AttemptEnd::Failed(Code::Internal, Pushback::None);
        check(Safety::Repeatable, &[(other, Next::Stop)]);
        check(Safety::AtMostOnce, &[(DOWN, Next::Stop)]);
    }

    #[test]
    fn what_no_server_saw_is_tried_again_without_a_limit() {
        let mut ends = vec![(AttemptEnd::NotSent, Next::Transparent); 50];
        ends.push((DOWN, Next::Stop));
        check(Safety::AtMostOnce, &ends);
    }

    #[test]
    fn a_refusal_is_transparent_once_and_then_a_failure_without_effect() {
        check(
            Safety::AtMostOnce,
            &[
                (AttemptEnd::Refused, Next::Transparent),
                (AttemptEnd::Refused, again(100)),
                (AttemptEnd::Refused, again(200)),
                (AttemptEnd::Refused, again(400)),
                (AttemptEnd::Refused, Next::Stop),
            ],
        );
    }

    #[test]
    fn pushback_sets_the_wait_and_begins_the_backoff_anew() {
        let later = Pushback::After(Duration::from_millis(70));
        check(
            Safety::Repeatable,
            &[
                (DOWN, again(100)),
                (pushed(later), again(70)),
                (DOWN, again(100)),
                (DOWN, Next::Stop),
            ],
        );
        check(Safety::Repeatable, &[(pushed(Pushback::Never), Next::Stop)]);
        for (text, pushback) in [
            ("0", Pushback::After(Duration::ZERO)),
            ("70", later),
            ("-1", Pushback::Never),
            ("", Pushback::Never),
            ("soon", Pushback::Never),
            ("99999999999", Pushback::Never),
            ("999999999999999999999999", Pushback::Never),
        ] {
            assert_eq!(Pushback::parse(text), pushback, "{text:?}");
        }
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let policy = policy(5);
        for (draw, ms) in [(0.0, 80), (0.25, 90), (0.5, 100), (1.0, 120)] {
            let backoff = policy.backoff(1, draw);
            assert_eq!(backoff.as_millis(), ms, "{draw}");
        }
        // Bounded first, so that the jitter stays when the bound is reached.
        assert_eq!(policy.backoff(30, 1.0).as_millis(), 600);
        assert_eq!(policy.backoff(u32::MAX, 0.5).as_millis(), 500);
    }

    #[test]
    fn without_a_policy_only_transparent_retries_are_made() {
        let mut attempts = Attempts::new(Safety::Repeatable);
        assert_eq!(
            attempts.after(AttemptEnd::Refused, None, None, 0.5),
            Next::Transparent
        );
        assert_eq!(attempts.after(DOWN, None, None, 0.5), Next::Stop);
        assert_eq!((attempts.previous(), attempts.transparent()), (1, 1));
    }

    /// Whatever happens: at most the attempts allowed, none that could repeat an effect, waits
    /// within their bounds, and none while the throttle is closed.
    #[test]
    fn random_calls_keep_the_rules() {
        let mut rng = SmallRng::seed_from_u64(0xA6);
        let throttle = Throttle::new(ThrottleConfig {
            max_tokens: 20,
            ratio_thousandths: 300,
        });
        for _ in 0..20_000 {
            let safety = match rng.random_bool(0.5) {
                true => Safety::Repeatable,
                false => Safety::AtMostOnce,
            };
            let policy = policy(rng.random_range(2..=5));
            let mut attempts = Attempts::new(safety);
            let mut reached = 0;
            loop {
                let end = match rng.random_range(0..8) {
                    0 => AttemptEnd::Refused,
                    1 => AttemptEnd::NotSent,
                    2 => pushed(Pushback::Never),
                    3 => pushed(Pushback::After(Duration::from_millis(7))),
                    4 => AttemptEnd::Failed(Code::Internal, Pushback::None),
                    5 => AttemptEnd::Ok,
                    _ => DOWN,
                };
                reached += u32::from(matches!(end, AttemptEnd::Ok | AttemptEnd::Failed(..)));
                match attempts.after(end, Some(&policy), Some(&throttle), rng.random()) {
                    Next::Stop => break,
                    Next::Transparent => {}
                    Next::Again(wait) => {
                        assert!(throttle.allows());
                        assert!(wait <= policy.max_backoff.mul_f64(1.2));
                        assert!(safety == Safety::Repeatable || end == AttemptEnd::Refused);
                    }
                }
            }
            assert!(reached <= policy.max_attempts, "{reached}");
            assert!(safety == Safety::Repeatable || reached <= 1, "{reached}");
        }
    }
}
