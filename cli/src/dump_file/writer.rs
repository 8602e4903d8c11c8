//! Writes a dump.

use std::io::{self, Write};
use std::time::SystemTime;

use larder_client::Entry;
use sha2::{Digest as _, Sha256};

use super::{BLOCK, BLOCK_BYTES, END, ENTRY_HEAD_BYTES, HEAD, MAX_PAYLOAD_BYTES, NEVER};

/// Writes entries front to back. Holds one block. Without
/// [`finish`](Self::finish) the file counts as cut off.
pub(crate) struct DumpWriter<W> {
    to: W,
    block_bytes: usize,
    payload: Vec<u8>,
    entries: u64,
    checksum: [u8; 32],
}

impl<W: Write> DumpWriter<W> {
    /// Writes the head.
    pub(crate) fn new(to: W) -> io::Result<Self> {
        Self::with_block_bytes(to, BLOCK_BYTES)
    }

    pub(super) fn with_block_bytes(mut to: W, block_bytes: usize) -> io::Result<Self> {
        to.write_all(&HEAD)?;
        Ok(Self {
            to,
            block_bytes,
            payload: Vec::new(),
            entries: 0,
            checksum: Sha256::digest(HEAD).into(),
        })
    }

    /// Adds one entry.
    pub(crate) fn push(&mut self, entry: &Entry) -> io::Result<()> {
        let size = entry.key.len() + entry.value.len() + ENTRY_HEAD_BYTES;
        if size > MAX_PAYLOAD_BYTES {
            return Err(io::Error::other("an entry is too large for a dump"));
        }
        if !self.payload.is_empty() && self.payload.len() + size > self.block_bytes {
            self.write_block()?;
        }
        let (seconds, nanos) = expiry(entry.expire_time)?;
        self.payload.extend(length(entry.key.len())?);
        self.payload.extend(length(entry.value.len())?);
        self.payload.extend(entry.flags.to_le_bytes());
        self.payload.extend(seconds.to_le_bytes());
        self.payload.extend(nanos.to_le_bytes());
        self.payload.extend_from_slice(&entry.key);
        self.payload.extend_from_slice(&entry.value);
        self.entries += 1;
        Ok(())
    }

    /// Writes the last block and the end, and gives back what it wrote to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if !self.payload.is_empty() {
            self.write_block()?;
        }
        let mut end = vec![END];
        end.extend(self.entries.to_le_bytes());
        self.write_checked(&[&end])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn write_block(&mut self) -> io::Result<()> {
        let payload = std::mem::take(&mut self.payload);
        let length = length(payload.len())?;
        self.write_checked(&[&[BLOCK], &length, &payload])?;
        self.payload = payload;
        self.payload.clear();
        Ok(())
    }

    /// Writes these bytes and the checksum that covers them.
    fn write_checked(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut hash = Sha256::new_with_prefix(self.checksum);
        for part in parts {
            hash.update(part);
            self.to.write_all(part)?;
        }
        self.checksum = hash.finalize().into();
        self.to.write_all(&self.checksum)
    }
}

fn length(length: usize) -> io::Result<[u8; 4]> {
    u32::try_from(length)
        .map(u32::to_le_bytes)
        .map_err(|_| io::Error::other("an entry is too large for a dump"))
}

/// Whole seconds rounded down, and the nanoseconds above them.
fn expiry(time: Option<SystemTime>) -> io::Result<(i64, u32)> {
    let Some(time) = time else {
        return Ok((0, NEVER));
    };
    let parts = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs())
            .ok()
            .map(|s| (s, after.subsec_nanos())),
        Err(error) => {
            let before = error.duration();
            let seconds = i64::try_from(before.as_secs()).ok().map(|s| -s);
            match before.subsec_nanos() {
                0 => seconds.map(|s| (s, 0)),
                nanos => seconds.map(|s| (s - 1, 1_000_000_000 - nanos)),
            }
        }
    };
    parts.ok_or_else(|| io::Error::other("an expiry is beyond what a dump can hold"))
}
