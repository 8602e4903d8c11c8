//! What an engine is made from, and what it reports.

/// Who sees whose entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Keyspace {
    /// Each account sees only its own entries.
    #[default]
    PerAccount,
    /// All accounts see the same entries, but each has its own quota: the
    /// talk's arrangement.
    ///
    /// An entry counts on the account that created it for as long as it
    /// lives, also when another overwrites it: growth then needs room in the
    /// creator's quota. [`AtLimit::Evict`](larder_model::AtLimit::Evict) acts
    /// as `Refuse`, for what an account evicted could be what others rely on.
    /// Closing an account walks all entries of all accounts.
    Shared,
}

/// What an [`Engine`](crate::Engine) is made from.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig {
    /// Most memory for entries, bytes: their allocations, rounded up as an
    /// allocator does, and what slots, index and fingerprints take. Reserved
    /// before it is used. What accounts take by being, 1 to 16 KiB each, is
    /// counted too, but never refused.
    pub max_memory_bytes: u64,
    /// Secret that each account's hash seed derives from. Random in a server,
    /// so that no client can choose keys that collide.
    pub hash_seed: [u8; 16],
    /// The first version that an account gives out; 1 if it is 0, which stands
    /// for none. Higher after each restart, so that no condition from before
    /// matches by accident: a boot number in the upper 16 bits, for example.
    /// An account has 2^48 versions in one life.
    pub first_version: u64,
    /// Who sees whose entries.
    pub keyspace: Keyspace,
}

/// What one [`Engine::sweep`](crate::Engine::sweep) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepReport {
    /// Entries that had expired, and are gone now.
    pub expired: u64,
    /// Accounts forgotten: empty, and nobody held a handle of one.
    pub forgotten: u64,
    /// True when the budget ended before the work.
    pub more: bool,
}

/// What the entries take, and may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes charged now.
    pub used_bytes: u64,
    /// Bytes allowed: [`EngineConfig::max_memory_bytes`].
    pub limit_bytes: u64,
}
