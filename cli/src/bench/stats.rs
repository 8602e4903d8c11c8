//! What a load counts while it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency told apart from longer ones, microseconds: a minute.
const MAX_LATENCY_US: u64 = 60_000_000;

/// Decimal digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// Kinds of errors told apart; servers could make up names without end.
const MAX_ERROR_KINDS: usize = 100;

/// A kind of error: the status code, and the server's reason.
pub(super) type ErrorKind = (&'static str, Option<String>);

/// Counts of a run. Holds about 140 KiB.
#[derive(Debug)]
pub(super) struct Stats {
    /// Calls that succeeded, by how long they took.
    latency_us: Histogram<u64>,
    succeeded: u64,
    failed: u64,
    errors: BTreeMap<ErrorKind, u64>,
    hits: u64,
    misses: u64,
    bytes_read: u64,
    bytes_written: u64,
}

/// What a call that succeeded has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A read that found a value of so many bytes.
    Hit(usize),
    /// A read that found nothing.
    Miss,
    /// A write of so many bytes of key and value.
    Written(usize),
    /// A change that moved nothing to speak of.
    Done,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            latency_us: Histogram::new_with_max(MAX_LATENCY_US, LATENCY_DIGITS)
                .expect("the bounds are constants, and in order"),
            succeeded: 0,
            failed: 0,
            errors: BTreeMap::new(),
            hits: 0,
            misses: 0,
            bytes_read: 0,
            bytes_written: 0,
        }
    }
}

impl Stats {
    pub(super) fn succeed(&mut self, latency: Duration, outcome: Outcome) {
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_us.saturating_record(latency_us);
        self.succeeded += 1;
        match outcome {
            Outcome::Hit(bytes) => {
                self.hits += 1;
                self.bytes_read += bytes_of(bytes);
            }
            Outcome::Miss => self.misses += 1,
            Outcome::Written(bytes) => self.bytes_written += bytes_of(bytes),
            Outcome::Done => {}
        }
    }

    pub(super) fn fail(&mut self, kind: ErrorKind) {
        self.fail_often(kind, 1);
    }

    fn fail_often(&mut self, kind: ErrorKind, count: u64) {
        self.failed += count;
        let is_known = self.errors.contains_key(&kind) || self.errors.len() < MAX_ERROR_KINDS;
        let kind = if is_known { kind } else { ("OTHER", None) };
        *self.errors.entry(kind).or_default() += count;
    }

    /// Adds what another part of the load has counted.
    pub(super) fn add(&mut self, other: Self) {
        self.latency_us
            .add(&other.latency_us)
            .expect("all histograms have the same bounds");
        self.succeeded += other.succeeded;
        for (kind, count) in other.errors {
            self.fail_often(kind, count);
        }
        self.hits += other.hits;
        self.misses += other.misses;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
    }

    /// Calls that have ended, well or not.
    pub(super) fn requests(&self) -> u64 {
        self.succeeded + self.failed
    }

    pub(super) fn succeeded(&self) -> u64 {
        self.succeeded
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    pub(super) fn errors(&self) -> &BTreeMap<ErrorKind, u64> {
        &self.errors
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits
    }

    pub(super) fn misses(&self) -> u64 {
        self.misses
    }

    /// Bytes of the values that were read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Bytes of the keys and values that were written.
    pub(super) fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// The latency that `percentile` of the calls stayed within, microseconds;
    /// `None` if none succeeded.
    pub(super) fn latency_us(&self, percentile: f64) -> Option<u64> {
        (!self.latency_us.is_empty()).then(|| self.latency_us.value_at_percentile(percentile))
    }
}

fn bytes_of(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A share of a whole; `None` of nothing.
pub(super) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// How many a second; `None` before any time has passed.
pub(super) fn per_second(count: u64, elapsed: Duration) -> Option<f64> {
    (!elapsed.is_zero()).then(|| count as f64 / elapsed.as_secs_f64())
}

/// How many a second, for people.
pub(super) fn whole_per_second(count: u64, elapsed: Duration) -> String {
    per_second(count, elapsed).map_or_else(|| "-".into(), |rate| format!("{rate:.0}"))
}

/// Seconds for people.
pub(super) fn seconds_of(elapsed: Duration) -> String {
    format!("{:.2}", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted() {
        let mut stats = Stats::default();
        stats.succeed(Duration::from_micros(100), Outcome::Hit(7));
        stats.succeed(Duration::from_micros(200), Outcome::Miss);
        stats.succeed(Duration::from_micros(300), Outcome::Written(9));
        stats.succeed(Duration::from_secs(7_200), Outcome::Done);
        stats.fail(("UNAVAILABLE", Some("OVERLOADED".into())));
        stats.fail(("UNAVAILABLE", Some("OVERLOADED".into())));
        stats.fail(("UNAVAILABLE", Some("OVERLOADED".into())));
        assert_eq!(
            (stats.requests(), stats.succeeded(), stats.failed()),
            (7, 4, 3)
        );
        assert_eq!((stats.hits(), stats.misses()), (1, 1));
        assert_eq!((stats.bytes_read(), stats.bytes_written()), (7, 9));
        assert_eq!(stats.errors().values().copied().collect::<Vec<_>>(), [3]);
        assert_eq!(stats.latency_us(50.0), Some(200));
        // Longer than the histogram tells apart, and counted all the same.
        assert!(
            stats
                .latency_us(100.0)
                .is_some_and(|us| (59_900_000..61_000_000).contains(&us))
        );
        assert_eq!(Stats::default().latency_us(50.0), None);
    }

    #[test]
    fn parts_add_up() {
        let mut stats = Stats::default();
        for latency_us in [10, 30] {
            let mut part = Stats::default();
            part.succeed(Duration::from_micros(latency_us), Outcome::Hit(7));
            part.fail(("ABORTED", None));
            stats.add(part);
        }
        assert_eq!((stats.requests(), stats.failed()), (4, 2));
        assert_eq!((stats.hits(), stats.bytes_read()), (2, 14));
        assert_eq!(stats.errors()[&("ABORTED", None)], 2);
        assert_eq!(stats.latency_us(100.0), Some(30));
    }

    #[test]
    fn kinds_of_errors_have_an_end() {
        let mut stats = Stats::default();
        for number in 0..1_000 {
            stats.fail(("UNKNOWN", Some(format!("MADE_UP_{number}"))));
        }
        assert_eq!(stats.errors().len(), MAX_ERROR_KINDS + 1);
        assert_eq!(stats.errors()[&("OTHER", None)], 900);
        assert_eq!(stats.failed(), 1_000);
    }

    #[test]
    fn rates_of_nothing() {
        assert_eq!(ratio(0, 0), None);
        assert_eq!(ratio(1, 4), Some(0.25));
        assert_eq!(per_second(5, Duration::ZERO), None);
        assert_eq!(whole_per_second(5, Duration::from_millis(500)), "10");
    }
}
