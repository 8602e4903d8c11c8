//! What a store keeps under a key.

use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::time::Expiry;

/// Changes with each write of an entry, and grows within an account, also
/// across restarts: no condition from before a restart matches by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// Takes a number as it came over the wire, or from a store's counter.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Bytes of an entry for the byte quota: key + value +
/// [`ENTRY_OVERHEAD_BYTES`]. The namespace is free.
pub const fn entry_size_bytes(key_bytes: usize, value_bytes: usize) -> u64 {
    key_bytes as u64 + value_bytes as u64 + ENTRY_OVERHEAD_BYTES
}

/// All of an entry but its key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMeta {
    /// For compare-and-set.
    pub version: Version,
    /// When it ends.
    pub expiry: Expiry,
    /// What it counts against the byte quota; see [`entry_size_bytes`].
    pub size_bytes: u64,
    /// Opaque to the server; as the writer gave it.
    pub flags: u32,
}

/// An entry lent by a store for the time of one visit.
#[derive(Debug, Clone, Copy)]
pub struct EntryRef<'a> {
    /// The key space it lives in.
    pub namespace: &'a str,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The rest.
    pub meta: EntryMeta,
}
