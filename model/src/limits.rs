//! The limits of the data model, each in one place, with its unit.

/// Bytes that an entry counts beside its key and value, in every store, so
/// that a quota means the same everywhere: about what an index slot, links,
/// version and expiry take.
pub const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// Longest name of an account or namespace, bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest `request_id`, bytes: a UUID has 36.
pub const MAX_REQUEST_ID_BYTES: usize = 64;

/// Limits that a server may configure. `GetServerInfo` reports each under the
/// name it has here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, bytes; default 1,024.
    pub max_key_bytes: usize,
    /// Largest value, bytes; default 3 MiB, because stock clients refuse
    /// messages over 4 MiB.
    pub max_value_bytes: usize,
    /// Most keys in one batch; default 1,000.
    pub max_batch_keys: usize,
    /// `BatchGet` stops adding values at this size, bytes, and marks the rest
    /// `deferred`; default 3 MiB.
    pub max_batch_get_bytes: usize,
    /// Largest page of `ListKeys`, and its default; 1,000 entries.
    pub max_list_page: usize,
    /// A message of a dump ends once it holds this much, bytes; one entry is
    /// never split. Default 256 KiB.
    pub dump_message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_key_bytes: 1024,
            max_value_bytes: 3 << 20,
            max_batch_keys: 1000,
            max_batch_get_bytes: 3 << 20,
            max_list_page: 1000,
            dump_message_bytes: 256 << 10,
        }
    }
}
