//! The nouns of larder and the [`Store`] trait.
//!
//! Nothing here knows a wire type, a runtime, a clock or a source of
//! randomness: time is an argument ([`Call::now`]), so a test can drive a store
//! through a year in a second. Identifiers are newtypes that only parsing
//! makes, so a function that takes a [`Key`] need not check it again.

mod entry;
mod limits;
mod name;
mod once;
mod quota;
mod rehearsal;
mod store;
#[cfg(feature = "suite")]
pub mod suite;
mod time;
mod window;

pub use entry::{EntryMeta, EntryRef, Version, entry_size_bytes};
pub use limits::{ENTRY_OVERHEAD_BYTES, Limits, MAX_NAME_BYTES, MAX_REQUEST_ID_BYTES};
pub use name::{AccountId, AccountName, AccountUid, EntryKey, Key, NameError, Namespace};
pub use once::{
    Fingerprint, Once, OnceError, Outcome, ReplayLimits, ReplayUse, Request, RequestId,
    RequestIdError, Write,
};
pub use quota::{AtLimit, Quota, Usage};
pub use rehearsal::{Growth, Rehearsal, Rehearsed};
pub use store::{
    Call, Condition, Cursor, Deleted, ExpiryChange, Increment, Incremented, Listed, MAX_EXPECTED,
    Mode, Page, ReadEffect, ScanBudget, Selection, Set, Store, StoreError, Written,
};
pub use time::{Expiry, Time, Ttl, TtlError};
pub use window::{Claimed, Remembered, Window, WindowPlace};
