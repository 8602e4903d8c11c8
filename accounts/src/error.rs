//! Why the control plane refuses. What the caller would do differently makes
//! the kind.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::path::PathBuf;

use larder_model::NameError;

/// An argument that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct FieldError {
    /// Path of the field in `larder.accounts.v1`, for example
    /// `account.max_keys`.
    pub field: &'static str,
    /// The rule, with its bound; reads on after the field's name.
    pub reason: Cow<'static, str>,
}

impl FieldError {
    pub(crate) fn new(field: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field,
            reason: reason.into(),
        }
    }

    pub(crate) fn name(field: &'static str, error: NameError) -> Self {
        Self::new(field, error.to_string())
    }
}

/// The database could not be written. Whether the change is on disk shows when
/// the directory is opened again; memory was left as it was.
#[derive(Debug, thiserror::Error)]
#[error("the accounts database could not be written; its disk may be full")]
pub struct DatabaseError(#[source] Box<dyn Error + Send + Sync>);

impl DatabaseError {
    pub(crate) fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error("the data directory {} is in use by another server", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The database cannot be read. Nothing was changed; restore the file from
    /// a backup, or move it away to begin anew.
    #[error("the accounts database {} is damaged: {reason}", path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A later version of larder wrote the database.
    #[error(
        "the accounts database {} has format {found}; this version reads up to {known}",
        path.display()
    )]
    NewerFormat {
        /// The database file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The latest format that this version reads.
        known: u64,
    },
    /// The directory or a file in it could not be read or written.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried; a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The administrator's token could not be recorded.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Why a call about accounts was refused.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No account has this name.
    #[error("no such account")]
    NotFound,
    /// An account has this name already.
    #[error("the account exists already")]
    AlreadyExists,
    /// The account was changed since the caller read it.
    #[error("the account was changed meanwhile: its etag is {current}")]
    EtagMismatch {
        /// The account's etag now.
        current: String,
    },
    /// The account [`DEFAULT_ACCOUNT`](crate::DEFAULT_ACCOUNT) cannot be
    /// deleted.
    #[error("the account default cannot be deleted")]
    Protected,
    /// There are [`MAX_ACCOUNTS`](crate::limits::MAX_ACCOUNTS) already.
    #[error("the limit of {limit} accounts is reached")]
    TooMany {
        /// Accounts allowed.
        limit: usize,
    },
    /// An argument breaks a rule.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The change could not be made durable.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Why a call about tokens was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No account has the parent's name.
    #[error("no such account")]
    AccountNotFound,
    /// The account has no such token.
    #[error("no such token")]
    NotFound,
    /// The imported secret belongs to a token already, perhaps of another
    /// account.
    #[error("a token with this secret exists already")]
    AlreadyExists,
    /// The account, or the server, has all the tokens it may have.
    #[error("the limit of {limit} tokens is reached")]
    TooMany {
        /// Tokens allowed.
        limit: usize,
    },
    /// An argument breaks a rule.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The change could not be made durable.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Why a secret opens nothing. To the client both are the same answer; the
/// difference is for the operator's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No token has this secret: never made, revoked, or of a deleted account.
    #[error("unknown token")]
    Unknown,
    /// The token has ended.
    #[error("expired token")]
    Expired,
}
