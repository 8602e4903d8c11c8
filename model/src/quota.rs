//! What an account may use, and what it uses.

/// What happens to a new key, or to growth, when the account is at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AtLimit {
    /// The write is refused: the talk's behaviour.
    #[default]
    Refuse,
    /// The account's own least useful entries make room.
    Evict,
}

/// What an account may use on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Most live keys.
    pub max_keys: u64,
    /// Most bytes, each entry counted as [`entry_size_bytes`](crate::entry_size_bytes).
    pub max_bytes: u64,
    /// What happens at the limit.
    pub at_limit: AtLimit,
}

impl Quota {
    /// No limit but the server's memory.
    pub const UNLIMITED: Self = Self {
        max_keys: u64::MAX,
        max_bytes: u64::MAX,
        at_limit: AtLimit::Refuse,
    };
}

/// What an account uses now, and how its cache does since the store started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Live keys.
    pub keys: u64,
    /// Bytes of live entries.
    pub bytes: u64,
    /// What it may use.
    pub quota: Quota,
    /// Reads that found an entry.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Entries evicted for room.
    pub evicted: u64,
    /// Entries that expired.
    pub expired: u64,
}
