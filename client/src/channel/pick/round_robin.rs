//! Round robin: each lane in its turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Lane, Pick, first_open};

#[derive(Debug)]
pub(crate) struct RoundRobin<L> {
    /// At least one.
    lanes: Vec<L>,
    next: AtomicUsize,
}

impl<L: Lane> RoundRobin<L> {
    /// `start` is random, so that clients that start together do not begin with the same server.
    /// `lanes` must not be empty.
    pub(crate) fn new(lanes: Vec<L>, start: usize) -> Self {
        Self {
            lanes,
            next: AtomicUsize::new(start),
        }
    }

    pub(super) fn pick(&self) -> Pick<'_, L> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        first_open(&self.lanes, turn % self.lanes.len())
    }
}
