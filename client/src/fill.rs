//! Values that are made when the cache has none: each once, however many ask for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{Error, Repeat};
use crate::near::NearCache;
use crate::options::SetOptions;

/// A value, and where it came from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Filled {
    /// The value.
    pub value: Bytes,
    /// Where it came from.
    pub origin: FillOrigin,
    /// Why it could not be stored, if it was made now and could not. The value is good all the
    /// same: whoever asks next makes it once more.
    pub store_error: Option<Error>,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillOrigin {
    /// The cache had it.
    Cache,
    /// This call made it.
    Made,
    /// Another call of this program had it, or made it, at the same time.
    Shared,
}

/// Why there is no value.
#[derive(Debug, Clone)]
pub enum FillError<E> {
    /// The cache could not be asked, or another call took too long to make the value.
    Cache(Error),
    /// It could not be made.
    Fill(E),
}

/// The values that are asked for, or made, now.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<FlightKey, watch::Receiver<Option<Bytes>>>>);

type FlightKey = (Arc<str>, Bytes);

/// The one call that asks for a value. Dropped, whether it has one or was given up, it lets those
/// who wait go on: with the value, or with one of them in its place.
struct Leader {
    flights: Arc<Flights>,
    key: FlightKey,
    value: watch::Sender<Option<Bytes>>,
}

enum Role {
    Leader(Leader),
    Follower(watch::Receiver<Option<Bytes>>),
}

impl Client {
    /// Reads an entry, or makes its value with `fill` and stores it for `ttl` (`None`: for good).
    ///
    /// Calls of this program for the same key of the same namespace, on this client or on a clone
    /// of it, share one read and one `fill`: the others wait for it, each no longer than its own
    /// time (see [`with_timeout`](Self::with_timeout)). If that one fails, panics or is dropped,
    /// one of those who wait takes its place, and runs its own `fill`. `fill` itself has as long
    /// as it likes.
    ///
    /// A dry run makes the value, and stores nothing.
    ///
    /// # Errors
    ///
    /// If the cache cannot be asked ([`Client::get`]), or `fill` fails. That the value cannot be
    /// stored is none: [`Filled::store_error`].
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
        self.fill_through(None, key.as_ref(), ttl, fill).await
    }

    /// The same, and what there is already may come from a near cache.
    pub(crate) async fn fill_through<V, E, F>(
        &self,
        near: Option<&NearCache>,
        key: &[u8],
        ttl: Option<Duration>,
        fill: impl FnOnce() -> F,
    ) -> Result<Filled, FillError<E>>
    where
        V: Into<Bytes>,
        F: Future<Output = Result<V, E>>,
    {
        let key = Bytes::copy_from_slice(key);
        let patience = self.timeout;
        let deadline = Instant::now().checked_add(patience);
        let flights = self.flights();
        let leader = loop {
            let mut value = match flights.join((Arc::clone(&self.namespace), key.clone())) {
                Role::Leader(leader) => break leader,
                Role::Follower(value) => value,
            };
            let ended = async {
                match value.wait_for(Option::is_some).await {
                    Ok(value) => value.clone(),
                    // The leader is gone without a value.
                    Err(_) => None,
                }
            };
            let ended = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, ended).await,
                None => Ok(ended.await),
            };
            match ended {
                Ok(Some(value)) => {
                    return Ok(Filled {
                        value,
                        origin: FillOrigin::Shared,
                        store_error: None,
                    });
                }
                Ok(None) => {}
                Err(_) => {
                    let what = "value from the call that makes it";
                    let error = Error::stalled(what, patience, Repeat::Read);
                    return Err(FillError::Cache(error));
                }
            }
        };
        let found = match near {
            Some(near) => near.get(&key).await,
            None => self.get(&key).await,
        };
        if let Some(entry) = found.map_err(FillError::Cache)? {
            leader.land(&entry.value);
            return Ok(Filled {
                value: entry.value,
                origin: FillOrigin::Cache,
                store_error: None,
            });
        }
        let value: Bytes = fill().await.map_err(FillError::Fill)?.into();
        let mut options = SetOptions::new();
        if let Some(ttl) = ttl {
            options = options.ttl(ttl);
        }
        let stored = self.set(&key, value.clone(), options).await;
        // Only now: who waits may read the key next.
        leader.land(&value);
        Ok(Filled {
            value,
            origin: FillOrigin::Made,
            store_error: stored.err(),
        })
    }
}

impl Flights {
    fn join(self: &Arc<Self>, key: FlightKey) -> Role {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match flights.entry(key) {
            Slot::Occupied(flight) => Role::Follower(flight.get().clone()),
            Slot::Vacant(place) => {
                let (value, receiver) = watch::channel(None);
                let key = place.key().clone();
                place.insert(receiver);
                Role::Leader(Leader {
                    flights: Arc::clone(self),
                    key,
                    value,
                })
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().map_or(0, |flights| flights.len())
    }
}

impl Leader {
    /// Hands the value to those who wait.
    fn land(&self, value: &Bytes) {
        self.value.send_replace(Some(value.clone()));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Before the sender goes: whoever then finds no value finds no flight either, and becomes
        // the leader of another.
        let flights = self.flights.0.lock();
        flights
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

impl<E: fmt::Display> fmt::Display for FillError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cache(error) => error.fmt(f),
            Self::Fill(error) => write!(f, "the value cannot be made: {error}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for FillError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Cache(error) => Some(error),
            Self::Fill(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> FlightKey {
        (Arc::from("ns"), Bytes::from_static(b"key"))
    }

    fn leader(flights: &Arc<Flights>) -> Leader {
        match flights.join(key()) {
            Role::Leader(leader) => leader,
            Role::Follower(_) => panic!("somebody leads"),
        }
    }

    fn follower(flights: &Arc<Flights>) -> watch::Receiver<Option<Bytes>> {
        match flights.join(key()) {
            Role::Follower(value) => value,
            Role::Leader(_) => panic!("nobody leads"),
        }
    }

    #[tokio::test]
    async fn a_value_reaches_those_who_wait_also_when_its_leader_is_gone() {
        let flights = Arc::<Flights>::default();
        let leading = leader(&flights);
        let mut waiting = follower(&flights);
        leading.land(&Bytes::from_static(b"v"));
        drop(leading);
        let value = waiting.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(value, Some(Bytes::from_static(b"v")));
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn a_leader_that_is_gone_without_a_value_leaves_its_place_to_one() {
        let flights = Arc::<Flights>::default();
        let leading = leader(&flights);
        let mut waiting = follower(&flights);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _leading = leading;
            std::panic::resume_unwind(Box::new("fill"));
        }));
        assert!(panicked.is_err());
        assert!(waiting.wait_for(Option::is_some).await.is_err());
        let _leading = leader(&flights);
        follower(&flights);
    }
}
