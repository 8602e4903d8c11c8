//! Calls that are about no one key, under ring hash: each memory node of the ring has a part of the
//! keys, so all of them are asked, one after the other, and one that cannot be reached fails the
//! call: a part is never given out for the whole.

use std::sync::Arc;

use twox_hash::XxHash64;

use crate::channel::Homes;
use crate::client::Client;
use crate::error::Error;
use crate::keys::{KeyPage, PageToken};
use crate::method::Method;
use crate::types::{QuotaUsage, Usage};

/// What page tokens of a ring begin with; a server's own have no such word.
const TOKEN_WORD: &str = "ring_hash";

const CHANGED: &str = "the servers of the ring_hash changed since this began; begin again";

/// A walk over the servers of a ring, one after the other.
#[derive(Debug)]
pub(crate) struct Walk {
    homes: Homes,
    at: usize,
}

impl Client {
    /// A client for each server that has a part of the keys: for all of them this one, where the
    /// policy is none that divides keys.
    pub(crate) async fn each_server<Q, R>(&self, method: Method<Q, R>) -> Result<Vec<Self>, Error> {
        Ok(match self.homes(method).await? {
            None => vec![self.clone()],
            Some(homes) => {
                let servers = homes.servers().iter();
                servers.map(|server| self.at(server)).collect()
            }
        })
    }

    /// Refuses what would be carried out by one server of a ring as if it were all of them.
    pub(crate) fn is_of_one_server(&self, what: &str) -> Result<(), Error> {
        match self.spreads_keys() {
            false => Ok(()),
            true => Err(Error::precondition(format!(
                "{what} is of one server, and under ring_hash a client has several: use one of \
                 that server alone"
            ))),
        }
    }

    fn at(&self, server: &Arc<str>) -> Self {
        Self {
            server: Some(Arc::clone(server)),
            ..self.clone()
        }
    }
}

impl Walk {
    /// Begins a walk, or makes sure that one may go on. None is begun where the policy divides no
    /// keys.
    ///
    /// # Errors
    ///
    /// If the servers have changed meanwhile, or none is known.
    pub(crate) async fn go_on<Q, R>(
        walk: &mut Option<Self>,
        client: &Client,
        method: Method<Q, R>,
    ) -> Result<(), Error> {
        let Some(homes) = client.homes(method).await? else {
            return Ok(());
        };
        match walk {
            None => *walk = Some(Self { homes, at: 0 }),
            Some(walk) if walk.homes.servers() == homes.servers() => walk.homes = homes,
            Some(_) => return Err(Error::precondition(CHANGED)),
        }
        Ok(())
    }

    /// A client of the server that it has come to.
    pub(crate) fn client(&self, client: &Client) -> Result<Client, Error> {
        let server = self.homes.servers().get(self.at);
        let server = server.ok_or_else(|| Error::precondition(CHANGED))?;
        Ok(client.at(server))
    }

    /// Goes to the next server; false if there is none.
    pub(crate) fn advance(&mut self) -> bool {
        self.at += 1;
        self.at < self.homes.servers().len()
    }

    /// Leaves the entries that a get would find, if every server can be reached. The others were
    /// written while the server of their keys was away.
    pub(crate) fn keep_own<T>(&self, entries: &mut Vec<T>, key: impl Fn(&T) -> &[u8]) {
        if let Some(server) = self.homes.servers().get(self.at) {
            entries.retain(|entry| self.homes.is_home(server, key(entry)));
        }
    }

    /// The place that a page token names, and the token of that place's server.
    pub(crate) fn from_token(
        homes: Homes,
        token: Option<&PageToken>,
    ) -> Result<(Self, Option<PageToken>), Error> {
        let Some(token) = token else {
            return Ok((Self { homes, at: 0 }, None));
        };
        let unknown = || Error::configuration("the page token is none of this listing's");
        let mut parts = token.0.splitn(4, '.');
        let (Some(TOKEN_WORD), Some(digest), Some(at), Some(own)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(unknown());
        };
        let at: usize = at.parse().map_err(|_| unknown())?;
        if digest != self::digest(&homes) || at >= homes.servers().len() {
            return Err(Error::precondition(CHANGED));
        }
        Ok((Self { homes, at }, PageToken::from_wire(own.into())))
    }

    /// The page of a server as one of the ring.
    pub(crate) fn page(mut self, mut page: KeyPage) -> KeyPage {
        self.keep_own(&mut page.entries, |entry| &entry.key);
        let digest = digest(&self.homes);
        let token = |at: usize, own: &str| {
            let text = format!("{TOKEN_WORD}.{digest}.{at}.{own}");
            Some(PageToken(text))
        };
        page.next = match page.next {
            Some(next) => token(self.at, &next.0),
            None if self.advance() => token(self.at, ""),
            None => None,
        };
        page
    }
}

impl Usage {
    /// What two servers have and allow together.
    pub(crate) fn plus(self, other: &Self) -> Self {
        Self {
            quota: self.quota.plus(&other.quota),
            hits: self.hits.saturating_add(other.hits),
            misses: self.misses.saturating_add(other.misses),
            evicted: self.evicted.saturating_add(other.evicted),
            expired: self.expired.saturating_add(other.expired),
            request_ids: self.request_ids.saturating_add(other.request_ids),
            forgotten_request_ids: self
                .forgotten_request_ids
                .saturating_add(other.forgotten_request_ids),
        }
    }
}

impl QuotaUsage {
    fn plus(self, other: &Self) -> Self {
        let both = |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other?));
        Self {
            key_count: self.key_count.saturating_add(other.key_count),
            max_keys: both(self.max_keys, other.max_keys),
            bytes: self.bytes.saturating_add(other.bytes),
            max_bytes: both(self.max_bytes, other.max_bytes),
        }
    }
}

/// Of the servers' names, to tell whether they are the same ones.
fn digest(homes: &Homes) -> String {
    let names = homes.servers().join("\n");
    format!("{:016x}", XxHash64::oneshot(0, names.as_bytes()))
}
