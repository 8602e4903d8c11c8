//! Wall-clock time, as an argument.

/// Milliseconds since 1970-01-01T00:00:00Z.
///
/// Tokens outlive a run of the server, so their end is kept in wall-clock
/// time; entries of a cache use the monotonic [`larder_model::Time`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// The point `ms` milliseconds after the start of 1970.
    pub const fn new(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the start of 1970.
    pub const fn get(self) -> u64 {
        self.0
    }
}
