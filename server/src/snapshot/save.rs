//! Writing a snapshot: the store is walked step by step while calls go on, and
//! never more than a block of it is held.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use larder_engine::{Engine, Walk};
use larder_model::Time;

use super::directory::Directory;
use super::format::{BLOCK_BYTES, Entry, FORMAT, Header, Kind, Totals, Writer, push_account};
use super::requests::{Offset, Recorded};
use crate::clock::{self, Clock};

/// Bytes between two waits for the disk: what the kernel has not written yet
/// counts as memory of this process in a container.
const SYNC_BYTES: u64 = 32 << 20;

/// What is saved, and by which clock.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) engine: &'a Engine,
    pub(super) clock: &'a Clock,
}

impl Source<'_> {
    fn offset(&self) -> Offset {
        Offset {
            unix_ms: self.clock.unix_millis_of(Time::ZERO),
        }
    }
}

/// Why there is no new snapshot. The old ones are as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    /// The disk did not take it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A later one is to come at once, or the server ends.
    #[error("given up for the last one")]
    Cancelled,
}

/// A snapshot that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) number: u64,
    pub(crate) entries: u64,
    /// Outcomes of requests with an id.
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

/// Writes a snapshot to a temporary file, gives it to the disk, and then its name:
/// there is a whole one at every moment.
pub(super) fn save(
    source: Source<'_>,
    directory: &Directory,
    cancelled: &AtomicBool,
) -> Result<Saved, SaveError> {
    let number = directory.next_number()?;
    let (path, file) = directory.create(number)?;
    let written = write(source, number, Paced::new(&file), cancelled).and_then(|done| {
        file.sync_all()?;
        directory.publish(&path, number)?;
        Ok(done)
    });
    if written.is_err() {
        // The error that led here says more than one about this.
        let _ = std::fs::remove_file(&path);
    }
    let (bytes, totals) = written?;
    directory.prune();
    Ok(Saved {
        number,
        entries: totals.entries,
        requests: totals.requests,
        bytes,
    })
}

/// Writes a snapshot of what `source` holds; returns its bytes, and what is in them.
pub(super) fn write(
    source: Source<'_>,
    number: u64,
    out: impl Write,
    cancelled: &AtomicBool,
) -> Result<(u64, Totals), SaveError> {
    let header = Header {
        format: FORMAT,
        number,
        begun_unix_ms: clock::unix_millis(),
        end_version: source.engine.end_version(),
    };
    let mut walk = source.engine.walk();
    let mut writer = Writer::begin(out, &header)?;
    let places = write_accounts(&walk, &mut writer)?;
    // Before the entries: what every outcome stands for is then among them.
    write_requests(source, &mut walk, &places, &mut writer, cancelled)?;
    let mut block = Vec::with_capacity(BLOCK_BYTES * 2);
    let mut count = 0;
    let mut goes_on = true;
    while goes_on {
        let offset = source.offset();
        goes_on = walk.step(source.clock.now(), |owner, entry| {
            let meta = entry.meta;
            let Some(account) = places[owner.number] else {
                return;
            };
            let entry = Entry {
                account,
                flags: meta.flags,
                version: meta.version.get(),
                expires_unix_ms: offset.end_unix_ms(meta.expiry),
                namespace: entry.namespace.as_bytes(),
                key: entry.key,
                value: entry.value,
            };
            count += u64::from(entry.push(&mut block).is_some());
        });
        if block.len() >= BLOCK_BYTES || (!goes_on && count > 0) {
            writer.block(Kind::Entries, &block, count)?;
            block.clear();
            // A large value's room is not kept.
            block.shrink_to(BLOCK_BYTES * 2);
            count = 0;
        }
        if cancelled.load(Ordering::Relaxed) {
            return Err(SaveError::Cancelled);
        }
        // Calls first.
        std::thread::yield_now();
    }
    let (mut out, bytes, totals) = writer.end()?;
    out.flush()?;
    Ok((bytes, totals))
}

/// Writes the accounts, and returns the place of each; none if it cannot be
/// written: an identifier that another Accounts server made up is too long.
fn write_accounts<W: Write>(walk: &Walk, writer: &mut Writer<W>) -> io::Result<Vec<Option<u32>>> {
    let (mut places, mut block) = (Vec::new(), Vec::new());
    let (mut next, mut count) = (0, 0);
    for (id, quota) in walk.accounts() {
        let before = block.len();
        let pushed = push_account(&mut block, id, quota).is_some();
        places.push(pushed.then_some(next));
        if pushed {
            next += 1;
            count += 1;
        } else {
            block.truncate(before);
            tracing::warn!(account = %id.name, "its uid is too long for a snapshot: its entries are left out");
        }
        if block.len() >= BLOCK_BYTES {
            writer.block(Kind::Accounts, &block, count)?;
            block.clear();
            count = 0;
        }
    }
    if count > 0 {
        writer.block(Kind::Accounts, &block, count)?;
    }
    Ok(places)
}

/// Writes what is remembered of requests.
fn write_requests<W: Write>(
    source: Source<'_>,
    walk: &mut Walk,
    places: &[Option<u32>],
    writer: &mut Writer<W>,
    cancelled: &AtomicBool,
) -> Result<(), SaveError> {
    let (mut block, mut count, mut goes_on) = (Vec::new(), 0, true);
    while goes_on {
        let offset = source.offset();
        goes_on = walk.step_requests(source.clock.now(), |owner, remembered| {
            let Some(account) = places[owner.number] else {
                return;
            };
            let recorded = Recorded {
                account,
                remembered,
            };
            count += u64::from(recorded.push(&mut block, offset).is_some());
        });
        if block.len() >= BLOCK_BYTES || (!goes_on && count > 0) {
            writer.block(Kind::Requests, &block, count)?;
            block.clear();
            count = 0;
        }
        if cancelled.load(Ordering::Relaxed) {
            return Err(SaveError::Cancelled);
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// A file that has what was written on its disk soon after.
struct Paced<'a> {
    file: &'a File,
    unsynced: u64,
}

impl<'a> Paced<'a> {
    const fn new(file: &'a File) -> Self {
        Self { file, unsynced: 0 }
    }
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written as u64;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
