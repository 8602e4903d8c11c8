//! One connection: what it shares with the others, who is at its other end, and
//! the callers that were verified on it lately.

use std::sync::Arc;
use std::time::Instant;

use larder_accounts::TokenRights;
use larder_model::Store;
use larder_transport::serve::Peer;
use parking_lot::Mutex;

use crate::authority::Grant;
use crate::core::{Core, Epoch};
use crate::telemetry::meter::{AccountMeter, Meter};
use crate::tenants::Tenant;

/// Whose call it is, and what they may do. From the credential, never from a
/// field of the v1 contract.
pub(crate) struct Identity<S: Store> {
    pub(crate) tenant: Arc<Tenant<S>>,
    pub(crate) grant: Arc<Grant>,
    /// What it follows from, read before the credential was verified.
    pub(crate) epoch: Epoch,
    /// Where the thread of its connection counts what it does.
    pub(crate) meter: Arc<AccountMeter>,
    /// How long it holds even so.
    pub(crate) until: Option<Instant>,
}

impl<S: Store> Identity<S> {
    pub(crate) fn rights(&self) -> &TokenRights {
        &self.grant.rights
    }

    /// True while nothing has changed that could make the same credential stand
    /// for something else.
    pub(crate) fn is_current(&self, core: &Core<S>, now: Instant) -> bool {
        self.epoch == core.epoch() && self.until.is_none_or(|until| now < until)
    }
}

/// Callers that a connection remembers: one, but for proxies.
const MAX_KNOWN: usize = 8;

/// A caller that was verified.
struct Known<S: Store> {
    /// `None` for callers without a credential.
    secret: Option<Box<str>>,
    identity: Arc<Identity<S>>,
}

/// One connection.
///
/// What its calls share and count references of is here, and not shared with
/// other connections: no two threads then fight over a counter for each call.
pub(crate) struct Connection<S: Store> {
    pub(crate) core: Arc<Core<S>>,
    pub(crate) peer: Peer,
    /// That of its thread.
    pub(crate) meter: Arc<Meter>,
    known: Mutex<Vec<Known<S>>>,
}

impl<S: Store> Connection<S> {
    /// To be called on the thread that serves it.
    pub(crate) fn new(core: Arc<Core<S>>, peer: Peer) -> Arc<Self> {
        Arc::new(Self {
            meter: core.telemetry.meters.of_this_thread(),
            core,
            peer,
            known: Mutex::new(Vec::new()),
        })
    }

    /// The caller of a credential that was verified here, if it is still good.
    pub(crate) fn recall(&self, secret: Option<&str>, now: Instant) -> Option<Arc<Identity<S>>> {
        let mut known = self.known.lock();
        let is = |known: &Known<S>| match (&known.secret, secret) {
            (Some(known), Some(given)) => same_secret(known.as_bytes(), given.as_bytes()),
            (None, None) => true,
            _ => false,
        };
        let at = known.iter().position(is)?;
        let identity = &known[at].identity;
        if identity.is_current(&self.core, now) {
            return Some(Arc::clone(identity));
        }
        known.swap_remove(at);
        None
    }

    /// Remembers a caller.
    pub(crate) fn remember(&self, secret: Option<&str>, identity: &Arc<Identity<S>>) {
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.remove(0);
        }
        known.push(Known {
            secret: secret.map(Into::into),
            identity: Arc::clone(identity),
        });
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
    use super::*;

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
