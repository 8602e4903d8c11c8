//! Fetching ahead what calls are about to need.
//!
//! A look-up among millions of entries comes to memory that is in no cache, three times, and each
//! time says where the next is: the index, the slot, the record. A call alone waits for each. Of
//! calls that are known to come, all can be on the way at once ("Improving Hash Join Performance
//! through Prefetching", Chen, Ailamaki, Gibbons and Mowry, 2004: group prefetching).

use larder_model::{EntryKey, MAX_EXPECTED};

use crate::registry::Tenant;
use crate::shard::Part;

/// Bytes of an account, as its quota counts them, that a processor's own cache is taken to hold:
/// with no more, fetching ahead costs more than it saves.
const CACHED_BYTES: u64 = 2 << 20;

impl Tenant {
    /// Whether it is worth it to say what is expected.
    pub(crate) fn is_large(&self) -> bool {
        self.ledger.reserved().bytes > CACHED_BYTES
    }

    pub(crate) fn expect<'k>(&self, keys: impl Iterator<Item = EntryKey<'k>>) {
        let mut hashes = [0; MAX_EXPECTED];
        let mut count = 0;
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = self.partition.hash(key);
            count += 1;
        }
        let hashes = &hashes[..count];
        if let [] | [_] = hashes {
            // One alone would wait for as much.
            return;
        }
        for part in [Part::Index, Part::Slot, Part::Record] {
            for &hash in hashes {
                self.partition.shard(hash).prefetch(hash, part);
            }
        }
    }
}
