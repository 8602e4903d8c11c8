//! The near caches of a client, and its own writes, which they must not hide.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::core::{Core, Settled, nanos};
use crate::client::Client;
use crate::error::Error;

/// A write that was given up is taken to be carried out within this time, or never, however long
/// its own was.
const MAX_DOUBT: Duration = Duration::from_secs(60 * 60);

/// The near caches of a client and its clones.
#[derive(Default)]
pub(crate) struct NearCaches {
    /// Whether there ever was one: most clients have none, and their writes look no further.
    any: AtomicBool,
    all: RwLock<Vec<Weak<Core>>>,
}

/// What a call may change.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Writes<'a> {
    /// Nothing.
    Nothing,
    /// One key.
    Key(&'a [u8]),
    /// One key of the namespace `default`, wherever the client is.
    DefaultKey(&'a [u8]),
    /// These keys, as [`Client::written_keys`] has them.
    Keys(&'a Option<Vec<Bytes>>),
    /// All keys with a prefix.
    Prefix(&'a [u8]),
    /// Whatever there is, in every namespace.
    Anything,
}

/// A write under way. Dropped before its end, as by a caller who no longer waits, it leaves a doubt
/// whether it was or will be carried out.
pub(crate) struct Writing<'a> {
    client: &'a Client,
    writes: Writes<'a>,
    is_over: bool,
}

impl NearCaches {
    pub(super) fn add(&self, core: &Arc<Core>) {
        let all = self.all.write();
        let mut all = all.unwrap_or_else(PoisonError::into_inner);
        all.retain(|core| core.strong_count() > 0);
        all.push(Arc::downgrade(core));
        self.any.store(true, Ordering::SeqCst);
    }

    fn is_empty(&self) -> bool {
        !self.any.load(Ordering::SeqCst)
    }

    fn for_each(&self, mut visit: impl FnMut(&Core)) {
        if self.is_empty() {
            return;
        }
        let all = self.all.read();
        let all = all.unwrap_or_else(PoisonError::into_inner);
        for core in all.iter().filter_map(Weak::upgrade) {
            visit(&core);
        }
    }
}

impl Client {
    /// To be held for as long as a write may be carried out, and ended with its answer.
    pub(crate) fn writing<'a>(&'a self, writes: Writes<'a>) -> Writing<'a> {
        Writing {
            client: self,
            writes,
            is_over: matches!(writes, Writes::Nothing),
        }
    }

    /// The keys of a batch, for [`Writes::Keys`]; `None` if there is no near cache yet. One that is
    /// made while the batch is under way then forgets all.
    pub(crate) fn written_keys<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Option<Vec<Bytes>> {
        let has_near = !self.channel.near.is_empty();
        has_near.then(|| keys.map(Bytes::copy_from_slice).collect())
    }
}

impl Writing<'_> {
    /// The write has ended so.
    pub(crate) fn end<T>(mut self, answer: &Result<T, Error>) {
        if !std::mem::replace(&mut self.is_over, true) {
            match answer {
                Ok(_) => self.tell(false),
                Err(error) if error.may_have_applied() => self.tell(true),
                Err(_) => {}
            }
        }
    }

    fn tell(&self, is_in_doubt: bool) {
        let doubt = self.client.timeout.min(MAX_DOUBT);
        self.client.channel.near.for_each(|core| {
            let now = core.now();
            let settled = match is_in_doubt {
                false => Settled::Yes,
                true => Settled::NotBefore(now.saturating_add(nanos(doubt))),
            };
            let is_here = core.namespace == effective(&self.client.namespace);
            match self.writes {
                Writes::Key(key) if is_here => core.forget(key, settled, now),
                Writes::DefaultKey(key) if &*core.namespace == DEFAULT => {
                    core.forget(key, settled, now);
                }
                Writes::Keys(Some(keys)) if is_here => {
                    for key in keys {
                        core.forget(key, settled, now);
                    }
                }
                Writes::Prefix(prefix) if is_here => core.forget_prefix(prefix, settled),
                Writes::Anything | Writes::Keys(None) => core.forget_prefix(b"", settled),
                _ => {}
            }
        });
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.tell(true);
        }
    }
}

/// What no name means.
const DEFAULT: &str = "default";

/// The name of a namespace, also where none was given.
pub(super) fn effective(namespace: &Arc<str>) -> Arc<str> {
    match namespace.is_empty() {
        true => DEFAULT.into(),
        false => Arc::clone(namespace),
    }
}
