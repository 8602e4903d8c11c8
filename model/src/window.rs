//! The window in which a request id is known: claims, outcomes, and their end.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::once::{Fingerprint, OnceError, ReplayUse, Request};
use crate::time::Time;

pub use saved::{Remembered, WindowPlace};

/// What was claimed and recorded for the request ids of one account.
///
/// An id is claimed before its write begins, and gets its outcome after, so that
/// a second copy of a request never runs beside the first. A write that fails, or
/// is given up, [abandons](Self::abandon) its claim: only outcomes are kept.
///
/// A claim costs two allocations, and about 300 bytes until it is forgotten;
/// everything else is a look-up. `T` is what a write comes to.
#[derive(Debug)]
pub struct Window<T> {
    known: HashMap<Arc<str>, Known<T>>,
    /// Ids with outcomes, the oldest first; each once.
    settled: VecDeque<Arc<str>>,
    /// Ids that were taken from the front of those.
    gone: u64,
    /// Outcomes that were recorded or put back.
    changes: u64,
    /// Claims and outcomes of all ids.
    entries: usize,
    forgotten_early: u64,
    lasts: Duration,
    max_entries: usize,
}

#[derive(Debug)]
struct Known<T> {
    fingerprint: Fingerprint,
    /// When its outcomes are forgotten; `None` while it has none.
    until: Option<Time>,
    /// The writes of the request, by number.
    items: Vec<(u32, State<T>)>,
}

#[derive(Debug)]
enum State<T> {
    Pending,
    Done(T),
}

/// Outcome of [`Window::claim`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Claimed<T> {
    /// The write is the caller's to carry out, and then to
    /// [record](Window::record) or [abandon](Window::abandon).
    New,
    /// It was carried out before, and came to this.
    Known(T),
}

impl<T: Clone> Window<T> {
    /// A window in which an outcome lasts for `lasts`, with room for
    /// `max_entries` claims and outcomes, at least one. Allocates nothing.
    pub fn new(lasts: Duration, max_entries: usize) -> Self {
        Self {
            known: HashMap::new(),
            settled: VecDeque::new(),
            gone: 0,
            changes: 0,
            entries: 0,
            forgotten_early: 0,
            lasts,
            max_entries: max_entries.max(1),
        }
    }

    /// What is known of a write, if anything is.
    ///
    /// # Errors
    /// [`OnceError::Reused`] or [`OnceError::InProgress`].
    pub fn look(&self, now: Time, request: Request<'_>) -> Result<Option<T>, OnceError> {
        let Some(known) = self.known.get(request.id.as_str()) else {
            return Ok(None);
        };
        let is_over = known.is_over(now);
        if is_over && !known.is_pending() {
            return Ok(None);
        }
        if known.fingerprint != request.fingerprint {
            return Err(OnceError::Reused);
        }
        match known.place(request.item) {
            Ok(at) => match &known.items[at].1 {
                State::Pending => Err(OnceError::InProgress),
                State::Done(_) if is_over => Ok(None),
                State::Done(outcome) => Ok(Some(outcome.clone())),
            },
            Err(_) => Ok(None),
        }
    }

    /// Claims a write, unless it is known. Forgets what is over, and at the limit
    /// the oldest outcome.
    ///
    /// # Errors
    /// As [`look`](Self::look), and [`OnceError::Full`] while every entry is a
    /// claim.
    pub fn claim(&mut self, now: Time, request: Request<'_>) -> Result<Claimed<T>, OnceError> {
        self.expire(now);
        if let Some(outcome) = self.look(now, request)? {
            return Ok(Claimed::Known(outcome));
        }
        while self.entries >= self.max_entries {
            if !self.forget_oldest() {
                return Err(OnceError::Full);
            }
        }
        let id = request.id.as_str();
        if !self.known.contains_key(id) {
            let known = Known {
                fingerprint: request.fingerprint,
                until: None,
                items: Vec::with_capacity(1),
            };
            self.known.insert(id.into(), known);
        }
        if let Some(known) = self.known.get_mut(id)
            && let Err(at) = known.place(request.item)
        {
            known.items.insert(at, (request.item, State::Pending));
            self.entries += 1;
        }
        Ok(Claimed::New)
    }

    /// Records the outcome of a write that was claimed.
    pub fn record(&mut self, now: Time, request: Request<'_>, outcome: T) {
        // Or it would count among the earlier ones of its request that are over.
        self.expire(now);
        let Some((id, _)) = self.known.get_key_value(request.id.as_str()) else {
            return;
        };
        let id = Arc::clone(id);
        let until = self.end_of(now);
        let Some(known) = self.known.get_mut(&id) else {
            return;
        };
        if let Ok(at) = known.place(request.item) {
            known.items[at].1 = State::Done(outcome);
            self.changes += 1;
        }
        if known.until.is_none() {
            known.until = Some(until);
            self.settled.push_back(id);
        }
    }

    /// When what is recorded now is forgotten.
    fn end_of(&self, now: Time) -> Time {
        let lasts_ms = u64::try_from(self.lasts.as_millis()).unwrap_or(u64::MAX);
        Time::from_millis(now.as_millis().saturating_add(lasts_ms))
    }

    /// Gives a claim back: the write came to nothing that is kept.
    pub fn abandon(&mut self, request: Request<'_>) {
        let Some(known) = self.known.get_mut(request.id.as_str()) else {
            return;
        };
        if let Ok(at) = known.place(request.item)
            && matches!(known.items[at].1, State::Pending)
        {
            known.items.remove(at);
            self.entries -= 1;
        }
        if known.items.is_empty() {
            self.known.remove(request.id.as_str());
        }
    }

    /// Forgets the outcomes whose time is over.
    pub fn expire(&mut self, now: Time) {
        while let Some(id) = self.settled.front() {
            if !self.known.get(id).is_some_and(|known| known.is_over(now)) {
                return;
            }
            self.pop_settled();
        }
    }

    /// Forgets the outcomes of the `ids` oldest ids before their time.
    pub fn shrink(&mut self, ids: usize) {
        for _ in 0..ids {
            if !self.forget_oldest() {
                return;
            }
        }
    }

    /// How often an outcome came in. What is forgotten does not count.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Ids that have outcomes.
    pub fn settled(&self) -> usize {
        self.settled.len()
    }

    /// Claims and outcomes.
    pub const fn len(&self) -> usize {
        self.entries
    }

    /// True if there is neither claim nor outcome.
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// What it holds at `now`, and how much it has lost. Looks at every id.
    pub fn usage(&self, now: Time) -> ReplayUse {
        let live = |known: &Known<T>| {
            let is_over = known.is_over(now);
            let states = known.items.iter().map(|(_, state)| state);
            states
                .filter(|it| !is_over || matches!(it, State::Pending))
                .count() as u64
        };
        ReplayUse {
            recorded: self.known.values().map(live).sum(),
            forgotten_early: self.forgotten_early,
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let forgotten = self.pop_settled();
        self.forgotten_early += forgotten as u64;
        forgotten > 0
    }

    /// Forgets the outcomes of the oldest id, and says how many they were. Claims
    /// of it stay.
    fn pop_settled(&mut self) -> usize {
        let Some(id) = self.settled.pop_front() else {
            return 0;
        };
        self.gone += 1;
        let Some(known) = self.known.get_mut(&id) else {
            return 0;
        };
        let before = known.items.len();
        known.items.retain(|(_, it)| matches!(it, State::Pending));
        known.until = None;
        let forgotten = before - known.items.len();
        self.entries -= forgotten;
        if known.items.is_empty() {
            self.known.remove(&id);
        }
        forgotten
    }
}

impl<T> Known<T> {
    fn place(&self, item: u32) -> Result<usize, usize> {
        // The items of a batch come in their order.
        if self.items.last().is_none_or(|(last, _)| *last < item) {
            return Err(self.items.len());
        }
        self.items
            .binary_search_by_key(&item, |(number, _)| *number)
    }

    fn is_over(&self, now: Time) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    fn is_pending(&self) -> bool {
        let mut states = self.items.iter();
        states.any(|(_, state)| matches!(state, State::Pending))
    }
}

mod saved;
#[cfg(test)]
mod tests;
