//! Gets that are asked for at the same time, put together into batches.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use larder_api::errors::Code;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{Error, Repeat};
use crate::types::Entry;

/// Most keys of a batch, if nothing else is said: small enough to be answered at once.
const DEFAULT_MAX_KEYS: usize = 100;

/// A client that makes one `BatchGet` of the gets that are asked for at the same time: see
/// [`Client::batched`]. Cloning it is cheap, and clones share their batches.
#[derive(Clone)]
pub struct Batched(Arc<Inner>);

struct Inner {
    client: Client,
    max_keys: usize,
    open: Mutex<Batch>,
}

/// Who waits for which key.
type Batch = HashMap<Bytes, Vec<Waiter>>;

type Waiter = oneshot::Sender<Result<Option<Entry>, Error>>;

impl Client {
    /// A client whose gets are put together: those that are asked for before the runtime comes to
    /// its next task leave as one `BatchGet`, at once when there are 100 of them. A get that is
    /// alone is sent as a plain `Get`. Good where many tasks get at a time; costs a task for each
    /// batch, and a turn of the runtime for each get.
    pub fn batched(&self) -> Batched {
        Batched::new(self.clone(), DEFAULT_MAX_KEYS)
    }
}

impl Batched {
    fn new(client: Client, max_keys: usize) -> Self {
        Self(Arc::new(Inner {
            client,
            max_keys,
            open: Mutex::default(),
        }))
    }

    /// The same, with another number of keys at most in a batch: 1 to what the server allows, which
    /// is 1,000 by default. Batches are its own.
    #[must_use]
    pub fn with_max_keys(&self, keys: usize) -> Self {
        Self::new(self.0.client.clone(), keys.max(1))
    }

    /// Reads one entry; `None` if there is none. Must be called inside a `tokio` runtime.
    ///
    /// It has the client's time from now on, whatever its batch takes, and can be dropped without
    /// harm to the others. A key that the server refuses fails alone.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>, Error> {
        let patience = self.0.client.timeout;
        let deadline = Instant::now().checked_add(patience);
        let answer = self.join(Bytes::copy_from_slice(key.as_ref()));
        let answer = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, answer)
                .await
                .map_err(|_| {
                    Error::stalled("answer to a get in a batch", patience, Repeat::Read)
                })?,
            None => answer.await,
        };
        // The task of the batch ends early only with its runtime.
        answer.unwrap_or_else(|_| Err(Error::stalled("runtime", patience, Repeat::Read)))
    }

    /// Adds a key to the batch that is open, and sees to it that it leaves.
    fn join(&self, key: Bytes) -> oneshot::Receiver<Result<Option<Entry>, Error>> {
        let (waiter, answer) = oneshot::channel();
        let mut open = self.open();
        let is_first = open.is_empty();
        open.entry(key).or_default().push(waiter);
        let full = (open.len() >= self.0.max_keys).then(|| std::mem::take(&mut *open));
        drop(open);
        match full {
            Some(batch) => {
                tokio::spawn(self.clone().send(batch));
            }
            None if is_first => {
                let this = self.clone();
                tokio::spawn(async move {
                    // Whoever is ready to run before this task asks in the same batch.
                    tokio::task::yield_now().await;
                    let batch = std::mem::take(&mut *this.open());
                    this.send(batch).await;
                });
            }
            None => {}
        }
        answer
    }

    async fn send(self, mut batch: Batch) {
        batch.retain(|_, waiters| waiters.iter().any(|waiter| !waiter.is_closed()));
        let (keys, waiters): (Vec<Bytes>, Vec<_>) = batch.into_iter().unzip();
        match keys.as_slice() {
            [] => {}
            [key] => {
                let answer = self.0.client.get(key).await;
                waiters.into_iter().for_each(|all| tell(all, &answer));
            }
            _ => match self.0.client.batch_get(&keys).await {
                Ok(entries) => {
                    for (waiters, entry) in waiters.into_iter().zip(entries) {
                        tell(waiters, &Ok(entry));
                    }
                }
                // A bad key fails the batch: then each shows whether it is that one.
                Err(error) if error.code() == Code::InvalidArgument => {
                    for (key, waiters) in keys.into_iter().zip(waiters) {
                        let client = self.0.client.clone();
                        tokio::spawn(async move { tell(waiters, &client.get(key).await) });
                    }
                }
                Err(error) => waiters
                    .into_iter()
                    .for_each(|all| tell(all, &Err(error.clone()))),
            },
        }
    }

    fn open(&self) -> MutexGuard<'_, Batch> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Batched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batched")
            .field("client", &self.0.client)
            .field("max_keys", &self.0.max_keys)
            .finish_non_exhaustive()
    }
}

fn tell(waiters: Vec<Waiter>, answer: &Result<Option<Entry>, Error>) {
    for waiter in waiters {
        // One that was dropped needs no answer.
        let _ = waiter.send(answer.clone());
    }
}
