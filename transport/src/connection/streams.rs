//! RFC 9113, section 5.1: streams, their states and identifiers.
//!
//! | state of the RFC | here |
//! |---|---|
//! | idle | an identifier above the last one |
//! | open | in the table, `remote_open` |
//! | half-closed (remote) | in the table, not `remote_open` |
//! | closed | not in the table; [`Ending`] says how, for the last few |
//!
//! Half-closed (local) lasts no longer than a call of a function: a server that
//! has answered before the request's end resets the stream (section 8.1).

use std::collections::VecDeque;
use std::time::Instant;

use super::flow_control::ReceiveWindow;

/// A stream's place in the table, good until the stream is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamKey {
    pub(crate) slot: u32,
    /// The stream's identifier: never used twice on a connection.
    pub(crate) id: u32,
}

impl StreamKey {
    /// The slot, for tables that run beside that of the streams.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.slot as usize
    }
}

/// How a closed stream came to its end (section 5.1, "closed").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Both ends said so.
    Ended,
    /// The client reset it.
    ClientReset,
    /// The server reset it: frames may still be on their way.
    ServerReset,
}

/// What comes after a stream's pending bytes.
#[derive(Debug)]
pub(super) enum Last {
    /// Nothing yet: more content may come.
    Open,
    /// The end.
    End,
    /// Trailers, encoded without the dynamic table.
    Trailers(Vec<u8>),
}

/// A stream that is open, or half-closed by the client.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) remote_open: bool,
    /// Section 5.2: what may be sent; settings can make it negative.
    pub(super) send_window: i64,
    pub(super) receive: ReceiveWindow,
    /// Section 8.1.1: content that content-length still promises.
    pub(super) promised: Option<u64>,
    /// Something had to wait since the stream was opened: only then do the
    /// fields below hold anything.
    pub(super) has_waited: bool,
    /// Content that waits for a window, from `sent` on.
    pub(super) pending: Vec<u8>,
    pub(super) sent: usize,
    pub(super) last: Last,
    /// Since when content waits and the client keeps this stream's window shut.
    pub(super) shut_since: Option<Instant>,
    /// In the queue of streams to send from.
    pub(super) queued: bool,
}

impl Stream {
    #[inline]
    pub(super) const fn unsent(&self) -> usize {
        self.pending.len() - self.sent
    }

    /// Forgets what waits. Returns how many bytes of it were not sent, and how
    /// many the buffer held.
    #[cold]
    fn forget_waiting(&mut self) -> (usize, usize) {
        let kept = (self.unsent(), self.pending.len());
        self.sent = 0;
        self.last = Last::Open;
        self.shut_since = None;
        self.queued = false;
        self.pending.clear();
        if self.pending.capacity() > KEPT_BYTES {
            self.pending = Vec::new();
        }
        self.has_waited = false;
        kept
    }
}

/// Streams that are closed and remembered. More are told apart from idle ones,
/// and not from each other.
const REMEMBERED: usize = 64;
/// A slot's buffer is kept for the next stream if it holds no more, bytes.
const KEPT_BYTES: usize = 4096;
/// No slot: the mark of a stream that is closed.
const GONE: u32 = u32::MAX;

/// All streams of a connection.
///
/// Identifiers only grow (section 5.1.1), so those of the live streams are kept
/// in order: a look-up is a binary search, and the newest and the oldest, which
/// nearly every frame is for, are tried first. A peer cannot make it slower by its
/// choice of identifiers.
pub(super) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    order: VecDeque<(u32, u32)>,
    live: usize,
    /// Streams opened so far, and those of them that both ends ended.
    opened: u64,
    succeeded: u64,
    /// The last identifier that a client used; all below are used up.
    last_id: u32,
    endings: [(u32, Ending); REMEMBERED],
    next_ending: usize,
}

impl Streams {
    pub(super) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            order: VecDeque::new(),
            live: 0,
            opened: 0,
            succeeded: 0,
            last_id: 0,
            endings: [(0, Ending::Ended); REMEMBERED],
            next_ending: 0,
        }
    }

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.live
    }

    /// Streams that were opened, that both ends ended, and that were reset.
    pub(super) const fn history(&self) -> (u64, u64, u64) {
        let closed = self.opened - self.live as u64;
        (self.opened, self.succeeded, closed - self.succeeded)
    }

    pub(super) const fn last_id(&self) -> u32 {
        self.last_id
    }

    /// Takes note of a new identifier, which is above the last.
    #[inline]
    pub(super) const fn used(&mut self, id: u32) {
        self.last_id = id;
    }

    /// Opens a stream whose identifier is above that of every other.
    #[inline]
    pub(super) fn open(
        &mut self,
        id: u32,
        remote_open: bool,
        send_window: i64,
        receive: ReceiveWindow,
        promised: Option<u64>,
    ) -> StreamKey {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.add_slot(),
        };
        let stream = &mut self.slots[slot as usize];
        stream.id = id;
        stream.remote_open = remote_open;
        stream.send_window = send_window;
        stream.receive = receive;
        stream.promised = promised;
        self.order.push_back((id, slot));
        self.live += 1;
        self.opened += 1;
        StreamKey { slot, id }
    }

    #[cold]
    fn add_slot(&mut self) -> u32 {
        self.slots.push(Stream {
            id: 0,
            remote_open: false,
            send_window: 0,
            receive: ReceiveWindow::new(0),
            promised: None,
            has_waited: false,
            pending: Vec::new(),
            sent: 0,
            last: Last::Open,
            shut_since: None,
            queued: false,
        });
        u32::try_from(self.slots.len() - 1).expect("there are fewer slots than identifiers")
    }

    /// The live stream with an identifier.
    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<StreamKey> {
        let slot = match (self.order.back(), self.order.front()) {
            (Some(&(newest, slot)), _) if newest == id => slot,
            (_, Some(&(oldest, slot))) if oldest == id => slot,
            _ => self.order[self.place(id)?].1,
        };
        (slot != GONE).then_some(StreamKey { slot, id })
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.order.binary_search_by_key(&id, |&(id, _)| id).ok()
    }

    #[inline]
    pub(super) fn at(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slots
            .get_mut(key.index())
            .filter(|stream| stream.id == key.id)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = StreamKey> {
        self.order
            .iter()
            .filter(|(_, slot)| *slot != GONE)
            .map(|&(id, slot)| StreamKey { slot, id })
    }

    /// Closes a stream. Returns how many bytes it had not sent, and how many its
    /// buffer held, if anything ever waited.
    #[inline]
    pub(super) fn close(&mut self, key: StreamKey, ending: Ending) -> Option<(usize, usize)> {
        let stream = self.at(key)?;
        stream.id = 0;
        let kept = stream.has_waited.then(|| stream.forget_waiting());
        self.free.push(key.slot);
        self.live -= 1;
        self.succeeded += u64::from(ending == Ending::Ended);
        self.remember(key.id, ending);
        self.leave_order(key.id);
        kept
    }

    /// Takes an identifier out of the order. At the ends, where nearly all
    /// streams are when they are closed, nothing is left in its place.
    #[inline]
    fn leave_order(&mut self, id: u32) {
        if self.order.back().is_some_and(|&(newest, _)| newest == id) {
            self.order.pop_back();
            while self.order.back().is_some_and(|&(_, slot)| slot == GONE) {
                self.order.pop_back();
            }
        } else if self.order.front().is_some_and(|&(oldest, _)| oldest == id) {
            self.order.pop_front();
            while self.order.front().is_some_and(|&(_, slot)| slot == GONE) {
                self.order.pop_front();
            }
        } else if let Some(place) = self.place(id) {
            self.order[place].1 = GONE;
        }
        if self.order.len() > 2 * self.live + 32 {
            self.order.retain(|&(_, slot)| slot != GONE);
        }
    }

    /// Gives the memory of closed streams back.
    pub(super) fn release(&mut self) {
        if self.live == 0 {
            self.slots = Vec::new();
            self.free = Vec::new();
            self.order = VecDeque::new();
        }
    }

    /// Takes note of how a stream that is not in the table ended.
    #[inline]
    pub(super) const fn remember(&mut self, id: u32, ending: Ending) {
        self.endings[self.next_ending] = (id, ending);
        self.next_ending = (self.next_ending + 1) % REMEMBERED;
    }

    /// A stream that was closed before is reset: by the client, which sends nothing
    /// more on it, or by the server, which may meet what was on its way. False if it
    /// is not known.
    pub(super) fn reset_after(&mut self, id: u32, ending: Ending) -> bool {
        let known = self.endings.iter_mut().find(|known| known.0 == id);
        known.map(|known| known.1 = ending).is_some()
    }

    /// How a closed stream ended, if it is among the last few.
    pub(super) fn ending(&self, id: u32) -> Option<Ending> {
        self.endings
            .iter()
            .find_map(|&(each, ending)| (each == id).then_some(ending))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn streams_are_found_until_they_are_closed() {
        let mut random = Random::new(3);
        let mut streams = Streams::new();
        let mut live: Vec<StreamKey> = Vec::new();
        let mut next = 1;
        for _ in 0..20_000 {
            if live.len() < 100 && random.below(2) == 0 {
                streams.used(next);
                live.push(streams.open(next, true, 0, ReceiveWindow::new(0), None));
                next += 2 * u32::try_from(1 + random.below(3)).unwrap();
            } else if !live.is_empty() {
                let key = live.swap_remove(random.below(live.len()));
                streams.close(key, Ending::Ended);
                assert_eq!(streams.find(key.id), None);
                assert!(streams.at(key).is_none());
                assert_eq!(streams.ending(key.id), Some(Ending::Ended));
            }
            assert_eq!(streams.len(), live.len());
            for &key in &live {
                assert_eq!(streams.find(key.id), Some(key));
            }
            assert!(streams.order.len() <= 2 * live.len() + 32);
        }
        assert!(streams.slots.len() <= 100);
    }
}
