//! What a call may be told beside its key and value.

use std::fmt;
use std::time::{Duration, SystemTime};

use rand::TryRngCore as _;

use crate::error::Error;

/// When a written entry expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetExpiry {
    /// Never.
    #[default]
    Never,
    /// At a point in time.
    At(SystemTime),
    /// After a time, counted by the server from when it writes.
    After(Duration),
    /// When the entry that is replaced would have.
    Keep,
}

/// A new expiry for an entry that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It no longer expires.
    Never,
    /// At a point in time.
    At(SystemTime),
    /// After a time, counted by the server from now.
    After(Duration),
}

/// Condition on the stored entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// None.
    #[default]
    Always,
    /// Only if there is no live entry.
    IfAbsent,
    /// Only if there is a live entry.
    IfPresent,
    /// Only if the live entry has this version.
    IfVersion(u64),
}

/// Makes one increment, conditional write or creation safe to repeat: the
/// server carries out a request id once, and replays its answer (AIP-155).
///
/// Make one for each operation, and give the same to every try of it. The server
/// knows it for 10 minutes, or until it has seen many more.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

/// Options of [`Client::set`](crate::Client::set).
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SetOptions {
    pub(crate) expiry: SetExpiry,
    pub(crate) condition: Condition,
    pub(crate) flags: u32,
    pub(crate) request_id: Option<RequestId>,
}

/// Options of [`Client::delete`](crate::Client::delete).
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct DeleteOptions {
    pub(crate) condition: Condition,
    pub(crate) request_id: Option<RequestId>,
}

/// Options of [`Client::increment`](crate::Client::increment).
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct IncrementOptions {
    pub(crate) initial_value: i64,
    pub(crate) initial_ttl: Option<Duration>,
    pub(crate) upper_bound: Option<i64>,
    pub(crate) lower_bound: Option<i64>,
    pub(crate) request_id: Option<RequestId>,
}

impl RequestId {
    /// A new one: a random UUID (RFC 9562, version 4).
    ///
    /// # Errors
    ///
    /// If the machine has no randomness.
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = [0; 16];
        rand::rngs::OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| Error::configuration(format!("no randomness: {error}")))?;
        // Version 4, of the variant of RFC 9562.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = String::with_capacity(36);
        for (at, byte) in bytes.into_iter().enumerate() {
            if [4, 6, 8, 10].contains(&at) {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(digit.into(), 16));
            }
        }
        Ok(Self(text))
    }

    /// A request id from the text of a UUID, such as
    /// `3f2a8c1e-6b7d-4e5f-9a0b-1c2d3e4f5a6b`.
    ///
    /// # Errors
    ///
    /// If it is no UUID in its usual form of 36 characters.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let dashes = [8, 13, 18, 23];
        let is_uuid = text.len() == 36
            && text.bytes().enumerate().all(|(index, byte)| {
                if dashes.contains(&index) {
                    byte == b'-'
                } else {
                    byte.is_ascii_hexdigit()
                }
            });
        if is_uuid {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(Error::configuration("a request id must be a UUID"))
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

impl SetOptions {
    /// No condition, no expiry, no flags.
    pub fn new() -> Self {
        Self::default()
    }

    /// The entry expires this long after the server wrote it: 1 ms to 10 years.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.expiry = SetExpiry::After(ttl);
        self
    }

    /// When the entry expires.
    pub fn expiry(mut self, expiry: SetExpiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Write only under this condition.
    pub fn condition(mut self, condition: Condition) -> Self {
        self.condition = condition;
        self
    }

    /// Opaque to the server, given back with the entry; for how the value was
    /// serialized or compressed.
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// Makes a conditional write safe to repeat.
    pub fn request_id(mut self, id: RequestId) -> Self {
        self.request_id = Some(id);
        self
    }
}

impl DeleteOptions {
    /// No condition.
    pub fn new() -> Self {
        Self::default()
    }

    /// Delete only under this condition.
    pub fn condition(mut self, condition: Condition) -> Self {
        self.condition = condition;
        self
    }

    /// Makes a conditional delete safe to repeat.
    pub fn request_id(mut self, id: RequestId) -> Self {
        self.request_id = Some(id);
        self
    }
}

impl IncrementOptions {
    /// A counter that starts at 0, never expires and has no bounds of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Value before the first add, if the key is absent.
    pub fn initial_value(mut self, value: i64) -> Self {
        self.initial_value = value;
        self
    }

    /// Expiry of a counter that this call creates.
    pub fn initial_ttl(mut self, ttl: Duration) -> Self {
        self.initial_ttl = Some(ttl);
        self
    }

    /// The result does not go above this.
    pub fn upper_bound(mut self, bound: i64) -> Self {
        self.upper_bound = Some(bound);
        self
    }

    /// The result does not go below this.
    pub fn lower_bound(mut self, bound: i64) -> Self {
        self.lower_bound = Some(bound);
        self
    }

    /// Makes the increment safe to repeat: it counts once.
    pub fn request_id(mut self, id: RequestId) -> Self {
        self.request_id = Some(id);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_uuids() {
        let made = RequestId::generate().unwrap();
        assert_eq!(RequestId::parse(made.as_str()).unwrap(), made);
        assert_ne!(RequestId::generate().unwrap(), made);
        assert_eq!(&made.as_str()[14..15], "4");
        for (text, good) in [
            ("3f2a8c1e-6b7d-4e5f-9a0b-1c2d3e4f5a6b", true),
            ("3F2A8C1E-6B7D-4E5F-9A0B-1C2D3E4F5A6B", true),
            ("3f2a8c1e6b7d4e5f9a0b1c2d3e4f5a6b", false),
            ("3f2a8c1e-6b7d-4e5f-9a0b-1c2d3e4f5a6g", false),
            ("", false),
        ] {
            assert_eq!(RequestId::parse(text).is_ok(), good, "{text}");
        }
    }
}
