//! Header blocks that were seen before on a connection (RFC 7541, section 3).
//!
//! A client that calls one method again and again sends the same header block,
//! byte for byte; one that indexes its fields does so from its second call on. A
//! block that changed nothing in the dynamic table means the same for as long as
//! the table stays as it was, and for ever if it does not refer to it; it is
//! recognised by its bytes, and its parsed form used again. One that differs in a
//! deadline or a trace has the [`Pattern`] of one before, and is read by it.

use std::sync::Arc;

use crate::hpack::{Changes, Decoder, Pattern};
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
    /// It changed the table: its bytes mean something else the next time.
    Never,
}

/// A block, and what it means.
pub(super) struct Known<R> {
    pub(super) block: Vec<u8>,
    pub(super) validity: Validity,
    pub(super) pattern: Option<Pattern>,
    pub(super) head: Arc<Head>,
    pub(super) route: R,
}

impl<R> Known<R> {
    #[inline]
    fn is(&self, block: &[u8], generation: u64) -> bool {
        self.block == block
            && match self.validity {
                Validity::Always => true,
                Validity::Generation(then) => then == generation,
                Validity::Never => false,
            }
    }
}

/// How a block is known.
pub(super) enum Found<'a, R> {
    /// It means the same as one before.
    Same(Arc<Head>, R),
    /// It differs in values: its fields were read into a head, which is to be
    /// checked by that of the one before.
    Like(&'a Known<R>, &'a Changes),
}

/// The last few blocks of a connection, with what they mean.
pub(super) struct BlockCache<R> {
    known: Vec<Known<R>>,
    last: usize,
    next: usize,
    misses: u32,
    /// Blocks that were not known, for one of [`SELDOM`].
    passed_over: u32,
    changes: Changes,
}

impl<R: Clone> BlockCache<R> {
    pub(super) fn new() -> Self {
        Self {
            known: Vec::new(),
            last: 0,
            next: 0,
            misses: 0,
            passed_over: 0,
            changes: Changes::default(),
        }
    }

    /// What a block means that is the same as the last.
    #[inline]
    pub(super) fn same(&mut self, block: &[u8], generation: u64) -> Option<(Arc<Head>, R)> {
        let known = self.known.get(self.last)?;
        if !known.is(block, generation) {
            return None;
        }
        self.misses = self.misses.saturating_sub(HIT_WORTH);
        Some((Arc::clone(&known.head), known.route.clone()))
    }

    /// What a block means that is not the [`same`](Self::same) as the last. If it is
    /// like one before, it is decoded into `head`; else the decoder's table is as it
    /// was.
    #[inline]
    pub(super) fn find(
        &mut self,
        block: &[u8],
        decoder: &mut Decoder,
        head: &mut Head,
        max_list_bytes: usize,
    ) -> Option<Found<'_, R>> {
        if block.len() > 2 * MAX_BLOCK_BYTES {
            return None;
        }
        let generation = decoder.generation();
        let changes = &mut self.changes;
        let mut is_like = |known: &Known<R>| {
            let like = (known.pattern.as_ref()?, &known.head.fields);
            decoder.decode_like(block, like, changes, &mut head.fields, max_list_bytes)
        };
        let mut is_same = false;
        if self.known.get(self.last).and_then(&mut is_like).is_none() {
            let last = self.last;
            let others = self.known.iter().enumerate();
            let mut others = others.filter(|&(index, _)| index != last);
            (self.last, is_same) = others.find_map(|(index, known)| {
                let is_same = known.is(block, generation);
                (is_same || is_like(known).is_some()).then_some((index, is_same))
            })?;
        }
        // A client that seldom repeats itself does so by chance.
        self.misses = self.misses.saturating_sub(HIT_WORTH);
        let known = &self.known[self.last];
        Some(match is_same {
            true => Found::Same(Arc::clone(&known.head), known.route.clone()),
            false => Found::Like(known, &self.changes),
        })
    }

    /// Whether a block that was not known is worth being kept.
    pub(super) fn wants(&mut self, block: &[u8]) -> bool {
        self.misses = (self.misses + 1).min(2 * PATIENCE);
        self.passed_over = self.passed_over.wrapping_add(1);
        let seldom = self.misses > PATIENCE && !self.passed_over.is_multiple_of(SELDOM);
        block.len() <= MAX_BLOCK_BYTES && !seldom
    }

    /// Keeps what a block means.
    pub(super) fn keep(&mut self, new: Known<R>) {
        if self.known.len() < BLOCKS {
            self.last = self.known.len();
            self.known.push(new);
            return;
        }
        // A block of a table that is no more makes way first.
        let stale = |known: &Known<R>| match (known.validity, new.validity) {
            (Validity::Generation(then), Validity::Generation(now)) => then != now,
            _ => false,
        };
        let place = self.known.iter().position(stale).unwrap_or(self.next);
        self.known[place] = new;
        self.last = place;
        if place == self.next {
            self.next = (self.next + 1) % BLOCKS;
        }
    }
}
