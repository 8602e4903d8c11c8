//! Doubly linked rings of slots, by number.

use std::marker::PhantomData;

use super::slab::{Links, NIL, Slab, Slot};

/// Which links of a slot a ring uses.
pub(crate) trait Via {
    fn links(slot: &Slot) -> Links;
    fn links_mut(slot: &mut Slot) -> &mut Links;
}

/// The policy's links.
#[derive(Debug)]
pub(crate) struct ByQueue;

impl Via for ByQueue {
    fn links(slot: &Slot) -> Links {
        slot.queue
    }

    fn links_mut(slot: &mut Slot) -> &mut Links {
        &mut slot.queue
    }
}

/// The wheel's links.
#[derive(Debug)]
pub(crate) struct ByTimer;

impl Via for ByTimer {
    fn links(slot: &Slot) -> Links {
        slot.timer
    }

    fn links_mut(slot: &mut Slot) -> &mut Links {
        &mut slot.timer
    }
}

/// A ring; it knows its head, and the head's `prev` is its tail, so it takes
/// four bytes.
#[derive(Debug)]
pub(crate) struct Ring<V> {
    head: u32,
    via: PhantomData<V>,
}

impl<V: Via> Ring<V> {
    pub(crate) const EMPTY: Self = Self {
        head: NIL,
        via: PhantomData,
    };

    pub(crate) const fn is_empty(&self) -> bool {
        self.head == NIL
    }

    pub(crate) fn head(&self) -> Option<u32> {
        (!self.is_empty()).then_some(self.head)
    }

    pub(crate) fn tail(&self, slab: &Slab) -> Option<u32> {
        self.head().map(|head| V::links(&slab[head]).prev)
    }

    pub(crate) fn push_front(&mut self, slab: &mut Slab, at: u32) {
        if let Some(tail) = self.tail(slab) {
            *V::links_mut(&mut slab[at]) = Links {
                prev: tail,
                next: self.head,
            };
            V::links_mut(&mut slab[tail]).next = at;
            V::links_mut(&mut slab[self.head]).prev = at;
        } else {
            *V::links_mut(&mut slab[at]) = Links { prev: at, next: at };
        }
        self.head = at;
    }

    pub(crate) fn remove(&mut self, slab: &mut Slab, at: u32) {
        let Links { prev, next } = V::links(&slab[at]);
        if next == at {
            self.head = NIL;
            return;
        }
        V::links_mut(&mut slab[prev]).next = next;
        V::links_mut(&mut slab[next]).prev = prev;
        if self.head == at {
            self.head = next;
        }
    }

    /// Makes the tail the head.
    pub(crate) fn rotate(&mut self, slab: &Slab) {
        if let Some(tail) = self.tail(slab) {
            self.head = tail;
        }
    }

    /// The slots from head to tail, having checked that each neighbour points
    /// back.
    pub(crate) fn checked(&self, slab: &Slab) -> Result<Vec<u32>, String> {
        let mut seen = Vec::new();
        let Some(head) = self.head() else {
            return Ok(seen);
        };
        let mut at = head;
        loop {
            let slot = slab
                .entry(at)
                .ok_or(format!("slot {at} in a ring is free"))?;
            let next = V::links(slot).next;
            seen.push(at);
            let back = slab.entry(next).map(|slot| V::links(slot).prev);
            if back != Some(at) {
                return Err(format!("slot {next} does not point back to {at}"));
            }
            if seen.len() > slab.live() as usize {
                return Err("a ring is longer than the slab".to_owned());
            }
            if next == head {
                return Ok(seen);
            }
            at = next;
        }
    }
}
