//! The bytes of a snapshot file, as `docs/snapshot-format.md` has them.
//!
//! A header, blocks, and a last block that says what all came to. Every block has
//! a checksum of its own, which also covers its place and the snapshot it belongs
//! to; the last one has a digest of everything before it. Numbers are
//! little-endian.

use std::io;

use larder_model::{AccountId, AccountName, AccountUid, AtLimit, Quota};
use sha2::{Digest as _, Sha256};

/// What a snapshot begins with.
pub(super) const MAGIC: [u8; 8] = *b"LARDERSS";
/// The version of the format that is written.
pub(super) const FORMAT: u32 = 2;
/// The oldest that is read: it knows no requests.
const OLDEST_FORMAT: u32 = 1;
/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 44;
/// Bytes before and after the content of a block.
pub(super) const HEAD_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
/// A block ends once it holds this much; an entry is never split.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
/// No block is longer: the largest entry that can be configured, and a block.
pub(super) const MAX_BLOCK_BYTES: usize = 4 << 20;
/// Bytes of an entry in a block beside its namespace, key and value.
pub(super) const ENTRY_HEAD_BYTES: usize = 33;
const DIGEST_BYTES: usize = 32;

/// What is in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Accounts,
    Entries,
    Requests,
    End,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Accounts => 1,
            Self::Entries => 2,
            Self::Requests => 3,
            Self::End => 255,
        }
    }

    const fn parse(number: u8, format: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Accounts),
            2 => Some(Self::Entries),
            3 if format > OLDEST_FORMAT => Some(Self::Requests),
            255 => Some(Self::End),
            _ => None,
        }
    }
}

/// The first bytes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Which version of the format it is of.
    pub(super) format: u32,
    /// Which snapshot: the number in its file's name.
    pub(super) number: u64,
    /// When it was begun, milliseconds since 1970.
    pub(super) begun_unix_ms: u64,
    /// Above every version given out before that.
    pub(super) end_version: u64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.format.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.begun_unix_ms.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.end_version.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..40]);
        bytes[40..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Every format has this header: that is how an unknown one is told from damage.
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, ReadError> {
        if bytes[..8] != MAGIC {
            return Err(Damage::new(0, "it does not begin as a snapshot does").into());
        }
        if u32_at(bytes, 40) != crc32fast::hash(&bytes[..40]) {
            return Err(Damage::new(0, "the header's checksum is wrong").into());
        }
        let format = u32_at(bytes, 8);
        if !(OLDEST_FORMAT..=FORMAT).contains(&format) {
            return Err(ReadError::UnknownFormat(format));
        }
        Ok(Self {
            format,
            number: u64_at(bytes, 16),
            begun_unix_ms: u64_at(bytes, 24),
            end_version: u64_at(bytes, 32),
        })
    }
}

/// What the last block says of those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) accounts: u64,
    pub(super) entries: u64,
    pub(super) blocks: u64,
    /// Outcomes of requests; the first format has no such number.
    pub(super) requests: u64,
}

impl Totals {
    const fn count(&mut self, kind: Kind, count: u64) {
        match kind {
            Kind::Accounts => self.accounts += count,
            Kind::Entries => self.entries += count,
            Kind::Requests => self.requests += count,
            Kind::End => {}
        }
    }

    fn encode(&self, format: u32) -> Vec<u8> {
        let mut numbers = vec![self.accounts, self.entries, self.blocks];
        if format > OLDEST_FORMAT {
            numbers.push(self.requests);
        }
        let bytes = numbers.into_iter().flat_map(u64::to_le_bytes);
        bytes.collect()
    }
}

/// Where a snapshot is not what was written, and how that shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged at byte {offset}: {what}")]
pub(super) struct Damage {
    /// Of the block, or the field.
    pub(super) offset: u64,
    what: &'static str,
}

impl Damage {
    pub(super) const fn new(offset: u64, what: &'static str) -> Self {
        Self { offset, what }
    }
}

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It is not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// It is another snapshot than its name says.
    #[error("its name says that it is number {name}, and its header that it is number {header}")]
    Misnamed { name: u64, header: u64 },
    /// It is whole, and another version's.
    #[error("it is of format {0}, which this server does not know; it knows up to {FORMAT}")]
    UnknownFormat(u32),
    /// The disk does not give it.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The server is told to end.
    #[error("given up: the server ends")]
    Cancelled,
}

/// Writes blocks.
pub(super) struct Writer<W> {
    out: W,
    format: u32,
    number: u64,
    digest: Sha256,
    totals: Totals,
    written: u64,
}

impl<W: io::Write> Writer<W> {
    /// Begins with the header.
    pub(super) fn begin(mut out: W, header: &Header) -> io::Result<Self> {
        let bytes = header.encode();
        out.write_all(&bytes)?;
        Ok(Self {
            out,
            format: header.format,
            number: header.number,
            digest: Sha256::new_with_prefix(bytes),
            totals: Totals::default(),
            written: bytes.len() as u64,
        })
    }

    /// Writes a block that holds so many things of its kind.
    pub(super) fn block(&mut self, kind: Kind, content: &[u8], count: u64) -> io::Result<()> {
        let head = head(kind, content.len(), self.totals.blocks)?;
        let checksum = checksum(self.number, &head, content).to_le_bytes();
        for part in [&head[..], content, &checksum] {
            self.out.write_all(part)?;
            self.digest.update(part);
            self.written += part.len() as u64;
        }
        self.totals.blocks += 1;
        self.totals.count(kind, count);
        Ok(())
    }

    /// Writes the last block; returns what was written to, how many bytes, and what
    /// is in them.
    pub(super) fn end(mut self) -> io::Result<(W, u64, Totals)> {
        let totals = self.totals;
        let mut content = totals.encode(self.format);
        content.extend_from_slice(&self.digest.clone().finalize());
        self.block(Kind::End, &content, 0)?;
        Ok((self.out, self.written, totals))
    }
}

/// Reads blocks, and believes none of them.
pub(super) struct Reader<R> {
    input: R,
    header: Header,
    digest: Sha256,
    totals: Totals,
    offset: u64,
    content: Vec<u8>,
}

impl<R: io::Read> Reader<R> {
    /// Reads the header.
    pub(super) fn begin(mut input: R) -> Result<Self, ReadError> {
        let mut bytes = [0; HEADER_BYTES];
        fill(&mut input, &mut bytes, 0)?;
        Ok(Self {
            header: Header::parse(&bytes)?,
            input,
            digest: Sha256::new_with_prefix(bytes),
            totals: Totals::default(),
            offset: HEADER_BYTES as u64,
            content: Vec::new(),
        })
    }

    pub(super) const fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes read so far.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next block, if its checksum is right; `None` after the last, if that
    /// agrees with all before, and nothing comes after it.
    pub(super) fn block(&mut self) -> Result<Option<(Kind, &[u8])>, ReadError> {
        let at = self.offset;
        let mut head = [0; HEAD_BYTES];
        fill(&mut self.input, &mut head, at)?;
        let length = usize::try_from(u32_at(&head, 4)).unwrap_or(usize::MAX);
        if length > MAX_BLOCK_BYTES {
            return Err(Damage::new(at, "the block's length is out of bounds").into());
        }
        self.content.resize(length, 0);
        fill(&mut self.input, &mut self.content, at)?;
        let mut check = [0; CHECKSUM_BYTES];
        fill(&mut self.input, &mut check, at)?;
        if u32::from_le_bytes(check) != checksum(self.header.number, &head, &self.content) {
            return Err(Damage::new(at, "the block's checksum is wrong").into());
        }
        if u64_at(&head, 8) != self.totals.blocks {
            return Err(Damage::new(at, "the block stands in another one's place").into());
        }
        let kind = Kind::parse(head[0], self.header.format);
        let kind = kind.ok_or(Damage::new(at, "the block is of an unknown kind"))?;
        self.offset += (HEAD_BYTES + length + CHECKSUM_BYTES) as u64;
        if kind == Kind::End {
            self.check_end(at)?;
            return Ok(None);
        }
        for part in [&head[..], &self.content, &check] {
            self.digest.update(part);
        }
        self.totals.blocks += 1;
        Ok(Some((kind, &self.content)))
    }

    /// Counts what the last block held.
    pub(super) const fn count(&mut self, kind: Kind, count: u64) {
        self.totals.count(kind, count);
    }

    fn check_end(&mut self, at: u64) -> Result<(), ReadError> {
        let content = &self.content;
        let totals = self.totals.encode(self.header.format);
        if content.len() != totals.len() + DIGEST_BYTES {
            return Err(Damage::new(at, "the last block has another length").into());
        }
        let (numbers, digest) = content.split_at(totals.len());
        if *numbers != totals[..] {
            return Err(Damage::new(at, "the last block counts what is not there").into());
        }
        if *digest != self.digest.clone().finalize()[..] {
            return Err(Damage::new(at, "the digest of the whole is wrong").into());
        }
        if self.input.read(&mut [0])? > 0 {
            return Err(Damage::new(self.offset, "there is more after the end").into());
        }
        Ok(())
    }
}

fn head(kind: Kind, length: usize, place: u64) -> io::Result<[u8; HEAD_BYTES]> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "the block is too long");
    let length = u32::try_from(length).map_err(|_| too_long())?;
    let mut head = [0; HEAD_BYTES];
    head[0] = kind.number();
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..].copy_from_slice(&place.to_le_bytes());
    Ok(head)
}

/// CRC-32 (IEEE 802.3) of the snapshot's number, the head and the content.
fn checksum(number: u64, head: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(head);
    hasher.update(content);
    hasher.finalize()
}

/// Reads all of `buffer`; too little is damage at `at`.
fn fill(input: &mut impl io::Read, buffer: &mut [u8], at: u64) -> Result<(), ReadError> {
    input.read_exact(buffer).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Damage::new(at, "the file ends in the middle").into()
        } else {
            error.into()
        }
    })
}

/// An entry, as it stands in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Place of its account in the blocks of accounts.
    pub(super) account: u32,
    pub(super) flags: u32,
    pub(super) version: u64,
    /// Milliseconds since 1970; 0 for never.
    pub(super) expires_unix_ms: u64,
    pub(super) namespace: &'a [u8],
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Appends it. `None`, and nothing done, if a part is longer than any can be.
    pub(super) fn push(&self, block: &mut Vec<u8>) -> Option<()> {
        let space = u8::try_from(self.namespace.len()).ok()?;
        let key = u32::try_from(self.key.len()).ok()?;
        let value = u32::try_from(self.value.len()).ok()?;
        block.extend_from_slice(&self.account.to_le_bytes());
        block.extend_from_slice(&self.flags.to_le_bytes());
        block.extend_from_slice(&self.version.to_le_bytes());
        block.extend_from_slice(&self.expires_unix_ms.to_le_bytes());
        block.push(space);
        block.extend_from_slice(&key.to_le_bytes());
        block.extend_from_slice(&value.to_le_bytes());
        for part in [self.namespace, self.key, self.value] {
            block.extend_from_slice(part);
        }
        Some(())
    }

    /// Takes one from the front.
    pub(super) fn take(block: &mut &'a [u8]) -> Option<Self> {
        let (head, rest) = block.split_at_checked(ENTRY_HEAD_BYTES)?;
        let (namespace, rest) = rest.split_at_checked(usize::from(head[24]))?;
        let (key, rest) = rest.split_at_checked(usize::try_from(u32_at(head, 25)).ok()?)?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32_at(head, 29)).ok()?)?;
        *block = rest;
        Some(Self {
            account: u32_at(head, 0),
            flags: u32_at(head, 4),
            version: u64_at(head, 8),
            expires_unix_ms: u64_at(head, 16),
            namespace,
            key,
            value,
        })
    }
}

/// Appends an account. `None` if its names are longer than any can be.
pub(super) fn push_account(block: &mut Vec<u8>, id: &AccountId, quota: Quota) -> Option<()> {
    for name in [id.name.as_str(), id.uid.as_str()] {
        block.push(u8::try_from(name.len()).ok()?);
        block.extend_from_slice(name.as_bytes());
    }
    block.extend_from_slice(&quota.max_keys.to_le_bytes());
    block.extend_from_slice(&quota.max_bytes.to_le_bytes());
    block.push(u8::from(quota.at_limit == AtLimit::Evict));
    Some(())
}

/// Takes an account from the front.
pub(super) fn take_account(block: &mut &[u8]) -> Option<(AccountId, Quota)> {
    let name = AccountName::parse(take_text(block)?).ok()?;
    let uid = AccountUid::new(take_text(block)?);
    let (numbers, rest) = block.split_at_checked(17)?;
    *block = rest;
    let quota = Quota {
        max_keys: u64_at(numbers, 0),
        max_bytes: u64_at(numbers, 8),
        at_limit: match numbers[16] {
            0 => AtLimit::Refuse,
            _ => AtLimit::Evict,
        },
    };
    Some((AccountId { name, uid }, quota))
}

fn take_text<'a>(block: &mut &'a [u8]) -> Option<&'a str> {
    let (length, rest) = block.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    *block = rest;
    std::str::from_utf8(text).ok()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
