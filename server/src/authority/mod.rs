//! Who vouches for a credential: the accounts in this process, or another
//! Accounts server.

pub(crate) mod grpc;
pub(crate) mod remote;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_accounts::limits::MAX_SECRET_BYTES;
use larder_accounts::{Accounts, Actions, TokenRights, UnixMillis};
use larder_api::errors::Reason;
use larder_model::{AccountId, AccountName, AccountUid, Quota};

use crate::clock;
use crate::failure::Failure;
use crate::telemetry::trace_context::TraceContext;
use crate::tenants::AccountGrant;

/// What a credential stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) account: AccountGrant,
    pub(crate) rights: TokenRights,
    /// Whose credential it is, for the audit log.
    pub(crate) holder: Holder,
    /// When whoever vouches for it said so. Of two grants that contradict each
    /// other over an account, the later one is right.
    pub(crate) verified_at: Instant,
}

/// Whose credential it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A token, by its resource name, which is not secret.
    Token(Arc<str>),
    /// A client certificate, by its URI or its subject.
    Certificate(Arc<str>),
    /// Nobody.
    Anonymous,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(name) => f.write_str(name),
            Self::Certificate(name) => write!(f, "certificate {name}"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

/// An answer about a credential.
#[derive(Debug, Clone)]
pub(crate) struct Vouched {
    pub(crate) grant: Arc<Grant>,
    /// When to ask again, even if no account has changed in this process.
    pub(crate) until: Option<Instant>,
}

/// How long the end of a token is not looked at again.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Rights over a whole account, without the control plane.
pub(crate) fn whole_account() -> TokenRights {
    TokenRights {
        actions: Actions::READ_WRITE,
        namespaces: Box::default(),
        key_prefixes: Box::default(),
    }
}

/// Who is asked about a token.
pub(crate) enum Authority {
    /// The accounts of this process: a look-up in memory.
    Local(Arc<Accounts>),
    /// Another server.
    Remote(remote::Remote),
}

impl Authority {
    /// What a token stands for. Waits, at most until `deadline`, for a remote
    /// authority that has not answered for this token lately.
    pub(crate) async fn verify(
        &self,
        secret: &str,
        deadline: Option<Instant>,
        trace: Option<&TraceContext>,
    ) -> Result<Vouched, Failure> {
        if secret.len() > MAX_SECRET_BYTES {
            return Err(token_invalid());
        }
        match self {
            Self::Local(accounts) => {
                let verified_at = clock::instant();
                let now = UnixMillis::new(clock::unix_millis());
                let verified = accounts.verify(secret, now).map_err(|_| token_invalid())?;
                let grant = Arc::new(Grant {
                    account: AccountGrant::from(&*verified.account),
                    rights: verified.token.rights.clone(),
                    holder: Holder::Token(verified.token.name.to_string().into()),
                    verified_at,
                });
                let expires = |end: UnixMillis| {
                    let left = Duration::from_millis(end.get().saturating_sub(now.get()));
                    // The wall clock may be set meanwhile.
                    verified_at + left.min(EXPIRY_CHECK_INTERVAL)
                };
                Ok(Vouched {
                    grant,
                    until: verified.token.expire_time.map(expires),
                })
            }
            Self::Remote(remote) => remote.verify(secret, deadline, trace).await,
        }
    }
}

/// The one answer for every bad credential: it does not say whether the token
/// was unknown, revoked or expired.
pub(crate) fn token_invalid() -> Failure {
    Failure::new(
        Reason::TokenInvalid,
        "the token is unknown, revoked or expired",
    )
}

/// How long to stay away from an Accounts server that cannot be asked.
pub(crate) const ACCOUNTS_RETRY_DELAY: Duration = Duration::from_secs(1);

pub(crate) fn accounts_unavailable(why: &str) -> Failure {
    Failure::new(
        Reason::AccountsUnavailable,
        format!("the Accounts server cannot be asked: {why}"),
    )
    .retry_after(ACCOUNTS_RETRY_DELAY)
}

/// The account of callers without a credential.
pub(crate) struct Anonymous(AccountName);

impl Anonymous {
    pub(crate) const fn new(name: AccountName) -> Self {
        Self(name)
    }

    /// A name of its own: that of a remote account has another uid, and the one
    /// would take the entries of the other away.
    fn local_name(&self) -> Result<AccountName, Failure> {
        let name = format!("anonymous-{}", self.0);
        AccountName::parse(&name)
            .map_err(|error| Failure::new(Reason::TokenMissing, format!("{name}: {error}")))
    }

    /// The account's grant. A remote authority is not asked, because there is
    /// no credential to ask about: the account is then this server's own, named
    /// `anonymous-NAME`, and has no quota.
    pub(crate) fn grant(&self, authority: &Authority) -> Result<Vouched, Failure> {
        let verified_at = clock::instant();
        let account = match authority {
            Authority::Local(accounts) => accounts.account(&self.0).map_or_else(
                || {
                    let message = format!("there is no account {} for anonymous calls", self.0);
                    Err(Failure::new(Reason::TokenMissing, message))
                },
                |account| Ok(AccountGrant::from(&*account)),
            )?,
            Authority::Remote(_) => AccountGrant {
                id: AccountId {
                    name: self.local_name()?,
                    uid: AccountUid::new("anonymous"),
                },
                quota: Quota::UNLIMITED,
                max_requests_per_second: None,
            },
        };
        let grant = Arc::new(Grant {
            account,
            rights: whole_account(),
            holder: Holder::Anonymous,
            verified_at,
        });
        Ok(Vouched { grant, until: None })
    }
}
