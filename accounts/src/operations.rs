//! What administrators do with accounts and tokens.

use std::sync::Arc;

use larder_model::{AccountName, AccountUid, Mode};

use crate::account::{Account, AccountSettings, AccountUpdate, DEFAULT_ACCOUNT};
use crate::accounts::Accounts;
use crate::error::{AccountError, DatabaseError, FieldError, TokenError};
use crate::limits::{MAX_ACCOUNTS, MAX_TOKENS, MAX_TOKENS_PER_ACCOUNT};
use crate::page::{self, ListPage, PageRequest};
use crate::random;
use crate::receipt::{Effect, Made};
use crate::secret::Secret;
use crate::state::{Change, State};
use crate::time::UnixMillis;
use crate::token::{
    CreatedToken, NewToken, StoredToken, Token, TokenName, check_expire_time, check_rights,
};

/// The list of accounts, for page tokens.
const ACCOUNTS_LIST: &str = "accounts";

/// Accounts.
impl Accounts {
    /// Makes an account. A dry run returns it with empty uid and etag.
    ///
    /// # Errors
    /// [`AccountError::Field`], [`AlreadyExists`](AccountError::AlreadyExists),
    /// [`TooMany`](AccountError::TooMany), [`Database`](AccountError::Database).
    pub fn create_account<'e>(
        &self,
        name: AccountName,
        settings: AccountSettings,
        effect: impl Into<Effect<'e>>,
    ) -> Result<Arc<Account>, AccountError> {
        settings.check()?;
        let effect = effect.into();
        let mode = effect.mode;
        let database = self.begin(mode)?;
        self.read(|state| {
            if state.account(&name).is_some() {
                return Err(AccountError::AlreadyExists);
            }
            if state.account_count() >= MAX_ACCOUNTS {
                let limit = MAX_ACCOUNTS;
                return Err(AccountError::TooMany { limit });
            }
            Ok(())
        })?;
        if mode == Mode::DryRun {
            let mut account = Account::new(name, AccountUid::new(""), 1, settings);
            account.etag.clear();
            return Ok(account.into());
        }
        let uid = random::uid(&*self.entropy);
        let account = Arc::new(Account::new(name, uid, 1, settings));
        let receipt = effect.receipt_of(Made::Account(&account));
        let changes = vec![Change::PutAccount(Arc::clone(&account))];
        self.commit(database, changes, receipt)?;
        Ok(account)
    }

    /// The account, if there is one.
    pub fn account(&self, name: &AccountName) -> Option<Arc<Account>> {
        self.read(|state| state.account(name).cloned())
    }

    /// A page of the accounts, by name.
    ///
    /// # Errors
    /// [`FieldError`] on `page_size` or `page_token`.
    pub fn list_accounts(
        &self,
        request: PageRequest<'_>,
    ) -> Result<ListPage<Arc<Account>>, FieldError> {
        let limit = request.limit()?;
        let after = request.after(ACCOUNTS_LIST)?;
        let after = after
            .map(|name| AccountName::parse(&name))
            .transpose()
            .map_err(|error| FieldError::name("page_token", error))?;
        let items: Vec<_> = self.read(|state| {
            let after = state.accounts_after(after.as_ref());
            after.take(limit + 1).cloned().collect()
        });
        Ok(page::cut(ACCOUNTS_LIST, limit, items, |account| {
            account.name.as_str()
        }))
    }

    /// Changes an account, if its etag is still `etag`, or in any case if
    /// `etag` is empty. The etag changes even if nothing else does. Lowering a
    /// limit below what is in use takes nothing away.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`EtagMismatch`](AccountError::EtagMismatch),
    /// [`Field`](AccountError::Field), [`Database`](AccountError::Database).
    pub fn update_account<'e>(
        &self,
        name: &AccountName,
        update: AccountUpdate,
        etag: &str,
        effect: impl Into<Effect<'e>>,
    ) -> Result<Arc<Account>, AccountError> {
        let effect = effect.into();
        let mode = effect.mode;
        let database = self.begin(mode)?;
        let old = self.account(name).ok_or(AccountError::NotFound)?;
        if !etag.is_empty() && etag != old.etag {
            let current = old.etag.clone();
            return Err(AccountError::EtagMismatch { current });
        }
        let settings = old.settings.updated(update);
        settings.check()?;
        let revision = old.revision.saturating_add(1);
        let new = Account::new(name.clone(), old.uid.clone(), revision, settings);
        let new = Arc::new(new);
        if mode == Mode::Apply {
            let receipt = effect.receipt_of(Made::Account(&new));
            let changes = vec![Change::PutAccount(Arc::clone(&new))];
            self.commit(database, changes, receipt)?;
        }
        Ok(new)
    }

    /// Deletes an account and its tokens, and returns what it was. Its entries
    /// are the store's to forget.
    ///
    /// # Errors
    /// [`AccountError::Protected`] for [`DEFAULT_ACCOUNT`], which the
    /// administrator's token belongs to;
    /// [`NotFound`](AccountError::NotFound),
    /// [`Database`](AccountError::Database).
    pub fn delete_account<'e>(
        &self,
        name: &AccountName,
        effect: impl Into<Effect<'e>>,
    ) -> Result<Arc<Account>, AccountError> {
        let effect = effect.into();
        let mode = effect.mode;
        let database = self.begin(mode)?;
        let old = self.account(name).ok_or(AccountError::NotFound)?;
        if name.as_str() == DEFAULT_ACCOUNT {
            return Err(AccountError::Protected);
        }
        if mode == Mode::Apply {
            let receipt = effect.receipt_of(Made::Account(&old));
            self.commit(database, vec![Change::DropAccount(name.clone())], receipt)?;
        }
        Ok(old)
    }
}

/// Tokens.
impl Accounts {
    /// Makes a token. What is returned is the only time that the secret is
    /// shown; a dry run shows none.
    ///
    /// # Errors
    /// [`TokenError::Field`],
    /// [`AccountNotFound`](TokenError::AccountNotFound),
    /// [`AlreadyExists`](TokenError::AlreadyExists),
    /// [`TooMany`](TokenError::TooMany), [`Database`](TokenError::Database).
    pub fn create_token<'e>(
        &self,
        parent: &AccountName,
        new: NewToken,
        now: UnixMillis,
        effect: impl Into<Effect<'e>>,
    ) -> Result<CreatedToken, TokenError> {
        check_expire_time(new.expire_time, now)?;
        let rights = check_rights(new.actions, &new.namespaces, new.key_prefixes)?;
        let effect = effect.into();
        let mode = effect.mode;
        let database = self.begin(mode)?;
        self.read(|state| check_room(state, parent, new.secret.as_ref()))?;
        if mode == Mode::DryRun {
            let token = Token {
                name: TokenName::for_dry_run(parent.clone()),
                rights,
                expire_time: new.expire_time,
            };
            return Ok(CreatedToken {
                token: token.into(),
                secret: Secret::default(),
            });
        }
        let id = random::token_id(&*self.entropy);
        let secret = new
            .secret
            .unwrap_or_else(|| Secret::generate(&*self.entropy));
        let name = TokenName::in_account(parent.clone(), &id).map_err(DatabaseError::new)?;
        let digest = secret.digest();
        self.read(|state| check_fresh(state, &name, &secret))?;
        let token = Arc::new(Token {
            name,
            rights,
            expire_time: new.expire_time,
        });
        let stored = StoredToken {
            token: Arc::clone(&token),
            digest,
        };
        let receipt = effect.receipt_of(Made::Token(&token));
        self.commit(database, vec![Change::AddToken(stored)], receipt)?;
        Ok(CreatedToken { token, secret })
    }

    /// A page of an account's tokens, by id. Expired ones are among them until
    /// they are revoked.
    ///
    /// # Errors
    /// [`TokenError::AccountNotFound`], [`Field`](TokenError::Field).
    pub fn list_tokens(
        &self,
        parent: &AccountName,
        request: PageRequest<'_>,
    ) -> Result<ListPage<Arc<Token>>, TokenError> {
        let list = format!("accounts/{parent}/tokens");
        let limit = request.limit()?;
        let after = request.after(&list)?;
        let items: Vec<_> = self.read(|state| {
            let after = state
                .tokens_after(parent, after.as_deref())
                .ok_or(TokenError::AccountNotFound)?;
            let tokens = after.map(|stored| Arc::clone(&stored.token));
            Ok::<_, TokenError>(tokens.take(limit + 1).collect())
        })?;
        Ok(page::cut(&list, limit, items, |token| token.name.id()))
    }

    /// Makes a token useless for good, and returns what it was. The last
    /// administrator's token may go too: the next
    /// [`open`](Accounts::open) makes another.
    ///
    /// # Errors
    /// [`TokenError::AccountNotFound`], [`NotFound`](TokenError::NotFound),
    /// [`Database`](TokenError::Database).
    pub fn revoke_token<'e>(
        &self,
        name: &TokenName,
        effect: impl Into<Effect<'e>>,
    ) -> Result<Arc<Token>, TokenError> {
        let effect = effect.into();
        let mode = effect.mode;
        let database = self.begin(mode)?;
        let old = self.read(|state| {
            if state.account(name.account()).is_none() {
                return Err(TokenError::AccountNotFound);
            }
            let stored = state.token(name).ok_or(TokenError::NotFound)?;
            Ok(Arc::clone(&stored.token))
        })?;
        if mode == Mode::Apply {
            let receipt = effect.receipt_of(Made::Token(&old));
            self.commit(database, vec![Change::DropToken(name.clone())], receipt)?;
        }
        Ok(old)
    }
}

fn check_room(
    state: &State,
    parent: &AccountName,
    imported: Option<&Secret>,
) -> Result<(), TokenError> {
    if state.account(parent).is_none() {
        return Err(TokenError::AccountNotFound);
    }
    if imported.is_some_and(|secret| state.token_by_digest(&secret.digest()).is_some()) {
        return Err(TokenError::AlreadyExists);
    }
    for (count, limit) in [
        (state.token_count_of(parent), MAX_TOKENS_PER_ACCOUNT),
        (state.token_count(), MAX_TOKENS),
    ] {
        if count >= limit {
            return Err(TokenError::TooMany { limit });
        }
    }
    Ok(())
}

/// Random ids and secrets never meet, unless the source of randomness is
/// broken; then nothing may be overwritten.
fn check_fresh(state: &State, name: &TokenName, secret: &Secret) -> Result<(), DatabaseError> {
    if state.token(name).is_some() || state.token_by_digest(&secret.digest()).is_some() {
        return Err(DatabaseError::new(
            "the source of randomness repeats itself",
        ));
    }
    Ok(())
}
