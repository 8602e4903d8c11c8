//! The wait between attempts to reach something: `connection-backoff.md` of gRPC, for connections
//! and for names.

use std::time::Duration;

/// The first wait. A connection that lasted no longer counts as one that failed.
pub(crate) const INITIAL: Duration = Duration::from_secs(1);
const MULTIPLIER: f64 = 1.6;
const MAX: Duration = Duration::from_secs(120);
/// Part by which a wait is longer or shorter at random.
const JITTER: f64 = 0.2;

/// Grows with each failure in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure. `draw` is from 0 to 1.
    pub(crate) fn next(&mut self, draw: f64) -> Duration {
        let exponent = i32::try_from(self.failures).unwrap_or(i32::MAX);
        self.failures = self.failures.saturating_add(1);
        let grown = INITIAL.as_secs_f64() * MULTIPLIER.powi(exponent);
        let bounded = grown.min(MAX.as_secs_f64());
        Duration::from_secs_f64(bounded * (1.0 - JITTER + 2.0 * JITTER * draw))
    }

    /// It was reached.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_two_minutes_and_begin_anew() {
        let mut backoff = Backoff::default();
        let mut waits = [0; 13];
        waits.fill_with(|| backoff.next(0.5).as_millis());
        assert_eq!(
            waits,
            [
                1000, 1600, 2560, 4096, 6553, 10485, 16777, 26843, 42949, 68719, 109951, 120_000,
                120_000
            ]
        );
        assert_eq!(backoff.next(0.0).as_secs(), 96);
        assert_eq!(backoff.next(1.0).as_secs(), 144);
        backoff.reset();
        assert_eq!(backoff.next(0.0).as_millis(), 800);
        assert_eq!(backoff.next(1.0).as_millis(), 1920);
    }

    #[test]
    fn any_number_of_failures_has_a_wait() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.next(0.5), MAX);
        assert_eq!(backoff.next(0.5), MAX);
    }
}
