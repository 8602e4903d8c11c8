//! The accounts that this server has seen: each with its handle in the store
//! and its rate limit.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_accounts::Account;
use larder_model::{AccountId, AccountName, Quota, Store};
use parking_lot::RwLock;

use crate::authority::{Grant, token_invalid};
use crate::clock;
use crate::failure::Failure;
use crate::in_flight::InFlight;
use crate::layers::shed;
use crate::rate::RateLimiter;

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
    /// When that was true.
    verified_at: Instant,
    pub(crate) handle: S::Account,
    /// Outlives a change of the quota: a new grant is no new second.
    limiter: Arc<RateLimiter>,
    /// As the limiter does.
    pub(crate) in_flight: Arc<InFlight>,
    /// Among the slots that tell accounts apart when the server sheds load.
    pub(crate) slot: u8,
}

impl<S: Store> Tenant<S> {
    pub(crate) fn name(&self) -> &AccountName {
        &self.grant.id.name
    }

    pub(crate) fn id(&self) -> &AccountId {
        &self.grant.id
    }

    /// Takes one call from the account's rate.
    ///
    /// # Errors
    /// How long to wait before the next try.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        self.limiter.take(now)
    }
}

/// The accounts in use, by name. One is added only for a credential that was
/// verified, so callers cannot make it grow.
pub(crate) struct Tenants<S: Store> {
    store: Arc<S>,
    accounts: RwLock<Accounts<S>>,
    generation: AtomicU64,
}

struct Accounts<S: Store> {
    by_name: HashMap<AccountName, Arc<Tenant<S>>>,
    /// Accounts deleted lately: a grant from before is worth nothing.
    closed: HashMap<AccountName, Instant>,
    /// Nobody outside can choose names that share a slot.
    slots: RandomState,
}

/// Any but that of callers who are not known.
fn slot(slots: &RandomState, name: &AccountName) -> u8 {
    const { assert!(shed::SLOTS == 1 << u8::BITS && shed::UNKNOWN == 0) };
    let slot = 1 + slots.hash_one(name) % u64::from(u8::MAX);
    slot.to_le_bytes()[0]
}

/// How long a deletion is remembered: longer than any call waits between its
/// verification and its use.
const CLOSED_FOR: Duration = Duration::from_secs(60);

impl<S: Store> Tenants<S> {
    pub(crate) fn new(store: Arc<S>) -> Self {
        let accounts = RwLock::new(Accounts {
            by_name: HashMap::new(),
            closed: HashMap::new(),
            slots: RandomState::new(),
        });
        Self {
            store,
            accounts,
            generation: AtomicU64::new(0),
        }
    }

    /// Grows whenever the tenant of a grant that there was may have become
    /// another. One atomic load.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Has every connection ask again who its callers are.
    pub(crate) fn doubt(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The tenant of a grant; opened anew when a later grant differs, so that a
    /// new quota holds from the next call on.
    ///
    /// # Errors
    /// The grant is of an account that is gone: a later one is of another
    /// account of the same name, or it was deleted since.
    pub(crate) fn of(&self, grant: &Grant) -> Result<Arc<Tenant<S>>, Failure> {
        if let Some(known) = self.accounts.read().known(grant) {
            return known;
        }
        let mut accounts = self.accounts.write();
        if let Some(known) = accounts.known(grant) {
            return known;
        }
        let account = &grant.account;
        let name = &account.id.name;
        let old = accounts
            .by_name
            .get(name)
            .filter(|old| old.grant.id == account.id);
        let limiter = old.map_or_else(Arc::default, |old| Arc::clone(&old.limiter));
        let in_flight = old.map_or_else(Arc::default, |old| Arc::clone(&old.in_flight));
        limiter.set_rate(account.max_requests_per_second);
        let tenant = Arc::new(Tenant {
            grant: account.clone(),
            verified_at: grant.verified_at,
            handle: self.store.open(&account.id, account.quota),
            limiter,
            in_flight,
            slot: slot(&accounts.slots, name),
        });
        let replaced = accounts.by_name.insert(name.clone(), Arc::clone(&tenant));
        if replaced.is_some() {
            self.generation.fetch_add(1, Ordering::Release);
        }
        Ok(tenant)
    }

    /// All of them, as of now.
    pub(crate) fn all(&self) -> Vec<Arc<Tenant<S>>> {
        self.accounts.read().by_name.values().cloned().collect()
    }

    /// Forgets an account and its entries.
    pub(crate) fn close(&self, name: &AccountName) {
        let now = clock::instant();
        {
            let mut accounts = self.accounts.write();
            accounts.by_name.remove(name);
            self.generation.fetch_add(1, Ordering::Release);
            accounts
                .closed
                .retain(|_, at| now.saturating_duration_since(*at) < CLOSED_FOR);
            accounts.closed.insert(name.clone(), now);
        }
        // It may walk all entries of a shared key space.
        self.store.close(name);
    }
}

impl<S: Store> Accounts<S> {
    /// What is already known of a grant's account; `None` if it must be opened.
    fn known(&self, grant: &Grant) -> Option<Result<Arc<Tenant<S>>, Failure>> {
        let name = &grant.account.id.name;
        if let Some(tenant) = self.by_name.get(name) {
            if tenant.grant == grant.account {
                return Some(Ok(Arc::clone(tenant)));
            }
            if grant.verified_at < tenant.verified_at {
                let same = tenant.grant.id == grant.account.id;
                return Some(if same {
                    Ok(Arc::clone(tenant))
                } else {
                    Err(token_invalid())
                });
            }
            return None;
        }
        let closed = self
            .closed
            .get(name)
            .is_some_and(|at| grant.verified_at <= *at);
        closed.then(|| Err(token_invalid()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(uid: &str, max_keys: u64, verified_at: Instant) -> Grant {
        Grant {
            account: AccountGrant {
                id: AccountId {
                    name: AccountName::parse("team-a").expect("a name"),
                    uid: larder_model::AccountUid::new(uid),
                },
                quota: Quota {
                    max_keys,
                    ..Quota::UNLIMITED
                },
                max_requests_per_second: Some(1),
            },
            rights: crate::authority::whole_account(),
            holder: crate::authority::Holder::Anonymous,
            verified_at,
        }
    }

    fn tenants() -> Tenants<larder_engine::Engine> {
        let store = larder_engine::Engine::new(larder_engine::EngineConfig {
            max_memory_bytes: 1 << 20,
            hash_seed: [0; 16],
            first_version: 1,
            keyspace: larder_engine::Keyspace::PerAccount,
        });
        Tenants::new(Arc::new(store))
    }

    #[test]
    fn an_older_grant_displaces_no_newer_one_and_a_closed_account_stays_closed() {
        let tenants = tenants();
        let start = clock::instant() - Duration::from_secs(1);
        let at = |ms| start + Duration::from_millis(ms);
        let check = |grant: &Grant, expected: Option<(&str, u64)>| {
            let got = tenants.of(grant).ok();
            let got = got
                .as_ref()
                .map(|t| (t.grant.id.uid.as_str(), t.grant.quota.max_keys));
            assert_eq!(got, expected, "{grant:?}");
        };
        check(&grant("1", 5, at(0)), Some(("1", 5)));
        check(&grant("1", 6, at(2)), Some(("1", 6)));
        // Verified before the quota changed: the later word holds.
        check(&grant("1", 5, at(1)), Some(("1", 6)));
        check(&grant("2", 7, at(3)), Some(("2", 7)));
        // The account that went before is no reason to empty this one.
        check(&grant("1", 6, at(2)), None);
        check(&grant("2", 7, at(3)), Some(("2", 7)));

        let name = AccountName::parse("team-a").expect("a name");
        tenants.close(&name);
        check(&grant("2", 7, at(3)), None);
        check(
            &grant("3", 8, clock::instant() + Duration::from_millis(1)),
            Some(("3", 8)),
        );
    }

    #[test]
    fn no_account_has_the_slot_of_callers_who_are_not_known() {
        let slots = RandomState::new();
        let names = (0..5000).map(|number| format!("team-{number}"));
        let taken: std::collections::BTreeSet<u8> = names
            .map(|name| slot(&slots, &AccountName::parse(&name).expect("a name")))
            .collect();
        let all_others: Vec<u8> = (1..=u8::MAX).collect();
        assert_eq!(Vec::from_iter(taken), all_others);
    }

    #[test]
    fn a_new_quota_is_no_new_second() {
        let tenants = tenants();
        let now = clock::instant();
        let first = tenants.of(&grant("1", 5, now)).expect("a tenant");
        assert!(first.take(now).is_ok());
        let second = tenants
            .of(&grant("1", 6, now + Duration::from_millis(1)))
            .expect("a tenant");
        assert!(
            second.take(now).is_err(),
            "one a second, whatever the quota"
        );
    }
}
