//! Entries that come back from a snapshot.

use std::sync::Arc;

use larder_model::{Call, Set, Version, Written};

use crate::engine::{Account, Engine};
use crate::shard::record::LARGE_VALUE_BYTES;
use crate::write::Refused;

/// How far below [`EngineConfig::first_version`](crate::EngineConfig) the version
/// of an entry may be that comes back with it: half of what a partition can count.
pub const OLD_VERSIONS: u64 = 1 << 47;

/// What became of an entry that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Restored {
    /// It is there again.
    Kept,
    /// Its account's quota, or memory, has no room for it.
    NoRoom,
}

impl Engine {
    /// Puts an entry back with the version it had, if that is below the first of
    /// this engine and not by more than [`OLD_VERSIONS`]; otherwise, and
    /// with `None`, it gets a new one. An entry that is there under the key is
    /// replaced.
    ///
    /// Makes no room at the cost of other accounts: what no longer fits is
    /// left out. One lock, as a write.
    pub fn restore(
        &self,
        account: &Account,
        call: Call,
        set: &Set<'_>,
        version: Option<Version>,
    ) -> Restored {
        let tenant = &account.0;
        let large = (set.value.len() > LARGE_VALUE_BYTES).then(|| Arc::from(set.value));
        let version = version.and_then(|version| tenant.partition.old_version(version.get()));
        match tenant.set_as(call, set, large.as_ref(), version) {
            Ok(Written::Applied(_)) => Restored::Kept,
            Ok(Written::NotApplied(_)) | Err(Refused::Never(_) | Refused::Short(_)) => {
                Restored::NoRoom
            }
        }
    }

    /// Above every version that was given out. A load for each account.
    pub fn end_version(&self) -> u64 {
        let registry = self.registry().read();
        let ends = registry.tenants().map(|it| it.partition.end_version());
        let shared = self.shared_partition().map(|it| it.end_version());
        ends.chain(shared).fold(registry.first_version, u64::max)
    }
}
