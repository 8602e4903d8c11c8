//! Which accounts there are.

use std::collections::HashMap;
use std::sync::Arc;

use larder_model::{AccountId, AccountName};

use crate::engine::Account;
use crate::ledger::Ledger;
use crate::once::Requests;
use crate::partition::Partition;

/// One account in one life.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) partition: Arc<Partition>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) requests: Requests,
}

#[derive(Debug)]
struct Seat {
    id: AccountId,
    tenant: Arc<Tenant>,
}

/// The accounts, by name and in a row that can be walked by number.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    by_name: HashMap<AccountName, usize>,
    seats: Vec<Seat>,
    /// Numbers of ledgers that have gone; their entries too.
    free_numbers: Vec<u32>,
    numbers: u32,
    /// Partitions made so far.
    pub(crate) births: u64,
    /// Above every version that a forgotten partition gave out: an account
    /// that comes back never repeats one.
    pub(crate) first_version: u64,
    /// Versions are kept as what they are above this one.
    pub(crate) oldest_version: u64,
}

impl Registry {
    pub(crate) fn new(first_version: u64, oldest_version: u64) -> Self {
        Self {
            first_version,
            oldest_version,
            ..Self::default()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.seats.len()
    }

    pub(crate) fn at(&self, seat: usize) -> Option<&Arc<Tenant>> {
        self.seats.get(seat).map(|seat| &seat.tenant)
    }

    pub(crate) fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.seats.iter().map(|seat| &seat.tenant)
    }

    /// All of them, for a walk.
    pub(crate) fn accounts(&self) -> Vec<(AccountId, Account)> {
        let seats = self.seats.iter();
        seats
            .map(|seat| (seat.id.clone(), Account(Arc::clone(&seat.tenant))))
            .collect()
    }

    /// The account, if it is there in this life.
    pub(crate) fn find(&self, id: &AccountId) -> Option<&Arc<Tenant>> {
        let seat = &self.seats[*self.by_name.get(&id.name)?];
        (seat.id.uid == id.uid).then_some(&seat.tenant)
    }

    pub(crate) fn insert(&mut self, id: AccountId, tenant: Arc<Tenant>) {
        self.by_name.insert(id.name.clone(), self.seats.len());
        self.seats.push(Seat { id, tenant });
    }

    pub(crate) fn remove(&mut self, name: &AccountName) -> Option<Arc<Tenant>> {
        let at = self.by_name.remove(name)?;
        let seat = self.seats.swap_remove(at);
        if let Some(moved) = self.seats.get(at) {
            self.by_name.insert(moved.id.name.clone(), at);
        }
        let end = seat.tenant.partition.end_version();
        self.first_version = self.first_version.max(end);
        Some(seat.tenant)
    }

    /// Removes the account in a seat if it has no entry, remembers no request, and
    /// nobody holds a handle.
    pub(crate) fn remove_idle(&mut self, seat: usize) -> Option<Arc<Tenant>> {
        let Seat { id, tenant } = self.seats.get(seat)?;
        let is_empty = tenant.ledger.reserved().keys == 0 && tenant.requests.is_empty();
        let is_idle = Arc::strong_count(tenant) == 1 && is_empty;
        let name = id.name.clone();
        if is_idle { self.remove(&name) } else { None }
    }

    /// A number for a new ledger.
    pub(crate) fn take_number(&mut self) -> u32 {
        self.free_numbers.pop().unwrap_or_else(|| {
            self.numbers += 1;
            self.numbers - 1
        })
    }

    /// Gives a number back once no entry bears it.
    pub(crate) fn free_number(&mut self, number: u32) {
        self.free_numbers.push(number);
    }
}
