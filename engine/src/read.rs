//! Reads of one entry.

use std::sync::Arc;

use larder_model::{Call, EntryKey, EntryMeta, EntryRef, Expiry, Mode, ReadEffect};

use crate::ledger::Event;
use crate::registry::Tenant;
use crate::shard::{Core, Gone, Present, Trash};

/// What a read found.
enum Found<R> {
    /// A value up to the large ones, and what the visitor made of it.
    Seen(R),
    /// A large value, to be visited without the lock.
    Large(Arc<[u8]>, EntryMeta),
    Missing,
}

impl Tenant {
    pub(crate) fn get<R>(
        &self,
        call: Call,
        at: EntryKey<'_>,
        effect: ReadEffect,
        visit: impl FnOnce(Option<EntryRef<'_>>) -> R,
    ) -> R {
        let used = call.mode == Mode::Apply && effect == ReadEffect::Use;
        self.read(call, at, visit, |core, slot, _| {
            if used {
                core.used(slot);
            }
            None
        })
    }

    pub(crate) fn get_and_touch<R>(
        &self,
        call: Call,
        at: EntryKey<'_>,
        expiry: Expiry,
        visit: impl FnOnce(Option<EntryRef<'_>>) -> R,
    ) -> R {
        self.read(call, at, visit, |core, slot, goes| {
            if call.mode == Mode::Apply {
                *goes = expiry.is_due(call.now);
                core.used(slot);
                if !*goes {
                    core.expire_at(slot, expiry);
                }
            }
            Some(expiry)
        })
    }

    /// Finds the entry, lets `change` do what the read does to it (it may say
    /// that the entry goes after, and which expiry to show), and shows it.
    fn read<R>(
        &self,
        call: Call,
        at: EntryKey<'_>,
        visit: impl FnOnce(Option<EntryRef<'_>>) -> R,
        change: impl FnOnce(&mut Core, u32, &mut bool) -> Option<Expiry>,
    ) -> R {
        let hash = self.partition.hash(at);
        let mut visit = Some(visit);
        let mut show = |entry: Option<EntryRef<'_>>| {
            let visit = visit.take().expect("one entry is shown once");
            visit(entry)
        };
        let found = self.partition.shard(hash).with(|core, trash| {
            let slot = self.live(core, call, at, hash, trash);
            if call.mode == Mode::Apply {
                let event = if slot.is_some() {
                    Event::Hit
                } else {
                    Event::Miss
                };
                core.note(&self.ledger, event);
            }
            let Some(slot) = slot else {
                return Found::Missing;
            };
            let mut goes = false;
            let shown_expiry = change(core, slot, &mut goes);
            let found = with_expiry(core.look(slot), shown_expiry, &mut show);
            if goes {
                core.remove(slot, Gone::Deleted, trash);
            }
            found
        });
        match found {
            Found::Seen(result) => result,
            Found::Large(value, meta) => show(Some(EntryRef {
                namespace: at.namespace.as_str(),
                key: at.key.as_bytes(),
                value: &value,
                meta,
            })),
            Found::Missing => show(None),
        }
    }

    /// Slot of the entry that this account sees under the key.
    pub(crate) fn live(
        &self,
        core: &mut Core,
        call: Call,
        at: EntryKey<'_>,
        hash: u64,
        trash: &mut Trash,
    ) -> Option<u32> {
        if self.ledger.is_closed() {
            return None;
        }
        match call.mode {
            Mode::Apply => core.find(at, hash, call.now, trash),
            Mode::DryRun => core.find_quietly(at, hash, call.now),
        }
    }
}

fn with_expiry<R>(
    mut present: Present<'_>,
    expiry: Option<Expiry>,
    show: &mut impl FnMut(Option<EntryRef<'_>>) -> R,
) -> Found<R> {
    present.meta.expiry = expiry.unwrap_or(present.meta.expiry);
    match present.large {
        Some(value) => Found::Large(Arc::clone(value), present.meta),
        None => Found::Seen(show(Some(present.entry()))),
    }
}
