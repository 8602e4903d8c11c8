//! gRFC A6, "Throttling Retry Attempts and Hedged RPCs": a server that fails most of its calls is
//! not sent them again.

use std::sync::atomic::{AtomicU32, Ordering};

/// `retryThrottling` of a service config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThrottleConfig {
    /// 1 to 1000.
    pub(crate) max_tokens: u32,
    /// What a success gives back, thousandths of a token.
    pub(crate) ratio_thousandths: u32,
}

/// The tokens of one channel. Attempts beyond a call's first are made only while more than half of
/// them are there.
///
/// While all of them are there a success only reads, so that the threads of a healthy channel do
/// not write to a place that they share.
#[derive(Debug)]
pub(crate) struct Throttle {
    thousandths: AtomicU32,
    max: u32,
    ratio: u32,
}

impl Throttle {
    pub(crate) fn new(config: ThrottleConfig) -> Self {
        let max = config.max_tokens.saturating_mul(1000);
        Self {
            thousandths: AtomicU32::new(max),
            max,
            ratio: config.ratio_thousandths,
        }
    }

    /// A call succeeded.
    pub(crate) fn succeeded(&self) {
        if self.thousandths.load(Ordering::Relaxed) < self.max {
            self.change(|tokens| tokens.saturating_add(self.ratio).min(self.max));
        }
    }

    /// An attempt failed in a way that is retried, or the server wants no more tries.
    pub(crate) fn failed(&self) {
        self.change(|tokens| tokens.saturating_sub(1000));
    }

    /// Whether a further attempt may be made.
    pub(crate) fn allows(&self) -> bool {
        self.thousandths.load(Ordering::Relaxed) > self.max / 2
    }

    fn change(&self, step: impl Fn(u32) -> u32) {
        // The closure always gives a value, so the update cannot fail.
        let _ = self
            .thousandths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
                Some(step(tokens))
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(max_tokens: u32, ratio_thousandths: u32) -> Throttle {
        Throttle::new(ThrottleConfig {
            max_tokens,
            ratio_thousandths,
        })
    }

    #[test]
    fn attempts_stop_at_half_of_the_tokens_and_come_back_by_successes() {
        // failures, successes, allowed (of 10 tokens, 0.5 for a success)
        for (failures, successes, allowed) in [
            (0, 0, true),
            (4, 0, true),
            (5, 0, false),
            (5, 1, true),
            (100, 0, false),
            (100, 10, false),
            (100, 11, true),
            (0, 1000, true),
        ] {
            let throttle = throttle(10, 500);
            (0..failures).for_each(|_| throttle.failed());
            (0..successes).for_each(|_| throttle.succeeded());
            assert_eq!(throttle.allows(), allowed, "-{failures} +{successes}");
        }
    }

    #[test]
    fn tokens_never_exceed_their_most() {
        let throttle = throttle(10, 1_000_000);
        (0..3).for_each(|_| throttle.failed());
        throttle.succeeded();
        (0..4).for_each(|_| throttle.failed());
        assert!(throttle.allows());
        throttle.failed();
        assert!(!throttle.allows());
    }
}
