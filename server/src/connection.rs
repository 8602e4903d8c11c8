//! One connection: what it shares with the others, who is at its other end, and
//! the callers that were verified on it lately.

use std::sync::Arc;
use std::time::Instant;

use larder_model::Store;
use larder_transport::serve::{ConnectionInfo, Peer};
use parking_lot::Mutex;

use crate::callers::{Given, Verified};
pub(crate) use crate::callers::{Identity, same_secret};
use crate::core::Core;
use crate::telemetry::meter::Meter;
use crate::tls::caller::Caller;

/// Callers that a connection remembers by itself: one, but for proxies.
const MAX_KNOWN: usize = 8;

/// One connection.
///
/// What its calls share and count references of is here, and not shared with
/// other connections: no two threads then fight over a counter for each call.
pub(crate) struct Connection<S: Store> {
    pub(crate) core: Arc<Core<S>>,
    pub(crate) peer: Peer,
    /// Whom its certificate stands for.
    pub(crate) certificate: Option<Caller>,
    /// That of its thread.
    pub(crate) meter: Arc<Meter>,
    known: Mutex<Vec<Arc<Identity<S>>>>,
}

impl<S: Store> Connection<S> {
    /// One without a certificate. To be called on the thread that serves it.
    #[cfg(test)]
    pub(crate) fn new(core: Arc<Core<S>>, peer: Peer) -> Arc<Self> {
        Arc::new(Self {
            meter: core.telemetry.meters.of_this_thread(),
            core,
            peer,
            certificate: None,
            known: Mutex::new(Vec::new()),
        })
    }

    /// One with what its handshake came to. To be called on the thread that serves it.
    pub(crate) fn accepted(core: &Arc<Core<S>>, who: &ConnectionInfo) -> Arc<Self> {
        let accounts = core.certificate_accounts.as_ref().zip(who.tls.as_ref());
        let certificate = accounts.and_then(|(accounts, tls)| Caller::of(accounts, tls));
        Arc::new(Self {
            meter: core.telemetry.meters.of_this_thread(),
            core: Arc::clone(core),
            peer: who.peer,
            certificate,
            known: Mutex::new(Vec::new()),
        })
    }

    /// What a request gives to recognise its caller by.
    pub(crate) fn given<'a>(&self, secret: Option<&'a str>) -> Given<'a> {
        self.core.callers.given(secret)
    }

    /// The caller of a credential that was verified before, if it is still good.
    pub(crate) fn recall(&self, given: Given<'_>, now: Instant) -> Option<Arc<Identity<S>>> {
        let mut known = self.known.lock();
        if let Some(at) = known.iter().position(|known| known.proof.is(given)) {
            if known[at].is_current(&self.core, now) {
                return Some(Arc::clone(&known[at]));
            }
            known.swap_remove(at);
        }
        let verified = self.core.callers.recall(given)?;
        if !verified.is_current(&self.core, now) {
            return None;
        }
        let identity = Identity::new(verified, &self.meter);
        if known.len() < MAX_KNOWN {
            known.push(Arc::clone(&identity));
        }
        Some(identity)
    }

    /// Remembers a caller.
    pub(crate) fn remember(&self, given: Given<'_>, verified: Verified<S>) -> Arc<Identity<S>> {
        let verified = Arc::new(verified);
        if !given.is_anonymous() {
            self.core.callers.remember(given, &verified);
        }
        let identity = Identity::new(verified, &self.meter);
        let mut known = self.known.lock();
        if known.len() == MAX_KNOWN {
            known.retain(|known| known.epoch == identity.epoch);
        }
        if known.len() < MAX_KNOWN {
            known.push(Arc::clone(&identity));
        }
        identity
    }
}
