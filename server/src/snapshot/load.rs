//! Reading a snapshot: once to see whether all of it is as it was written, and
//! once more to put its entries into the store. Nothing of a damaged one gets in.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_engine::{Account, Engine, Restored};
use larder_model::{
    AccountId, Call, Condition, EntryKey, Expiry, ExpiryChange, Key, Limits, Namespace, Quota, Set,
    Store as _, Time, Version,
};

use super::format::{Damage, Entry, Header, Kind, ReadError, Reader, take_account};
use super::requests::{Offset, Recorded};
use crate::clock::{self, Clock};

/// Between two lines of the log about a long load.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Read at once.
const READ_BYTES: usize = 1 << 20;

/// Where the entries go, and what decides which of them.
pub(super) struct Target<'a> {
    pub(super) engine: &'a Engine,
    pub(super) clock: &'a Clock,
    pub(super) limits: Limits,
    /// Whether entries keep the versions they had.
    pub(super) versions: Versions,
    /// The quota of an account that is still there; it is given the one it had.
    pub(super) quota: &'a (dyn Fn(&AccountId, Quota) -> Option<Quota> + Send + Sync),
}

/// Whether entries keep the versions they had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    /// They do: nothing was written after the snapshot.
    Kept,
    /// They get new ones: an entry may have been written again after the snapshot,
    /// and then its version must not go back.
    New,
}

/// What became of the entries of a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) entries: u64,
    /// Outcomes of requests whose accounts are there, and whose time had not come.
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    /// Their time had come meanwhile.
    pub(crate) expired: u64,
    /// Their account is gone.
    pub(crate) no_account: u64,
    /// Beyond the account's quota, or the memory.
    pub(crate) no_room: u64,
    /// Longer than this server allows.
    pub(crate) too_long: u64,
}

/// Reads the header alone.
pub(super) fn header(path: &Path) -> Result<Header, ReadError> {
    Ok(*Reader::begin(File::open(path)?)?.header())
}

/// Reads all of it, to see whether it is whole.
pub(super) fn verify(path: &Path, cancelled: &AtomicBool) -> Result<Header, ReadError> {
    let file = File::open(path)?;
    let mut progress = Progress::new("checking", path, file.metadata()?.len());
    verify_from(
        BufReader::with_capacity(READ_BYTES, file),
        cancelled,
        |offset| {
            progress.at(offset);
        },
    )
}

/// The same, of bytes from anywhere.
pub(super) fn verify_from(
    input: impl Read,
    cancelled: &AtomicBool,
    mut at: impl FnMut(u64),
) -> Result<Header, ReadError> {
    let mut reader = Reader::begin(input)?;
    let mut accounts = 0;
    loop {
        let offset = reader.offset();
        at(offset);
        goes_on(cancelled)?;
        let Some((kind, mut content)) = reader.block()? else {
            return Ok(*reader.header());
        };
        let mut count = 0;
        let bad = || Damage::new(offset, "the block holds what cannot be");
        while !content.is_empty() {
            match kind {
                Kind::Accounts => drop(take_account(&mut content).ok_or_else(bad)?),
                Kind::Requests => {
                    let offset = Offset { unix_ms: 0 };
                    let recorded = Recorded::take(&mut content, offset).ok_or_else(bad)?;
                    if u64::from(recorded.account) >= accounts {
                        return Err(bad().into());
                    }
                }
                Kind::Entries | Kind::End => {
                    let entry = Entry::take(&mut content).ok_or_else(bad)?;
                    if u64::from(entry.account) >= accounts || parse(&entry, &WIDEST).is_none() {
                        return Err(bad().into());
                    }
                }
            }
            count += 1;
        }
        if kind == Kind::Accounts {
            accounts += count;
        }
        reader.count(kind, count);
    }
}

/// Puts what is in a snapshot that was verified into the store, which is empty, and
/// is so again if the file cannot be read to its end a second time.
pub(super) fn fill(
    path: &Path,
    target: &Target<'_>,
    cancelled: &AtomicBool,
) -> Result<Loaded, ReadError> {
    let loaded = fill_from(path, target, cancelled);
    if loaded.is_err() {
        for (id, _) in target.engine.walk().accounts() {
            target.engine.close(&id.name);
        }
    }
    loaded
}

fn fill_from(
    path: &Path,
    target: &Target<'_>,
    cancelled: &AtomicBool,
) -> Result<Loaded, ReadError> {
    let file = File::open(path)?;
    let mut progress = Progress::new("loading", path, file.metadata()?.len());
    let mut reader = Reader::begin(BufReader::with_capacity(READ_BYTES, file))?;
    let behind_ms = target.behind_ms(reader.header());
    let mut accounts = Vec::new();
    let mut loaded = Loaded::default();
    loop {
        let offset = reader.offset();
        progress.at(offset);
        goes_on(cancelled)?;
        let times = target.times(behind_ms);
        let Some((kind, mut content)) = reader.block()? else {
            loaded.bytes = reader.offset();
            return Ok(loaded);
        };
        let mut count = 0;
        let bad = || Damage::new(offset, "the block holds what cannot be");
        while !content.is_empty() {
            count += 1;
            let of = |number: u32| accounts.get(usize::try_from(number).unwrap_or(usize::MAX));
            match kind {
                Kind::Accounts => {
                    let (id, quota) = take_account(&mut content).ok_or_else(bad)?;
                    let quota = (target.quota)(&id, quota);
                    accounts.push(quota.map(|quota| target.engine.open(&id, quota)));
                }
                Kind::Requests => {
                    let recorded = Recorded::take(&mut content, times).ok_or_else(bad)?;
                    let account = of(recorded.account).ok_or_else(bad)?;
                    target.remember(account.as_ref(), &recorded, &mut loaded);
                }
                Kind::Entries | Kind::End => {
                    let entry = Entry::take(&mut content).ok_or_else(bad)?;
                    let account = of(entry.account).ok_or_else(bad)?;
                    target.put(account.as_ref(), &entry, times, &mut loaded);
                }
            }
        }
        reader.count(kind, count);
    }
}

impl Target<'_> {
    /// By how much the wall clock is behind that of when the snapshot was made. It was
    /// set back: what had a minute left then must not have a day more.
    fn behind_ms(&self, header: &Header) -> i64 {
        let begun_ms = i64::try_from(header.begun_unix_ms).unwrap_or(i64::MAX);
        let now_ms = self.clock.unix_millis_of(self.clock.now());
        begun_ms.saturating_sub(now_ms).max(0)
    }

    /// What the times of the snapshot are in the store's.
    fn times(&self, behind_ms: i64) -> Offset {
        let origin_ms = self.clock.unix_millis_of(Time::ZERO);
        Offset {
            unix_ms: origin_ms.saturating_add(behind_ms),
        }
    }

    fn remember(&self, account: Option<&Account>, recorded: &Recorded<'_>, loaded: &mut Loaded) {
        let now = self.clock.now();
        let remembered = recorded.remembered;
        if let Some(account) = account
            && remembered.until > now
        {
            self.engine.restore_request(account, now, remembered);
            loaded.requests += 1;
        }
    }

    fn put(
        &self,
        account: Option<&Account>,
        entry: &Entry<'_>,
        times: Offset,
        loaded: &mut Loaded,
    ) {
        let now = self.clock.now();
        let Some(account) = account else {
            loaded.no_account += 1;
            return;
        };
        let Some(at) = parse(entry, &self.limits) else {
            loaded.too_long += 1;
            return;
        };
        let Some(expiry) = expiry(entry.expires_unix_ms, times, now) else {
            loaded.expired += 1;
            return;
        };
        let set = Set {
            at,
            value: entry.value,
            flags: entry.flags,
            expiry: ExpiryChange::To(expiry),
            condition: Condition::Always,
        };
        let version = match self.versions {
            Versions::Kept => Some(Version::new(entry.version)),
            Versions::New => None,
        };
        match self.engine.restore(account, Call::at(now), &set, version) {
            Restored::Kept => loaded.entries += 1,
            Restored::NoRoom => loaded.no_room += 1,
        }
    }
}

/// The end of an entry in the store's time; `None` if it has come.
fn expiry(unix_ms: u64, times: Offset, now: Time) -> Option<Expiry> {
    if unix_ms == 0 {
        return Some(Expiry::Never);
    }
    let end = times.of_unix_ms(unix_ms);
    (end > now).then_some(Expiry::At(end))
}

/// What any server may allow.
const WIDEST: Limits = Limits {
    max_key_bytes: 64 << 10,
    max_value_bytes: 4 << 20,
    max_batch_keys: 0,
    max_batch_get_bytes: 0,
    max_list_page: 0,
    dump_message_bytes: 0,
};

/// Where an entry belongs; `None` if it is beyond the limits.
fn parse<'a>(entry: &Entry<'a>, limits: &Limits) -> Option<EntryKey<'a>> {
    let namespace = std::str::from_utf8(entry.namespace).ok()?;
    let fits = entry.value.len() <= limits.max_value_bytes;
    fits.then_some(EntryKey {
        namespace: Namespace::parse(namespace).ok()?,
        key: Key::parse(entry.key, limits).ok()?,
    })
}

fn goes_on(cancelled: &AtomicBool) -> Result<(), ReadError> {
    if cancelled.load(Ordering::Relaxed) {
        return Err(ReadError::Cancelled);
    }
    Ok(())
}

/// Lines of the log about something that takes long.
struct Progress<'a> {
    what: &'static str,
    path: &'a Path,
    size: u64,
    told: Instant,
}

impl<'a> Progress<'a> {
    fn new(what: &'static str, path: &'a Path, size: u64) -> Self {
        let told = clock::instant();
        Self {
            what,
            path,
            size,
            told,
        }
    }

    fn at(&mut self, offset: u64) {
        let now = clock::instant();
        if now.saturating_duration_since(self.told) < PROGRESS_INTERVAL {
            return;
        }
        self.told = now;
        let percent = offset.saturating_mul(100) / self.size.max(1);
        tracing::info!(
            file = %self.path.display(),
            percent,
            bytes = self.size,
            "{} a snapshot",
            self.what
        );
    }
}
