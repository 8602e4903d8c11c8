//! Connections that have not made a request yet: they share a pool of their
//! own, so that those who only connect take nobody else's place.
//!
//! One more than the pool holds closes the oldest of them: a client that means
//! to make a request has made it long before its turn comes.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Sleep;

/// What became of a connection in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its first request came.
    Proven,
    /// It was the oldest when one more came.
    Evicted,
}

/// The connections without a request, of all threads.
#[derive(Debug)]
pub(super) struct Pool {
    most: usize,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    next: u64,
    /// By their age: the first is the oldest.
    waiting: BTreeMap<u64, oneshot::Sender<Verdict>>,
}

impl Pool {
    /// A pool of `most` connections, at least one.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            members: Mutex::default(),
        })
    }

    /// A new connection; the oldest leaves if there are too many.
    pub(super) fn enter(self: &Arc<Self>) -> (Proof, oneshot::Receiver<Verdict>) {
        let (sender, verdict) = oneshot::channel();
        let mut members = self.members();
        let number = members.next;
        members.next += 1;
        members.waiting.insert(number, sender);
        let oldest = match members.waiting.len() > self.most {
            true => members.waiting.pop_first(),
            false => None,
        };
        drop(members);
        if let Some((_, oldest)) = oldest {
            // It may have ended just now.
            let _ = oldest.send(Verdict::Evicted);
        }
        let place = Place {
            pool: Arc::clone(self),
            number,
        };
        let proof = Proof {
            place: Some(place),
            given: AtomicBool::new(false),
        };
        (proof, verdict)
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        // Nothing panics while it is locked.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Place {
    pool: Arc<Pool>,
    number: u64,
}

impl Place {
    fn leave(&self) -> Option<oneshot::Sender<Verdict>> {
        self.pool.members().waiting.remove(&self.number)
    }
}

impl Drop for Place {
    /// The connection has ended.
    fn drop(&mut self) {
        self.leave();
    }
}

/// A connection's place among those that have made no request yet.
///
/// [`Self::proven`] is to be called with the first whole request. Until then the
/// connection may be closed: when [`Config::max_unproven_connections`] newer
/// ones came, or [`Times::first_request`] is over. Dropped before, it leaves the
/// latter as it is.
///
/// [`Config::max_unproven_connections`]: super::Config::max_unproven_connections
/// [`Times::first_request`]: crate::limits::Times::first_request
#[derive(Debug)]
pub struct Proof {
    place: Option<Place>,
    given: AtomicBool,
}

impl Proof {
    /// A proof for a connection that is in no pool, as in a test.
    #[must_use]
    pub const fn of_nothing() -> Self {
        Self {
            place: None,
            given: AtomicBool::new(false),
        }
    }

    /// A whole request came: the connection leaves the pool, and may stay. Takes
    /// a lock the first time, and has no effect again.
    pub fn proven(&self) {
        if self.given.load(Ordering::Relaxed) || self.given.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(place) = &self.place
            && let Some(sender) = place.leave()
        {
            // The connection may have ended just now.
            let _ = sender.send(Verdict::Proven);
        }
    }

    /// True once [`Self::proven`] was called.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.given.load(Ordering::Relaxed)
    }
}

/// What a connection waits for as long as it has made no request.
pub(super) struct Unproven {
    /// `None`: nobody will say anything any more.
    verdict: Option<oneshot::Receiver<Verdict>>,
    /// Boxed: most connections are rid of it soon.
    until: Pin<Box<Sleep>>,
}

/// Why a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// None: it has made a request.
    Proven,
    /// It was the oldest when one more came.
    Evicted,
    /// It made no request in time.
    TooLate,
}

impl Unproven {
    pub(super) fn new(verdict: oneshot::Receiver<Verdict>, time: Duration) -> Self {
        Self {
            verdict: Some(verdict),
            until: Box::pin(tokio::time::sleep(time)),
        }
    }

    /// Ready at most once.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Fate> {
        if let Some(verdict) = &mut self.verdict
            && let Poll::Ready(verdict) = Pin::new(verdict).poll(cx)
        {
            self.verdict = None;
            match verdict {
                Ok(Verdict::Proven) => return Poll::Ready(Fate::Proven),
                Ok(Verdict::Evicted) => return Poll::Ready(Fate::Evicted),
                Err(_) => {}
            }
        }
        self.until.as_mut().poll(cx).map(|()| Fate::TooLate)
    }
}
