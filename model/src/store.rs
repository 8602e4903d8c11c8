//! The trait that every store implements.

use std::future::Future;

use crate::entry::{EntryMeta, EntryRef, Version};
use crate::name::{AccountId, AccountName, EntryKey, Namespace};
use crate::once::{Once, OnceError, Outcome, ReplayLimits, ReplayUse, Request, Write};
use crate::quota::{Quota, Usage};
use crate::rehearsal::Rehearsal;
use crate::time::{Expiry, Time};

/// Whether a mutation takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// It does.
    #[default]
    Apply,
    /// Every check of the real call, the same answer, and no effect at all: no
    /// counter moves, nothing is evicted, no use is noted.
    DryRun,
}

/// What every operation is told beside its own arguments.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The time of the call; never earlier than that of a call before.
    pub now: Time,
    /// A store that waits gives up at this time; memory ignores it.
    pub deadline: Option<Time>,
    /// Whether a mutation takes place.
    pub mode: Mode,
}

impl Call {
    /// A call at `now` that takes effect and may take its time.
    pub const fn at(now: Time) -> Self {
        Self {
            now,
            deadline: None,
            mode: Mode::Apply,
        }
    }

    /// The same call, without effect.
    #[must_use]
    pub const fn dry(self) -> Self {
        Self {
            mode: Mode::DryRun,
            ..self
        }
    }
}

/// Condition on the live entry under the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// None.
    #[default]
    Always,
    /// There is no live entry.
    IfAbsent,
    /// There is a live entry.
    IfPresent,
    /// The live entry has this version.
    IfVersion(Version),
}

/// What a write does to the expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryChange {
    /// Sets it. A time that has passed stores an entry that is gone at once:
    /// in effect a delete.
    To(Expiry),
    /// Keeps that of the live entry; never, if there is none.
    Keep,
}

/// Whether a read counts as a use for eviction, and as a hit or miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadEffect {
    /// It does.
    #[default]
    Use,
    /// It counts as a hit or miss, but not as a use.
    Peek,
}

/// Arguments of [`Store::set`].
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    /// Where.
    pub at: EntryKey<'a>,
    /// What; copied.
    pub value: &'a [u8],
    /// Opaque flags.
    pub flags: u32,
    /// When it ends.
    pub expiry: ExpiryChange,
    /// Under which condition.
    pub condition: Condition,
}

/// Outcome of [`Store::set`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Written, or would be. A dry run shows version 0: none was given out.
    Applied(EntryMeta),
    /// The condition did not hold; the live entry in the way, if there is one.
    NotApplied(Option<EntryMeta>),
}

/// Outcome of [`Store::delete`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// Deleted, or would be.
    Applied,
    /// There was no live entry (`None`), or the condition did not hold.
    NotApplied(Option<EntryMeta>),
}

/// Arguments of [`Store::increment`]. The value is stored as decimal text.
#[derive(Debug, Clone, Copy)]
pub struct Increment<'a> {
    /// Where.
    pub at: EntryKey<'a>,
    /// What to add.
    pub delta: i64,
    /// The value before the first add, if there is no live entry.
    pub initial: i64,
    /// Expiry of a counter that this call creates; an existing one keeps its
    /// own.
    pub initial_expiry: Expiry,
    /// An add stops here; it never moves a counter that is already above.
    pub upper_bound: Option<i64>,
    /// A subtraction stops here; it never moves a counter already below.
    pub lower_bound: Option<i64>,
}

/// Outcome of [`Store::increment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incremented {
    /// The value after.
    pub value: i64,
    /// What was really added: less than asked at a bound.
    pub applied_delta: i64,
}

/// The entries of a namespace whose key begins with a prefix; all of them, if
/// it is empty.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// The key space.
    pub namespace: Namespace<'a>,
    /// What the keys begin with.
    pub prefix: &'a [u8],
}

/// A point in a walk over an account, good for as long as the store keeps the
/// account in one life. Opaque; stores encode it as they like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor(pub [u64; 2]);

/// How much one step of a walk may do.
#[derive(Debug, Clone, Copy)]
pub struct ScanBudget {
    /// The step ends once the entries shown hold this many bytes, keys and
    /// values; the entry that crosses the line is still shown.
    pub bytes: usize,
    /// The step looks at this many entries at the most, shown or not.
    pub entries: usize,
}

/// An entry in a [`Page`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: Box<[u8]>,
    /// The rest, but for the value.
    pub meta: EntryMeta,
}

/// Outcome of [`Store::list`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// In key order.
    pub entries: Vec<Listed>,
    /// True when there are more after the last.
    pub more: bool,
}

/// Why a store refuses. What the caller would do differently makes the kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The account is at its key limit and may not, or could not, evict.
    #[error("key quota of {limit} is used up")]
    KeyQuota {
        /// Keys allowed.
        limit: u64,
    },
    /// The account is at its byte limit and may not, or could not, evict.
    #[error("byte quota of {limit} is used up")]
    ByteQuota {
        /// Bytes allowed.
        limit: u64,
    },
    /// The store is at its memory limit and nothing could be evicted.
    #[error("memory limit of {limit} bytes is reached")]
    MemoryFull {
        /// Bytes allowed.
        limit: u64,
    },
    /// Increment of what is no decimal 64-bit number.
    #[error("the value is no number")]
    NotANumber,
    /// Increment past 64 bits.
    #[error("the sum is past 64 bits")]
    Overflow,
    /// The cursor is of another life of the account, or of another store.
    #[error("the cursor is no longer good")]
    CursorExpired,
    /// A store elsewhere cannot be reached.
    #[error("the store is away: {0}")]
    Unavailable(String),
}

/// Most keys that [`Store::expect`] looks at: as many as a processor fetches at once, and few enough
/// that none has left its nearest cache when its turn comes.
pub const MAX_EXPECTED: usize = 16;

/// Keeps entries for accounts, within their quotas, until they end.
///
/// Every method is a future: ready at once for a store in memory, waiting for
/// one elsewhere. Dropping a future that has not been polled to its end may or
/// may not have had its effect.
///
/// Promises that the suite (feature `suite`) checks of every store:
/// - live keys ≤ `max_keys` and bytes ≤ `max_bytes` at every instant, under any
///   number of threads, except after a quota was lowered: then nothing is taken
///   away (policy `Refuse`) but nothing more gets in;
/// - an entry is gone from the millisecond its expiry names, and never blocks a
///   new one after it;
/// - overwriting never counts a key twice, and reserves only its growth;
/// - [`Mode::DryRun`] leaves no trace.
pub trait Store: Send + Sync + 'static {
    /// Handle of one account, cheap to clone; kept by a server beside the
    /// credential, so that a call need not look the account up again.
    type Account: Clone + Send + Sync + 'static;

    /// The account's handle, made if it is new. An account of the same name
    /// with another uid is emptied first. The quota given holds from now on.
    fn open(&self, id: &AccountId, quota: Quota) -> Self::Account;

    /// Forgets an account and all its entries; handles of it then see an empty
    /// account that nothing can be written to (`KeyQuota { limit: 0 }`).
    fn close(&self, name: &AccountName);

    /// Says that calls for these keys are about to come; of more than [`MAX_EXPECTED`] the rest is
    /// ignored. A hint, which changes nothing that anybody can see: a store may fetch what they
    /// need ahead of them, and one that has no use for it does not look at `keys`.
    fn expect<'k>(&self, account: &Self::Account, keys: impl Iterator<Item = EntryKey<'k>>) {
        let _ = (account, keys);
    }

    /// Shows the live entry, or `None`, to `visit`, which should only copy or
    /// encode: a store may hold a lock meanwhile.
    fn get<R: Send>(
        &self,
        account: &Self::Account,
        call: Call,
        at: EntryKey<'_>,
        effect: ReadEffect,
        visit: impl FnOnce(Option<EntryRef<'_>>) -> R + Send,
    ) -> impl Future<Output = Result<R, StoreError>> + Send;

    /// As [`get`](Self::get), and gives a live entry a new expiry; `visit` sees
    /// the new one. An expiry that has passed removes the entry: `visit` then
    /// sees it for the last time. The version does not change.
    fn get_and_touch<R: Send>(
        &self,
        account: &Self::Account,
        call: Call,
        at: EntryKey<'_>,
        expiry: Expiry,
        visit: impl FnOnce(Option<EntryRef<'_>>) -> R + Send,
    ) -> impl Future<Output = Result<R, StoreError>> + Send;

    /// Writes an entry.
    fn set(
        &self,
        account: &Self::Account,
        call: Call,
        set: Set<'_>,
    ) -> impl Future<Output = Result<Written, StoreError>> + Send;

    /// What `set` would answer if the writes rehearsed before it had been made;
    /// nothing is written, whatever the call's mode. The write is noted for the next
    /// one.
    fn rehearse(
        &self,
        account: &Self::Account,
        call: Call,
        set: Set<'_>,
        rehearsal: &mut Rehearsal,
    ) -> impl Future<Output = Result<Written, StoreError>> + Send;

    /// As [`set`](Self::set), if that need not wait. `None`: nothing was written, nor
    /// will be, and `set` has to; room may have been made for it.
    fn set_now(
        &self,
        account: &Self::Account,
        call: Call,
        set: Set<'_>,
    ) -> Option<Result<Written, StoreError>> {
        let _ = (account, call, set);
        None
    }

    /// Deletes an entry.
    fn delete(
        &self,
        account: &Self::Account,
        call: Call,
        at: EntryKey<'_>,
        condition: Condition,
    ) -> impl Future<Output = Result<Deleted, StoreError>> + Send;

    /// Adds to a counter within bounds, creating it if it is not there.
    fn increment(
        &self,
        account: &Self::Account,
        call: Call,
        increment: Increment<'_>,
    ) -> impl Future<Output = Result<Incremented, StoreError>> + Send;

    /// Carries a write out unless the same one was carried out before, in which
    /// case it answers as it did then. Remembers the outcome, but no error, for as
    /// long as the store's window has time and room for it; the account's, not the
    /// server's, so that the same id of two accounts is two ids.
    ///
    /// The id is claimed before the write begins: of two copies at the same time
    /// one is told [`OnceError::InProgress`]. A dry run looks, and claims nothing.
    ///
    /// One method for all writes, because a store elsewhere has to look, write and
    /// record in one step of its own.
    fn once(
        &self,
        account: &Self::Account,
        call: Call,
        request: Request<'_>,
        write: Write<'_>,
    ) -> impl Future<Output = Result<Once, OnceError>> + Send;

    /// What is known of a write, if anything is. Refuses a request whose id is known
    /// for another one, also where none of its writes is recorded itself.
    fn recall(
        &self,
        account: &Self::Account,
        call: Call,
        request: Request<'_>,
    ) -> impl Future<Output = Result<Option<Outcome>, OnceError>> + Send;

    /// What the account's window holds.
    fn replay_use(
        &self,
        account: &Self::Account,
        call: Call,
    ) -> impl Future<Output = Result<ReplayUse, StoreError>> + Send;

    /// What a window remembers at the most.
    fn replay_limits(&self) -> ReplayLimits;

    /// Up to `limit` selected entries whose key is greater than `after`, in key
    /// order.
    fn list(
        &self,
        account: &Self::Account,
        call: Call,
        selection: Selection<'_>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// One step of a walk over the selected entries, in no order, from `from` (the
    /// default to begin). Returns where to go on, or `None` at the end. Over a
    /// whole walk every entry that lives throughout is shown exactly once.
    fn scan(
        &self,
        account: &Self::Account,
        call: Call,
        selection: Selection<'_>,
        from: Cursor,
        budget: ScanBudget,
        visit: impl FnMut(EntryRef<'_>) + Send,
    ) -> impl Future<Output = Result<Option<Cursor>, StoreError>> + Send;

    /// Deletes every selected entry, and says how many. Not atomic as a whole: entries written meanwhile may
    /// stay.
    fn delete_prefix(
        &self,
        account: &Self::Account,
        call: Call,
        selection: Selection<'_>,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// What the account uses. Due entries do not count.
    fn usage(
        &self,
        account: &Self::Account,
        call: Call,
    ) -> impl Future<Output = Result<Usage, StoreError>> + Send;
}
