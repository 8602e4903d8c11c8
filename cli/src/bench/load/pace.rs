//! When each call of a load at a rate is due.

use std::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The calls of one stream among many that share a rate, evenly spread: the
/// stream `index` of `streams` makes the calls `index`, `index + streams`,
/// and so on.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// Number of the next call, over all streams.
    next: u64,
    streams: u64,
    per_second: u64,
}

impl Pace {
    /// `per_second` is above zero.
    pub(super) fn new(index: u64, streams: u64, per_second: u64) -> Self {
        Self {
            next: index,
            streams,
            per_second,
        }
    }

    /// When the next call is due, from the start of the load.
    pub(super) fn next_due(&mut self) -> Duration {
        let nanos = u128::from(self.next) * NANOS_PER_SECOND / u128::from(self.per_second);
        self.next = self.next.saturating_add(self.streams);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_take_turns() {
        let mut paces = [Pace::new(0, 2, 4), Pace::new(1, 2, 4)];
        let due: Vec<_> = (0..3)
            .flat_map(|_| paces.each_mut().map(|pace| pace.next_due().as_millis()))
            .collect();
        assert_eq!(due, [0, 250, 500, 750, 1000, 1250]);
    }

    #[test]
    fn rates_do_not_drift() {
        let mut pace = Pace::new(0, 1, 3);
        let last = (0..=3_000_000).map(|_| pace.next_due()).last();
        assert_eq!(last, Some(Duration::from_secs(1_000_000)));
    }
}
