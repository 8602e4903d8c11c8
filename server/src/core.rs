//! What all calls share.

use std::sync::Arc;

use larder_accounts::Accounts;
use larder_model::{Limits, Store};
use larder_transport::serve;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::authority::{Anonymous, Authority};
use crate::callers::Callers;
use crate::clock::Clock;
use crate::config::{Admission, Compression, Deadlines};
use crate::gauge::Gauge;
use crate::layers::origin::OriginPolicy;
use crate::live::Live;
use crate::rate::RateLimiter;
use crate::refusals::Refusals;
use crate::telemetry::Telemetry;
use crate::tenants::Tenants;
use crate::tls::caller::CertificateAccounts;

/// What all calls share.
pub(crate) struct Core<S: Store> {
    pub(crate) store: Arc<S>,
    pub(crate) tenants: Tenants<S>,
    pub(crate) authority: Authority,
    pub(crate) callers: Callers<S>,
    /// The accounts of this process, where they are kept here.
    pub(crate) accounts: Option<Arc<Accounts>>,
    pub(crate) anonymous: Option<Anonymous>,
    /// Callers without a token who are known by their certificate; `None`: none.
    pub(crate) certificate_accounts: Option<CertificateAccounts>,
    /// Who did what.
    pub(crate) audit: Audit,
    pub(crate) origins: OriginPolicy,
    pub(crate) limits: Live<Limits>,
    pub(crate) admission: Admission,
    pub(crate) deadlines: Deadlines,
    /// Which answers are compressed.
    pub(crate) compression: Compression,
    /// Calls that were refused or given up, by their reason.
    pub(crate) refusals: Refusals,
    /// How the transport serves; its limits are told to whoever asks.
    pub(crate) transport: Live<serve::Config>,
    /// Places for calls in flight.
    pub(crate) calls: Arc<Semaphore>,
    /// Places for calls whose caller is not known, or need not be.
    pub(crate) strangers: Arc<Semaphore>,
    /// Bytes of request bodies on their way in.
    pub(crate) receiving: Arc<Gauge>,
    /// Bytes of replies that have not left.
    pub(crate) replying: Arc<Gauge>,
    pub(crate) features: Vec<&'static str>,
    /// Lines of the access log for calls that went well; `None`: none.
    pub(crate) access_log: Option<RateLimiter>,
    /// What calls report to.
    pub(crate) telemetry: Telemetry,
    pub(crate) clock: Arc<Clock>,
    /// Cancelled when the grace of the shutdown is over.
    pub(crate) stop: CancellationToken,
}

/// A state of the accounts and tenants: who a credential stands for can only
/// change with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Epoch {
    accounts: u64,
    tenants: u64,
}

impl<S: Store> Core<S> {
    /// Two atomic loads.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch {
            accounts: self
                .accounts
                .as_ref()
                .map_or(0, |accounts| accounts.generation()),
            tenants: self.tenants.generation(),
        }
    }
}
