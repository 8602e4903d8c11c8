//! Time as a store sees it: monotonic, in milliseconds, and an argument.

use std::num::NonZeroU64;
use std::time::Duration;

/// A point in monotonic time: milliseconds since an origin that the caller
/// chose and keeps for the life of a store.
///
/// The wall clock only converts absolute times at the edge of the server; it
/// may jump, this may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The point `ms` milliseconds after the origin.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This point plus `ttl`; stays at the end of time rather than overflow.
    #[must_use]
    pub const fn after(self, ttl: Ttl) -> Self {
        Self(self.0.saturating_add(ttl.as_millis()))
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A time to live: 1 ms to 10 years, in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(NonZeroU64);

/// Why a duration is no [`Ttl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TtlError {
    /// Zero, negative, or under a millisecond.
    #[error("must be at least 1 ms")]
    TooShort,
    /// Beyond [`Ttl::MAX`].
    #[error("must be at most 10 years (315360000 s)")]
    TooLong,
}

impl Ttl {
    /// The shortest: 1 ms.
    pub const MIN: Self = Self(NonZeroU64::MIN);
    /// The longest: 10 years of 365 days.
    pub const MAX: Self = match NonZeroU64::new(10 * 365 * 24 * 3600 * 1000) {
        Some(ms) => Self(ms),
        None => Self::MIN,
    };

    /// Parses whole milliseconds.
    ///
    /// # Errors
    /// [`TtlError`] outside 1 ms to 10 years.
    pub fn from_millis(ms: u64) -> Result<Self, TtlError> {
        let ttl = Self(NonZeroU64::new(ms).ok_or(TtlError::TooShort)?);
        if ttl > Self::MAX {
            Err(TtlError::TooLong)
        } else {
            Ok(ttl)
        }
    }

    /// Parses a duration; a fraction of a millisecond is cut off.
    ///
    /// # Errors
    /// [`TtlError`] outside 1 ms to 10 years.
    pub fn parse(duration: Duration) -> Result<Self, TtlError> {
        Self::from_millis(u64::try_from(duration.as_millis()).map_err(|_| TtlError::TooLong)?)
    }

    /// Milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0.get()
    }
}

/// When an entry ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Expiry {
    /// It does not.
    #[default]
    Never,
    /// Gone for every reader from this point on.
    At(Time),
}

impl Expiry {
    /// True when an entry with this expiry is gone at `now`.
    pub fn is_due(self, now: Time) -> bool {
        matches!(self, Self::At(end) if end <= now)
    }
}
