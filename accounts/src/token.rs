//! Tokens, and what they may do.

use std::fmt;
use std::sync::Arc;

use larder_model::{AccountName, Namespace};

use crate::error::FieldError;
use crate::limits::{
    MAX_EXPIRE_TIME_MS, MAX_KEY_PREFIX_BYTES, MAX_TOKEN_NAMESPACES, MAX_TOKEN_PREFIXES,
};
use crate::secret::{Secret, SecretDigest};
use crate::time::UnixMillis;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Get, list, dump, watch.
    Read,
    /// Set, delete, increment, load.
    Write,
    /// The control plane, of every account.
    Admin,
    /// Verify tokens: a cache server's credential.
    Verify,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Admin, Self::Verify];

    const fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Admin => 4,
            Self::Verify => 8,
        }
    }
}

/// A set of [`Action`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Actions(u8);

impl Actions {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// What a token may do whose maker named no action.
    pub const READ_WRITE: Self = Self(Action::Read.bit() | Action::Write.bit());
    /// All of them: the administrator's token.
    pub const ALL: Self = Self(Self::READ_WRITE.0 | Action::Admin.bit() | Action::Verify.bit());

    /// This set and `action`.
    #[must_use]
    pub const fn with(self, action: Action) -> Self {
        Self(self.0 | action.bit())
    }

    /// True when `action` is in the set.
    pub const fn contains(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    /// True when nothing is.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in the set, in the order of [`Action::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL
            .into_iter()
            .filter(move |action| self.contains(*action))
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !Self::ALL.0 == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Resource name of a token, `accounts/{account}/tokens/{token}`; not secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenName {
    account: AccountName,
    id: Box<str>,
}

impl TokenName {
    /// Stands for the id in the answer of a dry run; no token has it, and
    /// [`parse`](Self::parse) refuses it.
    pub const DRY_RUN_ID: &'static str = "-";

    /// Parses a resource name. `field` is the request's field that holds it,
    /// for the error.
    ///
    /// # Errors
    /// [`FieldError`] on `field`.
    pub fn parse(field: &'static str, resource: &str) -> Result<Self, FieldError> {
        let parts = resource
            .strip_prefix("accounts/")
            .and_then(|rest| rest.split_once("/tokens/"));
        let Some((account, id)) = parts else {
            return Err(FieldError::new(
                field,
                "must be accounts/{account}/tokens/{token}",
            ));
        };
        let account =
            AccountName::parse(account).map_err(|error| FieldError::name(field, error))?;
        Self::in_account(account, id).map_err(|error| FieldError::name(field, error))
    }

    /// The token's account.
    pub const fn account(&self) -> &AccountName {
        &self.account
    }

    /// The last part.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn in_account(
        account: AccountName,
        id: &str,
    ) -> Result<Self, larder_model::NameError> {
        // Ids follow the rule of account names.
        AccountName::parse(id)?;
        Ok(Self {
            account,
            id: id.into(),
        })
    }

    pub(crate) fn for_dry_run(account: AccountName) -> Self {
        Self {
            account,
            id: Self::DRY_RUN_ID.into(),
        }
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accounts/{}/tokens/{}", self.account, self.id)
    }
}

/// What the bearer of a token may do, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRights {
    /// What it may do; never empty.
    pub actions: Actions,
    /// Only these namespaces; empty means all.
    pub namespaces: Box<[Box<str>]>,
    /// Only keys that begin with one of these; empty means all.
    pub key_prefixes: Box<[Box<[u8]>]>,
}

impl TokenRights {
    /// Checks rights as [`Accounts::create_token`](crate::Accounts::create_token)
    /// does: no action means read and write.
    ///
    /// # Errors
    /// [`FieldError`] on a field of `token`.
    pub fn parse(
        actions: Actions,
        namespaces: &[String],
        key_prefixes: Vec<Vec<u8>>,
    ) -> Result<Self, FieldError> {
        check_rights(actions, namespaces, key_prefixes)
    }

    /// True when the token may do `action`, somewhere.
    pub const fn allows(&self, action: Action) -> bool {
        self.actions.contains(action)
    }

    /// True when the token reaches into `namespace`. Looks at each of its
    /// namespaces, of which there are few.
    pub fn allows_namespace(&self, namespace: Namespace<'_>) -> bool {
        self.namespaces.is_empty()
            || self
                .namespaces
                .iter()
                .any(|own| **own == *namespace.as_str())
    }

    /// True when the token reaches `key`.
    pub fn allows_key(&self, key: &[u8]) -> bool {
        self.key_prefixes.is_empty() || self.key_prefixes.iter().any(|own| key.starts_with(own))
    }

    /// True when the token reaches every key that begins with `prefix`: a
    /// list, dump or watch of it shows nothing that the token may not see.
    pub fn allows_prefix(&self, prefix: &[u8]) -> bool {
        self.allows_key(prefix)
    }
}

/// A credential of an account, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its resource name.
    pub name: TokenName,
    /// What it may do.
    pub rights: TokenRights,
    /// When it ends; `None` means never. It is useless from this point on.
    pub expire_time: Option<UnixMillis>,
}

impl Token {
    /// True when the token has ended at `now`.
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        self.expire_time.is_some_and(|end| end <= now)
    }
}

/// Arguments of [`Accounts::create_token`](crate::Accounts::create_token). The
/// default is a token that reads and writes everything in its account and
/// never ends, with a fresh secret.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// What it may do; empty means read and write.
    pub actions: Actions,
    /// Only these namespaces, up to [`MAX_TOKEN_NAMESPACES`]; empty means all.
    /// The empty text names the namespace `default`.
    pub namespaces: Vec<String>,
    /// Only keys that begin with one of these, up to [`MAX_TOKEN_PREFIXES`] of up
    /// to [`MAX_KEY_PREFIX_BYTES`]; none means all. An empty one is refused.
    pub key_prefixes: Vec<Vec<u8>>,
    /// When it ends; `None` means never.
    pub expire_time: Option<UnixMillis>,
    /// A secret to import instead of a fresh random one; for migrations.
    pub secret: Option<Secret>,
}

/// Outcome of [`Accounts::create_token`](crate::Accounts::create_token).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedToken {
    /// The token. A dry run shows [`TokenName::DRY_RUN_ID`] as its id.
    pub token: Arc<Token>,
    /// What a client sends; never shown again. Empty after a dry run.
    pub secret: Secret,
}

/// A token with what it is recognised by.
#[derive(Debug, Clone)]
pub(crate) struct StoredToken {
    pub(crate) token: Arc<Token>,
    pub(crate) digest: SecretDigest,
}

/// Checks the rights asked for, and brings them into their stored form.
pub(crate) fn check_rights(
    actions: Actions,
    namespaces: &[String],
    key_prefixes: Vec<Vec<u8>>,
) -> Result<TokenRights, FieldError> {
    Ok(TokenRights {
        actions: if actions.is_empty() {
            Actions::READ_WRITE
        } else {
            actions
        },
        namespaces: check_namespaces(namespaces)?,
        key_prefixes: check_prefixes(key_prefixes)?,
    })
}

fn check_prefixes(mut prefixes: Vec<Vec<u8>>) -> Result<Box<[Box<[u8]>]>, FieldError> {
    let failed = |field, description| Err(FieldError::new(field, description));
    let count = prefixes.len();
    if count > MAX_TOKEN_PREFIXES {
        let description =
            format!("has {count} elements, more than the limit of {MAX_TOKEN_PREFIXES}");
        return failed("token.key_prefixes", description);
    }
    for (prefix, place) in prefixes.iter().zip(0_usize..) {
        let field = if place == 0 {
            "token.key_prefix"
        } else {
            "token.key_prefixes"
        };
        let bytes = prefix.len();
        if bytes > MAX_KEY_PREFIX_BYTES {
            let limit = MAX_KEY_PREFIX_BYTES;
            return failed(
                field,
                format!("has {bytes} bytes, more than the limit of {limit}"),
            );
        }
        // It would stand for every key, and nobody who names others means that.
        if bytes == 0 {
            return failed(field, "must not be empty".to_owned());
        }
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    Ok(prefixes.into_iter().map(Into::into).collect())
}

fn check_namespaces(namespaces: &[String]) -> Result<Box<[Box<str>]>, FieldError> {
    const FIELD: &str = "token.namespaces";
    let count = namespaces.len();
    if count > MAX_TOKEN_NAMESPACES {
        return Err(FieldError::new(
            FIELD,
            format!("has {count} elements, more than the limit of {MAX_TOKEN_NAMESPACES}"),
        ));
    }
    let mut parsed = Vec::with_capacity(count);
    for namespace in namespaces {
        let namespace =
            Namespace::parse(namespace).map_err(|error| FieldError::name(FIELD, error))?;
        parsed.push(Box::from(namespace.as_str()));
    }
    parsed.sort_unstable();
    parsed.dedup();
    Ok(parsed.into())
}

pub(crate) fn check_expire_time(
    expire_time: Option<UnixMillis>,
    now: UnixMillis,
) -> Result<(), FieldError> {
    const FIELD: &str = "token.expire_time";
    match expire_time {
        Some(end) if end <= now => Err(FieldError::new(FIELD, "must be in the future")),
        Some(end) if end.get() > MAX_EXPIRE_TIME_MS => {
            Err(FieldError::new(FIELD, "must be before the year 10000"))
        }
        _ => Ok(()),
    }
}
