//! The account that a client certificate stands for, where its caller sends no
//! token.

use std::sync::Arc;
use std::time::Duration;

use larder_accounts::TokenRights;
use larder_api::errors::Reason;
use larder_model::{AccountName, Store};
use larder_transport::serve::TlsInfo;

use super::names::{NamePattern, Names};
use super::reload::Certificates;
use crate::authority::{Authority, Grant, Holder, Vouched, token_invalid};
use crate::clock;
use crate::core::Core;
use crate::failure::Failure;
use crate::tenants::AccountGrant;

/// Whose certificates stand for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateAccount {
    /// The name that the certificate must have.
    pub name: NamePattern,
    /// The account, which must exist when a call is made.
    pub account: AccountName,
    /// What its holder may do there.
    pub rights: TokenRights,
}

/// The rules, in order, and what checks a certificate again.
pub(crate) struct CertificateAccounts {
    pub(crate) rules: Vec<CertificateAccount>,
    pub(crate) certificates: Arc<Certificates>,
}

/// A client certificate that stands for an account.
pub(crate) struct Caller {
    tls: Arc<TlsInfo>,
    holder: Arc<str>,
    not_after: Duration,
    account: AccountName,
    rights: TokenRights,
}

/// The shortest time between two such checks.
const MIN_TRUST: Duration = Duration::from_secs(1);
/// The longest: the wall clock may be set meanwhile.
const MAX_TRUST: Duration = Duration::from_secs(60);

impl Caller {
    /// Whom the certificate of a connection stands for: the first rule that
    /// names it. `None` if it shows none, or no rule does.
    pub(crate) fn of(accounts: &CertificateAccounts, tls: &Arc<TlsInfo>) -> Option<Self> {
        let names = Names::read(tls.peer_certificates.first()?)?;
        let rule = accounts
            .rules
            .iter()
            .find(|rule| rule.name.matches(&names))?;
        Some(Self {
            tls: Arc::clone(tls),
            holder: names.holder().into(),
            not_after: names.not_after,
            account: rule.account.clone(),
            rights: rule.rights.clone(),
        })
    }

    /// What it stands for now. Asked at the first call of a connection, when the
    /// accounts or the server's certificates change, and once a minute; costs the
    /// check of a chain.
    ///
    /// # Errors
    /// It has ended, or is revoked, or there is no such account.
    pub(crate) fn vouch<S: Store>(&self, core: &Core<S>) -> Result<Vouched, Failure> {
        let (Authority::Local(accounts), Some(mapped)) =
            (&core.authority, &core.certificate_accounts)
        else {
            return Err(token_invalid());
        };
        let verified_at = clock::instant();
        let now = Duration::from_millis(clock::unix_millis());
        let chain = &self.tls.peer_certificates;
        mapped
            .certificates
            .check_client(chain, now)
            .map_err(|error| {
                let message = format!("the client certificate is no longer good: {error}");
                Failure::new(Reason::TokenInvalid, message)
            })?;
        let account = accounts.account(&self.account).ok_or_else(|| {
            let message = format!(
                "there is no account {} for the client certificate",
                self.account
            );
            Failure::new(Reason::TokenInvalid, message)
        })?;
        let left = self.not_after.saturating_sub(now);
        let grant = Grant {
            account: AccountGrant::from(&*account),
            rights: self.rights.clone(),
            holder: Holder::Certificate(Arc::clone(&self.holder)),
            verified_at,
        };
        Ok(Vouched {
            grant: Arc::new(grant),
            until: Some(verified_at + left.clamp(MIN_TRUST, MAX_TRUST)),
        })
    }
}
