//! Callers that were verified lately, on any connection: a proxy sends those of
//! many accounts over one, and a client may open many.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashTable;
use larder_accounts::TokenRights;
use larder_model::Store;
use parking_lot::Mutex;

use crate::authority::Grant;
use crate::core::{Core, Epoch};
use crate::telemetry::meter::{AccountMeter, Meter};
use crate::tenants::Tenant;

/// What a credential was verified to stand for.
pub(crate) struct Verified<S: Store> {
    pub(crate) tenant: Arc<Tenant<S>>,
    pub(crate) grant: Arc<Grant>,
    /// What it follows from, read before the credential was verified.
    pub(crate) epoch: Epoch,
    /// How long it holds even so.
    pub(crate) until: Option<Instant>,
    pub(crate) proof: Proof,
}

impl<S: Store> Verified<S> {
    pub(crate) fn rights(&self) -> &TokenRights {
        &self.grant.rights
    }

    /// True while nothing has changed that could make the same credential stand
    /// for something else.
    pub(crate) fn is_current(&self, core: &Core<S>, now: Instant) -> bool {
        self.epoch == core.epoch() && self.until.is_none_or(|until| now < until)
    }
}

/// Whose call it is, and what they may do. From the credential, never from a
/// field of the v1 contract.
///
/// Each connection has its own, so that no two threads count references of one.
pub(crate) struct Identity<S: Store> {
    verified: Arc<Verified<S>>,
    /// Where the thread of its connection counts what it does.
    pub(crate) meter: Arc<AccountMeter>,
}

impl<S: Store> Identity<S> {
    pub(crate) fn new(verified: Arc<Verified<S>>, meter: &Meter) -> Arc<Self> {
        let meter = meter.account(verified.tenant.name());
        Arc::new(Self { verified, meter })
    }
}

impl<S: Store> Deref for Identity<S> {
    type Target = Verified<S>;

    fn deref(&self) -> &Verified<S> {
        &self.verified
    }
}

/// What a caller is recognised by.
#[derive(Clone)]
pub(crate) struct Proof {
    hash: u64,
    /// `None` for callers without a credential.
    secret: Option<Box<str>>,
}

/// The same, as it stands in a request.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    hash: u64,
    secret: Option<&'a str>,
}

impl Given<'_> {
    pub(crate) const fn is_anonymous(self) -> bool {
        self.secret.is_none()
    }
}

impl Proof {
    pub(crate) fn is(&self, given: Given<'_>) -> bool {
        self.hash == given.hash
            && match (&self.secret, given.secret) {
                (Some(known), Some(given)) => same_secret(known.as_bytes(), given.as_bytes()),
                (None, None) => true,
                _ => false,
            }
    }
}

impl From<Given<'_>> for Proof {
    fn from(given: Given<'_>) -> Self {
        Self {
            hash: given.hash,
            secret: given.secret.map(Into::into),
        }
    }
}

/// Parts that are locked each by itself.
const PARTS: usize = 64;
/// Callers in a part; at the next it begins anew. With tokens of 60 bytes all of
/// them take some 16 MiB, and only verified ones are kept.
const MAX_CALLERS: usize = 1024;

type Part<S> = Mutex<HashTable<Arc<Verified<S>>>>;

/// Callers that were verified lately.
pub(crate) struct Callers<S: Store> {
    /// Keyed anew by each process: nobody can crowd a part.
    hasher: RandomState,
    parts: Box<[Part<S>]>,
}

impl<S: Store> Callers<S> {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
        }
    }

    /// What a request gives to recognise its caller by.
    pub(crate) fn given<'a>(&self, secret: Option<&'a str>) -> Given<'a> {
        Given {
            hash: secret.map_or(0, |secret| self.hasher.hash_one(secret)),
            secret,
        }
    }

    /// The caller, whether or not that still holds.
    pub(crate) fn recall(&self, given: Given<'_>) -> Option<Arc<Verified<S>>> {
        let part = self.part(given.hash).lock();
        part.find(given.hash, |known| known.proof.is(given))
            .map(Arc::clone)
    }

    /// Remembers a caller in place of what was known of it.
    pub(crate) fn remember(&self, given: Given<'_>, verified: &Arc<Verified<S>>) {
        let mut part = self.part(given.hash).lock();
        let known = part.find_mut(given.hash, |known| known.proof.is(given));
        let _before = match known {
            Some(known) => {
                let before = std::mem::replace(known, Arc::clone(verified));
                drop(part);
                (Some(before), None)
            }
            None => {
                let all = (part.len() >= MAX_CALLERS).then(|| std::mem::take(&mut *part));
                part.insert_unique(given.hash, Arc::clone(verified), |known| known.proof.hash);
                drop(part);
                (None, all)
            }
        };
    }

    fn part(&self, hash: u64) -> &Part<S> {
        // Bits that the table of a part uses last.
        &self.parts[usize::from(hash.to_le_bytes()[6]) % PARTS]
    }
}

/// Takes as long wherever two secrets of one length differ: behind a proxy,
/// callers who must not learn of one another's share a connection.
pub(crate) fn same_secret(known: &[u8], given: &[u8]) -> bool {
    let differences = |differs, (a, b): (&u8, &u8)| differs | (a ^ b);
    known.len() == given.len() && known.iter().zip(given).fold(0, differences) == 0
}

#[cfg(test)]
mod tests {
    use larder_model::{AccountId, AccountName, AccountUid, Quota};

    use super::*;
    use crate::clock;
    use crate::tenants::{AccountGrant, Tenants};

    type Store = larder_engine::Engine;

    fn verified(callers: &Callers<Store>, secret: &str, keys: u64) -> Arc<Verified<Store>> {
        let store = larder_engine::Engine::new(larder_engine::EngineConfig {
            max_memory_bytes: 1 << 20,
            hash_seed: [0; 16],
            first_version: 1,
            keyspace: larder_engine::Keyspace::PerAccount,
        });
        let grant = Arc::new(Grant {
            account: AccountGrant {
                id: AccountId {
                    name: AccountName::parse("team-a").expect("a name"),
                    uid: AccountUid::new("1"),
                },
                quota: Quota {
                    max_keys: keys,
                    ..Quota::UNLIMITED
                },
                max_requests_per_second: None,
            },
            rights: crate::authority::whole_account(),
            holder: crate::authority::Holder::Anonymous,
            verified_at: clock::instant(),
        });
        Arc::new(Verified {
            tenant: Tenants::new(Arc::new(store)).of(&grant).expect("a tenant"),
            grant,
            epoch: Epoch::default(),
            until: None,
            proof: callers.given(Some(secret)).into(),
        })
    }

    #[test]
    fn callers_are_known_by_their_whole_secret_and_the_last_word_on_them_holds() {
        let callers = Callers::new();
        let keys_of = |secret: &str| {
            let known = callers.recall(callers.given(Some(secret)));
            known.map(|known| known.grant.account.quota.max_keys)
        };
        for (secret, keys) in [("a", 1), ("b", 2), ("a", 3)] {
            let verified = verified(&callers, secret, keys);
            callers.remember(callers.given(Some(secret)), &verified);
        }
        assert_eq!(keys_of("a"), Some(3));
        assert_eq!(keys_of("b"), Some(2));
        assert_eq!(keys_of("ab"), None);
        assert_eq!(keys_of(""), None);
    }

    #[test]
    fn a_part_that_is_full_begins_anew() {
        let callers = Callers::new();
        let original = verified(&callers, "0", 1);
        for number in 0..2 * PARTS * MAX_CALLERS {
            let secret = number.to_string();
            let given = callers.given(Some(&secret));
            let another = Verified {
                tenant: Arc::clone(&original.tenant),
                grant: Arc::clone(&original.grant),
                epoch: original.epoch,
                until: None,
                proof: given.into(),
            };
            callers.remember(given, &Arc::new(another));
            assert!(callers.recall(given).is_some());
        }
        let held = callers.parts.iter().map(|part| part.lock().len());
        assert!(held.max() <= Some(MAX_CALLERS));
    }

    #[test]
    fn secrets_are_the_same_or_not() {
        let check = |known: &[u8], given: &[u8], same: bool| {
            assert_eq!(same_secret(known, given), same, "{known:?} {given:?}");
        };
        check(b"abc", b"abc", true);
        check(b"", b"", true);
        check(b"abc", b"abd", false);
        check(b"abc", b"ab", false);
        check(b"xbc", b"abc", false);
    }
}
