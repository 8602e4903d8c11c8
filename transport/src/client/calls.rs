//! RFC 9113, section 5.1: the calls of a connection, by the slot that their callers
//! hold and by the stream that frames name.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Instant;

use super::answer::Trailers;
use super::assembly::{Assembly, Encoding, Message};
use super::failed::Failed;
use super::head::RequestHead;
use crate::connection::ReceiveWindow;
use crate::hpack::Fields;

/// Messages that a slot keeps room for: a stream may have had many more at a time.
const KEPT_MESSAGES: usize = 4;

/// A caller's hold on its call. Good until the call is freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    slot: u32,
    /// How often the slot was used before.
    turn: u32,
}

/// Whether a call is for one message each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Unary,
    Stream,
}

/// A call, from its beginning until nobody asks for it any more.
pub(super) struct Call {
    turn: u32,
    /// 0: it has none yet, or none any more.
    pub(super) stream: u32,
    pub(super) shape: Shape,
    /// Who asks for what comes.
    pub(super) reader: Option<Waker>,
    /// Who waits to send.
    pub(super) writer: Option<Waker>,
    pub(super) deadline: Option<Instant>,
    /// Section 5.2: what may be sent; settings can make it negative.
    pub(super) send_window: i64,
    pub(super) receive: ReceiveWindow,
    /// Bytes that came and are not to be counted as read before their messages are.
    pub(super) uncredited: u32,
    pub(super) sending: Unsent,
    /// A head that waits for a stream.
    pub(super) waiting: Option<RequestHead>,
    /// The answer's head came.
    pub(super) has_head: bool,
    pub(super) headers: Fields,
    /// What they say of compressed messages.
    pub(super) encoding: Encoding,
    pub(super) assembly: Assembly,
    pub(super) messages: VecDeque<Message>,
    /// How it ended.
    pub(super) end: Option<Result<Trailers, Failed>>,
    /// Its caller was woken for its end, and has not come for it.
    pub(super) is_told: bool,
    /// Those who hold it: two halves of a stream, or one caller.
    pub(super) holders: u8,
}

/// What is to be sent of a request, and has not been.
#[derive(Default)]
pub(super) struct Unsent {
    pub(super) bytes: Vec<u8>,
    pub(super) from: usize,
    /// The stream ends after it.
    pub(super) is_last: bool,
    /// The end has been sent.
    pub(super) is_done: bool,
    /// It stands in the queue of those that wait for a window.
    pub(super) is_blocked: bool,
}

impl Unsent {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.from
    }

    /// Makes room before more is added: what has been sent is kept no longer than it is as much
    /// as what has not, so that each byte is moved once at the most.
    pub(super) fn compact(&mut self) {
        if self.from > self.len() {
            self.bytes.drain(..self.from);
            self.from = 0;
        }
    }

    /// Forgets what is not sent, and holds no memory for it.
    pub(super) fn clear(&mut self) {
        self.bytes = Vec::new();
        self.from = 0;
    }
}

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It waits for a stream.
    Waiting,
    /// It has one.
    Open,
    /// It has ended.
    Ended,
}

impl Call {
    pub(super) const fn place(&self) -> Place {
        match (&self.end, self.stream) {
            (Some(_), _) => Place::Ended,
            (None, 0) => Place::Waiting,
            (None, _) => Place::Open,
        }
    }

    /// Ends it, and gives out those who wait for that.
    pub(super) fn finish(&mut self, end: Result<Trailers, Failed>, wake: &mut Vec<Waker>) {
        self.stream = 0;
        self.end = Some(end);
        self.waiting = None;
        self.sending.clear();
        self.is_told = self.reader.is_some();
        wake.extend(self.reader.take());
        wake.extend(self.writer.take());
    }
}

/// All calls of a connection.
///
/// Streams are numbered as they are opened, so those that are open are kept in order:
/// a look-up is a binary search, and the oldest and the newest, which most frames are
/// for, are tried first.
#[derive(Default)]
pub(super) struct Calls {
    slots: Vec<Call>,
    free: Vec<u32>,
    /// Streams that are open, and the slots of their calls.
    order: VecDeque<(u32, u32)>,
}

impl Calls {
    /// Streams that are open.
    pub(super) fn open(&self) -> usize {
        self.order.len()
    }

    /// Calls that somebody holds.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn held(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Messages that slots have room for.
    #[cfg(test)]
    pub(super) fn room_for_messages(&self) -> usize {
        self.slots.iter().map(|call| call.messages.capacity()).sum()
    }

    /// A call that has no stream yet.
    pub(super) fn begin(
        &mut self,
        shape: Shape,
        deadline: Option<Instant>,
        receive: ReceiveWindow,
        encoding: Encoding,
    ) -> Key {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Call::empty(receive));
            // Bounded by what may wait and what may be open.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let call = &mut self.slots[slot as usize];
        call.shape = shape;
        call.deadline = deadline;
        call.receive = receive;
        call.encoding = encoding;
        call.holders = match shape {
            Shape::Unary => 1,
            Shape::Stream => 2,
        };
        Key {
            slot,
            turn: call.turn,
        }
    }

    /// Gives a call the next stream.
    #[inline]
    pub(super) fn open_stream(&mut self, key: Key, stream: u32, window: u32) {
        if let Some(call) = self.at(key) {
            call.stream = stream;
            call.send_window = window.into();
            self.order.push_back((stream, key.slot));
        }
    }

    #[inline]
    pub(super) fn at(&mut self, key: Key) -> Option<&mut Call> {
        let call = self.slots.get_mut(key.slot as usize)?;
        (call.turn == key.turn).then_some(call)
    }

    /// The call of a stream that is open.
    #[inline]
    pub(super) fn find(&mut self, stream: u32) -> Option<(Key, &mut Call)> {
        let place = self.place(stream)?;
        let slot = self.order[place].1;
        let call = self.slots.get_mut(slot as usize)?;
        let turn = call.turn;
        Some((Key { slot, turn }, call))
    }

    #[inline]
    fn place(&self, stream: u32) -> Option<usize> {
        let is_it = |end: Option<&(u32, u32)>| end.is_some_and(|&(id, _)| id == stream);
        if is_it(self.order.front()) {
            return Some(0);
        }
        if is_it(self.order.back()) {
            return Some(self.order.len() - 1);
        }
        self.order.binary_search_by_key(&stream, |&(id, _)| id).ok()
    }

    /// A stream is open no more.
    #[inline]
    pub(super) fn close_stream(&mut self, stream: u32) {
        match self.place(stream) {
            Some(0) => drop(self.order.pop_front()),
            Some(place) => drop(self.order.remove(place)),
            None => {}
        }
    }

    /// Nobody asks for a call any more. Its stream is closed.
    pub(super) fn free(&mut self, key: Key) {
        let Some(call) = self.at(key) else {
            return;
        };
        call.turn = call.turn.wrapping_add(1);
        call.stream = 0;
        call.reader = None;
        call.writer = None;
        call.uncredited = 0;
        call.sending = Unsent::default();
        call.waiting = None;
        call.has_head = false;
        if !call.headers.is_empty() {
            call.headers = Fields::default();
        }
        call.assembly.clear();
        // The memory of a few stays: the next call has a message too.
        call.messages.clear();
        call.messages.shrink_to(KEPT_MESSAGES);
        call.end = None;
        call.is_told = false;
        self.free.push(key.slot);
    }

    /// Every call that somebody holds.
    pub(super) fn all(&mut self) -> impl Iterator<Item = (Key, &mut Call)> {
        self.slots.iter_mut().zip(0..).filter_map(|(call, slot)| {
            let turn = call.turn;
            (call.holders > 0).then_some((Key { slot, turn }, call))
        })
    }

    /// Every stream that is open.
    pub(super) fn streams(&self) -> impl Iterator<Item = u32> {
        self.order.iter().map(|&(stream, _)| stream)
    }
}

impl Call {
    fn empty(receive: ReceiveWindow) -> Self {
        Self {
            turn: 0,
            stream: 0,
            shape: Shape::Unary,
            reader: None,
            writer: None,
            deadline: None,
            send_window: 0,
            receive,
            uncredited: 0,
            sending: Unsent::default(),
            waiting: None,
            has_head: false,
            headers: Fields::default(),
            encoding: Encoding::Unasked,
            assembly: Assembly::default(),
            messages: VecDeque::new(),
            end: None,
            is_told: false,
            holders: 0,
        }
    }
}
