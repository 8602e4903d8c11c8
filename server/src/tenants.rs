//! The accounts that this server has seen: each with its handle in the store
//! and its rate limit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_accounts::Account;
use larder_model::{AccountId, AccountName, Quota, Store};
use parking_lot::RwLock;

use crate::clock;

/// What is known of an account from whoever vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountGrant {
    pub(crate) id: AccountId,
    pub(crate) quota: Quota,
    /// `None` means no limit.
    pub(crate) max_requests_per_second: Option<u64>,
}

impl From<&Account> for AccountGrant {
    fn from(account: &Account) -> Self {
        Self {
            id: account.id(),
            quota: account.quota(),
            max_requests_per_second: account.max_requests_per_second(),
        }
    }
}

/// An account in use.
pub(crate) struct Tenant<S: Store> {
    grant: AccountGrant,
    pub(crate) handle: S::Account,
    limiter: Option<RateLimiter>,
}

impl<S: Store> Tenant<S> {
    pub(crate) fn name(&self) -> &AccountName {
        &self.grant.id.name
    }

    /// Takes one call from the account's rate.
    ///
    /// # Errors
    /// How long to wait before the next try.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        self.limiter.as_ref().map_or(Ok(()), RateLimiter::take)
    }
}

/// The accounts in use, by name. One is added only for a credential that was
/// verified, so callers cannot make it grow.
pub(crate) struct Tenants<S: Store> {
    store: Arc<S>,
    by_name: RwLock<HashMap<AccountName, Arc<Tenant<S>>>>,
}

impl<S: Store> Tenants<S> {
    pub(crate) fn new(store: Arc<S>) -> Self {
        Self {
            store,
            by_name: RwLock::new(HashMap::new()),
        }
    }

    /// The tenant of a grant; opened anew when the grant has changed, so that a
    /// new quota holds from the next call on.
    pub(crate) fn of(&self, grant: &AccountGrant) -> Arc<Tenant<S>> {
        if let Some(tenant) = self.by_name.read().get(&grant.id.name)
            && tenant.grant == *grant
        {
            return Arc::clone(tenant);
        }
        let mut tenants = self.by_name.write();
        if let Some(tenant) = tenants.get(&grant.id.name)
            && tenant.grant == *grant
        {
            return Arc::clone(tenant);
        }
        let tenant = Arc::new(Tenant {
            grant: grant.clone(),
            handle: self.store.open(&grant.id, grant.quota),
            limiter: grant.max_requests_per_second.map(RateLimiter::new),
        });
        tenants.insert(grant.id.name.clone(), Arc::clone(&tenant));
        tenant
    }

    /// Forgets an account and its entries.
    pub(crate) fn close(&self, name: &AccountName) {
        // Under the lock, so that nobody opens it again in between.
        let mut tenants = self.by_name.write();
        tenants.remove(name);
        self.store.close(name);
    }
}

/// The generic cell rate algorithm (ITU-T I.371): one atomic, no timer. Lets a
/// second's worth of calls through in a burst.
struct RateLimiter {
    origin: Instant,
    /// Nanoseconds between two calls at the full rate.
    interval_ns: u64,
    /// Theoretical arrival time of the next call, nanoseconds since `origin`.
    next_ns: AtomicU64,
}

const BURST: Duration = Duration::from_secs(1);

impl RateLimiter {
    fn new(per_second: u64) -> Self {
        Self {
            origin: clock::instant(),
            interval_ns: (nanos(BURST) / per_second.max(1)).max(1),
            next_ns: AtomicU64::new(0),
        }
    }

    fn take(&self) -> Result<(), Duration> {
        self.take_at(nanos(
            clock::instant().saturating_duration_since(self.origin),
        ))
    }

    fn take_at(&self, now_ns: u64) -> Result<(), Duration> {
        // At least one call fits, however low the rate.
        let burst_ns = nanos(BURST).saturating_sub(self.interval_ns);
        let step = |next: u64| {
            let arrival = next.max(now_ns);
            (arrival - now_ns <= burst_ns).then(|| arrival.saturating_add(self.interval_ns))
        };
        self.next_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .map(|_| ())
            .map_err(|next| Duration::from_nanos(next - now_ns - burst_ns))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(per_second: u64, takes: &[(u64, Result<(), u64>)]) {
        let limiter = RateLimiter::new(per_second);
        for (at_ms, expected) in takes {
            let got = limiter.take_at(at_ms * 1_000_000);
            let got = got.map_err(|wait| u64::try_from(wait.as_millis()).expect("short"));
            assert_eq!(got, *expected, "{per_second} a second, at {at_ms} ms");
        }
    }

    #[test]
    fn rate_limit_lets_a_second_of_calls_through_and_then_the_rate() {
        check(
            2,
            &[
                (0, Ok(())),
                (0, Ok(())),
                (0, Err(500)),
                (400, Err(100)),
                (500, Ok(())),
            ],
        );
        check(
            1,
            &[(0, Ok(())), (1, Err(999)), (1000, Ok(())), (1001, Err(999))],
        );
        // A long silence saves up no more than the burst.
        check(1, &[(0, Ok(())), (60_000, Ok(())), (60_000, Err(1000))]);
    }
}
