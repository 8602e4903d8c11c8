//! The values that calls take and give back.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::config::Token;
use crate::error::Error;
use crate::options::SetOptions;

/// One cached entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value; empty where a call says that it leaves values out.
    pub value: Bytes,
    /// When it expires; `None` means never.
    pub expire_time: Option<SystemTime>,
    /// Changes with each write; for [`Condition::IfVersion`](crate::Condition::IfVersion).
    /// Servers ignore it on input.
    pub version: u64,
    /// What it counts against the byte quota: key + value + 64. Servers ignore
    /// it on input.
    pub size_bytes: u64,
    /// Opaque to the server; as the writer gave it.
    pub flags: u32,
}

/// What an account uses, and what it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QuotaUsage {
    /// Live keys now.
    pub key_count: u64,
    /// Keys allowed; `None` means no limit.
    pub max_keys: Option<u64>,
    /// Bytes now.
    pub bytes: u64,
    /// Bytes allowed; `None` means no limit.
    pub max_bytes: Option<u64>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetOutcome {
    /// Written; the entry is without its value.
    Applied(Entry),
    /// The condition did not hold; the entry in the way, without its value.
    NotApplied(Option<Entry>),
}

/// Answer to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetReply {
    /// What happened.
    pub outcome: SetOutcome,
    /// The answer to an earlier call with the same request id.
    pub replayed: bool,
}

/// What became of a delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// Deleted.
    Deleted,
    /// There was no entry, or the condition did not hold; the entry in the
    /// way, without its value.
    NotDeleted(Option<Entry>),
}

/// Answer to a delete.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeleteReply {
    /// What happened.
    pub outcome: DeleteOutcome,
    /// The answer to an earlier call with the same request id.
    pub replayed: bool,
}

/// Answer to an increment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncrementReply {
    /// The value after the add.
    pub value: i64,
    /// What was really added; less than asked for at a bound.
    pub applied_delta: i64,
    /// The answer to an earlier call with the same request id.
    pub replayed: bool,
}

/// Answer to a delete by prefix; under ring hash of all servers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DeletedPrefix {
    /// How many entries were, or in a dry run would be, deleted.
    pub count: u64,
    /// The answer to an earlier call with the same request id.
    pub replayed: bool,
}

/// One write of a batch.
#[derive(Debug, Clone)]
pub struct BatchSetItem {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// As in [`Client::set`](crate::Client::set); a request id is refused
    /// inside a batch.
    pub options: SetOptions,
}

/// What an account uses and how well its cache does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Quotas and what is used of them.
    pub quota: QuotaUsage,
    /// Reads that found an entry, since the server started.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Entries evicted for room.
    pub evicted: u64,
    /// Entries that expired.
    pub expired: u64,
    /// Requests with an id that would be answered as a repeat now, and those under
    /// way: increments and conditional writes, each entry of a batch by itself.
    pub request_ids: u64,
    /// Such requests that were forgotten before their time, because the account's
    /// window, or that of all accounts, was full: a repeat would be carried out
    /// again.
    pub forgotten_request_ids: u64,
}

/// What a server is and allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Version of the server.
    pub version: String,
    /// Every limit by its name, such as `max_key_bytes`.
    pub limits: BTreeMap<String, i64>,
    /// Names of optional features that are on.
    pub features: Vec<String>,
}

/// What happens to a new key when an account is at its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtLimit {
    /// The write is refused.
    #[default]
    Refuse,
    /// The account's least useful entries make room.
    Evict,
}

/// What can be set on an account. Limits are `None` for no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountSettings {
    /// Name for people.
    pub display_name: String,
    /// Keys allowed.
    pub max_keys: Option<u64>,
    /// Bytes allowed.
    pub max_bytes: Option<u64>,
    /// Requests allowed a second.
    pub max_requests_per_second: Option<u64>,
    /// What happens to a new key at the limit.
    pub at_limit: AtLimit,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Account {
    /// Its name: the last part of `accounts/{account}`.
    pub name: String,
    /// What can be set on it.
    pub settings: AccountSettings,
    /// Changes with each update.
    pub etag: String,
    /// Differs between two accounts that had the same name one after the other.
    pub uid: String,
}

/// The fields of an account to change; `None` leaves one as it is, and an
/// inner `None` lifts a limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountChange {
    /// New name for people.
    pub display_name: Option<String>,
    /// New key limit.
    pub max_keys: Option<Option<u64>>,
    /// New byte limit.
    pub max_bytes: Option<Option<u64>>,
    /// New rate limit.
    pub max_requests_per_second: Option<Option<u64>>,
    /// New behaviour at the limit.
    pub at_limit: Option<AtLimit>,
    /// Change it only if the account still has this etag.
    pub etag: Option<String>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Get, list, dump.
    Read,
    /// Set, delete, increment, load.
    Write,
    /// The control plane, of every account.
    Admin,
    /// A cache server's credential.
    Verify,
}

/// The rights of a token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenRights {
    /// What it may do.
    pub actions: Vec<Action>,
    /// Only these namespaces; empty means all.
    pub namespaces: Vec<String>,
    /// Only keys that begin with one of these, at most 8; none means all.
    pub key_prefixes: Vec<Bytes>,
    /// When it ends; `None` means never.
    pub expire_time: Option<SystemTime>,
}

/// A credential of an account, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TokenInfo {
    /// Resource name, `accounts/{account}/tokens/{token}`; not secret.
    pub name: String,
    /// What it may do.
    pub rights: TokenRights,
}

/// A token that was just made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CreatedToken {
    /// The token.
    pub token: TokenInfo,
    /// Its secret, never shown again. `None` in a dry run and in a replay.
    pub secret: Option<Token>,
    /// The answer to an earlier call with the same request id.
    pub replayed: bool,
}

/// What a cache server learns about a client's credential.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedToken {
    /// The account, with its quotas.
    pub account: Account,
    /// The token.
    pub token: TokenInfo,
    /// How long this answer may be used without asking again.
    pub max_age: Duration,
}

impl Entry {
    /// An entry that never expires, with no flags.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            ..Self::default()
        }
    }

    /// The same entry with this expiry.
    #[must_use]
    pub fn with_expire_time(mut self, time: Option<SystemTime>) -> Self {
        self.expire_time = time;
        self
    }

    /// The same entry with these flags.
    #[must_use]
    pub fn with_flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }
}

impl BatchSetItem {
    /// One write of a batch.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>, options: SetOptions) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            options,
        }
    }
}

impl AtLimit {
    /// `refuse` or `evict`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Evict => "evict",
        }
    }
}

impl fmt::Display for AtLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Action {
    /// `read`, `write`, `admin` or `verify`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Verify => "verify",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TokenInfo {
    /// The account and the token's own part of the resource name.
    ///
    /// # Errors
    ///
    /// If the server gave it a name of another form.
    pub fn parts(&self) -> Result<(&str, &str), Error> {
        self.name
            .strip_prefix("accounts/")
            .and_then(|rest| rest.split_once("/tokens/"))
            .ok_or_else(|| Error::protocol("a token's name is not accounts/…/tokens/…"))
    }
}
