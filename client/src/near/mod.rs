//! Entries kept in the process of the caller, in front of the server.
//!
//! | file | |
//! |---|---|
//! | `config.rs` | the bounds, and what is refused |
//! | `core.rs` | what is held and what may be given out, told the time |
//! | `doubts.rs` | writes that may yet be carried out |
//! | `writes.rs` | what this client's own writes do to its near caches |
//! | `invalidations.rs` | what a source of changes says |
//! | `stats.rs` | what is counted |

mod config;
mod core;
mod doubts;
mod invalidations;
mod stats;
#[cfg(test)]
mod tests;
mod writes;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;

use self::core::{Boarded, Core, Found};
use crate::client::Client;
use crate::error::{Error, Repeat};
use crate::fill::{FillError, FillOrigin, Filled};
use crate::types::Entry;

pub use self::config::NearConfig;
pub use self::invalidations::Invalidations;
pub use self::stats::NearStats;
pub(crate) use self::writes::{NearCaches, Writes};

/// Entries of one namespace, kept in this process in front of the server: see [`Client::near`].
/// Cloning it is cheap, and clones share what they keep.
///
/// # What a get promises
///
/// - **A bound on staleness.** A value that is given out was the server's at some time within
///   [`max_staleness`](NearConfig::new) before the get began, or later. It counts from when the
///   request for it was sent.
/// - **No entry after its TTL**, by this machine's clock, with an allowance for its being behind the
///   server's ([`NearConfig::with_clock_skew`]).
/// - **Your own writes.** When a write of the client, or of any clone of it, has ended, no get that
///   begins later gives what was there before. That holds for every call that changes something
///   (batches, loads, deletes by prefix, [`Client::talk`]), and also where a get of the key was
///   under way meanwhile. A write that failed so that it
///   [`may_have_applied`](crate::Error::may_have_applied), or was dropped, counts as written; and
///   as it may still be carried out, nothing that is read of its keys is kept until as much time
///   has gone by as such a call has.
///
/// A write in a [dry run](Client::dry_run) counts as one. A miss is asked again each time, unless
/// [`NearConfig::with_misses`] says otherwise.
///
/// # What it does not
///
/// - Writes of others are seen within `max_staleness`, unless a source of changes tells of them
///   ([`invalidations`](Self::invalidations)). So are those of another [`Client::connect`] in this
///   program.
/// - A hit asks no server: a token that is revoked, or an account that is deleted, is noticed
///   within `max_staleness`. A client has one token for its life, and a near cache one client, so
///   that nothing is ever given to another caller's token. Hits do not count as use for the
///   server's eviction, nor against a rate limit, and interceptors and
///   [`Metrics`](crate::Metrics) hear nothing of them: [`stats`](Self::stats) does.
/// - Of several servers, "the server" is the one that answered. Memory nodes hold entries of their
///   own: with [`Balancing::pick_first`](crate::Balancing::pick_first) a near cache goes on giving
///   entries of the node before for up to `max_staleness` after a failover, and with
///   [`Balancing::round_robin`](crate::Balancing::round_robin) over memory nodes it keeps what the
///   node that was asked happened to have, as a get without it would. With
///   [`Balancing::ring_hash`](crate::Balancing::ring_hash) each key has one node for as long as that
///   can be reached and loads are not bounded; else it is as after a failover. Servers before one
///   store are as one.
///
/// # Cost
///
/// A hit takes one lock that readers share, one look at the clock and no allocation but what `Bytes`
/// may need to share key and value. A miss adds a short lock to the call, and a copy of the key.
#[derive(Clone)]
pub struct NearCache {
    client: Client,
    core: Arc<Core>,
}

impl Client {
    /// A cache of the namespace in this process, within bounds. It is apart from those made before
    /// by the same client; keep it, and clone it.
    ///
    /// ```no_run
    /// # async fn example(client: larder_client::Client) -> Result<(), larder_client::Error> {
    /// use std::time::Duration;
    /// use larder_client::{NearConfig, SetOptions};
    ///
    /// let near = client.near(NearConfig::new(Duration::from_secs(2), 64 << 20))?;
    /// near.get("config").await?; // asks the server
    /// near.get("config").await?; // does not
    /// client.set("config", "new", SetOptions::new()).await?;
    /// near.get("config").await?; // asks again: this client has written it
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If a bound is out of its range ([`Error::is_configuration`]).
    pub fn near(&self, config: NearConfig) -> Result<NearCache, Error> {
        config.check()?;
        let core = Arc::new(Core::new(&config, writes::effective(&self.namespace)));
        self.channel.near.add(&core);
        Ok(NearCache {
            client: self.clone(),
            core,
        })
    }
}

impl NearCache {
    /// Reads one entry, from this process if what is kept is fresh enough; `None` if there is none.
    ///
    /// Gets of the same key share one call to the server. If that fails or is dropped, one of those
    /// who wait makes it again, within its own time.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]. A hit cannot fail.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>, Error> {
        let key = key.as_ref();
        if let Some(found) = self.core.look(key, self.core.now()) {
            return Ok(found);
        }
        self.fetch(Bytes::copy_from_slice(key)).await
    }

    /// Reads an entry, or makes its value with `fill` and stores it for `ttl`: as
    /// [`Client::get_or_fill`], whose calls it joins, with a look here first. A value that was made
    /// is kept here after it is read from the server.
    ///
    /// # Errors
    ///
    /// As [`Client::get_or_fill`].
    pub async fn get_or_fill<V, E, F>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: Option<Duration>,
        fill: impl FnOnce() -> F,
    ) -> Result<Filled, FillError<E>>
    where
        V: Into<Bytes>,
        F: Future<Output = Result<V, E>>,
    {
        let key = key.as_ref();
        if let Some(Some(entry)) = self.core.look(key, self.core.now()) {
            return Ok(Filled {
                value: entry.value,
                origin: FillOrigin::Cache,
                store_error: None,
            });
        }
        let client = &self.client;
        client.fill_through(Some(self), key, ttl, fill).await
    }

    /// The client whose entries are kept, for all other calls. What it writes is not hidden here.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// For a source that knows what changes on the server, such as a stream of changes: it takes
    /// the place of the one before, and has not been in touch yet. Without any, entries are kept by
    /// their age alone.
    pub fn invalidations(&self) -> Invalidations {
        Invalidations::new(Arc::clone(&self.core))
    }

    /// What it has done so far, and holds. Takes each of its locks once.
    pub fn stats(&self) -> NearStats {
        self.core.stats()
    }

    async fn fetch(&self, key: Bytes) -> Result<Option<Entry>, Error> {
        let patience = self.client.timeout;
        let deadline = self.client.deadline(Instant::now().checked_add(patience));
        loop {
            let mut answer = match self.core.board(key.clone(), self.core.now()) {
                Boarded::Leads(ticket) => {
                    let found = self.client.get(&key).await?;
                    ticket.land(&found, self.core.now(), wall_clock());
                    return Ok(found);
                }
                Boarded::Follows(answer) => answer,
            };
            let landed = async {
                match answer.wait_for(Option::is_some).await {
                    Ok(found) => found.clone(),
                    // Who led is gone without an answer.
                    Err(_) => None,
                }
            };
            let landed: Result<Option<Found>, _> = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, landed).await,
                None => Ok(landed.await),
            };
            match landed {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(_) => {
                    let what = "answer to the get that this one waits for";
                    return Err(Error::stalled(what, patience, Repeat::Read));
                }
            }
        }
    }
}

impl fmt::Debug for NearCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearCache")
            .field("client", &self.client)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "when an entry expires is said by the wall clock"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
