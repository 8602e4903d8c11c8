//! A walk over all accounts.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_model::{AccountId, EntryMeta, EntryRef, Quota, Time};

use super::requests::RequestPosition;
use crate::engine::{Account, Engine};
use crate::partition::Partition;
use crate::shard::Core;
use crate::walk::{Position, Step};

/// Whose entry it is.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// Its place among [`Walk::accounts`].
    pub number: usize,
    /// The account.
    pub id: &'a AccountId,
}

/// A walk over the entries of all accounts that there were when it began.
///
/// It takes no copy and holds no lock between its steps: calls go on. What it
/// shows of an entry is what that is at the moment of the step, so that the whole
/// is of no single moment, but:
/// - an entry that lives throughout is shown exactly once, with a version it had
///   after the walk began;
/// - an entry that was deleted before the walk began is not shown;
/// - of a key that is shown twice — it was deleted and written again meanwhile —
///   the later one is the later write.
///
/// While nobody calls, it is exact. It holds a handle of each account, 8 bytes,
/// and the account's name.
#[derive(Debug)]
pub struct Walk {
    pub(super) accounts: Vec<(AccountId, Account)>,
    /// In a shared key space: by the number of its ledger, an account's place.
    by_number: BTreeMap<u32, usize>,
    shared: Option<Arc<Partition>>,
    at: usize,
    position: Position,
    pub(super) request_position: RequestPosition,
}

/// A large value that a step met: visited when the lock was given back.
struct Aside {
    owner: usize,
    namespace: Box<str>,
    key: Box<[u8]>,
    value: Arc<[u8]>,
    meta: EntryMeta,
}

impl Engine {
    /// Begins a walk over everything. One lock for reading, and a clone of each
    /// account's name.
    pub fn walk(&self) -> Walk {
        let accounts = self.registry().read().accounts();
        let numbers = accounts.iter().map(|(_, account)| account.0.ledger.number);
        Walk {
            by_number: numbers.zip(0..).collect(),
            accounts,
            shared: self.shared_partition().map(Arc::clone),
            at: 0,
            position: Position::default(),
            request_position: RequestPosition::default(),
        }
    }
}

impl Walk {
    /// The accounts, each with the quota it has now.
    pub fn accounts(&self) -> impl Iterator<Item = (&AccountId, Quota)> {
        self.accounts
            .iter()
            .map(|(id, account)| (id, account.0.ledger.usage().quota))
    }

    /// One step: shows entries that are live at `now` to `visit`, which should only
    /// copy. Holds one lock, for 256 slots or 64 KiB; a value over 16 KiB is
    /// shown without it. False at the end.
    pub fn step(&mut self, now: Time, mut visit: impl FnMut(Owner<'_>, EntryRef<'_>)) -> bool {
        let Some(partition) = self.partition() else {
            return false;
        };
        if self.position.is_past(&partition) {
            self.at += 1;
            self.position = Position::default();
            return true;
        }
        let mut aside = None;
        let (accounts, by_number) = (&self.accounts, &self.by_number);
        let only = self.shared.is_none().then_some(self.at);
        let mut position = self.position;
        Step::PLAIN.take(&partition, &mut position, now, |core, slot, _| {
            let Some(owner) = only.or_else(|| owner_of(accounts, by_number, core, slot)) else {
                return 0;
            };
            let entry = core.look(slot).entry();
            if let Some(value) = core.look(slot).large {
                aside = Some(Aside {
                    owner,
                    namespace: entry.namespace.into(),
                    key: entry.key.into(),
                    value: Arc::clone(value),
                    meta: entry.meta,
                });
                return usize::MAX;
            }
            visit(named(accounts, owner), entry);
            entry.key.len() + entry.value.len()
        });
        self.position = position;
        if let Some(aside) = aside {
            let entry = EntryRef {
                namespace: &aside.namespace,
                key: &aside.key,
                value: &aside.value,
                meta: aside.meta,
            };
            visit(named(accounts, aside.owner), entry);
        }
        true
    }

    /// Where the walk is; `None` at its end.
    fn partition(&self) -> Option<Arc<Partition>> {
        match &self.shared {
            Some(shared) => (self.at == 0).then(|| Arc::clone(shared)),
            None => {
                let (_, account) = self.accounts.get(self.at)?;
                Some(Arc::clone(&account.0.partition))
            }
        }
    }
}

fn named(accounts: &[(AccountId, Account)], number: usize) -> Owner<'_> {
    let id = &accounts[number].0;
    Owner { number, id }
}

/// In a shared key space: who made an entry. An account that is newer than the
/// walk may bear the number of one that has gone: its entries are left out.
fn owner_of(
    accounts: &[(AccountId, Account)],
    by_number: &BTreeMap<u32, usize>,
    core: &Core,
    slot: u32,
) -> Option<usize> {
    let owner = core.owner(slot);
    let number = *by_number.get(&owner.number)?;
    Arc::ptr_eq(&accounts[number].1.0.ledger, owner).then_some(number)
}
