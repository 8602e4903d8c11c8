//! Reads a dump, and believes nothing that is not checked.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use bytes::{Buf as _, Bytes};
use larder_client::Entry;
use sha2::{Digest as _, Sha256};

use super::{BLOCK, CHECKSUM_BYTES, END, ENTRY_HEAD_BYTES, HEAD, MAX_PAYLOAD_BYTES, NEVER};

/// Reads entries front to back. Holds one block.
#[derive(Debug)]
pub(crate) struct DumpReader<R> {
    from: R,
    entries: u64,
    checksum: [u8; 32],
    ended: bool,
}

/// Why a file cannot be loaded.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// It is no dump at all.
    NotADump,
    /// It is a dump of a later version of the format.
    Version(u8),
    /// It ends too early, after this many sound entries.
    CutOff {
        /// Entries that were read before.
        entries: u64,
    },
    /// It was changed after it was written.
    Damaged(&'static str),
    /// It cannot be read.
    Io(io::Error),
}

impl<R: Read> DumpReader<R> {
    /// Reads the head.
    pub(crate) fn new(mut from: R) -> Result<Self, ReadError> {
        let mut head = Vec::with_capacity(HEAD.len());
        let wanted = u64::try_from(HEAD.len()).unwrap_or_default();
        from.by_ref().take(wanted).read_to_end(&mut head)?;
        let (magic, version) = HEAD.split_at(HEAD.len() - 1);
        if head.is_empty() || !magic.starts_with(&head[..head.len().min(magic.len())]) {
            return Err(ReadError::NotADump);
        }
        match head.get(magic.len()) {
            None => return Err(ReadError::CutOff { entries: 0 }),
            Some(&found) if found != version[0] => return Err(ReadError::Version(found)),
            Some(_) => {}
        }
        Ok(Self {
            from,
            entries: 0,
            checksum: Sha256::digest(HEAD).into(),
            ended: false,
        })
    }

    /// The entries of the next block, checked; `None` at a sound end.
    pub(crate) fn next_block(&mut self) -> Result<Option<Vec<Entry>>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let tag: [u8; 1] = self.array()?;
        match tag[0] {
            BLOCK => self.block().map(Some),
            END => {
                self.end()?;
                self.ended = true;
                Ok(None)
            }
            _ => Err(ReadError::Damaged("something stands where a block begins")),
        }
    }

    /// What it reads from.
    pub(crate) const fn get_ref(&self) -> &R {
        &self.from
    }

    fn block(&mut self) -> Result<Vec<Entry>, ReadError> {
        let length: [u8; 4] = self.array()?;
        let bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if !(ENTRY_HEAD_BYTES..=MAX_PAYLOAD_BYTES).contains(&bytes) {
            return Err(ReadError::Damaged("a block has an impossible length"));
        }
        // Grows with what is really there, not with what the file claims.
        let mut payload = Vec::new();
        let wanted = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.from.by_ref().take(wanted).read_to_end(&mut payload)?;
        if payload.len() < bytes {
            return Err(self.cut_off());
        }
        self.check(&[&[BLOCK], &length, &payload])?;
        let entries = entries(Bytes::from(payload))?;
        self.entries += u64::try_from(entries.len()).unwrap_or(u64::MAX);
        Ok(entries)
    }

    fn end(&mut self) -> Result<(), ReadError> {
        let count: [u8; 8] = self.array()?;
        self.check(&[&[END], &count])?;
        if u64::from_le_bytes(count) != self.entries {
            return Err(ReadError::Damaged(
                "the number of entries is not what the end says",
            ));
        }
        let mut more = [0; 1];
        match self.from.read(&mut more)? {
            0 => Ok(()),
            _ => Err(ReadError::Damaged("something follows the end")),
        }
    }

    /// Reads the checksum that follows these bytes, and compares.
    fn check(&mut self, parts: &[&[u8]]) -> Result<(), ReadError> {
        let mut hash = Sha256::new_with_prefix(self.checksum);
        for part in parts {
            hash.update(part);
        }
        self.checksum = hash.finalize().into();
        let stored: [u8; CHECKSUM_BYTES] = self.array()?;
        if stored == self.checksum {
            Ok(())
        } else {
            Err(ReadError::Damaged("a checksum does not fit"))
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        match self.from.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.cut_off()),
            Err(error) => Err(error.into()),
        }
    }

    const fn cut_off(&self) -> ReadError {
        ReadError::CutOff {
            entries: self.entries,
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADump => f.write_str("this is no file of `larder dump`"),
            Self::Version(version) => write!(
                f,
                "this dump is of format {version}, which a newer larder wrote"
            ),
            Self::CutOff { entries } => write!(
                f,
                "the file is cut off after {entries} entries; the dump did not end, or the copy did not"
            ),
            Self::Damaged(what) => write!(f, "the file is damaged: {what}"),
            Self::Io(error) => write!(f, "cannot read the dump: {error}"),
        }
    }
}

/// Splits a checked payload, without copying.
fn entries(mut payload: Bytes) -> Result<Vec<Entry>, ReadError> {
    const DAMAGED: ReadError = ReadError::Damaged("an entry is longer than its block");
    let mut entries = Vec::new();
    while payload.has_remaining() {
        if payload.remaining() < ENTRY_HEAD_BYTES {
            return Err(DAMAGED);
        }
        let key_bytes = usize::try_from(payload.get_u32_le()).unwrap_or(usize::MAX);
        let value_bytes = usize::try_from(payload.get_u32_le()).unwrap_or(usize::MAX);
        let flags = payload.get_u32_le();
        let seconds = payload.get_i64_le();
        let nanos = payload.get_u32_le();
        if key_bytes.saturating_add(value_bytes) > payload.remaining() {
            return Err(DAMAGED);
        }
        let key = payload.split_to(key_bytes);
        let value = payload.split_to(value_bytes);
        entries.push(
            Entry::new(key, value)
                .with_flags(flags)
                .with_expire_time(expiry(seconds, nanos)?),
        );
    }
    Ok(entries)
}

fn expiry(seconds: i64, nanos: u32) -> Result<Option<SystemTime>, ReadError> {
    const DAMAGED: ReadError = ReadError::Damaged("an expiry does not exist");
    if nanos == NEVER {
        return Ok(None);
    }
    if nanos >= 1_000_000_000 {
        return Err(DAMAGED);
    }
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(nanos.into())))
        .map(Some)
        .ok_or(DAMAGED)
}
