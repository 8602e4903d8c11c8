//! Writes that take place once, however often they are sent (AIP-155).

use std::time::Duration;

use crate::limits::MAX_REQUEST_ID_BYTES;
use crate::name::EntryKey;
use crate::store::{Condition, Deleted, Increment, Incremented, Set, StoreError, Written};

/// A client's name for one request: the same for each time that it is sent.
///
/// 1 to [`MAX_REQUEST_ID_BYTES`] bytes of `A-Z a-z 0-9 . _ -`; a UUID is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId<'a>(&'a str);

/// Why a text is no [`RequestId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestIdError {
    /// It has no bytes.
    #[error("must not be empty")]
    Empty,
    /// It is longer than [`MAX_REQUEST_ID_BYTES`].
    #[error("has {actual} bytes, more than the limit of {MAX_REQUEST_ID_BYTES}")]
    TooLong {
        /// Its length, bytes.
        actual: usize,
    },
    /// It has another character.
    #[error("must be of A-Z a-z 0-9 . _ - only")]
    BadCharacter,
}

impl<'a> RequestId<'a> {
    /// Parses an id.
    ///
    /// # Errors
    /// [`RequestIdError`], for a text that is empty, too long, or has another
    /// character.
    pub fn parse(text: &'a str) -> Result<Self, RequestIdError> {
        let actual = text.len();
        if actual == 0 {
            return Err(RequestIdError::Empty);
        }
        if actual > MAX_REQUEST_ID_BYTES {
            return Err(RequestIdError::TooLong { actual });
        }
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.bytes().all(is_good) {
            Ok(Self(text))
        } else {
            Err(RequestIdError::BadCharacter)
        }
    }

    /// Its text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// Digest of all that a request asks for: two requests with the same are the
/// same request. Whoever makes it sees to it that nobody finds two by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// Which request a write belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The client's name for it.
    pub id: RequestId<'a>,
    /// What it asks for as a whole, also where it is a batch: so an id stands for
    /// one batch, and not for one entry of many.
    pub fingerprint: Fingerprint,
    /// Which write of the request; 0 where there is one.
    pub item: u32,
}

/// A write that is carried out once for a request.
#[derive(Debug, Clone, Copy)]
pub enum Write<'a> {
    /// [`Store::set`](crate::Store::set).
    Set(Set<'a>),
    /// [`Store::delete`](crate::Store::delete).
    Delete {
        /// Where.
        at: EntryKey<'a>,
        /// Under which condition.
        condition: Condition,
    },
    /// [`Store::increment`](crate::Store::increment).
    Increment(Increment<'a>),
}

/// What became of a [`Write`]; of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Of a [`Write::Set`].
    Set(Written),
    /// Of a [`Write::Delete`].
    Delete(Deleted),
    /// Of a [`Write::Increment`].
    Increment(Incremented),
}

impl Outcome {
    /// That of a set.
    pub const fn set(self) -> Option<Written> {
        match self {
            Self::Set(written) => Some(written),
            _ => None,
        }
    }

    /// That of a deletion.
    pub const fn delete(self) -> Option<Deleted> {
        match self {
            Self::Delete(deleted) => Some(deleted),
            _ => None,
        }
    }

    /// That of an increment.
    pub const fn increment(self) -> Option<Incremented> {
        match self {
            Self::Increment(incremented) => Some(incremented),
            _ => None,
        }
    }
}

/// Outcome of [`Store::once`](crate::Store::once).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once {
    /// What became of the write, now or the first time.
    pub outcome: Outcome,
    /// True if that was before.
    pub replayed: bool,
}

/// Why a write with a request id was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnceError {
    /// The id stands for another request.
    #[error("the request id was used for another request")]
    Reused,
    /// The same write is under way; ask again for its outcome.
    #[error("the same request is being carried out")]
    InProgress,
    /// As many writes with ids are under way as the window holds.
    #[error("as many requests with ids are under way as can be recorded")]
    Full,
    /// The store refuses the write. That is not recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How much a store records of requests, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayLimits {
    /// An outcome is replayed for this long; default 10 minutes.
    pub window: Duration,
    /// Most outcomes of one account, default 16,384: the oldest make room for
    /// new ones.
    pub max_per_account: usize,
    /// Most outcomes of all accounts together, default 262,144. At this limit each
    /// account gives up the oldest eighth of its own.
    pub max_total: usize,
}

impl Default for ReplayLimits {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(600),
            max_per_account: 16_384,
            max_total: 262_144,
        }
    }
}

/// What a window holds of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplayUse {
    /// Outcomes that would be replayed now, and writes under way.
    pub recorded: u64,
    /// Outcomes that were forgotten before their time, for want of room: a repeat
    /// of those requests is carried out again.
    pub forgotten_early: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_length_and_an_alphabet() {
        let check = |text: &str, expected: Result<(), RequestIdError>| {
            assert_eq!(RequestId::parse(text).map(|_| ()), expected, "{text:?}");
        };
        check("3f2a8c1e-6b7d-4e5f-9a0b-1c2d3e4f5a6b", Ok(()));
        check("a.B_9-", Ok(()));
        check(&"x".repeat(64), Ok(()));
        check("", Err(RequestIdError::Empty));
        check(&"x".repeat(65), Err(RequestIdError::TooLong { actual: 65 }));
        for bad in ["a b", "a/b", "\u{e9}", "a\n", "\0"] {
            check(bad, Err(RequestIdError::BadCharacter));
        }
    }
}
