//! One connection: what it shares with the others, who is at its other end, and
//! the callers that were verified on it lately.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use larder_accounts::TokenRights;
use larder_model::Store;
use parking_lot::Mutex;

use crate::authority::Grant;
use crate::core::{Core, Epoch};
use crate::tenants::Tenant;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Whose call it is, and what they may do. From the credential, never from a
/// field of the v1 contract.
pub(crate) struct Identity<S: Store> {
    pub(crate) tenant: Arc<Tenant<S>>,
    pub(crate) grant: Arc<Grant>,
}

impl<S: Store> Identity<S> {
    pub(crate) fn rights(&self) -> &TokenRights {
        &self.grant.rights
    }
}

/// Callers that a connection remembers: one, but for proxies.
const MAX_KNOWN: usize = 8;

/// A caller that was verified.
struct Known<S: Store> {
    /// `None` for callers without a credential.
    secret: Option<Box<str>>,
    identity: Arc<Identity<S>>,
    /// What it follows from, and how long it holds even so.
    epoch: Epoch,
    until: Option<Instant>,
}

/// One connection.
///
/// What its calls share and count references of is here, and not shared with
/// other connections: no two threads then fight over a counter for each call.
pub(crate) struct Connection<S: Store> {
    pub(crate) core: Arc<Core<S>>,
    pub(crate) peer: Peer,
    known: Mutex<Vec<Known<S>>>,
}

impl<S: Store> Connection<S> {
    pub(crate) fn new(core: Arc<Core<S>>, peer: Peer) -> Arc<Self> {
        let known = Mutex::new(Vec::new());
        Arc::new(Self { core, peer, known })
    }

    /// The caller of a credential that was verified here, if nothing has changed
    /// since that could make it another.
    pub(crate) fn recall(&self, secret: Option<&str>, now: Instant) -> Option<Arc<Identity<S>>> {
        let mut known = self.known.lock();
        let at = known
            .iter()
            .position(|known| same_secret(known.secret.as_deref(), secret))?;
        let found = &known[at];
        if found.epoch == self.core.epoch() && found.until.is_none_or(|until| now < until) {
            return Some(Arc::clone(&found.identity));
        }
        known.swap_remove(at);
        None
    }

    /// Remembers a caller. `epoch` is from before it was verified.
    pub(crate) fn remember(
        &self,
        secret: Option<&str>,
        identity: &Arc<Identity<S>>,
        epoch: Epoch,
        until: Option<Instant>,
    ) {
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.remove(0);
        }
        known.push(Known {
            secret: secret.map(Into::into),
            identity: Arc::clone(identity),
            epoch,
            until,
        });
    }
}

/// Takes as long wherever two secrets of one length differ: behind a proxy,
/// callers who must not learn of one another's share a connection.
fn same_secret(known: Option<&str>, given: Option<&str>) -> bool {
    match (known, given) {
        (Some(known), Some(given)) => {
            known.len() == given.len()
                && known
                    .bytes()
                    .zip(given.bytes())
                    .fold(0, |differs, (a, b)| differs | (a ^ b))
                    == 0
        }
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_the_same_or_not() {
        let check = |known: Option<&str>, given: Option<&str>, same: bool| {
            assert_eq!(same_secret(known, given), same, "{known:?} {given:?}");
        };
        check(None, None, true);
        check(Some("abc"), Some("abc"), true);
        check(Some(""), Some(""), true);
        check(Some("abc"), None, false);
        check(None, Some(""), false);
        check(Some("abc"), Some("abd"), false);
        check(Some("abc"), Some("ab"), false);
        check(Some("xbc"), Some("abc"), false);
    }
}
