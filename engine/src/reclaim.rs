//! Whose entries go when memory is short.
//!
//! Those of the account that uses most, whatever it may use: its own policy
//! rules its quota, memory is everybody's. To know who that is, a search looks
//! at a window of the accounts and keeps the heaviest few; each of them gives
//! until it is down by an eighth, and then the next search looks at the next
//! window. Up to [`WINDOW`] accounts that is exact but for the eighth; beyond,
//! the heaviest of a window may be lighter than one outside it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::registry::{Registry, Tenant};

/// Accounts that one search looks at; about 100 µs.
const WINDOW: usize = 1024;

/// Heaviest accounts that one search remembers.
const REMEMBERED: usize = 16;

/// What an account gives before the next is asked: this part of what it had.
const GIVES: u64 = 8;

/// An account that is to give, and down to what.
#[derive(Debug)]
pub(crate) struct Heavy {
    tenant: Weak<Tenant>,
    down_to: u64,
}

/// Remembers who gives.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    /// The heaviest last.
    heavy: Mutex<Vec<Heavy>>,
    next_seat: AtomicUsize,
}

impl Reclaim {
    /// The account to take from next, if one is remembered.
    pub(crate) fn heaviest(&self) -> Option<Arc<Tenant>> {
        let mut heavy = self.heavy.lock();
        while let Some(last) = heavy.last() {
            match last.tenant.upgrade() {
                Some(tenant) if claim(&tenant) > last.down_to => return Some(tenant),
                _ => drop(heavy.pop()),
            }
        }
        None
    }

    /// Asks the heaviest no more: it has nothing that may go.
    pub(crate) fn forget_heaviest(&self) {
        self.heavy.lock().pop();
    }

    /// Remembers who gives from now on.
    pub(crate) fn remember(&self, heavy: Vec<Heavy>) {
        *self.heavy.lock() = heavy;
    }

    /// Finds the heaviest accounts of the next window.
    pub(crate) fn search(&self, registry: &Registry) -> Vec<Heavy> {
        let seats = registry.len();
        let start = self.next_seat.fetch_add(WINDOW.min(seats), Relaxed);
        let window = (0..seats.min(WINDOW)).map(|offset| start.wrapping_add(offset) % seats);
        let mut found: Vec<_> = window
            .filter_map(|seat| registry.at(seat))
            .map(|tenant| (claim(tenant), tenant))
            .filter(|(charged, _)| *charged > 0)
            .collect();
        found.sort_unstable_by_key(|(charged, _)| *charged);
        let skip = found.len().saturating_sub(REMEMBERED);
        let lightest = found.get(skip).map_or(0, |(charged, _)| *charged);
        let heavy = found.drain(skip..).map(|(charged, tenant)| Heavy {
            tenant: Arc::downgrade(tenant),
            // Never below the lightest of them, so that the heavy are levelled
            // before any of them gives more than it must.
            down_to: (charged - charged.div_ceil(GIVES)).max(lightest.saturating_sub(1)),
        });
        heavy.collect()
    }
}

/// What an account has to give: all that it is charged with. (An account that
/// has memory reserved would have that taken off here.)
fn claim(tenant: &Tenant) -> u64 {
    tenant.partition.charged()
}
