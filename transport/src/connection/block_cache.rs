//! Header blocks that were seen before on a connection (RFC 7541, section 3).
//!
//! A client that calls one method again and again sends the same header block,
//! byte for byte; one that indexes its fields does so from its second call on. A
//! block that changed nothing in the dynamic table means the same for as long as
//! the table stays as it was, and for ever if it does not refer to it; it is
//! recognised by its bytes, and its parsed form used again.

use std::sync::Arc;

use crate::message::Head;

/// Blocks kept.
const BLOCKS: usize = 8;
/// A longer block is not kept, bytes: comparing it costs what it would save.
const MAX_BLOCK_BYTES: usize = 512;
/// After so many blocks that were not known, less [`HIT_WORTH`] for each that was,
/// only one of [`SELDOM`] is kept: this client does not repeat itself.
const PATIENCE: u32 = 64;
const HIT_WORTH: u32 = 4;
const SELDOM: u32 = 32;

/// For how long a block means what it meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validity {
    /// For ever: it does not refer to the dynamic table.
    Always,
    /// While the table is of this generation.
    Generation(u64),
}

struct Known<R> {
    block: Vec<u8>,
    validity: Validity,
    head: Arc<Head>,
    route: R,
}

/// The last few blocks of a connection, with what they mean.
pub(super) struct BlockCache<R> {
    known: Vec<Known<R>>,
    last: usize,
    next: usize,
    misses: u32,
    /// Blocks that were not known, for one of [`SELDOM`].
    passed_over: u32,
}

impl<R: Clone> BlockCache<R> {
    pub(super) const fn new() -> Self {
        Self {
            known: Vec::new(),
            last: 0,
            next: 0,
            misses: 0,
            passed_over: 0,
        }
    }

    /// What a block means in a given generation of the dynamic table.
    #[inline]
    pub(super) fn find(&mut self, block: &[u8], generation: u64) -> Option<(Arc<Head>, R)> {
        let is = |known: &Known<R>| {
            known.block == block
                && match known.validity {
                    Validity::Always => true,
                    Validity::Generation(then) => then == generation,
                }
        };
        let index = match self.known.get(self.last) {
            Some(known) if is(known) => self.last,
            _ => self.known.iter().position(is)?,
        };
        self.last = index;
        // A client that seldom repeats itself does so by chance.
        self.misses = self.misses.saturating_sub(HIT_WORTH);
        let known = &self.known[index];
        Some((Arc::clone(&known.head), known.route.clone()))
    }

    /// Keeps what a block means.
    pub(super) fn keep(&mut self, block: &[u8], validity: Validity, head: &Arc<Head>, route: &R) {
        self.misses = (self.misses + 1).min(2 * PATIENCE);
        self.passed_over = self.passed_over.wrapping_add(1);
        let seldom = self.misses > PATIENCE && !self.passed_over.is_multiple_of(SELDOM);
        if block.len() > MAX_BLOCK_BYTES || seldom {
            return;
        }
        let head = Arc::clone(head);
        let route = route.clone();
        if self.known.len() < BLOCKS {
            let block = block.to_vec();
            self.known.push(Known {
                block,
                validity,
                head,
                route,
            });
            return;
        }
        // A block of a table that is no more makes way first.
        let stale = |known: &Known<R>| match (known.validity, validity) {
            (Validity::Generation(then), Validity::Generation(now)) => then != now,
            _ => false,
        };
        let place = self.known.iter().position(stale).unwrap_or(self.next);
        let known = &mut self.known[place];
        known.block.clear();
        known.block.extend_from_slice(block);
        known.validity = validity;
        known.head = head;
        known.route = route;
        if place == self.next {
            self.next = (self.next + 1) % BLOCKS;
        }
    }
}
