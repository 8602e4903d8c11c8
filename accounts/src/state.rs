//! Everything in memory, as it is on disk.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use larder_model::AccountName;

use crate::account::{Account, default_account};
use crate::limits::{MAX_ACCOUNTS, MAX_STORED_TOKENS};
use crate::receipt::Receipt;
use crate::secret::SecretDigest;
use crate::token::{StoredToken, TokenName};

/// Accounts by name, their tokens by id, and every token by the digest of its
/// secret.
#[derive(Debug, Default)]
pub(crate) struct State {
    accounts: BTreeMap<AccountName, Tenant>,
    by_digest: HashMap<SecretDigest, StoredToken>,
    /// The administrator's token in the data directory, also after it was
    /// revoked.
    bootstrap: Option<TokenName>,
}

#[derive(Debug)]
struct Tenant {
    account: Arc<Account>,
    tokens: BTreeMap<Box<str>, StoredToken>,
}

/// One step of a mutation. The database and the memory are changed by the
/// same list of steps.
#[derive(Debug)]
pub(crate) enum Change {
    /// A new account, or an account's new settings.
    PutAccount(Arc<Account>),
    /// An account and its tokens go.
    DropAccount(AccountName),
    /// A new token.
    AddToken(StoredToken),
    /// A token goes.
    DropToken(TokenName),
    /// This token is the one in the data directory.
    SetBootstrap(TokenName),
    /// What a change with a request id leaves behind.
    PutReceipt(Receipt),
    /// The receipt of this id goes.
    DropReceipt(String),
}

impl State {
    pub(crate) fn account(&self, name: &AccountName) -> Option<&Arc<Account>> {
        self.accounts.get(name).map(|tenant| &tenant.account)
    }

    /// False for no sound database.
    pub(crate) fn has_default_account(&self) -> bool {
        self.accounts.contains_key(&default_account())
    }

    pub(crate) fn account_count(&self) -> usize {
        self.accounts.len()
    }

    /// Accounts after `after`, by name.
    pub(crate) fn accounts_after(
        &self,
        after: Option<&AccountName>,
    ) -> impl Iterator<Item = &Arc<Account>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.accounts
            .range::<AccountName, _>((from, Bound::Unbounded))
            .map(|(_, tenant)| &tenant.account)
    }

    pub(crate) fn token(&self, name: &TokenName) -> Option<&StoredToken> {
        self.accounts.get(name.account())?.tokens.get(name.id())
    }

    pub(crate) fn token_by_digest(&self, digest: &SecretDigest) -> Option<&StoredToken> {
        self.by_digest
            .get(digest)
            .filter(|stored| stored.digest.matches(digest))
    }

    pub(crate) fn token_count(&self) -> usize {
        self.by_digest.len()
    }

    /// Tokens of one account; 0 if there is none.
    pub(crate) fn token_count_of(&self, account: &AccountName) -> usize {
        self.accounts
            .get(account)
            .map_or(0, |tenant| tenant.tokens.len())
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = &StoredToken> {
        self.by_digest.values()
    }

    /// Tokens of one account after the id `after`, by id; `None` if there is
    /// no such account.
    pub(crate) fn tokens_after(
        &self,
        account: &AccountName,
        after: Option<&str>,
    ) -> Option<impl Iterator<Item = &StoredToken>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tenant = self.accounts.get(account)?;
        let range = tenant.tokens.range::<str, _>((from, Bound::Unbounded));
        Some(range.map(|(_, stored)| stored))
    }

    pub(crate) fn bootstrap(&self) -> Option<&TokenName> {
        self.bootstrap.as_ref()
    }

    /// Adds what was read from the database, or says why it cannot be whole.
    pub(crate) fn load(&mut self, change: Change) -> Result<(), String> {
        if let Change::AddToken(stored) = &change {
            let name = &stored.token.name;
            if self.account(name.account()).is_none() {
                return Err(format!("{name} has no account"));
            }
            if self.by_digest.contains_key(&stored.digest) {
                return Err(format!("{name} has the secret of another token"));
            }
        }
        self.apply(change);
        if self.account_count() > MAX_ACCOUNTS {
            return Err(format!("more than {MAX_ACCOUNTS} accounts"));
        }
        if self.token_count() > MAX_STORED_TOKENS {
            return Err(format!("more than {MAX_STORED_TOKENS} tokens"));
        }
        Ok(())
    }

    /// Makes a change that was checked and is on disk.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::PutAccount(account) => self.put_account(account),
            Change::DropAccount(name) => {
                let tenant = self.accounts.remove(&name);
                for stored in tenant.iter().flat_map(|tenant| tenant.tokens.values()) {
                    self.by_digest.remove(&stored.digest);
                }
            }
            Change::AddToken(stored) => {
                let name = &stored.token.name;
                if let Some(tenant) = self.accounts.get_mut(name.account()) {
                    tenant.tokens.insert(name.id().into(), stored.clone());
                    self.by_digest.insert(stored.digest, stored);
                }
            }
            Change::DropToken(name) => {
                let tenant = self.accounts.get_mut(name.account());
                if let Some(stored) = tenant.and_then(|tenant| tenant.tokens.remove(name.id())) {
                    self.by_digest.remove(&stored.digest);
                }
            }
            Change::SetBootstrap(name) => self.bootstrap = Some(name),
            // They are on the disk alone.
            Change::PutReceipt(_) | Change::DropReceipt(_) => {}
        }
    }

    fn put_account(&mut self, account: Arc<Account>) {
        match self.accounts.get_mut(&account.name) {
            Some(tenant) => tenant.account = account,
            None => {
                let tenant = Tenant {
                    account: Arc::clone(&account),
                    tokens: BTreeMap::new(),
                };
                self.accounts.insert(account.name.clone(), tenant);
            }
        }
    }
}
