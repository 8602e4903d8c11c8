//! The in-memory [`Store`](larder_model::Store) of larder.
//!
//! # The shape
//! ```text
//! Engine ── registry: account → partition ── 1 to 16 shards, each one short lock around
//!             │                                index    key → slot; grows and shrinks in small steps
//!             │                                slab     entries in slots that never move
//!             ├── ledger: keys, bytes          policy   S3-FIFO queues through the slots; fingerprints
//!             └── memory: one number           wheel    what ends when, through the slots
//! ```
//!
//! # What always holds
//! - Room is reserved, on the account's ledger and in memory, before an entry
//!   is there, and released after it has gone, both under its shard's lock. So
//!   an account is never above its quota, with any number of threads, and what
//!   is reported is what a count would find.
//! - Two locks are never held together, so there is no order to get wrong.
//! - A lock is held for a bounded number of steps, about 100 µs at the most:
//!   long work gives the lock back between steps and lets other tasks run.
//! - There is no clock, no randomness, no runtime and no thread in here: time
//!   and seeds are arguments, and a test drives an engine through a year in a
//!   second.
//! - A due entry is gone for every reader at its millisecond, whether or not
//!   the wheel has come round to it, and is drained before a write is refused
//!   for want of room.
//!
//! # What an entry costs
//! 48 bytes of slot, 8 to 11 of index, 1 or 2 for the key's length, what the
//! allocator rounds up, and 8 for a fingerprint once the account evicts. An
//! account costs 1 to 16 KiB by itself.
//!
//! # What a look-up costs
//! One lock, and where the entries are in no cache three places in memory, one after the other: a
//! line of the index, the slot, the record. Of calls that a server knows to come
//! ([`expect`](larder_model::Store::expect)) these are fetched together (`prefetch`).
//!
//! # Where to start reading
//! `store` for what happens when room is missing, `write` for one write under
//! one lock, `shard::entries` for what that lock protects, `policy::s3fifo`
//! for who goes.

mod config;
mod engine;
mod hash;
mod ledger;
mod memory;
mod number;
mod once;
mod partition;
mod policy;
mod prefetch;
mod read;
mod reclaim;
mod registry;
mod rehearse;
mod shard;
mod snapshot;
mod store;
mod turn;
mod walk;
mod write;

pub use config::{EngineConfig, Keyspace, MemoryUse, SweepReport};
pub use engine::{Account, Engine};
pub use snapshot::{Mark, OLD_VERSIONS, Owner, Restored, Walk};
