//! The bytes of an entry: key and value in one allocation.
//!
//! ```text
//! key length (LEB128) · [space length u8, space] · key · [flags u32] · [owner u32] · value
//! ```
//!
//! What stands in brackets is there only when it is not the default, so an
//! entry of namespace `default`, without flags, of an account that has its
//! partition to itself, holds one byte beside its key and value (two for a key
//! over 127 bytes). A value over [`LARGE_VALUE_BYTES`] lives in an allocation
//! of its own that readers can share; its length, a u64, stands in its place.

use larder_model::{EntryKey, Namespace, entry_size_bytes};

/// Values above this size are counted references, cloned under the lock and
/// read outside it; values up to it are read under the lock.
///
/// Copying 16 KiB from memory takes about 1 µs, 64 KiB 3 to 5 µs and 1 MiB 60 to
/// 130 µs, against 15 to 30 ns for taking and dropping a counted reference
/// (`examples/measure.rs` prints both). Below 16 KiB the reference would cost
/// an allocation and 64 bytes more for each entry, and a contended cache line
/// for each read, to shorten a lock by less than a microsecond.
pub(crate) const LARGE_VALUE_BYTES: usize = 16 << 10;

/// Which optional parts a record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Parts(u8);

impl Parts {
    const SPACE: u8 = 1;
    const FLAGS: u8 = 2;
    const OWNER: u8 = 4;
    const LARGE: u8 = 8;

    const fn has(self, part: u8) -> bool {
        self.0 & part != 0
    }

    /// True when the value is kept beside the record.
    pub(crate) const fn is_large(self) -> bool {
        self.has(Self::LARGE)
    }
}

/// What a record is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft<'a> {
    pub(crate) at: EntryKey<'a>,
    pub(crate) flags: u32,
    pub(crate) owner: u32,
    pub(crate) value: &'a [u8],
}

impl Draft<'_> {
    pub(crate) const fn is_large(&self) -> bool {
        self.value.len() > LARGE_VALUE_BYTES
    }

    fn parts(&self) -> Parts {
        let part = |is_there: bool, part: u8| if is_there { part } else { 0 };
        Parts(
            part(self.at.namespace != Namespace::DEFAULT, Parts::SPACE)
                | part(self.flags != 0, Parts::FLAGS)
                | part(self.owner != 0, Parts::OWNER)
                | part(self.is_large(), Parts::LARGE),
        )
    }

    /// Length of the record.
    pub(crate) fn len(&self) -> usize {
        let (parts, key) = (self.parts(), self.at.key.as_bytes());
        let optional = |part, len| if parts.has(part) { len } else { 0 };
        varint_len(key.len())
            + optional(Parts::SPACE, 1 + self.at.namespace.as_str().len())
            + key.len()
            + optional(Parts::FLAGS, 4)
            + optional(Parts::OWNER, 4)
            + if parts.is_large() {
                8
            } else {
                self.value.len()
            }
    }

    /// Bytes for the quota.
    pub(crate) const fn size_bytes(&self) -> u64 {
        entry_size_bytes(self.at.key.as_bytes().len(), self.value.len())
    }

    /// Writes the record.
    pub(crate) fn encode(&self) -> (Parts, Box<[u8]>) {
        let (parts, key) = (self.parts(), self.at.key.as_bytes());
        let mut bytes = Vec::with_capacity(self.len());
        push_varint(&mut bytes, key.len());
        if parts.has(Parts::SPACE) {
            let space = self.at.namespace.as_str();
            bytes.push(u8::try_from(space.len()).expect("a namespace has 64 bytes at most"));
            bytes.extend_from_slice(space.as_bytes());
        }
        bytes.extend_from_slice(key);
        if parts.has(Parts::FLAGS) {
            bytes.extend_from_slice(&self.flags.to_le_bytes());
        }
        if parts.has(Parts::OWNER) {
            bytes.extend_from_slice(&self.owner.to_le_bytes());
        }
        if parts.is_large() {
            bytes.extend_from_slice(&(self.value.len() as u64).to_le_bytes());
        } else {
            bytes.extend_from_slice(self.value);
        }
        (parts, bytes.into_boxed_slice())
    }
}

/// A record, read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// Empty for the default namespace.
    space: &'a [u8],
    pub(crate) key: &'a [u8],
    pub(crate) flags: u32,
    pub(crate) owner: u32,
    /// The value, or the length of one that is kept beside.
    tail: &'a [u8],
    parts: Parts,
}

impl<'a> Record<'a> {
    #[inline]
    pub(crate) fn read(parts: Parts, bytes: &'a [u8]) -> Self {
        let (space, key, rest) = split_key(parts, bytes);
        if parts == Parts::default() {
            return Self {
                space,
                key,
                flags: 0,
                owner: 0,
                tail: rest,
                parts,
            };
        }
        let (flags, rest) = split_u32(parts.has(Parts::FLAGS), rest);
        let (owner, tail) = split_u32(parts.has(Parts::OWNER), rest);
        Self {
            space,
            key,
            flags,
            owner,
            tail,
            parts,
        }
    }

    /// The namespace.
    pub(crate) fn space(&self) -> &'a str {
        if self.space.is_empty() {
            Namespace::DEFAULT.as_str()
        } else {
            std::str::from_utf8(self.space).expect("it was written from a str")
        }
    }

    /// True when the entry lives in `namespace`.
    pub(crate) fn is_in(&self, namespace: Namespace<'_>) -> bool {
        self.space == space_bytes(namespace)
    }

    /// The value, unless it is kept beside.
    pub(crate) const fn value(&self) -> &'a [u8] {
        self.tail
    }

    /// Length of the value, wherever it is.
    pub(crate) fn value_len(&self) -> usize {
        if self.parts.is_large() {
            usize::try_from(large_len(self.tail)).expect("it was written from a usize")
        } else {
            self.tail.len()
        }
    }

    /// Bytes for the quota.
    pub(crate) fn size_bytes(&self) -> u64 {
        entry_size_bytes(self.key.len(), self.value_len())
    }
}

/// True when the record is that of `at`.
#[inline]
pub(crate) fn is_at(parts: Parts, bytes: &[u8], at: EntryKey<'_>) -> bool {
    let (space, key, _) = split_key(parts, bytes);
    key == at.key.as_bytes() && space == space_bytes(at.namespace)
}

/// Namespace (empty: the default one) and key of a record.
pub(crate) fn place(parts: Parts, bytes: &[u8]) -> (&[u8], &[u8]) {
    let (space, key, _) = split_key(parts, bytes);
    (space, key)
}

/// Number of the account that a record counts on.
pub(crate) fn owner(parts: Parts, bytes: &[u8]) -> u32 {
    if parts.has(Parts::OWNER) {
        Record::read(parts, bytes).owner
    } else {
        0
    }
}

/// A namespace as records and hashes hold it: the default one is empty, and so
/// costs nothing.
pub(crate) fn space_bytes(namespace: Namespace<'_>) -> &[u8] {
    if namespace == Namespace::DEFAULT {
        &[]
    } else {
        namespace.as_str().as_bytes()
    }
}

/// Writes `draft` over a record of the same key, if it has just its shape and
/// length; false, and nothing done, otherwise. The owner stays.
pub(crate) fn rewrite(parts: Parts, bytes: &mut [u8], draft: &Draft<'_>) -> bool {
    if parts != draft.parts() || parts.is_large() || bytes.len() != draft.len() {
        return false;
    }
    let value_at = bytes.len() - draft.value.len();
    bytes[value_at..].copy_from_slice(draft.value);
    if parts.has(Parts::FLAGS) {
        let flags_at = value_at - 4 - if parts.has(Parts::OWNER) { 4 } else { 0 };
        bytes[flags_at..flags_at + 4].copy_from_slice(&draft.flags.to_le_bytes());
    }
    true
}

/// Length of the value of a record whose value is kept beside.
pub(crate) fn large_len(bytes: &[u8]) -> u64 {
    let tail = bytes
        .last_chunk()
        .expect("a large record ends with 8 bytes");
    u64::from_le_bytes(*tail)
}

#[inline]
fn split_key(parts: Parts, bytes: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (key_len, rest) = split_varint(bytes);
    let (space, rest) = if parts.has(Parts::SPACE) {
        rest[1..].split_at(usize::from(rest[0]))
    } else {
        (&[][..], rest)
    };
    let (key, rest) = rest.split_at(key_len);
    (space, key, rest)
}

fn split_u32(is_there: bool, bytes: &[u8]) -> (u32, &[u8]) {
    match bytes.split_first_chunk() {
        Some((number, rest)) if is_there => (u32::from_le_bytes(*number), rest),
        _ => (0, bytes),
    }
}

const fn varint_len(mut n: usize) -> usize {
    let mut len = 1;
    while n >= 0x80 {
        n >>= 7;
        len += 1;
    }
    len
}

fn push_varint(bytes: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        bytes.push(n.to_le_bytes()[0] | 0x80);
        n >>= 7;
    }
    bytes.push(n.to_le_bytes()[0]);
}

#[inline]
fn split_varint(bytes: &[u8]) -> (usize, &[u8]) {
    match bytes {
        [byte @ ..0x80, rest @ ..] => (usize::from(*byte), rest),
        _ => split_long_varint(bytes),
    }
}

fn split_long_varint(bytes: &[u8]) -> (usize, &[u8]) {
    let (mut n, mut taken) = (0, 0);
    loop {
        let byte = bytes[taken];
        n |= usize::from(byte & 0x7f) << (7 * taken);
        taken += 1;
        if byte < 0x80 {
            return (n, &bytes[taken..]);
        }
    }
}
