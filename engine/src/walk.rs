//! Walks over an account, by slot number.
//!
//! An entry keeps its slot for as long as it lives, so a walk that passes
//! every slot once shows every entry that lives throughout once. Each step
//! holds one shard's lock, looks at a bounded number of slots and copies a
//! bounded number of bytes under it.

use std::collections::BinaryHeap;
use std::sync::Arc;

use larder_model::{
    Call, Cursor, EntryRef, Listed, Mode, Page, ScanBudget, Selection, StoreError, Time,
};

use crate::ledger::Ledger;
use crate::partition::Partition;
use crate::registry::Tenant;
use crate::shard::{Core, Gone, Present, Trash};
use crate::turn::turn;

/// Slots that a step looks at under one holding of the lock: 256 cache misses
/// for slots and as many for their bytes are about 50 µs.
const STEP_SLOTS: u32 = 256;

/// What a step costs that finds nothing, in entries looked at.
const STEP_COST: usize = 8;

/// Bytes that a step shows under one holding of the lock; about 20 µs to copy.
const STEP_BYTES: usize = 64 << 10;

/// Where a walk is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Position {
    shard: usize,
    slot: u32,
}

impl Position {
    /// True when nothing is left.
    pub(crate) const fn is_past(self, partition: &Partition) -> bool {
        self.shard >= partition.shards().len()
    }
}

/// A large value met by a walk: its step ends, and it is visited without the
/// lock.
struct Aside {
    key: Box<[u8]>,
    value: Arc<[u8]>,
    meta: larder_model::EntryMeta,
}

impl Tenant {
    /// [`Store::scan`](larder_model::Store::scan).
    pub(crate) async fn scan(
        &self,
        call: Call,
        selection: Selection<'_>,
        from: Cursor,
        budget: ScanBudget,
        mut visit: impl FnMut(EntryRef<'_>) + Send,
    ) -> Result<Option<Cursor>, StoreError> {
        let mut position = self.resume(from)?;
        let (mut bytes, mut entries) = (0, 0);
        let mut pace = Pace::default();
        if self.ledger.is_closed() {
            return Ok(None);
        }
        while position.shard < self.partition.shards().len() {
            if bytes >= budget.bytes.max(1) || entries >= budget.entries.max(1) {
                return Ok(Some(self.cursor(position)));
            }
            let mut aside = None;
            let step_bytes = STEP_BYTES.min(budget.bytes.max(1) - bytes);
            let step = Step {
                bytes: step_bytes,
                entries: budget.entries.max(1) - entries,
            };
            let mut shown = 0;
            let looked = step.take(&self.partition, &mut position, call.now, |core, slot, _| {
                let present = core.look(slot);
                if !selects(selection, &present) {
                    return 0;
                }
                let size = present.record().key.len() + present.record().value_len();
                shown += size;
                if let Some(value) = present.large {
                    aside = Some(Aside {
                        key: present.record().key.into(),
                        value: Arc::clone(value),
                        meta: present.meta,
                    });
                    return usize::MAX;
                }
                visit(present.entry());
                size
            });
            if let Some(aside) = aside {
                visit(EntryRef {
                    namespace: selection.namespace.as_str(),
                    key: &aside.key,
                    value: &aside.value,
                    meta: aside.meta,
                });
            }
            bytes = bytes.saturating_add(shown);
            entries += looked;
            pace.step(looked).await;
        }
        Ok(None)
    }

    /// [`Store::list`](larder_model::Store::list): a walk over everything that
    /// keeps the first `limit` keys, and one to know whether there are more.
    pub(crate) async fn list(
        &self,
        call: Call,
        selection: Selection<'_>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Page {
        let mut first = Smallest::new(limit.saturating_add(1));
        let mut pace = Pace::default();
        let mut position = Position::default();
        while position.shard < self.partition.shards().len() && !self.ledger.is_closed() {
            let looked =
                Step::PLAIN.take(&self.partition, &mut position, call.now, |core, slot, _| {
                    let present = core.look(slot);
                    let key = present.record().key;
                    if !selects(selection, &present) || after.is_some_and(|after| key <= after) {
                        return 0;
                    }
                    first.offer(key, &present);
                    key.len()
                });
            pace.step(looked).await;
        }
        let mut entries = first.into_sorted();
        let more = entries.len() > limit;
        entries.truncate(limit);
        Page { entries, more }
    }

    /// [`Store::delete_prefix`](larder_model::Store::delete_prefix).
    pub(crate) async fn delete_prefix(&self, call: Call, selection: Selection<'_>) -> u64 {
        let (mut deleted, mut position) = (0, Position::default());
        let mut pace = Pace::default();
        while position.shard < self.partition.shards().len() && !self.ledger.is_closed() {
            let looked = Step::PLAIN.take(
                &self.partition,
                &mut position,
                call.now,
                |core, slot, trash| {
                    if selects(selection, &core.look(slot)) {
                        deleted += 1;
                        if call.mode == Mode::Apply {
                            core.remove(slot, Gone::Deleted, trash);
                        }
                    }
                    0
                },
            );
            pace.step(looked).await;
        }
        deleted
    }

    fn resume(&self, from: Cursor) -> Result<Position, StoreError> {
        let Cursor([life, at]) = from;
        if from == Cursor::default() {
            return Ok(Position::default());
        }
        let shard = usize::try_from(at >> 32).map_err(|_| StoreError::CursorExpired)?;
        let slot = u32::try_from(at & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        if life == self.partition.life() && shard < self.partition.shards().len() {
            Ok(Position { shard, slot })
        } else {
            Err(StoreError::CursorExpired)
        }
    }

    fn cursor(&self, position: Position) -> Cursor {
        let at = (position.shard as u64) << 32 | u64::from(position.slot);
        Cursor([self.partition.life(), at])
    }
}

/// Removes all entries that count on `owner`, who takes no more.
pub(crate) fn remove_owned(partition: &Partition, owner: &Ledger) {
    let mut position = Position::default();
    while position.shard < partition.shards().len() {
        Step::PLAIN.take(partition, &mut position, Time::ZERO, |core, slot, trash| {
            if core.owner(slot).number == owner.number {
                core.remove(slot, Gone::Deleted, trash);
            }
            0
        });
    }
}

/// Lets other tasks run once a few hundred entries were looked at, so that a
/// walk over a small account is ready at once.
#[derive(Debug, Default)]
struct Pace {
    looked: usize,
}

impl Pace {
    async fn step(&mut self, looked: usize) {
        // A step over free slots is work too.
        self.looked += looked + STEP_COST;
        if self.looked > STEP_SLOTS as usize {
            self.looked = 0;
            turn().await;
        }
    }
}

/// What one holding of a lock may do.
pub(crate) struct Step {
    bytes: usize,
    entries: usize,
}

impl Step {
    pub(crate) const PLAIN: Self = Self {
        bytes: STEP_BYTES,
        entries: STEP_SLOTS as usize,
    };

    /// Looks at live entries from `position` on, and moves it to where to go
    /// on: the next shard, if this one is through. `look` returns the bytes
    /// that it took. Returns how many entries were looked at.
    pub(crate) fn take(
        self,
        partition: &Partition,
        position: &mut Position,
        now: Time,
        mut look: impl FnMut(&mut Core, u32, &mut Trash) -> usize,
    ) -> usize {
        let (mut bytes, mut looked) = (0_usize, 0);
        partition.shards()[position.shard].with(|core, trash| {
            let mut slot = core.skip_empty(position.slot);
            let end = core.slots();
            let stop = end.min(slot.saturating_add(STEP_SLOTS));
            while slot < stop && bytes < self.bytes && looked < self.entries {
                let present = core.peek(slot);
                if present.is_some_and(|it| !it.meta.expiry.is_due(now)) {
                    bytes = bytes.saturating_add(look(core, slot, trash));
                    looked += 1;
                }
                slot += 1;
            }
            *position = if slot < end {
                Position { slot, ..*position }
            } else {
                Position {
                    shard: position.shard + 1,
                    slot: 0,
                }
            };
        });
        looked
    }
}

/// The smallest keys that were offered, a bounded number.
struct Smallest {
    heap: BinaryHeap<Candidate>,
    room: usize,
}

#[derive(Debug)]
struct Candidate(Listed);

impl Smallest {
    fn new(room: usize) -> Self {
        Self {
            heap: BinaryHeap::new(),
            room,
        }
    }

    fn offer(&mut self, key: &[u8], present: &Present<'_>) {
        if self.heap.len() >= self.room {
            match self.heap.peek() {
                Some(greatest) if key < &*greatest.0.key => drop(self.heap.pop()),
                _ => return,
            }
        }
        self.heap.push(Candidate(Listed {
            key: key.into(),
            meta: present.meta,
        }));
    }

    /// In key order. A key that was deleted and written again during the walk
    /// may have been met twice; the later write counts.
    fn into_sorted(self) -> Vec<Listed> {
        let mut listed: Vec<_> = self.heap.into_iter().map(|it| it.0).collect();
        listed.sort_unstable_by(|a, b| {
            let newest_first = b.meta.version.cmp(&a.meta.version);
            a.key.cmp(&b.key).then(newest_first)
        });
        listed.dedup_by(|later, kept| later.key == kept.key);
        listed
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

fn selects(selection: Selection<'_>, present: &Present<'_>) -> bool {
    let record = present.record();
    record.key.starts_with(selection.prefix) && record.is_in(selection.namespace)
}
