//! RFC 9113, sections 5.2, 6.1 and 6.9: what is sent, as far as windows and the
//! socket let it through.

use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::assembly::{Flag, PREFIX_BYTES, write_prefix};
use super::calls::{Key, Place};
use super::core::{Core, TOO_LONG};
use super::failed::Failed;
use super::head::RequestHead;
use crate::error_codes::ErrorCode;
use crate::frame::flag::{END_HEADERS, END_STREAM};
use crate::frame::{FrameHead, Kind, begin_frame, end_frame};

/// What a stream may have unsent before whoever sends on it has to wait, bytes.
const MAX_UNSENT_BYTES: usize = 64 << 10;

impl Core {
    /// Gives what is to leave to whoever writes it, in exchange for an empty buffer, and
    /// fills that with what had no room: whoever takes it has to come again.
    pub(super) fn take_output(&mut self, writing: &mut Vec<u8>, now: Instant) {
        if self.out.is_empty() {
            return;
        }
        std::mem::swap(writing, &mut self.out);
        if !self.blocked.is_empty() {
            self.send_blocked();
        }
        if self.waiting_calls > 0 {
            self.send_waiting(now);
        }
        self.calls_driver = false;
    }

    /// Section 6.2, and 6.10 for a head that does not fit a frame.
    #[inline]
    pub(super) fn write_head(&mut self, stream: u32, head: &RequestHead, left: Option<Duration>) {
        let start = begin_frame(&mut self.out);
        self.heads.write(head, left, &mut self.out);
        let bytes = self.out.len() - start - FrameHead::BYTES;
        let max = self.peer.max_frame_bytes as usize;
        if bytes <= max {
            end_frame(&mut self.out, start, Kind::HEADERS, END_HEADERS, stream);
            return;
        }
        let block = self.out.split_off(start + FrameHead::BYTES);
        self.out.truncate(start);
        let parts = block.chunks(max);
        let last = parts.len() - 1;
        for (at, part) in parts.enumerate() {
            let start = begin_frame(&mut self.out);
            self.out.extend_from_slice(part);
            let kind = if at == 0 {
                Kind::HEADERS
            } else {
                Kind::CONTINUATION
            };
            let flags = if at == last { END_HEADERS } else { 0 };
            end_frame(&mut self.out, start, kind, flags, stream);
        }
    }

    /// Writes the one message of a call that has just been opened: into the output,
    /// if the windows are open, without a copy.
    #[inline]
    pub(super) fn send_whole(&mut self, key: Key, flag: Flag, message: impl FnOnce(&mut Vec<u8>)) {
        let start = begin_frame(&mut self.out);
        let content = self.out.len();
        self.out.extend_from_slice(&[0; PREFIX_BYTES]);
        message(&mut self.out);
        let fits = write_prefix(&mut self.out, content, flag);
        let bytes = self.out.len() - content;
        let Some(call) = self.calls.at(key) else {
            return;
        };
        let window = call.send_window.min(self.send_window);
        if fits && bytes <= self.peer.max_frame_bytes as usize && signed(bytes) <= window {
            call.send_window -= signed(bytes);
            self.send_window -= signed(bytes);
            call.sending.is_done = true;
            let stream = call.stream;
            end_frame(&mut self.out, start, Kind::DATA, END_STREAM, stream);
            self.activity.messages_sent += 1;
            return;
        }
        call.sending.bytes = self.out.split_off(content);
        call.sending.is_last = true;
        self.out.truncate(start);
        if fits {
            self.send_more(key);
        } else {
            self.reset(key, ErrorCode::CANCEL, Failed::Protocol(TOO_LONG));
        }
    }

    /// Sends as much of a request as may be sent. What may not stands in the queue.
    pub(super) fn send_more(&mut self, key: Key) {
        let Some(call) = self.calls.at(key) else {
            return;
        };
        if call.place() != Place::Open || call.sending.is_done {
            return;
        }
        let stream = call.stream;
        loop {
            let left = call.sending.len();
            if left == 0 && !call.sending.is_last {
                break;
            }
            let room = usize::try_from(call.send_window.min(self.send_window)).unwrap_or(0);
            let part = left.min(room).min(self.peer.max_frame_bytes as usize);
            let is_full = self.out.len() >= self.config.max_output_bytes;
            // The end alone needs no window (section 6.9.1).
            if is_full || (part == 0 && left > 0) {
                if !call.sending.is_blocked {
                    call.sending.is_blocked = true;
                    self.blocked.push_back(key);
                }
                break;
            }
            let start = begin_frame(&mut self.out);
            let from = call.sending.from;
            self.out
                .extend_from_slice(&call.sending.bytes[from..from + part]);
            call.sending.from += part;
            call.send_window -= signed(part);
            self.send_window -= signed(part);
            let ends = call.sending.is_last && part == left;
            let flags = if ends { END_STREAM } else { 0 };
            end_frame(&mut self.out, start, Kind::DATA, flags, stream);
            self.calls_driver = true;
            if ends {
                call.sending.is_done = true;
                break;
            }
        }
        if call.sending.len() == 0 {
            if call.sending.from > 0 {
                self.activity.messages_sent += 1;
            }
            call.sending.clear();
        }
        if call.sending.len() < MAX_UNSENT_BYTES {
            self.wake.extend(call.writer.take());
        }
    }

    /// Something has opened: those that wait go on, in their order.
    pub(super) fn send_blocked(&mut self) {
        for _ in 0..self.blocked.len() {
            if self.out.len() >= self.config.max_output_bytes {
                return;
            }
            let Some(key) = self.blocked.pop_front() else {
                return;
            };
            if let Some(call) = self.calls.at(key) {
                call.sending.is_blocked = false;
                self.send_more(key);
            }
        }
    }

    /// Whether a stream can take a message to send.
    pub(super) fn poll_sendable(&mut self, key: Key, waker: &Waker) -> Poll<Result<(), Ended>> {
        let is_full = self.out.len() >= self.config.max_output_bytes;
        let Some(call) = self.calls.at(key) else {
            return Poll::Ready(Err(Ended));
        };
        if call.place() == Place::Ended || call.sending.is_last || call.sending.is_done {
            return Poll::Ready(Err(Ended));
        }
        let is_waiting = call.waiting.is_some();
        if call.sending.len() < MAX_UNSENT_BYTES && (!is_full || is_waiting) {
            return Poll::Ready(Ok(()));
        }
        set(&mut call.writer, waker);
        if !call.sending.is_blocked && !is_waiting {
            call.sending.is_blocked = true;
            self.blocked.push_back(key);
        }
        Poll::Pending
    }

    /// Takes a message to send.
    pub(super) fn send(&mut self, key: Key, flag: Flag, message: impl FnOnce(&mut Vec<u8>)) {
        let Some(call) = self.calls.at(key) else {
            return;
        };
        call.sending.compact();
        let start = call.sending.bytes.len();
        call.sending.bytes.extend_from_slice(&[0; PREFIX_BYTES]);
        message(&mut call.sending.bytes);
        if write_prefix(&mut call.sending.bytes, start, flag) {
            self.send_more(key);
        } else {
            self.reset(key, ErrorCode::CANCEL, Failed::Protocol(TOO_LONG));
        }
    }

    /// No more messages are to be sent on a stream.
    pub(super) fn send_end(&mut self, key: Key) {
        if let Some(call) = self.calls.at(key) {
            call.sending.is_last = true;
            self.send_more(key);
        }
    }
}

/// A stream takes no more: it has ended, or its sender has said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended;

/// Remembers whom to wake, and clones it only if it is another.
#[inline]
pub(super) fn set(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(known) if known.will_wake(waker) => {}
        _ => *place = Some(waker.clone()),
    }
}

fn signed(bytes: usize) -> i64 {
    // No frame is longer than 2^24.
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
