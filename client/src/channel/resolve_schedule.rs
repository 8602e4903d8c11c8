//! When names are looked up: at first, when a connection was lost or could not be made, and again
//! after a failure. Time and randomness are arguments.

use std::time::Duration;

use super::backoff::Backoff;

/// Shortest time from one answer to the next look-up: gRPC's DNS resolvers have the same.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Schedule {
    backoff: Backoff,
    is_running: bool,
    /// Somebody asked since the last one began.
    is_wanted: bool,
    not_before: Duration,
}

impl Schedule {
    /// The addresses may be old.
    pub(crate) const fn want(&mut self) {
        self.is_wanted = true;
    }

    /// When the next look-up is due.
    pub(crate) fn due(&self) -> Option<Duration> {
        (self.is_wanted && !self.is_running).then_some(self.not_before)
    }

    /// True if one has to begin now.
    #[must_use]
    pub(crate) fn start(&mut self, now: Duration) -> bool {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due {
            self.is_running = true;
            self.is_wanted = false;
        }
        is_due
    }

    /// It has an answer, with addresses.
    pub(crate) fn succeeded(&mut self, now: Duration) {
        self.is_running = false;
        self.backoff.reset();
        self.not_before = now.saturating_add(MIN_INTERVAL);
    }

    /// It failed, or found none: it is made again.
    pub(crate) fn failed(&mut self, now: Duration, draw: f64) {
        self.is_running = false;
        self.is_wanted = true;
        self.not_before = now.saturating_add(self.backoff.next(draw));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn one_at_a_time_and_not_too_often() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.due(), None, "nobody asked");
        schedule.want();
        assert!(schedule.start(at(5)));
        schedule.want();
        assert!(!schedule.start(at(6)), "one is under way");
        schedule.succeeded(at(7));
        assert_eq!(schedule.due(), Some(at(37)), "asked for meanwhile");
        assert!(!schedule.start(at(36)));
        assert!(schedule.start(at(37)));
        schedule.succeeded(at(38));
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn a_failure_is_tried_again_with_backoff() {
        let mut schedule = Schedule::default();
        schedule.want();
        for (now, next_ms) in [(0, 1000), (1, 2600), (3, 5560)] {
            assert!(schedule.start(at(now)));
            schedule.failed(at(now), 0.5);
            assert_eq!(schedule.due(), Some(Duration::from_millis(next_ms)));
        }
    }
}
