//! Identifiers: made by parsing, and valid from then on.

use std::fmt;
use std::sync::Arc;

use crate::limits::{Limits, MAX_NAME_BYTES};

/// Why a text or byte string is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// Longer than the limit.
    #[error("has {actual} bytes, more than the limit of {limit}")]
    TooLong {
        /// Bytes allowed.
        limit: usize,
        /// Bytes given.
        actual: usize,
    },
    /// A character outside the allowed set.
    #[error("may hold only a-z, 0-9, '.', '_' and '-', beginning with a letter or digit")]
    BadCharacter,
}

fn parse_name(text: &str) -> Result<&str, NameError> {
    let bytes = text.as_bytes();
    let Some(first) = bytes.first() else {
        return Err(NameError::Empty);
    };
    if bytes.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong {
            limit: MAX_NAME_BYTES,
            actual: bytes.len(),
        });
    }
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !plain(first) || !bytes.iter().all(|b| plain(b) || b"._-".contains(b)) {
        return Err(NameError::BadCharacter);
    }
    Ok(text)
}

/// Name of an account: 1–64 of `a-z 0-9 . _ -`, beginning with a letter or
/// digit. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(Arc<str>);

impl AccountName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        parse_name(text).map(|name| Self(name.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells two accounts apart that had the same name one after the other, so
/// that the second never sees the entries of the first. Opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AccountUid(Arc<str>);

impl AccountUid {
    /// Takes the text as it is; it is only ever compared.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One account in one life: its name and its uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AccountId {
    /// What people call it.
    pub name: AccountName,
    /// Which of the accounts of that name.
    pub uid: AccountUid,
}

/// A key space inside an account: 1–64 of `a-z 0-9 . _ -`; empty text means
/// `default`. A namespace exists by use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace<'a>(&'a str);

impl<'a> Namespace<'a> {
    /// The namespace that empty text means, and that the talk's calls use.
    pub const DEFAULT: Namespace<'static> = Namespace("default");

    /// Parses a namespace.
    ///
    /// # Errors
    /// [`NameError`] says which rule it breaks; never `Empty`.
    pub fn parse(text: &'a str) -> Result<Self, NameError> {
        if text.is_empty() {
            Ok(Namespace::DEFAULT)
        } else {
            parse_name(text).map(Self)
        }
    }

    /// The text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// A key: any bytes, 1 to [`Limits::max_key_bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    /// Parses a key.
    ///
    /// # Errors
    /// [`NameError::Empty`] or [`NameError::TooLong`].
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Self, NameError> {
        match bytes.len() {
            0 => Err(NameError::Empty),
            actual if actual > limits.max_key_bytes => Err(NameError::TooLong {
                limit: limits.max_key_bytes,
                actual,
            }),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Where an entry lives inside an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey<'a> {
    /// The key space.
    pub namespace: Namespace<'a>,
    /// The key in it.
    pub key: Key<'a>,
}
