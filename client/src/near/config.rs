//! What a near cache may do.

use std::time::Duration;

use crate::error::Error;

/// Most that `max_staleness` may be, and a clock's skew: whoever accepts older answers than this
/// has no use for a server.
const MAX_STALENESS: Duration = Duration::from_secs(60 * 60);

/// Room for a few hundred small entries. Less keeps nothing worth the look.
const MIN_BYTES: u64 = 64 << 10;

/// More than a process has: a larger number is a mistake in its unit.
const MAX_BYTES: u64 = 1 << 40;

/// How far the clock of a machine that NTP keeps may be off, generously.
const DEFAULT_CLOCK_SKEW: Duration = Duration::from_millis(100);

/// Bounds of a [`NearCache`](crate::NearCache): how old its answers may be, and how much memory it
/// may take. [`Client::near`](crate::Client::near) checks them.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct NearConfig {
    pub(super) max_staleness: Duration,
    pub(super) max_bytes: u64,
    pub(super) max_miss_staleness: Option<Duration>,
    pub(super) clock_skew: Duration,
}

impl NearConfig {
    /// The two bounds that nobody else can choose.
    ///
    /// `max_staleness`: a get never gives a value that the server had replaced longer ago than
    /// this when the get began. It is counted from when the request for the value was sent, and
    /// is more than 0 and at most 1 h. With a source of changes it is counted from when the source
    /// was last [in touch](crate::Invalidations::in_touch).
    ///
    /// `max_bytes`: memory for entries, 64 KiB to 1 TiB: their keys, values and what they cost
    /// beside. What is least used goes first (CLOCK-Pro). The room is in up to 64 parts of at
    /// least 4 MiB, and an entry has to fit into one: up to 97 % of a part.
    pub const fn new(max_staleness: Duration, max_bytes: u64) -> Self {
        Self {
            max_staleness,
            max_bytes,
            max_miss_staleness: None,
            clock_skew: DEFAULT_CLOCK_SKEW,
        }
    }

    /// Keeps misses too: that the server has no entry under a key. A get then may not see an entry
    /// that was created up to `max_staleness` before it began. More than 0, and at most the bound
    /// of entries. Without this a get of an absent key always asks the server, which suits keys
    /// that are made when they are missed ([`NearCache::get_or_fill`](crate::NearCache::get_or_fill)).
    pub const fn with_misses(mut self, max_staleness: Duration) -> Self {
        self.max_miss_staleness = Some(max_staleness);
        self
    }

    /// How far the clock of this machine may be behind the server's: 100 ms by default, at most
    /// 1 h. A server says when an entry expires by its own clock, and the entry is kept that much
    /// shorter. One whose TTL is less than the skew is not kept at all.
    pub const fn with_clock_skew(mut self, skew: Duration) -> Self {
        self.clock_skew = skew;
        self
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let no = |text: String| Err(Error::configuration(text));
        let is_bound = |time: Duration, most: Duration| !time.is_zero() && time <= most;
        if !is_bound(self.max_staleness, MAX_STALENESS) {
            return no(format!(
                "max_staleness of a near cache is {:?}; it must be more than 0 and at most {MAX_STALENESS:?}",
                self.max_staleness
            ));
        }
        if !(MIN_BYTES..=MAX_BYTES).contains(&self.max_bytes) {
            return no(format!(
                "max_bytes of a near cache is {}; it must be {MIN_BYTES} to {MAX_BYTES}",
                self.max_bytes
            ));
        }
        if let Some(misses) = self.max_miss_staleness
            && !is_bound(misses, self.max_staleness)
        {
            return no(format!(
                "max_staleness of a near cache's misses is {misses:?}; it must be more than 0 and at most that of its entries, {:?}",
                self.max_staleness
            ));
        }
        if self.clock_skew > MAX_STALENESS {
            return no(format!(
                "clock_skew of a near cache is {:?}; it must be at most {MAX_STALENESS:?}",
                self.clock_skew
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::near::core::{Boarded, Core};
    use crate::types::Entry;

    #[test]
    fn a_bound_that_is_none_is_refused_by_name() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let nano = Duration::from_nanos(1);
        let good = NearConfig::new(second, 1 << 20);
        for (config, refused) in [
            (good, None),
            (NearConfig::new(hour, MIN_BYTES), None),
            (NearConfig::new(nano, MAX_BYTES), None),
            (good.with_misses(second), None),
            (good.with_clock_skew(hour), None),
            (good.with_clock_skew(Duration::ZERO), None),
            (
                NearConfig::new(Duration::ZERO, 1 << 20),
                Some("max_staleness"),
            ),
            (NearConfig::new(hour + nano, 1 << 20), Some("max_staleness")),
            (NearConfig::new(second, MIN_BYTES - 1), Some("max_bytes")),
            (NearConfig::new(second, MAX_BYTES + 1), Some("max_bytes")),
            (good.with_misses(Duration::ZERO), Some("misses")),
            (good.with_misses(second + nano), Some("misses")),
            (good.with_clock_skew(hour + nano), Some("clock_skew")),
        ] {
            let found = config.check().map_err(|error| error.to_string());
            match refused {
                None => assert_eq!(found, Ok(()), "{config:?}"),
                Some(field) => assert!(found.unwrap_err().contains(field), "{config:?}"),
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let bytes = 256 << 10;
        let config = NearConfig::new(Duration::from_secs(1), bytes);
        let core = Arc::new(Core::new(&config, "default".into()));
        let keep = |key: String, value: usize| {
            let Boarded::Leads(ticket) = core.board(key.clone().into(), 0) else {
                panic!("nobody else asks");
            };
            let entry = Entry::new(key, vec![0; value]);
            ticket.land(&Some(entry), 0, SystemTime::UNIX_EPOCH);
        };
        for number in 0..5000 {
            keep(format!("k{number}"), number % 3000);
            assert!(core.stats().bytes <= bytes);
        }
        let full = core.stats();
        assert!(full.bytes > bytes / 2 && full.entries > 50, "{full:?}");
        assert_eq!(full.evicted, 5000 - full.entries, "{full:?}");

        // What fits nowhere pushes out nothing.
        keep("large".into(), 1 << 20);
        let after = core.stats();
        assert_eq!(
            (after.entries, after.evicted),
            (full.entries, full.evicted + 1)
        );
        assert_eq!(core.look(b"large", 0), None);
    }
}
