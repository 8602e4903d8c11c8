//! RFC 9113, section 10.5: denial-of-service considerations.

use std::time::Instant;

use crate::error_codes::{ErrorCode, Fault};
use crate::limits::{AbuseLimits, Budget};

/// What a client may overdo. The names are those of [`AbuseLimits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abuse {
    /// [`AbuseLimits::client_resets`]
    ClientResets,
    /// [`AbuseLimits::server_resets`]
    ServerResets,
    /// [`AbuseLimits::refused_streams`]
    RefusedStreams,
    /// [`AbuseLimits::pings`]
    Pings,
    /// [`AbuseLimits::settings`]
    Settings,
    /// [`AbuseLimits::window_updates`]
    WindowUpdates,
    /// [`AbuseLimits::priorities`]
    Priorities,
    /// [`AbuseLimits::empty_data`]
    EmptyData,
    /// [`AbuseLimits::empty_headers`]
    EmptyHeaders,
    /// [`AbuseLimits::stray_frames`]
    StrayFrames,
    /// [`AbuseLimits::unknown_frames`]
    UnknownFrames,
}

impl Abuse {
    /// Kinds of abuse.
    pub const COUNT: usize = 11;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::ClientResets,
        Self::ServerResets,
        Self::RefusedStreams,
        Self::Pings,
        Self::Settings,
        Self::WindowUpdates,
        Self::Priorities,
        Self::EmptyData,
        Self::EmptyHeaders,
        Self::StrayFrames,
        Self::UnknownFrames,
    ];

    /// The name, for the debug data of `GOAWAY` and for a counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientResets => "client_resets",
            Self::ServerResets => "server_resets",
            Self::RefusedStreams => "refused_streams",
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::WindowUpdates => "window_updates",
            Self::Priorities => "priorities",
            Self::EmptyData => "empty_data",
            Self::EmptyHeaders => "empty_headers",
            Self::StrayFrames => "stray_frames",
            Self::UnknownFrames => "unknown_frames",
        }
    }

    /// The name of the counter of connections that it ended.
    #[must_use]
    pub const fn counter_name(self) -> &'static str {
        match self {
            Self::ClientResets => "connections_ended_client_resets",
            Self::ServerResets => "connections_ended_server_resets",
            Self::RefusedStreams => "connections_ended_refused_streams",
            Self::Pings => "connections_ended_pings",
            Self::Settings => "connections_ended_settings",
            Self::WindowUpdates => "connections_ended_window_updates",
            Self::Priorities => "connections_ended_priorities",
            Self::EmptyData => "connections_ended_empty_data",
            Self::EmptyHeaders => "connections_ended_empty_headers",
            Self::StrayFrames => "connections_ended_stray_frames",
            Self::UnknownFrames => "connections_ended_unknown_frames",
        }
    }

    const fn budget(self, limits: &AbuseLimits) -> Budget {
        match self {
            Self::ClientResets => limits.client_resets,
            Self::ServerResets => limits.server_resets,
            Self::RefusedStreams => limits.refused_streams,
            Self::Pings => limits.pings,
            Self::Settings => limits.settings,
            Self::WindowUpdates => limits.window_updates,
            Self::Priorities => limits.priorities,
            Self::EmptyData => limits.empty_data,
            Self::EmptyHeaders => limits.empty_headers,
            Self::StrayFrames => limits.stray_frames,
            Self::UnknownFrames => limits.unknown_frames,
        }
    }
}

/// A bucket's level when it was last looked at. `None`: full, and never used.
#[derive(Clone, Copy)]
struct Bucket {
    /// Thousandths of an event.
    level: u64,
    at: Instant,
    work: u64,
}

/// The buckets of one connection. Ordinary traffic touches none but for
/// [`Self::work`].
pub(crate) struct Buckets {
    buckets: [Option<Bucket>; Abuse::COUNT],
    /// Calls answered and `DATA` frames sent.
    pub(crate) work: u64,
}

const SCALE: u64 = 1000;

impl Buckets {
    pub(crate) const fn new() -> Self {
        Self {
            buckets: [None; Abuse::COUNT],
            work: 0,
        }
    }

    /// Takes one event out of its bucket.
    ///
    /// # Errors
    /// The bucket is empty: the connection ends.
    pub(crate) fn spend(
        &mut self,
        what: Abuse,
        limits: &AbuseLimits,
        now: Instant,
    ) -> Result<(), Fault> {
        let budget = what.budget(limits);
        let most = u64::from(budget.burst) * SCALE;
        let work = self.work;
        let bucket = self.buckets[what as usize].get_or_insert(Bucket {
            level: most,
            at: now,
            work,
        });
        let elapsed = now.saturating_duration_since(bucket.at).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let by_time = elapsed.saturating_mul(u64::from(budget.per_second));
        let by_work = (work - bucket.work)
            .saturating_mul(u64::from(budget.per_work))
            .saturating_mul(SCALE);
        let level = bucket.level.saturating_add(by_time).saturating_add(by_work);
        let level = level.min(most);
        // Below a millisecond nothing is added, and the clock of the bucket stays.
        if elapsed > 0 {
            bucket.at = now;
        }
        bucket.work = work;
        match level.checked_sub(SCALE) {
            Some(left) => {
                bucket.level = left;
                Ok(())
            }
            None => {
                bucket.level = level;
                let code = ErrorCode::ENHANCE_YOUR_CALM;
                Err(Fault::Connection(code, what.name()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_fills_with_time_and_with_work() {
        let limits = AbuseLimits {
            pings: Budget {
                burst: 3,
                per_second: 10,
                per_work: 2,
            },
            ..AbuseLimits::default()
        };
        let start = crate::testing::start();
        let mut buckets = Buckets::new();
        let taken = |buckets: &mut Buckets, after_ms| {
            let now = start + Duration::from_millis(after_ms);
            (0..10)
                .take_while(|_| buckets.spend(Abuse::Pings, &limits, now).is_ok())
                .count()
        };
        assert_eq!(taken(&mut buckets, 0), 3);
        assert_eq!(taken(&mut buckets, 99), 0);
        assert_eq!(taken(&mut buckets, 100), 1);
        buckets.work += 1;
        assert_eq!(taken(&mut buckets, 100), 2);
        buckets.work += 1_000_000;
        assert_eq!(taken(&mut buckets, 90_000), 3);
    }
}
