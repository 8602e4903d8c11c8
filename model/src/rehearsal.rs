//! What writes that did not take place would have changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::entry::EntryMeta;
use crate::name::EntryKey;
use crate::time::{Expiry, Time};

/// The effects of dry writes that belong together, such as those of a batch: each
/// is judged as if the ones before it had been made. An earlier entry takes up
/// quota that a later one then lacks.
///
/// Holds a key and some 200 bytes for each key that was written.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// By namespace and key.
    entries: HashMap<Arc<[u8]>, Noted>,
    /// Those that expire, the first first.
    ends: BTreeSet<(Time, Arc<[u8]>)>,
    growth: HashMap<u32, Growth>,
    held_bytes: usize,
}

/// What writes would leave under a key.
#[derive(Debug, Clone, Copy)]
struct Noted {
    /// `None`: the entry would be gone.
    entry: Option<Rehearsed>,
    /// The first of them found a live entry, which is counted as gone since.
    took_live: bool,
}

/// An entry that a dry write would have made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rehearsed {
    /// Its version is 0: none was given out.
    pub meta: EntryMeta,
    /// Whose quota it would count on, by a number of the store's own.
    pub owner: u32,
}

/// What an owner would use more, or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Growth {
    /// Keys.
    pub keys: i64,
    /// Bytes, each entry as in [`entry_size_bytes`](crate::entry_size_bytes).
    pub bytes: i64,
}

/// Held for each key beside its bytes.
const ENTRY_BYTES: usize = 200;

impl Rehearsal {
    /// The entry under a key, if a write before this one changed it: `Some(None)` if
    /// it would be gone at `now`.
    pub fn get(&mut self, at: EntryKey<'_>, now: Time) -> Option<Option<Rehearsed>> {
        self.expire(now);
        self.entries
            .get(&place(at.namespace.as_str(), at.key.as_bytes())[..])
            .map(|noted| noted.entry)
    }

    /// Notes that a write would leave `after` under a key, in the place of what
    /// [`get`](Self::get) showed; of `live`, if it showed nothing.
    pub fn put(&mut self, at: EntryKey<'_>, live: Option<Rehearsed>, after: Option<Rehearsed>) {
        let place: Arc<[u8]> = place(at.namespace.as_str(), at.key.as_bytes()).into();
        let noted = self.entries.get(&place);
        let took_live = noted.map_or(live.is_some(), |noted| noted.took_live);
        let noted = Noted {
            entry: after,
            took_live,
        };
        let before = match self.entries.insert(Arc::clone(&place), noted) {
            Some(before) => before.entry,
            None => {
                self.held_bytes += place.len() + ENTRY_BYTES;
                live
            }
        };
        if let Some(end) = end_of(before) {
            self.ends.remove(&(end, Arc::clone(&place)));
        }
        if let Some(end) = end_of(after) {
            self.ends.insert((end, place));
        }
        self.count(before, -1);
        self.count(after, 1);
    }

    /// True if a live entry under this key is counted as gone already, should it be
    /// due by now.
    pub fn has_taken(&self, namespace: &str, key: &[u8]) -> bool {
        let noted = self.entries.get(&place(namespace, key)[..]);
        noted.is_some_and(|noted| noted.took_live)
    }

    /// What an owner would use more, or less, at `now`.
    pub fn growth(&mut self, owner: u32, now: Time) -> Growth {
        self.expire(now);
        self.growth.get(&owner).copied().unwrap_or_default()
    }

    /// Memory that it takes, bytes.
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// True if no write was noted.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn expire(&mut self, now: Time) {
        while let Some((end, _)) = self.ends.first()
            && *end <= now
        {
            let gone = self.ends.pop_first();
            let entry = gone.and_then(|(_, place)| self.entries.get_mut(&place)?.entry.take());
            self.count(entry, -1);
        }
    }

    fn count(&mut self, entry: Option<Rehearsed>, sign: i64) {
        let Some(Rehearsed { meta, owner }) = entry else {
            return;
        };
        let growth = self.growth.entry(owner).or_default();
        growth.keys += sign;
        growth.bytes += sign * i64::try_from(meta.size_bytes).unwrap_or(i64::MAX);
    }
}

fn end_of(entry: Option<Rehearsed>) -> Option<Time> {
    match entry?.meta.expiry {
        Expiry::Never => None,
        Expiry::At(end) => Some(end),
    }
}

/// A namespace holds no NUL, so no two places are the same.
fn place(namespace: &str, key: &[u8]) -> Vec<u8> {
    [namespace.as_bytes(), &[0], key].concat()
}
