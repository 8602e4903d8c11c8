//! The limits of the control plane, each in one place, with its unit.

/// Most accounts on one server.
pub const MAX_ACCOUNTS: usize = 100_000;

/// Most tokens of one account. A token that has expired counts until it is
/// revoked.
pub const MAX_TOKENS_PER_ACCOUNT: usize = 1_000;

/// Most tokens of all accounts together: bounds the memory of the server,
/// which keeps every token in it.
pub const MAX_TOKENS: usize = 1_000_000;

/// Most tokens in a database: an administrator's token for the data directory
/// is made even at the limit, or nobody could get in to revoke one.
pub(crate) const MAX_STORED_TOKENS: usize = MAX_TOKENS + 1;

/// Longest display name of an account, bytes of UTF-8.
pub const MAX_DISPLAY_NAME_BYTES: usize = 256;

/// Most namespaces that a token may be confined to.
pub const MAX_TOKEN_NAMESPACES: usize = 64;

/// Longest key prefix that a token may be confined to, bytes.
pub const MAX_KEY_PREFIX_BYTES: usize = 1_024;

/// Most key prefixes that a token may be confined to.
pub const MAX_TOKEN_PREFIXES: usize = 8;

/// Shortest imported secret, bytes: a shorter one can be guessed by trying.
pub const MIN_SECRET_BYTES: usize = 8;

/// Longest secret, bytes. A longer one is unknown without being hashed.
pub const MAX_SECRET_BYTES: usize = 1_024;

/// Largest page of a list, and the default when the caller names none.
pub const MAX_PAGE_SIZE: usize = 1_000;

/// Longest page token that is looked at, bytes.
pub const MAX_PAGE_TOKEN_BYTES: usize = 512;

/// Last point in time that a token may expire at, milliseconds since 1970: the
/// end of the year 9999, where `google.protobuf.Timestamp` ends.
pub const MAX_EXPIRE_TIME_MS: u64 = 253_402_300_799_999;

/// Largest record that is read from the database, bytes: several times what
/// the limits above let a record hold, so a larger one is damage.
pub(crate) const MAX_RECORD_BYTES: usize = 32 << 10;

/// Receipts of changes with a request id that are kept; the oldest make room.
pub const MAX_RECEIPTS: usize = 4_096;

/// Longest answer in a receipt, bytes: that of an account or token is shorter.
pub const MAX_RECEIPT_BYTES: usize = 30 << 10;

/// Pages of the database kept in memory, bytes. Every answer comes from
/// memory, so this only serves writes.
pub(crate) const DATABASE_CACHE_BYTES: usize = 8 << 20;

const _: () = assert!(MAX_TOKENS_PER_ACCOUNT <= MAX_TOKENS);
// 32 bytes stand before the answer.
const _: () = assert!(MAX_RECEIPT_BYTES + 32 <= MAX_RECORD_BYTES);
const _: () = assert!(MIN_SECRET_BYTES <= MAX_SECRET_BYTES);
const _: () = assert!(
    // JSON writes no byte of a display name in more than two, and the prefixes
    // in base64; 1,024 covers the rest of a record.
    MAX_RECORD_BYTES
        >= 2 * MAX_DISPLAY_NAME_BYTES
            + MAX_TOKEN_NAMESPACES * (larder_model::MAX_NAME_BYTES + 3)
            + 2 * MAX_TOKEN_PREFIXES * MAX_KEY_PREFIX_BYTES
            + 1_024
);
